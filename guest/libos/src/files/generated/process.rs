//! `/proc/PID` and `/proc/PID/task/TID`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use linux_raw_sys::general::O_CLOEXEC;
use spore_abi::layout::PAGE_BYTES;

use super::machine::{fixed, memory_bytes, setting, ticks};
use super::{Item, Subject, process_of};
use crate::errno::Errno;
use crate::files::tree::start::MOUNTS;
use crate::kernel::Kernel;
use crate::memory::areas::Protection;
use crate::text::text;
use crate::time::monotonic_ns;

macro_rules! made {
    ($path:literal, $make:expr) => {
        Item {
            path: $path,
            permissions: 0o444,
            make: $make,
        }
    };
}

pub(super) const ITEMS: &[Item] = &[
    made!("auxv", |kernel, subject| start_of(kernel, subject, |start| {
        &start.auxiliary
    })),
    fixed!("cgroup", "0::/\n"),
    made!("cmdline", |kernel, subject| start_of(kernel, subject, |start| {
        &start.arguments
    })),
    COMM,
    setting!("coredump_filter", "00000033\n"),
    made!("environ", |kernel, subject| start_of(kernel, subject, |start| {
        &start.environment
    })),
    fixed!(
        "io",
        "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
    ),
    made!("limits", limits),
    fixed!("loginuid", "4294967295"),
    made!("maps", maps),
    made!("mountinfo", mount_info),
    made!("mounts", mounts),
    fixed!("net/dev", NETWORK_DEVICES),
    fixed!(
        "net/if_inet6",
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    ),
    fixed!(
        "net/route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    ),
    fixed!("net/tcp", TCP_HEADER),
    fixed!("net/tcp6", TCP_HEADER),
    fixed!("net/udp", TCP_HEADER),
    fixed!("net/udp6", TCP_HEADER),
    fixed!(
        "net/unix",
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
    ),
    setting!("oom_adj", "0\n"),
    fixed!("oom_score", "0\n"),
    setting!("oom_score_adj", "0\n"),
    made!("smaps", detailed_maps),
    made!("smaps_rollup", maps_sum),
    made!("stat", statistics),
    made!("statm", memory_statistics),
    made!("status", status),
    fixed!("timerslack_ns", "50000\n"),
    fixed!("wchan", "0"),
];

pub(super) const TASK_ITEMS: &[Item] = &[
    COMM,
    made!("maps", maps),
    made!("stat", statistics),
    made!("statm", memory_statistics),
    made!("status", status),
];

const COMM: Item = Item {
    path: "comm",
    permissions: 0o644,
    make: |kernel, subject| {
        let mut name = name_of(kernel, subject).into_bytes();
        name.push(b'\n');
        name
    },
};

const TCP_HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout \
                          inode\n";
const NETWORK_DEVICES: &str = "Inter-|   Receive                                                |  Transmit\n face \
                               |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs \
                               drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          \
                               0         0        0       0    0    0    0     0       0          0\n";

/// What the program was started with, as its stack had it.
#[derive(Default)]
pub(crate) struct Start {
    /// Strings with their zeroes.
    pub(crate) arguments: Vec<u8>,
    /// Strings with their zeroes.
    pub(crate) environment: Vec<u8>,
    /// The auxiliary vector.
    pub(crate) auxiliary: Vec<u8>,
}

fn start_of(kernel: &mut Kernel, subject: Subject, part: fn(&Start) -> &Vec<u8>) -> Vec<u8> {
    process_of(kernel, subject).map_or_else(Vec::new, |process| part(&process.start).clone())
}

fn name_of(kernel: &mut Kernel, subject: Subject) -> String {
    let task = kernel
        .tasks
        .get(&subject.task)
        .or_else(|| kernel.tasks.get(&subject.process));
    let name = task.map_or([0; 16], |task| task.name);
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..length]).into_owned()
}

fn count_tasks(kernel: &Kernel, subject: Subject) -> usize {
    let tasks = kernel.tasks.values();
    tasks.filter(|task| task.process == subject.process).count()
}

/// Addresses that are mapped, and memory that is in use, in bytes.
fn sizes(kernel: &mut Kernel, subject: Subject) -> (u64, u64) {
    let (total, free) = memory_bytes(kernel);
    let mapped = process_of(kernel, subject).map_or(0, |process| process.space.mapped_bytes());
    (mapped, (total - free).min(mapped))
}

