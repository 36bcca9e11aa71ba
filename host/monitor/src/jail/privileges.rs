//! User, capabilities and limits.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, geteuid, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{JailReport, Layer};

/// Descriptors that a monitor may have open: those of 64 streams, of 1,024 that wait, and its own.
pub const DESCRIPTORS_MAX: u64 = 1200;
/// Address space beyond the guest's memory: program, libraries, heap, and what is mapped by KVM.
const OWN_ADDRESS_SPACE_BYTES: u64 = 256 << 20;

/// Becomes another user, and gives up all capabilities.
pub(super) fn give_up(report: &mut JailReport, user: Option<u32>, is_in_user_namespace: bool) {
    // These need a capability themselves.
    let locked = lock_capabilities();
    let user = match user {
        Some(user) => become_user(user).map_err(|error| format!("user {user} cannot be had: {error}")),
        None if is_in_user_namespace => Ok(()),
        None if geteuid().is_root() => Err("it was not asked for".to_owned()),
        None => Err("the kernel allows this user no user namespace".to_owned()),
    };
    report.note(Layer::User, user);
    report.note(Layer::Capabilities, drop_capabilities(locked));
    report.note(Layer::NoNewPrivileges, set_no_new_privs(true));
}

/// Empties the bounding set, and lets no user number mean anything for capabilities.
fn lock_capabilities() -> Result<(), Errno> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
}

fn become_user(user: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Why there may be capabilities left.
enum CapabilityError {
    Kernel(Errno),
    /// None is there, but the bounding set could not be emptied: this user has none to lose.
    Left,
}

impl fmt::Display for CapabilityError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(formatter),
            Self::Left => formatter.write_str("some are left"),
        }
    }
}

impl From<Errno> for CapabilityError {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

fn drop_capabilities(locked: Result<(), Errno>) -> Result<(), CapabilityError> {
    clear_ambient_capability_set()?;
    let nothing = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: nothing,
            permitted: nothing,
            inheritable: nothing,
        },
    )?;
    let left = capabilities(None)?;
    if !(left.effective | left.permitted | left.inheritable).is_empty() {
        return Err(CapabilityError::Left);
    }
    match locked {
        // A user without capabilities cannot empty the bounding set, and needs not: `no_new_privs` makes it moot.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Limits what the process can take, beside `guest_bytes` of address space.
pub(super) fn limit(guest_bytes: u64) -> io::Result<()> {
    let limits = [
        (Resource::As, guest_bytes.saturating_add(OWN_ADDRESS_SPACE_BYTES)),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nofile, DESCRIPTORS_MAX),
        (Resource::Nproc, 0),
        (Resource::Rtprio, 0),
    ];
    for (resource, wanted) in limits {
        // A limit that is lower already is kept: raising it takes a capability.
        let now = rustix::process::getrlimit(resource);
        let value = Some(now.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )?;
    }
    Ok(())
}
