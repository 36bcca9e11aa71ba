//! Builds the unikernel (`guest/image`) and turns it into the flat image that the monitor loads.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use object::{Object, ObjectSegment};

/// Where code and constants of the image are linked: `spore_abi::layout::{WINDOW_BASE + IMAGE_GPA}`; the monitor's tests
/// compare.
const IMAGE_BASE: u64 = 0x2000_0020_0000;
/// Where its data are: the same with `IMAGE_DATA_GPA`.
const DATA_BASE: u64 = 0x2000_0010_0000;

fn main() {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root = manifest.join("../..");
    for part in ["abi", "guest/machine", "guest/libos", "guest/image"] {
        for entry in ["Cargo.toml", "src", "build.rs", "image.ld", "Cargo.lock"] {
            let path = root.join(part).join(entry);
            if path.exists() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let elf = build_image(&root.join("guest/image"), &out);
    for (name, base, end) in [
        ("library-os.image", IMAGE_BASE, u64::MAX),
        ("library-os.data", DATA_BASE, IMAGE_BASE),
    ] {
        let target = out.join(name);
        let flat = flatten(&elf, base, end);
        fs::write(&target, flat).unwrap_or_else(|error| panic!("cannot write {}: {error}", target.display()));
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn build_image(directory: &Path, out: &Path) -> Vec<u8> {
    let target_directory = out.join("guest");
    let mut command = Command::new(variable("CARGO"));
    // What the environment says of profiles is meant for the host; the image links with its own only.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(name);
        }
    }
    let status = command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(directory.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_directory)
        // The guest is built alike whatever the host build is: no wrapper, no flags, no target of its.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        // Set, not removed: without it cargo takes flags from its configuration files, where `-Ctarget-cpu=native` is
        // common. The library OS must not use AVX: its entry code saves the program's SSE registers only.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-cpu=x86-64")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .unwrap_or_else(|error| panic!("cannot run cargo for the guest image: {error}"));
    assert!(status.success(), "the guest image does not build");
    let path = target_directory.join("release/spore-image");
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The loaded segments between two addresses as one stretch of bytes.
fn flatten(elf: &[u8], base: u64, end: u64) -> Vec<u8> {
    let file =
        object::File::parse(elf).unwrap_or_else(|error| panic!("the guest image is no ELF file: {error}"));
    let mut flat = Vec::new();
    for segment in file.segments() {
        let Some(offset) = segment
            .address()
            .checked_sub(base)
            .filter(|_| segment.address() < end)
        else {
            continue;
        };
        let offset = offset as usize;
        let data = segment
            .data()
            .unwrap_or_else(|error| panic!("the guest image is damaged: {error}"));
        if flat.len() < offset + data.len() {
            flat.resize(offset + data.len(), 0);
        }
        flat[offset..offset + data.len()].copy_from_slice(data);
    }
    flat
}
