//! A small unikernel for Solo5's `hvt`: boot code and hypercalls of its own, the rest as in the one for QEMU (`foreign`). Tests package it as those
//! of Rumprun are packaged for urunc; it takes the command line that they take, and MirageOS's.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../foreign/src/answers.rs"]
mod answers;
// What the compiler calls is the same everywhere.
#[path = "../../../../guest/image/src/bytes.rs"]
mod bytes;
mod card;
mod command_line;
mod console;
mod heap;
#[path = "../../foreign/src/http.rs"]
mod http;
mod machine;
#[path = "../../foreign/src/network.rs"]
mod network;

use core::panic::PanicInfo;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::empty();

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));

/// Called by the boot code with the address of what the tender tells.
// SAFETY: the name is the one that the boot code calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(boot_information: u64) -> ! {
    let told = machine::told(boot_information);
    // SAFETY: the range is memory behind the image and before the stack, and the heap is made once.
    unsafe { HEAP.init(told.free.start, told.free.end) };
    let settings = command_line::parse(&told.command_line());
    println!(
        "{} starts with {} bytes of memory",
        settings.name,
        told.free.len()
    );
    match settings.variable("START") {
        Some("exit") => machine::exit(0),
        Some("sleep") => loop {
            machine::wait();
        },
        _ => {}
    }
    let mut network = network::Network::start(&settings);
    http::serve(&mut network, &settings)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    machine::exit(machine::ABORTED)
}

/// Named by the landing pads in the standard library's precompiled parts; nobody calls it.
// SAFETY: the symbol is the one that those parts name; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As for [`rust_eh_personality`].
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    machine::exit(machine::ABORTED)
}
