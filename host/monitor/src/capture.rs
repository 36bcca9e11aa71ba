//! The moment at which an instance becomes a snapshot (`docs/snapshots.md`).

use spore_abi::layout::{GUEST_PAGE_GPA, HOST_PAGE_GPA};
use spore_abi::pages::{GuestPage, HostPage};

use crate::protocol::Event;
use crate::run::{Failure, Instance};
use crate::start;

impl Instance {
    /// Makes the guest, which is ready, a snapshot, and so ends it; unless the program has done what none holds.
    pub(crate) fn capture(&mut self, is_waiting: bool) -> Result<(), Failure> {
        self.serve()?;
        let ram = self.machine.ram();
        let guest: GuestPage = ram.read(GUEST_PAGE_GPA)?;
        let host: HostPage = ram.read(HOST_PAGE_GPA)?;
        let reason = if !is_waiting {
            Some("it accepts connections without ever waiting for one")
        } else if self.streams.were_used() || guest.egress.iter().any(|request| request.sequence != 0) {
            Some("it has connected to the outside before it was ready")
        } else if host.log_head != guest.log_tail {
            Some("its log cannot be read as fast as it writes")
        } else {
            None
        };
        let event = match reason {
            None => Event::Captured(Box::new(self.machine.state()?)),
            Some(reason) => Event::NotCaptured(reason.to_owned()),
        };
        start::send(&self.control, &event)?;
        match event {
            Event::Captured(_) => Err(Failure::Captured),
            _ => Ok(()),
        }
    }

    /// Tells which pages a copy has needed of its own so far, once.
    pub(crate) fn tell_written(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.tells_written) {
            let written = self.machine.needed(self.page_map.take().as_ref())?;
            start::send(&self.control, &Event::Written(written))?;
        }
        Ok(())
    }
}
