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
//! Where they come from, `source` has. One thread makes all monitors, for as long as there is a supply: the kernel ends a monitor when the thread that
//! started it ends.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Resource, getrlimit};
use spore_monitor::jail::Layer;
use spore_monitor::{Processor, protocol};
use spore_sandbox::{Isolation, StartError};
use tokio::sync::oneshot;

use crate::demand::{Demand, Next, READY_MAX, Waiting};
use crate::launch::{self, Launch};
use crate::room::Room;
use crate::source::{Needs, Source};
use crate::turns::Turn;
use crate::watched::Watched;
use spore_cgroups::{Group, Groups};

/// Processes (and threads) of an instance: its monitor, and room for a helper of another kind of instance.
const PROCESSES_MAX: u32 = 4;
/// The title of one that waits.
const READY_TITLE: &str = "spore-monitor ready";
/// Which part of the machine's memory may be stock of processes that wait: one of so many.
const STOCK_SHARE: u64 = 256;

/// What the first ones are made for, before any function has asked: memory in bytes, thousandths of a processor.
const FIRST_WANTED: (u64, u32) = (128 << 20, 1000);

/// A monitor process in its cgroup.
pub(crate) struct Monitor {
    pub(crate) launch: Launch,
    /// None where this process may make no cgroups.
    pub(crate) group: Option<Group>,
    /// What its cgroup is limited to, and what its machine is like.
    pub(crate) made_for: Wanted,
    stock: Stock,
    /// Made for nobody in particular.
    is_spare: bool,
}

/// What a shell has ahead. All copies of a snapshot have one.
pub(crate) type Stock = Arc<protocol::Stock>;

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

/// How well a shell with this stock serves a copy that has use for that one. What it has no use for is given back, and that takes
/// time.
fn stock_fit(stock: &Stock, wanted: &Stock) -> u8 {
    match () {
        () if Arc::ptr_eq(stock, wanted) => 2,
        () if stock.is_empty() => 1,
        () => 0,
    }
}

/// A monitor process that has been taken. Dropping it ends the process, then removes its cgroup.
pub(crate) struct Taken {
    pub(crate) process: Watched,
    pub(crate) group: Option<Group>,
    /// The process ends with the supply at the latest.
    pub(crate) supply: Arc<Supply>,
    /// Until the first answer.
    pub(crate) turn: Option<Turn>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.process.end();
        self.supply.remove(self.group.take());
    }
}

enum Order {
    /// One of this kind was taken, for a copy that writes to these stretches of its memory, as far as that is known.
    Refill(Wanted, Stock),
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
    /// Whether what it makes may have more than it needs.
    pub(crate) room: Arc<Room>,
}

impl Supply {
    /// A supply whose monitors get cgroups from `groups`.
    /// `layers` are those that a trial has found.
    pub(crate) fn start(
        groups: Option<Groups>,
        isolation: Isolation,
        layers: Vec<Layer>,
    ) -> std::io::Result<Self> {
        let text = spore_monitor::text_file()?;
        let ready = Ready::default();
        let (orders, queue) = channel();
        let room = Arc::new(Room::new());
        let memory_bytes = room.memory_bytes();
        let descriptors = getrlimit(Resource::Nofile).current;
        let maker = Maker {
            room: Arc::clone(&room),
            groups,
            ready: Arc::clone(&ready),
            text,
            processor: OnceCell::new(),
            made: 0,
            next: Wanted {
                isolation,
                memory_bytes: FIRST_WANTED.0,
                processor_millis: FIRST_WANTED.1,
            },
            stock: Stock::default(),
            asked: VecDeque::new(),
            default: isolation,
            demand: Demand::new(memory_bytes, descriptors.unwrap_or(u64::MAX)),
            stock_bytes_max: memory_bytes / STOCK_SHARE,
        };
        let thread = std::thread::Builder::new()
            .name("monitors".into())
            .spawn(move || {
                let needs = Needs {
                    layers,
                    kvm: isolation == Isolation::VirtualMachine,
                };
                maker.run(Source::of_this_thread(needs), &queue);
            })?;
        Ok(Self {
            ready,
            orders: Some(orders),
            thread: Some(thread),
            room,
        })
    }

