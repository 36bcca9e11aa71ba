//! What a monitor that the guest has taken over might try. Each attempt is made twice: under all layers, where the first
//! forbidden call ends the process; and without the list of system calls, where the other layers have to refuse it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;

use libtest_mimic::Trial;
use spore_monitor::jail::{JailReport, Layer};

use crate::prisoner::{Depth, send_to_jail};
use crate::trial;

/// The attempts. What each does is in [`attempt`].
const ATTEMPTS: &[&str] = &[
    "read a file of the host",
    "read the directory above",
    "see processes",
    "open KVM again",
    "connect to a loopback service",
    "connect to a socket in the file system",
    "connect to an abstract socket",
    "signal the daemon",
    "signal all processes",
    "trace the daemon",
    "read the daemon's memory",
    "mount something",
    "make a user namespace",
    "fork",
    "make a thread's process",
    "execute a program",
    "become another user",
    "make a device",
    "write to the root's file",
    "cut the root's file short",
    "open the root's file again",
    "make a file",
    "load a kernel program",
];

/// What the list alone refuses. A namespace made in jail gives rights within it, and there is nothing in it to use them on.
const BY_THE_LIST: &[&str] = &["make a user namespace"];

/// Error number of a call that the kernel does not even get to.
const NOT_TRIED: i32 = 0;

pub(crate) fn trials() -> Vec<Trial> {
    let each = ATTEMPTS.iter().flat_map(|&what| {
        let name = what.replace(' ', "_").replace('\'', "");
        [
            trial(&format!("attempts::with_all_layers::{name}"), move || {
                ends_the_process(what)
            }),
            trial(&format!("attempts::without_the_list::{name}"), move || {
                is_refused(what)
            }),
        ]
    });
    each.chain([
        trial(
            "attempts::without_the_list::nothing_is_left_of_what_it_had",
            holds_nothing,
        ),
        trial("attempts::with_all_layers::a_panic_is_told_and_ends_it", panics),
    ])
    .collect()
}

/// A root file that must not change.
fn root_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    std::fs::write(file.path(), "the root of many instances").expect("the temporary folder is writable");
    file
}

fn unchanged(root: &tempfile::NamedTempFile) {
    let text = std::fs::read_to_string(root.path()).expect("the file is there");
    assert_eq!(text, "the root of many instances");
}

fn ends_the_process(what: &'static str) {
    let root = root_file();
    let outcome = send_to_jail(what, Depth::Whole, root.path());
    assert_eq!(outcome.status.signal(), Some(libc::SIGSYS), "{what}: {outcome:?}");
    assert!(outcome.answer.is_none(), "{what}: {outcome:?}");
    unchanged(&root);
}

fn is_refused(what: &'static str) {
    let root = root_file();
    let outcome = send_to_jail(what, Depth::WithoutList, root.path());
    // A process that another layer ends is as good.
    if let Some(answer) = &outcome.answer {
        if BY_THE_LIST.contains(&what) {
            return;
        }
        assert!(answer.starts_with("refused"), "{what}: {answer}");
    } else {
        assert!(outcome.status.signal().is_some(), "{what}: {outcome:?}");
    }
    unchanged(&root);
}

fn holds_nothing() {
    let root = root_file();
    let outcome = send_to_jail("count", Depth::WithoutList, root.path());
    // Its three standard descriptors and the root's file.
    assert_eq!(outcome.answer.as_deref(), Some("4 descriptors"), "{outcome:?}");
}

fn panics() {
    let root = root_file();
    let outcome = send_to_jail("panic", Depth::Whole, root.path());
    assert_eq!(outcome.status.code(), Some(101), "{outcome:?}");
}

/// Tries something from within the jail; what came of it.
pub(crate) fn attempt(what: &str, report: &JailReport, root: BorrowedFd<'_>) -> String {
    if what == "panic" {
        panic!("as asked for");
    }
    if what == "count" {
        // SAFETY: asks for flags.
        let is_open = |number: &i32| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0;
        return format!("{} descriptors", (0..4096).filter(is_open).count());
    }
    // Where everybody would be hit, nothing may rest on the layers that are left.
    if what == "signal all processes" && !report.is_active(Layer::PidNamespace) {
        return "refused: not tried".into();
    }
    let (result, error) = make_attempt(what, root);
    if result < 0 && error != NOT_TRIED {
        format!("refused: {}", std::io::Error::from_raw_os_error(error))
    } else {
        format!("done: {result}; {report:?}")
    }
}

