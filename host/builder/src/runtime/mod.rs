//! Runtimes: one generic image layer per language, with the interpreter, its libraries and its standard library.
//!
//! ```text
//!   interpreter of this machine ──ask──> version, standard library ──┐
//!   ldd ──> shared libraries ────────────────────────────────────────┼──> layer.tar + runtime.json in the cache
//!   dpkg ──> names and versions of the packages they come from ──────┘
//! ```
//!
//! A runtime is made once and then stays as it is, whatever becomes of the machine's own packages, until it is asked for
//! anew: that is what keeps the layer, and so the images of all functions, the same. `runtime.json` lists what it is made
//! of. Paths in the layer do not depend on where the interpreter lies on this machine.

mod libraries;
mod node;
mod packages;
mod python;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tempfile::{Builder, NamedTempFile, TempDir};

use crate::layer::{Layer, LayerData, LayerDescription, Packing, Tree};

/// Counts changes of what is put into a runtime; one that was made by another recipe is made again.
const RECIPE: u32 = 1;
/// Longest description of a runtime that is read, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 4 << 20;
/// Held by whoever makes a runtime.
const LOCK_FILE: &str = ".lock";
/// Begins the names of files that are being written.
const UNFINISHED_PREFIX: &str = ".unfinished-";

/// The hosts that every root knows, and how names are found: what the C library reads.
const ETC_FILES: [(&str, &str); 4] = [
    ("/etc/hosts", "127.0.0.1 localhost\n"),
    (
        "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
    ),
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];
/// Certificates of authorities, if this machine has them.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Languages whose functions run on a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeLanguage {
    /// `CPython`.
    Python,
    /// Node.js.
    Node,
}

impl RuntimeLanguage {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

/// A package of the distribution, or another file, that a runtime is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// Name of the package, or path of a file that belongs to none.
    pub name: String,
    /// Version of the package, or the file's SHA-256.
    pub version: String,
}

/// A runtime that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    recipe: u32,
    /// Its language.
    pub language: RuntimeLanguage,
    /// The interpreter's version, for example `3.11.2`.
    pub version: String,
    /// The interpreter on this machine, which installs packages for functions.
    pub interpreter: PathBuf,
    /// What it is made of, by name.
    pub sources: Vec<Source>,
    /// Its layer.
    pub layer: LayerDescription,
    /// The folder that holds the layer, which is none of its own description.
    #[serde(skip)]
    folder: PathBuf,
}

