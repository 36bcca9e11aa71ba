//! What the daemon and the process beside a container (the *keeper*) tell each other: a JSON document a line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;

/// What a keeper is to do. The end of the stream after it means: end the container, and remove what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) runtime: Runtime,
    /// The container's name, which begins with `spore-`.
    pub(crate) id: String,
    /// An empty folder, where the keeper mounts what the container is made of; only it and the container see that.
    pub(crate) place: PathBuf,
    pub(crate) lower: Lower,
    /// Most that the container can write to its root, in bytes.
    pub(crate) written_bytes_max: u64,
    /// User and group that the root belongs to.
    pub(crate) owner: (u32, u32),
    /// The container's configuration, as JSON.
    pub(crate) configuration: String,
    /// Names and values of files.
    pub(crate) secrets: Vec<(String, Vec<u8>)>,
    /// Files into which the keeper writes `0` to get into the container's cgroups.
    pub(crate) inner_doors: Vec<PathBuf>,
    /// The same to get out of them.
    pub(crate) outer_doors: Vec<PathBuf>,
    /// Mounts that the runtime must not see.
    pub(crate) hidden: Vec<PathBuf>,
}

/// What is below the layer that the container writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lower {
    /// An EROFS image.
    Image(PathBuf),
    /// A folder.
    Folder(PathBuf),
}

/// What a keeper tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The runtime has started the container, of which this is the first process, or the runtime's that stays with it.
    Started { process: i32 },
    /// The container has ended.
    Ended(End),
    /// It cannot be started.
    Failed { reason: String, is_program: bool },
}

/// How the first process of a container has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Exited(u8),
    Signal(i32),
}
