//! Error numbers of Linux.

/// An error number, as a system call returns it negated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) u32);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(pub(crate) const $name: Self = Self(linux_raw_sys::errno::$name);)*
        }
    };
}

errnos! {
    E2BIG EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBUSY ECHILD ECONNABORTED ECONNREFUSED
    ECONNRESET EDEADLK EDESTADDRREQ EDOM EEXIST EFAULT EFBIG EINPROGRESS EINTR EINVAL EIO EISCONN EISDIR ELIBBAD
    ELOOP EMFILE EMLINK EMSGSIZE ENAMETOOLONG ENETUNREACH ENFILE ENOBUFS ENODATA ENODEV ENOENT ENOEXEC ENOLCK ENOMEM
    ENOPROTOOPT ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTEMPTY ENOTSOCK ENOTTY ENXIO EOPNOTSUPP EOVERFLOW EPERM EPIPE
    EPROTONOSUPPORT EPROTOTYPE ERANGE EROFS ESOCKTNOSUPPORT ESPIPE ESRCH ETIMEDOUT ETOOMANYREFS EUCLEAN EXDEV
}

impl Errno {
    /// The value that the program finds in rax.
    pub(crate) fn as_result(self) -> u64 {
        (-i64::from(self.0)).cast_unsigned()
    }
}
