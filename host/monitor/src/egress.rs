//! Connections that the guest asks for: passed on to the daemon, which decides and connects.
//!
//! ```text
//!   guest page ──request──> Event::Connect ──> daemon ──> Request::Connected ──> slot and answer, or error
//! ```
//!
//! The monitor makes no socket itself. What the guest says is copied and checked; a place that has asked is not looked
//! at again before it is answered.

use spore_abi::layout::{GUEST_PAGE_GPA, HOST_PAGE_GPA};
use spore_abi::pages::{EGRESS_PLACES, EgressAnswer, EgressRequest, GuestPage, HostPage, egress_kind};

use crate::memory::{OutOfRange, Region};
use crate::protocol::{Connect, ConnectKind};

#[derive(Clone, Copy, Default)]
struct Place {
    /// The request that was seen last.
    sequence: u32,
    /// It is not answered yet.
    is_pending: bool,
}

/// All places.
#[derive(Default)]
pub(crate) struct Egress {
    places: [Place; EGRESS_PLACES],
}

fn request_place(place: usize) -> u64 {
    let offset = std::mem::offset_of!(GuestPage, egress) + place * size_of::<EgressRequest>();
    GUEST_PAGE_GPA + offset as u64
}

impl Egress {
    /// New requests. Those that make no sense are answered at once.
    pub(crate) fn take_requests(&mut self, ram: &Region) -> Result<Vec<Connect>, OutOfRange> {
        let mut requests = Vec::new();
        for number in 0..EGRESS_PLACES {
            if self.places[number].is_pending {
                continue;
            }
            // Read once: what is judged is what is used.
            let request: EgressRequest = ram.read(request_place(number))?;
            if request.sequence == self.places[number].sequence {
                continue;
            }
            self.places[number] = Place {
                sequence: request.sequence,
                is_pending: true,
            };
            let kind = match request.kind {
                egress_kind::STREAM => ConnectKind::Stream,
                egress_kind::DATAGRAMS => ConnectKind::Datagrams,
                _ => {
                    self.answer(
                        ram,
                        number,
                        rustix::io::Errno::INVAL.raw_os_error().unsigned_abs(),
                    )?;
                    continue;
                }
            };
            requests.push(Connect {
                place: number as u32,
                kind,
                address: request.address,
                port: request.port,
            });
        }
        Ok(requests)
    }

    /// Whether a request waits for its answer at this place.
    pub(crate) fn is_pending(&self, place: u32) -> bool {
        self.places
            .get(place as usize)
            .is_some_and(|place| place.is_pending)
    }

    /// How many requests wait for their answers.
    pub(crate) fn pending(&self) -> usize {
        self.places.iter().filter(|place| place.is_pending).count()
    }

    /// Answers the request at a place.
    pub(crate) fn answer(&mut self, ram: &Region, number: usize, result: u32) -> Result<(), OutOfRange> {
        let Some(place) = self.places.get_mut(number) else {
            return Ok(());
        };
        place.is_pending = false;
        let offset = std::mem::offset_of!(HostPage, egress) + number * size_of::<EgressAnswer>();
        ram.write(
            HOST_PAGE_GPA + offset as u64,
            EgressAnswer {
                sequence: place.sequence,
                result,
            },
        )?;
        let answered = HOST_PAGE_GPA + std::mem::offset_of!(HostPage, answered_egress) as u64;
        let known: u64 = ram.read(answered)?;
        ram.write(answered, known | 1 << number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(ram: &Region, place: usize, sequence: u32, kind: u16) {
        let request = EgressRequest {
            sequence,
            kind,
            port: 80,
            address: [7; 16],
        };
        ram.write(request_place(place), request).unwrap();
    }

    #[test]
    fn each_request_is_passed_on_once_and_answered_by_its_number() {
        let ram = Region::anonymous(spore_abi::layout::FREE_GPA as usize, 4096).unwrap();
        let mut egress = Egress::default();
        assert!(egress.take_requests(&ram).unwrap().is_empty());
        ask(&ram, 3, 9, egress_kind::STREAM);
        let requests = egress.take_requests(&ram).unwrap();
        assert_eq!((requests.len(), requests[0].place, requests[0].port), (1, 3, 80));
        // The guest changes its mind: it is not heard before the answer.
        ask(&ram, 3, 10, egress_kind::DATAGRAMS);
        assert!(egress.take_requests(&ram).unwrap().is_empty());
        assert!(egress.is_pending(3) && !egress.is_pending(4) && !egress.is_pending(u32::MAX));
        egress.answer(&ram, 3, 111).unwrap();
        let offset = std::mem::offset_of!(HostPage, egress) + 3 * size_of::<EgressAnswer>();
        let answer: EgressAnswer = ram.read(HOST_PAGE_GPA + offset as u64).unwrap();
        assert_eq!((answer.sequence, answer.result), (9, 111));
        assert_eq!(egress.take_requests(&ram).unwrap().len(), 1);
    }

    #[test]
    fn requests_of_no_known_kind_are_answered_at_once() {
        let ram = Region::anonymous(spore_abi::layout::FREE_GPA as usize, 4096).unwrap();
        let mut egress = Egress::default();
        ask(&ram, 31, 1, 77);
        assert!(egress.take_requests(&ram).unwrap().is_empty());
        assert!(!egress.is_pending(31));
    }
}
