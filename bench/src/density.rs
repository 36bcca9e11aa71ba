//! How many instances can be alive at a time, and what each of them takes.
//!
//! Copies of a snapshot in C, and of Python's `http.server`, are brought up in steps of ten times as many. At each step the
//! memory of the machine, of the monitors and of the daemon is compared with that before the first, it is seen whether
//! anything computes while nobody asks, and then every single one is asked: so many requests are held open at a time
//! that each has to go to an instance of its own, and each instance answers with a number that it has drawn.
//!
//! The requests of one function are open all at once, each with a descriptor of the client's and two of the gateway's; so
//! there are at most [`FUNCTION_INSTANCES`] in a function, and several functions.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use spore_evaluation::machine::{processor_ticks, read};
use spore_evaluation::processes::{bytes_of, own_ticks, private_and_proportional};
use spore_test_harness::client::ask_at_once;
use spore_test_harness::process::ProcessIdentity;
use spore_test_real::programs::installed::PYTHON_IDENTITY;

use crate::runtimes::Runtime;
use crate::subject::SetUp;

/// Most instances of one function.
const FUNCTION_INSTANCES: u32 = 1000;
/// Monitors of which the private memory is read, at most: it takes the kernel a while.
const SAMPLED: usize = 100;
/// Memory that the machine keeps for others, in bytes.
const SPARED_BYTES: u64 = 2 << 30;
/// Where memory does not suffice, there are so many, or a multiple.
const ROUND: u64 = 100;
/// What an instance may take before it was measured.
const FIRST_BYTES: u64 = 8 << 20;
/// Time for what was done to come to rest.
const SETTLE: Duration = Duration::from_secs(1);
/// How long it is watched whether anything computes.
const IDLE: Duration = Duration::from_secs(5);
/// How long starts, answers and ends may take.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(20);
/// A tick of the kernel's clock for processes (`USER_HZ`), in milliseconds.
const TICK_MS: u64 = 10;
/// What of the kernel's memory is told apart.
const KERNEL: [&str; 6] = [
    "Slab",
    "PageTables",
    "SecPageTables",
    "KernelStack",
    "Percpu",
    "VmallocUsed",
];

/// What was found with so many instances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// What ran.
    pub(crate) program: String,
    /// How many of it.
    pub(crate) instances: u32,
    /// From the request to scale until all were there, in milliseconds.
    pub(crate) started_ms: u64,
    /// From the request to have none until all processes were gone, in milliseconds.
    pub(crate) ended_ms: u64,
    /// How many different instances have answered.
    pub(crate) answered: u32,
    /// From the first request to the last answer, in milliseconds.
    pub(crate) answered_ms: u64,
    /// By how much less memory is available (`MemAvailable`), for each instance, before and after it was asked.
    pub(crate) machine_bytes: [i64; 2],
    /// Median proportional set size of a monitor, likewise.
    pub(crate) proportional_bytes: [u64; 2],
    /// Median private dirty memory of a monitor, likewise.
    pub(crate) private_bytes: [u64; 2],
    /// By how much the daemon's private dirty memory has grown, for each instance.
    pub(crate) daemon_bytes: i64,
    /// By how much the kernel's memory has grown, for each instance: the entries of `/proc/meminfo` in [`KERNEL`].
    pub(crate) kernel_bytes: Vec<(String, i64)>,
    /// Processor time of the daemon and of all monitors while nobody asked, in milliseconds for each second.
    pub(crate) idle_ms_per_s: f64,
    /// How busy the machine was meanwhile, 0 to 1: others count too.
    pub(crate) idle_busy_share: f64,
    /// How many should have been there, if memory did not suffice for so many.
    pub(crate) wanted: Option<u32>,
}

