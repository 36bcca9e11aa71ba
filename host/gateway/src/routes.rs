//! Which part of the gateway answers a request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ALLOW, AUTHORIZATION, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use spore_queue::Queue;
use spore_registry::REGISTRY_AUTHENTICATION;
use spore_sandbox::Layer;
use spore_store::Store;
use tokio::sync::watch;

use crate::authentication::{self, Authentication};
use crate::client_body::ClientBody;
use crate::errors::ApiError;
use crate::functions::Functions;
use crate::metrics::{self, RequestCounts};
use crate::queued::{self, Callbacks};
use crate::registry::{self, Uploads};
use crate::reply::{self, Answer};
use crate::serving::Bounds;
use crate::tls::Tls;
use crate::triggers::{Subjects, TriggerCalls};
use crate::{
    activity, alerts, images, invoke, logs, namespaces, origin, provider, scale, secrets, system, triggers,
    ui,
};

/// What all requests share.
pub(crate) struct Gateway {
    pub(crate) functions: Functions,
    pub(crate) store: Arc<Store>,
    pub(crate) uploads: Uploads,
    /// Finds images by their names, and pulls them.
    pub(crate) names: images::Names,
    pub(crate) queue: Queue,
    pub(crate) callbacks: Callbacks,
    /// The data folder, for errors that concern it.
    pub(crate) data: PathBuf,
    pub(crate) sandbox_kind: &'static str,
    /// What keeps instances apart.
    pub(crate) layers: Vec<Layer>,
    pub(crate) local_address: SocketAddr,
    /// Credentials that everything but functions needs.
    pub(crate) authentication: Option<Authentication>,
    pub(crate) tls: Option<Tls>,
    /// What has become of triggers.
    pub(crate) triggers: TriggerCalls,
    /// Whose messages call functions, if any's do.
    pub(crate) subjects: Option<Subjects>,
    pub(crate) bounds: Bounds,
    /// Requests that are none to functions.
    pub(crate) requests: RequestCounts,
    /// Becomes true when the daemon stops; ends streams that have no end of their own.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Gateway {
    /// Addresses under which the sender of this request may know the daemon; the best one to show is first.
    pub(crate) fn own_names(&self, request_host: Option<&HeaderValue>) -> Vec<String> {
        let port = self.local_address.port();
        let mut names = vec![self.local_address.to_string()];
        names.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}")));
        names.extend(
            request_host
                .and_then(|host| host.to_str().ok())
                .map(str::to_owned),
        );
        names
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, mut request: Request<ClientBody>, peer: SocketAddr) -> Answer {
        self.keep_credentials(&mut request);
        let path = request.uri().path();
        let role = self.functions.config.role;
        if let Some(answer) = provider::refusal(role, request.method(), path) {
            return answer;
        }
        if path.starts_with("/function/") {
            return invoke::invoke(&self.functions, request, peer).await;
        }
        if path.starts_with("/async-function/") {
            return self.queued(request, peer).await;
        }
        let started = Instant::now();
        let (method, path) = (request.method().clone(), path.to_owned());
        let answer = self.answer_to_operator(request).await;
        self.requests
            .record(&method, &path, answer.status(), started.elapsed());
        answer
    }

    /// Takes the gateway's own credentials out of a request that is not for it: a browser sends them to functions too.
    fn keep_credentials(&self, request: &mut Request<ClientBody>) {
        let path = request.uri().path();
        let is_for_function = path.starts_with("/function/") || path.starts_with("/async-function/");
        if let Some(authentication) = &self.authentication
            && is_for_function
            && request.headers().contains_key(AUTHORIZATION)
            && authentication.admits(request.headers())
        {
            request.headers_mut().remove(AUTHORIZATION);
        }
    }

    /// Answers a request that is none to a function.
    async fn answer_to_operator(&self, request: Request<ClientBody>) -> Answer {
        let asks_nobody = self.authentication.is_none() && self.local_address.ip().is_loopback();
        if let Err(error) = origin::check(request.method(), request.headers(), asks_nobody) {
            return reply::text(StatusCode::FORBIDDEN, &error.to_string());
        }
        let path = request.uri().path();
        if let Some(authentication) = &self.authentication
            && !authentication::is_open(self.functions.config.role, request.method(), path)
            && !authentication.admits(request.headers())
        {
            return authentication::refusal(path);
        }
        if path == "/v2" || path.starts_with("/v2/") {
            registry::answer(self, request).await
        } else if ui::is_ui(path) {
            ui::answer(request.method(), path, request.headers())
        } else {
            self.system(request).await
        }
    }

    /// Answers below `/async-function/`.
    async fn queued(&self, request: Request<ClientBody>, peer: SocketAddr) -> Answer {
        match *request.method() {
            Method::POST => queued::accept(self, request, peer).await,
            Method::DELETE => {
                let call_id = request
                    .uri()
                    .path()
                    .strip_prefix("/async-function/")
                    .unwrap_or_default();
                let answer = queued::cancel_by_caller(self, &decode(call_id)).await;
                answer.unwrap_or_else(|error| error.answer(&self.data))
            }
            _ => wrong_method("POST, DELETE"),
        }
    }

    async fn system(&self, request: Request<ClientBody>) -> Answer {
        let method = request.method().clone();
        let own_names = || self.own_names(request.headers().get(HOST));
        let answer = match (request.uri().path(), &method) {
            ("/healthz", &Method::GET | &Method::HEAD) => Ok(health()),
            ("/metrics", &Method::GET) => metrics::answer(&self.functions, &self.queue, &self.requests).await,
            ("/system/info", &Method::GET) => Ok(system::info(
                self.functions.config.role,
                self.sandbox_kind,
                self.functions.default_isolation(),
                &self.functions.sandbox_kinds(),
                &self.layers,
            )),
            ("/system/functions", &Method::GET) => system::list(&self.functions, request.uri()),
            ("/system/functions", &Method::POST) => {
                let own_names = own_names();
                system::create(&self.functions, request, &own_names).await
            }
            ("/system/functions", &Method::PUT) => {
                let own_names = own_names();
                system::update(&self.functions, request, &own_names).await
            }
            ("/system/functions", &Method::DELETE) => system::remove(&self.functions, request).await,
            ("/system/logs", &Method::GET) => logs::answer(self, request.uri()).await,
            ("/system/secrets", &Method::GET) => secrets::list(&self.functions, request.uri()).await,
            ("/system/secrets", &Method::POST) => secrets::create(&self.functions, request).await,
            ("/system/secrets", &Method::PUT) => secrets::update(&self.functions, request).await,
            ("/system/secrets", &Method::DELETE) => secrets::remove(&self.functions, request).await,
            ("/system/namespaces", &Method::GET) => Ok(namespaces::list(&self.functions)),
            ("/system/triggers", &Method::GET) => triggers::admin::list(self, request.uri()),
            ("/system/alert", &Method::POST) => alerts::answer(&self.functions, request).await,
            (path, _) if path == "/system/images" || path.starts_with("/system/images/") => {
                self.images(request).await
            }
            ("/healthz", _) => Ok(wrong_method("GET, HEAD")),
            ("/system/functions" | "/system/secrets", _) => Ok(wrong_method("GET, POST, PUT, DELETE")),
            ("/system/alert", _) => Ok(wrong_method("POST")),
            ("/metrics" | "/system/info" | "/system/logs" | "/system/namespaces" | "/system/triggers", _) => {
                Ok(wrong_method("GET"))
            }
            _ => self.named(request).await,
        };
        answer.unwrap_or_else(|error| error.answer(&self.data))
    }

    /// Answers at an address of the images.
    async fn images(&self, request: Request<ClientBody>) -> Result<Answer, ApiError> {
        let own_names = self.own_names(request.headers().get(HOST));
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let credential = request.headers().get(REGISTRY_AUTHENTICATION).cloned();
        match (uri.path(), &method) {
            ("/system/images", &Method::GET) => images::list(self).await,
            ("/system/images", &Method::DELETE) => images::remove(self, &uri, &own_names).await,
            ("/system/images/inspect", &Method::GET) => images::inspect(self, &uri, &own_names).await,
            ("/system/images/pull", &Method::POST) => {
                images::pull(self, request.into_body(), own_names, credential.as_ref()).await
            }
            ("/system/images/push", &Method::POST) => {
                images::push(self, request.into_body(), &own_names, credential.as_ref()).await
            }
            ("/system/images/prune", &Method::POST) => images::prune(self, request.into_body()).await,
            ("/system/images/check", &Method::POST) => images::check(self).await,
            ("/system/images", _) => Ok(wrong_method("GET, DELETE")),
            ("/system/images/inspect", _) => Ok(wrong_method("GET")),
            (
                "/system/images/pull"
                | "/system/images/push"
                | "/system/images/prune"
                | "/system/images/check",
                _,
            ) => Ok(wrong_method("POST")),
            _ => Ok(reply::text(
                StatusCode::NOT_FOUND,
                "there is nothing at this address",
            )),
        }
    }

    /// Answers at an address that names a function.
    async fn named(&self, request: Request<ClientBody>) -> Result<Answer, ApiError> {
        let rest = request.uri().path().strip_prefix("/system/async");
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            let rest = rest.to_owned();
            return queued::answer(self, &rest, request).await;
        }
        let (functions, uri) = (&self.functions, request.uri().clone());
        match (Named::of(uri.path()), request.method()) {
            (Some(Named::Function(name)), &Method::GET) => system::describe(functions, name, &uri).await,
            (Some(Named::Statistics(name)), &Method::GET) => system::statistics(functions, name, &uri),
            (Some(Named::Activity(name)), &Method::GET) => activity::answer(functions, name, &uri).await,
            (Some(Named::Trigger(name)), &Method::POST) => {
                triggers::admin::fire(self, name, &uri, request).await
            }
            (Some(Named::Scale(name)), &Method::POST) => scale::scale(functions, name, request).await,
            (Some(Named::PreBoot { name, count }), &Method::POST) => match name {
                Some(name) => scale::pre_boot(functions, name, count, &uri),
                None => scale::pre_boot_by_query(functions, count, &uri),
            },
            // Without a name there is only the one of a body.
            (Some(Named::Namespace("")), method) if method != Method::POST => Ok(wrong_method("POST")),
            (Some(Named::Namespace(name)), &Method::GET) => namespaces::describe(functions, name),
            (Some(Named::Namespace(name)), &Method::POST) => match name {
                "" => namespaces::create(functions, name, request).await,
                name => namespaces::create_named(functions, name, request).await,
            },
            (Some(Named::Namespace(name)), &Method::PUT) => {
                namespaces::update(functions, name, request).await
            }
            (Some(Named::Namespace(name)), &Method::DELETE) => namespaces::remove(functions, name).await,
            (Some(Named::Namespace(_)), _) => Ok(wrong_method("GET, POST, PUT, DELETE")),
            (Some(Named::Function(_) | Named::Statistics(_) | Named::Activity(_)), _) => {
                Ok(wrong_method("GET"))
            }
            (Some(Named::Scale(_) | Named::Trigger(_) | Named::PreBoot { .. }), _) => {
                Ok(wrong_method("POST"))
            }
            (None, _) => Ok(reply::text(
                StatusCode::NOT_FOUND,
                "there is nothing at this address",
            )),
        }
    }
}

