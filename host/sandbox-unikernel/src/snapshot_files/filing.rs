//! What becomes of one snapshot's file: when it is written, and when it is not trusted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spore_sandbox::InstanceSpec;

use super::identity::{Identity, file_name};
use super::{SnapshotFiles, remove};
use crate::snapshots::Resident;

/// One snapshot's part in the files; nothing where there are none.
#[derive(Debug)]
pub(crate) struct Filing(Option<Filed>);

#[derive(Debug)]
struct Filed {
    files: Arc<SnapshotFiles>,
    function: String,
    name: String,
    identity: Identity,
    /// It comes from its file.
    is_loaded: bool,
    /// A clone of it has answered.
    is_proven: AtomicBool,
    is_distrusted: AtomicBool,
    /// The file is about to be written.
    is_due: AtomicBool,
}

impl Filing {
    /// That of a snapshot that was made now, of instances like this one.
    pub(crate) fn captured(files: Option<&Arc<SnapshotFiles>>, spec: &InstanceSpec) -> Self {
        let filed = files.and_then(|files| {
            let identity = files.host.with(spec)?;
            Some(Filed::new(Arc::clone(files), spec, identity, false))
        });
        Self(filed)
    }

    /// That of a snapshot from its file.
    pub(super) fn loaded(files: Arc<SnapshotFiles>, spec: &InstanceSpec, identity: Identity) -> Self {
        Self(Some(Filed::new(files, spec, identity, true)))
    }

    /// A clone has answered for the first time: nobody waits for it any more, and the snapshot is good.
    pub(crate) fn answered(&self, resident: &Arc<Resident>) {
        if let Some(filed) = &self.0 {
            let is_first = !filed.is_proven.swap(true, Ordering::AcqRel);
            if is_first && !filed.is_loaded {
                filed.write_later(resident);
            }
        }
    }

    /// More is known of the snapshot than the file says.
    pub(crate) fn has_changed(&self, resident: &Arc<Resident>) {
        if let Some(filed) = &self.0 {
            filed.write_later(resident);
        }
    }

    /// A clone has ended without an answer, and nobody has wanted that. The digests of a file say that it is as it was
    /// written, not that a guest can go on from it: where no clone ever has, it is not tried again.
    pub(crate) fn ended_without_answer(&self, cause: &dyn fmt::Display) {
        let Some(filed) = &self.0 else { return };
        let is_suspect = filed.is_loaded && !filed.is_proven.load(Ordering::Acquire);
        if is_suspect && !filed.is_distrusted.swap(true, Ordering::AcqRel) {
            let path = filed.files.folder.join(&filed.name);
            let (function, file) = (&filed.function, path.display());
            tracing::warn!(
                function,
                "the snapshot {file} is removed: its first copy ended before it answered: {cause}"
            );
            remove(&path);
        }
    }

    /// Whether it is not to be used any more.
    pub(crate) fn is_distrusted(&self) -> bool {
        let filed = self.0.as_ref();
        filed.is_some_and(|filed| filed.is_distrusted.load(Ordering::Acquire))
    }

    /// Function, name and identity of the file that is to be written now. What changes from here on has it written again.
    pub(super) fn begin(&self) -> Option<(&str, &str, &Identity)> {
        let filed = self.0.as_ref()?;
        filed.is_due.store(false, Ordering::Release);
        Some((&filed.function, &filed.name, &filed.identity))
    }
}

impl Filed {
    fn new(files: Arc<SnapshotFiles>, spec: &InstanceSpec, identity: Identity, is_loaded: bool) -> Self {
        Self {
            files,
            function: spec.function.clone(),
            name: file_name(&spec.function),
            identity,
            is_loaded,
            is_proven: AtomicBool::new(false),
            is_distrusted: AtomicBool::new(false),
            is_due: AtomicBool::new(false),
        }
    }

    /// Has the file written, unless it is about to be.
    fn write_later(&self, resident: &Arc<Resident>) {
        if !self.is_due.swap(true, Ordering::AcqRel) {
            self.files.write_later(Arc::downgrade(resident));
        }
    }
}
