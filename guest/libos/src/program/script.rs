//! Scripts: files that begin with `#!` and name the program that runs them.

use alloc::vec::Vec;

/// How much of a file is looked at, as on Linux (`BINPRM_BUF_SIZE`).
pub(crate) const HEAD_BYTES: usize = 256;

/// What the first line of a script says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Path of the interpreter.
    pub(crate) interpreter: Vec<u8>,
    /// What follows it, as one argument.
    pub(crate) argument: Option<Vec<u8>>,
}

/// Reads the first line of a script from the first [`HEAD_BYTES`] bytes of a file (or all, if there are fewer). `None`
/// if the file is no script; an error if it is one that cannot be run.
pub(crate) fn parse(head: &[u8]) -> Option<Result<Script, ()>> {
    let line = head.strip_prefix(b"#!")?;
    Some(parse_line(line, head.len() < HEAD_BYTES))
}

fn parse_line(line: &[u8], is_all: bool) -> Result<Script, ()> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let end = line.iter().position(|&byte| byte == b'\n' || byte == 0);
    let text = &line[..end.unwrap_or(line.len())];
    let start = text.iter().position(|byte| !is_blank(byte)).ok_or(())?;
    let text = &text[start..];
    let name_end = text.iter().position(is_blank);
    // Without the end of the line, the path is whole only if something follows it.
    if end.is_none() && !is_all && name_end.is_none() {
        return Err(());
    }
    let (interpreter, rest) = text.split_at(name_end.unwrap_or(text.len()));
    let first = rest.iter().position(|byte| !is_blank(byte));
    let argument = first.and_then(|first| {
        let last = rest.iter().rposition(|byte| !is_blank(byte))?;
        Some(rest[first..=last].to_vec())
    });
    Ok(Script {
        interpreter: interpreter.to_vec(),
        argument,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn script(interpreter: &[u8], argument: Option<&[u8]>) -> Option<Result<Script, ()>> {
        Some(Ok(Script {
            interpreter: interpreter.to_vec(),
            argument: argument.map(<[u8]>::to_vec),
        }))
    }

    #[test]
    fn the_first_line_is_read_as_linux_reads_it() {
        assert_eq!(parse(b"#!/bin/sh\nexit"), script(b"/bin/sh", None));
        assert_eq!(parse(b"#! \t/bin/sh -e x  \n"), script(b"/bin/sh", Some(b"-e x")));
        assert_eq!(parse(b"#!/bin/sh"), script(b"/bin/sh", None));
        assert_eq!(parse(b"#!\n"), Some(Err(())));
        assert_eq!(parse(b"#!   "), Some(Err(())));
        assert_eq!(parse(b"\x7fELF"), None);
        let mut long = [b'x'; HEAD_BYTES];
        long[..3].copy_from_slice(b"#!/");
        assert_eq!(parse(&long), Some(Err(())));
        long[200] = b' ';
        assert!(matches!(parse(&long), Some(Ok(Script { interpreter, .. })) if interpreter.len() == 198));
    }

    proptest! {
        #[test]
        fn whatever_it_says_nothing_breaks(line in prop::collection::vec(prop::sample::select(b"#! \t\n\0/ab".to_vec()), 0..300)) {
            let mut file = b"#!".to_vec();
            file.extend(line);
            file.truncate(HEAD_BYTES);
            if let Some(Ok(script)) = parse(&file) {
                prop_assert!(!script.interpreter.is_empty());
                prop_assert!(script.argument.is_none_or(|argument| !argument.is_empty()));
            }
        }
    }
}
