//! Who we are to a registry: Docker's `config.json` of the user that runs this, and the credential helpers it names.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};

use crate::names::DEFAULT_HOST;

/// Longest `config.json`, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// How long a credential helper may take.
pub(crate) const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// What Docker calls its own registry there.
const DEFAULT_HOST_KEY: &str = "https://index.docker.io/v1/";

/// Why there are no credentials where there should be some.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file or the helper's answer is not what it should be.
    #[error("{} or the credential helper that it names is of no use", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CredentialRetrievalError,
    },
    /// The helper takes too long.
    #[error("the credential helper did not answer within {} s", HELPER_TIMEOUT.as_secs())]
    TimedOut,
}

/// What is known of a registry's user.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Password {
        user: String,
        password: String,
    },
    /// A token with which others are had.
    Identity(String),
}

/// The folder of Docker's settings.
fn folder() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))
}

/// The credential for a registry, if there is one. Blocks, as long as a helper takes.
pub(crate) fn credential(host: &str) -> Result<Option<Credential>, CredentialError> {
    match folder() {
        Some(folder) => credential_in(&folder.join("config.json"), host),
        None => Ok(None),
    }
}

fn credential_in(path: &Path, host: &str) -> Result<Option<Credential>, CredentialError> {
    let keys = match host {
        DEFAULT_HOST => vec![DEFAULT_HOST_KEY.to_owned(), host.to_owned()],
        host => vec![
            host.to_owned(),
            format!("https://{host}"),
            format!("https://{host}/"),
        ],
    };
    for key in keys {
        let file = match File::open(path) {
            Ok(file) => BufReader::new(file.take(CONFIG_BYTES_MAX)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(CredentialError::Read { path, source });
            }
        };
        match get_credential_from_reader(file, &key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Some(Credential::Password { user, password }));
            }
            Ok(DockerCredential::IdentityToken(token)) => return Ok(Some(Credential::Identity(token))),
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            // The words of all helpers, which have no other way to say it.
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") => {}
            Err(source) => {
                let path = path.to_owned();
                return Err(CredentialError::Unusable { path, source });
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, host: &str) -> Result<Option<Credential>, CredentialError> {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).expect("writable");
        credential_in(&path, host)
    }

    fn password(credential: Option<Credential>) -> String {
        match credential {
            Some(Credential::Password { user, password }) => format!("{user}:{password}"),
            Some(Credential::Identity(token)) => format!("token {token}"),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn every_way_to_name_a_registry_is_known() {
        // "ada:secret", "hub:pass"
        let config = r#"{"auths": {
            "localhost:5000": {"auth": "YWRhOnNlY3JldA=="},
            "https://quay.io": {"username": "u", "password": "p"},
            "ghcr.io": {"identitytoken": "t"},
            "https://index.docker.io/v1/": {"auth": "aHViOnBhc3M="}
        }}"#;
        for (host, expected) in [
            ("localhost:5000", "ada:secret"),
            ("quay.io", "u:p"),
            ("ghcr.io", "token t"),
            ("docker.io", "hub:pass"),
            ("example.com", "none"),
        ] {
            assert_eq!(password(found(config, host).expect(host)), expected, "{host}");
        }
    }

    #[test]
    fn no_file_is_no_credential_and_a_bad_one_is_an_error() {
        let missing = credential_in(Path::new("/nonexistent/config.json"), "quay.io");
        assert_eq!(password(missing.expect("no file is no error")), "none");
        assert!(found("{", "quay.io").is_err());
        assert!(found(r#"{"auths": {"quay.io": {"auth": "!"}}}"#, "quay.io").is_err());
        assert!(
            found(
                r#"{"credHelpers": {"quay.io": "spore-not-installed"}}"#,
                "quay.io"
            )
            .is_err()
        );
    }
}
