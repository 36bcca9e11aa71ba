//! Reads a layer: a tar archive, plain or compressed by gzip, which may be hostile.
//!
//! The `tar` crate reads headers. Extensions (long names, PAX records) are read here, with bounds, since the crate
//! takes as much memory for them as the archive says.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType, Header, PaxExtensions};

/// Longest path and longest link, in bytes, as in Linux.
pub(crate) const PATH_BYTES_MAX: usize = 4095;
/// Longest PAX records of an entry, in bytes.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Bytes of headers and padding for each entry that a layer may have, for the bound on the stream as a whole.
const OVERHEAD_BYTES: u64 = 4096;

/// An entry without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    /// Target of a link; empty for other entries.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    /// Time of modification, in seconds since 1970.
    pub(crate) modified_s: i64,
    pub(crate) modified_ns: u32,
    pub(crate) bytes: u64,
}

/// What all layers of an image may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Names and times that apply to the next entry instead of those in its header.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    modified: Option<(i64, u32)>,
    bytes: Option<u64>,
}

/// Hands each entry with its content to `visit`.
pub(crate) fn read<E: From<io::Error>>(
    reader: impl Read + Seek,
    bounds: Bounds,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = open(reader, bounds)?;
    let mut overrides = Overrides::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => overrides.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => overrides.link = Some(long_name(&mut entry)?),
            EntryType::XHeader => overrides.take_records(&extension(&mut entry, EXTENSION_BYTES_MAX)?)?,
            // Says nothing that matters here.
            EntryType::XGlobalHeader => {}
            EntryType::GNUSparse => return Err(unsupported("it holds a sparse file").into()),
            _ => {
                let described = describe(entry.header(), std::mem::take(&mut overrides))?;
                visit(described, &mut entry)?;
            }
        }
    }
    Ok(())
}

/// The archive in a layer, whichever way it is compressed; the magic number tells, since media types lie.
fn open<'a>(mut reader: impl Read + Seek + 'a, bounds: Bounds) -> io::Result<Archive<Box<dyn Read + 'a>>> {
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    reader.seek(SeekFrom::Start(0))?;
    let content: Box<dyn Read + 'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::new(reader))),
        [0x28, 0xb5, 0x2f, 0xfd] => return Err(unsupported("it is compressed with zstd")),
        _ => Box::new(BufReader::new(reader)),
    };
    // A bound on the stream too: headers, extensions and padding are not part of any entry's size.
    let limit = bounds
        .bytes
        .saturating_add(bounds.entries.saturating_mul(OVERHEAD_BYTES));
    Ok(Archive::new(Box::new(content.take(limit))))
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn extension(entry: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(invalid("a name or extension is too long"));
    }
    Ok(bytes)
}

fn long_name(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = extension(entry, PATH_BYTES_MAX as u64 + 1)?;
    if let Some(end) = name.iter().position(|&byte| byte == 0) {
        name.truncate(end);
    }
    Ok(name)
}

fn describe(header: &Header, overrides: Overrides) -> io::Result<Entry> {
    let bytes = header.entry_size()?;
    if overrides.bytes.is_some_and(|other| other != bytes) {
        return Err(unsupported(
            "it holds a file whose header does not tell its length",
        ));
    }
    let (modified_s, modified_ns) = match overrides.modified {
        Some(time) => time,
        None => (i64::try_from(header.mtime()?).unwrap_or(i64::MAX), 0),
    };
    let link = || header.link_name_bytes().map(|link| link.into_owned());
    let entry = Entry {
        path: overrides.path.unwrap_or_else(|| header.path_bytes().into_owned()),
        link: overrides.link.or_else(link).unwrap_or_default(),
        kind: header.entry_type(),
        mode: header.mode()?,
        modified_s,
        modified_ns,
        bytes,
    };
    if entry.path.len() > PATH_BYTES_MAX || entry.link.len() > PATH_BYTES_MAX {
        return Err(invalid("a path is too long"));
    }
    Ok(entry)
}

