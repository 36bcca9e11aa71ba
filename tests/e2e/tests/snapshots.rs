//! Snapshots that outlive the daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use sha2::{Digest as _, Sha256};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{guests_are_processes, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_snapshot_outlives_the_daemon,
    damaged_and_foreign_files_are_removed_and_made_anew,
    a_file_from_which_no_clone_can_go_on_is_not_tried_twice,
    files_go_with_their_functions,
];

/// Instances are removed as soon as they have answered: each request finds a new one.
const CLONED: &[&str] = &["--annotation", "dev.spore.idle-timeout=0s", "--snapshot"];
/// Snapshots are written a second after their first answer, by a thread that lets everybody else go first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Length of a file's header, and where the instruction pointer and the digest of what follows are in it; that of the header
/// is its end.
const HEADER_BYTES: usize = 432;
const INSTRUCTION_POINTER: usize = 328;
const BODY_DIGEST: usize = 368;
const DIGEST_BYTES: usize = 32;

/// What is done to a file.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

/// What a clone says that was drawn before the program was ready, and what was drawn since.
fn ask(daemon: &Daemon, function: &str) -> (String, String) {
    let answer = daemon.get(&format!("/function/{function}"));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("x-spore-start"), "cold");
    let text = answer.text();
    let mut lines = text.lines().map(str::to_owned);
    (
        lines.next().expect("two lines at least"),
        lines.next().expect("two lines at least"),
    )
}

fn files(daemon: &Daemon) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(daemon.data().join("snapshots")) else {
        return Vec::new();
    };
    found.map(|entry| entry.expect("readable").path()).collect()
}

/// Waits until there are so many files, all of them whole.
fn wait_for_files(daemon: &Daemon, count: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let is_there = wait_until(PATIENCE, || {
        found = files(daemon);
        found.len() == count && found.iter().all(|path| path.extension().is_none())
    });
    assert!(is_there, "{found:?} instead of {count} files:\n{}", daemon.log());
    found
}

fn only_file(daemon: &Daemon) -> PathBuf {
    wait_for_files(daemon, 1).remove(0)
}

/// Waits until the daemon has so many snapshots in memory.
fn wait_for_memory(daemon: &Daemon, count: usize) {
    let descriptors = format!("/proc/{}/fd", daemon.pid());
    let mut found = 0;
    let is_so = wait_until(PATIENCE, || {
        let links = fs::read_dir(&descriptors).expect("the daemon runs");
        let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        found = links
            .filter(|link| link.to_string_lossy().contains("spore-snapshot"))
            .count();
        found == count
    });
    assert!(is_so, "{found} snapshots in memory instead of {count}");
}

fn boots(daemon: &Daemon, function: &str) -> usize {
    daemon.spore_ok(&["logs", function]).matches("booted").count()
}

/// A daemon whose function has been asked once, and has a file.
fn with_a_file() -> (Daemon, PathBuf, String) {
    let daemon = Daemon::start();
    daemon.deploy("cloned", &program::build("cloned"), CLONED);
    let (drawn_before, _) = ask(&daemon, "cloned");
    let file = only_file(&daemon);
    (daemon, file, drawn_before)
}

fn a_snapshot_outlives_the_daemon() {
    if guests_are_processes() {
        return;
    }
    let (mut daemon, file, before) = with_a_file();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("it is there").permissions());
    assert_eq!(
        mode & 0o777,
        0o600,
        "nobody else reads what a function has in memory"
    );
    let mut drawn = BTreeSet::new();
    for round in 0..4 {
        // Ended in order, or not.
        if round % 2 == 0 {
            assert!(daemon.stop().success());
        } else {
            daemon.kill();
        }
        daemon.start_again();
        for _ in 0..3 {
            let (drawn_before, since) = ask(&daemon, "cloned");
            assert_eq!(drawn_before, before, "a clone of the only boot");
            assert!(drawn.insert(since), "its randomness is its own");
        }
        let log = daemon.log();
        assert!(log.contains("the snapshot") && log.contains("is used"), "{log}");
    }
    assert_eq!(boots(&daemon, "cloned"), 1);
}

