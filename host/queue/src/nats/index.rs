//! What this daemon knows of the queue that it shares. Pure: no clock, no lock, no server.
//!
//! ```text
//!   a call in the stream ──> known ──┬─ nobody runs it: waits, or is dead, as its state says
//!                                    ├─ held: it runs here, whatever the stream says meanwhile
//!                                    └─ another daemon runs it: elsewhere, until that daemon says something else
//!                                       or has not been heard of for LEASE
//! ```
//!
//! The stream decides: a daemon may run an invocation once its claim is the newest state of it, which the server grants to one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::{Call, Record};
use crate::message::State;
use crate::schedule::{Full, Limits, Schedule, Settled};

/// How long a daemon is silent before what it runs is taken over.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// Head start of the daemon that has accepted an invocation, in milliseconds: others do not dispute it for nothing.
const HEAD_START_MS: u64 = 500;
/// States without an invocation that are noted in a round, at most.
const ORPHANS_MAX: usize = 10_000;

/// The time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Milliseconds since 1970.
    pub(super) ms: u64,
}

/// This daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Me {
    /// Stays the same at each start.
    pub(super) daemon: String,
    /// Is another one at each start.
    pub(super) start: String,
}

#[derive(Debug)]
struct Item {
    key: Arc<str>,
    call_id: Arc<str>,
    function: Arc<str>,
    /// Number of the call in the stream; none while it is being accepted.
    call_sequence: Option<u64>,
    /// Number of its state in the stream; 0 if there is none.
    state_sequence: u64,
    record: Record,
    /// It is being claimed or runs here.
    is_held: bool,
    /// In which reading of the stream it was seen last.
    round: u64,
}

/// An invocation that is about to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: u64,
    pub(super) key: Arc<str>,
    pub(super) function: Arc<str>,
    pub(super) call_sequence: u64,
    pub(super) state_sequence: u64,
    pub(super) record: Record,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Index {
    me: Me,
    schedule: Schedule,
    items: HashMap<u64, Item>,
    ids: HashMap<Arc<str>, u64>,
    by_call_id: BTreeSet<(Arc<str>, u64)>,
    next_id: u64,
    elsewhere: BTreeSet<u64>,
    /// When each daemon that runs something was heard of last.
    heard: HashMap<String, Instant>,
    round: u64,
    is_reading: bool,
    orphans: Vec<u64>,
}

impl Index {
    pub(super) fn new(me: Me, limits: Limits) -> Self {
        Self {
            me,
            schedule: Schedule::new(limits),
            items: HashMap::new(),
            ids: HashMap::new(),
            by_call_id: BTreeSet::new(),
            next_id: 0,
            elsewhere: BTreeSet::new(),
            heard: HashMap::new(),
            round: 0,
            is_reading: false,
            orphans: Vec::new(),
        }
    }

    fn insert(&mut self, id: u64, key: &str, call: &Call, call_sequence: Option<u64>) {
        let key: Arc<str> = key.into();
        let item = Item {
            key: key.clone(),
            call_id: call.message.call_id.as_str().into(),
            function: call.message.function.as_str().into(),
            call_sequence,
            state_sequence: 0,
            record: Record::of(call),
            is_held: false,
            round: self.round,
        };
        self.ids.insert(key, id);
        self.items.insert(id, item);
        self.next_id = self.next_id.max(id + 1);
    }

    /// Takes room for an invocation that is not in the stream yet.
    pub(super) fn reserve(&mut self, key: &str, call: &Call) -> Result<u64, Full> {
        let id = self.next_id;
        let message = &call.message;
        self.schedule
            .reserve(id, &message.function, message.weight_bytes())?;
        self.insert(id, key, call, None);
        Ok(id)
    }

