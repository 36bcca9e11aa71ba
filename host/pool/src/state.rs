//! The rules of a pool, without clock, lock or I/O.
//!
//! [`PoolState`] belongs to one function. Everything that happens is an [`Input`], told together with the current
//! time; everything to be done is an [`Action`]. Same inputs, same actions.
//!
//! ```text
//!               InstanceReady            Assign
//!  Start ──> starting ─────────> idle ───────────> busy ──┐
//!               │                 ^ │                │    │ InvocationEnded(discard), or of an old version
//!               │                 │ │ idle timeout,  │    v
//!  InstanceFailed,                │ │ replaced       │   Stop
//!  Stop (nobody waits)            │ v                │
//!               v                 │ Stop             │
//!             gone                └──────────────────┘ InvocationEnded(keep)
//! ```
//!
//! `InstanceEnded` leads from idle and busy to gone. Rules, which the property tests check after every input:
//!
//! 1. An instance serves at most one request at a time, and a request is given to at most one instance.
//! 2. Starting, idle and busy instances of the current version are at most `max_instances` together. Busy ones of a
//!    replaced version drain beside them, so that an update never waits for an old invocation.
//! 3. No request waits while an instance is idle.
//! 4. A request that waits beyond those for which an instance is being started counts against `max_waiting`.
//! 5. No instance of a replaced version receives a request.
//! 6. Every request is answered exactly once, by `Assign` or `Reject`, unless its caller left first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::backoff::Backoff;

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
}

impl PoolLimits {
    fn max_instances(&self) -> usize {
        self.max_instances.max(self.min_instances).max(1) as usize
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
    },
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
    /// Stop the instance, or give up its start; it is forgotten already.
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
    /// Instances of the current version that are not ready yet.
    pub starting: usize,
    /// Ready instances without an invocation.
    pub idle: usize,
    /// Instances of the current version that serve an invocation.
    pub busy: usize,
    /// Instances of replaced versions that finish their last invocation.
    pub draining: usize,
    /// Requests without an instance.
    pub waiting: usize,
}

/// An instance that waits for a request.
#[derive(Debug, Clone, Copy)]
struct Idle {
    instance: InstanceId,
    since: Duration,
}

/// The state of one function's pool.
#[derive(Debug)]
pub struct PoolState {
    limits: PoolLimits,
    closed: bool,
    next_instance: u64,
    /// Instances being started, oldest first.
    starting: VecDeque<InstanceId>,
    /// Most recently used last, so `since` ascends.
    idle: Vec<Idle>,
    /// Busy instances, with whether they are of the current version.
    busy: BTreeMap<InstanceId, bool>,
    /// How many of `busy` are of the current version.
    busy_current: usize,
    /// Longest waiting first.
    waiting: VecDeque<RequestId>,
    /// Slows down the starts that no request asks for, while instances keep failing.
    backoff: Backoff,
}

