//! The network card: two hypercalls.

use alloc::vec::Vec;
use core::cell::RefCell;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::machine::{self, NET_READ, NET_WRITE};

const FRAME_BYTES: usize = 1514;
/// Its number: that of its entry in the manifest.
const HANDLE: u64 = 1;

/// The card.
pub struct Card {
    /// A frame that has come and was looked for only.
    next: RefCell<Option<Vec<u8>>>,
}

impl Card {
    /// The one there is.
    pub fn find() -> Self {
        Self {
            next: RefCell::default(),
        }
    }

    /// Its address.
    pub fn address(&self) -> [u8; 6] {
        machine::card_address()
    }

    /// There is no interrupt to be acknowledged.
    pub fn acknowledge(&self) {}

    /// Whether a frame has come.
    pub fn has_frame(&self) -> bool {
        let mut next = self.next.borrow_mut();
        if next.is_none() {
            *next = read();
        }
        next.is_some()
    }
}

/// Takes a frame that has come.
fn read() -> Option<Vec<u8>> {
    let mut frame = alloc::vec![0; FRAME_BYTES];
    let mut structure = [HANDLE, frame.as_mut_ptr() as u64, frame.len() as u64, 0];
    machine::call(NET_READ, &mut structure);
    frame.truncate(structure[2] as usize);
    (structure[3] as u32 == 0).then_some(frame)
}

/// A frame that has come.
pub struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for one.
pub struct Place;

impl phy::TxToken for Place {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = alloc::vec![0; length];
        let written = write(&mut frame);
        let mut structure = [HANDLE, frame.as_ptr() as u64, frame.len() as u64, 0];
        machine::call(NET_WRITE, &mut structure);
        written
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Place;

    fn receive(&mut self, _: Instant) -> Option<(Received, Place)> {
        let next = self.next.get_mut().take().or_else(read)?;
        Some((Received(next), Place))
    }

    fn transmit(&mut self, _: Instant) -> Option<Place> {
        Some(Place)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}
