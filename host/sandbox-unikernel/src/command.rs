//! What the library OS reads on a command's stream before the command does.

use std::io;

use spore_abi::command;
use spore_sandbox::VARIABLES_BYTES_MAX;

const _: () = assert!(VARIABLES_BYTES_MAX == command::VARIABLES_BYTES_MAX);

/// The variables of an invocation, as a guest reads them.
pub(crate) fn preamble(variables: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; command::PREAMBLE_HEADER_BYTES];
    for (name, value) in variables {
        let is_sound = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains(&0);
        if !is_sound {
            return Err(io::Error::other(format!("{name:?} cannot be a variable")));
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    let length = bytes.len() - command::PREAMBLE_HEADER_BYTES;
    if length > VARIABLES_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the variables take {length} bytes, more than {VARIABLES_BYTES_MAX}"
        )));
    }
    bytes[..command::PREAMBLE_HEADER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_a_guest_could_not_read_are_refused() {
        let of = |name: &str, value: &[u8]| preamble(&[(name.to_owned(), value.to_vec())]);
        assert_eq!(of("A", b"=1").unwrap(), b"\x05\0\0\0A==1\0");
        assert_eq!(preamble(&[]).unwrap(), [0; 4]);
        for (name, value) in [("", &b"1"[..]), ("A=", b"1"), ("A\0", b""), ("A", b"\0")] {
            assert!(of(name, value).is_err(), "{name:?} {value:?}");
        }
        assert!(of("A", &vec![b'x'; VARIABLES_BYTES_MAX - 3]).is_ok());
        assert!(of("A", &vec![b'x'; VARIABLES_BYTES_MAX - 2]).is_err());
    }
}
