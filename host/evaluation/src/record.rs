//! The file of a run: one JSON document with everything that was asked for, found and measured, every sample in it.
//!
//! It is written anew after each step of a run, beside the old one and then in its place, so what is there is always whole:
//! after an interruption, it is what had been measured until then.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::machine::Machine;

/// The name of the document in the folder of a run.
pub const FILE: &str = "run.json";
/// The form of documents that this program writes and reads.
const FORMAT: u32 = 1;
/// Longest document that is read, in bytes.
const BYTES_MAX: u64 = 1 << 30;

/// Why a document is not there afterwards, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("{} cannot be read: name a folder that `spore bench run` has written", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is no document of `spore bench run`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It is longer than any run makes it.
    #[error("{} is longer than {BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error("{} has form {found}, and this program reads form {FORMAT}: use the version of Spore that has written it", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
}

/// Everything about a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The form of this document.
    pub format: u32,
    /// When the run began, UTC, RFC 3339.
    pub started_at: String,
    /// How long was measured, in seconds; the sum if it was interrupted and went on.
    pub elapsed_s: f64,
    /// Whether everything that was planned was done.
    pub is_complete: bool,
    /// What was asked for.
    pub configuration: Configuration,
    /// Where it was measured.
    pub machine: Machine,
    /// What was measured, and what was left out.
    pub targets: Vec<TargetRecord>,
    /// Languages and workloads that were left out, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// Steps that are done, by their names.
    pub steps_done: Vec<String>,
    /// The samples.
    pub series: Vec<Series>,
}

/// A target of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetRecord {
    /// Its name.
    pub name: String,
    /// What separates its functions from the host.
    pub isolation: String,
    /// What accelerates it: `hardware`, `pvm`, `none`, or what the daemon calls it.
    pub accelerator: String,
    /// Its annotations, or its URL.
    pub settings: BTreeMap<String, String>,
    /// What the daemon says of this kind of sandbox.
    pub details: serde_json::Value,
    /// Why it was left out.
    pub left_out: Option<String>,
}

/// Something that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// What numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// How many in each second.
    PerSecond,
    /// A part of a whole, 0 to 1.
    Share,
    /// Milliseconds of processor time in each second.
    MillisecondsPerSecond,
}

/// What a series is of; equal ones of two runs are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// What was measured, for example `cold-lone`.
    pub measure: String,
    /// Of which program, as LANGUAGE/WORKLOAD.
    pub workload: String,
    /// In which target.
    pub target: String,
    /// At which point of the measure's axis: so many simultaneous requests, instances, functions in a chain.
    pub at: Option<f64>,
}

/// Samples of one target, interleaved with those of the others at the same point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    /// What it is of.
    #[serde(flatten)]
    pub key: Key,
    /// What its numbers count.
    pub unit: Unit,
    /// The round of each sample.
    pub rounds: Vec<u32>,
    /// The samples, in the order in which they were taken.
    pub values: Vec<f64>,
    /// Measurements that failed.
    pub failures: u32,
    /// Why the first of them did.
    pub failure: Option<String>,
}

impl Run {
    /// A run that begins now.
    pub fn new(configuration: Configuration, machine: Machine) -> Self {
        Self {
            format: FORMAT,
            started_at: jiff::Timestamp::now().to_string(),
            elapsed_s: 0.0,
            is_complete: false,
            configuration,
            machine,
            targets: Vec::new(),
            left_out: Vec::new(),
            steps_done: Vec::new(),
            series: Vec::new(),
        }
    }

    /// The series of a key, which is made if it is not there.
    pub(crate) fn series_mut(&mut self, key: &Key, unit: Unit) -> &mut Series {
        let found = self.series.iter().position(|series| series.key == *key);
        let index = found.unwrap_or_else(|| {
            self.series.push(Series {
                key: key.clone(),
                unit,
                rounds: Vec::new(),
                values: Vec::new(),
                failures: 0,
                failure: None,
            });
            self.series.len() - 1
        });
        &mut self.series[index]
    }

    /// Notes once why something was left out.
    pub(crate) fn leave_out(&mut self, what: &str, reason: &str) {
        if !self.left_out.iter().any(|left_out| left_out.what == what) {
            self.left_out.push(LeftOut {
                what: what.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    /// Writes the document into the folder, in place of the one that is there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or written to; the document that was there is there still.
    pub fn write(&self, folder: &Path) -> Result<(), RecordError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        write_file(&folder.join(FILE), text.as_bytes())
    }

    /// Reads the document of a folder.
    ///
    /// # Errors
    ///
    /// If there is none, or something else.
    pub fn read(folder: &Path) -> Result<Self, RecordError> {
        let path = folder.join(FILE);
        let read = |source| RecordError::Read {
            path: path.clone(),
            source,
        };
        if std::fs::metadata(&path).map_err(read)?.len() > BYTES_MAX {
            return Err(RecordError::TooLong { path });
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        let malformed = |source| RecordError::Malformed {
            path: path.clone(),
            source,
        };
        // The form first: other forms have other fields.
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let Form { format: found } = serde_json::from_str(&text).map_err(malformed)?;
        if found != FORMAT {
            return Err(RecordError::OtherFormat { path, found });
        }
        let mut run: Self = serde_json::from_str(&text).map_err(malformed)?;
        for series in &mut run.series {
            // A document that was changed by hand may have more of one than of the other.
            let count = series.rounds.len().min(series.values.len());
            series.rounds.truncate(count);
            series.values.truncate(count);
        }
        Ok(run)
    }
}

/// Writes a file so that under its name is all of it, or what was there.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let failed = |source| RecordError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(everyone).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
