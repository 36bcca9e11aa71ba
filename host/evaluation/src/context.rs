//! What all measures share.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::configuration::Configuration;
use crate::measures::MeasureError;
use crate::processes::Family;
use crate::targets::gateway::Gateway;
use crate::targets::subject::Subject;
use crate::targets::{TargetKind, TargetSpec};
use crate::workloads::{Language, Program};

/// The one thread that all requests of a run are made in.
pub(crate) struct Clock {
    runtime: tokio::runtime::Runtime,
}

impl Clock {
    pub(crate) fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self { runtime })
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// A run that is under way.
pub(crate) struct Context {
    pub(crate) clock: Clock,
    pub(crate) configuration: Configuration,
    /// The program that is measured.
    pub(crate) spore: PathBuf,
    /// What the environment of everything that is started has in it.
    pub(crate) mark: String,
    pub(crate) gateway: Option<Gateway>,
    /// The programs that could be built.
    pub(crate) programs: HashMap<Language, Program>,
    pub(crate) is_interrupted: Arc<AtomicBool>,
    /// What each workload has to answer, by what it first did.
    pub(crate) checks: HashMap<String, f64>,
    /// Nanoseconds of one round of the loop that loads are made of, in a process.
    pub(crate) spin_ns: Option<f64>,
}

impl Context {
    pub(crate) fn gateway(&self) -> Result<&Gateway, MeasureError> {
        self.gateway.as_ref().ok_or(MeasureError::NotApplicable)
    }

    pub(crate) fn gateway_mut(&mut self) -> Result<(&Clock, &mut Gateway), MeasureError> {
        let gateway = self.gateway.as_mut().ok_or(MeasureError::NotApplicable)?;
        Ok((&self.clock, gateway))
    }

    /// Fails if the user wants the run to end.
    pub(crate) fn check_interrupted(&self) -> Result<(), MeasureError> {
        if self.is_interrupted.load(Ordering::Relaxed) {
            return Err(MeasureError::Interrupted);
        }
        Ok(())
    }

    /// The program of a subject as a process.
    pub(crate) fn bare_of(&mut self, subject: &Subject) -> Result<Subject, MeasureError> {
        let program = self.programs.get(&subject.language).cloned();
        let program = program.ok_or(MeasureError::NotApplicable)?;
        let target = TargetSpec {
            name: "bare".to_owned(),
            kind: TargetKind::Bare,
        };
        Subject::deploy(self, &target, &program)
    }

    /// Everything that runs for the targets now: daemon, monitors, shims, instances, processes.
    pub(crate) fn family(&self) -> Family {
        let daemon = self.gateway.as_ref().and_then(Gateway::pid);
        Family::now(daemon.as_slice(), Some(&self.mark))
    }
}