    /// It is in the stream.
    pub(super) fn accepted(&mut self, id: u64, sequence: u64, now: Now) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        item.call_sequence = Some(sequence);
        self.by_call_id.insert((item.call_id.clone(), id));
        self.settle(id, now);
    }

    /// Nobody has said that it is in the stream; says whether it was seen there all the same.
    pub(super) fn refused(&mut self, id: u64) -> bool {
        let is_there = self
            .items
            .get(&id)
            .is_some_and(|item| item.call_sequence.is_some());
        if !is_there {
            self.remove(id);
        }
        is_there
    }

    /// The stream has this call.
    pub(super) fn call(&mut self, key: &str, sequence: u64, call: &Call, now: Now) {
        match self.ids.get(key).copied() {
            Some(id) => {
                let round = self.round;
                let Some(item) = self.items.get_mut(&id) else {
                    return;
                };
                item.round = round;
                // One that was written again, by whoever, is where the newest is.
                if item.call_sequence.is_none_or(|known| known < sequence) {
                    self.accepted(id, sequence, now);
                }
            }
            None => {
                let (id, message) = (self.next_id, &call.message);
                self.schedule
                    .load(id, &message.function, message.weight_bytes(), Some(now.ms));
                self.insert(id, key, call, Some(sequence));
                self.accepted(id, sequence, now);
            }
        }
    }

    /// The stream has this state.
    pub(super) fn state(&mut self, key: &str, sequence: u64, record: Record, now: Now) {
        let Some(id) = self.ids.get(key).copied() else {
            if self.is_reading && self.orphans.len() < ORPHANS_MAX {
                self.orphans.push(sequence);
            }
            return;
        };
        self.written(id, sequence, record);
        self.settle(id, now);
    }

    /// A state was written; an older one than is known changes nothing.
    pub(super) fn written(&mut self, id: u64, sequence: u64, record: Record) {
        if let Some(item) = self
            .items
            .get_mut(&id)
            .filter(|item| item.state_sequence < sequence)
        {
            item.state_sequence = sequence;
            item.record = record;
        }
    }

    /// It was answered or dropped, as another daemon says.
    pub(super) fn gone(&mut self, key: &str) {
        if let Some(id) = self.ids.get(key).copied() {
            self.remove(id);
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.schedule.remove(id);
        self.elsewhere.remove(&id);
        if let Some(item) = self.items.remove(&id) {
            self.ids.remove(&item.key);
            self.by_call_id.remove(&(item.call_id, id));
        }
    }

    /// A daemon is there.
    pub(super) fn beat(&mut self, daemon: &str, now: Now) {
        if let Some(heard) = self.heard.get_mut(daemon) {
            *heard = now.instant;
        }
    }

    /// Daemons could not be heard until now.
    pub(super) fn listen_anew(&mut self, now: Now) {
        self.heard.values_mut().for_each(|heard| *heard = now.instant);
    }

    /// Takes over what silent daemons run. Says whether there was anything.
    pub(super) fn expire(&mut self, now: Now) -> bool {
        let before = self.elsewhere.len();
        for id in self.elsewhere.clone() {
            self.settle(id, now);
        }
        let elsewhere = &self.elsewhere;
        let holders: BTreeSet<&str> = elsewhere
            .iter()
            .filter_map(|id| Some(self.items.get(id)?.record.by.as_str()))
            .collect();
        self.heard
            .retain(|daemon, heard| holders.contains(daemon.as_str()) || is_fresh(*heard, now));
        elsewhere.len() < before
    }

    /// Puts it where it belongs, unless it is held.
    fn settle(&mut self, id: u64, now: Now) {
        let Some(item) = self.items.get(&id) else { return };
        if item.is_held || item.call_sequence.is_none() {
            return;
        }
        let record = &item.record;
        let is_ours = record.by == self.me.daemon;
        let is_elsewhere = record.lease.is_some() && !is_ours && {
            let heard = self.heard.entry(record.by.clone()).or_insert(now.instant);
            is_fresh(*heard, now)
        };
        let settled = match record.state {
            _ if is_elsewhere => Settled::Elsewhere,
            // Daemons that look at the same ones take them in another order.
            State::Waiting { due_ms } if !is_ours => Settled::Waiting {
                due_ms: due_ms
                    .max(now.ms)
                    .saturating_add(HEAD_START_MS + spread(&self.me, &item.key)),
            },
            State::Waiting { due_ms } => Settled::Waiting { due_ms },
            State::Dead => Settled::Dead,
        };
        self.schedule.settle(id, settled);
        if is_elsewhere {
            self.elsewhere.insert(id);
        } else {
            self.elsewhere.remove(&id);
        }
    }

    /// One that may run here; it is held from now on.
    pub(super) fn next(&mut self, now: Now, is_deployed: impl Fn(&str) -> bool) -> Option<Claim> {
        loop {
            let id = self.schedule.next(now.ms)?;
            let Some(item) = self.items.get_mut(&id) else {
                // There is none without an item.
                self.schedule.remove(id);
                continue;
            };
            if item.record.by != self.me.daemon && !is_deployed(&item.function) {
                // Left to who knows its function.
                self.schedule
                    .again(id, now.ms.saturating_add(LEASE.as_millis() as u64));
                continue;
            }
            item.is_held = true;
            return Some(Claim {
                id,
                key: item.key.clone(),
                function: item.function.clone(),
                call_sequence: item.call_sequence.unwrap_or_default(),
                state_sequence: item.state_sequence,
                record: item.record.clone(),
            });
        }
    }

    /// When [`Index::next`] may have one if nothing else happens.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.schedule.next_due_ms()
    }

    /// What follows does not concern its function.
    pub(super) fn release(&mut self, id: u64) {
        self.schedule.release(id);
    }

    /// It is not held any more, and waits until then.
    pub(super) fn again(&mut self, id: u64, due_ms: u64) {
        if let Some(item) = self.items.get_mut(&id) {
            item.is_held = false;
            self.schedule.again(id, due_ms);
        }
    }

    /// It is not held any more: it is what its state says. Says which dead ones of its function are one too many.
    pub(super) fn free(&mut self, id: u64, now: Now) -> Vec<u64> {
        let Some(item) = self.items.get_mut(&id) else {
            return Vec::new();
        };
        item.is_held = false;
        let is_dead = item.record.state == State::Dead;
        self.settle(id, now);
        if is_dead {
            self.schedule.bury(id)
        } else {
            Vec::new()
        }
    }

    /// Another daemon has claimed it, or changed it, after the state with this number.
    pub(super) fn lost(&mut self, id: u64, state_sequence: u64, now: Now) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        item.is_held = false;
        if item.state_sequence <= state_sequence {
            // Who it was is read in the stream in a moment.
            item.record.by = String::new();
            item.record.lease = Some(String::new());
            self.heard.insert(String::new(), now.instant);
        }
        self.settle(id, now);
    }

    /// A reading of the whole stream begins.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
        self.is_reading = true;
        self.orphans.clear();
    }

    /// The stream was read: what it had not is gone. Says how many that were, and the numbers of states without a call.
    pub(super) fn end_round(&mut self) -> (usize, Vec<u64>) {
        self.is_reading = false;
        let is_gone = |item: &Item| item.round < self.round && item.call_sequence.is_some();
        let items = self.items.iter();
        let gone: Vec<u64> = items
            .filter(|(_, item)| is_gone(item))
            .map(|(id, _)| *id)
            .collect();
        gone.iter().for_each(|id| self.remove(*id));
        (gone.len(), std::mem::take(&mut self.orphans))
    }

    /// Numbers of the invocations with this call ID.
    pub(super) fn numbers(&self, call_id: &str) -> Vec<u64> {
        let wanted: Arc<str> = call_id.into();
        let range = self.by_call_id.range((wanted.clone(), 0)..=(wanted, u64::MAX));
        range.map(|(_, id)| *id).collect()
    }

    /// All about one that is in the stream, and whether it runs anywhere.
    pub(super) fn look(&self, id: u64) -> Option<(Claim, bool)> {
        let item = self.items.get(&id)?;
        let claim = Claim {
            id,
            key: item.key.clone(),
            function: item.function.clone(),
            call_sequence: item.call_sequence?,
            state_sequence: item.state_sequence,
            record: item.record.clone(),
        };
        Some((claim, self.schedule.is_running(id)))
    }

    /// The number of the invocation with this key.
    pub(super) fn id(&self, key: &str) -> Option<u64> {
        self.ids.get(key).copied()
    }

    /// How many of a function there are: waiting, running, dead.
    pub(super) fn counts(&self, function: &str) -> (usize, usize, usize) {
        self.schedule.counts(function)
    }
}

