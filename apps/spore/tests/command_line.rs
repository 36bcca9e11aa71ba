//! The command line as users run it, against a gateway in memory.

mod common;

use std::path::Path;

use common::{Gateway, spore};
use serde_json::{Value, json};

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

fn new_function(parent: &Path, name: &str) {
    spore()
        .current_dir(parent)
        .args(["new", name, "--lang", "c"])
        .assert()
        .success();
}

#[test]
fn a_function_goes_from_template_to_deployment() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    new_function(folder.path(), "hello");
    let deploy = || {
        let mut command = gateway.spore();
        command.current_dir(folder.path()).args(["deploy", "hello"]);
        command
    };
    let first = deploy()
        .args([
            "--memory",
            "64Mi",
            "--env",
            "A=b=c",
            "--timeout",
            "3s",
            "--max",
            "5",
        ])
        .assert();
    assert_eq!(
        stdout(&first.success()),
        format!("hello deployed: {}/function/hello\n", gateway.url)
    );
    {
        let state = gateway.state.lock().unwrap();
        let image = state.manifests.keys().next().unwrap();
        assert_eq!(
            state.functions["hello"],
            json!({
                "service": "hello", "image": image, "envVars": {"A": "b=c"}, "limits": {"memory": "64Mi"},
                "labels": {"com.openfaas.scale.max": "5"}, "annotations": {"dev.spore.timeout": "3s"},
            })
        );
    }
    assert_eq!(
        stdout(&deploy().assert().success()),
        format!("hello updated: {}/function/hello\n", gateway.url)
    );
    let state = gateway.state.lock().unwrap();
    assert_eq!(state.manifests.len(), 1, "the same source gives the same image");
    let uploads = state
        .requests
        .iter()
        .filter(|request| request.starts_with("POST /v2/"))
        .count();
    assert_eq!(uploads, 2, "what the registry has is not sent again");
}

#[test]
fn a_duplicate_is_refused_when_asked_for() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    new_function(folder.path(), "hello");
    let command = || {
        let mut command = gateway.spore();
        command
            .current_dir(folder.path())
            .args(["deploy", "hello", "--no-replace"]);
        command.assert()
    };
    command().success();
    assert!(stderr(&command().code(1)).contains("there is a function hello already"));
}

#[test]
fn binaries_are_checked_before_anything_is_pushed() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("script"), "#!/bin/sh\n").unwrap();
    std::fs::copy("/bin/true", folder.path().join("dynamic")).unwrap();
    for (name, file, message) in [
        ("f", "script", "not an ELF program"),
        (
            "f",
            "dynamic",
            "link it statically, for example with musl-gcc -static",
        ),
        ("f", "missing", "missing could not be read"),
        ("Bad_Name", "script", "is no function name"),
    ] {
        let assert = gateway
            .spore()
            .current_dir(folder.path())
            .args(["deploy", name, "--binary", file])
            .assert();
        let error = stderr(&assert.code(1));
        assert!(error.starts_with("error: ") && error.contains(message), "{error}");
    }
    assert_eq!(gateway.state.lock().unwrap().requests, Vec::<String>::new());
}

#[test]
fn a_binary_is_deployed_with_its_port() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    new_function(folder.path(), "hello");
    let built = spore()
        .current_dir(folder.path())
        .args(["build", "hello"])
        .assert()
        .success();
    assert_eq!(stdout(&built), "hello/build/function\n");
    gateway
        .spore()
        .current_dir(folder.path())
        .args([
            "deploy",
            "other",
            "--binary",
            "hello/build/function",
            "--port",
            "9000",
        ])
        .assert()
        .success();
    let state = gateway.state.lock().unwrap();
    assert_eq!(state.functions.keys().collect::<Vec<_>>(), ["other"]);
    let manifest: Value = serde_json::from_slice(state.manifests.values().next().unwrap()).unwrap();
    let config = &state.blobs[manifest["config"]["digest"].as_str().unwrap()];
    let config: Value = serde_json::from_slice(config).unwrap();
    assert_eq!(config["config"]["ExposedPorts"], json!({"9000/tcp": {}}));
}

