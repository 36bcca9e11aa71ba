//! In which order invocations run, and how many there may be. Pure: no clock, no lock, no disk.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Bounds of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Invocations of one function that have not been answered, dead ones aside.
    pub messages_per_function: usize,
    /// Dead invocations of one function; the oldest goes for a new one.
    pub dead_per_function: usize,
    /// Bytes of all invocations.
    pub bytes: u64,
    /// Invocations that run at a time.
    pub running: usize,
    /// Those of one function.
    pub running_per_function: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages_per_function: 100_000,
            dead_per_function: 10_000,
            bytes: 4 << 30,
            running: 64,
            running_per_function: 20,
        }
    }
}

/// There is no room for another invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Of this function.
    #[error("{messages} invocations of the function wait already")]
    Function {
        /// How many there are.
        messages: usize,
    },
    /// Of all functions.
    #[error("{bytes} bytes of invocations wait already")]
    Bytes {
        /// How many there are.
        bytes: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not on disk yet.
    Accepting,
    Waiting {
        due_ms: u64,
    },
    Running,
    /// It has run; what follows is not its function's work.
    Finishing,
    /// Another daemon runs it.
    Elsewhere,
    Dead,
}

/// Where an invocation belongs that nobody here runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It waits.
    Waiting {
        /// Until when, in milliseconds since 1970.
        due_ms: u64,
    },
    /// Another daemon runs it: it takes no place here.
    Elsewhere,
    /// It is dead.
    Dead,
}

#[derive(Debug)]
struct Item {
    function: String,
    bytes: u64,
    place: Place,
}

/// The invocations of one function.
#[derive(Debug, Default)]
struct Lane {
    accepting: usize,
    /// By when they are due; those that are due at the same time in the order in which they came.
    waiting: BTreeSet<(u64, u64)>,
    running: usize,
    finishing: usize,
    elsewhere: usize,
    /// The oldest first.
    dead: BTreeSet<u64>,
}

impl Lane {
    fn alive(&self) -> usize {
        self.accepting + self.waiting.len() + self.running + self.finishing + self.elsewhere
    }

    fn is_empty(&self) -> bool {
        self.alive() == 0 && self.dead.is_empty()
    }
}

/// Which invocations there are, and which one runs next. Functions take turns, so that none waits for the many of another.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    items: BTreeMap<u64, Item>,
    lanes: BTreeMap<String, Lane>,
    /// Whose turn it was last.
    last_turn: String,
    running: usize,
    bytes: u64,
}

