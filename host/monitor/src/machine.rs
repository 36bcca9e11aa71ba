//! The virtual machine: made, loaded, and run from exit to exit.
//!
//! One that is made and not yet loaded belongs to no function: it is the *shell* that waits for one (`docs/snapshots.md`).

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_sregs, kvm_userspace_memory_region, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use spore_abi::doorbell::{DOORBELL_PORT, EXCEPTION_PORT};
use spore_abi::layout::{LARGE_PAGE_BYTES, MONITOR_GPA, PAGE_BYTES, PAGE_TABLES_GPA};
use spore_abi::pages::Registers;

use crate::features::Features;
use crate::guest_process::ProcessEnd;
use crate::image::{Image, TEXT_FILE_AREA_OFFSET};
use crate::kick::ImmediateExit;
use crate::memory::{OutOfRange, Region};
use crate::processor::Processor;
use crate::tables;

mod baseline;
mod contents;
mod neighbours;
mod reset;
mod stock;
mod stub;
mod touched;

pub(crate) use contents::Memory;
use reset::Pristine;
use stock::Places;
use touched::Unaccessed;

/// `_IOW(KVMIO, 0xe1, struct kvm_device_attr)`, which kvm-ioctls has for other architectures only.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
const MSR_TIME_STAMP: u32 = 0x10;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;
/// Flags that `syscall` clears: trap, interrupt, direction, nested task, alignment check.
const SYSCALL_FLAG_MASK: u64 = 0x4_4700;
/// Protected mode, monitor coprocessor, extension type, numeric error, write protect, paging.
const CR0: u64 = 0x8001_0033;
/// Physical address extension, SSE, SSE exceptions, FSGSBASE, XSAVE.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18;
/// System calls, long mode enabled and active, no-execute.
const EFER: u64 = 0xd01;
/// x87, SSE, AVX, and the three parts of AVX-512.
const EXTENDED_STATE_SERVED: u64 = 0xe7;
/// A bit of CR3 that means nothing here; changing it makes the host forget translations.
const CR3_FLUSH_BIT: u64 = 1 << 3;

/// The memory slots (KVM API, KVM_SET_USER_MEMORY_REGION).
const RAM_SLOT: u32 = 0;
const MONITOR_SLOT: u32 = 1;
const PROGRAM_SLOT: u32 = 2;
const TEXT_SLOT: u32 = 3;

