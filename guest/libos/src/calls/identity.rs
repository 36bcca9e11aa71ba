//! Who the process is: numbers of users and groups, capabilities, process groups, sessions.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;

use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::process::{Identity, Ids};

/// An argument that leaves a number as it is.
const UNCHANGED: u32 = u32::MAX;
/// Most supplementary groups, as on Linux (NGROUPS_MAX), and how many are kept.
const GROUPS_MAX: u64 = 65_536;
const GROUPS_KEPT_MAX: u64 = 1024;
/// Versions of the capability calls, and how many words each has.
const CAPABILITY_VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];
/// Places in [`Ids`].
const REAL: usize = 0;
const EFFECTIVE: usize = 1;
const SAVED: usize = 2;
const FILES: usize = 3;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let result = serve_one(kernel, number, arguments);
    if result.is_some() {
        kernel.announce_user();
    }
    result
}

fn serve_one(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [first, second, third, ..] = arguments.map(|argument| argument as u32);
    let identity = &mut kernel.process.identity;
    let is_root = identity.users[EFFECTIVE] == 0;
    Some(match number {
        nr::__NR_getuid => Ok(identity.users[REAL].into()),
        nr::__NR_geteuid => Ok(identity.users[EFFECTIVE].into()),
        nr::__NR_getgid => Ok(identity.groups[REAL].into()),
        nr::__NR_getegid => Ok(identity.groups[EFFECTIVE].into()),
        nr::__NR_setuid => change_users(kernel, |users| set_one(users, first, is_root)),
        nr::__NR_setgid => set_one(&mut identity.groups, first, is_root),
        nr::__NR_setreuid => change_users(kernel, |users| set_two(users, [first, second], is_root)),
        nr::__NR_setregid => set_two(&mut identity.groups, [first, second], is_root),
        nr::__NR_setresuid => change_users(kernel, |users| set_three(users, [first, second, third], is_root)),
        nr::__NR_setresgid => set_three(&mut identity.groups, [first, second, third], is_root),
        nr::__NR_setfsuid => Ok(set_files(&mut identity.users, first, is_root)),
        nr::__NR_setfsgid => Ok(set_files(&mut identity.groups, first, is_root)),
        nr::__NR_getresuid => write_three(kernel, arguments, |identity| identity.users),
        nr::__NR_getresgid => write_three(kernel, arguments, |identity| identity.groups),
        nr::__NR_getgroups => getgroups(kernel, arguments),
        nr::__NR_setgroups => setgroups(kernel, arguments),
        nr::__NR_capget => capget(kernel, arguments),
        nr::__NR_capset => capset(kernel, arguments),
        nr::__NR_getpid => Ok(kernel.process.id.into()),
        nr::__NR_getppid => Ok(kernel.process.parent.into()),
        nr::__NR_getpgrp => Ok(kernel.process.group.into()),
        nr::__NR_getpgid => process_number(kernel, first, |process| process.group),
        nr::__NR_getsid => process_number(kernel, first, |process| process.session),
        nr::__NR_setpgid => setpgid(kernel, first, second),
        nr::__NR_setsid => setsid(kernel),
        _ => return None,
    })
}

/// Changes user numbers. Who is not root any more has no capabilities.
fn change_users(kernel: &mut Kernel, change: impl FnOnce(&mut Ids) -> CallResult) -> CallResult {
    let keeps = kernel.process.settings.keeps_capabilities;
    let identity = &mut kernel.process.identity;
    let former = identity.users;
    let result = change(&mut identity.users)?;
    let has_root = |ids: &Ids| ids[..FILES].contains(&0);
    if has_root(&former) && !has_root(&identity.users) && !keeps {
        identity.capabilities = [0; 3];
    }
    let is_root = identity.users[EFFECTIVE] == 0;
    match (former[EFFECTIVE] == 0, is_root) {
        (true, false) => identity.capabilities[0] = 0,
        (false, true) => identity.capabilities[0] = identity.capabilities[1],
        _ => {}
    }
    Ok(result)
}

