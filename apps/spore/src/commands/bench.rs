//! `spore bench`: the evaluation that anyone can repeat.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use spore_evaluation::configuration::Configuration;
use spore_evaluation::load::synthetic;
use spore_evaluation::record::Run;
use spore_evaluation::report;
use spore_evaluation::run::{Progress, Setup, run as measure};
use spore_evaluation::statistics::bootstrap::Resampling;
use spore_evaluation::statistics::comparison::{Criterion, compare as compare_runs};

use super::Gateway;
use crate::bench_arguments::{
    BenchCommand, BenchCompareArguments, BenchReportArguments, BenchRunArguments, BenchTraceArguments,
};

/// Exit status where the runs share nothing that could be compared.
const NOT_COMPARABLE: u8 = 2;
/// Exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;
const BAR: &str = "[{bar:30}] {pos}/{len} {msg} ({elapsed})";

/// Measures, reports or compares.
pub(super) fn run(gateway: &Gateway, command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Run(arguments) => run_bench(gateway, *arguments),
        BenchCommand::Report(arguments) => show(&arguments),
        BenchCommand::Compare(arguments) => compare(&arguments),
        BenchCommand::Trace(arguments) => trace(&arguments),
    }
}

fn run_bench(gateway: &Gateway, arguments: BenchRunArguments) -> anyhow::Result<ExitCode> {
    let earlier = arguments.resume.as_deref().map(Run::read).transpose()?;
    let output = match (&arguments.resume, &arguments.output) {
        (Some(folder), _) | (None, Some(folder)) => folder.clone(),
        (None, None) => new_folder()?,
    };
    if earlier.is_none() && output.join(spore_evaluation::record::FILE).exists() {
        bail!(
            "{} holds a run already: go on with it by --resume, or name another folder with --output",
            output.display()
        );
    }
    let configuration = match &earlier {
        Some(run) => run.configuration.clone(),
        None => configuration(arguments)?,
    };
    let is_interrupted = Arc::new(AtomicBool::new(false));
    end_on_interrupt(Arc::clone(&is_interrupted))?;
    let setup = Setup {
        spore: std::env::current_exe().context("this program cannot be found")?,
        gateway: gateway.named.clone(),
        authorization: match &gateway.named {
            Some(_) => gateway.client(None)?.authorization(),
            None => None,
        },
        output: output.clone(),
        is_interrupted: Arc::clone(&is_interrupted),
    };
    let progress = Bar::new();
    let result = measure(configuration, &setup, earlier, &progress);
    progress.0.finish_and_clear();
    let run = result?;
    report::write_page(&run, &output)?;
    super::print(&report::text::render(&run))?;
    eprintln!("samples and page: {}", output.display());
    if is_interrupted.load(Ordering::Relaxed) {
        eprintln!(
            "it was ended; to go on: spore bench run --resume {}",
            output.display()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the options say beyond the full or the quick run.
fn configuration(arguments: BenchRunArguments) -> anyhow::Result<Configuration> {
    let mut chosen = if arguments.quick {
        Configuration::quick()
    } else {
        Configuration::full()
    };
    fn replace<T>(given: Vec<T>, chosen: &mut Vec<T>) {
        if !given.is_empty() {
            *chosen = given;
        }
    }
    let targets: Vec<_> = arguments
        .targets
        .into_iter()
        .flat_map(|targets| targets.0)
        .collect();
    for (index, target) in targets.iter().enumerate() {
        if targets[..index].iter().any(|other| other.name == target.name) {
            bail!(
                "there are two targets {}: give one of them another name",
                target.name
            );
        }
    }
    replace(targets, &mut chosen.targets);
    replace(arguments.languages, &mut chosen.languages);
    replace(arguments.workloads, &mut chosen.workloads);
    replace(arguments.measures, &mut chosen.measures);
    replace(arguments.concurrency, &mut chosen.concurrency);
    replace(arguments.instances, &mut chosen.instances);
    replace(arguments.burst, &mut chosen.burst);
    replace(arguments.chain, &mut chosen.chain);
    replace(arguments.rates, &mut chosen.rates);
    replace(arguments.keep_alive, &mut chosen.keep_alive_s);
    chosen.passes = arguments.passes.unwrap_or(chosen.passes);
    chosen.rounds = arguments.rounds.unwrap_or(chosen.rounds);
    chosen.memory = arguments.memory;
    chosen.seed = arguments.seed.unwrap_or(chosen.seed);
    chosen.time_limit_s = arguments.time_limit.or(chosen.time_limit_s);
    chosen.load.seconds = arguments.replay.unwrap_or(chosen.load.seconds);
    chosen.load.compression = arguments.compression.unwrap_or(chosen.load.compression);
    if let Some(path) = arguments.trace {
        // A run that goes on may do so from another folder.
        chosen.load.trace = Some(
            path.canonicalize()
                .with_context(|| format!("{} cannot be read", path.display()))?,
        );
    }
    Ok(chosen)
}

/// The first folder `spore-bench-DATE-NUMBER` that is not there.
fn new_folder() -> anyhow::Result<PathBuf> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut names = (1..10_000).map(|number| PathBuf::from(format!("spore-bench-{date}-{number}")));
    names
        .find(|path| !path.exists())
        .context("there are too many folders of runs here: name one with --output")
}

/// The first Ctrl-C ends the run after what it is doing; the second one at once.
fn end_on_interrupt(is_interrupted: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if is_interrupted.swap(true, Ordering::Relaxed) {
                    // The daemon ends with this process.
                    #[allow(
                        clippy::exit,
                        reason = "whoever asks twice does not wait for what is measured"
                    )]
                    std::process::exit(i32::from(INTERRUPTED));
                }
                eprintln!("ending; a second Ctrl-C ends at once");
            }
        });
    });
    Ok(())
}

