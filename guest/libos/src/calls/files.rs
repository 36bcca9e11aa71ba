//! Calls on named files, by number; and what other groups of calls use of files.

use linux_raw_sys::general as nr;

pub(super) use super::descriptors::{DESCRIPTOR_LIMIT, add};
use super::paths::WORKING_DIRECTORY as HERE;
use super::{
    Arguments, CallResult, Failure, attributes, changes, copying, locking, paths, status, transfer, watching,
};
use crate::kernel::Kernel;

const NO_FOLLOW: u64 = nr::AT_SYMLINK_NOFOLLOW as u64;
const REMOVE_DIRECTORY: u64 = nr::AT_REMOVEDIR as u64;

/// Serves calls on named files; `None` if it is not one of them.
pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [first, second, third, fourth, ..] = arguments;
    Some(match number {
        nr::__NR_open => paths::open(kernel, arguments),
        nr::__NR_openat => paths::openat(kernel, arguments),
        nr::__NR_openat2 => paths::openat2(kernel, arguments),
        nr::__NR_creat => paths::creat(kernel, arguments),
        nr::__NR_access => paths::access(kernel, HERE, first, second, 0),
        nr::__NR_faccessat => paths::access(kernel, first, second, third, 0),
        nr::__NR_faccessat2 => paths::access(kernel, first, second, third, fourth),
        nr::__NR_readlink => paths::readlink(kernel, HERE, first, second, third),
        nr::__NR_readlinkat => paths::readlink(kernel, first, second, third, fourth),
        nr::__NR_getcwd => paths::getcwd(kernel, arguments),
        nr::__NR_chdir => paths::chdir(kernel, arguments),
        nr::__NR_fchdir => paths::fchdir(kernel, arguments),

        nr::__NR_fstat => status::fstat(kernel, arguments),
        nr::__NR_stat => status::stat(kernel, arguments),
        nr::__NR_lstat => status::lstat(kernel, arguments),
        nr::__NR_newfstatat => status::newfstatat(kernel, arguments),
        nr::__NR_statx => status::statx(kernel, arguments),
        nr::__NR_statfs => status::statfs(kernel, arguments),
        nr::__NR_fstatfs => status::fstatfs(kernel, arguments),
        nr::__NR_getdents => status::getdents(kernel, arguments),
        nr::__NR_getdents64 => status::getdents64(kernel, arguments),

        nr::__NR_mkdir => changes::mkdirat(kernel, HERE, first, second),
        nr::__NR_mkdirat => changes::mkdirat(kernel, first, second, third),
        nr::__NR_mknod => changes::mknodat(kernel, HERE, first, second, third),
        nr::__NR_mknodat => changes::mknodat(kernel, first, second, third, fourth),
        nr::__NR_unlink => changes::unlinkat(kernel, HERE, first, 0),
        nr::__NR_rmdir => changes::unlinkat(kernel, HERE, first, REMOVE_DIRECTORY),
        nr::__NR_unlinkat => changes::unlinkat(kernel, first, second, third),
        nr::__NR_rename => changes::renameat2(kernel, [HERE, first, HERE, second, 0, 0]),
        nr::__NR_renameat => changes::renameat2(kernel, [first, second, third, fourth, 0, 0]),
        nr::__NR_renameat2 => changes::renameat2(kernel, arguments),
        nr::__NR_link => changes::linkat(kernel, [HERE, first, HERE, second, 0, 0]),
        nr::__NR_linkat => changes::linkat(kernel, arguments),
        nr::__NR_symlink => changes::symlinkat(kernel, first, HERE, second),
        nr::__NR_symlinkat => changes::symlinkat(kernel, first, second, third),
        _ => return serve_contents(kernel, number, arguments),
    })
}

/// Attributes, contents, locks, events.
fn serve_contents(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [first, second, third, fourth, ..] = arguments;
    Some(match number {
        nr::__NR_chmod => changes::chmodat(kernel, HERE, first, second, 0),
        nr::__NR_fchmodat => changes::chmodat(kernel, first, second, third, 0),
        nr::__NR_fchmodat2 => changes::chmodat(kernel, first, second, third, fourth),
        nr::__NR_fchmod => changes::fchmod(kernel, arguments),
        nr::__NR_chown => changes::chownat(kernel, [HERE, first, second, third, 0, 0]),
        nr::__NR_lchown => changes::chownat(kernel, [HERE, first, second, third, NO_FOLLOW, 0]),
        nr::__NR_fchownat => changes::chownat(kernel, arguments),
        nr::__NR_fchown => changes::fchown(kernel, arguments),
        nr::__NR_utimensat => changes::utimensat(kernel, arguments),
        nr::__NR_futimesat => changes::utimes_at(kernel, first, second, third),
        nr::__NR_utimes => changes::utimes_at(kernel, HERE, first, second),
        nr::__NR_utime => changes::utime(kernel, arguments),
        nr::__NR_truncate => changes::truncate(kernel, arguments),

        nr::__NR_sendfile => copying::sendfile(kernel, arguments),
        nr::__NR_splice => copying::splice(kernel, arguments),
        nr::__NR_tee => copying::tee(kernel, arguments),
        nr::__NR_vmsplice => copying::vmsplice(kernel, arguments),
        nr::__NR_copy_file_range => copying::copy_file_range(kernel, arguments),

        nr::__NR_sync => Ok(0),
        nr::__NR_syncfs | nr::__NR_readahead => {
            let open = kernel.process.files.get(first);
            open.map(|_| 0).map_err(Failure::Errno)
        }
        nr::__NR_sync_file_range => transfer::sync_file_range(kernel, arguments),
        nr::__NR_fadvise64 => transfer::fadvise64(kernel, arguments),
        nr::__NR_flock => locking::flock(kernel, arguments),

        nr::__NR_inotify_init => watching::inotify_init1(kernel, [0; 6]),
        nr::__NR_inotify_init1 => watching::inotify_init1(kernel, arguments),
        nr::__NR_inotify_add_watch => watching::inotify_add_watch(kernel, arguments),
        nr::__NR_inotify_rm_watch => watching::inotify_rm_watch(kernel, arguments),
        nr::__NR_setxattr
        | nr::__NR_lsetxattr
        | nr::__NR_fsetxattr
        | nr::__NR_removexattr
        | nr::__NR_lremovexattr
        | nr::__NR_fremovexattr
        | nr::__NR_getxattr
        | nr::__NR_lgetxattr
        | nr::__NR_fgetxattr
        | nr::__NR_listxattr
        | nr::__NR_llistxattr
        | nr::__NR_flistxattr => attributes::serve(kernel, number, first),
        _ => return None,
    })
}