fn set_one(ids: &mut Ids, id: u32, is_root: bool) -> CallResult {
    match () {
        () if id == UNCHANGED => return Err(Errno::EINVAL.into()),
        () if is_root => *ids = [id; 4],
        () if ids[REAL] == id || ids[SAVED] == id => (ids[EFFECTIVE], ids[FILES]) = (id, id),
        () => return Err(Errno::EPERM.into()),
    }
    Ok(0)
}

fn set_two(ids: &mut Ids, [real, effective]: [u32; 2], is_root: bool) -> CallResult {
    let former = *ids;
    let may = |id: u32, known: &[usize]| {
        id == UNCHANGED || is_root || known.iter().any(|&place| former[place] == id)
    };
    if !may(real, &[REAL, EFFECTIVE]) || !may(effective, &[REAL, EFFECTIVE, SAVED]) {
        return Err(Errno::EPERM.into());
    }
    if real != UNCHANGED {
        ids[REAL] = real;
    }
    if effective != UNCHANGED {
        ids[EFFECTIVE] = effective;
    }
    if real != UNCHANGED || effective != UNCHANGED && effective != former[REAL] {
        ids[SAVED] = ids[EFFECTIVE];
    }
    ids[FILES] = ids[EFFECTIVE];
    Ok(0)
}

fn set_three(ids: &mut Ids, wanted: [u32; 3], is_root: bool) -> CallResult {
    let known = [ids[REAL], ids[EFFECTIVE], ids[SAVED]];
    let may = |id: &u32| *id == UNCHANGED || is_root || known.contains(id);
    if !wanted.iter().all(may) {
        return Err(Errno::EPERM.into());
    }
    for (place, id) in ids.iter_mut().zip(wanted) {
        if id != UNCHANGED {
            *place = id;
        }
    }
    ids[FILES] = ids[EFFECTIVE];
    Ok(0)
}

fn set_files(ids: &mut Ids, id: u32, is_root: bool) -> u64 {
    let former = ids[FILES];
    if id != UNCHANGED && (is_root || ids.contains(&id)) {
        ids[FILES] = id;
    }
    former.into()
}

fn write_three(
    kernel: &mut Kernel,
    [real, effective, saved, ..]: Arguments,
    ids: fn(&Identity) -> Ids,
) -> CallResult {
    let ids = ids(&kernel.process.identity);
    for (address, id) in [real, effective, saved].into_iter().zip(ids) {
        kernel.process.space.write(address, &id.to_le_bytes())?;
    }
    Ok(0)
}

fn getgroups(kernel: &mut Kernel, [room, address, ..]: Arguments) -> CallResult {
    let room = u64::try_from(room as u32 as i32).map_err(|_| Errno::EINVAL)?;
    let groups = &kernel.process.identity.more_groups;
    let count = groups.len() as u64;
    if room == 0 {
        return Ok(count);
    }
    if room < count {
        return Err(Errno::EINVAL.into());
    }
    let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
    kernel.process.space.write(address, &bytes)?;
    Ok(count)
}

fn setgroups(kernel: &mut Kernel, [count, address, ..]: Arguments) -> CallResult {
    if kernel.process.identity.users[EFFECTIVE] != 0 {
        return Err(Errno::EPERM.into());
    }
    match count as u32 as u64 {
        count if count > GROUPS_MAX => return Err(Errno::EINVAL.into()),
        count if count > GROUPS_KEPT_MAX => return Err(Errno::ENOMEM.into()),
        _ => {}
    }
    let mut groups = Vec::new();
    for index in 0..u64::from(count as u32) {
        groups.push(kernel.process.space.read_u32(address.wrapping_add(index * 4))?);
    }
    groups.sort_unstable();
    kernel.process.identity.more_groups = groups;
    Ok(0)
}

/// The words that each set of capabilities has in the version that the header names.
fn capability_words(kernel: &mut Kernel, header: u64) -> Result<usize, Errno> {
    let version = kernel.process.space.read_u32(header)?;
    let found = CAPABILITY_VERSIONS.iter().find(|(known, _)| *known == version);
    if let Some(&(_, words)) = found {
        return Ok(words);
    }
    let preferred: u32 = CAPABILITY_VERSIONS[2].0;
    kernel.process.space.write(header, &preferred.to_le_bytes())?;
    Err(Errno::EINVAL)
}

