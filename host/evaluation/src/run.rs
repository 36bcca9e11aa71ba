//! A run: sets everything up, goes through the steps, and keeps what was measured.
//!
//! ```text
//!   start the daemon ──> build, push, deploy ──> steps: pass, measure, point ──> report
//!                                                  │  rounds: every target once, in random order
//!                                                  └──> run.json is written anew after each step
//! ```
//!
//! A step is done wholly or not at all: what was measured of one that is interrupted is left out, and a run that goes on
//! (`--resume`) begins with it. Steps that would begin after the time limit are left out by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use serde_json::Value;

use crate::configuration::Configuration;
use crate::context::{Clock, Context};
use crate::machine::{self, Machine, ReadError};
use crate::measures::{Measure, MeasureError, Point, Reading, chain_of};
use crate::record::{Key, RecordError, Run, TargetRecord, Unit};
use crate::targets::gateway::{Gateway, GatewayError};
use crate::targets::subject::Subject;
use crate::targets::{TargetKind, TargetSpec};
use crate::workloads::{self, Language, Program};

/// The variable in the environment of everything that a run starts.
const MARK: &str = "SPORE_EVALUATION";
/// Longest wait for an idle machine before the first step.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(20);
/// A target that fails this often in a row in a step is left out of the rest of it.
const FAILURES_MAX: u32 = 3;

/// What a run needs besides its configuration.
pub struct Setup {
    /// The program that is measured: `spore`.
    pub spore: PathBuf,
    /// A gateway that is there; without one, a daemon is started for the run.
    pub gateway: Option<String>,
    /// Its name and password, as a header's value.
    pub authorization: Option<String>,
    /// Where the document goes.
    pub output: PathBuf,
    /// Set from outside to end the run.
    pub is_interrupted: Arc<AtomicBool>,
}

/// What a run tells while it goes on.
pub trait Progress {
    /// There are so many steps, of which so many are done already.
    fn begin(&self, steps: usize, done: usize);
    /// A step of this name begins.
    fn step(&self, name: &str);
    /// A step is over.
    fn done(&self);
    /// Something that the user should know.
    fn note(&self, text: &str);
}

/// Why a run did not come to its end. What was measured is in its folder.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No runtime, or no temporary folder.
    #[error("the run cannot be set up")]
    SetUp(#[source] std::io::Error),
    /// The gateway cannot be had.
    #[error("there is no gateway to measure")]
    Gateway(#[from] GatewayError),
    /// The document cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The machine cannot be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing is left to measure.
    #[error("nothing can be measured: {why}")]
    Nothing {
        /// What was left out, and why.
        why: String,
    },
}

/// A step: one point of one measure, for all targets.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    pass: u32,
    measure: Measure,
    point: Point,
}

impl Step {
    fn name(&self) -> String {
        let at = self.point.at.map_or(String::new(), |at| format!(", {at}"));
        let (pass, measure) = (self.pass + 1, self.measure.name());
        format!("{pass}: {measure} of {}{at}", self.point.workload_name())
    }
}

/// All steps of a configuration. Each pass goes through everything: what changes slowly on the machine is then seen in the
/// samples of each.
fn plan(configuration: &Configuration) -> Vec<Step> {
    let mut steps = Vec::new();
    for pass in 0..configuration.passes {
        for measure in &configuration.measures {
            let points = measure.points(configuration).into_iter();
            steps.extend(points.map(|point| Step {
                pass,
                measure: *measure,
                point,
            }));
        }
    }
    steps
}

/// Runs a configuration, or goes on with `earlier`, and returns the document, which is in the folder too. Blocks for as long
/// as that takes.
///
/// # Errors
///
/// If nothing can be measured at all, or the document cannot be written. What fails in single targets is in the document.
pub fn run(
    configuration: Configuration,
    setup: &Setup,
    earlier: Option<Run>,
    progress: &dyn Progress,
) -> Result<Run, RunError> {
    let begun = Instant::now();
    let folder = tempfile::Builder::new()
        .prefix("spore-bench-")
        .tempdir()
        .map_err(RunError::SetUp)?;
    let mark = format!("{MARK}={}-{:016x}", std::process::id(), fastrand::u64(..));
    let clock = Clock::new().map_err(RunError::SetUp)?;
    let gateway = gateway(&clock, &configuration, setup, folder.path(), &mark)?;
    let mut run = match earlier {
        Some(run) => run,
        None => Run::new(configuration, describe(setup)?),
    };
    let mut context = Context {
        clock,
        configuration: run.configuration.clone(),
        spore: setup.spore.clone(),
        mark,
        gateway,
        programs: HashMap::new(),
        is_interrupted: Arc::clone(&setup.is_interrupted),
        checks: HashMap::new(),
        spin_ns: None,
    };
    let result = go_through(&mut context, &mut run, setup, folder.path(), begun, progress);
    let Context { clock, gateway, .. } = context;
    if let Some(mut gateway) = gateway {
        gateway.clean_up(&clock);
    }
    result.map(|()| run)
}

