//! What is built or collected is kept in the target folder under a name that says what it was made from.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use spore_test_harness::{repository, target_directory};
use tempfile::TempDir;

/// Why a fixture could not be made. Its tools are there, or the program would have been skipped.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file of this machine or of the repository could not be read, or the target folder not be written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command could not be started.
    #[error("{command} cannot be run")]
    Start {
        /// The command with its arguments.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command failed.
    #[error("{command} failed: {output}")]
    Failed {
        /// The command with its arguments.
        command: String,
        /// What it wrote.
        output: String,
    },
    /// A program needs a library that is not on this machine.
    #[error("{program} needs {library}, which is not on this machine")]
    NoLibrary {
        /// The program or library.
        program: String,
        /// What it needs.
        library: String,
    },
}

impl FixtureError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> FixtureError {
        let path = path.to_path_buf();
        move |source| FixtureError::File { path, source }
    }
}

/// A source of this suite, by its path in `programs/`.
pub(crate) fn source(path: &str) -> PathBuf {
    repository().join("tests/real/programs").join(path)
}

/// Where fixtures are kept.
pub(crate) fn cache() -> PathBuf {
    target_directory().join("real")
}

/// A digest of everything that a fixture is made from.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds a text; what was added before and after it stays apart from it.
    pub(crate) fn text(mut self, text: &str) -> Key {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds the contents of a file or, in the order of their names, of all files below a folder.
    pub(crate) fn contents(mut self, path: &Path) -> Result<Key, FixtureError> {
        let file_error = |source| FixtureError::File {
            path: path.to_path_buf(),
            source,
        };
        if !path.is_dir() {
            let contents = std::fs::read(path).map_err(file_error)?;
            self.0.update((contents.len() as u64).to_le_bytes());
            self.0.update(&contents);
            return Ok(self);
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries: Vec<PathBuf> = entries
            .map_err(file_error)?
            .iter()
            .map(std::fs::DirEntry::path)
            .collect();
        entries.sort();
        for entry in entries {
            let name = entry
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name != "target" {
                self = self.text(&name).contents(&entry)?;
            }
        }
        Ok(self)
    }

    fn hex(self) -> String {
        hex::encode(&self.0.finalize()[..12])
    }
}

/// The folder `NAME-KEY` in the cache, made by `make` in a temporary place if it is not there. Several test programs
/// may make it at once; one of them wins.
pub(crate) fn kept(
    name: &str,
    key: Key,
    make: impl FnOnce(&Path) -> Result<(), FixtureError>,
) -> Result<PathBuf, FixtureError> {
    let cache = cache();
    let folder = cache.join(format!("{name}-{}", key.hex()));
    if folder.is_dir() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&cache).map_err(FixtureError::file(&cache))?;
    let temporary =
        TempDir::with_prefix_in(format!(".{name}-"), &cache).map_err(FixtureError::file(&cache))?;
    let made = temporary.path().join("made");
    std::fs::create_dir(&made).map_err(FixtureError::file(&made))?;
    make(&made)?;
    let moved = std::fs::rename(&made, &folder);
    if folder.is_dir() {
        return Ok(folder); // moved just now, or by another one
    }
    moved.map_err(FixtureError::file(&folder))?;
    Ok(folder)
}

