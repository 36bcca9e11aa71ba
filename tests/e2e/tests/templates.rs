//! Functions from their templates, in each language: written, tested, deployed, invoked; and several of them by a stack.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use http::{Method, StatusCode};
use serde_json::Value;
use spore_test_harness::daemon::{Daemon, Setup};
use spore_test_harness::program;
use spore_test_harness::registry::Registry;

use crate::{Test, with_tools};

pub(crate) const TESTS: &[Test] = with_tools![
    a_c_function_goes_from_template_to_answer: ["musl-gcc"],
    a_python_function_goes_from_template_to_answer: ["python3"],
    a_node_function_goes_from_template_to_answer: ["node"],
    a_go_function_goes_from_template_to_answer: ["go"],
    a_rust_function_goes_from_template_to_answer: ["cargo"],
    a_program_goes_from_template_to_answer: ["musl-gcc"],
    a_dockerfile_goes_from_template_to_answer: ["buildah", "python3"],
    a_dockerfile_is_built_as_it_is_written: ["buildah", "python3", "docker-registry"],
    a_python_handler_gets_and_gives_everything: ["python3"],
    a_node_handler_gets_and_gives_everything: ["node"],
    packages_of_python_come_along: ["/usr/bin/pip3"],
    packages_of_node_come_along: ["npm"],
    hooks_run_around_a_snapshot: ["python3", "node"],
    hooks_in_go_run_around_a_snapshot: ["go"],
    hooks_in_rust_run_around_a_snapshot: ["cargo"],
    hooks_that_fail_end_functions_in_go_and_rust: ["go", "cargo"],
    functions_of_a_language_share_its_layers: ["python3"],
    a_stack_goes_up_as_a_whole_and_in_part: ["python3", "node"],
];

/// What the templates' handlers say.
const GREETING: &str = "Hello, Ada, from a unikernel!\n";

fn text(path: &Path) -> &str {
    path.to_str().expect("test folders are UTF-8")
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).expect("the temporary folder is writable");
}

