//! What can be deployed, and what bad input gets.

use std::path::Path;
use std::process::{Command, Output};

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::program;

use crate::{Test, with_functions, without_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_file_that_is_no_program_is_refused,
    a_dynamically_linked_program_is_refused,
    a_name_that_is_no_dns_label_is_refused,
    a_second_function_of_the_same_name_is_refused,
    unknown_functions_and_images_are_said_to_be_so,
    malformed_json_is_refused,
    a_source_that_does_not_compile_shows_the_error,
    a_function_is_listed_replaced_and_removed,
    the_daemon_says_what_it_is,
];

pub(crate) const TESTS_OF_THE_COMMAND_LINE: &[Test] =
    without_functions![a_client_without_a_daemon_says_what_to_do];

fn deploy_binary(daemon: &Daemon, name: &str, file: &Path) -> Output {
    daemon.spore(&["deploy", name, "--binary", file.to_str().expect("UTF-8")])
}

/// The one error that a failed command printed.
fn error_of(output: &Output) -> String {
    assert!(
        !output.status.success(),
        "the command should have failed: {output:?}"
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_not_listed(daemon: &Daemon, name: &str) {
    assert_eq!(
        daemon.get(&format!("/system/function/{name}")).status,
        StatusCode::NOT_FOUND
    );
}

fn a_file_that_is_no_program_is_refused() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\necho no\n").expect("the temporary folder is writable");
    let error = error_of(&deploy_binary(&daemon, "script", &script));
    assert!(error.contains("ELF"), "{error}");
    let error = error_of(&deploy_binary(&daemon, "absent", &folder.path().join("absent")));
    assert!(error.contains("absent"), "{error}");
    assert_not_listed(&daemon, "script");
}

fn a_dynamically_linked_program_is_refused() {
    let daemon = Daemon::start();
    let error = error_of(&deploy_binary(
        &daemon,
        "dynamic",
        &program::build_dynamic("compute"),
    ));
    assert!(error.contains("static"), "the error says what to do: {error}");
    assert_not_listed(&daemon, "dynamic");
}

fn a_name_that_is_no_dns_label_is_refused() {
    let daemon = Daemon::start();
    let error = error_of(&deploy_binary(&daemon, "Not_A_Label", &program::build("httpd")));
    assert!(error.contains("Not_A_Label"), "{error}");
    for name in ["Not_A_Label", "-a", "a-", "", "a/b", "..", &"a".repeat(64)] {
        let body = json!({"service": name, "image": "httpd:latest"}).to_string();
        let answer = daemon.send_body(Method::POST, "/system/functions", body);
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{name:?}: {}",
            answer.text()
        );
    }
}

fn a_second_function_of_the_same_name_is_refused() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let image = daemon.get("/system/function/httpd").json()["image"].clone();
    let body = json!({"service": "httpd", "image": image}).to_string();
    let answer = daemon.send_body(Method::POST, "/system/functions", body);
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    assert!(answer.text().contains("httpd"), "{}", answer.text());
    assert_eq!(
        daemon.get("/function/httpd").status,
        StatusCode::OK,
        "the first one is untouched"
    );
    let file = program::build("httpd");
    let again = daemon.spore(&[
        "deploy",
        "httpd",
        "--no-replace",
        "--binary",
        file.to_str().expect("UTF-8"),
    ]);
    assert!(error_of(&again).contains("httpd"));
}

fn unknown_functions_and_images_are_said_to_be_so() {
    let daemon = Daemon::start();
    let answer = daemon.get("/function/nobody/some/path");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text().contains("nobody"), "{}", answer.text());
    assert_not_listed(&daemon, "nobody");
    let body = json!({"functionName": "nobody"}).to_string();
    let answer = daemon.send_body(Method::DELETE, "/system/functions", body);
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let body = json!({"service": "nobody", "image": "nobody:latest"}).to_string();
    let answer = daemon.send_body(Method::PUT, "/system/functions", body.clone());
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
    let answer = daemon.send_body(Method::POST, "/system/functions", body);
    assert_eq!(
        answer.status,
        StatusCode::BAD_REQUEST,
        "no such image: {}",
        answer.text()
    );
    assert!(error_of(&daemon.spore(&["invoke", "nobody", "--data", ""])).contains("nobody"));
    assert!(error_of(&daemon.spore(&["remove", "nobody"])).contains("nobody"));
}

fn malformed_json_is_refused() {
    let daemon = Daemon::start();
    for body in [
        "",
        "{",
        "[]",
        "{\"service\": 3}",
        "{\"service\": \"a\"}",
        "not json",
    ] {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let answer = daemon.send_body(method.clone(), "/system/functions", body);
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{method} {body:?}: {}",
                answer.text()
            );
            assert!(!answer.body.is_empty(), "the answer says what is wrong");
        }
    }
    assert_eq!(daemon.get("/healthz").status, StatusCode::OK);
}

fn a_source_that_does_not_compile_shows_the_error() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let source = folder.path().join("broken");
    let source = source.to_str().expect("UTF-8");
    daemon.spore_ok(&["new", "broken", "--lang", "c", "--directory", source]);
    std::fs::write(
        Path::new(source).join("handler.c"),
        "int handle(void) { return undeclared_thing; }\n",
    )
    .expect("the temporary folder is writable");
    let error = error_of(&daemon.spore(&["deploy", source]));
    assert!(
        error.contains("undeclared_thing"),
        "the compiler's own words: {error}"
    );
    assert_not_listed(&daemon, "broken");
}

fn a_function_is_listed_replaced_and_removed() {
    let daemon = Daemon::start();
    daemon.deploy("server", &program::build("httpd"), &["--label", "team=blue"]);
    let listed = daemon.get("/system/functions").json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["labels"]["team"]),
        (&json!("server"), &json!("blue")),
        "{listed}"
    );
    assert!(daemon.get("/function/server").text().starts_with("hello"));

    daemon.deploy("server", &program::build("compute"), &[]);
    let answer = daemon.get("/function/server?iterations=10").text();
    assert!(
        answer.starts_with("elapsed_ns="),
        "after the answer to PUT the old version is out of use: {answer}"
    );
    assert_eq!(
        daemon.get("/system/functions").json().as_array().map(Vec::len),
        Some(1)
    );

    daemon.spore_ok(&["remove", "server"]);
    assert_eq!(daemon.get("/function/server").status, StatusCode::NOT_FOUND);
    assert_eq!(daemon.get("/system/functions").json(), json!([]));
}

fn the_daemon_says_what_it_is() {
    let daemon = Daemon::start();
    assert_eq!(daemon.get("/healthz").status, StatusCode::OK);
    let info = daemon.get("/system/info").json();
    assert!(
        info["provider"].is_object() && info["version"].is_object(),
        "{info}"
    );
    let host: serde_json::Value = serde_json::from_str(&daemon.spore_ok(&["info", "--json"])).expect("JSON");
    assert!(host.is_object(), "{host}");
}

fn a_client_without_a_daemon_says_what_to_do() {
    let nobody = format!("http://127.0.0.1:{}", program::free_port());
    let output = Command::new(binary())
        .args(["list", "--gateway", &nobody])
        .output();
    let error = error_of(&output.expect("the spore binary can be run"));
    assert!(
        error.contains("spore serve") && error.contains(&nobody),
        "{error}"
    );
}
