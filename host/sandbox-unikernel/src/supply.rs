//! Monitor processes, made ahead of demand.
//!
//! ```text
//!   take ──ready one──> caller          thread: ──spawn──> cgroup ──> ready
//!     └──none ready──> thread ──spawn──> cgroup ──> caller
//!                        ^──── cgroup of an ended instance, to be removed
//! ```
//!
//! A process that waits for its first request has been started, has its namespaces and its empty root, and is in a
//! cgroup of its own. All that takes a few milliseconds, for which nobody waits here.
//!
//! One thread makes all monitors, for as long as there is a supply: the kernel ends a monitor when the thread that
//! started it ends.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use spore_sandbox::StartError;
use tokio::sync::oneshot;

use crate::cgroup::{Group, Groups};
use crate::launch::{self, Launch};
use crate::watched::Watched;

/// How many processes wait.
const READY: usize = 2;
/// The title of one that waits.
const READY_TITLE: &str = "spore-monitor ready";
/// How long the start of an instance has the machine for itself before the next process is made ready.
const REFILL_DELAY: Duration = Duration::from_millis(20);

/// A monitor process in its cgroup.
pub(crate) struct Monitor {
    pub(crate) launch: Launch,
    /// None where this process may make no cgroups.
    pub(crate) group: Option<Group>,
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
    /// Make the supply complete again.
    Refill,
    /// Make one now.
    Make(oneshot::Sender<Result<Monitor, StartError>>),
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
    pub(crate) fn start(groups: Option<Groups>) -> std::io::Result<Self> {
        let ready = Ready::default();
        let (orders, queue) = channel();
        let maker = Maker {
            groups,
            ready: Arc::clone(&ready),
            made: 0,
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

    /// A monitor process that waits for its first request.
    pub(crate) async fn take(&self) -> Result<Monitor, StartError> {
        let ready = self.take_ready();
        if let Some(monitor) = ready {
            self.order(Order::Refill);
            return Ok(monitor);
        }
        let (sender, receiver) = oneshot::channel();
        self.order(Order::Make(sender));
        self.order(Order::Refill);
        receiver.await.unwrap_or_else(|_| {
            let source = std::io::Error::other("the thread that starts monitors is gone");
            Err(StartError::Host {
                what: "starting the monitor process",
                source,
            })
        })
    }

    fn take_ready(&self) -> Option<Monitor> {
        loop {
            let monitor = locked(&self.ready).pop_front()?;
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
    made: u64,
}

impl Maker {
    fn run(mut self, queue: &Receiver<Order>) {
        let mut is_complete = self.refill();
        loop {
            let order = if is_complete {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(REFILL_DELAY)
            };
            match order {
                Ok(Order::Refill) => is_complete = false,
                Ok(Order::Make(answer)) => {
                    // Whoever asked may have given up: then it waits for the next one.
                    if let Err(Ok(monitor)) = answer.send(self.make()) {
                        locked(&self.ready).push_back(monitor);
                    }
                }
                Ok(Order::Remove(group)) => group.remove(),
                Err(RecvTimeoutError::Timeout) => is_complete = self.refill(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ready = std::mem::take(&mut *locked(&self.ready));
        for monitor in ready {
            // Fails only if it is gone already.
            let _ = monitor.launch.process.kill();
            let _ = monitor.launch.process.wait();
            if let Some(group) = monitor.group {
                group.remove();
            }
        }
    }

    /// Makes one process ready; whether there are enough, or no more can be had now.
    fn refill(&mut self) -> bool {
        if locked(&self.ready).len() < READY {
            match self.make() {
                Ok(monitor) => locked(&self.ready).push_back(monitor),
                // Whoever wants one hears of it.
                Err(_) => return true,
            }
        }
        locked(&self.ready).len() >= READY
    }

    fn make(&mut self) -> Result<Monitor, StartError> {
        self.made += 1;
        let Some(groups) = &self.groups else {
            let launch = launch::start(READY_TITLE, None)?;
            return Ok(Monitor { launch, group: None });
        };
        let group = groups
            .make(&self.made.to_string())
            .map_err(launch::host_error("making a cgroup"))?;
        let launch = match group.start_within(|folder| launch::start(READY_TITLE, folder)) {
            Ok(launch) => launch,
            Err(error) => {
                group.remove();
                return Err(error);
            }
        };
        Ok(Monitor {
            launch,
            group: Some(group),
        })
    }
}