/// Runs what a template's README says tests its handler.
fn run_test(folder: &Path, command: &str) {
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("the test can be run");
    assert!(
        output.status.success(),
        "{command}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// From `spore new` to the answer, and to that of a changed source.
fn goes_from_template_to_answer(language: &str, handler: &str, test: &str) {
    let daemon = Daemon::start();
    let parent = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = parent.path().join("hello");
    daemon.spore_ok(&["new", "hello", "--lang", language, "--directory", text(&folder)]);
    daemon.spore_ok(&["build", text(&folder)]);
    run_test(&folder, test);
    daemon.spore_ok(&["deploy", text(&folder)]);
    assert_eq!(daemon.get("/function/hello?name=Ada").text(), GREETING);
    let answer = daemon.send_body(Method::POST, "/function/hello/some/path", "abc");
    assert!(
        answer.text().ends_with("You sent 3 bytes.\n"),
        "{}",
        answer.text()
    );
    daemon.wait_for_log("hello", "POST /some/path");

    let source = folder.join(handler);
    let code = std::fs::read_to_string(&source).expect("the template has a handler");
    write(&source, &code.replace("Hello", "Good day"));
    daemon.spore_ok(&["up", text(&folder)]);
    assert_eq!(
        daemon.get("/function/hello?name=Ada").text(),
        GREETING.replace("Hello", "Good day")
    );
}

fn a_c_function_goes_from_template_to_answer() {
    goes_from_template_to_answer(
        "c",
        "handler.c",
        "cc -Ibuild/sdk tests/handler_test.c handler.c build/sdk/*.c -o build/test && build/test",
    );
}

fn a_python_function_goes_from_template_to_answer() {
    goes_from_template_to_answer("python", "handler.py", "python3 -m unittest discover tests");
}

fn a_node_function_goes_from_template_to_answer() {
    goes_from_template_to_answer("node", "handler.js", "node --test");
}

fn a_go_function_goes_from_template_to_answer() {
    goes_from_template_to_answer("go", "handler.go", "go test .");
}

fn a_rust_function_goes_from_template_to_answer() {
    goes_from_template_to_answer(
        "rust",
        "src/main.rs",
        "CARGO_TARGET_DIR=build/target cargo test --quiet",
    );
}

fn a_program_goes_from_template_to_answer() {
    let daemon = Daemon::start();
    let parent = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = parent.path().join("hello");
    daemon.spore_ok(&["new", "hello", "--lang", "binary", "--directory", text(&folder)]);
    let error = error_of(&daemon.spore(&["deploy", text(&folder)]));
    assert!(
        error.contains("hello/function"),
        "the missing program is named: {error}"
    );
    let program = folder.join("function");
    std::fs::copy(program::build("httpd"), &program).expect("the temporary folder is writable");
    run_test(&folder, &format!("PORT={} tests/smoke.sh", program::free_port()));
    daemon.spore_ok(&["up", text(&folder)]);
    assert!(daemon.get("/function/hello").text().starts_with("hello"));
}

/// The template as it is written, with a registry that stands in for docker.io, and whose image has our runtime.
fn a_dockerfile_is_built_as_it_is_written() {
    let registry = Registry::start();
    let daemon = Daemon::start_as(Setup {
        options: vec!["--mirror".to_owned(), "docker.io=127.0.0.1:9".to_owned()],
        ..Setup::default()
    });
    let nothing = "def handle(event, context):\n    return None\n";
    let _base = deploy_handler(&daemon, "base", "handler.py", nothing, &[]);
    let name = format!("{}/library/python:3.13-slim", registry.address());
    daemon.spore_ok(&["image", "push", "base", &name]);
    let parent = tempfile::tempdir().expect("the temporary folder is writable");
    let registries = parent.path().join("registries.conf");
    write(
        &registries,
        &format!(
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"{}\"\ninsecure = true\n",
            registry.address()
        ),
    );
    let folder = parent.path().join("hello");
    let directory = ["--directory", text(&folder)];
    daemon.spore_ok(&[&["new", "hello", "--lang", "dockerfile"][..], &directory].concat());
    let up = |folder: &Path| {
        let mut command = daemon.command(&["up", text(folder)]);
        let output = command.env("CONTAINERS_REGISTRIES_CONF", &registries).output();
        let output = output.expect("the spore binary can be run");
        assert!(output.status.success(), "{output:?}");
    };
    up(&folder);
    assert_eq!(daemon.get("/function/hello?name=Ada").text(), GREETING);
    let source = folder.join("server.py");
    let code = std::fs::read_to_string(&source).expect("the template has a server");
    write(&source, &code.replace("Hello", "Good day"));
    up(&folder);
    assert_eq!(
        daemon.get("/function/hello?name=Ada").text(),
        GREETING.replace("Hello", "Good day")
    );
}

fn a_dockerfile_goes_from_template_to_answer() {
    let daemon = Daemon::start();
    let parent = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = parent.path().join("hello");
    daemon.spore_ok(&[
        "new",
        "hello",
        "--lang",
        "dockerfile",
        "--directory",
        text(&folder),
    ]);
    run_test(&folder, "python3 -m unittest discover tests");
    // The template's own image would come from a registry.
    std::fs::copy(program::build("httpd"), folder.join("server")).expect("the temporary folder is writable");
    write(
        &folder.join("Dockerfile"),
        "FROM scratch\nARG WORD=none\nLABEL word=$WORD\nCOPY server /bin/server\nENTRYPOINT [\"/bin/server\"]\nEXPOSE 8080\n",
    );
    daemon.spore_ok(&["up", text(&folder)]);
    assert!(daemon.get("/function/hello").text().starts_with("hello"));
    write(&folder.join("Dockerfile"), "FROM scratch\nCOPY absent /absent\n");
    let error = error_of(&daemon.spore(&["up", text(&folder)]));
    assert!(error.contains("absent") && error.contains("buildah"), "{error}");
}

/// Deploys a function of one file.
fn deploy_handler(
    daemon: &Daemon,
    name: &str,
    file: &str,
    code: &str,
    options: &[&str],
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    write(&folder.path().join("spore.toml"), &format!("name = \"{name}\"\n"));
    write(&folder.path().join(file), code);
    daemon.spore_ok(&[&["deploy", text(folder.path())], options].concat());
    folder
}

/// What both languages' handlers below must do.
fn gets_and_gives_everything(daemon: &Daemon, failure: &str) {
    let answer = daemon.send_body(Method::PUT, "/function/echo/a%20b?x=1&y=%C3%A4&x=2", "body");
    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.headers["x-own"], "yes");
    assert_eq!(answer.headers["content-type"], "application/json");
    let seen: Value = answer.json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/a b");
    assert_eq!((&seen["x"], &seen["y"]), (&"1".into(), &"ä".into()));
    assert_eq!(seen["body"], "body");
    // What is no answer as a whole is the body.
    assert_eq!(daemon.get("/function/echo/text").text(), "just text");
    assert_eq!(daemon.get("/function/echo/nothing").text(), "");
    let failed = daemon.get("/function/echo/fail");
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        !failed.text().contains("secret"),
        "callers do not see what went wrong: {}",
        failed.text()
    );
    daemon.wait_for_log("echo", failure);
    assert_eq!(
        daemon.get("/function/echo/text").status,
        StatusCode::OK,
        "it goes on"
    );
    // Large bodies, both ways.
    let large = "x".repeat(3 << 20);
    let answer = daemon.send_body(Method::POST, "/function/echo/mirror", large.clone());
    assert!(answer.text() == large, "{} bytes came back", answer.body.len());
}

