//! Runs a target with libFuzzer, whose options and folders the arguments are; `fuzz/run` starts it.
//!
//! SPORE_FUZZ_TARGET names the target.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spore_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("SPORE_FUZZ_TARGET").unwrap_or_default();
    spore_fuzz::target(&name).unwrap_or_else(|| panic!("SPORE_FUZZ_TARGET must name a target, not `{name}`"))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
