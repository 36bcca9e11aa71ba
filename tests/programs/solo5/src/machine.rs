//! The machine: hypercalls, time, memory, its end. All that Solo5's `hvt` has.

use alloc::string::String;
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// Numbers of hypercalls.
const PUTS: u16 = 2;
const POLL: u16 = 3;
pub const NET_WRITE: u16 = 6;
pub const NET_READ: u16 = 7;
const HALT: u16 = 8;
const FIRST_PORT: u16 = 0x500;
/// The status of who has given up.
pub const ABORTED: u8 = 255;
/// Room for the stack at the end of memory, in bytes.
const STACK_BYTES: u64 = 256 << 10;
/// How long a wait takes at most, in nanoseconds.
const WAIT_NS: u64 = 10_000_000;

/// Rate of the time-stamp counter, in hertz, and its first value.
static HERTZ: AtomicU64 = AtomicU64::new(1);
static BEGIN: AtomicU64 = AtomicU64::new(0);
/// Where the manifest is.
static MANIFEST: AtomicU64 = AtomicU64::new(0);

/// Makes a hypercall with a structure.
pub fn call<T>(number: u16, structure: &mut T) {
    let address = &raw mut *structure as u64 as u32;
    // SAFETY: all memory is in the first 4 GiB; the tender writes to the structure, and to what it names, before the guest goes on.
    unsafe { asm!("out dx, eax", in("dx") FIRST_PORT + number, in("eax") address, options(nostack)) };
}

/// What the tender tells at the start.
pub struct Told {
    /// Memory that is nobody's.
    pub free: Range<usize>,
    command_line: u64,
}

/// Reads what the tender tells.
pub fn told(boot_information: u64) -> Told {
    unsafe extern "C" {
        static image_end: u8;
    }
    // SAFETY: the tender has written these numbers, which are mapped.
    let [memory_bytes, _, hertz, command_line, manifest] =
        unsafe { (boot_information as *const [u64; 5]).read_unaligned() };
    HERTZ.store(hertz, Ordering::Relaxed);
    BEGIN.store(time_stamp(), Ordering::Relaxed);
    MANIFEST.store(manifest, Ordering::Relaxed);
    Told {
        free: &raw const image_end as usize..(memory_bytes - STACK_BYTES) as usize,
        command_line,
    }
}

impl Told {
    /// The command line.
    pub fn command_line(&self) -> String {
        // SAFETY: it ends with a zero byte, and lies below the image, where nothing writes.
        let text = unsafe { core::ffi::CStr::from_ptr(self.command_line as *const _) };
        String::from_utf8_lossy(text.to_bytes()).into_owned()
    }
}

/// Address of the network card, which is the second entry of the manifest.
pub fn card_address() -> [u8; 6] {
    const PLACE: u64 = 8 + 104 + 72;
    let place = MANIFEST.load(Ordering::Relaxed) + PLACE;
    // SAFETY: the manifest has two entries, as the boot code says, and the tender has written the properties.
    unsafe { (place as *const [u8; 6]).read() }
}

/// Writes to the console.
pub fn put(text: &str) {
    let mut structure = [text.as_ptr() as u64, text.len() as u64];
    call(PUTS, &mut structure);
}

/// Waits until a frame is there, or for some milliseconds.
pub fn wait() {
    let mut structure = [WAIT_NS, 0, 0];
    call(POLL, &mut structure);
}

fn time_stamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: it touches registers only.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Microseconds since the start.
pub fn now_us() -> u64 {
    let passed = time_stamp().wrapping_sub(BEGIN.load(Ordering::Relaxed));
    (u128::from(passed) * 1_000_000 / u128::from(HERTZ.load(Ordering::Relaxed))) as u64
}

/// Eight random bytes of the processor's.
pub fn random() -> u64 {
    loop {
        let (value, is_good): (u64, u8);
        // SAFETY: it touches registers only; processors that KVM runs on have the instruction.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) is_good, options(nomem, nostack))
        };
        if is_good == 1 {
            return value;
        }
    }
}

/// Ends the guest with a status.
pub fn exit(status: u8) -> ! {
    let mut structure = [0, u64::from(status)];
    loop {
        call(HALT, &mut structure);
    }
}