fn a_python_handler_gets_and_gives_everything() {
    let daemon = Daemon::start();
    let code = "
async def handle(event, context):
    if event.path == '/text':
        return 'just text'
    if event.path == '/nothing':
        return None
    if event.path == '/fail':
        raise ValueError('a secret')
    if event.path == '/mirror':
        return event.body
    seen = {'method': event.method, 'path': event.path, 'x': event.query['x'], 'y': event.query['y'],
            'body': event.body.decode(), 'host': event.headers['HOST'], 'name': context.hostname}
    return {'statusCode': 418, 'headers': {'X-Own': 'yes'}, 'body': seen}
";
    let _folder = deploy_handler(&daemon, "echo", "handler.py", code, &[]);
    gets_and_gives_everything(&daemon, "ValueError: a secret");
}

fn a_node_handler_gets_and_gives_everything() {
    let daemon = Daemon::start();
    let code = "
export default async (event, context) => {
  switch (event.path) {
    case '/text': return 'just text';
    case '/nothing': return undefined;
    case '/fail': throw new Error('a secret');
    case '/mirror': return event.rawBody;
  }
  const seen = { method: event.method, path: event.path, x: event.query.x, y: event.query.y, body: String(event.body) };
  return context.status(418).headers({ 'X-Own': 'yes' }).succeed(seen);
};
";
    let _folder = deploy_handler(&daemon, "echo", "handler.mjs", code, &[]);
    gets_and_gives_everything(&daemon, "Error: a secret");
}

/// A wheel with one module, as small as pip takes it.
fn write_wheel(folder: &Path) {
    let code = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/greeting-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('greeting.py', 'WORD = \"Ahoy\"\\n')
    wheel.writestr('greeting-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n')
    wheel.writestr('greeting-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('greeting-1.0.dist-info/RECORD', '')
";
    let status = Command::new("python3").args(["-c", code, text(folder)]).status();
    assert!(status.expect("python3 can be run").success());
}

fn packages_of_python_come_along() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    write_wheel(folder.path());
    write(&folder.path().join("spore.toml"), "name = \"greet\"\n");
    write(
        &folder.path().join("requirements.txt"),
        "./greeting-1.0-py3-none-any.whl\n",
    );
    write(
        &folder.path().join("handler.py"),
        "import greeting\ndef handle(event, context):\n    return greeting.WORD\n",
    );
    daemon.spore_ok(&["deploy", text(folder.path())]);
    assert_eq!(daemon.get("/function/greet").text(), "Ahoy");
    // What cannot be had is an error with pip's own words.
    write(
        &folder.path().join("requirements.txt"),
        "./absent-1.0-py3-none-any.whl\n",
    );
    let error = error_of(&daemon.spore(&["deploy", text(folder.path())]));
    assert!(error.contains("absent"), "{error}");
}

fn packages_of_node_come_along() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let package = folder.path().join("vendor/greeting");
    std::fs::create_dir_all(&package).expect("the temporary folder is writable");
    write(
        &package.join("package.json"),
        r#"{"name": "greeting", "version": "1.0.0", "main": "index.js"}"#,
    );
    write(&package.join("index.js"), "module.exports = 'Ahoy';\n");
    write(&folder.path().join("spore.toml"), "name = \"greet\"\n");
    write(
        &folder.path().join("package.json"),
        r#"{"name": "greet", "dependencies": {"greeting": "file:vendor/greeting"}}"#,
    );
    write(
        &folder.path().join("handler.js"),
        "module.exports = async () => require('greeting');\n",
    );
    daemon.spore_ok(&["deploy", text(folder.path())]);
    assert_eq!(daemon.get("/function/greet").text(), "Ahoy");
    write(&folder.path().join("package.json"), "{\n");
    let error = error_of(&daemon.spore(&["deploy", text(folder.path())]));
    assert!(error.contains("package.json"), "{error}");
}

