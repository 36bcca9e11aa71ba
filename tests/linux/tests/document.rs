//! Makes `docs/system-calls.md` from the comments of the programs, so that it says what is tested and nothing else.

use std::fmt::Write;

use spore_test_harness::repository;

use crate::busybox::Command;
use crate::catalogue::{AREAS, Program};
use crate::differences::Differences;

const HEAD: &str = "\
# System calls

What programs can rely on, one row for each program of `tests/linux/programs`: it runs natively and as a unikernel,
and prints the same. *Works* is \"no\", with the reason, for what `tests/linux/known-differences.txt` lists.

This file is generated: `SPORE_UPDATE_DOCS=1 cargo test -p spore-test-linux -- suite/document` rewrites it.
";

/// The document.
pub(crate) fn of<'a>(
    programs: impl Iterator<Item = &'a Program> + Clone,
    commands: &[Command],
    differences: &Differences,
) -> String {
    let mut text = HEAD.to_owned();
    for area in AREAS {
        let programs = programs.clone().filter(|program| program.area == *area);
        let title = if *area == "glibc" {
            "programs with the GNU C library"
        } else {
            area
        };
        let title = capitalised(title);
        write!(
            text,
            "\n## {title}\n\n| Program | Calls | Flags | What | Works |\n|---|---|---|---|---|\n"
        )
        .expect("a string takes any text");
        for program in programs {
            let works = works(differences, &program.test_name());
            let (name, what) = (&program.name, cell(&program.what));
            let (calls, flags) = (words(&program.calls), words(&program.flags));
            writeln!(text, "| {name} | {calls} | {flags} | {what} | {works} |")
                .expect("a string takes any text");
        }
    }
    text.push_str("\n## Commands of busybox\n\n| Command | Works |\n|---|---|\n");
    for command in commands {
        let works = works(differences, &command.test_name());
        writeln!(text, "| `{}` | {works} |", cell(&command.line)).expect("a string takes any text");
    }
    text
}

/// Compares the document with the file, or writes the file if `SPORE_UPDATE_DOCS` is 1.
pub(crate) fn check(document: &str) -> Result<(), String> {
    let path = repository().join("docs/system-calls.md");
    if std::env::var_os("SPORE_UPDATE_DOCS").is_some_and(|value| value == "1") {
        return std::fs::write(&path, document).map_err(|error| format!("{}: {error}", path.display()));
    }
    if std::fs::read_to_string(&path).is_ok_and(|text| text == document) {
        return Ok(());
    }
    Err("docs/system-calls.md is out of date: run with SPORE_UPDATE_DOCS=1".to_owned())
}

fn works(differences: &Differences, name: &str) -> String {
    differences
        .reason(name)
        .map_or_else(|| "yes".to_owned(), |reason| format!("no: {}", cell(reason)))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Text that does not end the cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Names as code; "none" is left out.
fn words(names: &str) -> String {
    if names == "none" {
        return String::new();
    }
    let names: Vec<String> = names.split(' ').map(|name| format!("`{name}`")).collect();
    names.join(" ")
}
