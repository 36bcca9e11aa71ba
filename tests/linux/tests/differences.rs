//! The list of programs that are known to differ, which is wrong as soon as one of them does not.

use std::collections::BTreeMap;

use crate::catalogue;

/// The tests of `known-differences.txt`, each with its reason.
pub(crate) struct Differences(BTreeMap<String, String>);

impl Differences {
    /// Reads the list: `NAME: REASON` in each line that is neither empty nor a comment.
    pub(crate) fn read() -> Differences {
        let path = catalogue::folder().join("known-differences.txt");
        let text = std::fs::read_to_string(&path).expect("the repository is readable");
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let (name, reason) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("known-differences.txt: a line is NAME: REASON, not {line:?}"));
            (name.to_owned(), reason.to_owned())
        };
        Differences(lines.map(entry).collect())
    }

    /// Why a test is known to differ, if it is.
    pub(crate) fn reason(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names of the list that no test has.
    pub(crate) fn unknown_among(&self, names: &[String]) -> Vec<String> {
        let unknown = self.0.keys().filter(|name| !names.contains(name));
        unknown.cloned().collect()
    }
}
