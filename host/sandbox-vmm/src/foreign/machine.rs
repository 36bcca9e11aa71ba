//! QEMU's command line for a unikernel: the board that all frameworks have drivers for. Pure.

use std::path::Path;

use crate::qemu::{Accelerator, Disk, TRANSLATION_MIB, disk_option};

use super::link::GUEST_CARD;

/// The least memory of a machine with firmware.
const MEMORY_BYTES_MIN: u64 = 8 << 20;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    pub(crate) accelerator: Accelerator,
    /// None if the disk starts by itself.
    pub(crate) kernel: Option<&'a Path>,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) disk: Option<&'a Path>,
    pub(crate) command_line: &'a str,
    pub(crate) memory_bytes: u64,
    /// The port by which the guest tells how it ended.
    pub(crate) exit_port: Option<u16>,
}

/// Memory of the machine: the function's, in whole MiB.
pub(crate) fn guest_bytes(memory_bytes: u64) -> u64 {
    let bytes = memory_bytes.max(MEMORY_BYTES_MIN);
    bytes.checked_next_multiple_of(1 << 20).unwrap_or(bytes)
}

impl Machine<'_> {
    /// The arguments. The cable is standard input, the control socket standard output, the console standard error.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        add("-machine", "pc,usb=off,vmport=off,dump-guest-core=off".into());
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
        if let Some(kernel) = self.kernel {
            add("-kernel", kernel.to_string_lossy().into_owned());
            add("-append", self.command_line.to_owned());
        }
        if let Some(initrd) = self.initrd {
            add("-initrd", initrd.to_string_lossy().into_owned());
        }
        if let Some(disk) = self.disk {
            add("-drive", disk_option(Disk::Plain(disk)));
            add("-device", "virtio-blk-pci,drive=root".into());
        }
        add("-netdev", "socket,id=cable,fd=0".into());
        let card = GUEST_CARD.map(|byte| format!("{byte:02x}")).join(":");
        // Without a file for its memory it offers nothing to boot from.
        add(
            "-device",
            format!("virtio-net-pci,netdev=cable,mac={card},romfile="),
        );
        if let Some(port) = self.exit_port {
            add("-device", format!("isa-debug-exit,iobase={port:#x},iosize=0x2"));
        }
        // By it some tell that they have crashed, before they switch the machine off.
        add("-device", "pvpanic".into());
        add("-chardev", "socket,id=control,fd=1".into());
        add("-mon", "chardev=control,mode=control".into());
        add("-chardev", "file,id=console,path=/dev/fd/2".into());
        add("-serial", "chardev:console".into());
        add("-display", "none".into());
        let sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        add("-sandbox", sandbox.into());
        let flags = ["-nodefaults", "-no-user-config", "-no-reboot"];
        arguments.extend(flags.map(str::to_owned));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_what_its_image_has_and_no_more() {
        let machine = Machine {
            accelerator: Accelerator::Kvm,
            kernel: Some(Path::new("/k")),
            initrd: None,
            disk: None,
            command_line: "a -- b",
            memory_bytes: (64 << 20) + 1,
            exit_port: None,
        };
        let line = machine.arguments().join("|");
        assert!(
            line.contains("-kernel|/k|-append|a -- b|-netdev|socket,id=cable,fd=0|"),
            "{line}"
        );
        assert!(line.contains("-accel|kvm|-cpu|host|-m|65M|"), "{line}");
        let more = Machine {
            accelerator: Accelerator::Emulation { time_stamp_khz: 1 },
            initrd: Some(Path::new("/i")),
            disk: Some(Path::new("/d,e")),
            exit_port: Some(0x501),
            ..machine
        };
        let line = more.arguments().join("|");
        assert!(
            line.contains("-initrd|/i|") && line.contains("iobase=0x501"),
            "{line}"
        );
        assert!(
            line.contains("readonly=on,file=/d,,e|-device|virtio-blk-pci"),
            "{line}"
        );
        assert!(line.contains("-accel|tcg,"), "{line}");
    }
}
