//! What names of images mean elsewhere: short names and aliases. Pure.

use std::fmt;
use std::str::FromStr;

use spore_store::{ImageReference, ReferenceParseError, Selector};

/// The registry that short names mean, as everywhere.
pub(crate) const DEFAULT_HOST: &str = "docker.io";
/// What its repositories without an owner belong to.
const DEFAULT_OWNER: &str = "library";

/// An image of another registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteName {
    /// Registry, with its port if one is named.
    pub host: String,
    /// Repository.
    pub repository: String,
    /// What chooses the image.
    pub selector: Selector,
}

impl RemoteName {
    pub(crate) fn of(reference: &ImageReference, aliases: &[Alias]) -> Self {
        let mut host = reference.host.clone();
        let mut repository = reference.repository.clone();
        // Written out, as other tools send them, short names are the same names.
        if let Some(short) = short_repository(reference)
            && let Some(alias) = aliases.iter().find(|alias| alias.name == short)
        {
            (host, repository) = (alias.host.clone(), alias.repository.clone());
        }
        let host = canonical_host(host.as_deref()).to_owned();
        if host == DEFAULT_HOST && !repository.contains('/') {
            repository = format!("{DEFAULT_OWNER}/{repository}");
        }
        Self {
            host,
            repository,
            selector: reference.selector.clone(),
        }
    }

    /// Under which repository the store keeps it.
    #[must_use]
    pub fn stored_repository(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

/// The registry that is meant: that of short names, or what is named, by the one name that it has here.
pub(crate) fn canonical_host(host: Option<&str>) -> &str {
    match host {
        None | Some("index.docker.io" | "registry-1.docker.io") => DEFAULT_HOST,
        Some(host) => host,
    }
}

/// The repository of a name that is a short one, or one that was written out: `hello` of `hello`, of `docker.io/hello` and of
/// `docker.io/library/hello`. None for those of other registries.
#[must_use]
pub fn short_repository(reference: &ImageReference) -> Option<&str> {
    let repository = reference.repository.as_str();
    match reference.host.as_deref() {
        None => Some(repository),
        host if canonical_host(host) == DEFAULT_HOST => {
            let owned = repository.split_once('/');
            Some(match owned {
                Some((DEFAULT_OWNER, name)) if !name.contains('/') => name,
                _ => repository,
            })
        }
        Some(_) => None,
    }
}

impl fmt::Display for RemoteName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.selector {
            Selector::Tag(_) => ':',
            Selector::Digest(_) => '@',
        };
        write!(
            formatter,
            "{}/{}{separator}{}",
            self.host, self.repository, self.selector
        )
    }
}

/// A short name for a repository, written `NAME=[HOST/]REPOSITORY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    name: String,
    host: Option<String>,
    repository: String,
}

/// Why a text is not an alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasParseError {
    /// It has no two parts, or names tags.
    #[error("`{0}` is not an alias: write it like python=registry.example.com/runtimes/python, without tags")]
    Form(String),
    /// One part is no name.
    #[error(transparent)]
    Name(#[from] ReferenceParseError),
}

impl FromStr for Alias {
    type Err = AliasParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || AliasParseError::Form(text.to_owned());
        let (name, target) = text.split_once('=').ok_or_else(form)?;
        let (name, target): (ImageReference, ImageReference) = (name.parse()?, target.parse()?);
        let is_bare = |reference: &ImageReference| reference.selector == Selector::Tag("latest".to_owned());
        if name.host.is_some() || !is_bare(&name) || !is_bare(&target) {
            return Err(form());
        }
        Ok(Self {
            name: name.repository,
            host: target.host,
            repository: target.repository,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> String {
        let aliases = [
            "python=localhost:5000/runtimes/python",
            "base=team/base",
            "own=debian",
        ]
        .map(|alias| alias.parse().expect(alias));
        RemoteName::of(&text.parse().expect(text), &aliases).to_string()
    }

    #[test]
    fn short_names_and_aliases_are_written_out() {
        let digest = spore_store::Digest::of(b"x");
        for (text, meant) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.18", "docker.io/library/alpine:3.18"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b:1", "docker.io/a/b:1"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("python:3.11", "localhost:5000/runtimes/python:3.11"),
            (
                "docker.io/library/python:3.11",
                "localhost:5000/runtimes/python:3.11",
            ),
            ("docker.io/python", "localhost:5000/runtimes/python:latest"),
            ("docker.io/team/python", "docker.io/team/python:latest"),
            ("ghcr.io/library/python", "ghcr.io/library/python:latest"),
            ("base", "docker.io/team/base:latest"),
            ("own", "docker.io/library/debian:latest"),
            ("localhost/python", "localhost/python:latest"),
        ] {
            assert_eq!(name(text), meant);
        }
        assert_eq!(
            name(&format!("alpine@{digest}")),
            format!("docker.io/library/alpine@{digest}")
        );
    }

    #[test]
    fn names_that_were_written_out_are_short_ones() {
        for (text, short) in [
            ("hello", Some("hello")),
            ("library/hello", Some("library/hello")),
            ("docker.io/hello:1", Some("hello")),
            ("index.docker.io/library/hello", Some("hello")),
            ("docker.io/team/hello", Some("team/hello")),
            ("docker.io/library/team/hello", Some("library/team/hello")),
            ("ghcr.io/hello", None),
            ("localhost:5000/library/hello", None),
        ] {
            let reference = text.parse().expect(text);
            assert_eq!(short_repository(&reference), short, "{text}");
        }
    }

    #[test]
    fn what_is_no_alias_is_refused() {
        for bad in ["python", "a=b:1", "a:1=b", "h.io/a=b", "=b", "a=", "A=b"] {
            assert!(bad.parse::<Alias>().is_err(), "{bad}");
        }
    }
}
