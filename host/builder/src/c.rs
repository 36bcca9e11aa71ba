//! Building functions written in C: the sources in the folder and the SDK, statically linked by musl-gcc.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler that is called.
const COMPILER: &str = "musl-gcc";

/// `-Os` since the program's pages are what a cold start touches; symbols stay, for they name a crash's place.
const COMPILER_FLAGS: [&str; 5] = [
    "-static",
    "-Os",
    "-Wall",
    "-std=gnu11",
    "-fdiagnostics-color=auto",
];

/// Where the SDK is written to, below the function's folder. Editors find `spore.h` there.
const SDK_FOLDER: &str = "build/sdk";

/// Where the program is written to, below the function's folder.
const PROGRAM_FILE: &str = "build/function";

const SDK_FILES: [(&str, &str); 6] = [
    ("spore.h", include_str!("../../../sdk/c/spore.h")),
    ("internal.h", include_str!("../../../sdk/c/internal.h")),
    ("clones.c", include_str!("../../../sdk/c/clones.c")),
    ("request.c", include_str!("../../../sdk/c/request.c")),
    ("server.c", include_str!("../../../sdk/c/server.c")),
    ("text.c", include_str!("../../../sdk/c/text.c")),
];

/// A program that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltProgram {
    /// The program file.
    pub path: PathBuf,
    /// What the compiler had to say nevertheless, as it printed it; empty if nothing.
    pub warnings: String,
}

/// Why a C function could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder holds no C source.
    #[error("{} holds no C source: add handler.c with a function handle (see build/sdk/spore.h)", folder.display())]
    NoSources {
        /// The function's folder.
        folder: PathBuf,
    },
    /// The compiler is not installed.
    #[error("{COMPILER} was not found: install musl-tools (Debian/Ubuntu: apt install musl-tools)")]
    CompilerMissing,
    /// The compiler could not be started.
    #[error("{COMPILER} could not be started")]
    CompilerStart(#[source] std::io::Error),
    /// The compiler found errors.
    #[error("{COMPILER} found errors in {}", folder.display())]
    Compile {
        /// The function's folder.
        folder: PathBuf,
        /// What the compiler printed.
        diagnostics: String,
    },
    /// A file or folder could not be read or written.
    #[error("{} could not be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The C sources of the function in `folder`, by name: files that end in `.c`, not those in folders below.
pub fn sources(folder: &Path) -> std::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "c") && path.is_file() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the function in `folder` into its `build` folder. Blocks while the compiler runs.
pub fn build(folder: &Path) -> Result<BuiltProgram, BuildError> {
    let sources = sources(folder).map_err(|source| BuildError::File {
        path: folder.into(),
        source,
    })?;
    if sources.is_empty() {
        return Err(BuildError::NoSources {
            folder: folder.into(),
        });
    }
    write_sdk(folder)?;
    // Run in the folder, so that diagnostics name files as their author knows them.
    let output = Command::new(COMPILER)
        .current_dir(folder)
        .args(COMPILER_FLAGS)
        .arg(format!("-I{SDK_FOLDER}"))
        .arg("-o")
        .arg(PROGRAM_FILE)
        .args(sources.iter().map(|name| Path::new(".").join(name)))
        .args(sdk_sources())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => BuildError::CompilerMissing,
            _ => BuildError::CompilerStart(error),
        })?;
    let diagnostics = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(BuiltProgram {
            path: folder.join(PROGRAM_FILE),
            warnings: diagnostics,
        })
    } else {
        Err(BuildError::Compile {
            folder: folder.into(),
            diagnostics,
        })
    }
}

fn sdk_sources() -> impl Iterator<Item = PathBuf> {
    let sources = SDK_FILES.iter().filter(|(name, _)| name.ends_with(".c"));
    sources.map(|(name, _)| Path::new(SDK_FOLDER).join(name))
}

fn write_sdk(folder: &Path) -> Result<(), BuildError> {
    let sdk = folder.join(SDK_FOLDER);
    std::fs::create_dir_all(&sdk).map_err(|source| BuildError::File {
        path: sdk.clone(),
        source,
    })?;
    for (name, content) in SDK_FILES {
        let path = sdk.join(name);
        std::fs::write(&path, content).map_err(|source| BuildError::File { path, source })?;
    }
    Ok(())
}
