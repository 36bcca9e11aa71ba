//! What this host's KVM can do, and what it costs; and what the process form is made of.

use std::fmt;
use std::fs;
use std::time::Instant;

use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::guest_process::{self, EmptyProcess, Load};
use crate::image::Image;
use crate::machine::{Exit, Machine, MachineError, Memory};
use crate::processor::Processor;
use crate::tables;
use spore_abi::layout::{FREE_GPA, IMAGE_GPA, WINDOW_BASE};
use spore_abi::pages::ImageHeader;
use zerocopy::FromZeros;

/// Round trips that are timed.
const ROUND_TRIPS: usize = 200;

/// Why virtual machines cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `/dev/kvm` is missing, or this user may not open it.
    #[error("/dev/kvm cannot be used: {}", advice(.0))]
    NoKvm(#[source] kvm_ioctls::Error),
    /// KVM is there but refuses to make or run a machine.
    #[error("KVM cannot run a virtual machine here")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No guest process can be made.
    #[error("the process form cannot be used")]
    NoProcess(#[source] Box<dyn std::error::Error + Send + Sync>),
}

pub(crate) fn advice(error: &kvm_ioctls::Error) -> &'static str {
    match error.errno() {
        libc::ENOENT => {
            "this machine has no hardware virtualisation, or its kernel module (kvm) is not loaded"
        }
        libc::EACCES | libc::EPERM => "add this user to the group `kvm`, or run as root",
        _ => "the kernel refuses to open it",
    }
}

/// Kind of virtualisation behind `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KvmKind {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
    /// Shadow paging in software (pagetable-based virtual machine): the processor offers neither.
    Pvm,
}

impl fmt::Display for KvmKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Vmx => "hardware (Intel VT-x)",
            Self::Svm => "hardware (AMD-V)",
            Self::Pvm => "software (PVM)",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostProbe {
    /// Kind of virtualisation.
    pub kvm_kind: KvmKind,
    /// Version of KVM's interface.
    pub kvm_api_version: i32,
    /// Model of the processor, as the kernel names it.
    pub processor: String,
    /// Processors that are online.
    pub processors: usize,
    /// Release of the host's kernel.
    pub kernel: String,
    /// Time to make a virtual machine with its memory and processor, in microseconds.
    pub create_us: f64,
    /// Time of an exit to the monitor and back, median, in microseconds.
    pub exit_us: f64,
    /// Rate of the time-stamp counter, in kilohertz.
    pub time_stamp_khz: u64,
    /// Whether the guest reads the same time-stamp counter as the host.
    pub shares_time_stamp: bool,
    /// Sizes of the pages that can be reserved, in bytes, with the number that is.
    pub huge_pages: Vec<(u64, u64)>,
    /// Setting of transparent huge pages (`always`, `madvise`, `never`).
    pub transparent_huge_pages: String,
}

impl fmt::Display for HostProbe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "KVM                 {}, interface {}",
            self.kvm_kind, self.kvm_api_version
        )?;
        writeln!(
            formatter,
            "processor           {} ({} online)",
            self.processor, self.processors
        )?;
        writeln!(formatter, "kernel              {}", self.kernel)?;
        writeln!(formatter, "make a machine      {:.0} µs", self.create_us)?;
        writeln!(formatter, "exit and return     {:.1} µs", self.exit_us)?;
        let shared = if self.shares_time_stamp {
            "shared with the guest"
        } else {
            "not shared with the guest"
        };
        writeln!(
            formatter,
            "time-stamp counter  {:.3} MHz, {shared}",
            self.time_stamp_khz as f64 / 1000.0
        )?;
        for (bytes, count) in &self.huge_pages {
            writeln!(
                formatter,
                "huge pages          {} MiB: {count} reserved",
                bytes >> 20
            )?;
        }
        write!(formatter, "transparent pages   {}", self.transparent_huge_pages)
    }
}

