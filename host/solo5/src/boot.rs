//! What a guest finds when it begins: segment descriptors, page tables, what it is told, and its registers.
//!
//! All memory is mapped to itself. Of the kernel, pages are as its segments say; whatever is behind it may be written to and executed, for
//! what it is to be is the guest's affair.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::abi::{COMMAND_LINE_BYTES, COMMAND_LINE_BYTES_MAX, KERNEL_START, LARGE_PAGE_BYTES, PAGE_BYTES};
use crate::kernel::Kernel;
use crate::memory::{Memory, OutOfRange};

/// Places in guest memory ([`crate::abi`]).
const DESCRIPTORS: u64 = 0x1000;
const TOP_TABLE: u64 = 0x2000;
const DIRECTORY_POINTERS: u64 = 0x3000;
const DIRECTORIES: u64 = 0x4000;
/// Tables of small pages: these, and then those.
const TABLES: u64 = 0x8000;
const TABLES_END: u64 = 0x1_0000;
const MORE_TABLES: u64 = 0x2_0000;
const BOOT_INFORMATION: u64 = 0x1_0000;
/// Entries of page tables: present, writable, a large page, not to be executed.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NOT_EXECUTED: u64 = 1 << 63;
/// Selectors of the segments.
const CODE: u16 = 8;
const DATA: u16 = 16;
/// Protected mode, numeric error, write protect, paging.
const CR0: u64 = 0x8001_0021;
/// Physical address extension, SSE and its exceptions.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// Long mode enabled and active, no-execute.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// The flag that is always there.
const FLAGS: u64 = 2;
/// Length of the boot information, with the fields that are of no use without rings of memory shared with the guest.
const INFORMATION_BYTES: usize = 64;

/// What a guest is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    /// The manifest, with properties of the devices.
    pub(crate) manifest: &'a [u8],
    /// At most [`COMMAND_LINE_BYTES_MAX`] bytes, without a zero.
    pub(crate) command_line: &'a str,
    /// Rate of the time-stamp counter, in hertz.
    pub(crate) time_stamp_hz: u64,
}

/// Writes all of it but the kernel.
pub(crate) fn prepare(memory: &impl Memory, kernel: &Kernel, told: &Told<'_>) -> Result<(), OutOfRange> {
    for (index, descriptor) in [0, descriptor(&code()), descriptor(&data())]
        .into_iter()
        .enumerate()
    {
        memory.write(DESCRIPTORS + index as u64 * 8, &descriptor.to_le_bytes())?;
    }
    page_tables(memory, kernel)?;
    information(memory, kernel, told)
}

/// The form that a segment has in memory.
fn descriptor(segment: &kvm_segment) -> u64 {
    // Limits are counted in pages here.
    let limit = u64::from(segment.limit) >> 12;
    let kind = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let size = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    limit & 0xffff | kind << 40 | (limit >> 16 & 0xf) << 48 | size << 52
}

fn code() -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector: CODE,
        // Executed, read, accessed.
        type_: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

fn data() -> kvm_segment {
    kvm_segment {
        selector: DATA,
        // Read, written to, accessed.
        type_: 3,
        l: 0,
        db: 1,
        ..code()
    }
}

/// The tables: large pages, but for those in which the kernel is and what comes before it.
fn page_tables(memory: &impl Memory, kernel: &Kernel) -> Result<(), OutOfRange> {
    let put = |place: u64, value: u64| memory.write(place, &value.to_le_bytes());
    put(TOP_TABLE, DIRECTORY_POINTERS | PRESENT | WRITABLE)?;
    for index in 0..4 {
        let directory = DIRECTORIES + index * PAGE_BYTES;
        put(DIRECTORY_POINTERS + index * 8, directory | PRESENT | WRITABLE)?;
    }
    let mut tables = (TABLES..TABLES_END)
        .chain(MORE_TABLES..KERNEL_START)
        .step_by(PAGE_BYTES as usize);
    for large in (0..memory.length()).step_by(LARGE_PAGE_BYTES as usize) {
        let entry = DIRECTORIES + large / LARGE_PAGE_BYTES * 8;
        if large >= kernel.end() {
            put(entry, large | PRESENT | WRITABLE | LARGE)?;
            continue;
        }
        // There are enough for the largest kernel (`kernel::END_MAX`).
        let table = tables.next().ok_or(OutOfRange {
            address: kernel.end(),
            length: PAGE_BYTES,
        })?;
        put(entry, table | PRESENT | WRITABLE)?;
        for index in 0..LARGE_PAGE_BYTES / PAGE_BYTES {
            let page = large + index * PAGE_BYTES;
            put(table + index * 8, small_page(kernel, page))?;
        }
    }
    Ok(())
}

/// The entry of a small page.
fn small_page(kernel: &Kernel, page: u64) -> u64 {
    if page < BOOT_INFORMATION {
        return 0;
    }
    if page < KERNEL_START {
        return page | PRESENT | NOT_EXECUTED;
    }
    let segment = kernel
        .segments
        .iter()
        .find(|segment| segment.pages.contains(&page));
    match segment {
        Some(segment) if segment.is_executable => page | PRESENT,
        Some(segment) if segment.is_writable => page | PRESENT | WRITABLE | NOT_EXECUTED,
        Some(_) => page | PRESENT | NOT_EXECUTED,
        None => page | PRESENT | WRITABLE,
    }
}

