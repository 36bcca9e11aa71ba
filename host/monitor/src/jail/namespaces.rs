//! Namespaces of its own, and a root in which there is nothing.

use std::io;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_move, unmount,
};
use rustix::process::{chdir, chroot, getpid, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{JailReport, Layer};

const NAMESPACES: [(Layer, UnshareFlags); 5] = [
    (Layer::MountNamespace, UnshareFlags::NEWNS),
    (Layer::NetworkNamespace, UnshareFlags::NEWNET),
    (Layer::IpcNamespace, UnshareFlags::NEWIPC),
    (Layer::UtsNamespace, UnshareFlags::NEWUTS),
    (Layer::CgroupNamespace, UnshareFlags::NEWCGROUP),
];

/// A folder that is there wherever a monitor could be started, and needs not be there afterwards.
const MOUNT_POINT: &str = "/proc";

/// Why there is no PID namespace, as far as the process itself can tell.
#[derive(Debug, thiserror::Error)]
#[error("the kernel allows this user none")]
struct NoPidNamespace;

/// The namespaces in which nothing ever is, so that processes can share them.
const SHARED: UnshareFlags = UnshareFlags::NEWNET.union(UnshareFlags::NEWIPC);

/// Enters namespaces and the empty root, as far as they are to be had. `shares` says that it is in the shared ones already.
/// One that `is_to_be_copied` leaves those to its copies that are their own.
pub(super) fn enter(report: &mut JailReport, shares: bool, is_to_be_copied: bool) {
    if !is_to_be_copied {
        note_pid_namespace(report);
    }
    // A process can only be born in a cgroup that its parent's namespace has.
    let is_wanted = |flag: &UnshareFlags| !(is_to_be_copied && *flag == UnshareFlags::NEWCGROUP);
    let missing = |flag: &UnshareFlags| is_wanted(flag) && !(shares && SHARED.contains(*flag));
    let flags = NAMESPACES.iter().map(|(_, flag)| *flag).filter(missing);
    let together = separate(flags.collect());
    for (layer, flag) in NAMESPACES.into_iter().filter(|(_, flag)| is_wanted(flag)) {
        // Together they cost less; one by one they tell which is not to be had.
        let entered = if missing(&flag) {
            together.or_else(|_| separate(flag))
        } else {
            Ok(())
        };
        report.note(layer, entered);
    }
    let root = if report.is_active(Layer::MountNamespace) {
        empty_root(shares)
    } else {
        Err(io::Error::other("it takes a mount namespace"))
    };
    report.note(Layer::EmptyRoot, root);
}

/// In a copy: what it has of its own.
pub(super) fn enter_own(report: &mut JailReport) {
    note_pid_namespace(report);
    report.note(Layer::CgroupNamespace, separate(UnshareFlags::NEWCGROUP));
}

/// The PID namespace is made with the process; its first process has the number 1.
fn note_pid_namespace(report: &mut JailReport) {
    let is_first = getpid().is_init();
    report.note(
        Layer::PidNamespace,
        if is_first { Ok(()) } else { Err(NoPidNamespace) },
    );
}

fn separate(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the process has one thread, and shares neither its descriptors nor memory that depends on a namespace.
    unsafe { unshare_unsafe(flags) }
}

/// Makes an empty, read-only file system the root, and lets go of the one before. Where there is a namespace that `is_shared`,
/// it is that of its message queues, of which there are none: one file system for all. For each one of their own the kernel
/// takes a little memory in every cgroup, so that thousands of both take gigabytes.
fn empty_root(is_shared: bool) -> io::Result<()> {
    // Nothing that is mounted here shows elsewhere, and the other way round.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let shared = || mount("none", MOUNT_POINT, "mqueue", flags, None);
    if !(is_shared && shared().is_ok()) {
        // One inode: its root.
        let options = c"size=4k,nr_inodes=1,mode=0555";
        mount("none", MOUNT_POINT, "tmpfs", flags, options)?;
    }
    chdir(MOUNT_POINT)?;
    match pivot_root(".", ".") {
        // The old root lies on the new one now.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // A root in the kernel's own first file system (initramfs) cannot be exchanged, only covered.
        Err(Errno::INVAL) => {
            mount_move(".", "/")?;
            chroot(".")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(chdir("/")?)
}
