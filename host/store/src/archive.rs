//! Reads a layer: a tar archive, plain or compressed by gzip or zstd, which may be hostile.
//!
//! The `tar` crate reads headers. Extensions (long names, PAX records) are read here, with bounds, since the crate
//! takes as much memory for them as the archive says.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tar::{Archive, EntryType, Header, PaxExtensions};

/// Longest path and longest link, in bytes, as in Linux.
pub(crate) const PATH_BYTES_MAX: usize = 4095;
/// An archive consists of blocks of this length.
const BLOCK_BYTES: u64 = 512;
/// As much of a path is shown, in bytes.
const SHOWN_BYTES: usize = 500;
/// Longest PAX records of an entry, in bytes.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Most memory that a zstd frame may ask for, in bytes, as the `zstd` command allows.
const ZSTD_WINDOW_BYTES_MAX: u64 = 128 << 20;
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

/// An entry of an archive that is no layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Its path, as it is written.
    pub path: Vec<u8>,
    /// Where it leads, if it is a link.
    pub link: Option<Vec<u8>>,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it is another name of an entry before it.
    pub is_hard_link: bool,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// What an archive of images may hold.
const ARCHIVE_BOUNDS: Bounds = Bounds {
    entries: 10_000,
    bytes: 16 << 30,
};

/// Reads an archive of images, plain or compressed, and hands each entry with its content to `visit`.
///
/// # Errors
///
/// If it is no archive, or a damaged one, or holds too much; or what `visit` fails with.
pub fn read_archive(
    reader: impl Read + Seek,
    mut visit: impl FnMut(&ArchiveEntry, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = ARCHIVE_BOUNDS;
    read(reader, ARCHIVE_BOUNDS, |entry, content| {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "it holds too many or too long files");
        left.entries = left.entries.checked_sub(1).ok_or_else(too_large)?;
        left.bytes = left.bytes.checked_sub(entry.bytes).ok_or_else(too_large)?;
        let is_link = matches!(entry.kind, EntryType::Link | EntryType::Symlink);
        let entry = ArchiveEntry {
            path: entry.path,
            link: is_link.then_some(entry.link),
            is_file: matches!(entry.kind, EntryType::Regular | EntryType::Continuous),
            is_hard_link: entry.kind == EntryType::Link,
            bytes: entry.bytes,
        };
        visit(&entry, content)
    })
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
    /// In one of the ways that GNU's tar has for files with holes.
    is_sparse: bool,
}

/// Hands each entry with its content to `visit`.
pub(crate) fn read<E: From<io::Error>>(
    reader: impl Read + Seek,
    bounds: Bounds,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let end = Rc::new(Cell::new(None));
    let mut archive = open(reader, bounds, end.clone())?;
    let mut overrides = Overrides::default();
    let mut content_end = 0;
    for entry in archive.entries()?.raw(true) {
        let is_padding_missing =
            |end: u64| end >= content_end && end < content_end.next_multiple_of(BLOCK_BYTES);
        let mut entry = match entry {
            // Some tools (umoci's insert) write nothing after the last content. All of it is there.
            Err(_) if end.get().is_some_and(is_padding_missing) => break,
            entry => entry?,
        };
        content_end = entry.raw_file_position().saturating_add(entry.size());
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => overrides.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => overrides.link = Some(long_name(&mut entry)?),
            EntryType::XHeader => overrides.take_records(&extension(&mut entry, EXTENSION_BYTES_MAX)?)?,
            // Says nothing that matters here.
            EntryType::XGlobalHeader => {}
            _ => {
                let described = describe(entry.header(), std::mem::take(&mut overrides))?;
                visit(described, &mut entry)?;
            }
        }
    }
    Ok(())
}

/// The archive in a layer, whichever way it is compressed; the magic number tells, since media types lie.
fn open<'a>(
    mut reader: impl Read + Seek + 'a,
    bounds: Bounds,
    end: Rc<Cell<Option<u64>>>,
) -> io::Result<Archive<Box<dyn Read + 'a>>> {
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    reader.seek(SeekFrom::Start(0))?;
    let content: Box<dyn Read + 'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::new(reader))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(ZstdFrames::new(BufReader::new(reader))),
        // A frame that holds no content; compressors put notes there.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(ZstdFrames::new(BufReader::new(reader))),
        _ => Box::new(BufReader::new(reader)),
    };
    // A bound on the stream too: headers, extensions and padding are not part of any entry's size.
    let limit_bytes = bounds
        .bytes
        .saturating_add(bounds.entries.saturating_mul(OVERHEAD_BYTES));
    Ok(Archive::new(Box::new(Bounded {
        content,
        limit_bytes,
        read_bytes: 0,
        end,
    })))
}

