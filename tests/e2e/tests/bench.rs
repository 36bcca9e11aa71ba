//! `spore bench`: a run with tiny numbers, its page, its comparison; and one that is interrupted and goes on.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use spore_test_harness::daemon::binary;
use spore_test_harness::wait_until;

use crate::{Test, with_tools};

pub(crate) const TESTS: &[Test] = with_tools![
    a_small_run_has_every_figure_a_page_and_a_comparison: ["musl-gcc"],
    an_interrupted_run_is_whole_and_goes_on: ["musl-gcc"],
];

/// Patience for a run, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(300);
const TINY: &[&str] = &[
    "--quick",
    "--languages",
    "c",
    "--workloads",
    "primes,network",
    "--rounds",
    "3",
    "--concurrency",
    "1,2",
    "--instances",
    "1,2",
    "--burst",
    "3",
    "--chain",
    "2",
    "--rates",
    "20",
    "--keep-alive",
    "0",
    "--replay",
    "1",
    "--time-limit",
    "200",
];

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("bench")
        .args(arguments)
        .env_remove("OPENFAAS_URL")
        .stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    text.concat()
}

fn document(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("run.json")).expect("the run has written it");
    serde_json::from_str(&text).expect("it is whole")
}

/// Values of a series, of all points of its axis.
fn values(document: &Value, measure: &str, target: &str) -> Vec<f64> {
    let series = document["series"].as_array().expect("there are series").iter();
    let wanted = series.filter(|series| series["measure"] == measure && series["target"] == target);
    wanted
        .flat_map(|series| series["values"].as_array().expect("it has some"))
        .map(|value| value.as_f64().expect("a number"))
        .collect()
}

fn a_small_run_has_every_figure_a_page_and_a_comparison() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = folder.path().join("run");
    let path = run.to_str().expect("UTF-8");
    let absent = "nowhere:dev.spore.sandbox=nowhere";
    let options = [
        "run",
        "--output",
        path,
        "--targets",
        "process,bare",
        "--targets",
        absent,
    ];
    let output = bench(&[&options, TINY].concat()).output().expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("left out: nowhere: the daemon knows no sandbox nowhere"),
        "{}",
        said(&output)
    );
    let found = document(&run);
    assert_eq!(found["is_complete"], true, "{}", said(&output));
    assert!(
        found["machine"]["program_sha256"]
            .as_str()
            .is_some_and(|digest| digest.len() == 64)
    );
    for series in found["series"].as_array().expect("there are series") {
        assert_eq!(series["failures"], 0, "{series}");
    }
    let of_all = [
        "cold-lone",
        "cold-back-to-back",
        "initialisation",
        "warm-lone",
        "warm",
        "throughput",
        "burst",
        "burst-last",
        "cold-rate",
        "memory-machine",
        "memory-proportional",
        "memory-private",
        "idle-processor",
        "inside",
        "chain-cold",
        "chain-warm",
        "load",
    ];
    for measure in of_all {
        for target in ["process", "bare"] {
            assert!(
                !values(&found, measure, target).is_empty(),
                "{measure} in {target}"
            );
        }
    }
    for measure in [
        "chain-async",
        "utilisation",
        "replay",
        "replay-memory",
        "replay-cold-share",
    ] {
        assert!(!values(&found, measure, "process").is_empty(), "{measure}");
    }
    // Without keep-alive every request starts an instance; work is a part of all that the processors did.
    assert_eq!(values(&found, "replay-cold-share", "process"), [1.0]);
    let utilisation = values(&found, "utilisation", "process");
    assert!(
        utilisation.iter().all(|share| (0.0..1.0).contains(share)),
        "{utilisation:?}"
    );
    // Of instances it is by how much all processes of the daemon have grown, some of which come and go meanwhile.
    let of_processes = values(&found, "memory-proportional", "bare");
    assert!(of_processes.iter().all(|bytes| *bytes > 1e4), "{of_processes:?}");

    let page = std::fs::read_to_string(run.join("report.html")).expect("there is a page");
    assert!(page.contains("<svg") && page.trim_end().ends_with("</html>"));
    assert!(
        !page.contains("src=") && !page.contains("href="),
        "it loads nothing"
    );
    let report = bench(&["report", path]).output().expect("it runs");
    assert!(
        report.status.success() && said(&report).contains("cold-lone (ms)"),
        "{}",
        said(&report)
    );

    compare_with_a_slower_one(&found, folder.path(), path);
}

fn compare_with_a_slower_one(found: &Value, folder: &Path, path: &str) {
    let same = bench(&["compare", path, path]).output().expect("it runs");
    assert_eq!(same.status.code(), Some(0), "{}", said(&same));
    let mut slower = found.clone();
    let all = slower["series"].as_array_mut().expect("there are series");
    let warm = all.iter_mut().filter(|series| series["measure"] == "warm");
    for value in warm.flat_map(|series| series["values"].as_array_mut().expect("it has some")) {
        *value = Value::from(value.as_f64().expect("a number") * 3.0);
    }
    let other = folder.join("slower");
    std::fs::create_dir(&other).expect("it is writable");
    std::fs::write(other.join("run.json"), slower.to_string()).expect("it is writable");
    let other = other.to_str().expect("UTF-8");
    let differs = bench(&["compare", path, other]).output().expect("it runs");
    assert_eq!(differs.status.code(), Some(1), "{}", said(&differs));
    assert!(
        said(&differs).contains("MORE    warm of c/hello in process"),
        "{}",
        said(&differs)
    );
    let nothing = bench(&["compare", path, "no such folder"])
        .output()
        .expect("it runs");
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
}

fn an_interrupted_run_is_whole_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = folder.path().join("run");
    let path = run.to_str().expect("UTF-8");
    let options = [
        "run",
        "--output",
        path,
        "--targets",
        "process,bare",
        "--measures",
        "warm,inside,chain",
    ];
    let mut process = bench(&[&options, TINY].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    assert!(
        wait_until(PATIENCE, || run.join("run.json").exists()),
        "a step is done"
    );
    let pid = Pid::from_raw(process.id() as i32).expect("it has one");
    kill_process(pid, Signal::INT).expect("it is there");
    let status = process.wait().expect("it is ours");
    let before = document(&run);
    let done = |document: &Value| document["steps_done"].as_array().map_or(0, Vec::len);
    // It may have been at its last step already.
    if before["is_complete"] == false {
        assert_eq!(status.code(), Some(130));
        assert!((1..5).contains(&done(&before)), "{before}");
    }
    let output = bench(&["run", "--resume", path]).output().expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    let after = document(&run);
    assert_eq!(
        (after["is_complete"].as_bool(), done(&after)),
        (Some(true), 5),
        "{}",
        said(&output)
    );
    let kept = values(&before, "warm", "process");
    assert_eq!(
        values(&after, "warm", "process")[..kept.len().min(1)],
        kept[..kept.len().min(1)]
    );
    assert_eq!(after["started_at"], before["started_at"]);
}
