//! Carries out what [`PoolState`] decides: starts and stops instances, answers requests, keeps the clock.
//!
//! One lock guards the state and everything that belongs to it; nothing is awaited and nothing foreign is called while
//! it is held. Each instance has one task, which starts it and then waits for its end; a stop runs in a task of its
//! own; one task of the pool sleeps until time alone changes something.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use spore_sandbox::{Instance, InstanceSpec, LogLine, LogSink, LogSource, Sandbox, StartError, StopReason};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::{AboveMaximum, AcquireError, PreBootError};
use crate::lease::Lease;
use crate::state::{Action, Input, InstanceId, PoolLimits, PoolState, PoolStatus, Rejection, RequestId};

/// How long [`Pool::shutdown`] waits for sandboxes to remove what it has told them to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

type Answer<C> = Result<Lease<C>, AcquireError>;

/// The instances of one function. Clones are handles of the same pool. Must be made and used inside a tokio runtime.
pub struct Pool<C: Send + 'static> {
    inner: Arc<Inner<C>>,
}

impl<C: Send + 'static> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<C: Send + 'static> Pool<C> {
    /// A pool whose instances are started as `template` says, each with an identifier of its own in place of
    /// [`InstanceSpec::instance`].
    pub fn new(
        sandbox: Arc<dyn Sandbox>,
        log: Arc<dyn LogSink>,
        template: InstanceSpec,
        limits: PoolLimits,
    ) -> Self {
        let rearm = Arc::new(Notify::new());
        let inner = Arc::new(Inner {
            sandbox,
            log,
            epoch: Instant::now(),
            rearm: rearm.clone(),
            settled: Notify::new(),
            shared: Mutex::new(Shared::new(template, limits)),
        });
        tokio::spawn(keep_time(Arc::downgrade(&inner), rearm));
        Self { inner }
    }

    /// An instance for one invocation: an idle one, or else one that is started or becomes free within `patience`.
    /// Dropping the future gives the place in the queue up.
    pub async fn acquire(&self, patience: Duration) -> Result<Lease<C>, AcquireError> {
        let (request, receiver) = {
            let mut shared = self.inner.lock();
            let request = shared.next_request();
            let mut effects =
                self.inner
                    .apply(&mut shared, Input::RequestArrived(request), StopReason::NotNeeded);
            if let Some(answer) = effects.own.take() {
                drop(shared);
                effects.carry_out(&self.inner);
                return answer;
            }
            let (sender, receiver) = oneshot::channel();
            shared.waiters.insert(request, sender);
            drop(shared);
            effects.carry_out(&self.inner);
            (request, receiver)
        };
        let place = PlaceInQueue {
            inner: &self.inner,
            request,
        };
        match tokio::time::timeout(patience, receiver).await {
            Ok(answer) => {
                std::mem::forget(place);
                answer.unwrap_or(Err(AcquireError::Closed))
            }
            Err(_) => Err(self.inner.too_late(request, patience)),
        }
    }

    /// Replaces the function by a new version. From the return of this call no request is given to an instance of the
    /// old one; invocations that it has begun run to their end.
    pub fn replace(&self, template: InstanceSpec, limits: PoolLimits) {
        let mut shared = self.inner.lock();
        shared.template = template;
        let effects = self
            .inner
            .apply(&mut shared, Input::Replaced(limits), StopReason::NotNeeded);
        drop(shared);
        effects.carry_out(&self.inner);
    }

    /// Keeps so many instances started, in place of the minimum, until the next call or the next version. Returns at
    /// once. What is idle beyond them is stopped, what is busy beyond them is stopped after its invocation.
    pub fn scale(&self, instances: u64) -> Result<(), AboveMaximum> {
        let mut shared = self.inner.lock();
        let instances = within_maximum(&shared, instances)?;
        let effects = self
            .inner
            .apply(&mut shared, Input::Scaled(instances), StopReason::NotNeeded);
        drop(shared);
        effects.carry_out(&self.inner);
        Ok(())
    }

