//! OpenFaaS's command line.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};
use tempfile::TempDir;

use crate::{Test, tools};

pub(crate) const TESTS: &[Test] = &[
    ("faas_cli::logs_in_and_out", tools::faas_cli, logs_in_and_out),
    (
        "faas_cli::deploys_shows_invokes_and_removes",
        tools::faas_cli,
        functions,
    ),
    ("faas_cli::deploys_a_stack", tools::faas_cli, stack),
    ("faas_cli::keeps_secrets", tools::faas_cli, secrets),
    ("faas_cli::keeps_namespaces", tools::faas_cli, namespaces),
];

/// The command line with a home of its own.
struct Cli {
    gateway: String,
    home: TempDir,
}

impl Cli {
    fn of(daemon: &Daemon) -> Self {
        Self {
            gateway: format!("http://{}", daemon.address()),
            home: tempfile::tempdir().expect("the temporary folder is writable"),
        }
    }

    /// Runs it; what it printed, as a success or an error.
    fn try_run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let tool = tools::faas_cli().as_ref().expect("it is there");
        let mut process = Command::new(tool)
            .args(arguments)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("OPENFAAS_URL", &self.gateway)
            .env("NO_COLOR", "1")
            .env_remove("OPENFAAS_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("faas-cli can be run");
        let mut pipe = process.stdin.take().expect("it is a pipe");
        // It need not read.
        let _ = pipe.write_all(input.as_bytes());
        drop(pipe);
        let output = process.wait_with_output().expect("it ends");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(said)
        }
    }

    /// Runs it where it has to succeed.
    fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> String {
        self.try_run(arguments, input)
            .unwrap_or_else(|said| panic!("faas-cli {arguments:?}: {said}"))
    }

    /// Runs it where it has to fail.
    fn fail(&self, arguments: &[&str]) -> String {
        let said = self.try_run(arguments, "");
        said.expect_err("faas-cli should have failed")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home.path().join(name), text).expect("it is ours");
    }
}

/// A daemon that has the image `NAME:latest` of a program, and no function.
fn with_image(name: &str) -> Daemon {
    let daemon = Daemon::start();
    push(&daemon, name);
    daemon
}

fn push(daemon: &Daemon, name: &str) {
    daemon.deploy(name, &program::build(name), &[]);
    daemon.spore_ok(&["remove", name]);
}

fn generated(daemon: &Daemon, file: &str) -> String {
    let path = daemon.data().join("credentials").join(file);
    std::fs::read_to_string(path).expect("the daemon has made it")
}

fn logs_in_and_out() {
    let daemon = Daemon::start_with(&["--basic-auth"]);
    let cli = Cli::of(&daemon);
    cli.fail(&["list"]);
    let login = ["login", "--username", "admin", "--password-stdin"];
    let refused = cli.try_run(&login, "wrong");
    assert!(refused.is_err(), "{refused:?}");
    let said = cli.run_with(&login, &generated(&daemon, "basic-auth-password"));
    assert!(said.contains("credentials saved"), "{said}");
    cli.run(&["list"]);
    cli.run(&["secret", "create", "key", "--from-literal", "hush"]);
    cli.run(&["logout"]);
    cli.fail(&["list"]);
}

