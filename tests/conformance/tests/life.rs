//! From the deployment to the removal: what a function is started with, when it is started, and how many there are.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client::ask_at_once;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};

use crate::{Test, daemon, foreign, sandbox};

pub(crate) const TESTS: &[Test] = &[
    ("a_function_lives_from_its_deployment_to_its_removal", life),
    ("an_instance_serves_one_invocation_after_the_other", one_instance),
    (
        "invocations_at_the_same_time_have_instances_of_their_own",
        several_instances,
    ),
    (
        "isolation_per_request_has_a_fresh_instance_each_time",
        per_request,
    ),
    ("idle_instances_go_and_come_back", scale_to_zero),
    ("idle_containers_are_paused_if_asked", pause),
    (
        "copies_share_the_time_before_they_were_ready_and_no_other",
        copies,
    ),
    (
        "environment_arguments_and_port_are_those_of_the_deployment",
        environment,
    ),
    ("secrets_are_files_that_nothing_can_be_changed_of", secrets),
    ("a_root_file_system_is_there_with_its_libraries", file_system),
    ("what_a_kind_cannot_do_is_refused_at_the_deployment", refusals),
];

const COPIES: &str = "copies_share_the_time_before_they_were_ready_and_no_other";

/// Why a test is not asked of a kind, if it is not.
pub(crate) fn unasked(kind: &str, name: &str) -> Option<&'static str> {
    let is_copied = matches!(kind, "unikernel" | "microvm" | "firecracker" | "cloud-hypervisor");
    (name == COPIES && !is_copied)
        .then_some("its instances are not copied; that it says so another test looks at")
}

/// How long anything may take that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A short timeout of an invocation. What counts as well is the start of an instance, which takes seconds where a machine is
/// emulated.
pub(crate) fn short_timeout(kind: &str) -> [&'static str; 2] {
    [
        "--timeout",
        if matches!(sandbox(kind), "microvm" | "foreign") {
            "25s"
        } else {
            "2s"
        },
    ]
}

/// Deploys the ordinary web server.
pub(crate) fn deploy(daemon: &Daemon, kind: &str, name: &str, options: &[&str]) {
    deploy_program(daemon, kind, name, "httpd", options);
}

/// Deploys one of the test programs; of others' unikernels, one that acts as it does.
pub(crate) fn deploy_program(daemon: &Daemon, kind: &str, name: &str, program: &str, options: &[&str]) {
    let options = [&["--sandbox", sandbox(kind)], options].concat();
    match sandbox(kind) {
        "foreign" => foreign::deploy(daemon, kind, name, program, &options),
        _ => daemon.deploy(name, &program::build(program), &options),
    }
}

/// What a function answers, which has to be 200.
pub(crate) fn answer(daemon: &Daemon, path: &str) -> String {
    let answer = daemon.get(&format!("/function/{path}"));
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "{path}: {}\n{}",
        answer.text(),
        daemon.log()
    );
    answer.text()
}

/// Instances of a function that there are.
pub(crate) fn replicas(daemon: &Daemon, name: &str) -> u64 {
    let status = daemon.get(&format!("/system/function/{name}")).json();
    status["replicas"].as_u64().unwrap_or(0)
}

fn life(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    assert_eq!(
        daemon.get("/system/function/web").json()["sandbox"],
        sandbox(kind)
    );
    assert!(daemon.spore_ok(&["list"]).contains(sandbox(kind)));
    assert!(answer(&daemon, "web").contains("hello from"));
    assert_eq!(replicas(&daemon, "web"), 1);
    daemon.spore_ok(&["remove", "web"]);
    assert_eq!(daemon.get("/function/web").status, StatusCode::NOT_FOUND);
    crate::leftovers::nothing_of(&daemon, PATIENCE);
}

fn one_instance(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    let first = answer(&daemon, "web/identity");
    for _ in 0..20 {
        assert_eq!(answer(&daemon, "web/identity"), first);
    }
    assert_eq!(replicas(&daemon, "web"), 1);
}

fn several_instances(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &["--max", "3"]);
    let mut identities = ask_at_once(daemon.address(), "web/identity", 3, PATIENCE).expect("three answers");
    identities.sort();
    identities.dedup();
    assert_eq!(
        identities.len(),
        3,
        "each has an instance, and randomness, of its own"
    );
    assert_eq!(replicas(&daemon, "web"), 3);
}

