//! Files of the data folder that are cut or overwritten: the error names the file, and the rest goes on.

use std::fs;
use std::path::{Path, PathBuf};

use http::StatusCode;
use spore_test_harness::daemon::{self, Daemon};
use spore_test_harness::{program, wait_until};

use crate::fixtures::{PATIENCE, check_failure, deploy_faults, monitors};
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing;
    a_damaged_database_is_named_and_left_alone,
    damaged_images_are_named_and_the_rest_goes_on,
    a_root_that_is_damaged_while_the_daemon_runs_is_made_again,
    a_damaged_log_is_named_and_the_rest_of_it_is_read,
];

fn a_damaged_database_is_named_and_left_alone() {
    let folder = daemon::data_folder();
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("writable");
    let database = data.join("spore.redb");
    for garbage in [b"not a database".to_vec(), vec![0; 1 << 16]] {
        fs::write(&database, &garbage).expect("writable");
        let log = daemon::failed_start(folder.path());
        assert!(
            log.contains("spore.redb") && log.contains("put a copy of it back"),
            "{log}"
        );
        assert_eq!(
            fs::read(&database).expect("readable"),
            garbage,
            "it is left as it was"
        );
    }
}

/// Cuts a file to half of its length.
fn cut(path: &Path) {
    let bytes = fs::read(path).expect("readable");
    // The file is read-only, and may be in use.
    fs::remove_file(path).expect("writable");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("writable");
}

/// All files in and below a folder.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

fn damaged_images_are_named_and_the_rest_goes_on() {
    let mut daemon = Daemon::start();
    deploy_faults(&daemon, "hit", &[]);
    let hit = [
        files(daemon.data().join("blobs")),
        files(daemon.data().join("derived")),
    ];
    daemon.deploy("spared", &program::build("httpd"), &[]);
    // What was derived from an image is made again from it.
    daemon.kill();
    hit[1].iter().for_each(|path| cut(path));
    daemon.start_again();
    assert_eq!(daemon.get("/function/hit").status, StatusCode::OK);
    // Without the image it cannot be.
    daemon.kill();
    hit.iter().flatten().for_each(|path| cut(path));
    daemon.start_again();
    let log = daemon.log();
    assert!(
        log.contains("hit") && log.contains("push the image again"),
        "{log}"
    );
    assert!(
        hit[0].iter().any(|path| {
            let digest = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            log.contains(digest)
        }),
        "the log names what is damaged: {log}"
    );
    assert_eq!(daemon.get("/function/spared").status, StatusCode::OK);
    let answer = daemon.get("/function/hit");
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
    deploy_faults(&daemon, "hit", &[]);
    assert_eq!(daemon.get("/function/hit").status, StatusCode::OK);
}

fn a_root_that_is_damaged_while_the_daemon_runs_is_made_again() {
    let daemon = Daemon::start();
    deploy_faults(&daemon, "hit", &["--annotation", "dev.spore.idle-timeout=0s"]);
    let (blobs, mut roots) = (
        files(daemon.data().join("blobs")),
        files(daemon.data().join("derived")),
    );
    roots.retain(|path| path.extension().is_none());
    daemon.deploy("spared", &program::build("httpd"), &[]);
    let [root] = &roots[..] else { panic!("{roots:?}") };
    let whole = fs::read(root).expect("readable");
    let damages: [&dyn Fn(); 3] = [
        &|| fs::remove_file(root).expect("writable"),
        &|| fs::write(root, b"").expect("writable"),
        &|| cut(root),
    ];
    let path = root.to_str().expect("UTF-8");
    for (number, damage) in damages.into_iter().enumerate() {
        wait_until_idle(&daemon, "hit");
        damage();
        let answer = daemon.get("/function/hit");
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "it is made again: {}",
            answer.text()
        );
        let log = daemon.wait_for_log("hit", "was made again from the image");
        assert_eq!(log.matches(path).count(), number + 1, "{log}");
        assert_eq!(fs::read(root).expect("readable"), whole);
    }
    // Without the image it cannot be made again.
    wait_until_idle(&daemon, "hit");
    cut(root);
    blobs.iter().for_each(|path| cut(path));
    for _ in 0..2 {
        let answer = daemon.get("/function/hit");
        check_failure(
            &answer,
            StatusCode::BAD_GATEWAY,
            &["hit: ", path, "push the image again"],
        );
        assert_eq!(daemon.get("/function/spared").status, StatusCode::OK);
    }
    daemon.wait_for_log("hit", "push the image again");
    deploy_faults(&daemon, "hit", &[]);
    assert_eq!(daemon.get("/function/hit").status, StatusCode::OK);
}

/// Waits until a function has no instance.
fn wait_until_idle(daemon: &Daemon, function: &str) {
    let idle = wait_until(PATIENCE, || monitors(daemon, function).is_empty());
    assert!(idle, "{function} has instances");
}

fn a_damaged_log_is_named_and_the_rest_of_it_is_read() {
    let mut daemon = Daemon::start();
    deploy_faults(&daemon, "hit", &[]);
    assert_eq!(daemon.get("/function/hit/line").status, StatusCode::OK);
    daemon.wait_for_log("hit", "a line");
    daemon.kill();
    let log = daemon.data().join("logs/hit.openfaas-fn/current.jsonl");
    let mut bytes = fs::read(&log).expect("readable");
    bytes.extend_from_slice(b"\xff\x00\xfe garbage\n{\"half\":");
    fs::write(&log, bytes).expect("writable");
    daemon.start_again();
    assert_eq!(daemon.get("/function/hit/line").status, StatusCode::OK);
    let text = daemon.wait_for_log("hit", "damaged lines of");
    assert!(text.contains(log.to_str().expect("UTF-8")), "{text}");
    let lines = daemon.wait_for_log("hit", "a line").matches("a line\n").count();
    assert_eq!(lines, 2, "those before and after are read");
}
