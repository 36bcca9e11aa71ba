//! Functions that are commands: one is started for each invocation, with the body as its input and its output as the answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use spore_test_harness::callbacks::Callbacks;
use spore_test_harness::client::{request, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};
use tempfile::TempDir;

use crate::{Test, with_functions, with_tools};

pub(crate) const TESTS: &[Test] = with_functions![
    commands_answer_as_they_do_natively,
    a_request_is_in_the_variables,
    large_bodies_go_through,
    input_need_not_be_read,
    failures_are_told,
    an_answer_may_be_larger_than_what_is_held,
    output_streams_where_that_is_asked_for,
    an_answer_waits_for_the_end,
    time_limits_end_a_command,
    a_caller_that_leaves_ends_its_command,
    nobody_need_wait_for_a_command,
    secrets_and_logs_are_as_for_servers,
    hundred_invocations_leave_nothing_behind,
    without_snapshots_all_is_the_same,
    what_is_no_command_is_refused,
    a_function_changes_between_server_and_command,
];

pub(crate) const TESTS_OF_INTERPRETERS: &[Test] =
    with_tools![scripts_of_an_interpreter_are_commands: ["/usr/bin/python3", "ldd"]];

const PATIENCE: Duration = Duration::from_secs(20);
const BUSYBOX: &str = "/bin/busybox";

/// A root file system with busybox under the names of some of its commands.
fn busybox_root() -> TempDir {
    let root = TempDir::with_prefix("spore-test-root-").expect("the temporary folder is writable");
    let folder = root.path().join("bin");
    std::fs::create_dir(&folder).expect("it is ours");
    let copied = std::fs::copy(BUSYBOX, folder.join("busybox"));
    copied.unwrap_or_else(|error| panic!("{BUSYBOX}: {error}: install busybox-static"));
    for name in [
        "cat",
        "env",
        "head",
        "rev",
        "sha512sum",
        "sort",
        "tr",
        "true",
        "wc",
        "pwd",
    ] {
        symlink("busybox", folder.join(name)).expect("it is ours");
    }
    root
}

fn deploy_root(daemon: &Daemon, name: &str, root: &Path, command: &str, options: &[&str]) {
    let root = root.to_str().expect("the temporary folder is UTF-8");
    let deploy = ["deploy", name, "--rootfs", root, "--fprocess", command];
    daemon.spore_ok(&[&deploy, options].concat());
}

/// A daemon with the test program as a command.
fn daemon_with(name: &str, command: &str, options: &[&str]) -> Daemon {
    let daemon = Daemon::start();
    deploy(&daemon, name, command, options);
    daemon
}

fn deploy(daemon: &Daemon, name: &str, command: &str, options: &[&str]) {
    let command = format!("command {command}");
    let options = [&["--fprocess", &command], options].concat();
    daemon.deploy(name, &program::build("command"), &options);
}

fn post(daemon: &Daemon, function: &str, body: impl Into<Vec<u8>>) -> (StatusCode, Vec<u8>) {
    let body: Vec<u8> = body.into();
    let answer = daemon.send_body(Method::POST, &format!("/function/{function}"), body);
    (answer.status, answer.body.to_vec())
}