fn hooks_run_around_a_snapshot() {
    let daemon = Daemon::start();
    let python = "
import random, spore
log = []
spore.before_snapshot(lambda: log.append('before'))
spore.after_restore(lambda: log.append('after'))
def handle(event, context):
    return '%s %d' % (' '.join(log), random.getrandbits(60))
";
    let node = "
const spore = require('spore');
const log = [];
spore.beforeSnapshot(async () => log.push('before'));
spore.afterRestore(async () => log.push('after'));
module.exports = async () => `${log.join(' ')} ${Math.random()}`;
";
    let _python = deploy_handler(&daemon, "python", "handler.py", python, CLONED);
    let _node = deploy_handler(&daemon, "node", "handler.js", node, CLONED);
    for name in ["python", "node"] {
        each_clone_has_run_its_hooks(&daemon, name);
    }
}

/// With these, each request finds a clone of its own.
const CLONED: &[&str] = &["--snapshot", "--isolation-per-request"];

/// Asks a function that answers with the hooks that have run and a number that it has drawn.
fn each_clone_has_run_its_hooks(daemon: &Daemon, name: &str) {
    let answers: Vec<String> = (0..3)
        .map(|_| daemon.get(&format!("/function/{name}")).text().to_owned())
        .collect();
    let mut numbers: Vec<&str> = answers
        .iter()
        .map(|answer| {
            answer
                .strip_prefix("before after ")
                .unwrap_or_else(|| panic!("{answers:?}"))
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(
        numbers.len(),
        3,
        "each clone draws numbers of its own: {answers:?}"
    );
}

/// Writes a function as the template does, with another handler, and deploys it.
fn deploy_template(daemon: &Daemon, language: &str, file: &str, code: &str) -> tempfile::TempDir {
    let parent = tempfile::tempdir().expect("the temporary folder is writable");
    let name = format!("hooks-{language}");
    let folder = parent.path().join(&name);
    daemon.spore_ok(&["new", &name, "--lang", language, "--directory", text(&folder)]);
    write(&folder.join(file), code);
    daemon.spore_ok(&[&["deploy", text(&folder)], CLONED].concat());
    parent
}

/// `failure` is what the hook after a restore returns.
fn go_with_hooks(failure: &str) -> String {
    let code = r#"package function

import (
	"fmt"
	"net/http"
	"strings"

	"hooks-go/build/spore"
)

var log []string

func init() {
	spore.BeforeSnapshot(func() error {
		log = append(log, "before")
		return nil
	})
	spore.AfterRestore(func() error {
		log = append(log, "after")
		return FAILURE
	})
}

func Handle(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %d", strings.Join(log, " "), spore.Rand.Uint64())
}
"#;
    code.replace("FAILURE", failure)
}

fn hooks_in_go_run_around_a_snapshot() {
    let daemon = Daemon::start();
    let _folder = deploy_template(&daemon, "go", "handler.go", &go_with_hooks("nil"));
    each_clone_has_run_its_hooks(&daemon, "hooks-go");
}

/// `failure` is what else the hook after a restore does.
fn rust_with_hooks(failure: &str) -> String {
    let code = r#"use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response};

static LOG: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn note(word: &'static str) {
    LOG.lock().unwrap().push(word);
}

async fn handle(_: Request<Bytes>) -> Response<Bytes> {
    let mut number = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut number).unwrap();
    let log = LOG.lock().unwrap().join(" ");
    Response::new(Bytes::from(format!("{log} {}", u64::from_le_bytes(number))))
}

fn main() {
    spore::before_snapshot(|| note("before"));
    spore::after_restore(|| {
        note("after");
        FAILURE
    });
    spore::serve(handle);
}
"#;
    code.replace("FAILURE", failure)
}

fn hooks_in_rust_run_around_a_snapshot() {
    let daemon = Daemon::start();
    let _folder = deploy_template(&daemon, "rust", "src/main.rs", &rust_with_hooks(""));
    each_clone_has_run_its_hooks(&daemon, "hooks-rust");
}

fn hooks_that_fail_end_functions_in_go_and_rust() {
    let daemon = Daemon::start();
    let go = go_with_hooks("fmt.Errorf(\"no luck today\")");
    let _go = deploy_template(&daemon, "go", "handler.go", &go);
    let rust = rust_with_hooks("panic!(\"no luck today\")");
    let _rust = deploy_template(&daemon, "rust", "src/main.rs", &rust);
    for name in ["hooks-go", "hooks-rust"] {
        let answer = daemon.get(&format!("/function/{name}"));
        assert!(!answer.status.is_success(), "{name}: {}", answer.text());
        daemon.wait_for_log(name, "no luck today");
    }
}

fn functions_of_a_language_share_its_layers() {
    let daemon = Daemon::start();
    let mut layers = Vec::new();
    let mut folders = Vec::new();
    for name in ["one", "two"] {
        let code = format!("def handle(event, context):\n    return {name:?}\n");
        folders.push(deploy_handler(&daemon, name, "handler.py", &code, &[]));
        assert_eq!(daemon.get(&format!("/function/{name}")).text(), name);
        let manifest = daemon.get(&format!("/v2/{name}/manifests/latest")).json();
        let of_image = manifest["layers"]
            .as_array()
            .expect("an image has layers")
            .clone();
        layers.push(of_image);
    }
    assert_eq!(layers[0].len(), layers[1].len());
    let (own, shared) = layers[0].split_last().expect("an image has layers");
    assert_eq!(shared, &layers[1][..shared.len()], "the runtime is the same");
    assert_ne!(Some(own), layers[1].last());
    assert!(
        own["size"].as_u64().expect("a layer has a size") < 1024,
        "only the code: {own}"
    );
    // Of what instances map, each has no more than its own.
    let derived = daemon.data().join("derived");
    let listed = |folder: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(folder).expect("the daemon has made it");
        entries.map(|entry| entry.expect("readable").path()).collect()
    };
    let bases = listed(&derived.join("bases"));
    assert_eq!(bases.len(), 1, "{bases:?}");
    assert!(bases[0].join("root.erofs").is_file());
    let heads: Vec<_> = listed(&derived)
        .into_iter()
        .filter(|folder| !folder.ends_with("bases"))
        .collect();
    assert_eq!(heads.len(), 2, "{heads:?}");
    for head in heads {
        let bytes: u64 = listed(&head)
            .iter()
            .map(|file| file.metadata().expect("readable").len())
            .sum();
        assert!(bytes < 128 << 10, "{}: {bytes}", head.display());
    }
    // The same source gives the same image.
    let digest = |folder: &Path| daemon.spore_ok(&["build", text(folder)]);
    assert_eq!(digest(folders[0].path()), digest(folders[0].path()));
}

