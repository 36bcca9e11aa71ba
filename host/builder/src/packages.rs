//! The packages that a function needs, installed by the language's own tool and kept as a layer in the function's `build`
//! folder for as long as the list and the runtime stay the same.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::interpreted::{FUNCTION_FOLDER, is_code};
use crate::layer::{Layer, LayerData, LayerDescription, Packing, Tree};
use crate::runtime::{Runtime, RuntimeLanguage};

/// Where the layer is kept, what it is known by, and where packages are installed meanwhile, in the `build` folder.
const LAYER_FILE: &str = "packages.tar.gz";
const DESCRIPTION_FILE: &str = "packages.json";
const INSTALL_FOLDER: &str = "packages";
/// Where packages of Python lie in the image.
const PYTHON_FOLDER: &str = "/packages";
/// Most bytes of packages.
const PACKAGES_BYTES_MAX: u64 = 2 << 30;
/// Longest list of packages, in bytes.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// Why packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// The tool is not there.
    #[error(
        "{tool} was not found, and {list} lists packages: install {package} (Debian/Ubuntu: apt install {package})"
    )]
    NoTool {
        /// The tool.
        tool: &'static str,
        /// The file that lists packages.
        list: &'static str,
        /// The package that brings the tool.
        package: &'static str,
    },
    /// The tool could not be started.
    #[error("{tool} could not be started")]
    Start {
        /// The tool.
        tool: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tool failed.
    #[error("{tool} failed ({status}):\n{output}")]
    Failed {
        /// The tool.
        tool: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        output: String,
    },
    /// The list of packages cannot be read.
    #[error("{} is no list of packages", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The packages are too large.
    #[error("the packages take {bytes} bytes: at most {PACKAGES_BYTES_MAX} fit")]
    TooLarge {
        /// How much they take.
        bytes: u64,
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

/// What a kept layer was made of.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    layer: LayerDescription,
}

/// The layer with the packages of the function in `folder`; none if it needs none.
pub(crate) fn install(folder: &Path, runtime: &Runtime) -> Result<Option<Layer>, PackagesError> {
    let lists: &[&str] = match runtime.language {
        RuntimeLanguage::Python => &["requirements.txt"],
        RuntimeLanguage::Node => &[
            "package.json",
            "package-lock.json",
            "npm-shrinkwrap.json",
            ".npmrc",
        ],
    };
    let contents = read_lists(folder, lists)?;
    let Some(first) = contents.first().and_then(|(_, content)| content.as_ref()) else {
        return Ok(None);
    };
    let needs_any = match runtime.language {
        RuntimeLanguage::Python => lists_requirements(first),
        RuntimeLanguage::Node => lists_dependencies(&folder.join(lists[0]), first)?,
    };
    if !needs_any {
        return Ok(None);
    }
    let key = key(runtime, &contents);
    let build = folder.join("build");
    let data = LayerData::File(build.join(LAYER_FILE));
    if let Some(description) = kept(&build, &key) {
        return Ok(Some(Layer { description, data }));
    }
    let target = build.join(INSTALL_FOLDER);
    remove_folder(&target)?;
    fs::create_dir_all(&target).map_err(file_error(&target))?;
    let (place, from) = match runtime.language {
        RuntimeLanguage::Python => {
            pip(folder, runtime, &target)?;
            (PathBuf::from(PYTHON_FOLDER), target.clone())
        }
        RuntimeLanguage::Node => {
            // Packages of the author's own may lie in the folder ("file:…"): links to them hold in the image as well.
            copy_code(folder, &target)?;
            npm(&target, &contents)?;
            let place = Path::new(FUNCTION_FOLDER).join("node_modules");
            (place, target.join("node_modules"))
        }
    };
    let mut tree = Tree::default();
    if from.is_dir() {
        let all = |_: &Path| true;
        tree.add_folder_content(&place, &from, &all)
            .map_err(|(path, source)| PackagesError::File { path, source })?;
    }
    let bytes = tree.content_bytes();
    if bytes > PACKAGES_BYTES_MAX {
        return Err(PackagesError::TooLarge { bytes });
    }
    let path = build.join(LAYER_FILE);
    let layer = tree
        .pack_to(Packing::Gzip, &path, &mut |_| {})
        .map_err(file_error(&path))?;
    remove_folder(&target)?;
    let note = build.join(DESCRIPTION_FILE);
    let kept = Kept {
        key,
        layer: layer.clone(),
    };
    let text = serde_json::to_vec_pretty(&kept).map_err(|error| file_error(&note)(error.into()))?;
    fs::write(&note, text).map_err(file_error(&note))?;
    let description = layer;
    Ok(Some(Layer { description, data }))
}

type Lists = Vec<(&'static str, Option<Vec<u8>>)>;

fn read_lists(folder: &Path, names: &[&'static str]) -> Result<Lists, PackagesError> {
    let read = |name: &&'static str| {
        let path = folder.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > LIST_BYTES_MAX => {
                Err(file_error(&path)(io::ErrorKind::FileTooLarge.into()))
            }
            Ok(_) => Ok((*name, Some(fs::read(&path).map_err(file_error(&path))?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((*name, None)),
            Err(error) => Err(file_error(&path)(error)),
        }
    };
    names.iter().map(read).collect()
}

/// Whether requirements.txt has a line that is neither empty nor a comment.
fn lists_requirements(content: &[u8]) -> bool {
    content.split(|&byte| byte == b'\n').any(|line| {
        let line = line.trim_ascii();
        !line.is_empty() && !line.starts_with(b"#")
    })
}

fn lists_dependencies(path: &Path, content: &[u8]) -> Result<bool, PackagesError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Package {
        #[serde(default)]
        dependencies: serde_json::Map<String, serde_json::Value>,
        #[serde(default)]
        optional_dependencies: serde_json::Map<String, serde_json::Value>,
    }
    let package: Package = serde_json::from_slice(content).map_err(|source| PackagesError::List {
        path: path.to_owned(),
        source,
    })?;
    Ok(!package.dependencies.is_empty() || !package.optional_dependencies.is_empty())
}

fn key(runtime: &Runtime, lists: &Lists) -> String {
    let mut hasher = Sha256::new();
    for part in [
        runtime.language.name().as_bytes(),
        runtime.layer.digest.as_bytes(),
    ] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    for (_, content) in lists {
        let content = content.as_deref().unwrap_or_default();
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    hex::encode(hasher.finalize())
}

/// A layer that was made of the same before, if it is still there.
fn kept(build: &Path, key: &str) -> Option<LayerDescription> {
    let kept: Kept = serde_json::from_slice(&fs::read(build.join(DESCRIPTION_FILE)).ok()?).ok()?;
    let is_whole = fs::metadata(build.join(LAYER_FILE)).is_ok_and(|file| file.len() == kept.layer.bytes);
    (kept.key == key && is_whole).then_some(kept.layer)
}

/// Installs by the pip of the runtime's interpreter, or else by another one on its behalf, and compiles.
fn pip(folder: &Path, runtime: &Runtime, target: &Path) -> Result<(), PackagesError> {
    let interpreter = runtime.interpreter.as_os_str();
    let has_own = Command::new(interpreter)
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command = if has_own {
        let mut command = Command::new(interpreter);
        command.args(["-m", "pip"]);
        command
    } else {
        let mut command = Command::new("pip3");
        command.arg("--python").arg(interpreter);
        command
    };
    command
        .args([
            "--disable-pip-version-check",
            "--no-input",
            "install",
            "--quiet",
            "--no-compile",
        ])
        .args(["--requirement", "requirements.txt", "--target"])
        .arg(std::path::absolute(target).map_err(file_error(target))?)
        .current_dir(folder);
    let missing = PackagesError::NoTool {
        tool: "pip",
        list: "requirements.txt",
        package: "python3-pip",
    };
    run("pip", &mut command, missing)?;
    // Modules that do not compile (templates, other versions' syntax) are left to be what they are.
    let staged: OsString = target.into();
    let mut command = Command::new(interpreter);
    command
        .args([
            "-I",
            "-m",
            "compileall",
            "-q",
            "-q",
            "-j",
            "0",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
        ])
        .arg(&staged)
        .args(["-p", PYTHON_FOLDER])
        .arg(&staged);
    command
        .stdin(Stdio::null())
        .output()
        .map(drop)
        .map_err(|source| PackagesError::Start {
            tool: "python3 -m compileall",
            source,
        })
}

fn copy_code(folder: &Path, target: &Path) -> Result<(), PackagesError> {
    let mut open = vec![PathBuf::new()];
    while let Some(inside) = open.pop() {
        let from = folder.join(&inside);
        for entry in fs::read_dir(&from).map_err(file_error(&from))? {
            let entry = entry.map_err(file_error(&from))?;
            let name = inside.join(entry.file_name());
            let path = entry.path();
            if !is_code(&name) {
                continue;
            }
            let kind = entry.file_type().map_err(file_error(&path))?;
            if kind.is_dir() {
                let place = target.join(&name);
                fs::create_dir(&place).map_err(file_error(&place))?;
                open.push(name);
            } else if path.is_file() {
                fs::copy(&path, target.join(&name)).map_err(file_error(&path))?;
            }
        }
    }
    Ok(())
}

/// Installs what the lists name, exactly if there is one that is locked.
fn npm(target: &Path, lists: &Lists) -> Result<(), PackagesError> {
    for (name, content) in lists {
        if let Some(content) = content {
            let path = target.join(name);
            fs::write(&path, content).map_err(file_error(&path))?;
        }
    }
    let is_locked = lists.iter().any(|(name, content)| {
        content.is_some() && ["package-lock.json", "npm-shrinkwrap.json"].contains(name)
    });
    let mut command = Command::new("npm");
    command
        .arg(if is_locked { "ci" } else { "install" })
        .args([
            "--omit=dev",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--loglevel=error",
        ])
        .current_dir(target);
    let missing = PackagesError::NoTool {
        tool: "npm",
        list: "package.json",
        package: "npm",
    };
    run("npm", &mut command, missing)
}

fn run(tool: &'static str, command: &mut Command, missing: PackagesError) -> Result<(), PackagesError> {
    let output = command.stdin(Stdio::null()).output().map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            missing
        } else {
            PackagesError::Start { tool, source }
        }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(PackagesError::Failed {
        tool,
        status: output.status,
        output: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

fn remove_folder(path: &Path) -> Result<(), PackagesError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> PackagesError {
    let path = path.to_owned();
    move |source| PackagesError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_without_packages_are_told() {
        assert!(!lists_requirements(b"\n  # none\n\r\n"));
        assert!(lists_requirements(b"# some\nrequests==2\n"));
        let path = Path::new("package.json");
        assert!(!lists_dependencies(path, br#"{"name": "a", "devDependencies": {"b": "1"}}"#).unwrap());
        assert!(lists_dependencies(path, br#"{"dependencies": {"b": "1"}}"#).unwrap());
        let error = lists_dependencies(path, b"{").unwrap_err();
        assert!(matches!(error, PackagesError::List { .. }), "{error}");
    }
}
