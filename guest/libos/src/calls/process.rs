//! The process as a whole: settings, limits, accounts, names, randomness.

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl;
use spore_machine::{processor, shared, user};

use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::devices;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::process::LIMITS;
use crate::signals::SIGNALS;
use crate::time::{SECOND_NS, monotonic_ns};

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
/// Ticks of a second in `times`.
const TICKS: u64 = 100;
/// What time slack a task starts with.
const TIMER_SLACK_NS: u64 = 50_000;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    Some(match number {
        nr::__NR_arch_prctl => arch_prctl(kernel, arguments),
        nr::__NR_prctl => prctl_call(kernel, arguments),
        nr::__NR_prlimit64 => prlimit64(kernel, arguments),
        nr::__NR_getrlimit => prlimit64(kernel, [0, arguments[0], 0, arguments[1], 0, 0]),
        nr::__NR_setrlimit => prlimit64(kernel, [0, arguments[0], arguments[1], 0, 0, 0]),
        nr::__NR_getrusage => getrusage(kernel, arguments),
        nr::__NR_times => times(kernel, arguments),
        nr::__NR_sysinfo => sysinfo(kernel, arguments),
        nr::__NR_uname => uname(kernel, arguments),
        nr::__NR_sethostname | nr::__NR_setdomainname => match arguments[1] {
            // It is not the program's to set, as in an ordinary container.
            0..=64 => Err(Errno::EPERM.into()),
            _ => Err(Errno::EINVAL.into()),
        },
        nr::__NR_umask => {
            let mask = arguments[0] as u32 & 0o777;
            let previous = core::mem::replace(&mut kernel.process.file_mode_mask, mask);
            Ok(u64::from(previous))
        }
        nr::__NR_personality => Ok(personality(kernel, arguments)),
        nr::__NR_membarrier => membarrier(kernel, arguments),
        nr::__NR_getrandom => getrandom(kernel, arguments),
        _ => return None,
    })
}