/// Why a virtual machine could not be made or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("KVM refuses to {what}")]
    Kvm {
        what: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("no memory for the guest")]
    Memory(#[source] io::Error),
    #[error("the processor's page cannot be mapped")]
    Kick(#[source] io::Error),
    #[error("the guest's memory is too small for its tables")]
    TooSmall(#[from] OutOfRange),
    #[error("the processor's features cannot be described")]
    Features,
    #[error("the snapshot cannot be used: {0}")]
    Snapshot(&'static str),
    #[error("the snapshot cannot be used: this processor has not all that it needs: {0}")]
    MissingFeatures(String),
}

/// How often in a row KVM may refuse for now to run a processor.
const REFUSALS_MAX: u32 = 1000;

fn kvm_error(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { what, source }
}

/// What the processor's extended register state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExtendedState {
    pub(crate) mask: u64,
    pub(crate) bytes: u64,
}

/// Why the guest stopped running.
#[derive(Debug)]
pub(crate) enum Exit {
    /// It rang the doorbell.
    Doorbell(u32),
    /// It raised an exception; the processor is at a stub.
    Exception,
    /// A signal came in.
    Interrupted,
    /// It did something that no guest of ours does; one line.
    Unexpected(String),
    /// The host does not let it run.
    Refused(MachineError),
    /// Its process has ended by no doing of its own.
    Lost(ProcessEnd),
}

/// A virtual machine. Fields are dropped in order: the machine before its memory.
pub(crate) struct Machine {
    processor: VcpuFd,
    special: kvm_sregs,
    virtual_machine: VmFd,
    pub(crate) ram: Region,
    pub(crate) monitor_area: Region,
    program: Option<Region>,
    /// Program text in large pages.
    snapshot_text: Option<Region>,
    pristine: Option<Pristine>,
    /// Stretches of its memory that the host has found pages for, which nobody has touched.
    stock: Vec<(u64, u64)>,
    /// Places that the guest knows for files that it is to be shown.
    places: Places,
    /// Of a copy that tells what it has needed.
    unaccessed: Option<Unaccessed>,
    kick: ImmediateExit,
    pub(crate) extended_state: ExtendedState,
    features: Features,
    /// First unused byte of the page-table pool.
    pub(crate) page_tables_used_gpa: u64,
    pub(crate) time_stamp_khz: u64,
    /// How often in a row KVM could not run the processor for now.
    refusals: u32,
}

impl Machine {
    /// A machine with `ram_bytes` of memory (rounded up to large pages) and nothing in it, whose processor is set to the
    /// image's first instruction. It knows no program yet: see [`Machine::load`]. `text` is [`crate::text_file`], where
    /// it is to be shared; `description` is what is known of its processor.
    pub(crate) fn new(
        kvm: &Kvm,
        image: &Image,
        ram_bytes: u64,
        text: Option<BorrowedFd<'_>>,
        description: &Processor,
    ) -> Result<Self, MachineError> {
        let virtual_machine = kvm.create_vm().map_err(kvm_error("make a virtual machine"))?;
        let ram_bytes = ram_bytes.next_multiple_of(LARGE_PAGE_BYTES);
        let ram =
            Region::anonymous(ram_bytes as usize, LARGE_PAGE_BYTES as usize).map_err(MachineError::Memory)?;
        let monitor_area =
            Region::anonymous(tables::MONITOR_BYTES, PAGE_BYTES as usize).map_err(MachineError::Memory)?;
        match text {
            Some(text) => monitor_area
                .overlay(text, TEXT_FILE_AREA_OFFSET, 0, tables::MONITOR_BYTES)
                .map_err(MachineError::Memory)?,
            None => tables::fill_monitor_area(&monitor_area)?,
        }

        let processor = virtual_machine
            .create_vcpu(0)
            .map_err(kvm_error("make a processor"))?;
        description
            .leaves()
            .and_then(|leaves| processor.set_cpuid2(&leaves))
            .map_err(kvm_error("set the processor's features"))?;
        let extended_state = description.extended_state;
        let mut special = processor.get_sregs().map_err(kvm_error("read registers"))?;
        set_special_registers(&mut special, &tables::PLACES, description.task_state_type);
        processor
            .set_sregs(&special)
            .map_err(kvm_error("set special registers"))?;
        set_processor_state(&processor, image, extended_state)?;
        share_time_stamp(&processor)?;
        let registers = kvm_regs {
            rip: image.header.entry,
            rflags: 2,
            ..Default::default()
        };
        processor
            .set_regs(&registers)
            .map_err(kvm_error("set registers"))?;
        let time_stamp_khz = u64::from(
            processor
                .get_tsc_khz()
                .map_err(kvm_error("tell the clock rate"))?,
        );
        // SAFETY: the processor's descriptor is open for the length of the call.
        let kick = ImmediateExit::of(unsafe { BorrowedFd::borrow_raw(processor.as_raw_fd()) })
            .map_err(MachineError::Kick)?;

        let machine = Self {
            processor,
            special,
            virtual_machine,
            ram,
            monitor_area,
            program: None,
            snapshot_text: None,
            pristine: None,
            stock: Vec::new(),
            places: Places::default(),
            unaccessed: None,
            kick,
            extended_state,
            features: description.features.clone(),
            page_tables_used_gpa: 0,
            time_stamp_khz,
            refusals: 0,
        };
        machine.map(RAM_SLOT, 0, &machine.ram, 0)?;
        machine.map(MONITOR_SLOT, MONITOR_GPA, &machine.monitor_area, 0)?;
        if let Some(text) = text {
            machine.put_text(text)?;
        }
        Ok(machine)
    }

    /// Shows the guest a region of ours, which the machine keeps.
    fn map(&self, slot: u32, guest_phys_addr: u64, region: &Region, flags: u32) -> Result<(), MachineError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr,
            memory_size: region.length(),
            userspace_addr: region.host_address(),
        };
        // SAFETY: the regions are mappings of this length that live as long as the machine (field order), and the slots
        // do not overlap (asserted in spore_abi::layout).
        unsafe { self.virtual_machine.set_user_memory_region(region) }.map_err(kvm_error("map memory"))
    }

    /// Takes a region of ours from the guest again.
    fn unmap(&self, slot: u32, guest_phys_addr: u64) -> Result<(), MachineError> {
        let nothing = kvm_userspace_memory_region {
            slot,
            guest_phys_addr,
            ..Default::default()
        };
        // SAFETY: a slot without a length is none any more (KVM API, KVM_SET_USER_MEMORY_REGION).
        unsafe { self.virtual_machine.set_user_memory_region(nothing) }.map_err(kvm_error("take memory back"))
    }

    /// Number of the processor's descriptor.
    pub(crate) fn processor_descriptor(&self) -> RawFd {
        self.processor.as_raw_fd()
    }

    /// Memory that is mapped for the guest, in bytes.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        let files = [&self.program, &self.snapshot_text];
        let files_bytes: u64 = files.into_iter().flatten().map(Region::length).sum();
        let pristine_bytes = self.pristine.as_ref().map_or(0, Pristine::mapped_bytes);
        self.ram.length() + self.monitor_area.length() + files_bytes + pristine_bytes
    }

    /// Lets KVM do what it does when a virtual machine runs for the first time, without running it: kernels since 6.12
    /// start a thread then, in this process, which its limits would not allow later.
    pub(crate) fn warm_up(&mut self) {
        self.run_nothing();
    }

    /// Enters KVM without running the guest.
    fn run_nothing(&mut self) {
        self.kick.set();
        // It returns at once, and what else it may say it says again when the guest is to run.
        let _ = self.run();
        self.forget_tick();
    }

    /// Forgets a tick that has come: what it asks for has just been done.
    pub(crate) fn forget_tick(&self) {
        self.kick.clear();
    }

    /// The program's file, as it is mapped: whole pages, zeros behind its end.
    pub(crate) fn program(&self) -> Cow<'_, [u8]> {
        self.program.as_ref().map_or(Cow::Borrowed(&[]), Region::contents)
    }

    /// Whether KVM is about to raise an exception in the guest: the registers are those before it, and must stay.
    pub(crate) fn is_exception_due(&self) -> Result<bool, MachineError> {
        let events = self
            .processor
            .get_vcpu_events()
            .map_err(kvm_error("tell its events"))?;
        Ok(events.exception.injected != 0 || events.exception.pending != 0)
    }

    /// Runs the guest until it needs something. A tick that comes while it needs something else is not lost: the
    /// next call returns at once, as interrupted, when KVM has finished the instruction that made this one return.
    pub(crate) fn run(&mut self) -> Exit {
        let exit = match self.processor.run() {
            Ok(VcpuExit::IoOut(DOORBELL_PORT, data)) if data.len() == 4 => {
                Exit::Doorbell(u32::from_ne_bytes([data[0], data[1], data[2], data[3]]))
            }
            Ok(VcpuExit::IoOut(EXCEPTION_PORT, _)) => Exit::Exception,
            Ok(VcpuExit::IoOut(DOORBELL_PORT, _)) => Exit::Unexpected("a doorbell of the wrong width".into()),
            Ok(VcpuExit::Intr) => Exit::Interrupted,
            Ok(VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _)) => Exit::Unexpected(
                format!("access to guest-physical address {address:#x}, where nothing is"),
            ),
            Ok(VcpuExit::Shutdown) => Exit::Unexpected("the processor gave up after a triple fault".into()),
            Ok(VcpuExit::InternalError) => {
                Exit::Unexpected("KVM cannot emulate an instruction of the guest".into())
            }
            Ok(other) => Exit::Unexpected(format!("the processor stopped: {}", exit_name(&other))),
            Err(error) if error.errno() == libc::EINTR => Exit::Interrupted,
            // KVM makes threads of its own when a processor runs first. Where there may be none, it says so for ever.
            Err(error) if error.errno() == libc::EAGAIN => {
                self.refusals += 1;
                if self.refusals > REFUSALS_MAX {
                    return Exit::Refused(kvm_error("run the processor")(error));
                }
                Exit::Interrupted
            }
            Err(error) if error.errno() == libc::ENOMEM => {
                return Exit::Refused(kvm_error("run the processor")(error));
            }
            Err(error) if error.errno() == libc::EFAULT => {
                Exit::Unexpected("access to memory that the host cannot provide".into())
            }
            Err(error) => Exit::Unexpected(format!("KVM cannot run the processor: {error}")),
        };
        if matches!(exit, Exit::Interrupted) {
            self.forget_tick();
        } else {
            self.refusals = 0;
        }
        exit
    }

    /// The processor's registers.
    pub(crate) fn registers(&self) -> Result<Registers, MachineError> {
        let regs = self.processor.get_regs().map_err(kvm_error("read registers"))?;
        Ok(Registers {
            general: [
                regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8,
                regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            rflags: regs.rflags,
        })
    }

    /// Sets the processor's registers.
    pub(crate) fn set_registers(&self, registers: &Registers) -> Result<(), MachineError> {
        let [
            rax,
            rcx,
            rdx,
            rbx,
            rsp,
            rbp,
            rsi,
            rdi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = registers.general;
        let regs = kvm_regs {
            rax,
            rcx,
            rdx,
            rbx,
            rsp,
            rbp,
            rsi,
            rdi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: registers.rip,
            rflags: registers.rflags,
        };
        self.processor.set_regs(&regs).map_err(kvm_error("set registers"))
    }

    /// The address of the last page fault (CR2).
    pub(crate) fn fault_address(&self) -> Result<u64, MachineError> {
        Ok(self
            .processor
            .get_sregs()
            .map_err(kvm_error("read registers"))?
            .cr2)
    }

    /// Puts the processor at CPL 3, keeping the bases of FS and GS, which the program may have set by itself.
    pub(crate) fn leave_supervisor(&mut self) -> Result<(), MachineError> {
        self.update_special(|_| {})
    }

    /// Makes the host forget translations that the guest has changed.
    pub(crate) fn flush_translations(&mut self) -> Result<(), MachineError> {
        self.special.cr3 ^= CR3_FLUSH_BIT;
        self.update_special(|_| {})
    }

    /// Translates with another top-level table from now on; whether there can be one at that address.
    pub(crate) fn switch_tables(&mut self, top_gpa: u64) -> Result<bool, MachineError> {
        let is_table = self.is_table(top_gpa);
        if is_table {
            self.special.cr3 = top_gpa | (self.special.cr3 & CR3_FLUSH_BIT);
            self.flush_translations()?;
        }
        Ok(is_table)
    }

    /// Whether there can be a page table at this address.
    fn is_table(&self, gpa: u64) -> bool {
        let end = gpa.checked_add(PAGE_BYTES);
        gpa.is_multiple_of(PAGE_BYTES) && end.is_some_and(|end| end <= self.ram.length())
    }

    fn update_special(&mut self, change: impl FnOnce(&mut kvm_sregs)) -> Result<(), MachineError> {
        let current = self.processor.get_sregs().map_err(kvm_error("read registers"))?;
        let mut special = self.special;
        special.fs = current.fs;
        special.gs = current.gs;
        change(&mut special);
        self.processor
            .set_sregs(&special)
            .map_err(kvm_error("set special registers"))
    }
}

/// Name of an exit that no guest of ours causes, with its port if it has one, and nothing of the data that the guest
/// chose.
fn exit_name(exit: &VcpuExit<'_>) -> String {
    /// Takes the first word.
    struct Name(String);
    impl fmt::Write for Name {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            const CHARS_MAX: usize = 40;
            for c in text.chars() {
                if !c.is_alphanumeric() || self.0.len() >= CHARS_MAX {
                    return Err(fmt::Error);
                }
                self.0.push(c);
            }
            Ok(())
        }
    }
    match exit {
        VcpuExit::IoIn(port, _) => format!("it read from port {port:#x}"),
        VcpuExit::IoOut(port, _) => format!("it wrote to port {port:#x}"),
        VcpuExit::FailEntry(reason, _) => format!("it cannot enter the guest, reason {reason:#x}"),
        VcpuExit::Unsupported(reason) => format!("exit reason {reason}"),
        other => {
            let mut name = Name(String::new());
            // Ends with an error at the end of the first word.
            let _ = write!(name, "{other:?}");
            name.0
        }
    }
}

