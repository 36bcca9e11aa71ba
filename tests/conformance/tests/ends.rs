//! Instances that end: by themselves, by a fault, at a timeout. The caller is told why, and the next one finds a fresh one.

use http::{Method, StatusCode};
use spore_test_harness::client;
use spore_test_harness::program;

use crate::life::{answer, deploy, deploy_program, short_timeout};
use crate::{Test, daemon, daemon_with, sandbox};

pub(crate) const TESTS: &[Test] = &[
    ("an_exit_is_told_with_its_status", exit),
    ("a_crash_is_told", crash),
    ("an_end_within_a_body_is_no_clean_end", half_a_body),
    ("a_hang_ends_at_the_timeout", hang),
    ("a_program_that_ends_at_once_is_told", ends_at_once),
    ("a_program_that_never_listens_is_not_ready", never_ready),
    ("a_program_that_cannot_be_started_is_told", cannot_start),
];

fn exit(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    let before = answer(&daemon, "web/identity");
    let ended = daemon.get("/function/web/exit?code=3");
    assert_eq!(ended.status, StatusCode::BAD_GATEWAY, "{}", ended.text());
    assert!(ended.text().contains("exited with status 3"), "{}", ended.text());
    daemon.wait_for_log("web", "exited with status 3");
    assert_ne!(answer(&daemon, "web/identity"), before);
}

/// The program writes to an address that is nobody's.
fn crash(kind: &'static str) {
    let daemon = daemon(kind);
    deploy_program(&daemon, kind, "faults", "faults", &[]);
    assert_eq!(answer(&daemon, "faults"), "ok\n");
    let ended = daemon.get("/function/faults/null");
    assert!(ended.status.is_server_error(), "{}", ended.text());
    assert!(ended.text().contains("the function crashed"), "{}", ended.text());
    assert_eq!(answer(&daemon, "faults"), "ok\n");
}

fn half_a_body(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    answer(&daemon, "web");
    let request = client::request(Method::GET, "/function/web/die?after=100000");
    let outcome = client::send(daemon.address(), request);
    assert!(
        outcome.as_ref().is_err() || outcome.is_ok_and(|answer| answer.status.is_server_error()),
        "half a body is not passed off as a whole one"
    );
    answer(&daemon, "web");
}

fn hang(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &short_timeout(kind));
    let before = answer(&daemon, "web/identity");
    let hung = daemon.get("/function/web/sleep?ms=600000");
    assert_eq!(hung.status, StatusCode::GATEWAY_TIMEOUT, "{}", hung.text());
    assert_ne!(answer(&daemon, "web/identity"), before);
    deploy_program(&daemon, kind, "faults", "faults", &short_timeout(kind));
    let spun = daemon.get("/function/faults/spin");
    assert_eq!(spun.status, StatusCode::GATEWAY_TIMEOUT, "{}", spun.text());
    assert_eq!(answer(&daemon, "faults"), "ok\n");
}

fn ends_at_once(kind: &'static str) {
    let daemon = daemon(kind);
    deploy_program(&daemon, kind, "faults", "faults", &["--env", "START=exit"]);
    let ended = daemon.get("/function/faults");
    assert!(ended.status.is_server_error(), "{}", ended.text());
    assert!(ended.text().contains("exited with status"), "{}", ended.text());
}

fn never_ready(kind: &'static str) {
    let daemon = daemon_with(kind, &["--ready-timeout", "2s"]);
    deploy_program(&daemon, kind, "faults", "faults", &["--env", "START=sleep"]);
    let late = daemon.get("/function/faults");
    assert!(late.status.is_server_error(), "{}", late.text());
    assert!(late.text().contains("was not ready"), "{}", late.text());
    crate::leftovers::nothing_of(&daemon, crate::life::PATIENCE);
}

/// A working directory that is a file.
fn cannot_start(kind: &'static str) {
    let daemon = daemon(kind);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let root = folder.path().join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    std::fs::copy(program::build("httpd"), root.join("httpd")).expect("a program");
    std::fs::write(root.join("file"), "").expect("a file");
    let root = root.to_str().expect("UTF-8");
    let options = [
        "deploy",
        "bad",
        "--rootfs",
        root,
        "--entrypoint",
        "/httpd",
        "--workdir",
        "/file",
        "--sandbox",
        sandbox(kind),
    ];
    let output = daemon.spore(&options);
    if output.status.success() {
        let ended = daemon.get("/function/bad");
        assert!(ended.status.is_server_error(), "{}", ended.text());
        crate::leftovers::nothing_of(&daemon, crate::life::PATIENCE);
    }
}
