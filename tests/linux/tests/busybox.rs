//! Command lines of busybox, each run over a small root file system that is made anew for it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::catalogue;
use crate::run::{self, Ending, Mode};

/// Where Debian's busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// The names under which commands of the list find others, through `find -exec`, `xargs`, `env` or a shell.
const APPLETS: &[&str] = &[
    "bzip2", "cat", "chmod", "cmp", "cp", "dd", "dos2unix", "echo", "env", "gunzip", "gzip", "ln", "ls",
    "mkdir", "mv", "od", "patch", "readlink", "rm", "sed", "stat", "tar", "touch", "tr", "truncate",
    "unlink", "wc",
];

/// The folders of the fixture, each after the one it is in.
const FOLDERS: &[&str] = &["bin", "tmp", "data", "data/tree", "data/tree/inner", "data/lone"];

/// When all files of the fixture were changed last: 2001-09-09 01:46:40 UTC.
const CHANGED: Duration = Duration::from_secs(1_000_000_000);

/// A line of `busybox.txt`.
pub(crate) struct Command {
    name: String,
    /// The command line, without "busybox".
    pub(crate) line: String,
}

impl Command {
    /// The name of its test.
    pub(crate) fn test_name(&self) -> String {
        format!("busybox/{}", self.name)
    }
}

/// The lines of `busybox.txt`: `NAME: COMMAND LINE`.
pub(crate) fn commands() -> Vec<Command> {
    let path = catalogue::folder().join("busybox.txt");
    let text = std::fs::read_to_string(&path).expect("the repository is readable");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let command = |line: &str| {
        let (name, line) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("busybox.txt: a line is NAME: COMMAND LINE, not {line:?}"));
        Command {
            name: name.to_owned(),
            line: line.to_owned(),
        }
    };
    lines.map(command).collect()
}

/// A copy of the program to be linked into each fixture. It is made before any test runs: while a file is written, a
/// process that another test starts may hold it open, and then it cannot be executed.
pub(crate) struct Program {
    folder: TempDir,
    copied: std::io::Result<u64>,
}

impl Program {
    /// Copies the program of this machine.
    pub(crate) fn copy() -> Program {
        let folder = TempDir::with_prefix("spore-linux-busybox-").expect("the temporary folder is writable");
        let copied = std::fs::copy(BUSYBOX, folder.path().join("busybox"));
        Program { folder, copied }
    }
}

/// The endings of a command that must agree: natively and as a unikernel, or several native ones.
pub(crate) fn run(command: &Command, program: &Program, mode: Mode) -> Result<Vec<Ending>, String> {
    if let Err(error) = &program.copied {
        return Err(format!("{BUSYBOX}: {error}; install busybox-static"));
    }
    let arguments = split(&command.line)?;
    let fixture = || fixture(program);
    let native = || {
        let root = fixture();
        run::native_in(root.path(), BUSYBOX, &arguments)
    };
    if let Mode::NativeOnly { runs } = mode {
        return (0..runs).map(|_| native()).collect();
    }
    let root = fixture();
    Ok(vec![
        native()?,
        run::unikernel_in(root.path(), BUSYBOX, &arguments)?,
    ])
}

/// The words of a command line: separated by spaces, kept together by single or double quotes, nothing else.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(open) => Err(format!("{open} is not closed in {line}")),
    }
}

/// A root file system with busybox under all its names and a few files below `/data`, the same on every machine.
fn fixture(program: &Program) -> TempDir {
    let root = TempDir::with_prefix("spore-linux-busybox-").expect("the temporary folder is writable");
    fill(root.path(), program).expect("the temporary folder is writable");
    root
}

fn fill(root: &Path, program: &Program) -> std::io::Result<()> {
    for folder in FOLDERS {
        std::fs::create_dir(root.join(folder))?;
        std::fs::set_permissions(root.join(folder), std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::hard_link(program.folder.path().join("busybox"), root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for (name, content) in files() {
        let path = root.join("data").join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    }
    symlink("words", root.join("data/link"))?;
    std::fs::set_permissions(root.join("data/tree/run"), std::fs::Permissions::from_mode(0o755))?;
    let mut folders = vec![PathBuf::from("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(folder.join(entry.file_name()));
            } else if entry.file_type()?.is_file() {
                let file = std::fs::File::options().write(true).open(entry.path())?;
                file.set_modified(SystemTime::UNIX_EPOCH + CHANGED)?;
            }
        }
    }
    Ok(())
}

/// The files below `/data`.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let numbers: String = (0..200_u32)
        .map(|number| format!("{}\n", number * 7919 % 1000))
        .collect();
    let binary = (0..1000_u32).map(|index| (index * index % 251) as u8).collect();
    let words = "pear\napple\nfig\nApple\nbanana\nfig\n\ncherry tart\n";
    let changed = "pear\napple\nplum\nApple\nbanana\nfig\n\ncherry tart\n";
    let table = "name:colour:weight\npear:green:170\nfig:purple:40\nbanana:yellow:120\n";
    let text =
        "It was a bright cold day in April,\nand the clocks were striking thirteen.\n\tTabs and  spaces.\n";
    let patch = "--- patchable\n+++ patchable\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n";
    // The sum of an empty file, and a wrong one.
    let sums = "d41d8cd98f00b204e9800998ecf8427e  /data/tree/inner/.hidden\n\
                d41d8cd98f00b204e9800998ecf8427e  /data/words\n";
    vec![
        ("archive.tar", archive()),
        ("expressions", "scale=20\n4*a(1)\n2^100\n7/3\nquit\n".into()),
        ("lone/file", "alone\n".into()),
        ("patchable", "one\ntwo\nthree\n".into()),
        ("patch", patch.into()),
        ("sums", sums.into()),
        ("words", words.into()),
        ("changed", changed.into()),
        ("table", table.into()),
        ("text", text.into()),
        ("numbers", numbers.into()),
        ("binary", binary),
        ("dos", "one\r\ntwo\r\n".into()),
        ("encoded", "begin 644 decoded\n#0V%T\n`\nend\n".into()),
        ("tree/one", "first\n".into()),
        ("tree/run", "#!/bin/sh\necho run\n".into()),
        ("tree/inner/two", "second file\n".into()),
        ("tree/inner/.hidden", String::new().into()),
    ]
}

/// An archive of two files, with fixed owners and times.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("inside/first", "first of two\n"),
        ("inside/second", "second of two\n"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(CHANGED.as_secs());
        let added = archive.append_data(&mut header, name, content.as_bytes());
        added.expect("a vector takes any archive");
    }
    archive.into_inner().expect("a vector takes any archive")
}