fn show(arguments: &BenchReportArguments) -> anyhow::Result<ExitCode> {
    let run = Run::read(&arguments.folder)?;
    report::write_page(&run, &arguments.folder)?;
    super::print(&report::text::render(&run))
}

fn compare(arguments: &BenchCompareArguments) -> anyhow::Result<ExitCode> {
    let (mut a, mut b) = match (Run::read(&arguments.a), Run::read(&arguments.b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => {
            crate::output::print_error(&error.into());
            return Ok(ExitCode::from(NOT_COMPARABLE));
        }
    };
    if !arguments.measures.is_empty() {
        for run in [&mut a, &mut b] {
            run.series
                .retain(|series| arguments.measures.contains(&series.key.measure));
        }
    }
    let criterion = Criterion {
        tolerance: arguments.tolerance,
        resampling: Resampling {
            confidence: arguments.confidence,
            ..Criterion::default().resampling
        },
    };
    let (compared, lonely) = compare_runs(&a, &b, criterion);
    super::print(&report::text::render_comparison(
        &a,
        &b,
        &compared,
        &lonely,
        arguments.all,
    ))?;
    Ok(match compared.iter().any(|one| one.differs()) {
        true => ExitCode::FAILURE,
        false if compared.is_empty() => ExitCode::from(NOT_COMPARABLE),
        false => ExitCode::SUCCESS,
    })
}

fn trace(arguments: &BenchTraceArguments) -> anyhow::Result<ExitCode> {
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let functions = synthetic::functions(arguments.functions, &mut random);
    let length_ms = arguments.hours * 3_600_000.0;
    let trace = synthetic::trace(&functions, length_ms, arguments.rate_max, &mut random);
    write(&arguments.output, &trace.to_csv())?;
    super::print(&format!(
        "{} requests of {} functions in {}\n",
        trace.events.len(),
        trace.functions.len(),
        arguments.output.display()
    ))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// Progress on standard error: a bar at a terminal, lines elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = crate::output::spinner("starting".to_owned());
        Self(bar)
    }

    fn say(&self, text: &str) {
        if std::io::stderr().is_terminal() {
            self.0.println(text);
        } else {
            eprintln!("{text}");
        }
    }
}

impl Progress for Bar {
    fn begin(&self, steps: usize, done: usize) {
        self.0.set_length(steps as u64);
        self.0.set_position(done as u64);
        // The template is a constant; the default style is as good if it were wrong.
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            self.0.set_style(style);
        }
    }

    fn step(&self, name: &str) {
        if std::io::stderr().is_terminal() {
            self.0.set_message(name.to_owned());
        } else {
            self.say(name);
        }
    }

    fn done(&self) {
        self.0.inc(1);
    }

    fn note(&self, text: &str) {
        self.say(text);
    }
}