/// Bytes that do not repeat soon.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// What a command of busybox writes natively.
fn natively(command: &str, input: &[u8]) -> Vec<u8> {
    let mut process = Command::new(BUSYBOX)
        .args(command.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("busybox can be run");
    let mut pipe = process.stdin.take().expect("it is a pipe");
    let input = input.to_vec();
    // It need not read all of it.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = process.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    output.stdout
}

fn commands_answer_as_they_do_natively() {
    let daemon = Daemon::start();
    let root = busybox_root();
    let text: Vec<u8> = (0..3000)
        .flat_map(|n: u32| format!("{} line\n", n * 7919 % 3000).into_bytes())
        .collect();
    for (index, command) in [
        "cat",
        "wc",
        "sha512sum",
        "rev",
        "tr a-z A-Z",
        "sort -n",
        "head -c 10",
        "true",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("command-{index}");
        deploy_root(&daemon, &name, root.path(), command, &[]);
        for input in [&b""[..], b"short", &text] {
            let (status, body) = post(&daemon, &name, input.to_vec());
            assert_eq!(
                status,
                StatusCode::OK,
                "{command}: {}",
                String::from_utf8_lossy(&body)
            );
            assert!(
                body == natively(command, input),
                "{command} of {} bytes",
                input.len()
            );
        }
    }
    let described = daemon.spore_ok(&["describe", "command-1"]);
    assert!(
        described.contains("exec (`wc` is run for each invocation)"),
        "{described}"
    );
    let listed = daemon.spore_ok(&["list", "--json"]);
    assert!(listed.contains(r#""protocol": "exec""#), "{listed}");
}

fn a_request_is_in_the_variables() {
    let daemon = Daemon::start();
    let root = busybox_root();
    deploy_root(
        &daemon,
        "env",
        root.path(),
        "env",
        &["--env", "COLOUR=blue", "--env", "Http_Query=mine"],
    );
    let mut asked = with_body(Method::PUT, "/function/env/a%20b?x=1&y", "12345");
    let headers = asked.headers_mut();
    headers.insert("x-some-header", "its value".parse().expect("a header's value"));
    headers.insert("content-type", "text/csv".parse().expect("a header's value"));
    let answer = daemon.send(asked).expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/csv");
    assert!(!answer.header("x-duration-seconds").is_empty());
    assert!(!answer.header("x-call-id").is_empty());
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "COLOUR=blue",
        "OPENFAAS_NAME=env",
        "Http_Method=PUT",
        "Http_Path=/a b",
        "Http_Query=x=1&y",
        "Http_Content_Length=5",
        "Http_Content_Type=text/csv",
        "Http_X_Some_Header=its value",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("Http_Query=").count(), 1, "{text}");
    for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
        let answer = daemon
            .send(request(method.clone(), "/function/env"))
            .expect("an answer");
        assert!(
            answer.text().contains(&format!("Http_Method={method}\n")),
            "{}",
            answer.text()
        );
    }
    for method in [Method::HEAD, Method::OPTIONS] {
        let answer = daemon.send(request(method, "/function/env")).expect("an answer");
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut too_much = request(Method::GET, "/function/env");
    for index in 0..3 {
        let name: http::HeaderName = format!("x-long-{index}").parse().expect("a header");
        let value = "x".repeat(60_000).parse().expect("a header's value");
        too_much.headers_mut().insert(name, value);
    }
    let answer = daemon.send(too_much).expect("an answer");
    assert_eq!(
        answer.status,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "{}",
        answer.text()
    );
}

fn large_bodies_go_through() {
    let daemon = Daemon::start();
    let root = busybox_root();
    let body = noise(20 << 20);
    deploy_root(&daemon, "cat", root.path(), "cat", &[]);
    let (status, echoed) = post(&daemon, "cat", body.clone());
    assert!(
        status == StatusCode::OK && echoed == body,
        "{status}, {} bytes",
        echoed.len()
    );
    deploy_root(&daemon, "wc", root.path(), "wc -c", &[]);
    let (_, counted) = post(&daemon, "wc", body.clone());
    assert_eq!(String::from_utf8_lossy(&counted).trim(), body.len().to_string());
}

fn input_need_not_be_read() {
    let daemon = daemon_with("deaf", "exit 0", &[]);
    for count in [1, 100_000, 20 << 20] {
        assert_eq!(
            post(&daemon, "deaf", noise(count)),
            (StatusCode::OK, Vec::new()),
            "{count}"
        );
    }
}

fn failures_are_told() {
    let daemon = daemon_with("exit", "exit 3", &[]);
    let (status, body) = post(&daemon, "exit", "");
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        text.starts_with("exit status 3\n") && text.contains("spore logs exit"),
        "{text}"
    );
    let log = daemon.wait_for_log("exit", "the function exited with status 3");
    assert!(log.contains("lost to the log"), "{log}");

    deploy(&daemon, "partly", "say-and-exit 4", &[]);
    let (status, body) = post(&daemon, "partly", "");
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(&body[..], b"exit status 4\nsome output\n");
    daemon.wait_for_log("partly", "some complaint");

    deploy(
        &daemon,
        "combined",
        "say-and-exit 0",
        &["--env", "combine_output=true"],
    );
    let (status, body) = post(&daemon, "combined", "");
    assert_eq!(
        (status, &body[..]),
        (StatusCode::OK, &b"some output\nsome complaint\n"[..])
    );

    deploy(&daemon, "signal", "signal 15", &[]);
    let (status, body) = post(&daemon, "signal", "");
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(
        status == StatusCode::INTERNAL_SERVER_ERROR && text.contains("signal"),
        "{text}"
    );

    deploy(&daemon, "crash", "crash", &[]);
    let (status, body) = post(&daemon, "crash", "");
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(
        status == StatusCode::INTERNAL_SERVER_ERROR && text.contains("crashed"),
        "{text}"
    );
    daemon.wait_for_log("crash", "rip");

    deploy(&daemon, "fork", "fork", &[]);
    let (status, body) = post(&daemon, "fork", "");
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"refused\n"[..]));
    daemon.wait_for_log("fork", "fork");
}

