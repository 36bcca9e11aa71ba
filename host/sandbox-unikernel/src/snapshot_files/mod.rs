//! Snapshots that outlive the daemon: each function's is kept in a file, from which the first start after a restart takes
//! it (`docs/snapshots.md`).
//!
//! ```text
//!   captured ──first answer of a clone, a second──> zero pages left out ──> HEX.partial ──synchronised──> HEX
//!   start ──> HEX ──checked while it is copied──> sealed memory file ──> clones
//!              └── refused, or its first clone never answers ──> removed, a line in the log ──> booted
//! ```
//!
//! * [`format`]: the layout, and which file is taken; pure;
//! * [`identity`]: what a snapshot belongs to;
//! * `writing`, `folder`: how a file comes to be there whole or not at all;
//! * `keeper`: the thread that writes and removes, in the background;
//! * `filing`: what one snapshot has to do with all that.
//!
//! A file could be changed while it is mapped, and what was checked would count for nothing. So it is read once, into
//! memory that is sealed afterwards, and every byte is checked on the way.

mod filing;
mod folder;
mod format;
#[cfg(test)]
mod format_tests;
mod identity;
mod keeper;
#[cfg(test)]
mod power_cut_tests;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod samples;
mod writing;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};

use spore_monitor::{RootFiles, chain, features};
use spore_sandbox::InstanceSpec;

pub(crate) use filing::Filing;
pub(crate) use format::Contents;
#[cfg(feature = "fuzzing")]
pub(crate) use format::reseal;
use format::{Opened, ReadError};
use identity::{HostIdentity, Identity, file_name};
use keeper::{Keeper, Order};

use crate::snapshots::{Cell, Resident, empty_file};
use crate::texts::Texts;

/// The files of all snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotFiles {
    folder: PathBuf,
    host: HostIdentity,
    orders: Sender<Order>,
}

/// Why a file was not loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl SnapshotFiles {
    /// Files in this folder, which nobody touches before it is known what is deployed. None, with a line in the log, if
    /// this machine cannot tell to what they would belong.
    pub(crate) fn start(folder: PathBuf) -> io::Result<Option<Arc<Self>>> {
        let host = match HostIdentity::find() {
            Ok(host) => host,
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(reason, "snapshots are not kept in files");
                return Ok(None);
            }
        };
        let (orders, queue) = channel();
        let keeper = Keeper::new(folder.clone());
        let thread = std::thread::Builder::new().name("snapshots".into());
        thread.spawn(move || keeper.run(&queue))?;
        Ok(Some(Arc::new(Self { folder, host, orders })))
    }

    /// Tells which functions there are. The files of others go; so do these cells, whose memory may be large.
    pub(crate) fn retain(&self, deployed: &[InstanceSpec], freed: Vec<Cell>) {
        let identity = |spec: &InstanceSpec| Some((file_name(&spec.function), self.host.with(spec)?));
        let deployed: HashMap<_, _> = deployed.iter().filter_map(identity).collect();
        self.order(Order::Retain { deployed, freed });
    }

    /// Has a snapshot written when some time has passed.
    fn write_later(&self, resident: Weak<Resident>) {
        self.order(Order::Write(resident));
    }

    fn order(&self, order: Order) {
        // The thread lives as long as anybody can order something.
        let _ = self.orders.send(order);
    }

    /// The snapshot of instances like this one, from its file; none if there is none that can be used. Blocks.
    fn load(self: &Arc<Self>, spec: &InstanceSpec, root: RootFiles, texts: &Texts) -> Option<Arc<Resident>> {
        let identity = self.host.with(spec)?;
        let name = file_name(&spec.function);
        let path = self.folder.join(&name);
        let (file, path) = (path.display(), path.clone());
        let function = spec.function.as_str();
        let (memory, contents) = match read(&self.folder, &name, &identity) {
            Ok(Some(found)) => found,
            Ok(None) => return None,
            Err(error) => {
                let reason = chain(&error);
                if matches!(error, LoadError::Read(ReadError::Refused(_))) {
                    tracing::warn!(function, "the snapshot {file} is not used and removed: {reason}");
                    remove(&path);
                } else {
                    tracing::warn!(function, "the snapshot {file} is not used: {reason}");
                }
                return None;
            }
        };
        let filing = Filing::loaded(Arc::clone(self), spec, identity);
        let mut captured = contents.captured;
        // They are what they were when it was made: see [`Identity`].
        captured.processor.features = features::of_machines().unwrap_or_default();
        match Resident::new(memory, captured, root, texts, filing) {
            Ok(resident) => {
                tracing::info!(function, "the snapshot {file} is used");
                if let Some(written) = &contents.written {
                    resident.set_written(written);
                }
                Some(Arc::new(resident))
            }
            Err(error) => {
                tracing::warn!(function, %error, "the snapshot {file} is not used: its memory cannot be sealed");
                None
            }
        }
    }
}

/// The snapshot of instances like this one, from its file; none if there is none that can be used.
pub(crate) async fn load(
    files: Option<&Arc<SnapshotFiles>>,
    spec: &InstanceSpec,
    root: RootFiles,
    texts: &Arc<Texts>,
) -> Option<Arc<Resident>> {
    let (files, spec, texts) = (Arc::clone(files?), spec.clone(), Arc::clone(texts));
    let loading = tokio::task::spawn_blocking(move || files.load(&spec, root, &texts));
    // A panic in there is told on the log; then it is booted.
    loading.await.ok().flatten()
}

/// Reads a file into memory that nobody else has; none if there is no file.
fn read(folder: &Path, name: &str, identity: &Identity) -> Result<Option<(OwnedFd, Contents)>, LoadError> {
    let Some((mut file, file_bytes)) = folder::open_file(folder, name).map_err(LoadError::Open)? else {
        return Ok(None);
    };
    let opened = Opened::read(&mut file, file_bytes, identity).map_err(ReadError::from)?;
    let memory = empty_file().map_err(ReadError::Memory)?;
    let memory = File::from(memory);
    memory.set_len(opened.memory_bytes()).map_err(ReadError::Memory)?;
    let contents = opened.pages(&mut file, |at, bytes| memory.write_all_at(bytes, at))?;
    Ok(Some((memory.into(), contents)))
}

/// Removes a file that is not to be used again.
fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the snapshot {} cannot be removed", path.display());
        }
        _ => {}
    }
}