fn per_request(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &["--isolation-per-request"]);
    let mut identities: Vec<_> = (0..4).map(|_| answer(&daemon, "web/identity")).collect();
    assert_eq!(answer(&daemon, "web/count").trim(), "1");
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 4);
}

fn scale_to_zero(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(
        &daemon,
        kind,
        "web",
        &["--annotation", "dev.spore.idle-timeout=100ms"],
    );
    let first = answer(&daemon, "web/identity");
    assert!(
        wait_until(PATIENCE, || replicas(&daemon, "web") == 0),
        "{}",
        daemon.log()
    );
    crate::leftovers::nothing_of(&daemon, PATIENCE);
    assert_ne!(answer(&daemon, "web/identity"), first);
}

fn environment(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(
        &daemon,
        kind,
        "web",
        &["--env", "GREETING=good day", "--port", "9123"],
    );
    let environment = answer(&daemon, "web/environment");
    for line in ["GREETING=good day", "PORT=9123", "OPENFAAS_NAME=web"] {
        assert!(environment.lines().any(|is| is == line), "{line}: {environment}");
    }
    assert!(
        !environment.contains("CARGO"),
        "nothing of the daemon's own: {environment}"
    );
}

fn secrets(kind: &'static str) {
    let daemon = daemon(kind);
    for (name, value) in [("key", "hush"), ("other", "two\nlines")] {
        let body = json!({ "name": name, "value": value }).to_string();
        let made = daemon.send_body(Method::POST, "/system/secrets", body);
        assert!(made.status.is_success(), "{}", made.text());
    }
    let options = ["--sandbox", sandbox(kind), "--secret", "key", "--secret", "other"];
    daemon.deploy("secrets", &program::build("secrets"), &options);
    let shown = answer(&daemon, "secrets");
    let attempts = shown
        .strip_prefix("key 100444 hush\nother 100444 two\nlines\n")
        .unwrap_or_else(|| panic!("{shown}"));
    // gVisor gives other reasons for some of the refusals.
    assert!(attempts == "12 of 12\n" || kind == "gvisor", "{attempts}");
    assert_eq!(
        answer(&daemon, "secrets"),
        shown,
        "nothing was changed, nor added"
    );
    assert!(!daemon.log().contains("hush"));
}

/// The same server, linked against the libraries of this machine, with those.
fn file_system(kind: &'static str) {
    let daemon = daemon(kind);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let root = folder.path().join("root");
    let copies = [
        (program::build_dynamic("httpd"), "srv/httpd"),
        ("/lib64/ld-linux-x86-64.so.2".into(), "lib64/ld-linux-x86-64.so.2"),
        (
            "/lib/x86_64-linux-gnu/libc.so.6".into(),
            "lib/x86_64-linux-gnu/libc.so.6",
        ),
    ];
    for (from, to) in copies {
        let to = root.join(to);
        std::fs::create_dir_all(to.parent().expect("a file is in a folder")).expect("a folder");
        std::fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    let root = root.to_str().expect("UTF-8");
    daemon.spore_ok(&[
        "deploy",
        "rooted",
        "--rootfs",
        root,
        "--entrypoint",
        "/srv/httpd",
        "--sandbox",
        sandbox(kind),
    ]);
    assert!(answer(&daemon, "rooted").contains("hello"));
    assert_eq!(
        daemon.get("/system/function/rooted").json()["root"],
        "file-system"
    );
}

/// Each kind does what is asked for, or says that it does not, and nothing in between.
/// Where instances cannot be paused that is said; where they can, they do nothing meanwhile, answer after it, and end, be it with
/// a daemon that is killed.
fn pause(kind: &'static str) {
    const AFTER: [&str; 2] = ["--annotation", "dev.spore.pause-after=200ms"];
    let mut daemon = Daemon::start();
    if !matches!(kind, "runc" | "crun" | "gvisor") {
        let annotated = json!({ "service": "asks", "image": "none", "annotations": {
            "dev.spore.pause-after": "200ms", "dev.spore.sandbox": sandbox(kind) } });
        let refused = daemon.send_body(Method::POST, "/system/functions", annotated.to_string());
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text());
        let text = refused.text();
        assert!(
            text.contains("containers") && text.contains(sandbox(kind)),
            "{text}"
        );
        return;
    }
    let ticks = |daemon: &Daemon, name: &str| -> u64 {
        let text = answer(daemon, name);
        text.trim().parse().unwrap_or_else(|_| panic!("{text}"))
    };
    deploy_program(&daemon, kind, "awake", "ticking", &[]);
    deploy_program(&daemon, kind, "paused", "ticking", &AFTER);
    for _ in 0..2 {
        let before = ["awake", "paused"].map(|name| ticks(&daemon, name));
        std::thread::sleep(Duration::from_secs(3));
        let after = ["awake", "paused"].map(|name| ticks(&daemon, name));
        let [awake, paused] = [0, 1].map(|which| after[which] - before[which]);
        assert!(paused * 2 < awake, "{paused} while it was paused, {awake} else");
    }
    assert_eq!((replicas(&daemon, "awake"), replicas(&daemon, "paused")), (1, 1));
    std::thread::sleep(Duration::from_secs(1));
    daemon.spore_ok(&["remove", "paused"]);
    daemon.spore_ok(&["remove", "awake"]);
    crate::leftovers::nothing_of(&daemon, PATIENCE);

    deploy_program(&daemon, kind, "paused", "ticking", &AFTER);
    ticks(&daemon, "paused");
    std::thread::sleep(Duration::from_secs(1));
    let family = daemon.descendants();
    daemon.kill();
    daemon.start_again();
    let are_gone = || !family.iter().any(|process| process.is_alive());
    assert!(wait_until(PATIENCE, are_gone), "what was paused lives on");
}

