//! The programs of the suite, and what the comment at their head says about them.

use std::path::PathBuf;

use spore_test_harness::repository;

/// The areas in the order of the document. Each is a folder below `programs`.
pub(crate) const AREAS: &[&str] = &[
    "memory",
    "tasks",
    "signals",
    "files",
    "directories",
    "pipes",
    "events",
    "sockets",
    "time",
    "process",
    "glibc",
    "rewriting",
];

/// A program of the suite.
pub(crate) struct Program {
    /// One of [`AREAS`].
    pub(crate) area: &'static str,
    /// The name of its file, without the extension.
    pub(crate) name: String,
    /// Where its source is.
    pub(crate) source: PathBuf,
    /// The system calls that it is about.
    pub(crate) calls: String,
    /// The flags, options and structures that it is about.
    pub(crate) flags: String,
    /// What it shows, in one sentence.
    pub(crate) what: String,
    /// What it loads while it runs, so that `ldd` does not name it: libraries by name, folders by path.
    pub(crate) needs: Vec<String>,
}

impl Program {
    /// The name of its test.
    pub(crate) fn test_name(&self) -> String {
        format!("{}/{}", self.area, self.name)
    }

    /// Whether it is linked against the shared C library of this machine, as programs of images are.
    pub(crate) fn is_dynamic(&self) -> bool {
        self.area == "glibc"
    }
}

/// The folder of this crate.
pub(crate) fn folder() -> PathBuf {
    repository().join("tests/linux")
}

/// All programs, by area and name.
pub(crate) fn programs() -> Vec<Program> {
    AREAS.iter().flat_map(|&area| programs_of(area)).collect()
}

fn programs_of(area: &'static str) -> Vec<Program> {
    let folder = folder().join("programs").join(area);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut sources: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the repository is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    sources.into_iter().map(|source| program(area, source)).collect()
}

fn program(area: &'static str, source: PathBuf) -> Program {
    let text = std::fs::read_to_string(&source).expect("the repository is readable");
    let field = |key: &str| {
        let mut head = text.lines().map_while(|line| line.strip_prefix("// "));
        head.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            .map(str::to_owned)
    };
    let needed = |key: &str| {
        field(key).unwrap_or_else(|| panic!("{} must begin with a comment // {key}: ...", source.display()))
    };
    Program {
        area,
        name: source
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("sources have readable names")
            .to_owned(),
        calls: needed("calls"),
        flags: needed("flags"),
        what: needed("what"),
        needs: field("needs").map_or_else(Vec::new, |names| names.split(' ').map(str::to_owned).collect()),
        source,
    }
}

/// The names that occur more than once.
pub(crate) fn named_twice(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
    twice.map(|pair| pair[0].clone()).collect()
}
