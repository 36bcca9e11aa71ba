//! What is measured. Each measure takes one round of one target at a time; the run interleaves them.
//!
//! - [`cold`]: fresh instances: one by one, at once, and as many as can be had;
//! - [`warm`]: instances that are there; work inside them;
//! - [`memory`]: what instances hold, and compute while nobody asks;
//! - [`chain`]: functions after functions;
//! - [`loads`]: requests that come when they come, and what of the processor's time is the functions'.

mod chain;
mod cold;
mod loads;
mod memory;
mod warm;

use crate::client::AskError;
use crate::configuration::Configuration;
use crate::context::Context;
use crate::machine::ReadError;
use crate::names::named;
use crate::record::Unit;
use crate::targets::gateway::GatewayError;
use crate::targets::process::ProcessError;
use crate::targets::subject::Subject;
use crate::workloads::{BuildError, HELLO, Language, Workload};

named! {
    /// A measure.
    Measure, "measure", {
        /// Fresh instances, after idleness and back to back.
        Cold = "cold",
        /// Requests to instances that are there, one and several at a time.
        Warm = "warm",
        /// Many requests at once, none of which finds an instance.
        Burst = "burst",
        /// Fresh instances for as long as the slice, several at a time.
        Sustained = "sustained",
        /// Memory, and processor time while nobody asks.
        Memory = "memory",
        /// Work inside instances.
        Inside = "inside",
        /// Functions after functions.
        Chain = "chain",
        /// Requests by schedule.
        Load = "load",
        /// A trace, and what it costs beside its own work.
        Utilisation = "utilisation",
        /// What images take on the disk.
        Artefact = "artefact",
    }
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The target has nothing of the kind.
    #[error("it has nothing of the kind")]
    NotApplicable,
    /// The user has ended the run.
    #[error("the run was ended")]
    Interrupted,
    /// An instance was there that should not have been.
    #[error("the invocation was no cold start")]
    NotCold,
    /// It works, and not as it should.
    #[error("{what} answered with check={found}, and not {expected} as before")]
    WrongAnswer {
        /// The workload.
        what: String,
        /// What it answered.
        found: f64,
        /// What it should have answered.
        expected: f64,
    },
    /// The answer has no time in it.
    #[error("{what} does not say how long it took")]
    NoTime {
        /// The workload.
        what: String,
    },
    /// No callback came.
    #[error("no result was called back")]
    NoCallback,
    /// No socket for callbacks.
    #[error("callbacks cannot be listened for")]
    Listen(#[source] std::io::Error),
    /// The request failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The gateway did not do what it was asked.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The process did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The program could not be built.
    #[error("it could not be built")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel does not tell.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<BuildError> for MeasureError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

impl MeasureError {
    /// The error and what led to it, in a line.
    pub(crate) fn line(&self) -> String {
        chain_of(self)
    }
}

/// An error and what led to it, in a line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Samples of one kind that a round has given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// The kind: a measure may give several.
    pub(crate) measure: &'static str,
    pub(crate) unit: Unit,
    pub(crate) values: Vec<f64>,
}

impl Reading {
    pub(crate) fn new(measure: &'static str, unit: Unit, values: Vec<f64>) -> Self {
        Self {
            measure,
            unit,
            values,
        }
    }

    pub(crate) fn times(
        measure: &'static str,
        values: impl IntoIterator<Item = std::time::Duration>,
    ) -> Self {
        let values = values.into_iter().map(|value| value.as_nanos() as f64).collect();
        Self::new(measure, Unit::Nanoseconds, values)
    }
}

/// Where on its axis a measure is taken, and with which work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) language: Language,
    /// None is a function that does nothing.
    pub(crate) workload: Option<Workload>,
    pub(crate) at: Option<f64>,
}

impl Point {
    /// LANGUAGE/WORKLOAD.
    pub(crate) fn workload_name(&self) -> String {
        let workload = self.workload.map_or(HELLO, Workload::name);
        format!("{}/{workload}", self.language.name())
    }
}

/// What readings are called, what they are, and what their axis counts.
pub const MEANINGS: &[(&str, &str, &str)] = &[
    (
        "cold-lone",
        "a request that starts an instance, after 100 ms of idleness: connection opened to last byte",
        "",
    ),
    (
        "cold-back-to-back",
        "the same, each right after the one before",
        "",
    ),
    (
        "initialisation",
        "of the lone ones: request to when the program read it (a process: until it listens)",
        "",
    ),
    (
        "warm-lone",
        "a request to an instance that is there, on a kept connection, after 100 ms of idleness",
        "",
    ),
    (
        "warm",
        "a request to instances that are there, so many callers on kept connections, each asking again at once",
        "callers",
    ),
    (
        "throughput",
        "answers in each second with so many such callers",
        "callers",
    ),
    (
        "burst",
        "each of so many requests at once, all of which start instances",
        "requests",
    ),
    (
        "burst-last",
        "from their first to the last byte of the last of them",
        "requests",
    ),
    (
        "cold-rate",
        "cold starts in each second, four callers at a time",
        "",
    ),
    (
        "memory-machine",
        "by how much less memory the machine has, for each of so many instances that have answered",
        "instances",
    ),
    (
        "memory-proportional",
        "proportional set size of all processes behind an instance",
        "instances",
    ),
    (
        "memory-private",
        "private memory of all processes behind an instance that was written to",
        "instances",
    ),
    (
        "idle-processor",
        "processor time of so many instances, and of the daemon, while nobody asks",
        "instances",
    ),
    (
        "inside",
        "work, timed inside the instance (network: a mebibyte there and back, from outside)",
        "",
    ),
    (
        "chain-cold",
        "so many functions after each other, each with what the one before answered, each started for it",
        "functions",
    ),
    (
        "chain-warm",
        "the same with instances that are there",
        "functions",
    ),
    (
        "chain-async",
        "the same through the queue, each called when the result of the one before is called back",
        "functions",
    ),
    (
        "load",
        "requests by schedule (Poisson): intended time to last byte, whether or not earlier ones were answered",
        "requests/s",
    ),
    (
        "load-late",
        "how late this client sent them: what it is, not what was measured",
        "requests/s",
    ),
    (
        "utilisation",
        "of the processor time that a replayed load costs, what its work takes in a process",
        "keep-alive, s",
    ),
    (
        "replay",
        "requests of the replayed load: intended time to last byte, less the work",
        "keep-alive, s",
    ),
    (
        "replay-memory",
        "memory in use on average while it is replayed, beyond before",
        "keep-alive, s",
    ),
    (
        "replay-cold-share",
        "share of its requests that start an instance",
        "keep-alive, s",
    ),
    (
        "artefact-first",
        "what the first image of a language adds to the data folder",
        "",
    ),
    (
        "artefact-next",
        "what the next function of it adds: what is not shared",
        "",
    ),
];