fn error_of(output: &Output) -> String {
    assert!(
        !output.status.success(),
        "the command should have failed: {output:?}"
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn a_stack_goes_up_as_a_whole_and_in_part() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let run = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        command.current_dir(folder.path()).env("WORD", "Ahoy");
        command.output().expect("the spore binary can be run")
    };
    let run_ok = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run_ok(&["new", "first", "--lang", "python", "--append"]);
    run_ok(&["new", "second", "--lang", "node", "--append"]);
    let path = folder.path().join("stack.yaml");
    let mut stack = std::fs::read_to_string(&path).expect("the stack was written");
    stack.push_str("    environment:\n      WORD: ${WORD:-nothing}\n      OTHER: ${NONE:-default}\n");
    stack.push_str("    labels: {team: blue}\n    limits: {memory: 256Mi}\n");
    write(&path, &stack);
    write(
        &folder.path().join("second/handler.js"),
        "module.exports = async () => `${process.env.WORD} ${process.env.OTHER}`;\n",
    );
    // Deployed is what was pushed, and nothing was.
    let error = error_of(&run(&["deploy", "-f", "stack.yaml"]));
    assert!(error.contains("spore up"), "{error}");
    run_ok(&["push", "--filter", "sec*"]);
    run_ok(&["deploy", "--regex", "^second$"]);
    assert_eq!(daemon.get("/function/second").text(), "Ahoy default");
    assert_eq!(daemon.get("/function/first").status, StatusCode::NOT_FOUND);
    let up = run_ok(&["up"]);
    assert!(
        up.contains("first deployed") && up.contains("second updated"),
        "{up}"
    );
    assert_eq!(daemon.get("/function/first?name=Ada").text(), GREETING);
    let second = daemon.get("/system/function/second").json();
    assert_eq!(
        (&second["labels"]["team"], &second["limits"]["memory"]),
        (&"blue".into(), &"256Mi".into())
    );
    write(&path, "functions:\n  a:\n    lagn: c\n");
    let error = error_of(&run(&["up"]));
    assert!(error.contains("lagn") && error.contains("line 3"), "{error}");
}
