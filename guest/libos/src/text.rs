//! Texts.

/// As `format!`, which the image cannot link: the compiled one of `alloc` needs unwinding.
macro_rules! text {
    ($($argument:tt)*) => {{
        let mut text = alloc::string::String::new();
        // Cannot fail: strings grow.
        let _ = core::fmt::Write::write_fmt(&mut text, format_args!($($argument)*));
        text
    }};
}

pub(crate) use text;