fn functions() {
    let daemon = with_image("httpd");
    let cli = Cli::of(&daemon);
    cli.run(&["ready", "--attempts", "3"]);
    let version = cli.run(&["version", "--warn-update=false"]);
    assert!(
        version.contains("spore") && version.contains("unikernel"),
        "{version}"
    );
    let deploy = [
        "deploy",
        "--image=httpd:latest",
        "--name=hello",
        "--env=COLOUR=blue",
        "--label=com.openfaas.scale.max=3",
        "--annotation=note=kept",
        "--memory-limit=64Mi",
    ];
    let said = cli.run(&deploy);
    assert!(said.contains("Accepted"), "{said}");
    let listed = cli.run(&["list"]);
    assert!(listed.contains("hello"), "{listed}");
    assert_eq!(cli.run(&["list", "--quiet"]).trim(), "hello");
    let answer = cli.run_with(&["invoke", "hello"], "body");
    assert!(
        answer.contains("hello from an ordinary Linux program"),
        "{answer}"
    );
    let described = cli.run(&["describe", "hello"]);
    for part in ["hello", "httpd:latest", "COLOUR", "note", "Ready", "64Mi"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    cli.run(&["ready", "hello", "--attempts", "3"]);
    // It updates by PUT what is there, and says so.
    let again = cli.run(&[&deploy[..], &["--env=COLOUR=red"]].concat());
    assert!(again.contains("Accepted"), "{again}");
    let environment = daemon.get("/function/hello/environment").text();
    assert!(environment.contains("COLOUR=red"), "{environment}");
    daemon.get("/function/hello/log?lines=2");
    let mut logs = String::new();
    let is_there = wait_until(Duration::from_secs(20), || {
        logs = cli.run(&["logs", "hello", "--tail=false"]);
        logs.contains("stdout line 2 of 2")
    });
    assert!(is_there, "{logs}");
    let last = cli.run(&["logs", "hello", "--tail=false", "--lines=1"]);
    assert_eq!(last.trim().lines().count(), 1, "{last}");
    cli.run(&["remove", "hello"]);
    assert_eq!(cli.run(&["list", "--quiet"]).trim(), "");
    let missing = cli.try_run(&["describe", "hello"], "");
    assert!(missing.is_err(), "{missing:?}");
}

fn stack() {
    let daemon = with_image("httpd");
    let cli = Cli::of(&daemon);
    let text = "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  one:\n    skip_build: true\n    image: httpd:latest\n    \
        environment:\n      COLOUR: green\n  two:\n    skip_build: true\n    image: httpd:latest\n";
    cli.write("stack.yaml", text);
    cli.run(&["deploy", "-f", "stack.yaml"]);
    for name in ["one", "two"] {
        let answer = cli.run(&["invoke", name]);
        assert!(answer.contains("hello from"), "{answer}");
    }
    let environment = daemon.get("/function/one/environment").text();
    assert!(environment.contains("COLOUR=green"), "{environment}");
    cli.run(&["remove", "-f", "stack.yaml"]);
    assert_eq!(cli.run(&["list", "--quiet"]).trim(), "");
}

fn secrets() {
    let daemon = with_image("secrets");
    let cli = Cli::of(&daemon);
    cli.run(&["secret", "create", "key", "--from-literal", "hush"]);
    cli.write("other.txt", "from a file");
    cli.run(&["secret", "create", "other", "--from-file", "other.txt"]);
    cli.run(&["secret", "create", "key", "--from-literal", "hushed", "--replace"]);
    let listed = cli.run(&["secret", "list"]);
    assert!(listed.contains("key") && listed.contains("other"), "{listed}");
    cli.run(&[
        "deploy",
        "--image=secrets:latest",
        "--name=reader",
        "--secret=key",
        "--secret=other",
    ]);
    let shown = cli.run(&["invoke", "reader"]);
    assert!(
        shown.contains("key 100444 hushed\nother 100444 from a file\n"),
        "{shown}"
    );
    cli.run(&["secret", "update", "key", "--from-literal", "louder"]);
    let shown = cli.run(&["invoke", "reader"]);
    assert!(shown.contains("key 100444 louder\n"), "{shown}");
    cli.run(&["remove", "reader"]);
    cli.run(&["secret", "remove", "key"]);
    let listed = cli.run(&["secret", "list"]);
    assert!(!listed.contains("key"), "{listed}");
}

fn namespaces() {
    let daemon = with_image("httpd");
    let cli = Cli::of(&daemon);
    cli.run(&[
        "namespace",
        "create",
        "team",
        "--label",
        "a=b",
        "--annotation",
        "c=d",
    ]);
    let listed = cli.run(&["namespaces"]);
    assert!(
        listed.contains("openfaas-fn") && listed.contains("team"),
        "{listed}"
    );
    let shown = cli.run(&["namespace", "get", "team"]);
    assert!(shown.contains("team"), "{shown}");
    cli.run(&["namespace", "update", "team", "--label", "a=c"]);
    let label = daemon.get("/system/namespace/team").json()["labels"]["a"].clone();
    assert_eq!(label, "c");
    cli.run(&[
        "deploy",
        "--image=httpd:latest",
        "--name=hello",
        "--namespace=team",
    ]);
    assert_eq!(cli.run(&["list", "--quiet"]).trim(), "");
    assert_eq!(cli.run(&["list", "--quiet", "--namespace=team"]).trim(), "hello");
    let answer = cli.run(&["invoke", "hello", "--namespace=team"]);
    assert!(answer.contains("hello from"), "{answer}");
    cli.run(&["remove", "hello", "--namespace=team"]);
    cli.run(&["namespace", "remove", "team"]);
    assert!(!cli.run(&["namespaces"]).contains("team"));
}
