//! The virtual machine: memory, one processor, nothing else.

use std::fmt::Write as _;
use std::fs::File;
use std::io;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::os::fd::{AsRawFd as _, RawFd};

use crate::abi::Call;
use crate::boot::{self, Told};
use crate::calls::CallError;
use crate::kernel::{Kernel, KernelError};
use crate::memory::{Mapping, Memory as _, OutOfRange};

/// How often in a row KVM may refuse for now to run the processor.
const REFUSALS_MAX: u32 = 1000;
/// Longest instruction, in bytes.
const INSTRUCTION_BYTES: u64 = 15;

/// Why there is no machine, or why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM does not do what it is asked for.
    #[error("KVM refuses to {what}")]
    Kvm {
        /// What it was asked for.
        what: &'static str,
        /// Why it refuses.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// There is no memory.
    #[error("there is no memory for the guest")]
    Memory(#[source] io::Error),
    /// The kernel cannot be loaded.
    #[error("the unikernel cannot be run")]
    Kernel(#[from] KernelError),
    /// What a guest is told does not fit; cannot happen.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// KVM cannot run the guest's code. Without hardware virtualisation, KVM emulates what runs in supervisor mode.
    #[error(
        "this host's KVM cannot run the unikernel: it does not know the instruction at {address:#x} ({bytes}), which hardware \
         virtualisation does"
    )]
    Instruction {
        /// Where the instruction is.
        address: u64,
        /// What is there, in hexadecimal digits.
        bytes: String,
    },
}

/// What the guest did that it cannot go on after.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It has called what there is not.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Something went wrong for which it has no handler. Where is not known: the processor may have been reset already.
    #[error("it has reset its machine, as after a fault")]
    Reset,
    /// It waits for an interrupt, and there is none.
    #[error("it has stopped its processor at {0:#x}")]
    Stopped(u64),
    /// It has used memory that it does not have.
    #[error("it has used memory at {address:#x}, where there is none, at {at:#x}")]
    NoMemory {
        /// What it has used.
        address: u64,
        /// Its instruction.
        at: u64,
    },
    /// Something else that no guest does.
    #[error("its processor has stopped at {at:#x}: {what}")]
    Other {
        /// What it did.
        what: &'static str,
        /// Its instruction.
        at: u64,
    },
}

/// Why the guest has stopped.
#[derive(Debug)]
pub(crate) enum Exit {
    /// It makes a hypercall, with this address.
    Call(Call, u32),
    Fault(Fault),
    Failed(MachineError),
}

fn refusal(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { what, source }
}

/// A machine. The fields are dropped in this order: what uses memory before it.
pub(crate) struct Machine {
    processor: VcpuFd,
    _machine: VmFd,
    pub(crate) memory: Mapping,
    refusals: u32,
}

/// What a machine is made of.
pub(crate) struct Parts<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) file: &'a File,
    /// In whole large pages.
    pub(crate) memory_bytes: u64,
    pub(crate) manifest: &'a [u8],
    pub(crate) command_line: &'a str,
}

