//! New functions from the embedded templates.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::language::Language;
use crate::name::FunctionName;

/// Stands for the function's name in a template.
const NAME_PLACEHOLDER: &str = "{{name}}";

/// Files of the templates; `build` stays out of version control.
const C_FILES: &[(&str, &str)] = &[
    (".gitignore", "/build\n"),
    ("README.md", include_str!("../../../templates/c/README.md")),
    ("handler.c", include_str!("../../../templates/c/handler.c")),
    ("spore.toml", include_str!("../../../templates/c/spore.toml")),
    (
        "tests/handler_test.c",
        include_str!("../../../templates/c/tests/handler_test.c"),
    ),
];
const PYTHON_FILES: &[(&str, &str)] = &[
    (".gitignore", "/build\n__pycache__\n"),
    ("README.md", include_str!("../../../templates/python/README.md")),
    ("handler.py", include_str!("../../../templates/python/handler.py")),
    (
        "requirements.txt",
        include_str!("../../../templates/python/requirements.txt"),
    ),
    ("spore.toml", include_str!("../../../templates/python/spore.toml")),
    (
        "tests/test_handler.py",
        include_str!("../../../templates/python/tests/test_handler.py"),
    ),
];
const NODE_FILES: &[(&str, &str)] = &[
    (".gitignore", "/build\nnode_modules\n"),
    ("README.md", include_str!("../../../templates/node/README.md")),
    ("handler.js", include_str!("../../../templates/node/handler.js")),
    (
        "package.json",
        include_str!("../../../templates/node/package.json"),
    ),
    ("spore.toml", include_str!("../../../templates/node/spore.toml")),
    (
        "tests/handler.test.js",
        include_str!("../../../templates/node/tests/handler.test.js"),
    ),
];

const GO_FILES: &[(&str, &str)] = &[
    (".gitignore", "/build\n"),
    ("README.md", include_str!("../../../templates/go/README.md")),
    ("go.mod", include_str!("../../../templates/go/go.mod")),
    ("handler.go", include_str!("../../../templates/go/handler.go")),
    (
        "handler_test.go",
        include_str!("../../../templates/go/handler_test.go"),
    ),
    ("spore.toml", include_str!("../../../templates/go/spore.toml")),
];
const RUST_FILES: &[(&str, &str)] = &[
    (".gitignore", "/build\n/target\n"),
    ("Cargo.toml", include_str!("../../../templates/rust/Cargo.toml")),
    ("README.md", include_str!("../../../templates/rust/README.md")),
    ("spore.toml", include_str!("../../../templates/rust/spore.toml")),
    ("src/main.rs", include_str!("../../../templates/rust/src/main.rs")),
];
const BINARY_FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("../../../templates/binary/README.md")),
    ("spore.toml", include_str!("../../../templates/binary/spore.toml")),
    (
        "tests/smoke.sh",
        include_str!("../../../templates/binary/tests/smoke.sh"),
    ),
];
const DOCKERFILE_FILES: &[(&str, &str)] = &[
    (".gitignore", "/build\n"),
    // What the build context leaves out.
    (".dockerignore", "build\n"),
    (
        "Dockerfile",
        include_str!("../../../templates/dockerfile/Dockerfile"),
    ),
    (
        "README.md",
        include_str!("../../../templates/dockerfile/README.md"),
    ),
    (
        "server.py",
        include_str!("../../../templates/dockerfile/server.py"),
    ),
    (
        "spore.toml",
        include_str!("../../../templates/dockerfile/spore.toml"),
    ),
    (
        "tests/test_server.py",
        include_str!("../../../templates/dockerfile/tests/test_server.py"),
    ),
];

/// Why a new function could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The folder has content that would be lost or mixed up.
    #[error("{} is not empty: choose another name, or another folder with --directory", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder could not be written.
    #[error("{} could not be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Writes the template of `language` for a function `name` into `folder`, which must be empty or missing. Returns the
/// files written, relative to the folder.
pub fn create(
    folder: &Path,
    name: &FunctionName,
    language: Language,
) -> Result<Vec<&'static str>, CreateError> {
    let files = match language {
        Language::C => C_FILES,
        Language::Python => PYTHON_FILES,
        Language::Node => NODE_FILES,
        Language::Go => GO_FILES,
        Language::Rust => RUST_FILES,
        Language::Binary => BINARY_FILES,
        Language::Dockerfile => DOCKERFILE_FILES,
    };
    let write_error = |path: &Path, source| CreateError::Write {
        path: path.into(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(|source| write_error(folder, source))?;
    let mut entries = std::fs::read_dir(folder).map_err(|source| write_error(folder, source))?;
    if entries.next().is_some() {
        return Err(CreateError::NotEmpty {
            folder: folder.into(),
        });
    }
    for &(file, content) in files {
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| write_error(parent, source))?;
        }
        std::fs::write(&path, content.replace(NAME_PLACEHOLDER, name.as_str()))
            .map_err(|source| write_error(&path, source))?;
        if content.starts_with("#!") {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).map_err(|source| write_error(&path, source))?;
        }
    }
    Ok(files.iter().map(|(file, _)| *file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_placeholder_is_left_and_the_settings_are_valid() {
        for language in Language::ALL {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("some-folder");
            let name: FunctionName = "hello".parse().unwrap();
            for file in create(&folder, &name, language).unwrap() {
                let content = std::fs::read_to_string(folder.join(file)).unwrap();
                assert!(!content.contains("{{"), "{file}");
            }
            let settings = crate::settings::load(&folder).unwrap();
            assert_eq!((settings.name, settings.language), (name, Some(language)));
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("handler.c"), "mine").unwrap();
        let result = create(folder.path(), &"hello".parse().unwrap(), Language::C);
        assert!(matches!(result, Err(CreateError::NotEmpty { .. })));
        assert_eq!(
            std::fs::read_to_string(folder.path().join("handler.c")).unwrap(),
            "mine"
        );
    }
}