/// A part of CPUID leaf 0xd (Intel SDM volume 1, 13.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateLeaf {
    pub(crate) eax: u32,
    pub(crate) ebx: u32,
    pub(crate) edx: u32,
}

/// Which extended state the host serves, of what we serve, and how much room `xsave` needs for it. `leaf` gives the parts
/// of leaf 0xd. Both forms of a guest have the same.
pub(crate) fn extended_state(leaf: impl Fn(u32) -> Option<StateLeaf>) -> ExtendedState {
    /// Legacy region and header.
    const BYTES_MIN: u64 = 576;
    let supported = leaf(0).map_or(3, |part| u64::from(part.eax) | u64::from(part.edx) << 32);
    let mut mask = supported & EXTENDED_STATE_SERVED | 3;
    // The parts of AVX-512 may be enabled together only, and only with AVX.
    if mask & 0xe4 != 0xe4 {
        mask &= 7;
    }
    let end = |component: u32| leaf(component).map_or(0, |part| u64::from(part.eax) + u64::from(part.ebx));
    let bytes = (2..63)
        .filter(|component| mask >> component & 1 != 0)
        .map(end)
        .max()
        .unwrap_or(0);
    ExtendedState {
        mask,
        bytes: bytes.max(BYTES_MIN),
    }
}

