//! Time-stamp counter, segment bases, extended register state.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;

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

/// The x87, SSE, AVX … registers of a task that does not run at the moment.
///
/// The low halves of the vector registers are kept in the task's `Context`; this is the rest.
pub struct ExtendedState {
    area: NonNull<u8>,
    layout: Layout,
    mask: u64,
}

impl ExtendedState {
    /// The state of a fresh task. `mask` and `bytes` come from the boot page.
    #[must_use]
    pub fn new(mask: u64, bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(0).max(4096);
        let layout = Layout::from_size_align(bytes, 64).unwrap_or_else(|_| Layout::new::<[u8; 4096]>());
        // SAFETY: the layout's size is not zero.
        let Some(area) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the area is at least 4096 bytes long and aligned; MXCSR lies at byte 24 of the legacy region
        // (Intel SDM volume 1, 13.4.1). `xrstor` loads it even where the header says that SSE is in its initial
        // state.
        unsafe { area.as_ptr().add(24).cast::<u32>().write(0x1f80) };
        Self { area, layout, mask }
    }

    /// Saves the processor's state here.
    pub fn save(&mut self) {
        // SAFETY: the area is 64-byte aligned and as large as the monitor says that `xsave` needs for this mask.
        unsafe {
            asm!("xsave64 [{}]", in(reg) self.area.as_ptr(), in("eax") self.mask as u32,
                in("edx") (self.mask >> 32) as u32, options(nostack));
        }
    }

    /// Loads the processor's state from here. The caller's own code keeps nothing in these registers.
    pub fn restore(&self) {
        // SAFETY: the area was written by `save` or is the initial state. All vector registers are declared as
        // clobbered, so that the compiler keeps nothing in them across.
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

/// Feature bits of CPUID leaf 1 (edx), as AT_HWCAP carries them.
#[must_use]
pub fn features() -> u64 {
    #[allow(unused_unsafe, reason = "safe since Rust 1.94, unsafe before")]
    // SAFETY: every 64-bit processor has CPUID.
    let leaf = unsafe { core::arch::x86_64::__cpuid(1) };
    u64::from(leaf.edx)
}