/// A stream that fails when it goes on after its limit, and tells where it ended.
struct Bounded<R> {
    content: R,
    limit_bytes: u64,
    read_bytes: u64,
    end: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.content.read(buffer)?;
        self.read_bytes += length as u64;
        if self.read_bytes > self.limit_bytes {
            let text = format!("it unpacks to more than {} bytes", self.limit_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        if length == 0 && !buffer.is_empty() {
            self.end.set(Some(self.read_bytes));
        }
        Ok(length)
    }
}

/// The content of all frames of a zstd stream, one after the other.
struct ZstdFrames<R> {
    reader: R,
    /// Of the frame that the reader is in.
    frame: Option<FrameDecoder>,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(reader: R) -> Self {
        Self { reader, frame: None }
    }

    /// Begins the next frame that holds content; none at the end.
    fn next(&mut self) -> io::Result<Option<FrameDecoder>> {
        while !self.reader.fill_buf()?.is_empty() {
            let mut frame = FrameDecoder::new();
            frame.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
            let skipped = match frame.init(&mut self.reader) {
                Ok(()) => return Ok(Some(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => u64::from(length),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            };
            if io::copy(&mut self.reader.by_ref().take(skipped), &mut io::sink())? < skipped {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(frame) = &mut self.frame else {
                self.frame = self.next()?;
                if self.frame.is_none() {
                    return Ok(0);
                }
                continue;
            };
            if frame.can_collect() > 0 {
                return frame.read(buffer);
            }
            if frame.is_finished() {
                if frame.get_checksum_from_data() != frame.get_calculated_checksum()
                    && frame.get_checksum_from_data().is_some()
                {
                    return Err(invalid("the checksum of a zstd frame is wrong"));
                }
                self.frame = None;
                continue;
            }
            let decoded = frame.decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1));
            decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
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

/// A path for people: its beginning, without what would disturb a terminal.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(SHOWN_BYTES)]).into_owned();
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn describe(header: &Header, overrides: Overrides) -> io::Result<Entry> {
    let path = overrides.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let wrong = |what: &dyn std::fmt::Display| invalid(&format!("`{}`: {what}", shown(&path)));
    let kind = header.entry_type();
    if overrides.is_sparse || kind == EntryType::GNUSparse {
        return Err(unsupported(&format!("`{}` is a sparse file", shown(&path))));
    }
    let bytes = header
        .entry_size()
        .map_err(|_| wrong(&"its header tells no length"))?;
    if overrides.bytes.is_some_and(|other| other != bytes) {
        return Err(wrong(&"its header and its PAX record tell different lengths"));
    }
    let (modified_s, modified_ns) = match overrides.modified {
        Some(time) => time,
        None => {
            let time = header.mtime().map_err(|_| wrong(&"its header tells no time"))?;
            (i64::try_from(time).unwrap_or(i64::MAX), 0)
        }
    };
    let mode = header.mode().map_err(|_| wrong(&"its header tells no mode"))?;
    let link = || header.link_name_bytes().map(|link| link.into_owned());
    let link = overrides.link.or_else(link).unwrap_or_default();
    if path.len() > PATH_BYTES_MAX || link.len() > PATH_BYTES_MAX {
        return Err(wrong(&"its path or its link is too long"));
    }
    Ok(Entry {
        path,
        link,
        kind,
        mode,
        modified_s,
        modified_ns,
        bytes,
    })
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
                key if key.starts_with(b"GNU.sparse") => self.is_sparse = true,
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
    fn an_archive_may_end_with_its_last_content() {
        let whole = archive(&[
            ("a", EntryType::Regular, "12345"),
            ("b", EntryType::Regular, "678"),
        ])
        .into_inner();
        // Two headers, a block of content, and three bytes.
        for (length, expected) in [
            (1539, Some(2)),
            (1540, Some(2)),
            (2048, Some(2)),
            (1538, None),
            (1536, None),
        ] {
            let all = entries(Cursor::new(whole[..length].to_vec()));
            let all = all
                .ok()
                .filter(|all| all.iter().all(|(entry, text)| text.len() as u64 == entry.bytes));
            assert_eq!(all.map(|all| all.len()), expected, "{length}");
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