fn set_special_registers(special: &mut kvm_sregs, places: &tables::Places, task_state_type: u8) {
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: tables::USER_CODE,
        type_: 11,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: tables::USER_DATA,
        type_: 3,
        l: 0,
        db: 1,
        ..code
    };
    special.cs = code;
    special.ds = data;
    special.es = data;
    special.fs = data;
    special.gs = data;
    special.ss = data;
    special.ldt = kvm_segment {
        unusable: 1,
        ..Default::default()
    };
    special.tr = kvm_segment {
        base: places.task_state.0,
        limit: places.task_state.1,
        selector: tables::TASK_STATE,
        present: 1,
        type_: task_state_type,
        ..Default::default()
    };
    (special.gdt.base, special.gdt.limit) = places.gdt;
    (special.idt.base, special.idt.limit) = places.idt;
    special.cr0 = CR0;
    special.cr3 = PAGE_TABLES_GPA;
    special.cr4 = CR4;
    special.efer = EFER;
}

/// Lets the guest read the host's time-stamp counter: the clocks in the host page are given in its terms.
fn share_time_stamp(processor: &VcpuFd) -> Result<(), MachineError> {
    let offset = 0_u64;
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset) as u64,
        flags: 0,
    };
    // SAFETY: the attribute and the value that it points to live through the call, which only reads them.
    let result = unsafe { libc::ioctl(processor.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) };
    if result == 0 {
        return Ok(());
    }
    // Kernels before 5.16: set the counter to what it is now, which is right to the length of the call.
    let entry = kvm_msr_entry {
        index: MSR_TIME_STAMP,
        data: crate::start::time_stamp(),
        ..Default::default()
    };
    let registers = Msrs::from_entries(&[entry]).map_err(|_| MachineError::Features)?;
    processor
        .set_msrs(&registers)
        .map_err(kvm_error("share the clock"))?;
    Ok(())
}