fn an_answer_may_be_larger_than_what_is_held() {
    let daemon = daemon_with("writer", "write 50", &[]);
    let block: Vec<u8> = (0..1 << 16).map(|at| b'a' + (at % 26) as u8).collect();
    for _ in 0..2 {
        let (status, body) = post(&daemon, "writer", "");
        assert!(
            status == StatusCode::OK && body.len() == 50 << 20,
            "{status}, {} bytes",
            body.len()
        );
        assert!(body.chunks(1 << 16).all(|chunk| chunk == block));
    }
    daemon.wait_for_log("writer", &format!("Wrote {} Bytes", 50 << 20));
    // Its head has left when it fails: the caller sees that the answer is not whole.
    deploy(&daemon, "broken", "write 3 5", &[]);
    let answer = daemon.send(request(Method::GET, "/function/broken"));
    assert!(
        answer.is_err(),
        "{:?}",
        answer.map(|answer| (answer.status, answer.body.len()))
    );
    daemon.wait_for_log("broken", "the function exited with status 5");
    deploy(&daemon, "held", "write 1 5", &[]);
    let (status, body) = post(&daemon, "held", "");
    assert_eq!(
        (status, body.len()),
        (StatusCode::INTERNAL_SERVER_ERROR, (1 << 20) + 14)
    );
}

