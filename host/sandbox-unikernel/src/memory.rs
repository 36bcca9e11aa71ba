//! How much memory an instance takes: what the kernel says of its monitor, and of the guest's process where it is one.

use std::fs;

/// Children of a monitor that are looked at: it has one at most.
const CHILDREN_MAX: usize = 4;

/// What a monitor and its guest take, in bytes, of what they share with others their part (`Pss`). None if the monitor is
/// gone, or the kernel does not say.
pub(crate) fn bytes(monitor: u32) -> Option<u64> {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap_or_default();
    let children = children.split_whitespace().take(CHILDREN_MAX);
    let children: u64 = children.filter_map(|child| of_process(child.parse().ok()?)).sum();
    Some(of_process(monitor)? + children)
}

fn of_process(process: u32) -> Option<u64> {
    proportional(&fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?)
}

/// The line `Pss` of the kernel's summary (proc_pid_smaps(5)).
fn proportional(summary: &str) -> Option<u64> {
    let value = summary.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_process_is_read_from_the_kernels_summary() {
        let summary =
            "00-ff ---p 00000000 00:00 0  [rollup]\nRss:  20 kB\nPss:       12 kB\nPss_Dirty: 4 kB\n";
        assert_eq!(proportional(summary), Some(12 * 1024));
        for bad in ["", "Pss: 12", "Pss: x kB", "Pss: 99999999999999999999 kB"] {
            assert_eq!(proportional(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_running_process_takes_memory_and_one_that_is_gone_none() {
        assert!(bytes(std::process::id()).is_some_and(|bytes| bytes > 4096));
        // Above the greatest number of a process that Linux gives (PID_MAX_LIMIT).
        assert_eq!(bytes(1 << 23), None);
    }
}
