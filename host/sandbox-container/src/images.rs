//! What containers find below the layer that they write to, made from what the store derives.
//!
//! ```text
//!   a file system      derived/HEX/root.erofs                 mounted as it is
//!   base and head      containers/images/DIGEST/root.erofs    one piece of both: the kernel mounts one file
//!   a program alone    containers/images/DIGEST/root          a folder with the program, which can be executed there;
//!                                                             everything in it belongs to the program's user
//! ```
//!
//! DIGEST is that of the function's root, with the program's path and user where it is alone. What no function has any more is
//! removed after the daemon has said what is deployed, unless a container has it yet: a folder is looked up file by file for as
//! long as it runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use spore_sandbox::{InstanceSpec, Root, SandboxKind, User};

use crate::protocol::Lower;

/// What base and head are made of, in bytes.
const PAGE_BYTES: u64 = 4096;

/// The folder of such images.
#[derive(Debug)]
pub(crate) struct Images {
    folder: PathBuf,
    /// Who has which folder. Locked while one is made, which may take long, or removed.
    holds: Mutex<HashMap<String, Weak<()>>>,
    /// Kinds of sandbox that use it, and what those need of which that is known.
    kinds: usize,
    used: Mutex<BTreeMap<SandboxKind, HashSet<String>>>,
    /// A thread is about to look what can go.
    is_sweep_due: AtomicBool,
}

/// Keeps what a container's root is made of.
#[derive(Debug)]
pub(crate) struct Hold {
    _folder: Option<Arc<()>>,
}

impl Images {
    pub(crate) fn new(folder: PathBuf, kinds: usize) -> Self {
        Self {
            folder,
            holds: Mutex::default(),
            kinds,
            used: Mutex::default(),
            is_sweep_due: AtomicBool::new(false),
        }
    }

    /// What an instance has as its lower layer, and what is to be held as long as it has it; made if it is not there.
    /// May block.
    pub(crate) fn lower(&self, spec: &InstanceSpec) -> io::Result<(Lower, Hold)> {
        match &spec.root {
            Root::FileSystem(path) => Ok((Lower::Image(path.clone()), Hold { _folder: None })),
            Root::Layered { base, head } => {
                let (folder, hold) =
                    self.made(spec, |folder| join(base, head, &folder.join("root.erofs")))?;
                Ok((Lower::Image(folder.join("root.erofs")), hold))
            }
            Root::Program(program) => {
                let name = program_path(spec)?;
                let (folder, hold) = self.made(spec, |folder| {
                    let copy = folder.join("root").join(&name);
                    if let Some(parent) = copy.parent() {
                        fs::create_dir_all(parent)?;
                    }
                    // As an image need not have one, and programs expect one.
                    let temporary = folder.join("root/tmp");
                    fs::create_dir_all(&temporary)?;
                    fs::set_permissions(&temporary, Permissions::from_mode(0o1777))?;
                    fs::copy(program, &copy)?;
                    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
                    let root = folder.join("root");
                    let above = copy.ancestors().take_while(|path| path.starts_with(&root));
                    for path in above.chain([temporary.as_path()]) {
                        chown(path, Some(spec.user.id), Some(spec.user.group))?;
                    }
                    // What has its name is taken for whole, also after a power failure.
                    File::open(&copy)?.sync_all()
                })?;
                Ok((Lower::Folder(folder.join("root")), hold))
            }
        }
    }

    /// A folder that `make` has filled. What a daemon had begun that was killed has another name.
    fn made(
        &self,
        spec: &InstanceSpec,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<(PathBuf, Hold)> {
        let name = name(spec);
        let folder = self.folder.join(&name);
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if !folder.exists() {
            let unfinished = self.folder.join("unfinished");
            remove(&unfinished)?;
            fs::create_dir(&unfinished)?;
            make(&unfinished)?;
            fs::rename(&unfinished, &folder)?;
        }
        let hold = holds.get(&name).and_then(Weak::upgrade).unwrap_or_default();
        holds.insert(name, Arc::downgrade(&hold));
        Ok((folder, Hold { _folder: Some(hold) }))
    }

    /// Lets a thread remove what none of these, and none of those of other kinds, has. Returns at once.
    pub(crate) fn retain(self: &Arc<Self>, kind: SandboxKind, deployed: &[InstanceSpec]) {
        self.note(kind, deployed);
        if !self.is_sweep_due.swap(true, Ordering::SeqCst) {
            let this = Arc::clone(self);
            let sweeper = std::thread::Builder::new().name("container-images".into());
            if sweeper.spawn(move || this.sweep()).is_err() {
                // The next time tries again.
                self.is_sweep_due.store(false, Ordering::SeqCst);
            }
        }
    }

    fn note(&self, kind: SandboxKind, deployed: &[InstanceSpec]) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(kind, deployed.iter().map(name).collect());
    }