#[test]
fn compiler_errors_are_shown_as_the_compiler_prints_them() {
    let folder = tempfile::tempdir().unwrap();
    new_function(folder.path(), "hello");
    std::fs::write(
        folder.path().join("hello/handler.c"),
        "int handle(void) { return missing; }\n",
    )
    .unwrap();
    let error = stderr(
        &spore()
            .current_dir(folder.path())
            .args(["build", "hello"])
            .assert()
            .code(1),
    );
    assert!(
        error.contains("handler.c:1:") && error.contains("‘missing’ undeclared"),
        "{error}"
    );
    assert!(
        error.contains("error: musl-gcc failed in hello (exit status: 1)"),
        "{error}"
    );
}

#[test]
fn a_missing_compiler_is_named_with_its_package() {
    let folder = tempfile::tempdir().unwrap();
    new_function(folder.path(), "hello");
    let assert = spore()
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .args(["build", "hello"])
        .assert();
    assert!(stderr(&assert.code(1)).contains("install musl-tools (Debian/Ubuntu: apt install musl-tools)"));
}

#[test]
fn invoke_sends_what_it_is_told_and_prints_the_answer() {
    let gateway = Gateway::start();
    let invoke = |arguments: &[&str]| {
        let mut command = gateway.spore();
        command.args(["invoke", "echo"]).args(arguments);
        command
    };
    let piped = invoke(&["--query", "k=v w", "--path", "/a/b"])
        .write_stdin("from a pipe")
        .assert()
        .success();
    assert_eq!(stdout(&piped), "POST /function/echo/a/b?k=v%20w \nfrom a pipe");
    let flags = invoke(&["--data", "text", "--method", "PUT", "--header", "X-Test=1=2"])
        .assert()
        .success();
    assert_eq!(stdout(&flags), "PUT /function/echo 1=2\ntext");

    let folder = tempfile::tempdir().unwrap();
    let body = vec![b'x'; 3_000_000];
    std::fs::write(folder.path().join("body"), &body).unwrap();
    let file = invoke(&["--data", "@body"])
        .current_dir(folder.path())
        .assert()
        .success();
    assert!(stdout(&file).as_bytes().ends_with(&body));
    let missing = invoke(&["--data", "@nothing"])
        .current_dir(folder.path())
        .assert()
        .code(1);
    assert!(stderr(&missing).contains("nothing could not be opened"));
}

#[test]
fn an_answer_that_is_no_success_is_an_error() {
    let gateway = Gateway::start();
    let assert = gateway
        .spore()
        .args(["invoke", "fail", "--data", ""])
        .assert()
        .code(1);
    assert_eq!(stdout(&assert), "");
    assert_eq!(
        stderr(&assert),
        "error: fail answered 502 Bad Gateway: fail: the function crashed: null call\n"
    );
}

#[test]
fn functions_are_listed_described_and_removed() {
    let gateway = Gateway::start();
    let list = |arguments: &[&str]| stdout(&gateway.spore().arg("list").args(arguments).assert().success());
    assert_eq!(list(&["--json"]), "[]\n");
    let function =
        json!({"service": "f", "image": "f@sha256:00", "labels": {"l": "1"}, "limits": {"memory": "5Mi"}});
    gateway
        .state
        .lock()
        .unwrap()
        .functions
        .insert("f".into(), function);

    let text = list(&[]);
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().next(),
        Some("NAME"),
        "{text}"
    );
    let columns: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        (&columns[..3], columns[4]),
        (&["f", "2", "3"][..], "f@00"),
        "{text}"
    );
    let listed: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["replicas"]),
        (&json!("f"), &json!(2))
    );

    let described = stdout(&gateway.spore().args(["describe", "f"]).assert().success());
    for part in ["5Mi", "l=1", "f@sha256:00", "/function/f", "invocations   3"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    assert_eq!(
        stdout(&gateway.spore().args(["remove", "f"]).assert().success()),
        "f removed\n"
    );
    for command in ["describe", "remove"] {
        let assert = gateway.spore().args([command, "f"]).assert().code(1);
        assert_eq!(stderr(&assert), "error: there is no function f: see spore list\n");
    }
}

