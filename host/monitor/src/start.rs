//! The monitor process from its start to the first instruction of the guest, and its control socket.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;

use kvm_ioctls::Kvm;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send as send_packet,
};
use serde::Serialize;
use spore_abi::layout::{
    BOOT_PAGE_GPA, FREE_GPA, GUEST_PAGE_GPA, HOST_PAGE_GPA, MODULES_BYTES_MAX, PAGE_TABLES_GPA,
    RAM_BYTES_MAX, START_BLOCK_BYTES, START_BLOCK_GPA,
};
use spore_abi::pages::{BOOT_MAGIC, BootPage, GuestPage, HostPage, MORE_GROUPS_MAX, boot_flags};
use spore_abi::process::form;
use zerocopy::FromZeros;

use crate::clocks::Clocks;
use crate::egress::Egress;
use crate::form::Form;
use crate::guest_process::{Load, ProcessError};
use crate::image::Image;
use crate::jail::{Boundary, GuestHandle, Jail, Layer};
use crate::log::Log;
use crate::machine::{MachineError, Memory};
use crate::memory::OutOfRange;
use crate::module::RootFiles;
use crate::protocol::{
    ATTACHMENTS_MAX, Cause, End, Event, Isolation, IsolationChoice, JailRequest, LogOrigin, MemorySource,
    Milestones, PACKET_BYTES_MAX, Request, RootKind, Secret, StartRequest,
};
use crate::report;
use crate::run::{Instance, chain, host_clocks_ns};
use crate::shell::{Rights, Waiting};
use crate::streams::Streams;
use crate::written::PageMap;
use crate::zygote::{self, Next};

/// Memory that the library OS keeps for itself, beyond the function's, in bytes. It takes host memory as it is used.
const HEAP_BYTES: u64 = 32 << 20;
/// The part of the function's memory that comes to it, for the books that are kept of that memory.
const HEAP_SHARE: u64 = 64;

/// How much sooner than others a monitor is chosen where memory runs out: as if it had half of all memory besides its own.
const OOM_SCORE: &str = "500";