    /// Removes what nobody has, once all kinds have said what they need.
    fn sweep(&self) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        // What is noted from here on is seen by the next one.
        self.is_sweep_due.store(false, Ordering::SeqCst);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if used.len() < self.kinds {
            return;
        }
        holds.retain(|_, hold| hold.strong_count() > 0);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !holds.contains_key(&name) && !used.values().any(|names| names.contains(&name)) {
                // The next time tries again what cannot go.
                let _ = remove(&entry.path());
            }
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Its digest; a program may be found at other paths, and be another user's.
fn name(spec: &InstanceSpec) -> String {
    let digest = hex::encode(spec.root_digest.unwrap_or_default());
    match (&spec.root, program_path(spec)) {
        (Root::Program(_), Ok(path)) => {
            let path = hex::encode(path.as_os_str().as_encoded_bytes());
            let User { id, group, .. } = spec.user;
            format!("{digest}-{path}-{id}-{group}")
        }
        _ => digest,
    }
}

/// Where a program that is alone lies in the root: where its own name says.
fn program_path(spec: &InstanceSpec) -> io::Result<PathBuf> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let name = spec.arguments.first().ok_or_else(|| bad("it has no name"))?;
    let path = if name.starts_with('/') {
        PathBuf::from(name)
    } else if name.contains('/') {
        Path::new(&spec.working_directory).join(name)
    } else {
        Path::new("/bin").join(name)
    };
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => relative.push(part),
            Component::ParentDir | Component::Prefix(_) => return Err(bad("its name has .. in it")),
        }
    }
    // The name of a file, in hexadecimal digits, is at most 255 bytes long.
    match relative.as_os_str().len() {
        1..=80 => Ok(relative),
        _ => Err(bad("its name is empty or too long")),
    }
}

/// One file of both: the head's first page, the base's others, the head's others (decision 0013).
fn join(base: &Path, head: &Path, to: &Path) -> io::Result<()> {
    let (mut base, mut head, mut to) = (File::open(base)?, File::open(head)?, File::create_new(to)?);
    io::copy(&mut (&mut head).take(PAGE_BYTES), &mut to)?;
    base.seek(SeekFrom::Start(PAGE_BYTES))?;
    io::copy(&mut base, &mut to)?;
    io::copy(&mut head, &mut to)?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(program: &Path) -> InstanceSpec {
        InstanceSpec {
            function: "f".into(),
            instance: "f-1".into(),
            sandbox: SandboxKind::Runc,
            root: Root::Program(program.to_owned()),
            root_digest: Some([1; 32]),
            arguments: vec!["f".into()],
            environment: Vec::new(),
            working_directory: "/".into(),
            user: spore_sandbox::User::default(),
            secrets: Vec::new(),
            rewrites_calls: false,
            is_cloned: false,
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

    #[test]
    fn what_a_container_has_stays_until_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, b"program").unwrap();
        let images = Images::new(folder.path().join("images"), 1);
        fs::create_dir(&images.folder).unwrap();
        let spec = spec(&program);
        let (Lower::Folder(root), first) = images.lower(&spec).unwrap() else {
            panic!("a program alone lies in a folder");
        };
        let copy = root.join("bin/f");
        let (_, second) = images.lower(&spec).unwrap();
        // Nobody has said yet what is needed.
        drop(first);
        images.sweep();
        images.note(SandboxKind::Runc, &[]);
        images.sweep();
        assert_eq!(fs::read(&copy).unwrap(), b"program");
        images.note(SandboxKind::Runc, std::slice::from_ref(&spec));
        drop(second);
        images.sweep();
        assert!(copy.exists());
        images.note(SandboxKind::Runc, &[]);
        images.sweep();
        assert!(!root.exists());
    }

    #[test]
    fn base_and_head_become_one_piece() {
        let folder = tempfile::tempdir().unwrap();
        let [base, head, to] = ["base", "head", "to"].map(|name| folder.path().join(name));
        let page = |byte: u8| vec![byte; PAGE_BYTES as usize];
        fs::write(&base, [page(1), page(2), page(3)].concat()).unwrap();
        fs::write(&head, [page(4), page(5)].concat()).unwrap();
        join(&base, &head, &to).unwrap();
        let whole = [page(4), page(2), page(3), page(5)].concat();
        assert!(fs::read(&to).unwrap() == whole);
    }
}
