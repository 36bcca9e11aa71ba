//! Images of a unikernel that is none of Spore's, in two forms: for QEMU (`tests/programs/foreign`), packaged as Unikraft's are, with a monitor
//! where others name an operating system; and for Solo5's hvt (`tests/programs/solo5`), packaged as Rumprun's are for urunc.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::sandbox;

/// Tests of the suite that ask for what such a unikernel does not have, and why.
const NOT_FOR_UNIKERNELS: &[(&str, &str)] = &[
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

/// Why a test is not asked of a kind, if it is not.
pub(crate) fn unasked(kind: &str, name: &str) -> Option<&'static str> {
    if kind == "foreign" && name == "an_exit_is_told_with_its_status" {
        return Some("Unikraft's unikernels switch their machine off, without a status");
    }
    let mut reasons = NOT_FOR_UNIKERNELS.iter();
    let found = reasons.find(|(unasked, _)| *unasked == name && sandbox(kind) == "foreign")?;
    Some(found.1)
}

/// What the two forms need besides what `spore info` says, where it is not here.
pub(crate) fn missing() -> impl Iterator<Item = (&'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_qemu = std::env::split_paths(&path).any(|folder| folder.join("qemu-system-x86_64").is_file());
    let has_kvm = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    let reasons = [
        (has_qemu, "foreign", "qemu-system-x86_64 is not in PATH"),
        (has_kvm, "foreign-hvt", "there is no KVM here"),
    ];
    let missing = reasons.into_iter().filter(|(is_here, ..)| !is_here);
    missing.map(|(_, kind, reason)| (kind, reason))
}

/// Asked of unikernels for Solo5's hvt alone.
pub(crate) const HVT: &[crate::Test] = &[
    ("a_unikernel_of_mirage_is_told_in_its_form", mirage),
    ("what_the_tender_cannot_run_is_told", refused),
];

fn mirage(_: &'static str) {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let image = Image {
        arguments: &["httpd", "--hello=mirage"],
        ..Image::hvt("mirage", program::build_solo5())
    };
    import(&daemon, folder.path(), "mirage", &image);
    daemon.spore_ok(&["deploy", "web", "--image", "mirage", "--sandbox", "foreign"]);
    assert!(crate::life::answer(&daemon, "web").contains("hello from"));
    assert_eq!(
        crate::life::answer(&daemon, "web/arguments"),
        "httpd\n--hello=mirage\n"
    );
}

fn refused(_: &'static str) {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let solo5 = program::build_solo5();
    // No unikernel of Solo5.
    import(
        &daemon,
        folder.path(),
        "linux",
        &Image::hvt("rumprun", program::build("httpd")),
    );
    daemon.spore_ok(&["deploy", "linux", "--image", "linux", "--sandbox", "foreign"]);
    let answer = daemon.get("/function/linux");
    assert!(answer.status.is_server_error(), "{}", answer.text());
    assert!(
        answer.text().contains("the unikernel cannot be run"),
        "{}",
        answer.text()
    );
    // A framework that has none for hvt, and a disk that the kernel does not know.
    import(&daemon, folder.path(), "osv", &Image::hvt("osv", solo5.clone()));
    let refusal = refusal(&daemon, "osv", &[]);
    assert!(
        refusal.contains("known for `hvt` are mirage, rumprun"),
        "{refusal}"
    );
    let image = Image {
        settings: &[("block", "/unikernel/app.hvt")],
        ..Image::hvt("rumprun", solo5)
    };
    import(&daemon, folder.path(), "disk", &image);
    daemon.spore_ok(&["deploy", "disk", "--image", "disk", "--sandbox", "foreign"]);
    let answer = daemon.get("/function/disk");
    assert!(
        answer.text().contains("the unikernel has none"),
        "{}",
        answer.text()
    );
    let refusal = self::refusal(&daemon, "disk", &["--memory", "5Gi"]);
    assert!(refusal.contains("4 GiB"), "{refusal}");
}

