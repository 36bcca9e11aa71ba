//! A small gateway in memory: enough of the API and the registry to see what the command line sends, and strict where
//! the real one is: digests are checked, deployments need their image.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Digest;

/// What the gateway holds.
#[derive(Default)]
pub(crate) struct State {
    /// Deployments by name.
    pub(crate) functions: BTreeMap<String, Value>,
    /// Blobs by digest.
    pub(crate) blobs: BTreeMap<String, Bytes>,
    /// Manifests by `name@digest`.
    pub(crate) manifests: BTreeMap<String, Bytes>,
    /// Method and target of every request, in order.
    pub(crate) requests: Vec<String>,
}

/// A running gateway; ends with the test process.
pub(crate) struct Gateway {
    /// Its address.
    pub(crate) url: String,
    /// What it holds.
    pub(crate) state: Arc<Mutex<State>>,
}

impl Gateway {
    /// Starts a gateway on a free port.
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (sender, receiver) = std::sync::mpsc::channel::<SocketAddr>();
        let shared = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let state = shared.clone();
                    let service = service_fn(move |request| answer(state.clone(), request));
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        });
        Self {
            url: format!("http://{}", receiver.recv().unwrap()),
            state,
        }
    }

    /// The `spore` command, aimed at this gateway.
    pub(crate) fn spore(&self) -> assert_cmd::Command {
        let mut command = spore();
        command.env("OPENFAAS_URL", &self.url);
        command
    }
}

/// The `spore` command without a gateway.
pub(crate) fn spore() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::cargo_bin("spore").unwrap();
    command
        .env_remove("OPENFAAS_URL")
        .timeout(std::time::Duration::from_secs(60));
    command
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{} {}", head.method, head.uri));
    let path = head.uri.path().to_owned();
    let result = if path.starts_with("/v2/") {
        registry(&mut state, &head, &path, body)
    } else if let Some(function) = path.strip_prefix("/function/") {
        function_answer(&head, function, body)
    } else {
        api(&mut state, &head, &path, &body)
    };
    Ok(result)
}

fn reply(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::new(body.into()))
        .unwrap()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(content)))
}

fn registry(
    state: &mut State,
    head: &http::request::Parts,
    path: &str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let (repository, rest) = path.trim_start_matches("/v2/").split_once('/').unwrap();
    if head.method == Method::HEAD {
        let digest = rest.strip_prefix("blobs/").unwrap();
        return reply(
            if state.blobs.contains_key(digest) {
                200
            } else {
                404
            },
            "",
        );
    }
    if head.method == Method::POST && rest == "blobs/uploads/" {
        let mut response = reply(202, "");
        let location = format!("/v2/{repository}/blobs/uploads/17?state=x");
        response
            .headers_mut()
            .insert("location", location.parse().unwrap());
        return response;
    }
    assert_eq!(head.method, Method::PUT, "{path}");
    if rest == "blobs/uploads/17" {
        let query = head.uri.query().unwrap();
        let named = query.strip_prefix("state=x&digest=").unwrap().replace("%3A", ":");
        if digest(&body) != named {
            return reply(400, "DIGEST_INVALID");
        }
        state.blobs.insert(named, body);
        return reply(201, "");
    }
    assert_eq!(rest, "manifests/latest");
    let manifest: Value = serde_json::from_slice(&body).unwrap();
    for descriptor in manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .chain([&manifest["config"]])
    {
        if !state.blobs.contains_key(descriptor["digest"].as_str().unwrap()) {
            return reply(400, "MANIFEST_BLOB_UNKNOWN");
        }
    }
    state
        .manifests
        .insert(format!("{repository}@{}", digest(&body)), body);
    reply(201, "")
}

fn api(state: &mut State, head: &http::request::Parts, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = json["service"]
        .as_str()
        .or(json["functionName"].as_str())
        .unwrap_or_default()
        .to_owned();
    let is_known = state.functions.contains_key(&name);
    match (&head.method, path) {
        (&Method::GET, "/system/functions") => {
            let list: Vec<Value> = state
                .functions
                .values()
                .map(|function| status(function, 3))
                .collect();
            reply(200, json!(list).to_string())
        }
        (&Method::PUT, "/system/functions") if !is_known => reply(404, "not found"),
        (&Method::POST, "/system/functions") if is_known => reply(409, "exists"),
        (&Method::PUT | &Method::POST, "/system/functions") => {
            if !state.manifests.contains_key(json["image"].as_str().unwrap()) {
                return reply(400, "unknown image");
            }
            state.functions.insert(name, json);
            reply(202, "")
        }
        (&Method::DELETE, "/system/functions") if !is_known => reply(404, "not found"),
        (&Method::DELETE, "/system/functions") => {
            state.functions.remove(&name);
            reply(202, "")
        }
        (&Method::GET, "/system/logs") => {
            let line = |number: u32| {
                let text = format!("line {number}");
                json!({"name": "f", "instance": "f-1", "timestamp": "2026-01-01T00:00:00Z", "text": text})
            };
            reply(200, format!("{}\n{}\n", line(1), line(2)))
        }
        (&Method::GET, path) => match path.strip_prefix("/system/function/") {
            Some(name) if state.functions.contains_key(name) => {
                reply(200, status(&state.functions[name], 0).to_string())
            }
            _ => reply(404, "not found"),
        },
        _ => reply(405, ""),
    }
}

fn status(deployment: &Value, invocations: u32) -> Value {
    let mut status = deployment.clone();
    let object = status.as_object_mut().unwrap();
    let name = object.remove("service").unwrap();
    object.insert("name".into(), name);
    object.insert("createdAt".into(), json!("2026-01-01T00:00:00Z"));
    object.insert("replicas".into(), json!(2));
    if invocations > 0 {
        object.insert("invocationCount".into(), json!(invocations));
    }
    status
}

/// `/function/echo/…` describes the request; `/function/fail` fails.
fn function_answer(head: &http::request::Parts, function: &str, body: Bytes) -> Response<Full<Bytes>> {
    if function == "fail" {
        return reply(
            StatusCode::BAD_GATEWAY.as_u16(),
            "fail: the function crashed: null call\n",
        );
    }
    let test = head
        .headers
        .get("x-test")
        .map_or("", |value| value.to_str().unwrap());
    let mut text = format!("{} {} {test}\n", head.method, head.uri).into_bytes();
    text.extend_from_slice(&body);
    reply(200, text)
}