/// The gateway, if any target needs one.
fn gateway(
    clock: &Clock,
    configuration: &Configuration,
    setup: &Setup,
    folder: &Path,
    mark: &str,
) -> Result<Option<Gateway>, RunError> {
    let is_function = |target: &TargetSpec| matches!(target.kind, TargetKind::Function { .. });
    if !configuration.targets.iter().any(is_function) {
        return Ok(None);
    }
    let gateway = match &setup.gateway {
        Some(url) => {
            let authorization = setup.authorization.as_deref();
            let authorization = authorization.and_then(|value| HeaderValue::from_str(value).ok());
            Gateway::connect(clock, url, authorization)?
        }
        None => Gateway::start(clock, &setup.spore, folder, mark)?,
    };
    Ok(Some(gateway))
}

fn describe(setup: &Setup) -> Result<Machine, RunError> {
    let mut info = std::process::Command::new(&setup.spore);
    let said = workloads::run(&setup.spore, info.args(["info", "--json"]));
    let probe = said.ok().and_then(|said| serde_json::from_str(&said).ok());
    Ok(machine::describe(probe.unwrap_or(Value::Null), &setup.spore)?)
}

fn go_through(
    context: &mut Context,
    run: &mut Run,
    setup: &Setup,
    folder: &Path,
    begun: Instant,
    progress: &dyn Progress,
) -> Result<(), RunError> {
    build(context, run, folder, progress);
    let mut subjects = deploy(context, run, progress);
    if subjects.is_empty() {
        let why: Vec<String> = run
            .left_out
            .iter()
            .map(|left_out| format!("{}: {}", left_out.what, left_out.reason))
            .collect();
        return Err(RunError::Nothing { why: why.join("; ") });
    }
    let steps = plan(&context.configuration);
    let is_done = |run: &Run, step: &Step| run.steps_done.contains(&step.name());
    let already = steps.iter().filter(|step| is_done(run, step)).count();
    progress.begin(steps.len(), already);
    let limit = context.configuration.time_limit_s.map(Duration::from_secs);
    let earlier_s = run.elapsed_s;
    let wait = limit.map_or(IDLE_WAIT_MAX, |limit| IDLE_WAIT_MAX.min(limit / 20));
    machine::wait_for_idle(wait)?;
    let mut random = fastrand::Rng::with_seed(context.configuration.seed ^ u64::from(std::process::id()));
    run.is_complete = true;
    for (index, step) in steps.iter().enumerate() {
        if is_done(run, step) {
            continue;
        }
        if limit.is_some_and(|limit| begun.elapsed() >= limit) {
            run.leave_out(&step.name(), "the time was over");
            run.is_complete = false;
            continue;
        }
        progress.step(&step.name());
        // A share of the time that is left, so that what comes last is measured too.
        let mut budget = Duration::from_secs(context.configuration.step_s);
        if let Some(limit) = limit {
            let left = limit.saturating_sub(begun.elapsed());
            budget = budget.min(left / (steps.len() - index) as u32 * 3 / 2);
        }
        let mut done = run.clone();
        let result = take(context, &mut done, &mut subjects, step, budget, &mut random);
        if matches!(result, Err(MeasureError::Interrupted)) {
            run.is_complete = false;
            break;
        }
        *run = done;
        run.steps_done.push(step.name());
        run.elapsed_s = earlier_s + begun.elapsed().as_secs_f64();
        run.write(&setup.output)?;
        progress.done();
    }
    run.write(&setup.output)?;
    Ok(())
}

/// Builds the languages' programs; those that cannot be built are left out.
fn build(context: &mut Context, run: &mut Run, folder: &Path, progress: &dyn Progress) {
    for language in context.configuration.languages.clone() {
        progress.note(&format!("building {}", language.name()));
        let image = crate::targets::subject::image_name(language);
        let built = Program::write(&context.spore, folder, language, &image).and_then(|program| {
            program.build(&context.spore)?;
            if let Some(gateway) = &context.gateway {
                program.push(&context.spore, &gateway.url)?;
            }
            Ok(program)
        });
        match built {
            Ok(program) => drop(context.programs.insert(language, program)),
            Err(error) => {
                let reason = chain_of(&error);
                progress.note(&format!("left out: {}: {reason}", language.name()));
                run.leave_out(language.name(), &reason);
            }
        }
    }
    let wants_artefacts = context.configuration.measures.contains(&Measure::Artefact);
    if wants_artefacts && run.steps_done.is_empty() {
        artefacts(context, run);
    }
}

