//! `kill -9` at random moments: of the daemon while images are pulled and imported, and while it makes the root that functions of a
//! language share; of the command line while it makes a runtime. What the next one finds is whole.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use fastrand::Rng;
use http::StatusCode;
use spore_test_harness::daemon::{Daemon, Setup};
use spore_test_harness::program;
use spore_test_harness::registry::{Registry, has_tools};
use spore_test_harness::wait_until;

use crate::deployments::setting;
use crate::fixtures::PATIENCE;
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    Needs::Nothing;
    images_are_whole_after_kills_at_any_moment,
    shared_roots_are_whole_after_kills_at_any_moment,
    runtimes_are_whole_after_kills_at_any_moment,
];

const KILLS: usize = 5;
/// Long enough that a kill falls into its transfer.
const LAYER_BYTES: usize = 48 << 20;
const LONGEST_LIFE_MS: u64 = 500;
/// About as long as it takes to make a root of Python's runtime.
const LONGEST_MAKING_MS: u64 = 1500;

/// A command that goes on by itself, and may fail when the daemon is gone.
fn begin(daemon: &Daemon, arguments: &[&str]) -> Child {
    let mut command = daemon.command(arguments);
    let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
    silent.spawn().expect("the spore binary can be run")
}

/// How often to kill, and when.
fn moments() -> (usize, Rng) {
    let seed = setting("SPORE_FAULTS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("SPORE_FAULTS_KILLS").map_or(KILLS, |kills| kills as usize);
    println!("SPORE_FAULTS_SEED={seed} SPORE_FAULTS_KILLS={kills}");
    (kills, Rng::with_seed(seed))
}

fn assert_whole(daemon: &Daemon) {
    let report = daemon.spore_ok(&["image", "check"]);
    assert!(report.contains("all is whole"), "{report}");
}

fn images_are_whole_after_kills_at_any_moment() {
    if !has_tools(&["docker-registry"]) {
        return;
    }
    let (kills, mut random) = moments();
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
        assert_whole(&daemon);
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
    assert_whole(&daemon);
}

/// A function in Python in a folder.
fn write_function(folder: &Path) {
    fs::write(folder.join("spore.toml"), "name = \"snake\"\n").expect("writable");
    let handler = "def handle(event, context):\n    return 'whole'\n";
    fs::write(folder.join("handler.py"), handler).expect("writable");
}

/// How many roots are there that functions share, and whether layers are being unpacked.
fn bases(daemon: &Daemon) -> (usize, bool) {
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(daemon.data().join(folder))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let is_unpacking = names("uploads").iter().any(|name| name.starts_with("unpacked-"));
    (names("derived/bases").len(), is_unpacking)
}

fn shared_roots_are_whole_after_kills_at_any_moment() {
    if !has_tools(&["python3"]) {
        return;
    }
    let (kills, mut random) = moments();
    let mut daemon = Daemon::start();
    daemon.deploy("other", &program::build("httpd"), &[]);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    write_function(folder.path());
    let path = folder.path().to_str().expect("UTF-8");
    // The runtime's layer is there: what is killed is the daemon that makes a root of it.
    daemon.spore_ok(&["push", path]);
    let mut while_making = 0;
    for _ in 0..kills {
        daemon.spore(&["remove", "snake"]);
        daemon.spore(&["image", "remove", "snake"]);
        daemon.spore_ok(&["image", "prune", "--unused-for", "0s"]);
        assert_eq!(bases(&daemon), (0, false), "it is made anew each time");
        let mut command = begin(&daemon, &["up", path]);
        if random.u8(..4) > 0 {
            let begun = || bases(&daemon).1 || command.try_wait().expect("it is our child").is_some();
            assert!(wait_until(PATIENCE, begun), "no root is made: {}", daemon.log());
        }
        std::thread::sleep(Duration::from_millis(random.u64(1..LONGEST_MAKING_MS)));
        while_making += usize::from(bases(&daemon).1);
        daemon.kill();
        command.wait().expect("it is our child");
        daemon.start_again();
        assert_whole(&daemon);
        assert!(!bases(&daemon).1, "what was unpacked is removed");
        assert_eq!(daemon.get("/function/other/").status, StatusCode::OK);
        // What the killed one had accepted is there, and what it had begun is made again.
        daemon.spore_ok(&["up", path]);
        assert_eq!(daemon.get("/function/snake").text(), "whole");
        assert_eq!(bases(&daemon), (1, false));
        assert_whole(&daemon);
    }
    println!("{while_making} of {kills} kills fell into the making of a root");
}

fn runtimes_are_whole_after_kills_at_any_moment() {
    if !has_tools(&["python3"]) {
        return;
    }
    let (kills, mut random) = moments();
    let daemon = Daemon::start();
    let scratch = tempfile::tempdir().expect("the temporary folder is writable");
    let function = scratch.path().join("function");
    fs::create_dir(&function).expect("writable");
    write_function(&function);
    let spore = |arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        command
            .env("XDG_DATA_HOME", scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let unfinished = || {
        let entries = fs::read_dir(scratch.path().join("spore/runtimes"))
            .into_iter()
            .flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(".unfinished-"))
            .count()
    };
    let mut while_making = 0;
    for _ in 0..kills {
        let mut command = spore(&["runtime", "build", "python"])
            .spawn()
            .expect("it can be run");
        let begun = || unfinished() > 0 || command.try_wait().expect("it is our child").is_some();
        assert!(wait_until(PATIENCE, begun), "no runtime is made");
        std::thread::sleep(Duration::from_millis(random.u64(1..LONGEST_LIFE_MS)));
        command.kill().expect("it is our child");
        command.wait().expect("it is our child");
        while_making += unfinished();
        let listed = spore(&["runtime", "list", "--json"])
            .output()
            .expect("it can be run");
        assert!(listed.status.success(), "{listed:?}");
    }
    println!("{while_making} of {kills} kills fell into the making of a runtime");
    let path = function.to_str().expect("UTF-8");
    let up = spore(&["up", path]).output().expect("it can be run");
    assert!(up.status.success(), "{up:?}");
    assert_eq!(daemon.get("/function/snake").text(), "whole");
    let built = spore(&["runtime", "build", "python"])
        .output()
        .expect("it can be run");
    assert!(built.status.success(), "{built:?}");
    assert_eq!(unfinished(), 0, "what killed ones have left is removed");
    assert_whole(&daemon);
}
