//! Time-stamp counter, segment bases, extended register state.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;

use crate::context::VECTORS_BYTES;

/// The time-stamp counter.
#[must_use]
pub fn time_stamp() -> u64 {
    // SAFETY: reads a counter; CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Base of the FS segment.
#[must_use]
pub fn fs_base() -> u64 {
    let base: u64;
    // SAFETY: CR4.FSGSBASE is set by the monitor; the instruction only reads.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

/// Sets the base of the FS segment, which the library OS itself never uses.
pub fn set_fs_base(base: u64) {
    // SAFETY: as above; no code of the guest's own addresses memory through FS. Callers give addresses of programs
    // (see `user::is_program_range`), which are canonical; another one would raise an exception that ends this instance only.
    unsafe { asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
}

/// Base of the GS segment.
#[must_use]
pub fn gs_base() -> u64 {
    let base: u64;
    // SAFETY: as for `fs_base`.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

/// Sets the base of the GS segment, which the library OS itself never uses.
pub fn set_gs_base(base: u64) {
    // SAFETY: as for `set_fs_base`.
    unsafe { asm!("wrgsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
}

/// The x87, SSE, AVX … registers of a task that does not run at the moment, in the layout of `xsave` (Intel SDM
/// volume 1, 13.4).
///
/// The low halves of the vector registers are kept in the task's `Context`; this is the rest.
pub struct ExtendedState {
    area: NonNull<u8>,
    layout: Layout,
    mask: u64,
}

/// Where the legacy region has MXCSR.
const MXCSR: usize = 24;
/// MXCSR of a fresh task: all exceptions masked.
const MXCSR_INITIAL: u32 = 0x1f80;
/// The bits of MXCSR that exist on every 64-bit processor; `xrstor` faults on others.
const MXCSR_BITS: u32 = 0xffff;
/// Where the legacy region has xmm0.
const VECTORS: usize = 160;
/// Where the header is: which components are not in their initial state, then what must be zero.
const HEADER: usize = 512;
/// End of the header.
const HEADER_END: usize = 576;
/// Component bit of the xmm registers.
const SSE: u64 = 1 << 1;

impl ExtendedState {
    /// The state of a fresh task. `mask` and `bytes` come from the boot page.
    #[must_use]
    pub fn new(mask: u64, bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(0).max(HEADER_END);
        let layout = Layout::from_size_align(bytes, 64).unwrap_or_else(|_| Layout::new::<[u8; 4096]>());
        let mut state = Self {
            area: allocate(layout),
            layout,
            mask,
        };
        state.reset();
        state
    }

    /// A copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut copy = Self {
            area: allocate(self.layout),
            layout: self.layout,
            mask: self.mask,
        };
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    /// Everything in its initial state.
    pub fn reset(&mut self) {
        let bytes = self.bytes_mut();
        bytes.fill(0);
        // `xrstor` loads it even where the header says that SSE is in its initial state.
        bytes[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    }

    /// The components that are saved, one bit each.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.mask
    }

    /// What `save` has left.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the area is `layout.size()` bytes long, initialised (zeroed when it was allocated), and ours.
        unsafe { core::slice::from_raw_parts(self.area.as_ptr(), self.layout.size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut self` makes it exclusive. `restore` faults on nothing that `sanitize` has seen.
        unsafe { core::slice::from_raw_parts_mut(self.area.as_ptr(), self.layout.size()) }
    }

    /// Takes over a state that a program has made, of which all is kept that the processor accepts. Components that
    /// `bytes` is too short for, or that are not in `mask`, get their initial state.
    pub fn set_bytes(&mut self, bytes: &[u8], mask: u64) {
        self.reset();
        let length = bytes.len().min(self.layout.size());
        let is_whole = length == self.layout.size();
        let (known, legacy) = (self.mask & mask, 0b11);
        let area = self.bytes_mut();
        area[..length].copy_from_slice(&bytes[..length]);
        let mut word = [0; 8];
        word.copy_from_slice(&area[HEADER..HEADER + 8]);
        let components = match () {
            () if is_whole => u64::from_le_bytes(word) & known,
            () if length >= HEADER => legacy,
            () => 0,
        };
        area[HEADER..HEADER_END].fill(0);
        area[HEADER..HEADER + 8].copy_from_slice(&components.to_le_bytes());
        let mut mxcsr = [0; 4];
        mxcsr.copy_from_slice(&area[MXCSR..MXCSR + 4]);
        let mxcsr = u32::from_le_bytes(mxcsr) & MXCSR_BITS;
        area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    }

    /// xmm0 … xmm15.
    #[must_use]
    pub fn vectors(&self) -> [u8; VECTORS_BYTES] {
        let mut vectors = [0; VECTORS_BYTES];
        let bytes = self.bytes();
        if u64::from(bytes[HEADER]) & SSE != 0 {
            vectors.copy_from_slice(&bytes[VECTORS..VECTORS + VECTORS_BYTES]);
        }
        vectors
    }

    /// Sets xmm0 … xmm15.
    pub fn set_vectors(&mut self, vectors: &[u8; VECTORS_BYTES]) {
        let bytes = self.bytes_mut();
        bytes[VECTORS..VECTORS + VECTORS_BYTES].copy_from_slice(vectors);
        bytes[HEADER] |= SSE as u8;
    }

    /// Saves the processor's state here.
    pub fn save(&mut self) {
        // SAFETY: the area is 64-byte aligned and as large as the monitor says that `xsave` needs for this mask. Bytes
        // 8 to 63 of the header are zero, as they must be: `xsave` leaves them alone, and so do the functions above.
        unsafe {
            asm!("xsave64 [{}]", in(reg) self.area.as_ptr(), in("eax") self.mask as u32,
                in("edx") (self.mask >> 32) as u32, options(nostack));
        }
    }

    /// Loads the processor's state from here. The caller's own code keeps nothing in these registers.
    pub fn restore(&self) {
        // SAFETY: the area was written by `save`, is the initial state, or was made acceptable by `set_bytes`. All
        // vector registers are declared as clobbered, so that the compiler keeps nothing in them across.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) self.area.as_ptr(), in("eax") self.mask as u32,
                in("edx") (self.mask >> 32) as u32,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nostack));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout's size is not zero: it is at least that of the legacy region and the header.
    let Some(area) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
        handle_alloc_error(layout)
    };
    area
}

impl Drop for ExtendedState {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { alloc::alloc::dealloc(self.area.as_ptr(), self.layout) };
    }
}

/// Makes the processor fetch instructions anew that were written through another address (Intel SDM volume 3, 9.1.3).
pub fn serialize() {
    // SAFETY: returns to the next instruction with the same stack, flags and segments; `iretq` is one of the
    // serializing instructions that need no privilege. It uses the stack, so no `nostack`.
    unsafe {
        asm!(
            "mov {stack}, rsp",
            "mov {segment:e}, ss",
            "push {segment}",
            "push {stack}",
            "pushfq",
            "mov {segment:e}, cs",
            "push {segment}",
            "lea {stack}, [rip + 2f]",
            "push {stack}",
            "iretq",
            "2:",
            stack = out(reg) _,
            segment = out(reg) _,
        );
    }
}

/// Floating-point exceptions that are raised and not masked, of the vector unit and of the x87 unit: the low six bits
/// of MXCSR and of the status word.
#[must_use]
pub fn floating_point_exceptions() -> [u32; 2] {
    let mut mxcsr = 0_u32;
    let mut control = 0_u16;
    let mut status = 0_u16;
    // SAFETY: the instructions store into places of the right size, and wait for no exception.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
        asm!("fnstcw [{}]", in(reg) &raw mut control, options(nostack, preserves_flags));
        asm!("fnstsw [{}]", in(reg) &raw mut status, options(nostack, preserves_flags));
    }
    [mxcsr & !(mxcsr >> 7) & 0x3f, u32::from(status & !control & 0x3f)]
}

/// Feature bits of CPUID leaf 1 (edx), as AT_HWCAP carries them.
#[must_use]
pub fn features() -> u64 {
    #[allow(unused_unsafe, reason = "safe since Rust 1.94, unsafe before")]
    // SAFETY: every 64-bit processor has CPUID.
    let leaf = unsafe { core::arch::x86_64::__cpuid(1) };
    u64::from(leaf.edx)
}
