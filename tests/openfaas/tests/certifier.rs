//! The tests that OpenFaaS has for whatever offers its API, unmodified. Its images are made here: `functions/alpine` is
//! busybox, whose commands the tests run, and `theaxer/redirector` a server in of-watchdog's place.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use http::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use spore_test_harness::client::{request, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, tools};

pub(crate) const TESTS: &[Test] = &[
    ("certifier::functions_and_namespaces", tools::certifier, contract),
    ("certifier::command_line_programs", tools::certifier, commands),
    ("certifier::logs", tools::certifier, logs),
    ("certifier::scaling_under_load", tools::certifier, scaling),
];

/// The namespace besides the default one, in which cases are repeated.
const NAMESPACE: &str = "certifier-test";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const BUSYBOX: &str = "/bin/busybox";
/// Those of busybox's commands that the certifier runs.
const COMMANDS: [&str; 3] = ["cat", "env", "sha512sum"];

fn push_images(daemon: &Daemon) {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = root.path().join("bin");
    std::fs::create_dir(&folder).expect("it is ours");
    std::fs::copy(BUSYBOX, folder.join("busybox")).expect("busybox-static is installed");
    for command in COMMANDS {
        symlink("busybox", folder.join(command)).expect("it is ours");
    }
    push_root(daemon, root.path(), "env", "functions/alpine", &[]);

    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let watchdog = root.path().join("fwatchdog");
    std::fs::copy(program::build("redirector"), &watchdog).expect("it is ours");
    std::fs::write(root.path().join("handler"), "#!/fwatchdog\n").expect("it is ours");
    push_root(
        daemon,
        root.path(),
        "/fwatchdog",
        "theaxer/redirector",
        &["mode=http"],
    );
}

/// Pushes a root file system under a name that the certifier knows, with these variables in its configuration.
fn push_root(daemon: &Daemon, root: &Path, entrypoint: &str, name: &str, variables: &[&str]) {
    let root = root.to_str().expect("the temporary folder is UTF-8");
    daemon.spore_ok(&["deploy", "made", "--rootfs", root, "--entrypoint", entrypoint]);
    let mut manifest = request(Method::GET, "/v2/made/manifests/latest");
    manifest
        .headers_mut()
        .insert("accept", MANIFEST.parse().expect("a header"));
    let manifest = daemon.send(manifest).expect("an answer");
    assert_eq!(manifest.status, StatusCode::OK, "{}", manifest.text());
    let mut manifest = manifest.json();
    let digest = manifest["config"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let mut configuration = daemon.get(&format!("/v2/made/blobs/{digest}")).json();
    configuration["config"]["Env"] = json!(variables);
    let configuration = configuration.to_string();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&configuration)));
    manifest["config"] = json!({"mediaType": CONFIGURATION, "digest": digest, "size": configuration.len()});
    let upload = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    let uploaded = daemon.send_body(Method::POST, &upload, configuration);
    assert_eq!(uploaded.status, StatusCode::CREATED, "{}", uploaded.text());
    let mut push = with_body(
        Method::PUT,
        &format!("/v2/{name}/manifests/latest"),
        manifest.to_string(),
    );
    push.headers_mut()
        .insert("content-type", MANIFEST.parse().expect("a header"));
    let pushed = daemon.send(push).expect("an answer");
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text());
    daemon.spore_ok(&["remove", "made"]);
}

fn commands() {
    certify(&["Test_Invoke", "Test_SecretCRUD"]);
}

/// Takes more than a minute, in which the certifier waits for lines of the log.
fn logs() {
    certify(&["Test_FunctionLogs"]);
}

fn contract() {
    certify(&[
        "Test_Deploy_MetaData",
        "Test_ListNamespaces",
        "Test_HealthEndpoint",
        "Test_ProviderInfo",
        "Test_InvokeNotFound",
        "Test_ScaleMinimum",
        "Test_ScaleFromZeroDuringInvoke",
    ]);
}

/// Takes almost three minutes, in which the certifier sends ten requests a second and waits.
fn scaling() {
    certify(&[
        "Test_ScaleUpAndDownFromThroughPut",
        "Test_ScalingDisabledViaLabels",
    ]);
}

/// Runs these tests of the certifier, all of which have to pass.
fn certify(tests: &[&str]) {
    let daemon = Daemon::start();
    push_images(&daemon);
    let namespace = json!({ "name": NAMESPACE }).to_string();
    let made = daemon.send_body(Method::POST, "/system/namespace/", namespace);
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let output = Command::new(tools::certifier().as_ref().expect("it is there"))
        .args([
            "-test.v",
            "-test.count=1",
            "-test.run",
            &format!("^({})$", tests.join("|")),
        ])
        .arg(format!("-gateway=http://{}", daemon.address()))
        .arg(format!("-registryPrefix={}", daemon.address()))
        .env("CERTIFIER_NAMESPACES", NAMESPACE)
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .expect("the certifier can be run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let passed = said.lines().filter(|line| line.starts_with("--- PASS: ")).count();
    assert!(
        output.status.success() && passed == tests.len(),
        "{said}\n{}",
        daemon.log()
    );
}
