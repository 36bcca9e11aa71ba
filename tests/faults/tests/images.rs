//! `kill -9` of the daemon at random moments while images are pulled and imported: what the next one finds is whole.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;
use spore_test_harness::daemon::{Daemon, Setup, binary};
use spore_test_harness::program;
use spore_test_harness::registry::{Registry, has_tools};

use crate::deployments::setting;
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing; images_are_whole_after_kills_at_any_moment];

const KILLS: usize = 5;
/// Long enough that a kill falls into its transfer.
const LAYER_BYTES: usize = 48 << 20;
const LONGEST_LIFE_MS: u64 = 500;

/// A command that goes on by itself, and may fail when the daemon is gone.
fn begin(daemon: &Daemon, arguments: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env("OPENFAAS_URL", format!("http://{}", daemon.address()));
    let silent = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    silent.spawn().expect("the spore binary can be run")
}

fn images_are_whole_after_kills_at_any_moment() {
    if !has_tools(&["docker-registry"]) {
        return;
    }
    let seed = setting("SPORE_FAULTS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("SPORE_FAULTS_KILLS").map_or(KILLS, |kills| kills as usize);
    println!("SPORE_FAULTS_SEED={seed} SPORE_FAULTS_KILLS={kills}");
    let mut random = Rng::with_seed(seed);
    let registry = Registry::start();
    let name = format!("{}/large:1", registry.address());
    let scratch = tempfile::tempdir().expect("the temporary folder is writable");
    let archive = scratch.path().join("large.tar").display().to_string();
    let mut daemon = Daemon::start_as(Setup {
        options: vec!["--mirror".to_owned(), "docker.io=127.0.0.1:9".to_owned()],
        ..Setup::default()
    });
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("bin")).expect("writable");
    fs::copy(program::build("httpd"), root.join("bin/httpd")).expect("writable");
    let noise: Vec<u8> = (0..LAYER_BYTES).map(|_| random.u8(..)).collect();
    fs::write(root.join("noise"), noise).expect("writable");
    let path = root.to_str().expect("UTF-8");
    daemon.spore_ok(&["deploy", "large", "--rootfs", path, "--entrypoint", "/bin/httpd"]);
    daemon.spore_ok(&["image", "push", "large", &name]);
    daemon.spore_ok(&["image", "export", "large", &archive]);
    daemon.spore_ok(&["remove", "large"]);
    daemon.deploy("other", &program::build("httpd"), &[]);
    let mut broken_off = 0;
    for _ in 0..kills {
        // Otherwise the pull goes on with what the one before has left.
        if random.bool() {
            daemon.spore_ok(&["image", "prune", "--unused-for", "0s"]);
        }
        // What an earlier round has completed.
        for image in ["large", "imported", &name] {
            daemon.spore(&["image", "remove", image]);
        }
        let commands = [
            begin(&daemon, &["image", "pull", &name]),
            begin(&daemon, &["image", "import", &archive, "--name", "imported"]),
        ];
        std::thread::sleep(Duration::from_millis(random.u64(1..LONGEST_LIFE_MS)));
        daemon.kill();
        for mut command in commands {
            let status = command.wait().expect("it is our child");
            broken_off += usize::from(!status.success());
        }
        daemon.start_again();
        let report = daemon.spore_ok(&["image", "check"]);
        assert!(report.contains("all is whole"), "{report}");
        assert_eq!(daemon.get("/function/other/").status, StatusCode::OK);
    }
    println!("{broken_off} of {} transfers were broken off", 2 * kills);
    daemon.spore_ok(&["deploy", "pulled", "--image", &name]);
    daemon.spore_ok(&["image", "import", &archive, "--name", "imported"]);
    daemon.spore_ok(&["deploy", "imported", "--image", "imported"]);
    for function in ["pulled", "imported"] {
        assert_eq!(
            daemon.get(&format!("/function/{function}/")).status,
            StatusCode::OK
        );
    }
    let report = daemon.spore_ok(&["image", "check"]);
    assert!(report.contains("all is whole"), "{report}");
}
