//! Checks the figures that are promised of unikernels, beside the same programs as processes, and keeps the raw samples.
//!
//! ```text
//! spore-bench run      measures; writes results/DATE-MACHINE/*.json, every sample in nanoseconds
//! spore-bench report   prints p50, p99, sample counts and ratios from such a folder
//! ```
//!
//! - [`subject`]: what is measured: a function on Spore, and the same program as a process;
//! - [`runtimes`]: the same for language runtimes; [`footprint`]: the memory that they hold;
//! - [`neighbour`]: a function beside one that spins; [`isolation`]: a pristine instance for each request;
//! - [`density`]: many instances alive at a time, and what each takes;
//! - [`templates`]: what `spore new` writes in every language: cold starts, deployments of stored images;
//! - [`artefacts`]: what is stored of each, and what of it functions share;
//! - [`rounds`]: the order in which it is measured;
//! - [`record`]: the files; [`report`]: the table and the promises.
//!
//! Other sandboxes are `spore bench`'s affair (`host/evaluation`), from which quantiles and what the kernel tells are too.
//!
//! Everything happens on loopback, and every loop has a bound.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use spore_evaluation::machine;
use spore_test_harness::daemon::binary;
use spore_test_real::programs::compiled::{FIGURES, GO_BUSY};
use spore_test_real::programs::installed::{NODE, PYTHON_HANDLER};

mod artefacts;
mod cold;
mod density;
mod footprint;
mod isolation;
mod neighbour;
mod record;
mod report;
mod rounds;
mod runtimes;
mod subject;
mod templates;

/// Measures what is promised and reports.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, writes the raw samples, and prints the report.
    Run {
        /// Samples of each start series.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        repetitions: u32,
        /// Where the results go; a folder DATE-MACHINE is made there.
        #[arg(long, default_value = "bench/results")]
        output: PathBuf,
        /// Only one part: starts, warm invocations and the loop in C; cold starts by copy; those of every template; deployments
        /// of stored images; what is stored of functions; language runtimes and what is under them; a warm function beside one
        /// that spins; a pristine instance for each request; or many instances alive at a time.
        #[arg(long)]
        only: Option<Part>,
        /// How many instances are to be alive at a time, at most; fewer where memory does not suffice.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
        instances: u32,
        /// Fails if a promised figure is not met.
        #[arg(long)]
        check: bool,
    },
    /// Prints the report of an earlier run.
    Report {
        /// A folder that `run` wrote.
        folder: PathBuf,
        /// Fails if a promised figure is not met.
        #[arg(long)]
        check: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Basics,
    Cold,
    Templates,
    Deploy,
    Artefacts,
    Runtimes,
    Neighbour,
    Density,
    Isolation,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run {
            repetitions,
            output,
            only,
            instances,
            check,
        } => {
            let folder = measure(repetitions, &output, only, instances)?;
            print_report(&folder, check)
        }
        Command::Report { folder, check } => print_report(&folder, check),
    }
}

/// Runs all series, or one part of them, and returns the folder with their samples.
fn measure(repetitions: u32, output: &Path, only: Option<Part>, instances: u32) -> Result<PathBuf> {
    let set_up = subject::SetUp::new()?;
    let probe = serde_json::from_str(&set_up.daemon.spore_ok(&["info", "--json"]))?;
    let machine = machine::describe(probe, binary())?;
    let folder = output.join(format!("{}-{}", machine.date, machine.host));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    record::write(&folder.join("machine.json"), &machine)?;

    let wants = |part| only.is_none_or(|only| only == part);
    let in_processes = if wants(Part::Cold) {
        set_up.in_processes()?
    } else {
        None
    };
    if wants(Part::Basics) {
        measure_basics(&set_up, repetitions, &folder)?;
    }
    if wants(Part::Cold) {
        measure_cold(&set_up, in_processes.as_ref(), repetitions, &folder)?;
    }
    if wants(Part::Templates) {
        let mut subjects = templates::starts(&set_up)?;
        for lone in [false, true] {
            let series = rounds::run("templates", lone, repetitions, &mut subjects)?;
            record::write(&folder.join(format!("{}.json", series.name)), &series)?;
        }
    }
    if wants(Part::Deploy) {
        for (kind, mut subjects) in templates::deployments(&set_up)? {
            let series = rounds::run(kind, false, repetitions, &mut subjects)?;
            record::write(&folder.join(format!("{}.json", series.name)), &series)?;
        }
    }
    if wants(Part::Artefacts) {
        record::write(&folder.join(record::ARTEFACTS), &artefacts::measure()?)?;
    }
    if wants(Part::Neighbour) {
        measure_neighbour(&set_up, repetitions * 10, &folder)?;
    }
    if wants(Part::Isolation) {
        for (kind, mut subjects) in isolation::series(&set_up)? {
            let series = rounds::run(kind, false, repetitions, &mut subjects)?;
            record::write(&folder.join(format!("{}.json", series.name)), &series)?;
        }
    }
    if wants(Part::Density) {
        let steps = density::measure(&set_up, instances)?;
        record::write(&folder.join(record::DENSITY), &steps)?;
    }
    if wants(Part::Runtimes) {
        measure_runtimes(&set_up, repetitions.min(40), &folder)?;
    }
    Ok(folder)
}

