//! Images from and to elsewhere. Other registries, by the OCI distribution specification: images are pulled from them
//! into the store, and pushed from the store to them. Folders and archives: they are read for the import.
//!
//! ```text
//!   name ──aliases, short names──> HOST/REPOSITORY:TAG ──mirrors──> endpoint (HTTPS; plain HTTP on loopback only)
//!
//!   pull:  manifest ──index──> that for linux/amd64 ──> configuration and layers ──> store
//!                  └─ or all of them     each blob once for all pulls at a time, from where an earlier try has come to
//!   push:  blobs that are missing there ──> manifest, or manifests and their index, if all of it is stored
//! ```
//!
//! A registry is hostile: what it sends has bounds (manifests, tokens and errors too, which is why this is on hyper and
//! not on a registry library that reads them whole), digests are compared, and credentials go to nobody but the registry
//! and the token service that it names.

mod authorization;
mod credentials;
mod endpoint;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod layouts;
mod names;
mod pull;
mod push;
mod session;
mod transport;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use spore_store::Digest;

pub use credentials::{ClientCredential, ClientCredentialError, CredentialError, REGISTRY_AUTHENTICATION};
pub use endpoint::{Endpoint, EndpointError, Mirror};
pub use error::{RegistryError, RegistryFault};
pub use layouts::{Layout, LayoutError, LocalBlob, LocalImage, push_name};
pub use names::{Alias, AliasParseError, RemoteName, short_repository};
pub use pull::Platforms;
pub use push::Pushed;

use transport::Transport;

/// Which names mean what, and which registries are asked instead of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Short names for repositories.
    pub aliases: Vec<Alias>,
    /// Registries that stand in for others.
    pub mirrors: Vec<Mirror>,
}

/// Other registries. Cheap to clone; clones share their connections, and downloads under way.
#[derive(Clone)]
pub struct Registries {
    options: Arc<RegistryOptions>,
    transport: Transport,
    /// Of whom this is done for.
    client: Option<Arc<ClientCredential>>,
    /// Held by whoever downloads the blob; others wait and find it stored.
    downloads: Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Registries {
    /// Makes what is needed to talk to registries; no connection yet.
    #[must_use]
    pub fn new(options: RegistryOptions) -> Self {
        Self {
            options: Arc::new(options),
            transport: Transport::new(),
            client: None,
            downloads: Arc::default(),
        }
    }

    /// The same for a client, whose credential goes before those of the user who runs this, for the registry that it is for.
    #[must_use]
    pub fn on_behalf_of(&self, client: ClientCredential) -> Self {
        Self {
            client: Some(Arc::new(client)),
            ..self.clone()
        }
    }

    /// What a name means elsewhere than in this daemon.
    #[must_use]
    pub fn remote_name(&self, reference: &spore_store::ImageReference) -> RemoteName {
        RemoteName::of(reference, &self.options.aliases)
    }
}

/// How far a transfer has come. Shared by those who transfer and those who watch.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
}

impl Progress {
    /// Bytes that need not be transferred any more, and bytes in all, as far as is known.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        let done = self.done_bytes.load(Ordering::Relaxed);
        (done, self.total_bytes.load(Ordering::Relaxed).max(done))
    }

    fn expect(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was counted has to be transferred again.
    fn take_back(&self, bytes: u64) {
        self.done_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
