//! What a snapshot belongs to: the function as it is configured, the library OS that is in it, and the machine.

use sha2::{Digest as _, Sha256};
use spore_monitor::identity::{library_os, processor_features};
use spore_monitor::probe::ProbeError;
use spore_sandbox::{InstanceSpec, Root};

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

/// Where the kernel tells by which name it knows the time since it was booted.
const HOST_BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Everything that has to be the same for a snapshot to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// [`spore_abi::ABI_VERSION`].
    pub(crate) abi_version: u32,
    /// The library OS's code and data.
    pub(crate) library_os: Digest,
    /// The processor's features, as guests see them.
    pub(crate) processor: Digest,
    /// The host's boot: CLOCK_MONOTONIC and the time-stamp counter begin anew with the next one.
    pub(crate) host_boot: Digest,
    /// The file of the root.
    pub(crate) root: Digest,
    /// Everything else that an instance is started with.
    pub(crate) configuration: Digest,
}

/// Why this machine has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoIdentity {
    #[error("the processor's features cannot be told")]
    Processor(#[from] ProbeError),
    #[error("{HOST_BOOT_FILE} cannot be read")]
    HostBoot(#[source] std::io::Error),
}

/// What is the same for all snapshots that are made now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostIdentity {
    library_os: Digest,
    processor: Digest,
    host_boot: Digest,
}

impl HostIdentity {
    /// That of this build, on this machine, since it was booted.
    pub(crate) fn find() -> Result<Self, NoIdentity> {
        let mut image = Hasher::default();
        library_os().into_iter().for_each(|part| image.bytes(part));
        let mut processor = Hasher::default();
        for number in processor_features()? {
            processor.number(number.into());
        }
        let host_boot = std::fs::read(HOST_BOOT_FILE).map_err(NoIdentity::HostBoot)?;
        Ok(Self {
            library_os: image.finish(),
            processor: processor.finish(),
            host_boot: Sha256::digest(host_boot).into(),
        })
    }

    /// That of the snapshot of instances like this one; none if it is not known what is in its root.
    pub(crate) fn with(&self, spec: &InstanceSpec) -> Option<Identity> {
        Some(Identity {
            abi_version: spore_abi::ABI_VERSION,
            library_os: self.library_os,
            processor: self.processor,
            host_boot: self.host_boot,
            root: spec.root_digest?,
            configuration: configuration(spec),
        })
    }
}

/// The name of the file in which a function has its snapshot.
pub(crate) fn file_name(function: &str) -> String {
    hex::encode(Sha256::digest(function))
}

/// The digest of everything that an instance is started with, but for what is in its root, and for what it cannot see: its
/// own name, where its root lies, and how long it may take until it is ready.
fn configuration(spec: &InstanceSpec) -> Digest {
    let InstanceSpec {
        function,
        instance: _,
        root,
        root_digest: _,
        arguments,
        environment,
        working_directory,
        user,
        secrets,
        rewrites_calls,
        is_cloned,
        is_reset,
        egress,
        port,
        serves_runtime_api,
        command,
        memory_bytes,
        isolation,
        // There are snapshots of Spore's own unikernels only.
        sandbox: _,
        unikernel: _,
        processor_millis,
        ready_timeout: _,
    } = spec;
    let mut hasher = Hasher::default();
    hasher.text(function);
    hasher.number(match root {
        Root::Program(_) => 0,
        Root::FileSystem(_) | Root::Layered { .. } => 1,
    });
    hasher.number(arguments.len() as u64);
    arguments.iter().for_each(|argument| hasher.text(argument));
    hasher.number(environment.len() as u64);
    for (name, value) in environment {
        hasher.text(name);
        hasher.text(value);
    }
    hasher.text(working_directory);
    hasher.number(user.id.into());
    hasher.number(user.group.into());
    hasher.number(user.more_groups.len() as u64);
    user.more_groups
        .iter()
        .for_each(|group| hasher.number((*group).into()));
    hasher.number(secrets.len() as u64);
    for secret in secrets {
        hasher.text(&secret.name);
        hasher.bytes(&secret.value);
    }
    hasher.number((*rewrites_calls).into());
    hasher.number((*is_cloned).into());
    hasher.number((*is_reset).into());
    hasher.number(egress.len() as u64);
    egress.iter().for_each(|rule| hasher.text(&rule.to_string()));
    hasher.number((*port).into());
    hasher.number((*serves_runtime_api).into());
    hasher.number(match command {
        None => 0,
        Some(command) => 1 + u64::from(command.combines_output),
    });
    hasher.number(*memory_bytes);
    hasher.text(isolation.map_or("", |isolation| isolation.name()));
    hasher.number((*processor_millis).into());
    hasher.finish()
}

/// Takes fields so that no two lists of them look alike.
#[derive(Default)]
struct Hasher(Sha256);

impl Hasher {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}