fn arch_prctl(kernel: &mut Kernel, [operation, value, ..]: Arguments) -> CallResult {
    match operation {
        ARCH_SET_FS | ARCH_SET_GS if !user::is_program_range(value, 0) => return Err(Errno::EPERM.into()),
        ARCH_SET_FS => processor::set_fs_base(value),
        ARCH_SET_GS => processor::set_gs_base(value),
        ARCH_GET_FS => kernel
            .process
            .space
            .write(value, &processor::fs_base().to_le_bytes())?,
        ARCH_GET_GS => kernel
            .process
            .space
            .write(value, &processor::gs_base().to_le_bytes())?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn prctl_call(kernel: &mut Kernel, [operation, value, third, ..]: Arguments) -> CallResult {
    let operation = operation as u32;
    match operation {
        prctl::PR_SET_NAME => set_name(kernel, value)?,
        prctl::PR_GET_NAME => {
            let name = kernel.task().name;
            kernel.process.space.write(value, &name)?;
        }
        prctl::PR_GET_PDEATHSIG | prctl::PR_GET_CHILD_SUBREAPER => {
            let settings = kernel.process.settings;
            let shown = match operation {
                prctl::PR_GET_PDEATHSIG => settings.parent_death_signal,
                _ => settings.is_subreaper.into(),
            };
            kernel.process.space.write(value, &shown.to_le_bytes())?;
        }
        prctl::PR_GET_TSC => kernel
            .process
            .space
            .write(value, &prctl::PR_TSC_ENABLE.to_le_bytes())?,
        prctl::PR_GET_TID_ADDRESS => {
            let address = kernel.task().clear_tid_address;
            kernel.process.space.write(value, &address.to_le_bytes())?;
        }
        prctl::PR_CAPBSET_READ => {
            let known = kernel.process.identity.capabilities[1];
            return match value {
                0..=40 => Ok(known >> value & 1),
                _ => Err(Errno::EINVAL.into()),
            };
        }
        // One of these means anything: that nothing is there.
        prctl::PR_CAP_AMBIENT => {
            const SUBCOMMANDS: u64 = 4;
            return if (1..=SUBCOMMANDS).contains(&value) && third <= 40 {
                Ok(0)
            } else {
                Err(Errno::EINVAL.into())
            };
        }
        prctl::PR_CAPBSET_DROP | prctl::PR_SET_PTRACER | prctl::PR_SET_VMA => {}
        prctl::PR_GET_SECCOMP => {}
        _ => return setting(kernel, operation, value),
    }
    Ok(0)
}

/// The operations that set or tell a number.
fn setting(kernel: &mut Kernel, operation: u32, value: u64) -> CallResult {
    let settings = &mut kernel.process.settings;
    let flag = |place: &mut bool| match value {
        0 | 1 => {
            *place = value == 1;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    };
    match operation {
        prctl::PR_SET_PDEATHSIG if value > u64::from(SIGNALS) => return Err(Errno::EINVAL.into()),
        prctl::PR_SET_PDEATHSIG => settings.parent_death_signal = value as u32,
        prctl::PR_GET_DUMPABLE => return Ok(u64::from(!settings.is_undumpable)),
        prctl::PR_SET_DUMPABLE => {
            flag(&mut settings.is_undumpable)?;
            settings.is_undumpable = !settings.is_undumpable;
        }
        prctl::PR_GET_KEEPCAPS => return Ok(settings.keeps_capabilities.into()),
        prctl::PR_SET_KEEPCAPS => return flag(&mut settings.keeps_capabilities),
        prctl::PR_SET_CHILD_SUBREAPER => settings.is_subreaper = value != 0,
        prctl::PR_SET_NO_NEW_PRIVS if value != 1 => return Err(Errno::EINVAL.into()),
        prctl::PR_SET_NO_NEW_PRIVS => settings.no_new_privileges = true,
        prctl::PR_GET_NO_NEW_PRIVS => return Ok(settings.no_new_privileges.into()),
        prctl::PR_SET_THP_DISABLE => settings.no_huge_pages = value != 0,
        prctl::PR_GET_THP_DISABLE => return Ok(settings.no_huge_pages.into()),
        prctl::PR_SET_TIMERSLACK => settings.timer_slack_ns = value,
        prctl::PR_GET_TIMERSLACK if settings.timer_slack_ns == 0 => return Ok(TIMER_SLACK_NS),
        prctl::PR_GET_TIMERSLACK => return Ok(settings.timer_slack_ns),
        prctl::PR_GET_TIMING => {}
        prctl::PR_SET_TIMING if value == 0 => {}
        prctl::PR_MCE_KILL_GET => return Ok(u64::from(prctl::PR_MCE_KILL_DEFAULT)),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Sets the name of the running thread.
fn set_name(kernel: &mut Kernel, address: u64) -> Result<(), Errno> {
    // As much of it as is shown; what follows need not even be mapped.
    let mut name = [0; 16];
    for (index, place) in name[..15].iter_mut().enumerate() {
        let [byte] = kernel
            .process
            .space
            .read_array(address.wrapping_add(index as u64))?;
        if byte == 0 {
            break;
        }
        *place = byte;
    }
    kernel.task().name = name;
    Ok(())
}

fn prlimit64(kernel: &mut Kernel, [process, resource, new, old, ..]: Arguments) -> CallResult {
    kernel.task_named(process)?;
    let resource = resource as u32 as usize;
    if resource >= LIMITS {
        return Err(Errno::EINVAL.into());
    }
    let former = kernel.process.limits[resource];
    if new != 0 {
        let soft = kernel.process.space.read_u64(new)?;
        let hard = kernel.process.space.read_u64(new.wrapping_add(8))?;
        if soft > hard {
            return Err(Errno::EINVAL.into());
        }
        let is_root = kernel.process.identity.users[1] == 0;
        let is_files = resource == linux::RLIMIT_NOFILE as usize;
        if hard > former[1] && (!is_root || is_files) {
            return Err(Errno::EPERM.into());
        }
        kernel.process.limits[resource] = [soft, hard];
        if is_files {
            kernel.process.files.set_limit(soft);
        }
    }
    if old != 0 {
        for (address, value) in [old, old.wrapping_add(8)].into_iter().zip(former) {
            kernel.process.space.write(address, &value.to_le_bytes())?;
        }
    }
    Ok(0)
}

fn getrusage(kernel: &mut Kernel, [who, address, ..]: Arguments) -> CallResult {
    const RUSAGE_BYTES: usize = 144;
    const MAXIMUM_RESIDENT: usize = 32;
    let run_ns = match who as u32 as i32 {
        0 => kernel.process_run_ns(),
        1 => {
            let current = kernel.current;
            kernel.task_run_ns(current).unwrap_or(0)
        }
        // Children that were waited for.
        -1 => crate::time::ticks_to_ns(kernel.process.children_run_ticks),
        _ => return Err(Errno::EINVAL.into()),
    };
    let mut bytes = [0; RUSAGE_BYTES];
    // All time run counts as the program's own.
    bytes[..8].copy_from_slice(&(run_ns / SECOND_NS).to_le_bytes());
    bytes[8..16].copy_from_slice(&(run_ns % SECOND_NS / 1000).to_le_bytes());
    let taken_kib =
        (shared::boot().memory_limit_bytes).saturating_sub(kernel.frames.borrow().free_bytes()) / 1024;
    if who as u32 as i32 != -1 {
        bytes[MAXIMUM_RESIDENT..MAXIMUM_RESIDENT + 8].copy_from_slice(&taken_kib.to_le_bytes());
    }
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

fn times(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    let ticks = |time_ns: u64| time_ns / (SECOND_NS / TICKS);
    let run_ns = kernel.process_run_ns();
    if address != 0 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&ticks(run_ns).to_le_bytes());
        let children_ns = crate::time::ticks_to_ns(kernel.process.children_run_ticks);
        bytes[16..24].copy_from_slice(&ticks(children_ns).to_le_bytes());
        kernel.process.space.write(address, &bytes)?;
    }
    Ok(ticks(monotonic_ns()))
}

fn sysinfo(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    const SYSINFO_BYTES: usize = 112;
    let total_bytes = shared::boot().memory_limit_bytes;
    let free_bytes = kernel.frames.borrow().free_bytes().min(total_bytes);
    let mut bytes = [0; SYSINFO_BYTES];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, monotonic_ns() / SECOND_NS);
    put(32, total_bytes);
    put(40, free_bytes);
    // Tasks, in the lowest 16 bits.
    put(80, kernel.tasks.len() as u64);
    // Memory is counted in bytes.
    put(104, 1);
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

fn uname(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    /// Length of a field of `struct utsname`.
    const FIELD: usize = 65;
    // The release is that of the interface that is served, for programs that check it.
    let fields: [&[u8]; 6] = [
        b"Linux",
        b"spore",
        b"6.1.0-spore",
        b"#1 Spore library OS",
        b"x86_64",
        b"(none)",
    ];
    let mut bytes = [0; FIELD * 6];
    for (place, field) in bytes.chunks_mut(FIELD).zip(fields) {
        place[..field.len()].copy_from_slice(field);
    }
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

fn personality(kernel: &mut Kernel, [wanted, ..]: Arguments) -> u64 {
    const ASK: u32 = u32::MAX;
    let settings = &mut kernel.process.settings;
    let former = settings.personality;
    if wanted as u32 != ASK {
        settings.personality = wanted as u32;
    }
    former.into()
}

/// Barriers between threads: there is one processor, so every return to a thread is one.
fn membarrier(kernel: &mut Kernel, [command, flags, ..]: Arguments) -> CallResult {
    const GLOBAL: u32 = 1;
    const GLOBAL_EXPEDITED: u32 = 1 << 1;
    const REGISTER_GLOBAL: u32 = 1 << 2;
    const PRIVATE: u32 = 1 << 3;
    const REGISTER_PRIVATE: u32 = 1 << 4;
    const PRIVATE_CORE: u32 = 1 << 5;
    const REGISTER_PRIVATE_CORE: u32 = 1 << 6;
    const ALL: u32 = (1 << 7) - 1;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let registered = &mut kernel.process.settings.barriers;
    match command as u32 {
        0 => Ok(ALL.into()),
        GLOBAL | GLOBAL_EXPEDITED => Ok(0),
        command @ (REGISTER_GLOBAL | REGISTER_PRIVATE | REGISTER_PRIVATE_CORE) => {
            *registered |= command;
            Ok(0)
        }
        command @ (PRIVATE | PRIVATE_CORE) if *registered & (command << 1) != 0 => Ok(0),
        PRIVATE | PRIVATE_CORE => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn getrandom(kernel: &mut Kernel, [address, length, flags, ..]: Arguments) -> CallResult {
    let known = linux::GRND_NONBLOCK | linux::GRND_RANDOM | linux::GRND_INSECURE;
    let contradicts = u64::from(linux::GRND_RANDOM | linux::GRND_INSECURE);
    if flags & !u64::from(known) != 0 || flags & contradicts == contradicts {
        return Err(Errno::EINVAL.into());
    }
    Ok(devices::fill_random(
        kernel,
        &mut Buffers::single(address, length),
    )?)
}