/// What the image of each language has taken in the data folder of the daemon, and a second function's takes besides: it
/// differs in one line of its source.
fn artefacts(context: &Context, run: &mut Run) {
    let Some(gateway) = &context.gateway else { return };
    let Some(data) = gateway.data() else { return };
    for (language, program) in &context.programs {
        let key = |measure: &str| Key {
            measure: measure.to_owned(),
            workload: format!("{}/{}", language.name(), workloads::HELLO),
            target: "image".to_owned(),
            at: None,
        };
        let images = gateway.get(&context.clock, "/system/images").unwrap_or_default();
        let name = format!("{}:latest", crate::targets::subject::image_name(*language));
        let images = images.as_array().cloned().unwrap_or_default();
        let has_name = |image: &&Value| {
            image["names"]
                .as_array()
                .is_some_and(|names| names.contains(&name.clone().into()))
        };
        if let Some(bytes) = images
            .iter()
            .find(has_name)
            .and_then(|image| image["bytes"].as_f64())
        {
            add(
                run,
                &key("artefact-first"),
                &Reading::new("artefact-first", Unit::Bytes, vec![bytes]),
                0,
            );
        }
        let before = folder_bytes(data);
        let changed = another_version(program);
        if changed.is_ok() && program.push(&context.spore, &gateway.url).is_ok() {
            let grown = folder_bytes(data).saturating_sub(before) as f64;
            add(
                run,
                &key("artefact-next"),
                &Reading::new("artefact-next", Unit::Bytes, vec![grown]),
                0,
            );
        }
    }
}

/// Adds a line to the source of a program that changes what it is.
fn another_version(program: &Program) -> std::io::Result<()> {
    use std::io::Write as _;
    let (file, line) = match program.language {
        Language::C => (
            "handler.c",
            "const char spore_bench_version[] = \"another one\";\n",
        ),
        Language::Go => (
            "handler.go",
            "\n// Version is another one.\nvar Version = \"another one\"\n",
        ),
        Language::Python => ("handler.py", "\nVERSION = 'another one'\n"),
        Language::Node => ("handler.js", "\nmodule.exports.version = 'another one';\n"),
    };
    let path = program.folder.join(file);
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(line.as_bytes())
}

/// Bytes on the disk below a folder; links are not followed.
fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += metadata.blocks() * 512 / metadata.nlink().max(1);
            }
        }
    }
    bytes
}

/// Deploys every program in every target; targets that cannot be had are left out, with the reason.
fn deploy(context: &mut Context, run: &mut Run, progress: &dyn Progress) -> Vec<Subject> {
    let mut subjects = Vec::new();
    run.targets.clear();
    for target in context.configuration.targets.clone() {
        let mut record = TargetRecord {
            name: target.name.clone(),
            isolation: String::new(),
            accelerator: String::new(),
            settings: target.settings(),
            details: Value::Null,
            left_out: None,
        };
        let missing = match (target.sandbox(), &context.gateway) {
            (Some(kind), Some(gateway)) => gateway
                .sandbox(kind)
                .map(|details| record.details = details)
                .err(),
            _ => None,
        };
        if let Some(reason) = missing {
            progress.note(&format!("left out: {}: {reason}", target.name));
            run.leave_out(&target.name, &reason);
            record.left_out = Some(reason);
            run.targets.push(record);
            continue;
        }
        progress.note(&format!("deploying to {}", target.name));
        let is_url = matches!(target.kind, TargetKind::Url { .. });
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for language in context.configuration.languages.clone() {
            // What is behind a URL has one program, whatever it is written in.
            if is_url && !found.is_empty() {
                break;
            }
            let Some(program) = context.programs.get(&language).cloned() else {
                continue;
            };
            match Subject::deploy(context, &target, &program) {
                Ok(subject) => found.push(subject),
                Err(error) => failures.push((language, error.line())),
            }
        }
        for (language, reason) in &failures {
            let what = format!("{} in {}", language.name(), target.name);
            progress.note(&format!("left out: {what}: {reason}"));
            run.leave_out(&what, reason);
        }
        match found.first() {
            Some(subject) => describe_target(context, run, subject, &mut record),
            None => record.left_out = failures.into_iter().next().map(|(_, reason)| reason),
        }
        subjects.extend(found);
        run.targets.push(record);
    }
    subjects
}

