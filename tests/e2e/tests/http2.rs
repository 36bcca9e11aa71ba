//! HTTP/2 at the gateway, as real clients speak it: trailers over TLS, and streams that functions cannot become.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use spore_test_harness::daemon::{Daemon, Setup};
use spore_test_harness::program;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    trailers_pass_both_ways_over_tls,
    an_answer_before_the_body_reaches_a_client_over_tls,
    functions_that_are_no_servers_become_no_stream,
];

type Body = BoxBody<Bytes, std::convert::Infallible>;

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn handshake<S>(stream: S) -> SendRequest<Body>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("the gateway speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Without TLS, as one that knows what the other side speaks.
async fn plain(address: SocketAddr) -> SendRequest<Body> {
    handshake(TcpStream::connect(address).await.expect("the gateway listens")).await
}

/// A daemon that speaks TLS as `localhost`, with a function.
struct Encrypted {
    daemon: Daemon,
    certificate: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Encrypted {
    fn start(function: &str, options: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let files = tempfile::tempdir().expect("the temporary folder is writable");
        let path = |name: &str| files.path().join(name).to_str().expect("UTF-8").to_owned();
        std::fs::write(path("certificate.pem"), made.cert.pem()).expect("it is ours");
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("it is ours");
        let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("a certificate");
        // The command line does not trust it.
        let mut daemon = Daemon::start();
        daemon.deploy(function, &program::build(function), &[]);
        assert!(daemon.stop().success(), "{}", daemon.log());
        let tls = [
            "--tls-certificate".to_owned(),
            path("certificate.pem"),
            "--tls-key".to_owned(),
            path("key.pem"),
        ];
        let options = options.iter().map(|&option| option.to_owned());
        daemon.start_again_as(Setup {
            options: tls.into_iter().chain(options).collect(),
            ..Setup::default()
        });
        Self {
            daemon,
            certificate,
            _files: files,
        }
    }

    async fn stream(&self, protocol: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.daemon.address()).await;
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream.expect("the gateway listens"))
            .await;
        let stream = stream.expect("the certificate is its own");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }
}

fn trailers_pass_both_ways_over_tls() {
    let scene = Encrypted::start("upgrade", &[]);
    on_a_runtime(async {
        let mut sender = handshake(scene.stream(b"h2").await).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().expect("a value"));
        trailers.insert("x-other", "a b".parse().expect("a value"));
        let body = Full::new(Bytes::from_static(b"abc")).with_trailers(async { Some(Ok(trailers)) });
        let request = Request::post("https://localhost/function/upgrade/trailers")
            .header("trailer", "x-sum, x-other")
            .header("te", "trailers")
            .body(body.boxed());
        let answer = sender.send_request(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["x-te"], "trailers");
        let answer = answer.into_body().collect().await.expect("a whole answer");
        let trailers = answer.trailers().cloned().expect("trailers");
        let body = String::from_utf8_lossy(&answer.to_bytes()).into_owned();
        for line in ["x-sum: 42", "x-other: a b"] {
            assert!(body.contains(line), "the program saw {body:?}");
        }
        assert_eq!(trailers["x-sum"], "42");
        assert_eq!(trailers["x-other"], "a b");
        assert_eq!(trailers["x-last"], "yes");
    });
}

fn an_answer_before_the_body_reaches_a_client_over_tls() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let scene = Encrypted::start("httpd", &["--body-limit", "10k"]);
    on_a_runtime(async {
        let mut stream = scene.stream(b"http/1.1").await;
        let length = 32 << 20;
        let head = format!(
            "POST /function/httpd/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the gateway reads");
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..length / piece.len() {
            stream.write_all(&piece).await.expect("the gateway reads on");
        }
        stream.flush().await.expect("the gateway reads on");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .expect("the connection ends well");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

        // A stream of HTTP/2 ends for itself: the connection serves on.
        let mut sender = handshake(scene.stream(b"h2").await).await;
        let body = Full::new(Bytes::from(vec![b'x'; length])).boxed();
        let request = Request::post("https://localhost/function/httpd/echo").body(body);
        let answer = sender.send_request(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let request = Request::get("https://localhost/function/httpd/").body(Empty::new().boxed());
        let answer = sender.send_request(request.expect("a request")).await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    });
}

fn functions_that_are_no_servers_become_no_stream() {
    let daemon = Daemon::start();
    daemon.deploy("server", &program::build("upgrade"), &[]);
    daemon.deploy("command", &program::build("append"), &["--fprocess", "append !"]);
    daemon.deploy("lambda", &program::build("lambda"), &["--protocol", "lambda"]);
    let chain = ["--annotation", "dev.spore.chain=server"];
    daemon.deploy("chain", &program::build("upgrade"), &chain);
    on_a_runtime(async {
        let mut sender = plain(daemon.address()).await;
        let connect = |function: &str| {
            let request = Request::builder()
                .method(Method::CONNECT)
                .uri(format!("http://{}/function/{function}", daemon.address()))
                .extension(Protocol::from_static("websocket"))
                .header("sec-websocket-version", "13")
                .body(Empty::new().boxed());
            request.expect("a request")
        };
        for function in ["command", "lambda", "chain"] {
            let answer = sender.send_request(connect(function)).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED, "{function}");
            let text = answer
                .into_body()
                .collect()
                .await
                .expect("a whole answer")
                .to_bytes();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(
                text.contains("to a function that is a server and no chain"),
                "{text}"
            );
        }
        let answer = sender.send_request(connect("nobody")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        // The connection serves on, and a server can be one.
        let answer = sender.send_request(connect("server")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let request = Request::post(format!("http://{}/function/command", daemon.address()));
        let body = Full::new(Bytes::from_static(b"x")).boxed();
        let answer = sender.send_request(request.body(body).expect("a request")).await;
        let answer = answer.expect("an answer").into_body().collect().await;
        assert_eq!(answer.expect("a whole answer").to_bytes(), "x!");
    });
    // None of them was started for it.
    let running = daemon.get("/system/function/lambda").json();
    assert_eq!(running["replicas"].as_u64().unwrap_or(0), 0, "{running}");
    // A proxy is asked in this way, which the gateway is none.
    let mut stream = std::net::TcpStream::connect(daemon.address()).expect("the gateway listens");
    let request = "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("the gateway reads");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("the connection ends");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}
