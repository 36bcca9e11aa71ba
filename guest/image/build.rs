//! Links the image at its fixed address, without anything of the C library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=image.ld");
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // Position-independent code, linked without relocations: the image is never moved.
    let arguments = [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-z,norelro,-z,noexecstack,--no-dynamic-linker");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{directory}/image.ld");
}
