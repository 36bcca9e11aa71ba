//! A root file system folder, put together from files of this machine: programs with the libraries that they load,
//! folders of a language's standard library, and files of the fixture's own.
//!
//! Paths are in the root what they are here, symbolic links on the way included, so that a program finds itself and
//! its libraries by the same names. Files are hard links where the file system allows it and copies otherwise; times
//! are kept, since Python checks its compiled modules against them. Nothing ever writes into such a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::build::{self, FixtureError, Key};

/// Symbolic links on the way to one file before it is taken for a loop, as in Linux.
const LINKS_MAX: usize = 40;
/// The hosts that every root knows.
const HOSTS: &str = "127.0.0.1 localhost\n";
/// How names are found out: from files alone.
const NAME_SERVICES: &str = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n";
/// `www-data` is whom Debian's nginx looks for.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
                     nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";
/// Folders in standard libraries that no program needs to run.
const LEFT_OUT: &[&str] = &[
    "ensurepip",
    "idlelib",
    "jmods",
    "legal",
    "lib2to3",
    "man",
    "test",
    "tests",
    "turtledemo",
];

/// What is at a path of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder,
    /// A file of this machine.
    File(PathBuf),
    Link(PathBuf),
    Text(String),
}

/// A root file system in the making.
#[derive(Debug, Default)]
pub struct RootFs {
    entries: BTreeMap<PathBuf, Entry>,
    /// Programs and libraries whose own libraries are still to be found.
    linked: BTreeSet<PathBuf>,
    /// Those of them that were named: what they are linked against must be there.
    named: BTreeSet<PathBuf>,
}

impl RootFs {
    /// A root with what every root has: `/tmp`, and the few files in `/etc` that the C library reads.
    pub fn new() -> RootFs {
        let root = RootFs::default().folder("/tmp").folder("/root");
        root.text("/etc/hosts", HOSTS)
            .text("/etc/nsswitch.conf", NAME_SERVICES)
            .text("/etc/passwd", USERS)
            .text("/etc/group", GROUPS)
    }

    /// Adds an empty folder.
    pub fn folder(mut self, path: &str) -> RootFs {
        self.entries.insert(relative(Path::new(path)), Entry::Folder);
        self
    }

    /// Adds a file with this text.
    pub fn text(mut self, path: &str, text: &str) -> RootFs {
        self.entries
            .insert(relative(Path::new(path)), Entry::Text(text.to_owned()));
        self
    }

    /// Adds a program, a library or any other file of this machine at its own path, and all libraries that it is
    /// linked against.
    pub fn program(mut self, path: &str) -> Result<RootFs, FixtureError> {
        let file = self.add(Path::new(path))?;
        self.named.insert(file.clone());
        self.linked.insert(file);
        Ok(self)
    }

    /// Adds a file of this machine at another path, with all libraries that it is linked against.
    pub fn file(mut self, path: &str, from: &Path) -> Result<RootFs, FixtureError> {
        let from = from.canonicalize().map_err(FixtureError::file(from))?;
        self.entries
            .insert(relative(Path::new(path)), Entry::File(from.clone()));
        self.named.insert(from.clone());
        self.linked.insert(from);
        Ok(self)
    }

    /// Adds a folder of this machine with all that is in it but tests, and those libraries that its shared objects
    /// are linked against and that are there: a language's library may come without what its windows need. Links in
    /// it that lead nowhere are left out.
    pub fn tree(self, path: &str) -> Result<RootFs, FixtureError> {
        self.tree_at(path, Path::new(path))
    }

    /// Adds a folder of this machine at another path; links to files in it become what they lead to.
    pub fn tree_at(mut self, path: &str, from: &Path) -> Result<RootFs, FixtureError> {
        let mut folders = vec![from.to_path_buf()];
        let mut target = PathBuf::from(path);
        if from == target {
            let real = self.add(from)?; // the links on the way to it
            folders = vec![real.clone()];
            target = real;
        }
        let base = folders[0].clone();
        while let Some(folder) = folders.pop() {
            let inside = folder.strip_prefix(&base).expect("it was found below");
            self.entries.insert(relative(&target.join(inside)), Entry::Folder);
            let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            for entry in entries.map_err(FixtureError::file(&folder))? {
                let path = entry.path();
                let Ok(metadata) = fs::metadata(&path) else {
                    continue;
                };
                let inside = path.strip_prefix(&base).expect("it was found below");
                if metadata.is_dir() && !path.is_symlink() {
                    let is_left_out = LEFT_OUT.iter().any(|&name| entry.file_name() == name);
                    folders.extend((!is_left_out).then_some(path));
                } else if base == target {
                    self.add_with_libraries(&path)?;
                } else if metadata.is_file() {
                    let place = relative(&target.join(inside));
                    // What a link leads to, since the link's target may not be in the root.
                    let real = path.canonicalize().map_err(FixtureError::file(&path))?;
                    self.entries.insert(place, Entry::File(real));
                    self.linked.extend(is_shared_object(&path).then_some(path));
                }
            }
        }
        Ok(self)
    }

