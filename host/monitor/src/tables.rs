//! What the processor finds before its first instruction: page tables, descriptor tables, exception stubs.
//!
//! The monitor's own area, which only the supervisor can reach:
//!
//! ```text
//!   0x0000 GDT     0x1000 IDT     0x2000 TSS with I/O bitmap     0x3000 exception stubs
//!   0x4000 stack of exceptions (IST 1)   0x6000 stack of NMI, #DF, #MC (IST 2)
//!   0x8000 page tables that map this area
//! ```

use spore_abi::doorbell::{DOORBELL_PORT, DOORBELL_PORTS, EXCEPTION_PORT};
use spore_abi::layout::{
    LARGE_PAGE_BYTES, MODULES_BASE, MODULES_GPA, MONITOR_BASE, MONITOR_GPA, PAGE_BYTES, PAGE_TABLES_GPA,
    WINDOW_BASE,
};

use crate::memory::{OutOfRange, Region};

/// Size of the monitor's area, in bytes.
pub(crate) const MONITOR_BYTES: usize = 0xb000;
const GDT: u64 = 0;
const IDT: u64 = 0x1000;
const TSS: u64 = 0x2000;
const STUBS: u64 = 0x3000;
const STACKS: [u64; 2] = [0x6000, 0x8000];
/// Where its stacks are; everything else in it stays as it was made.
pub(crate) const MONITOR_STACKS: std::ops::Range<u64> = 0x4000..0x8000;
const TABLES: u64 = MONITOR_STACKS.end;

/// Bytes between two exception stubs.
const STUB_BYTES: u64 = 16;
/// Exception vectors of the architecture.
const VECTORS: u64 = 32;

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
/// Accessed and dirty, set beforehand so that the processor never needs to write a table.
pub(crate) const TOUCHED: u64 = 1 << 5 | 1 << 6;
pub(crate) const USER_TABLE: u64 = PRESENT | WRITABLE | USER | 1 << 5;
pub(crate) const MONITOR_TABLE: u64 = PRESENT | WRITABLE | 1 << 5;

/// Selectors, as the GDT below lays them out. `SYSCALL` finds them through STAR.
pub(crate) const KERNEL_CODE: u16 = 0x10;
pub(crate) const USER_DATA: u16 = 0x2b;
pub(crate) const USER_CODE: u16 = 0x33;
pub(crate) const TASK_STATE: u16 = 0x40;
/// STAR: SYSRET loads CS from bits 63:48 plus 16 and SS from them plus 8; SYSCALL loads CS from bits 47:32.
pub(crate) const STAR: u64 = (0x23 << 48) | ((KERNEL_CODE as u64) << 32);

/// Length of the I/O bitmap, as far as there is one: what lies beyond is denied.
const BITMAP_BYTES: u64 = DOORBELL_PORT as u64 / 8 + 2;
/// Last byte of the task state: 104 bytes, then the bitmap.
const TSS_LIMIT: u64 = 0x68 + BITMAP_BYTES - 1;

/// Where the processor's tables are, and the last byte of each.
pub(crate) struct Places {
    pub(crate) gdt: (u64, u16),
    pub(crate) idt: (u64, u16),
    pub(crate) task_state: (u64, u32),
}

/// Where they are within the monitor's area.
pub(crate) const PLACES: Places = Places {
    gdt: (MONITOR_BASE + GDT, TASK_STATE + 15),
    idt: (MONITOR_BASE + IDT, (VECTORS * 16 - 1) as u16),
    task_state: (MONITOR_BASE + TSS, TSS_LIMIT as u32),
};

/// The ports that CPL 3 may use.
fn doorbell_ports() -> std::ops::Range<u16> {
    DOORBELL_PORT..DOORBELL_PORT + DOORBELL_PORTS
}

