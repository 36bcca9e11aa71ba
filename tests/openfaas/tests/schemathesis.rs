//! Whatever the OpenAPI document lets a client ask is answered as it says.

use std::process::Command;

use spore_test_harness::daemon::{Daemon, Setup};
use spore_test_harness::{program, repository};

use crate::{Test, tools};

pub(crate) const TESTS: &[Test] = &[(
    "schemathesis::the_api_is_as_its_document_says",
    tools::schemathesis,
    the_api_is_as_its_document_says,
)];

/// Requests for each operation, unless `SPORE_SCHEMATHESIS_EXAMPLES` says otherwise.
const EXAMPLES: &str = "25";

fn the_api_is_as_its_document_says() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(folder.path().join("basic-auth-user"), "admin").expect("it is ours");
    std::fs::write(folder.path().join("basic-auth-password"), "right").expect("it is ours");
    let secrets = folder.path().to_str().expect("UTF-8");
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.stop();
    daemon.start_again_as(Setup {
        options: vec!["--secrets".to_owned(), secrets.to_owned()],
        ..Setup::default()
    });
    let tool = tools::schemathesis().as_ref().expect("it is there");
    let examples = std::env::var("SPORE_SCHEMATHESIS_EXAMPLES");
    let output = Command::new(tool)
        .arg("run")
        .arg(repository().join("docs/openapi.json"))
        .args(["--url", &format!("http://{}", daemon.address())])
        .args(["--auth", "admin:right", "--no-color", "--request-timeout", "30"])
        .args(["--max-examples", examples.as_deref().unwrap_or(EXAMPLES)])
        // Whether a value is good depends on more than its shape: which functions there are, and their settings. Parameters
        // that no operation has are ignored.
        .args([
            "--exclude-checks",
            "positive_data_acceptance,negative_data_rejection",
        ])
        // A log that is followed has no end to wait for.
        .args(["--exclude-path", "/system/logs"])
        .args(["--suppress-health-check", "all"])
        .current_dir(folder.path())
        .output()
        .expect("schemathesis can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("Test cases:"),
        "{said}{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        daemon.log()
    );
}
