//! The pages and rings shared with the monitor, and the doorbell.
//!
//! The monitor reads and writes them only while the virtual processor stands still. That is the case during a
//! doorbell, and also at a tick, which may fall between any two instructions of the library OS. So each access here is
//! volatile, what is published comes after what it speaks of, and what both sides change is changed atomically.

#[cfg(not(feature = "simulation"))]
use core::arch::asm;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use spore_abi::doorbell;
use spore_abi::layout::{self, STREAM_RING_BYTES, STREAM_SLOTS, WINDOW_BASE};
use spore_abi::pages::{
    BootPage, Clock, EGRESS_PLACES, EgressAnswer, EgressRequest, ExitRecord, GuestPage, GuestSlot, HostPage,
    HostSlot, TextOffer, Upcall,
};
use spore_abi::ring::{self, LogOrigin};

const BOOT: *const BootPage = (WINDOW_BASE + layout::BOOT_PAGE_GPA) as *const BootPage;
const HOST: *mut HostPage = (WINDOW_BASE + layout::HOST_PAGE_GPA) as *mut HostPage;
const GUEST: *mut GuestPage = (WINDOW_BASE + layout::GUEST_PAGE_GPA) as *mut GuestPage;

/// Reads a place in a shared page.
macro_rules! load {
    ($place:expr) => {
        // SAFETY: the monitor maps the shared pages at these addresses before the first instruction, with the layout
        // of `spore_abi::pages`; every bit pattern is a valid value of these types.
        unsafe { read_volatile(addr_of!($place)) }
    };
}

/// Writes a place in a shared page.
macro_rules! store {
    ($place:expr, $value:expr) => {
        // SAFETY: as for `load`; nothing holds a reference into the shared pages.
        unsafe { write_volatile(addr_of_mut!($place), $value) }
    };
}

/// The boot page.
#[must_use]
pub fn boot() -> BootPage {
    load!(*BOOT)
}

/// The clocks.
#[must_use]
pub fn clock() -> Clock {
    loop {
        // A tick between two loads may change them all.
        let before = load!((*HOST).clock.sequence);
        compiler_fence(Ordering::Acquire);
        let clock = load!((*HOST).clock);
        compiler_fence(Ordering::Acquire);
        if load!((*HOST).clock.sequence) == before {
            return clock;
        }
    }
}

/// How often this memory was given to a new instance.
#[must_use]
pub fn generation() -> u64 {
    load!((*HOST).generation)
}

/// The event that was delivered last.
#[must_use]
pub fn upcall() -> Upcall {
    load!((*HOST).upcall)
}

/// A copy of the start block: the zero-terminated strings of `argv` and `envp`.
pub fn start_block(buffer: &mut [u8]) {
    let length = buffer.len().min(layout::START_BLOCK_BYTES as usize);
    // SAFETY: the start block lies in RAM, is written by the host before the first instruction only, and is no
    // Rust object of the guest.
    unsafe {
        core::ptr::copy_nonoverlapping(
            (WINDOW_BASE + layout::START_BLOCK_GPA) as *const u8,
            buffer.as_mut_ptr(),
            length,
        );
    }
}

/// Reads `buffer.len()` bytes at `offset` of the root module; `false` if that is beyond its end.
#[must_use]
pub fn read_module(offset: u64, buffer: &mut [u8]) -> bool {
    let length = load!((*BOOT).root_bytes);
    let fits = offset
        .checked_add(buffer.len() as u64)
        .is_some_and(|end| end <= length);
    if fits {
        // SAFETY: the monitor maps the file read-only at this address for its whole length.
        unsafe {
            core::ptr::copy_nonoverlapping(
                (layout::MODULES_BASE + offset) as *const u8,
                buffer.as_mut_ptr(),
                buffer.len(),
            );
        }
    }
    fits
}

/// Takes the set of slots that the host has changed, one bit each.
#[must_use]
pub fn take_changed_slots() -> u64 {
    if load!((*HOST).changed_slots) == 0 {
        return 0;
    }
    // SAFETY: the place is aligned and lies in the host page, which is mapped for good. One exchange takes the bits:
    // a tick between a load and a store would lose those that the host adds meanwhile.
    unsafe { AtomicU64::from_ptr(addr_of_mut!((*HOST).changed_slots)) }.swap(0, Ordering::Relaxed)
}

/// Takes the set of requests for connections to the outside that were answered, one bit each.
#[must_use]
pub fn take_answered_egress() -> u64 {
    if load!((*HOST).answered_egress) == 0 {
        return 0;
    }
    // SAFETY: as in `take_changed_slots`.
    unsafe { AtomicU64::from_ptr(addr_of_mut!((*HOST).answered_egress)) }.swap(0, Ordering::Relaxed)
}

