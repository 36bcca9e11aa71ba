//! The rules of a pool, without clock, lock or I/O.
//!
//! [`PoolState`] belongs to one function. Everything that happens is an [`Input`], told together with the current
//! time; everything to be done is an [`Action`]. Same inputs, same actions.
//!
//! ```text
//!               InstanceReady            Assign
//!  Start ──> starting ─────────> idle ───────────> busy ──┐ InvocationEnded(discard), or of an old version,
//!               │                ^ ^ │               │    │ or surplus, or the one invocation that it is for
//!               │                │ │ │ idle timeout, │    v
//!  InstanceFailed,               │ │ │ replaced,     │   Stop <── InstanceNotReset, replaced, scaled down
//!  Stop (nobody waits)           │ │ │ scaled down,  │               │
//!               v                │ │ v asleep        │               │
//!             gone               │ │ Stop            │               │
//!                                │ └─────────────────┤ InvocationEnded(keep), Unused
//!                                │                   v               │
//!                                └─ InstanceReset ─ resetting ───────┘
//! ```
//!
//! `InstanceEnded` leads from idle, busy and resetting to gone. An instance is *reset* after its one invocation if it can
//! be, and counts like one that is being started meanwhile. It is busy until the last of its invocations has ended; one of
//! them that is discarded leaves it without new ones. Rules, which the property tests check after every input:
//!
//! 1. An instance serves at most [`PoolLimits::concurrency`] requests at a time, which is one unless somebody says otherwise
//!    and always one with [`PoolLimits::one_invocation`]; and a request is given to at most one instance.
//! 2. Starting, resetting, idle and busy instances of the current version are at most `max_instances` together. Busy ones of a
//!    replaced version drain beside them, so that an update never waits for an old invocation.
//! 3. No request waits while an instance is idle, or serves fewer than it may.
//! 4. A request that waits beyond those for which an instance is being started or reset counts against `max_waiting`.
//! 5. No instance of a replaced version receives a request, or is reset.
//! 6. Every request is answered exactly once, by `Assign` or `Reject`, unless its caller left first.
//! 7. With [`PoolLimits::one_invocation`] no instance serves a second one without having been reset in between, which it
//!    is only after an invocation that ended well; and as many wait idle as were busy at a time
//!    within the idle timeout, as far as the maximum allows and starts do not fail. What is missing is started when no
//!    request waits or is served, so as not to disturb it, but [`AHEAD_DELAY`] later at the latest, and at once if the
//!    latest request had to wait for its start. So it is with [`PoolLimits::ahead`] instances of any pool that is neither
//!    asleep nor scaled to none.
//! 8. Nothing is started that no request waits for beyond the minimum (or what [`Input::Scaled`] has put in its place),
//!    what the load asks for ([`crate::Scaling::target`]), rule 7, and what [`Input::PreBoot`] asks for once; while instances
//!    keep failing, only after a pause. What the minimum or the load asks for is started [`STARTS_MAX`] at a time.
//! 9. An instance is paused when it has been idle for [`PoolLimits::pause_after`], once until it is given a request.
//! 10. With [`crate::Scaling::zero_after`] there is no instance once no request was under way for so long; until then there is
//!     at least one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::demand::Demand;
use crate::scaling::{Load, LoadKind, Scaling};

/// How long a start ahead of demand makes way for invocations under way.
pub const AHEAD_DELAY: Duration = Duration::from_millis(10);

/// How many starts that only the minimum asks for are under way at a time. The next one begins as one of them ends, so that
/// the start of thousands leaves room for what somebody waits for, in this pool and in others.
pub const STARTS_MAX: usize = 16;

/// Number of a request, given by the driver and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Number of an instance, given by the pool and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

/// Bounds that a pool keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Instances that are kept even when idle.
    pub min_instances: u32,
    /// Most instances of the current version at a time; at least one is always allowed.
    pub max_instances: u32,
    /// Most requests that wait for a busy instance to become free.
    pub max_waiting: usize,
    /// How long an instance stays idle before it is removed. Zero: an instance serves one invocation only.
    pub idle_timeout: Duration,
    /// After how long an idle instance is paused; never if none. It is resumed when it is given a request.
    pub pause_after: Option<Duration>,
    /// Instances that wait idle for requests that have not come yet, beyond those that are busy, as far as the maximum allows.
    pub ahead: u32,
    /// Whether an instance is reset, or stopped, after each invocation, and the next ones are started ahead of demand.
    pub one_invocation: bool,
    /// Most requests that an instance serves at a time; zero counts as one.
    pub concurrency: u32,
    /// What load and silence ask for.
    pub scaling: Scaling,
}

