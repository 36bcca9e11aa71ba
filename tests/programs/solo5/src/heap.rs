//! The heap: blocks whose lengths are powers of two, and a list of those of each length that are free.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

/// The shortest block, in bytes: there is room for the address of the next free one.
const BLOCK_BYTES_MIN: usize = 16;
const LENGTHS: usize = 48;

struct State {
    next: usize,
    end: usize,
    free: [*mut u8; LENGTHS],
}

/// The heap of a machine with one processor and no interrupts.
pub struct Heap(UnsafeCell<State>);

// SAFETY: there is one processor, and nothing interrupts it: no two are ever in it at once.
unsafe impl Sync for Heap {}

impl Heap {
    /// One without memory.
    pub const fn empty() -> Self {
        Self(UnsafeCell::new(State {
            next: 0,
            end: 0,
            free: [ptr::null_mut(); LENGTHS],
        }))
    }

    /// Gives it memory.
    ///
    /// # Safety
    ///
    /// The memory is nobody else's, and this is called once, before it is used.
    pub unsafe fn init(&self, start: usize, end: usize) {
        // SAFETY: nobody else is in it (see `Sync`).
        let state = unsafe { &mut *self.0.get() };
        (state.next, state.end) = (start, end);
    }
}

fn block_bytes(layout: Layout) -> usize {
    let bytes = layout.size().max(layout.align()).max(BLOCK_BYTES_MIN);
    bytes.checked_next_power_of_two().unwrap_or(usize::MAX)
}

// SAFETY: blocks are as long as is asked for, aligned to their length, and handed out to one at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: nobody else is in it (see `Sync`).
        let state = unsafe { &mut *self.0.get() };
        let bytes = block_bytes(layout);
        let list = bytes.trailing_zeros() as usize;
        if list >= LENGTHS {
            return ptr::null_mut();
        }
        let free = state.free[list];
        if !free.is_null() {
            // SAFETY: a free block begins with the address of the next one.
            state.free[list] = unsafe { free.cast::<*mut u8>().read() };
            return free;
        }
        let block = state.next.next_multiple_of(bytes);
        match block.checked_add(bytes) {
            Some(end) if end <= state.end => {
                state.next = end;
                block as *mut u8
            }
            _ => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: nobody else is in it (see `Sync`).
        let state = unsafe { &mut *self.0.get() };
        let list = block_bytes(layout).trailing_zeros() as usize;
        // SAFETY: the block is one of ours, which has room for an address, and nobody's any more.
        unsafe { block.cast::<*mut u8>().write(state.free[list]) };
        state.free[list] = block;
    }
}
