//! The machine: ports, interrupts, time, memory, its end. All that QEMU's `pc` has.

use alloc::string::String;
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// ACPI's timer counts so many times a second, in 24 bits.
const TIMER_HZ: u64 = 3_579_545;
const TIMER_PORT: u16 = 0x608;
const TIMER_MASK: u64 = 0xff_ffff;
/// ACPI's control of power, and what switches the machine off (S5 is 0 on this board).
const POWER_PORT: u16 = 0x604;
const POWER_OFF: u16 = 0x2000;
/// Requests for interrupts that are served: the interval timer, the second controller, and those that cards have.
const INTERRUPTS_MASK: u16 = !(1 << 0 | 1 << 2 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11);
const FIRST_VECTOR: usize = 0x20;

/// A width of ports.
pub trait Width: Sized {
    /// Reads.
    fn read(port: u16) -> Self;
    /// Writes.
    fn write(port: u16, value: Self);
}

macro_rules! width {
    ($width:ty, $register:tt) => {
        impl Width for $width {
            fn read(port: u16) -> Self {
                let value;
                // SAFETY: ports of devices do not touch memory that Rust knows of.
                unsafe { asm!(concat!("in ", $register, ", dx"), out($register) value, in("dx") port, options(nostack)) };
                value
            }

            fn write(port: u16, value: Self) {
                // SAFETY: as above.
                unsafe { asm!(concat!("out dx, ", $register), in($register) value, in("dx") port, options(nostack)) };
            }
        }
    };
}

width!(u8, "al");
width!(u16, "ax");
width!(u32, "eax");

/// Reads a port.
pub fn read_port<W: Width>(port: u16) -> W {
    W::read(port)
}

/// Writes to a port.
pub fn write_port<W: Width>(port: u16, value: W) {
    W::write(port, value);
}

/// What the machine tells at the start.
pub struct Told {
    /// Memory that is nobody's.
    pub free: Range<usize>,
    command_line: u64,
}

/// Reads what the machine tells (Xen: `hvm_start_info`, version 1).
pub fn told(start_info: u64) -> Told {
    // SAFETY: these are addresses of the first 4 GiB, which are mapped, and the machine has written them.
    let number = |address: u64| unsafe { (address as *const u64).read_unaligned() };
    unsafe extern "C" {
        static image_end: u8;
    }
    let (modules, module_list) = (number(start_info + 8) >> 32, number(start_info + 16));
    let (entries, list) = (number(start_info + 48) & 0xffff_ffff, number(start_info + 40));
    let begin = &raw const image_end as u64;
    let mut end = (0..entries)
        .map(|index| list + index * 24)
        .map(|entry| (number(entry), number(entry + 8), number(entry + 16) & 0xffff_ffff))
        .filter(|(_, _, kind)| *kind == 1)
        .find(|(base, length, _)| (*base..base + length).contains(&begin))
        .map_or(begin, |(base, length, _)| base + length);
    for module in 0..modules {
        end = end.min(number(module_list + module * 32));
    }
    Told {
        free: begin as usize..end as usize,
        command_line: number(start_info + 24),
    }
}

impl Told {
    /// The command line.
    pub fn command_line(&self) -> String {
        if self.command_line == 0 {
            return String::new();
        }
        // SAFETY: it ends with a zero byte, and lies below the image, where nothing writes.
        let text = unsafe { core::ffi::CStr::from_ptr(self.command_line as *const _) };
        String::from_utf8_lossy(text.to_bytes()).into_owned()
    }
}

/// A gate of the table of interrupts.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate([u64; 2]);

static mut GATES: [Gate; 256] = [Gate([0; 2]); 256];

#[repr(C, packed)]
struct TablePointer(u16, u64);

/// Lets interrupts wake whoever waits. Exceptions have no gate: the machine resets.
pub fn prepare() {
    unsafe extern "C" {
        fn interrupt_entry();
    }
    let entry = interrupt_entry as *const () as u64;
    let low = entry & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (entry >> 16 & 0xffff) << 48;
    // SAFETY: there is one processor, and interrupts are off.
    unsafe {
        for vector in FIRST_VECTOR..FIRST_VECTOR + 16 {
            (&raw mut GATES)
                .cast::<Gate>()
                .add(vector)
                .write(Gate([low, entry >> 32]));
        }
        let pointer = TablePointer(0xfff, &raw const GATES as u64);
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack));
    }
    // Both controllers: edges, cascaded, vectors from FIRST_VECTOR on.
    for (port, value) in [
        (0x20_u16, 0x11_u8),
        (0xa0, 0x11),
        (0x21, FIRST_VECTOR as u8),
        (0xa1, FIRST_VECTOR as u8 + 8),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, INTERRUPTS_MASK as u8),
        (0xa1, (INTERRUPTS_MASK >> 8) as u8),
        // The interval timer, 100 times a second.
        (0x43, 0x34),
        (0x40, 0x9c),
        (0x40, 0x2e),
    ] {
        write_port(port, value);
    }
}

/// Waits for an interrupt. What is below the stack's end may be in use.
pub fn wait() {
    // SAFETY: the handler changes nothing but what it saves itself, and leaves interrupts off.
    unsafe { asm!("sub rsp, 128", "sti", "hlt", "add rsp, 128") };
}

/// Microseconds since the first call. To be called every four seconds.
pub fn now_us() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
    static TOTAL: AtomicU64 = AtomicU64::new(0);
    let now = u64::from(read_port::<u32>(TIMER_PORT)) & TIMER_MASK;
    let last = LAST.swap(now, Ordering::Relaxed);
    let passed = if last == u64::MAX {
        0
    } else {
        now.wrapping_sub(last) & TIMER_MASK
    };
    let total = TOTAL.fetch_add(passed, Ordering::Relaxed) + passed;
    total * 1_000_000 / TIMER_HZ
}

/// Eight random bytes of the processor's.
pub fn random() -> u64 {
    loop {
        let (value, is_good): (u64, u8);
        // SAFETY: it touches registers only; QEMU's processor has the instruction.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) is_good, options(nomem, nostack))
        };
        if is_good == 1 {
            return value;
        }
    }
}

/// Switches the machine off, which tells no status.
pub fn exit(_status: u8) -> ! {
    write_port(POWER_PORT, POWER_OFF);
    loop {
        wait();
    }
}

/// Resets the machine, as after a fault that nobody handles.
pub fn reset() -> ! {
    let none = TablePointer(0, 0);
    // SAFETY: without a table of interrupts the processor gives up at the first exception, which is what is wanted.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const none, options(noreturn)) }
}
