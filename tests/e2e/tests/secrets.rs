//! Secrets, from the API to files that functions read.

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    secrets_are_read_only_files,
    a_changed_secret_reaches_clones,
    secrets_lie_in_a_root_file_system_too,
];

/// How many attempts to change a secret the program makes, all of which fail.
const REFUSED: &str = "12 of 12\n";

fn put(daemon: &Daemon, method: Method, name: &str, value: &str) {
    let body = json!({ "name": name, "value": value }).to_string();
    let answer = daemon.send_body(method, "/system/secrets", body);
    assert!(answer.status.is_success(), "{}", answer.text());
}

/// Deploys a function that uses the secrets `key` and `other`.
fn deploy(daemon: &Daemon, options: &[&str]) {
    let secrets = ["--secret", "key", "--secret", "other"];
    daemon.deploy(
        "secrets",
        &program::build("secrets"),
        &[&secrets, options].concat(),
    );
}

fn shown(daemon: &Daemon) -> String {
    let answer = daemon.get("/function/secrets");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.text()
}

fn secrets_are_read_only_files() {
    let mut daemon = Daemon::start();
    put(&daemon, Method::POST, "key", "hush");
    put(&daemon, Method::POST, "other", "two\nlines");
    deploy(&daemon, &[]);
    let expected = format!("key 100444 hush\nother 100444 two\nlines\n{REFUSED}");
    assert_eq!(shown(&daemon), expected);
    daemon.kill();
    daemon.start_again();
    assert_eq!(shown(&daemon), expected, "after a kill");
    put(&daemon, Method::PUT, "key", "louder");
    assert!(shown(&daemon).starts_with("key 100444 louder\n"), "at once");
    assert!(!daemon.log().contains("louder"));
}

fn a_changed_secret_reaches_clones() {
    let daemon = Daemon::start();
    put(&daemon, Method::POST, "key", "hush");
    put(&daemon, Method::POST, "other", "-");
    deploy(
        &daemon,
        &["--snapshot", "--annotation", "dev.spore.idle-timeout=0s"],
    );
    for _ in 0..3 {
        assert!(shown(&daemon).starts_with("key 100444 hush\n"));
    }
    put(&daemon, Method::PUT, "key", "louder");
    for _ in 0..3 {
        assert!(shown(&daemon).starts_with("key 100444 louder\n"));
    }
}

fn secrets_lie_in_a_root_file_system_too() {
    let daemon = Daemon::start();
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::create_dir_all(root.path().join("var/openfaas")).expect("it is ours");
    std::fs::copy(program::build("secrets"), root.path().join("program")).expect("it is ours");
    put(&daemon, Method::POST, "key", "hush");
    let root = root.path().to_str().expect("UTF-8");
    daemon.spore_ok(&[
        "deploy",
        "secrets",
        "--rootfs",
        root,
        "--entrypoint",
        "/program",
        "--secret",
        "key",
    ]);
    assert_eq!(shown(&daemon), format!("key 100444 hush\n{REFUSED}"));
}