fn open(path: &str, flags: i32) -> i64 {
    let path = CString::new(path).expect("no zero bytes");
    // SAFETY: a path that ends with a zero byte.
    unsafe { i64::from(libc::open(path.as_ptr(), flags, 0o600)) }
}

fn connect(family: i32, address: &[u8]) -> i64 {
    // SAFETY: an address of this length; sockaddr structures start with the family.
    unsafe {
        let socket = libc::socket(family, libc::SOCK_STREAM, 0);
        if socket < 0 {
            return -1;
        }
        let mut whole = (family as u16).to_ne_bytes().to_vec();
        whole.extend_from_slice(address);
        i64::from(libc::connect(socket, whole.as_ptr().cast(), whole.len() as u32))
    }
}

/// Makes the attempt; its result and error number.
fn make_attempt(what: &str, root: BorrowedFd<'_>) -> (i64, i32) {
    let null = std::ptr::null_mut::<libc::c_void>();
    let number = root.as_raw_fd();
    // SAFETY: system calls on things of this process's own, or of others, which is what must not work; pointers are
    // null, or lead to what lives through the call.
    let result = unsafe {
        match what {
            "read a file of the host" => open("/etc/passwd", libc::O_RDONLY),
            "read the directory above" => open("/../../../etc", libc::O_RDONLY | libc::O_DIRECTORY),
            "see processes" => open("/proc/self/status", libc::O_RDONLY),
            "open KVM again" => open("/dev/kvm", libc::O_RDWR),
            "connect to a loopback service" => {
                // Port 80 in any case: it must not even be refused by whoever listens, but by the network.
                let result = connect(libc::AF_INET, &[0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
                let error = *libc::__errno_location();
                return (
                    result,
                    if error == libc::ECONNREFUSED {
                        NOT_TRIED
                    } else {
                        error
                    },
                );
            }
            "connect to a socket in the file system" => connect(libc::AF_UNIX, b"/run/docker.sock\0"),
            "connect to an abstract socket" => connect(libc::AF_UNIX, b"\0spore"),
            "signal the daemon" => i64::from(libc::kill(2, libc::SIGKILL)),
            "signal all processes" => i64::from(libc::kill(-1, libc::SIGKILL)),
            "trace the daemon" => libc::ptrace(libc::PTRACE_SEIZE, 2, null, null),
            "read the daemon's memory" => {
                let mut buffer = [0_u8; 8];
                let here = libc::iovec {
                    iov_base: buffer.as_mut_ptr().cast(),
                    iov_len: buffer.len(),
                };
                libc::process_vm_readv(2, &raw const here, 1, &raw const here, 1, 0) as i64
            }
            "mount something" => i64::from(libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                null,
            )),
            "make a user namespace" => i64::from(libc::unshare(libc::CLONE_NEWUSER)),
            "fork" => match libc::syscall(libc::SYS_fork) {
                0 => libc::_exit(0),
                child => child,
            },
            "make a thread's process" => {
                match libc::syscall(
                    libc::SYS_clone,
                    libc::SIGCHLD as i64 | libc::CLONE_NEWPID as i64,
                    0,
                    0,
                    0,
                    0,
                ) {
                    0 => libc::_exit(0),
                    child => child,
                }
            }
            "execute a program" => {
                let arguments = [c"sh".as_ptr(), std::ptr::null()];
                i64::from(libc::execv(c"/bin/sh".as_ptr(), arguments.as_ptr()))
            }
            "become another user" => libc::syscall(libc::SYS_setuid, 1),
            "make a device" => i64::from(libc::mknod(c"/kvm".as_ptr(), libc::S_IFCHR | 0o600, 0xae8)),
            "write to the root's file" => libc::pwrite(number, c"x".as_ptr().cast(), 1, 0) as i64,
            "cut the root's file short" => i64::from(libc::ftruncate(number, 0)),
            "open the root's file again" => open(&format!("/proc/self/fd/{number}"), libc::O_RDWR),
            "make a file" => open("/file", libc::O_RDWR | libc::O_CREAT),
            "load a kernel program" => libc::syscall(libc::SYS_bpf, 5, null, 0),
            other => panic!("nobody knows the attempt {other:?}"),
        }
    };
    // SAFETY: this thread's own.
    (result, unsafe { *libc::__errno_location() })
}