impl PoolLimits {
    fn max_instances(&self) -> usize {
        self.max_instances.max(self.min_instances).max(1) as usize
    }

    /// Requests that an instance serves at a time.
    fn concurrency(&self) -> usize {
        if self.one_invocation || self.idle_timeout.is_zero() {
            1
        } else {
            self.concurrency.max(1) as usize
        }
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A request wants an instance.
    RequestArrived(RequestId),
    /// The caller of a waiting request has gone. Ignored once the request was answered.
    CallerGone(RequestId),
    /// A start has succeeded.
    InstanceReady(InstanceId),
    /// A start has failed.
    InstanceFailed(InstanceId),
    /// An instance has ended by itself.
    InstanceEnded(InstanceId),
    /// An invocation is over; `keep` says whether the instance can serve another one.
    InvocationEnded {
        /// The instance that served it.
        instance: InstanceId,
        /// Whether the instance answered in full and still lives.
        keep: bool,
        /// Whether it can be reset.
        can_be_reset: bool,
    },
    /// The instance is what it was when it was started.
    InstanceReset(InstanceId),
    /// The instance could not be reset.
    InstanceNotReset(InstanceId),
    /// A request that was given an instance has left it as it was.
    Unused(InstanceId),
    /// So many instances are to be started from now on, in place of the minimum, until the function is replaced. What
    /// is idle beyond them is stopped, what is busy beyond them is stopped after its invocation.
    Scaled(u32),
    /// So many instances are to be started now, as far as the maximum allows; once idle they are like all others.
    PreBoot(usize),
    /// So many invocations that nobody waits for have not been answered.
    Queued(usize),
    /// Instances have used so much processor time since this was told last.
    ProcessorUsed(Duration),
    /// The function has a new version or new limits; all instances up to now are of an old version.
    Replaced(PoolLimits),
    /// The function is gone: waiting requests are rejected, instances are stopped as they become free.
    Closed,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start an instance of the current version and report how it went.
    Start(InstanceId),
    /// Give the instance to the request.
    Assign {
        /// The instance, now busy.
        instance: InstanceId,
        /// The request, answered by this.
        request: RequestId,
        /// Whether the request waited for the start of this instance.
        cold: bool,
    },
    /// Reset the instance and report how it went.
    Reset(InstanceId),
    /// Pause the instance, which is idle, until it is assigned or stopped.
    Pause(InstanceId),
    /// Stop the instance, or give up its start or reset; it is forgotten already.
    Stop(InstanceId),
    /// Tell the request that it gets no instance.
    Reject(RequestId, Rejection),
}

/// Why a request gets no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// All instances are busy and enough requests wait already.
    QueueFull,
    /// The start of this instance has failed.
    StartFailed(InstanceId),
    /// The function was removed, or the daemon is stopping.
    Closed,
}

/// Numbers of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Instances of the current version that are not ready yet, or are being reset.
    pub starting: usize,
    /// Ready instances without an invocation.
    pub idle: usize,
    /// Instances of the current version that serve an invocation.
    pub busy: usize,
    /// Instances of replaced versions that finish their last invocations.
    pub draining: usize,
    /// Requests without an instance.
    pub waiting: usize,
    /// Requests that an instance serves, those of replaced versions included.
    pub served: usize,
    /// Instances that are kept started whether there is demand or not.
    pub kept: usize,
}

/// An instance that waits for a request.
#[derive(Debug, Clone, Copy)]
struct Idle {
    instance: InstanceId,
    since: Duration,
    is_paused: bool,
}

/// A busy instance.
#[derive(Debug, Clone, Copy)]
struct Busy {
    /// Requests that it serves.
    served: usize,
    /// Whether one of its invocations has failed: it gets no new ones, and is stopped after the others.
    has_failed: bool,
    future: Future,
}

/// What becomes of a busy instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Future {
    /// It may serve another request.
    Current,
    /// It is of the current version, and one more than the function was scaled down to.
    Surplus,
    /// It is of a replaced version.
    Replaced,
}