    fn add_with_libraries(&mut self, path: &Path) -> Result<(), FixtureError> {
        let file = self.add(path)?;
        if is_shared_object(&file) {
            self.linked.insert(file);
        }
        Ok(())
    }

    /// Adds what is at a path of this machine, with the links on the way to it, and returns where it really is.
    fn add(&mut self, path: &Path) -> Result<PathBuf, FixtureError> {
        let mut real = PathBuf::from("/");
        let mut rest: Vec<PathBuf> = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == Path::new("..") {
                real.pop();
                continue;
            }
            let at = real.join(&part);
            let metadata = fs::symlink_metadata(&at).map_err(FixtureError::file(&at))?;
            if metadata.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    let source = io::Error::other("too many symbolic links");
                    return Err(FixtureError::file(path)(source));
                }
                let target = fs::read_link(&at).map_err(FixtureError::file(&at))?;
                self.entries.insert(relative(&at), Entry::Link(target.clone()));
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                rest.extend(parts(&target));
                continue;
            }
            let entry = if metadata.is_dir() {
                Entry::Folder
            } else {
                Entry::File(at.clone())
            };
            self.entries.entry(relative(&at)).or_insert(entry);
            real = at;
        }
        Ok(real)
    }

    /// Adds the libraries of everything that was added.
    fn add_libraries(&mut self) -> Result<(), FixtureError> {
        let files: Vec<PathBuf> = self.linked.iter().filter(|file| is_elf(file)).cloned().collect();
        let found = libraries(&files)?;
        if let Some((program, library)) = found
            .missing
            .iter()
            .find(|(program, _)| self.named.contains(program))
        {
            return Err(FixtureError::NoLibrary {
                program: program.display().to_string(),
                library: library.clone(),
            });
        }
        for library in &found.paths {
            self.add(library)?;
        }
        Ok(())
    }

    /// The folder with all this, made now or kept from before. Its name begins with `name`.
    pub fn make(mut self, name: &str) -> Result<PathBuf, FixtureError> {
        self.add_libraries()?;
        let mut key = Key::default();
        for (path, entry) in &self.entries {
            let what = match entry {
                Entry::Folder => "folder".to_owned(),
                Entry::Link(target) => format!("link {}", target.display()),
                Entry::Text(text) => format!("text {text}"),
                Entry::File(from) => {
                    let metadata = fs::metadata(from).map_err(FixtureError::file(from))?;
                    format!("{} {} {}", from.display(), metadata.len(), metadata.mtime())
                }
            };
            key = key.text(&path.to_string_lossy()).text(&what);
        }
        build::kept(&format!("root-{name}"), key, |folder| {
            let mut entries = self.entries.iter();
            entries.try_for_each(|(path, entry)| put(&folder.join(path), entry))
        })
    }
}

/// The components of a path, the last one first; `.` and the root are left out.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    });
    parts.collect()
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_path_buf()
}

fn put(place: &Path, entry: &Entry) -> Result<(), FixtureError> {
    let parent = place.parent().expect("it is below the root");
    fs::create_dir_all(parent).map_err(FixtureError::file(parent))?;
    let result = match entry {
        Entry::Folder => fs::create_dir_all(place),
        Entry::Link(target) => symlink(target, place),
        Entry::Text(text) => fs::write(place, text),
        Entry::File(from) => fs::hard_link(from, place).or_else(|_| copy(from, place)),
    };
    result.map_err(FixtureError::file(place))
}

/// Copies a file with its permissions and time.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let modified = fs::metadata(from)?.modified()?;
    fs::File::options().append(true).open(to)?.set_modified(modified)
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}

fn is_shared_object(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.") || name.ends_with(".node")
}

/// What `ldd` says that programs need.
#[derive(Debug, Default)]
struct Libraries {
    paths: BTreeSet<PathBuf>,
    /// Programs, and names of libraries that are not on this machine.
    missing: Vec<(PathBuf, String)>,
}

