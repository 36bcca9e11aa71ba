//! Whether the kernel merges equal pages of different processes (Documentation/admin-guide/mm/ksm.rst).

use std::fs;

/// Its switch: 0 and 2 stand for off.
const SWITCH: &str = "/sys/kernel/mm/ksm/run";

/// What the kernel does with pages that it may merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    /// It cannot merge any.
    Absent,
    /// It merges none until the superuser turns that on.
    Off,
    /// It merges them.
    On,
}

/// What this kernel does now.
#[must_use]
pub fn merging() -> Merging {
    of_switch(fs::read_to_string(SWITCH).ok().as_deref())
}

fn of_switch(text: Option<&str>) -> Merging {
    match text.map(str::trim) {
        None => Merging::Absent,
        Some("1") => Merging::On,
        Some(_) => Merging::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_understood() {
        assert_eq!(of_switch(None), Merging::Absent);
        assert_eq!(of_switch(Some("0\n")), Merging::Off);
        assert_eq!(of_switch(Some("1\n")), Merging::On);
        assert_eq!(of_switch(Some("2\n")), Merging::Off);
    }
}
