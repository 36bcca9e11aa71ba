//! The pool's rules, checked against a model over random inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use spore_pool::state::{Action, Input, InstanceId, PoolLimits, PoolState, Rejection, RequestId};

/// What a caller, a sandbox or time does next; numbers choose among what exists at that moment.
#[derive(Debug, Clone)]
enum Step {
    Arrive,
    Leave(usize),
    Ready(usize),
    Fail(usize),
    End(usize),
    Finish(usize, bool),
    Replace(PoolLimits),
    Close,
    Pass(Duration),
}

fn limits() -> impl Strategy<Value = PoolLimits> {
    (0u32..3, 1u32..6, 0usize..5, prop_oneof![Just(0u64), 1u64..90]).prop_map(|(min, max, waiting, idle)| {
        PoolLimits {
            min_instances: min,
            max_instances: max,
            max_waiting: waiting,
            idle_timeout: Duration::from_secs(idle),
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Arrive),
        2 => any::<usize>().prop_map(Step::Leave),
        6 => any::<usize>().prop_map(Step::Ready),
        1 => any::<usize>().prop_map(Step::Fail),
        1 => any::<usize>().prop_map(Step::End),
        6 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, keep)| Step::Finish(which, keep)),
        1 => limits().prop_map(Step::Replace),
        3 => (0u64..120).prop_map(|seconds| Step::Pass(Duration::from_secs(seconds))),
    ]
}

/// What the outside world knows from the actions alone.
struct Model {
    state: PoolState,
    limits: PoolLimits,
    now: Duration,
    next_request: u64,
    version: u32,
    closed: bool,
    starting: BTreeMap<InstanceId, u32>,
    idle: BTreeMap<InstanceId, (u32, Duration)>,
    busy: BTreeMap<InstanceId, (u32, RequestId)>,
    waiting: BTreeSet<RequestId>,
    seen: BTreeSet<InstanceId>,
}

fn pick<K: Copy, V>(map: &BTreeMap<K, V>, which: usize) -> Option<K> {
    if map.is_empty() {
        None
    } else {
        map.keys().nth(which % map.len()).copied()
    }
}

impl Model {
    fn new(limits: PoolLimits) -> Self {
        let mut model = Self {
            state: PoolState::new(limits),
            limits,
            now: Duration::ZERO,
            next_request: 0,
            version: 0,
            closed: false,
            starting: BTreeMap::new(),
            idle: BTreeMap::new(),
            busy: BTreeMap::new(),
            waiting: BTreeSet::new(),
            seen: BTreeSet::new(),
        };
        model.input(Input::Tick);
        model
    }

    fn max(&self) -> usize {
        self.limits.max_instances.max(self.limits.min_instances).max(1) as usize
    }

    fn live(&self) -> usize {
        self.starting.len()
            + self.idle.len()
            + self.busy.values().filter(|busy| busy.0 == self.version).count()
    }