/// Why an image is not deployed.
fn refusal(daemon: &Daemon, image: &str, options: &[&str]) -> String {
    let fixed = ["deploy", "refused", "--image", image, "--sandbox", "foreign"];
    let output = daemon.spore(&[&fixed[..], options].concat());
    assert!(!output.status.success(), "{image} is deployed");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asked of unikernels alone.
pub(crate) const READINESS: crate::Test = ("a_unikernel_is_ready_when_it_says_so", readiness);

/// It is asked by the request that its image names until it answers with a success, which it does at the third time.
fn readiness(kind: &'static str) {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    for (image, request) in [("ready", "POST /ready"), ("odd", "SEND /ready")] {
        let labels = [("dev.spore.unikernel.ready", request)];
        let unikernel = Image {
            labels: &labels,
            ..Image::of(kind)
        };
        import(&daemon, folder.path(), image, &unikernel);
    }
    let kind = sandbox(kind);
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
pub(crate) fn deploy(daemon: &Daemon, kind: &str, name: &str, acts_as: &str, options: &[&str]) {
    let mut options = options.to_vec();
    // The port is the image's.
    let port = options.iter().position(|option| *option == "--port").map(|at| {
        options.remove(at);
        options.remove(at)
    });
    let port = port.unwrap_or("8080");
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let image = format!("unikernel-{acts_as}-{port}");
    let arguments = [acts_as, "second-argument"];
    let unikernel = Image {
        port,
        arguments: &arguments,
        ..Image::of(kind)
    };
    import(daemon, folder.path(), &image, &unikernel);
    daemon.spore_ok(&[&["deploy", name, "--image", &image], &options[..]].concat());
}

fn import(daemon: &Daemon, folder: &Path, name: &str, image: &Image<'_>) {
    let layout = folder.join(name);
    image.write_layout(&layout);
    daemon.spore_ok(&["image", "import", layout.to_str().expect("UTF-8")]);
}

/// An image of a unikernel.
struct Image<'a> {
    kernel: PathBuf,
    /// The framework, for hvt; none is Unikraft's for QEMU.
    hvt: Option<&'a str>,
    arguments: &'a [&'a str],
    port: &'a str,
    labels: &'a [(&'a str, &'a str)],
    /// Further settings of urunc.
    settings: &'a [(&'a str, &'a str)],
}

impl<'a> Image<'a> {
    fn of(kind: &str) -> Self {
        match kind {
            "foreign-hvt" => Self::hvt("rumprun", program::build_solo5()),
            _ => Self::new(program::build_unikernel(), None),
        }
    }

    fn hvt(framework: &'a str, kernel: PathBuf) -> Self {
        Self::new(kernel, Some(framework))
    }

    fn new(kernel: PathBuf, hvt: Option<&'a str>) -> Self {
        Self {
            kernel,
            hvt,
            arguments: &["httpd", "second-argument"],
            port: "8080",
            labels: &[],
            settings: &[],
        }
    }

    /// Writes it as an OCI layout.
    fn write_layout(&self, folder: &Path) {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        let blob = |bytes: &[u8]| {
            let digest = Sha256::digest(bytes);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(blobs.join(&digest), bytes).expect("a blob");
            format!("sha256:{digest}")
        };
        let described = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "size": bytes.len(), "digest": blob(bytes) });
        let (path, os) = match self.hvt {
            Some(_) => ("unikernel/app.hvt", "linux"),
            None => ("unikraft/bin/kernel", "qemu"),
        };
        let mut layer = tar::Builder::new(Vec::new());
        layer.append_path_with_name(&self.kernel, path).expect("a layer");
        let layer = layer.into_inner().expect("a layer");
        let labels: BTreeMap<_, _> = self.labels.iter().copied().collect();
        let configuration = json!({
            "architecture": "amd64", "os": os,
            "config": { "Cmd": self.arguments, "ExposedPorts": { format!("{}/tcp", self.port): {} }, "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [blob(&layer)] },
        });
        let configuration = configuration.to_string();
        let mut layer = described("application/vnd.oci.image.layer.v1.tar", &layer);
        let annotations = match self.hvt {
            Some(framework) => {
                let fixed = [
                    ("unikernelType", framework),
                    ("hypervisor", "hvt"),
                    ("binary", "/unikernel/app.hvt"),
                ];
                let settings = fixed.iter().chain(self.settings);
                let named =
                    settings.map(|(name, value)| (format!("com.urunc.unikernel.{name}"), json!(value)));
                Value::Object(named.collect())
            }
            None => {
                layer["annotations"] = json!({ "org.unikraft.kernel.image": "/unikraft/bin/kernel" });
                json!({ "org.unikraft.image.name": "test", "org.unikraft.kernel.version": "0.17.0" })
            }
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.oci.image.config.v1+json", configuration.as_bytes()),
            "layers": [layer],
            "annotations": annotations,
        });
        let manifest = manifest.to_string();
        let mut named: Value = described("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        named["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [named] });
        fs::write(folder.join("index.json"), index.to_string()).expect("an index");
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
    }
}