    /// A monitor process that waits for its first request, made for this, and with this stock, if there is one. Whoever takes one
    /// has called [`Supply::refill`] before.
    pub(crate) async fn take(&self, wanted: Wanted, stock: &Stock) -> Result<Monitor, StartError> {
        if let Some(monitor) = self.take_ready(&wanted, stock) {
            return Ok(monitor);
        }
        let (sender, receiver) = oneshot::channel();
        self.order(Order::Make(wanted, sender));
        receiver.await.unwrap_or_else(|_| {
            let source = std::io::Error::other("the thread that starts monitors is gone");
            Err(StartError::Host {
                what: "starting the monitor process",
                source,
            })
        })
    }

    /// Another one is made in place of the one that is about to be taken, when this is dropped: when that one has got its first
    /// request, since to wake the thread takes time that its caller waits for; and whatever comes of it. The next one is
    /// likely to be wanted for the same: `stock` is what its guest will need.
    pub(crate) fn refill(&self, wanted: Wanted, stock: Stock) -> Refill<'_> {
        Refill {
            supply: self,
            order: Some(Order::Refill(wanted, stock)),
        }
    }

    fn take_ready(&self, wanted: &Wanted, stock: &Stock) -> Option<Monitor> {
        loop {
            let mut ready = locked(&self.ready);
            let fits = ready.iter().enumerate().rev();
            let fits = fits.filter_map(|(index, monitor)| {
                let fit = wanted.fit(&monitor.made_for)?;
                Some(((fit, stock_fit(&monitor.stock, stock)), index))
            });
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

/// See [`Supply::refill`].
#[must_use]
pub(crate) struct Refill<'a> {
    supply: &'a Supply,
    order: Option<Order>,
}

impl Drop for Refill<'_> {
    fn drop(&mut self) {
        if let Some(order) = self.order.take() {
            self.supply.order(order);
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
    room: Arc<Room>,
    groups: Option<Groups>,
    ready: Ready,
    /// The library OS's code, which all guests share.
    text: OwnedFd,
    /// The processor of virtual machines, read when it is first wanted; none if it cannot be.
    processor: OnceCell<Option<Processor>>,
    made: u64,
    /// What the next ones are made for.
    next: Wanted,
    /// What their guests will likely need.
    stock: Stock,
    /// What shells were taken for that have not been made again yet.
    asked: VecDeque<(Wanted, Stock)>,
    /// What functions get that ask for nothing in particular.
    default: Isolation,
    demand: Demand,
    /// How much stock there may be in all that wait.
    stock_bytes_max: u64,
}

impl Maker {
    fn run(mut self, mut source: Source, queue: &Receiver<Order>) {
        // No more can be had, until one is taken again.
        let mut is_exhausted = false;
        loop {
            let next = self.next(is_exhausted);
            let order = match next {
                Next::Make(pause) | Next::MakeSpare(pause) | Next::Look(pause) => queue.recv_timeout(pause),
                Next::Wait => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Refill(wanted, stock)) => {
                    self.demand.note(Instant::now());
                    self.room.look();
                    // Made ahead is only what most functions ask for.
                    if wanted.isolation == self.default {
                        self.next = wanted;
                        self.stock = Arc::clone(&stock);
                        self.asked.push_back((wanted, stock));
                        if self.asked.len() > READY_MAX {
                            self.asked.pop_front();
                        }
                    }
                    is_exhausted = false;
                }
                Ok(Order::Make(wanted, answer)) => {
                    // Whoever asked may have given up: then it waits for the next one.
                    if let Err(Ok(monitor)) = answer.send(self.make(&mut source, wanted, Stock::default())) {
                        locked(&self.ready).push_back(monitor);
                    }
                }
                Ok(Order::Remove(group)) => group.remove(),
                Err(RecvTimeoutError::Timeout) => {
                    // Whoever wants one hears why there is none.
                    match next {
                        Next::Make(_) => is_exhausted = self.make_ready(&mut source).is_err(),
                        Next::MakeSpare(_) => is_exhausted = self.make_spare(&mut source).is_err(),
                        Next::Look(_) | Next::Wait => self.shrink(),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ready = std::mem::take(&mut *locked(&self.ready));
        ready.into_iter().for_each(end);
    }

    /// What is next while no order comes.
    fn next(&mut self, is_exhausted: bool) -> Next {
        let (waiting, is_plenty) = (self.waiting(), self.room.is_plenty());
        self.demand.next(waiting, Instant::now(), is_plenty, is_exhausted)
    }

    fn waiting(&self) -> Waiting {
        let ready = locked(&self.ready);
        let spare = ready.iter().filter(|monitor| monitor.is_spare).count();
        Waiting {
            needed: ready.len() - spare,
            spare,
        }
    }

    /// Makes one process ready for whoever comes.
    fn make_spare(&mut self, source: &mut Source) -> Result<(), StartError> {
        let monitor = self.make(source, self.next, Stock::default())?;
        locked(&self.ready).push_back(Monitor {
            is_spare: true,
            ..monitor
        });
        Ok(())
    }

    /// Makes one process ready for what was asked for.
    fn make_ready(&mut self, source: &mut Source) -> Result<(), StartError> {
        let asked = self.asked.pop_front();
        let (wanted, mut stock) = asked.unwrap_or_else(|| (self.next, Arc::clone(&self.stock)));
        let waiting_bytes: u64 = locked(&self.ready)
            .iter()
            .map(|monitor| monitor.stock.bytes())
            .sum();
        if waiting_bytes.saturating_add(stock.bytes()) > self.stock_bytes_max {
            stock = Stock::default();
        }
        let monitor = self.make(source, wanted, stock)?;
        locked(&self.ready).push_back(monitor);
        Ok(())
    }

    /// Ends those that wait beyond what is needed.
    fn shrink(&mut self) {
        let enough = self.demand.enough(Instant::now(), self.room.is_plenty());
        let waiting = self.waiting();
        let mut needed = waiting.needed.saturating_sub(enough.needed);
        let mut spare = waiting.spare.saturating_sub(enough.spare);
        let mut surplus = Vec::new();
        let mut ready = locked(&self.ready);
        for monitor in std::mem::take(&mut *ready) {
            let left = if monitor.is_spare { &mut spare } else { &mut needed };
            if *left > 0 {
                *left -= 1;
                surplus.push(monitor);
            } else {
                ready.push_back(monitor);
            }
        }
        drop(ready);
        surplus.into_iter().for_each(end);
    }

    /// Makes one. One with a stock takes longer, so only those have one that nobody waits for.
    fn make(&mut self, source: &mut Source, wanted: Wanted, stock: Stock) -> Result<Monitor, StartError> {
        self.made += 1;
        let groups = self.groups.as_ref();
        let group = groups
            .map(|groups| groups.make(&self.made.to_string(), PROCESSES_MAX))
            .transpose()
            .map_err(launch::host_error("making a cgroup"))?;
        let started = wanted
            .limit(group.as_ref())
            .and_then(|()| self.start(source, wanted, &stock, group.as_ref()));
        match started {
            Ok(launch) => Ok(Monitor {
                launch,
                group,
                made_for: wanted,
                stock,
                is_spare: false,
            }),
            Err(error) => {
                if let Some(group) = group {
                    group.remove();
                }
                Err(error)
            }
        }
    }

    fn start(
        &self,
        source: &mut Source,
        wanted: Wanted,
        stock: &Stock,
        group: Option<&Group>,
    ) -> Result<Launch, StartError> {
        let launch = source.start(READY_TITLE, group)?;
        let isolation = match wanted.isolation {
            Isolation::VirtualMachine => protocol::Isolation::VirtualMachine,
            Isolation::Process => protocol::Isolation::Process,
        };
        // A monitor that is told nothing asks for itself, and says what is wrong.
        let processor = match isolation {
            protocol::Isolation::VirtualMachine => {
                self.processor.get_or_init(|| Processor::read().ok()).clone()
            }
            protocol::Isolation::Process => None,
        };
        let prepared = launch.prepare(
            isolation,
            wanted.memory_bytes,
            processor,
            stock,
            self.text.as_fd(),
        );
        match prepared {
            Ok(()) => Ok(launch),
            Err(error) => {
                launch.end();
                Err(error)
            }
        }
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
