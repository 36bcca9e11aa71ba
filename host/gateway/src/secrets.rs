//! The OpenFaaS API: secrets. Their values go to the store and into functions, and never out again.

use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use spore_sandbox::{SECRETS_BYTES_MAX, Secret};
use utoipa::ToSchema;

use crate::client_body::ClientBody;
use crate::errors::ApiError;
use crate::functions::{Function, Functions};
use crate::names::{excerpt, namespace_of};
use crate::reply::{self, Answer};
use crate::settings::{Settings, SettingsError};
use crate::system::read_json;

/// Longest value of a secret, in bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// Why a request about secrets failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(
        "`{name}` cannot be the name of a secret: use 1 to {NAME_BYTES_MAX} letters, digits, dashes, dots and underscores, \
         with a letter or digit first"
    )]
    Name { name: String },
    #[error("the secret `{name}` has no value: set the field `value`, or `rawValue` in base64")]
    NoValue { name: String },
    #[error("the field `rawValue` of the secret `{name}` is not base64")]
    NotBase64 {
        name: String,
        source: base64::DecodeError,
    },
    #[error("the secret `{name}` is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong { name: String },
    #[error("the secret `{name}` exists already: update it by PUT, or delete it first")]
    Exists { name: String },
    #[error("the secret `{name}` does not exist")]
    Unknown { name: String },
    #[error("the secret `{name}` is used by the function `{function}`: update or remove that first")]
    InUse { name: String, function: String },
}

impl SecretError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Name { .. } | Self::NoValue { .. } | Self::NotBase64 { .. } | Self::TooLong { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Exists { .. } | Self::InUse { .. } => StatusCode::CONFLICT,
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
        }
    }
}

/// A secret as a client sends it.
#[derive(Deserialize, ToSchema)]
#[schema(as = Secret)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentSecret {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    value: Option<String>,
    /// Bytes in base64, which count if there is no value.
    #[serde(default)]
    raw_value: Option<String>,
}

impl SentSecret {
    fn value(self) -> Result<Vec<u8>, SecretError> {
        let name = self.name;
        let value = match (self.value, self.raw_value) {
            (Some(value), _) if !value.is_empty() => value.into_bytes(),
            (_, Some(raw)) if !raw.is_empty() => {
                STANDARD.decode(raw).map_err(|source| SecretError::NotBase64 {
                    name: name.clone(),
                    source,
                })?
            }
            _ => return Err(SecretError::NoValue { name }),
        };
        if value.len() > VALUE_BYTES_MAX {
            return Err(SecretError::TooLong { name });
        }
        Ok(value)
    }
}

/// A secret as the list shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedSecret<'a> {
    name: &'a str,
    namespace: &'a str,
}

/// Whether the text can be the name of a secret, and so of a file.
pub(crate) fn is_secret_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

impl Functions {
    /// The secrets of these names, for instances of a function of this namespace.
    pub(crate) async fn secrets(&self, namespace: &str, names: &[String]) -> Result<Vec<Secret>, ApiError> {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        let (store, namespace) = (self.store.clone(), namespace.to_owned());
        let read = move || -> Result<Vec<Secret>, ApiError> {
            let read = |name: String| match store.secrets.get(&namespace, &name)? {
                Some(value) => Ok(Secret {
                    name,
                    value: value.into(),
                }),
                None => Err(SettingsError::UnknownSecret { name: excerpt(&name) }.into()),
            };
            names.into_iter().map(read).collect()
        };
        let secrets = tokio::task::spawn_blocking(read).await??;
        check_size(&secrets)?;
        Ok(secrets)
    }

    /// Writes a new secret.
    async fn create_secret(&self, namespace: String, name: String, value: Vec<u8>) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        self.check_namespace_for_new(&namespace)?;
        let store = self.store.clone();
        let write = move || -> Result<(), ApiError> {
            if store.secrets.get(&namespace, &name)?.is_some() {
                return Err(SecretError::Exists { name }.into());
            }
            Ok(store.secrets.put(&namespace, &name, &value)?)
        };
        tokio::task::spawn_blocking(write).await?
    }

    /// Replaces a secret, and the instances of the functions that use it: no invocation that begins after the return
    /// finds the old one.
    async fn update_secret(&self, namespace: String, name: String, value: Vec<u8>) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let users = self.users_of_secret(&namespace, &name);
        let secret = Secret {
            name: name.clone(),
            value: value.clone().into(),
        };
        let mut replacements = Vec::new();
        for function in users {
            let mut template = function.template();
            for existing in &mut template.secrets {
                if existing.name == name {
                    existing.value = Arc::clone(&secret.value);
                }
            }
            check_size(&template.secrets)?;
            let settings = Settings::of(&function.record().deployment, &self.config)?;
            replacements.push((function, template, settings.limits));
        }
        let store = self.store.clone();
        let write = move || -> Result<(), ApiError> {
            if store.secrets.get(&namespace, &name)?.is_none() {
                return Err(SecretError::Unknown { name }.into());
            }
            Ok(store.secrets.put(&namespace, &name, &value)?)
        };
        tokio::task::spawn_blocking(write).await??;
        for (function, template, limits) in replacements {
            self.tell_sandbox(Some(&template));
            function
                .version
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .template = template.clone();
            function.pool.replace(template, limits);
        }
        Ok(())
    }

    async fn remove_secret(&self, namespace: String, name: String) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        if let Some(function) = self.users_of_secret(&namespace, &name).first() {
            let function = function.id.name.clone();
            return Err(SecretError::InUse { name, function }.into());
        }
        let (store, removed) = (self.store.clone(), name.clone());
        let remove = move || store.secrets.remove(&namespace, &removed);
        if tokio::task::spawn_blocking(remove).await?? {
            Ok(())
        } else {
            Err(SecretError::Unknown { name }.into())
        }
    }

    fn users_of_secret(&self, namespace: &str, name: &str) -> Vec<Arc<Function>> {
        let uses = |function: &Arc<Function>| {
            let record = function.record();
            let mut secrets = record.deployment.secrets.iter().flatten();
            secrets.any(|secret| secret == name)
        };
        self.all_in(namespace).into_iter().filter(uses).collect()
    }
}