fn copies(kind: &'static str) {
    let daemon = Daemon::start();
    // Each answer is another copy's.
    let options = ["--snapshot", "--annotation", "dev.spore.idle-timeout=0s"];
    deploy_program(&daemon, kind, "cloned", "cloned", &options);
    let answers: Vec<_> = (0..4).map(|_| answer(&daemon, "cloned")).collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        .as_secs();
    let lines: Vec<Vec<&str>> = answers.iter().map(|text| text.lines().collect()).collect();
    let column = |which: usize| -> BTreeSet<&str> { lines.iter().map(|lines| lines[which]).collect() };
    assert_eq!(column(0).len(), 1, "all are copies of one: {answers:?}");
    assert_eq!(
        column(1).len(),
        answers.len(),
        "each draws numbers of its own: {answers:?}"
    );
    assert_eq!(
        column(3),
        BTreeSet::from(["1"]),
        "each was asked once: {answers:?}"
    );
    let clock: u64 = lines[3][4].parse().expect("seconds");
    assert!(now.abs_diff(clock) <= 2, "its clock is {clock}, it is {now}");
}

fn refusals(kind: &'static str) {
    let daemon = daemon(kind);
    let path = program::build("httpd");
    let path = path.to_str().expect("UTF-8");
    let kind_name = sandbox(kind);
    let source = match kind_name {
        // Its image is there from then on.
        "foreign" => {
            deploy(&daemon, kind, "web", &[]);
            ["--image", "unikernel-httpd-8080"]
        }
        _ => ["--binary", path],
    };
    for (option, word) in [
        (&["--snapshot"][..], "snapshot"),
        (&["--protocol", "lambda"], "Lambda"),
        (&["--fprocess", "/httpd"], "commands"),
        (&["--allow-egress", "127.0.0.1:9"], "egress"),
    ] {
        let options = [
            &["deploy", "asks"],
            &source[..],
            &["--sandbox", kind_name],
            option,
        ]
        .concat();
        let output = daemon.spore(&options);
        if output.status.success() {
            assert_eq!(daemon.get("/system/function/asks").json()["sandbox"], kind_name);
            continue;
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            errors.contains(&format!("`{kind_name}`")) && errors.contains(word),
            "{errors}"
        );
        assert!(errors.contains("unikernel"), "it says what to do: {errors}");
    }
    let docker = [
        "deploy",
        "asks",
        "--binary",
        path,
        "--annotation",
        "dev.spore.sandbox=docker",
    ];
    let output = daemon.spore(&docker);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("unikernel, runc, crun"),
        "{errors}"
    );
}
