//! The system calls that a container may make: those of ordinary programs. What changes the host, reaches into other
//! processes or makes namespaces is not among them, whatever rights the caller has. Pure.
//!
//! gVisor's own kernel answers a program's calls, and does not look at this.

use serde_json::{Value, json};

/// By what they are about.
const ALLOWED: &[&str] = &[
    // Files.
    "read write open openat openat2 creat close close_range stat fstat lstat newfstatat statx poll ppoll lseek pread64 pwrite64 \
     readv writev preadv pwritev preadv2 pwritev2 access faccessat faccessat2 dup dup2 dup3 fcntl flock fsync fdatasync sync \
     syncfs sync_file_range truncate ftruncate getdents getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir \
     mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown \
     lchown fchownat umask utime utimes utimensat futimesat statfs fstatfs mknod mknodat fallocate fadvise64 readahead sendfile \
     splice tee vmsplice copy_file_range setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr \
     flistxattr removexattr lremovexattr fremovexattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch ioctl \
     name_to_handle_at",
    // Memory.
    "mmap mprotect munmap mremap msync mincore madvise brk mlock mlock2 munlock mlockall munlockall memfd_create remap_file_pages \
     pkey_alloc pkey_free pkey_mprotect membarrier cachestat get_mempolicy memfd_secret mseal map_shadow_stack",
    // Processes, threads and signals. `clone` stands below.
    "fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigreturn \
     rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigsuspend sigaltstack pause alarm getpid getppid gettid \
     getpgid getpgrp setpgid getsid setsid set_tid_address set_robust_list get_robust_list futex futex_waitv futex_wake \
     futex_wait futex_requeue rseq arch_prctl prctl sched_yield sched_getaffinity sched_setaffinity sched_getparam \
     sched_setparam sched_getscheduler sched_setscheduler sched_getattr sched_setattr sched_get_priority_max \
     sched_get_priority_min sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getrlimit setrlimit prlimit64 \
     getrusage times pidfd_open pidfd_send_signal process_mrelease restart_syscall getcpu seccomp landlock_create_ruleset \
     landlock_add_rule landlock_restrict_self signalfd signalfd4 eventfd eventfd2",
    // Who one is.
    "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setgroups \
     setfsuid setfsgid capget capset",
    // Sockets and pipes. `socket` stands below.
    "socketpair bind listen accept accept4 connect getsockname getpeername setsockopt getsockopt sendto recvfrom sendmsg \
     recvmsg sendmmsg recvmmsg shutdown pipe pipe2 select pselect6 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
     epoll_wait epoll_wait_old epoll_pwait epoll_pwait2",
    // Time.
    "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep getitimer setitimer timer_create timer_settime \
     timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime adjtimex clock_adjtime",
    // Between processes.
    "shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend \
     mq_timedreceive mq_notify mq_getsetattr io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
    // The rest.
    "uname sysinfo getrandom sysfs ustat",
];

/// Families of sockets (`AF_…`, linux/socket.h): UNIX, INET, INET6 and NETLINK. Others reach past the network namespace, as
/// VSOCK does, or make the kernel load modules.
const SOCKET_FAMILIES: [u32; 4] = [1, 2, 10, 16];
/// Flags of `clone` that make namespaces (`CLONE_NEW…`, linux/sched.h).
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const NOT_PERMITTED: u32 = 1;
/// What `clone3` answers, whose flags no list can look at: programs use `clone` then.
const NOT_IMPLEMENTED: u32 = 38;

/// The list in the form of the OCI runtime specification.
pub(crate) fn list() -> Value {
    let names: Vec<_> = ALLOWED
        .iter()
        .flat_map(|names| names.split_whitespace())
        .collect();
    let mut rules = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{
                "index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
            }],
        }),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_IMPLEMENTED }),
    ];
    // A rule for each: within one, all conditions have to hold.
    rules.extend(SOCKET_FAMILIES.map(|family| {
        json!({
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": family, "op": "SCMP_CMP_EQ" }],
        })
    }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": NOT_PERMITTED,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_the_host_is_not_on_the_list() {
        let list = list();
        let allowed: Vec<_> = list["syscalls"][0]["names"].as_array().unwrap().iter().collect();
        for name in [
            "mount",
            "umount2",
            "pivot_root",
            "setns",
            "unshare",
            "ptrace",
            "bpf",
            "kexec_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "perf_event_open",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "open_by_handle_at",
            "process_vm_writev",
            "io_uring_setup",
            "clone3",
            "fsopen",
            "move_mount",
            "mount_setattr",
            "settimeofday",
            "clock_settime",
            "syslog",
            "acct",
            "chroot",
            "socket",
        ] {
            assert!(!allowed.contains(&&json!(name)), "{name}");
        }
        let mut once = allowed.clone();
        once.sort_by_key(|name| name.as_str());
        once.dedup();
        assert_eq!(once.len(), allowed.len(), "each is named once");
    }

    #[test]
    fn sockets_are_of_families_that_stay_within_the_container() {
        let list = list();
        let rules = list["syscalls"].as_array().unwrap().iter();
        let families: Vec<_> = rules
            .filter(|rule| rule["names"].as_array().unwrap().contains(&json!("socket")))
            .map(|rule| {
                let conditions = rule["args"].as_array().unwrap();
                assert_eq!(
                    (conditions.len(), &conditions[0]["index"]),
                    (1, &json!(0)),
                    "{rule}"
                );
                assert_eq!(conditions[0]["op"], "SCMP_CMP_EQ", "{rule}");
                conditions[0]["value"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(families, [1, 2, 10, 16]);
    }
}
