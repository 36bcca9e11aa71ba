//! The OpenFaaS API: namespaces, which keep functions and secrets apart.

use http::{Request, StatusCode};
use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use spore_store::NamespaceRecord;
use utoipa::ToSchema;

use crate::client_body::ClientBody;
use crate::errors::ApiError;
use crate::functions::Functions;
use crate::names::{DEFAULT_NAMESPACE, excerpt, is_name};
use crate::reply::{self, Answer};
use crate::system::read_json;

/// Why a request about namespaces failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespaceError {
    #[error(
        "`{name}` cannot be the name of a namespace: use 1 to 63 lower-case letters, digits and dashes, \
         with a letter or digit first and last"
    )]
    Name { name: String },
    #[error("the namespace `{name}` does not exist: make it first (POST /system/namespace/)")]
    Unknown { name: String },
    #[error(
        "nothing can be made in the namespace `{name}`, which does not exist: make that first (POST /system/namespace/)"
    )]
    Missing { name: String },
    #[error("the namespace `{name}` exists already: update it by PUT")]
    Exists { name: String },
    #[error("the namespace `{name}` is not empty: remove {what} first")]
    NotEmpty { name: String, what: String },
    #[error("the namespace {DEFAULT_NAMESPACE} is always there and cannot be removed")]
    Default,
    #[error("the path names the namespace `{path}`, but the body `{body}`")]
    TwoNames { path: String, body: String },
}

impl NamespaceError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Name { .. } | Self::Missing { .. } | Self::Default | Self::TwoNames { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::Exists { .. } | Self::NotEmpty { .. } => StatusCode::CONFLICT,
        }
    }
}

/// A namespace in OpenFaaS's shape.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct FunctionNamespace {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

impl From<FunctionNamespace> for NamespaceRecord {
    fn from(namespace: FunctionNamespace) -> Self {
        Self {
            labels: namespace.labels.unwrap_or_default(),
            annotations: namespace.annotations.unwrap_or_default(),
        }
    }
}

impl Functions {
    /// Whether there is a namespace of this name.
    pub(crate) fn check_namespace(&self, name: &str) -> Result<(), NamespaceError> {
        self.namespace(name).map(drop)
    }

    /// The same where something is to be made in it: a client then does not take the answer for one about that.
    pub(crate) fn check_namespace_for_new(&self, name: &str) -> Result<(), NamespaceError> {
        let missing = |_| NamespaceError::Missing { name: excerpt(name) };
        self.check_namespace(name).map_err(missing)
    }

    fn namespace(&self, name: &str) -> Result<NamespaceRecord, NamespaceError> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        match namespaces.get(name) {
            Some(record) => Ok(record.clone()),
            None if name == DEFAULT_NAMESPACE => Ok(NamespaceRecord::default()),
            None => Err(NamespaceError::Unknown { name: excerpt(name) }),
        }
    }

    /// All names, the default one first.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        let others = namespaces.keys().filter(|name| *name != DEFAULT_NAMESPACE);
        std::iter::once(DEFAULT_NAMESPACE.to_owned())
            .chain(others.cloned())
            .collect()
    }

    /// Writes a namespace; `exists` says whether it has to be there, or must not.
    async fn put_namespace(
        &self,
        name: String,
        record: NamespaceRecord,
        exists: bool,
    ) -> Result<(), ApiError> {
        if !is_name(&name) {
            return Err(NamespaceError::Name { name: excerpt(&name) }.into());
        }
        let _changing = self.changing.lock().await;
        match (self.check_namespace(&name), exists) {
            (Ok(()), false) => return Err(NamespaceError::Exists { name }.into()),
            (Err(error), true) => return Err(error.into()),
            _ => {}
        }
        let (store, key, value) = (self.store.clone(), name.clone(), record.clone());
        tokio::task::spawn_blocking(move || store.namespaces.put(&key, &value)).await??;
        self.namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, record);
        Ok(())
    }

    async fn remove_namespace(&self, name: String) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        self.check_namespace(&name)?;
        if name == DEFAULT_NAMESPACE {
            return Err(NamespaceError::Default.into());
        }
        if let Some(function) = self.all_in(&name).first() {
            let what = format!("the function {}", function.id.name);
            return Err(NamespaceError::NotEmpty { name, what }.into());
        }
        let (store, key) = (self.store.clone(), name.clone());
        let secrets = tokio::task::spawn_blocking(move || store.secrets.names(&key)).await??;
        if let Some(secret) = secrets.first() {
            let what = format!("the secret {secret}");
            return Err(NamespaceError::NotEmpty { name, what }.into());
        }
        let (store, key) = (self.store.clone(), name.clone());
        tokio::task::spawn_blocking(move || store.namespaces.remove(&key)).await??;
        self.namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&name);
        Ok(())
    }
}