fn check_size(secrets: &[Secret]) -> Result<(), SettingsError> {
    let bytes: usize = secrets
        .iter()
        .map(|secret| secret.name.len() + secret.value.len())
        .sum();
    if bytes > SECRETS_BYTES_MAX {
        return Err(SettingsError::SecretsTooLong { bytes });
    }
    Ok(())
}

/// `GET /system/secrets`
#[utoipa::path(
    get,
    path = "/system/secrets",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    responses(
        (status = 200, description = "The names of the secrets", body = [ListedSecret<'static>]),
        (status = 404, description = "There is no such namespace"),
    )
)]
pub(crate) async fn list(functions: &Functions, uri: &Uri) -> Result<Answer, ApiError> {
    let namespace = namespace_of("", uri);
    functions.check_namespace(&namespace)?;
    let (store, of) = (functions.store.clone(), namespace.clone());
    let names = tokio::task::spawn_blocking(move || store.secrets.names(&of)).await??;
    let list: Vec<_> = names
        .iter()
        .map(|name| ListedSecret {
            name,
            namespace: &namespace,
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &list))
}

/// `POST /system/secrets`
#[utoipa::path(
    post,
    path = "/system/secrets",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = SentSecret,
    responses(
        (status = 201, description = "It is kept"),
        (status = 400, description = "It is not valid"),
        (status = 409, description = "There is one of this name"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn create(functions: &Functions, request: Request<ClientBody>) -> Result<Answer, ApiError> {
    let (namespace, name, value) = read(request).await?;
    functions.create_secret(namespace, name, value).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

/// `PUT /system/secrets`
#[utoipa::path(
    put,
    path = "/system/secrets",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = SentSecret,
    responses(
        (status = 202, description = "No invocation that begins now finds the old one"),
        (status = 400, description = "It is not valid"),
        (status = 404, description = "There is none of this name"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn update(functions: &Functions, request: Request<ClientBody>) -> Result<Answer, ApiError> {
    let (namespace, name, value) = read(request).await?;
    functions.update_secret(namespace, name, value).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// `DELETE /system/secrets`
#[utoipa::path(
    delete,
    path = "/system/secrets",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = SentSecret,
    responses(
        (status = 202, description = "It is removed"),
        (status = 400, description = "The body is not valid"),
        (status = 404, description = "There is none of this name"),
        (status = 409, description = "A function uses it"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn remove(functions: &Functions, request: Request<ClientBody>) -> Result<Answer, ApiError> {
    let uri = request.uri().clone();
    let secret: SentSecret = read_json(request.into_body()).await?;
    let namespace = namespace_of(&secret.namespace, &uri);
    functions.remove_secret(namespace, secret.name).await?;
    // OpenFaaS's own clients take no 204 here.
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// Namespace, name and value of a secret that is sent.
async fn read(request: Request<ClientBody>) -> Result<(String, String, Vec<u8>), ApiError> {
    let uri = request.uri().clone();
    let secret: SentSecret = read_json(request.into_body()).await?;
    if !is_secret_name(&secret.name) {
        return Err(SecretError::Name {
            name: excerpt(&secret.name),
        }
        .into());
    }
    let namespace = namespace_of(&secret.namespace, &uri);
    let name = secret.name.clone();
    Ok((namespace, name, secret.value()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files_and_nothing_else() {
        for name in ["a", "A-1", "db_password", "tls.key", &"a".repeat(253)] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "-a",
            "a b",
            "a\0",
            "ä",
            &"a".repeat(254),
        ] {
            assert!(!is_secret_name(name), "{name:?}");
        }
    }

    #[test]
    fn text_goes_before_bytes_and_nothing_is_refused() {
        let secret = |value: &str, raw: &str| SentSecret {
            name: "a".to_owned(),
            namespace: String::new(),
            value: Some(value.to_owned()),
            raw_value: Some(raw.to_owned()),
        };
        assert_eq!(secret("text", "AAE=").value().expect("valid"), b"text");
        assert_eq!(secret("", "AAE=").value().expect("valid"), [0, 1]);
        assert!(matches!(secret("", "").value(), Err(SecretError::NoValue { .. })));
        assert!(matches!(
            secret("", "?").value(),
            Err(SecretError::NotBase64 { .. })
        ));
        let long = "a".repeat(VALUE_BYTES_MAX + 1);
        assert!(matches!(
            secret(&long, "").value(),
            Err(SecretError::TooLong { .. })
        ));
    }
}