/// The answer to the request at this place.
#[must_use]
pub fn egress_answer(place: usize) -> EgressAnswer {
    load!((*HOST).egress[place % EGRESS_PLACES])
}

/// Asks for a connection to the outside.
pub fn request_egress(place: usize, request: EgressRequest) {
    let place = place % EGRESS_PLACES;
    store!((*GUEST).egress[place].kind, request.kind);
    store!((*GUEST).egress[place].port, request.port);
    store!((*GUEST).egress[place].address, request.address);
    compiler_fence(Ordering::Release);
    // The other fields count only with the new number.
    store!((*GUEST).egress[place].sequence, request.sequence);
}

/// What the host says of a slot.
#[must_use]
pub fn host_slot(slot: usize) -> HostSlot {
    load!((*HOST).slots[slot % STREAM_SLOTS])
}

/// What the guest says of a slot.
#[must_use]
pub fn guest_slot(slot: usize) -> GuestSlot {
    load!((*GUEST).slots[slot % STREAM_SLOTS])
}

/// Says something of a slot, after everything that was written to its rings.
pub fn set_guest_slot(slot: usize, value: GuestSlot) {
    let slot = slot % STREAM_SLOTS;
    compiler_fence(Ordering::Release);
    store!((*GUEST).slots[slot].flags, value.flags);
    store!((*GUEST).slots[slot].receive_head, value.receive_head);
    store!((*GUEST).slots[slot].transmit_tail, value.transmit_tail);
    compiler_fence(Ordering::Release);
    // The other fields count only once the generation is the host's.
    store!((*GUEST).slots[slot].generation, value.generation);
}

/// Says when the program first read of a stream that the host has opened.
pub fn note_first_read(time_stamp: u64) {
    if load!((*GUEST).first_read_time_stamp) == 0 {
        store!((*GUEST).first_read_time_stamp, time_stamp);
    }
}

/// Tells the host what it may map by large pages in a snapshot: as many of them as there is room for.
pub fn offer_text(offers: &[TextOffer]) {
    let mut count = 0;
    for (place, offer) in offers.iter().take(layout::TEXT_PAGES_MAX).enumerate() {
        store!((*GUEST).text_offers[place], *offer);
        count += 1;
    }
    store!((*GUEST).text_offer_count, count);
}

/// Gives `visit` the `count` bytes of the receive ring of `slot` from index `head` on, in two stretches.
pub fn with_receive_ring<R>(slot: usize, head: u32, count: u32, visit: impl FnOnce([&[u8]; 2]) -> R) -> R {
    let base = (WINDOW_BASE + layout::receive_ring_gpa(slot % STREAM_SLOTS)) as *const u8;
    let stretches = ring::stretches(head, count.min(STREAM_RING_BYTES), STREAM_RING_BYTES);
    let parts = stretches.map(|(offset, length)| {
        // SAFETY: `stretches` stays within the ring, which is RAM that no Rust object of the guest occupies. Nobody
        // writes to these bytes while `visit` runs: the host writes only beyond them, and `user::write` refuses it.
        unsafe { core::slice::from_raw_parts(base.add(offset as usize), length as usize) }
    });
    visit(parts)
}

/// Gives `visit` the room for `count` bytes in the transmit ring of `slot` from index `tail` on, in two stretches.
pub fn with_transmit_ring<R>(
    slot: usize,
    tail: u32,
    count: u32,
    visit: impl FnOnce([&mut [u8]; 2]) -> R,
) -> R {
    let base = (WINDOW_BASE + layout::transmit_ring_gpa(slot % STREAM_SLOTS)) as *mut u8;
    let stretches = ring::stretches(tail, count.min(STREAM_RING_BYTES), STREAM_RING_BYTES);
    let parts = stretches.map(|(offset, length)| {
        // SAFETY: as for `with_receive_ring`; the two stretches do not overlap, and no other reference into the ring
        // exists while `visit` runs, since it cannot call this function for the same bytes without a doorbell's
        // worth of library OS state, which the caller holds exclusively.
        unsafe { core::slice::from_raw_parts_mut(base.add(offset as usize), length as usize) }
    });
    visit(parts)
}

fn fill_ring(base: u64, tail: u32, ring_bytes: u32, bytes: &[u8]) {
    let mut done = 0;
    for (offset, length) in ring::stretches(tail, clamp(bytes.len(), ring_bytes), ring_bytes) {
        let (offset, length) = (offset as usize, length as usize);
        // SAFETY: as for `with_transmit_ring`: the lengths add up to at most `bytes.len()`.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr().add(done), (base as *mut u8).add(offset), length);
        }
        done += length;
    }
}