fn capget(kernel: &mut Kernel, [header, data, ..]: Arguments) -> CallResult {
    let words = match capability_words(kernel, header) {
        Err(Errno::EINVAL) if data == 0 => return Ok(0),
        other => other?,
    };
    let process = kernel.process.space.read_u32(header.wrapping_add(4))?;
    if process.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    kernel.task_named(process.into())?;
    if data == 0 {
        return Ok(0);
    }
    let sets = kernel.process.identity.capabilities;
    for word in 0..words {
        for (place, set) in sets.iter().enumerate() {
            let address = data.wrapping_add((word * 12 + place * 4) as u64);
            let part = (set >> (word * 32)) as u32;
            kernel.process.space.write(address, &part.to_le_bytes())?;
        }
    }
    Ok(0)
}

fn capset(kernel: &mut Kernel, [header, data, ..]: Arguments) -> CallResult {
    let words = capability_words(kernel, header)?;
    let process = kernel.process.space.read_u32(header.wrapping_add(4))?;
    if process != 0 && process != kernel.current && process != kernel.process.id {
        return Err(Errno::EPERM.into());
    }
    let mut sets = [0; 3];
    for word in 0..words {
        for (place, set) in sets.iter_mut().enumerate() {
            let address = data.wrapping_add((word * 12 + place * 4) as u64);
            *set |= u64::from(kernel.process.space.read_u32(address)?) << (word * 32);
        }
    }
    let [effective, permitted, _] = sets;
    let known = kernel.process.identity.capabilities[1];
    if permitted & !known != 0 || effective & !permitted != 0 {
        return Err(Errno::EPERM.into());
    }
    kernel.process.identity.capabilities = sets;
    Ok(0)
}

/// A number of the process that a call names, 0 for the running one.
fn process_number(
    kernel: &mut Kernel,
    process: u32,
    number: fn(&crate::process::Process) -> u32,
) -> CallResult {
    if process == 0 {
        return Ok(number(&kernel.process).into());
    }
    let process = kernel.process_mut(process).ok_or(Errno::ESRCH)?;
    Ok(number(process).into())
}

fn setpgid(kernel: &mut Kernel, process: u32, group: u32) -> CallResult {
    if group.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let own = kernel.process.id;
    let id = if process == 0 { own } else { process };
    let target = kernel.process_mut(id).ok_or(Errno::ESRCH)?;
    if target.session == id {
        return Err(Errno::EPERM.into());
    }
    let group = if group == 0 { id } else { group };
    if group != id && group != own {
        return Err(Errno::EPERM.into());
    }
    target.group = group;
    Ok(0)
}

fn setsid(kernel: &mut Kernel) -> CallResult {
    let id = kernel.process.id;
    if kernel.process.group == id {
        return Err(Errno::EPERM.into());
    }
    kernel.process.group = id;
    kernel.process.session = id;
    Ok(id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_becomes_a_user_for_good() {
        let mut ids = [0; 4];
        assert_eq!(set_one(&mut ids, 1000, true), Ok(0));
        assert_eq!(ids, [1000; 4]);
        assert_eq!(set_one(&mut ids, 0, false), Err(Errno::EPERM.into()));
        assert_eq!(set_one(&mut ids, UNCHANGED, true), Err(Errno::EINVAL.into()));
    }

    #[test]
    fn a_saved_number_can_be_returned_to() {
        let mut ids = [0; 4];
        set_three(&mut ids, [1000, 1000, 0], true).unwrap();
        assert_eq!(ids, [1000, 1000, 0, 1000]);
        set_three(&mut ids, [UNCHANGED, 0, UNCHANGED], false).unwrap();
        assert_eq!(ids, [1000, 0, 0, 0]);
        assert_eq!(set_three(&mut ids, [5, 5, 5], false), Err(Errno::EPERM.into()));
    }

    #[test]
    fn setting_two_numbers_saves_the_effective_one() {
        let mut ids = [7, 8, 9, 8];
        set_two(&mut ids, [UNCHANGED, 9], false).unwrap();
        assert_eq!(ids, [7, 9, 9, 9]);
        set_two(&mut ids, [UNCHANGED, 7], false).unwrap();
        assert_eq!(ids, [7, 7, 9, 7]);
        assert!(set_two(&mut ids, [8, UNCHANGED], false).is_err());
    }
}