/// Why a runtime could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no interpreter.
    #[error("{program} was not found: install {package} (Debian/Ubuntu: apt install {package}), or name one with spore runtime build {} --from FILE", language.name())]
    NoInterpreter {
        /// The language.
        language: RuntimeLanguage,
        /// What was looked for.
        program: String,
        /// The package that brings it.
        package: &'static str,
    },
    /// The interpreter cannot be used.
    #[error("{} cannot be used: {reason}", interpreter.display())]
    Interpreter {
        /// The interpreter.
        interpreter: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A tool that is needed is missing or fails.
    #[error("{tool} cannot be run")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A library that the interpreter needs is not on this machine.
    #[error("{program} needs {library}, which is not on this machine: install the package that brings it")]
    NoLibrary {
        /// The program or library.
        program: String,
        /// What it needs.
        library: String,
    },
    /// A file could not be read or written.
    #[error("{} could not be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl RuntimeError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// What a language puts into its runtime.
struct Contents {
    version: String,
    tree: Tree,
    /// Where files in the tree come from, for the list.
    origins: Vec<PathBuf>,
    /// What the tree refers to and is removed afterwards.
    staging: Option<TempDir>,
}

/// The runtimes in a folder of this user's.
#[derive(Debug, Clone)]
pub struct Runtimes {
    folder: PathBuf,
}

impl Runtimes {
    /// Those in `folder`, which need not be there.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The runtime of a language, if one was made that can be used.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn find(&self, language: RuntimeLanguage) -> Result<Option<Runtime>, RuntimeError> {
        let path = self.description(language);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= DESCRIPTION_BYTES_MAX => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RuntimeError::file(&path)(error)),
        }
        let text = fs::read(&path).map_err(RuntimeError::file(&path))?;
        // One that an older or newer release has written is made again.
        let Ok(mut runtime) = serde_json::from_slice::<Runtime>(&text) else {
            return Ok(None);
        };
        runtime.folder.clone_from(&self.folder);
        let is_whole = runtime.recipe == RECIPE
            && runtime.language == language
            && fs::metadata(runtime.layer_path()).is_ok_and(|file| file.len() == runtime.layer.bytes);
        Ok(is_whole.then_some(runtime))
    }

    /// Makes the runtime of a language anew, from the interpreter `from` or else the one of this machine. `progress` hears
    /// of the bytes of files as they are packed.
    ///
    /// # Errors
    ///
    /// If there is no interpreter, or it cannot be read, or the folder not be written.
    pub fn make(
        &self,
        language: RuntimeLanguage,
        from: Option<&Path>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Runtime, RuntimeError> {
        let interpreter = match from {
            Some(path) => path.to_owned(),
            None => find_interpreter(language)?,
        };
        let (contents, interpreter) = match language {
            RuntimeLanguage::Python => python::contents(&interpreter)?,
            RuntimeLanguage::Node => node::contents(&interpreter)?,
        };
        fs::create_dir_all(&self.folder).map_err(RuntimeError::file(&self.folder))?;
        let _alone = self.lock()?;
        self.remove_unfinished();
        let layer_file = self.unfinished().map_err(RuntimeError::file(&self.folder))?;
        let layer = contents
            .tree
            .pack_to(Packing::Plain, layer_file.path(), progress)
            .map_err(RuntimeError::file(layer_file.path()))?;
        drop(contents.staging);
        let runtime = Runtime {
            recipe: RECIPE,
            language,
            version: contents.version,
            interpreter,
            sources: packages::sources(&contents.origins)?,
            layer,
            folder: self.folder.clone(),
        };
        let path = runtime.layer_path();
        layer_file
            .persist(&path)
            .map_err(|error| RuntimeError::file(&path)(error.error))?;
        self.note(&runtime)?;
        self.remove_others(&runtime);
        Ok(runtime)
    }

    /// Makes it the one that functions get from now on.
    fn note(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        let path = self.description(runtime.language);
        let failed = |error| RuntimeError::file(&path)(error);
        let file = self.unfinished().map_err(failed)?;
        serde_json::to_writer_pretty(file.as_file(), runtime).map_err(|error| failed(error.into()))?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Waits until nobody else makes a runtime in this folder, and lets nobody until the file is dropped.
    fn lock(&self) -> Result<File, RuntimeError> {
        let path = self.folder.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(RuntimeError::file(&path))
    }

    /// A file that gets its name when it is whole.
    fn unfinished(&self) -> io::Result<NamedTempFile> {
        Builder::new().prefix(UNFINISHED_PREFIX).tempfile_in(&self.folder)
    }

    /// What those have left who were killed. Whoever is at work holds the lock.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Layers that no function gets any more. One that cannot be removed does no harm.
    fn remove_others(&self, runtime: &Runtime) {
        let prefix = format!("{}-", runtime.language.name());
        let kept = runtime.layer_path();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let is_layer = entry.file_name().to_string_lossy().starts_with(&prefix);
            if is_layer && entry.path() != kept {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn description(&self, language: RuntimeLanguage) -> PathBuf {
        self.folder.join(format!("{}.json", language.name()))
    }
}

impl Runtime {
    /// Its layers, from the bottom: the language's own, and the SDK of this release.
    ///
    /// # Errors
    ///
    /// If the SDK cannot be packed.
    pub fn layers(&self) -> io::Result<[Layer; 2]> {
        let mut sdk = Tree::default();
        let files = match self.language {
            RuntimeLanguage::Python => python::SDK_FILES,
            RuntimeLanguage::Node => node::SDK_FILES,
        };
        for (name, content) in files {
            sdk.add_content(Path::new(SDK_FOLDER).join(name), content.as_bytes());
        }
        let language = Layer {
            description: self.layer.clone(),
            data: LayerData::File(self.layer_path()),
        };
        Ok([language, sdk.pack(Packing::Gzip)?])
    }

    /// The program that serves a function, and its arguments.
    #[must_use]
    pub fn entrypoint(&self) -> Vec<String> {
        let words = match self.language {
            RuntimeLanguage::Python => python::ENTRYPOINT,
            RuntimeLanguage::Node => node::ENTRYPOINT,
        };
        words.map(str::to_owned).to_vec()
    }

    /// Environment variables that its programs need.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let variables: &[(&str, &str)] = match self.language {
            RuntimeLanguage::Python => &python::ENVIRONMENT,
            RuntimeLanguage::Node => &node::ENVIRONMENT,
        };
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        variables.iter().map(owned).collect()
    }

    fn layer_path(&self) -> PathBuf {
        let digest = self.layer.digest.trim_start_matches("sha256:");
        let short = digest.get(..16).unwrap_or(digest);
        self.folder.join(format!("{}-{short}.tar", self.language.name()))
    }
}

/// Where the SDK lies in images.
const SDK_FOLDER: &str = "/spore";

/// A root with what every root has.
fn base_tree() -> Tree {
    let mut tree = Tree::default();
    for folder in ["/tmp", "/root"] {
        tree.add_folder(folder);
    }
    for (path, text) in ETC_FILES {
        tree.add_content(path, text.as_bytes());
    }
    // Programs that connect to nobody do without them.
    let _ = tree.add_file(CERTIFICATES, Path::new(CERTIFICATES));
    tree
}

/// The distribution's interpreter, or else the first one in `PATH`.
fn find_interpreter(language: RuntimeLanguage) -> Result<PathBuf, RuntimeError> {
    let (program, package) = match language {
        RuntimeLanguage::Python => ("python3", "python3"),
        RuntimeLanguage::Node => ("node", "nodejs"),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
    let found = folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.ok_or_else(|| RuntimeError::NoInterpreter {
        language,
        program: program.to_owned(),
        package,
    })
}

/// Asks an interpreter something; what it prints.
fn ask(interpreter: &Path, arguments: &[&str]) -> Result<String, RuntimeError> {
    let refused = |reason: String| RuntimeError::Interpreter {
        interpreter: interpreter.to_owned(),
        reason,
    };
    let output = Command::new(interpreter)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| refused(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(refused(format!("{}: {}", output.status, said.trim())));
    }
    String::from_utf8(output.stdout).map_err(|_| refused("its answer is no UTF-8".to_owned()))
}
