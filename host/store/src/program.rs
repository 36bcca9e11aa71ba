//! From an image to what an instance runs: its root, arguments, environment and port.
//!
//! ```text
//!   layers ──unpack──> folder ──one static program, nothing else──> derived/HEX/program
//!                        └─────otherwise, mkfs.erofs─────────────> derived/HEX/root.erofs
//! ```
//!
//! Of an image whose last layers are small, only these are looked at where the rest is there already (`layered`).

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use oci_spec::image::{Arch, Config, ImageConfiguration, ImageIndex, ImageManifest, Os};
use rustix::io::Errno;
use spore_rootfs::{ImageError, Owners, make_image};
use spore_sandbox::{ForeignUnikernel, Root, User};
use tempfile::{Builder, NamedTempFile, TempDir};

use crate::Digest;
use crate::commands::{Checked, no_command};
use crate::derived::{Bond, Derived, FILE_SYSTEM_FILE, PROGRAM_FILE, store};
use crate::elf::{ElfError, Needs, check_program};
use crate::files::sync_directory;
use crate::images::{ImageStore, MAX_MANIFEST_BYTES};
use crate::manifests::{choose_platform, platforms};
use crate::protocol::Protocol;
use crate::unikernels::{self, URUNC_FILE, Unikernel};
use crate::unpack::{LayerError, Unpacker};
use crate::users::{self, Account};

