//! `mmap`, `munmap`, `mprotect`, `mremap`, `brk`.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;
use spore_abi::layout::PAGE_BYTES;

use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::Mapping;
use crate::kernel::Kernel;
use crate::memory::areas::Protection;
use crate::memory::map::{Contents, Place, Request};
use crate::memory::pages::Pages;
use crate::memory::remap::Move;

/// Flags that `MAP_SHARED_VALIDATE` knows.
const KNOWN_FLAGS: u32 = linux::MAP_TYPE
    | linux::MAP_FIXED
    | linux::MAP_ANONYMOUS
    | linux::MAP_32BIT
    | linux::MAP_GROWSDOWN
    | linux::MAP_DENYWRITE
    | linux::MAP_EXECUTABLE
    | linux::MAP_LOCKED
    | linux::MAP_NORESERVE
    | linux::MAP_POPULATE
    | linux::MAP_NONBLOCK
    | linux::MAP_STACK
    | linux::MAP_HUGETLB
    | linux::MAP_FIXED_NOREPLACE;
/// Protection bits that change nothing: `PROT_SEM`.
const PROT_SEM: u64 = 8;

pub(super) fn mmap(
    kernel: &mut Kernel,
    [address, length, prot, flags, descriptor, offset]: Arguments,
) -> CallResult {
    // As on Linux, bits that are not known are passed over here, and refused by mprotect.
    let protection = Protection::from_bits_truncate(prot as u32);
    let flags = flags as u32;
    if !offset.is_multiple_of(PAGE_BYTES) || length == 0 {
        return Err(Errno::EINVAL.into());
    }
    let shared = match flags & linux::MAP_TYPE {
        linux::MAP_PRIVATE => false,
        linux::MAP_SHARED => true,
        linux::MAP_SHARED_VALIDATE if flags & !KNOWN_FLAGS != 0 => return Err(Errno::EOPNOTSUPP.into()),
        linux::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL.into()),
    };
    let place = place(address, flags);
    let mut request = Request {
        populate: flags & (linux::MAP_POPULATE | linux::MAP_LOCKED) != 0 && flags & linux::MAP_NONBLOCK == 0,
        no_reserve: flags & linux::MAP_NORESERVE != 0,
        ..Request::anonymous(place, length, protection)
    };
    if flags & linux::MAP_ANONYMOUS == 0 {
        describe_file(kernel, &mut request, descriptor, offset, shared)?;
    } else if flags & linux::MAP_HUGETLB != 0 {
        // There are none set aside.
        return Err(Errno::ENOMEM.into());
    } else if shared {
        request.contents = shared_memory(kernel);
    }
    Ok(kernel.process.space.map(&request)?)
}

fn place(address: u64, flags: u32) -> Place {
    match address {
        _ if flags & linux::MAP_FIXED_NOREPLACE != 0 => Place::FixedIfFree(address),
        _ if flags & linux::MAP_FIXED != 0 => Place::Fixed(address),
        0 if flags & linux::MAP_32BIT != 0 => Place::Low,
        0 => Place::Anywhere,
        _ => Place::Preferred(address),
    }
}

fn shared_memory(kernel: &Kernel) -> Contents {
    Contents::Pages {
        pages: Pages::new(&kernel.frames),
        offset: 0,
        shared: true,
    }
}

/// Fills in what the mapping of a file is to be.
fn describe_file(
    kernel: &mut Kernel,
    request: &mut Request,
    descriptor: u64,
    offset: u64,
    shared: bool,
) -> Result<(), Errno> {
    let open = kernel.process.files.get(descriptor)?;
    let end = offset.checked_add(request.length).ok_or(Errno::EOVERFLOW)?;
    if end > i64::MAX as u64 {
        return Err(Errno::EOVERFLOW);
    }
    let access_mode = open.flags.get() & linux::O_ACCMODE;
    if open.flags.get() & linux::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    if access_mode == linux::O_WRONLY {
        return Err(Errno::EACCES);
    }
    let may_write = access_mode == linux::O_RDWR;
    if shared && !may_write {
        request.allowed.remove(Protection::WRITE);
    }
    let mapping = if shared && may_write {
        open.file.shared_mapping(kernel)?
    } else {
        open.file.mapping()?
    };
    match mapping {
        Mapping::Module {
            offset: file_start,
            bytes,
        } => {
            if shared {
                // What is written would have to reach a file that nobody can write.
                request.allowed.remove(Protection::WRITE);
            }
            if !file_start.is_multiple_of(PAGE_BYTES) {
                return Err(Errno::ENODEV);
            }
            request.contents = Contents::Module {
                offset: file_start.checked_add(offset).ok_or(Errno::EOVERFLOW)?,
                end: file_start.checked_add(bytes).ok_or(Errno::EOVERFLOW)?,
            };
        }
        Mapping::Pages(pages) => {
            request.contents = Contents::Pages {
                pages,
                offset,
                shared,
            };
        }
        Mapping::Zero if shared => request.contents = shared_memory(kernel),
        Mapping::Zero => {}
    }
    if !request.allowed.contains(request.protection) {
        return Err(Errno::EACCES);
    }
    request.label = Some((Rc::from(open.label()), offset));
    Ok(())
}

pub(super) fn munmap(kernel: &mut Kernel, [address, length, ..]: Arguments) -> CallResult {
    kernel.process.space.unmap(address, length)?;
    Ok(0)
}

pub(super) fn mprotect(kernel: &mut Kernel, [address, length, prot, ..]: Arguments) -> CallResult {
    let bits = u32::try_from(prot & !PROT_SEM).map_err(|_| Errno::EINVAL)?;
    let protection = Protection::from_bits(bits).ok_or(Errno::EINVAL)?;
    if !address.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::EINVAL.into());
    }
    if length == 0 {
        return Ok(0);
    }
    if length > u64::MAX - PAGE_BYTES
        || address
            .checked_add(length)
            .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(Errno::ENOMEM.into());
    }
    kernel.process.space.protect(address, length, protection)?;
    Ok(0)
}

pub(super) fn mremap(
    kernel: &mut Kernel,
    [address, old_length, new_length, flags, new_address, _]: Arguments,
) -> CallResult {
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let known = linux::MREMAP_MAYMOVE | linux::MREMAP_FIXED | linux::MREMAP_DONTUNMAP;
    let may_move = flags & linux::MREMAP_MAYMOVE != 0;
    let is_fixed = flags & linux::MREMAP_FIXED != 0;
    let keeps = flags & linux::MREMAP_DONTUNMAP != 0;
    if flags & !known != 0 || (!may_move && (is_fixed || keeps)) {
        return Err(Errno::EINVAL.into());
    }
    if keeps {
        // Who asks for it (garbage collectors with userfaultfd) can do without.
        return Err(Errno::EINVAL.into());
    }
    let how = match (may_move, is_fixed) {
        (_, true) => Move::To(new_address),
        (true, false) => Move::IfNeeded,
        (false, false) => Move::Never,
    };
    let space = &mut kernel.process.space;
    Ok(space.remap(address, old_length, new_length, how)?)
}

pub(super) fn brk(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    Ok(kernel.process.space.set_heap_end(address))
}
