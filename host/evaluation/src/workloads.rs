//! What functions do, and how they are built: one program for each language, with all workloads in it
//! (`host/evaluation/programs/`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use http::Method;

use crate::client::Ask;
use crate::names::named;

named! {
    /// A language that functions are written in.
    Language, "language", {
        /// C, linked statically.
        C = "c",
        /// Go, a static program too.
        Go = "go",
        /// Python, with its interpreter in a root file system.
        Python = "python",
        /// JavaScript with Node.js, likewise.
        Node = "node",
    }
}

named! {
    /// Work inside an instance.
    Workload, "workload", {
        /// Counts primes with a sieve.
        Primes = "primes",
        /// Multiplies matrices.
        Matrix = "matrix",
        /// A fast Fourier transform.
        Fft = "fft",
        /// Writes and reads JSON.
        Json = "json",
        /// SHA-256.
        Sha256 = "sha256",
        /// Reads a file that is in memory.
        Read = "read",
        /// Inflates.
        Unzip = "unzip",
        /// Sleeps for 10 ms.
        Sleep = "sleep",
        /// Sends a mebibyte there and back.
        Network = "network",
    }
}

/// What a function that does nothing is called in keys.
pub(crate) const HELLO: &str = "hello";
/// Bytes of the body that goes there and back.
const NETWORK_BYTES: usize = 1 << 20;
/// Bytes of the text that is inflated.
const UNZIP_BYTES: usize = 256 << 10;
/// Port on which templates' programs listen, where `PORT` says.
pub(crate) const PORT_VARIABLE: &str = "PORT";

impl Workload {
    /// The request; amounts are such that it takes some milliseconds.
    pub(crate) fn ask(self, language: Language) -> Ask {
        let is_slow = language == Language::Python;
        let amount: u32 = match self {
            Self::Primes => 500_000,
            Self::Matrix if is_slow => 48,
            Self::Matrix => 160,
            Self::Fft if is_slow => 10,
            Self::Fft => 14,
            Self::Json => 3000,
            Self::Sha256 => 1 << 20,
            Self::Read => 8 << 10,
            Self::Unzip => 2,
            Self::Sleep => 10,
            Self::Network => return Ask::new(Method::POST, "/echo", vec![b'x'; NETWORK_BYTES]),
        };
        let path = format!("/{}?n={amount}", self.name());
        if self == Self::Unzip {
            Ask::new(Method::POST, &path, deflated(UNZIP_BYTES))
        } else {
            Ask::get(&path)
        }
    }

    /// Whether it is timed from outside: there is nothing inside that could be.
    pub(crate) fn is_timed_outside(self) -> bool {
        self == Self::Network
    }
}

