//! Functions whose answers are the requests of others.

use std::time::Duration;

use http::{Method, StatusCode};
use spore_test_harness::callbacks::Callbacks;
use spore_test_harness::client::with_body;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    an_answer_goes_from_link_to_link,
    long_answers_are_streamed_through,
    a_chain_that_breaks_says_where,
];

/// Deploys a command that appends its name to what it reads.
fn deploy(daemon: &Daemon, name: &str, command: &str, options: &[&str]) {
    let command = format!("append {command}");
    let options = [&["--fprocess", &command], options].concat();
    daemon.deploy(name, &program::build("append"), &options);
}

fn an_answer_goes_from_link_to_link() {
    let daemon = Daemon::start();
    deploy(&daemon, "a", "A", &["--annotation", "dev.spore.chain=b, c"]);
    deploy(&daemon, "b", "B", &[]);
    deploy(&daemon, "c", "C", &["--env", "content_type=text/html"]);
    let answer = daemon.send_body(Method::POST, "/function/a", "x");
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "xABC"));
    assert_eq!(answer.header("content-type"), "text/html");
    assert_eq!(answer.header("x-spore-chain"), "a,b,c");
    // Lists of other links do not count, and neither does the annotation of one that nobody has called.
    let said = daemon.spore_ok(&["chain", "c", "a", "b", "--data", "y"]);
    assert_eq!(said, "yCAB");
    let callbacks = Callbacks::start();
    let mut request = with_body(Method::POST, "/async-function/a", "z");
    let headers = request.headers_mut();
    headers.insert("x-call-id", "one".parse().expect("a header's value"));
    headers.insert(
        "x-callback-url",
        callbacks.url().parse().expect("a header's value"),
    );
    let accepted = daemon.send(request).expect("the daemon answers");
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text());
    let received = callbacks.wait_for("one", Duration::from_secs(30));
    assert_eq!(received.body, b"zABC");
    assert_eq!(received.headers["x-function-status"], "200");
}

fn long_answers_are_streamed_through() {
    const BYTES: usize = 48 << 20;
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    for name in ["b", "c"] {
        deploy(&daemon, name, "", &["--env", "mode=streaming"]);
    }
    let path = format!("/function/httpd/bytes?count={BYTES}");
    let direct = daemon.get(&path);
    let mut request = with_body(Method::POST, &path, "");
    request
        .headers_mut()
        .insert("x-spore-chain", "b,c".parse().expect("a header's value"));
    let chained = daemon.send(request).expect("the daemon answers");
    assert_eq!(chained.status, StatusCode::OK, "{}", daemon.log());
    assert_eq!(chained.body.len(), BYTES);
    assert!(chained.body == direct.body, "it is not the same");
}

fn a_chain_that_breaks_says_where() {
    let daemon = Daemon::start();
    deploy(&daemon, "a", "A", &[]);
    deploy(&daemon, "b", "B 3", &[]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let through = |links: &str, path: &str| {
        let mut request = with_body(Method::POST, path, "x");
        let links = links.parse().expect("a header's value");
        request.headers_mut().insert("x-spore-chain", links);
        daemon.send(request).expect("the daemon answers")
    };
    let failed = through("b,httpd", "/function/a");
    assert_eq!(
        (failed.status, failed.header("x-spore-chain-failed")),
        (StatusCode::INTERNAL_SERVER_ERROR, "b")
    );
    assert_eq!(failed.text(), "exit status 3\nxAB", "what the command says");
    let exited = through("a", "/function/httpd/exit?code=3");
    let says = "link 1 of 2 of the chain, httpd: ";
    assert!(exited.text().starts_with(says), "{}", exited.text());
    // The first link's answer breaks off in the middle of the second one's request.
    let died = through("a", "/function/httpd/die?after=300000");
    assert_eq!(
        (died.status, died.header("x-openfaas-internal")),
        (StatusCode::BAD_GATEWAY, "proxy")
    );
    let unknown = through("httpd,nobody", "/function/a");
    assert_eq!(unknown.status, StatusCode::BAD_GATEWAY);
    let says = "link 3 of 3 of the chain, nobody.openfaas-fn: no function is named so";
    assert!(unknown.text().contains(says), "{}", unknown.text());
    assert_eq!(
        through("a", "/function/a").status,
        StatusCode::BAD_REQUEST,
        "a loop"
    );
    let program = program::build("append");
    let program = program.to_str().expect("a path");
    let looped = daemon.spore(&[
        "deploy",
        "a",
        "--binary",
        program,
        "--annotation",
        "dev.spore.chain=b,a",
    ]);
    let error = String::from_utf8_lossy(&looped.stderr);
    assert!(
        !looped.status.success() && error.contains("dev.spore.chain leads to `a.openfaas-fn` twice"),
        "{error}"
    );
}