/// `GET /system/namespaces`
#[utoipa::path(
    get,
    path = "/system/namespaces",
    responses(
        (status = 200, description = "The names of the namespaces", body = [String]),
    )
)]
pub(crate) fn list(functions: &Functions) -> Answer {
    reply::json(StatusCode::OK, &functions.namespaces())
}

/// `GET /system/namespace/NAME`
#[utoipa::path(
    get,
    path = "/system/namespace/{name}",
    params(("name" = String, Path, description = "Name of the namespace")),
    responses(
        (status = 200, description = "The namespace", body = FunctionNamespace),
        (status = 404, description = "There is none of this name"),
    )
)]
pub(crate) fn describe(functions: &Functions, name: &str) -> Result<Answer, ApiError> {
    let record = functions.namespace(name)?;
    let namespace = FunctionNamespace {
        name: name.to_owned(),
        labels: Some(record.labels),
        annotations: Some(record.annotations),
    };
    Ok(reply::json(StatusCode::OK, &namespace))
}

/// `POST /system/namespace/NAME`, as clients do that have the name from an argument.
#[utoipa::path(
    post,
    path = "/system/namespace/{name}",
    params(("name" = String, Path, description = "Name of the namespace")),
    request_body = FunctionNamespace,
    responses(
        (status = 201, description = "It is there"),
        (status = 400, description = "Its name is not valid, or the body names another one"),
        (status = 409, description = "There is one of this name"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn create_named(
    functions: &Functions,
    name: &str,
    request: Request<ClientBody>,
) -> Result<Answer, ApiError> {
    create(functions, name, request).await
}

/// `POST /system/namespace/`, the name in the body.
#[utoipa::path(
    post,
    path = "/system/namespace/",
    request_body = FunctionNamespace,
    responses(
        (status = 201, description = "It is there"),
        (status = 400, description = "Its name is not valid"),
        (status = 409, description = "There is one of this name"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn create(
    functions: &Functions,
    path_name: &str,
    request: Request<ClientBody>,
) -> Result<Answer, ApiError> {
    let (name, record) = read(path_name, request).await?;
    functions.put_namespace(name, record, false).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

/// `PUT /system/namespace/NAME`
#[utoipa::path(
    put,
    path = "/system/namespace/{name}",
    params(("name" = String, Path, description = "Name of the namespace")),
    request_body = FunctionNamespace,
    responses(
        (status = 202, description = "It is changed"),
        (status = 400, description = "The body names another one"),
        (status = 404, description = "There is none of this name"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn update(
    functions: &Functions,
    path_name: &str,
    request: Request<ClientBody>,
) -> Result<Answer, ApiError> {
    let (name, record) = read(path_name, request).await?;
    functions.put_namespace(name, record, true).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// `DELETE /system/namespace/NAME`; a body that names it is allowed, and so is none.
#[utoipa::path(
    delete,
    path = "/system/namespace/{name}",
    params(("name" = String, Path, description = "Name of the namespace")),
    responses(
        (status = 202, description = "It is removed"),
        (status = 400, description = "It is the one that is always there"),
        (status = 404, description = "There is none of this name"),
        (status = 409, description = "It is not empty"),
    )
)]
pub(crate) async fn remove(functions: &Functions, path_name: &str) -> Result<Answer, ApiError> {
    functions.remove_namespace(path_name.to_owned()).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// What the body describes; the name is that of the path or of the body.
async fn read(path_name: &str, request: Request<ClientBody>) -> Result<(String, NamespaceRecord), ApiError> {
    let mut namespace: FunctionNamespace = read_json(request.into_body()).await?;
    let name = std::mem::take(&mut namespace.name);
    let name = match (path_name, name.as_str()) {
        (path, "") => path.to_owned(),
        ("", _) => name,
        (path, body) if path == body => name,
        (path, body) => {
            return Err(NamespaceError::TwoNames {
                path: excerpt(path),
                body: excerpt(body),
            }
            .into());
        }
    };
    Ok((name, namespace.into()))
}
