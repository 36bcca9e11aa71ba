//! The tender of unikernels for Solo5's `hvt`: one guest in one process, on KVM (docs/sandboxes.md, decision 0024).
//!
//! ```text
//!   read the kernel (kernel, manifest) ──> make the machine (machine, boot, memory) ──> give up (jail)
//!        ──> run ──hypercall──> serve (calls, devices) ──> run ... ──halt, fault, nobody at the cable──> tell (told), end
//! ```
//!
//! The daemon starts the process as it starts QEMU, in the same place of the jail, with the same three descriptors: the network card's cable
//! is standard input, the control socket standard output, the console standard error.
//!
//! The ABI is Solo5's (`abi`); nothing of its code is here. One thread runs the guest or serves it,
//! never both, so that nothing changes while it is looked at.

mod abi;
mod boot;
mod calls;
mod devices;
mod disk;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod jail;
mod kernel;
mod machine;
mod manifest;
mod memory;
mod told;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::stdio;

pub use abi::{COMMAND_LINE_BYTES_MAX, Call, MEMORY_BYTES_MAX};
pub use calls::{After, CallError, Calls, Host, HostError};
pub use disk::WRITTEN_BYTES_MAX;
pub use jail::JailError;
pub use kernel::{Kernel, KernelError, Source};
pub use machine::{Fault, MachineError};
pub use manifest::{Manifest, ManifestError};
pub use memory::{Memory, OutOfRange};
pub use told::{CRASHED, FAILED, SHUTDOWN};

use abi::{ABORTED, LARGE_PAGE_BYTES};
use calls::PACKET_BYTES_MAX;
use devices::Devices;
use machine::{Exit, Machine, Parts};
use manifest::{Card, Disk};
use told::End;

/// What the launcher's list of arguments has in the place of QEMU's path for this tender.
pub const PROGRAM: &str = "solo5-hvt";
/// What a disk is read in, in bytes.
const BLOCK_BYTES: u16 = 512;

/// Memory of a guest, in bytes, for a function that may use `memory_bytes`: whole large pages.
#[must_use]
pub const fn guest_bytes(memory_bytes: u64) -> u64 {
    let whole = memory_bytes - memory_bytes % LARGE_PAGE_BYTES;
    if whole < LARGE_PAGE_BYTES {
        LARGE_PAGE_BYTES
    } else if whole > MEMORY_BYTES_MAX {
        MEMORY_BYTES_MAX
    } else {
        whole
    }
}

/// What a tender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Memory of the guest, in bytes.
    pub memory_bytes: u64,
    /// Address of its network card.
    pub card: [u8; 6],
    /// The kernel's file.
    pub kernel: OsString,
    /// The disk's file.
    pub disk: Option<OsString>,
    /// What the guest is told.
    pub command_line: String,
}

impl Settings {
    /// The arguments of [`main`].
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let card = u64::from_be_bytes(std::array::from_fn(|index| match index {
            0 | 1 => 0,
            _ => self.card[index - 2],
        }));
        vec![
            self.memory_bytes.to_string().into(),
            card.to_string().into(),
            self.kernel.clone(),
            self.disk.clone().unwrap_or_default(),
            self.command_line.clone().into(),
        ]
    }

    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut arguments = arguments.into_iter();
        let mut number = || arguments.next()?.into_string().ok()?.parse::<u64>().ok();
        let (memory_bytes, card) = (number()?, number()?.to_be_bytes());
        Some(Self {
            memory_bytes,
            card: std::array::from_fn(|index| card[index + 2]),
            kernel: arguments.next()?,
            disk: arguments.next().filter(|disk| !disk.is_empty()),
            command_line: arguments.next()?.into_string().ok()?,
        })
    }
}

/// Why a tender does not run its guest.
#[derive(Debug, thiserror::Error)]
enum TenderError {
    #[error("the daemon has not said what is to be run")]
    NoSettings,
    #[error("the unikernel cannot be run")]
    Kernel(#[from] KernelError),
    #[error("a file of the unikernel cannot be opened")]
    File(#[source] io::Error),
    #[error("the unikernel's disk has {0} bytes: it has to consist of blocks of {BLOCK_BYTES} bytes")]
    Disk(u64),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Jail(#[from] JailError),
}

/// Runs a guest, by [`Settings::arguments`], until it has ended. To be called where there is one thread and nothing is left to be given up
/// but system calls.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let end = match run(arguments) {
        Ok(end) => end,
        Err(error) => End::Failed(told::chain(&error)),
    };
    told::tell(&end)
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<End, TenderError> {
    let settings = Settings::parse(arguments).ok_or(TenderError::NoSettings)?;
    let file = File::open(&settings.kernel).map_err(TenderError::File)?;
    let disk = settings.disk.as_ref().map(File::open).transpose();
    let disk = disk.map_err(TenderError::File)?;
    let kernel = Kernel::read(&file)?;
    let devices = Devices::new(stdio::stdin(), disk).map_err(TenderError::File)?;
    let disk_bytes = calls::Host::disk_bytes(&devices);
    if disk_bytes % u64::from(BLOCK_BYTES) != 0 || kernel.manifest.block().is_some() && disk_bytes == 0 {
        return Err(TenderError::Disk(disk_bytes));
    }
    let card = Card {
        address: settings.card,
        packet_bytes_max: PACKET_BYTES_MAX,
    };
    let disk = Disk {
        bytes: disk_bytes,
        block_bytes: BLOCK_BYTES,
    };
    let mut machine = Machine::new(&Parts {
        kernel: &kernel,
        file: &file,
        memory_bytes: guest_bytes(settings.memory_bytes),
        manifest: &kernel.manifest.attached(card, Some(disk)),
        command_line: &settings.command_line,
    })?;
    drop(file);
    jail::enter(machine.processor())?;
    Ok(serve(&mut machine, devices, &kernel.manifest))
}

fn serve(machine: &mut Machine, mut devices: Devices<impl AsFd>, manifest: &Manifest) -> End {
    loop {
        let after = match machine.run() {
            Exit::Call(call, address) => {
                let mut calls = Calls {
                    memory: &machine.memory,
                    host: &mut devices,
                    manifest,
                };
                calls.serve(call, address)
            }
            Exit::Fault(fault) => return End::Crashed(told::chain(&fault)),
            Exit::Failed(error) => return End::Failed(told::chain(&error)),
        };
        match after {
            Ok(After::Resumes) => {}
            Ok(After::Halted(ABORTED)) => {
                return End::Crashed(format!("the unikernel has given up (status {ABORTED})"));
            }
            Ok(After::Halted(status)) => return End::Exited(status as u8),
            Err(CallError::Host(HostError::Unplugged)) => return End::Unplugged,
            Err(CallError::Host(error)) => return End::Failed(told::chain(&error)),
            Err(error) => return End::Crashed(told::chain(&error)),
        }
    }
}
