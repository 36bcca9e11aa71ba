//! Requests about one repository of a registry, with whatever it wants to see of who asks.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::authorization::{self, Challenge};
use crate::credentials::{self, Credential, CredentialError, HELPER_TIMEOUT};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::names::RemoteName;
use crate::transport::{self, Body, Transport, full};
use crate::{Registries, RegistryOptions};

/// Longest answer of a token service, in bytes.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// One repository of a registry, for one pull or push.
pub(crate) struct Session {
    transport: Transport,
    pub(crate) endpoint: Endpoint,
    pub(crate) repository: String,
    /// `pull`, or `pull,push`.
    actions: &'static str,
    credential: Option<Credential>,
    /// What was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Session {
    pub(crate) async fn open(
        registries: &Registries,
        name: &RemoteName,
        actions: &'static str,
    ) -> Result<Arc<Self>, RegistryError> {
        let RegistryOptions { mirrors, .. } = &*registries.options;
        let endpoint = Endpoint::of(&name.host, mirrors)?;
        // A mirror is another registry, and has credentials of its own.
        let is_mirrored = mirrors.iter().any(|mirror| mirror.host() == name.host);
        let host = if is_mirrored {
            endpoint.authority.to_string()
        } else {
            name.host.clone()
        };
        let credential = match &registries.client {
            Some(client) if client.host == host => Some(client.credential.clone()),
            _ => credential_of(host)
                .await
                .map_err(|source| RegistryError::Credentials {
                    registry: endpoint.to_string(),
                    source,
                })?,
        };
        Ok(Arc::new(Self {
            transport: registries.transport.clone(),
            endpoint,
            repository: name.repository.clone(),
            actions,
            credential,
            authorization: Mutex::default(),
        }))
    }

    /// An address below that of the repository.
    pub(crate) fn address(&self, rest: &str) -> Result<Uri, RegistryError> {
        let uri = format!("{}/v2/{}/{rest}", self.endpoint, self.repository).parse::<Uri>();
        uri.map_err(|error| RegistryError::NotHttp(error.into()))
    }

    /// Sends a request, which must be one that can be sent twice: if the registry wants to know who asks, it is told.
    pub(crate) async fn send(
        &self,
        method: Method,
        address: &Uri,
        headers: &[(HeaderName, HeaderValue)],
        body: &(dyn Fn() -> Body + Sync),
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut is_second = false;
        loop {
            let mut all = headers.to_vec();
            // Where an upload goes to may be another host than the registry.
            if address.authority() == Some(&self.endpoint.authority) {
                let known = self
                    .authorization
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                all.extend(known.map(|value| (AUTHORIZATION, value)));
            }
            let send = self
                .transport
                .send(&self.endpoint, method.clone(), address.clone(), &all, body);
            let response = send.await?;
            if response.status() != StatusCode::UNAUTHORIZED || is_second {
                return Ok(response);
            }
            match authorization::challenge(response.headers()) {
                Some(challenge) if self.answer(&challenge).await? => is_second = true,
                _ => return Ok(response),
            }
        }
    }

    /// Finds what answers a challenge; whether there is anything.
    async fn answer(&self, challenge: &Challenge) -> Result<bool, RegistryError> {
        let value = match (challenge, &self.credential) {
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                authorization::basic(user, password)
            }
            (Challenge::Basic, _) => None,
            (Challenge::Bearer { realm, service }, credential) => {
                self.token(realm, service.as_deref(), credential.as_ref()).await?
            }
        };
        let is_known = value.is_some();
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(is_known)
    }

    async fn token(
        &self,
        realm: &Uri,
        service: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        let request = authorization::token_request(realm, service, &scope, credential);
        let (address, form) =
            request.ok_or_else(|| self.protocol("the address of its token service is none"))?;
        let mut headers = Vec::new();
        if let Some(Credential::Password { user, password }) = credential {
            headers.extend(authorization::basic(user, password).map(|value| (AUTHORIZATION, value)));
        }
        let method = if form.is_some() { Method::POST } else { Method::GET };
        if form.is_some() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.push((CONTENT_TYPE, kind));
        }
        let body = || full(form.clone().unwrap_or_default());
        let response = self
            .transport
            .send(&self.endpoint, method, address, &headers, &body)
            .await?;
        if response.status() != StatusCode::OK {
            return Err(self.failure(response, "the token service").await);
        }
        let bytes = transport::read(&self.endpoint, response.into_body(), TOKEN_BYTES_MAX, "a token").await?;
        let token = authorization::token(&bytes).and_then(|token| authorization::bearer(&token));
        match token {
            Some(token) => Ok(Some(token)),
            None => Err(self.protocol("its token service gives no token")),
        }
    }

    /// What an answer that is no success means for `what` was asked for.
    pub(crate) async fn failure(&self, response: Response<Incoming>, what: &str) -> RegistryError {
        let (status, registry) = (response.status(), self.endpoint.to_string());
        let message = transport::message(&self.endpoint, response.into_body()).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
                registry,
                repository: self.repository.clone(),
                has_credentials: self.credential.is_some(),
                message,
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                name: format!("{what} of {}/{}", self.endpoint, self.repository),
                message,
            },
            status => RegistryError::Refused {
                registry,
                status,
                message,
            },
        }
    }

    pub(crate) fn protocol(&self, what: &'static str) -> RegistryError {
        RegistryError::Protocol {
            registry: self.endpoint.to_string(),
            what,
        }
    }
}

async fn credential_of(host: String) -> Result<Option<Credential>, CredentialError> {
    let read = tokio::task::spawn_blocking(move || credentials::credential(&host));
    match tokio::time::timeout(HELPER_TIMEOUT, read).await {
        Ok(Ok(credential)) => credential,
        Ok(Err(_)) | Err(_) => Err(CredentialError::TimedOut),
    }
}
