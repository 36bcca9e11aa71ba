//! `madvise` and its kin: advice about memory, and questions about it.

use linux_raw_sys::general as linux;
use spore_abi::layout::{PAGE_BYTES, USER_END};

use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::kernel::Kernel;

/// Pages that `mincore` answers for in one step.
const RESIDENCE_STEP: u64 = 1024;

/// Serves the calls of this module; `None` if it is not one of them.
pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [address, length, third, ..] = arguments;
    let result = match number {
        linux::__NR_madvise => madvise(kernel, address, length, third),
        linux::__NR_mincore => mincore(kernel, address, length, third),
        linux::__NR_msync => msync(kernel, address, length, third),
        // Memory is never taken away: it is locked as it is.
        linux::__NR_mlock | linux::__NR_munlock => check_lock(kernel, address, length),
        linux::__NR_mlock2 if third & !u64::from(linux::MLOCK_ONFAULT) != 0 => Err(Errno::EINVAL.into()),
        linux::__NR_mlock2 => check_lock(kernel, address, length),
        linux::__NR_mlockall => mlockall(address),
        linux::__NR_munlockall => Ok(0),
        linux::__NR_pkey_mprotect if arguments[3] as u32 == u32::MAX => {
            super::memory::mprotect(kernel, arguments)
        }
        // There is one memory node, and no keys; programs ask and go on without.
        linux::__NR_mbind
        | linux::__NR_set_mempolicy
        | linux::__NR_get_mempolicy
        | linux::__NR_migrate_pages
        | linux::__NR_move_pages
        | linux::__NR_pkey_alloc
        | linux::__NR_pkey_free
        | linux::__NR_pkey_mprotect
        | linux::__NR_userfaultfd => Err(Errno::ENOSYS.into()),
        _ => return None,
    };
    Some(result)
}

fn madvise(kernel: &mut Kernel, address: u64, length: u64, advice: u64) -> CallResult {
    let advice = advice as u32;
    let is_known = matches!(advice, 0..=4 | 8..=25);
    if !is_known || !address.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    if length == 0 {
        return Ok(0);
    }
    if length > USER_END || address.checked_add(length).is_none() {
        return Err(Errno::EINVAL.into());
    }
    let space = &mut kernel.process.space;
    match advice {
        linux::MADV_DONTNEED | linux::MADV_DONTNEED_LOCKED => space.discard(address, length)?,
        linux::MADV_FREE => space.offer(address, length)?,
        linux::MADV_WIPEONFORK | linux::MADV_KEEPONFORK => {
            space.set_wiped(address, length, advice == linux::MADV_WIPEONFORK)?;
        }
        linux::MADV_REMOVE => {
            space.remove(address, length)?;
            space.check_mapped(address, length)?;
        }
        linux::MADV_POPULATE_READ | linux::MADV_POPULATE_WRITE => {
            space.check_mapped(address, length)?;
            let writes = advice == linux::MADV_POPULATE_WRITE;
            space.check_populate(address, length, writes)?;
            let end = address + length.next_multiple_of(PAGE_BYTES);
            space.populate(address, end, true)?;
        }
        _ => space.check_mapped(address, length)?,
    }
    Ok(0)
}

fn mincore(kernel: &mut Kernel, address: u64, length: u64, vector: u64) -> CallResult {
    if !address.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    if address.checked_add(length).is_none_or(|end| end > USER_END) {
        return Err(Errno::ENOMEM.into());
    }
    let pages = length.div_ceil(PAGE_BYTES);
    let space = &mut kernel.process.space;
    let mut done = 0;
    while done < pages {
        let count = (pages - done).min(RESIDENCE_STEP);
        let first = address + done * PAGE_BYTES;
        space.check_mapped(first, count * PAGE_BYTES)?;
        let mut bytes = [0_u8; RESIDENCE_STEP as usize];
        for (index, byte) in (0..count).zip(&mut bytes) {
            *byte = u8::from(space.is_resident(first + index * PAGE_BYTES));
        }
        space.write(vector.wrapping_add(done), &bytes[..count as usize])?;
        done += count;
    }
    Ok(0)
}

fn msync(kernel: &mut Kernel, address: u64, length: u64, flags: u64) -> CallResult {
    let flags = flags as u32;
    let known = linux::MS_ASYNC | linux::MS_INVALIDATE | linux::MS_SYNC;
    let both = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !known != 0 || flags & both == both || !address.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    if length == 0 {
        return Ok(0);
    }
    if length > USER_END || address.checked_add(length).is_none_or(|end| end > USER_END) {
        return Err(Errno::ENOMEM.into());
    }
    // Mappings of a file and the file itself are the same memory.
    kernel.process.space.check_mapped(address, length)?;
    Ok(0)
}

fn check_lock(kernel: &mut Kernel, address: u64, length: u64) -> CallResult {
    let start = address & !(PAGE_BYTES - 1);
    let length = length.saturating_add(address - start);
    if length == 0 {
        return Ok(0);
    }
    if start.checked_add(length).is_none_or(|end| end > USER_END) {
        return Err(Errno::ENOMEM.into());
    }
    kernel.process.space.check_mapped(start, length)?;
    Ok(0)
}

fn mlockall(flags: u64) -> CallResult {
    let known = u64::from(linux::MCL_CURRENT | linux::MCL_FUTURE | linux::MCL_ONFAULT);
    if flags == 0 || flags & !known != 0 || flags == u64::from(linux::MCL_ONFAULT) {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}
