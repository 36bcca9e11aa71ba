//! Machines that were saved when their program was ready, and of which others are copies: where a function asks for it, and the monitor can.
//!
//! ```text
//!   boot ──READY──> LEAVE, the guest ends its connection ──> paused, saved ──> ended
//!   each start: a copy ──HERE──> SEED, CLOCK, START ──READY──> invocations
//! ```
//!
//! A machine is saved while it has no connection, so none is in a copy. They last as long as the daemon does.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use spore_sandbox::InstanceSpec;
use tokio::sync::OnceCell;

/// A machine that was saved.
#[derive(Debug)]
pub(crate) struct Snapshot {
    folder: tempfile::TempDir,
    /// The block device that it has, if one was made.
    image: Option<Arc<tempfile::TempPath>>,
}

impl Snapshot {
    pub(crate) const fn new(folder: tempfile::TempDir, image: Option<Arc<tempfile::TempPath>>) -> Self {
        Self { folder, image }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its block device, if one was made.
    pub(crate) fn image_file(&self) -> Option<Arc<tempfile::TempPath>> {
        self.image.clone()
    }

    /// Where that is.
    pub(crate) fn image(&self) -> Option<&Path> {
        self.image.as_ref().map(|image| image.as_ref().as_ref())
    }
}

/// Made by the first start, for which others wait.
type Cell = Arc<OnceCell<Arc<Snapshot>>>;

/// Those of all functions.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Mutex<Vec<(InstanceSpec, Cell)>>);

impl Snapshots {
    /// Where that of such instances is, or is to be.
    pub(crate) fn cell(&self, spec: &InstanceSpec) -> Cell {
        let common = common(spec);
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = cells.iter().find(|(known, _)| *known == common) {
            return Arc::clone(cell);
        }
        let cell = Cell::default();
        cells.push((common, Arc::clone(&cell)));
        cell
    }

    /// Forgets those that none of these has. What an instance is a copy of goes with it.
    pub(crate) fn retain(&self, deployed: &[InstanceSpec]) {
        let deployed: Vec<_> = deployed.iter().map(common).collect();
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|(known, _)| deployed.contains(known));
    }
}

/// What all instances that are started like this one have in common.
fn common(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec {
        instance: String::new(),
        ..spec.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use spore_sandbox::{Root, SandboxKind, User};

    fn spec(instance: &str) -> InstanceSpec {
        InstanceSpec {
            function: "f".into(),
            instance: instance.into(),
            sandbox: SandboxKind::Microvm,
            root: Root::Program("/p".into()),
            root_digest: Some([1; 32]),
            arguments: vec!["f".into()],
            environment: Vec::new(),
            working_directory: "/".into(),
            user: User::default(),
            secrets: Vec::new(),
            rewrites_calls: false,
            is_cloned: true,
            is_reset: false,
            egress: Vec::new(),
            port: 8080,
            serves_runtime_api: false,
            command: None,
            unikernel: None,
            memory_bytes: 64 << 20,
            isolation: None,
            processor_millis: 1000,
            ready_timeout: std::time::Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn instances_that_differ_in_their_names_alone_share_one_and_it_goes_with_the_last() {
        let snapshots = Snapshots::default();
        let first = snapshots.cell(&spec("f-1"));
        assert!(Arc::ptr_eq(&first, &snapshots.cell(&spec("f-2"))));
        let other = InstanceSpec {
            environment: vec![("A".into(), "b".into())],
            ..spec("f-3")
        };
        assert!(!Arc::ptr_eq(&first, &snapshots.cell(&other)));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        first.set(Arc::new(Snapshot::new(folder, None))).unwrap();
        snapshots.retain(&[spec("f-4"), other.clone()]);
        assert!(Arc::ptr_eq(&first, &snapshots.cell(&spec("f-5"))));
        let copied = Arc::clone(first.get().unwrap());
        drop(first);
        snapshots.retain(&[other]);
        assert!(path.exists(), "an instance is a copy of it");
        drop(copied);
        assert!(!path.exists());
    }
}