/// Measures both programs with 1, 10, 100 and so on instances, up to `most`.
pub(crate) fn measure(set_up: &SetUp, most: u32) -> Result<Vec<Step>> {
    let functions = most.div_ceil(FUNCTION_INSTANCES);
    let max = FUNCTION_INSTANCES.to_string();
    let options = [
        "--snapshot",
        "--max",
        &max,
        "--annotation",
        "dev.spore.idle-timeout=1h",
    ];
    let program = set_up.build_from(include_str!("../programs/identity.c"))?;
    let mut steps = measure_one(set_up, "C", functions, most, |name| {
        set_up.daemon.deploy(name, &program, &options);
    })?;
    if let Some(runtime) = Runtime::make(PYTHON_IDENTITY)? {
        steps.extend(measure_one(set_up, "Python", functions, most, |name| {
            runtime.deploy_with(set_up, name, &options);
        })?);
    }
    Ok(steps)
}

fn measure_one(
    set_up: &SetUp,
    program: &str,
    functions: u32,
    most: u32,
    deploy: impl Fn(&str),
) -> Result<Vec<Step>> {
    let names: Vec<String> = (0..functions)
        .map(|number| format!("density-{}-{number}", program.to_lowercase()))
        .collect();
    let scene = Scene { set_up, names };
    for name in &scene.names {
        deploy(name);
        // The first instance makes the snapshot; the first copy tells what copies write to.
        for _ in 0..2 {
            scene.scale_one(name, 1)?;
            ask(set_up.daemon.address(), name, 1)?;
            scene.scale_one(name, 0)?;
            scene.until_gone()?;
        }
    }
    let mut steps = Vec::new();
    let mut each_bytes = FIRST_BYTES;
    let mut counts: Vec<u32> = std::iter::successors(Some(1_u32), |count| count.checked_mul(10))
        .take_while(|count| *count < most)
        .collect();
    counts.push(most);
    for count in counts {
        let room = Memory::now()?.available().saturating_sub(SPARED_BYTES) / each_bytes;
        let mut step = Step {
            program: program.to_owned(),
            instances: count,
            ..Step::default()
        };
        if u64::from(count) > room {
            step.instances = (room / ROUND * ROUND) as u32;
            step.wanted = Some(count);
        }
        if steps
            .last()
            .is_some_and(|last: &Step| step.instances <= last.instances)
        {
            break;
        }
        eprintln!("measuring density: {} instances in {program}", step.instances);
        scene.measure(&mut step)?;
        // Of few instances it says little.
        if count >= 100 {
            each_bytes = step.machine_bytes[1].max(1 << 20) as u64;
        }
        steps.push(step);
    }
    for name in &scene.names {
        set_up.daemon.spore_ok(&["remove", name]);
    }
    Ok(steps)
}

/// The functions that are scaled.
struct Scene<'a> {
    set_up: &'a SetUp,
    names: Vec<String>,
}

