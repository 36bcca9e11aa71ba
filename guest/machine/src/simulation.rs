//! The guest's memory in an ordinary process, for tests: RAM and a module at the addresses where the guest has them.
//! Page tables are edited there as in the guest, but no processor reads them.

use core::arch::asm;
use core::ptr::{addr_of_mut, write_volatile};
use core::sync::atomic::{AtomicU64, Ordering};

use spore_abi::layout::{self, PAGE_BYTES};
use spore_abi::pages::{BootPage, TextOffer};
use zerocopy::FromZeros;

use crate::reserved;

/// How often the doorbell was rung.
pub static DOORBELLS: AtomicU64 = AtomicU64::new(0);

/// Makes RAM of `ram_bytes`, all zero, of which programs get what is behind `reserved_end_gpa`, and a module; what was
/// there before is gone. Each page of the module holds its number. The caller sees to it that nothing uses what a call
/// before has made.
#[must_use]
pub fn start(ram_bytes: u64, reserved_end_gpa: u64, module_bytes: u64) -> BootPage {
    map(layout::WINDOW_BASE, ram_bytes);
    map(layout::MODULES_BASE, module_bytes);
    for index in 0..module_bytes / PAGE_BYTES {
        let page = (layout::MODULES_BASE + index * PAGE_BYTES) as *mut u64;
        // SAFETY: mapped just now, writable, aligned.
        unsafe { write_volatile(page, index) };
    }
    let mut boot = BootPage::new_zeroed();
    boot.ram_bytes = ram_bytes;
    boot.memory_limit_bytes = ram_bytes - reserved_end_gpa;
    boot.root_bytes = module_bytes;
    boot.top_table_gpa = layout::PAGE_TABLES_GPA;
    boot.page_tables_used_gpa = layout::PAGE_TABLES_GPA + 5 * PAGE_BYTES;
    let place = (layout::WINDOW_BASE + layout::BOOT_PAGE_GPA) as *mut BootPage;
    // SAFETY: the boot page lies in the RAM that was mapped just now.
    unsafe { write_volatile(addr_of_mut!(*place), boot) };
    fill_window_tables(ram_bytes);
    reserved::set_end_gpa(reserved_end_gpa);
    boot
}

/// Does with an offer what the host does in a snapshot.
pub fn accept_offer(offer: &TextOffer, page: u64) {
    assert!(
        offer.entry_gpa < layout::FREE_GPA,
        "it lies in the first pool of tables"
    );
    let place = (layout::WINDOW_BASE + offer.entry_gpa) as *mut u64;
    let entry = (layout::TEXT_GPA + page * layout::LARGE_PAGE_BYTES) | 0xe5;
    // SAFETY: within the pool of tables, which lies in RAM.
    unsafe { write_volatile(place, entry) };
}

/// Tables of the window, as the monitor makes them, for up to 1 GiB.
fn fill_window_tables(ram_bytes: u64) {
    let entry = |table: u64, index: u64, value: u64| {
        let place =
            (layout::WINDOW_BASE + layout::PAGE_TABLES_GPA + table * PAGE_BYTES + index * 8) as *mut u64;
        // SAFETY: within the pool of tables, which lies in RAM.
        unsafe { write_volatile(place, value) };
    };
    let table = |number: u64| (layout::PAGE_TABLES_GPA + number * PAGE_BYTES) | 0x27;
    entry(0, layout::WINDOW_BASE >> 39, table(1));
    entry(1, 0, table(2));
    for index in 0..(ram_bytes / layout::LARGE_PAGE_BYTES).min(512) {
        entry(
            2,
            index,
            (index * layout::LARGE_PAGE_BYTES) | 0x8000_0000_0000_00e7,
        );
    }
}

fn map(address: u64, bytes: u64) {
    const MMAP: u64 = 9;
    let protection = 3_u64;
    // Private, fixed, anonymous, without reservation.
    let flags = 0x2 | 0x10 | 0x20 | 0x4000_u64;
    let result: u64;
    // SAFETY: an ordinary system call. The range is one that nothing of this process uses: test programs are placed
    // elsewhere, and the caller has given up what was here.
    unsafe {
        asm!("syscall", inlateout("rax") MMAP => result, in("rdi") address, in("rsi") bytes, in("rdx") protection,
            in("r10") flags, in("r8") u64::MAX, in("r9") 0_u64, lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    assert_eq!(result, address, "the guest's memory cannot be mapped here");
}

pub(crate) fn ring(request: u32) {
    assert_ne!(
        request,
        spore_abi::doorbell::EXIT,
        "the library OS ends the instance"
    );
    DOORBELLS.fetch_add(1, Ordering::Relaxed);
}
