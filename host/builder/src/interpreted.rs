//! Functions in languages with a runtime: the runtime's layers, one of packages if there are any, one of the author's code.
//!
//! ```text
//!   runtime's own layer, SDK ─────────────────────┐ the same for all functions of a language
//!   requirements.txt ──pip──> /packages           ├──> image
//!   package.json ─────npm──> /function/node_modules
//!   handler and what lies beside it ──> /function ┘
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::image::{LayeredImage, RunSettings};
use crate::layer::{Layer, Packing, Tree};
use crate::packages::{self, PackagesError};
use crate::runtime::{Runtime, RuntimeLanguage};

/// Where the author's code lies in the image.
pub const FUNCTION_FOLDER: &str = "/function";
/// Most bytes of code in a function's folder.
const CODE_BYTES_MAX: u64 = 256 << 20;
/// What in a function's folder is no part of the function: at the top, and anywhere. Names that begin with a dot are not either.
const LEFT_OUT_AT_TOP: [&str; 5] = ["build", "node_modules", "spore.toml", "tests", "venv"];
const LEFT_OUT: [&str; 1] = ["__pycache__"];

/// Why a function could not be built.
#[derive(Debug, thiserror::Error)]
pub enum InterpretedError {
    /// There is no handler.
    #[error("{} holds no {expected}: write one, or begin with spore new", folder.display())]
    NoHandler {
        /// The function's folder.
        folder: PathBuf,
        /// The file that is missing.
        expected: &'static str,
    },
    /// The folder holds more than a function's code.
    #[error("{} holds {bytes} bytes: at most {CODE_BYTES_MAX} can be a function's code; move what is no code elsewhere", folder.display())]
    TooLarge {
        /// The function's folder.
        folder: PathBuf,
        /// How much it holds.
        bytes: u64,
    },
    /// A file could not be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The packages that it needs could not be installed.
    #[error("the packages that the function needs could not be installed")]
    Packages(#[from] PackagesError),
    /// A layer could not be packed.
    #[error("the function's code could not be packed")]
    Pack(#[source] io::Error),
    /// Configuration or manifest could not be expressed.
    #[error("the image's configuration could not be written")]
    Configuration(#[source] oci_spec::OciSpecError),
}

/// A function that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltFunction {
    /// Its image.
    pub image: LayeredImage,
    /// Bytes as stored of what only this function has.
    pub own_bytes: u64,
    /// Bytes as stored of what all functions of its language share.
    pub shared_bytes: u64,
}

/// Builds the function in `folder` on a runtime; it is to listen on `port`. Blocks while packages are installed.
///
/// # Errors
///
/// If there is no handler, its packages cannot be installed, or a file not be read.
pub fn build(folder: &Path, runtime: &Runtime, port: u16) -> Result<BuiltFunction, InterpretedError> {
    check_handler(folder, runtime.language)?;
    let mut layers = runtime.layers().map_err(InterpretedError::Pack)?.to_vec();
    let shared = layers.len();
    layers.extend(packages::install(folder, runtime)?);
    layers.push(code(folder)?);
    let bytes = |layers: &[Layer]| layers.iter().map(|layer| layer.description.bytes).sum();
    let (shared_bytes, own_bytes) = (bytes(&layers[..shared]), bytes(&layers[shared..]));
    let settings = RunSettings {
        entrypoint: runtime.entrypoint(),
        environment: runtime.environment(),
        working_directory: FUNCTION_FOLDER.to_owned(),
        port,
    };
    Ok(BuiltFunction {
        image: LayeredImage::new(layers, &settings).map_err(InterpretedError::Configuration)?,
        own_bytes,
        shared_bytes,
    })
}

fn check_handler(folder: &Path, language: RuntimeLanguage) -> Result<(), InterpretedError> {
    let names: &[&'static str] = match language {
        RuntimeLanguage::Python => &["handler.py"],
        RuntimeLanguage::Node => &["handler.js", "handler.mjs", "handler.cjs"],
    };
    if names.iter().any(|name| folder.join(name).is_file()) {
        return Ok(());
    }
    Err(InterpretedError::NoHandler {
        folder: folder.to_owned(),
        expected: names[0],
    })
}

fn code(folder: &Path) -> Result<Layer, InterpretedError> {
    let mut tree = Tree::default();
    tree.add_folder_content(Path::new(FUNCTION_FOLDER), folder, &is_code)
        .map_err(|(path, source)| InterpretedError::Read { path, source })?;
    let bytes = tree.content_bytes();
    if bytes > CODE_BYTES_MAX {
        return Err(InterpretedError::TooLarge {
            folder: folder.to_owned(),
            bytes,
        });
    }
    tree.pack(Packing::Gzip).map_err(InterpretedError::Pack)
}

/// Whether a path in a function's folder is a part of the function. `spore dev` watches for changes of what is.
#[must_use]
pub fn is_code(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_at_top = path.components().count() == 1;
    let is_left_out = name.starts_with('.')
        || LEFT_OUT.contains(&&*name)
        || (is_at_top && LEFT_OUT_AT_TOP.contains(&&*name));
    !is_left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_stays_out() {
        for code in ["handler.py", "lib/tests/data.txt", "lib/build", "package.json"] {
            assert!(is_code(Path::new(code)), "{code}");
        }
        for other in [
            "build",
            "tests",
            ".git",
            "lib/.env",
            "lib/__pycache__",
            "node_modules",
            "spore.toml",
        ] {
            assert!(!is_code(Path::new(other)), "{other}");
        }
    }
}
