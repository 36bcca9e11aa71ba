//! A few instructions of ours that run in the guest and put its memory back; see `reset`.
//!
//! ```text
//!   virtual                           guest-physical             the guest may
//!   STUB_BASE     instructions        STUB_GPA                   read: a slot that is read-only
//!                 zeros, list
//!                 (page tables)
//!     + STACKS    monitor's stacks    MONITOR_GPA + ...
//!   SOURCE_BASE   the snapshot        SOURCE_GPA                 read: the same
//!   WINDOW_BASE   RAM                 0                          write, as always
//!   MONITOR_BASE  monitor's area      MONITOR_GPA                for the doorbell's entry in the task state
//! ```

use std::arch::global_asm;

use spore_abi::doorbell::DOORBELL_PORT;
use spore_abi::layout::{
    LARGE_PAGE_BYTES, MONITOR_BASE, MONITOR_GPA, PAGE_BYTES, RAM_BYTES_MAX, WINDOW_BASE,
};

use crate::memory::{OutOfRange, Region};
use crate::tables::{self, LARGE, MONITOR_STACKS, NO_EXECUTE, PRESENT, TOUCHED, USER, USER_TABLE, WRITABLE};

/// Guest-physical address of the stub's memory.
pub(super) const STUB_GPA: u64 = 0x30_0000_0000;
/// Guest-physical address of the snapshot.
pub(super) const SOURCE_GPA: u64 = 0x38_0000_0000;
const STUB_BASE: u64 = 0x2180_0000_0000;
const SOURCE_BASE: u64 = 0x2100_0000_0000;

const ZEROS: u64 = PAGE_BYTES;
const LIST: u64 = 2 * PAGE_BYTES;
const ENTRY_BYTES: u64 = 16;
/// Most pages that are put back at a time.
pub(super) const PAGES_MAX: u64 = (16 << 20) / PAGE_BYTES;
const TABLES: u64 = LIST + (PAGES_MAX * ENTRY_BYTES).next_multiple_of(PAGE_BYTES);
/// Three for the stub's own memory below the top; for RAM and the snapshot one each, and one for each gigabyte.
const TABLES_MAX: u64 = 4 + 2 * (1 + RAM_BYTES_MAX.div_ceil(1 << 30));
/// Size of the stub's memory, in bytes.
pub(super) const STUB_BYTES: u64 = TABLES + TABLES_MAX * PAGE_BYTES;
/// Where the monitor's stacks are, from the stub on.
const STACKS: u64 = LARGE_PAGE_BYTES / 2;

const _: () =
    assert!(MONITOR_GPA + LARGE_PAGE_BYTES <= STUB_GPA && tables::MONITOR_BYTES < LARGE_PAGE_BYTES as usize);
const _: () = assert!(STUB_GPA + LARGE_PAGE_BYTES <= SOURCE_GPA);
const _: () = assert!(STUB_BYTES <= STACKS);

/// What the stub rings the doorbell with when it is done; no request of a guest's.
pub(super) const DONE: u32 = u32::from_le_bytes(*b"done");