/// Why an instance could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("/dev/kvm cannot be used: {}", crate::probe::advice(.0))]
    Kvm(#[source] kvm_ioctls::Error),
    #[error("there can be no virtual machine here: choose --isolation process, or leave the choice to Spore")]
    NoVirtualMachine(#[source] Box<StartError>),
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    #[error("the virtual machine cannot be made")]
    Machine(#[from] MachineError),
    #[error("the guest's process cannot be made")]
    Process(#[from] ProcessError),
    #[error("the shared pages cannot be written")]
    Memory(#[from] OutOfRange),
    #[error("{what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    BadProgram(String),
    #[error("the file that is to be its memory is missing")]
    NoMemoryFile,
    #[error("the file that is the head of its root is missing")]
    NoHead,
    #[error(
        "a monitor that was made ready for a virtual machine is asked for a process, or its process is gone"
    )]
    NoRights,
    #[error("a layer of the jail that others have is missing here: {layer} ({reason})")]
    Jail { layer: Layer, reason: String },
}

/// The number of the log socket's descriptor: standard output.
const LOG_DESCRIPTOR: i32 = 1;
/// Largest packet that follows a request to start: all are a few bytes long.
const LATER_PACKET_BYTES_MAX: usize = 1024;
/// Longest message about a panic, in bytes.
const PANIC_BYTES_MAX: usize = 1000;

/// Runs a monitor process, or one that makes them by copying itself: standard input is its control socket, standard output
/// its log socket. Returns when the instance has ended.
#[must_use]
pub fn main() -> ExitCode {
    // Where memory runs out, an instance goes before the daemon does. Fails only where there is no /proc.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // SAFETY: the daemon gives these two descriptors to the process for this purpose; nothing else here uses them.
    let (control, log) = unsafe { (OwnedFd::from_raw_fd(0), OwnedFd::from_raw_fd(LOG_DESCRIPTOR)) };
    let open = || (Kvm::new(), File::open("/proc"));
    let (mut jail, (kvm, processes)) = Jail::enter(rustix::stdio::stderr().as_raw_fd(), open);
    if zygote::is_wanted() {
        match zygote::serve(&control, &mut jail, kvm.is_ok()) {
            Next::Monitor => {}
            Next::End => return ExitCode::SUCCESS,
            Next::Failed => return ExitCode::FAILURE,
        }
    }
    let control = Rc::new(control);
    let page_map = processes.ok().and_then(|processes| PageMap::open(&processes));
    let mut waiting = Waiting::new(jail, page_map);
    let (start, request, files) = loop {
        let (message, mut attachments) = match receive_blocking(&control) {
            Ok(Some((Received::Message(message), attachments))) => {
                (message, attachments.into_iter().peekable())
            }
            // The daemon has given up, or is no daemon: nobody hears us.
            _ => return ExitCode::FAILURE,
        };
        match (message, attachments.next()) {
            (Request::Prepare(preparation), text) => {
                waiting.text = text;
                waiting = waiting.prepare(&preparation, &kvm, &control);
            }
            (Request::Start { instance, jail }, Some(program)) => {
                let has_head = instance.root == RootKind::LayeredFileSystem;
                let files = Files {
                    program: File::from(program),
                    head: attachments.next_if(|_| has_head).map(File::from),
                    memory: attachments.next(),
                    text: attachments.next(),
                };
                break (*instance, jail, files);
            }
            (Request::Probe { user }, _) => return probe(waiting.into_rights(), user, &control),
            _ => return ExitCode::FAILURE,
        }
    };
    waiting.rights.set_title(&request.title);
    let instance = prepare(start, files, kvm, &mut waiting, &request, &control, log)
        .and_then(|instance| confine(instance, waiting.into_rights(), &request));
    let end = match instance {
        Ok(instance) => instance.run(),
        Err(StartError::BadProgram(reason)) => End {
            cause: Cause::BadProgram(reason),
            details: Vec::new(),
        },
        Err(error) => End {
            cause: Cause::Failed(chain(&error)),
            details: Vec::new(),
        },
    };
    match send(&control, &Event::Ended(end)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Goes to jail with nothing to run, and tells what became of each layer.
fn probe(rights: Rights, user: Option<u32>, control: &OwnedFd) -> ExitCode {
    let boundary = Boundary {
        guest: GuestHandle::None,
        control: control.as_raw_fd(),
        page_map: None,
        resets: false,
    };
    let report = rights.give_up(boundary, user, || {}).seal(&boundary, 0);
    match send(control, &Event::Jail(report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Gives up everything that the instance does not need: the next thing that happens is its first instruction.
fn confine(mut instance: Instance, rights: Rights, request: &JailRequest) -> Result<Instance, StartError> {
    let boundary = Boundary {
        guest: instance.machine.guest(),
        control: instance.control.as_raw_fd(),
        page_map: instance
            .page_map
            .as_ref()
            .map(|page_map| page_map.file().as_raw_fd()),
        resets: instance.machine.can_be_reset(),
    };
    let stripped = rights.give_up(boundary, request.user, || instance.machine.warm_up());
    let report = stripped.seal(&boundary, instance.machine.mapped_bytes());
    match report.first_missing(&request.required) {
        None => Ok(instance),
        Some((layer, reason)) => Err(StartError::Jail { layer, reason }),
    }
}

/// Says something of the platform's in the function's log, whatever else is broken here.
pub(crate) fn say_on_log(text: &str) {
    let text = report::printable(text.as_bytes());
    let mut packet = vec![LogOrigin::Platform as u8];
    packet.extend(text.bytes().take(PANIC_BYTES_MAX));
    packet.push(b'\n');
    // SAFETY: the descriptor is open for as long as the log is, which is when a guest can cause something to be said.
    // When it is closed, the kernel says so.
    let log = unsafe { BorrowedFd::borrow_raw(LOG_DESCRIPTOR) };
    // There is nobody to tell of a failure.
    let _ = send_packet(log, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// The files that come with a request to start.
struct Files {
    program: File,
    /// See [`RootKind::LayeredFileSystem`].
    head: Option<File>,
    /// See [`MemorySource`].
    memory: Option<OwnedFd>,
    /// See [`crate::protocol::Snapshot::text_bytes`].
    text: Option<OwnedFd>,
}

/// Makes the guest and fills its shared pages.
fn prepare(
    start: StartRequest,
    files: Files,
    kvm: Result<Kvm, kvm_ioctls::Error>,
    waiting: &mut Waiting,
    jail: &JailRequest,
    control: &Rc<OwnedFd>,
    log: OwnedFd,
) -> Result<Instance, StartError> {
    let image = Image::library_os()?;
    if files.head.is_none() && start.root == RootKind::LayeredFileSystem {
        return Err(StartError::NoHead);
    }
    let program = RootFiles::new(files.program, files.head).map_err(|source| StartError::Io {
        what: "the program's file cannot be read",
        source,
    })?;
    let memory_files = (files.memory, files.text);
    let program_bytes = program.bytes();
    if program_bytes == 0 || program_bytes > MODULES_BYTES_MAX {
        return Err(StartError::BadProgram(format!(
            "its file has {program_bytes} bytes"
        )));
    }
    let machine = make_form(&image, &start, kvm, waiting, jail.user, &program, &memory_files)?;
    let tells_written = match &start.memory {
        MemorySource::Cloned(snapshot) => snapshot.written.is_none(),
        MemorySource::Fresh | MemorySource::Captured => false,
    };
    let page_map = match &machine {
        Form::VirtualMachine(_) if tells_written || machine.can_be_reset() => waiting.page_map.take(),
        _ => None,
    };
    let (clocks, log_head) = match start.memory {
        MemorySource::Cloned(_) => renew_shared_pages(&machine)?,
        MemorySource::Fresh | MemorySource::Captured => {
            (write_shared_pages(&machine, &start, program_bytes)?, 0)
        }
    };
    let (mapped_ns, _) = host_clocks_ns();
    Ok(Instance {
        machine,
        image,
        control: Rc::clone(control),
        log: Log::new(log, start.limits_log, log_head),
        // It is the daemon that limits the log.
        streams: Streams::new(start.limits_log),
        egress: Egress::default(),
        has_answered: false,
        memory_bytes: start.memory_bytes,
        is_ready: false,
        is_command: start.command.is_some(),
        is_finished: false,
        is_clone: matches!(start.memory, MemorySource::Cloned(_)),
        page_map,
        tells_written,
        captures: start.memory == MemorySource::Captured,
        clocks,
        milestones: Some(Milestones {
            mapped_ns,
            first_instruction_ns: mapped_ns,
            first_read_ns: None,
        }),
    })
}

/// What a guest is made of, in either form.
struct Making<'a> {
    image: &'a Image,
    ram_bytes: u64,
    /// How much of that is for programs.
    frames_bytes: u64,
    program: &'a RootFiles,
    memory: Memory<'a>,
    user: Option<u32>,
    uses_dispatch: bool,
    merges_pages: bool,
    is_reset: bool,
}

impl Making<'_> {
    fn machine(
        &self,
        kvm: Result<&Kvm, &kvm_ioctls::Error>,
        waiting: &mut Waiting,
    ) -> Result<Form, StartError> {
        let mut machine = waiting.take_machine(kvm, self.image, self.ram_bytes)?;
        let text = waiting.text.as_ref().map(AsFd::as_fd);
        machine.load(
            self.image,
            text,
            self.frames_bytes,
            Some(self.program),
            &self.memory,
            self.is_reset,
        )?;
        if self.merges_pages {
            machine.ram.merge_pages();
        }
        if let (true, Memory::CopyOf { file, snapshot, .. }, Ok(kvm)) = (self.is_reset, &self.memory, kvm) {
            // Where it fails, the instance is one that cannot be reset, and stopped when others are.
            let _ = machine.prepare_reset(kvm, *file, snapshot);
        }
        Ok(Form::VirtualMachine(Box::new(machine)))
    }

    fn process(&self, waiting: &mut Waiting) -> Result<Form, StartError> {
        let process = waiting.take_process(self.image, self.user)?;
        let process = process.load(&Load {
            image: self.image,
            ram_bytes: self.ram_bytes,
            program: self.program,
            memory: &self.memory,
            uses_dispatch: self.uses_dispatch,
        })?;
        Ok(Form::Process(Box::new(process)))
    }
}

/// Makes the guest in the form that is asked for, or in the one that can be made.
fn make_form(
    image: &Image,
    start: &StartRequest,
    kvm: Result<Kvm, kvm_ioctls::Error>,
    waiting: &mut Waiting,
    user: Option<u32>,
    program: &RootFiles,
    (memory, text): &(Option<OwnedFd>, Option<OwnedFd>),
) -> Result<Form, StartError> {
    let memory = match (&start.memory, memory) {
        (MemorySource::Fresh, _) => Memory::Fresh,
        (MemorySource::Captured, Some(file)) => Memory::Within(file.as_fd()),
        (MemorySource::Cloned(snapshot), Some(file)) => Memory::CopyOf {
            file: file.as_fd(),
            text: text.as_ref().map(AsFd::as_fd),
            snapshot,
        },
        (MemorySource::Captured | MemorySource::Cloned(_), None) => return Err(StartError::NoMemoryFile),
    };
    let making = Making {
        image,
        ram_bytes: ram_bytes(start.memory_bytes)?,
        frames_bytes: start.memory_bytes,
        program,
        memory,
        user,
        uses_dispatch: start.uses_dispatch,
        merges_pages: start.merges_pages,
        is_reset: start.is_reset,
    };
    match start.isolation {
        IsolationChoice::Only(Isolation::VirtualMachine) => {
            making
                .machine(kvm.as_ref(), waiting)
                .map_err(|error| match error {
                    StartError::Kvm(_) | StartError::Machine(MachineError::Kvm { .. }) => {
                        StartError::NoVirtualMachine(Box::new(error))
                    }
                    other => other,
                })
        }
        IsolationChoice::Only(Isolation::Process) => making.process(waiting),
        IsolationChoice::Automatic => match making.machine(kvm.as_ref(), waiting) {
            Err(StartError::Kvm(_) | StartError::Machine(MachineError::Kvm { .. }))
                if matches!(waiting.rights, Rights::Held(_)) =>
            {
                making.process(waiting)
            }
            other => other,
        },
    }
}

/// Memory that the monitor process and the kernel need for an instance besides that of its machine, in bytes: program
/// and heap of the monitor, KVM's tables, sockets.
const MONITOR_BYTES: u64 = 32 << 20;

/// Memory that has to be allowed to a monitor process whose function may use `memory_bytes`: the function's, the library
/// OS's, and the monitor's own.
#[must_use]
pub fn allowed_bytes(memory_bytes: u64) -> u64 {
    let machine = ram_bytes(memory_bytes).unwrap_or(RAM_BYTES_MAX);
    machine.saturating_add(MONITOR_BYTES)
}

/// Largest memory limit that a machine can have room for.
fn largest_memory_bytes() -> u64 {
    (RAM_BYTES_MAX - FREE_GPA - HEAP_BYTES) / (HEAP_SHARE + 1) * HEAP_SHARE
}

/// Memory of a machine whose function may use `memory_bytes`.
pub(crate) fn ram_bytes(memory_bytes: u64) -> Result<u64, StartError> {
    let ram_bytes = memory_bytes.checked_add(FREE_GPA + HEAP_BYTES + memory_bytes / HEAP_SHARE);
    ram_bytes.filter(|&bytes| bytes <= RAM_BYTES_MAX).ok_or_else(|| {
        let largest = largest_memory_bytes();
        StartError::BadProgram(format!("its memory limit is over {largest} bytes"))
    })
}

fn write_shared_pages(
    machine: &Form,
    start: &StartRequest,
    program_bytes: u64,
) -> Result<Clocks, StartError> {
    let mut block = Vec::new();
    for text in start
        .arguments
        .iter()
        .chain(&start.environment)
        .chain([&start.working_directory])
    {
        if text.contains('\0') {
            return Err(StartError::BadProgram(
                "an argument, a variable or the working directory contains a zero byte".into(),
            ));
        }
        block.extend_from_slice(text.as_bytes());
        block.push(0);
    }
    let more_groups = &start.user.more_groups;
    if more_groups.len() > MORE_GROUPS_MAX {
        return Err(StartError::BadProgram(format!(
            "its user has more than {MORE_GROUPS_MAX} groups"
        )));
    }
    for group in more_groups {
        block.extend_from_slice(&group.to_le_bytes());
    }
    let before_secrets_bytes = block.len();
    for Secret { name, value } in &start.secrets {
        block.extend_from_slice(&(name.len() as u32).to_le_bytes());
        block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        block.extend_from_slice(name.as_bytes());
        block.extend_from_slice(value);
    }
    if block.len() as u64 > START_BLOCK_BYTES {
        let limit = START_BLOCK_BYTES;
        return Err(StartError::BadProgram(format!(
            "its arguments, environment and secrets take more than {limit} bytes"
        )));
    }
    machine.ram().write_bytes(START_BLOCK_GPA, &block)?;

    let boot = BootPage {
        magic: BOOT_MAGIC,
        abi_version: spore_abi::ABI_VERSION,
        port: u32::from(start.port),
        ram_bytes: machine.ram().length(),
        memory_limit_bytes: start.memory_bytes,
        root_bytes: program_bytes,
        page_tables_used_gpa: machine.page_tables_used_gpa(),
        top_table_gpa: PAGE_TABLES_GPA,
        argument_count: start.arguments.len() as u32,
        environment_count: start.environment.len() as u32,
        start_block_bytes: block.len() as u32,
        flags: flags(start),
        secrets_bytes: (block.len() - before_secrets_bytes) as u32,
        user: start.user.id,
        group: start.user.group,
        more_groups_count: more_groups.len() as u32,
        extended_state_mask: machine.extended_state().mask,
        extended_state_bytes: machine.extended_state().bytes,
        seed: seed()?,
    };
    machine.ram().write(BOOT_PAGE_GPA, boot)?;

    let clocks = Clocks::booted(machine.time_stamp_khz(), start.memory == MemorySource::Captured);
    machine.ram().write(
        HOST_PAGE_GPA,
        HostPage {
            clock: clocks.shown(),
            form: form_number(machine),
            ..HostPage::new_zeroed()
        },
    )?;
    machine.ram().write(GUEST_PAGE_GPA, GuestPage::new_zeroed())?;
    Ok(clocks)
}

/// Makes a copy of a snapshot another instance than all the others: its clocks and its randomness are its own. Also how
/// far the log had been read.
pub(crate) fn renew_shared_pages(machine: &Form) -> Result<(Clocks, u32), StartError> {
    const SEED_GPA: u64 = BOOT_PAGE_GPA + offset_of!(BootPage, seed) as u64;
    let ram = machine.ram();
    ram.write(SEED_GPA, seed()?)?;
    let mut host: HostPage = ram.read(HOST_PAGE_GPA)?;
    let clocks = Clocks::resumed(machine.time_stamp_khz(), &host.clock);
    host.clock = clocks.shown();
    host.form = form_number(machine);
    host.generation = host.generation.wrapping_add(1);
    ram.write(HOST_PAGE_GPA, host)?;
    Ok((clocks, host.log_head))
}

/// How the guest's runtime knows its form.
fn form_number(machine: &Form) -> u32 {
    match machine.isolation() {
        Isolation::VirtualMachine => form::VIRTUAL_MACHINE,
        Isolation::Process => form::PROCESS,
    }
}

/// Fresh randomness for an instance.
fn seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).map_err(|error| {
        StartError::Io {
            what: "no randomness",
            source: error.into(),
        }
    })?;
    Ok(seed)
}

/// The boot flags that a request asks for.
fn flags(start: &StartRequest) -> u32 {
    let mut flags = boot_flags::REPORT_MISSING_CALLS;
    if start.root != RootKind::Program {
        flags |= boot_flags::ROOT_IS_EROFS;
    }
    if !start.rewrites_calls {
        flags |= boot_flags::NO_REWRITING;
    }
    if start.reaches_host_loopback {
        flags |= boot_flags::LOOPBACK_EGRESS;
    }
    if start.serves_runtime_api {
        flags |= boot_flags::RUNTIME_API;
    }
    if start.memory == MemorySource::Captured {
        flags |= boot_flags::BECOMES_SNAPSHOT;
    }
    if let Some(command) = start.command {
        flags |= boot_flags::COMMAND;
        if command.combines_output {
            flags |= boot_flags::COMBINED_OUTPUT;
        }
    }
    flags
}

/// The time-stamp counter. The guest sees the same one: its offset is zero.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Why a message could not be passed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the daemon cannot be reached")]
    Socket(#[source] Errno),
    #[error("a message cannot be encoded or decoded")]
    Encoding(#[from] postcard::Error),
}

/// What came in.
pub(crate) enum Received {
    /// A message.
    Message(Request),
    /// The daemon has closed its end.
    Closed,
}

/// Sends an event to the daemon, or another answer of this protocol.
pub(crate) fn send(control: &OwnedFd, message: &impl Serialize) -> Result<(), ControlError> {
    let packet = postcard::to_stdvec(message)?;
    retry_on_intr(|| send_packet(control, &packet, SendFlags::NOSIGNAL)).map_err(ControlError::Socket)?;
    Ok(())
}

/// The next message, with the descriptor attached to it; `None` if there is none now.
pub(crate) fn receive(control: &OwnedFd) -> Result<Option<(Received, Option<OwnedFd>)>, ControlError> {
    let received = receive_with(control.as_fd(), RecvFlags::DONTWAIT, LATER_PACKET_BYTES_MAX)?;
    Ok(received.map(|(received, attachments)| (received, attachments.into_iter().next())))
}

pub(crate) fn receive_blocking(control: &OwnedFd) -> Result<Option<(Received, Vec<OwnedFd>)>, ControlError> {
    // Room for the longest packet would have to be cleared each time, which takes longer than to ask how long this one is.
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, bytes) = retry_on_intr(|| recv(control, &mut [0; 1], flags)).map_err(ControlError::Socket)?;
    receive_with(control.as_fd(), RecvFlags::empty(), bytes.min(PACKET_BYTES_MAX))
}

fn receive_with(
    control: BorrowedFd<'_>,
    flags: RecvFlags,
    bytes_max: usize,
) -> Result<Option<(Received, Vec<OwnedFd>)>, ControlError> {
    let mut packet = vec![0; bytes_max];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHMENTS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut packet)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = match retry_on_intr(|| recvmsg(control, &mut slices, &mut ancillary, flags)) {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(ControlError::Socket(error)),
    };
    if received.bytes == 0 {
        return Ok(Some((Received::Closed, Vec::new())));
    }
    let mut attachments = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            attachments.extend(descriptors);
        }
    }
    let request = postcard::from_bytes(&packet[..received.bytes])?;
    Ok(Some((Received::Message(request), attachments)))
}

#[cfg(test)]
mod tests {
    use spore_abi::layout::PAGE_BYTES;

    use super::*;

    #[test]
    fn memory_limits_beyond_all_bounds_are_refused() {
        let largest = largest_memory_bytes();
        assert!((RAM_BYTES_MAX - PAGE_BYTES..=RAM_BYTES_MAX).contains(&ram_bytes(largest).unwrap()));
        for bytes in [largest + PAGE_BYTES, u64::MAX - FREE_GPA, u64::MAX] {
            let error = ram_bytes(bytes).unwrap_err().to_string();
            assert!(error.contains(&largest.to_string()), "{error}");
        }
    }
}