/// `GET /healthz`
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "The daemon answers", body = String, content_type = "text/plain")),
    security(())
)]
pub(crate) fn health() -> Answer {
    reply::text(StatusCode::OK, "OK")
}

/// What an address below the fixed ones names.
enum Named<'a> {
    Function(&'a str),
    Statistics(&'a str),
    Activity(&'a str),
    Scale(&'a str),
    /// It is to be fired.
    Trigger(&'a str),
    PreBoot {
        name: Option<&'a str>,
        count: &'a str,
    },
    /// Empty where a body is to name it.
    Namespace(&'a str),
}

impl<'a> Named<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if let Some(name) = path.strip_prefix("/system/scale-function/") {
            return Some(Self::Scale(name));
        }
        if let Some(rest) = path.strip_prefix("/system/triggers/") {
            return rest.strip_suffix("/fire").map(Self::Trigger);
        }
        if let Some(count) = path.strip_prefix("/pre-boot/") {
            return Some(Self::PreBoot { name: None, count });
        }
        // Some of OpenFaaS's documents have the plural.
        let namespace = path.strip_prefix("/system/namespace");
        if let Some(rest) = namespace.map(|rest| rest.strip_prefix('s').unwrap_or(rest)) {
            return match rest.strip_prefix('/') {
                Some(name) => Some(Self::Namespace(name)),
                None => rest.is_empty().then_some(Self::Namespace("")),
            };
        }
        let name = path.strip_prefix("/system/function/")?;
        Some(match name.split_once("/pre-boot/") {
            Some((name, count)) => Self::PreBoot {
                name: Some(name),
                count,
            },
            None => match name.rsplit_once('/') {
                Some((name, "stats")) => Self::Statistics(name),
                Some((name, "activity")) => Self::Activity(name),
                _ => Self::Function(name),
            },
        })
    }
}

/// The address exists, but not for this method.
pub(crate) fn wrong_method(allowed: &'static str) -> Answer {
    let mut response = reply::text(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("use one of the methods {allowed}"),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Value of a query parameter, decoded; of the last one if it is given several times.
pub(crate) fn parameter(uri: &http::Uri, name: &str) -> Option<String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(value))
    });
    values.next_back()
}

/// Undoes percent-encoding; what is not valid stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
        match (
            bytes[at],
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_value_of_a_parameter_counts_decoded() {
        let uri: http::Uri = "/x?a=1&b=sha256%3Aab+c&a=2&c&d=%zz%4"
            .parse()
            .expect("a valid URI");
        assert_eq!(parameter(&uri, "a").as_deref(), Some("2"));
        assert_eq!(parameter(&uri, "b").as_deref(), Some("sha256:ab c"));
        assert_eq!(parameter(&uri, "c").as_deref(), Some(""));
        assert_eq!(parameter(&uri, "d").as_deref(), Some("%zz%4"));
        assert_eq!(parameter(&uri, "e"), None);
    }
}
