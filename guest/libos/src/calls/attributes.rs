//! Extended attributes: no file has any, and none can be given any.

use linux_raw_sys::general as nr;

use super::CallResult;
use super::paths::{WORKING_DIRECTORY, itself, resolve};
use crate::errno::Errno;
use crate::kernel::Kernel;

/// Serves a call by number; `file` is its path or descriptor.
pub(super) fn serve(kernel: &mut Kernel, number: u32, file: u64) -> CallResult {
    const NO_FOLLOW: u64 = nr::AT_SYMLINK_NOFOLLOW as u64;
    match number {
        nr::__NR_fsetxattr | nr::__NR_fgetxattr | nr::__NR_flistxattr | nr::__NR_fremovexattr => {
            kernel.process.files.get(file)?;
            itself(kernel, file)?
        }
        nr::__NR_lsetxattr | nr::__NR_lgetxattr | nr::__NR_llistxattr | nr::__NR_lremovexattr => {
            resolve(kernel, WORKING_DIRECTORY, file, NO_FOLLOW)?
        }
        _ => resolve(kernel, WORKING_DIRECTORY, file, 0)?,
    };
    match number {
        nr::__NR_listxattr | nr::__NR_llistxattr | nr::__NR_flistxattr => Ok(0),
        nr::__NR_setxattr | nr::__NR_lsetxattr | nr::__NR_fsetxattr => Err(Errno::EOPNOTSUPP.into()),
        _ => Err(Errno::ENODATA.into()),
    }
}
