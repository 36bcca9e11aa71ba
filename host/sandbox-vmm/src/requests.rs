//! What Firecracker and Cloud Hypervisor are told of a machine: requests of their programming interfaces. Pure; [`crate::api`] carries
//! them.
//!
//! Sockets have names without a folder: the monitor begins in the folder in which they are.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::monitor::Monitor;
use crate::qemu::{KERNEL_OPTIONS, guest_bytes};
use spore_abi::microvm::VSOCK_OPTION;

/// The socket of the monitor's programming interface.
pub(crate) const API_SOCKET: &str = "api";
/// The socket of the guest's vsock device; one that the guest connects to has `_` and the port behind it.
pub(crate) const VSOCK_SOCKET: &str = "vsock";
/// Files of a machine of Firecracker that was saved.
const STATE_FILE: &str = "state";
const MEMORY_FILE: &str = "memory";
/// The guest's number by vsock: the first that is free. Each machine has a device of its own, so all have the same.
const GUEST: u32 = 3;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    /// The kernel, as an ELF file.
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    /// The bytes of the block device.
    pub(crate) disk: &'a Path,
    /// Limit of the function's memory, in bytes.
    pub(crate) memory_bytes: u64,
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// What is asked for, for people.
    pub(crate) what: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) body: Option<Value>,
}

impl Request {
    const fn new(what: &'static str, path: &'static str, body: Value) -> Self {
        Self {
            what,
            method: Method::PUT,
            path,
            body: Some(body),
        }
    }

    /// One without a body.
    const fn plain(what: &'static str, path: &'static str) -> Self {
        Self {
            what,
            method: Method::PUT,
            path,
            body: None,
        }
    }
}

