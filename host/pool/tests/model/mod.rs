//! What callers, sandboxes and time do with a pool, and what must hold afterwards, from the actions alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use spore_pool::state::{
    AHEAD_DELAY, Action, Input, InstanceId, PoolLimits, PoolState, Rejection, RequestId, STARTS_MAX,
};
use spore_pool::{LoadKind, ScaleTarget, Scaling};

/// What a caller, a sandbox or time does next; numbers choose among what exists at that moment.
#[derive(Debug, Clone)]
pub(crate) enum Step {
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
    Queued(usize),
    UseProcessor(Duration),
    Replace(PoolLimits),
    Close,
    Pass(Duration),
}

pub(crate) fn limits() -> impl Strategy<Value = PoolLimits> {
    let numbers = (0u32..3, 1u32..6, 0usize..5, prop_oneof![Just(0u64), 1u64..90]);
    let ahead = prop_oneof![2 => Just(0u32), 1 => 1u32..4];
    let waits = (ahead, proptest::option::of(0u64..90));
    let concurrency = prop_oneof![Just(1u32), 0u32..5];
    (numbers, waits, any::<bool>(), concurrency, scaling()).prop_map(
        |((min, max, waiting, idle), (ahead, pause), one_invocation, concurrency, scaling)| PoolLimits {
            min_instances: min,
            max_instances: max,
            max_waiting: waiting,
            idle_timeout: Duration::from_secs(idle),
            pause_after: pause.map(Duration::from_secs),
            ahead,
            one_invocation,
            concurrency,
            scaling,
        },
    )
}

fn scaling() -> impl Strategy<Value = Scaling> {
    let kind = prop_oneof![
        Just(LoadKind::RequestsPerSecond),
        Just(LoadKind::InFlight),
        Just(LoadKind::Processor),
        Just(LoadKind::Queued)
    ];
    let target = (kind, 1u64..3000).prop_map(|(kind, per_instance_thousandths)| ScaleTarget {
        kind,
        per_instance_thousandths,
    });
    let target = prop_oneof![2 => Just(None), 1 => target.prop_map(Some)];
    let zero_after = prop_oneof![2 => Just(None), 1 => (1u64..200).prop_map(Some)];
    (target, 0u64..100, zero_after).prop_map(|(target, down_seconds, zero_after)| Scaling {
        target,
        down_window: Duration::from_secs(down_seconds),
        zero_after: zero_after.map(Duration::from_secs),
    })
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
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
        1 => (0usize..8).prop_map(Step::Queued),
        1 => (0u64..9000).prop_map(|milliseconds| Step::UseProcessor(Duration::from_millis(milliseconds))),
        1 => limits().prop_map(Step::Replace),
        2 => (0u64..20).prop_map(|milliseconds| Step::Pass(Duration::from_millis(milliseconds))),
        3 => (0u64..120).prop_map(|seconds| Step::Pass(Duration::from_secs(seconds))),
    ]
}

/// What the outside world knows from the actions alone.
pub(crate) struct Model {
    pub(crate) state: PoolState,
    pub(crate) limits: PoolLimits,
    pub(crate) scaled: Option<u32>,
    pub(crate) now: Duration,
    pub(crate) next_request: u64,
    pub(crate) version: u32,
    pub(crate) closed: bool,
    pub(crate) starting: BTreeMap<InstanceId, u32>,
    pub(crate) resetting: BTreeMap<InstanceId, u32>,
    pub(crate) idle: BTreeMap<InstanceId, (u32, Duration)>,
    /// Idle instances that stand still.
    pub(crate) paused: BTreeSet<InstanceId>,
    pub(crate) busy: BTreeMap<InstanceId, (u32, BTreeSet<RequestId>)>,
    /// Busy instances of which an invocation has failed.
    pub(crate) failed: BTreeSet<InstanceId>,
    pub(crate) waiting: BTreeSet<RequestId>,
    pub(crate) seen: BTreeSet<InstanceId>,
    /// Instances that have served a request since they were started or reset.
    pub(crate) used: BTreeSet<InstanceId>,
    /// The one that may be reset now.
    pub(crate) resettable: Option<InstanceId>,
    /// Busy instances that are to be stopped after their invocation.
    pub(crate) surplus: BTreeSet<InstanceId>,
    /// The one that is to be stopped now.
    pub(crate) doomed: Option<InstanceId>,
    /// How many instances were busy that are not surplus, with the time until which, since the function was last scaled.
    pub(crate) levels: Vec<(Duration, usize)>,
    /// How many are after the last input, where that counts.
    pub(crate) level: usize,
    /// Since when fewer wait for what may come than are to.
    pub(crate) short_since: Option<Duration>,
    /// Whether an instance has failed and nothing has worked since.
    pub(crate) failing: bool,
    /// Until when the minimum counts without a request under way, and whether one was after the last input.
    pub(crate) awake_until: Duration,
    pub(crate) was_wanted: bool,
    pub(crate) is_asleep: bool,
}

