//! The first process of a microVM.
//!
//! ```text
//!   kernel ──> modules, channel ──> settings ──> root, secrets, loopback ──> program ──> ready ──> streams … end
//! ```
//!
//! It talks with the daemon in the frames of [`spore_abi::microvm`]. One thread reads them; each stream has two threads, which
//! move bytes between frames and a connection to the program's port. The daemon ends the machine; if it does not, the machine
//! stays as it is.

mod channel;
mod machine;
mod program;
mod random;
mod root;
mod settings;
mod streams;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use spore_abi::microvm::Kind;

use channel::{Channel, Reader};
use program::Program;
use settings::Settings;
use streams::Streams;

fn main() -> ExitCode {
    let error = match run() {
        Ok(()) => return stay(),
        Err(error) => error,
    };
    // The console is all that is left to tell it.
    let _ = std::fs::write("/dev/console", format!("spore-init: {error}\n"));
    stay()
}

/// The kernel gives up when its first process ends, so it does not: the daemon ends the machine.
fn stay() -> ExitCode {
    loop {
        std::thread::park();
    }
}

fn run() -> io::Result<()> {
    machine::mount_kernel_file_systems()?;
    machine::load_modules()?;
    let (channel, mut reader) = channel::open()?;
    channel.send(Kind::Here, 0, &[])?;
    let settings = Settings::read(&mut reader)?;
    let program = match start(&settings, &channel) {
        Ok(program) => program,
        Err((kind, error)) => return channel.send(kind, 0, error.to_string().as_bytes()),
    };
    program::watch(&program, &channel)?;
    program::announce(Arc::clone(&channel), settings.port)?;
    let streams = Streams::new(Arc::clone(&channel), program, settings.port);
    serve(&mut reader, streams, &channel)
}

fn start(settings: &Settings, channel: &Arc<Channel>) -> Result<Arc<Program>, (Kind, io::Error)> {
    let broken = |error| (Kind::Broken, error);
    machine::set_clock(settings.clock_ns).map_err(broken)?;
    machine::bring_loopback_up().map_err(broken)?;
    machine::open_low_ports();
    let limit = program::Limit::new(settings.memory_bytes).map_err(broken)?;
    root::enter(settings).map_err(broken)?;
    Program::start(settings, limit, channel).map_err(|error| (Kind::Failed, error))
}

/// Takes frames until the daemon is gone.
fn serve(reader: &mut Reader, mut streams: Streams, channel: &Channel) -> io::Result<()> {
    loop {
        match reader.read()? {
            (header, _) if header.kind == Kind::Leave => come_back(reader, channel)?,
            (header, content) => streams.take(header, content),
        }
    }
}

/// Is away while the machine is saved. What comes back is that machine or any of its copies, and none of them may have the clock or the
/// random numbers of another.
fn come_back(reader: &mut Reader, channel: &Channel) -> io::Result<()> {
    let away = channel.leave(reader)?;
    let settings = Settings::read(reader)?;
    random::renew(&settings.seed)?;
    machine::set_clock(settings.clock_ns)?;
    channel.resume(away);
    channel.send(Kind::Ready, 0, &[])
}
