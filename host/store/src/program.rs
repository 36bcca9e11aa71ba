//! From an image to what an instance runs: its root, arguments, environment and port.
//!
//! ```text
//!   layers ──unpack──> folder ──one static program, nothing else──> derived/HEX/program
//!                        └─────otherwise, mkfs.erofs─────────────> derived/HEX/root.erofs
//! ```
//!
//! Beside each is a file that tells its length, time and digest: one that is not as it was made is made again.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

use oci_spec::image::{Arch, Config, ImageConfiguration, ImageIndex, ImageManifest, Os};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use spore_rootfs::{ImageError, Owners, make_image};
use spore_sandbox::Root;
use tempfile::{Builder, NamedTempFile, TempDir};

use crate::Digest;
use crate::commands::{Checked, no_command};
use crate::elf::{ElfError, Needs, check_program};
use crate::files::{persist, sync_directory};
use crate::images::{ImageStore, MAX_MANIFEST_BYTES};
use crate::manifests::{choose_platform, platforms};
use crate::protocol::Protocol;
use crate::unikernels::{self, URUNC_FILE, Unikernel};
use crate::unpack::{LayerError, Unpacker};

/// Names of what is derived from an image: one of the two.
const PROGRAM_FILE: &str = "program";
const FILE_SYSTEM_FILE: &str = "root.erofs";
/// What tells whether it is as it was made.
const SEAL_FILE: &str = "seal.json";
/// Longest configuration of an image, in bytes.
const MAX_CONFIGURATION_BYTES: usize = 4 << 20;
/// Port of a function whose image exposes none.
const DEFAULT_PORT: u16 = 8080;
/// Where a program without a slash in its name is looked for if the image sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an instance of an image runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program or the root file system, a read-only file of this store that never changes.
    pub root: Root,
    /// Digest of that file.
    pub root_digest: Digest,
    /// How it is called.
    pub protocol: Protocol,
    /// `argv`: the image's entry point and command, or the command that is run for each invocation.
    pub arguments: Vec<String>,
    /// The image's environment variables.
    pub environment: Vec<(String, String)>,
    /// The lowest TCP port that the image exposes, 8080 if none.
    pub port: u16,
    /// The image's working directory.
    pub working_directory: String,
}

