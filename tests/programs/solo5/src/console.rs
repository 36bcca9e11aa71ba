//! The console: a hypercall.

use core::fmt;

use crate::machine;

/// Writes to the console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        machine::put(text);
        Ok(())
    }
}

/// Writes a line.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {{
        use core::fmt::Write as _;
        // In one piece, where there is memory for it.
        let text = alloc::format!($($text)*);
        // It does not fail.
        let _ = writeln!($crate::console::Console, "{text}");
    }};
}