impl Scene<'_> {
    /// How many instances each function has when there are `total`.
    fn shares(&self, total: u32) -> impl Iterator<Item = (&String, u32)> {
        let count = self.names.len() as u32;
        let share = move |index: u32| total / count + u32::from(index < total % count);
        self.names.iter().zip((0..count).map(share))
    }

    fn scale(&self, total: u32) -> Result<()> {
        self.shares(total)
            .try_for_each(|(name, share)| self.scale_one(name, share))
    }

    fn scale_one(&self, name: &str, instances: u32) -> Result<()> {
        let count = instances.to_string();
        let output = self
            .set_up
            .daemon
            .spore(&["scale", name, &count, "--timeout", "10m"]);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{name} cannot have {count}: {said}\n{}",
            self.set_up.daemon.log()
        );
        Ok(())
    }

    fn monitors(&self) -> Vec<ProcessIdentity> {
        let all = self.set_up.daemon.descendants().into_iter();
        let is_ours = |identity: &ProcessIdentity| {
            read(&format!("/proc/{}/cmdline", identity.pid)).is_ok_and(|line| line.contains("density-"))
        };
        all.filter(is_ours).collect()
    }

    fn until_gone(&self) -> Result<()> {
        let begun = Instant::now();
        while !self.monitors().is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "instances do not end");
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn measure(&self, step: &mut Step) -> Result<()> {
        std::thread::sleep(SETTLE);
        let daemon = self.set_up.daemon.pid() as i32;
        let (before, daemon_before) = (Memory::now()?, private_and_proportional(daemon)?.0);
        let begun = Instant::now();
        self.scale(step.instances)?;
        step.started_ms = begun.elapsed().as_millis() as u64;
        std::thread::sleep(SETTLE);
        let each = |bytes: i64| bytes / i64::from(step.instances);
        let monitors = self.monitors();
        ensure!(
            monitors.len() == step.instances as usize,
            "{} monitors",
            monitors.len()
        );
        let (private, proportional) = medians(&monitors)?;
        let now = Memory::now()?;
        step.machine_bytes[0] = each(before.less("MemAvailable", &now));
        (step.private_bytes[0], step.proportional_bytes[0]) = (private, proportional);

        let ticks = |monitors: &[ProcessIdentity]| -> Result<u64> {
            let pids = monitors.iter().map(|monitor| monitor.pid).chain([daemon]);
            pids.map(|pid| own_ticks(&read(&format!("/proc/{pid}/stat"))?).context("no ticks"))
                .sum()
        };
        let (own, machine) = (ticks(&monitors)?, processor_ticks(&read("/proc/stat")?));
        std::thread::sleep(IDLE);
        let (own_after, machine_after) = (ticks(&monitors)?, processor_ticks(&read("/proc/stat")?));
        step.idle_ms_per_s = ((own_after - own) * TICK_MS) as f64 / IDLE.as_secs_f64();
        let all = (machine_after.1 - machine.1).max(1);
        step.idle_busy_share = 1.0 - (machine_after.0 - machine.0) as f64 / all as f64;

        let begun = Instant::now();
        for (name, share) in self.shares(step.instances) {
            step.answered += ask(self.set_up.daemon.address(), name, share)?;
        }
        step.answered_ms = begun.elapsed().as_millis() as u64;
        std::thread::sleep(SETTLE);
        let now = Memory::now()?;
        step.machine_bytes[1] = each(before.less("MemAvailable", &now));
        (step.private_bytes[1], step.proportional_bytes[1]) = medians(&monitors)?;
        step.daemon_bytes = each(private_and_proportional(daemon)?.0 as i64 - daemon_before as i64);
        step.kernel_bytes = KERNEL
            .iter()
            .map(|&name| (name.to_owned(), each(-before.less(name, &now))))
            .collect();

        let begun = Instant::now();
        self.scale(0)?;
        self.until_gone()?;
        step.ended_ms = begun.elapsed().as_millis() as u64;
        Ok(())
    }
}

/// Asks a function with so many instances for so many answers at a time; how many different instances have answered.
fn ask(gateway: SocketAddr, function: &str, count: u32) -> Result<u32> {
    let bodies = ask_at_once(gateway, function, count as usize, PATIENCE)?;
    let identities = bodies.iter().filter_map(|body| body.split_whitespace().next());
    Ok(identities.collect::<HashSet<_>>().len() as u32)
}

/// What `/proc/meminfo` says.
struct Memory(String);

impl Memory {
    fn now() -> Result<Self> {
        Ok(Self(read("/proc/meminfo")?))
    }

    fn bytes(&self, name: &str) -> u64 {
        bytes_of(&self.0, name).unwrap_or(0)
    }

    fn available(&self) -> u64 {
        self.bytes("MemAvailable")
    }

    /// By how much a figure has become less.
    fn less(&self, name: &str, now: &Self) -> i64 {
        self.bytes(name) as i64 - now.bytes(name) as i64
    }
}

fn medians(monitors: &[ProcessIdentity]) -> Result<(u64, u64)> {
    let every = monitors.len().div_ceil(SAMPLED).max(1);
    let sampled = monitors.iter().step_by(every);
    let figures = sampled.map(|monitor| private_and_proportional(monitor.pid));
    let (mut private, mut proportional): (Vec<u64>, Vec<u64>) =
        figures.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let median = |values: &mut Vec<u64>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    Ok((median(&mut private), median(&mut proportional)))
}
