//! Many instances alive at a time: each of them answers, and they end together.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use spore_test_harness::daemon::{Daemon, Setup, data_folder, failed_start_as};
use spore_test_harness::{client, process, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    many_instances_are_alive_and_each_answers,
    merging_pages_changes_no_answer
];

const INSTANCES: usize = 120;
/// Descriptors of the daemon, of which half are for connections: an instance that answers takes four, and its client one.
const DESCRIPTORS: usize = 1024;
/// Starts of so many take a while on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(120);

/// What each of so many instances of a function has told.
fn ask_all(daemon: &Daemon, function: &str, instances: usize) -> BTreeSet<String> {
    let answers = client::ask_at_once(daemon.address(), function, instances, client::DEFAULT_TIMEOUT);
    let answers = answers.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
    answers.into_iter().collect()
}

fn scale(daemon: &Daemon, function: &str, instances: usize) {
    let count = instances.to_string();
    daemon.spore_ok(&["scale", function, &count, "--timeout", "2m"]);
}

fn many_instances_are_alive_and_each_answers() {
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let daemon = Daemon::start_as(Setup {
        prefix: vec!["prlimit".to_owned(), limit],
        ..Setup::default()
    });
    let max = INSTANCES.to_string();
    let options = ["--snapshot", "--max", &max, "--memory", "32Mi"];
    let options = [&options[..], &["--annotation", "dev.spore.idle-timeout=1h"]].concat();
    daemon.deploy("identity", &program::build("identity"), &options);
    scale(&daemon, "identity", 1);
    let alone = process::open_descriptors(daemon.pid()) - waiting_descriptors(&daemon);
    scale(&daemon, "identity", INSTANCES);
    let guests = || process::guests(daemon.pid());
    let complete = wait_until(PATIENCE, || guests() == INSTANCES);
    assert!(complete, "{} guests, of {INSTANCES}\n{}", guests(), daemon.log());
    // A monitor that is just being made has descriptors too, and does not wait for an instance yet.
    let taken =
        || process::open_descriptors(daemon.pid()).saturating_sub(waiting_descriptors(&daemon) + alone);
    let settled = wait_until(PATIENCE, || taken() <= 2 * (INSTANCES - 1));
    assert!(settled, "{} descriptors for {INSTANCES} idle instances", taken());

    let first = ask_all(&daemon, "identity", INSTANCES);
    assert_eq!(first.len(), INSTANCES, "each is another one");
    // They are the same as before, and none was replaced.
    assert_eq!(ask_all(&daemon, "identity", INSTANCES), first);

    scale(&daemon, "identity", 0);
    let gone = wait_until(PATIENCE, || daemon.descendants().is_empty());
    assert!(gone, "{:?}", daemon.descendants());
    assert_eq!(ask_all(&daemon, "identity", 1).len(), 1);
}

/// Descriptors for monitors that wait for an instance: as many as were needed lately.
fn waiting_descriptors(daemon: &Daemon) -> usize {
    const EACH: usize = 3;
    daemon.waiting_monitors().len() * EACH
}

fn merging_pages_changes_no_answer() {
    if !Path::new("/sys/kernel/mm/ksm").exists() {
        let folder = data_folder();
        let setup = Setup {
            options: vec!["--merge-pages".to_owned()],
            ..Setup::default()
        };
        let log = failed_start_as(folder.path(), &setup);
        assert!(log.contains("leave out --merge-pages"), "{log}");
        return;
    }
    let daemon = Daemon::start_with(&["--merge-pages"]);
    assert!(daemon.log().contains("find out by timing"), "{}", daemon.log());
    daemon.deploy("identity", &program::build("identity"), &["--snapshot"]);
    scale(&daemon, "identity", 5);
    assert_eq!(ask_all(&daemon, "identity", 5).len(), 5);
}