/// A text with some repetition, as a raw deflate stream.
fn deflated(length: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = Vec::new();
    while text.len() < length {
        let line = format!("line {} of a text that repeats itself\n", random.u16(..2000));
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(length);
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    // A vector takes all there is.
    let written = encoder.write_all(&text).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

/// Why there is no program of a language.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// A file cannot be written.
    #[error("the temporary folder cannot be written to")]
    Write(#[source] std::io::Error),
    /// The command line of Spore cannot be run.
    #[error("{} cannot be run", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It fails: a compiler is missing, for example.
    #[error("{said}")]
    Failed { said: String },
}

/// A program of a language: a function's folder, built.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) language: Language,
    pub(crate) folder: PathBuf,
}

impl Program {
    /// Writes the function of a language into `folder`; `spore` builds it.
    pub(crate) fn write(
        spore: &Path,
        folder: &Path,
        language: Language,
        name: &str,
    ) -> Result<Self, BuildError> {
        let folder = folder.join(name);
        let mut new = Command::new(spore);
        new.args(["new", name, "--lang", language.name(), "--directory"])
            .arg(&folder);
        run(spore, &mut new)?;
        let (file, source) = match language {
            Language::C => ("handler.c", include_str!("../programs/workload.c")),
            Language::Go => ("handler.go", include_str!("../programs/handler.go")),
            Language::Python => ("handler.py", include_str!("../programs/handler.py")),
            Language::Node => ("handler.js", include_str!("../programs/handler.js")),
        };
        std::fs::write(folder.join(file), source).map_err(BuildError::Write)?;
        Ok(Self { language, folder })
    }

    /// Builds it and pushes its image to a gateway.
    pub(crate) fn push(&self, spore: &Path, gateway: &str) -> Result<(), BuildError> {
        let mut push = Command::new(spore);
        push.args(["--gateway", gateway, "push"]).arg(&self.folder);
        run(spore, &mut push).map(|_| ())
    }

    /// Builds it without a gateway.
    pub(crate) fn build(&self, spore: &Path) -> Result<(), BuildError> {
        let mut build = Command::new(spore);
        build.arg("build").arg(&self.folder);
        run(spore, &mut build).map(|_| ())
    }

    /// The command that runs it as a process, outside of any sandbox: the same program, or the same SDK with the
    /// interpreter that the runtime was made from.
    pub(crate) fn native(&self, spore: &Path) -> Result<Vec<PathBuf>, BuildError> {
        let (files, server): (&[(&str, &str)], _) = match self.language {
            Language::C | Language::Go => return Ok(vec![self.folder.join("build/function")]),
            Language::Python => (
                &[
                    ("server.py", include_str!("../../../sdk/python/server.py")),
                    ("spore.py", include_str!("../../../sdk/python/spore.py")),
                ],
                "server.py",
            ),
            Language::Node => (
                &[
                    ("server.js", include_str!("../../../sdk/node/server.js")),
                    ("spore.js", include_str!("../../../sdk/node/spore.js")),
                ],
                "server.js",
            ),
        };
        let sdk = self.folder.join("build/native");
        std::fs::create_dir_all(&sdk).map_err(BuildError::Write)?;
        for (name, text) in files {
            std::fs::write(sdk.join(name), text).map_err(BuildError::Write)?;
        }
        let interpreter = self.interpreter(spore)?;
        Ok(vec![interpreter, sdk.join(server), self.folder.clone()])
    }

    fn interpreter(&self, spore: &Path) -> Result<PathBuf, BuildError> {
        let mut list = Command::new(spore);
        let said = run(spore, list.args(["runtime", "list", "--json"]))?;
        let runtimes: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let runtimes = runtimes.as_array().into_iter().flatten();
        let name = self.language.name();
        runtimes
            .filter(|runtime| {
                runtime["language"]
                    .as_str()
                    .is_some_and(|found| found.eq_ignore_ascii_case(name))
            })
            .find_map(|runtime| runtime["interpreter"].as_str().map(PathBuf::from))
            .ok_or_else(|| BuildError::Failed {
                said: format!("there is no runtime of {name}: spore runtime list"),
            })
    }
}

/// Runs the command line of Spore; what it prints.
pub(crate) fn run(spore: &Path, command: &mut Command) -> Result<String, BuildError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| BuildError::Run {
        program: spore.to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // `error: what` and then its causes.
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let from = lines
        .iter()
        .position(|line| line.starts_with("error:"))
        .unwrap_or(lines.len().saturating_sub(3));
    let said = lines[from..].join("; ");
    Err(BuildError::Failed {
        said: said.trim_start_matches("error: ").chars().take(400).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_to_be_inflated_inflates_and_is_the_same_every_time() {
        let data = deflated(10_000);
        let mut text = Vec::new();
        flate2::read::DeflateDecoder::new(&data[..])
            .read_to_end(&mut text)
            .expect("it is a stream");
        assert_eq!((text.len(), deflated(10_000)), (10_000, data));
    }

    #[test]
    fn names_are_read_and_others_are_told() {
        assert_eq!("fft".parse(), Ok(Workload::Fft));
        let error = "cobol".parse::<Language>().expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "there is no language \"cobol\": there are c, go, python, node"
        );
    }
}
