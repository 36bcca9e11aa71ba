//! Commands of images: whether they are there, and what images for AWS Lambda run that name none.

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
/// Where AWS Lambda looks for the program of an image that names none.
const BOOTSTRAPS: [&str; 3] = ["/var/runtime/bootstrap", "/var/task/bootstrap", "/opt/bootstrap"];
/// The entry point of AWS's own base images: a script that becomes the first of these, with its argument as the handler.
const LAMBDA_ENTRYPOINT: &str = "/lambda-entrypoint.sh";

impl ImageStore {
    /// What an image for AWS Lambda runs that names no program, or whose program is the script of AWS's base images; with the
    /// protocol that it speaks. Others stay as they are.
    pub(crate) fn lambda_program(
        &self,
        manifest: &ImageManifest,
        config: &Config,
        named: (Protocol, Vec<String>),
        folder: &Path,
    ) -> Result<(Protocol, Vec<String>), DeriveError> {
        match named {
            (Protocol::Http, arguments)
                if arguments.first().is_some_and(|entry| entry == LAMBDA_ENTRYPOINT) =>
            {
                Ok((Protocol::Lambda, arguments))
            }
            (Protocol::Http, arguments) if arguments.is_empty() => {
                let bootstrap = self.bootstrap(manifest, config, folder)?;
                let bootstrap = bootstrap.ok_or(DeriveError::NoEntrypoint)?;
                Ok((Protocol::Lambda, vec![bootstrap.to_owned()]))
            }
            other => Ok(other),
        }
    }

    /// The first of [`BOOTSTRAPS`] that an image has. It is looked for once.
    fn bootstrap(
        &self,
        manifest: &ImageManifest,
        config: &Config,
        folder: &Path,
    ) -> Result<Option<&'static str>, DeriveError> {
        let mut checked = Checked::read(folder);
        let known = BOOTSTRAPS.into_iter().find(|path| checked.holds(config, path));
        if known.is_some() {
            return Ok(known);
        }
        let (unpacked, unpacker) = self.unpack(manifest, 0..manifest.layers().len())?;
        let is_there = |path: &&str| find_program(&unpacker, config, path).is_ok();
        let found = BOOTSTRAPS.into_iter().find(is_there);
        remove_unpacked(unpacked);
        if let Some(path) = found {
            fs::create_dir_all(folder)?;
            checked.add(config, path);
            checked.write(folder, &self.uploads)?;
        }
        Ok(found)
    }

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
