//! Building functions written in C: the sources in the folder and the SDK, statically linked by musl-gcc.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compiled::{BuildError, BuiltProgram, Tool, run, write_files};

/// The compiler that is called.
const TOOL: Tool = Tool {
    command: "musl-gcc",
    advice: "install musl-tools (Debian/Ubuntu: apt install musl-tools)",
};

/// `-Os` since the program's pages are what a cold start touches, and nothing that is not used, nor what the C library has for
/// debuggers; symbols stay, for they name a crash's place.
const COMPILER_FLAGS: [&str; 8] = [
    "-static",
    "-Os",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections,--strip-debug",
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
    let sources = sources(folder).map_err(BuildError::file(folder))?;
    if sources.is_empty() {
        return Err(BuildError::NoSources {
            folder: folder.into(),
            expected: "C source: handler.c with a function handle (see build/sdk/spore.h)",
        });
    }
    write_files(&folder.join(SDK_FOLDER), &SDK_FILES)?;
    let mut command = Command::new(TOOL.command);
    command
        .args(COMPILER_FLAGS)
        .arg(format!("-I{SDK_FOLDER}"))
        .arg("-o")
        .arg(PROGRAM_FILE)
        .args(sources.iter().map(|name| Path::new(".").join(name)))
        .args(sdk_sources());
    let printed = run(TOOL, folder, &mut command)?;
    Ok(BuiltProgram {
        path: folder.join(PROGRAM_FILE),
        warnings: printed.diagnostics,
    })
}

fn sdk_sources() -> impl Iterator<Item = PathBuf> {
    let sources = SDK_FILES.iter().filter(|(name, _)| name.ends_with(".c"));
    sources.map(|(name, _)| Path::new(SDK_FOLDER).join(name))
}