fn statistics(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let name = name_of(kernel, subject);
    let parent = process_of(kernel, subject).map_or(0, |process| process.parent);
    let tasks = count_tasks(kernel, subject);
    let (mapped, resident) = sizes(kernel, subject);
    let state = if subject.task == kernel.current { 'R' } else { 'S' };
    let started = ticks(kernel.started_ns);
    let ran = ticks(monotonic_ns().saturating_sub(kernel.started_ns));
    let group = crate::process::FIRST_PROCESS;
    text!(
        "{} ({name}) {state} {parent} {group} {group} 0 -1 4194304 0 0 0 0 {ran} 0 0 0 20 0 {tasks} 0 {started} {mapped} \
         {} 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        subject.task,
        resident / PAGE_BYTES,
    )
    .into_bytes()
}

fn memory_statistics(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let (mapped, resident) = sizes(kernel, subject);
    let (mapped, resident) = (mapped / PAGE_BYTES, resident / PAGE_BYTES);
    text!("{mapped} {resident} 0 0 0 {resident} 0\n").into_bytes()
}

fn status(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let name = name_of(kernel, subject);
    let (parent, mask, process) = process_of(kernel, subject).map_or((0, 0, 0), |process| {
        (process.parent, process.file_mode_mask, process.id)
    });
    let tasks = count_tasks(kernel, subject);
    let (mapped, resident) = sizes(kernel, subject);
    let (mapped, resident) = (mapped / 1024, resident / 1024);
    let state = if subject.task == kernel.current {
        "R (running)"
    } else {
        "S (sleeping)"
    };
    let task = subject.task;
    text!(
        "Name:\t{name}\nUmask:\t{mask:04o}\nState:\t{state}\nTgid:\t{process}\nNgid:\t0\nPid:\t{task}\nPPid:\t{parent}\n\
         TracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 \nVmPeak:\t{mapped:8} kB\nVmSize:\t\
         {mapped:8} kB\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nVmHWM:\t{resident:8} kB\nVmRSS:\t{resident:8} \
         kB\nRssAnon:\t{resident:8} kB\nRssFile:\t       0 kB\nRssShmem:\t       0 kB\nVmData:\t{resident:8} \
         kB\nVmStk:\t     132 kB\nVmExe:\t       0 kB\nVmLib:\t       0 kB\nVmPTE:\t       0 kB\nVmSwap:\t       0 \
         kB\nThreads:\t{tasks}\nSigQ:\t0/1024\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t\
         0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\nCapInh:\t0000000000000000\nCapPrm:\t\
         000001ffffffffff\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n\
         NoNewPrivs:\t0\nSeccomp:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t0\n\
         voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n"
    )
    .into_bytes()
}

fn limits(_: &mut Kernel, _: Subject) -> Vec<u8> {
    use crate::files::descriptors::DESCRIPTORS_MAX;
    let rows = [
        ("Max cpu time", "unlimited", "unlimited", "seconds"),
        ("Max file size", "unlimited", "unlimited", "bytes"),
        ("Max data size", "unlimited", "unlimited", "bytes"),
        ("Max stack size", "8388608", "unlimited", "bytes"),
        ("Max core file size", "0", "unlimited", "bytes"),
        ("Max resident set", "unlimited", "unlimited", "bytes"),
        ("Max processes", "unlimited", "unlimited", "processes"),
        ("Max locked memory", "unlimited", "unlimited", "bytes"),
        ("Max address space", "unlimited", "unlimited", "bytes"),
        ("Max file locks", "unlimited", "unlimited", "locks"),
    ];
    let mut text = text!(
        "{:<26}{:<21}{:<21}{:<10}\n",
        "Limit",
        "Soft Limit",
        "Hard Limit",
        "Units"
    );
    let files = text!("{DESCRIPTORS_MAX}");
    for (name, soft, hard, unit) in rows
        .into_iter()
        .chain([("Max open files", &*files, &*files, "files")])
    {
        // Cannot fail: strings grow.
        let _ = writeln!(text, "{name:<26}{soft:<21}{hard:<21}{unit:<10}");
    }
    text.into_bytes()
}

