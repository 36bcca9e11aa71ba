//! The moment at which an instance becomes a snapshot (`docs/snapshots.md`).

use spore_abi::layout::{GUEST_PAGE_GPA, HOST_PAGE_GPA};
use spore_abi::pages::{GuestPage, HostPage};

use crate::protocol::{Captured, Event, Isolation};
use crate::run::{Failure, Instance};
use crate::start;

impl Instance {
    /// Makes the guest, which is ready, a snapshot, and so ends it; unless the program has done what none holds.
    pub(crate) fn capture(&mut self, is_waiting: bool) -> Result<(), Failure> {
        self.serve()?;
        // Clones go on from here.
        let clock = self.clocks.renewed();
        self.show_clock(clock)?;
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
            None => Event::Captured(Box::new(Captured {
                processor: self.machine.state()?,
                text_offers: match self.machine.isolation() {
                    Isolation::VirtualMachine => text_offers(&guest),
                    // A process maps no text of large pages.
                    Isolation::Process => Vec::new(),
                },
            })),
            Some(reason) => Event::NotCaptured(reason.to_owned()),
        };
        start::send(&self.control, &event)?;
        match event {
            Event::Captured(_) => Err(Failure::Captured),
            _ => match self.clocks.catch_up() {
                Some(clock) => self.show_clock(clock),
                None => Ok(()),
            },
        }
    }

    /// Tells which pages a copy has needed of its own so far, once.
    pub(crate) fn tell_written(&mut self) -> Result<(), Failure> {
        self.tells_written = false;
        let written = self.machine.needed(self.page_map.as_ref())?;
        if !written.is_empty() {
            start::send(&self.control, &Event::Written(written))?;
        }
        if !self.machine.can_be_reset() {
            self.page_map = None;
        }
        Ok(())
    }
}

/// What the guest offers to be mapped by large pages. Whether that makes sense is seen when it is done.
fn text_offers(guest: &GuestPage) -> Vec<(u64, u64)> {
    let count = usize::try_from(guest.text_offer_count).unwrap_or(usize::MAX);
    let offers = guest.text_offers.iter().take(count);
    offers.map(|offer| (offer.entry_gpa, offer.table_gpa)).collect()
}
