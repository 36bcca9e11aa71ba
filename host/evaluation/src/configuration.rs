//! What a run measures, and how long.

use serde::{Deserialize, Serialize};

use crate::load::LoadSettings;
use crate::measures::Measure;
use crate::targets::TargetSpec;
use crate::workloads::{Language, Workload};

/// Everything that two runs must share to be compared; a run that goes on has it from its document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// The targets.
    pub targets: Vec<TargetSpec>,
    /// Languages of the functions.
    pub languages: Vec<Language>,
    /// Workloads that are measured inside instances; everything else is measured with one that does nothing.
    pub workloads: Vec<Workload>,
    /// What is measured.
    pub measures: Vec<Measure>,
    /// How often everything is gone through from the beginning.
    pub passes: u32,
    /// Rounds of each step at most: in each, every target once, in random order.
    pub rounds: u32,
    /// Simultaneous requests on warm instances.
    pub concurrency: Vec<u32>,
    /// Instances whose memory is measured.
    pub instances: Vec<u32>,
    /// Requests of a burst.
    pub burst: Vec<u32>,
    /// Functions in a chain.
    pub chain: Vec<u32>,
    /// Arrivals in each second of the open loop.
    pub rates: Vec<u32>,
    /// How long idle instances are kept while a load is replayed, in seconds.
    pub keep_alive_s: Vec<u32>,
    /// The load that is replayed.
    pub load: LoadSettings,
    /// Memory of each instance, for example 128Mi; none is what the gateway gives.
    pub memory: Option<String>,
    /// How long a slice of requests to something warm lasts, in milliseconds.
    pub slice_ms: u64,
    /// How long it is watched what idle instances compute, in milliseconds.
    pub idle_ms: u64,
    /// A step takes no longer than about so long, in seconds: there are fewer rounds then.
    pub step_s: u64,
    /// After so long no step is begun any more, in seconds.
    pub time_limit_s: Option<u64>,
    /// Where random choices begin.
    pub seed: u64,
}

impl Configuration {
    /// What `spore bench run` does if nothing is said: every target, some hours at most.
    pub fn full() -> Self {
        Self {
            targets: TargetSpec::known(),
            languages: Language::ALL.to_vec(),
            workloads: Workload::ALL.to_vec(),
            measures: Measure::ALL.to_vec(),
            passes: 3,
            rounds: 20,
            concurrency: vec![1, 2, 4, 8, 16],
            instances: vec![1, 10, 100],
            burst: vec![10, 100],
            chain: (1..=8).collect(),
            rates: vec![20, 100, 500],
            keep_alive_s: vec![0, 1, 10, 60],
            load: LoadSettings::full(),
            memory: None,
            slice_ms: 500,
            idle_ms: 3000,
            step_s: 60,
            time_limit_s: None,
            seed: 1,
        }
    }

    /// A look at everything within five minutes on two processors.
    pub fn quick() -> Self {
        Self {
            workloads: vec![Workload::Primes, Workload::Read, Workload::Network],
            // Where the time does not suffice, it is for what comes last.
            measures: vec![
                Measure::Artefact,
                Measure::Cold,
                Measure::Warm,
                Measure::Burst,
                Measure::Sustained,
                Measure::Memory,
                Measure::Utilisation,
                Measure::Chain,
                Measure::Load,
                Measure::Inside,
            ],
            passes: 1,
            rounds: 10,
            concurrency: vec![1, 2, 4, 8],
            instances: vec![1, 10],
            burst: vec![10],
            chain: vec![1, 4, 8],
            rates: vec![50],
            keep_alive_s: vec![0, 10],
            load: LoadSettings::quick(),
            slice_ms: 150,
            idle_ms: 500,
            step_s: 6,
            time_limit_s: Some(240),
            ..Self::full()
        }
    }
}