    /// Starts so many instances ahead of demand, fewer if the maximum is reached before; says how many. They are kept
    /// as long as any idle instance is.
    pub fn pre_boot(&self, instances: u64) -> Result<usize, PreBootError> {
        let mut shared = self.inner.lock();
        let instances = within_maximum(&shared, instances)? as usize;
        if !shared.state.keeps_idle() {
            return Err(PreBootError::NoneIdle);
        }
        let started = instances.min(shared.state.room());
        let effects = self
            .inner
            .apply(&mut shared, Input::PreBoot(started), StopReason::NotNeeded);
        drop(shared);
        effects.carry_out(&self.inner);
        Ok(started)
    }

    /// So many invocations that nobody waits for have not been answered, for [`crate::LoadKind::Queued`].
    pub fn queued(&self, invocations: usize) {
        self.inner.input(Input::Queued(invocations));
    }

    /// Instances have used so much processor time since the last call, for [`crate::LoadKind::Processor`].
    pub fn processor_used(&self, used: Duration) {
        self.inner.input(Input::ProcessorUsed(used));
    }

    /// Rejects waiting and later requests and stops the instances, busy ones after their invocation.
    pub fn close(&self) {
        self.inner.input(Input::Closed);
    }

    /// Closes the pool, gives invocations `grace` to end, and then stops what is left. On return no instance lives,
    /// unless a sandbox failed to stop one.
    pub async fn shutdown(&self, grace: Duration) {
        self.close();
        if tokio::time::timeout(grace, self.inner.until_settled())
            .await
            .is_ok()
        {
            return;
        }
        let remaining: Vec<_> = {
            let shared = self.inner.lock();
            shared
                .ready()
                .map(|(instance, rest)| (instance.clone(), rest.clone()))
                .collect()
        };
        for (instance, rest) in remaining {
            self.inner
                .stop_in_background(instance, &rest, StopReason::NotNeeded);
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.inner.until_settled())
            .await
            .is_err()
        {
            tracing::warn!("instances are left that the sandbox did not stop in time");
        }
    }

    /// The instances that are ready, idle or busy, those of replaced versions included.
    pub fn ready_instances(&self) -> Vec<Arc<dyn Instance>> {
        self.inner.lock().ready_instances()
    }

    /// Current numbers.
    pub fn status(&self) -> PoolStatus {
        self.inner.lock().state.status()
    }
}

fn within_maximum<C: Send + 'static>(shared: &Shared<C>, wanted: u64) -> Result<u32, AboveMaximum> {
    let maximum = shared.state.maximum() as u64;
    let within = u32::try_from(wanted).ok().filter(|_| wanted <= maximum);
    within.ok_or(AboveMaximum { wanted, maximum })
}

/// Gives a place in the queue up when its owner goes away.
struct PlaceInQueue<'a, C: Send + 'static> {
    inner: &'a Arc<Inner<C>>,
    request: RequestId,
}

impl<C: Send + 'static> Drop for PlaceInQueue<'_, C> {
    fn drop(&mut self) {
        let mut shared = self.inner.lock();
        let waiter = shared.waiters.remove(&self.request);
        let effects = self.inner.apply(
            &mut shared,
            Input::CallerGone(self.request),
            StopReason::NotNeeded,
        );
        drop(shared);
        drop(waiter);
        effects.carry_out(self.inner);
    }
}

/// Whether an instance stands still, and whether it is to.
///
/// What is wanted changes under the pool's lock; what is changes after it, in whichever order that comes: each time to what is
/// wanted by then.
#[derive(Debug, Default)]
struct Rest {
    is_wanted: AtomicBool,
    is_paused: Mutex<bool>,
}

impl Rest {
    fn want(&self, is_wanted: bool) -> bool {
        self.is_wanted.swap(is_wanted, Ordering::Relaxed) != is_wanted
    }

