//! Isolation per request: what a request costs with four callers at a time, where all share instances and where each finds
//! a pristine one, reset in place or made anew.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use spore_test_real::programs::installed::PYTHON_HTTP_SERVER;

use crate::runtimes::{Planned, Runtime};
use crate::subject::{SetUp, Subject, Warm};

const CALLERS: usize = 4;
/// Requests of each caller in one sample.
const REQUESTS: u32 = 25;
const SNAPSHOT: (&str, &str) = ("dev.spore.snapshot", "true");
const PER_REQUEST: (&str, &str) = ("dev.spore.isolation-per-request", "true");
const NOT_RESET: (&str, &str) = ("dev.spore.reset-in-place", "false");

/// How a function is deployed.
struct Kind {
    /// Name of the subject.
    name: &'static str,
    /// End of the function's name.
    end: &'static str,
    annotations: &'static [(&'static str, &'static str)],
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "spore",
        end: "reset",
        annotations: &[SNAPSHOT, PER_REQUEST],
    },
    Kind {
        name: "stopped",
        end: "stopped",
        annotations: &[SNAPSHOT, PER_REQUEST, NOT_RESET],
    },
    Kind {
        name: "shared",
        end: "shared",
        annotations: &[SNAPSHOT],
    },
];

struct Callers {
    name: &'static str,
    callers: Vec<Warm>,
}

impl Callers {
    fn start(set_up: &SetUp, name: &'static str, path: &str) -> Result<Box<dyn Subject>> {
        let caller = |_| Warm::new(name, &set_up.isolation, set_up.daemon.address(), path, None);
        let callers = (0..CALLERS).map(caller).collect::<Result<_>>()?;
        Ok(Box::new(Self { name, callers }))
    }
}

impl Subject for Callers {
    fn name(&self) -> &str {
        self.name
    }

    fn isolation(&self) -> &str {
        self.callers[0].isolation()
    }

    fn meaning(&self) -> &'static str {
        "time of a request with four callers at a time: elapsed time by number of requests"
    }

    fn measure(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let callers: Vec<_> = self
                .callers
                .iter_mut()
                .map(|caller| scope.spawn(|| (0..REQUESTS).try_for_each(|_| caller.measure().map(|_| ()))))
                .collect();
            callers
                .into_iter()
                .try_for_each(|caller| caller.join().ok().context("a caller panics")?)
        })?;
        Ok(begun.elapsed() / (CALLERS as u32 * REQUESTS))
    }
}

/// The three kinds of a function in C, and of `http.server` in Python where that is installed.
pub(crate) fn series(set_up: &SetUp) -> Result<Vec<Planned>> {
    let mut all = Vec::new();
    for kind in &KINDS {
        set_up.deploy_function(&format!("c-{}", kind.end), kind.annotations);
    }
    all.push(("isolation-c", subjects(set_up, "c", "")?));
    if let Some(python) = Runtime::deploy(set_up, PYTHON_HTTP_SERVER)? {
        for kind in &KINDS {
            python.deploy_as(set_up, &format!("python-{}", kind.end), kind.annotations);
        }
        all.push(("isolation-python", subjects(set_up, "python", "/listing/")?));
    }
    Ok(all)
}

fn subjects(set_up: &SetUp, language: &str, path: &str) -> Result<Vec<Box<dyn Subject>>> {
    let subject = |kind: &Kind| {
        let path = format!("/function/{language}-{}{path}", kind.end);
        Callers::start(set_up, kind.name, &path)
    };
    KINDS.iter().map(subject).collect()
}