/// Why no program could be made from an image.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// A part of the image is not in the store.
    #[error("{digest}, a part of the image, is not in the store: push the image again")]
    Missing {
        /// Digest of the missing part.
        digest: String,
    },
    /// A part of the image is not any more what was pushed.
    #[error("{digest}, a part of the image, was damaged in the store and is removed: push the image again")]
    Damaged {
        /// Digest of the part as pushed.
        digest: Digest,
    },
    /// The manifest or the configuration cannot be read.
    #[error("{digest} is not the {what} of an image")]
    Invalid {
        /// What it should be.
        what: &'static str,
        /// Digest of the part.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The image is for another operating system or processor.
    #[error("the image is for {platform}: build it for linux/amd64")]
    OtherPlatform {
        /// What it is for.
        platform: String,
    },
    /// The image holds a unikernel of another project.
    #[error(
        "the image is {unikernel}: it stays stored, but this build runs Linux programs only and has no sandbox for {} yet",
        unikernel.monitor
    )]
    Unikernel {
        /// What it is.
        unikernel: Box<Unikernel>,
    },
    /// The command that is to be run for each invocation is not in the image.
    #[error(
        "the command `{command}` is to be run for each invocation (fprocess), and the image has no such program: name one \
         that it has"
    )]
    NoCommand {
        /// The command's first word.
        command: String,
        /// What was looked for.
        #[source]
        source: LayerError,
    },
    /// The image names no program.
    #[error("the image has neither an entry point nor a command")]
    NoEntrypoint,
    /// A port is not a number.
    #[error("the image exposes `{port}`, which is not a port")]
    BadPort {
        /// The port as written.
        port: String,
    },
    /// The program could not be found in the layers.
    #[error("no program can be taken from the image")]
    Layers(#[from] LayerError),
    /// The program cannot run in an instance.
    #[error("`{program}` cannot run")]
    Program {
        /// Path of the program in the image.
        program: String,
        /// Why, and what to do.
        #[source]
        source: ElfError,
    },
    /// No root file system could be made.
    #[error("no root file system can be made of the image")]
    RootFileSystem(#[from] ImageError),
    /// A file of the store could not be read or written.
    #[error("the image could not be read, or its program not be written")]
    Io(#[from] io::Error),
}

impl ImageStore {
    /// What an instance of the image with this manifest runs where these variables are set besides the image's. Program or
    /// root file system are made from the layers the first time, and the program is checked: what cannot run at all is
    /// refused.
    pub fn derive_program(
        &self,
        manifest: Digest,
        variables: &BTreeMap<String, String>,
    ) -> Result<Program, DeriveError> {
        let manifest = self.image_manifest(manifest)?;
        let configuration = self.any_configuration(&manifest.content)?;
        if let Some(unikernel) = unikernels::recognise(&manifest.content, &configuration) {
            let unikernel = Box::new(unikernel);
            return Err(DeriveError::Unikernel { unikernel });
        }
        check_platform(&configuration)?;
        let config = configuration.config().clone().unwrap_or_default();
        let mut arguments = config.entrypoint().clone().unwrap_or_default();
        arguments.extend(config.cmd().iter().flatten().cloned());
        let mut all_variables: BTreeMap<_, _> = environment(&config).into_iter().collect();
        all_variables.extend(variables.clone());
        let entry = arguments.first().cloned();
        let (protocol, arguments) = Protocol::of(&arguments, &all_variables);
        let command = arguments
            .first()
            .filter(|command| !command.is_empty())
            .ok_or(DeriveError::NoEntrypoint)?
            .clone();
        let folder = self.derived.join(manifest.digest.to_hex());
        let (root, root_digest) = match intact_root(&folder, &self.uploads) {
            Some(found) => {
                if protocol == Protocol::Exec && matches!(found.0, Root::FileSystem(_)) {
                    self.check_command(&manifest.content, &config, &command, &folder)?;
                }
                found
            }
            None => {
                let derived = self.derive_root(&manifest.content, &config, &command, entry, &folder);
                let derived = derived.map_err(|error| no_command(error, protocol, &command))?;
                let mut checked = Checked::read(&folder);
                checked.add(&config, &command);
                checked.write(&folder, &self.uploads)?;
                derived
            }
        };
        let mut environment = environment(&config);
        if matches!(root, Root::FileSystem(_)) && environment.iter().all(|(name, _)| name != "PATH") {
            environment.insert(0, ("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        Ok(Program {
            root,
            root_digest,
            protocol,
            arguments,
            environment,
            port: port(&config)?,
            working_directory: working_directory(&config),
        })
    }

    /// Whether what an instance runs is there as it was made. What cannot be looked at for want of descriptors or memory is
    /// not taken for damaged.
    pub fn is_intact(&self, root: &Root) -> bool {
        let folder = root.path().parent().unwrap_or(&self.derived);
        match sealed_digest(root.path(), folder, &self.uploads) {
            Ok(digest) => digest.is_some(),
            Err(error) => matches!(
                Errno::from_io_error(&error),
                Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)
            ),
        }
    }

    /// The manifest; of an index, that for this platform.
    pub(crate) fn image_manifest(&self, digest: Digest) -> Result<Parsed<ImageManifest>, DeriveError> {
        let bytes = self.part(digest, MAX_MANIFEST_BYTES)?;
        let Ok(index) = serde_json::from_slice::<ImageIndex>(&bytes) else {
            return parse(digest, "manifest", &bytes);
        };
        let here = choose_platform(&index).ok_or_else(|| DeriveError::OtherPlatform {
            platform: platforms(&index),
        })?;
        let digest = to_digest(here.digest())?;
        parse(digest, "manifest", &self.part(digest, MAX_MANIFEST_BYTES)?)
    }

    /// The configuration, for whatever platform it is.
    pub(crate) fn any_configuration(
        &self,
        manifest: &ImageManifest,
    ) -> Result<ImageConfiguration, DeriveError> {
        let digest = to_digest(manifest.config().digest())?;
        let bytes = self.part(digest, MAX_CONFIGURATION_BYTES)?;
        Ok(parse::<ImageConfiguration>(digest, "configuration", &bytes)?.content)
    }

    fn part(&self, digest: Digest, limit: usize) -> Result<Vec<u8>, DeriveError> {
        let bytes = self
            .read_blob(digest, limit)?
            .ok_or_else(|| DeriveError::Missing {
                digest: digest.to_string(),
            })?;
        if Digest::of(&bytes) != digest {
            self.remove_damaged(digest)?;
            return Err(DeriveError::Damaged { digest });
        }
        Ok(bytes)
    }

    /// Why a layer could not be read: its own fault, or that of damage in the store.
    fn unreadable_layer(&self, manifest: &ImageManifest, number: usize, error: LayerError) -> DeriveError {
        let check = || -> Result<(), DeriveError> {
            let digest = to_digest(manifest.layers()[number].digest())?;
            if Digest::of_reader(self.layer(manifest, number)?)? != digest {
                self.remove_damaged(digest)?;
                return Err(DeriveError::Damaged { digest });
            }
            Ok(())
        };
        check().err().unwrap_or(DeriveError::Layers(error))
    }

    pub(crate) fn layer(&self, manifest: &ImageManifest, number: usize) -> Result<File, DeriveError> {
        let digest = to_digest(manifest.layers()[number].digest())?;
        let blob = self.open_blob(digest)?;
        blob.map(|(file, _)| file).ok_or_else(|| DeriveError::Missing {
            digest: digest.to_string(),
        })
    }

    /// Unpacks the layers into a folder of their own, in `root`.
    pub(crate) fn unpack(&self, manifest: &ImageManifest) -> Result<(TempDir, Unpacker), DeriveError> {
        // Emptied at start-up, so that nothing of a daemon that was killed stays.
        let unpacked = Builder::new().prefix("unpacked-").tempdir_in(&self.uploads)?;
        // Nobody else may enter; inside is the root, which everybody may.
        fs::set_permissions(unpacked.path(), Permissions::from_mode(0o700))?;
        let root = unpacked.path().join("root");
        fs::create_dir(&root)?;
        fs::set_permissions(&root, Permissions::from_mode(0o755))?;
        let mut unpacker = Unpacker::new(&root)?;
        for number in 0..manifest.layers().len() {
            let added = unpacker.add(number, self.layer(manifest, number)?);
            added.map_err(|error| self.unreadable_layer(manifest, number, error))?;
        }
        Ok((unpacked, unpacker))
    }

    /// Unpacks the layers, checks the program in them and stores what an instance needs of them in `folder`.
    fn derive_root(
        &self,
        manifest: &ImageManifest,
        config: &Config,
        command: &str,
        entry: Option<String>,
        folder: &Path,
    ) -> Result<(Root, Digest), DeriveError> {
        let (unpacked, mut unpacker) = self.unpack(manifest)?;
        let root = unpacked.path().join("root");
        if let Some(unikernel) = unpacker
            .open_file(URUNC_FILE)
            .ok()
            .and_then(unikernels::recognise_file)
        {
            let unikernel = Box::new(unikernel);
            return Err(DeriveError::Unikernel { unikernel });
        }
        let program = match find_program(&unpacker, config, command) {
            Err(error @ LayerError::NotFound { .. }) => {
                only_program(&unpacker, config, entry)?.ok_or(DeriveError::Layers(error))?
            }
            found => found?,
        };
        let is_static = check_needs(&unpacker, command, program.try_clone()?)?;
        let stored = if is_static && unpacker.holds_only(&program)? {
            let mut file = NamedTempFile::new_in(&self.uploads)?;
            (&program).rewind()?;
            io::copy(&mut &program, file.as_file_mut())?;
            store(file, folder, Root::Program(folder.join(PROGRAM_FILE)))?
        } else {
            // As a container would: an image need not hold the folder that it names.
            unpacker.make_folder(&working_directory(config))?;
            unpacker.finish();
            let file = NamedTempFile::new_in(&self.uploads)?;
            make_image(&root, file.path(), Owners::Root)?;
            store(file, folder, Root::FileSystem(folder.join(FILE_SYSTEM_FILE)))?
        };
        if unpacker.skipped > 0 {
            let (image, skipped) = (folder.display(), unpacker.skipped);
            tracing::info!(%image, skipped, "devices and pipes of an image were left out");
        }
        sync_directory(&self.derived)?;
        // It takes long for large images, and is no failure of the image.
        if let Err(error) = unpacked.close() {
            tracing::warn!(%error, "an unpacked image could not be removed; the next start does it");
        }
        Ok(stored)
    }
}

/// The program of an image that holds nothing else, by whatever name a command calls it.
fn only_program(unpacker: &Unpacker, config: &Config, entry: Option<String>) -> io::Result<Option<File>> {
    let found = entry.and_then(|entry| find_program(unpacker, config, &entry).ok());
    match found {
        Some(program) if unpacker.holds_only(&program)? => Ok(Some(program)),
        _ => Ok(None),
    }
}

/// Whether a program is static. One that cannot run, or not without what the image does not have, is refused.
pub(crate) fn check_needs(unpacker: &Unpacker, command: &str, program: File) -> Result<bool, DeriveError> {
    let refused = |source| DeriveError::Program {
        program: command.to_owned(),
        source,
    };
    match check_program(program).map_err(refused)? {
        Needs::Nothing => Ok(true),
        Needs::Interpreter(interpreter) if unpacker.open_file(&interpreter).is_err() => {
            Err(refused(ElfError::NoInterpreter { interpreter }))
        }
        Needs::Interpreter(_) => Ok(false),
    }
}

fn check_platform(configuration: &ImageConfiguration) -> Result<(), DeriveError> {
    if *configuration.os() == Os::Linux && *configuration.architecture() == Arch::Amd64 {
        return Ok(());
    }
    let platform = format!("{}/{}", configuration.os(), configuration.architecture());
    Err(DeriveError::OtherPlatform { platform })
}

/// What was derived in this folder: the file's name and length.
pub(crate) fn derived_file(folder: &Path) -> Option<(&'static str, u64)> {
    let of = |name| Some((name, fs::metadata(folder.join(name)).ok()?.len()));
    of(PROGRAM_FILE).or_else(|| of(FILE_SYSTEM_FILE))
}

/// The file of the program that the image's command names.
pub(crate) fn find_program(unpacker: &Unpacker, config: &Config, command: &str) -> Result<File, LayerError> {
    let mut found = Err(LayerError::NotFound {
        path: command.to_owned(),
    });
    for candidate in candidates(config, command) {
        match unpacker.open_file(&candidate) {
            // The next one may be there, and if none is, the command is what was looked for.
            Err(LayerError::NotFound { .. }) => {}
            result => {
                found = result;
                break;
            }
        }
    }
    found
}

/// Puts a file where the root is to be, and beside it what tells later whether it is the same. Also its digest.
fn store(file: NamedTempFile, folder: &Path, root: Root) -> io::Result<(Root, Digest)> {
    file.as_file().set_permissions(Permissions::from_mode(0o444))?;
    fs::create_dir_all(folder)?;
    // A root is as large as a runtime: it is read while it is on its way to the disk.
    let (digest, synchronised) = thread::scope(|scope| {
        let synchronising = scope.spawn(|| file.as_file().sync_all());
        let digest = File::open(file.path()).and_then(Digest::of_reader);
        (digest, synchronising.join())
    });
    let digest = digest?;
    synchronised.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let uploads = file.path().parent().unwrap_or(folder).to_owned();
    persist(file, root.path())?;
    let seal = Seal::of(&File::open(root.path())?, digest)?;
    seal.write(folder, &uploads)?;
    Ok((root, digest))
}

/// What was derived earlier, if it is there and undamaged, with its digest.
fn intact_root(folder: &Path, uploads: &Path) -> Option<(Root, Digest)> {
    let roots = [
        Root::Program(folder.join(PROGRAM_FILE)),
        Root::FileSystem(folder.join(FILE_SYSTEM_FILE)),
    ];
    roots.into_iter().find_map(|root| {
        let digest = sealed_digest(root.path(), folder, uploads).ok()??;
        Some((root, digest))
    })
}

/// The digest of a file, if it is the one that the seal in its folder is about. It is read only if it was written since: what
/// changes by itself is the file system's to find.
fn sealed_digest(path: &Path, folder: &Path, uploads: &Path) -> io::Result<Option<Digest>> {
    let file = File::open(path)?;
    let seal = Seal::read(folder)?;
    let now = Seal::of(&file, seal.digest)?;
    if now == seal {
        return Ok(Some(seal.digest));
    }
    if now.bytes != seal.bytes || Digest::of_reader(file)? != seal.digest {
        return Ok(None);
    }
    // The same content, copied or restored. It is read again the next time if this fails.
    let _ = now.write(folder, uploads);
    Ok(Some(seal.digest))
}

/// Whether what was derived in this folder is as it was made, read to its end; none if there is nothing that anybody would
/// believe.
pub(crate) fn is_sealed(folder: &Path) -> io::Result<Option<bool>> {
    let Some(seal) = if_there(Seal::read(folder))? else {
        return Ok(None);
    };
    for name in [PROGRAM_FILE, FILE_SYSTEM_FILE] {
        if let Some(file) = if_there(File::open(folder.join(name)))? {
            return Ok(Some(Digest::of_reader(file)? == seal.digest));
        }
    }
    Ok(None)
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a derived file is known by.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    digest: Digest,
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl Seal {
    fn of(file: &File, digest: Digest) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            digest,
            bytes: metadata.len(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        })
    }

    fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.join(SEAL_FILE))?)?)
    }

    fn write(&self, folder: &Path, uploads: &Path) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(uploads)?;
        serde_json::to_writer(&mut file, self)?;
        persist(file, &folder.join(SEAL_FILE))
    }
}