fn clamp(length: usize, ring_bytes: u32) -> u32 {
    u32::try_from(length).unwrap_or(ring_bytes).min(ring_bytes)
}

/// Writes bytes to the function's log, in frames; rings the doorbell when the log ring is full.
pub fn log(origin: LogOrigin, bytes: &[u8]) {
    for part in bytes.chunks(ring::LOG_FRAME_BYTES_MAX as usize) {
        let needed = ring::LOG_HEADER_BYTES + part.len() as u32;
        let tail = load!((*GUEST).log_tail);
        let is_full =
            |head: u32| layout::LOG_RING_BYTES - tail.wrapping_sub(head).min(layout::LOG_RING_BYTES) < needed;
        if is_full(load!((*HOST).log_head)) {
            ring(doorbell::NOTIFY);
            if is_full(load!((*HOST).log_head)) {
                return;
            }
        }
        let base = WINDOW_BASE + layout::LOG_RING_GPA;
        let header = ring::log_header(origin, part.len() as u16);
        fill_ring(base, tail, layout::LOG_RING_BYTES, &header);
        fill_ring(
            base,
            tail.wrapping_add(ring::LOG_HEADER_BYTES),
            layout::LOG_RING_BYTES,
            part,
        );
        compiler_fence(Ordering::Release);
        store!((*GUEST).log_tail, tail.wrapping_add(needed));
    }
}

/// Tells the host whether the function's port is listened on.
pub fn set_listening(listening: bool) {
    store!((*GUEST).listening, u32::from(listening));
}

/// Tells the host whether kicks are to be delivered.
pub fn set_wants_kicks(wanted: bool) {
    store!((*GUEST).wants_kicks, u32::from(wanted));
}

/// Counts one refused request for memory.
pub fn count_refused_allocation() {
    let count = load!((*GUEST).refused_allocations);
    store!((*GUEST).refused_allocations, count.saturating_add(1));
}

/// Counts one system call that is not served.
pub fn count_missing_call() {
    let count = load!((*GUEST).missing_calls);
    store!((*GUEST).missing_calls, count.saturating_add(1));
}

/// Sleeps until a stream moves or `deadline_ns` (CLOCK_MONOTONIC) has passed.
pub fn wait(deadline_ns: u64) {
    store!((*GUEST).wait_deadline_ns, deadline_ns);
    ring(doorbell::WAIT);
}

/// Lets the host serve the rings.
pub fn notify() {
    ring(doorbell::NOTIFY);
}

/// Makes the host forget cached translations, at least those of `ranges` (start and end of each).
pub fn flush_translations(ranges: &[(u64, u64)]) {
    #[cfg(not(feature = "simulation"))]
    if is_process() {
        return crate::process::forget(ranges);
    }
    let _ = ranges;
    ring(doorbell::FLUSH_TRANSLATIONS);
}

/// Makes the host translate with another top table.
pub fn switch_tables(top_gpa: u64) {
    store!((*GUEST).top_table_gpa, top_gpa);
    ring(doorbell::SWITCH_TABLES);
}

/// Ends the instance.
pub fn end(kind: u32, code: u32, message: &str) -> ! {
    let mut record = ExitRecord {
        kind,
        code,
        message_bytes: 0,
        reserved: 0,
        message: [0; 240],
    };
    let length = message.len().min(record.message.len());
    record.message[..length].copy_from_slice(&message.as_bytes()[..length]);
    record.message_bytes = length as u32;
    store!((*GUEST).exit, record);
    loop {
        ring(doorbell::EXIT);
    }
}

#[cfg(feature = "simulation")]
fn ring(request: u32) {
    crate::simulation::ring(request);
}

/// Whether there is no virtual machine around the guest.
#[cfg(not(feature = "simulation"))]
fn is_process() -> bool {
    load!((*HOST).form) == spore_abi::process::form::PROCESS
}

#[cfg(not(feature = "simulation"))]
fn ring(request: u32) {
    if is_process() {
        return crate::process::ring(request);
    }
    // SAFETY: an `out` to the one port that the TSS bitmap allows; the monitor may write to the shared pages
    // meanwhile, so memory is a clobber (no `nomem`).
    unsafe {
        asm!("out {port}, eax", port = const doorbell::DOORBELL_PORT, in("eax") request,
            options(nostack, preserves_flags));
    }
}
