//! Functions that ask for their invocations by the Runtime API of AWS Lambda.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use spore_test_harness::client::{self, Answer};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::registry::{has_tools, run};
use spore_test_harness::{program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_request_is_an_event_and_the_response_an_answer,
    events_may_be_bodies_alone,
    errors_and_ends_are_told,
    programs_that_do_not_start_say_why,
    long_events_and_responses_are_refused,
    streams_are_passed_on,
    callers_at_the_same_time_get_their_own_answers,
    every_clone_answers,
    invocations_find_pristine_instances,
    the_protocol_is_shown_and_can_be_changed,
    a_program_in_the_foreground_gets_events,
    an_image_that_names_no_program_runs_its_bootstrap,
    an_image_of_the_form_of_amazons_runs_its_bootstrap,
];

const LAMBDA: &[&str] = &["--protocol", "lambda"];
const RAW: &[&str] = &[
    "--protocol",
    "lambda",
    "--annotation",
    "dev.spore.lambda.event=raw",
];

fn deploy(daemon: &Daemon, name: &str, options: &[&[&str]]) {
    daemon.deploy(name, &program::build("lambda"), &options.concat());
}

fn post(daemon: &Daemon, path: &str, body: &str) -> Answer {
    daemon.send_body(Method::POST, &format!("/function/{path}"), body.to_owned())
}

fn a_request_is_an_event_and_the_response_an_answer() {
    let daemon = Daemon::start();
    deploy(&daemon, "events", &[LAMBDA]);
    let request = Request::builder()
        .method("PUT")
        .uri("/function/events/a/b?c=d")
        .header("content-type", "text/plain")
        .header("cookie", "e=f")
        .header("x-call-id", "my-id")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .body("hello".into());
    let answer = daemon.send(request.expect("a request")).expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-call-id"), "my-id");
    let told = answer.json();
    assert_eq!(
        (&told["count"], &told["id"], &told["fields"]),
        (&json!(1), &json!("my-id"), &json!(7))
    );
    let event = &told["event"];
    assert_eq!(event["version"], "2.0");
    assert_eq!(
        (&event["rawPath"], &event["rawQueryString"]),
        (&json!("/a/b"), &json!("c=d"))
    );
    assert_eq!(event["requestContext"]["http"]["method"], "PUT");
    assert_eq!(
        (&event["body"], &event["cookies"]),
        (&json!("hello"), &json!(["e=f"]))
    );

    let answer = daemon.get("/function/events/do-answer");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (418, &[0, 0xff][..]));
    assert_eq!(answer.header("x-kind"), "teapot");
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=b", "c=d"]);
    let answer = daemon.get("/function/events/do-wrong");
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(
        answer.text().contains("no answer can be made"),
        "{}",
        answer.text()
    );
    for path in ["do-stray", "do-nonsense"] {
        let answer = daemon.get(&format!("/function/events/{path}"));
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    }
    let head = daemon.send(client::request(Method::HEAD, "/function/events"));
    assert_eq!(head.expect("an answer").status, StatusCode::OK);
    assert_eq!(
        daemon.get("/function/events").json()["count"],
        7,
        "one instance has served all"
    );
}

