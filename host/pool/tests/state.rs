//! The pool's rules, checked against a model over random inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use spore_pool::state::{
    AHEAD_DELAY, Action, Input, InstanceId, PoolLimits, PoolState, Rejection, RequestId, STARTS_MAX,
};

/// What a caller, a sandbox or time does next; numbers choose among what exists at that moment.
#[derive(Debug, Clone)]
enum Step {
    Arrive,
    Leave(usize),
    Ready(usize),
    Fail(usize),
    End(usize),
    Finish(usize, bool),
    FinishForReset(usize),
    Reset(usize, bool),
    GiveBack(usize),
    Scale(u32),
    PreBoot(usize),
    Replace(PoolLimits),
    Close,
    Pass(Duration),
}

fn limits() -> impl Strategy<Value = PoolLimits> {
    let numbers = (0u32..3, 1u32..6, 0usize..5, prop_oneof![Just(0u64), 1u64..90]);
    (numbers, any::<bool>()).prop_map(|((min, max, waiting, idle), one_invocation)| PoolLimits {
        min_instances: min,
        max_instances: max,
        max_waiting: waiting,
        idle_timeout: Duration::from_secs(idle),
        one_invocation,
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
        4 => any::<usize>().prop_map(Step::FinishForReset),
        4 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, works)| Step::Reset(which, works)),
        1 => any::<usize>().prop_map(Step::GiveBack),
        1 => (0u32..8).prop_map(Step::Scale),
        1 => (0usize..8).prop_map(Step::PreBoot),
        1 => limits().prop_map(Step::Replace),
        2 => (0u64..20).prop_map(|milliseconds| Step::Pass(Duration::from_millis(milliseconds))),
        3 => (0u64..120).prop_map(|seconds| Step::Pass(Duration::from_secs(seconds))),
    ]
}

