//! The doorbell: one port that the guest may write to, and what each value asks for.
//!
//! The guest writes a 32-bit value with `out`; arguments are in the guest page. The TSS bitmap allows the four ports
//! that such an access covers and no other to CPL 3. The ring-0 exception stubs use another port, which CPL 3 cannot
//! reach.
//!
//! In the process form ([`crate::process`]) there is no port: the library OS calls the image's runtime, which serves the
//! requests about translations by itself and stops for the monitor for the others.

/// Port of the doorbell, the first of [`DOORBELL_PORTS`].
pub const DOORBELL_PORT: u16 = 0x50;
/// Number of ports that a 32-bit access covers; the processor checks the permission of each.
pub const DOORBELL_PORTS: u16 = 4;
/// Port that the ring-0 exception stubs write their vector to.
pub const EXCEPTION_PORT: u16 = 0x58;

/// Nothing can run: sleep until a stream or the log moves, or the deadline in the guest page has passed.
pub const WAIT: u32 = 1;
/// Serve the rings and come back at once.
pub const NOTIFY: u32 = 2;
/// End the instance; the exit record in the guest page says why.
pub const EXIT: u32 = 3;
/// Page-table entries that were present have changed: forget cached translations.
pub const FLUSH_TRANSLATIONS: u32 = 4;
/// Translate with the top-level page table that the guest page names.
pub const SWITCH_TABLES: u32 = 5;
