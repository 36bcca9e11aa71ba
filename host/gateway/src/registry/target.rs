//! What a path below `/v2/` means. Pure.

use spore_store::{Digest, Selector, is_repository, is_tag};
use uuid::Uuid;

use super::error::RegistryError;

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Root,
    Blob { digest: Digest },
    Manifest { repository: String, selector: Selector },
    Tags { repository: String },
    Uploads { repository: String },
    Upload { repository: String, id: Uuid },
}

impl Target {
    /// Reads the path of a request, which begins with `/v2`.
    pub(super) fn of(path: &str) -> Result<Self, RegistryError> {
        let path = path.strip_prefix("/v2").unwrap_or(path).trim_start_matches('/');
        if path.is_empty() {
            return Ok(Self::Root);
        }
        if let Some((repository, upload)) = path.rsplit_once("/blobs/uploads") {
            let repository = repository_of(repository)?;
            return match upload.trim_matches('/') {
                "" => Ok(Self::Uploads { repository }),
                id => Ok(Self::Upload {
                    repository,
                    id: id.parse().map_err(|_| RegistryError::UploadUnknown)?,
                }),
            };
        }
        if let Some((repository, digest)) = path.rsplit_once("/blobs/") {
            repository_of(repository)?;
            return Ok(Self::Blob {
                digest: digest.parse()?,
            });
        }
        if let Some((repository, reference)) = path.rsplit_once("/manifests/") {
            let repository = repository_of(repository)?;
            return Ok(Self::Manifest {
                repository,
                selector: selector_of(reference)?,
            });
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags {
                repository: repository_of(repository)?,
            });
        }
        Err(RegistryError::NoSuchAddress)
    }
}

fn repository_of(text: &str) -> Result<String, RegistryError> {
    if is_repository(text) {
        Ok(text.to_owned())
    } else {
        Err(RegistryError::NameInvalid {
            repository: text.chars().take(300).collect(),
        })
    }
}

fn selector_of(text: &str) -> Result<Selector, RegistryError> {
    if text.contains(':') {
        Ok(Selector::Digest(text.parse()?))
    } else if is_tag(text) {
        Ok(Selector::Tag(text.to_owned()))
    } else {
        Err(RegistryError::ReferenceInvalid {
            reference: text.chars().take(300).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood() {
        let digest = Digest::of(b"x");
        let id = Uuid::from_u128(7);
        let (repository, tag) = ("team/hello".to_owned(), Selector::Tag("v1".to_owned()));
        let cases = [
            ("/v2".to_owned(), Target::Root),
            ("/v2/".to_owned(), Target::Root),
            (format!("/v2/team/hello/blobs/{digest}"), Target::Blob { digest }),
            (
                "/v2/team/hello/blobs/uploads/".to_owned(),
                Target::Uploads {
                    repository: repository.clone(),
                },
            ),
            (
                format!("/v2/team/hello/blobs/uploads/{id}"),
                Target::Upload {
                    repository: repository.clone(),
                    id,
                },
            ),
            (
                "/v2/team/hello/tags/list".to_owned(),
                Target::Tags {
                    repository: repository.clone(),
                },
            ),
            (
                "/v2/team/hello/manifests/v1".to_owned(),
                Target::Manifest {
                    repository,
                    selector: tag,
                },
            ),
        ];
        for (path, target) in cases {
            assert_eq!(Target::of(&path).expect(&path), target);
        }
        for bad in [
            "/v2/x",
            "/v2/../blobs/uploads/",
            "/v2/A/manifests/v1",
            "/v2/a/manifests/-",
            "/v2/a/blobs/x",
        ] {
            assert!(Target::of(bad).is_err(), "{bad}");
        }
    }
}
