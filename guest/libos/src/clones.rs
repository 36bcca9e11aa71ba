//! What comes between a program that waits for its first connection and the snapshot that it becomes, and what comes first
//! in a clone of that (docs/snapshots.md).
//!
//! ```text
//!   booted to become a snapshot:  it waits ──> hook ──> what must not be copied is wiped ──> the monitor takes it
//!   a clone:                      seed, AT_RANDOM, timers ──> /dev/sysgenid ──> hook ──> invocations
//! ```

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::auxvec::AT_RANDOM;
use spore_abi::pages::{BootPage, boot_flags, exit_kind};
use spore_abi::ring::LogOrigin;
use spore_machine::shared;

use crate::files::generation::Generation;
use crate::kernel::Kernel;
use crate::memory::frames::SharedFrames;
use crate::network::hook::{self, Hook, Outcome};
use crate::process::FIRST_PROCESS;
use crate::random::Random;
use crate::task::ReadyQueue;
use crate::text::text;
use crate::time::{SECOND_NS, monotonic_ns, realtime_lead_ns};

/// The variables that name hooks.
const BEFORE_SNAPSHOT: &str = "SPORE_BEFORE_SNAPSHOT";
const AFTER_RESTORE: &str = "SPORE_AFTER_RESTORE";
/// What a program finds in its environment that is booted to become a snapshot.
pub(crate) const BOOTED_FOR_SNAPSHOT: &[u8] = b"SPORE_INITIALIZATION=snapshot";
/// How long programs that watch the generation may take to confirm it.
const WATCHERS_TIMEOUT_NS: u64 = 10 * SECOND_NS;
/// How long a program may listen without ever waiting before it is given up as a snapshot.
const PATIENCE_NS: u64 = SECOND_NS;
/// The clocks move against each other a little all the time, since the host's do.
const CLOCK_STEP_NS: u64 = 1_000_000;

/// What is under way.
enum Stage {
    /// Nothing.
    Settled,
    /// It is to become a snapshot when it waits.
    Booted,
    /// The hook before that was called.
    Preparing(Hook),
    /// It is a clone, and programs in it have not noticed yet.
    Noticing { deadline_ns: u64 },
    /// It is a clone, and the hook was called.
    Restoring(Hook),
}

/// Where the instance stands.
pub(crate) struct Clones {
    stage: Stage,
    /// The host's number of the generation of this memory.
    number: u64,
    /// Since when somebody listens on the function's port, as far as that was looked at.
    listening_since_ns: Option<u64>,
    /// How far CLOCK_REALTIME is before CLOCK_MONOTONIC, as absolute timers know it; modulo 2^64.
    realtime_lead_ns: u64,
    pub(crate) generation: Rc<Generation>,
    before_snapshot: Option<Vec<u8>>,
    after_restore: Option<Vec<u8>>,
}

impl Clones {
    /// An instance that was booted.
    pub(crate) fn new(boot: &BootPage, frames: &SharedFrames, ready: &Rc<ReadyQueue>) -> Self {
        let becomes_snapshot = boot.flags & boot_flags::BECOMES_SNAPSHOT != 0;
        Self {
            stage: match becomes_snapshot {
                true => Stage::Booted,
                false => Stage::Settled,
            },
            number: shared::generation(),
            listening_since_ns: None,
            realtime_lead_ns: realtime_lead_ns(),
            generation: Generation::new(frames, ready),
            before_snapshot: None,
            after_restore: None,
        }
    }

    /// Takes the hooks from the program's environment; the variable that names no path, if one does not.
    pub(crate) fn set_hooks(&mut self, environment: &[Vec<u8>]) -> Result<(), &'static str> {
        let find = |name: &'static str| {
            let value = environment
                .iter()
                .filter_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
                .find(|value| !value.is_empty());
            match value {
                Some(path) if !hook::is_path(path) => Err(name),
                path => Ok(path.map(<[u8]>::to_vec)),
            }
        };
        self.before_snapshot = find(BEFORE_SNAPSHOT)?;
        self.after_restore = find(AFTER_RESTORE)?;
        Ok(())
    }

    /// Whether it is booted to become a snapshot, and has not become one yet.
    pub(crate) fn becomes_snapshot(&self) -> bool {
        matches!(self.stage, Stage::Booted | Stage::Preparing(_))
    }

    /// When what is under way is to be over, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        match &self.stage {
            Stage::Settled | Stage::Booted => None,
            Stage::Noticing { deadline_ns } => Some(*deadline_ns),
            Stage::Preparing(hook) | Stage::Restoring(hook) => Some(hook.deadline_ns),
        }
    }
}