fn is_fresh(heard: Instant, now: Now) -> bool {
    now.instant.saturating_duration_since(heard) < LEASE
}

/// Up to half a second, another one for each daemon and invocation.
fn spread(me: &Me, key: &str) -> u64 {
    let bytes = me.start.bytes().chain(key.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % HEAD_START_MS
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::call;
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn index(daemon: &str) -> Index {
        let me = Me {
            daemon: daemon.to_owned(),
            start: format!("{daemon}-1"),
        };
        Index::new(me, Limits::default())
    }

    fn clock() -> impl Fn(u64) -> Now {
        let begin = Instant::now();
        move |ms| Now {
            instant: begin + Duration::from_millis(ms),
            ms,
        }
    }

    fn leased(by: &str) -> Record {
        Record {
            lease: Some(format!("{by}-1")),
            by: by.to_owned(),
            ..Record::of(&call("a", "x"))
        }
    }

    #[test]
    fn who_has_accepted_it_goes_first() {
        let at = clock();
        let (mut ours, mut theirs) = (index("a"), index("b"));
        let id = ours.reserve(KEY, &call("a", "x")).expect("there is room");
        assert_eq!(ours.next(at(9), |_| true), None, "it is not in the stream");
        ours.accepted(id, 1, at(9));
        // Its own echo changes nothing.
        ours.call(KEY, 1, &call("a", "x"), at(9));
        let claim = ours.next(at(9), |_| false).expect("due");
        assert_eq!((claim.call_sequence, claim.state_sequence), (1, 0));
        theirs.call(KEY, 1, &call("a", "x"), at(9));
        assert_eq!(theirs.next(at(9), |_| true), None);
        assert!(
            theirs
                .next_due_ms()
                .is_some_and(|due| due <= 9 + 2 * HEAD_START_MS)
        );
        assert_eq!(
            theirs.next(at(2000), |_| false),
            None,
            "its function is not known there"
        );
        assert!(theirs.next(at(2000 + 30_000), |_| true).is_some());
    }

    #[test]
    fn what_a_silent_daemon_runs_is_taken_over() {
        let at = clock();
        let mut index = index("b");
        index.call(KEY, 1, &call("a", "x"), at(0));
        index.state(KEY, 2, leased("a"), at(0));
        assert_eq!(index.counts("f.ns"), (0, 1, 0));
        index.beat("a", at(20_000));
        assert!(!index.expire(at(49_000)));
        assert_eq!(index.next(at(49_000), |_| true), None);
        assert!(index.expire(at(50_000)));
        let claim = index.next(at(52_000), |_| true).expect("it is taken over");
        assert_eq!(claim.state_sequence, 2);
        // It has spoken after all: who runs it here does not mind.
        index.state(KEY, 3, leased("a"), at(52_000));
        assert_eq!(index.counts("f.ns"), (0, 1, 0));
        index.lost(claim.id, 2, at(52_000));
        assert_eq!((index.counts("f.ns"), index.elsewhere.len()), ((0, 1, 0), 1));
    }

    #[test]
    fn what_ran_at_a_kill_runs_again_at_once() {
        let at = clock();
        let mut index = index("a");
        index.call(KEY, 1, &call("a", "x"), at(0));
        let earlier = Record {
            lease: Some("a-0".to_owned()),
            ..leased("a")
        };
        index.state(KEY, 2, earlier, at(9));
        assert!(index.next(at(9), |_| true).is_some());
    }

    #[test]
    fn a_lost_claim_waits_for_the_winner() {
        let at = clock();
        let mut index = index("b");
        index.call(KEY, 1, &call("b", "x"), at(9));
        let claim = index.next(at(9), |_| true).expect("due");
        index.lost(claim.id, claim.state_sequence, at(9));
        assert_eq!(
            (index.next(at(1000), |_| true), index.counts("f.ns")),
            (None, (0, 1, 0))
        );
        // The winner has failed, and another attempt is due.
        let waiting = Record {
            lease: None,
            attempts: 1,
            state: State::Waiting { due_ms: 2000 },
            ..leased("a")
        };
        index.state(KEY, 3, waiting, at(1500));
        let again = index.next(at(3000), |_| true).expect("due");
        assert_eq!((again.state_sequence, again.record.attempts), (3, 1));
        index.gone(KEY);
        assert_eq!(
            (index.free(again.id, at(3000)), index.counts("f.ns")),
            (vec![], (0, 0, 0))
        );
    }

    #[test]
    fn a_reading_finds_what_is_gone_and_what_was_left_behind() {
        let at = clock();
        let mut index = index("a");
        let other = "f".repeat(32);
        index.begin_round();
        index.call(KEY, 1, &call("a", "x"), at(0));
        index.call(&other, 2, &call("a", "y"), at(0));
        index.state(&"0".repeat(32), 3, leased("a"), at(0));
        assert_eq!(index.end_round(), (0, vec![3]));
        index.begin_round();
        let being_accepted = index
            .reserve(&"1".repeat(32), &call("a", "z"))
            .expect("there is room");
        index.call(KEY, 1, &call("a", "x"), at(0));
        assert_eq!(index.end_round(), (1, vec![]));
        assert_eq!((index.numbers("x").len(), index.numbers("y").len()), (1, 0));
        assert!(!index.refused(being_accepted));
        assert_eq!(index.counts("f.ns"), (1, 0, 0));
    }
}
