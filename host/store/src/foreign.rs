//! What an instance of another project's unikernel is made of: the image's files, and which of them is what.
//!
//! ```text
//!   kernel   urunc `binary`; Unikraft `kernel.image`, else unikraft/bin/kernel
//!   initrd   urunc `initrd`; Unikraft `initrd.image`, else unikraft/bin/initrd if it is there
//!   disk     urunc `block`; `blkMntPoint` is where its file system is to be
//! ```

use std::collections::BTreeMap;

use oci_spec::image::{Config, ImageConfiguration, ImageManifest};
use spore_rootfs::{Owners, make_image};
use spore_sandbox::{ForeignUnikernel, Root, User};
use tempfile::NamedTempFile;

use crate::Digest;
use crate::derived::{Bond, Derived, FILE_SYSTEM_FILE, store};
use crate::files::sync_directory;
use crate::images::ImageStore;
use crate::program::{
    DeriveError, Program, UNPACKED_ROOT, environment, port, remove_unpacked, say_skipped, working_directory,
};
use crate::protocol::Protocol;
use crate::unikernels::{self, URUNC_FILE, Unikernel, UnikernelFormat};
use crate::unpack::Unpacker;

/// A label or annotation of ours: the request that a unikernel answers when it is ready.
const READY: &str = "dev.spore.unikernel.ready";
/// Where Unikraft's packer puts what no annotation names.
const UNIKRAFT_KERNEL: &str = "/unikraft/bin/kernel";
const UNIKRAFT_INITRD: &str = "/unikraft/bin/initrd";

impl ImageStore {
    /// What an instance of the image with this manifest runs as a unikernel of another project, where these variables are set
    /// besides the image's.
    ///
    /// # Errors
    ///
    /// If the image is none, or what it names is not in it.
    pub fn derive_unikernel(
        &self,
        manifest: Digest,
        variables: &BTreeMap<String, String>,
    ) -> Result<Program, DeriveError> {
        let manifest = self.image_manifest(manifest)?;
        let configuration = self.any_configuration(&manifest.content)?;
        let config = configuration.config().clone().unwrap_or_default();
        let folder = self.derived.join(manifest.digest.to_hex());
        let (unpacked, mut unpacker) = self.unpack(&manifest.content, 0..manifest.content.layers().len())?;
        let described = unikernels::recognise(&manifest.content, &configuration).or_else(|| {
            let file = unpacker.open_file(URUNC_FILE).ok()?;
            unikernels::recognise_file(file)
        });
        let described = described.ok_or(DeriveError::NoUnikernel)?;
        let mut unikernel = parts(&described, &unpacker)?;
        unikernel.ready = ready(&manifest.content, &configuration);
        let found = self.intact_root(&folder).ok().flatten();
        let (root, root_digest) = match found {
            Some(Derived {
                root: root @ Root::FileSystem(_),
                digest,
                ..
            }) => (root, digest),
            _ => {
                unpacker.finish();
                let file = NamedTempFile::new_in(&self.uploads)?;
                make_image(&unpacked.path().join(UNPACKED_ROOT), file.path(), Owners::Root)?;
                let digest = store(file, &folder, FILE_SYSTEM_FILE, Bond::default())?;
                (Root::FileSystem(folder.join(FILE_SYSTEM_FILE)), digest)
            }
        };
        say_skipped(&folder, unpacker.skipped);
        sync_directory(&self.derived)?;
        remove_unpacked(unpacked);
        let (protocol, arguments) = Protocol::of(&arguments(&described, &config), variables);
        Ok(Program {
            root,
            root_digest,
            protocol,
            arguments,
            environment: environment(&config),
            port: port(&config)?,
            working_directory: working_directory(&config),
            user: User::default(),
            unikernel: Some(unikernel),
        })
    }
}

/// What of the image is what; all of it is there.
fn parts(described: &Unikernel, unpacker: &Unpacker) -> Result<ForeignUnikernel, DeriveError> {
    let setting = |name: &str| {
        described
            .settings
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    let (kernel, initrd, disk, version) = match described.format {
        UnikernelFormat::Urunc => (
            setting("binary").unwrap_or_default(),
            setting("initrd"),
            setting("block"),
            setting("unikernelVersion"),
        ),
        UnikernelFormat::Unikraft => {
            let has_initrd = unpacker.open_file(UNIKRAFT_INITRD).is_ok();
            (
                setting("kernel.image").unwrap_or_else(|| UNIKRAFT_KERNEL.to_owned()),
                setting("initrd.image").or_else(|| has_initrd.then(|| UNIKRAFT_INITRD.to_owned())),
                None,
                setting("kernel.version"),
            )
        }
    };
    for path in [Some(&kernel), initrd.as_ref(), disk.as_ref()]
        .into_iter()
        .flatten()
    {
        drop(unpacker.open_file(path)?);
    }
    Ok(ForeignUnikernel {
        framework: described.kind.clone(),
        framework_version: version,
        monitor: described.monitor.clone(),
        kernel,
        initrd,
        disk,
        disk_folder: setting("blkMntPoint"),
        ready: None,
    })
}

/// What the unikernel is told: the image's entry point and command; in images of old, a setting.
fn arguments(described: &Unikernel, config: &Config) -> Vec<String> {
    let mut arguments = config.entrypoint().clone().unwrap_or_default();
    arguments.extend(config.cmd().iter().flatten().cloned());
    if arguments.is_empty()
        && let Some(line) = described.settings.get("cmdline")
    {
        arguments.extend(line.split_whitespace().map(str::to_owned));
    }
    arguments
}

fn ready(manifest: &ImageManifest, configuration: &ImageConfiguration) -> Option<String> {
    let annotations = manifest.annotations().as_ref();
    let config = configuration.config().as_ref();
    let labels = config.and_then(|config| config.labels().as_ref());
    let value = annotations.and_then(|all| all.get(READY));
    value.or_else(|| labels?.get(READY)).cloned()
}
