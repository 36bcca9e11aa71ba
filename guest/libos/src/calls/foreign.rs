//! Other processes: descriptors of them, and their memory, as far as it is the caller's own.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;

use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::process::{ProcessFile, ProcessHandle};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::process::ProcessId;
use crate::signals::{SIGNALS, SignalInfo, code};

/// Serves the calls of this module; `None` if it is not one of them.
pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    Some(match number {
        nr::__NR_pidfd_open => pidfd_open(kernel, arguments),
        nr::__NR_pidfd_send_signal => pidfd_send_signal(kernel, arguments),
        nr::__NR_process_vm_readv => copy(kernel, arguments, false),
        nr::__NR_process_vm_writev => copy(kernel, arguments, true),
        _ => return None,
    })
}

fn pidfd_open(kernel: &mut Kernel, [id, flags, ..]: Arguments) -> CallResult {
    let flags = flags as u32;
    let id = id as u32;
    if flags & !linux::O_NONBLOCK != 0 || id.cast_signed() <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let handle = match kernel.process_mut(id) {
        Some(process) => Rc::clone(&process.handle),
        None => match kernel.zombies.get(&id) {
            Some(_) => {
                let handle = ProcessHandle::new(id, &kernel.ready);
                handle.end();
                handle
            }
            // The number of a thread that is not its process's first is no good.
            None if kernel.tasks.contains_key(&id) => return Err(Errno::EINVAL.into()),
            None => return Err(Errno::ESRCH.into()),
        },
    };
    let open = OpenFile::new(Rc::new(ProcessFile(handle)), linux::O_RDWR | flags);
    Ok(kernel.process.files.add(open, true, 0)?)
}

/// The process that a descriptor names.
pub(super) fn described(kernel: &Kernel, descriptor: u64) -> Result<ProcessId, Errno> {
    let open = kernel.process.files.get(u64::from(descriptor as u32))?;
    open.file.as_process().map(|handle| handle.id).ok_or(Errno::EBADF)
}

fn pidfd_send_signal(kernel: &mut Kernel, [descriptor, signal, info, flags, ..]: Arguments) -> CallResult {
    if flags as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let id = described(kernel, descriptor)?;
    let signal = signal as u32;
    if signal > SIGNALS {
        return Err(Errno::EINVAL.into());
    }
    if kernel.process_mut(id).is_none() {
        return match kernel.zombies.contains_key(&id) {
            true => Ok(0),
            false => Err(Errno::ESRCH.into()),
        };
    }
    let mut sent = SignalInfo::sent(signal, code::SI_USER, kernel.process.id);
    if info != 0 {
        let bytes = kernel.process.space.read_array(info)?;
        sent = SignalInfo::from_bytes(signal, &bytes);
        if id != kernel.process.id && (sent.code >= 0 || sent.code == code::SI_TKILL) {
            return Err(Errno::EPERM.into());
        }
    }
    if signal != 0 {
        kernel.raise_on(id, sent);
    }
    Ok(0)
}

/// `process_vm_readv` and `process_vm_writev`, of the caller's own memory.
fn copy(
    kernel: &mut Kernel,
    [id, local, local_count, remote, remote_count, flags]: Arguments,
    writes: bool,
) -> CallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let space = &mut kernel.process.space;
    let mut local = Buffers::vector(space, local, local_count)?;
    let mut remote = Buffers::vector(space, remote, remote_count)?;
    let id = id as u32;
    if id != kernel.process.id {
        let exists = kernel.process_mut(id).is_some();
        return Err(if exists { Errno::EPERM } else { Errno::ESRCH }.into());
    }
    let space = &mut kernel.process.space;
    let (from, to) = if writes {
        (&mut local, &mut remote)
    } else {
        (&mut remote, &mut local)
    };
    let mut bytes = [0; 4096];
    let mut total = 0;
    loop {
        let count = from.remaining().min(to.remaining()).min(bytes.len() as u64) as usize;
        if count == 0 {
            return Ok(total);
        }
        let copied = from
            .take(space, &mut bytes[..count])
            .and_then(|taken| to.put(space, &bytes[..taken as usize]));
        match copied {
            Ok(done) => total += done,
            Err(error) if total == 0 => return Err(error.into()),
            Err(_) => return Ok(total),
        }
        if copied != Ok(count as u64) {
            return Ok(total);
        }
    }
}