/// Opens KVM and runs a tiny guest that does nothing but exit.
///
/// # Errors
///
/// If `/dev/kvm` cannot be opened, or no machine can be run.
pub fn probe_host() -> Result<HostProbe, ProbeError> {
    let unusable = |error: MachineError| ProbeError::Unusable(Box::new(error));
    let kvm = Kvm::new().map_err(ProbeError::NoKvm)?;
    let started = Instant::now();
    let image = exiting_image();
    let processor = Processor::of(&kvm).map_err(|error| ProbeError::Unusable(Box::new(error)))?;
    let mut machine = Machine::new(&kvm, &image, FREE_GPA, None, &processor).map_err(unusable)?;
    machine
        .load(&image, None, 0, None, &Memory::Fresh, false)
        .map_err(unusable)?;
    let create_us = started.elapsed().as_secs_f64() * 1e6;
    let mut samples_us = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        match machine.run() {
            Exit::Doorbell(_) => samples_us.push(started.elapsed().as_secs_f64() * 1e6),
            Exit::Interrupted => {}
            Exit::Exception => return Err(ProbeError::Unusable(describe_exception(&machine).into())),
            Exit::Unexpected(what) => return Err(ProbeError::Unusable(what.into())),
            Exit::Refused(error) => return Err(unusable(error)),
            Exit::Lost(end) => return Err(ProbeError::Unusable(end.into())),
        }
    }
    samples_us.sort_by(f64::total_cmp);
    let shares_time_stamp = shares_time_stamp(&mut machine).map_err(unusable)?;
    Ok(HostProbe {
        kvm_kind: kvm_kind(),
        kvm_api_version: kvm.get_api_version(),
        processor: cpuinfo("model name").unwrap_or_else(|| "unknown".into()),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read_trimmed("/proc/sys/kernel/osrelease"),
        create_us,
        exit_us: samples_us.get(samples_us.len() / 2).copied().unwrap_or_default(),
        time_stamp_khz: machine.time_stamp_khz,
        shares_time_stamp,
        huge_pages: huge_pages(),
        transparent_huge_pages: bracketed(&read_trimmed("/sys/kernel/mm/transparent_hugepage/enabled")),
    })
}

/// What the test guest, which raises none by itself, was stopped by.
fn describe_exception(machine: &Machine) -> String {
    let Ok(registers) = machine.registers() else {
        return "the test guest raised an exception".into();
    };
    let vector = tables::stub_vector(registers.rip).unwrap_or_default();
    match tables::exception_frame(&machine.monitor_area, vector, registers.general[4]) {
        Ok(frame) => format!(
            "the test guest raised exception {vector} at {:#x}, error code {:#x}",
            frame.rip, frame.error_code
        ),
        Err(error) => format!("the test guest raised exception {vector}, and its stack is unusable: {error}"),
    }
}

/// A guest that reads the time-stamp counter and rings the doorbell, for ever.
fn exiting_image() -> Image {
    // rdtsc; out 0x50, eax; jmp back
    static CODE: [u8; 6] = [
        0x0f,
        0x31,
        0xe7,
        spore_abi::doorbell::DOORBELL_PORT as u8,
        0xeb,
        0xfa,
    ];
    let entry = WINDOW_BASE + IMAGE_GPA;
    let header = ImageHeader {
        entry,
        system_call_entry: entry,
        upcall_entry: entry,
        ..ImageHeader::new_zeroed()
    };
    Image {
        text: &CODE,
        data: &[],
        header,
    }
}

fn shares_time_stamp(machine: &mut Machine) -> Result<bool, MachineError> {
    // A wide margin: an offset, where there is one, is the host's uptime.
    const MARGIN_TICKS: u64 = 1 << 32;
    machine.run();
    let registers = machine.registers()?;
    let guest = registers.general[2] << 32 | registers.general[0] & 0xffff_ffff;
    Ok(crate::start::time_stamp().abs_diff(guest) < MARGIN_TICKS)
}

/// What the process form is made of here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessProbe {
    /// What catches the program's system calls.
    pub calls_caught_by: &'static str,
    /// System calls of the host that a guest can make.
    pub system_calls: usize,
    /// Time to make a process for a guest, in microseconds.
    pub create_us: f64,
    /// What confines a guest beside that.
    pub layers: Vec<&'static str>,
    /// What the host does not allow.
    pub missing_layers: Vec<&'static str>,
}

/// Makes a process for a guest, and ends it.
///
/// # Errors
///
/// If none can be made.
pub fn probe_process() -> Result<ProcessProbe, ProbeError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ProbeError::NoProcess(error);
    let image = Image::library_os().map_err(|error| failed(error.into()))?;
    let program = guest_process::empty_program().map(std::fs::File::from);
    let program = program.and_then(|program| crate::RootFiles::new(program, None));
    let program = program.map_err(|error| failed(error.into()))?;
    let started = Instant::now();
    let empty = EmptyProcess::new(&image, None, crate::process::own_user(0));
    let guest = empty.and_then(|empty| {
        empty.load(&Load {
            image: &image,
            ram_bytes: FREE_GPA,
            program: &program,
            memory: &Memory::Fresh,
            uses_dispatch: true,
        })
    });
    let guest = guest.map_err(|error| failed(error.into()))?;
    let create_us = started.elapsed().as_secs_f64() * 1e6;
    Ok(ProcessProbe {
        calls_caught_by: if guest_process::has_dispatch() {
            "Syscall User Dispatch"
        } else {
            "seccomp"
        },
        system_calls: guest_process::filter::call_count(),
        create_us,
        layers: guest.layers().active(),
        missing_layers: guest.layers().missing(),
    })
}

