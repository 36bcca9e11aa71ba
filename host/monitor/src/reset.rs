//! An instance that begins again: what it was when it was started, in the same process and virtual machine
//! (`docs/pools.md`).
//!
//! ```text
//!   Request::Reset ──> log is read ──> streams and requests are dropped ──> Machine::reset ──> new seed, new clocks
//!     (at a doorbell or a tick)                                               │                  └──> Event::Reset; it stands
//!                                                                             │                       still until a stream comes
//!                                                                             └── it cannot be: the instance ends
//! ```

use std::time::{Duration, Instant};

use rustix::event::poll;

use crate::clocks::Clocks;
use crate::egress::Egress;
use crate::machine::MachineError;
use crate::memory::OutOfRange;
use crate::protocol::Event;
use crate::run::{Failure, Instance, timespec};
use crate::start;

/// How long the daemon may take to read what the last invocation has logged.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an instance cannot be reset. It ends instead, which is always right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReset {
    #[error("it is none that can be")]
    Unsupported,
    #[error("it has changed {0}")]
    Changed(&'static str),
    #[error("it has written to too much of its memory")]
    TooMuch,
    #[error("the host does not tell which memory it has written to")]
    PageMap,
    #[error("its log is not read")]
    Log,
    #[error("its memory was not put back")]
    NotPutBack,
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Memory(#[from] OutOfRange),
}

impl NotReset {
    /// What the function's log is told of it: what happens all the time with an honest program is told nobody.
    pub(crate) fn detail(&self) -> Option<String> {
        match self {
            Self::Unsupported | Self::TooMuch | Self::Log => None,
            other => Some(format!("the instance cannot be used again: {other}")),
        }
    }
}

impl Instance {
    /// Makes the instance what it was when it was started, and waits for the next invocation.
    pub(crate) fn reset(&mut self) -> Result<(), Failure> {
        self.tell_milestones()?;
        self.empty_log()?;
        self.streams = self.streams.renewed();
        self.egress = Egress::default();
        self.has_answered = false;
        self.is_finished = false;
        self.milestones = None;
        let page_map = self.page_map.as_ref().ok_or(NotReset::PageMap)?;
        self.machine.reset(page_map)?;
        let (clocks, log_head) =
            start::renew_shared_pages(&self.machine).map_err(|_| NotReset::NotPutBack)?;
        self.log.begin_again(log_head);
        self.clocks = clocks;
        start::send(&self.control, &Event::Reset)?;
        self.await_invocation()
    }

    /// Lets the guest stand still until there is something for it to do, whatever it would do of itself: as if it were
    /// made then.
    fn await_invocation(&mut self) -> Result<(), Failure> {
        while !self.serve()? {
            if self.poll(None)? {
                self.receive_requests()?;
            }
        }
        self.machine.forget_tick();
        self.clocks = Clocks::resumed(self.machine.time_stamp_khz(), &self.clocks.shown());
        self.show_clock(self.clocks.shown())
    }

    /// Passes on all that the guest has logged.
    fn empty_log(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LOG_TIMEOUT;
        self.serve_log()?;
        while self.log.is_waiting() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotReset::Log.into());
            }
            let mut list: Vec<_> = self.log.poll_entry().into_iter().collect();
            // If it fails, the log is looked at again until the time is over.
            let _ = poll(&mut list, Some(&timespec(left)));
            self.serve_log()?;
        }
        Ok(())
    }
}
