//! Which packages of the distribution files come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{RuntimeError, Source};
use crate::layer::Hashed;

/// Packages with their versions, and with their digests the files that belong to none.
pub(super) fn sources(files: &[PathBuf]) -> Result<Vec<Source>, RuntimeError> {
    let mut sources = BTreeSet::new();
    let owners = owners(files);
    let packages: BTreeSet<&String> = owners.values().collect();
    for (name, version) in versions(&packages) {
        sources.insert(Source { name, version });
    }
    for file in files.iter().filter(|file| !owners.contains_key(*file)) {
        let digest = digest(file).map_err(RuntimeError::file(file))?;
        sources.insert(Source {
            name: file.display().to_string(),
            version: digest,
        });
    }
    Ok(sources.into_iter().collect())
}

/// The package of each file that belongs to one. Without dpkg there are none.
fn owners(files: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let mut candidates: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    for file in files {
        // Where /lib is a link to /usr/lib, packages name their files by either.
        let real = file.canonicalize().unwrap_or_else(|_| file.clone());
        let short = real.strip_prefix("/usr").map(|path| Path::new("/").join(path));
        for name in [Some(file.clone()), Some(real.clone()), short.ok()]
            .into_iter()
            .flatten()
        {
            candidates.insert(name, file);
        }
    }
    let output = Command::new("dpkg-query")
        .arg("--search")
        .args(candidates.keys())
        .env("LC_ALL", "C")
        .output();
    let Ok(output) = output else {
        return BTreeMap::new();
    };
    let mut owners = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((package, path)) = line.split_once(": ") else {
            continue;
        };
        if let Some(&file) = candidates.get(Path::new(path)) {
            let first = package.split(", ").next().unwrap_or(package);
            owners.insert(file.clone(), first.to_owned());
        }
    }
    owners
}

fn versions(packages: &BTreeSet<&String>) -> Vec<(String, String)> {
    if packages.is_empty() {
        return Vec::new();
    }
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package}\\t${Version}\\n"])
        .args(packages)
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

fn digest(file: &Path) -> io::Result<String> {
    let mut hashed = Hashed::new(io::sink());
    io::copy(&mut File::open(file)?, &mut hashed)?;
    Ok(hashed.digest())
}