impl Kernel {
    /// Nothing can run. If that is what a snapshot waits for, prepares it.
    pub(crate) fn prepare_snapshot(&mut self) {
        if !matches!(self.clones.stage, Stage::Booted) || !self.network.is_function_listening() {
            return;
        }
        match self.clones.before_snapshot.take() {
            Some(path) => self.clones.stage = Stage::Preparing(self.call_hook(BEFORE_SNAPSHOT, &path)),
            None => self.become_snapshot(),
        }
    }

    /// All is done but the snapshot itself.
    fn become_snapshot(&mut self) {
        self.clones.stage = Stage::Settled;
        let drawn_bytes = self.random.given_bytes;
        if drawn_bytes > 0 {
            let line = text!(
                "{drawn_bytes} random bytes were drawn before the snapshot: what was made of them is the same in all clones\n"
            );
            shared::log(LogOrigin::Platform, line.as_bytes());
        }
        self.process.space.wipe_secrets();
        for process in self.parked.values_mut() {
            process.space.wipe_secrets();
        }
        if self.process.id == FIRST_PROCESS {
            shared::offer_text(&self.process.space.offer_text());
        }
    }

    /// Tells the host that a program listens which does so for long and has never waited: it becomes no snapshot.
    pub(crate) fn give_up_snapshot(&mut self) {
        if !self.clones.becomes_snapshot() || !self.network.is_function_listening() {
            return;
        }
        let now_ns = monotonic_ns();
        let since_ns = *self.clones.listening_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since_ns) >= PATIENCE_NS {
            self.clones.stage = Stage::Settled;
            shared::set_listening(true);
        }
    }

    fn call_hook(&mut self, variable: &'static str, path: &[u8]) -> Hook {
        match Hook::call(self, variable, path) {
            Some(hook) => hook,
            None => fail(&hook::failure(variable, "cannot be called: nobody listens")),
        }
    }

    /// Goes on with what is under way.
    pub(crate) fn look_after_clone(&mut self) {
        match &mut self.clones.stage {
            Stage::Settled | Stage::Booted => {}
            Stage::Preparing(hook) => {
                if is_done(hook) {
                    self.become_snapshot();
                }
            }
            Stage::Noticing { deadline_ns } => {
                let deadline_ns = *deadline_ns;
                if !self.clones.generation.is_awaited() {
                    self.clones.stage = match self.clones.after_restore.take() {
                        Some(path) => Stage::Restoring(self.call_hook(AFTER_RESTORE, &path)),
                        None => self.open_gate(),
                    };
                } else if monotonic_ns() >= deadline_ns {
                    fail("who watches /dev/sysgenid has not confirmed the new generation within 10 s");
                }
            }
            Stage::Restoring(hook) => {
                if is_done(hook) {
                    self.clones.stage = self.open_gate();
                }
            }
        }
    }

    fn open_gate(&mut self) -> Stage {
        self.network.set_held(false);
        Stage::Settled
    }

    /// Makes anew what no two instances may share, if this memory has become another instance's while it waited.
    pub(crate) fn renew_clone(&mut self) {
        self.follow_clocks();
        let number = shared::generation();
        if number == self.clones.number {
            return;
        }
        self.clones.number = number;
        self.random = Random::new(shared::boot().seed);
        self.random.fill(&mut self.boot_id);
        self.renew_start_randomness();
        self.clones.generation.advance();
        if self.clones.generation.is_awaited() || self.clones.after_restore.is_some() {
            self.network.set_held(true);
            self.clones.stage = Stage::Noticing {
                deadline_ns: monotonic_ns().saturating_add(WATCHERS_TIMEOUT_NS),
            };
            self.look_after_clone();
        }
    }

    /// The random bytes that the program was started with (AT_RANDOM) are other ones.
    fn renew_start_randomness(&mut self) {
        let mut random = [0; 16];
        self.random.fill(&mut random);
        if let Some(process) = self.process_mut(FIRST_PROCESS)
            && let Some(address) = process.start.auxiliary_value(u64::from(AT_RANDOM))
        {
            // The program may have unmapped its stack.
            let _ = process.space.write(address, &random);
        }
    }

    /// Where CLOCK_REALTIME has moved against CLOCK_MONOTONIC, absolute timers go with it.
    fn follow_clocks(&mut self) {
        let lead_ns = realtime_lead_ns();
        let moved_ns = lead_ns.wrapping_sub(self.clones.realtime_lead_ns).cast_signed();
        if moved_ns.unsigned_abs() < CLOCK_STEP_NS {
            return;
        }
        self.clones.realtime_lead_ns = lead_ns;
        self.move_realtime_deadlines(moved_ns);
    }
}

/// Whether a hook has done its work; the instance ends if it has failed.
fn is_done(hook: &mut Hook) -> bool {
    match hook.outcome() {
        Outcome::Waiting => false,
        Outcome::Done => true,
        Outcome::Failed(how) => fail(&how),
    }
}

fn fail(how: &str) -> ! {
    shared::end(exit_kind::HOOK_FAILED, 0, how)
}
