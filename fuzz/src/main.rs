//! Runs a target with libFuzzer, whose options and folders the arguments are; `fuzz/run` starts it.
//!
//! SPORE_FUZZ_TARGET names the target, SPORE_FUZZ_SEEDS a folder that its seeds are written to before the run.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spore_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("SPORE_FUZZ_TARGET").unwrap_or_default();
    spore_fuzz::target(&name).unwrap_or_else(|| panic!("SPORE_FUZZ_TARGET must name a target, not `{name}`"))
});

fn write_seeds() {
    if let Some(folder) = std::env::var_os("SPORE_FUZZ_SEEDS") {
        let written = TARGET.write_seeds(Path::new(&folder));
        written.unwrap_or_else(|error| panic!("the seeds cannot be written: {error}"));
    }
}

fuzz_target!(init: write_seeds(), |bytes: &[u8]| (TARGET.run)(bytes));
