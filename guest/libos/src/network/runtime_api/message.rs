//! HTTP/1.1 as far as messages are passed on: where a head ends, what it says, and where the body ends. Pure.
//!
//! Bodies go through as they are, pieces of chunked ones included: [`Framing`] only watches for the end.
//!
//! ```text
//!   Size ──> Extension ──> SizeEnd ──> Data ──> DataCr ──> DataLf ──> Size ...
//!                             └─ size 0 ──> Trailer (the start of a line) ──> TrailerLine ──> TrailerEnd ──> Trailer ...
//!                                              └─ empty line ──> LastLf ──> Done
//! ```

use alloc::vec::Vec;

use crate::text::text;

/// Longest head, in bytes.
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest extension of a chunk or line of a trailer, in bytes.
const LINE_BYTES_MAX: u32 = 32 << 10;
const END: &[u8] = b"\r\n\r\n";

/// Something that is no HTTP/1.1, or none that is served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) method: &'a [u8],
    /// The path, without a query.
    pub(super) path: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
    /// How many bytes it takes.
    pub(super) length: usize,
}

impl<'a> Head<'a> {
    /// The head that `bytes` begin with; none if it is not all there.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(end) = find(bytes, END) else {
            return match bytes.len() > HEAD_BYTES_MAX {
                true => Err(Malformed),
                false => Ok(None),
            };
        };
        if end > HEAD_BYTES_MAX {
            return Err(Malformed);
        }
        let mut lines = Lines(&bytes[..end]);
        let mut words = lines.next().ok_or(Malformed)?.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Malformed);
        };
        if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(Malformed);
        }
        let path = target.split(|&byte| byte == b'?').next().unwrap_or(target);
        let mut fields = Vec::new();
        for line in lines {
            let colon = line.iter().position(|&byte| byte == b':').ok_or(Malformed)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let is_clean = value
                .iter()
                .all(|&byte| byte == b'\t' || byte >= b' ' && byte != 0x7f);
            if !is_token(name) || !is_clean {
                return Err(Malformed);
            }
            fields.push((name, value));
        }
        Ok(Some(Self {
            method,
            path,
            fields,
            length: end + END.len(),
        }))
    }

    /// The values of a field, in order.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| field.0.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.1)
    }

    /// The first value of a field.
    pub(super) fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Whether a field whose value is a list names this.
    pub(super) fn lists(&self, name: &str, item: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
    }

    /// The fields that `is_wanted` of their names in lower case, each in a line.
    pub(super) fn lines(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, value) in &self.fields {
            let name = name.to_ascii_lowercase();
            if is_wanted(&name) {
                for part in [&name[..], b": ", value, b"\r\n"] {
                    lines.extend_from_slice(part);
                }
            }
        }
        lines
    }

    /// How the body ends.
    pub(super) fn framing(&self) -> Result<Framing, Malformed> {
        let mut codings = self.values("transfer-encoding");
        if let Some(coding) = codings.next() {
            let is_alone = codings.next().is_none() && self.value("content-length").is_none();
            return match is_alone && coding.eq_ignore_ascii_case(b"chunked") {
                true => Ok(Framing::Chunked(Chunked::Size(None))),
                false => Err(Malformed),
            };
        }
        let mut length = None;
        for value in self.values("content-length") {
            let number = decimal(value).ok_or(Malformed)?;
            if *length.get_or_insert(number) != number {
                return Err(Malformed);
            }
        }
        Ok(Framing::Length(length.unwrap_or(0)))
    }
}

/// Lines that end with CR LF, or with the bytes.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = find(self.0, b"\r\n");
        let line = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = end.map_or(&[], |end| &self.0[end + 2..]);
        Some(line)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn is_token(bytes: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_part)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| {
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    })
}

/// What of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

/// Where a chunked body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the size of a chunk; none before its first digit.
    Size(Option<u64>),
    /// In what comes after the size.
    Extension {
        size: u64,
        length: u32,
    },
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line of the trailer.
    Trailer,
    TrailerLine(u32),
    TrailerEnd,
    LastLf,
    Done,
}

impl Framing {
    /// Whether nothing of the body is to come.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::Done))
    }

    /// The line of a head that announces such a body.
    pub(super) fn line(self) -> Vec<u8> {
        match self {
            Self::Length(length) => text!("content-length: {length}\r\n").into_bytes(),
            Self::Chunked(_) => b"transfer-encoding: chunked\r\n".to_vec(),
        }
    }

    /// How many of these bytes, which come next, belong to the body.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let count = (bytes.len() as u64).min(*left);
                *left -= count;
                Ok(count as usize)
            }
            Self::Chunked(state) => {
                let mut done = 0;
                while done < bytes.len() && *state != Chunked::Done {
                    if let Chunked::Data(left) = state {
                        let count = ((bytes.len() - done) as u64).min(*left);
                        done += count as usize;
                        *state = match *left - count {
                            0 => Chunked::DataCr,
                            left => Chunked::Data(left),
                        };
                    } else {
                        *state = state.after(bytes[done])?;
                        done += 1;
                    }
                }
                Ok(done)
            }
        }
    }
}

