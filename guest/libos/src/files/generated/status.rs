//! `stat`, `status`, `statm` and `limits` of a process or a task.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use spore_abi::layout::PAGE_BYTES;

use super::machine::{memory_bytes, ticks};
use super::{Subject, process_of};
use crate::kernel::Kernel;
use crate::process::{LIMITS, Process};
use crate::signals::{SIGNALS, bit};
use crate::text::text;
use crate::time::ticks_to_ns;

/// `SIG_IGN`.
const IGNORED: u64 = 1;

/// The name of a task.
pub(super) fn name_of(kernel: &Kernel, subject: Subject) -> String {
    let task = kernel
        .tasks
        .get(&subject.task)
        .or_else(|| kernel.tasks.get(&subject.process));
    let name = task.map_or([0; 16], |task| task.name);
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..length]).into_owned()
}

/// What the files show, collected.
struct Facts {
    name: String,
    task: u32,
    is_running: bool,
    process: u32,
    parent: u32,
    group: u32,
    session: u32,
    file_mode_mask: u32,
    users: [u32; 4],
    groups: [u32; 4],
    more_groups: Vec<u32>,
    capabilities: [u64; 3],
    no_new_privileges: bool,
    tasks: usize,
    /// Addresses that are mapped, and memory that is in use, in bytes.
    mapped: u64,
    resident: u64,
    run_ns: u64,
    /// Sets of signals: those that wait for the task and for the process, blocked, ignored, and caught ones.
    waiting: [u64; 2],
    blocked: u64,
    ignored: u64,
    caught: u64,
}

/// The signals whose handlers are so.
fn signals_with(process: &Process, is_so: impl Fn(u64) -> bool) -> u64 {
    (1..=SIGNALS)
        .filter(|&signal| is_so(process.action(signal).handler))
        .map(bit)
        .fold(0, |set, bit| set | bit)
}

fn facts(kernel: &mut Kernel, subject: Subject, is_task: bool) -> Option<Facts> {
    let (total, free) = memory_bytes(kernel);
    let name = name_of(kernel, subject);
    let tasks = kernel
        .tasks
        .values()
        .filter(|task| task.process == subject.process)
        .count();
    let task_run_ns = kernel.task_run_ns(subject.task).unwrap_or(0);
    let (blocked, waiting) = kernel
        .tasks
        .get(&subject.task)
        .map_or((0, 0), |task| (task.signals.mask, task.signals.pending.set()));
    let is_running = subject.task == kernel.current;
    let process = process_of(kernel, subject)?;
    let mapped = process.space.mapped_bytes();
    Some(Facts {
        name,
        task: subject.task,
        is_running,
        process: process.id,
        parent: process.parent,
        group: process.group,
        session: process.session,
        file_mode_mask: process.file_mode_mask,
        users: process.identity.users,
        groups: process.identity.groups,
        more_groups: process.identity.more_groups.clone(),
        capabilities: process.identity.capabilities,
        no_new_privileges: process.settings.no_new_privileges,
        tasks,
        mapped,
        resident: (total - free).min(mapped),
        run_ns: if is_task {
            task_run_ns
        } else {
            ticks_to_ns(process.run_ticks)
        },
        waiting: [waiting, process.signals.pending_set.get()],
        blocked,
        ignored: signals_with(process, |handler| handler == IGNORED),
        caught: signals_with(process, |handler| handler > IGNORED),
    })
}

/// `stat` of a process.
pub(super) fn process_statistics(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    statistics(kernel, subject, false)
}

/// `stat` of a task.
pub(super) fn task_statistics(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    statistics(kernel, subject, true)
}

fn statistics(kernel: &mut Kernel, subject: Subject, is_task: bool) -> Vec<u8> {
    let started = ticks(kernel.started_ns);
    let Some(facts) = facts(kernel, subject, is_task) else {
        return Vec::new();
    };
    let Facts {
        name,
        task,
        parent,
        group,
        session,
        tasks,
        mapped,
        ..
    } = &facts;
    let state = if facts.is_running { 'R' } else { 'S' };
    text!(
        "{task} ({name}) {state} {parent} {group} {session} 0 -1 4194304 0 0 0 0 {} 0 0 0 20 0 {tasks} 0 {started} \
         {mapped} {} 18446744073709551615 0 0 0 0 0 {} {} {} {} 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        ticks(facts.run_ns),
        facts.resident / PAGE_BYTES,
        facts.waiting[0] & 0x7fff_ffff,
        facts.blocked & 0x7fff_ffff,
        facts.ignored & 0x7fff_ffff,
        facts.caught & 0x7fff_ffff,
    )
    .into_bytes()
}

