//! Names of images: `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// What chooses an image within a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A name that can move.
    Tag(String),
    /// The digest of the manifest.
    Digest(Digest),
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => formatter.write_str(tag),
            Self::Digest(digest) => digest.fmt(formatter),
        }
    }
}

/// A parsed image name. Where both tag and digest are given, the digest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// Registry, with its port if one is named; none means this daemon.
    pub host: Option<String>,
    /// Repository, for example `team/hello`.
    pub repository: String,
    /// What chooses the image; the tag `latest` where nothing is named.
    pub selector: Selector,
}

/// Why a text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the name of an image: it must look like NAME:TAG or NAME@sha256:DIGEST, in lower case"
)]
pub struct ReferenceParseError {
    text: String,
}

impl FromStr for ImageReference {
    type Err = ReferenceParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ReferenceParseError {
            text: text.chars().take(300).collect(),
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|_| error())?)),
            None => (text, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (Some(first), rest),
            _ => (None, name),
        };
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, tag),
            Some(_) => return Err(error()),
            None => (path, "latest"),
        };
        if !is_repository(repository) || !host.is_none_or(is_host) {
            return Err(error());
        }
        let selector = digest.map_or_else(|| Selector::Tag(tag.to_owned()), Selector::Digest);
        Ok(Self {
            host: host.map(str::to_owned),
            repository: repository.to_owned(),
            selector,
        })
    }
}

/// Whether the text can be a registry's address; the network decides the rest.
fn is_host(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && text.chars().all(allowed)
}

/// Whether the text is a repository name by the grammar of the OCI distribution specification.
pub fn is_repository(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_repository_component)
}

/// Runs of lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_repository_component(text: &str) -> bool {
    let mut separator = String::from("start");
    for character in text.chars() {
        match character {
            'a'..='z' | '0'..='9' => separator.clear(),
            '.' | '_' | '-' => separator.push(character),
            _ => return false,
        }
        let allowed =
            matches!(separator.as_str(), "" | "." | "_" | "__") || separator.chars().all(|c| c == '-');
        if !allowed {
            return false;
        }
    }
    separator.is_empty()
}

/// Whether the text is a tag by the grammar of the OCI distribution specification.
pub fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (Option<String>, String, String) {
        let reference: ImageReference = text.parse().expect(text);
        (
            reference.host,
            reference.repository,
            reference.selector.to_string(),
        )
    }

    fn expected(host: Option<&str>, repository: &str, selector: &str) -> (Option<String>, String, String) {
        (
            host.map(str::to_owned),
            repository.to_owned(),
            selector.to_owned(),
        )
    }

    #[test]
    fn parts_are_found() {
        let digest = Digest::of(b"x").to_string();
        assert_eq!(parsed("hello"), expected(None, "hello", "latest"));
        assert_eq!(parsed("team/hello:1.0"), expected(None, "team/hello", "1.0"));
        assert_eq!(
            parsed("localhost:8080/hello:v1"),
            expected(Some("localhost:8080"), "hello", "v1")
        );
        assert_eq!(
            parsed("docker.io/functions/alpine"),
            expected(Some("docker.io"), "functions/alpine", "latest")
        );
        assert_eq!(
            parsed(&format!("hello@{digest}")),
            expected(None, "hello", &digest)
        );
        assert_eq!(
            parsed(&format!("hello:tag@{digest}")),
            expected(None, "hello", &digest)
        );
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            ":",
            "Hello",
            "a//b",
            "../a",
            "a/../b",
            "a:",
            "a:b:c",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:1",
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad}");
        }
        assert!(long.parse::<ImageReference>().is_err());
    }

    proptest! {
        #[test]
        fn accepted_names_never_leave_their_folder(text in "\\PC{0,40}") {
            if let Ok(reference) = text.parse::<ImageReference>() {
                prop_assert!(!reference.repository.contains(".."));
                prop_assert!(!reference.repository.starts_with('/'));
            }
        }
    }
}