fn pick<K: Copy, V>(map: &BTreeMap<K, V>, which: usize) -> Option<K> {
    if map.is_empty() {
        None
    } else {
        map.keys().nth(which % map.len()).copied()
    }
}

impl Model {
    pub(crate) fn new(limits: PoolLimits) -> Self {
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
            paused: BTreeSet::new(),
            busy: BTreeMap::new(),
            failed: BTreeSet::new(),
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
            awake_until: limits.scaling.zero_after.unwrap_or_default(),
            was_wanted: false,
            is_asleep: false,
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

    pub(crate) fn live(&self) -> usize {
        self.coming() + self.idle.len() + self.busy_current()
    }

    fn coming(&self) -> usize {
        self.starting.len() + self.resetting.len()
    }

    fn concurrency(&self) -> usize {
        if self.limits.one_invocation || self.limits.idle_timeout.is_zero() {
            1
        } else {
            self.limits.concurrency.max(1) as usize
        }
    }

    fn is_wanted(&self) -> bool {
        !self.busy.is_empty() || !self.waiting.is_empty()
    }

    /// Instances that are kept whatever happens, without what the load asks for: `scaling.rs` has its own tests.
    fn floor(&self) -> usize {
        if self.is_asleep || self.closed {
            return 0;
        }
        let least = u32::from(self.limits.scaling.zero_after.is_some());
        let minimum = self.limits.min_instances.max(least);
        let floor = (self.scaled.unwrap_or(minimum) as usize).min(self.max());
        let kept = self.state.status().kept;
        assert!(
            (floor..=self.max()).contains(&kept),
            "{kept} are kept instead of {floor}"
        );
        assert!(kept == floor || self.limits.scaling.target.is_some());
        kept
    }

    fn spare(&self) -> usize {
        let needed = self.waiting.len().div_ceil(self.concurrency());
        self.idle.len() + self.coming().saturating_sub(needed)
    }

    /// Busy instances that may take another request.
    pub(crate) fn open(&self) -> usize {
        let open = self.busy.iter().filter(|(id, (version, requests))| {
            let goes_on = !self.failed.contains(id) && !self.surplus.contains(id);
            *version == self.version && goes_on && requests.len() < self.concurrency()
        });
        open.count()
    }

    fn wake_up(&mut self) {
        let after = self.limits.scaling.zero_after.unwrap_or_default();
        self.awake_until = self.now + after;
    }

    fn looks_ahead(&self) -> bool {
        self.limits.one_invocation && !self.limits.idle_timeout.is_zero() && !self.closed
    }

    /// How many instances are to wait for requests that have not come yet, if the maximum allows it.
    fn ahead(&self) -> usize {
        let is_wanted = !self.closed && !self.is_asleep && self.scaled != Some(0);
        let set = if is_wanted { self.limits.ahead as usize } else { 0 };
        if !self.looks_ahead() {
            return set;
        }
        let lately = self
            .levels
            .iter()
            .filter(|(until, _)| *until + self.limits.idle_timeout > self.now);
        let level = self.busy_current() - self.surplus.len();
        lately
            .map(|(_, level)| *level)
            .chain([level, set])
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn step(&mut self, step: &Step) {
        let input = match *step {
            Step::Arrive => {
                self.next_request += 1;
                if self.limits.scaling.zero_after.is_some() && self.scaled == Some(0) {
                    self.scaled = None;
                }
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
                    self.failed.remove(&id);
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
                if instances > 0 {
                    self.wake_up();
                }
                Input::Scaled(instances)
            }),
            Step::PreBoot(instances) => {
                if instances > 0 {
                    self.wake_up();
                }
                Some(Input::PreBoot(instances))
            }
            Step::Queued(invocations) => {
                let target = self.limits.scaling.target;
                let counts = target.is_some_and(|target| target.kind == LoadKind::Queued);
                if counts && invocations > 0 {
                    self.wake_up();
                }
                Some(Input::Queued(invocations))
            }
            Step::UseProcessor(used) => Some(Input::ProcessorUsed(used)),
            Step::Replace(limits) => {
                self.limits = limits;
                self.wake_up();
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
        if !keep {
            self.failed.insert(instance);
        }
        self.free(instance);
        self.resettable = (keep && can_be_reset && self.doomed.is_none()).then_some(instance);
        Some(Input::InvocationEnded {
            instance,
            keep,
            can_be_reset,
        })
    }

    /// An instance has one invocation less.
    fn free(&mut self, id: InstanceId) {
        let (version, requests) = self.busy.get_mut(&id).expect("picked from the map");
        requests.pop_first();
        let version = *version;
        if !requests.is_empty() {
            return;
        }
        self.busy.remove(&id);
        self.doomed = self.surplus.take(&id).or(self.failed.take(&id));
        // The state must place or stop it: `check` fails if it stays here in vain.
        self.idle.insert(id, (version, self.now));
    }

    fn input(&mut self, input: Input) {
        let room = self.state.room();
        let mut actions = Vec::new();
        self.levels.push((self.now, self.level));
        if self.was_wanted {
            self.wake_up();
        }
        self.state.apply(self.now, input, &mut actions);
        if self.is_wanted() {
            self.wake_up();
        }
        let has_slept = self.is_asleep;
        self.is_asleep = self.limits.scaling.zero_after.is_some()
            && !self.is_wanted()
            && !self.closed
            && self.awake_until <= self.now;
        if self.is_asleep && !has_slept {
            (self.level, self.levels) = (0, Vec::new());
        }
        let (starts, others): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Start(_)));
        for action in others {
            self.action(input, action);
        }
        self.paused.retain(|id| self.idle.contains_key(id));
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
            let is_wanted = self.coming() * self.concurrency() < self.waiting.len()
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
        self.was_wanted = self.is_wanted();
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
                let (version, mut requests) = match self.idle.remove(&instance) {
                    Some((version, _)) => (version, BTreeSet::new()),
                    None => {
                        assert!(!self.failed.contains(&instance) && !self.surplus.contains(&instance));
                        let busy = self.busy.remove(&instance);
                        busy.expect("only ready instances are assigned")
                    }
                };
                assert!(
                    requests.len() < self.concurrency(),
                    "{instance:?} serves too many requests"
                );
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
                requests.insert(request);
                self.busy.insert(instance, (version, requests));
            }
            Action::Pause(id) => {
                assert!(self.idle.contains_key(&id), "only idle instances are paused");
                assert!(self.paused.insert(id), "{id:?} is paused already");
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
            status.served,
        ];
        let expected = [
            self.coming(),
            self.idle.len(),
            current,
            self.busy.len() - current,
            self.waiting.len(),
            self.busy.values().map(|(_, requests)| requests.len()).sum(),
        ];
        assert_eq!(counted, expected, "after {input:?}");
        assert!(
            self.live() <= self.max(),
            "more than max_instances after {input:?}"
        );
        assert!(
            self.waiting.is_empty() || (self.idle.is_empty() && self.open() == 0),
            "a request waits beside an instance that could take it"
        );
        assert!(
            !self.is_asleep || self.live() == 0,
            "a function that sleeps keeps some"
        );
        let coming = self.coming() * self.concurrency();
        let without_start = self.waiting.len().saturating_sub(coming);
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
        let is_due = |since: Duration| {
            let after = self.limits.pause_after;
            after.is_some_and(|after| since + after <= self.now)
        };
        for (id, (_, since)) in &self.idle {
            assert_eq!(
                self.paused.contains(id),
                is_due(*since),
                "paused too early, or not"
            );
            let pauses = self.limits.pause_after.filter(|_| !is_due(*since));
            let looked_at = self.state.next_deadline();
            assert!(pauses.is_none_or(|after| looked_at.is_some_and(|at| at <= *since + after)));
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
    pub(crate) fn settle(&mut self) {
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

pub(crate) fn fixed_limits(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> PoolLimits {
    PoolLimits {
        min_instances: min,
        max_instances: max,
        max_waiting: waiting,
        idle_timeout: Duration::from_secs(idle_seconds),
        pause_after: None,
        ahead: 0,
        one_invocation: false,
        concurrency: 1,
        scaling: Scaling::default(),
    }
}

pub(crate) fn fixed(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> Model {
    Model::new(fixed_limits(min, max, waiting, idle_seconds))
}

/// The same with one invocation for each instance.
pub(crate) fn pristine(min: u32, max: u32, waiting: usize, idle_seconds: u64) -> Model {
    Model::new(PoolLimits {
        one_invocation: true,
        ..fixed_limits(min, max, waiting, idle_seconds)
    })
}
