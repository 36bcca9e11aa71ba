//! The runtime of Python: the interpreter, and its standard library as compiled modules alone.
//!
//! Half of the files are gone with the sources, and no module is ever compiled in an instance. Compiled modules are not
//! checked against sources (`unchecked-hash`), so that times do not matter.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::libraries::{add_if_present, add_libraries};
use super::{Contents, RuntimeError, ask, base_tree};

pub(super) const SDK_FILES: &[(&str, &str)] = &[
    ("server.py", include_str!("../../../../sdk/python/server.py")),
    ("spore.py", include_str!("../../../../sdk/python/spore.py")),
];
pub(super) const ENTRYPOINT: [&str; 2] = ["/usr/bin/python3", "/spore/server.py"];
pub(super) const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/root"),
    ("PYTHONHOME", "/usr"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONUNBUFFERED", "1"),
    ("SSL_CERT_FILE", super::CERTIFICATES),
];

/// Prefix of everything in the image.
const PREFIX: &str = "/usr";
/// Folders of the standard library that no function needs.
const LEFT_OUT: [&str; 12] = [
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "venv",
];
/// Modules for windows, which need libraries that have no place here.
const LEFT_OUT_MODULES: [&str; 2] = ["_tkinter.", "turtle."];
/// What wheels may be linked against without bringing it (the `manylinux` policies).
const WHEEL_LIBRARIES: [&str; 8] = [
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
];

const QUESTION: &str = "import json, os, platform, sys, sysconfig
print(json.dumps({
    'implementation': platform.python_implementation(),
    'version': platform.python_version(),
    'executable': os.path.realpath(sys.executable),
    'prefix': sys.base_prefix,
    'exec_prefix': sys.base_exec_prefix,
    'libraries': sorted({sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib')}),
}))";

#[derive(Deserialize)]
struct Answer {
    implementation: String,
    version: String,
    executable: PathBuf,
    prefix: PathBuf,
    exec_prefix: PathBuf,
    libraries: Vec<PathBuf>,
}

/// What is in the runtime, and the interpreter itself, whatever script stood for it.
pub(super) fn contents(interpreter: &Path) -> Result<(Contents, PathBuf), RuntimeError> {
    let answer = question(interpreter)?;
    let staging = tempfile::tempdir().map_err(RuntimeError::file(Path::new("/tmp")))?;
    let mut tree = base_tree();
    let mut origins = vec![answer.executable.clone()];
    let mut linked = vec![answer.executable.clone()];
    let mut add = |path: PathBuf, from: &Path| tree.add_file(path, from).map_err(RuntimeError::file(from));
    add(Path::new(PREFIX).join("bin/python3"), &answer.executable)?;
    for library in &answer.libraries {
        let inside = library
            .strip_prefix(&answer.prefix)
            .or_else(|_| library.strip_prefix(&answer.exec_prefix))
            .map_err(|_| RuntimeError::Interpreter {
                interpreter: interpreter.to_owned(),
                reason: format!("its standard library lies elsewhere, in {}", library.display()),
            })?;
        let staged = staging.path().join(inside);
        let modules = stage(library, &staged).map_err(RuntimeError::file(library))?;
        origins.extend(modules.objects.iter().cloned());
        origins.extend(modules.example);
        linked.extend(modules.objects);
    }
    compile(&answer.executable, &staging)?;
    let is_taken = |path: &Path| path.extension().is_none_or(|extension| extension != "py");
    tree.add_folder_content(Path::new(PREFIX), staging.path(), &is_taken)
        .map_err(|(path, source)| RuntimeError::File { path, source })?;
    let libraries = add_libraries(&mut tree, &linked)?;
    origins.extend(add_if_present(&mut tree, &libraries, &WHEEL_LIBRARIES));
    origins.extend(libraries);
    let contents = Contents {
        version: answer.version,
        tree,
        origins,
        staging: Some(staging),
    };
    Ok((contents, answer.executable))
}

fn question(interpreter: &Path) -> Result<Answer, RuntimeError> {
    let text = ask(interpreter, &["-I", "-c", QUESTION])?;
    let refused = |reason: String| RuntimeError::Interpreter {
        interpreter: interpreter.to_owned(),
        reason,
    };
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|error| refused(format!("it answers what is no JSON: {error}")))?;
    if answer.implementation != "CPython" {
        return Err(refused(format!("it is {}: give CPython", answer.implementation)));
    }
    Ok(answer)
}

struct Modules {
    /// Shared objects, which need libraries.
    objects: Vec<PathBuf>,
    /// One module in Python: the package of the others.
    example: Option<PathBuf>,
}

/// Copies a library to where it is compiled.
fn stage(library: &Path, target: &Path) -> io::Result<Modules> {
    let mut modules = Modules {
        objects: Vec::new(),
        example: None,
    };
    let left_out: BTreeSet<&str> = LEFT_OUT.into();
    let mut open = vec![PathBuf::new()];
    while let Some(inside) = open.pop() {
        fs::create_dir_all(target.join(&inside))?;
        for entry in fs::read_dir(library.join(&inside))? {
            let entry = entry?;
            let file_name = entry.file_name();
            let name = file_name.to_string_lossy();
            let from = entry.path();
            // A link to the distribution's configuration may lead nowhere.
            let Ok(metadata) = fs::metadata(&from) else {
                continue;
            };
            if metadata.is_dir() {
                if !left_out.contains(name.as_ref()) && !name.starts_with("config-") {
                    open.push(inside.join(&file_name));
                }
                continue;
            }
            if LEFT_OUT_MODULES.iter().any(|module| name.starts_with(module)) {
                continue;
            }
            if name.ends_with(".so") {
                modules.objects.push(from.clone());
            } else if name == "os.py" {
                modules.example = Some(from.clone());
            } else if !name.ends_with(".py") {
                continue;
            }
            fs::copy(&from, target.join(&inside).join(&file_name))?;
        }
    }
    modules.objects.sort();
    Ok(modules)
}

/// Compiles what is staged. Modules keep the paths that they have in the image.
fn compile(interpreter: &Path, staging: &TempDir) -> Result<(), RuntimeError> {
    let staged = staging.path().to_string_lossy();
    let arguments = [
        "-I",
        "-m",
        "compileall",
        "-q",
        "-b",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        &staged,
        "-p",
        PREFIX,
        &staged,
    ];
    ask(interpreter, &arguments).map(drop)
}
