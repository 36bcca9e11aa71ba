//! A small unikernel that is none of Spore's: its own boot code, a driver (`virtio-drivers`), a TCP/IP stack (`smoltcp`), and
//! a web server. Tests package it as Unikraft's are packaged; it takes the command line that Unikraft takes.
//!
//! No framework's kernel can be had from the package registries that the tests use, nor built from them. It stands for those:
//! a kernel that QEMU boots by PVH, with a network card, a serial console, and the power switch of the machine.

#![no_std]
#![no_main]

extern crate alloc;

mod answers;
// What the compiler calls is the same everywhere.
#[path = "../../../../guest/image/src/bytes.rs"]
mod bytes;
mod card;
mod command_line;
mod console;
mod http;
mod machine;
mod network;

use core::panic::PanicInfo;

use linked_list_allocator::LockedHeap;

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));

/// Called by the boot code with the address of what the machine tells (`hvm_start_info`).
// SAFETY: the name is the one that the boot code calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u64) -> ! {
    let told = machine::told(start_info);
    // SAFETY: the range is memory that neither the image nor what the machine tells is in, and the heap is made once.
    unsafe { HEAP.lock().init(told.free.start as *mut u8, told.free.len()) };
    machine::prepare();
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
    machine::reset()
}

/// Named by the landing pads in the standard library's precompiled parts; nobody calls it.
// SAFETY: the symbol is the one that those parts name; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As for [`rust_eh_personality`].
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    machine::reset()
}
