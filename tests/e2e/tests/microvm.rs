//! The same images in microVMs: Linux guests of QEMU, emulated where there is no hardware virtualisation, and slow then.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client;
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::{program, wait_until};

use crate::faults::deploy_misbehave;
use crate::{Test, with_tools};

pub(crate) const TESTS: &[Test] = with_tools![
    a_static_program_answers_as_in_a_unikernel: ["microvms"],
    a_root_file_system_has_secrets_and_layers: ["microvms", "/usr/bin/python3"],
    ends_are_told_and_the_next_instance_answers: ["microvms"],
    nothing_is_left_of_a_daemon_that_was_killed: ["microvms"],
    what_a_microvm_cannot_do_is_refused: ["microvms"],
];

const MICROVM: [&str; 2] = ["--sandbox", "microvm"];
/// A machine that is emulated while other tests run takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there are microVMs here.
pub(crate) fn can_run() -> bool {
    let mut command = std::process::Command::new(binary());
    let output = command.args(["info", "--json"]).output();
    output.is_ok_and(|output| {
        let info: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        let info = info.unwrap_or_default();
        let mut sandboxes = info["sandboxes"].as_array().into_iter().flatten();
        sandboxes.any(|sandbox| sandbox["name"] == "microvm" && sandbox["available"] == true)
    })
}

fn daemon() -> Daemon {
    Daemon::start_with(&["--ready-timeout", "60s"])
}

fn machines(daemon: &Daemon) -> usize {
    let lines = daemon.descendants().into_iter().filter(|process| {
        let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("qemu-system")
    });
    lines.count()
}

/// Machines that were saved.
fn saved(daemon: &Daemon) -> usize {
    let files = std::fs::read_dir(daemon.data().join("microvm")).into_iter();
    let names = files.flatten().flatten().map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("snapshot-"))
        .count()
}

fn a_static_program_answers_as_in_a_unikernel() {
    let daemon = daemon();
    let program = program::build("httpd");
    let options = ["--env", "COLOUR=green", "--memory", "48Mi"];
    daemon.deploy("unikernel", &program, &options);
    daemon.deploy("microvm", &program, &[&MICROVM[..], &options].concat());
    let body = vec![b'x'; 3 << 20];
    for path in ["/", "/environment", "/arguments", "/status?code=418"] {
        let [one, other] =
            ["unikernel", "microvm"].map(|name| daemon.get(&format!("/function/{name}{path}")));
        assert_eq!(one.status, other.status, "{path}: {}", other.text());
        // The name of the function is in the program's environment, whose order is another one.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let one = sorted(&one.text().replace("unikernel", "microvm"));
        assert_eq!(one, sorted(&other.text()), "{path}");
    }
    let echo = daemon.send_body(Method::POST, "/function/microvm/echo", body.clone());
    assert_eq!(echo.status, StatusCode::OK);
    assert_eq!(echo.body, body, "more than a stream's window");
    assert_eq!(machines(&daemon), 1, "one instance serves all");
    let list = daemon.spore_ok(&["list"]);
    assert!(
        list.lines()
            .any(|line| line.starts_with("microvm ") && line.contains(" microvm ")),
        "{list}"
    );
    daemon.spore_ok(&["remove", "microvm"]);
    assert!(
        wait_until(PATIENCE, || machines(&daemon) == 0),
        "the machine goes with its function"
    );
}

