//! `/proc/PID` and `/proc/PID/task/TID`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use linux_raw_sys::general::O_CLOEXEC;

use super::machine::{fixed, memory_bytes, setting};
use super::{Item, Subject, process_of, status};
use crate::errno::Errno;
use crate::files::tree::start::MOUNTS;
use crate::kernel::Kernel;
use crate::memory::areas::Protection;
use crate::text::text;

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
    made!("limits", status::limits),
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
    made!("stat", status::process_statistics),
    made!("statm", status::memory_statistics),
    made!("status", status::status),
    fixed!("timerslack_ns", "50000\n"),
    fixed!("wchan", "0"),
];

pub(super) const TASK_ITEMS: &[Item] = &[
    COMM,
    made!("maps", maps),
    made!("stat", status::task_statistics),
    made!("statm", status::memory_statistics),
    made!("status", status::status),
];

const COMM: Item = Item {
    path: "comm",
    permissions: 0o644,
    make: |kernel, subject| {
        let mut name = status::name_of(kernel, subject).into_bytes();
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

impl Start {
    /// The value of a key of the auxiliary vector.
    pub(crate) fn auxiliary_value(&self, key: u64) -> Option<u64> {
        let (pairs, _) = self.auxiliary.as_chunks::<16>();
        pairs.iter().find_map(|pair| {
            let (words, _) = pair.as_chunks::<8>();
            (u64::from_le_bytes(words[0]) == key).then(|| u64::from_le_bytes(words[1]))
        })
    }
}

fn start_of(kernel: &mut Kernel, subject: Subject, part: fn(&Start) -> &Vec<u8>) -> Vec<u8> {
    process_of(kernel, subject).map_or_else(Vec::new, |process| part(&process.start).clone())
}

/// Memory that a process has, as far as that is known, in bytes.
fn resident_bytes(kernel: &mut Kernel, subject: Subject) -> u64 {
    let (total, free) = memory_bytes(kernel);
    let mapped = process_of(kernel, subject).map_or(0, |process| process.space.mapped_bytes());
    (total - free).min(mapped)
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
    let resident = resident_bytes(kernel, subject);
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