/// The monitor's arguments. Its list of system calls is on by default. Cloud Hypervisor takes its socket as standard input: at a path it
/// would make a file beside it, and no monitor may make files.
pub(crate) fn arguments(monitor: Monitor) -> Vec<String> {
    let arguments: &[&str] = match monitor {
        Monitor::Firecracker => &["--api-sock", API_SOCKET, "--id", "spore", "--level", "Warn"],
        _ => &["--api-socket", "fd=0"],
    };
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

/// What starts a machine, in order.
pub(crate) fn start(monitor: Monitor, machine: &Machine<'_>) -> Vec<Request> {
    match monitor {
        Monitor::Firecracker => firecracker(machine),
        _ => cloud_hypervisor(machine),
    }
}

fn firecracker(machine: &Machine<'_>) -> Vec<Request> {
    let size = guest_bytes(machine.memory_bytes) >> 20;
    vec![
        Request::new(
            "the machine's size",
            "/machine-config",
            json!({ "vcpu_count": 1, "mem_size_mib": size }),
        ),
        Request::new(
            "its kernel",
            "/boot-source",
            json!({
                "kernel_image_path": machine.kernel.to_string_lossy(),
                "initrd_path": machine.initramfs.to_string_lossy(),
                "boot_args": kernel_command_line(),
            }),
        ),
        Request::new(
            "its root",
            "/drives/root",
            json!({
                "drive_id": "root",
                "path_on_host": machine.disk.to_string_lossy(),
                // That would be told the kernel as its root; init mounts it.
                "is_root_device": false,
                "is_read_only": true,
            }),
        ),
        Request::new(
            "its channel",
            "/vsock",
            json!({ "guest_cid": GUEST, "uds_path": VSOCK_SOCKET }),
        ),
        Request::new("its start", "/actions", json!({ "action_type": "InstanceStart" })),
    ]
}

fn cloud_hypervisor(machine: &Machine<'_>) -> Vec<Request> {
    let machine = json!({
        "cpus": { "boot_vcpus": 1, "max_vcpus": 1, "nested": false },
        "memory": { "size": guest_bytes(machine.memory_bytes) },
        "payload": {
            "kernel": machine.kernel.to_string_lossy(),
            "initramfs": machine.initramfs.to_string_lossy(),
            "cmdline": kernel_command_line(),
        },
        // The form is named, so that a function's image cannot pretend to be in another one.
        "disks": [{ "path": machine.disk.to_string_lossy(), "readonly": true, "image_type": "Raw" }],
        "vsock": { "cid": GUEST, "socket": VSOCK_SOCKET },
        // Standard output.
        "serial": { "mode": "Tty" },
        "console": { "mode": "Off" },
    });
    vec![
        Request::new("the machine", "/api/v1/vm.create", machine),
        Request::plain("its start", "/api/v1/vm.boot"),
    ]
}

/// What stops a machine and saves it in a folder, in order.
pub(crate) fn save(monitor: Monitor, folder: &Path) -> Vec<Request> {
    match monitor {
        Monitor::Firecracker => vec![
            Request {
                method: Method::PATCH,
                ..Request::new("to pause the machine", "/vm", json!({ "state": "Paused" }))
            },
            Request::new(
                "to save the machine",
                "/snapshot/create",
                json!({
                    "snapshot_path": folder.join(STATE_FILE).to_string_lossy(),
                    "mem_file_path": folder.join(MEMORY_FILE).to_string_lossy(),
                }),
            ),
        ],
        _ => vec![
            Request::plain("to pause the machine", "/api/v1/vm.pause"),
            Request::new(
                "to save the machine",
                "/api/v1/vm.snapshot",
                json!({ "destination_url": url(folder) }),
            ),
        ],
    }
}

/// What makes a machine of what was saved, and lets it go on.
pub(crate) fn load(monitor: Monitor, folder: &Path) -> Vec<Request> {
    let what = "the machine that was saved";
    match monitor {
        Monitor::Firecracker => vec![Request::new(
            what,
            "/snapshot/load",
            json!({
                "snapshot_path": folder.join(STATE_FILE).to_string_lossy(),
                "mem_backend": {
                    "backend_path": folder.join(MEMORY_FILE).to_string_lossy(),
                    "backend_type": "File",
                },
                "resume_vm": true,
            }),
        )],
        _ => vec![Request::new(
            what,
            "/api/v1/vm.restore",
            json!({ "source_url": url(folder), "resume": true }),
        )],
    }
}

fn url(folder: &Path) -> String {
    format!("file://{}", folder.to_string_lossy())
}

/// What the kernel is told. A restart by the keyboard's controller ends Firecracker; what else that controller has is not there.
fn kernel_command_line() -> String {
    format!("{KERNEL_OPTIONS} reboot=k i8042.noaux i8042.nomux i8042.dumbkbd {VSOCK_OPTION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(monitor: Monitor) -> Vec<Request> {
        let machine = Machine {
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            disk: Path::new("/a\",\"is_read_only\":false"),
            memory_bytes: 128 << 20,
        };
        start(monitor, &machine)
    }

    #[test]
    fn a_path_adds_nothing_and_the_root_is_only_read() {
        let requests = requests(Monitor::Firecracker);
        let root = requests.iter().find(|request| request.path == "/drives/root");
        let root = root.and_then(|request| request.body.as_ref()).unwrap();
        // As it is read once it was written.
        let root: Value = serde_json::from_str(&root.to_string()).unwrap();
        assert_eq!(root["is_read_only"], true);
        assert_eq!(root["path_on_host"], "/a\",\"is_read_only\":false");
        let requests = self::requests(Monitor::CloudHypervisor);
        let machine = requests[0].body.as_ref().unwrap();
        assert_eq!(machine["disks"][0]["readonly"], true);
        assert_eq!(machine["disks"][0]["image_type"], "Raw");
        assert_eq!(machine["memory"]["size"], 200_u64 << 20);
    }

    #[test]
    fn nothing_has_a_network() {
        for monitor in [Monitor::Firecracker, Monitor::CloudHypervisor] {
            for request in requests(monitor) {
                let body = request.body.unwrap_or_default();
                assert!(!request.path.contains("network") && body.get("net").is_none());
            }
        }
    }
}