// rbx: the list, each entry the address of a page and of what it is to be; rcx: its length, at least 1.
global_asm!(
    ".pushsection .rodata.spore_stub, \"a\"",
    ".balign 16",
    "spore_stub_start:",
    "2: mov rdi, [rbx]",
    "   mov rsi, [rbx + 8]",
    "   mov edx, 64",
    // 64 bytes at a time are compared.
    "3: movdqa xmm0, [rsi]",
    "   movdqa xmm1, [rsi + 16]",
    "   movdqa xmm2, [rsi + 32]",
    "   movdqa xmm3, [rsi + 48]",
    "   pcmpeqb xmm0, [rdi]",
    "   pcmpeqb xmm1, [rdi + 16]",
    "   pcmpeqb xmm2, [rdi + 32]",
    "   pcmpeqb xmm3, [rdi + 48]",
    "   pand xmm0, xmm1",
    "   pand xmm2, xmm3",
    "   pand xmm0, xmm2",
    "   pmovmskb eax, xmm0",
    "   cmp eax, 0xffff",
    "   jne 5f",
    "4: add rsi, 64",
    "   add rdi, 64",
    "   dec edx",
    "   jnz 3b",
    "   add rbx, 16",
    "   dec rcx",
    "   jnz 2b",
    "   mov edx, {port}",
    "   mov eax, {done}",
    "   out dx, eax",
    "   ud2",
    // Word by word, with the simplest instruction: KVM carries it out itself where the page is a table that it shadows.
    "5: mov r8d, 8",
    "6: mov rax, [rsi + r8 * 8 - 8]",
    "   cmp [rdi + r8 * 8 - 8], rax",
    "   je 7f",
    "   mov [rdi + r8 * 8 - 8], rax",
    "7: dec r8d",
    "   jnz 6b",
    "   jmp 4b",
    "spore_stub_end:",
    ".popsection",
    port = const DOORBELL_PORT,
    done = const DONE,
);

unsafe extern "C" {
    static spore_stub_start: u8;
    static spore_stub_end: u8;
}

fn instructions() -> &'static [u8] {
    let (start, end) = (&raw const spore_stub_start, &raw const spore_stub_end);
    // SAFETY: the symbols enclose constants of this program, written above, that nobody changes.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// The stub's memory as the guest sees it.
pub(super) struct Stub(Region);

/// What a page is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// What the snapshot has at this guest-physical address.
    Snapshot(u64),
    Zeros,
}

/// A page that is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// At this guest-physical address of RAM.
    Ram(u64),
    /// The monitor's stack page of this number.
    Stack(u64),
}

impl Stub {
    /// A stub for a guest with so much RAM, and a snapshot as large.
    pub(super) fn new(ram_bytes: u64) -> Result<Self, crate::machine::MachineError> {
        let memory = Region::anonymous(STUB_BYTES as usize, PAGE_BYTES as usize)
            .map_err(crate::machine::MachineError::Memory)?;
        memory.write_bytes(0, instructions())?;
        fill_tables(&memory, ram_bytes)?;
        Ok(Self(memory))
    }

    pub(super) fn region(&self) -> &Region {
        &self.0
    }

    /// Notes the page that is put back as the one of this number, from 0.
    pub(super) fn note(&self, number: u64, page: Page, contents: Contents) -> Result<(), OutOfRange> {
        let destination = match page {
            Page::Ram(gpa) => WINDOW_BASE + gpa,
            Page::Stack(number) => STUB_BASE + STACKS + number * PAGE_BYTES,
        };
        let source = match contents {
            Contents::Snapshot(gpa) => SOURCE_BASE + gpa,
            Contents::Zeros => STUB_BASE + ZEROS,
        };
        self.0.write(LIST + number * ENTRY_BYTES, [destination, source])
    }

    /// Guest-physical address of the top-level page table.
    pub(super) fn top_table_gpa() -> u64 {
        STUB_GPA + TABLES
    }

    /// Registers with which so many pages are put back.
    pub(super) fn registers(pages: u64) -> spore_abi::pages::Registers {
        let mut general = [0; 16];
        (general[1], general[3]) = (pages, STUB_BASE + LIST);
        spore_abi::pages::Registers {
            general,
            rip: STUB_BASE,
            rflags: 2,
        }
    }
}

