//! How much private memory an idle server holds: the monitor's process with everything in it beside the program's own
//! process, each after the same requests.
//!
//! *Private* is what only this process holds and has written: `Private_Dirty` in `/proc/PID/smaps_rollup`. The
//! difference of the medians is what the unikernel adds: library OS, page tables of the guest, guest memory that the
//! program has given back, and the monitor itself. What the kernel holds for the virtual machine is not in it.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use spore_evaluation::processes::private_and_proportional;
use spore_test_harness::client::{Connection, request};
use spore_test_harness::process::ProcessIdentity;

use crate::record::{Series, SubjectSamples, Unit};
use crate::runtimes::Runtime;
use crate::subject::SetUp;

/// Fresh instances and processes that are measured.
const ROUNDS: u32 = 5;
/// Requests before each is measured.
const REQUESTS: usize = 200;
/// Time for what is done with a request to be given back.
const SETTLE: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Measures fresh instances and processes of one program in turn.
pub(crate) fn measure(set_up: &SetUp, runtime: &Runtime, name: &str) -> Result<Series> {
    eprintln!("measuring {name}: 2 subjects, {ROUNDS} rounds");
    let mut spore = samples("spore", &set_up.isolation);
    let mut process = samples("process", "none");
    for _ in 0..ROUNDS {
        spore.samples.push(of_instance(set_up, runtime)?);
        process.samples.push(of_process(runtime)?);
    }
    Ok(Series {
        name: name.to_owned(),
        meaning: format!("private memory after {REQUESTS} requests, idle"),
        unit: Unit::Bytes,
        idle_share_before: 1.0,
        subjects: vec![spore, process],
    })
}

fn samples(name: &str, isolation: &str) -> SubjectSamples {
    SubjectSamples {
        name: name.to_owned(),
        isolation: isolation.to_owned(),
        samples: Vec::new(),
        failures: 0,
        failure: None,
    }
}

fn of_instance(set_up: &SetUp, runtime: &Runtime) -> Result<u64> {
    const NAME: &str = "footprint";
    let before: HashSet<ProcessIdentity> = set_up.daemon.descendants().into_iter().collect();
    runtime.deploy_as(set_up, NAME, &[("dev.spore.idle-timeout", "1h")]);
    ask(set_up.daemon.address(), &format!("/function/{NAME}/"))?;
    let monitors: Vec<_> = set_up.daemon.descendants();
    let monitors: Vec<_> = monitors.iter().filter(|one| !before.contains(one)).collect();
    ensure!(monitors.len() == 1, "{} new processes, not one", monitors.len());
    let bytes = private_bytes(monitors[0].pid as u32);
    set_up.daemon.spore_ok(&["remove", NAME]);
    bytes
}

fn of_process(runtime: &Runtime) -> Result<u64> {
    let native = runtime.native();
    ask(native.address(), "/")?;
    private_bytes(native.pid())
}

fn ask(address: std::net::SocketAddr, path: &str) -> Result<()> {
    let mut connection = Connection::open(address, TIMEOUT)?;
    for _ in 0..REQUESTS {
        let answer = connection.send(request(Method::GET, path))?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    }
    std::thread::sleep(SETTLE);
    Ok(())
}

fn private_bytes(pid: u32) -> Result<u64> {
    Ok(private_and_proportional(pid as i32)?.0)
}