impl Chunked {
    /// The state after a byte that is no data.
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                let size = size.unwrap_or(0);
                if size >> 52 != 0 {
                    return Err(Malformed);
                }
                Self::Size(Some(size << 4 | u64::from(digit)))
            }
            (Self::Size(Some(size)), b';' | b' ' | b'\t') => Self::Extension { size, length: 0 },
            (Self::Size(Some(size)), b'\r') | (Self::Extension { size, .. }, b'\r') => Self::SizeEnd(size),
            (Self::Extension { size, length }, byte) if byte != b'\n' && length < LINE_BYTES_MAX => {
                Self::Extension {
                    size,
                    length: length + 1,
                }
            }
            (Self::SizeEnd(0), b'\n') => Self::Trailer,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(None),
            (Self::Trailer, b'\r') => Self::LastLf,
            (Self::Trailer, byte) if byte != b'\n' => Self::TrailerLine(1),
            (Self::TrailerLine(_), b'\r') => Self::TrailerEnd,
            (Self::TrailerLine(length), byte) if byte != b'\n' && length < LINE_BYTES_MAX => {
                Self::TrailerLine(length + 1)
            }
            (Self::TrailerEnd, b'\n') => Self::Trailer,
            (Self::LastLf, b'\n') => Self::Done,
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read() {
        let bytes = b"POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nContent-Length:  5 \r\n\r\nhello";
        let head = Head::parse(bytes).unwrap().unwrap();
        assert_eq!((head.method, head.path), (&b"POST"[..], &b"/a/b"[..]));
        assert_eq!(&bytes[head.length..], b"hello");
        assert_eq!(head.value("content-LENGTH"), Some(&b"5"[..]));
        assert_eq!(head.value("x-empty"), Some(&b""[..]));
        assert_eq!(head.framing(), Ok(Framing::Length(5)));
        assert_eq!(head.lines(|name| name == b"host"), b"host: x\r\n");
        for end in 0..head.length {
            assert_eq!(Head::parse(&bytes[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for bad in [
            &b"GET /\r\n\r\n"[..],
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET /a b HTTP/1.1\r\n\r\n",
            b"G(T / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
            b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
            b"\r\n\r\n",
        ] {
            assert_eq!(Head::parse(bad), Err(Malformed), "{}", bad.escape_ascii());
        }
        assert_eq!(Head::parse(&[b'a'; HEAD_BYTES_MAX]), Ok(None));
        assert_eq!(Head::parse(&[b'a'; HEAD_BYTES_MAX + 1]), Err(Malformed));
    }

    #[test]
    fn bodies_whose_end_is_not_clear_are_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: -1",
            "Content-Length: 5, 5",
            "Content-Length: 1234567890123456789",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
        ] {
            let bytes = text!("POST / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
            let head = Head::parse(&bytes).unwrap().unwrap();
            assert_eq!(head.framing(), Err(Malformed), "{fields}");
        }
    }

    #[test]
    fn damaged_chunks_are_refused() {
        for bad in [
            &b"x"[..],
            b"\r\n",
            b"5\n",
            b"2\r\nabc\r\n",
            b"0\r\n\n",
            b"fffffffffffffffff\r\n",
            b"1 \n",
        ] {
            let mut framing = Framing::Chunked(Chunked::Size(None));
            assert_eq!(framing.take(bad), Err(Malformed), "{}", bad.escape_ascii());
        }
    }

    /// A chunked body of these chunks.
    fn chunked(chunks: &[Vec<u8>], trailer: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for chunk in chunks {
            body.extend(text!("{:X};a=b\r\n", chunk.len()).into_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n");
        body.extend_from_slice(trailer.as_bytes());
        body.extend_from_slice(b"\r\n");
        body
    }

    proptest! {
        #[test]
        fn the_end_of_a_body_is_found_however_it_comes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            has_trailer in any::<bool>(),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            step in 1_usize..17,
        ) {
            let body = chunked(&chunks, if has_trailer { "A: b\r\nC: d\r\n" } else { "" });
            let mut all = body.clone();
            all.extend(&rest);
            for mut framing in [Framing::Chunked(Chunked::Size(None)), Framing::Length(body.len() as u64)] {
                let mut taken = 0;
                while !framing.is_over() {
                    let part = &all[taken..(taken + step).min(all.len())];
                    let count = framing.take(part).unwrap();
                    prop_assert!(count > 0);
                    taken += count;
                }
                prop_assert_eq!(taken, body.len());
                prop_assert_eq!(framing.take(&rest), Ok(0));
            }
        }

        #[test]
        fn nothing_upsets_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(head)) = Head::parse(&bytes) {
                prop_assert!(head.length <= bytes.len());
                let _ = head.framing();
            }
            let mut framing = Framing::Chunked(Chunked::Size(None));
            if let Ok(count) = framing.take(&bytes) {
                prop_assert!(count <= bytes.len());
            }
        }
    }
}
