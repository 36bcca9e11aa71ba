//! The tests that OpenFaaS has for whatever offers its API, unmodified.
//!
//! Those that compare what command-line programs print are left out until functions can be such: `Test_Invoke`,
//! `Test_FunctionLogs`, `Test_SecretCRUD`. So is `Test_ScaleFromZeroDuringInvoke`, which waits for an instance that nobody has
//! asked for (docs/openfaas.md).

use std::process::{Command, Stdio};

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client::request;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, tools};

pub(crate) const TESTS: &[Test] = &[
    (
        "certifier::what_needs_no_command_line_programs",
        tools::certifier,
        contract,
    ),
    ("certifier::scaling_under_load", tools::certifier, scaling),
];

/// The namespace besides the default one, in which cases are repeated.
const NAMESPACE: &str = "certifier-test";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Gives the image of an HTTP function the names that the certifier knows it by.
fn push_images(daemon: &Daemon) {
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let mut manifest = request(Method::GET, "/v2/httpd/manifests/latest");
    manifest
        .headers_mut()
        .insert("accept", MANIFEST.parse().expect("a header"));
    let manifest = daemon.send(manifest).expect("an answer");
    assert_eq!(manifest.status, StatusCode::OK, "{}", manifest.text());
    for name in ["functions/alpine", "theaxer/redirector"] {
        let mut push = request(Method::PUT, &format!("/v2/{name}/manifests/latest"));
        push.headers_mut()
            .insert("content-type", MANIFEST.parse().expect("a header"));
        *push.body_mut() = manifest.body.clone();
        let pushed = daemon.send(push).expect("an answer");
        assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text());
    }
    daemon.spore_ok(&["remove", "httpd"]);
}

fn contract() {
    certify(&[
        "Test_Deploy_MetaData",
        "Test_ListNamespaces",
        "Test_HealthEndpoint",
        "Test_ProviderInfo",
        "Test_InvokeNotFound",
        "Test_ScaleMinimum",
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