    fn settle(&self, instance: &dyn Instance) {
        let mut is_paused = self.is_paused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = self.is_wanted.load(Ordering::Relaxed);
        if *is_paused == is_wanted {
            return;
        }
        let outcome = if is_wanted {
            instance.pause()
        } else {
            instance.resume()
        };
        match outcome {
            Ok(()) => *is_paused = is_wanted,
            Err(error) => {
                let instance = instance.id();
                tracing::debug!(instance, is_wanted, error = %error, "an instance is not paused or resumed");
            }
        }
    }
}

/// An instance as the driver knows it.
enum Slot<C> {
    Starting(AbortHandle),
    Ready {
        instance: Arc<dyn Instance>,
        rest: Arc<Rest>,
        /// What ended invocations have left, at most one for each that the instance serves at a time.
        connections: Vec<C>,
        /// Why it is stopped once it serves nobody any more, if one of its invocations has failed.
        discard_reason: Option<StopReason>,
    },
}

struct Shared<C: Send + 'static> {
    state: PoolState,
    template: InstanceSpec,
    slots: HashMap<InstanceId, Slot<C>>,
    waiters: HashMap<RequestId, oneshot::Sender<Answer<C>>>,
    /// Error of the start that the current input reports.
    start_error: Option<StartError>,
    requests: u64,
    /// When the timekeeper wakes up.
    armed: Option<Duration>,
    /// Tasks that start, watch, reset or stop an instance.
    tasks: usize,
    /// Kept to spare an allocation for each input.
    actions: Vec<Action>,
}

impl<C: Send + 'static> Shared<C> {
    fn new(template: InstanceSpec, limits: PoolLimits) -> Self {
        Self {
            state: PoolState::new(limits),
            template,
            slots: HashMap::new(),
            waiters: HashMap::new(),
            start_error: None,
            requests: 0,
            armed: None,
            tasks: 0,
            actions: Vec::new(),
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn ready_instances(&self) -> Vec<Arc<dyn Instance>> {
        self.ready().map(|(instance, _)| instance.clone()).collect()
    }

    fn ready(&self) -> impl Iterator<Item = (&Arc<dyn Instance>, &Arc<Rest>)> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Starting(_) => None,
            Slot::Ready { instance, rest, .. } => Some((instance, rest)),
        })
    }
}

/// What is left to do after the lock was released.
struct Effects<C: Send + 'static> {
    /// Answer for the request that arrived by this very input.
    own: Option<Answer<C>>,
    answers: Vec<(oneshot::Sender<Answer<C>>, Answer<C>)>,
    resets: Vec<Reset<C>>,
    /// What is to be paused or resumed.
    rests: Vec<(Arc<dyn Instance>, Arc<Rest>)>,
    stops: Vec<(Slot<C>, StopReason)>,
}

/// An instance that is to be reset.
struct Reset<C> {
    id: InstanceId,
    instance: Arc<dyn Instance>,
    /// What its last invocation has left. It goes after the reset: the function need not see it close.
    connections: Vec<C>,
}

impl<C: Send + 'static> Effects<C> {
    fn rest(&mut self, shared: &Shared<C>, id: InstanceId, is_wanted: bool) {
        if let Some(Slot::Ready { instance, rest, .. }) = shared.slots.get(&id)
            && rest.want(is_wanted)
        {
            self.rests.push((instance.clone(), rest.clone()));
        }
    }

    fn carry_out(self, inner: &Arc<Inner<C>>) {
        for (instance, rest) in self.rests {
            rest.settle(&*instance);
        }
        for (waiter, answer) in self.answers {
            // A lease that comes back, because its caller has just gone, is untouched and returns to the pool.
            drop(waiter.send(answer));
        }
        for reset in self.resets {
            inner.reset_in_background(reset);
        }
        for (slot, reason) in self.stops {
            match slot {
                Slot::Starting(start) => start.abort(),
                Slot::Ready {
                    instance,
                    rest,
                    connections,
                    discard_reason,
                } => {
                    drop(connections);
                    inner.stop_in_background(instance, &rest, discard_reason.unwrap_or(reason));
                }
            }
        }
    }
}

