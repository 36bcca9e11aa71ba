//! `mmap`, `munmap`, `mprotect`, `madvise`, `brk`.

use linux_raw_sys::general as linux;

use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::areas::Protection;

fn protection(bits: u64) -> Result<Protection, Errno> {
    u32::try_from(bits)
        .ok()
        .and_then(Protection::from_bits)
        .ok_or(Errno::EINVAL)
}

pub(super) fn mmap(
    kernel: &mut Kernel,
    [address, length, prot, flags, descriptor, _]: Arguments,
) -> CallResult {
    let protection = protection(prot)?;
    let flags = flags as u32;
    let kind = flags & linux::MAP_TYPE;
    let is_known = [linux::MAP_PRIVATE, linux::MAP_SHARED, linux::MAP_SHARED_VALIDATE].contains(&kind);
    if length == 0 || !is_known {
        return Err(Errno::EINVAL.into());
    }
    if flags & linux::MAP_ANONYMOUS == 0 {
        // None of the files that there are can be mapped.
        kernel.process.files.get(descriptor)?;
        return Err(Errno::EACCES.into());
    }
    if flags & linux::MAP_FIXED_NOREPLACE != 0 && kernel.process.space.is_in_use(address, length) {
        return Err(Errno::EEXIST.into());
    }
    if flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) != 0 {
        kernel.process.space.map_fixed(address, length, protection)?;
        return Ok(address);
    }
    Ok(kernel.process.space.map_anonymous(length, protection)?)
}

pub(super) fn munmap(kernel: &mut Kernel, [address, length, ..]: Arguments) -> CallResult {
    kernel.process.space.unmap(address, length)?;
    Ok(0)
}

pub(super) fn mprotect(kernel: &mut Kernel, [address, length, prot, ..]: Arguments) -> CallResult {
    let protection = protection(prot)?;
    if length > 0 {
        kernel.process.space.protect(address, length, protection)?;
    }
    Ok(0)
}

pub(super) fn madvise(kernel: &mut Kernel, [address, length, advice, ..]: Arguments) -> CallResult {
    match u32::try_from(advice) {
        Ok(linux::MADV_DONTNEED) if length > 0 => kernel.process.space.discard(address, length)?,
        // Advice that only helps performance may be ignored.
        Ok(0..=4 | 8..=25) => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

pub(super) fn brk(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    Ok(kernel.process.space.set_heap_end(address))
}
