//! What an image's layers hold, without unpacking them.
//!
//! The layers are read once from the lowest to the topmost into an index of paths, with whiteouts applied; then a
//! path is resolved in it, and only the wanted file is read out. Nothing of the archive becomes a path on the host.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

/// Most bytes that all layers of an image may unpack to.
const MAX_UNPACKED_BYTES: u64 = 4 << 30;
/// Most entries that all layers of an image may have.
const MAX_ENTRIES: usize = 500_000;
/// Most symbolic links on the way to a file, as in Linux.
const MAX_LINKS: usize = 40;

/// Why layers could not be read, or a file in them not be found.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Not a tar archive, plain or compressed by gzip, or a damaged one.
    #[error("layer {layer} cannot be read: it must be a tar archive, plain or compressed with gzip")]
    Unreadable {
        /// Number of the layer, from 0 at the bottom.
        layer: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry's path leads out of the image.
    #[error("layer {layer} holds the path `{path}`, which leads out of the image")]
    Escapes {
        /// Number of the layer, from 0 at the bottom.
        layer: usize,
        /// The path.
        path: String,
    },
    /// The layers unpack to too much.
    #[error("the image's layers hold more than {MAX_UNPACKED_BYTES} bytes or {MAX_ENTRIES} files")]
    TooLarge,
    /// The file is not there.
    #[error("the image has no file `{path}`")]
    NotFound {
        /// The path that was looked for.
        path: String,
    },
    /// What is there is not a file.
    #[error("`{path}` is not a regular file in the image")]
    NotFile {
        /// The path that was looked for.
        path: String,
    },
    /// The path leads through too many symbolic links.
    #[error("`{path}` leads through more than {MAX_LINKS} symbolic links in the image")]
    TooManyLinks {
        /// The path that was looked for.
        path: String,
    },
}

/// Where a regular file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileLocation {
    layer: usize,
    entry: usize,
    /// Length of the file.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone)]
enum Node {
    File(FileLocation),
    Link(String),
    Other,
}

/// Paths of an image, without a leading slash.
#[derive(Debug, Default)]
pub(crate) struct LayerIndex {
    /// Each with the number of the layer that it comes from.
    nodes: BTreeMap<String, (usize, Node)>,
    entries: usize,
    unpacked_bytes: u64,
}

impl LayerIndex {
    /// Adds the next layer upwards.
    pub(crate) fn add(&mut self, layer: usize, reader: impl Read + Seek) -> Result<(), LayerError> {
        let unreadable = |source| LayerError::Unreadable { layer, source };
        let mut archive = open(reader, MAX_UNPACKED_BYTES - self.unpacked_bytes).map_err(unreadable)?;
        for (number, entry) in archive.entries().map_err(unreadable)?.enumerate() {
            let entry = entry.map_err(unreadable)?;
            self.entries += 1;
            self.unpacked_bytes += entry.size();
            if self.entries > MAX_ENTRIES || self.unpacked_bytes > MAX_UNPACKED_BYTES {
                return Err(LayerError::TooLarge);
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let link = entry
                .link_name_bytes()
                .map(|link| String::from_utf8_lossy(&link).into_owned());
            let path = normalise(&path).ok_or(LayerError::Escapes { layer, path })?;
            let kind = entry.header().entry_type();
            let location = FileLocation {
                layer,
                entry: number,
                bytes: entry.size(),
            };
            self.add_entry(layer, path, kind, link.unwrap_or_default(), location)?;
        }
        Ok(())
    }

    fn add_entry(
        &mut self,
        layer: usize,
        path: String,
        kind: EntryType,
        link: String,
        location: FileLocation,
    ) -> Result<(), LayerError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            self.hide_below(folder, layer);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = if folder.is_empty() {
                hidden.to_owned()
            } else {
                format!("{folder}/{hidden}")
            };
            self.hide_below(&hidden, layer);
            self.nodes.remove(&hidden);
            return Ok(());
        }
        let node = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Node::File(location),
            EntryType::Symlink => Node::Link(link),
            EntryType::Link => {
                let target = normalise(&link).ok_or(LayerError::Escapes { layer, path: link })?;
                self.nodes
                    .get(&target)
                    .map_or(Node::Other, |(_, node)| node.clone())
            }
            _ => Node::Other,
        };
        if kind != EntryType::Directory {
            self.hide_below(&path, usize::MAX);
        }
        self.nodes.insert(path, (layer, node));
        Ok(())
    }

    /// Removes everything in the folder that comes from a layer below `layer`.
    fn hide_below(&mut self, folder: &str, layer: usize) {
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let inside = self
            .nodes
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix));
        let hidden: Vec<String> = inside
            .filter(|(_, node)| node.0 < layer)
            .map(|(path, _)| path.clone())
            .collect();
        for path in hidden {
            self.nodes.remove(&path);
        }
    }

    /// Finds the regular file at `path`, following symbolic links inside the image.
    pub(crate) fn resolve(&self, path: &str) -> Result<FileLocation, LayerError> {
        let wanted = || path.to_owned();
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut resolved: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = rest.pop() {
            match component.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop();
                    continue;
                }
                _ => resolved.push(component),
            }
            if let Some((_, Node::Link(target))) = self.nodes.get(&resolved.join("/")) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(LayerError::TooManyLinks { path: wanted() });
                }
                resolved.pop();
                if target.starts_with('/') {
                    resolved.clear();
                }
                rest.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        match self.nodes.get(&resolved.join("/")) {
            Some((_, Node::File(location))) => Ok(*location),
            Some(_) => Err(LayerError::NotFile { path: wanted() }),
            None => Err(LayerError::NotFound { path: wanted() }),
        }
    }
}