/// What an area of the address space looks like in `maps`, line by line.
fn each_area(kernel: &mut Kernel, subject: Subject, mut visit: impl FnMut(&str, &[u8], u64, bool)) {
    let Some(process) = process_of(kernel, subject) else {
        return;
    };
    for area in process.space.describe() {
        let bit = |protection, letter| {
            if area.protection.contains(protection) {
                letter
            } else {
                '-'
            }
        };
        let is_file = area.text.first() == Some(&b'/');
        let head = text!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {} {} ",
            area.start,
            area.end,
            bit(Protection::READ, 'r'),
            bit(Protection::WRITE, 'w'),
            bit(Protection::EXECUTE, 'x'),
            if area.is_shared { 's' } else { 'p' },
            area.offset,
            if is_file { "00:15" } else { "00:00" },
            u8::from(is_file),
        );
        let is_writable = area.protection.contains(Protection::WRITE);
        visit(&head, area.text, area.end - area.start, is_writable);
    }
}

fn push_area(text: &mut Vec<u8>, head: &str, name: &[u8]) {
    text.extend_from_slice(head.as_bytes());
    if !name.is_empty() {
        for _ in head.len()..73 {
            text.push(b' ');
        }
        text.extend_from_slice(name);
    }
    text.push(b'\n');
}

fn maps(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let mut text = Vec::new();
    each_area(kernel, subject, |head, name, _, _| {
        push_area(&mut text, head, name)
    });
    text
}

fn detailed_maps(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let mut text = Vec::new();
    each_area(kernel, subject, |head, name, bytes, _| {
        push_area(&mut text, head, name);
        text.extend_from_slice(details(bytes, 0).as_bytes());
        text.extend_from_slice(b"VmFlags: rd\n");
    });
    text
}

fn maps_sum(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let (_, resident) = sizes(kernel, subject);
    let text = details(0, resident);
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    let rest = rest.split_once("MMUPageSize").map_or("", |(_, rest)| rest);
    let rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    text!("00010000-7ffffffff000 ---p 00000000 00:00 0                              [rollup]\n{rest}")
        .into_bytes()
}

fn details(bytes: u64, resident: u64) -> String {
    let mut text = text!(
        "Size:           {:8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n",
        bytes / 1024
    );
    let names = [
        ("Rss", resident),
        ("Pss", resident),
        ("Shared_Clean", 0),
        ("Shared_Dirty", 0),
        ("Private_Clean", 0),
        ("Private_Dirty", resident),
        ("Referenced", resident),
        ("Anonymous", resident),
        ("AnonHugePages", 0),
        ("Swap", 0),
        ("Locked", 0),
    ];
    for (name, bytes) in names {
        // Cannot fail: strings grow.
        let _ = writeln!(text, "{:<16}{:8} kB", text!("{name}:"), bytes / 1024);
    }
    text
}

fn mounts(_: &mut Kernel, _: Subject) -> Vec<u8> {
    let mut text = String::new();
    for mount in MOUNTS {
        // Cannot fail: strings grow.
        let _ = writeln!(
            text,
            "{} {} {} {} 0 0",
            mount.source, mount.place, mount.kind, mount.options
        );
    }
    text.into_bytes()
}

fn mount_info(_: &mut Kernel, _: Subject) -> Vec<u8> {
    let mut text = String::new();
    for (index, mount) in MOUNTS.iter().enumerate() {
        let parent = if index == 0 { 1 } else { 20 };
        // Cannot fail: strings grow.
        let _ = writeln!(
            text,
            "{} {parent} 0:{} / {} {} - {} {} rw",
            20 + index,
            mount.device as u32,
            mount.place,
            mount.options,
            mount.kind,
            mount.source,
        );
    }
    text.into_bytes()
}

/// `/proc/PID/fdinfo/N`.
pub(super) fn descriptor_info(kernel: &mut Kernel, subject: Subject) -> Result<Vec<u8>, Errno> {
    let process = process_of(kernel, subject).ok_or(Errno::ENOENT)?;
    let open = process.files.get(subject.descriptor).map_err(|_| Errno::ENOENT)?;
    let closes = process.files.close_on_exec(subject.descriptor).unwrap_or(false);
    let flags = open.flags.get() | if closes { O_CLOEXEC } else { 0 };
    let inode = open.metadata().inode;
    let text = text!(
        "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t20\nino:\t{inode}\n",
        open.position.get()
    );
    Ok(text.into_bytes())
}
