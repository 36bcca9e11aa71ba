//! Builds the first process of microVMs (`guest/init`), which the crate embeds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Named although it is the host's: what is said of linking must not reach build scripts and macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for part in [
        "abi/Cargo.toml",
        "abi/src",
        "guest/init/Cargo.toml",
        "guest/init/Cargo.lock",
        "guest/init/src",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let init = build(&root.join("guest/init"), &out.join("init"));
    let target = out.join("spore-init");
    fs::copy(&init, &target).unwrap_or_else(|error| panic!("cannot copy {}: {error}", init.display()));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Builds it as a static program; where it is.
fn build(directory: &Path, target_directory: &Path) -> PathBuf {
    let mut command = Command::new(variable("CARGO"));
    // What the environment says of profiles is meant for the host.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(name);
        }
    }
    let flags = [
        "-Ctarget-cpu=x86-64",
        "-Ctarget-feature=+crt-static",
        "-Crelocation-model=static",
    ];
    let status = command
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "--manifest-path",
        ])
        .arg(directory.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        // Set, not removed: without it cargo takes flags from its configuration files.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .unwrap_or_else(|error| panic!("cannot run cargo for the first process of microVMs: {error}"));
    assert!(status.success(), "guest/init does not build");
    target_directory.join(TARGET).join("release/spore-init")
}