/// What a reading is, for people.
pub fn meaning(measure: &str) -> &'static str {
    let found = MEANINGS.iter().find(|(name, ..)| *name == measure);
    found.map_or("", |(_, meaning, _)| meaning)
}

/// What the axis of a reading counts; empty if it has none.
pub fn axis(measure: &str) -> &'static str {
    let found = MEANINGS.iter().find(|(name, ..)| *name == measure);
    found.map_or("", |(.., axis)| axis)
}

impl Measure {
    /// The points at which it is taken; those of slow measures in C only, if there is C.
    pub(crate) fn points(self, configuration: &Configuration) -> Vec<Point> {
        let languages = &configuration.languages;
        let first = &languages[..languages.len().min(1)];
        let hello = |languages: &[Language], ats: &[u32]| {
            let point = |language: Language, at: Option<f64>| Point {
                language,
                workload: None,
                at,
            };
            let languages = languages.iter();
            if ats.is_empty() {
                return languages
                    .map(|language| point(*language, None))
                    .collect::<Vec<_>>();
            }
            let points =
                languages.flat_map(|language| ats.iter().map(|at| point(*language, Some(f64::from(*at)))));
            points.collect()
        };
        match self {
            Self::Cold => hello(languages, &[]),
            Self::Warm => {
                let mut points = hello(first, &configuration.concurrency);
                points.extend(hello(
                    &languages[first.len()..],
                    &configuration.concurrency[..1.min(configuration.concurrency.len())],
                ));
                points
            }
            Self::Burst => hello(first, &configuration.burst),
            Self::Sustained => hello(first, &[]),
            Self::Memory => {
                let mut points = hello(first, &configuration.instances);
                points.extend(hello(
                    &languages[first.len()..],
                    &configuration.instances[..1.min(configuration.instances.len())],
                ));
                points
            }
            Self::Chain => hello(first, &configuration.chain),
            Self::Load => hello(first, &configuration.rates),
            Self::Utilisation => hello(first, &configuration.keep_alive_s),
            Self::Artefact => Vec::new(), // taken when images are pushed
            Self::Inside => {
                let points = languages.iter().flat_map(|language| {
                    configuration.workloads.iter().map(|workload| Point {
                        language: *language,
                        workload: Some(*workload),
                        at: None,
                    })
                });
                points.collect()
            }
        }
    }

    /// Rounds of a step at most, of those that the configuration allows: less of what takes long and has many samples in each.
    pub(crate) fn rounds(self, rounds: u32) -> u32 {
        match self {
            Self::Cold => rounds * 2,
            Self::Warm | Self::Inside | Self::Chain | Self::Artefact => rounds,
            Self::Burst | Self::Sustained | Self::Memory | Self::Load => rounds.div_ceil(3),
            Self::Utilisation => 1,
        }
    }

    /// Takes one round.
    pub(crate) fn take(
        self,
        context: &mut Context,
        subject: &Subject,
        point: &Point,
    ) -> Result<Vec<Reading>, MeasureError> {
        context.check_interrupted()?;
        let count = point.at.unwrap_or(1.0).max(0.0) as u32;
        match self {
            Self::Cold => cold::one_by_one(context, subject),
            Self::Burst => cold::burst(context, subject, count),
            Self::Sustained => cold::sustained(context, subject),
            Self::Warm => warm::callers(context, subject, count),
            Self::Inside => match point.workload {
                Some(workload) => warm::inside(context, subject, workload),
                None => Ok(Vec::new()),
            },
            Self::Memory => memory::instances(context, subject, count),
            Self::Chain => chain::all(context, subject, count),
            Self::Load => loads::open_loop(context, subject, count),
            Self::Utilisation => loads::replay(context, subject, count),
            Self::Artefact => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_points_and_slow_ones_are_taken_in_one_language() {
        let configuration = Configuration::full();
        for measure in Measure::ALL
            .iter()
            .filter(|measure| **measure != Measure::Artefact)
        {
            assert!(!measure.points(&configuration).is_empty(), "{}", measure.name());
        }
        assert_eq!(
            Measure::Burst.points(&configuration).len(),
            configuration.burst.len()
        );
        assert_eq!(Measure::Cold.points(&configuration).len(), 4);
        assert_eq!(Measure::Inside.points(&configuration).len(), 36);
    }
}