/// A request that is not over when this returns: its head, with a body of unknown length.
fn begin(daemon: &Daemon, function: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let head =
        format!("POST /function/{function} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    stream
}

fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let count = stream.read(&mut buffer).expect("it answers in time");
        assert!(count > 0, "it has ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

fn output_streams_where_that_is_asked_for() {
    let daemon = daemon_with("drip", "drip", &["--env", "mode=streaming"]);
    let mut stream = begin(&daemon, "drip");
    let text = read_until(&mut stream, "ready\n");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for _ in 0..3 {
        stream.write_all(b"1\r\nx\r\n").expect("it reads");
        read_until(&mut stream, "drop\n");
    }
    stream.write_all(b"0\r\n\r\n").expect("it reads");
    read_until(&mut stream, "0\r\n\r\n");
}

fn an_answer_waits_for_the_end() {
    let daemon = daemon_with("late", "answer-then-sleep 0", &[]);
    assert_eq!(
        post(&daemon, "late", noise(1 << 20)),
        (StatusCode::OK, Vec::from("all of it\n"))
    );
    deploy(&daemon, "later", "answer-then-sleep 6", &[]);
    assert_eq!(post(&daemon, "later", "").0, StatusCode::INTERNAL_SERVER_ERROR);
}

fn time_limits_end_a_command() {
    let daemon = daemon_with("own", "sleep 1000", &["--env", "exec_timeout=500ms"]);
    let (status, body) = post(&daemon, "own", "");
    assert_eq!(
        (status, &body[..]),
        (StatusCode::REQUEST_TIMEOUT, &b"Killed process.\n"[..])
    );
    daemon.wait_for_log("own", "exec_timeout");
    deploy(&daemon, "functions", "sleep 1000", &["--timeout", "500ms"]);
    assert_eq!(post(&daemon, "functions", "").0, StatusCode::GATEWAY_TIMEOUT);
    let all_gone = wait_until(PATIENCE, || {
        let log = daemon.spore_ok(&["logs", "functions"]);
        log.contains("did not answer within")
    });
    assert!(all_gone, "{}", daemon.spore_ok(&["logs", "functions"]));
}

fn a_caller_that_leaves_ends_its_command() {
    let options = ["--max", "1", "--annotation", "dev.spore.idle-timeout=0s"];
    let daemon = daemon_with("sleeper", "sleep 1000", &options);
    let mut stream = begin(&daemon, "sleeper");
    stream.write_all(b"0\r\n\r\n").expect("it reads");
    daemon.wait_for_log("sleeper", "sleeping");
    drop(stream);
    let is_gone = wait_until(PATIENCE, || daemon.descendants().is_empty());
    assert!(is_gone, "{:?}", daemon.descendants());
    // In the middle of its body as well.
    let mut stream = begin(&daemon, "sleeper");
    stream.write_all(b"5\r\nhe").expect("it reads");
    let is_there = wait_until(PATIENCE, || !daemon.descendants().is_empty());
    assert!(is_there, "{}", daemon.log());
    drop(stream);
    let is_gone = wait_until(PATIENCE, || daemon.descendants().is_empty());
    assert!(is_gone, "{:?}", daemon.descendants());
}

fn nobody_need_wait_for_a_command() {
    let daemon = Daemon::start();
    let root = busybox_root();
    deploy_root(&daemon, "rev", root.path(), "rev", &[]);
    let callbacks = Callbacks::start();
    let mut asked = with_body(Method::POST, "/async-function/rev", "desrever");
    let headers = asked.headers_mut();
    headers.insert("x-call-id", "one".parse().expect("a header's value"));
    headers.insert(
        "x-callback-url",
        callbacks.url().parse().expect("a header's value"),
    );
    assert_eq!(
        daemon.send(asked).expect("an answer").status,
        StatusCode::ACCEPTED
    );
    let results = callbacks.wait_for("one", PATIENCE);
    assert_eq!(results.body, b"reversed");
    assert_eq!(results.headers["x-function-status"], "200");
}

fn secrets_and_logs_are_as_for_servers() {
    let daemon = Daemon::start();
    let root = busybox_root();
    let secret = |value: &str| format!(r#"{{"name": "key", "value": "{value}"}}"#);
    daemon.send_body(Method::POST, "/system/secrets", secret("hush"));
    let command = "cat /var/openfaas/secrets/key";
    deploy_root(&daemon, "reader", root.path(), command, &["--secret", "key"]);
    assert_eq!(post(&daemon, "reader", ""), (StatusCode::OK, Vec::from("hush")));
    daemon.send_body(Method::PUT, "/system/secrets", secret("louder"));
    assert_eq!(post(&daemon, "reader", ""), (StatusCode::OK, Vec::from("louder")));
    let log = daemon.wait_for_log("reader", "Wrote 6 Bytes - Duration: ");
    assert!(
        log.contains("Forking fprocess.") && !log.contains("hush"),
        "{log}"
    );
    deploy_root(
        &daemon,
        "debug",
        root.path(),
        "cat",
        &["--env", "write_debug=true"],
    );
    post(&daemon, "debug", "one\ntwo\n");
    daemon.wait_for_log("debug", "two");
}

fn hundred_invocations_leave_nothing_behind() {
    let daemon = daemon_with(
        "once",
        "once",
        &["--max", "4", "--annotation", "dev.spore.idle-timeout=2s"],
    );
    let begun = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < 100 {
                    let (status, body) = post(&daemon, "once", "");
                    let text = String::from_utf8_lossy(&body);
                    assert_eq!(
                        (status, &*text),
                        (StatusCode::OK, "pristine\n"),
                        "{}",
                        daemon.log()
                    );
                }
            });
        }
    });
    let log = daemon.wait_for_log("once", "Wrote 9 Bytes");
    assert!(
        !log.contains("exited with status"),
        "a good end is no news: {log}"
    );
    let all_gone = wait_until(PATIENCE, || daemon.descendants().is_empty());
    assert!(all_gone, "{:?}", daemon.descendants());
}