/// Fills the monitor's area.
pub(crate) fn fill_monitor_area(area: &Region) -> Result<(), OutOfRange> {
    let flat: [u64; 7] = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
    ];
    for (index, descriptor) in flat.iter().enumerate() {
        area.write(GDT + index as u64 * 8, *descriptor)?;
    }
    // Task state: 104 bytes, then the I/O bitmap: a clear bit allows a port, ports beyond the limit are denied.
    let bitmap_bytes = BITMAP_BYTES;
    let limit = TSS_LIMIT;
    let base = MONITOR_BASE + TSS;
    let low = (limit & 0xffff) | ((base & 0xff_ffff) << 16) | (0x8b << 40) | ((base >> 24 & 0xff) << 56);
    area.write(GDT + u64::from(TASK_STATE), low)?;
    area.write(GDT + u64::from(TASK_STATE) + 8, base >> 32)?;

    area.write(TSS + 4, MONITOR_BASE + STACKS[0])?;
    for (index, stack) in STACKS.iter().enumerate() {
        area.write(TSS + 0x24 + index as u64 * 8, MONITOR_BASE + stack)?;
    }
    area.write(TSS + 0x66, 0x68_u16)?;
    for index in 0..bitmap_bytes {
        let denied = (0..8).filter(|bit| !doorbell_ports().contains(&(index as u16 * 8 + bit)));
        area.write(TSS + 0x68 + index, denied.fold(0_u8, |bits, bit| bits | 1 << bit))?;
    }

    for vector in 0..VECTORS {
        let stub = MONITOR_BASE + STUBS + vector * STUB_BYTES;
        // `out EXCEPTION_PORT, al; hlt`: the monitor sees from the instruction pointer which stub it is.
        area.write_bytes(STUBS + vector * STUB_BYTES, &[0xe6, EXCEPTION_PORT as u8, 0xf4])?;
        // Which stack: non-maskable, double fault and machine check may come while another exception is served.
        let stack: u64 = if [2, 8, 18].contains(&vector) { 2 } else { 1 };
        // A breakpoint or overflow trap may be asked for by `int3` and `into` at CPL 3.
        let privilege: u64 = if [3, 4].contains(&vector) { 0xee } else { 0x8e };
        let low = (stub & 0xffff)
            | (u64::from(KERNEL_CODE) << 16)
            | (stack << 32)
            | (privilege << 40)
            | ((stub >> 16 & 0xffff) << 48);
        area.write(IDT + vector * 16, low)?;
        area.write(IDT + vector * 16 + 8, stub >> 32)?;
    }

    // Three levels below the guest's top table: 1 GiB, 2 MiB, 4 KiB.
    area.write(TABLES, (MONITOR_GPA + TABLES + PAGE_BYTES) | MONITOR_TABLE)?;
    area.write(
        TABLES + PAGE_BYTES,
        (MONITOR_GPA + TABLES + 2 * PAGE_BYTES) | MONITOR_TABLE,
    )?;
    for index in 0..TABLES / PAGE_BYTES {
        let page = (MONITOR_GPA + index * PAGE_BYTES) | PRESENT | WRITABLE | TOUCHED;
        area.write(TABLES + 2 * PAGE_BYTES + index * 8, page)?;
    }
    Ok(())
}

/// The exception vector whose stub is at `rip`, if one is.
pub(crate) fn stub_vector(rip: u64) -> Option<u32> {
    let vector = rip.checked_sub(MONITOR_BASE + STUBS)? / STUB_BYTES;
    (vector < VECTORS).then_some(vector as u32)
}

/// What the processor pushed on the stack of an exception.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExceptionFrame {
    pub(crate) error_code: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
}

/// Reads the frame of an exception from the stack pointer at its stub.
pub(crate) fn exception_frame(area: &Region, vector: u32, rsp: u64) -> Result<ExceptionFrame, OutOfRange> {
    let has_error_code = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
    let mut at = rsp.wrapping_sub(MONITOR_BASE);
    let mut next = || {
        let value = area.read::<u64>(at);
        at = at.wrapping_add(8);
        value
    };
    let error_code = if has_error_code { next()? } else { 0 };
    Ok(ExceptionFrame {
        error_code,
        rip: next()?,
        cs: next()?,
        rflags: next()?,
        rsp: next()?,
    })
}

/// The entry of a top-level table that leads to the monitor's area.
pub(crate) const fn monitor_entry() -> u64 {
    (MONITOR_GPA + TABLES) | MONITOR_TABLE
}

