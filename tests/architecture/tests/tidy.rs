//! Fails on sources that are too long, unfinished, undocumented or tied to one machine.

use std::path::{Path, PathBuf};

/// Longest source file, in lines: past this a file holds more than one thing.
const FILE_LINES_MAX: usize = 1000;

/// What each kind of file is known by.
const SOURCE_EXTENSIONS: &[&str] = &["c", "h", "ld", "md", "rs", "S", "sh", "toml", "yaml", "yml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository is still there")
}

/// All source files: what git would commit, but also found where there is no git.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the repository is readable") {
            let path = entry.expect("the repository is readable").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let is_generated = name.starts_with("target") || name == "build" || name == "results";
            let is_hidden = name.starts_with('.') && name != ".ci";
            if path.is_symlink() || is_hidden {
                continue;
            }
            if path.is_dir() {
                folders.extend((!is_generated).then_some(path));
                continue;
            }
            let is_source = path
                .extension()
                .and_then(|extension| extension.to_str())
                .map_or_else(
                    || {
                        path.parent()
                            .is_some_and(|folder| folder.ends_with("scripts") || folder.ends_with("lane"))
                    },
                    |extension| SOURCE_EXTENSIONS.contains(&extension),
                );
            if is_source && let Ok(text) = std::fs::read_to_string(&path) {
                let relative = path
                    .strip_prefix(root())
                    .expect("inside the root")
                    .display()
                    .to_string();
                found.push((relative, text));
            }
        }
    }
    assert!(found.len() > 20, "the walk found the sources");
    found
}

/// Fails with one line for each file that `wrong` has something to say about.
fn check(rule: &str, wrong: impl Fn(&str, &str) -> Option<String>) {
    let found: Vec<String> = sources()
        .iter()
        .filter_map(|(path, text)| wrong(path, text).map(|what| format!("  {path}: {what}")))
        .collect();
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// The first line that holds one of the words, with its number.
fn first_line_with(text: &str, words: &[&str]) -> Option<String> {
    let mut lines = text.lines().enumerate();
    let found = lines.find(|(_, line)| words.iter().any(|word| line.contains(word)));
    found.map(|(index, line)| format!("line {}: {}", index + 1, line.trim()))
}

#[test]
fn no_file_is_too_long() {
    check(
        "files are split by meaning before they reach this length",
        |_, text| {
            let lines = text.lines().count();
            (lines > FILE_LINES_MAX).then(|| format!("{lines} lines, at most {FILE_LINES_MAX}"))
        },
    );
}

#[test]
fn nothing_is_left_for_later_in_the_sources() {
    // Put together here, so that this file does not hold them.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX:"),
        concat!("todo", "!("),
    ];
    let is_source = |path: &str| path.ends_with(".rs") || path.ends_with(".c") || path.ends_with(".h");
    check("what is left to do is an issue, not a comment", |path, text| {
        if is_source(path) {
            first_line_with(text, &marks)
        } else {
            None
        }
    });
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/tmp/tar", "get"),
    ];
    check(
        "paths are relative, given by the user, or found at run time",
        |_, text| first_line_with(text, &places),
    );
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    check("a Rust file starts with //! and its purpose", |path, text| {
        let mut lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("#!["));
        let starts_well = lines.next().is_some_and(|line| line.starts_with("//!"));
        (path.ends_with(".rs") && !starts_well).then(|| "starts without //!".to_owned())
    });
}
