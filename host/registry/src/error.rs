//! What can go wrong with another registry, and whose fault it is.

use std::io;

use http::StatusCode;
use spore_store::{Digest, FinishError, ManifestError};

use crate::credentials::CredentialError;
use crate::endpoint::EndpointError;

/// Why an image could not be pulled or pushed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name leads to no registry.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The machine's certificates or the cryptography could not be set up.
    #[error("HTTPS cannot be used on this machine")]
    Tls(#[from] rustls::Error),
    /// The registry does not answer.
    #[error("the registry {registry} cannot be reached")]
    Unreachable {
        /// Where it should be.
        registry: String,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The registry has stopped to answer.
    #[error("the registry {registry} said nothing for {} s", after.as_secs())]
    Silent {
        /// Where it is.
        registry: String,
        /// How long.
        after: std::time::Duration,
    },
    /// An answer broke off.
    #[error("the answer of the registry {registry} broke off")]
    Broken {
        /// Where it is.
        registry: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The image is not there.
    #[error("{name} does not exist there{}", said(message))]
    NotFound {
        /// What was asked for.
        name: String,
        /// What the registry says.
        message: String,
    },
    /// The registry wants to know who asks, or does not let them.
    #[error("the registry {registry} does not give access to {repository} {}{}", if *has_credentials { "with the credentials that Docker's config.json names" } else { "without credentials: log in (`docker login`), you or the user who runs the daemon, or name the folder of a config.json with DOCKER_CONFIG" }, said(message))]
    Denied {
        /// Where it is.
        registry: String,
        /// What was asked for.
        repository: String,
        /// Whether credentials were sent.
        has_credentials: bool,
        /// What the registry says.
        message: String,
    },
    /// The credentials could not be read.
    #[error("the credentials for {registry} could not be had")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: CredentialError,
    },
    /// The registry refuses for another reason, or has failed.
    #[error("the registry {registry} answered {status}{}", said(message))]
    Refused {
        /// Where it is.
        registry: String,
        /// The answer's status.
        status: StatusCode,
        /// What the registry says.
        message: String,
    },
    /// The registry sends the request to where it must not go.
    #[error(
        "the registry {registry} leads to {target}: only HTTPS is followed, and plain HTTP on this machine"
    )]
    BadRedirect {
        /// Where it is.
        registry: String,
        /// Where it leads.
        target: String,
    },
    /// What the registry sends is not what the protocol says.
    #[error("the registry {registry} does not keep to the protocol: {what}")]
    Protocol {
        /// Where it is.
        registry: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Something is longer than it may be.
    #[error("{what} is longer than {limit_bytes} bytes")]
    TooLong {
        /// What it is.
        what: String,
        /// Its limit.
        limit_bytes: u64,
    },
    /// The manifest names too many layers.
    #[error("the image has {count} layers, and at most {limit} are taken")]
    TooManyLayers {
        /// So many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// The manifest is none.
    #[error(
        "the manifest {digest} is neither an OCI image manifest nor an OCI image index, nor one of Docker's second version"
    )]
    BadManifest {
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The image is not for this machine.
    #[error("the image is for {platforms}, not for linux/amd64")]
    OtherPlatform {
        /// What it is for.
        platforms: String,
    },
    /// A digest is of a kind that is not used here.
    #[error("the manifest names `{digest}`: only sha256 digests are taken")]
    OtherDigest {
        /// As written.
        digest: String,
    },
    /// What arrived is something else than what was asked for.
    #[error("{what} has the digest {found}, not {expected}")]
    DigestMismatch {
        /// What it is.
        what: String,
        /// That of what arrived.
        found: Digest,
        /// That of what was asked for.
        expected: Digest,
    },
    /// What is to be pushed is not whole.
    #[error("{digest}, a part of the image, is not in the store")]
    Missing {
        /// Its digest.
        digest: String,
    },
    /// A blob could not be stored.
    #[error("a blob could not be stored")]
    Finish(#[from] FinishError),
    /// A manifest could not be stored.
    #[error("the manifest could not be stored")]
    Manifest(#[from] ManifestError),
    /// A file of the store could not be read or written.
    #[error("the store could not be read or written")]
    Io(#[from] io::Error),
    /// A request cannot be expressed.
    #[error("the request cannot be expressed in HTTP")]
    NotHttp(#[from] http::Error),
    /// A task was lost.
    #[error("a task of the daemon was lost")]
    Lost(#[from] tokio::task::JoinError),
}

fn said(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFault {
    /// Who asked: another name, other credentials, another image.
    Caller,
    /// The other registry, or the way to it.
    Registry,
    /// This machine.
    Platform,
}

impl RegistryError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> RegistryFault {
        match self {
            Self::Endpoint(_)
            | Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::TooLong { .. }
            | Self::TooManyLayers { .. }
            | Self::BadManifest { .. }
            | Self::OtherPlatform { .. }
            | Self::OtherDigest { .. }
            | Self::Missing { .. }
            | Self::Manifest(ManifestError::Invalid(_) | ManifestError::UnknownBlob { .. }) => {
                RegistryFault::Caller
            }
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Broken { .. }
            | Self::Refused { .. }
            | Self::BadRedirect { .. }
            | Self::Protocol { .. }
            | Self::DigestMismatch { .. } => RegistryFault::Registry,
            Self::Tls(_)
            | Self::Credentials { .. }
            | Self::Finish(_)
            | Self::Manifest(_)
            | Self::Io(_)
            | Self::NotHttp(_)
            | Self::Lost(_) => RegistryFault::Platform,
        }
    }

    /// Whether the same may succeed a moment later.
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}