impl Schedule {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            items: BTreeMap::new(),
            lanes: BTreeMap::new(),
            last_turn: String::new(),
            running: 0,
            bytes: 0,
        }
    }

    fn insert(&mut self, id: u64, function: &str, bytes: u64, place: Place) {
        let Entry::Vacant(vacant) = self.items.entry(id) else {
            debug_assert!(false, "number {id} is taken");
            return;
        };
        let function = function.to_owned();
        vacant.insert(Item {
            function: function.clone(),
            bytes,
            place,
        });
        self.bytes += bytes;
        let lane = self.lanes.entry(function).or_default();
        put(lane, id, place);
    }

    /// Takes room for an invocation that is not on disk yet: it does not run before [`Schedule::accepted`].
    pub fn reserve(&mut self, id: u64, function: &str, bytes: u64) -> Result<(), Full> {
        let messages = self.lanes.get(function).map_or(0, Lane::alive);
        if messages >= self.limits.messages_per_function {
            return Err(Full::Function { messages });
        }
        if self.bytes.saturating_add(bytes) > self.limits.bytes {
            return Err(Full::Bytes { bytes: self.bytes });
        }
        self.insert(id, function, bytes, Place::Accepting);
        Ok(())
    }

    /// It is on disk.
    pub fn accepted(&mut self, id: u64, due_ms: u64) {
        self.change(id, |place| match place {
            Place::Accepting => Place::Waiting { due_ms },
            other => other,
        });
    }

    /// One from an earlier start, whatever the bounds.
    pub fn load(&mut self, id: u64, function: &str, bytes: u64, due_ms: Option<u64>) {
        let place = due_ms.map_or(Place::Dead, |due_ms| Place::Waiting { due_ms });
        self.insert(id, function, bytes, place);
    }

    /// Moves one that is due to the running ones.
    pub fn next(&mut self, now_ms: u64) -> Option<u64> {
        if self.running >= self.limits.running {
            return None;
        }
        let last = self.last_turn.clone();
        let after = (Bound::Excluded(last.as_str()), Bound::Unbounded);
        let later = self.lanes.range::<str, _>(after);
        let earlier = self
            .lanes
            .range::<str, _>((Bound::Unbounded, Bound::Included(last.as_str())));
        let (function, id) = later.chain(earlier).find_map(|(function, lane)| {
            let (due_ms, id) = lane.waiting.first()?;
            let may_run = *due_ms <= now_ms && lane.running < self.limits.running_per_function;
            may_run.then(|| (function.clone(), *id))
        })?;
        self.last_turn = function;
        self.change(id, |_| Place::Running);
        Some(id)
    }

    /// When [`Schedule::next`] may have one if nothing else happens; none if only something else helps.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.running >= self.limits.running {
            return None;
        }
        let lanes = self.lanes.values();
        let may_run = lanes.filter(|lane| lane.running < self.limits.running_per_function);
        may_run.filter_map(|lane| Some(lane.waiting.first()?.0)).min()
    }

    /// A running one has been answered: another one may run, while it is being finished.
    pub fn release(&mut self, id: u64) {
        self.change(id, |place| match place {
            Place::Running => Place::Finishing,
            other => other,
        });
    }

    /// A running one waits again.
    pub fn again(&mut self, id: u64, due_ms: u64) {
        self.change(id, |place| match place {
            Place::Running | Place::Finishing => Place::Waiting { due_ms },
            other => other,
        });
    }

    /// A running one has failed for good. Says which dead ones of its function are one too many.
    pub fn bury(&mut self, id: u64) -> Vec<u64> {
        self.change(id, |place| match place {
            Place::Running | Place::Finishing => Place::Dead,
            other => other,
        });
        let lane = self
            .items
            .get(&id)
            .and_then(|item| self.lanes.get(&item.function));
        let excess = lane.map_or(0, |lane| {
            lane.dead.len().saturating_sub(self.limits.dead_per_function)
        });
        lane.map_or_else(Vec::new, |lane| lane.dead.iter().take(excess).copied().collect())
    }

    /// One that is on disk belongs here, whatever was thought of it before.
    pub fn settle(&mut self, id: u64, settled: Settled) {
        self.change(id, |_| match settled {
            Settled::Waiting { due_ms } => Place::Waiting { due_ms },
            Settled::Elsewhere => Place::Elsewhere,
            Settled::Dead => Place::Dead,
        });
    }

    /// A dead or waiting one is due now; says whether it was one.
    pub fn hasten(&mut self, id: u64, now_ms: u64) -> bool {
        let mut is_due = false;
        self.change(id, |place| match place {
            Place::Waiting { .. } | Place::Dead => {
                is_due = true;
                Place::Waiting { due_ms: now_ms }
            }
            other => other,
        });
        is_due
    }

    /// It is gone.
    pub fn remove(&mut self, id: u64) {
        let Some(item) = self.items.remove(&id) else {
            return;
        };
        self.bytes -= item.bytes;
        if item.place == Place::Running {
            self.running -= 1;
        }
        if let Some(lane) = self.lanes.get_mut(&item.function) {
            take(lane, id, item.place);
            if lane.is_empty() {
                self.lanes.remove(&item.function);
            }
        }
    }

    /// Whether it is there.
    #[must_use]
    pub fn knows(&self, id: u64) -> bool {
        self.items.contains_key(&id)
    }

    /// Whether it is running, or being finished, here or elsewhere.
    #[must_use]
    pub fn is_running(&self, id: u64) -> bool {
        let item = self.items.get(&id);
        item.is_some_and(|item| matches!(item.place, Place::Running | Place::Finishing | Place::Elsewhere))
    }

    /// Whether it is dead.
    #[must_use]
    pub fn is_dead(&self, id: u64) -> bool {
        self.items.get(&id).is_some_and(|item| item.place == Place::Dead)
    }

    /// How many of a function there are: waiting or being accepted, running, dead.
    #[must_use]
    pub fn counts(&self, function: &str) -> (usize, usize, usize) {
        let lane = self.lanes.get(function);
        lane.map_or((0, 0, 0), |lane| {
            (
                lane.accepting + lane.waiting.len(),
                lane.running + lane.finishing + lane.elsewhere,
                lane.dead.len(),
            )
        })
    }

    fn change(&mut self, id: u64, change: impl FnOnce(Place) -> Place) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        let before = item.place;
        item.place = change(before);
        let after = item.place;
        if let Some(lane) = self.lanes.get_mut(&item.function) {
            take(lane, id, before);
            put(lane, id, after);
        }
        self.running -= usize::from(before == Place::Running);
        self.running += usize::from(after == Place::Running);
    }
}

