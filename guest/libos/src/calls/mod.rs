//! The system calls: one function each, grouped by what they work on.
//!
//! A function gets the kernel and the six arguments and answers with a value, an errno, or [`Failure::Wait`] after it
//! has put the current task into the wait queues that matter; it is then called again with the same arguments when
//! one of them wakes or its deadline has passed. What it must remember in between is in `task.memory`.

mod advice;
mod attributes;
mod changes;
mod copying;
mod descriptors;
mod files;
mod foreign;
mod futex;
mod identity;
mod locking;
mod memory;
pub(crate) mod names;
mod network;
mod paths;
mod poll;
mod process;
mod programs;
mod scheduling;
mod signals;
mod status;
mod tasks;
mod time;
mod timers;
mod transfer;
mod watching;

use linux_raw_sys::general as nr;

pub(crate) use descriptors::let_go;

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Pending;

/// Arguments of a call.
pub(crate) type Arguments = [u64; 6];

/// Why a call has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It failed.
    Errno(Errno),
    /// It has to wait; the task is in the wait queues that matter.
    Wait,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What a call's function returns.
pub(crate) type CallResult = Result<u64, Failure>;

/// What becomes of the task after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It goes on with this value in rax.
    Result(u64),
    /// It waits, and the call is tried again.
    Wait,
    /// It goes on later with 0 in rax.
    Yield,
    /// It goes on with the registers that it has.
    Resume,
    /// It has lent its process's address space to a child: it goes on with this value in rax when that is given back.
    Hold(u64),
    /// It is gone.
    Ended,
}

/// Serves one call.
pub(crate) fn dispatch(kernel: &mut Kernel, call: Pending) -> Answer {
    let Ok(number) = u32::try_from(call.number) else {
        kernel.report_missing(call.number);
        return Answer::Result(Errno::ENOSYS.as_result());
    };
    match number {
        nr::__NR_sched_yield => return Answer::Yield,
        nr::__NR_exit => return tasks::exit(kernel, call.arguments),
        nr::__NR_execve | nr::__NR_execveat => return programs::execute(kernel, number, call.arguments),
        nr::__NR_rt_sigreturn => return signals::rt_sigreturn(kernel),
        nr::__NR_ppoll | nr::__NR_pselect6 | nr::__NR_epoll_pwait | nr::__NR_epoll_pwait2 => {
            if let Err(errno) = signals::bring_mask(kernel, number, call.arguments) {
                return Answer::Result(errno.as_result());
            }
        }
        _ => {}
    }
    let result = serve(kernel, number, call.arguments);
    if !kernel.network.discarded.is_empty() {
        descriptors::let_go_of_discarded(kernel);
    }
    match result {
        Ok(value) if kernel.process.is_lent => Answer::Hold(value),
        Ok(value) => Answer::Result(value),
        Err(Failure::Errno(errno)) => Answer::Result(errno.as_result()),
        Err(Failure::Wait) => Answer::Wait,
    }
}

/// Whether a call polls files with a mask of its own, and says 0 if none is ready.
pub(crate) fn polls_under_a_mask(number: u64) -> bool {
    [u64::from(nr::__NR_ppoll), u64::from(nr::__NR_pselect6)].contains(&number)
}

fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> CallResult {
    match number {
        nr::__NR_read => transfer::read(kernel, arguments),
        nr::__NR_write => transfer::write(kernel, arguments),
        nr::__NR_readv => transfer::readv(kernel, arguments),
        nr::__NR_writev => transfer::writev(kernel, arguments),
        nr::__NR_pread64 => transfer::pread64(kernel, arguments),
        nr::__NR_pwrite64 => transfer::pwrite64(kernel, arguments),
        nr::__NR_preadv => transfer::preadv(kernel, arguments),
        nr::__NR_pwritev => transfer::pwritev(kernel, arguments),
        nr::__NR_preadv2 => transfer::preadv2(kernel, arguments),
        nr::__NR_pwritev2 => transfer::pwritev2(kernel, arguments),
        nr::__NR_lseek => transfer::lseek(kernel, arguments),
        nr::__NR_fsync | nr::__NR_fdatasync => transfer::fsync(kernel, arguments),
        nr::__NR_ftruncate => transfer::ftruncate(kernel, arguments),
        nr::__NR_fallocate => transfer::fallocate(kernel, arguments),
        nr::__NR_close => descriptors::close(kernel, arguments),
        nr::__NR_ioctl => descriptors::ioctl(kernel, arguments),
        nr::__NR_fcntl => descriptors::fcntl(kernel, arguments),
        nr::__NR_dup => descriptors::dup(kernel, arguments),
        nr::__NR_dup2 => descriptors::dup2(kernel, arguments),
        nr::__NR_dup3 => descriptors::dup3(kernel, arguments),
        nr::__NR_pipe => descriptors::pipe2(kernel, [arguments[0], 0, 0, 0, 0, 0]),
        nr::__NR_pipe2 => descriptors::pipe2(kernel, arguments),
        nr::__NR_close_range => descriptors::close_range(kernel, arguments),
        nr::__NR_memfd_create => descriptors::memfd_create(kernel, arguments),
        nr::__NR_eventfd => descriptors::eventfd2(kernel, [arguments[0], 0, 0, 0, 0, 0]),
        nr::__NR_eventfd2 => descriptors::eventfd2(kernel, arguments),

        nr::__NR_mmap => memory::mmap(kernel, arguments),
        nr::__NR_munmap => memory::munmap(kernel, arguments),
        nr::__NR_mprotect => memory::mprotect(kernel, arguments),
        nr::__NR_mremap => memory::mremap(kernel, arguments),
        nr::__NR_brk => memory::brk(kernel, arguments),

        nr::__NR_socket => network::socket(kernel, arguments),
        nr::__NR_bind => network::bind(kernel, arguments),
        nr::__NR_listen => network::listen(kernel, arguments),
        nr::__NR_accept => network::accept4(kernel, [arguments[0], arguments[1], arguments[2], 0, 0, 0]),
        nr::__NR_accept4 => network::accept4(kernel, arguments),
        nr::__NR_connect => network::connect(kernel, arguments),
        nr::__NR_getsockname => network::getsockname(kernel, arguments),
        nr::__NR_getpeername => network::getpeername(kernel, arguments),
        nr::__NR_setsockopt => network::setsockopt(kernel, arguments),
        nr::__NR_getsockopt => network::getsockopt(kernel, arguments),
        nr::__NR_sendto => network::sendto(kernel, arguments),
        nr::__NR_recvfrom => network::recvfrom(kernel, arguments),
        nr::__NR_sendmsg => network::sendmsg(kernel, arguments),
        nr::__NR_recvmsg => network::recvmsg(kernel, arguments),
        nr::__NR_shutdown => network::shutdown(kernel, arguments),
        nr::__NR_socketpair => network::socketpair(kernel, arguments),
        nr::__NR_sendmmsg => network::sendmmsg(kernel, arguments),
        nr::__NR_recvmmsg => network::recvmmsg(kernel, arguments),

        nr::__NR_poll => poll::poll(kernel, arguments),
        nr::__NR_ppoll => poll::ppoll(kernel, arguments),
        nr::__NR_select => poll::select(kernel, arguments),
        nr::__NR_pselect6 => poll::pselect6(kernel, arguments),
        nr::__NR_epoll_create => poll::epoll_create(kernel, arguments),
        nr::__NR_epoll_create1 => poll::epoll_create1(kernel, arguments),
        nr::__NR_epoll_ctl => poll::epoll_ctl(kernel, arguments),
        nr::__NR_epoll_wait | nr::__NR_epoll_pwait => poll::epoll_wait(kernel, arguments),
        nr::__NR_epoll_pwait2 => poll::epoll_pwait2(kernel, arguments),

        nr::__NR_clone => tasks::clone(kernel, arguments),
        nr::__NR_clone3 => tasks::clone3(kernel, arguments),
        nr::__NR_futex => futex::futex(kernel, arguments),

        _ => serve_more(kernel, number, arguments),
    }
}

/// The calls that are about the program itself.
fn serve_more(kernel: &mut Kernel, number: u32, arguments: Arguments) -> CallResult {
    let groups = [
        advice::serve,
        files::serve,
        tasks::serve,
        programs::serve,
        foreign::serve,
        signals::serve,
        timers::serve,
        time::serve,
        scheduling::serve,
        identity::serve,
        process::serve,
    ];
    let answer = groups
        .into_iter()
        .find_map(|serve| serve(kernel, number, arguments));
    answer.unwrap_or_else(|| {
        kernel.report_missing(u64::from(number));
        Err(Errno::ENOSYS.into())
    })
}