/// Makes the guest's page tables in its page-table pool: the window over RAM, the modules, the monitor's area.
/// Returns the guest-physical address of the first unused byte of the pool.
pub(crate) fn fill_guest_tables(
    ram: &Region,
    image: std::ops::Range<u64>,
    modules_bytes: u64,
) -> Result<u64, OutOfRange> {
    let top = PAGE_TABLES_GPA;
    let mut unused = top + PAGE_BYTES;
    let index = |address: u64, shift: u32| (address >> shift & 511) * 8;

    ram.write(top + index(MONITOR_BASE, 39), monitor_entry())?;
    let mut map = |base: u64, gpa: u64, bytes: u64, bits: &dyn Fn(u64) -> u64| -> Result<(), OutOfRange> {
        let directory = unused;
        unused += PAGE_BYTES;
        ram.write(top + index(base, 39), directory | USER_TABLE)?;
        let mut offset = 0;
        while offset < bytes {
            if offset.is_multiple_of(512 * LARGE_PAGE_BYTES) {
                ram.write(directory + index(base + offset, 30), unused | USER_TABLE)?;
                unused += PAGE_BYTES;
            }
            let table = unused - PAGE_BYTES;
            ram.write(
                table + index(base + offset, 21),
                (gpa + offset) | bits(gpa + offset),
            )?;
            offset += LARGE_PAGE_BYTES;
        }
        Ok(())
    };
    let data = PRESENT | WRITABLE | USER | LARGE | NO_EXECUTE | TOUCHED;
    // The image is one large page: text, constants and data of the library OS share its protection, as they share
    // the program's address space. The virtual machine is the boundary.
    map(WINDOW_BASE, 0, ram.length(), &|gpa| {
        if image.contains(&gpa) {
            data & !NO_EXECUTE
        } else {
            data
        }
    })?;
    if modules_bytes > 0 {
        map(MODULES_BASE, MODULES_GPA, modules_bytes, &|_| {
            PRESENT | USER | LARGE | NO_EXECUTE | TOUCHED
        })?;
    }
    Ok(unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doorbell_is_the_only_port_that_is_allowed() {
        let area = Region::anonymous(MONITOR_BYTES, 4096).unwrap();
        fill_monitor_area(&area).unwrap();
        let places = PLACES;
        let bitmap_bytes = u64::from(places.task_state.1) + 1 - 0x68;
        let is_allowed = |port: &u64| area.read::<u8>(TSS + 0x68 + port / 8).unwrap() >> (port % 8) & 1 == 0;
        let allowed: Vec<u64> = (0..bitmap_bytes * 8).filter(is_allowed).collect();
        assert_eq!(allowed, [0x50, 0x51, 0x52, 0x53]);
        assert!(!doorbell_ports().contains(&EXCEPTION_PORT));
    }

    #[test]
    fn the_largest_machine_leaves_room_for_tables_of_the_guests() {
        use spore_abi::layout::{MODULES_BYTES_MAX, PAGE_TABLES_BYTES, RAM_BYTES_MAX};
        let ram = Region::anonymous(RAM_BYTES_MAX as usize, 1 << 21).unwrap();
        let unused = fill_guest_tables(&ram, 0..0, MODULES_BYTES_MAX).unwrap();
        assert!(
            unused - PAGE_TABLES_GPA < PAGE_TABLES_BYTES / 8,
            "{} bytes are used",
            unused - PAGE_TABLES_GPA
        );
        let last = PAGE_TABLES_GPA + PAGE_TABLES_BYTES - PAGE_BYTES;
        assert_eq!(ram.read::<u64>(last).unwrap(), 0);
    }

    #[test]
    fn every_address_of_the_window_leads_to_its_frame() {
        let ram = Region::anonymous(3 << 30, 1 << 21).unwrap();
        let image = spore_abi::layout::IMAGE_GPA..spore_abi::layout::PAGE_TABLES_GPA;
        let unused = fill_guest_tables(&ram, image.clone(), 5 << 20).unwrap();
        assert!(unused < PAGE_TABLES_GPA + spore_abi::layout::PAGE_TABLES_BYTES);
        let walk = |address: u64| {
            let mut table = PAGE_TABLES_GPA;
            for shift in [39, 30, 21] {
                let entry = ram.read::<u64>(table + (address >> shift & 511) * 8).unwrap();
                if entry & PRESENT == 0 {
                    return None;
                }
                if entry & LARGE != 0 {
                    return Some((entry & 0x000f_ffff_ffe0_0000, entry));
                }
                table = entry & 0x000f_ffff_ffff_f000;
            }
            None
        };
        for gpa in (0..3 << 30).step_by(LARGE_PAGE_BYTES as usize) {
            let (frame, entry) = walk(WINDOW_BASE + gpa).unwrap();
            assert_eq!(frame, gpa);
            assert_eq!(entry & NO_EXECUTE == 0, image.contains(&gpa));
        }
        assert_eq!(walk(WINDOW_BASE + (3 << 30)), None);
        assert_eq!(walk(MODULES_BASE + (4 << 20)).unwrap().0, MODULES_GPA + (4 << 20));
        assert_eq!(walk(MODULES_BASE).unwrap().1 & WRITABLE, 0);
        assert_eq!(walk(MODULES_BASE + (6 << 20)), None);
    }
}
