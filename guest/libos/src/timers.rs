//! Timers of processes, and the one list of everything that is due at some time.

use alloc::collections::BTreeMap;

use linux_raw_sys::general as linux;

use crate::kernel::Kernel;
use crate::process::ProcessId;
use crate::signals::{SignalInfo, code};
use crate::task::TaskId;
use crate::time::monotonic_ns;

/// What happens at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A task's call is tried again.
    Task(TaskId),
    /// The interval timer of a process (`ITIMER_REAL`) expires.
    Interval(ProcessId),
    /// A timer that a process has made (`timer_create`) expires.
    Timer(ProcessId, u32),
    /// A `timerfd` with this number in [`Kernel::timer_files`] expires.
    File(u64),
}

/// When a timer expires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The next time, in nanoseconds of the timer's clock; none if it is not armed.
    pub(crate) next_ns: Option<u64>,
    /// Time between expirations after that; 0 if there are none.
    pub(crate) interval_ns: u64,
    /// The next time is one of CLOCK_REALTIME, and moves where that does.
    pub(crate) is_realtime: bool,
}

impl Schedule {
    /// How often it has expired by now, since it was asked last.
    pub(crate) fn expire(&mut self, now_ns: u64) -> u64 {
        let Some(next_ns) = self.next_ns.filter(|&next_ns| next_ns <= now_ns) else {
            return 0;
        };
        let Some(more) = (now_ns - next_ns).checked_div(self.interval_ns) else {
            self.next_ns = None;
            return 1;
        };
        let after_ns = (more + 1).checked_mul(self.interval_ns);
        self.next_ns = after_ns.and_then(|after_ns| next_ns.checked_add(after_ns));
        more + 1
    }

    /// Time up to the next expiration; 0 only if it is not armed.
    pub(crate) fn left_ns(&self, now_ns: u64) -> u64 {
        self.next_ns
            .map_or(0, |next_ns| next_ns.saturating_sub(now_ns).max(1))
    }
}

/// What a timer's time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerClock {
    /// Time that passes, as CLOCK_MONOTONIC has it.
    Time,
    /// Time that the process has run.
    Process,
    /// Time that a thread has run.
    Task(TaskId),
}

/// Whom a timer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notify {
    Nobody,
    Process(u32),
    Task(u32, TaskId),
}

/// A timer that `timer_create` has made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer {
    /// The clock as the program named it.
    pub(crate) clock: u32,
    pub(crate) time: TimerClock,
    pub(crate) notify: Notify,
    /// What the program wants to find in the signal.
    pub(crate) value: u64,
    pub(crate) schedule: Schedule,
    /// Expirations since the signal was queued.
    overrun: u64,
    /// What the signal said that was delivered last.
    pub(crate) last_overrun: u32,
}

impl Timer {
    /// Sets when it expires; expirations before that are forgotten.
    pub(crate) fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
        self.overrun = 0;
        self.last_overrun = 0;
    }
}

/// Most timers of a process.
pub(crate) const TIMERS_MAX: usize = 1024;

/// The timers of a process.
#[derive(Default)]
pub(crate) struct ProcessTimers {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub(crate) intervals: [Schedule; 3],
    pub(crate) made: BTreeMap<u32, Timer>,
    next_id: u32,
}

impl ProcessTimers {
    /// Adds a timer that is not armed; its number.
    pub(crate) fn add(&mut self, clock: u32, time: TimerClock, notify: Notify, value: u64) -> Option<u32> {
        if self.made.len() >= TIMERS_MAX {
            return None;
        }
        let id = self.free_id();
        self.made.insert(
            id,
            Timer {
                clock,
                time,
                notify,
                value,
                schedule: Schedule::default(),
                overrun: 0,
                last_overrun: 0,
            },
        );
        Some(id)
    }

    /// The number that the next timer gets.
    pub(crate) fn free_id(&mut self) -> u32 {
        // There are fewer timers than numbers.
        while self.made.contains_key(&self.next_id) {
            self.next_id = (self.next_id + 1) & 0x7fff_ffff;
        }
        self.next_id
    }

    /// Whether a timer is armed that counts time run, which no deadline tells of.
    pub(crate) fn counts_time_run(&self) -> bool {
        let [_, run, also_run] = &self.intervals;
        run.next_ns.is_some()
            || also_run.next_ns.is_some()
            || self
                .made
                .values()
                .any(|timer| timer.time != TimerClock::Time && timer.schedule.next_ns.is_some())
    }
}