fn put(lane: &mut Lane, id: u64, place: Place) {
    match place {
        Place::Accepting => lane.accepting += 1,
        Place::Waiting { due_ms } => drop(lane.waiting.insert((due_ms, id))),
        Place::Running => lane.running += 1,
        Place::Finishing => lane.finishing += 1,
        Place::Elsewhere => lane.elsewhere += 1,
        Place::Dead => drop(lane.dead.insert(id)),
    }
}

fn take(lane: &mut Lane, id: u64, place: Place) {
    match place {
        Place::Accepting => lane.accepting -= 1,
        Place::Waiting { due_ms } => drop(lane.waiting.remove(&(due_ms, id))),
        Place::Running => lane.running -= 1,
        Place::Finishing => lane.finishing -= 1,
        Place::Elsewhere => lane.elsewhere -= 1,
        Place::Dead => drop(lane.dead.remove(&id)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn small() -> Limits {
        Limits {
            messages_per_function: 4,
            dead_per_function: 2,
            bytes: 100,
            running: 3,
            running_per_function: 2,
        }
    }

    #[test]
    fn functions_take_turns() {
        let mut schedule = Schedule::new(Limits {
            messages_per_function: 100,
            ..small()
        });
        for id in 0..20 {
            schedule.load(id, "many", 1, Some(0));
        }
        schedule.load(20, "few", 1, Some(0));
        let mut order = Vec::new();
        for _ in 0..3 {
            order.extend(schedule.next(0));
        }
        assert!(order.contains(&20), "{order:?}");
        assert_eq!(schedule.next(0), None, "three run");
    }

    #[test]
    fn bounds_are_kept_and_the_oldest_dead_goes() {
        let mut schedule = Schedule::new(small());
        for id in 0..4 {
            assert_eq!(schedule.reserve(id, "a", 20), Ok(()));
            schedule.accepted(id, 0);
        }
        assert_eq!(schedule.reserve(4, "a", 1), Err(Full::Function { messages: 4 }));
        assert_eq!(schedule.reserve(4, "b", 21), Err(Full::Bytes { bytes: 80 }));
        for id in 0..3 {
            assert_eq!(schedule.next(0), Some(id));
            let excess = schedule.bury(id);
            assert_eq!(excess, if id == 2 { vec![0] } else { vec![] });
            excess.into_iter().for_each(|id| schedule.remove(id));
        }
        assert_eq!(schedule.counts("a"), (1, 0, 2));
        assert!(schedule.hasten(2, 5) && schedule.counts("a") == (2, 0, 1));
        assert_eq!(
            (schedule.next_due_ms(), schedule.next(5), schedule.next(4)),
            (Some(0), Some(3), None)
        );
    }

    #[test]
    fn one_that_is_being_finished_makes_room() {
        let mut schedule = Schedule::new(small());
        for id in 0..4 {
            schedule.load(id, "a", 1, Some(0));
        }
        assert_eq!(
            (schedule.next(0), schedule.next(0), schedule.next(0)),
            (Some(0), Some(1), None)
        );
        schedule.release(0);
        assert_eq!((schedule.next(0), schedule.counts("a")), (Some(2), (1, 3, 0)));
        assert_eq!(schedule.reserve(4, "a", 1), Err(Full::Function { messages: 4 }));
        schedule.again(0, 9);
        schedule.remove(1);
        assert_eq!((schedule.next(0), schedule.counts("a")), (Some(3), (1, 2, 0)));
    }

    #[test]
    fn what_others_run_takes_no_place_here() {
        let mut schedule = Schedule::new(small());
        for id in 0..4 {
            schedule.load(id, "a", 1, Some(0));
        }
        schedule.settle(0, Settled::Elsewhere);
        schedule.settle(1, Settled::Elsewhere);
        assert!(schedule.is_running(0) && schedule.counts("a") == (2, 2, 0));
        assert_eq!((schedule.next(0), schedule.next(0)), (Some(2), Some(3)));
        assert_eq!(schedule.reserve(4, "a", 1), Err(Full::Function { messages: 4 }));
        schedule.settle(0, Settled::Waiting { due_ms: 7 });
        schedule.settle(1, Settled::Dead);
        // It was taken over while it ran here.
        schedule.settle(2, Settled::Elsewhere);
        assert_eq!((schedule.counts("a"), schedule.is_dead(1)), ((1, 2, 1), true));
        assert_eq!((schedule.next(6), schedule.next(7)), (None, Some(0)));
    }

    #[test]
    fn nothing_runs_before_it_is_on_disk_or_due() {
        let mut schedule = Schedule::new(small());
        schedule.reserve(1, "a", 1).expect("there is room");
        assert_eq!((schedule.next(100), schedule.next_due_ms()), (None, None));
        schedule.accepted(1, 10);
        assert_eq!((schedule.next(9), schedule.next_due_ms()), (None, Some(10)));
        assert_eq!(schedule.next(10), Some(1));
        schedule.again(1, 20);
        assert_eq!((schedule.next(19), schedule.next(20)), (None, Some(1)));
    }

    proptest! {
        /// Whatever happens, the bounds hold, the books agree with a plain count, and everything comes to its end.
        #[test]
        fn the_books_agree(steps in prop::collection::vec((0u8..8, 0u64..6, 0u64..40), 0..200)) {
            let limits = small();
            let mut schedule = Schedule::new(limits);
            let mut known: HashMap<u64, (String, u64)> = HashMap::new();
            let mut running = Vec::new();
            let mut next_id = 0;
            for (now_ms, (step, which, amount)) in (0u64..).zip(steps) {
                match step {
                    0 | 1 => {
                        let function = format!("f{}", which % 3);
                        if schedule.reserve(next_id, &function, amount).is_ok() {
                            known.insert(next_id, (function, amount));
                            schedule.accepted(next_id, now_ms + amount);
                        }
                        next_id += 1;
                    }
                    2 | 3 => running.extend(schedule.next(now_ms)),
                    4 => if let Some(id) = running.pop() { schedule.again(id, now_ms + amount) },
                    5 => if let Some(id) = running.pop() {
                        for id in schedule.bury(id) {
                            schedule.remove(id);
                            known.remove(&id);
                        }
                    },
                    6 => if !running.is_empty() {
                        let id = running.remove(which as usize % running.len());
                        schedule.remove(id);
                        known.remove(&id);
                    },
                    _ => drop(schedule.hasten(which, now_ms)),
                }
                prop_assert!(running.iter().all(|id| schedule.is_running(*id)));
                prop_assert!(running.len() <= limits.running);
                prop_assert_eq!(schedule.running, running.len());
                prop_assert_eq!(schedule.bytes, known.values().map(|(_, bytes)| bytes).sum::<u64>());
                prop_assert!(schedule.bytes <= limits.bytes);
                for function in ["f0", "f1", "f2"] {
                    let (waiting, running, dead) = schedule.counts(function);
                    prop_assert_eq!(waiting + running + dead, known.values().filter(|(of, _)| of == function).count());
                    prop_assert!(running <= limits.running_per_function && dead <= limits.dead_per_function);
                }
            }
            for id in running.drain(..) {
                schedule.remove(id);
                known.remove(&id);
            }
            while let Some(id) = schedule.next(u64::MAX) {
                schedule.remove(id);
                known.remove(&id);
            }
            let dead: usize = ["f0", "f1", "f2"].map(|function| schedule.counts(function).2).iter().sum();
            prop_assert_eq!(known.len(), dead, "all that is left is dead");
        }
    }
}
