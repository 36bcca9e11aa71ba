//! A guest that goes on while it is served: what is read of its memory may be anything, and another thing at the next
//! look. A virtual processor stands still then; nothing here relies on it.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use spore_abi::layout::{FREE_GPA, GUEST_PAGE_GPA, LOG_RING_BYTES, LOG_RING_GPA};
use spore_abi::pages::{EGRESS_PLACES, GuestPage};

use crate::egress::Egress;
use crate::log::Log;
use crate::memory::Region;
use crate::streams::Streams;

/// Guests that are served, and how often each at most.
const GUESTS: usize = 200;
const ROUNDS: usize = 50;

/// The memory as the other thread sees it.
struct Shared {
    start: u64,
}

impl Shared {
    fn put(&self, offset: u64, byte: u8) {
        let place = (self.start + offset) as *mut u8;
        // SAFETY: within the region, which outlives the thread; whoever reads it at the same time reads volatile or by
        // the kernel, and takes whatever comes.
        unsafe { AtomicU8::from_ptr(place) }.store(byte, Ordering::Relaxed);
    }

    /// Writes plausible and other numbers to all that the monitor reads, until it is over.
    fn scribble(&self, is_over: &AtomicBool) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while !is_over.load(Ordering::Relaxed) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let (place, byte) = (
                state >> 32,
                [0, 1, 2, 3, 0xff, state as u8][(state >> 8) as usize % 6],
            );
            if state & 1 == 0 {
                self.put(GUEST_PAGE_GPA + place % size_of::<GuestPage>() as u64, byte);
            } else {
                self.put(LOG_RING_GPA + place % 64, byte);
            }
        }
    }
}

/// Ends the other thread, also if something does not hold.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves one guest; how often it was found sound.
fn serve(ram: &Region) -> usize {
    let kind = SocketType::SEQPACKET;
    let (ours, daemon) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let (mut streams, mut egress, mut log) =
        (Streams::new(false), Egress::default(), Log::new(ours, true, 0));
    let (near, _far) = UnixStream::pair().unwrap();
    streams.add(near.into());
    let mut packet = vec![0; 256 * 1024];
    for round in 0..ROUNDS {
        if streams.serve(ram, &mut egress).is_err() || streams.poll_list(ram, &mut Vec::new()).is_err() {
            return round;
        }
        for request in egress.take_requests(ram).unwrap() {
            assert!((request.place as usize) < EGRESS_PLACES && egress.is_pending(request.place));
            egress.answer(ram, request.place as usize, 111).unwrap();
        }
        let place = GUEST_PAGE_GPA + std::mem::offset_of!(GuestPage, log_tail) as u64;
        let tail: u32 = ram.read(place).unwrap();
        let Ok(head) = log.drain(ram, tail) else {
            return round;
        };
        assert!(tail.wrapping_sub(head) <= LOG_RING_BYTES);
        while let Ok((length, _)) = recv(&daemon, packet.as_mut_slice(), RecvFlags::DONTWAIT) {
            assert!((1..=3).contains(&packet[0]) && length - 1 <= LOG_RING_BYTES as usize);
        }
    }
    ROUNDS
}

#[test]
fn a_guest_that_goes_on_while_it_is_served_changes_nothing_but_its_own() {
    let ram = Region::anonymous(FREE_GPA as usize, 4096).unwrap();
    let shared = Shared {
        start: ram.host_address(),
    };
    let is_over = AtomicBool::new(false);
    let served: usize = std::thread::scope(|scope| {
        scope.spawn(|| shared.scribble(&is_over));
        let _ends = Ends(&is_over);
        (0..GUESTS).map(|_| serve(&ram)).sum()
    });
    assert!(served < GUESTS * ROUNDS, "some guests have damaged themselves");
}