/// A part of an image with its digest.
pub(crate) struct Parsed<T> {
    pub(crate) digest: Digest,
    pub(crate) content: T,
}

fn parse<T: serde::de::DeserializeOwned>(
    digest: Digest,
    what: &'static str,
    bytes: &[u8],
) -> Result<Parsed<T>, DeriveError> {
    let content =
        serde_json::from_slice(bytes).map_err(|source| DeriveError::Invalid { what, digest, source })?;
    Ok(Parsed { digest, content })
}

fn to_digest(digest: &oci_spec::image::Digest) -> Result<Digest, DeriveError> {
    let text = digest.to_string();
    text.parse().map_err(|_| DeriveError::Missing { digest: text })
}

/// Where the command may lie, as `execvp` looks for it in the image's working directory.
pub(crate) fn candidates(config: &Config, command: &str) -> Vec<String> {
    if command.starts_with('/') {
        return vec![command.to_owned()];
    }
    if command.contains('/') {
        return vec![format!("{}/{command}", working_directory(config))];
    }
    let environment = environment(config);
    let path = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':')
        .map(|folder| format!("{folder}/{command}"))
        .collect()
}

fn working_directory(config: &Config) -> String {
    config
        .working_dir()
        .clone()
        .filter(|directory| !directory.is_empty())
        .unwrap_or_else(|| "/".to_owned())
}

fn environment(config: &Config) -> Vec<(String, String)> {
    let variables = config
        .env()
        .iter()
        .flatten()
        .filter_map(|variable| variable.split_once('='));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn port(config: &Config) -> Result<u16, DeriveError> {
    let mut lowest = None;
    for exposed in config.exposed_ports().iter().flatten() {
        let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        if protocol != "tcp" {
            continue;
        }
        let number: u16 = number.parse().map_err(|_| DeriveError::BadPort {
            port: exposed.clone(),
        })?;
        if number == 0 {
            return Err(DeriveError::BadPort {
                port: exposed.clone(),
            });
        }
        lowest = Some(lowest.map_or(number, |lowest: u16| lowest.min(number)));
    }
    Ok(lowest.unwrap_or(DEFAULT_PORT))
}