fn set_processor_state(
    processor: &VcpuFd,
    image: &Image,
    extended_state: ExtendedState,
) -> Result<(), MachineError> {
    let mut control = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    control.xcrs[0].value = extended_state.mask;
    processor
        .set_xcrs(&control)
        .map_err(kvm_error("enable extended registers"))?;
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries = [
        entry(MSR_STAR, tables::STAR),
        entry(MSR_LSTAR, image.header.system_call_entry),
        entry(MSR_SYSCALL_MASK, SYSCALL_FLAG_MASK),
    ];
    let registers = Msrs::from_entries(&entries).map_err(|_| MachineError::Features)?;
    let written = processor
        .set_msrs(&registers)
        .map_err(kvm_error("set model-specific registers"))?;
    if written == entries.len() {
        Ok(())
    } else {
        Err(MachineError::Features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unexpected_exits_are_named_without_the_guests_data() {
        let mut data = [0xaa; 4096];
        assert_eq!(exit_name(&VcpuExit::Hlt), "Hlt");
        assert_eq!(exit_name(&VcpuExit::IoOut(0x60, &data)), "it wrote to port 0x60");
        assert_eq!(exit_name(&VcpuExit::SystemEvent(1, &[7; 16])), "SystemEvent");
        assert_eq!(
            exit_name(&VcpuExit::IoIn(0x61, &mut data)),
            "it read from port 0x61"
        );
    }
}
