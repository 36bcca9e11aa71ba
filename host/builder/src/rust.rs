//! Functions written in Rust: a crate whose program calls `spore::serve(handle)`, linked statically.
//!
//! With the target for musl, if the toolchain has it; otherwise with the C library of this machine, linked into the program
//! (`crt-static`).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::compiled::{BUILD_FOLDER, BuildError, BuiltProgram, Tool, run, write_files};

const CARGO: Tool = Tool {
    command: "cargo",
    advice: "install Rust (https://rustup.rs, or Debian/Ubuntu: apt install cargo)",
};
const RUSTC: Tool = Tool {
    command: "rustc",
    advice: CARGO.advice,
};
const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";
const MANIFEST: &str = "Cargo.toml";
const SDK_FILES: [(&str, &str); 2] = [
    ("sdk/Cargo.toml", include_str!("../../../sdk/rust/Cargo.toml")),
    ("sdk/src/lib.rs", include_str!("../../../sdk/rust/src/lib.rs")),
];
/// Where cargo builds, below the function's folder.
const TARGET_FOLDER: &str = "build/target";

/// Builds the function in `folder`. Blocks while cargo runs, minutes the first time.
///
/// # Errors
///
/// If there is no crate, cargo is missing or finds errors, or a file cannot be written.
pub fn build(folder: &Path) -> Result<BuiltProgram, BuildError> {
    if !folder.join(MANIFEST).is_file() {
        return Err(BuildError::NoSources {
            folder: folder.to_owned(),
            expected: "Cargo.toml beside src/main.rs",
        });
    }
    write_files(&folder.join(BUILD_FOLDER), &SDK_FILES)?;
    let target = if has_musl(folder)? { MUSL } else { GNU };
    let mut command = Command::new(CARGO.command);
    command
        .args([
            "build",
            "--release",
            "--quiet",
            "--message-format=json-render-diagnostics",
            "--target",
            target,
        ])
        .env("CARGO_TARGET_DIR", TARGET_FOLDER);
    if target == GNU {
        command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    let printed = run(CARGO, folder, &mut command)?;
    let path = program(&printed.output).ok_or_else(|| BuildError::NoProgram {
        tool: CARGO,
        folder: folder.to_owned(),
        advice: "the crate needs a src/main.rs that calls spore::serve(handle)",
    })?;
    Ok(BuiltProgram {
        path,
        warnings: printed.diagnostics,
    })
}

fn has_musl(folder: &Path) -> Result<bool, BuildError> {
    let mut command = Command::new(RUSTC.command);
    command.args(["--print", "target-libdir", "--target", MUSL]);
    let printed = run(RUSTC, folder, &mut command)?;
    let path = String::from_utf8_lossy(&printed.output);
    Ok(Path::new(path.trim()).is_dir())
}

/// The program that cargo says it has made.
fn program(messages: &[u8]) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    messages
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter_map(|message| message.executable)
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let messages = br#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/a/build/target/x/release/hello"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(
            program(messages).unwrap(),
            Path::new("/a/build/target/x/release/hello")
        );
        assert_eq!(program(b"warning\n"), None);
    }
}
