//! What is measured: a function with certain annotations behind a gateway, the same program as a process, or a URL.
//!
//! - [`gateway`]: deploys, scales and removes functions;
//! - [`process`]: the program without any sandbox;
//! - [`subject`]: one program in one target, and how it is started and asked.

pub(crate) mod gateway;
pub(crate) mod process;
pub(crate) mod subject;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::client::{Place, PlaceError};

/// Longest name of a target: it becomes a part of names of functions.
const NAME_MAX: usize = 24;
const ISOLATION: &str = "dev.spore.isolation";
const SNAPSHOT: &str = "dev.spore.snapshot";
/// Which kind of sandbox a function wants.
pub(crate) const SANDBOX: &str = "dev.spore.sandbox";

/// The targets that have a name of their own, each with its annotations.
const KNOWN: &[(&str, &[(&str, &str)])] = &[
    ("vm", &[(ISOLATION, "vm"), (SNAPSHOT, "true")]),
    ("vm-boot", &[(ISOLATION, "vm")]),
    ("process", &[(ISOLATION, "process"), (SNAPSHOT, "true")]),
    ("process-boot", &[(ISOLATION, "process")]),
    ("runc", &[(SANDBOX, "runc")]),
    ("crun", &[(SANDBOX, "crun")]),
    ("gvisor", &[(SANDBOX, "gvisor")]),
    ("microvm", &[(SANDBOX, "microvm"), (SNAPSHOT, "true")]),
    ("microvm-boot", &[(SANDBOX, "microvm")]),
];
/// The program as a process of the host's: what nothing can be quicker than.
const BARE: &str = "bare";

/// A target as the user names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// Its name in reports.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
}

/// What a target is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A function that is deployed with these annotations.
    Function {
        /// The annotations.
        annotations: BTreeMap<String, String>,
    },
    /// A process without a sandbox.
    Bare,
    /// A function that is there already, behind any gateway.
    Url {
        /// Where it is.
        url: String,
    },
}

/// Why a text names no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no name that there is, and says nothing else.
    #[error(
        "there is no target \"{text}\": there are {known}, or write NAME:KEY=VALUE[,KEY=VALUE...] for a function with these \
         annotations, or NAME=http://HOST:PORT/PATH for one that is there already",
        known = known_names().join(", ")
    )]
    Unknown {
        /// As given.
        text: String,
    },
    /// Its name cannot be a part of a function's.
    #[error(
        "\"{name}\" is no name for a target: take up to {NAME_MAX} lower-case letters, digits and hyphens"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// Its URL cannot be measured.
    #[error(transparent)]
    Url(#[from] PlaceError),
}

fn known_names() -> Vec<&'static str> {
    KNOWN.iter().map(|(name, _)| *name).chain([BARE]).collect()
}

impl TargetSpec {
    /// All targets that have a name of their own.
    pub fn known() -> Vec<Self> {
        let functions = KNOWN.iter().map(|(name, annotations)| Self {
            name: (*name).to_owned(),
            kind: TargetKind::Function {
                annotations: annotations
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            },
        });
        let bare = Self {
            name: BARE.to_owned(),
            kind: TargetKind::Bare,
        };
        functions.chain([bare]).collect()
    }

    /// Its annotations, or its URL.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        match &self.kind {
            TargetKind::Function { annotations } => annotations.clone(),
            TargetKind::Bare => BTreeMap::new(),
            TargetKind::Url { url } => BTreeMap::from([("url".to_owned(), url.clone())]),
        }
    }

    /// The kind of sandbox that it asks for by name; none where it is the daemon's own choice.
    pub(crate) fn sandbox(&self) -> Option<&str> {
        match &self.kind {
            TargetKind::Function { annotations } => annotations.get(SANDBOX).map(String::as_str),
            _ => None,
        }
    }
}

impl FromStr for TargetSpec {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(known) = Self::known().into_iter().find(|known| known.name == text) {
            return Ok(known);
        }
        let unknown = || TargetError::Unknown {
            text: text.to_owned(),
        };
        let at = text.find([':', '=']).ok_or_else(unknown)?;
        let (name, rest) = (&text[..at], &text[at + 1..]);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            return Err(TargetError::Name {
                name: name.to_owned(),
            });
        }
        let kind = if text[at..].starts_with('=') {
            Place::parse(rest)?;
            TargetKind::Url { url: rest.to_owned() }
        } else {
            let pairs = rest.split(',').map(|pair| {
                let (key, value) = pair.split_once('=').ok_or_else(unknown)?;
                Ok((key.to_owned(), value.to_owned()))
            });
            TargetKind::Function {
                annotations: pairs.collect::<Result<_, TargetError>>()?,
            }
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        for known in TargetSpec::known() {
            assert_eq!(known.name.parse::<TargetSpec>().expect("it is known"), known);
        }
        let mine: TargetSpec = "mine:dev.spore.snapshot=true,a=b=c".parse().expect("it is one");
        let settings = mine.settings();
        assert_eq!(
            (settings["dev.spore.snapshot"].as_str(), settings["a"].as_str()),
            ("true", "b=c")
        );
        let there: TargetSpec = "knative=http://127.0.0.1:8080/f".parse().expect("it is one");
        assert_eq!(there.settings()["url"], "http://127.0.0.1:8080/f");
        for wrong in [
            "",
            "docker",
            "a:b",
            "A:b=c",
            ":b=c",
            "x=https://127.0.0.1/",
            "a/b:c=d",
        ] {
            assert!(wrong.parse::<TargetSpec>().is_err(), "{wrong}");
        }
    }
}
