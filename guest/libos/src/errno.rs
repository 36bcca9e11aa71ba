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
    EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EBADF ECONNRESET EEXIST EFAULT EINVAL EIO EISCONN ELOOP EMFILE
    ENAMETOOLONG ENETUNREACH ENFILE ENOENT ENOMEM ENOPROTOOPT ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTSOCK ENOTTY EPERM EPIPE
    EPROTONOSUPPORT ERANGE ESOCKTNOSUPPORT ESPIPE ESRCH
}

impl Errno {
    /// The value that the program finds in rax.
    pub(crate) fn as_result(self) -> u64 {
        (-i64::from(self.0)).cast_unsigned()
    }
}