/// What is around functions in a target, as the gateway tells it.
fn describe_target(context: &Context, run: &Run, subject: &Subject, record: &mut TargetRecord) {
    let kvm = run.machine.probe["kvm_kind"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    let Some(function) = subject.kept_function() else {
        record.isolation = if subject.has_workloads() {
            "none: a process of the host"
        } else {
            "unknown"
        }
        .to_owned();
        record.accelerator = "none".to_owned();
        return;
    };
    let status = context
        .gateway()
        .and_then(|gateway| Ok(gateway.get(&context.clock, &format!("/system/function/{function}"))?))
        .unwrap_or_default();
    let sandbox = status["sandbox"]
        .as_str()
        .or_else(|| record.settings.get(crate::targets::SANDBOX).map(String::as_str));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let isolation = text(&status["isolation"]).unwrap_or_default();
    record.isolation = match sandbox {
        Some(sandbox) if sandbox != "unikernel" => sandbox.to_owned(),
        _ if isolation == "process" => "unikernel in a process".to_owned(),
        _ => "unikernel in a virtual machine".to_owned(),
    };
    let own = text(&status["accelerator"]).or_else(|| text(&record.details["accelerator"]));
    record.accelerator = match own {
        Some(accelerator) => accelerator,
        None if sandbox.is_none_or(|sandbox| sandbox == "unikernel") && isolation != "process" => {
            format!("KVM, {kvm}")
        }
        None => "none".to_owned(),
    };
}

/// Takes the rounds of a step.
fn take(
    context: &mut Context,
    run: &mut Run,
    subjects: &mut [Subject],
    step: &Step,
    budget: Duration,
    random: &mut fastrand::Rng,
) -> Result<(), MeasureError> {
    let begun = Instant::now();
    let mut order: Vec<usize> = (0..subjects.len())
        .filter(|index| subjects[*index].language == step.point.language || !subjects[*index].has_workloads())
        .collect();
    let mut in_a_row = vec![0_u32; subjects.len()];
    for round in 0..step.measure.rounds(context.configuration.rounds) {
        if round > 0 && begun.elapsed() >= budget {
            break;
        }
        random.shuffle(&mut order);
        for &index in &order {
            if in_a_row[index] >= FAILURES_MAX {
                continue;
            }
            let subject = &subjects[index];
            let target = subject.target.clone();
            match step.measure.take(context, subject, &step.point) {
                Ok(readings) => {
                    in_a_row[index] = 0;
                    for reading in readings {
                        let key = key(&reading, step, &target);
                        add(run, &key, &reading, step.pass * 1000 + round);
                    }
                }
                Err(MeasureError::Interrupted) => return Err(MeasureError::Interrupted),
                Err(MeasureError::NotApplicable) => in_a_row[index] = FAILURES_MAX,
                Err(error) => {
                    in_a_row[index] += 1;
                    fail(run, step, &target, &error);
                }
            }
        }
        if order.iter().all(|index| in_a_row[*index] >= FAILURES_MAX) {
            break;
        }
    }
    Ok(())
}

fn key(reading: &Reading, step: &Step, target: &str) -> Key {
    Key {
        measure: reading.measure.to_owned(),
        workload: step.point.workload_name(),
        target: target.to_owned(),
        at: step.point.at,
    }
}

fn add(run: &mut Run, key: &Key, reading: &Reading, round: u32) {
    let series = run.series_mut(key, reading.unit);
    for value in reading.values.iter().filter(|value| value.is_finite()) {
        series.rounds.push(round);
        series.values.push(*value);
    }
}

/// Notes a failure with the measure that has failed, whatever it would have given.
fn fail(run: &mut Run, step: &Step, target: &str, error: &MeasureError) {
    let key = Key {
        measure: step.measure.name().to_owned(),
        workload: step.point.workload_name(),
        target: target.to_owned(),
        at: step.point.at,
    };
    let existing = run.series.iter().find(|series| series.key == key);
    let unit = existing.map_or(Unit::Nanoseconds, |series| series.unit);
    let series = run.series_mut(&key, unit);
    series.failures += 1;
    series.failure.get_or_insert_with(|| error.line());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let steps = plan(&Configuration::full());
        let names: std::collections::HashSet<String> = steps.iter().map(Step::name).collect();
        assert_eq!(names.len(), steps.len());
        assert!(plan(&Configuration::quick()).len() < steps.len() / 3);
    }
}