pub(crate) struct Inner<C: Send + 'static> {
    sandbox: Arc<dyn Sandbox>,
    log: Arc<dyn LogSink>,
    epoch: Instant,
    /// Wakes the timekeeper up.
    rearm: Arc<Notify>,
    /// Tells that the number of tasks has become zero.
    settled: Notify,
    shared: Mutex<Shared<C>>,
}

impl<C: Send + 'static> Drop for Inner<C> {
    fn drop(&mut self) {
        self.rearm.notify_one();
    }
}

impl<C: Send + 'static> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, Shared<C>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(self: &Arc<Self>, input: Input) {
        let mut shared = self.lock();
        let effects = self.apply(&mut shared, input, StopReason::NotNeeded);
        drop(shared);
        effects.carry_out(self);
    }

    /// Tells the state and prepares its actions. `discard_reason` is for the instance that the input discards.
    fn apply(
        self: &Arc<Self>,
        shared: &mut Shared<C>,
        input: Input,
        discard_reason: StopReason,
    ) -> Effects<C> {
        if let Input::InvocationEnded {
            instance,
            keep: false,
            ..
        } = input
            && let Some(Slot::Ready {
                discard_reason: first,
                ..
            }) = shared.slots.get_mut(&instance)
        {
            first.get_or_insert(discard_reason);
        }
        let now = self.epoch.elapsed();
        let mut actions = std::mem::take(&mut shared.actions);
        shared.state.apply(now, input, &mut actions);
        let mut effects = Effects {
            own: None,
            answers: Vec::new(),
            resets: Vec::new(),
            rests: Vec::new(),
            stops: Vec::new(),
        };
        for action in actions.drain(..) {
            match action {
                Action::Start(id) => self.start(shared, id),
                Action::Assign {
                    instance,
                    request,
                    cold,
                } => {
                    effects.rest(shared, instance, false);
                    if let Some(lease) = self.lease(shared, instance, cold) {
                        answer(shared, &mut effects, request, Ok(lease));
                    }
                }
                Action::Reject(request, rejection) => {
                    let error = self.rejection(shared, rejection);
                    answer(shared, &mut effects, request, Err(error));
                }
                Action::Pause(id) => effects.rest(shared, id, true),
                Action::Reset(id) => effects.resets.extend(self.reset(shared, id)),
                Action::Stop(id) => effects
                    .stops
                    .extend(shared.slots.remove(&id).map(|slot| (slot, StopReason::NotNeeded))),
            }
        }
        shared.actions = actions;
        self.rearm_timekeeper(shared);
        effects
    }

    fn lease(self: &Arc<Self>, shared: &mut Shared<C>, id: InstanceId, cold: bool) -> Option<Lease<C>> {
        match shared.slots.get_mut(&id) {
            Some(Slot::Ready {
                instance,
                connections,
                ..
            }) => Some(Lease::new(
                self.clone(),
                id,
                instance.clone(),
                connections.pop(),
                cold,
            )),
            Some(Slot::Starting(_)) | None => {
                debug_assert!(false, "the state assigned an instance that is not ready");
                None
            }
        }
    }

    fn reset(&self, shared: &mut Shared<C>, id: InstanceId) -> Option<Reset<C>> {
        match shared.slots.get_mut(&id)? {
            Slot::Ready {
                instance,
                connections,
                ..
            } => Some(Reset {
                id,
                instance: instance.clone(),
                connections: std::mem::take(connections),
            }),
            Slot::Starting(_) => {
                debug_assert!(false, "the state resets an instance that is not ready");
                None
            }
        }
    }

    fn rejection(&self, shared: &mut Shared<C>, rejection: Rejection) -> AcquireError {
        match (rejection, shared.start_error.take()) {
            (Rejection::StartFailed(_), Some(error)) => AcquireError::StartFailed(error),
            (Rejection::QueueFull, _) => AcquireError::QueueFull {
                waiting: shared.state.status().waiting,
            },
            (Rejection::StartFailed(_), None) | (Rejection::Closed, _) => AcquireError::Closed,
        }
    }

    /// What the request has waited for in vain.
    fn too_late(&self, request: RequestId, after: Duration) -> AcquireError {
        let shared = self.lock();
        if shared.state.waits_for_start(request) {
            let awaited = shared.template.awaited();
            AcquireError::NotReady { after, awaited }
        } else {
            AcquireError::NoneFree { after }
        }
    }

    fn rearm_timekeeper(&self, shared: &mut Shared<C>) {
        let Some(next) = shared.state.next_deadline() else {
            return;
        };
        if shared.armed.is_none_or(|armed| next < armed) {
            shared.armed = Some(next);
            self.rearm.notify_one();
        }
    }

    fn start(self: &Arc<Self>, shared: &mut Shared<C>, id: InstanceId) {
        let mut spec = shared.template.clone();
        // Unique across restarts of the daemon too, since logs outlive it.
        spec.instance = format!("{}-{:012x}", spec.function, fastrand::u64(..1 << 48));
        shared.tasks += 1;
        let task = tokio::spawn(live(Task { inner: self.clone() }, id, spec));
        shared.slots.insert(id, Slot::Starting(task.abort_handle()));
    }

    /// A start has succeeded; says whether the instance is still wanted.
    fn instance_ready(self: &Arc<Self>, id: InstanceId, instance: &Arc<dyn Instance>) -> bool {
        let mut shared = self.lock();
        let Some(slot) = shared.slots.get_mut(&id) else {
            return false;
        };
        *slot = Slot::Ready {
            instance: instance.clone(),
            rest: Arc::default(),
            connections: Vec::new(),
            discard_reason: None,
        };
        let effects = self.apply(&mut shared, Input::InstanceReady(id), StopReason::NotNeeded);
        drop(shared);
        effects.carry_out(self);
        true
    }

    fn instance_failed(self: &Arc<Self>, id: InstanceId, error: StartError) {
        let mut shared = self.lock();
        shared.slots.remove(&id);
        shared.start_error = Some(error);
        let effects = self.apply(&mut shared, Input::InstanceFailed(id), StopReason::NotNeeded);
        shared.start_error = None;
        drop(shared);
        effects.carry_out(self);
    }

    fn instance_ended(self: &Arc<Self>, id: InstanceId) {
        let mut shared = self.lock();
        // Dropped after the lock is released: a connection's end may run foreign code.
        let slot = shared.slots.remove(&id);
        let effects = self.apply(&mut shared, Input::InstanceEnded(id), StopReason::NotNeeded);
        drop(shared);
        drop(slot);
        effects.carry_out(self);
    }

    pub(crate) fn invocation_kept(self: &Arc<Self>, id: InstanceId, connection: Option<C>) {
        self.given_back(id, connection, |instance| Input::InvocationEnded {
            instance: id,
            keep: true,
            can_be_reset: instance.is_some_and(|instance| instance.can_be_reset()),
        });
    }

    pub(crate) fn invocation_left_out(self: &Arc<Self>, id: InstanceId, connection: Option<C>) {
        self.given_back(id, connection, |_| Input::Unused(id));
    }

    /// The connection is for whoever is given the instance next, if anybody is.
    fn given_back(
        self: &Arc<Self>,
        id: InstanceId,
        connection: Option<C>,
        input: impl FnOnce(Option<&dyn Instance>) -> Input,
    ) {
        let mut shared = self.lock();
        let mut unwanted = connection;
        let input = match shared.slots.get_mut(&id) {
            Some(Slot::Ready {
                instance,
                connections,
                ..
            }) => {
                connections.extend(unwanted.take());
                input(Some(&**instance))
            }
            Some(Slot::Starting(_)) | None => input(None),
        };
        let effects = self.apply(&mut shared, input, StopReason::NotNeeded);
        drop(shared);
        drop(unwanted);
        effects.carry_out(self);
    }

    pub(crate) fn invocation_discarded(self: &Arc<Self>, id: InstanceId, reason: StopReason) {
        let mut shared = self.lock();
        let input = Input::InvocationEnded {
            instance: id,
            keep: false,
            can_be_reset: false,
        };
        let effects = self.apply(&mut shared, input, reason);
        drop(shared);
        effects.carry_out(self);
    }

    fn stop_in_background(self: &Arc<Self>, instance: Arc<dyn Instance>, rest: &Rest, reason: StopReason) {
        rest.want(false);
        rest.settle(&*instance);
        self.lock().tasks += 1;
        let task = Task { inner: self.clone() };
        tokio::spawn(async move {
            instance.stop(reason).await;
            drop(task);
        });
    }

    fn reset_in_background(self: &Arc<Self>, reset: Reset<C>) {
        self.lock().tasks += 1;
        let task = Task { inner: self.clone() };
        tokio::spawn(async move {
            let outcome = reset.instance.reset().await;
            drop(reset.connections);
            let id = reset.id;
            task.inner.input(match outcome {
                Ok(()) => Input::InstanceReset(id),
                Err(error) => {
                    let instance = reset.instance.id();
                    tracing::debug!(instance, error = %error, "an instance is not reset but stopped");
                    Input::InstanceNotReset(id)
                }
            });
        });
    }

    /// Waits until no task starts, watches, resets or stops an instance.
    async fn until_settled(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.lock().tasks == 0 {
                return;
            }
            settled.await;
        }
    }

    fn log_start_error(&self, instance: String, error: &StartError) {
        tracing::debug!(
            instance,
            error = error as &dyn std::error::Error,
            "an instance could not be started"
        );
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            text = format!("{text}: {source}");
        }
        self.log.write(LogLine {
            instance,
            time: SystemTime::now(),
            source: LogSource::Platform,
            text,
        });
    }
}

