//! Images of a unikernel that is none of Spore's (`tests/programs/foreign`), packaged as Unikraft's are: a layer with the kernel,
//! annotations that name it, and a monitor where others name an operating system.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

/// Tests of the suite that ask for what such a unikernel does not have, and why.
pub(crate) const NOT_FOR_UNIKERNELS: &[(&str, &str)] = &[
    (
        "an_exit_is_told_with_its_status",
        "Unikraft's unikernels switch their machine off, without a status",
    ),
    (
        "secrets_are_files_that_nothing_can_be_changed_of",
        "it has no files: secrets are refused at the deployment",
    ),
    (
        "a_root_file_system_is_there_with_its_libraries",
        "it runs no Linux programs",
    ),
    (
        "a_program_runs_as_the_user_of_its_image",
        "it runs no Linux programs",
    ),
    (
        "a_program_that_cannot_be_started_is_told",
        "it has no working directory",
    ),
    (
        "memory_ends_with_the_limit_and_the_instance_alone",
        "what a unikernel does without memory is its own affair",
    ),
];

/// Asked of unikernels alone.
pub(crate) const READINESS: crate::Test = ("a_unikernel_is_ready_when_it_says_so", readiness);

/// It is asked by the request that its image names until it answers with a success, which it does at the third time.
fn readiness(kind: &'static str) {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    for (image, request) in [("ready", "POST /ready"), ("odd", "SEND /ready")] {
        let layout = folder.path().join(image);
        write_layout(
            &layout,
            "httpd",
            "8080",
            &[("dev.spore.unikernel.ready", request)],
        );
        daemon.spore_ok(&["image", "import", layout.to_str().expect("UTF-8")]);
    }
    daemon.spore_ok(&["deploy", "web", "--image", "ready", "--sandbox", kind]);
    // The requests before this one have all been of the platform's own.
    assert_eq!(crate::life::answer(&daemon, "web/count"), "4\n");
    let output = daemon.spore(&["deploy", "odd", "--image", "odd", "--sandbox", kind]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("`GET /PATH`"),
        "{errors}"
    );
    let output = daemon.spore(&["deploy", "other", "--image", "ready"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("--sandbox foreign"),
        "{errors}"
    );
}

/// Deploys the unikernel as one of the test programs.
pub(crate) fn deploy(daemon: &Daemon, name: &str, acts_as: &str, options: &[&str]) {
    let mut options = options.to_vec();
    // The port is the image's.
    let port = options.iter().position(|option| *option == "--port").map(|at| {
        options.remove(at);
        options.remove(at)
    });
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let image = format!("unikernel-{acts_as}-{}", port.unwrap_or("8080"));
    let layout = folder.path().join(&image);
    write_layout(&layout, acts_as, port.unwrap_or("8080"), &[]);
    daemon.spore_ok(&["image", "import", layout.to_str().expect("UTF-8")]);
    daemon.spore_ok(&[&["deploy", name, "--image", &image], &options[..]].concat());
}

/// Writes an image as an OCI layout.
pub(crate) fn write_layout(folder: &Path, acts_as: &str, port: &str, labels: &[(&str, &str)]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let blob = |bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&digest), bytes).expect("a blob");
        format!("sha256:{digest}")
    };
    let described = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "size": bytes.len(), "digest": blob(bytes) });
    let mut layer = tar::Builder::new(Vec::new());
    let kernel = program::build_unikernel();
    layer
        .append_path_with_name(&kernel, "unikraft/bin/kernel")
        .expect("a layer");
    let layer = layer.into_inner().expect("a layer");
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let configuration = json!({
        "architecture": "amd64", "os": "qemu",
        "config": { "Cmd": [acts_as, "second argument"], "ExposedPorts": { format!("{port}/tcp"): {} }, "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [blob(&layer)] },
    });
    let configuration = configuration.to_string();
    let mut layer = described("application/vnd.oci.image.layer.v1.tar", &layer);
    layer["annotations"] = json!({ "org.unikraft.kernel.image": "/unikraft/bin/kernel" });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", configuration.as_bytes()),
        "layers": [layer],
        "annotations": { "org.unikraft.image.name": acts_as, "org.unikraft.kernel.version": "0.17.0" },
    });
    let manifest = manifest.to_string();
    let mut named: Value = described("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [named] });
    fs::write(folder.join("index.json"), index.to_string()).expect("an index");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
}
