//! The files of a run: one JSON document for the machine and one for each series, with every sample.

use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artefacts::Artefact;
use crate::density::Step;

/// The file with the steps of [`crate::density`].
pub(crate) const DENSITY: &str = "density.json";
/// The file with what [`crate::artefacts`] has found.
pub(crate) const ARTEFACTS: &str = "artefacts.json";

/// One series: subjects that were measured interleaved, and so may be compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Name, for example `start-back-to-back`.
    pub(crate) name: String,
    /// What one sample is.
    pub(crate) meaning: String,
    /// What its numbers count.
    #[serde(default)]
    pub(crate) unit: Unit,
    /// How idle the machine was in the second before the series, 0 to 1.
    pub(crate) idle_share_before: f64,
    /// The subjects, in no particular order.
    pub(crate) subjects: Vec<SubjectSamples>,
}

/// What samples count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Nanoseconds.
    #[default]
    Nanoseconds,
    /// Bytes.
    Bytes,
}

/// What was measured of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubjectSamples {
    /// Name of the subject, for example `runc`.
    pub(crate) name: String,
    /// What separates it from the host, and by which accelerator.
    pub(crate) isolation: String,
    /// Samples in the order in which they were taken, in the unit of the series.
    #[serde(alias = "samples_ns")]
    pub(crate) samples: Vec<u64>,
    /// Measurements that failed, with the first reason.
    pub(crate) failures: u32,
    /// Why it failed or was left out.
    pub(crate) failure: Option<String>,
}

/// Writes a document as JSON.
pub(crate) fn write(path: &Path, document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(document).context("results are plain data")?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a document that [`write`] wrote.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a result of this program", path.display()))
}

/// Reads the steps of [`crate::density`]; none if they were left out.
pub(crate) fn read_density(folder: &Path) -> Result<Vec<Step>> {
    read_if_there(&folder.join(DENSITY))
}

/// Reads what [`crate::artefacts`] has found; nothing if it was left out.
pub(crate) fn read_artefacts(folder: &Path) -> Result<Vec<Artefact>> {
    read_if_there(&folder.join(ARTEFACTS))
}

fn read_if_there<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if path.exists() { read(path) } else { Ok(Vec::new()) }
}

/// Reads all series of a run, by name.
pub(crate) fn read_series(folder: &Path) -> Result<Vec<Series>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    let is_series = |path: &Path| {
        ["machine.json", DENSITY, ARTEFACTS]
            .iter()
            .all(|other| !path.ends_with(other))
    };
    paths.retain(|path| is_series(path));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}
