//! The root that the program finds.
//!
//! ```text
//!   block device, read-only ──┐
//!   tmpfs, bounded ───────────┴─ overlay ──> /, with /proc, /sys, /dev, /dev/shm and the secrets in it
//!   block device that is the program itself ──> a file of a tmpfs, which is /
//! ```

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount_move, mount_remount};
use rustix::process::{chdir, chroot};

use crate::machine::{context, make_folder, mount_at};
use crate::settings::Settings;

/// The block device with the function's root.
const DEVICE: &str = "/dev/vda";
/// The program's path where it is all that there is.
pub(crate) const PROGRAM: &str = "/function";
const ROOT: &str = "/system";
/// Where functions look for secrets: `SECRETS_DIRECTORY` of the contract.
const SECRETS: &str = "/system/var/openfaas/secrets";
const SECRETS_ABOVE: [&str; 2] = ["/system/var", "/system/var/openfaas"];

/// Makes the root and enters it.
pub(crate) fn enter(settings: &Settings) -> io::Result<()> {
    // What is written there is counted as the program's memory besides; half of it is what Linux takes by default.
    let size = CString::new(format!("size={},mode=755", settings.memory_bytes / 2))?;
    if settings.program_bytes == 0 {
        mount_at(DEVICE, "/lower", "erofs", MountFlags::RDONLY, None)?;
        mount_at("upper", "/upper", "tmpfs", MountFlags::empty(), Some(&size))?;
        make_folder("/upper/files")?;
        // The root itself, like everything else in the image, belongs to whoever runs the program.
        std::os::unix::fs::chown("/upper/files", Some(settings.user), Some(settings.group))?;
        make_folder("/upper/work")?;
        let layers = c"lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work";
        mount_at("overlay", ROOT, "overlay", MountFlags::empty(), Some(layers))?;
    } else {
        let size = CString::new(format!("size={},mode=755", settings.memory_bytes))?;
        mount_at("root", ROOT, "tmpfs", MountFlags::empty(), Some(&size))?;
        copy_program(settings)?;
        std::os::unix::fs::chown(ROOT, Some(settings.user), Some(settings.group))?;
        make_folder("/system/tmp")?;
        rustix::fs::chmod("/system/tmp", Mode::from_raw_mode(0o1777)).map_err(context("opening /tmp"))?;
    }
    mount_inside()?;
    put_secrets(settings)?;
    // As switch_root(8) does: the initial file system cannot be unmounted, only covered.
    chdir(ROOT).map_err(context("entering the root"))?;
    mount_move(".", "/").map_err(context("moving the root"))?;
    chroot(".").map_err(context("changing the root"))?;
    chdir("/").map_err(context("entering the root"))
}

fn copy_program(settings: &Settings) -> io::Result<()> {
    let bytes = settings.program_bytes;
    let path = format!("{ROOT}{PROGRAM}");
    let mut target = File::create(&path)?;
    let copied = io::copy(&mut File::open(DEVICE)?.take(bytes), &mut target)?;
    if copied != bytes {
        return Err(io::Error::other("the program is shorter than it should be"));
    }
    std::os::unix::fs::fchown(&target, Some(settings.user), Some(settings.group))?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(0o755)).map_err(context("making the program executable"))
}

fn mount_inside() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount_at("proc", "/system/proc", "proc", flags, None)?;
    mount_at("sysfs", "/system/sys", "sysfs", flags | MountFlags::RDONLY, None)?;
    mount_at("devtmpfs", "/system/dev", "devtmpfs", MountFlags::NOSUID, None)?;
    mount_at(
        "shm",
        "/system/dev/shm",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=1777"),
    )?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        // They may be there already.
        let _ = std::os::unix::fs::symlink(target, format!("/system/dev/{name}"));
    }
    Ok(())
}

fn put_secrets(settings: &Settings) -> io::Result<()> {
    if settings.secrets.is_empty() {
        return Ok(());
    }
    SECRETS_ABOVE.into_iter().try_for_each(make_folder)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount_at("secrets", SECRETS, "tmpfs", flags, Some(c"mode=755"))?;
    for (name, value) in &settings.secrets {
        let path = Path::new(SECRETS).join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, value)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o444)).map_err(context("protecting a secret"))?;
    }
    mount_remount(SECRETS, flags | MountFlags::RDONLY, c"mode=755").map_err(context("protecting the secrets"))
}