/// The state of one function's pool.
#[derive(Debug)]
pub struct PoolState {
    limits: PoolLimits,
    /// Stands in for the minimum.
    scaled: Option<u32>,
    closed: bool,
    next_instance: u64,
    /// Instances being started, oldest first.
    starting: VecDeque<InstanceId>,
    /// Instances being reset, oldest first.
    resetting: VecDeque<InstanceId>,
    /// Most recently used last, so `since` ascends.
    idle: Vec<Idle>,
    busy: BTreeMap<InstanceId, Busy>,
    /// How many of `busy` are of the current version, and how many of these are surplus.
    busy_current: usize,
    surplus: usize,
    /// Requests that `busy` serve.
    served: usize,
    /// Busy instances that may take another request, by how many they serve.
    open: BTreeSet<(usize, InstanceId)>,
    /// Longest waiting first.
    waiting: VecDeque<RequestId>,
    /// Slows down the starts that no request asks for, while instances keep failing.
    backoff: Backoff,
    demand: Demand,
    /// How many instances are to wait for requests that have not come yet.
    ahead: usize,
    /// When the missing ones of these are started, whatever else is under way.
    ahead_due: Option<Duration>,
    /// Whether the latest request had to wait for a start: then there is no time to make way for anything.
    is_behind: bool,
    load: Load,
    /// Until when the minimum counts if no request is under way from now on; for [`Scaling::zero_after`].
    awake_until: Duration,
    is_asleep: bool,
}

