//! What a process and its descendants hold, as `/proc` tells it.

use std::collections::HashSet;

use procfs::process::{FDTarget, Process};

/// One process, told apart from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// Process number.
    pub pid: i32,
    /// Start time, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// Whether the process is still there; a zombie is not, for it holds nothing any more.
    pub fn is_alive(&self) -> bool {
        let stat = Process::new(self.pid).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.starttime == self.start_ticks && stat.state != 'Z')
    }
}

/// All descendants of a process, zombies included: one that nobody reaps is a leak too.
pub fn descendants(pid: u32) -> HashSet<ProcessIdentity> {
    let everyone: Vec<_> = procfs::process::all_processes()
        .expect("/proc is mounted")
        .filter_map(|process| process.ok()?.stat().ok())
        .collect();
    let mut parents = vec![pid as i32];
    let mut found = HashSet::new();
    while let Some(parent) = parents.pop() {
        for child in everyone.iter().filter(|stat| stat.ppid == parent) {
            let identity = ProcessIdentity {
                pid: child.pid,
                start_ticks: child.starttime,
            };
            if found.insert(identity) {
                parents.push(child.pid);
            }
        }
    }
    found
}

/// Whether the process is a monitor that was made ahead of demand and belongs to no instance yet, or the empty guest of one, or
/// the process that monitors are copies of. Daemons keep a few.
pub fn waits_for_instance(identity: &ProcessIdentity) -> bool {
    let line = Process::new(identity.pid).and_then(|process| process.cmdline());
    line.is_ok_and(|line| {
        line.first().is_some_and(|title| {
            ["spore-monitor ready", "spore-monitor to be copied"]
                .iter()
                .any(|own| title.starts_with(own))
        })
    })
}

/// How many descriptors a process has open.
pub fn open_descriptors(pid: u32) -> usize {
    Process::new(pid as i32)
        .and_then(|process| process.fd_count())
        .expect("the process runs and is ours")
}

/// How many virtual machines the process and its descendants hold, but for those that wait for an instance.
pub fn virtual_machines(pid: u32) -> usize {
    let family = descendants(pid)
        .into_iter()
        .filter(|identity| !waits_for_instance(identity))
        .map(|identity| identity.pid)
        .chain([pid as i32]);
    family.map(virtual_machines_of_one).sum()
}

/// How many guests the process and its descendants hold, in whichever form.
pub fn guests(pid: u32) -> usize {
    if !crate::guests_are_processes() {
        return virtual_machines(pid);
    }
    // The children of monitors.
    let mut monitors = descendants(pid);
    monitors.retain(|identity| !waits_for_instance(identity));
    let stat_of = |identity: &ProcessIdentity| Process::new(identity.pid).and_then(|process| process.stat());
    let is_guest = |identity: &&ProcessIdentity| {
        stat_of(identity).is_ok_and(|stat| monitors.iter().any(|monitor| monitor.pid == stat.ppid))
    };
    monitors.iter().filter(is_guest).count()
}

fn virtual_machines_of_one(pid: i32) -> usize {
    let descriptors = Process::new(pid).and_then(|process| process.fd());
    let Ok(descriptors) = descriptors else { return 0 }; // it ended meanwhile
    let is_machine =
        |target: &FDTarget| matches!(target, FDTarget::AnonInode(name) if name.contains("kvm-vm"));
    descriptors
        .flatten()
        .filter(|descriptor| is_machine(&descriptor.target))
        .count()
}

/// Memory of a process that is resident, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = Process::new(pid as i32).and_then(|process| process.status());
    let status = status.expect("the process runs and is ours");
    status.vmrss.expect("a process has memory") << 10
}
