//! Who we are to a registry: Docker's `config.json` of the user that runs this, and the credential helpers it names; or what a client
//! of the daemon has sent, who found it in the same way.
//!
//! ```text
//!   client:  config.json, helper ──> ClientCredential ──X-Registry-Auth──> daemon ──that registry and no other──> session
//!   daemon:  config.json, helper ──────────────────────────────────────────────────if no client has sent any──────┘
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use spore_store::ImageReference;

use crate::names::{DEFAULT_HOST, canonical_host};

/// The header that a client's credential for a registry is in, as Docker's clients send it to their daemon.
pub const REGISTRY_AUTHENTICATION: &str = "x-registry-auth";
/// Longest value of that header, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Base64 for addresses, with or without padding.
const ENCODING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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

/// A client's credential for one registry. It is sent to that registry, and to the token service that this one names.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCredential {
    pub(crate) host: String,
    pub(crate) credential: Credential,
}

impl fmt::Debug for ClientCredential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientCredential for {}", self.host)
    }
}

/// Why a header is no credential.
#[derive(Debug, thiserror::Error)]
pub enum ClientCredentialError {
    /// Too long.
    #[error("the header {REGISTRY_AUTHENTICATION} is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Not base64.
    #[error("the header {REGISTRY_AUTHENTICATION} is no base64 for addresses")]
    Encoding(#[source] base64::DecodeError),
    /// No document of the kind.
    #[error("the header {REGISTRY_AUTHENTICATION} is not what Docker's clients send")]
    Form(#[source] serde_json::Error),
    /// It names no registry.
    #[error("the header {REGISTRY_AUTHENTICATION} names no `serveraddress`: for which registry is it?")]
    NoServer,
    /// It says nothing.
    #[error("the header {REGISTRY_AUTHENTICATION} has neither `username` and `password` nor `identitytoken`")]
    Empty,
}

/// The header's content.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Sent {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    serveraddress: String,
}

impl ClientCredential {
    /// What this user's `config.json` has for the registry of an image; nothing if that is no name. Blocks, as long as a credential
    /// helper takes.
    ///
    /// # Errors
    ///
    /// If the file or the helper's answer is of no use.
    pub fn of(image: &str) -> Result<Option<Self>, CredentialError> {
        let Ok(image) = image.parse::<ImageReference>() else {
            return Ok(None);
        };
        let host = canonical_host(image.host.as_deref()).to_owned();
        Ok(credential(&host)?.map(|credential| Self { host, credential }))
    }

    /// The header's value; none if it would be too long.
    #[must_use]
    pub fn to_header(&self) -> Option<HeaderValue> {
        let serveraddress = self.host.clone();
        let sent = match &self.credential {
            Credential::Password { user, password } => Sent {
                username: user.clone(),
                password: password.clone(),
                serveraddress,
                ..Sent::default()
            },
            Credential::Identity(token) => Sent {
                identitytoken: token.clone(),
                serveraddress,
                ..Sent::default()
            },
        };
        let text = ENCODING.encode(serde_json::to_vec(&sent).ok()?);
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        (value.len() <= HEADER_BYTES_MAX).then_some(value)
    }

    /// Reads the header's value.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn from_header(value: &HeaderValue) -> Result<Self, ClientCredentialError> {
        if value.len() > HEADER_BYTES_MAX {
            return Err(ClientCredentialError::TooLong);
        }
        let bytes = ENCODING
            .decode(value.as_bytes())
            .map_err(ClientCredentialError::Encoding)?;
        let sent: Sent = serde_json::from_slice(&bytes).map_err(ClientCredentialError::Form)?;
        // Docker's own registry goes by an address with a path.
        let server = sent.serveraddress.split_once("://");
        let server = server.map_or(sent.serveraddress.as_str(), |(_, rest)| rest);
        let host = server.split('/').next().unwrap_or_default();
        if host.is_empty() {
            return Err(ClientCredentialError::NoServer);
        }
        let credential = match (sent.identitytoken.is_empty(), sent.username.is_empty()) {
            (false, _) => Credential::Identity(sent.identitytoken),
            (true, false) => Credential::Password {
                user: sent.username,
                password: sent.password,
            },
            (true, true) => return Err(ClientCredentialError::Empty),
        };
        Ok(Self {
            host: canonical_host(Some(host)).to_owned(),
            credential,
        })
    }
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
    fn what_clients_send_arrives() {
        let ada = Credential::Password {
            user: "ada".to_owned(),
            password: "sécret:?>".to_owned(),
        };
        for (host, credential) in [
            ("docker.io", ada),
            ("localhost:5000", Credential::Identity("token".to_owned())),
        ] {
            let host = host.to_owned();
            let sent = ClientCredential { host, credential };
            let header = sent.to_header().expect("it is short");
            assert!(header.is_sensitive());
            assert_eq!(ClientCredential::from_header(&header).expect("it is one"), sent);
        }
        let read = |text: &str| {
            let header = HeaderValue::from_str(&ENCODING.encode(text)).expect("base64");
            ClientCredential::from_header(&header).map(|read| (read.host, password(Some(read.credential))))
        };
        // As Docker sends it.
        let docker =
            r#"{"username":"u","password":"p","email":"","serveraddress":"https://index.docker.io/v1/"}"#;
        assert_eq!(
            read(docker).expect("it is one"),
            ("docker.io".to_owned(), "u:p".to_owned())
        );
        assert!(matches!(read("{}"), Err(ClientCredentialError::NoServer)));
        let empty = r#"{"serveraddress":"quay.io"}"#;
        assert!(matches!(read(empty), Err(ClientCredentialError::Empty)));
        assert!(matches!(read("7"), Err(ClientCredentialError::Form(_))));
        let header = HeaderValue::from_static("no base64");
        assert!(matches!(
            ClientCredential::from_header(&header),
            Err(ClientCredentialError::Encoding(_))
        ));
        let long = HeaderValue::from_str(&"a".repeat(HEADER_BYTES_MAX + 1)).expect("a value");
        assert!(matches!(
            ClientCredential::from_header(&long),
            Err(ClientCredentialError::TooLong)
        ));
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