/// Hands the content of the file at `location` to `take`. `reader` is the file's layer, from its beginning.
pub(crate) fn read_file<T>(
    location: FileLocation,
    reader: impl Read + Seek,
    take: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<T> {
    let mut archive = open(reader, MAX_UNPACKED_BYTES)?;
    let mut entry = archive
        .entries()?
        .nth(location.entry)
        .ok_or(io::ErrorKind::UnexpectedEof)??;
    take(&mut entry)
}

impl FileLocation {
    /// Number of the layer that holds the file.
    pub(crate) fn layer(self) -> usize {
        self.layer
    }
}

/// The archive in a layer, whichever way it is compressed; the magic number tells, since media types lie.
fn open<'a>(mut reader: impl Read + Seek + 'a, limit: u64) -> io::Result<Archive<Box<dyn Read + 'a>>> {
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    reader.seek(SeekFrom::Start(0))?;
    let content: Box<dyn Read + 'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::new(reader))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is compressed with zstd",
            ));
        }
        _ => Box::new(BufReader::new(reader)),
    };
    // A limit on the stream itself too: headers and padding are not part of any entry's size.
    Ok(Archive::new(Box::new(
        content.take(limit.saturating_add(1 << 30)),
    )))
}

/// The path without empty and `.` components; none if it has `..` in it.
fn normalise(path: &str) -> Option<String> {
    let components: Vec<&str> = path
        .split('/')
        .filter(|component| !matches!(*component, "" | "."))
        .collect();
    (!components.contains(&"..")).then(|| components.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use proptest::prelude::*;

    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Cursor<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Set by hand: the library refuses to write paths such as `..`.
            header.as_gnu_mut().expect("a GNU header").name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            let data = if *kind == EntryType::Regular {
                content.as_bytes()
            } else {
                b""
            };
            if *kind == EntryType::Symlink || *kind == EntryType::Link {
                header.set_link_name(content).expect("a short link");
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).expect("writes to memory");
        }
        Cursor::new(builder.into_inner().expect("writes to memory"))
    }

    fn find(layers: &[&[(&str, EntryType, &str)]], path: &str) -> Result<String, LayerError> {
        let layers: Vec<_> = layers.iter().map(|layer| archive(layer)).collect();
        let mut index = LayerIndex::default();
        for (number, layer) in layers.iter().enumerate() {
            index.add(number, layer.clone())?;
        }
        let location = index.resolve(path)?;
        let mut text = String::new();
        read_file(location, layers[location.layer()].clone(), |file| {
            file.read_to_string(&mut text)
        })
        .expect("reads");
        assert_eq!(text.len() as u64, location.bytes);
        Ok(text)
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn upper_layers_win_and_whiteouts_hide() {
        let bottom: &[_] = &[
            ("./bin/a", FILE, "old"),
            ("bin/b", FILE, "b"),
            ("etc/c", FILE, "c"),
        ];
        assert_eq!(
            find(&[bottom, &[("/bin/a", FILE, "new")]], "/bin/a").expect("there"),
            "new"
        );
        let hidden = find(&[bottom, &[("bin/.wh.a", FILE, "")]], "/bin/a");
        assert!(matches!(hidden, Err(LayerError::NotFound { .. })));
        let opaque: &[_] = &[("bin/d", FILE, "d"), ("bin/.wh..wh..opq", FILE, "")];
        assert!(find(&[bottom, opaque], "/bin/b").is_err());
        assert_eq!(find(&[bottom, opaque], "/bin/d").expect("of the same layer"), "d");
        assert_eq!(find(&[bottom, opaque], "/etc/c").expect("elsewhere"), "c");
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let layer: &[_] = &[
            ("real/program", FILE, "x"),
            ("usr/bin", LINK, "../real"),
            ("absolute", LINK, "/usr/bin/program"),
            ("escape", LINK, "../../../../real/program"),
            ("hard", EntryType::Link, "real/program"),
            ("loop", LINK, "loop"),
        ];
        for path in [
            "/usr/bin/program",
            "/absolute",
            "/escape",
            "/hard",
            "real/./program",
        ] {
            assert_eq!(find(&[layer], path).expect(path), "x");
        }
        assert!(matches!(
            find(&[layer], "/loop"),
            Err(LayerError::TooManyLinks { .. })
        ));
        assert!(matches!(
            find(&[layer], "/missing"),
            Err(LayerError::NotFound { .. })
        ));
        assert!(matches!(
            find(&[&[("d", EntryType::Directory, "")]], "/d"),
            Err(LayerError::NotFile { .. })
        ));
    }

    #[test]
    fn escaping_paths_and_damaged_layers_are_refused() {
        let escaping = find(&[&[("../etc/passwd", FILE, "x")]], "/etc/passwd");
        assert!(matches!(escaping, Err(LayerError::Escapes { layer: 0, .. })));
        let damaged = LayerIndex::default().add(0, Cursor::new(vec![0x1f, 0x8b, 1, 2, 3]));
        assert!(matches!(damaged, Err(LayerError::Unreadable { .. })));
        let zstd = LayerIndex::default().add(0, Cursor::new(vec![0x28, 0xb5, 0x2f, 0xfd, 0]));
        assert!(matches!(zstd, Err(LayerError::Unreadable { .. })));
    }

    #[test]
    fn compressed_layers_are_read() {
        let plain = archive(&[("function", FILE, "code")]).into_inner();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).expect("writes to memory");
        let mut index = LayerIndex::default();
        index
            .add(0, Cursor::new(encoder.finish().expect("writes to memory")))
            .expect("reads");
        assert!(index.resolve("/function").is_ok());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let mut index = LayerIndex::default();
            let _ = index.add(0, Cursor::new(bytes));
            let _ = index.resolve("/function");
        }
    }
}