/// `statm`.
pub(super) fn memory_statistics(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let Some(facts) = facts(kernel, subject, false) else {
        return Vec::new();
    };
    let (mapped, resident) = (facts.mapped / PAGE_BYTES, facts.resident / PAGE_BYTES);
    text!("{mapped} {resident} 0 0 0 {resident} 0\n").into_bytes()
}

/// `status`.
pub(super) fn status(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let Some(facts) = facts(kernel, subject, false) else {
        return Vec::new();
    };
    let mut text = text!(
        "Name:\t{}\nUmask:\t{:04o}\nState:\t{}\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0\n",
        facts.name,
        facts.file_mode_mask,
        if facts.is_running {
            "R (running)"
        } else {
            "S (sleeping)"
        },
        facts.process,
        facts.task,
        facts.parent,
    );
    // Writing cannot fail: strings grow.
    for (name, [real, effective, saved, files]) in [("Uid", facts.users), ("Gid", facts.groups)] {
        let _ = writeln!(text, "{name}:\t{real}\t{effective}\t{saved}\t{files}");
    }
    text.push_str("FDSize:\t64\nGroups:\t");
    for group in &facts.more_groups {
        let _ = write!(text, "{group} ");
    }
    text.push('\n');
    let (mapped, resident) = (facts.mapped / 1024, facts.resident / 1024);
    let sizes = [
        ("VmPeak", mapped),
        ("VmSize", mapped),
        ("VmLck", 0),
        ("VmPin", 0),
        ("VmHWM", resident),
        ("VmRSS", resident),
        ("RssAnon", resident),
        ("RssFile", 0),
        ("RssShmem", 0),
        ("VmData", resident),
        ("VmStk", 132),
        ("VmExe", 0),
        ("VmLib", 0),
        ("VmPTE", 0),
        ("VmSwap", 0),
    ];
    for (name, kilobytes) in sizes {
        let _ = writeln!(text, "{name}:\t{kilobytes:8} kB");
    }
    let _ = writeln!(text, "Threads:\t{}\nSigQ:\t0/1024", facts.tasks);
    let [effective, permitted, inheritable] = facts.capabilities;
    let sets = [
        ("SigPnd", facts.waiting[0]),
        ("ShdPnd", facts.waiting[1]),
        ("SigBlk", facts.blocked),
        ("SigIgn", facts.ignored),
        ("SigCgt", facts.caught),
        ("CapInh", inheritable),
        ("CapPrm", permitted),
        ("CapEff", effective),
        ("CapBnd", permitted),
        ("CapAmb", 0),
    ];
    for (name, set) in sets {
        let _ = writeln!(text, "{name}:\t{set:016x}");
    }
    let _ = writeln!(text, "NoNewPrivs:\t{}", u8::from(facts.no_new_privileges));
    text.push_str(
        "Seccomp:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\nMems_allowed_list:\t\
         0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
    );
    text.into_bytes()
}

/// Names and units of the limits, by number.
const LIMIT_NAMES: [(&str, &str); LIMITS] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

/// `limits`.
pub(super) fn limits(kernel: &mut Kernel, subject: Subject) -> Vec<u8> {
    let Some(process) = process_of(kernel, subject) else {
        return Vec::new();
    };
    let mut text = text!(
        "{:<26}{:<21}{:<21}{:<10}\n",
        "Limit",
        "Soft Limit",
        "Hard Limit",
        "Units"
    );
    let shown = |value: u64| match value {
        u64::MAX => String::from("unlimited"),
        value => text!("{value}"),
    };
    for ((name, unit), [soft, hard]) in LIMIT_NAMES.iter().zip(process.limits) {
        // Cannot fail: strings grow.
        let _ = writeln!(text, "{name:<26}{:<21}{:<21}{unit:<10}", shown(soft), shown(hard));
    }
    text.into_bytes()
}