/// What the outside world knows from the actions alone.
struct Model {
    state: PoolState,
    limits: PoolLimits,
    scaled: Option<u32>,
    now: Duration,
    next_request: u64,
    version: u32,
    closed: bool,
    starting: BTreeMap<InstanceId, u32>,
    resetting: BTreeMap<InstanceId, u32>,
    idle: BTreeMap<InstanceId, (u32, Duration)>,
    busy: BTreeMap<InstanceId, (u32, RequestId)>,
    waiting: BTreeSet<RequestId>,
    seen: BTreeSet<InstanceId>,
    /// Instances that have served a request since they were started or reset.
    used: BTreeSet<InstanceId>,
    /// The one that may be reset now.
    resettable: Option<InstanceId>,
    /// Busy instances that are to be stopped after their invocation.
    surplus: BTreeSet<InstanceId>,
    /// The one that is to be stopped now.
    doomed: Option<InstanceId>,
    /// How many instances were busy that are not surplus, with the time until which, since the function was last scaled.
    levels: Vec<(Duration, usize)>,
    /// How many are after the last input, where that counts.
    level: usize,
    /// Since when fewer wait for what may come than are to.
    short_since: Option<Duration>,
    /// Whether an instance has failed and nothing has worked since.
    failing: bool,
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
            scaled: None,
            now: Duration::ZERO,
            next_request: 0,
            version: 0,
            closed: false,
            starting: BTreeMap::new(),
            resetting: BTreeMap::new(),
            idle: BTreeMap::new(),
            busy: BTreeMap::new(),
            waiting: BTreeSet::new(),
            seen: BTreeSet::new(),
            used: BTreeSet::new(),
            resettable: None,
            surplus: BTreeSet::new(),
            doomed: None,
            levels: Vec::new(),
            level: 0,
            short_since: None,
            failing: false,
        };
        model.input(Input::Tick);
        model
    }

    fn max(&self) -> usize {
        self.limits.max_instances.max(self.limits.min_instances).max(1) as usize
    }

    fn busy_current(&self) -> usize {
        self.busy.values().filter(|busy| busy.0 == self.version).count()
    }

    fn live(&self) -> usize {
        self.coming() + self.idle.len() + self.busy_current()
    }

    fn coming(&self) -> usize {
        self.starting.len() + self.resetting.len()
    }

    fn floor(&self) -> usize {
        (self.scaled.unwrap_or(self.limits.min_instances) as usize).min(self.max())
    }

    fn spare(&self) -> usize {
        self.idle.len() + self.coming().saturating_sub(self.waiting.len())
    }

    fn looks_ahead(&self) -> bool {
        self.limits.one_invocation && !self.limits.idle_timeout.is_zero() && !self.closed
    }

    /// How many instances are to wait for requests that have not come yet, if the maximum allows it.
    fn ahead(&self) -> usize {
        if !self.looks_ahead() {
            return 0;
        }
        let lately = self
            .levels
            .iter()
            .filter(|(until, _)| *until + self.limits.idle_timeout > self.now);
        let level = self.busy_current() - self.surplus.len();
        lately.map(|(_, level)| *level).chain([level]).max().unwrap_or(0)
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
                    self.failing = true;
                    Input::InstanceFailed(id)
                })
            }
            Step::End(which) => {
                let ended = match which % 3 {
                    0 => pick(&self.idle, which),
                    1 => pick(&self.busy, which),
                    _ => pick(&self.resetting, which),
                };
                ended.map(|id| {
                    self.idle.remove(&id);
                    self.busy.remove(&id);
                    self.surplus.remove(&id);
                    self.failing |= self.resetting.remove(&id).is_none();
                    Input::InstanceEnded(id)
                })
            }
            Step::Finish(which, keep) => self.finish(which, keep, false),
            Step::FinishForReset(which) => self.finish(which, true, true),
            Step::Reset(which, works) => pick(&self.resetting, which).map(|id| {
                let version = self.resetting.remove(&id).expect("picked from the map");
                // In either case the state must say what becomes of it, as of one that is free.
                self.idle.insert(id, (version, self.now));
                if works {
                    self.used.remove(&id);
                    Input::InstanceReset(id)
                } else {
                    self.doomed = Some(id);
                    Input::InstanceNotReset(id)
                }
            }),
            Step::GiveBack(which) => pick(&self.busy, which).map(|id| {
                self.free(id);
                Input::Unused(id)
            }),
            Step::Scale(instances) => (!self.closed).then(|| {
                self.scaled = Some(instances);
                self.levels.clear();
                self.level = 0;
                self.surplus.clear();
                self.failing = false;
                Input::Scaled(instances)
            }),
            Step::PreBoot(instances) => Some(Input::PreBoot(instances)),
            Step::Replace(limits) => {
                self.limits = limits;
                self.scaled = None;
                self.failing = false;
                self.surplus.clear();
                self.version += 1;
                Some(Input::Replaced(limits))
            }
            Step::Close => {
                self.closed = true;
                self.surplus.clear();
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

    fn finish(&mut self, which: usize, keep: bool, can_be_reset: bool) -> Option<Input> {
        let instance = pick(&self.busy, which)?;
        self.used.insert(instance);
        self.failing &= !keep;
        self.free(instance);
        self.resettable = (keep && can_be_reset && self.doomed.is_none()).then_some(instance);
        Some(Input::InvocationEnded {
            instance,
            keep,
            can_be_reset,
        })
    }

    /// An instance has no invocation any more.
    fn free(&mut self, id: InstanceId) {
        let (version, _) = self.busy.remove(&id).expect("picked from the map");
        self.doomed = self.surplus.take(&id);
        // The state must place or stop it: `check` fails if it stays here in vain.
        self.idle.insert(id, (version, self.now));
    }

    fn input(&mut self, input: Input) {
        let room = self.state.room();
        let mut actions = Vec::new();
        self.levels.push((self.now, self.level));
        self.state.apply(self.now, input, &mut actions);
        let (starts, others): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Start(_)));
        for action in others {
            self.action(input, action);
        }
        if let Input::Scaled(_) = input {
            let surplus = self.live().saturating_sub(self.floor());
            let busy = self.busy.iter().filter(|(_, busy)| busy.0 == self.version);
            self.surplus = busy.map(|(id, _)| *id).take(surplus).collect();
            assert!(
                self.idle.is_empty() || surplus == 0,
                "idle ones are left beyond the scale"
            );
        }
        let mut granted = match input {
            Input::PreBoot(instances) => instances.min(room),
            _ => 0,
        };
        assert!(starts.len() >= granted, "less was started than was asked for");
        for action in starts {
            let is_wanted = self.coming() < self.waiting.len()
                || self.live() < self.floor()
                || self.spare() < self.ahead();
            if !is_wanted {
                assert!(granted > 0, "nobody wants what {input:?} has started");
                granted -= 1;
            }
            self.action(input, action);
        }
        let is_short = self.spare() < self.ahead() && self.live() < self.max();
        self.short_since = is_short.then(|| self.short_since.unwrap_or(self.now));
        self.check(input);
        (self.doomed, self.resettable) = (None, None);
        if self.looks_ahead() {
            self.level = self.busy_current() - self.surplus.len();
            let (now, span) = (self.now, self.limits.idle_timeout);
            self.levels.retain(|(until, _)| *until + span > now);
        } else {
            (self.level, self.levels) = (0, Vec::new());
        }
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
                assert_ne!(self.doomed, Some(instance), "it was to be stopped");
                assert!(
                    !self.limits.one_invocation || !self.used.contains(&instance),
                    "{instance:?} serves a second invocation"
                );
                self.busy.insert(instance, (version, request));
            }
            Action::Reset(id) => {
                assert!(self.limits.one_invocation, "nobody has asked for that");
                assert_eq!(self.resettable, Some(id), "it cannot be reset");
                let (version, _) = self.idle.remove(&id).expect("only free instances are reset");
                assert_eq!(
                    version, self.version,
                    "an instance of a replaced version is reset"
                );
                self.resetting.insert(id, version);
            }
            Action::Stop(id) => {
                let known = self.starting.remove(&id).is_some()
                    | self.resetting.remove(&id).is_some()
                    | self.idle.remove(&id).is_some();
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
        let current = self.busy_current();
        let counted = [
            status.starting,
            status.idle,
            status.busy,
            status.draining,
            status.waiting,
        ];
        let expected = [
            self.coming(),
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
        let without_start = self.waiting.len().saturating_sub(self.coming());
        assert!(
            without_start == 0 || self.live() == self.max(),
            "a request waits though one more may start"
        );
        assert!(
            self.idle.values().all(|idle| idle.0 == self.version),
            "an idle instance of a replaced version"
        );
        assert!(
            self.doomed.is_none_or(|doomed| !self.idle.contains_key(&doomed)),
            "an instance beyond the scale is kept"
        );
        assert!(
            self.resetting.values().all(|version| *version == self.version),
            "one of a replaced version is being reset"
        );
        if !self.failing && !self.closed {
            assert!(
                self.live() >= self.floor() || self.starting.len() >= STARTS_MAX,
                "less than the minimum, and nothing is done about it"
            );
            if let Some(since) = self.short_since {
                assert!(
                    self.busy_current() > 0 || !self.waiting.is_empty(),
                    "less than {} wait for what may come, though nothing else is to be done",
                    self.ahead()
                );
                assert!(self.now < since + AHEAD_DELAY, "too late for what may come");
            }
        }
        let next = self.state.next_deadline();
        if let Some(since) = self.short_since {
            let latest = (!self.failing).then_some(since + AHEAD_DELAY);
            assert!(
                next.is_some_and(|next| latest.is_none_or(|latest| next <= latest)),
                "nobody looks again whether to start what is missing"
            );
        }
        let is_under_way = self.starting.len() >= STARTS_MAX;
        assert!(self.closed || self.live() >= self.floor() || is_under_way || next.is_some());
        if self.live() > self.floor() && self.spare() > self.ahead() {
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
        if self.limits.one_invocation {
            assert!(
                self.idle.keys().all(|idle| !self.used.contains(idle)),
                "a used instance is kept"
            );
        }
        if let Some(at) = self.state.next_deadline() {
            assert!(at > self.now, "a deadline in the past keeps the driver spinning");
        }
    }

    /// Lets everything come to its end: nothing may be left over.
    fn settle(&mut self) {
        self.step(&Step::Close);
        assert!(self.waiting.is_empty() && self.coming() == 0 && self.idle.is_empty());
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

fn fixed_limits(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> PoolLimits {
    PoolLimits {
        min_instances: min,
        max_instances: max,
        max_waiting: waiting,
        idle_timeout: Duration::from_secs(idle_seconds),
        one_invocation: false,
    }
}

fn fixed(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> Model {
    Model::new(fixed_limits(min, max, waiting, idle_seconds))
}

/// The same with one invocation for each instance.
fn pristine(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> Model {
    Model::new(PoolLimits {
        one_invocation: true,
        ..fixed_limits(min, max, waiting, idle_seconds)
    })
}

#[test]
fn thousands_are_started_a_few_at_a_time() {
    let mut model = fixed(0, 5000, 0, 60);
    model.step(&Step::Scale(2000));
    for _ in 0..2000 {
        assert!((1..=STARTS_MAX).contains(&model.starting.len()));
        model.step(&Step::Ready(0));
    }
    assert_eq!((model.starting.len(), model.idle.len()), (0, 2000));
    model.step(&Step::Scale(5000));
    assert_eq!(model.starting.len(), STARTS_MAX);
    for _ in 0..2000 {
        model.step(&Step::Arrive);
    }
    // Each request that waits has a start of its own besides.
    for _ in 0..100 {
        model.step(&Step::Arrive);
        let waiting = model.waiting.len();
        assert!((waiting..=waiting + STARTS_MAX).contains(&model.starting.len()));
    }
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

#[test]
fn scaling_starts_and_ends_instances_until_the_next_version() {
    let mut model = fixed(1, 5, 5, 60);
    model.step(&Step::Scale(4));
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    model.step(&Step::Pass(Duration::from_secs(3600)));
    assert_eq!(model.idle.len(), 4, "kept however long they are idle");
    for step in [Step::Arrive, Step::Arrive, Step::Scale(1)] {
        model.step(&step);
    }
    assert_eq!((model.idle.len(), model.busy.len()), (0, 2));
    model.step(&Step::Finish(0, true));
    assert_eq!(model.live(), 1, "one more than wanted ends with its invocation");
    model.step(&Step::Finish(0, true));
    assert_eq!(model.idle.len(), 1);
    model.step(&Step::Scale(0));
    assert_eq!(model.live(), 0);
    model.step(&Step::Arrive);
    assert_eq!(model.starting.len(), 1, "the next request starts one");
    model.step(&Step::Ready(0));
    model.step(&Step::Finish(0, true));
    model.step(&Step::Pass(Duration::from_secs(60)));
    assert_eq!(model.live(), 0, "the minimum of the deployment does not count");
    model.step(&Step::Replace(fixed_limits(1, 5, 5, 60)));
    assert_eq!(model.live(), 1, "it does again");
}

#[test]
fn an_instance_scaled_away_and_back_again_goes_on() {
    let mut model = fixed(0, 2, 0, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::Scale(0));
    model.step(&Step::Scale(1));
    model.step(&Step::Finish(0, true));
    assert_eq!(model.idle.keys().collect::<Vec<_>>(), [&InstanceId(0)]);
}

#[test]
fn pre_booted_instances_are_as_mortal_as_others() {
    let mut model = fixed(0, 3, 0, 60);
    model.step(&Step::PreBoot(5));
    assert_eq!(model.starting.len(), 3);
    model.step(&Step::Fail(0));
    model.step(&Step::Ready(0));
    model.step(&Step::Ready(0));
    model.step(&Step::Pass(Duration::from_secs(59)));
    assert_eq!((model.idle.len(), model.starting.len()), (2, 0));
    model.step(&Step::Pass(Duration::from_secs(1)));
    assert_eq!(model.live(), 0);
}

#[test]
fn pristine_instances_wait_as_many_as_were_busy_and_no_longer_than_idle_ones() {
    let mut model = pristine(0, 8, 0, 60);
    for _ in 0..3 {
        model.step(&Step::Arrive);
    }
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    assert_eq!((model.busy.len(), model.idle.len()), (3, 3));
    for _ in 0..3 {
        model.step(&Step::Finish(0, true));
        model.step(&Step::Arrive);
    }
    assert_eq!(
        (model.busy.len(), model.live()),
        (3, 3),
        "not in the way of three"
    );
    model.step(&Step::Pass(AHEAD_DELAY));
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    assert_eq!((model.busy.len(), model.idle.len()), (3, 3));
    for _ in 0..3 {
        model.step(&Step::Finish(0, true));
    }
    assert_eq!((model.busy.len(), model.idle.len()), (0, 3));
    model.step(&Step::Pass(Duration::from_secs(59)));
    model.step(&Step::Arrive);
    assert_eq!(model.busy.len(), 1, "it need not wait");
    model.step(&Step::Finish(0, true));
    assert_eq!(
        model.starting.len(),
        1,
        "at once, since nothing else is to be done"
    );
    model.step(&Step::Ready(0));
    assert_eq!(model.idle.len(), 3);
    model.step(&Step::Pass(Duration::from_secs(1)));
    assert_eq!(
        model.idle.len(),
        1,
        "one was busy at a time within the last minute"
    );
    model.step(&Step::Pass(Duration::from_secs(59)));
    assert_eq!(model.live(), 0);
}

#[test]
fn instances_that_can_be_reset_serve_again_and_none_is_started() {
    let mut model = pristine(0, 8, 0, 60);
    for _ in 0..3 {
        model.step(&Step::Arrive);
    }
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    let started = model.seen.len();
    assert_eq!((model.busy.len(), model.idle.len(), started), (3, 3, 6));
    for round in 0..100 {
        model.step(&Step::FinishForReset(round));
        model.step(&Step::Arrive);
        model.step(&Step::Pass(AHEAD_DELAY));
        assert_eq!(
            (model.busy.len(), model.idle.len(), model.resetting.len()),
            (3, 2, 1)
        );
        model.step(&Step::Reset(0, true));
    }
    assert_eq!(model.seen.len(), started);
    model.step(&Step::FinishForReset(0));
    model.step(&Step::Reset(0, false));
    model.step(&Step::Arrive);
    assert_eq!(
        (model.idle.len(), model.starting.len()),
        (2, 0),
        "not in the way of three"
    );
    model.step(&Step::Pass(AHEAD_DELAY));
    assert_eq!(model.starting.len(), 1, "another one in its place");
}

#[test]
fn a_request_waits_for_an_instance_that_is_being_reset() {
    let mut model = pristine(0, 1, 1, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::FinishForReset(0));
    model.step(&Step::Arrive);
    assert_eq!((model.waiting.len(), model.starting.len()), (1, 0));
    model.step(&Step::Reset(0, true));
    assert_eq!(model.busy.keys().collect::<Vec<_>>(), [&InstanceId(0)]);
    model.step(&Step::FinishForReset(0));
    model.step(&Step::Replace(fixed_limits(0, 1, 1, 60)));
    assert_eq!(model.live(), 0, "none of an old version is kept");
}

#[test]
fn failing_starts_ahead_are_not_repeated_in_a_loop() {
    let mut model = pristine(0, 4, 0, 3600);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    let mut starts = 0;
    for _ in 0..600 {
        starts += model.starting.len();
        while !model.starting.is_empty() {
            model.step(&Step::Fail(0));
        }
        model.step(&Step::Pass(Duration::from_millis(500)));
    }
    assert!((5..=15).contains(&starts), "{starts} starts in five minutes");
}

/// A day of traffic from one seed: arrivals, service times and failures drawn from it, in time order.
#[test]
fn simulated_day_answers_every_request() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let make = if seed % 2 == 0 { fixed } else { pristine };
        let mut model = make(
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
                62..78 => Step::Finish(random.usize(..), random.u32(0..20) != 0),
                78..86 => Step::FinishForReset(random.usize(..)),
                86..94 => Step::Reset(random.usize(..), random.u32(0..20) != 0),
                94 => match random.u32(0..20) {
                    0 => Step::Scale(random.u32(0..9)),
                    1 => Step::PreBoot(random.usize(0..9)),
                    _ => Step::GiveBack(random.usize(..)),
                },
                _ => Step::Pass(Duration::from_secs(random.u64(0..90))),
            };
            model.step(&step);
        }
        assert!(model.next_request > 5_000);
        model.settle();
    }
}
