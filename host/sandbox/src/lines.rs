//! Cuts what a function writes into lines.

use crate::MAX_LOG_LINE_BYTES;

/// Collects bytes until a line is complete.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes; gives each line that they complete to `take`. Lines that are too long are cut.
    pub fn push(&mut self, bytes: &[u8], take: &mut impl FnMut(String)) {
        let mut pieces = bytes.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let mut rest = piece;
            while self.partial.len() + rest.len() > MAX_LOG_LINE_BYTES {
                let (head, tail) = rest.split_at(MAX_LOG_LINE_BYTES - self.partial.len());
                self.partial.extend_from_slice(head);
                self.flush(take);
                rest = tail;
            }
            self.partial.extend_from_slice(rest);
            if pieces.peek().is_some() {
                self.take_text(take);
            }
        }
    }

    /// Gives an incomplete line to `take`.
    pub fn flush(&mut self, take: &mut impl FnMut(String)) {
        if !self.partial.is_empty() {
            self.take_text(take);
        }
    }

    /// Gives what was collected to `take`: one line, or several if it is too long once bytes that are no text are
    /// replaced, each by three.
    fn take_text(&mut self, take: &mut impl FnMut(String)) {
        let text = String::from_utf8_lossy(&self.partial);
        let mut rest = text.trim_end_matches('\r');
        while rest.len() > MAX_LOG_LINE_BYTES {
            // A character has at most four bytes.
            let cut = (0..=MAX_LOG_LINE_BYTES)
                .rev()
                .find(|&at| rest.is_char_boundary(at));
            let (line, more) = rest.split_at(cut.unwrap_or(0));
            take(line.to_owned());
            rest = more;
        }
        take(rest.to_owned());
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        for part in parts {
            lines.push(part, &mut |line| all.push(line));
        }
        lines.flush(&mut |line| all.push(line));
        all
    }

    #[test]
    fn lines_are_joined_across_packets() {
        assert_eq!(
            lines(&[b"on", b"e\ntw", b"o\r\n", b"\nlast"]),
            ["one", "two", "", "last"]
        );
        assert_eq!(lines(&[b""]), Vec::<String>::new());
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; MAX_LOG_LINE_BYTES * 2 + 5];
        let lengths: Vec<_> = lines(&[&long, b"\n"]).iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LOG_LINE_BYTES, MAX_LOG_LINE_BYTES, 5]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
        let long = vec![0xff; MAX_LOG_LINE_BYTES + 1];
        let all = lines(&[&long, b"\n"]);
        assert!(all.iter().all(|line| line.len() <= MAX_LOG_LINE_BYTES));
        assert_eq!(all.concat(), "\u{fffd}".repeat(long.len()));
    }
}
