//! Monitor processes, made ahead of demand.
//!
//! ```text
//!   take ──ready one──> caller          thread: ──spawn──> cgroup ──> ready
//!     └──none ready──> thread ──spawn──> cgroup ──> caller
//!                        ^──── cgroup of an ended instance, to be removed
//! ```
//!
//! A process that waits has been started, has its namespaces and its empty root, and is in a cgroup of its own. It is a
//! *shell*: it has an empty virtual machine, with the memory that was asked for last, or an empty guest process, and no
//! rights any more. All that takes some milliseconds, for which nobody waits here. How many wait follows `demand`.
//!
//! One thread makes all monitors, for as long as there is a supply: the kernel ends a monitor when the thread that
//! started it ends.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use spore_monitor::protocol;
use spore_sandbox::{Isolation, StartError};
use tokio::sync::oneshot;

use crate::cgroup::{Group, Groups};
use crate::demand::{Demand, READY_MIN};
use crate::launch::{self, Launch};
use crate::watched::Watched;

/// The title of one that waits.
const READY_TITLE: &str = "spore-monitor ready";
/// How long the start of an instance has the machine for itself before the next process is made ready.
const REFILL_DELAY: Duration = Duration::from_millis(20);
/// How often those are ended that wait in vain.
const SHRINK_PAUSE: Duration = Duration::from_secs(1);

/// What the first ones are made for, before any function has asked: memory in bytes, thousandths of a processor.
const FIRST_WANTED: (u64, u32) = (128 << 20, 1000);

/// A monitor process in its cgroup.
pub(crate) struct Monitor {
    pub(crate) launch: Launch,
    /// None where this process may make no cgroups.
    pub(crate) group: Option<Group>,
    /// What its cgroup is limited to, and what its machine is like.
    pub(crate) made_for: Wanted,
}

/// What a monitor process is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) isolation: Isolation,
    /// Limit of the function's memory.
    pub(crate) memory_bytes: u64,
    /// Thousandths of a processor.
    pub(crate) processor_millis: u32,
}

impl Wanted {
    /// Limits what an instance takes from the host.
    pub(crate) fn limit(&self, group: Option<&Group>) -> Result<(), StartError> {
        let Some(group) = group else { return Ok(()) };
        let memory_bytes = spore_monitor::allowed_bytes(self.memory_bytes);
        let limited = group.limit(memory_bytes, self.processor_millis);
        limited.map_err(launch::host_error("limiting the instance's cgroup"))
    }

    /// How well a shell serves that was made for something else; none if it cannot. It has no rights any more to become one
    /// of the other form.
    fn fit(&self, made_for: &Self) -> Option<u8> {
        match () {
            () if made_for.isolation != self.isolation => None,
            () if made_for == self => Some(2),
            () if made_for.memory_bytes == self.memory_bytes => Some(1),
            () => Some(0),
        }
    }
}

/// A monitor process that has been taken. Dropping it ends the process, then removes its cgroup.
pub(crate) struct Taken {
    pub(crate) process: Watched,
    pub(crate) group: Option<Group>,
    /// The process ends with the supply at the latest.
    pub(crate) supply: Arc<Supply>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.process.end();
        self.supply.remove(self.group.take());
    }
}

enum Order {
    /// One of this kind was taken.
    Refill(Wanted),
    /// Make one now.
    Make(Wanted, oneshot::Sender<Result<Monitor, StartError>>),
    /// The processes of this group are gone.
    Remove(Group),
}

type Ready = Arc<Mutex<VecDeque<Monitor>>>;