#[test]
fn logs_are_printed_and_the_query_is_passed_on() {
    let gateway = Gateway::start();
    let text = stdout(
        &gateway
            .spore()
            .args(["logs", "f", "--tail", "5", "--follow"])
            .assert()
            .success(),
    );
    assert_eq!(
        text,
        "2026-01-01T00:00:00Z f-1 line 1\n2026-01-01T00:00:00Z f-1 line 2\n"
    );
    let json = stdout(
        &gateway
            .spore()
            .args(["logs", "f", "--json", "--since", "5m"])
            .assert()
            .success(),
    );
    assert!(
        json.lines()
            .all(|line| serde_json::from_str::<Value>(line).unwrap()["name"] == "f")
    );
    let requests = gateway.state.lock().unwrap().requests.clone();
    assert_eq!(requests[0], "GET /system/logs?name=f&follow=true&tail=5");
    assert!(
        requests[1].starts_with("GET /system/logs?name=f&follow=false&since=20"),
        "{requests:?}"
    );
}

#[test]
fn a_gateway_that_is_not_there_is_named_with_the_way_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let by_flag = spore().args(["list", "--gateway", &url]).assert().code(1);
    let by_environment = spore().env("OPENFAAS_URL", &url).arg("list").assert().code(1);
    for assert in [by_flag, by_environment] {
        let error = stderr(&assert);
        let message = format!(
            "error: no gateway at {url}: start one with `spore serve`, or name one with --gateway or OPENFAAS_URL\n"
        );
        assert!(error.starts_with(&message), "{error}");
    }
    let foreign = spore()
        .args(["list", "--gateway", "ftp://127.0.0.1"])
        .assert()
        .code(1);
    assert!(stderr(&foreign).contains("https://"));
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    for (arguments, part) in [
        (&["new", "Bad_Name", "--lang", "c"][..], "use lower-case letters"),
        (&["new", "a", "--lang", "cobol"], "possible values: c"),
        (&["deploy", "a", "--env", "A"], "no NAME=VALUE"),
        (&["logs", "a", "--since", "yesterday"], "no duration"),
        (&["deploy", "a", "--port", "0"], "0 is not in 1"),
        (&["frobnicate"], "unrecognized subcommand"),
    ] {
        let error = stderr(&spore().args(arguments).assert().code(2));
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn a_folder_that_is_missing_or_taken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = spore()
        .current_dir(folder.path())
        .args(["deploy", "nothing"])
        .assert()
        .code(1);
    assert!(stderr(&missing).contains("there is no folder nothing"));
    new_function(folder.path(), "hello");
    let again = spore()
        .current_dir(folder.path())
        .args(["new", "hello", "--lang", "c"])
        .assert()
        .code(1);
    assert!(stderr(&again).contains("hello is not empty"));
    std::fs::write(
        folder.path().join("hello/spore.toml"),
        "lang = \"c\"\nmemry = \"1Mi\"\n",
    )
    .unwrap();
    let typo = spore()
        .current_dir(folder.path())
        .args(["build", "hello"])
        .assert()
        .code(1);
    assert!(stderr(&typo).contains("memry"), "{}", stderr(&typo));
}

#[test]
fn help_version_and_completion_are_there() {
    let version = stdout(&spore().arg("version").assert().success());
    assert_eq!(version, format!("spore {}\n", env!("CARGO_PKG_VERSION")));
    let help = stdout(&spore().arg("--help").assert().success());
    for command in [
        "serve", "new", "deploy", "invoke", "list", "logs", "remove", "info",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&spore().args(["completion", shell]).assert().success()).contains("spore"));
    }
}