/// Starts, warm invocations and a loop in C.
fn measure_basics(set_up: &subject::SetUp, repetitions: u32, folder: &Path) -> Result<()> {
    let mut starts = subject::starts(set_up)?;
    for lone in [false, true] {
        let series = rounds::run("start", lone, repetitions, &mut starts)?;
        record::write(&folder.join(format!("{}.json", series.name)), &series)?;
    }
    drop(starts);
    let mut warm = subject::warm(set_up)?;
    for lone in [false, true] {
        let series = rounds::run(
            "warm",
            lone,
            if lone { repetitions } else { repetitions * 20 },
            &mut warm,
        )?;
        record::write(&folder.join(format!("{}.json", series.name)), &series)?;
    }
    drop(warm);
    let mut compute = subject::compute(set_up)?;
    let series = rounds::run("compute", false, repetitions.min(40), &mut compute)?;
    record::write(&folder.join(format!("{}.json", series.name)), &series)?;
    Ok(())
}

/// Cold starts of C, Go, Python and Node, in both modes.
fn measure_cold(
    set_up: &subject::SetUp,
    in_processes: Option<&subject::SetUp>,
    repetitions: u32,
    folder: &Path,
) -> Result<()> {
    let mut all = vec![("cold-c", cold::of_c(set_up, in_processes)?)];
    all.extend(cold::of_programs(set_up, in_processes)?);
    for (kind, mut subjects) in all {
        for lone in [false, true] {
            let series = rounds::run(kind, lone, repetitions, &mut subjects)?;
            record::write(&folder.join(format!("{}.json", series.name)), &series)?;
        }
    }
    Ok(())
}

/// A warm function beside one that spins.
fn measure_neighbour(set_up: &subject::SetUp, repetitions: u32, folder: &Path) -> Result<()> {
    let mut subjects = neighbour::subjects(set_up)?;
    let series = rounds::run("neighbour", false, repetitions, &mut subjects)?;
    record::write(&folder.join(format!("{}.json", series.name)), &series)
}

/// The series about language runtimes and about the system under them, one program after the other.
fn measure_runtimes(set_up: &subject::SetUp, repetitions: u32, folder: &Path) -> Result<()> {
    let memory = |name| match name {
        "go-busy" => Some("memory-go"),
        "python-library" => Some("memory-python"),
        _ => None,
    };
    for program in [FIGURES, GO_BUSY, PYTHON_HANDLER, NODE] {
        let Some(runtime) = runtimes::Runtime::deploy(set_up, program)? else {
            continue;
        };
        for (kind, mut subjects) in runtimes::series(set_up, &runtime)? {
            let series = rounds::run(kind, false, repetitions, &mut subjects)?;
            record::write(&folder.join(format!("{}.json", series.name)), &series)?;
        }
        if let Some(name) = memory(program.name) {
            let series = footprint::measure(set_up, &runtime, name)?;
            record::write(&folder.join(format!("{name}.json")), &series)?;
        }
    }
    Ok(())
}

fn print_report(folder: &Path, check: bool) -> Result<ExitCode> {
    let machine: machine::Machine = record::read(&folder.join("machine.json"))?;
    let series = record::read_series(folder)?;
    let density = record::read_density(folder)?;
    let artefacts = record::read_artefacts(folder)?;
    print!("{}", report::render(&machine, &series));
    print!("{}", report::render_density(&density));
    print!("{}", artefacts::render(&artefacts));
    let mut kept = report::promises(&series);
    kept.extend(report::promises_of_density(&density));
    kept.extend(artefacts::promises(&artefacts));
    print!("\n{}", report::render_promises(&kept));
    let all_kept = kept.iter().all(|promise| promise.is_kept());
    Ok(if check && !all_kept {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
