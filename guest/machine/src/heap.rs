//! The library OS's own memory: a TLSF allocator over a stretch of RAM.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use rlsf::Tlsf;
use spore_abi::layout;

use crate::reserved;

type Allocator = Tlsf<'static, u32, u32, 28, 16>;

/// The global allocator of the image.
pub struct Heap(UnsafeCell<Allocator>);

// SAFETY: there is one virtual processor, and the library OS is never interrupted while it runs, so that no two calls
// overlap.
unsafe impl Sync for Heap {}

impl Heap {
    /// An allocator without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Tlsf::new()))
    }

    /// Gives RAM from the first free byte up to `end_gpa` to the allocator and reserves it for the library OS.
    /// Only the first call has an effect.
    pub fn start(&'static self, end_gpa: u64) {
        if reserved::end_gpa() != layout::RAM_BYTES_MAX || end_gpa <= layout::FREE_GPA {
            return;
        }
        reserved::set_end_gpa(end_gpa);
        let start = (layout::WINDOW_BASE + layout::FREE_GPA) as *mut MaybeUninit<u8>;
        let length = (end_gpa - layout::FREE_GPA) as usize;
        // SAFETY: the monitor maps RAM up to `end_gpa` there; nothing else uses this stretch, since `reserved` keeps
        // programs out and this function acts only once.
        let block = unsafe { core::slice::from_raw_parts_mut(start, length) };
        // SAFETY: no other reference to the allocator exists: calls do not overlap (see `Sync` above).
        unsafe { (*self.0.get()).insert_free_block(block) };
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: TLSF returns blocks of the asked size and alignment that do not overlap live ones.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: calls do not overlap (see `Sync` above).
        let allocator = unsafe { &mut *self.0.get() };
        allocator
            .allocate(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: calls do not overlap; the caller gives a block of this allocator with its alignment.
        unsafe { (*self.0.get()).deallocate(block, layout.align()) };
    }
}