fn answer<C: Send + 'static>(
    shared: &mut Shared<C>,
    effects: &mut Effects<C>,
    request: RequestId,
    answer: Answer<C>,
) {
    match shared.waiters.remove(&request) {
        Some(waiter) => effects.answers.push((waiter, answer)),
        None => effects.own = Some(answer),
    }
}

/// Counts a task for as long as it exists, be it finished or aborted.
struct Task<C: Send + 'static> {
    inner: Arc<Inner<C>>,
}

impl<C: Send + 'static> Drop for Task<C> {
    fn drop(&mut self) {
        let mut shared = self.inner.lock();
        shared.tasks -= 1;
        if shared.tasks == 0 {
            self.inner.settled.notify_waiters();
        }
    }
}

/// The task of one instance: starts it, then waits for its end.
async fn live<C: Send + 'static>(task: Task<C>, id: InstanceId, spec: InstanceSpec) {
    let inner = &task.inner;
    let name = spec.instance.clone();
    match inner.sandbox.start(spec, inner.log.clone()).await {
        Err(error) => {
            inner.log_start_error(name, &error);
            inner.instance_failed(id, error);
        }
        Ok(instance) if inner.instance_ready(id, &instance) => {
            let report = instance.ended().await;
            tracing::debug!(instance = name, cause = %report.cause, "an instance has ended");
            inner.instance_ended(id);
        }
        // The start was given up in the moment of its success.
        Ok(instance) => {
            instance.stop(StopReason::NotNeeded).await;
        }
    }
}

/// The task that tells the state that time has passed.
async fn keep_time<C: Send + 'static>(pool: Weak<Inner<C>>, rearm: Arc<Notify>) {
    loop {
        let wake_at = {
            let Some(inner) = pool.upgrade() else { return };
            let mut shared = inner.lock();
            if shared.state.is_closed() {
                return;
            }
            // Awake already: no input needs to wake this task up.
            shared.armed = Some(Duration::ZERO);
            let effects = inner.apply(&mut shared, Input::Tick, StopReason::NotNeeded);
            let next = shared.state.next_deadline();
            shared.armed = next;
            drop(shared);
            effects.carry_out(&inner);
            // One beyond all time is none.
            next.and_then(|next| inner.epoch.checked_add(next))
        };
        match wake_at {
            Some(wake_at) => {
                // Either way the next round looks at the state again.
                let _ = tokio::time::timeout_at(wake_at, rearm.notified()).await;
            }
            None => rearm.notified().await,
        }
    }
}