fn without_snapshots_all_is_the_same() {
    let daemon = daemon_with("once", "once", &["--annotation", "dev.spore.snapshot=false"]);
    deploy(
        &daemon,
        "exit",
        "exit 3",
        &["--annotation", "dev.spore.snapshot=false"],
    );
    for _ in 0..5 {
        assert_eq!(
            post(&daemon, "once", ""),
            (StatusCode::OK, Vec::from("pristine\n"))
        );
        assert_eq!(post(&daemon, "exit", "").0, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

fn what_is_no_command_is_refused() {
    let daemon = Daemon::start();
    let root = busybox_root();
    deploy_root(&daemon, "cat", root.path(), "cat", &[]);
    let image = daemon.get("/system/function/cat").json()["image"]
        .as_str()
        .expect("an image")
        .to_owned();
    let said = |command: &str, options: &[&str]| {
        let deploy = ["deploy", "other", "--image", &image, "--fprocess", command];
        let output = daemon.spore(&[&deploy, options].concat());
        assert!(!output.status.success(), "{command}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refusal = said("dog -x", &[]);
    assert!(
        refusal.contains("`dog`") && refusal.contains("fprocess"),
        "{refusal}"
    );
    let refusal = said("cat", &["--env", "exec_timeout=soon"]);
    assert!(refusal.contains("exec_timeout"), "{refusal}");
    // Another command of the same image is looked for once.
    daemon.spore_ok(&["deploy", "other", "--image", &image, "--fprocess", "/bin/rev"]);
    assert_eq!(post(&daemon, "other", "abc"), (StatusCode::OK, Vec::from("cba")));
}

fn a_function_changes_between_server_and_command() {
    let mut daemon = Daemon::start();
    daemon.deploy("it", &program::build("httpd"), &[]);
    assert!(daemon.get("/function/it").text().contains("hello"));
    deploy(&daemon, "it", "once", &[]);
    let pristine = (StatusCode::OK, Vec::from("pristine\n"));
    assert_eq!(post(&daemon, "it", ""), pristine);
    daemon.stop();
    daemon.start_again();
    assert_eq!(
        post(&daemon, "it", ""),
        pristine,
        "it is what it was after a restart"
    );
    daemon.deploy("it", &program::build("httpd"), &[]);
    assert!(daemon.get("/function/it").text().contains("hello"));
    let described = daemon.spore_ok(&["describe", "it", "--json"]);
    assert!(described.contains(r#""protocol": "http""#), "{described}");
}

/// A root file system with this machine's Python and a script.
fn python_root(script: &str) -> TempDir {
    const FIND: &str = "import sys, sysconfig; print(sys.executable, sysconfig.get_path('stdlib'))";
    let said = |command: &str, arguments: &[&str]| {
        let output = Command::new(command)
            .args(arguments)
            .output()
            .expect("it can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let found = said("/usr/bin/python3", &["-c", FIND]);
    let (python, library) = found.trim().split_once(' ').expect("two paths");
    let root = TempDir::with_prefix("spore-test-root-").expect("the temporary folder is writable");
    let within = |path: &str| root.path().join(path.trim_start_matches('/'));
    let libraries = said("ldd", &[python]);
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([python]) {
        let target = within(path);
        std::fs::create_dir_all(target.parent().expect("it has a folder")).expect("it is ours");
        std::fs::copy(path, target).expect("what ldd lists is there");
    }
    let target = within(library);
    std::fs::create_dir_all(target.parent().expect("it has a folder")).expect("it is ours");
    said("cp", &["-a", library, target.to_str().expect("it is UTF-8")]);
    std::fs::write(within("handler.py"), script).expect("it is ours");
    said(
        "chmod",
        &["755", within("handler.py").to_str().expect("it is UTF-8")],
    );
    root
}

fn scripts_of_an_interpreter_are_commands() {
    const SCRIPT: &str = "#!/usr/bin/python3
import os, random, subprocess, sys
text = sys.stdin.read()
if text == 'fail':
    raise SystemExit(7)
inner = subprocess.run([sys.executable, '-S', '-c', 'print(input().upper())'], input=text, text=True, stdout=-1)
print(sys.argv[1:], os.environ['Http_Query'], inner.stdout.strip(), random.random())
";
    let daemon = Daemon::start();
    let root = python_root(SCRIPT);
    deploy_root(&daemon, "script", root.path(), "/handler.py one two", &[]);
    deploy_root(&daemon, "python", root.path(), "python3 /handler.py one two", &[]);
    let mut drawn = std::collections::BTreeSet::new();
    for function in ["script", "python", "script"] {
        let (status, body) = post(&daemon, &format!("{function}?a=b"), "hello");
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, StatusCode::OK, "{text}");
        let random = text.trim().strip_prefix("['one', 'two'] a=b HELLO ");
        drawn.insert(random.unwrap_or_else(|| panic!("{text}")).to_owned());
        assert_eq!(
            post(&daemon, function, "fail").0,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
    assert_eq!(drawn.len(), 3, "random numbers are drawn twice");
}