impl PoolState {
    /// A pool without instances; the first [`Input::Tick`] starts `min_instances` of them.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            closed: false,
            next_instance: 0,
            starting: VecDeque::new(),
            idle: Vec::new(),
            busy: BTreeMap::new(),
            busy_current: 0,
            waiting: VecDeque::new(),
            backoff: Backoff::default(),
        }
    }

    /// Takes one input and appends what is to be done, in order, to `actions`. `now` is the time since a moment of
    /// the driver's choice and never decreases.
    pub fn apply(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::RequestArrived(request) => self.request_arrived(request, actions),
            Input::CallerGone(request) => self.waiting.retain(|waiting| *waiting != request),
            Input::InstanceReady(instance) => self.instance_ready(now, instance, actions),
            Input::InstanceFailed(instance) => self.instance_failed(now, instance, actions),
            Input::InstanceEnded(instance) => self.instance_ended(now, instance),
            Input::InvocationEnded { instance, keep } => self.invocation_ended(now, instance, keep, actions),
            Input::Replaced(limits) => self.replaced(limits, actions),
            Input::Closed => self.close(actions),
            Input::Tick => {}
        }
        self.remove_expired(now, actions);
        self.start_wanted(now, actions);
    }

    /// When the next [`Input::Tick`] is due, if time alone can change anything.
    pub fn next_deadline(&self) -> Option<Duration> {
        let expiry = self
            .expiring()
            .map(|oldest| oldest.since.saturating_add(self.limits.idle_timeout));
        let refill = if self.missing() > 0 {
            self.backoff.retry_at()
        } else {
            None
        };
        expiry.into_iter().chain(refill).min()
    }

    /// Current numbers.
    pub fn status(&self) -> PoolStatus {
        PoolStatus {
            starting: self.starting.len(),
            idle: self.idle.len(),
            busy: self.busy_current,
            draining: self.busy.len() - self.busy_current,
            waiting: self.waiting.len(),
        }
    }

    /// Whether the request waits and an instance is being started that it would get.
    pub fn waits_for_start(&self, request: RequestId) -> bool {
        let mut served_by_starts = self.waiting.iter().take(self.starting.len());
        served_by_starts.any(|waiting| *waiting == request)
    }

    /// Whether [`Input::Closed`] was applied.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Instances of the current version.
    fn live(&self) -> usize {
        self.starting.len() + self.idle.len() + self.busy_current
    }

    fn request_arrived(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        if self.closed {
            actions.push(Action::Reject(request, Rejection::Closed));
        } else if let Some(idle) = self.idle.pop() {
            self.assign(idle.instance, request, false, actions);
        } else {
            // `start_wanted` starts an instance for it where one more is allowed.
            let without_start = (self.waiting.len() + 1).saturating_sub(self.startable());
            if without_start > self.limits.max_waiting {
                actions.push(Action::Reject(request, Rejection::QueueFull));
            } else {
                self.waiting.push_back(request);
            }
        }
    }

    /// Instances that are being started or may be.
    fn startable(&self) -> usize {
        self.limits
            .max_instances()
            .saturating_sub(self.idle.len() + self.busy_current)
    }

    fn instance_ready(&mut self, now: Duration, instance: InstanceId, actions: &mut Vec<Action>) {
        if self.forget_start(instance) {
            self.place(now, instance, true, actions);
        }
    }

    fn instance_failed(&mut self, now: Duration, instance: InstanceId, actions: &mut Vec<Action>) {
        if self.forget_start(instance) {
            self.backoff.failed(now);
            if let Some(request) = self.waiting.pop_front() {
                actions.push(Action::Reject(request, Rejection::StartFailed(instance)));
            }
        }
    }

    /// Whether the instance was being started; it is not any more.
    fn forget_start(&mut self, instance: InstanceId) -> bool {
        let position = self.starting.iter().position(|starting| *starting == instance);
        position.is_some_and(|position| self.starting.remove(position).is_some())
    }

    fn instance_ended(&mut self, now: Duration, instance: InstanceId) {
        if let Some(position) = self.idle.iter().position(|idle| idle.instance == instance) {
            self.idle.remove(position);
            self.backoff.failed(now);
        } else if let Some(current) = self.busy.remove(&instance) {
            self.busy_current -= usize::from(current);
            self.backoff.failed(now);
        }
    }

    fn invocation_ended(
        &mut self,
        now: Duration,
        instance: InstanceId,
        keep: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(current) = self.busy.remove(&instance) else {
            return;
        };
        self.busy_current -= usize::from(current);
        if keep {
            self.backoff.worked();
        }
        if keep && current && !self.closed && !self.limits.idle_timeout.is_zero() {
            self.place(now, instance, false, actions);
        } else {
            actions.push(Action::Stop(instance));
        }
    }

    /// Finds work for an instance of the current version that has none; `started` says whether it is a new one.
    fn place(&mut self, now: Duration, instance: InstanceId, started: bool, actions: &mut Vec<Action>) {
        match self.waiting.pop_front() {
            Some(request) => self.assign(instance, request, started, actions),
            None => self.idle.push(Idle { instance, since: now }),
        }
    }

    fn assign(&mut self, instance: InstanceId, request: RequestId, cold: bool, actions: &mut Vec<Action>) {
        self.busy.insert(instance, true);
        self.busy_current += 1;
        actions.push(Action::Assign {
            instance,
            request,
            cold,
        });
    }

    fn replaced(&mut self, limits: PoolLimits, actions: &mut Vec<Action>) {
        self.limits = limits;
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
        actions.extend(self.idle.drain(..).map(|idle| Action::Stop(idle.instance)));
        for current in self.busy.values_mut() {
            *current = false;
        }
        self.busy_current = 0;
    }

    /// The instance that is to be removed next, unless the minimum keeps it.
    fn expiring(&self) -> Option<&Idle> {
        let oldest = self.idle.first()?;
        (self.live() > self.limits.min_instances as usize).then_some(oldest)
    }

    fn remove_expired(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(oldest) = self.expiring() {
            if oldest.since.saturating_add(self.limits.idle_timeout) > now {
                break;
            }
            actions.push(Action::Stop(self.idle.remove(0).instance));
        }
    }

    /// Instances that the minimum asks for beyond those that live.
    fn missing(&self) -> usize {
        if self.closed {
            0
        } else {
            (self.limits.min_instances as usize).saturating_sub(self.live())
        }
    }

    /// Starts an instance for every waiting request that has none coming, and the missing ones of the minimum.
    fn start_wanted(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.starting.len() < self.waiting.len() && self.live() < self.limits.max_instances() {
            self.start(actions);
        }
        if self.backoff.allows(now) {
            for _ in 0..self.missing() {
                self.start(actions);
            }
        }
    }

    fn start(&mut self, actions: &mut Vec<Action>) {
        let instance = InstanceId(self.next_instance);
        self.next_instance += 1;
        self.starting.push_back(instance);
        actions.push(Action::Start(instance));
    }
}
