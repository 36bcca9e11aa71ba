//! Layers of images: trees of files, packed so that the same tree gives the same bytes everywhere.
//!
//! Entries are sorted, the superuser owns them, their times are zero, and their modes say no more than whether a file is a
//! program.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

const FOLDER_MODE: u32 = 0o755;
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// The bits that make a file a program.
const EXECUTABLE_BITS: u32 = 0o111;

/// What is at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder,
    /// A file of this machine, with its length, in bytes, and whether it is a program.
    File {
        from: PathBuf,
        bytes: u64,
        is_program: bool,
    },
    Content(Cow<'static, [u8]>),
    Link(PathBuf),
}

/// Files, folders and symbolic links of a layer in the making. Paths begin with a slash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

/// What is known of a layer besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDescription {
    /// `sha256:` and 64 hexadecimal digits, of the bytes as stored.
    pub digest: String,
    /// The same of the archive before its compression.
    pub unpacked_digest: String,
    /// Media type.
    pub media_type: String,
    /// Length as stored, in bytes.
    pub bytes: u64,
    /// Length of the files in it, in bytes.
    pub content_bytes: u64,
}

/// A layer with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is known by.
    pub description: LayerDescription,
    /// Its bytes.
    pub data: LayerData,
}

/// Where a layer's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerData {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file that stays.
    File(PathBuf),
}

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is: large layers that are sent over the loopback once are read faster than they are unpacked.
    Plain,
    /// Compressed by gzip.
    Gzip,
}

impl Tree {
    /// Adds a folder.
    pub fn add_folder(&mut self, path: impl AsRef<Path>) {
        self.insert(path.as_ref(), Entry::Folder);
    }

    /// Adds a file of this machine; what a symbolic link leads to.
    ///
    /// # Errors
    ///
    /// If it is not there or no regular file.
    pub fn add_file(&mut self, path: impl AsRef<Path>, from: &Path) -> io::Result<()> {
        let metadata = fs::metadata(from)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let entry = Entry::File {
            from: from.to_owned(),
            bytes: metadata.len(),
            is_program: metadata.mode() & EXECUTABLE_BITS != 0,
        };
        self.insert(path.as_ref(), entry);
        Ok(())
    }

    /// Adds a file with this content.
    pub fn add_content(&mut self, path: impl AsRef<Path>, content: impl Into<Cow<'static, [u8]>>) {
        self.insert(path.as_ref(), Entry::Content(content.into()));
    }

    /// Adds a symbolic link.
    pub fn add_link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.insert(path.as_ref(), Entry::Link(target.into()));
    }

    /// Adds what is in a folder of this machine, as far as `takes` says so of its path relative to the folder. Sockets,
    /// pipes and devices are left out; symbolic links stay what they are.
    ///
    /// # Errors
    ///
    /// Which path could not be read, and why.
    pub fn add_folder_content(
        &mut self,
        path: &Path,
        from: &Path,
        takes: &dyn Fn(&Path) -> bool,
    ) -> Result<(), (PathBuf, io::Error)> {
        self.add_folder(path);
        let mut open = vec![PathBuf::new()];
        while let Some(inside) = open.pop() {
            let folder = from.join(&inside);
            let failed = |error| (folder.clone(), error);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = inside.join(entry.file_name());
                if !takes(&name) {
                    continue;
                }
                let (source, place) = (entry.path(), path.join(&name));
                let failed = |error| (source.clone(), error);
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    self.add_folder(&place);
                    open.push(name);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&source).map_err(failed)?;
                    self.add_link(&place, target);
                } else if kind.is_file() {
                    self.add_file(&place, &source).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of the files in it, in bytes.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let lengths = self.entries.values().map(|entry| match entry {
            Entry::File { bytes, .. } => *bytes,
            Entry::Content(content) => content.len() as u64,
            Entry::Folder | Entry::Link(_) => 0,
        });
        lengths.sum()
    }

    /// A folder never takes the place of a file, and the folders on the way to an entry are there.
    fn insert(&mut self, path: &Path, entry: Entry) {
        let path = path.strip_prefix("/").unwrap_or(path);
        for folder in path.ancestors().skip(1).filter(|folder| *folder != Path::new("")) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Packs it into memory.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or has another length than when it was added.
    pub fn pack(&self, packing: Packing) -> io::Result<Layer> {
        let mut bytes = Vec::new();
        let description = self.write(packing, &mut bytes, &mut |_| {})?;
        Ok(Layer {
            description,
            data: LayerData::Memory(bytes),
        })
    }

    /// Packs it into the existing file `target`, which stays. `progress` hears of the bytes of files as they are packed.
    ///
    /// # Errors
    ///
    /// As for [`Tree::pack`], and if the target cannot be written.
    pub fn pack_to(
        &self,
        packing: Packing,
        target: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<LayerDescription> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(target)?);
        let description = self.write(packing, &mut file, progress)?;
        file.flush()?;
        Ok(description)
    }

    fn write(
        &self,
        packing: Packing,
        target: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<LayerDescription> {
        let mut stored = Hashed::new(target);
        let (unpacked_digest, media_type) = match packing {
            Packing::Plain => (self.write_archive(&mut stored, progress)?, MediaType::ImageLayer),
            Packing::Gzip => {
                let mut encoder = GzBuilder::new()
                    .mtime(0)
                    .write(&mut stored, Compression::default());
                let digest = self.write_archive(&mut encoder, progress)?;
                encoder.finish()?;
                (digest, MediaType::ImageLayerGzip)
            }
        };
        stored.flush()?;
        Ok(LayerDescription {
            bytes: stored.bytes,
            digest: stored.digest(),
            unpacked_digest,
            media_type: media_type.to_string(),
            content_bytes: self.content_bytes(),
        })
    }

    /// The digest of the archive.
    fn write_archive(&self, target: impl Write, progress: &mut dyn FnMut(u64)) -> io::Result<String> {
        let mut archive = tar::Builder::new(Hashed::new(target));
        for (path, entry) in &self.entries {
            let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            match entry {
                Entry::Folder => {
                    let mut header = header(EntryType::Directory, FOLDER_MODE, 0);
                    archive.append_data(&mut header, path, io::empty()).map_err(at)?;
                }
                Entry::Link(to) => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    archive.append_link(&mut header, path, to).map_err(at)?;
                }
                Entry::Content(content) => {
                    let mut header = header(EntryType::Regular, FILE_MODE, content.len() as u64);
                    archive
                        .append_data(&mut header, path, content.as_ref())
                        .map_err(at)?;
                }
                Entry::File {
                    from,
                    bytes,
                    is_program,
                } => {
                    let mode = if *is_program { PROGRAM_MODE } else { FILE_MODE };
                    let mut header = header(EntryType::Regular, mode, *bytes);
                    let content = exactly(from, *bytes).map_err(at)?;
                    archive.append_data(&mut header, path, content).map_err(at)?;
                    progress(*bytes);
                }
            }
        }
        let mut archive = archive.into_inner()?;
        archive.flush()?;
        Ok(archive.digest())
    }
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// A file's content, which must have this length still.
fn exactly(path: &Path, bytes: u64) -> io::Result<impl Read> {
    let file = File::open(path)?;
    if file.metadata()?.len() != bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it has changed meanwhile: build again",
        ));
    }
    Ok(BufReader::with_capacity(1 << 16, file).take(bytes))
}

