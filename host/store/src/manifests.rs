//! What manifests say, and which of an index is meant here.

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};

use crate::Digest;

/// Operating systems that images of Unikraft name: they are the monitors that its unikernels are for.
const MONITORS: [&str; 5] = ["qemu", "fc", "firecracker", "xen", "kraftcloud"];

/// A manifest, of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyManifest {
    /// Of an image.
    Image(Box<ImageManifest>),
    /// Of images for several platforms.
    Index(Box<ImageIndex>),
}

impl AnyManifest {
    /// Reads a manifest of OCI, or of the second version of Docker's.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        match serde_json::from_slice(bytes) {
            Ok(index) => Ok(Self::Index(Box::new(index))),
            Err(_) => Ok(Self::Image(Box::new(serde_json::from_slice(bytes)?))),
        }
    }

    /// Digests of everything that it names, as written.
    pub(crate) fn referenced(&self) -> Vec<String> {
        match self {
            Self::Index(index) => index.manifests().iter().map(digest_text).collect(),
            Self::Image(manifest) => std::iter::once(manifest.config())
                .chain(manifest.layers())
                .map(digest_text)
                .collect(),
        }
    }
}

fn digest_text(descriptor: &Descriptor) -> String {
    descriptor.digest().to_string()
}

/// The digest of a descriptor, if it is of the kind that is used here.
#[must_use]
pub fn digest_of(descriptor: &Descriptor) -> Option<Digest> {
    digest_text(descriptor).parse().ok()
}

/// Which image of an index is meant here: that for linux/amd64, one for no platform in particular, or a unikernel's.
#[must_use]
pub fn choose_platform(index: &ImageIndex) -> Option<&Descriptor> {
    let find = |wanted: &dyn Fn(&Descriptor) -> bool| index.manifests().iter().find(|one| wanted(one));
    let of = |os: &dyn Fn(&Os) -> bool, one: &Descriptor| {
        let platform = one.platform().as_ref();
        platform.is_some_and(|platform| os(platform.os()) && is_here(platform.architecture()))
    };
    find(&|one| of(&|os| *os == Os::Linux, one))
        .or_else(|| find(&|one| one.platform().is_none()))
        .or_else(|| find(&|one| of(&is_monitor, one)))
}

fn is_here(architecture: &Arch) -> bool {
    *architecture == Arch::Amd64 || architecture.to_string() == "x86_64"
}

/// Whether an operating system is the monitor of a unikernel.
pub(crate) fn is_monitor(os: &Os) -> bool {
    MONITORS.contains(&os.to_string().as_str())
}

/// The platform of an image in an index, for people.
#[must_use]
pub fn platform_of(image: &Descriptor) -> String {
    match image.platform() {
        Some(platform) => format!("{}/{}", platform.os(), platform.architecture()),
        None => "no platform".to_owned(),
    }
}

/// The platforms of an index, for people.
#[must_use]
pub fn platforms(index: &ImageIndex) -> String {
    let shown = index.manifests().iter().take(20).map(platform_of);
    match shown.collect::<Vec<_>>() {
        shown if shown.is_empty() => "no platform at all".to_owned(),
        shown => shown.join(", "),
    }
}