/// Makes page tables with which a processor at CPL 3 never has a reason to write to them.
fn fill_tables(memory: &Region, ram_bytes: u64) -> Result<(), OutOfRange> {
    let index = |address: u64, shift: u32| (address >> shift & 511) * 8;
    let mut unused = TABLES + PAGE_BYTES;
    let mut table = || {
        unused += PAGE_BYTES;
        unused - PAGE_BYTES
    };
    memory.write(TABLES + index(MONITOR_BASE, 39), tables::monitor_entry())?;
    // RAM is mapped with the very bits that the guest's own window has: KVM then uses the tables that it has made for that.
    let (read, write) = (PRESENT | USER | NO_EXECUTE | TOUCHED, WRITABLE);
    for (base, gpa, bits) in [
        (WINDOW_BASE, 0, read | write | LARGE),
        (SOURCE_BASE, SOURCE_GPA, read | LARGE),
    ] {
        let directories = table();
        memory.write(TABLES + index(base, 39), (STUB_GPA + directories) | USER_TABLE)?;
        let mut directory = 0;
        for offset in (0..ram_bytes).step_by(LARGE_PAGE_BYTES as usize) {
            if offset.is_multiple_of(512 * LARGE_PAGE_BYTES) {
                directory = table();
                memory.write(
                    directories + index(base + offset, 30),
                    (STUB_GPA + directory) | USER_TABLE,
                )?;
            }
            memory.write(directory + index(base + offset, 21), (gpa + offset) | bits)?;
        }
    }
    let mut parent = TABLES;
    for shift in [39, 30, 21] {
        let next = table();
        memory.write(parent + index(STUB_BASE, shift), (STUB_GPA + next) | USER_TABLE)?;
        parent = next;
    }
    for place in (0..TABLES).step_by(PAGE_BYTES as usize) {
        let bits = if place == 0 { read & !NO_EXECUTE } else { read };
        memory.write(parent + index(place, 12), (STUB_GPA + place) | bits)?;
    }
    for offset in (0..MONITOR_STACKS.end - MONITOR_STACKS.start).step_by(PAGE_BYTES as usize) {
        let gpa = MONITOR_GPA + MONITOR_STACKS.start + offset;
        memory.write(parent + index(STACKS + offset, 12), gpa | read | write)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_memory_has_its_tables() {
        let stub = Stub::new(RAM_BYTES_MAX).unwrap();
        let walk = |address: u64| {
            let mut at = TABLES;
            for shift in [39, 30, 21, 12] {
                let entry: u64 = stub.0.read(at + (address >> shift & 511) * 8).unwrap();
                let is_leaf = shift == 12 || entry & LARGE != 0;
                if entry & PRESENT == 0 || is_leaf {
                    let within = address & ((1 << shift) - 1);
                    return (entry & PRESENT != 0).then(|| ((entry & 0x000f_ffff_ffff_f000) + within, entry));
                }
                at = (entry & 0x000f_ffff_ffff_f000) - STUB_GPA;
            }
            None
        };
        for gpa in (0..RAM_BYTES_MAX).step_by((64 << 20) + PAGE_BYTES as usize) {
            let (destination, bits) = walk(WINDOW_BASE + gpa).unwrap();
            assert_eq!((destination, bits & (WRITABLE | USER)), (gpa, WRITABLE | USER));
            let (source, bits) = walk(SOURCE_BASE + gpa).unwrap();
            assert_eq!((source, bits & (WRITABLE | USER)), (SOURCE_GPA + gpa, USER));
        }
        let (code, bits) = walk(STUB_BASE).unwrap();
        assert_eq!((code, bits & (WRITABLE | NO_EXECUTE)), (STUB_GPA, 0));
        let last = LIST + PAGES_MAX * ENTRY_BYTES - 8;
        assert_eq!(walk(STUB_BASE + last).unwrap().0, STUB_GPA + last);
        let stack = walk(STUB_BASE + STACKS + 3 * PAGE_BYTES).unwrap().0;
        assert_eq!(stack, MONITOR_GPA + MONITOR_STACKS.end - PAGE_BYTES);
        assert!(
            walk(STUB_BASE + TABLES).is_none(),
            "nobody needs to see the tables"
        );
        assert!(instructions().len() < PAGE_BYTES as usize);
    }
}
