//! Who may use the API and the registry: HTTP's basic authentication, with one user.
//!
//! Functions are not behind it, as with OpenFaaS. Nothing but the digest of the credentials is kept in memory, and what is
//! sent is compared by its digest too, in constant time.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};
use spore_store::{CredentialFolder, PASSWORD_FILE, USER_FILE};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::config::Role;
use crate::reply::{self, Answer};

/// Name of the user whose credentials a daemon makes itself.
const GENERATED_USER: &str = "admin";
/// Longest file with a name or password, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Where the credentials come from that clients must send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BasicAuth {
    /// Clients need none.
    #[default]
    Off,
    /// These files hold them; white space around is ignored.
    Files {
        /// The user's name.
        user: PathBuf,
        /// The password.
        password: PathBuf,
    },
    /// They are in the data folder, made at the first start.
    Generated,
}

impl BasicAuth {
    /// In a folder as OpenFaaS has it: the files `basic-auth-user` and `basic-auth-password`.
    pub fn in_folder(folder: &Path) -> Self {
        Self::Files {
            user: folder.join(USER_FILE),
            password: folder.join(PASSWORD_FILE),
        }
    }
}

/// Credentials that were made just now, to be told once.
#[derive(Clone, PartialEq, Eq)]
pub struct NewCredentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
    /// Folder in which they are kept.
    pub folder: PathBuf,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file could not be read.
    #[error("the credentials could not be read from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds nothing that could be a name or password.
    #[error(
        "{} must hold one line of 1 to {FILE_BYTES_MAX} bytes{}", path.display(),
        if *is_user { " without a colon" } else { "" }
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// Whether it is that of the user's name.
        is_user: bool,
    },
    /// New ones could not be written.
    #[error("credentials could not be made in {}", folder.display())]
    Generate {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What clients must send.
pub(crate) struct Authentication {
    digest: [u8; 32],
}

impl Authentication {
    /// Reads the credentials, or makes them. None if clients need none.
    pub(crate) fn of(
        config: &BasicAuth,
        folder: &CredentialFolder,
    ) -> Result<(Option<Self>, Option<NewCredentials>), CredentialsError> {
        let (files, new) = match config {
            BasicAuth::Off => return Ok((None, None)),
            BasicAuth::Files { .. } => (config.clone(), None),
            BasicAuth::Generated => (BasicAuth::in_folder(folder.path()), generate(folder)?),
        };
        let BasicAuth::Files { user, password } = files else {
            return Ok((None, None));
        };
        let (user, password) = (read(&user, true)?, read(&password, false)?);
        Ok((Some(Self::new(&user, &password)), new))
    }

    fn new(user: &str, password: &str) -> Self {
        Self {
            digest: Sha256::digest(format!("{user}:{password}")).into(),
        }
    }

    /// Whether these headers hold the credentials.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = sent
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .and_then(|(_, token)| STANDARD.decode(token.trim()).ok());
        token.is_some_and(|token| {
            let digest: [u8; 32] = Sha256::digest(token).into();
            digest.ct_eq(&self.digest).into()
        })
    }
}

fn generate(folder: &CredentialFolder) -> Result<Option<NewCredentials>, CredentialsError> {
    // 244 bits of a generator that the operating system has seeded.
    let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let is_new = folder
        .generate(GENERATED_USER, &password)
        .map_err(|source| CredentialsError::Generate {
            folder: folder.path().to_owned(),
            source,
        })?;
    Ok(is_new.then(|| NewCredentials {
        user: GENERATED_USER.to_owned(),
        password,
        folder: folder.path().to_owned(),
    }))
}

fn read(path: &Path, is_user: bool) -> Result<String, CredentialsError> {
    use std::io::Read;
    let read_error = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read_error)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(read_error)?;
    let is_too_long = text.len() as u64 > FILE_BYTES_MAX;
    let text = text.trim();
    if is_too_long || text.is_empty() || text.contains(['\n', '\r']) || (is_user && text.contains(':')) {
        return Err(CredentialsError::Content {
            path: path.to_owned(),
            is_user,
        });
    }
    Ok(text.to_owned())
}

/// Whether a request for this path needs no credentials. Whether those for functions do is not asked here.
pub(crate) fn is_open(role: Role, method: &Method, path: &str) -> bool {
    match path {
        "/healthz" => matches!(*method, Method::GET | Method::HEAD),
        // Whoever is set up to look at a provider of OpenFaaS's sends no credentials.
        "/metrics" => role == Role::Provider && *method == Method::GET,
        _ => false,
    }
}

/// The answer to a client without the right credentials; a registry's client expects JSON.
pub(crate) fn refusal(path: &str) -> Answer {
    let mut response = if path.starts_with("/v2") {
        let error =
            serde_json::json!({ "code": "UNAUTHORIZED", "message": "invalid credentials: log in first" });
        reply::json(
            StatusCode::UNAUTHORIZED,
            &serde_json::json!({ "errors": [error] }),
        )
    } else {
        reply::text(StatusCode::UNAUTHORIZED, "invalid credentials")
    };
    response.headers_mut().insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"Restricted\""),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        Authentication::new("admin", "pass:word").admits(&headers)
    }

    #[test]
    fn only_the_exact_credentials_are_admitted() {
        let token = |text: &str| STANDARD.encode(text);
        for scheme in ["Basic", "basic"] {
            assert!(admits(&format!("{scheme} {}", token("admin:pass:word"))));
        }
        for wrong in [
            "",
            ":",
            "admin",
            "admin:",
            "admin:pass",
            "admin:pass:word ",
            "Admin:pass:word",
        ] {
            assert!(!admits(&format!("Basic {}", token(wrong))), "{wrong}");
        }
        for wrong in ["Basic", "Basic ", "Basic !", "Bearer ", "admin:pass:word"] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!admits(&format!("Bearer {}", token("admin:pass:word"))));
        assert!(!Authentication::new("", "").admits(&HeaderMap::new()));
    }

    #[test]
    fn files_are_trimmed_and_checked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        for (text, is_user, expected) in [
            ("admin\n", true, Some("admin")),
            (" a:b \r\n", false, Some("a:b")),
            ("a:b", true, None),
            ("", false, None),
            ("\n", false, None),
            ("a\nb", false, None),
            (&"a".repeat(4097), false, None),
        ] {
            std::fs::write(&path, text).expect("it is ours");
            assert_eq!(read(&path, is_user).ok().as_deref(), expected, "{text:?}");
        }
        assert!(matches!(
            read(&folder.path().join("absent"), true),
            Err(CredentialsError::Read { .. })
        ));
    }
}