/// The runtime of Python is a base, and the handler a head (decision 0013).
fn a_root_file_system_has_secrets_and_layers() {
    let daemon = daemon();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = folder.path().join("layered");
    let path = folder.to_str().expect("UTF-8");
    let output = daemon.spore(&["new", "--lang", "python", "layered", "--directory", path]);
    assert!(output.status.success(), "{output:?}");
    let handler = "import os\n\ndef handle(event, context):\n    open('/tmp/file', 'w').write('written')\n    \
                   secret = open('/var/openfaas/secrets/key').read()\n    \
                   return {'statusCode': 200, 'body': f\"{secret} {open('/tmp/file').read()} {os.uname().sysname}\"}\n";
    std::fs::write(folder.join("handler.py"), handler).expect("it is ours");
    let secret = json!({ "name": "key", "value": "hush" }).to_string();
    assert!(
        daemon
            .send_body(Method::POST, "/system/secrets", secret)
            .status
            .is_success()
    );
    daemon.spore_ok(&[&["deploy", path, "--secret", "key"][..], &MICROVM].concat());
    let answer = daemon.get("/function/layered");
    assert_eq!(answer.text(), "hush written Linux", "{}", daemon.log());
    let whole = "a whole file system, in which everything is read-only but what is written in memory";
    assert_eq!(answer.status, StatusCode::OK, "{whole}");

    let copied = [
        "--secret",
        "key",
        "--snapshot",
        "--annotation",
        "dev.spore.idle-timeout=0s",
    ];
    daemon.spore_ok(&[&["deploy", path][..], &copied, &MICROVM].concat());
    for _ in 0..2 {
        let answer = daemon.get("/function/layered");
        assert_eq!(answer.text(), "hush written Linux", "{}", daemon.log());
    }
    assert_eq!(saved(&daemon), 1);
    daemon.spore_ok(&["remove", "layered"]);
    let is_gone = wait_until(PATIENCE, || saved(&daemon) == 0);
    assert!(is_gone, "what was saved goes with its function");
}

fn ends_are_told_and_the_next_instance_answers() {
    let daemon = daemon();
    // The start of a machine counts too.
    let timeout = ["--timeout", "25s", "--memory", "48Mi"];
    deploy_misbehave(&daemon, &[&MICROVM[..], &timeout].concat());
    for (path, status, reason) in [
        (
            "/exit-status",
            StatusCode::BAD_GATEWAY,
            "the function exited with status 3",
        ),
        (
            "/null-write",
            StatusCode::BAD_GATEWAY,
            "the function crashed: SIGSEGV",
        ),
        (
            "/exhaust-memory",
            StatusCode::BAD_GATEWAY,
            "ran out of its 50331648 bytes of memory",
        ),
        ("/hang", StatusCode::GATEWAY_TIMEOUT, "did not answer within"),
    ] {
        let answer = daemon.get(&format!("/function/misbehave{path}"));
        assert_eq!(
            answer.status,
            status,
            "{path}: {}\n{}",
            answer.text(),
            daemon.log()
        );
        assert!(answer.text().contains(reason), "{path}: {}", answer.text());
    }
    let answer = daemon.get("/function/misbehave/print-long-line");
    assert_eq!(answer.text(), "survived /print-long-line\n");
    let log = daemon.wait_for_log("misbehave", &"x".repeat(1000));
    assert!(log.contains("exited with status 3"), "each end is in the log");
}

fn nothing_is_left_of_a_daemon_that_was_killed() {
    let mut daemon = daemon();
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::copy(program::build("httpd"), root.path().join("program")).expect("it is ours");
    let path = root.path().to_str().expect("UTF-8");
    let source = ["deploy", "whole", "--rootfs", path, "--entrypoint", "/program"];
    daemon.spore_ok(&[&source[..], &MICROVM].concat());
    assert_eq!(daemon.get("/function/whole").status, StatusCode::OK);
    let processes = daemon.descendants();
    assert_eq!(machines(&daemon), 1);
    daemon.kill();
    assert!(
        wait_until(PATIENCE, || !processes.iter().any(|process| process.is_alive())),
        "no machine outlives its daemon"
    );
    daemon.start_again();
    let files = daemon.data().join("microvm");
    assert!(!files.exists(), "what machines had as files is gone");
    assert_eq!(daemon.get("/function/whole").status, StatusCode::OK);
}

fn what_a_microvm_cannot_do_is_refused() {
    let daemon = daemon();
    let program = program::build("httpd");
    let program = program.to_str().expect("UTF-8");
    for (option, reason) in [
        (
            &["--allow-egress", "127.0.0.1:80"][..],
            "no network to the outside",
        ),
        (&["--fprocess", "cat"], "runs no commands"),
        (&["--protocol", "lambda"], "runs no functions for AWS Lambda"),
        (&["--isolation", "process"], "a microVM is no process"),
    ] {
        let output =
            daemon.spore(&[&["deploy", "refused", "--binary", program][..], &MICROVM, option].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(reason),
            "{option:?}: {text}"
        );
    }
    let answer = daemon.send(client::request(Method::GET, "/function/refused"));
    assert_eq!(answer.expect("the daemon answers").status, StatusCode::NOT_FOUND);
}
