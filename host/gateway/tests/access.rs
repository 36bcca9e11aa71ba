//! Who may use the API, and over which protocols.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use spore_gateway::{BasicAuth, TlsFiles};
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

mod support;

use support::Fixture;

/// A daemon whose clients must be `admin` with the password `hush`, with the function `hello` deployed.
async fn guarded() -> (Fixture, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("basic-auth-user"), "admin\n").expect("it is ours");
    std::fs::write(folder.path().join("basic-auth-password"), "hush\n").expect("it is ours");
    let mut open = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    open.daemon.take().expect("it runs").shutdown().await;
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo());
    let data = open.data.path().to_owned();
    let guarded = Fixture::start_with(sandbox, |config| {
        config.data = data;
        config.basic_auth = BasicAuth::in_folder(folder.path());
    })
    .await;
    let fixture = Fixture {
        data: open.data,
        ..guarded
    };
    (fixture, folder)
}

async fn ask(
    fixture: &Fixture,
    method: &Method,
    path: &str,
    credentials: Option<&str>,
    body: &str,
) -> Response<Incoming> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "gateway");
    if let Some(credentials) = credentials {
        request = request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(credentials)));
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    fixture.send(request.body(body).expect("a request")).await
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test]
async fn without_the_right_credentials_nothing_is_reached() {
    let (fixture, _folder) = guarded().await;
    let other = json!({ "service": "other", "image": "hello:latest" }).to_string();
    let secret = json!({ "name": "key", "value": "hush" }).to_string();
    let hello = json!({ "functionName": "hello", "replicas": 3 }).to_string();
    for credentials in [None, Some("admin:wrong"), Some("admin:"), Some(":hush"), Some("")] {
        for (method, path, body) in [
            (Method::GET, "/system/functions", ""),
            (Method::POST, "/system/functions", other.as_str()),
            (Method::DELETE, "/system/functions", &hello),
            (Method::POST, "/system/scale-function/hello", &hello),
            (Method::GET, "/system/function/hello", ""),
            (Method::GET, "/system/function/hello/stats", ""),
            (Method::POST, "/pre-boot/1?function=hello", ""),
            (Method::POST, "/system/secrets", &secret),
            (Method::POST, "/system/namespace/", r#"{"name":"team"}"#),
            (Method::GET, "/system/namespaces", ""),
            (Method::GET, "/system/logs?name=hello", ""),
            (Method::GET, "/system/info", ""),
            (Method::POST, "/system/alert", "{}"),
            (Method::GET, "//system/functions", ""),
            (Method::GET, "/healthz/../system/functions", ""),
            (Method::POST, "/healthz", ""),
            (Method::GET, "/v2/", ""),
            (Method::GET, "/v2/hello/manifests/latest", ""),
            (Method::POST, "/v2/hello/blobs/uploads/", ""),
            (Method::GET, "/nothing", ""),
            (Method::GET, "/", ""),
        ] {
            let answer = ask(&fixture, &method, path, credentials, body).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Basic realm=\"Restricted\"");
            let is_registry = path.starts_with("/v2");
            let text = text(answer).await;
            assert!(text.contains("invalid credentials"), "{text}");
            assert_eq!(text.contains("\"UNAUTHORIZED\""), is_registry, "{text}");
        }
    }
    let right = Some("admin:hush");
    let list = ask(&fixture, &Method::GET, "/system/functions", right, "").await;
    let list: serde_json::Value = serde_json::from_str(&text(list).await).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(
        (&list[0]["name"], &list[0]["replicas"]),
        (&json!("hello"), &json!(null))
    );
    for path in ["/system/secrets", "/v2/", "/system/info"] {
        let answer = ask(&fixture, &Method::GET, path, right, "").await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let secrets = ask(&fixture, &Method::GET, "/system/secrets", right, "").await;
    assert_eq!(text(secrets).await, "[]");
}

#[tokio::test]
async fn functions_and_health_need_no_credentials() {
    let (fixture, _folder) = guarded().await;
    for credentials in [None, Some("admin:wrong")] {
        let answer = ask(&fixture, &Method::GET, "/healthz", credentials, "").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = ask(&fixture, &Method::POST, "/function/hello", credentials, "hi").await;
        assert_eq!(text(answer).await, "hi");
    }
}

#[tokio::test]
async fn credentials_are_made_once_and_kept_for_the_user_only() {
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo());
    let generated = |config: &mut spore_gateway::DaemonConfig| config.basic_auth = BasicAuth::Generated;
    let mut first = Fixture::start_with(sandbox.clone(), generated).await;
    let new = {
        let daemon = first.daemon.as_ref().expect("it runs");
        daemon.new_credentials().expect("they are new").clone()
    };
    assert_eq!((new.user.as_str(), new.password.len()), ("admin", 64));
    for name in ["basic-auth-user", "basic-auth-password"] {
        let file = new.folder.join(name);
        let mode = std::fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    first.daemon.take().expect("it runs").shutdown().await;
    let data = first.data.path().to_owned();
    let second = Fixture::start_with(sandbox, |config| {
        config.data = data;
        generated(config);
    })
    .await;
    let daemon = second.daemon.as_ref().expect("it runs");
    assert!(daemon.new_credentials().is_none(), "nobody tells them again");
    let credentials = format!("{}:{}", new.user, new.password);
    let answer = ask(&second, &Method::GET, "/system/info", Some(&credentials), "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = ask(&second, &Method::GET, "/system/info", Some("admin:"), "").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

/// Sends one request by HTTP/2.
async fn ask_http2<S>(stream: S, uri: &str, body: &'static str) -> Response<Incoming>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    let request = Request::builder().method(Method::POST).uri(uri);
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    sender.send_request(request).await.expect("an answer")
}

#[tokio::test]
async fn plain_http2_is_served_to_those_who_know() {
    let shows_host = FakeFunction::http(|request, _| async move {
        let headers = request.headers();
        let shown = format!("{:?} {:?}", headers["host"], headers["x-forwarded-host"]);
        response(200, shown)
    });
    let fixture = Fixture::with_hello(shows_host, json!({})).await;
    let stream = TcpStream::connect(fixture.address).await.expect("a connection");
    let answer = ask_http2(stream, "http://gateway.example.com/function/hello", "").await;
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, Version::HTTP_2)
    );
    assert!(answer.headers().contains_key("x-call-id"));
    assert_eq!(
        text(answer).await,
        r#""gateway.example.com" "gateway.example.com""#
    );
    let stream = TcpStream::connect(fixture.address).await.expect("a connection");
    let answer = ask_http2(stream, "http://gateway/system/functions", "{").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_large_body_passes_http2_both_ways() {
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let stream = TcpStream::connect(fixture.address).await.expect("a connection");
    let large: &'static str = "0123456789abcdef".repeat(1 << 18).leak();
    let answer = ask_http2(stream, "http://gateway/function/hello", large).await;
    assert!(text(answer).await == large, "4 MiB come back as they were");
}

/// Writes a certificate for localhost and its key into a folder; the certificate.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("certificate.pem"), made.cert.pem()).expect("it is ours");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("it is ours");
    made.cert.der().clone()
}

async fn encrypted(
    fixture: &Fixture,
    trusted: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(fixture.address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn tls_speaks_both_versions_and_takes_a_new_certificate() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
    };
    let first = certify(folder.path());
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo());
    let fixture = Fixture::start_with(sandbox, |config| config.tls = Some(files)).await;

    let stream = encrypted(&fixture, &first, b"h2").await.expect("a connection");
    let answer = ask_http2(stream, "https://localhost/function/nobody", "").await;
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::NOT_FOUND, Version::HTTP_2)
    );
    let stream = encrypted(&fixture, &first, b"http/1.1")
        .await
        .expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let request = Request::get("/healthz").header(HOST, "localhost");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, Version::HTTP_11)
    );

    let daemon = fixture.daemon.as_ref().expect("it runs");
    let second = certify(folder.path());
    assert!(encrypted(&fixture, &second, b"h2").await.is_err(), "not yet");
    daemon.reload_certificate().expect("it is a good one");
    assert!(encrypted(&fixture, &second, b"h2").await.is_ok());
    std::fs::write(folder.path().join("certificate.pem"), "no certificate").expect("it is ours");
    assert!(daemon.reload_certificate().is_err());
    assert!(
        encrypted(&fixture, &second, b"h2").await.is_ok(),
        "the one of before"
    );
    assert!(encrypted(&fixture, &first, b"h2").await.is_err());
}

#[tokio::test]
async fn a_daemon_does_not_start_without_what_it_is_to_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let absent = folder.path().join("absent");
    let mut config = support::config(&folder);
    config.basic_auth = BasicAuth::in_folder(&absent);
    let sandbox = Arc::new(FakeSandbox::new(|_| FakeFunction::echo()));
    let start = spore_gateway::Daemon::start(config, sandbox.clone()).await;
    let error = start.err().expect("there are no credentials").to_string();
    assert!(error.contains("absent"), "{error}");
    let mut config = support::config(&folder);
    config.tls = Some(TlsFiles {
        certificate: absent.clone(),
        key: absent,
    });
    let start = spore_gateway::Daemon::start(config, sandbox).await;
    let error = start.err().expect("there is no certificate").to_string();
    assert!(error.contains("absent"), "{error}");
}