impl Kernel {
    /// Does what is due.
    pub(crate) fn fire_deadlines(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now_ns = monotonic_ns();
        while let Some(&(deadline_ns, due)) = self.deadlines.first() {
            if deadline_ns > now_ns {
                break;
            }
            self.deadlines.pop_first();
            match due {
                Due::Task(task) => self.ready.push(task),
                Due::Interval(process) => self.fire_interval(process, now_ns),
                Due::Timer(process, timer) => self.fire_timer(process, timer, now_ns),
                Due::File(number) => self.fire_file(number, now_ns),
            }
        }
    }

    fn fire_interval(&mut self, id: ProcessId, now_ns: u64) {
        let Some(process) = self.process_mut(id) else {
            return;
        };
        let schedule = &mut process.timers.intervals[0];
        if schedule.expire(now_ns) > 0 {
            let next_ns = schedule.next_ns;
            self.arm(next_ns, Due::Interval(id));
            self.raise_on(id, SignalInfo::kernel(linux::SIGALRM));
        }
    }

    /// Something is due at this time.
    pub(crate) fn arm(&mut self, next_ns: Option<u64>, due: Due) {
        if let Some(next_ns) = next_ns {
            self.deadlines.insert((next_ns, due));
        }
    }

    /// Something is not due at this time any more.
    pub(crate) fn disarm(&mut self, next_ns: Option<u64>, due: Due) {
        if let Some(next_ns) = next_ns {
            self.deadlines.remove(&(next_ns, due));
        }
    }

    fn fire_timer(&mut self, id: ProcessId, number: u32, now_ns: u64) {
        let tasks = &self.tasks;
        let process = match self.process.id == id {
            true => &mut self.process,
            false => match self.parked.get_mut(&id) {
                Some(process) => process,
                None => return,
            },
        };
        let Some(timer) = process.timers.made.get_mut(&number) else {
            return;
        };
        let expirations = timer.schedule.expire(now_ns);
        if expirations == 0 {
            return;
        }
        let tells = match timer.notify {
            Notify::Nobody => false,
            Notify::Process(signal) => !process.signals.pending.borrow().has_timer(signal, number),
            Notify::Task(signal, task) => tasks
                .get(&task)
                .is_some_and(|task| !task.signals.pending.has_timer(signal, number)),
        };
        timer.overrun = match tells {
            true => expirations - 1,
            false => timer.overrun.saturating_add(expirations),
        };
        let timer = *timer;
        if timer.time == TimerClock::Time {
            self.arm(timer.schedule.next_ns, Due::Timer(id, number));
        }
        if tells {
            let info = |signal| SignalInfo::timer(signal, number, timer.value);
            match timer.notify {
                Notify::Nobody => {}
                Notify::Process(signal) => _ = self.raise_on(id, info(signal)),
                Notify::Task(signal, task) => _ = self.raise_thread(task, info(signal)),
            }
        }
    }

    /// CLOCK_REALTIME has moved by `moved_ns` against CLOCK_MONOTONIC: what is due at a time of it is due then.
    pub(crate) fn move_realtime_deadlines(&mut self, moved_ns: i64) {
        let moved = |deadline_ns: u64| match moved_ns {
            0.. => deadline_ns.saturating_sub(moved_ns.unsigned_abs()),
            _ => deadline_ns.saturating_add(moved_ns.unsigned_abs()),
        };
        let all: alloc::vec::Vec<(u64, Due)> = self.deadlines.iter().copied().collect();
        for (deadline_ns, due) in all {
            let is_realtime = match due {
                Due::Interval(_) => false,
                Due::Task(task) => match self.tasks.get_mut(&task).map(|task| &mut task.memory) {
                    Some(memory) if memory.is_realtime => {
                        memory.deadline_ns = Some(moved(deadline_ns));
                        true
                    }
                    _ => false,
                },
                Due::Timer(id, number) => {
                    let process = self.process_mut(id);
                    match process.and_then(|process| process.timers.made.get_mut(&number)) {
                        Some(timer) if timer.schedule.is_realtime => {
                            timer.schedule.next_ns = Some(moved(deadline_ns));
                            true
                        }
                        _ => false,
                    }
                }
                Due::File(number) => match self.timer_files.get(&number).and_then(alloc::rc::Weak::upgrade) {
                    Some(file) if file.schedule.get().is_realtime => {
                        let next_ns = Some(moved(deadline_ns));
                        file.schedule.set(Schedule {
                            next_ns,
                            ..file.schedule.get()
                        });
                        true
                    }
                    _ => false,
                },
            };
            if is_realtime {
                self.deadlines.remove(&(deadline_ns, due));
                self.deadlines.insert((moved(deadline_ns), due));
            }
        }
    }

