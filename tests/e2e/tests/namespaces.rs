//! The command line in a namespace, and a daemon that is a provider.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use spore_test_harness::daemon::{Daemon, Setup, failed_start_as};
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    commands_are_about_the_namespace_that_they_name,
    a_provider_serves_what_a_gateway_asks_it,
];

fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.spore(arguments);
    assert!(!output.status.success(), "{arguments:?} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(daemon: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_str(&daemon.spore_ok(arguments)).expect("JSON")
}

fn commands_are_about_the_namespace_that_they_name() {
    let daemon = Daemon::start();
    let name = json!({ "name": "team" }).to_string();
    let made = daemon.send_body(Method::POST, "/system/namespace/", name);
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let value = daemon.data().join("../value");
    std::fs::write(&value, "of the team").expect("it is ours");
    let value = value.to_str().expect("a path");
    daemon.spore_ok(&[
        "secret",
        "create",
        "key",
        "--from-file",
        value,
        "--namespace",
        "team",
    ]);
    assert_eq!(
        json_of(&daemon, &["secret", "list", "--json", "-n", "team"])[0]["name"],
        "key"
    );
    assert_eq!(json_of(&daemon, &["secret", "list", "--json"]), json!([]));

    let program = program::build("httpd");
    daemon.deploy("hello", &program, &["--env", "WHERE=default"]);
    let options = ["--env", "WHERE=team", "--secret", "key", "--namespace", "team"];
    let binary = program.to_str().expect("a path");
    let deploy = [&["deploy", "hello", "--binary", binary][..], &options].concat();
    let said = daemon.spore_ok(&deploy);
    assert!(
        said.contains("hello deployed: ") && said.trim().ends_with("/function/hello.team"),
        "{said}"
    );
    assert!(
        daemon.spore_ok(&deploy).contains("hello updated"),
        "there is one now"
    );
    for (namespace, expected) in [
        (&[][..], "WHERE=default"),
        (&["--namespace", "team"], "WHERE=team"),
    ] {
        let invoke = [&["invoke", "hello", "--path", "/environment"][..], namespace].concat();
        let answer = daemon.spore_ok(&invoke);
        assert!(answer.contains(expected), "{answer}");
        let listed = json_of(&daemon, &[&["list", "--json"][..], namespace].concat());
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        assert_eq!(listed[0]["invocationCount"], json!(1.0), "{listed}");
    }
    daemon.spore_ok(&["invoke", "hello", "--path", "/log?lines=1", "-n", "team"]);
    let log = |namespace: &[&str]| daemon.spore_ok(&[&["logs", "hello"][..], namespace].concat());
    let has_logged = spore_test_harness::wait_until(std::time::Duration::from_secs(10), || {
        log(&["-n", "team"]).contains("stdout line 1 of 1")
    });
    assert!(has_logged, "{}", log(&["-n", "team"]));
    assert!(!log(&[]).contains("stdout line"), "{}", log(&[]));
    daemon.spore_ok(&["scale", "hello", "2", "--namespace", "team"]);
    let described = json_of(&daemon, &["describe", "hello", "--json", "--namespace", "team"]);
    assert_eq!(
        (&described["namespace"], &described["replicas"]),
        (&json!("team"), &json!(2))
    );
    let shown = daemon.spore_ok(&["describe", "hello", "--namespace", "team"]);
    assert!(shown.contains("/function/hello.team"), "{shown}");
    let statistics = json_of(&daemon, &["stats", "hello", "--json", "--namespace", "team"]);
    assert_eq!(statistics["namespace"], "team");

    // A secret that a function of the namespace uses stays; that of another one is none of it.
    refused(&daemon, &["secret", "remove", "key", "--namespace", "team"]);
    daemon.spore_ok(&["remove", "hello", "--namespace", "team"]);
    daemon.spore_ok(&["secret", "remove", "key", "--namespace", "team"]);
    assert_eq!(
        json_of(&daemon, &["list", "--json", "--namespace", "team"]),
        json!([])
    );
    assert_eq!(daemon.get("/function/hello/").status, StatusCode::OK);
    for (arguments, says) in [
        (
            &["remove", "hello", "-n", "team"][..],
            "there is no function hello",
        ),
        (&["list", "-n", "nowhere"], "nowhere"),
        (&["list", "-n", "No Name"], "is no name of a namespace"),
        (&["info", "-n", "team"], "--namespace is for commands about"),
        (
            &["async", "drop", "--dead", "-n", "team"],
            "name a function of this one with --function",
        ),
    ] {
        let error = refused(&daemon, arguments);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

fn a_provider_serves_what_a_gateway_asks_it() {
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.spore_ok(&["remove", "httpd"]);
    assert!(daemon.stop().success(), "{}", daemon.log());
    let setup = |options: &[&str]| Setup {
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Setup::default()
    };
    daemon.start_again_as(setup(&["--role", "provider"]));
    let deployment = json!({ "service": "hello", "image": "httpd:latest", "namespace": "openfaas-fn" });
    let deployed = daemon.send_body(Method::POST, "/system/functions", deployment.to_string());
    assert_eq!(deployed.status, StatusCode::ACCEPTED, "{}", deployed.text());
    let status = || daemon.get("/system/function/hello?namespace=openfaas-fn").json();
    assert_eq!(status()["availableReplicas"], 1, "{}", status());
    // What a gateway of OpenFaaS's adds to a request on its way to its provider.
    let request = http::Request::builder()
        .method("POST")
        .uri("/function/hello.openfaas-fn/header?name=x-start-time")
        .header("x-call-id", "9d0e6f4a-0000-4000-8000-000000000001")
        .header("x-start-time", "1700000000123456789")
        .header("x-forwarded-for", "192.0.2.7:4242")
        .header("x-forwarded-host", "gateway:8080")
        .body("body".into());
    let answer = daemon.send(request.expect("a request")).expect("an answer");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (StatusCode::OK, "1700000000123456789")
    );
    assert_eq!(answer.header("x-call-id"), "9d0e6f4a-0000-4000-8000-000000000001");
    // Before an invocation of a function without instances it has one started, and asks until it is there.
    let scale = |replicas: u64| {
        let body = json!({ "serviceName": "hello", "replicas": replicas, "namespace": "openfaas-fn" });
        let path = "/system/scale-function/hello?namespace=openfaas-fn";
        let scaled = daemon.send_body(Method::POST, path, body.to_string());
        assert_eq!(scaled.status, StatusCode::ACCEPTED, "{}", scaled.text());
    };
    scale(0);
    assert!(status().get("availableReplicas").is_none(), "{}", status());
    scale(1);
    let answer = daemon.send_body(Method::POST, "/function/hello.openfaas-fn/count", "");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let info = daemon.get("/system/info").json();
    assert_eq!(
        (&info["provider"], &info["orchestration"]),
        (&json!("spore"), &json!("unikernel"))
    );
    for path in [
        "/ui/",
        "/async-function/hello",
        "/system/async",
        "/system/triggers",
    ] {
        assert_eq!(daemon.get(path).status, StatusCode::NOT_FOUND, "{path}");
    }
    let metrics = daemon.get("/metrics").text();
    let memory = r#"pod_memory_working_set_bytes{function_name="hello",namespace="openfaas-fn"} "#;
    let taken = metrics.lines().find_map(|line| line.strip_prefix(memory));
    let taken: u64 = taken.and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
    assert!(taken > 0, "an instance takes memory:\n{metrics}");
    let asked = daemon
        .get("/system/function/hello?namespace=openfaas-fn&usage=1")
        .json();
    let taken = asked["usage"]["totalMemoryBytes"].as_u64();
    assert!(taken.is_some_and(|bytes| bytes > 0), "{asked}");
    assert!(
        status().get("usage").is_none(),
        "only if it is asked for: {}",
        status()
    );
    let log = daemon.get("/system/logs?name=hello&namespace=openfaas-fn&follow=false");
    assert_eq!(log.header("content-type"), "application/x-ndjson");

    let folder = std::env::temp_dir();
    let folder = folder.to_str().expect("a path");
    let data = spore_test_harness::daemon::data_folder();
    let options = setup(&["--role", "provider", "--trigger-folder", folder]);
    let said = failed_start_as(data.path(), &options);
    assert!(
        said.contains("--trigger-folder is of no use with --role provider"),
        "{said}"
    );
}