fn events_may_be_bodies_alone() {
    let daemon = Daemon::start();
    deploy(&daemon, "raw", &[RAW]);
    let answer = post(&daemon, "raw", r#"{"a":[1,2]}"#);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["event"], json!({"a": [1, 2]}));
    assert_eq!(
        daemon.get("/function/raw").json()["event"],
        json!({}),
        "no body is an empty event"
    );
    let answer = post(&daemon, "raw", "{no json");
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("no JSON"), "{}", answer.text());
    let answer = post(&daemon, "raw", r#""do-error""#);
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.header("x-amz-function-error"), "Unhandled");
    assert_eq!(answer.json()["stackTrace"], json!(["a"]), "as it was posted");
    let answer = post(&daemon, "raw", r#""do-answer""#);
    assert_eq!(
        (answer.status, &answer.json()["statusCode"]),
        (StatusCode::OK, &json!(418))
    );
}

fn errors_and_ends_are_told() {
    let daemon = Daemon::start();
    deploy(&daemon, "ends", &[LAMBDA, &["--timeout", "2s", "--max", "1"]]);
    let answer = daemon.get("/function/ends/do-error");
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.header("x-amz-function-error"), "Unhandled");
    assert_eq!(
        answer.json(),
        json!({"errorMessage": "not today", "errorType": "Refused"})
    );
    assert_eq!(
        daemon.get("/function/ends").json()["count"],
        2,
        "the instance lives on"
    );
    for (path, status, text) in [
        ("do-crash", StatusCode::BAD_GATEWAY, "SIGABRT"),
        ("do-exit", StatusCode::BAD_GATEWAY, "exited with status 3"),
        ("do-half", StatusCode::BAD_GATEWAY, ""),
        ("do-hang", StatusCode::GATEWAY_TIMEOUT, "2000 ms"),
    ] {
        let answer = daemon.get(&format!("/function/ends/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(text), "{path}: {}", answer.text());
        let next = daemon.get("/function/ends");
        assert_eq!(
            (next.status, &next.json()["count"]),
            (StatusCode::OK, &json!(1)),
            "after {path}"
        );
    }
}

fn programs_that_do_not_start_say_why() {
    let daemon = Daemon::start_with(&["--ready-timeout", "3s"]);
    deploy(&daemon, "badly", &[LAMBDA, &["--env", "STARTS_BADLY=1"]]);
    let answer = daemon.get("/function/badly");
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(
        answer.text().contains("Setup.Failed") && answer.text().contains("no database"),
        "{}",
        answer.text()
    );
    daemon.wait_for_log("badly", "no database");
    deploy(&daemon, "silent", &[LAMBDA, &["--env", "NEVER_ASKS=1"]]);
    let answer = daemon.get("/function/silent");
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert!(
        answer.text().contains("asking for its first invocation"),
        "{}",
        answer.text()
    );
    deploy(&daemon, "leaves", &[LAMBDA, &["--env", "LEAVES=1"]]);
    let answer = daemon.get("/function/leaves");
    assert!(
        answer.text().contains("exited with status 5"),
        "{}",
        answer.text()
    );
}

fn long_events_and_responses_are_refused() {
    let daemon = Daemon::start();
    deploy(&daemon, "long", &[RAW, &["--memory", "256Mi"]]);
    // Longer than any ring or buffer on the way.
    let text = "y".repeat(3 << 20);
    let answer = post(&daemon, "long", &json!(text).to_string());
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.status);
    assert_eq!(answer.json()["event"], Value::String(text));
    let answer = post(&daemon, "long", &json!("y".repeat(6 << 20)).to_string());
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().contains("6291456 bytes"), "{}", answer.text());
    let answer = post(&daemon, "long", r#""do-big""#);
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().contains("longer than"), "{}", answer.text());
    assert_eq!(post(&daemon, "long", "1").status, StatusCode::OK);
}

fn streams_are_passed_on() {
    let daemon = Daemon::start();
    deploy(&daemon, "streams", &[LAMBDA]);
    let answer = daemon.get("/function/streams/do-stream");
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (203, "one two three")
    );
    assert_eq!(answer.header("content-type"), "text/plain");
    let broken = daemon.send(client::request(Method::GET, "/function/streams/do-stream-broken"));
    assert!(broken.is_err(), "the answer breaks off");
    assert_eq!(daemon.get("/function/streams").status, StatusCode::OK);
}

fn callers_at_the_same_time_get_their_own_answers() {
    const CALLERS: usize = 6;
    const CALLS: usize = 25;
    let daemon = Daemon::start();
    deploy(&daemon, "busy", &[RAW, &["--max", "3"]]);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let daemon = &daemon;
            scope.spawn(move || {
                for call in 0..CALLS {
                    let event = json!([caller, call]);
                    let answer = post(daemon, "busy", &event.to_string());
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                    assert_eq!(answer.json()["event"], event);
                }
            });
        }
    });
}

fn every_clone_answers() {
    const CLONES: usize = 8;
    let daemon = Daemon::start();
    let cloned: &[&str] = &["--annotation", "dev.spore.idle-timeout=0s", "--snapshot"];
    for (name, more) in [("cloned", &[][..]), ("restored", &["--env", "RESTORES=1"])] {
        deploy(&daemon, name, &[RAW, cloned, more]);
        for call in 0..CLONES {
            let answer = post(&daemon, name, &call.to_string());
            assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
            let told = answer.json();
            assert_eq!(
                (&told["event"], &told["count"]),
                (&json!(call), &json!(1)),
                "{name}"
            );
        }
        let boots = daemon.spore_ok(&["logs", name]).matches("booted").count();
        assert_eq!(boots, 1, "{name}: the others were copies");
    }
}

fn invocations_find_pristine_instances() {
    let daemon = Daemon::start();
    deploy(&daemon, "fresh", &[RAW, &["--isolation-per-request"]]);
    deploy(
        &daemon,
        "reset",
        &[RAW, &["--isolation-per-request", "--snapshot"]],
    );
    for name in ["fresh", "reset"] {
        for call in 0..5 {
            let answer = post(&daemon, name, &call.to_string());
            let told = answer.json();
            assert_eq!(
                (&told["event"], &told["count"]),
                (&json!(call), &json!(1)),
                "{name}"
            );
        }
    }
}