impl Machine {
    /// A machine that is about to run the kernel's first instruction.
    pub(crate) fn new(parts: &Parts<'_>) -> Result<Self, MachineError> {
        let memory = Mapping::new(parts.memory_bytes).map_err(MachineError::Memory)?;
        parts.kernel.load(parts.file, &memory)?;
        let kvm = Kvm::new().map_err(refusal("be opened (/dev/kvm)"))?;
        let machine = kvm.create_vm().map_err(refusal("make a virtual machine"))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.length(),
            userspace_addr: memory.host_address(),
        };
        // SAFETY: a mapping of this length that lives as long as the machine does (order of the fields), and the one slot there is.
        unsafe { machine.set_user_memory_region(region) }.map_err(refusal("map memory"))?;
        let processor = machine.create_vcpu(0).map_err(refusal("make a processor"))?;
        let features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        features
            .and_then(|features| processor.set_cpuid2(&features))
            .map_err(refusal("tell the processor's features"))?;
        let khz = processor.get_tsc_khz().map_err(refusal("tell the clock rate"))?;
        let told = Told {
            manifest: parts.manifest,
            command_line: parts.command_line,
            time_stamp_hz: u64::from(khz) * 1000,
        };
        boot::prepare(&memory, parts.kernel, &told)?;
        let mut special = processor.get_sregs().map_err(refusal("tell registers"))?;
        boot::set_special_registers(&mut special);
        let set = processor.set_sregs(&special);
        set.map_err(refusal("set special registers"))?;
        let registers = boot::registers(parts.kernel.entry, memory.length());
        processor.set_regs(&registers).map_err(refusal("set registers"))?;
        Ok(Self {
            processor,
            _machine: machine,
            memory,
            refusals: 0,
        })
    }

    /// Number of the processor's descriptor.
    pub(crate) fn processor(&self) -> RawFd {
        self.processor.as_raw_fd()
    }

    /// Runs the guest until it needs something.
    pub(crate) fn run(&mut self) -> Exit {
        loop {
            let stopped = match self.processor.run() {
                Ok(VcpuExit::IoOut(port, data)) => {
                    let address = data.try_into().ok().map(u32::from_le_bytes);
                    match Call::from_port(port).zip(address) {
                        Some((call, address)) => {
                            self.refusals = 0;
                            return Exit::Call(call, address);
                        }
                        None => return Exit::Fault(CallError::NoCall { port }.into()),
                    }
                }
                Ok(VcpuExit::IoIn(port, _)) => return Exit::Fault(CallError::NoCall { port }.into()),
                Ok(VcpuExit::Intr) => continue,
                Err(error) if error.errno() == libc::EINTR => continue,
                // KVM makes threads of its own when a processor runs first, and says so where there may be none for now.
                Err(error) if error.errno() == libc::EAGAIN && self.refusals < REFUSALS_MAX => {
                    self.refusals += 1;
                    continue;
                }
                Err(error) => return Exit::Failed(refusal("run the processor")(error)),
                Ok(VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _)) => {
                    Stop::NoMemory(address)
                }
                Ok(VcpuExit::Shutdown) => Stop::Reset,
                Ok(VcpuExit::Hlt) => Stop::Halt,
                Ok(VcpuExit::InternalError) => Stop::Instruction,
                Ok(VcpuExit::FailEntry(..)) => Stop::Other("KVM cannot enter it"),
                Ok(_) => Stop::Other("for a reason that a machine without devices does not have"),
            };
            return self.describe(&stopped);
        }
    }

    /// Says where it was.
    fn describe(&self, stopped: &Stop) -> Exit {
        let at = match self.processor.get_regs() {
            Ok(registers) => registers.rip,
            Err(error) => return Exit::Failed(refusal("tell registers")(error)),
        };
        Exit::Fault(match *stopped {
            Stop::NoMemory(address) => Fault::NoMemory { address, at },
            Stop::Reset => Fault::Reset,
            Stop::Halt => Fault::Stopped(at),
            Stop::Other(what) => Fault::Other { what, at },
            Stop::Instruction => {
                return Exit::Failed(MachineError::Instruction {
                    address: at,
                    bytes: self.instruction(at),
                });
            }
        })
    }

    /// What is in memory at an address. It is where the instruction is unless the guest has page tables of its own.
    fn instruction(&self, address: u64) -> String {
        let count = self
            .memory
            .length()
            .saturating_sub(address)
            .min(INSTRUCTION_BYTES);
        let mut bytes = vec![0; count as usize];
        if self.memory.read(address, &mut bytes).is_err() {
            bytes.clear();
        }
        let mut text = String::new();
        for byte in bytes {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Why the processor has stopped, as KVM says.
enum Stop {
    NoMemory(u64),
    Reset,
    Halt,
    Instruction,
    Other(&'static str),
}