impl Overrides {
    fn take_records(&mut self, records: &[u8]) -> io::Result<()> {
        for record in PaxExtensions::new(records) {
            let record = record?;
            let value = record.value_bytes();
            let text = || std::str::from_utf8(value).map_err(|_| invalid("a PAX record is no text"));
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"mtime" => self.modified = Some(parse_time(text()?)?),
                b"size" => {
                    let bytes = text()?
                        .parse()
                        .map_err(|_| invalid("a PAX record has no length"))?;
                    self.bytes = Some(bytes);
                }
                key if key.starts_with(b"GNU.sparse") => return Err(unsupported("it holds a sparse file")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Seconds since 1970 with a fraction.
fn parse_time(text: &str) -> io::Result<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = seconds.parse().map_err(|_| invalid("a PAX record has no time"))?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds = digits.parse().map_err(|_| invalid("a PAX record has no time"))?;
    Ok((seconds, nanoseconds))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Cursor, Write};

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        entries: 1000,
        bytes: 1 << 20,
    };

    /// A header as it is in an archive, with whatever path: the library refuses to write some.
    pub(crate) fn header(path: &str, kind: EntryType, link: &str, bytes: u64) -> Header {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(7);
        header.set_size(bytes);
        header.set_cksum();
        header
    }

    /// An archive of these entries: path, kind, and content or link.
    pub(crate) fn archive(entries: &[(&str, EntryType, &str)]) -> Cursor<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let (link, data) = if is_link { (*content, "") } else { ("", *content) };
            let header = header(path, *kind, link, data.len() as u64);
            builder
                .append(&header, data.as_bytes())
                .expect("writes to memory");
        }
        Cursor::new(builder.into_inner().expect("writes to memory"))
    }

    fn entries(reader: impl Read + Seek) -> io::Result<Vec<(Entry, String)>> {
        let mut all = Vec::new();
        read(reader, BOUNDS, |entry, content| -> io::Result<()> {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            all.push((entry, text));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn compressed_and_plain_archives_are_read() {
        let plain = archive(&[
            ("./function", EntryType::Regular, "code"),
            ("l", EntryType::Symlink, "/x"),
        ]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain.get_ref()).expect("writes to memory");
        let compressed = Cursor::new(encoder.finish().expect("writes to memory"));
        let all = entries(plain).expect("reads");
        assert_eq!(all, entries(compressed).expect("reads"));
        let (entry, content) = &all[0];
        assert_eq!(
            (&*entry.path, &**content, entry.mode),
            (&b"./function"[..], "code", 0o644)
        );
        assert_eq!((entry.modified_s, entry.modified_ns), (7, 0));
        assert_eq!(all[1].0.link, b"/x");
    }

    #[test]
    fn extensions_apply_to_the_next_entry_only() {
        let long = format!("{}/f", "d".repeat(200));
        let records = format!("29 mtime=1700000000.12345678\n{} path={long}\n", long.len() + 10);
        let all = entries(archive(&[
            ("x", EntryType::XHeader, &records),
            ("short", EntryType::Regular, "1"),
            ("n", EntryType::GNULongName, &format!("{long}\0")),
            ("k", EntryType::GNULongLink, "target\0"),
            ("short", EntryType::Symlink, "t"),
            ("plain", EntryType::Regular, "2"),
        ]));
        let all = all.expect("reads");
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].0.path, long.as_bytes());
        assert_eq!(
            (all[0].0.modified_s, all[0].0.modified_ns),
            (1_700_000_000, 123_456_780)
        );
        assert_eq!(
            (&*all[1].0.path, &*all[1].0.link),
            (long.as_bytes(), &b"target"[..])
        );
        assert_eq!(all[2].0.path, b"plain");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (name, content) in [
            ("gzip", vec![0x1f, 0x8b, 1, 2, 3]),
            ("zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0]),
            ("text", vec![b'x'; 600]),
        ] {
            assert!(entries(Cursor::new(content)).is_err(), "{name}");
        }
        for (name, entry) in [
            ("sparse", ("s", EntryType::GNUSparse, "")),
            ("PAX sparse", ("x", EntryType::XHeader, "22 GNU.sparse.major=1\n")),
            ("name", ("n", EntryType::GNULongName, &*"n".repeat(5000))),
            ("records", ("x", EntryType::XHeader, &*"x".repeat(2 << 20))),
        ] {
            let large = Bounds {
                bytes: 1 << 30,
                ..BOUNDS
            };
            let all = read(archive(&[entry]), large, |_, _| Ok::<(), io::Error>(()));
            assert!(all.is_err(), "{name}");
        }
    }

    #[test]
    fn a_stream_that_never_ends_is_cut() {
        // One byte of an archive for each kilobyte of it: extensions that no entry follows.
        let records = " ".repeat(1 << 19);
        let mut plain = Vec::new();
        for _ in 0..64 {
            let archive = archive(&[("g", EntryType::XGlobalHeader, &records)]).into_inner();
            plain.extend_from_slice(&archive[..512 + records.len()]);
        }
        assert!(plain.len() as u64 > BOUNDS.bytes + BOUNDS.entries * OVERHEAD_BYTES);
        assert!(entries(Cursor::new(plain)).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = entries(Cursor::new(bytes));
        }

        #[test]
        fn damaged_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Overrides::default().take_records(&bytes);
        }
    }
}
