//! The root file system of the programs that are linked against the shared C library.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

use crate::catalogue::Program;
use crate::compile;

/// A folder with all dynamic programs of the suite in `/bin` and the libraries of this machine that they need, made
/// when the first of them runs.
pub(crate) struct Glibc {
    programs: Vec<Arc<Program>>,
    made: OnceLock<Result<TempDir, String>>,
}

impl Glibc {
    /// For the dynamic ones of the programs.
    pub(crate) fn of(programs: &[Arc<Program>]) -> Glibc {
        let dynamic = programs.iter().filter(|program| program.is_dynamic());
        Glibc {
            programs: dynamic.cloned().collect(),
            made: OnceLock::new(),
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> Result<&Path, String> {
        let made = self.made.get_or_init(|| self.make());
        made.as_ref().map(TempDir::path).map_err(Clone::clone)
    }

    fn make(&self) -> Result<TempDir, String> {
        let folder = TempDir::with_prefix("spore-linux-glibc-").expect("the temporary folder is writable");
        std::fs::create_dir(folder.path().join("tmp")).expect("the temporary folder is writable");
        for program in &self.programs {
            let built = compile::program(program)?;
            let mut libraries = libraries_of(&built)?;
            for needed in &program.needs {
                if needed.starts_with('/') {
                    copy_files(Path::new(needed), folder.path())?;
                } else {
                    libraries.insert(beside_the_c_library(&libraries, needed)?);
                }
            }
            for library in libraries {
                copy(&library, &inside(folder.path(), &library))?;
            }
            copy(&built, &folder.path().join("bin").join(&program.name))?;
        }
        Ok(folder)
    }
}

/// The libraries of a program and its interpreter, by their absolute paths.
fn libraries_of(program: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.map_err(|error| format!("ldd cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    let paths: BTreeSet<PathBuf> = paths.map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err(format!("ldd names no library of {}", program.display()));
    }
    Ok(paths)
}

fn beside_the_c_library(libraries: &BTreeSet<PathBuf>, name: &str) -> Result<PathBuf, String> {
    let mut libraries = libraries.iter();
    let c_library = libraries.find(|path| path.file_name().is_some_and(|name| name == "libc.so.6"));
    let c_library = c_library.ok_or("ldd names no C library")?;
    Ok(c_library.with_file_name(name))
}

/// The place below `root` of what has this absolute path.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").expect("ldd gives absolute paths"))
}

/// Copies all files of a folder to the same place below `root`.
fn copy_files(folder: &Path, root: &Path) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for path in paths {
        if path.is_dir() {
            copy_files(&path, root)?;
        } else {
            copy(&path, &inside(root, &path))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let folder = to.parent().expect("a file is in a folder");
    let copied = std::fs::create_dir_all(folder).and_then(|()| std::fs::copy(from, to));
    copied
        .map(drop)
        .map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}
