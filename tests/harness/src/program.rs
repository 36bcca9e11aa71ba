//! C programs for tests: built static once per test run, and run natively to compare with.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::{repository, target_directory, wait_until};

static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);

/// Builds `tests/programs/NAME.c` static with `musl-gcc`, as any Linux program would be, and returns the file.
pub fn build(name: &str) -> PathBuf {
    build_once("musl-gcc", &["-static"], name, name)
}

/// Builds `tests/programs/NAME.c` the usual way: dynamically linked against the C library of this machine.
pub fn build_dynamic(name: &str) -> PathBuf {
    build_once("gcc", &[], name, &format!("{name}-dynamic"))
}

/// Builds `tests/programs/foreign`, a small unikernel that is none of Spore's, and returns the kernel.
pub fn build_unikernel() -> PathBuf {
    build_kernel("foreign", "spore-test-foreign")
}

/// Builds `tests/programs/solo5`, the same for Solo5's hvt, and returns the kernel.
pub fn build_solo5() -> PathBuf {
    build_kernel("solo5", "spore-test-solo5")
}

/// Builds the kernel of this name from a folder of `tests/programs`, or returns what was built before.
fn build_kernel(folder: &str, name: &str) -> PathBuf {
    let mut built = BUILT.lock().expect("no build panicked");
    let built = built.get_or_insert_default();
    if let Some(program) = built.get(name) {
        return program.clone();
    }
    // Kept from run to run, as other builds of cargo are.
    let target = target_directory().join("test-unikernel");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(
            repository()
                .join("tests/programs")
                .join(folder)
                .join("Cargo.toml"),
        )
        .arg("--target-dir")
        .arg(&target)
        // It is built alike whatever the host build is, and without registers that it does not save.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-cpu=x86-64")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(name);
        }
    }
    let status = command.status();
    let status = status.unwrap_or_else(|error| panic!("cargo cannot be run: {error}"));
    assert!(status.success(), "{command:?} failed");
    let program = target.join("release").join(name);
    built.insert(name.to_owned(), program.clone());
    program
}

/// Builds a source under a name, or returns what was built before; one at a time, since tests run side by side.
fn build_once(compiler: &str, options: &[&str], source: &str, name: &str) -> PathBuf {
    let mut built = BUILT.lock().expect("no build panicked");
    let built = built.get_or_insert_default();
    if let Some(program) = built.get(name) {
        return program.clone();
    }
    let source = repository().join("tests/programs").join(format!("{source}.c"));
    let program = compile(compiler, options, &source, name);
    built.insert(name.to_owned(), program.clone());
    program
}

/// Runs the compiler into a folder of this process, since several test programs may build at once.
fn compile(compiler: &str, options: &[&str], source: &Path, name: &str) -> PathBuf {
    let folder = target_directory()
        .join("test-programs")
        .join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let program = folder.join(name);
    let mut command = Command::new(compiler);
    command
        .args(options)
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(source);
    let status = command.status();
    let status = status
        .unwrap_or_else(|error| panic!("{compiler} cannot be run ({error}): install musl-tools and gcc"));
    assert!(status.success(), "{command:?} failed");
    program
}

/// Removes what [`build`] made; test mains call it at their end.
pub fn remove_built() {
    let folder = target_directory()
        .join("test-programs")
        .join(std::process::id().to_string());
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("the target folder is writable");
    }
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// A program that runs as an ordinary process and listens; it ends when dropped.
pub struct Native {
    process: Child,
    address: SocketAddr,
}

impl Native {
    /// Starts the program with a free port in `PORT`, and waits until it accepts connections.
    pub fn start(program: &Path, arguments: &[&str]) -> Native {
        let port = free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
        let native = Native { process, address };
        let listens = wait_until(Duration::from_secs(10), || TcpStream::connect(address).is_ok());
        assert!(listens, "{command:?} does not listen on {address}");
        native
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the program to end by itself and returns its exit status, if it has one.
    pub fn wait(&mut self) -> Option<i32> {
        self.process.wait().expect("the program is our child").code()
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // It may have ended by itself already, which is what some tests ask of it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
