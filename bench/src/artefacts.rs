//! What is stored of a function, and what of it functions of its language share.
//!
//! In a daemon of its own the function of a template is deployed and asked, then another one whose handler says something else.
//! What the data folder has grown by with the second is a function's *own*; what the first has brought besides is *shared*. The
//! second in a container shows what that takes in addition, and an image that shares nothing is all parts together.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use spore_test_harness::daemon::Daemon;

use crate::report::Promise;

/// Languages of templates, and the file with the handler.
const TEMPLATES: [(&str, &str); 5] = [
    ("c", "handler.c"),
    ("rust", "src/main.rs"),
    ("go", "handler.go"),
    ("python", "handler.py"),
    ("node", "handler.js"),
];
const WORD: &str = "Hello";
const OTHER_WORD: &str = "Good day";
/// What a function in C may take.
const C_KIB: f64 = 100.0;
/// And one in Python or Node: its code, the description of its image, and the part of the root that it has for itself.
const CODE_KIB: f64 = 64.0;

/// Bytes of files in the data folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Images: manifests, configurations, layers.
    pub(crate) images: u64,
    /// What instances map.
    pub(crate) roots: u64,
    /// What containers mount in addition.
    pub(crate) containers: u64,
}

/// What was found of a language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Artefact {
    pub(crate) language: String,
    /// A function's own.
    pub(crate) own: Stored,
    /// What all functions of the language have together.
    pub(crate) shared: Stored,
    /// By how much more a function's own is in a container of runc; none if there is no runc.
    pub(crate) container: Option<u64>,
}

impl Stored {
    fn of(data: &Path) -> Self {
        Self {
            images: bytes_below(&data.join("blobs")),
            roots: bytes_below(&data.join("derived")),
            containers: bytes_below(&data.join("containers/images")),
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            images: self.images.saturating_sub(earlier.images),
            roots: self.roots.saturating_sub(earlier.roots),
            containers: self.containers.saturating_sub(earlier.containers),
        }
    }

    fn bytes(self) -> u64 {
        self.images + self.roots
    }
}

/// Lengths of all files below a folder; what goes meanwhile is not there.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Measures every language whose tools are here.
pub(crate) fn measure() -> Result<Vec<Artefact>> {
    let mut found = Vec::new();
    for (language, handler) in TEMPLATES {
        eprintln!("measuring artefacts of {language}");
        found.extend(measure_one(language, handler)?);
    }
    Ok(found)
}

fn measure_one(language: &str, handler: &str) -> Result<Option<Artefact>> {
    let daemon = Daemon::start();
    let data = daemon.data();
    let folder = tempfile::tempdir().context("the temporary folder is not writable")?;
    let folder = folder.path().join("function");
    let text = folder
        .to_str()
        .context("the temporary folder's path is not UTF-8")?;
    daemon.spore_ok(&["new", "one", "--lang", language, "--directory", text]);
    let before = Stored::of(&data);
    let output = daemon.spore(&["deploy", text]);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        eprintln!("left out: {language}: {}", said.trim());
        return Ok(None);
    }
    ask(&daemon, "one")?;
    let first = Stored::of(&data);
    // Another function: another name, and another handler.
    for (file, from, to) in [("spore.toml", "\"one\"", "\"two\""), (handler, WORD, OTHER_WORD)] {
        let path = folder.join(file);
        let source = fs::read_to_string(&path).with_context(|| format!("{file} cannot be read"))?;
        ensure!(source.contains(from), "{file} of the template has no {from}");
        fs::write(&path, source.replace(from, to)).context("the temporary folder is not writable")?;
    }
    daemon.spore_ok(&["deploy", text]);
    ask(&daemon, "two")?;
    let second = Stored::of(&data);
    let own = second.since(first);
    let all = first.since(before);
    let shared = Stored {
        images: all.images.saturating_sub(own.images),
        roots: all.roots.saturating_sub(own.roots),
        containers: 0,
    };
    let in_container = daemon.spore(&["deploy", "three", "--image", "two:latest", "--sandbox", "runc"]);
    let container = if in_container.status.success() {
        ask(&daemon, "three")?;
        Some(Stored::of(&data).since(second).containers)
    } else {
        None
    };
    Ok(Some(Artefact {
        language: language.to_owned(),
        own,
        shared,
        container,
    }))
}

fn ask(daemon: &Daemon, function: &str) -> Result<()> {
    let answer = daemon.get(&format!("/function/{function}"));
    ensure!(
        answer.status.is_success(),
        "{function} answered {}: {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

/// A table, in KiB.
pub(crate) fn render(artefacts: &[Artefact]) -> String {
    let mut text = String::new();
    if artefacts.is_empty() {
        return text;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nartefacts: KiB in the data folder; own: of each function; shared: once for all of a language"
    );
    let _ = writeln!(
        text,
        "  {:<8} {:>10} {:>10} {:>13} {:>12} {:>14} {:>16}",
        "", "own image", "own root", "shared image", "shared root", "runc: besides", "nothing shared"
    );
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    for artefact in artefacts {
        let (own, shared) = (artefact.own, artefact.shared);
        let container = artefact
            .container
            .map_or("-".to_owned(), |bytes| format!("{:.1}", kib(bytes)));
        let _ = writeln!(
            text,
            "  {:<8} {:>10.1} {:>10.1} {:>13.1} {:>12.1} {container:>14} {:>16.1}",
            artefact.language,
            kib(own.images),
            kib(own.roots),
            kib(shared.images),
            kib(shared.roots),
            kib(own.bytes() + shared.bytes()),
        );
    }
    text
}

/// What is promised of them.
pub(crate) fn promises(artefacts: &[Artefact]) -> Vec<Promise> {
    let own = |language: &str| {
        let found = artefacts.iter().find(|artefact| artefact.language == language)?;
        Some(found.own.bytes() as f64 / 1024.0)
    };
    let promise = |what: &str, language, at_most| Promise {
        what: format!("what is stored of a function in {what}"),
        unit: "KiB",
        at_most,
        found: own(language),
    };
    vec![
        promise("C", "c", C_KIB),
        promise("Python", "python", CODE_KIB),
        promise("Node", "node", CODE_KIB),
    ]
}
