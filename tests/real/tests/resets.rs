//! A Python function with isolation per request that leaves something in every place that it has: no invocation may find
//! anything of another one, over hundreds of them from several callers.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use spore_test_harness::daemon::Daemon;
use spore_test_harness::guests_are_processes;
use spore_test_real::programs::{PORT, installed::PYTHON_LEAVING};

use crate::chain;

const INVOCATIONS: usize = 300;
const CALLERS: usize = 4;
/// Most instances at a time. As many monitors, and the one that booted the program, serve all invocations.
const INSTANCES_MAX: usize = 8;

pub(crate) fn run() -> Result<(), String> {
    let fixture = (PYTHON_LEAVING.make)().map_err(chain)?;
    let daemon = Daemon::start();
    let (port, maximum) = (PORT.to_string(), INSTANCES_MAX.to_string());
    let mut options = vec!["deploy".to_owned(), "leaving".to_owned()];
    options.extend(fixture.function.options());
    let more = [
        "--port",
        &port,
        "--memory",
        PYTHON_LEAVING.memory,
        "--max",
        &maximum,
    ];
    options.extend(more.map(str::to_owned));
    options.extend(["--snapshot", "--isolation-per-request"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    daemon.spore_ok(&options);

    let (begun, drawn, monitors) = (
        AtomicUsize::new(0),
        Mutex::new(BTreeSet::new()),
        Mutex::new(BTreeSet::new()),
    );
    let caller = || -> Result<(), String> {
        while begun.fetch_add(1, Ordering::Relaxed) < INVOCATIONS {
            let answer = daemon.get("/function/leaving");
            if answer.status != 200 {
                return Err(format!("{} {}", answer.status, answer.text()));
            }
            let told = answer.json();
            let is_pristine = told["asked"] == 1 && told["found"].as_array().is_some_and(Vec::is_empty);
            if !is_pristine {
                return Err(format!("something is left: {told}"));
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(chain)?;
            let seconds = told["seconds"].as_f64().unwrap_or_default();
            if (now.as_secs_f64() - seconds).abs() > 60.0 {
                return Err(format!("the clock is wrong: {told}"));
            }
            let mut drawn = drawn.lock().map_err(|_| "another caller has failed")?;
            for name in ["random", "system"] {
                if !drawn.insert(told[name].to_string()) {
                    return Err(format!("{name} was drawn before: {told}"));
                }
            }
            let mut monitors = monitors.lock().map_err(|_| "another caller has failed")?;
            monitors.extend(daemon.descendants().into_iter().map(|process| process.pid));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        let outcomes = callers
            .into_iter()
            .map(|caller| caller.join().expect("no caller panics"));
        outcomes.collect::<Result<Vec<()>, String>>()
    })?;
    let monitors = monitors.into_inner().map_err(|_| "a caller has failed")?.len();
    if !guests_are_processes() && monitors > INSTANCES_MAX + 1 {
        return Err(format!(
            "{monitors} monitors have served {INVOCATIONS} invocations: they are not reset"
        ));
    }
    Ok(())
}