fn the_protocol_is_shown_and_can_be_changed() {
    let daemon = Daemon::start();
    deploy(&daemon, "shown", &[LAMBDA]);
    assert!(daemon.spore_ok(&["describe", "shown"]).contains("lambda"));
    assert!(daemon.spore_ok(&["list"]).contains("PROTOCOL"));
    let listed: Value = serde_json::from_str(&daemon.spore_ok(&["list", "--json"])).expect("JSON");
    assert_eq!(listed[0]["protocol"], "lambda");
    daemon.deploy("shown", &program::build("httpd"), &[]);
    assert_eq!(daemon.get("/function/shown").status, StatusCode::OK);
    let refused = daemon.spore(&[
        "deploy",
        "shown",
        "--image",
        "x",
        "--annotation",
        "dev.spore.protocol=soap",
    ]);
    assert!(!refused.status.success());
    let ids: BTreeSet<_> = (0..3)
        .map(|_| daemon.get("/function/shown").header("x-call-id").to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
}

fn a_program_in_the_foreground_gets_events() {
    let daemon = Daemon::start();
    let port = program::free_port();
    let file = program::build("lambda");
    let mut command = daemon.command(&["run", "--protocol", "lambda", "--port", &port.to_string()]);
    let mut running = command.arg(file).spawn().expect("spore can be run");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let event = r#"{"from":"here"}"#;
    let mut answer = None;
    wait_until(Duration::from_secs(30), || {
        answer = client::send(address, client::with_body(Method::POST, "/", event)).ok();
        answer.is_some()
    });
    running.kill().expect("it runs");
    running.wait().expect("it ends");
    let answer = answer.expect("the program answers");
    assert_eq!(answer.json()["event"], json!({"from": "here"}));
}

/// An image without entry point and command, with the program at this place, imported under a name.
fn import_bare(daemon: &Daemon, name: &str, place: &str) {
    let scratch = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::copy(program::build("lambda"), scratch.path().join("bootstrap")).expect("writable");
    let umoci = |arguments: &[&str]| drop(run("umoci", arguments, scratch.path()));
    umoci(&["init", "--layout", name]);
    let image = format!("{name}:1");
    umoci(&["new", "--image", &image]);
    umoci(&["insert", "--rootless", "--image", &image, "bootstrap", place]);
    let layout = scratch.path().join(name).display().to_string();
    daemon.spore_ok(&["image", "import", &layout]);
}

fn an_image_that_names_no_program_runs_its_bootstrap() {
    if !has_tools(&["umoci"]) {
        return;
    }
    let mut daemon = Daemon::start();
    import_bare(&daemon, "runtime", "/var/runtime/bootstrap");
    import_bare(&daemon, "task", "/var/task/bootstrap");
    import_bare(&daemon, "elsewhere", "/bin/bootstrap");
    let check = |daemon: &Daemon| {
        for name in ["runtime", "task"] {
            let told = daemon.get(&format!("/function/{name}/path")).json();
            assert_eq!(told["event"]["rawPath"], "/path", "{told}");
            assert_eq!(told["handler"], "bootstrap");
        }
    };
    for name in ["runtime", "task"] {
        let image = format!("{name}:1");
        daemon.spore_ok(&["deploy", name, "--image", &image]);
        // A second time, its root is there.
        daemon.spore_ok(&["deploy", name, "--image", &image]);
        assert!(daemon.spore_ok(&["describe", name]).contains("lambda"));
    }
    check(&daemon);
    let refused = daemon.spore(&["deploy", "elsewhere", "--image", "elsewhere:1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("nor a bootstrap for AWS Lambda"),
        "{said}"
    );
    assert!(daemon.stop().success());
    daemon.start_again();
    check(&daemon);
}

/// What is in AWS's base images, with the shell of busybox.
const AMAZONS_ENTRYPOINT: &str = r#"#!/bin/sh
if [ $# -ne 1 ]; then
  echo "entrypoint requires the handler name to be the first argument" 1>&2
  exit 142
fi
export _HANDLER="$1"

RUNTIME_ENTRYPOINT=/var/runtime/bootstrap
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then
  exec /usr/local/bin/aws-lambda-rie $RUNTIME_ENTRYPOINT
else
  exec $RUNTIME_ENTRYPOINT
fi
"#;

fn an_image_of_the_form_of_amazons_runs_its_bootstrap() {
    let daemon = Daemon::start();
    let scratch = tempfile::tempdir().expect("the temporary folder is writable");
    let root = scratch.path();
    for name in ["bin", "var/runtime", "var/task"] {
        std::fs::create_dir_all(root.join(name)).expect("writable");
    }
    std::fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox-static is installed");
    std::fs::copy(program::build("lambda"), root.join("var/runtime/bootstrap")).expect("writable");
    let script = root.join("lambda-entrypoint.sh");
    std::fs::write(&script, AMAZONS_ENTRYPOINT).expect("writable");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    daemon.spore_ok(&[
        "deploy",
        "amazons",
        "--rootfs",
        root.to_str().expect("UTF-8"),
        "--entrypoint",
        "/lambda-entrypoint.sh app.handler",
        "--workdir",
        "/var/task",
    ]);
    assert!(daemon.spore_ok(&["describe", "amazons"]).contains("lambda"));
    let told = daemon.get("/function/amazons/path").json();
    assert_eq!(told["event"]["rawPath"], "/path", "{told}");
    assert_eq!(told["handler"], "app.handler");
}