/// What the guest is told: numbers, then the manifest, then the command line.
fn information(memory: &impl Memory, kernel: &Kernel, told: &Told<'_>) -> Result<(), OutOfRange> {
    let manifest = BOOT_INFORMATION + INFORMATION_BYTES as u64;
    let command_line = (manifest + told.manifest.len() as u64).next_multiple_of(8);
    let numbers = [
        memory.length(),
        kernel.end(),
        told.time_stamp_hz,
        command_line,
        manifest,
    ];
    let mut bytes = [0; INFORMATION_BYTES];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    memory.write(BOOT_INFORMATION, &bytes)?;
    memory.write(manifest, told.manifest)?;
    let mut line = [0; COMMAND_LINE_BYTES];
    let length = told.command_line.len().min(COMMAND_LINE_BYTES_MAX);
    line[..length].copy_from_slice(&told.command_line.as_bytes()[..length]);
    memory.write(command_line, &line)
}

/// Registers at the first instruction: the stack is at the end of memory, as after a call, and the first argument says where it is told
/// what.
pub(crate) fn registers(entry: u64, memory_bytes: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsp: memory_bytes - 8,
        rdi: BOOT_INFORMATION,
        rflags: FLAGS,
        ..kvm_regs::default()
    }
}

/// Sets the registers that say in which mode the processor is.
pub(crate) fn set_special_registers(special: &mut kvm_sregs) {
    special.cs = code();
    for segment in [
        &mut special.ss,
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
    ] {
        *segment = data();
    }
    special.tr = kvm_segment {
        // That of a task which runs, as the processor wants it.
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    special.ldt = kvm_segment {
        unusable: 1,
        ..kvm_segment::default()
    };
    special.gdt = kvm_dtable {
        base: DESCRIPTORS,
        limit: 3 * 8 - 1,
        ..kvm_dtable::default()
    };
    special.idt = kvm_dtable::default();
    special.cr0 = CR0;
    special.cr3 = TOP_TABLE;
    special.cr4 = CR4;
    special.efer = EFER;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::samples::{CODE, DATA, abi, devices, kernel};
    use crate::manifest::samples::manifest;
    use crate::memory::Bytes;

    const MEMORY_BYTES: usize = 4 << 20;

    fn prepared(command_line: &str) -> (Bytes, Vec<u8>) {
        let parts = [
            (0x10_0000, &b"code"[..], 4, CODE),
            (0x10_1000, b"constants", 9, 4),
            (0x10_2000, b"data", 0x2000, DATA),
        ];
        let manifest = manifest(&[2]);
        let file = kernel(0x10_0000, &parts, &[abi(1, 2), devices(&manifest)]);
        let found = Kernel::read(&file[..]).unwrap();
        let memory = Bytes(vec![0; MEMORY_BYTES].into());
        let told = Told {
            manifest: &manifest,
            command_line,
            time_stamp_hz: 7,
        };
        prepare(&memory, &found, &told).unwrap();
        (memory, manifest)
    }

    fn number(memory: &Bytes, address: u64) -> u64 {
        let mut bytes = [0; 8];
        memory.read(address, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// What the tables say of an address, as the processor reads them.
    fn translated(memory: &Bytes, address: u64) -> u64 {
        let mut entry = TOP_TABLE | PRESENT;
        for shift in [39, 30, 21, 12] {
            if entry & PRESENT == 0 || entry & LARGE != 0 {
                break;
            }
            let table = entry & 0x000f_ffff_ffff_f000;
            entry = number(memory, table + (address >> shift & 511) * 8);
        }
        entry
    }

    #[test]
    fn pages_are_as_the_segments_say() {
        let (memory, _) = prepared("");
        let flags = |address| {
            let entry = translated(&memory, address);
            let is = |flag: u64| entry & flag != 0;
            let place = entry & 0x000f_ffff_ffff_f000;
            assert!(
                !is(PRESENT) || address & !0x1f_ffff == place & !0x1f_ffff,
                "{address:#x}"
            );
            (is(PRESENT), is(WRITABLE), !is(NOT_EXECUTED))
        };
        let nothing = (false, false, true);
        for (address, expected) in [
            (0, nothing),
            (DESCRIPTORS, nothing),
            (TABLES, nothing),
            (BOOT_INFORMATION, (true, false, false)),
            (MORE_TABLES, (true, false, false)),
            (0x10_0000, (true, false, true)),
            (0x10_1000, (true, false, false)),
            (0x10_2000, (true, true, false)),
            (0x10_3000, (true, true, false)),
            (0x10_4000, (true, true, true)),
            (MEMORY_BYTES as u64 - 1, (true, true, true)),
            (MEMORY_BYTES as u64, nothing),
            (0xffff_ffff, nothing),
            (1 << 32, nothing),
        ] {
            assert_eq!(flags(address), expected, "{address:#x}");
        }
    }

    #[test]
    fn a_guest_is_told_what_it_needs() {
        let (memory, manifest) = prepared("--ipv4=10.0.0.2/24 a");
        let told = |index: u64| number(&memory, BOOT_INFORMATION + index * 8);
        assert_eq!([told(0), told(1), told(2)], [MEMORY_BYTES as u64, 0x10_4000, 7]);
        let mut line = [0; 21];
        memory.read(told(3), &mut line).unwrap();
        assert_eq!(line, *b"--ipv4=10.0.0.2/24 a\0");
        let mut found = vec![0; manifest.len()];
        memory.read(told(4), &mut found).unwrap();
        assert_eq!(found, manifest);
        // Nothing is offered that a tender may have.
        assert_eq!([told(5), told(6), told(7)], [0; 3]);
        let (memory, _) = prepared(&"a".repeat(20_000));
        let line = number(&memory, BOOT_INFORMATION + 24);
        assert_eq!(number(&memory, line + COMMAND_LINE_BYTES as u64 - 8) >> 56, 0);
        assert!(line + (COMMAND_LINE_BYTES as u64) < MORE_TABLES);
    }

    #[test]
    fn descriptors_are_those_of_64_bit_code_and_flat_data() {
        assert_eq!(descriptor(&code()), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
    }
}
