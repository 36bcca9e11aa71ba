//! OCI images made of a folder that becomes a function's root file system: one layer with everything in it.
//!
//! Roots can be large, so the layer goes to a temporary file as it is packed, and nothing is held in memory. The same
//! folder with the same times gives the same bytes: entries are sorted, and the superuser owns them.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use oci_spec::image::MediaType;
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

use crate::image::{Blob, Configuration, configuration, descriptor, manifest};
use crate::layer::Hashed;

/// How the program in a root file system is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSettings {
    /// The program, searched in `PATH` if it has no slash, and its arguments.
    pub entrypoint: Vec<String>,
    /// Directory in which it starts.
    pub working_directory: String,
    /// Who it runs as, `USER[:GROUP]`, by name or number; none for the superuser.
    pub user: Option<String>,
    /// TCP port on which it listens.
    pub port: u16,
}

/// An image whose layer is a file.
#[derive(Debug)]
pub struct RootImage {
    /// The manifest; its digest is the image's.
    pub manifest: Blob,
    /// The configuration.
    pub config: Blob,
    /// The only layer.
    pub layer: LayerFile,
    /// What cannot be in a layer and was left out: sockets, pipes, devices.
    pub skipped: Vec<PathBuf>,
}

/// A layer in a temporary file, which is gone with this.
#[derive(Debug)]
pub struct LayerFile {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Media type of the content.
    pub media_type: String,
    /// Length, in bytes.
    pub bytes: u64,
    /// The content.
    pub file: NamedTempFile,
}

/// Why a folder could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Something in the folder cannot be read.
    #[error("{} cannot be packed", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The temporary file cannot be written.
    #[error("the layer cannot be written to a temporary file")]
    Write(#[source] io::Error),
    /// Configuration or manifest could not be expressed.
    #[error("the image's configuration could not be written")]
    Configuration(#[source] oci_spec::OciSpecError),
}

impl RootImage {
    /// Packs `folder`. `progress` hears of the bytes of files as they are packed.
    pub fn from_folder(
        folder: &Path,
        settings: &RootSettings,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, RootError> {
        let (layer, unpacked_digest, skipped) = pack(folder, progress)?;
        let config = configuration(&Configuration {
            layers: &[unpacked_digest],
            entrypoint: settings.entrypoint.clone(),
            environment: &[],
            working_directory: &settings.working_directory,
            user: settings.user.as_deref(),
            port: settings.port,
        });
        let config = Blob::new(MediaType::ImageConfig, config.map_err(RootError::Configuration)?);
        let manifest = descriptor(&layer.digest, &layer.media_type, layer.bytes)
            .and_then(|layer| manifest(&config, vec![layer]))
            .map_err(RootError::Configuration)?;
        Ok(Self {
            manifest: Blob::new(MediaType::ImageManifest, manifest),
            config,
            layer,
            skipped,
        })
    }
}

/// A file that must have the length that its header says.
struct Exactly<'a> {
    file: io::Take<BufReader<File>>,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.file.limit() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it has become shorter meanwhile",
            ));
        }
        (self.progress)(count as u64);
        Ok(count)
    }
}

type Archive = tar::Builder<Hashed<GzEncoder<Hashed<BufWriter<File>>>>>;

/// The layer, the digest of the archive before its compression, and what was left out.
fn pack(
    folder: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(LayerFile, String, Vec<PathBuf>), RootError> {
    let file = NamedTempFile::new().map_err(RootError::Write)?;
    let compressed = Hashed::new(BufWriter::with_capacity(
        1 << 16,
        file.reopen().map_err(RootError::Write)?,
    ));
    // On its way through the loopback the layer is worth little effort.
    let encoder = GzBuilder::new().mtime(0).write(compressed, Compression::fast());
    let mut archive = tar::Builder::new(Hashed::new(encoder));
    let mut skipped = Vec::new();
    let mut links = HashMap::new();
    let mut open = children(folder, Path::new(""))?;
    while let Some(name) = open.pop() {
        let path = folder.join(&name);
        let failed = |source| RootError::Read {
            path: path.clone(),
            source,
        };
        let metadata = path.symlink_metadata().map_err(failed)?;
        if metadata.is_dir() {
            let mut header = header(&metadata, EntryType::Directory, 0);
            append(&mut archive, &mut header, &name, io::empty()).map_err(failed)?;
            open.extend(children(folder, &name)?);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(failed)?;
            let mut header = header(&metadata, EntryType::Symlink, 0);
            archive.append_link(&mut header, &name, target).map_err(failed)?;
        } else if metadata.is_file() {
            append_file(&mut archive, &path, &name, &metadata, &mut links, progress).map_err(failed)?;
        } else {
            skipped.push(path);
        }
    }
    let unpacked = archive.into_inner().map_err(RootError::Write)?;
    let unpacked_digest = unpacked.digest();
    let mut compressed = unpacked.inner.finish().map_err(RootError::Write)?;
    compressed.flush().map_err(RootError::Write)?;
    let bytes = compressed.bytes;
    let digest = compressed.digest();
    let layer = LayerFile {
        digest,
        media_type: MediaType::ImageLayerGzip.to_string(),
        bytes,
        file,
    };
    Ok((layer, unpacked_digest, skipped))
}

/// Paths of what is in a folder, relative to the root, the last one first.
fn children(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, RootError> {
    let path = root.join(folder);
    let names = fs::read_dir(&path).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()
    });
    let mut names = names.map_err(|source| RootError::Read { path, source })?;
    names.sort_by(|left, right| right.as_bytes().cmp(left.as_bytes()));
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn header(metadata: &Metadata, kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(bytes);
    header
}

fn append(archive: &mut Archive, header: &mut Header, name: &Path, content: impl Read) -> io::Result<()> {
    archive.append_data(header, name, content)
}

fn append_file(
    archive: &mut Archive,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    links: &mut HashMap<(u64, u64), PathBuf>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    if metadata.nlink() > 1 {
        if let Some(first) = links.get(&(metadata.dev(), metadata.ino())) {
            let mut header = header(metadata, EntryType::Link, 0);
            return archive.append_link(&mut header, name, first);
        }
        links.insert((metadata.dev(), metadata.ino()), name.to_owned());
    }
    let bytes = metadata.len();
    let file = BufReader::with_capacity(1 << 16, File::open(path)?).take(bytes);
    let mut header = header(metadata, EntryType::Regular, bytes);
    append(archive, &mut header, name, Exactly { file, progress })
}
