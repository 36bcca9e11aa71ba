//! Functions whose root is a file system: dynamically linked programs with what they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::program;
use tempfile::TempDir;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_root_file_system_is_stored_listed_and_described,
    a_dynamically_linked_server_answers,
    a_program_of_a_root_file_system_runs_once,
    a_daemon_without_the_tool_says_what_to_install,
    what_a_root_lacks_is_said_at_deploy_time,
];

/// A folder with a program and everything that `ldd` says it needs.
fn root_with(name: &str) -> TempDir {
    let program = program::build_dynamic(name);
    let root = TempDir::with_prefix("spore-test-root-").expect("the temporary folder is writable");
    let listed = Command::new("ldd")
        .arg(&program)
        .output()
        .expect("ldd can be run");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    let own = (program, root.path().join("usr/bin").join(name));
    let copies = libraries.map(|library| {
        let target = root.path().join(library.strip_prefix("/").expect("absolute"));
        (library, target)
    });
    for (from, to) in copies.chain([own]) {
        std::fs::create_dir_all(to.parent().expect("it has a folder")).expect("writable");
        std::fs::copy(&from, &to).expect("what ldd lists is there");
    }
    root
}

fn path_of(root: &Path) -> &str {
    root.to_str().expect("the temporary folder is UTF-8")
}

fn a_root_file_system_is_stored_listed_and_described() {
    let mut daemon = Daemon::start();
    let root = root_with("httpd");
    let path = path_of(root.path());
    daemon.spore_ok(&[
        "deploy",
        "web",
        "--rootfs",
        path,
        "--entrypoint",
        "httpd 'two words'",
        "--workdir",
        "/srv/new",
        "--env",
        "A=b",
        "--allow-egress",
        "db.example.com:5432",
        "--allow-egress",
        "10.0.0.0/8",
        "--no-syscall-rewriting",
    ]);
    let check = |daemon: &Daemon| {
        assert!(daemon.spore_ok(&["list"]).contains("web"));
        let described = daemon.spore_ok(&["describe", "web"]);
        for line in [
            "a file system",
            "db.example.com:5432,10.0.0.0/8",
            "A=b",
            "dev.spore.syscall-rewriting=false",
        ] {
            assert!(described.contains(line), "{line} is not in\n{described}");
        }
    };
    check(&daemon);
    let derived = std::fs::read_dir(daemon.data().join("derived")).expect("the daemon made it");
    let derived: Vec<_> = derived.map(|entry| entry.expect("readable").path()).collect();
    assert_eq!(derived.len(), 1, "{derived:?}");
    assert!(derived[0].join("root.erofs").is_file());
    let uploads = std::fs::read_dir(daemon.data().join("uploads")).expect("the daemon made it");
    assert_eq!(uploads.count(), 0, "what was unpacked is removed");
    // The same image again, by name.
    daemon.spore_ok(&["deploy", "again", "--image", "web:latest"]);
    assert!(daemon.spore_ok(&["describe", "again"]).contains("a file system"));
    assert!(daemon.stop().success());
    daemon.start_again();
    check(&daemon);
}

fn a_dynamically_linked_server_answers() {
    let daemon = Daemon::start();
    let root = root_with("httpd");
    daemon.spore_ok(&[
        "deploy",
        "web",
        "--rootfs",
        path_of(root.path()),
        "--entrypoint",
        "httpd",
    ]);
    // A static one of the same source says the same.
    daemon.deploy("static", &program::build("httpd"), &[]);
    for _ in 0..20 {
        let [dynamic, fixed] = ["web", "static"].map(|name| daemon.get(&format!("/function/{name}/")));
        assert_eq!((dynamic.status, dynamic.body), (StatusCode::OK, fixed.body));
    }
}

fn a_program_of_a_root_file_system_runs_once() {
    let root = root_with("ending");
    let cache = TempDir::with_prefix("spore-test-cache-").expect("the temporary folder is writable");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .args(spore_test_harness::isolation_options())
            .args(["--rootfs", path_of(root.path()), "--", "ending"])
            .args(arguments)
            .env("XDG_CACHE_HOME", cache.path());
        command.output().expect("the spore binary can be run")
    };
    let greeted = run(&["a"]);
    assert!(
        greeted.stdout.starts_with(b"[ending][a] no greeting\n"),
        "{greeted:?}"
    );
    assert_eq!(greeted.status.code(), Some(0));
    assert_eq!(run(&["exit", "9"]).status.code(), Some(9));
    let images = std::fs::read_dir(cache.path().join("spore/roots")).expect("it was made");
    assert_eq!(images.count(), 1, "the image is used again");
}

fn a_daemon_without_the_tool_says_what_to_install() {
    let daemon = Daemon::start_with_environment(&[("PATH", "/nonexistent")]);
    let root = root_with("compute");
    let output = daemon.spore(&[
        "deploy",
        "f",
        "--rootfs",
        path_of(root.path()),
        "--entrypoint",
        "/usr/bin/compute",
    ]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("install the package erofs-utils"),
        "{error}"
    );
    // What needs no such tool goes on.
    daemon.deploy("static", &program::build("httpd"), &[]);
}

fn what_a_root_lacks_is_said_at_deploy_time() {
    let daemon = Daemon::start();
    let root = root_with("compute");
    let path = path_of(root.path());
    std::fs::remove_dir_all(root.path().join("lib64")).expect("the loader was in it");
    std::fs::write(root.path().join("text"), "no program").expect("writable");
    std::fs::write(root.path().join("script"), "#!/bin/none\n").expect("writable");
    for (entrypoint, hint) in [
        ("compute", "which the image does not have"),
        ("/script", "it needs /bin/none"),
        ("/text", "not a 64-bit ELF program"),
        ("absent", "no file `absent`"),
        ("'unclosed", "--entrypoint is no command"),
        ("''", "--entrypoint names no program"),
    ] {
        let output = daemon.spore(&["deploy", "f", "--rootfs", path, "--entrypoint", entrypoint]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(hint),
            "{entrypoint}: {error}"
        );
    }
    for arguments in [
        &["deploy", "f", "--rootfs", path][..],
        &[
            "deploy",
            "f",
            "--rootfs",
            path,
            "--entrypoint",
            "x",
            "--workdir",
            "relative",
        ],
        &["deploy", "f", "--rootfs", "/nonexistent", "--entrypoint", "x"],
        &["deploy", "f", "--image", "never-pushed"],
        &["deploy", "f", "--image", "x", "--allow-egress", "*.example.com"],
    ] {
        assert!(!daemon.spore(arguments).status.success(), "{arguments:?}");
    }
    assert!(
        !daemon.spore_ok(&["list"]).contains("sha256"),
        "nothing was deployed"
    );
}
