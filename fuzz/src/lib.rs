//! One fuzz target for each input that somebody else has made.
//!
//! ```text
//!   image publisher ──> layers, images, elf, erofs, solo5     caller ──> http
//!   registry ──> images
//!   guest ──> rings, egress, http, lambda (its answers), microvm, solo5     daemon, monitor, store ──> messages, boot, command
//!   disk ──> snapshots, heads                     whoever deploys ──> triggers
//!   whoever replays a load ──> traces
//! ```
//!
//! A target takes bytes and panics if something does not hold that must, whatever the bytes are; that it returns at all,
//! in bounded time and memory, is part of that. `fuzz/run` runs one with libFuzzer; the tests of this crate run each over
//! its seeds and some thousand changes of them, without any engine.

mod boot;
mod command;
mod egress;
mod elf;
mod erofs;
mod heads;
mod http;
mod images;
mod lambda;
mod layers;
mod messages;
mod microvm;
mod rings;
mod snapshots;
mod solo5;
mod traces;
mod triggers;

use std::path::Path;
use std::{fs, io};

/// One untrusted input.
pub struct Target {
    /// Its name, for `fuzz/run`.
    pub name: &'static str,
    /// Takes an input apart; panics if something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Whether a run is so slow that the short run makes fewer.
    pub is_slow: bool,
}

impl Target {
    /// Writes the seeds into a folder, one file each.
    ///
    /// # Errors
    ///
    /// If the folder or a file cannot be made.
    pub fn write_seeds(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (index, seed) in (self.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{index:02}")), seed)?;
        }
        Ok(())
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "boot",
        run: boot::run,
        seeds: boot::seeds,
        is_slow: false,
    },
    Target {
        name: "command",
        run: command::run,
        seeds: command::seeds,
        is_slow: false,
    },
    Target {
        name: "egress",
        run: egress::run,
        seeds: egress::seeds,
        is_slow: false,
    },
    Target {
        name: "elf",
        run: elf::run,
        seeds: elf::seeds,
        is_slow: false,
    },
    Target {
        name: "erofs",
        run: erofs::run,
        seeds: erofs::seeds,
        is_slow: false,
    },
    Target {
        name: "heads",
        run: heads::run,
        seeds: heads::seeds,
        is_slow: true,
    },
    Target {
        name: "http",
        run: http::run,
        seeds: http::seeds,
        is_slow: true,
    },
    Target {
        name: "images",
        run: images::run,
        seeds: images::seeds,
        is_slow: true,
    },
    Target {
        name: "lambda",
        run: lambda::run,
        seeds: lambda::seeds,
        is_slow: false,
    },
    Target {
        name: "layers",
        run: layers::run,
        seeds: layers::seeds,
        is_slow: true,
    },
    Target {
        name: "messages",
        run: messages::run,
        seeds: messages::seeds,
        is_slow: false,
    },
    Target {
        name: "microvm",
        run: microvm::run,
        seeds: microvm::seeds,
        is_slow: false,
    },
    Target {
        name: "rings",
        run: rings::run,
        seeds: rings::seeds,
        is_slow: false,
    },
    Target {
        name: "snapshots",
        run: snapshots::run,
        seeds: snapshots::seeds,
        is_slow: false,
    },
    Target {
        name: "solo5",
        run: solo5::run,
        seeds: solo5::seeds,
        is_slow: true,
    },
    Target {
        name: "traces",
        run: traces::run,
        seeds: traces::seeds,
        is_slow: false,
    },
    Target {
        name: "triggers",
        run: triggers::run,
        seeds: triggers::seeds,
        is_slow: false,
    },
];

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
