//! The bootable unikernel: entry, panic handler, allocator.

#![no_std]
#![no_main]

mod bytes;

use core::fmt::Write as _;
use core::panic::PanicInfo;

use spore_abi::layout::{FREE_GPA, PAGE_BYTES};
use spore_abi::pages::exit_kind;
use spore_machine::heap::Heap;
use spore_machine::shared;

#[global_allocator]
static HEAP: Heap = Heap::new();

/// Called by the entry code, on the boot stack.
// SAFETY: the name is the one that the entry code of spore-machine calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn machine_main() -> ! {
    let boot = shared::boot();
    let program_bytes = boot.memory_limit_bytes & !(PAGE_BYTES - 1);
    HEAP.start(
        boot.ram_bytes
            .saturating_sub(program_bytes)
            .max(FREE_GPA + PAGE_BYTES),
    );
    spore_libos::start()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut message = Message {
        bytes: [0; 240],
        length: 0,
    };
    // Cannot fail: what does not fit is cut off.
    let _ = write!(message, "{info}");
    let text = core::str::from_utf8(&message.bytes[..message.length]).unwrap_or("panic");
    shared::end(exit_kind::LIBRARY_OS_FAILED, 0, text)
}

/// Named by the landing pads in the standard library's precompiled parts. A panic ends the instance without unwinding,
/// so that nobody calls it.
// SAFETY: the symbol is the one that those parts name; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As for [`rust_eh_personality`].
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    shared::end(exit_kind::LIBRARY_OS_FAILED, 0, "unwinding")
}

struct Message {
    bytes: [u8; 240],
    length: usize,
}

impl core::fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = text.len().min(self.bytes.len() - self.length);
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
        Ok(())
    }
}