impl PoolState {
    /// A pool without instances; the first [`Input::Tick`] starts `min_instances` of them.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            scaled: None,
            closed: false,
            next_instance: 0,
            starting: VecDeque::new(),
            resetting: VecDeque::new(),
            idle: Vec::new(),
            busy: BTreeMap::new(),
            busy_current: 0,
            surplus: 0,
            served: 0,
            open: BTreeSet::new(),
            waiting: VecDeque::new(),
            backoff: Backoff::default(),
            demand: Demand::default(),
            ahead: 0,
            ahead_due: None,
            is_behind: false,
            load: Load::default(),
            awake_until: limits.scaling.zero_after.unwrap_or_default(),
            is_asleep: false,
        }
    }

    /// Takes one input and appends what is to be done, in order, to `actions`. `now` is the time since a moment of
    /// the driver's choice and never decreases.
    pub fn apply(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        self.stay_awake(now);
        match input {
            Input::RequestArrived(request) => self.request_arrived(request, actions),
            Input::CallerGone(request) => self.waiting.retain(|waiting| *waiting != request),
            Input::InstanceReady(instance) => self.instance_ready(now, instance, actions),
            Input::InstanceFailed(instance) => self.instance_failed(now, instance, actions),
            Input::InstanceEnded(instance) => self.instance_ended(now, instance),
            Input::InvocationEnded {
                instance,
                keep,
                can_be_reset,
            } => self.invocation_ended(now, instance, keep, can_be_reset, actions),
            Input::InstanceReset(instance) => {
                if forget(&mut self.resetting, instance) {
                    self.place(now, instance, false, actions);
                }
            }
            Input::InstanceNotReset(instance) => {
                if forget(&mut self.resetting, instance) {
                    actions.push(Action::Stop(instance));
                }
            }
            Input::Unused(instance) => self.unused(now, instance, actions),
            Input::Scaled(instances) => self.scale(now, instances, actions),
            Input::PreBoot(instances) => self.pre_boot(now, instances, actions),
            Input::Queued(invocations) => self.queued(now, invocations),
            // It is a load, if anything.
            Input::ProcessorUsed(_) => {}
            Input::Replaced(limits) => self.replaced(now, limits, actions),
            Input::Closed => self.close(actions),
            Input::Tick => {}
        }
        self.stay_awake(now);
        self.judge_load(now, input);
        self.fall_asleep(now, actions);
        self.look_ahead(now);
        self.remove_expired(now, actions);
        self.pause_idle(now, actions);
        self.start_wanted(now, actions);
    }

    /// When the next [`Input::Tick`] is due, if time alone can change anything.
    pub fn next_deadline(&self) -> Option<Duration> {
        let expiry = self
            .expiring()
            .map(|oldest| oldest.since.saturating_add(self.limits.idle_timeout));
        let retry_at = self.backoff.retry_at();
        let refill = retry_at.filter(|_| self.below_floor() > 0);
        let ahead = self
            .ahead_due
            .map(|due| retry_at.map_or(due, |retry| due.max(retry)));
        let less_demand = self.demand.falls_at(self.limits.idle_timeout);
        let load = self.load.next_at().filter(|_| !self.closed);
        let sleep = self.sleeps_at();
        let times = [expiry, refill, ahead, less_demand, load, sleep, self.pauses_at()];
        times.into_iter().flatten().min()
    }

    /// Current numbers.
    pub fn status(&self) -> PoolStatus {
        PoolStatus {
            starting: self.coming(),
            idle: self.idle.len(),
            busy: self.busy_current,
            draining: self.busy.len() - self.busy_current,
            waiting: self.waiting.len(),
            served: self.served,
            kept: if self.closed { 0 } else { self.floor() },
        }
    }

    /// Whether the request waits and an instance is being started that it would get.
    pub fn waits_for_start(&self, request: RequestId) -> bool {
        let served_by_starts = self.starting.len().saturating_mul(self.limits.concurrency());
        let mut served_by_starts = self.waiting.iter().take(served_by_starts);
        served_by_starts.any(|waiting| *waiting == request)
    }

    /// Whether [`Input::Closed`] was applied.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Most instances of the current version.
    pub fn maximum(&self) -> usize {
        self.limits.max_instances()
    }

    /// How many instances may be started now.
    pub fn room(&self) -> usize {
        if self.closed {
            0
        } else {
            self.maximum().saturating_sub(self.live())
        }
    }

    /// Whether an instance may wait idle at all.
    pub fn keeps_idle(&self) -> bool {
        !self.limits.idle_timeout.is_zero()
    }

    /// Instances of the current version.
    fn live(&self) -> usize {
        self.coming() + self.idle.len() + self.busy_current
    }

    /// Instances that will be idle soon: started or reset.
    fn coming(&self) -> usize {
        self.starting.len() + self.resetting.len()
    }

    fn request_arrived(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        if self.scaled == Some(0) && self.limits.scaling.zero_after.is_some() {
            // It was put to sleep by hand, and is wanted again.
            self.scaled = None;
        }
        if self.closed {
            actions.push(Action::Reject(request, Rejection::Closed));
        } else if let Some(idle) = self.idle.pop() {
            self.assign(idle.instance, request, false, actions);
        } else if let Some((_, instance)) = self.open.first().copied() {
            self.assign(instance, request, false, actions);
        } else {
            // `start_wanted` starts an instance for it where one more is allowed.
            let startable = self.startable().saturating_mul(self.limits.concurrency());
            let without_start = (self.waiting.len() + 1).saturating_sub(startable);
            if without_start > self.limits.max_waiting {
                actions.push(Action::Reject(request, Rejection::QueueFull));
            } else {
                self.waiting.push_back(request);
            }
        }
    }

    /// Instances that are being started or reset, or may be started.
    fn startable(&self) -> usize {
        self.limits
            .max_instances()
            .saturating_sub(self.idle.len() + self.busy_current)
    }

    fn instance_ready(&mut self, now: Duration, instance: InstanceId, actions: &mut Vec<Action>) {
        if forget(&mut self.starting, instance) {
            self.place(now, instance, true, actions);
        }
    }

    fn instance_failed(&mut self, now: Duration, instance: InstanceId, actions: &mut Vec<Action>) {
        if forget(&mut self.starting, instance) {
            self.backoff.failed(now);
            if let Some(request) = self.waiting.pop_front() {
                actions.push(Action::Reject(request, Rejection::StartFailed(instance)));
            }
        }
    }

    fn instance_ended(&mut self, now: Duration, instance: InstanceId) {
        if let Some(position) = self.idle.iter().position(|idle| idle.instance == instance) {
            self.idle.remove(position);
            self.backoff.failed(now);
        } else if forget(&mut self.resetting, instance) {
            // That is how one ends which cannot be reset after all, and no failure.
        } else if self.no_longer_busy(instance).is_some() {
            self.backoff.failed(now);
        }
    }

    fn invocation_ended(
        &mut self,
        now: Duration,
        instance: InstanceId,
        keep: bool,
        can_be_reset: bool,
        actions: &mut Vec<Action>,
    ) {
        if keep {
            if self.busy.contains_key(&instance) {
                self.backoff.worked();
            }
        } else if let Some(busy) = self.busy.get_mut(&instance) {
            busy.has_failed = true;
        }
        let Some(busy) = self.served_one(instance, actions) else {
            return;
        };
        if busy.has_failed || !self.keeps_idle() || busy.future != Future::Current {
            actions.push(Action::Stop(instance));
        } else if !self.limits.one_invocation {
            self.place(now, instance, false, actions);
        } else if can_be_reset {
            self.resetting.push_back(instance);
            actions.push(Action::Reset(instance));
        } else {
            actions.push(Action::Stop(instance));
        }
    }

    fn unused(&mut self, now: Duration, instance: InstanceId, actions: &mut Vec<Action>) {
        match self.served_one(instance, actions) {
            Some(busy) if busy.future == Future::Current && !busy.has_failed => {
                self.place(now, instance, false, actions);
            }
            Some(_) => actions.push(Action::Stop(instance)),
            None => {}
        }
    }

    /// One of the requests that an instance serves is over. The instance, if that was the last one; otherwise its place is
    /// for the request that has waited longest.
    fn served_one(&mut self, instance: InstanceId, actions: &mut Vec<Action>) -> Option<Busy> {
        let before = *self.busy.get(&instance)?;
        if before.served <= 1 {
            return self.no_longer_busy(instance);
        }
        self.served -= 1;
        self.change_busy(instance, |busy| busy.served -= 1);
        self.fill(actions);
        None
    }

    /// Gives places of busy instances to requests that wait.
    fn fill(&mut self, actions: &mut Vec<Action>) {
        while let Some((_, instance)) = self.open.first().copied() {
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            self.assign(instance, request, false, actions);
        }
    }

    fn no_longer_busy(&mut self, instance: InstanceId) -> Option<Busy> {
        let busy = self.busy.remove(&instance)?;
        self.open.remove(&(busy.served, instance));
        self.served -= busy.served;
        self.busy_current -= usize::from(busy.future != Future::Replaced);
        self.surplus -= usize::from(busy.future == Future::Surplus);
        Some(busy)
    }

    /// Changes what is known of a busy instance, and whether it may take another request.
    fn change_busy(&mut self, instance: InstanceId, change: impl FnOnce(&mut Busy)) {
        let concurrency = self.limits.concurrency();
        let Some(busy) = self.busy.get_mut(&instance) else {
            return;
        };
        self.open.remove(&(busy.served, instance));
        change(busy);
        let is_open = busy.future == Future::Current && !busy.has_failed && busy.served < concurrency;
        if is_open {
            self.open.insert((busy.served, instance));
        }
    }

    /// Finds work for an instance of the current version that has none; `started` says whether it is a new one.
    fn place(&mut self, now: Duration, instance: InstanceId, started: bool, actions: &mut Vec<Action>) {
        let free = self.limits.concurrency().min(self.waiting.len());
        for _ in 0..free {
            if let Some(request) = self.waiting.pop_front() {
                self.assign(instance, request, started, actions);
            }
        }
        if free == 0 {
            self.idle.push(Idle {
                instance,
                since: now,
                is_paused: false,
            });
        }
    }

    fn assign(&mut self, instance: InstanceId, request: RequestId, cold: bool, actions: &mut Vec<Action>) {
        self.is_behind = cold;
        self.served += 1;
        if !self.busy.contains_key(&instance) {
            self.busy_current += 1;
            let busy = Busy {
                served: 0,
                has_failed: false,
                future: Future::Current,
            };
            self.busy.insert(instance, busy);
        }
        self.change_busy(instance, |busy| busy.served += 1);
        actions.push(Action::Assign {
            instance,
            request,
            cold,
        });
    }

    /// The function is wanted: it does not fall asleep before its time has passed once more.
    fn wake_up(&mut self, now: Duration) {
        if let Some(after) = self.limits.scaling.zero_after {
            self.awake_until = now.saturating_add(after);
            self.is_asleep = false;
        }
    }

    /// As long as a request is under way the function is wanted.
    fn stay_awake(&mut self, now: Duration) {
        if self.served > 0 || !self.waiting.is_empty() {
            self.wake_up(now);
        }
    }

    /// When nothing is kept any more if no request comes.
    fn sleeps_at(&self) -> Option<Duration> {
        let is_wanted = self.served > 0 || !self.waiting.is_empty();
        let may_sleep = self.limits.scaling.zero_after.is_some() && !self.closed;
        (may_sleep && !is_wanted && !self.is_asleep).then_some(self.awake_until)
    }

    /// Stops everything once the function was not wanted for long enough.
    fn fall_asleep(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.sleeps_at().is_none_or(|at| at > now) {
            return;
        }
        self.is_asleep = true;
        self.demand = Demand::default();
        self.retire_all(actions);
    }

    fn judge_load(&mut self, now: Duration, input: Input) {
        let Some(target) = self.limits.scaling.target.filter(|_| !self.closed) else {
            self.load = Load::default();
            return;
        };
        match (target.kind, input) {
            (LoadKind::RequestsPerSecond, Input::RequestArrived(_)) => self.load.count(now),
            (LoadKind::Processor, Input::ProcessorUsed(used)) => self.load.use_processor(now, used),
            (LoadKind::InFlight, _) => self.load.set_level(now, self.served + self.waiting.len()),
            _ => {}
        }
        self.load.judge(now, &self.limits.scaling);
    }

    fn queued(&mut self, now: Duration, invocations: usize) {
        let target = self.limits.scaling.target;
        if !self.closed && target.is_some_and(|target| target.kind == LoadKind::Queued) {
            self.load.set_level(now, invocations);
            if invocations > 0 {
                self.wake_up(now);
            }
        }
    }

    fn scale(&mut self, now: Duration, instances: u32, actions: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        self.scaled = Some(instances);
        if instances > 0 {
            self.wake_up(now);
        }
        // Whoever scales knows better than what was seen so far, and deserves a fresh chance.
        self.demand = Demand::default();
        self.load = Load::default();
        self.backoff = Backoff::default();
        let floor = self.floor();
        while self.live() > floor && self.coming() > self.needed() {
            let latest = self.starting.pop_back().or_else(|| self.resetting.pop_back());
            actions.extend(latest.map(Action::Stop));
        }
        while self.live() > floor && !self.idle.is_empty() {
            actions.push(Action::Stop(self.idle.remove(0).instance));
        }
        let mut surplus = self.live().saturating_sub(floor).min(self.busy_current);
        self.surplus = surplus;
        let current = self
            .busy
            .iter()
            .filter(|(_, busy)| busy.future != Future::Replaced);
        for instance in current.map(|(instance, _)| *instance).collect::<Vec<_>>() {
            let future = if surplus > 0 {
                Future::Surplus
            } else {
                Future::Current
            };
            surplus = surplus.saturating_sub(1);
            self.change_busy(instance, |busy| busy.future = future);
        }
        self.fill(actions);
    }

    fn pre_boot(&mut self, now: Duration, instances: usize, actions: &mut Vec<Action>) {
        if instances > 0 {
            self.wake_up(now);
        }
        for _ in 0..instances.min(self.room()) {
            self.start(actions);
        }
    }

    fn replaced(&mut self, now: Duration, limits: PoolLimits, actions: &mut Vec<Action>) {
        self.limits = limits;
        self.scaled = None;
        self.is_asleep = false;
        self.wake_up(now);
        self.load = Load::default();
        self.retire_all(actions);
        // A new version deserves a fresh chance.
        self.backoff = Backoff::default();
    }

    fn close(&mut self, actions: &mut Vec<Action>) {
        self.closed = true;
        for request in self.waiting.drain(..) {
            actions.push(Action::Reject(request, Rejection::Closed));
        }
        self.retire_all(actions);
    }

    /// Stops everything without an invocation and lets the rest drain.
    fn retire_all(&mut self, actions: &mut Vec<Action>) {
        actions.extend(self.starting.drain(..).map(Action::Stop));
        actions.extend(self.resetting.drain(..).map(Action::Stop));
        actions.extend(self.idle.drain(..).map(|idle| Action::Stop(idle.instance)));
        for busy in self.busy.values_mut() {
            busy.future = Future::Replaced;
        }
        self.open.clear();
        (self.busy_current, self.surplus) = (0, 0);
    }

    /// Instances that are kept started whether there is demand or not.
    fn floor(&self) -> usize {
        if self.is_asleep {
            return 0;
        }
        let least = u32::from(self.limits.scaling.zero_after.is_some());
        let floor = self.scaled.unwrap_or(self.limits.min_instances.max(least)) as usize;
        floor.max(self.load.wanted()).min(self.maximum())
    }

    /// Requests that will have an instance once those that are coming are ready.
    fn expected(&self) -> usize {
        self.coming().saturating_mul(self.limits.concurrency())
    }

    /// Instances that the waiting requests will take.
    fn needed(&self) -> usize {
        self.waiting.len().div_ceil(self.limits.concurrency())
    }

    /// Instances that are, or will be, there for requests that have not come yet.
    fn spare(&self) -> usize {
        self.idle.len() + self.coming().saturating_sub(self.needed())
    }

    /// Decides how many instances are to be there for requests that have not come yet.
    fn look_ahead(&mut self, now: Duration) {
        let demanded = if self.limits.one_invocation && self.keeps_idle() && !self.closed {
            let level = self.busy_current - self.surplus;
            self.demand.set(now, level, self.limits.idle_timeout);
            self.demand.peak()
        } else {
            self.demand = Demand::default();
            0
        };
        let is_wanted = !self.closed && !self.is_asleep && self.scaled != Some(0);
        let set = if is_wanted { self.limits.ahead as usize } else { 0 };
        self.ahead = demanded.max(set);
    }

    /// The instance that is to be removed next, unless the minimum or demand keeps it.
    fn expiring(&self) -> Option<&Idle> {
        let oldest = self.idle.first()?;
        (self.live() > self.floor() && self.spare() > self.ahead).then_some(oldest)
    }

    fn remove_expired(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(oldest) = self.expiring() {
            if oldest.since.saturating_add(self.limits.idle_timeout) > now {
                break;
            }
            actions.push(Action::Stop(self.idle.remove(0).instance));
        }
    }

    /// When the next idle instance is to be paused.
    fn pauses_at(&self) -> Option<Duration> {
        let after = self.limits.pause_after?;
        let next = self.idle.iter().find(|idle| !idle.is_paused)?;
        Some(next.since.saturating_add(after))
    }

    fn pause_idle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(after) = self.limits.pause_after else {
            return;
        };
        for idle in &mut self.idle {
            if idle.since.saturating_add(after) > now {
                break;
            }
            if !idle.is_paused {
                idle.is_paused = true;
                actions.push(Action::Pause(idle.instance));
            }
        }
    }

    /// Instances that the minimum asks for beyond those that live.
    fn below_floor(&self) -> usize {
        if self.closed {
            0
        } else {
            self.floor().saturating_sub(self.live())
        }
    }

    /// Starts an instance for every waiting request that has none coming, and those that the minimum and the expected
    /// demand ask for.
    fn start_wanted(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.expected() < self.waiting.len() && self.live() < self.limits.max_instances() {
            self.start(actions);
        }
        let may_retry = self.backoff.allows(now);
        if may_retry {
            let under_way = self.starting.len().saturating_sub(self.needed());
            for _ in 0..self.below_floor().min(STARTS_MAX.saturating_sub(under_way)) {
                self.start(actions);
            }
        }
        let missing = self.ahead.saturating_sub(self.spare()).min(self.room());
        if missing == 0 {
            self.ahead_due = None;
            return;
        }
        let disturbs_nobody = self.busy_current == 0 && self.waiting.is_empty();
        if disturbs_nobody || self.is_behind {
            self.ahead_due = Some(now);
        }
        let due = *self.ahead_due.get_or_insert(now.saturating_add(AHEAD_DELAY));
        if due <= now && may_retry {
            for _ in 0..missing {
                self.start(actions);
            }
            self.ahead_due = None;
        }
    }

    fn start(&mut self, actions: &mut Vec<Action>) {
        let instance = InstanceId(self.next_instance);
        self.next_instance += 1;
        self.starting.push_back(instance);
        actions.push(Action::Start(instance));
    }
}

/// Whether the instance was in the list; it is not any more.
fn forget(list: &mut VecDeque<InstanceId>, instance: InstanceId) -> bool {
    let position = list.iter().position(|listed| *listed == instance);
    position.is_some_and(|position| list.remove(position).is_some())
}