/// Runs a command that has to succeed and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, FixtureError> {
    let text = format!("{command:?}");
    let output = match command.output() {
        Ok(output) => output,
        Err(source) => {
            return Err(FixtureError::Start {
                command: text,
                source,
            });
        }
    };
    if !output.status.success() {
        return Err(FixtureError::Failed {
            command: text,
            output: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compiles one C file of `programs/c`.
pub(crate) fn c(compiler: &str, options: &[&str], name: &str) -> Result<PathBuf, FixtureError> {
    let source = source(&format!("c/{name}.c"));
    let key = Key::default()
        .text(compiler)
        .text(&options.join(" "))
        .contents(&source)?;
    let folder = kept(&format!("c-{name}"), key, |folder| {
        let mut command = Command::new(compiler);
        command.args(["-O2", "-Wall", "-Wextra", "-Werror"]).args(options);
        run(command.arg("-o").arg(folder.join(name)).arg(source)).map(drop)
    })?;
    Ok(folder.join(name))
}

/// Builds a Go program of `programs/go`. What stands in `replaced` in its source is put in place of the other.
pub(crate) fn go(name: &str, with_cgo: bool, replaced: &[(&str, &str)]) -> Result<PathBuf, FixtureError> {
    let cgo = if with_cgo { "1" } else { "0" };
    let version = run(Command::new("go").arg("version"))?;
    let source = source(&format!("go/{name}"));
    let key = Key::default()
        .text(cgo)
        .text(&version)
        .text(&format!("{replaced:?}"));
    let folder = kept(&format!("go-{name}"), key.contents(&source)?, |folder| {
        let code = folder.join("source");
        copy_source(&source, &code, replaced)?;
        let mut command = Command::new("go");
        command
            .args(["build", "-trimpath", "-o"])
            .arg(folder.join(name))
            .current_dir(code);
        run(command.envs([("CGO_ENABLED", cgo), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local")])).map(drop)
    })?;
    Ok(folder.join(name))
}

/// Copies a folder of text files.
fn copy_source(from: &Path, to: &Path, replaced: &[(&str, &str)]) -> Result<(), FixtureError> {
    std::fs::create_dir(to).map_err(FixtureError::file(to))?;
    let entries = std::fs::read_dir(from).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(FixtureError::file(from))? {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_source(&from, &to, replaced)?;
            continue;
        }
        let mut text = std::fs::read_to_string(&from).map_err(FixtureError::file(&from))?;
        for (old, new) in replaced {
            text = text.replace(old, new);
        }
        std::fs::write(&to, text).map_err(FixtureError::file(&to))?;
    }
    Ok(())
}

/// Builds the Rust program `name` in a folder of `programs` for a target.
pub(crate) fn rust(folder: &str, name: &str, target: &str) -> Result<PathBuf, FixtureError> {
    let source = source(folder);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let version = run(Command::new(&cargo).arg("--version"))?;
    let key = Key::default().text(target).text(&version).contents(&source)?;
    let folder = kept(&format!("{folder}-{target}"), key, |folder| {
        let mut command = Command::new(&cargo);
        command.args([
            "build",
            "--release",
            "--locked",
            "--target",
            target,
            "--manifest-path",
        ]);
        command.arg(source.join("Cargo.toml"));
        // The tests' own settings are not the program's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
                command.env_remove(name);
            }
        }
        let built = cache().join("rust-target");
        run(command.env("CARGO_TARGET_DIR", &built))?;
        let program = built.join(target).join("release").join(name);
        let copied = std::fs::copy(&program, folder.join(name));
        copied.map(drop).map_err(FixtureError::file(&program))
    })?;
    Ok(folder.join(name))
}

/// Whether the modules that the Go program of `programs/go` needs are here, or can be had.
pub(crate) fn has_go_modules(name: &str) -> bool {
    let mut command = Command::new("go");
    command
        .args(["mod", "download"])
        .current_dir(source(&format!("go/{name}")));
    run(command.env("GOTOOLCHAIN", "local")).is_ok()
}

/// Whether the crates that the Rust program in a folder of `programs` needs are here, or can be had.
pub(crate) fn has_crates(folder: &str) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = source(folder).join("Cargo.toml");
    let mut command = Command::new(cargo);
    run(command
        .args(["fetch", "--locked", "--manifest-path"])
        .arg(manifest))
    .is_ok()
}

/// Compiles the Java program of `programs/java` and returns the folder of its classes.
pub(crate) fn java() -> Result<PathBuf, FixtureError> {
    let source = source("java/Server.java");
    let version = run(Command::new("javac").arg("--version"))?;
    let key = Key::default().text(&version).contents(&source)?;
    kept("java", key, |folder| {
        run(Command::new("javac").arg("-d").arg(folder).arg(&source)).map(drop)
    })
}

/// Makes a certificate for `localhost` with its key: a folder with `certificate.pem` and `key.pem`.
pub(crate) fn certificate() -> Result<PathBuf, FixtureError> {
    let options = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "3650",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        "key.pem",
        "-out",
        "certificate.pem",
    ];
    kept("certificate", Key::default().text(&options.join(" ")), |folder| {
        run(Command::new("openssl").args(options).current_dir(folder)).map(drop)
    })
}