fn damaged_and_foreign_files_are_removed_and_made_anew() {
    if guests_are_processes() {
        return;
    }
    let (mut daemon, file, mut before) = with_a_file();
    let header_only = |bytes: &mut Vec<u8>| bytes.truncate(HEADER_BYTES);
    let other_version = |bytes: &mut Vec<u8>| bytes[8] = 0xfe;
    let other_processor = |bytes: &mut Vec<u8>| {
        bytes[48] ^= 1;
        seal(bytes);
    };
    let damages: [(Damage<'_>, &str); 6] = [
        (&|bytes| bytes.clear(), "cut short"),
        (&header_only, "cut short"),
        (&|bytes| bytes[200] ^= 1, "header is damaged"),
        (
            &|bytes| *bytes.last_mut().expect("not empty") ^= 1,
            "contents are damaged",
        ),
        (&other_version, "version 254"),
        (&other_processor, "other features"),
    ];
    for (round, (damage, reason)) in damages.into_iter().enumerate() {
        daemon.kill();
        let mut bytes = fs::read(&file).expect("it is there");
        damage(&mut bytes);
        fs::write(&file, &bytes).expect("writable");
        // Of a daemon that was killed while it wrote.
        let half = file.with_extension("partial");
        fs::write(&half, b"half of a file").expect("writable");
        daemon.start_again();
        let (drawn_before, _) = ask(&daemon, "cloned");
        assert_ne!(drawn_before, before, "it was booted");
        assert_eq!(ask(&daemon, "cloned").0, drawn_before, "and made a snapshot");
        let log = daemon.log();
        let is_said = log.contains("is not used and removed") && log.contains(reason);
        assert!(is_said, "{reason}: {log}");
        assert_eq!(boots(&daemon, "cloned"), round + 2);
        assert_eq!(only_file(&daemon), file);
        before = drawn_before;
    }
    // The last one is good again.
    daemon.kill();
    daemon.start_again();
    assert_eq!(ask(&daemon, "cloned").0, before);
}

/// Gives a file the digests that fit it.
fn seal(file: &mut [u8]) {
    let (header, body) = file.split_at_mut(HEADER_BYTES);
    header[BODY_DIGEST..BODY_DIGEST + DIGEST_BYTES].copy_from_slice(&Sha256::digest(body));
    let (header, digest) = header.split_at_mut(HEADER_BYTES - DIGEST_BYTES);
    digest.copy_from_slice(&Sha256::digest(&*header));
}

fn a_file_from_which_no_clone_can_go_on_is_not_tried_twice() {
    if guests_are_processes() {
        return;
    }
    let (mut daemon, file, mut before) = with_a_file();
    let nowhere = |bytes: &mut Vec<u8>| bytes[INSTRUCTION_POINTER..INSTRUCTION_POINTER + 8].fill(0);
    // Features that are not enabled, in the header of the extended state, which follows.
    let no_such_state = |bytes: &mut Vec<u8>| bytes[HEADER_BYTES + 512..HEADER_BYTES + 520].fill(0xff);
    let damages: [Damage<'_>; 2] = [&nowhere, &no_such_state];
    for damage in damages {
        daemon.kill();
        let mut bytes = fs::read(&file).expect("it is there");
        damage(&mut bytes);
        seal(&mut bytes);
        fs::write(&file, &bytes).expect("writable");
        daemon.start_again();
        // Nothing of the request was read: another instance answers.
        let (drawn_before, _) = ask(&daemon, "cloned");
        assert_ne!(drawn_before, before, "it was booted");
        let log = daemon.log();
        assert!(log.contains("its first copy ended before it answered"), "{log}");
        assert_eq!(ask(&daemon, "cloned").0, drawn_before, "and made a snapshot");
        assert_eq!(only_file(&daemon), file);
        before = drawn_before;
    }
}

fn files_go_with_their_functions() {
    if guests_are_processes() {
        return;
    }
    let (mut daemon, file, before) = with_a_file();
    daemon.deploy("other", &program::build("cloned"), CLONED);
    ask(&daemon, "other");
    wait_for_files(&daemon, 2);
    wait_for_memory(&daemon, 2);
    // Another configuration is another snapshot; the old one goes at once.
    daemon.deploy(
        "cloned",
        &program::build("cloned"),
        &[CLONED, &["--env", "KEY=value"]].concat(),
    );
    wait_for_files(&daemon, 1);
    assert!(!file.exists());
    wait_for_memory(&daemon, 1);
    let (drawn_before, _) = ask(&daemon, "cloned");
    assert_ne!(drawn_before, before);
    wait_for_files(&daemon, 2);
    daemon.spore_ok(&["remove", "cloned"]);
    wait_for_files(&daemon, 1);
    wait_for_memory(&daemon, 1);
    // What a daemon has left of functions that are gone goes with the next start.
    daemon.kill();
    let stray = file.with_file_name("0".repeat(64));
    fs::write(&stray, b"of nobody").expect("writable");
    fs::write(file.with_extension("partial"), b"half").expect("writable");
    daemon.start_again();
    wait_for_files(&daemon, 1);
    assert!(!stray.exists());
    // A function without snapshots has none.
    daemon.deploy("other", &program::build("cloned"), &CLONED[..2]);
    wait_for_files(&daemon, 0);
}