/// Passes bytes on, with their digest and number.
pub(crate) struct Hashed<W> {
    pub(crate) inner: W,
    hasher: Sha256,
    pub(crate) bytes: u64,
}

impl<W> Hashed<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    /// `sha256:` and 64 hexadecimal digits, of what was passed on so far.
    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hasher.clone().finalize()))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folder: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.add_folder_content(Path::new("/function"), folder, &|path| {
            path.file_name().unwrap() != "left-out"
        })
        .unwrap();
        tree.add_content("/etc/hosts", b"127.0.0.1 localhost\n".as_slice());
        tree.add_link("/bin/sh", "busybox");
        tree
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_whatever_its_times() {
        let layers = [1, 2].map(|round| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("inner")).unwrap();
            fs::write(folder.path().join("inner/a"), "text").unwrap();
            fs::write(folder.path().join("left-out"), "no").unwrap();
            std::os::unix::fs::symlink("inner/a", folder.path().join("link")).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(round * 1000);
            let file = File::options().append(true).open(folder.path().join("inner/a"));
            file.unwrap().set_modified(time).unwrap();
            tree(folder.path()).pack(Packing::Gzip).unwrap()
        });
        assert_eq!(layers[0], layers[1]);
        let LayerData::Memory(bytes) = &layers[0].data else {
            panic!()
        };
        assert_eq!(bytes.len() as u64, layers[0].description.bytes);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            names,
            [
                "bin",
                "bin/sh",
                "etc",
                "etc/hosts",
                "function",
                "function/inner",
                "function/inner/a",
                "function/link"
            ]
        );
    }

    #[test]
    fn packing_changes_nothing_but_how_it_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "text").unwrap();
        let tree = tree(folder.path());
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut packed = 0;
        let plain = tree
            .pack_to(Packing::Plain, file.path(), &mut |bytes| packed += bytes)
            .unwrap();
        let gzip = tree.pack(Packing::Gzip).unwrap().description;
        assert_eq!(plain.digest, plain.unpacked_digest);
        assert_eq!(plain.unpacked_digest, gzip.unpacked_digest);
        assert_eq!(plain.content_bytes, 24);
        assert_eq!(packed, 4);
        assert_eq!(fs::metadata(file.path()).unwrap().len(), plain.bytes);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("growing"), "text").unwrap();
        let tree = tree(folder.path());
        fs::write(folder.path().join("growing"), "longer text").unwrap();
        let error = tree.pack(Packing::Gzip).unwrap_err().to_string();
        assert!(
            error.contains("growing") && error.contains("build again"),
            "{error}"
        );
    }
}
