//! How much processor time an instance has used: what the kernel says of its monitor, whose thread the virtual processor runs
//! in, and of the guest's process where it is one.

use std::fs;
use std::time::Duration;

/// Children of a monitor that are looked at: it has one at most.
const CHILDREN_MAX: usize = 4;
/// How long a tick is in which the kernel counts: user space is told a hundred a second on every x86-64 machine.
const TICK: Duration = Duration::from_millis(10);

/// What a monitor and its guest have used. None if the monitor is gone, or the kernel does not say.
pub(crate) fn time(monitor: u32) -> Option<Duration> {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap_or_default();
    let children = children.split_whitespace().take(CHILDREN_MAX);
    let children: Duration = children.filter_map(|child| of_process(child.parse().ok()?)).sum();
    Some(of_process(monitor)? + children)
}

fn of_process(process: u32) -> Option<Duration> {
    used(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// User and system time of the kernel's line (proc_pid_stat(5)), in which a name may hold anything but comes before the last
/// parenthesis.
fn used(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    TICK.checked_mul(user)?.checked_add(TICK.checked_mul(system)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_behind_a_name_that_may_hold_anything() {
        let stat = "17 (a) b) R 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(used(stat), Some(Duration::from_secs(3)));
        for bad in ["", "17 (a) R 1", "17 (a) R 1 1 1 0 -1 4194560 100 0 0 0 x 50 0"] {
            assert_eq!(used(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_running_process_has_used_some_and_one_that_is_gone_nothing() {
        assert!(time(std::process::id()).is_some());
        // Above the greatest number of a process that Linux gives (PID_MAX_LIMIT).
        assert_eq!(time(1 << 23), None);
    }
}