fn libraries(files: &[PathBuf]) -> Result<Libraries, FixtureError> {
    let Some(first) = files.first() else {
        return Ok(Libraries::default());
    };
    let mut command = Command::new("ldd");
    let output = command.args(files).env_remove("LD_LIBRARY_PATH").output();
    // It fails if one of them is static, and goes on with the others.
    let output = output.map_err(|source| FixtureError::Start {
        command: "ldd".to_owned(),
        source,
    })?;
    Ok(parse_ldd(first, &String::from_utf8_lossy(&output.stdout)))
}

/// Reads what `ldd` prints; it names the program before its libraries only if there are several.
fn parse_ldd(first: &Path, text: &str) -> Libraries {
    let mut found = Libraries::default();
    let mut program = first.to_path_buf();
    for line in text.lines() {
        let is_indented = line.starts_with(char::is_whitespace);
        if let Some(name) = line.strip_suffix(':').filter(|_| !is_indented) {
            program = PathBuf::from(name);
        } else if let Some(library) = line.trim().strip_suffix(" => not found") {
            found.missing.push((program.clone(), library.to_owned()));
        } else {
            let path = line.split_whitespace().find(|word| word.starts_with('/'));
            found.paths.extend(path.map(PathBuf::from));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read_for_one_program_and_for_several() {
        let one = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        let found = parse_ldd(Path::new("/bin/a"), one);
        assert_eq!(
            found.paths,
            BTreeSet::from(["/lib/libc.so.6".into(), "/lib64/ld.so".into()])
        );
        assert_eq!(found.missing, []);
        let several =
            format!("/bin/a:\n{one}/bin/b:\n\tlibX.so.6 => not found\n/bin/c:\n\tnot a dynamic executable\n");
        let found = parse_ldd(Path::new("/bin/a"), &several);
        assert_eq!(found.missing, [("/bin/b".into(), "libX.so.6".to_owned())]);
        assert_eq!(found.paths.len(), 2);
    }

    #[test]
    fn a_program_comes_with_its_libraries_under_their_names_here() {
        let root = RootFs::new().program("/bin/sh").unwrap().make("test-sh").unwrap();
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let status = Command::new("ldd").arg(&shell).output().unwrap();
        for word in String::from_utf8_lossy(&status.stdout).split_whitespace() {
            if let Some(path) = word.strip_prefix('/') {
                assert!(fs::symlink_metadata(root.join(path)).is_ok(), "{word}");
            }
        }
        let inside = root.join(relative(&shell));
        assert_eq!(fs::read(&inside).unwrap(), fs::read(&shell).unwrap());
        let times = [&inside, &shell].map(|path| fs::metadata(path).unwrap().modified().unwrap());
        assert_eq!(times[0], times[1]);
        // Links are as they are here.
        if let Ok(target) = fs::read_link("/bin") {
            assert_eq!(fs::read_link(root.join("bin")).unwrap(), target);
        }
        assert!(root.join("tmp").is_dir() && root.join("etc/hosts").is_file());
    }

    #[test]
    fn trees_keep_links_leave_tests_out_and_may_be_moved() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("lib/tests")).unwrap();
        fs::create_dir_all(base.join("lib/inner/empty")).unwrap();
        fs::write(base.join("lib/tests/x"), "").unwrap();
        fs::write(base.join("lib/inner/file"), "text").unwrap();
        fs::write(base.join("outside"), "beside").unwrap();
        symlink("../outside", base.join("lib/link")).unwrap();
        symlink("nowhere", base.join("lib/broken")).unwrap();
        let name = |path: &str| base.join(path).to_str().unwrap().to_owned();
        let root = RootFs::new().tree(&name("lib")).unwrap();
        let root = root
            .tree_at("/moved", &base.join("lib"))
            .unwrap()
            .make("test-tree")
            .unwrap();
        let there = root.join(relative(&base));
        assert_eq!(fs::read_to_string(there.join("lib/link")).unwrap(), "beside");
        assert!(there.join("lib/link").is_symlink() && there.join("outside").is_file());
        assert!(fs::symlink_metadata(there.join("lib/broken")).is_err());
        assert!(!there.join("lib/tests").exists() && there.join("lib/inner/empty").is_dir());
        assert_eq!(fs::read_to_string(root.join("moved/inner/file")).unwrap(), "text");
        assert_eq!(fs::read_to_string(root.join("moved/link")).unwrap(), "beside");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = RootFs::new().program("/bin/no-such-program").unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }

    #[test]
    fn a_root_is_made_again_when_something_in_it_changes() {
        let make = |text: &str| RootFs::new().text("/a", text).make("test-change").unwrap();
        assert_eq!(make("one"), make("one"));
        assert_ne!(make("one"), make("two"));
    }
}
