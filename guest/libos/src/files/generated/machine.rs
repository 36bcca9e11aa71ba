//! `/proc` without processes.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use spore_machine::shared;

use super::{Item, Subject};
use crate::files::descriptors::DESCRIPTORS_MAX;
use crate::files::notify::EVENTS_MAX;
use crate::files::pipe::PIPE_BYTES_MAX;
use crate::kernel::Kernel;
use crate::text::text;
use crate::time::{SECOND_NS, monotonic_ns, realtime_ns};

/// The release of the interface that is served, as `uname` says it.
const VERSION: &str = "Linux version 6.1.0-spore (spore@spore) #1 Spore library OS\n";

/// A file whose contents never change.
macro_rules! fixed {
    ($path:literal, $contents:expr) => {
        Item {
            path: $path,
            permissions: 0o444,
            make: |_, _| $contents.into(),
        }
    };
}

/// A setting that may be written, without effect.
macro_rules! setting {
    ($path:literal, $contents:expr) => {
        Item {
            path: $path,
            permissions: 0o644,
            make: |_, _| $contents.into(),
        }
    };
}

pub(super) use {fixed, setting};

pub(super) const ITEMS: &[Item] = &[
    made("cmdline", |_, _| b"\n".to_vec()),
    made("cpuinfo", processors),
    fixed!("devices", "Character devices:\n  1 mem\n\nBlock devices:\n"),
    fixed!(
        "filesystems",
        "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\nnodev\tcgroup2\n\terofs\nnodev\toverlay\n"
    ),
    made("loadavg", load),
    made("meminfo", memory),
    fixed!("modules", ""),
    fixed!("partitions", "major minor  #blocks  name\n\n"),
    made("stat", statistics),
    fixed!("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    made("uptime", uptime),
    fixed!("version", VERSION),
    fixed!("vmstat", "nr_free_pages 0\n"),
    fixed!("sys/fs/aio-max-nr", "65536\n"),
    setting!("sys/fs/file-max", text!("{DESCRIPTORS_MAX}\n")),
    fixed!("sys/fs/file-nr", text!("64\t0\t{DESCRIPTORS_MAX}\n")),
    setting!("sys/fs/inotify/max_queued_events", text!("{EVENTS_MAX}\n")),
    setting!("sys/fs/inotify/max_user_instances", "128\n"),
    setting!("sys/fs/inotify/max_user_watches", "32768\n"),
    setting!("sys/fs/nr_open", text!("{DESCRIPTORS_MAX}\n")),
    setting!("sys/fs/pipe-max-size", text!("{PIPE_BYTES_MAX}\n")),
    fixed!("sys/kernel/cap_last_cap", "40\n"),
    setting!("sys/kernel/core_pattern", "core\n"),
    setting!("sys/kernel/domainname", "(none)\n"),
    setting!("sys/kernel/hostname", "spore\n"),
    fixed!("sys/kernel/ngroups_max", "65536\n"),
    fixed!("sys/kernel/osrelease", "6.1.0-spore\n"),
    fixed!("sys/kernel/ostype", "Linux\n"),
    setting!("sys/kernel/perf_event_paranoid", "4\n"),
    setting!("sys/kernel/pid_max", "32768\n"),
    made("sys/kernel/random/boot_id", |kernel, _| {
        let id = kernel.boot_id;
        uuid(id)
    }),
    fixed!("sys/kernel/random/entropy_avail", "256\n"),
    made("sys/kernel/random/uuid", |kernel, _| {
        let mut bytes = [0; 16];
        kernel.random.fill(&mut bytes);
        kernel.random.given_bytes += bytes.len() as u64;
        uuid(bytes)
    }),
    setting!("sys/kernel/randomize_va_space", "0\n"),
    setting!("sys/kernel/sched_child_runs_first", "0\n"),
    setting!("sys/kernel/seccomp/actions_avail", "\n"),
    setting!("sys/kernel/shmmax", "18446744073692774399\n"),
    setting!("sys/kernel/threads-max", "4096\n"),
    setting!("sys/kernel/yama/ptrace_scope", "1\n"),
    fixed!("sys/kernel/version", "#1 Spore library OS\n"),
    setting!("sys/net/core/netdev_max_backlog", "1000\n"),
    setting!("sys/net/core/rmem_default", "65536\n"),
    setting!("sys/net/core/rmem_max", "65536\n"),
    setting!("sys/net/core/somaxconn", "4096\n"),
    setting!("sys/net/core/wmem_default", "65536\n"),
    setting!("sys/net/core/wmem_max", "65536\n"),
    setting!("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    setting!("sys/net/ipv4/ip_unprivileged_port_start", "0\n"),
    setting!("sys/net/ipv4/tcp_fastopen", "0\n"),
    setting!("sys/net/ipv4/tcp_keepalive_intvl", "75\n"),
    setting!("sys/net/ipv4/tcp_keepalive_probes", "9\n"),
    setting!("sys/net/ipv4/tcp_keepalive_time", "7200\n"),
    setting!("sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
    setting!("sys/net/ipv4/tcp_rmem", "4096\t65536\t65536\n"),
    setting!("sys/net/ipv4/tcp_wmem", "4096\t65536\t65536\n"),
    setting!("sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    setting!("sys/net/ipv6/conf/default/disable_ipv6", "0\n"),
    setting!("sys/vm/max_map_count", "65530\n"),
    setting!("sys/vm/mmap_min_addr", "65536\n"),
    setting!("sys/vm/nr_hugepages", "0\n"),
    setting!("sys/vm/overcommit_memory", "0\n"),
    setting!("sys/vm/overcommit_ratio", "50\n"),
    setting!("sys/vm/swappiness", "0\n"),
];

/// A file that is made anew each time.
const fn made(path: &'static str, make: fn(&mut Kernel, Subject) -> Vec<u8>) -> Item {
    Item {
        path,
        permissions: 0o444,
        make,
    }
}

fn uuid(mut bytes: [u8; 16]) -> Vec<u8> {
    // Version 4, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        // Cannot fail: strings grow.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text.into_bytes()
}

/// The function's memory and how much of it is free, in bytes.
pub(super) fn memory_bytes(kernel: &Kernel) -> (u64, u64) {
    let total = shared::boot().memory_limit_bytes;
    let free = kernel.frames.borrow().free_bytes().min(total);
    (total, free)
}

fn memory(kernel: &mut Kernel, _: Subject) -> Vec<u8> {
    let (total, free) = memory_bytes(kernel);
    let used = total - free;
    let mut text = String::new();
    let lines = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("CommitLimit", total),
        ("Committed_AS", used),
    ];
    for (name, bytes) in lines {
        // Cannot fail: strings grow.
        let _ = writeln!(text, "{:<16}{:>8} kB", text!("{name}:"), bytes / 1024);
    }
    text.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n");
    text.into_bytes()
}

/// Names of the feature bits of CPUID leaf 1 (edx), by number.
const FEATURES: [&str; 32] = [
    "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca",
    "cmov", "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht",
    "tm", "ia64", "pbe",
];

fn processors(_: &mut Kernel, _: Subject) -> Vec<u8> {
    let features = spore_machine::processor::features();
    let mut flags = String::new();
    for (bit, name) in FEATURES.iter().enumerate() {
        if features >> bit & 1 != 0 && !name.is_empty() {
            flags.push_str(name);
            flags.push(' ');
        }
    }
    let megahertz = shared::clock().multiplier.max(1);
    // Nanoseconds for a tick, times 2^32.
    let kilohertz = (1_000_000_u64 << 32) / megahertz;
    text!(
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 1\nmodel name\t: Spore virtual \
         processor\nstepping\t: 1\ncpu MHz\t\t: {}.{:03}\ncache size\t: 1024 KB\nphysical id\t: 0\nsiblings\t: \
         1\ncore id\t\t: 0\ncpu cores\t: 1\napicid\t\t: 0\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: \
         13\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t:\nclflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 46 \
         bits physical, 48 bits virtual\n\n",
        kilohertz / 1000,
        kilohertz % 1000,
        flags.trim_end(),
    )
    .into_bytes()
}

/// Hundredths of a second, as `/proc` counts.
pub(super) fn ticks(time_ns: u64) -> u64 {
    time_ns / (SECOND_NS / 100)
}

fn statistics(kernel: &mut Kernel, _: Subject) -> Vec<u8> {
    let now_ns = monotonic_ns();
    let busy = ticks(now_ns.saturating_sub(kernel.started_ns));
    let idle = ticks(now_ns).saturating_sub(busy);
    let started_s = realtime_ns().saturating_sub(now_ns) / SECOND_NS;
    let tasks = kernel.tasks.len();
    text!(
        "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 {busy} 0 0 {idle} 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime \
         {started_s}\nprocesses {tasks}\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
    )
    .into_bytes()
}

fn load(kernel: &mut Kernel, _: Subject) -> Vec<u8> {
    let tasks = kernel.tasks.len();
    text!("0.00 0.00 0.00 1/{tasks} {}\n", kernel.current).into_bytes()
}

fn uptime(_: &mut Kernel, _: Subject) -> Vec<u8> {
    let hundredths = ticks(monotonic_ns());
    let (seconds, rest) = (hundredths / 100, hundredths % 100);
    text!("{seconds}.{rest:02} 0.00\n").into_bytes()
}