/// The root in a folder that layers were unpacked into.
pub(crate) const UNPACKED_ROOT: &str = "root";
/// Longest configuration of an image, in bytes.
const MAX_CONFIGURATION_BYTES: usize = 4 << 20;
/// Port of a function whose image exposes none.
const DEFAULT_PORT: u16 = 8080;
/// Where a program without a slash in its name is looked for if the image sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an instance of an image runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program or the root file system, read-only files of this store that never change.
    pub root: Root,
    /// Digest of what is in it.
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
    /// Who the program runs as.
    pub user: User,
    /// What of the root is what, if it is another project's unikernel ([`ImageStore::derive_unikernel`]).
    pub unikernel: Option<ForeignUnikernel>,
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
        "the image is {unikernel}, which runs in the sandbox `foreign` only, and only if it is for the monitor qemu: deploy it \
         with `--sandbox foreign`"
    )]
    Unikernel {
        /// What it is.
        unikernel: Box<Unikernel>,
    },
    /// The image holds no unikernel.
    #[error(
        "the image is no unikernel of another project, for it has neither urunc's nor Unikraft's settings: leave \
         `--sandbox foreign` out, or see docs/sandboxes.md for what it needs"
    )]
    NoUnikernel,
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
    #[error(
        "the image has neither an entry point nor a command, nor a bootstrap for AWS Lambda in /var/runtime, /var/task or /opt"
    )]
    NoEntrypoint,
    /// The user that the image names is not known in it.
    #[error(
        "the image is to run as the user `{named}`, and {what}: name one that its /etc/passwd and /etc/group have, or a number"
    )]
    NoUser {
        /// The user as written.
        named: String,
        /// What is wrong with it.
        what: String,
    },
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
        let folder = self.derived.join(manifest.digest.to_hex());
        let named = Protocol::of(&arguments, &all_variables);
        let (protocol, arguments) = self.lambda_program(&manifest.content, &config, named, &folder)?;
        let command = arguments
            .first()
            .filter(|command| !command.is_empty())
            .ok_or(DeriveError::NoEntrypoint)?
            .clone();
        let named_user = users::named(&config);
        let is_known = |found: &Derived| named_user.is_some() == found.account.is_some();
        // What cannot be looked at is made again, or that says why not.
        let derived = match self.intact_root(&folder).ok().flatten().filter(is_known) {
            Some(found) => {
                if protocol == Protocol::Exec && !matches!(found.root, Root::Program(_)) {
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
        let Derived {
            root,
            digest: root_digest,
            account,
        } = derived;
        let account = account.unwrap_or_else(|| match root {
            // There is no file that says where its folder is.
            Root::Program(_) => Account::superuser("/"),
            Root::FileSystem(_) | Root::Layered { .. } => Account::superuser("/root"),
        });
        let user = account.user();
        let mut environment = environment(&config);
        let is_unset =
            |environment: &[(String, String)], wanted| environment.iter().all(|(name, _)| name != wanted);
        if !matches!(root, Root::Program(_)) && is_unset(&environment, "PATH") {
            environment.insert(0, ("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        if let Some(home) = account.home.filter(|_| is_unset(&environment, "HOME")) {
            environment.push(("HOME".to_owned(), home));
        }
        Ok(Program {
            root,
            root_digest,
            protocol,
            arguments,
            environment,
            port: port(&config)?,
            working_directory: working_directory(&config),
            user,
            unikernel: None,
        })
    }

    /// Whether what an instance runs is there as it was made. What cannot be looked at for want of descriptors or memory is
    /// not taken for damaged.
    pub fn is_intact(&self, root: &Root) -> bool {
        let folder = root.path().parent().unwrap_or(&self.derived);
        match self.intact_root(folder) {
            Ok(found) => found.is_some(),
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

    /// Makes what an instance needs of the image in `folder`, in whichever way takes least.
    fn derive_root(
        &self,
        manifest: &ImageManifest,
        config: &Config,
        command: &str,
        entry: Option<String>,
        folder: &Path,
    ) -> Result<Derived, DeriveError> {
        match self.derive_layered(manifest, config, command, folder) {
            Ok(stored) => return Ok(stored),
            // What is wrong with the image, if anything is, comes out below.
            Err(reason) => {
                let image = folder.display();
                let reason = &reason as &dyn std::error::Error;
                tracing::debug!(%image, reason, "the root of an image is made as a whole");
            }
        }
        self.derive_whole(manifest, config, command, entry, folder)
    }

    /// Unpacks layers into a private folder: the one to be removed, and its root in there.
    pub(crate) fn unpack(
        &self,
        manifest: &ImageManifest,
        layers: Range<usize>,
    ) -> Result<(TempDir, Unpacker), DeriveError> {
        // Emptied at start-up, so that nothing of a daemon that was killed stays.
        let unpacked = Builder::new().prefix("unpacked-").tempdir_in(&self.uploads)?;
        // Nobody else may enter; inside is the root, which everybody may.
        fs::set_permissions(unpacked.path(), Permissions::from_mode(0o700))?;
        let root = unpacked.path().join(UNPACKED_ROOT);
        fs::create_dir(&root)?;
        fs::set_permissions(&root, Permissions::from_mode(0o755))?;
        let mut unpacker = Unpacker::new(&root)?;
        for number in layers {
            let added = unpacker.add(number, self.layer(manifest, number)?);
            added.map_err(|error| self.unreadable_layer(manifest, number, error))?;
        }
        Ok((unpacked, unpacker))
    }

    /// Unpacks the layers, checks the program in them and stores what an instance needs of them in `folder`.
    fn derive_whole(
        &self,
        manifest: &ImageManifest,
        config: &Config,
        command: &str,
        entry: Option<String>,
        folder: &Path,
    ) -> Result<Derived, DeriveError> {
        let (unpacked, mut unpacker) = self.unpack(manifest, 0..manifest.layers().len())?;
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
        let account = users::named(config)
            .map(|named| Account::find(named, |path| unpacker.open_if_there(path)))
            .transpose()?;
        let is_static = check_needs(&unpacker, command, program.try_clone()?)?;
        let bond = Bond {
            base: None,
            account: account.clone(),
        };
        let (root, digest) = if is_static && unpacker.holds_only(&program)? {
            let mut file = NamedTempFile::new_in(&self.uploads)?;
            (&program).rewind()?;
            io::copy(&mut &program, file.as_file_mut())?;
            let digest = store(file, folder, PROGRAM_FILE, bond)?;
            (Root::Program(folder.join(PROGRAM_FILE)), digest)
        } else {
            // As a container would: an image need not hold the folder that it names.
            unpacker.make_folder(&working_directory(config))?;
            unpacker.finish();
            let file = NamedTempFile::new_in(&self.uploads)?;
            let owners = account.as_ref().map_or(Owners::Root, Account::owners);
            make_image(&unpacked.path().join(UNPACKED_ROOT), file.path(), owners)?;
            let digest = store(file, folder, FILE_SYSTEM_FILE, bond)?;
            (Root::FileSystem(folder.join(FILE_SYSTEM_FILE)), digest)
        };
        say_skipped(folder, unpacker.skipped);
        sync_directory(&self.derived)?;
        remove_unpacked(unpacked);
        Ok(Derived {
            root,
            digest,
            account,
        })
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

/// Says that an image has more than instances will find.
pub(crate) fn say_skipped(folder: &Path, skipped: u64) {
    if skipped > 0 {
        let image = folder.display();
        tracing::info!(%image, skipped, "devices and pipes of an image were left out");
    }
}

/// Removes what [`ImageStore::unpack`] has made. It takes long for large images, and is no failure of the image.
pub(crate) fn remove_unpacked(unpacked: TempDir) {
    if let Err(error) = unpacked.close() {
        tracing::warn!(%error, "an unpacked image could not be removed; the next start does it");
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

pub(crate) fn to_digest(digest: &oci_spec::image::Digest) -> Result<Digest, DeriveError> {
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

pub(crate) fn working_directory(config: &Config) -> String {
    config
        .working_dir()
        .clone()
        .filter(|directory| !directory.is_empty())
        .unwrap_or_else(|| "/".to_owned())
}

pub(crate) fn environment(config: &Config) -> Vec<(String, String)> {
    let variables = config
        .env()
        .iter()
        .flatten()
        .filter_map(|variable| variable.split_once('='));
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

pub(crate) fn port(config: &Config) -> Result<u16, DeriveError> {
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
