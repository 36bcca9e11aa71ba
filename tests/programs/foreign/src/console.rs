//! The serial port.

use core::fmt;

use crate::machine::{read_port, write_port};

const DATA_PORT: u16 = 0x3f8;
const STATUS_PORT: u16 = DATA_PORT + 5;
/// There is room for a byte.
const EMPTY: u8 = 0x20;

/// Writes to the serial port.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read_port::<u8>(STATUS_PORT) & EMPTY == 0 {}
            write_port(DATA_PORT, byte);
        }
        Ok(())
    }
}

/// Writes a line.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {{
        use core::fmt::Write as _;
        // It does not fail.
        let _ = writeln!($crate::console::Console, $($text)*);
    }};
}