/// The supply. Dropping it ends every monitor that it has made.
pub(crate) struct Supply {
    ready: Ready,
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Supply {
    /// A supply whose monitors get cgroups from `groups`.
    pub(crate) fn start(groups: Option<Groups>, isolation: Isolation) -> std::io::Result<Self> {
        let text = spore_monitor::text_file()?;
        let ready = Ready::default();
        let (orders, queue) = channel();
        let maker = Maker {
            groups,
            ready: Arc::clone(&ready),
            text,
            made: 0,
            next: Wanted {
                isolation,
                memory_bytes: FIRST_WANTED.0,
                processor_millis: FIRST_WANTED.1,
            },
            default: isolation,
            shares_namespaces: false,
            demand: Demand::default(),
        };
        let thread = std::thread::Builder::new()
            .name("monitors".into())
            .spawn(move || maker.run(&queue))?;
        Ok(Self {
            ready,
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// A monitor process that waits for its first request, made for this if there is one.
    pub(crate) async fn take(&self, wanted: Wanted) -> Result<Monitor, StartError> {
        let ready = self.take_ready(&wanted);
        if let Some(monitor) = ready {
            self.order(Order::Refill(wanted));
            return Ok(monitor);
        }
        let (sender, receiver) = oneshot::channel();
        self.order(Order::Make(wanted, sender));
        self.order(Order::Refill(wanted));
        receiver.await.unwrap_or_else(|_| {
            let source = std::io::Error::other("the thread that starts monitors is gone");
            Err(StartError::Host {
                what: "starting the monitor process",
                source,
            })
        })
    }

    fn take_ready(&self, wanted: &Wanted) -> Option<Monitor> {
        loop {
            let mut ready = locked(&self.ready);
            let fits = ready.iter().enumerate().rev();
            let fits = fits.filter_map(|(index, monitor)| Some((wanted.fit(&monitor.made_for)?, index)));
            // The last of the best is the one that waits longest.
            let (_, index) = fits.max_by_key(|&(fit, _)| fit)?;
            let monitor = ready.remove(index)?;
            drop(ready);
            // Somebody may have ended it meanwhile.
            if matches!(monitor.launch.process.try_wait(), Ok(None)) {
                return Some(monitor);
            }
            self.remove(monitor.group);
        }
    }

    /// Removes a cgroup whose processes have ended.
    fn remove(&self, group: Option<Group>) {
        if let Some(group) = group {
            self.order(Order::Remove(group));
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only after this.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        // The thread takes the end of its orders for the end of its work.
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn locked(ready: &Ready) -> MutexGuard<'_, VecDeque<Monitor>> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread has.
struct Maker {
    groups: Option<Groups>,
    ready: Ready,
    /// The library OS's code, which all guests share.
    text: OwnedFd,
    made: u64,
    /// What the next ones are made for.
    next: Wanted,
    /// What functions get that ask for nothing in particular.
    default: Isolation,
    /// All monitors are in those namespaces of this thread in which there is nothing.
    shares_namespaces: bool,
    demand: Demand,
}

impl Maker {
    fn run(mut self, queue: &Receiver<Order>) {
        self.shares_namespaces = spore_monitor::process::share_namespaces().is_ok();
        let mut is_complete = self.refill();
        loop {
            let order = if !is_complete {
                queue.recv_timeout(REFILL_DELAY)
            } else if locked(&self.ready).len() > READY_MIN {
                queue.recv_timeout(SHRINK_PAUSE)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match order {
                Ok(Order::Refill(wanted)) => {
                    self.demand.note(Instant::now());
                    // Made ahead is only what most functions ask for.
                    if wanted.isolation == self.default {
                        self.next = wanted;
                    }
                    is_complete = false;
                }
                Ok(Order::Make(wanted, answer)) => {
                    // Whoever asked may have given up: then it waits for the next one.
                    if let Err(Ok(monitor)) = answer.send(self.make(wanted)) {
                        locked(&self.ready).push_back(monitor);
                    }
                }
                Ok(Order::Remove(group)) => group.remove(),
                Err(RecvTimeoutError::Timeout) if is_complete => self.shrink(),
                Err(RecvTimeoutError::Timeout) => is_complete = self.refill(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ready = std::mem::take(&mut *locked(&self.ready));
        ready.into_iter().for_each(end);
    }

    /// Makes one process ready; whether there are enough, or no more can be had now.
    fn refill(&mut self) -> bool {
        let enough = self.demand.ready(Instant::now());
        if locked(&self.ready).len() < enough {
            match self.make(self.next) {
                Ok(monitor) => locked(&self.ready).push_back(monitor),
                // Whoever wants one hears of it.
                Err(_) => return true,
            }
        }
        locked(&self.ready).len() >= enough
    }

    /// Ends those that wait beyond what is needed.
    fn shrink(&mut self) {
        let enough = self.demand.ready(Instant::now());
        let surplus: Vec<_> = {
            let mut ready = locked(&self.ready);
            let count = ready.len().saturating_sub(enough);
            ready.drain(..count).collect()
        };
        surplus.into_iter().for_each(end);
    }

    fn make(&mut self, wanted: Wanted) -> Result<Monitor, StartError> {
        self.made += 1;
        let Some(groups) = &self.groups else {
            let launch = self.start(wanted, None)?;
            return Ok(Monitor {
                launch,
                group: None,
                made_for: wanted,
            });
        };
        let group = groups
            .make(&self.made.to_string())
            .map_err(launch::host_error("making a cgroup"))?;
        let started = wanted
            .limit(Some(&group))
            .and_then(|()| group.start_within(|folder| self.start(wanted, folder)));
        let launch = match started {
            Ok(launch) => launch,
            Err(error) => {
                group.remove();
                return Err(error);
            }
        };
        Ok(Monitor {
            launch,
            group: Some(group),
            made_for: wanted,
        })
    }

    fn start(&self, wanted: Wanted, cgroup: Option<BorrowedFd<'_>>) -> Result<Launch, StartError> {
        let launch = launch::start(READY_TITLE, cgroup, self.shares_namespaces)?;
        let isolation = match wanted.isolation {
            Isolation::VirtualMachine => protocol::Isolation::VirtualMachine,
            Isolation::Process => protocol::Isolation::Process,
        };
        launch.prepare(isolation, wanted.memory_bytes, self.text.as_fd())?;
        Ok(launch)
    }
}

/// Ends a process that nobody wants.
fn end(monitor: Monitor) {
    // Fails only if it is gone already.
    let _ = monitor.launch.process.kill();
    let _ = monitor.launch.process.wait();
    if let Some(group) = monitor.group {
        group.remove();
    }
}