    fn step(&mut self, step: &Step) {
        let input = match *step {
            Step::Arrive => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.waiting.insert(request);
                Some(Input::RequestArrived(request))
            }
            Step::Leave(which) => {
                let gone = self
                    .waiting
                    .iter()
                    .nth(which % self.waiting.len().max(1))
                    .copied();
                gone.map(|gone| {
                    self.waiting.remove(&gone);
                    Input::CallerGone(gone)
                })
            }
            Step::Ready(which) => pick(&self.starting, which).map(|id| {
                let version = self.starting.remove(&id).expect("picked from the map");
                self.idle.insert(id, (version, self.now));
                Input::InstanceReady(id)
            }),
            Step::Fail(which) => {
                let failed = pick(&self.starting, which);
                failed.map(|id| {
                    self.starting.remove(&id);
                    Input::InstanceFailed(id)
                })
            }
            Step::End(which) => {
                let ended = if which % 2 == 0 {
                    pick(&self.idle, which)
                } else {
                    pick(&self.busy, which)
                };
                ended.map(|id| {
                    self.idle.remove(&id);
                    self.busy.remove(&id);
                    Input::InstanceEnded(id)
                })
            }
            Step::Finish(which, keep) => pick(&self.busy, which).map(|id| {
                let (version, _) = self.busy.remove(&id).expect("picked from the map");
                // The state must place or stop it: `check` fails if it stays here in vain.
                self.idle.insert(id, (version, self.now));
                Input::InvocationEnded { instance: id, keep }
            }),
            Step::Replace(limits) => {
                self.limits = limits;
                self.version += 1;
                Some(Input::Replaced(limits))
            }
            Step::Close => {
                self.closed = true;
                self.version += 1;
                Some(Input::Closed)
            }
            Step::Pass(time) => {
                self.now += time;
                Some(Input::Tick)
            }
        };
        if let Some(input) = input {
            self.input(input);
        }
    }

    fn input(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.state.apply(self.now, input, &mut actions);
        for action in actions {
            self.action(input, action);
        }
        self.check(input);
    }

    fn action(&mut self, input: Input, action: Action) {
        match action {
            Action::Start(id) => {
                assert!(self.seen.insert(id), "{id:?} started twice");
                assert!(!self.closed, "a closed pool starts nothing");
                self.starting.insert(id, self.version);
            }
            Action::Assign {
                instance,
                request,
                cold,
            } => {
                let (version, _) = self
                    .idle
                    .remove(&instance)
                    .expect("only ready, free instances are assigned");
                assert_eq!(
                    version, self.version,
                    "an instance of a replaced version got a request"
                );
                assert!(
                    self.waiting.remove(&request),
                    "{request:?} was answered twice or has left"
                );
                assert_eq!(cold, input == Input::InstanceReady(instance));
                self.busy.insert(instance, (version, request));
            }
            Action::Stop(id) => {
                let known = self.starting.remove(&id).is_some() | self.idle.remove(&id).is_some();
                assert!(known, "{id:?} was stopped while unknown or busy");
            }
            Action::Reject(request, rejection) => {
                assert!(
                    self.waiting.remove(&request),
                    "{request:?} was answered twice or has left"
                );
                match rejection {
                    Rejection::QueueFull => assert!(self.waiting.len() >= self.limits.max_waiting),
                    Rejection::StartFailed(id) => {
                        assert_eq!(input, Input::InstanceFailed(id));
                        assert!(
                            self.waiting.iter().all(|waiting| *waiting > request),
                            "not the longest waiting one"
                        );
                    }
                    Rejection::Closed => assert!(self.closed),
                }
            }
        }
    }

    fn check(&self, input: Input) {
        let status = self.state.status();
        let current = self.busy.values().filter(|busy| busy.0 == self.version).count();
        let counted = [
            status.starting,
            status.idle,
            status.busy,
            status.draining,
            status.waiting,
        ];
        let expected = [
            self.starting.len(),
            self.idle.len(),
            current,
            self.busy.len() - current,
            self.waiting.len(),
        ];
        assert_eq!(counted, expected, "after {input:?}");
        assert!(
            self.live() <= self.max(),
            "more than max_instances after {input:?}"
        );
        assert!(
            self.waiting.is_empty() || self.idle.is_empty(),
            "a request waits beside an idle instance"
        );
        let without_start = self.waiting.len().saturating_sub(self.starting.len());
        assert!(
            without_start == 0 || self.live() == self.max(),
            "a request waits though one more may start"
        );
        assert!(
            self.idle.values().all(|idle| idle.0 == self.version),
            "an idle instance of a replaced version"
        );
        if self.live() > self.limits.min_instances as usize {
            for (_, since) in self.idle.values() {
                assert!(
                    self.now < *since + self.limits.idle_timeout,
                    "an idle instance outlived its time"
                );
            }
            let next = self
                .idle
                .values()
                .map(|idle| idle.1 + self.limits.idle_timeout)
                .min();
            assert!(next.is_none_or(|next| self.state.next_deadline().is_some_and(|at| at <= next)));
        }
        if let Some(at) = self.state.next_deadline() {
            assert!(at > self.now, "a deadline in the past keeps the driver spinning");
        }
    }

    /// Lets everything come to its end: nothing may be left over.
    fn settle(&mut self) {
        self.step(&Step::Close);
        assert!(self.waiting.is_empty() && self.starting.is_empty() && self.idle.is_empty());
        while !self.busy.is_empty() {
            self.step(&Step::Finish(0, true));
        }
        self.step(&Step::Arrive);
        assert!(self.waiting.is_empty(), "a closed pool answers at once");
        assert_eq!(self.state.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_after_every_input(limits in limits(), steps in prop::collection::vec(step(), 0..150)) {
        let mut model = Model::new(limits);
        for step in &steps {
            model.step(step);
        }
        model.settle();
    }
}

fn fixed(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> Model {
    let idle_timeout = Duration::from_secs(idle_seconds);
    Model::new(PoolLimits {
        min_instances: min,
        max_instances: max,
        max_waiting: waiting,
        idle_timeout,
    })
}

#[test]
fn most_recently_used_instance_is_first() {
    let mut model = fixed(0, 2, 0, 60);
    for step in [Step::Arrive, Step::Arrive, Step::Ready(0), Step::Ready(0)] {
        model.step(&step);
    }
    let (first, second) = (InstanceId(0), InstanceId(1));
    model.step(&Step::Finish(0, true));
    model.step(&Step::Pass(Duration::from_secs(1)));
    model.step(&Step::Finish(0, true));
    model.step(&Step::Arrive);
    assert!(model.busy.contains_key(&second) && model.idle.contains_key(&first));
}

#[test]
fn start_that_nobody_waits_for_becomes_idle_and_expires() {
    let mut model = fixed(0, 2, 0, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Leave(0));
    model.step(&Step::Ready(0));
    assert_eq!(model.idle.len(), 1);
    model.step(&Step::Pass(Duration::from_secs(60)));
    assert_eq!(model.live(), 0);
}

#[test]
fn queue_counts_only_requests_without_a_start_of_their_own() {
    let mut model = fixed(0, 1, 1, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Arrive);
    assert_eq!(model.waiting.len(), 2);
    model.step(&Step::Arrive);
    assert_eq!(model.waiting.len(), 2, "the third is rejected");
}

#[test]
fn failing_minimum_is_not_restarted_in_a_loop() {
    let mut model = fixed(1, 1, 0, 60);
    let mut starts = 0;
    for _ in 0..600 {
        starts += model.starting.len();
        model.step(&Step::Fail(0));
        model.step(&Step::Pass(Duration::from_millis(500)));
    }
    assert!((5..=15).contains(&starts), "{starts} starts in five minutes");
}

#[test]
fn zero_idle_timeout_gives_every_invocation_its_own_instance() {
    let mut model = fixed(0, 1, 5, 0);
    model.step(&Step::Arrive);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::Finish(0, true));
    assert_eq!(
        model.starting.keys().copied().collect::<Vec<_>>(),
        [InstanceId(1)]
    );
}

/// A day of traffic from one seed: arrivals, service times and failures drawn from it, in time order.
#[test]
fn simulated_day_answers_every_request() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut model = fixed(
            random.u32(0..2),
            random.u32(1..8),
            random.usize(0..50),
            random.u64(0..120),
        );
        for _ in 0..20_000 {
            let step = match random.u32(0..100) {
                0..40 => Step::Arrive,
                40..42 => Step::Leave(random.usize(..)),
                42..60 => Step::Ready(random.usize(..)),
                60 => Step::Fail(random.usize(..)),
                61 => Step::End(random.usize(..)),
                62..95 => Step::Finish(random.usize(..), random.u32(0..20) != 0),
                _ => Step::Pass(Duration::from_secs(random.u64(0..90))),
            };
            model.step(&step);
        }
        assert!(model.next_request > 5_000);
        model.settle();
    }
}