    fn fire_file(&mut self, number: u64, now_ns: u64) {
        let Some(file) = self.timer_files.get(&number).and_then(alloc::rc::Weak::upgrade) else {
            self.timer_files.remove(&number);
            return;
        };
        let next_ns = file.expire(now_ns);
        self.arm(next_ns, Due::File(number));
    }

    /// Lets timers of the running process expire that count the time it has run.
    pub(crate) fn fire_run_timers(&mut self) {
        if !self.process.timers.counts_time_run() {
            return;
        }
        let process_ns = self.process_run_ns();
        let signals = [linux::SIGVTALRM, linux::SIGPROF];
        for (index, signal) in signals.into_iter().enumerate() {
            if self.process.timers.intervals[index + 1].expire(process_ns) > 0 {
                self.raise_process(SignalInfo::kernel(signal));
            }
        }
        let id = self.process.id;
        let numbers: alloc::vec::Vec<(u32, TimerClock)> = self
            .process
            .timers
            .made
            .iter()
            .filter(|(_, timer)| timer.time != TimerClock::Time)
            .map(|(&number, timer)| (number, timer.time))
            .collect();
        for (number, time) in numbers {
            let now_ns = self.time_of(time).unwrap_or(0);
            self.fire_timer(id, number, now_ns);
        }
    }

    /// What a timer's clock says now; none if it is that of a thread that is gone.
    pub(crate) fn time_of(&mut self, time: TimerClock) -> Option<u64> {
        match time {
            TimerClock::Time => Some(monotonic_ns()),
            TimerClock::Process => Some(self.process_run_ns()),
            TimerClock::Task(task) => self.task_run_ns(task),
        }
    }

    /// A signal of a timer is about to be delivered: it says how often the timer has expired besides.
    pub(crate) fn with_overrun(&mut self, mut info: SignalInfo) -> SignalInfo {
        let number = info.words[0] as u32;
        if info.code == code::SI_TIMER
            && let Some(timer) = self.process.timers.made.get_mut(&number)
        {
            timer.last_overrun = timer.overrun.min(i32::MAX as u64) as u32;
            timer.overrun = 0;
            info.words[0] |= u64::from(timer.last_overrun) << 32;
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_timer_expires_once() {
        let mut schedule = Schedule {
            next_ns: Some(100),
            ..Schedule::default()
        };
        assert_eq!((schedule.expire(99), schedule.left_ns(40)), (0, 60));
        assert_eq!((schedule.expire(500), schedule.expire(501)), (1, 0));
        assert_eq!(schedule.left_ns(501), 0);
    }

    #[test]
    fn a_periodic_timer_counts_what_was_missed() {
        let mut schedule = Schedule {
            next_ns: Some(100),
            interval_ns: 10,
            ..Schedule::default()
        };
        assert_eq!(schedule.expire(100), 1);
        assert_eq!(schedule.next_ns, Some(110));
        assert_eq!(schedule.expire(135), 3);
        assert_eq!(schedule.next_ns, Some(140));
        schedule.interval_ns = u64::MAX;
        assert_eq!(schedule.expire(140), 1);
        assert_eq!(schedule.next_ns, None);
    }

    #[test]
    fn numbers_of_timers_are_not_given_twice() {
        let mut timers = ProcessTimers::default();
        let add = |timers: &mut ProcessTimers| timers.add(1, TimerClock::Time, Notify::Nobody, 0);
        assert_eq!((add(&mut timers), add(&mut timers)), (Some(0), Some(1)));
        timers.made.remove(&0);
        timers.next_id = 0;
        assert_eq!((add(&mut timers), add(&mut timers)), (Some(0), Some(2)));
        while add(&mut timers).is_some() {}
        assert_eq!(timers.made.len(), TIMERS_MAX);
    }
}
