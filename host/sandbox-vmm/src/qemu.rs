//! QEMU's command line. Pure.

use std::fmt;
use std::path::Path;

/// Memory that the kernel and the first process take beside the function's, in bytes: some 60 MB with Debian's kernel.
pub(crate) const KERNEL_BYTES: u64 = 72 << 20;
/// The least memory with which Debian's kernel unpacks itself and its first file system.
const MEMORY_BYTES_MIN: u64 = 112 << 20;
/// Memory for translated code, in MiB: the default takes 1 GiB of address space and uses more of it than is needed.
pub(crate) const TRANSLATION_MIB: u32 = 64;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself, by KVM on hardware virtualisation.
    Kvm,
    /// QEMU's software emulation (TCG). The number is the rate of the time-stamp counter, in kilohertz, which the machine
    /// has no other clock to find out by.
    Emulation {
        /// Kilohertz.
        time_stamp_khz: u64,
    },
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "KVM on hardware virtualisation",
            Self::Emulation { .. } => "software emulation (QEMU's TCG)",
        })
    }
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    pub(crate) accelerator: Accelerator,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) disk: Disk<'a>,
    /// Limit of the function's memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Whether it waits until it is told what it is a copy of.
    pub(crate) is_copy: bool,
}

/// The file behind the block device.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disk<'a> {
    /// Its bytes.
    Plain(&'a Path),
    /// What it says ([`crate::disk`]).
    Described(&'a Path),
}

/// Memory of the whole guest, in bytes, for a function that may use `memory_bytes`.
pub(crate) fn guest_bytes(memory_bytes: u64) -> u64 {
    let bytes = memory_bytes.saturating_add(KERNEL_BYTES).max(MEMORY_BYTES_MIN);
    bytes.checked_next_multiple_of(1 << 20).unwrap_or(bytes)
}

/// What the kernel is told, whatever runs it. quiet: each line on the emulated console costs. panic: a kernel that gives up restarts, which
/// ends the machine. The rest is about what the machine does not have.
pub(crate) const KERNEL_OPTIONS: &str = "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off audit=0 \
                                         random.trust_cpu=on edd=off 8250.nr_uarts=1 \
                                         cryptomgr.notests rcupdate.rcu_expedited=1";

/// What the kernel is told.
fn kernel_command_line(accelerator: Accelerator) -> String {
    let common = format!("{KERNEL_OPTIONS} reboot=t");
    match accelerator {
        Accelerator::Kvm => common,
        // Without the rate the kernel waits for a timer that is not there; and what it would compare the counter with runs
        // late on a busy host.
        Accelerator::Emulation { time_stamp_khz } => {
            format!("{common} tsc_early_khz={time_stamp_khz} tsc=reliable")
        }
    }
}

/// The option of a block device that is only read.
pub(crate) fn disk_option(disk: Disk<'_>) -> String {
    let (format, file) = match disk {
        Disk::Plain(path) => ("raw", path),
        Disk::Described(path) => ("vmdk", path),
    };
    format!(
        "if=none,id=root,format={format},readonly=on,file={}",
        quoted(file)
    )
}

/// A comma ends a value of an option, unless it is doubled.
fn quoted(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

impl Machine<'_> {
    /// The arguments. The channel is standard input, the control socket standard output, the console standard error.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        add("-machine", "microvm,acpi=on,rtc=on,isa-serial=on".into());
        match self.accelerator {
            Accelerator::Kvm => {
                add("-accel", "kvm".into());
                add("-cpu", "host".into());
            }
            Accelerator::Emulation { .. } => {
                add("-accel", format!("tcg,tb-size={TRANSLATION_MIB}"));
                add("-cpu", "max".into());
            }
        }
        add("-m", format!("{}M", guest_bytes(self.memory_bytes) >> 20));
        add("-smp", "1".into());
        add("-kernel", self.kernel.to_string_lossy().into_owned());
        add("-initrd", self.initramfs.to_string_lossy().into_owned());
        add("-append", kernel_command_line(self.accelerator));
        add("-drive", disk_option(self.disk));
        add("-device", "virtio-blk-device,drive=root".into());
        add("-chardev", "socket,id=channel,fd=0".into());
        add("-device", "virtio-serial-device".into());
        add("-device", "virtserialport,chardev=channel,name=spore".into());
        add("-chardev", "socket,id=control,fd=1".into());
        add("-mon", "chardev=control,mode=control".into());
        add("-chardev", "file,id=console,path=/dev/fd/2".into());
        add("-serial", "chardev:console".into());
        add("-display", "none".into());
        let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        add("-sandbox", sandbox.into());
        if self.is_copy {
            add("-incoming", "defer".into());
        }
        let flags = ["-nodefaults", "-no-user-config", "-no-reboot"];
        arguments.extend(flags.map(str::to_owned));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(accelerator: Accelerator, disk: Disk<'_>) -> String {
        let machine = Machine {
            accelerator,
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            disk,
            memory_bytes: 128 << 20,
            is_copy: false,
        };
        machine.arguments().join(" ")
    }

    #[test]
    fn the_accelerator_is_always_named() {
        let emulation = Accelerator::Emulation {
            time_stamp_khz: 2_300_000,
        };
        let line = arguments(emulation, Disk::Plain(Path::new("/r")));
        assert!(
            line.contains("-accel tcg,") && line.contains(" tsc_early_khz=2300000 "),
            "{line}"
        );
        let line = arguments(Accelerator::Kvm, Disk::Plain(Path::new("/r")));
        assert!(
            line.contains("-accel kvm -cpu host") && !line.contains("tsc_early_khz"),
            "{line}"
        );
        assert!(line.contains("-m 200M"), "{line}");
    }

    #[test]
    fn a_path_adds_no_options() {
        let path = Path::new("/a,readonly=off,b");
        let line = arguments(Accelerator::Kvm, Disk::Described(path));
        assert!(
            line.contains("format=vmdk,readonly=on,file=/a,,readonly=off,,b -device"),
            "{line}"
        );
    }

    #[test]
    fn a_guest_has_room_for_its_kernel() {
        assert_eq!(guest_bytes(16 << 20), MEMORY_BYTES_MIN);
        assert_eq!(guest_bytes((128 << 20) + 1), (201) << 20);
        assert_eq!(guest_bytes(u64::MAX), u64::MAX);
    }
}
