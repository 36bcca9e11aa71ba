//! Where things are in guest-physical and in virtual memory.
//!
//! ```text
//!  guest-physical                                virtual (always WINDOW_BASE + guest-physical for RAM)
//!  0x0000_0000  boot, host and guest page        read/write for the guest, 2 MiB pages
//!  0x0000_4000  start block (argv, envp, secrets)
//!  0x0004_0000  log ring
//!  0x0020_0000  library OS image
//!  0x0040_0000  page tables (initial and made by the library OS)
//!  0x0060_0000  stream rings
//!  0x00e0_0000  free: library OS heap, then the function's memory
//!  ram_bytes    end of RAM
//!  MODULES_GPA  the root module, read-only     MODULES_BASE, read-only
//!  MONITOR_GPA  GDT, IDT, TSS, ring-0 stubs     MONITOR_BASE, supervisor only (the process form: see `process`)
//! ```
//!
//! All virtual addresses are in the lower half and can also be mapped by an ordinary Linux process. The library OS
//! is linked at its window address; everything below [`WINDOW_BASE`] except the monitor's area is free for programs
//! that ask for fixed addresses.

/// Size of a small page, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Size of a large page, in bytes.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Virtual address at which guest-physical address 0 is mapped.
pub const WINDOW_BASE: u64 = 0x2000_0000_0000;
/// Largest RAM of an instance, in bytes. The initial page tables map at most this much.
pub const RAM_BYTES_MAX: u64 = 16 << 30;

/// Guest-physical address of the boot page.
pub const BOOT_PAGE_GPA: u64 = 0x0000;
/// Guest-physical address of the page that only the host writes while the guest runs.
pub const HOST_PAGE_GPA: u64 = 0x1000;
/// Guest-physical address of the page that only the guest writes (two small pages).
pub const GUEST_PAGE_GPA: u64 = 0x2000;

/// Guest-physical address of the start block: `argv` and `envp` as zero-terminated strings, and the function's secrets.
pub const START_BLOCK_GPA: u64 = 0x4000;
/// Size of the start block, in bytes.
pub const START_BLOCK_BYTES: u64 = 0x3_c000;

/// Guest-physical address of the log ring.
pub const LOG_RING_GPA: u64 = 0x4_0000;
/// Size of the log ring, in bytes; a power of two.
pub const LOG_RING_BYTES: u32 = 0x1_0000;

/// Guest-physical address of the library OS's data.
pub const IMAGE_DATA_GPA: u64 = 0x10_0000;
/// Room for it, zero-initialised data included, in bytes.
pub const IMAGE_DATA_BYTES_MAX: u64 = 0x10_0000;

/// Guest-physical address of the library OS's code and constants: a large page, to which nobody writes.
pub const IMAGE_GPA: u64 = 0x20_0000;
/// Room for them, in bytes.
pub const IMAGE_BYTES_MAX: u64 = LARGE_PAGE_BYTES;

/// Guest-physical address of the page-table pool.
pub const PAGE_TABLES_GPA: u64 = 0x40_0000;
/// Size of the page-table pool, in bytes.
pub const PAGE_TABLES_BYTES: u64 = 0x20_0000;

/// Guest-physical address of the stream rings.
pub const STREAMS_GPA: u64 = 0x60_0000;
/// Number of stream slots.
pub const STREAM_SLOTS: usize = 64;
/// Size of one ring (each slot has one for each direction), in bytes; a power of two.
pub const STREAM_RING_BYTES: u32 = 0x1_0000;

/// Guest-physical address of the first byte that the library OS hands out.
pub const FREE_GPA: u64 = 0xe0_0000;

/// Guest-physical address of the modules: files of the host, mapped read-only.
pub const MODULES_GPA: u64 = 0x10_0000_0000;
/// Virtual address of [`MODULES_GPA`].
pub const MODULES_BASE: u64 = 0x2080_0000_0000;
/// Largest total size of the modules, in bytes.
pub const MODULES_BYTES_MAX: u64 = 8 << 30;

/// Guest-physical address of the monitor's own area. No window maps it.
pub const MONITOR_GPA: u64 = 0x20_0000_0000;
/// Virtual address of [`MONITOR_GPA`], for the supervisor only.
pub const MONITOR_BASE: u64 = 0x1f80_0000_0000;

/// Guest-physical address of program text in large pages, read-only: what clones have in place of the small pages that an
/// instance has offered ([`crate::pages::TextOffer`]). No window maps it.
pub const TEXT_GPA: u64 = 0x28_0000_0000;
/// Most large pages of program text.
pub const TEXT_PAGES_MAX: usize = 48;

/// Where position-independent programs are placed, as on Linux without randomisation.
pub const POSITION_INDEPENDENT_BASE: u64 = 0x5555_5555_4000;

/// Lowest address that a program may map.
pub const USER_BASE: u64 = 0x1_0000;
/// End of the addresses that a program may map.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// Guest-physical address of the ring of `slot` that carries bytes to the guest.
#[must_use]
pub const fn receive_ring_gpa(slot: usize) -> u64 {
    STREAMS_GPA + (slot as u64) * 2 * STREAM_RING_BYTES as u64
}

/// Guest-physical address of the ring of `slot` that carries bytes to the host.
#[must_use]
pub const fn transmit_ring_gpa(slot: usize) -> u64 {
    receive_ring_gpa(slot) + STREAM_RING_BYTES as u64
}

const _: () = assert!(STREAM_RING_BYTES.is_power_of_two() && LOG_RING_BYTES.is_power_of_two());
const _: () = assert!(LOG_RING_GPA + LOG_RING_BYTES as u64 <= IMAGE_DATA_GPA);
const _: () = assert!(IMAGE_DATA_GPA + IMAGE_DATA_BYTES_MAX <= IMAGE_GPA);
const _: () = assert!(IMAGE_GPA.is_multiple_of(LARGE_PAGE_BYTES));
const _: () = assert!(START_BLOCK_GPA + START_BLOCK_BYTES <= LOG_RING_GPA);
const _: () = assert!(IMAGE_GPA + IMAGE_BYTES_MAX <= PAGE_TABLES_GPA);
const _: () = assert!(PAGE_TABLES_GPA + PAGE_TABLES_BYTES <= STREAMS_GPA);
const _: () = assert!(transmit_ring_gpa(STREAM_SLOTS - 1) + STREAM_RING_BYTES as u64 <= FREE_GPA);
const _: () = assert!(MONITOR_GPA < TEXT_GPA && TEXT_GPA.is_multiple_of(LARGE_PAGE_BYTES));
const _: () = assert!(RAM_BYTES_MAX <= MODULES_GPA && MODULES_GPA + MODULES_BYTES_MAX <= MONITOR_GPA);