/// What can be run here, in both forms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FormsProbe {
    /// What functions get that ask for nothing in particular: `vm` or `process`.
    pub isolation: &'static str,
    /// The virtual machine's part.
    #[serde(flatten)]
    pub host: Option<HostProbe>,
    /// Why there can be no virtual machine.
    pub no_vm: Option<String>,
    /// The process form's part.
    pub process: Option<ProcessProbe>,
    /// Why there can be no guest process.
    pub no_process: Option<String>,
}

/// Checks both forms.
///
/// # Errors
///
/// If neither can be used; says why of the virtual machine.
pub fn probe_forms() -> Result<FormsProbe, ProbeError> {
    let reason = |error: &ProbeError| crate::run::chain(error);
    let (host, process) = (probe_host(), probe_process());
    let (no_vm, no_process) = (
        host.as_ref().err().map(reason),
        process.as_ref().err().map(reason),
    );
    match (host, process) {
        (Err(error), Err(_)) => Err(error),
        (host, process) => Ok(FormsProbe {
            isolation: if host.is_ok() { "vm" } else { "process" },
            host: host.ok(),
            no_vm,
            process: process.ok(),
            no_process,
        }),
    }
}

impl fmt::Display for FormsProbe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let isolation = match self.isolation {
            "vm" => "vm (a virtual machine for each instance)",
            _ => "process (no virtual machine: the host's kernel is shared)",
        };
        writeln!(formatter, "isolation           {isolation}")?;
        match (&self.host, &self.no_vm) {
            (Some(host), _) => writeln!(formatter, "{host}")?,
            (None, reason) => {
                writeln!(
                    formatter,
                    "KVM                 {}",
                    reason.as_deref().unwrap_or("unknown")
                )?;
            }
        }
        let Some(process) = &self.process else {
            let reason = self.no_process.as_deref().unwrap_or("unknown");
            return write!(formatter, "process form        {reason}");
        };
        writeln!(
            formatter,
            "process form        {} system calls, caught by {}, made in {:.0} µs",
            process.system_calls, process.calls_caught_by, process.create_us
        )?;
        write!(formatter, "its layers          {}", process.layers.join(", "))?;
        if !process.missing_layers.is_empty() {
            write!(
                formatter,
                "\nmissing layers      {}",
                process.missing_layers.join(", ")
            )?;
        }
        Ok(())
    }
}

fn kvm_kind() -> KvmKind {
    let flags = cpuinfo("flags").unwrap_or_default();
    let has = |name: &str| flags.split(' ').any(|flag| flag == name);
    match () {
        () if has("vmx") => KvmKind::Vmx,
        () if has("svm") => KvmKind::Svm,
        () => KvmKind::Pvm,
    }
}

fn cpuinfo(key: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read_trimmed(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_else(|_| "unknown".into())
}

/// The chosen one of a list such as `always [madvise] never`.
fn bracketed(list: &str) -> String {
    let chosen = list.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or(list, |(chosen, _)| chosen).to_owned()
}

fn huge_pages() -> Vec<(u64, u64)> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut pages: Vec<(u64, u64)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let kibibytes = path
                .file_name()?
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?;
            let count = fs::read_to_string(path.join("nr_hugepages")).ok()?;
            Some((kibibytes.parse::<u64>().ok()? * 1024, count.trim().parse().ok()?))
        })
        .collect();
    pages.sort_unstable();
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_probed_or_says_why_not() {
        match probe_host() {
            Ok(probe) => {
                assert!(probe.exit_us > 0.0 && probe.create_us > 0.0 && probe.time_stamp_khz > 0);
                assert!(probe.to_string().contains("KVM"));
            }
            Err(ProbeError::NoKvm(_)) => eprintln!("skipped: this host has no /dev/kvm"),
            Err(error) => panic!("{}", crate::run::chain(&error)),
        }
    }

    #[test]
    fn the_process_form_can_be_had_or_says_why_not() {
        match probe_process() {
            Ok(probe) => assert!(probe.layers.contains(&"no capabilities") && probe.system_calls <= 25),
            Err(error) => eprintln!("skipped: {}", crate::run::chain(&error)),
        }
    }

    #[test]
    fn the_chosen_setting_is_found() {
        assert_eq!(bracketed("always [madvise] never"), "madvise");
        assert_eq!(bracketed("unknown"), "unknown");
    }
}
