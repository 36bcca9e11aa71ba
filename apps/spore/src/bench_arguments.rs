//! What the user can type behind `spore bench`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use spore_evaluation::measures::Measure;
use spore_evaluation::targets::TargetSpec;
use spore_evaluation::workloads::{Language, Workload};

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum BenchCommand {
    /// Measure, and write the samples and a page
    Run(Box<BenchRunArguments>),
    /// Print the figures of a run, and write its page again
    Report(BenchReportArguments),
    /// Tell whether two runs differ by more than chance; exits with 1 if so, with 2 if they cannot be compared
    Compare(BenchCompareArguments),
    /// Write a trace of requests like those of a large platform
    Trace(BenchTraceArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore bench run --quick\n  spore bench run --targets vm,crun,bare --measures cold,memory\n  spore bench run --targets vm --targets mine:dev.spore.snapshot=true,dev.spore.reset-in-place=false\n  spore bench run --targets elsewhere=http://127.0.0.1:8080/function/hello --measures warm,load\n  spore bench run --resume spore-bench-2026-01-31-1\n\nCtrl-C ends it; what was measured until then is kept, and --resume goes on. docs/evaluation.md defines every figure."
)]
pub(crate) struct BenchRunArguments {
    /// A look at everything that is installed, within five minutes
    #[arg(long, conflicts_with = "resume")]
    pub(crate) quick: bool,
    /// Folder for run.json and report.html [default: spore-bench-DATE-NUMBER]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub(crate) output: Option<PathBuf>,
    /// Go on with the run of this folder, as it was configured
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Targets: vm, vm-boot, process, process-boot, runc, crun, gvisor, microvm, microvm-boot, bare; NAME:KEY=VALUE,... for
    /// a function with these annotations; NAME=URL for one that is there; may be repeated [default: all that are installed]
    #[arg(long, value_name = "TARGET", value_parser = targets, conflicts_with = "resume")]
    pub(crate) targets: Vec<Targets>,
    /// Languages of the functions [default: all that are installed]
    #[arg(long, value_name = "LANGUAGE", value_delimiter = ',', value_parser = languages(), conflicts_with = "resume")]
    pub(crate) languages: Vec<Language>,
    /// Work inside instances
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',', value_parser = workloads(), conflicts_with = "resume")]
    pub(crate) workloads: Vec<Workload>,
    /// What is measured [default: everything]
    #[arg(long, value_name = "MEASURE", value_delimiter = ',', value_parser = measures(), conflicts_with = "resume")]
    pub(crate) measures: Vec<Measure>,
    /// How often everything is gone through
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "resume")]
    pub(crate) passes: Option<u32>,
    /// Rounds of each step, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=999), conflicts_with = "resume")]
    pub(crate) rounds: Option<u32>,
    /// Simultaneous requests on warm instances, for example 1,2,4,8
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = count(), conflicts_with = "resume")]
    pub(crate) concurrency: Vec<u32>,
    /// Instances whose memory is measured, for example 1,10,100,1000
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = count(), conflicts_with = "resume")]
    pub(crate) instances: Vec<u32>,
    /// Requests of a burst
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = count(), conflicts_with = "resume")]
    pub(crate) burst: Vec<u32>,
    /// Functions in a chain
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = count(), conflicts_with = "resume")]
    pub(crate) chain: Vec<u32>,
    /// Requests in each second of the open loop
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "resume")]
    pub(crate) rates: Vec<u32>,
    /// How long idle instances are kept while a load is replayed, in seconds
    #[arg(long, value_name = "SECONDS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=86_400), conflicts_with = "resume")]
    pub(crate) keep_alive: Vec<u32>,
    /// A trace to replay instead of a synthetic one (docs/evaluation.md)
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) trace: Option<PathBuf>,
    /// How long the load is replayed, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400), conflicts_with = "resume")]
    pub(crate) replay: Option<u32>,
    /// How many seconds of the trace pass in one
    #[arg(long, value_name = "FACTOR", value_parser = factor, conflicts_with = "resume")]
    pub(crate) compression: Option<f64>,
    /// Memory of each instance, for example 128Mi
    #[arg(long, value_name = "QUANTITY", conflicts_with = "resume")]
    pub(crate) memory: Option<String>,
    /// After so many seconds no step is begun any more
    #[arg(long, value_name = "SECONDS", conflicts_with = "resume")]
    pub(crate) time_limit: Option<u64>,
    /// Where random choices begin
    #[arg(long, value_name = "NUMBER", conflicts_with = "resume")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchReportArguments {
    /// A folder that `spore bench run` has written
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  spore bench compare before after --measures cold-lone,warm")]
pub(crate) struct BenchCompareArguments {
    /// The run that is compared with
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// The run that may differ
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    /// By which part medians may differ and still agree: machines are not the same from one hour to the next
    #[arg(long, value_name = "PART", default_value = "0.25", value_parser = part)]
    pub(crate) tolerance: f64,
    /// Probability that an interval holds what it is of
    #[arg(long, value_name = "PART", default_value = "0.99", value_parser = part)]
    pub(crate) confidence: f64,
    /// Only series of these names, for example cold-lone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) measures: Vec<String>,
    /// Show those that agree too
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  spore bench trace --functions 200 --hours 24 --output day.csv")]
pub(crate) struct BenchTraceArguments {
    /// Functions
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) functions: u32,
    /// Length, in hours
    #[arg(long, value_name = "HOURS", default_value = "24", value_parser = factor)]
    pub(crate) hours: f64,
    /// Most requests of a function in each second
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = factor)]
    pub(crate) rate_max: f64,
    /// Where random choices begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// One or several targets of one option.
#[derive(Debug, Clone)]
pub(crate) struct Targets(pub(crate) Vec<TargetSpec>);

/// Names with commas between them, or one target that is spelled out: its annotations have commas too.
fn targets(text: &str) -> Result<Targets, String> {
    let parse = |text: &str| text.parse::<TargetSpec>().map_err(|error| error.to_string());
    if text.contains([':', '=']) {
        return Ok(Targets(vec![parse(text)?]));
    }
    text.split(',').map(parse).collect::<Result<_, _>>().map(Targets)
}

fn languages() -> impl TypedValueParser<Value = Language> {
    PossibleValuesParser::new(Language::NAMES).try_map(|name| name.parse::<Language>())
}

fn workloads() -> impl TypedValueParser<Value = Workload> {
    PossibleValuesParser::new(Workload::NAMES).try_map(|name| name.parse::<Workload>())
}

fn measures() -> impl TypedValueParser<Value = Measure> {
    PossibleValuesParser::new(Measure::NAMES).try_map(|name| name.parse::<Measure>())
}

fn count() -> clap::builder::RangedU64ValueParser<u32> {
    clap::builder::RangedU64ValueParser::<u32>::new().range(1..=1000)
}

fn factor(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    let is_allowed = value.is_finite() && value > 0.0 && value <= 1e9;
    is_allowed
        .then_some(value)
        .ok_or_else(|| "it has to be above 0".to_owned())
}

fn part(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    let is_allowed = (0.0..1.0).contains(&value);
    is_allowed
        .then_some(value)
        .ok_or_else(|| "it has to be from 0 to below 1".to_owned())
}
