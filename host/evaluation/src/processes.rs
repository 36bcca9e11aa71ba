//! Memory and processor time of the processes behind instances, as `/proc` tells it.
//!
//! Which processes those are, no sandbox has to tell: what has the mark of the run in its environment, which the daemon has
//! and what it starts inherits, unless it is emptied; and all descendants of the daemon and of those. So helpers that some
//! sandboxes leave behind with another parent (container shims) are found too.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::machine::{ReadError, read};

/// Processes of which the memory is read, at most: it takes the kernel a while.
const SAMPLED: usize = 64;

/// A figure of `/proc/meminfo` or `smaps_rollup`, in bytes.
pub fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Memory that programs can have without swapping, in bytes.
///
/// # Errors
///
/// If `/proc/meminfo` cannot be read.
pub fn available_bytes() -> Result<u64, ReadError> {
    Ok(bytes_of(&read("/proc/meminfo")?, "MemAvailable").unwrap_or(0))
}

/// Private and proportional memory of a process, in bytes: what only it holds and has written, large pages included; and its
/// part of all that it maps.
///
/// # Errors
///
/// If it has ended, or belongs to another user.
pub fn private_and_proportional(pid: i32) -> Result<(u64, u64), ReadError> {
    let text = read(&format!("/proc/{pid}/smaps_rollup"))?;
    // A process that is about to end maps nothing any more.
    let of = |name| bytes_of(&text, name).unwrap_or(0);
    Ok((of("Private_Dirty") + of("Private_Hugetlb"), of("Pss")))
}

/// Parent and ticks (`USER_HZ`) that a process has computed, those of its children that have ended included, from its line in
/// `/proc` (proc_pid_stat(5)).
fn parent_and_ticks(stat: &str) -> Option<(i32, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok());
    Some((parent, ticks.sum::<Option<u64>>()?))
}

/// Ticks of a process alone, from its line in `/proc`.
pub fn own_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Milliseconds of a tick of the kernel's clock for processes.
pub fn tick_ms() -> f64 {
    1000.0 / rustix::param::clock_ticks_per_second() as f64
}

/// The processes of a daemon at some moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Family {
    /// Each with its ticks.
    members: HashMap<i32, u64>,
}

impl Family {
    /// The descendants of `roots`, themselves included, and of everything that has `mark` in its environment, if one is given.
    /// The process that asks and its own other children are not among them.
    pub(crate) fn now(roots: &[i32], mark: Option<&str>) -> Self {
        let own = std::process::id() as i32;
        let mut all = HashMap::new();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids {
            let stat = read(&format!("/proc/{pid}/stat")).ok();
            if let Some(found) = stat.as_deref().and_then(parent_and_ticks) {
                all.insert(pid, found);
            }
        }
        let is_marked = |pid: &i32| {
            let Some(mark) = mark else { return false };
            let environment = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
            environment.is_ok_and(|bytes| bytes.windows(mark.len()).any(|part| part == mark.as_bytes()))
        };
        let mut wanted: HashSet<i32> = all
            .keys()
            .copied()
            .filter(|pid| *pid != own && (roots.contains(pid) || is_marked(pid)))
            .collect();
        loop {
            let more: Vec<i32> = all
                .iter()
                .filter(|(pid, (parent, _))| wanted.contains(parent) && !wanted.contains(*pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                break;
            }
            wanted.extend(more);
        }
        let members = wanted.iter().map(|pid| (*pid, all[pid].1)).collect();
        Self { members }
    }

    /// Private and proportional memory of all of them, in bytes; of many, a part is read and the rest taken to be like it.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let mut pids: Vec<_> = self.members.keys().copied().collect();
        pids.sort_unstable();
        let every = pids.len().div_ceil(SAMPLED).max(1);
        let figures: Vec<_> = pids
            .iter()
            .step_by(every)
            .filter_map(|pid| private_and_proportional(*pid).ok())
            .collect();
        let scale = pids.len() as f64 / figures.len().max(1) as f64;
        let private: u64 = figures.iter().map(|figure| figure.0).sum();
        let proportional: u64 = figures.iter().map(|figure| figure.1).sum();
        (private as f64 * scale, proportional as f64 * scale)
    }

    /// Those that are not in another family.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let members = self.members.iter();
        Self {
            members: members
                .filter(|(pid, _)| !other.members.contains_key(pid))
                .map(|(pid, ticks)| (*pid, *ticks))
                .collect(),
        }
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Milliseconds that they have computed since `before`. What has ended meanwhile is counted if its parent is one of them.
    pub(crate) fn computed_ms_since(&self, before: &Self) -> f64 {
        let ticks: u64 = self
            .members
            .iter()
            .map(|(pid, ticks)| ticks.saturating_sub(before.members.get(pid).copied().unwrap_or(0)))
            .sum();
        ticks as f64 * tick_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_kernel_are_understood() {
        assert_eq!(
            bytes_of("Pss_Dirty:  1 kB\nPss:   12 kB\n", "Pss"),
            Some(12 << 10)
        );
        assert_eq!(bytes_of("Pss: 12\n", "Pss"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 31 11 5 2 20 0 1 0 5";
        assert_eq!(parent_and_ticks(stat), Some((1, 49)));
        assert_eq!(own_ticks(stat), Some(42));
        assert_eq!(own_ticks("nothing"), None);
    }

    #[test]
    fn a_family_is_found_by_descent_and_by_its_mark() {
        let mut child = std::process::Command::new("sleep");
        let mark = format!("SPORE_EVALUATION_TEST={}", std::process::id());
        let (name, value) = mark.split_once('=').expect("it has one");
        let mut child = child.arg("60").env(name, value).spawn().expect("there is sleep");
        let found = || Family::now(&[], Some(&mark));
        let begun = std::time::Instant::now();
        while found().len() != 1 && begun.elapsed().as_secs() < 20 {
            std::thread::yield_now(); // the environment is there when the program is
        }
        let family = found();
        assert_eq!(family.len(), 1);
        assert!(family.memory().1 > 0.0);
        assert_eq!(family.without(&family).len(), 0);
        assert_eq!(Family::now(&[child.id() as i32], None).len(), 1);
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
    }
}
