//! Commands of images: whether they are there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use oci_spec::image::{Config, ImageManifest};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::files::persist;
use crate::images::ImageStore;
use crate::program::{DeriveError, candidates, check_needs, find_program, remove_unpacked};
use crate::protocol::Protocol;
use crate::unpack::LayerError;

/// What tells which programs of an image were looked for and found, and how many there are in it.
const CHECKED_FILE: &str = "checked.json";
const CHECKED_MAX: usize = 64;

impl ImageStore {
    /// Checks a program of an image whose root is there, unless that was done before.
    pub(crate) fn check_command(
        &self,
        manifest: &ImageManifest,
        config: &Config,
        command: &str,
        folder: &Path,
    ) -> Result<(), DeriveError> {
        let mut checked = Checked::read(folder);
        if checked.holds(config, command) {
            return Ok(());
        }
        let (unpacked, unpacker) = self.unpack(manifest, 0..manifest.layers().len())?;
        let program = find_program(&unpacker, config, command).map_err(DeriveError::Layers);
        let program = program.map_err(|error| no_command(error, Protocol::Exec, command))?;
        check_needs(&unpacker, command, program)?;
        remove_unpacked(unpacked);
        checked.add(config, command);
        Ok(checked.write(folder, &self.uploads)?)
    }
}

/// What is said where a command is not there.
pub(crate) fn no_command(error: DeriveError, protocol: Protocol, command: &str) -> DeriveError {
    match error {
        DeriveError::Layers(source @ LayerError::NotFound { .. }) if protocol == Protocol::Exec => {
            let command = command.to_owned();
            DeriveError::NoCommand { command, source }
        }
        other => other,
    }
}

/// The programs of an image that were looked for and found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Checked(BTreeSet<String>);

impl Checked {
    /// None where it cannot be told.
    pub(crate) fn read(folder: &Path) -> Self {
        let bytes = fs::read(folder.join(CHECKED_FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn key(config: &Config, command: &str) -> String {
        candidates(config, command).join(":")
    }

    fn holds(&self, config: &Config, command: &str) -> bool {
        self.0.contains(&Self::key(config, command))
    }

    pub(crate) fn add(&mut self, config: &Config, command: &str) {
        if self.0.len() >= CHECKED_MAX {
            self.0.clear();
        }
        self.0.insert(Self::key(config, command));
    }

    pub(crate) fn write(&self, folder: &Path, uploads: &Path) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(uploads)?;
        serde_json::to_writer(&mut file, self)?;
        persist(file, &folder.join(CHECKED_FILE))
    }
}
