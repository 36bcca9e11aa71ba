//! What HTTP/2 has instead of upgrades and of chunks with trailers, with functions that speak HTTP/1.1.

mod support;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use spore_gateway::TlsFiles;
use spore_sandbox::fake::{FakeBody, FakeFunction, response};
use support::{Fixture, static_program};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

type Sent = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A function that switches to any protocol but `refused`: it echoes bytes until its reader ends, and tells its request.
fn switches() -> FakeFunction {
    FakeFunction::raw(|mut stream, _| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let answer = if head.contains("upgrade: refused") {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_owned()
        } else {
            let first = head.lines().next().unwrap_or_default().to_owned();
            let has_key = head.contains("sec-websocket-key: ") && head.contains("connection: upgrade\r\n");
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                 Sec-WebSocket-Accept: x\r\n\r\n{first} {has_key}\n"
            )
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    })
}

/// Answers with the request's body and trailers, and with a trailer of its own.
fn with_trailers() -> FakeFunction {
    FakeFunction::http(|request, _| async move {
        let te = request.headers().get("te").cloned();
        let body = request.into_body().collect().await.expect("a whole body");
        let mut trailers = body.trailers().cloned().unwrap_or_default();
        let names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
        let names = format!("{}, x-last", names.join(", "));
        trailers.insert("x-last", "yes".parse().expect("a value"));
        let frames = [Frame::data(body.to_bytes()), Frame::trailers(trailers)];
        let body: FakeBody = BodyExt::boxed(StreamBody::new(Frames(frames.into_iter().collect())));
        let mut answer = Response::new(body);
        answer
            .headers_mut()
            .insert("trailer", names.parse().expect("a value"));
        if let Some(te) = te {
            answer.headers_mut().insert("x-te", te);
        }
        answer
    })
}

/// Frames one after the other.
struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl futures_core::Stream for Frames {
    type Item = std::io::Result<Frame<Bytes>>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front().map(Ok))
    }
}

async fn http2<S>(stream: S) -> SendRequest<Sent>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("a connection");
    tokio::spawn(connection);
    sender
}

fn connect(protocol: &'static str) -> Request<Sent> {
    let mut request = Request::new(Full::new(Bytes::new()).boxed());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "https://localhost/function/hello/ws?a=1".parse().expect("a URI");
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

/// A WebSocket by RFC 8441, and a request beside it.
async fn switches_by_connect(mut sender: SendRequest<Sent>) {
    let answer = ready(&mut sender).await.send_request(connect("websocket")).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("sec-websocket-accept"));
    assert!(answer.headers().contains_key("x-call-id"));
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.expect("it was switched"));
    stream.write_all(b"ping").await.expect("it is open");
    let expected = b"get /ws?a=1 http/1.1 true\nping";
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).await.expect("it is open");
    assert_eq!(String::from_utf8_lossy(&back), String::from_utf8_lossy(expected));
    stream.shutdown().await.expect("it is open");
    stream.read_to_end(&mut back).await.expect("it ends");
    assert_eq!(back.len(), expected.len(), "nothing more came");

    let refused = ready(&mut sender).await.send_request(connect("refused")).await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
    let text = text(refused).await;
    assert!(text.contains("did not switch protocols"), "{text}");
}

async fn ready(sender: &mut SendRequest<Sent>) -> &mut SendRequest<Sent> {
    sender.ready().await.expect("it is open");
    sender
}

async fn text(answer: Response<Incoming>) -> String {
    let body = answer.into_body().collect().await.expect("a whole body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test]
async fn websockets_are_streams_of_http2() {
    let fixture = Fixture::with_hello(switches(), json!({})).await;
    let stream = TcpStream::connect(fixture.address).await.expect("a connection");
    switches_by_connect(http2(stream).await).await;
}

#[tokio::test]
async fn websockets_are_streams_of_http2_with_tls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, made.cert.pem()).expect("it is ours");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("it is ours");
    // Deployed without TLS, since that is how the fixture's client pushes.
    let mut fixture = Fixture::with_hello(switches(), json!({})).await;
    fixture.daemon.take().expect("it runs").shutdown().await;
    let data = fixture.data.path().to_owned();
    let encrypted = Fixture::start_with(fixture.sandbox.clone(), |config| {
        config.data = data;
        config.tls = Some(files);
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(encrypted.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.expect("TLS");
    switches_by_connect(http2(stream).await).await;
}

#[tokio::test]
async fn trailers_pass_http2_both_ways() {
    let fixture = Fixture::with_hello(with_trailers(), json!({})).await;
    let stream = TcpStream::connect(fixture.address).await.expect("a connection");
    let mut sender = http2(stream).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().expect("a value"));
    let body = Full::new(Bytes::from_static(b"abc")).with_trailers(async move { Some(Ok(trailers)) });
    let request = Request::post("http://localhost/function/hello")
        .header("trailer", "x-sum")
        .header("te", "trailers");
    let request = request.body(body.boxed()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.headers()["x-te"], "trailers");
    let body = answer.into_body().collect().await.expect("a whole body");
    let trailers = body.trailers().cloned().expect("trailers");
    assert_eq!(body.to_bytes(), "abc");
    assert_eq!(
        (&trailers["x-sum"], &trailers["x-last"]),
        (&"42".parse().expect("ok"), &"yes".parse().expect("ok"))
    );
}

#[tokio::test]
async fn a_lambda_function_and_a_command_see_no_upgrade() {
    let shows = FakeFunction::http(|request, _| async move {
        let body = request
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        response(200, body)
    });
    let fixture = Fixture::start(shows).await;
    fixture.push("hello", &static_program()).await;
    let lambda = json!({ "annotations": { "dev.spore.protocol": "lambda" } });
    fixture.deploy(lambda).await;
    let request = Request::get("/function/hello")
        .header("host", "localhost")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let answer = fixture.send(request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let event = text(answer).await;
    assert!(!event.contains("websocket"), "{event}");
}
