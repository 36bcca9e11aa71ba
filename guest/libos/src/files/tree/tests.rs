//! Changes, compared with what the machine that runs the tests makes of them: over nothing, and over an image.

extern crate std;

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use linux_raw_sys::general::{S_IFDIR, S_IFREG};
use proptest::prelude::*;

use super::change::{self, Renaming};
use super::directory::Directory;
use super::listing::{LOWER_START, list_directory};
use super::node::{Body, Device};
use super::volume::RootModule;
use super::walk::{Found, Last, Target};
use super::{Entry, Volume};
use crate::errno::Errno;
use crate::files::Kind;
use crate::files::erofs::Image;
use crate::memory::frames::Frames;

std::thread_local! {
    static IMAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FOLDERS: Cell<u32> = const { Cell::new(0) };
}

/// What the root module has in this thread's tests.
pub(super) fn read_image(offset: u64, buffer: &mut [u8]) -> bool {
    IMAGE.with_borrow(|image| {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|offset| image.get(offset..offset.checked_add(buffer.len())?));
        part.map(|part| buffer.copy_from_slice(part)).is_some()
    })
}

fn volume(image: Option<Image<RootModule>>, bytes_max: usize) -> Rc<Volume> {
    let frames = Rc::new(RefCell::new(Frames::new(0, 1 << 20)));
    Volume::new(image, &frames, &Rc::default(), bytes_max)
}

fn empty_root(bytes_max: usize) -> Rc<Entry> {
    let volume = volume(None, bytes_max);
    let body = Body::Directory(alloc::boxed::Box::new(Directory::new(None)));
    let node = volume.new_node(Device::Root, S_IFDIR | 0o755, body, 0).unwrap();
    Entry::new(b"", None, node)
}

/// The tree over an image of a folder.
fn image_root(folder: &Path) -> Option<Rc<Entry>> {
    let image = folder.with_extension("erofs");
    let made = Command::new("mkfs.erofs").arg(&image).arg(folder).output().ok()?;
    assert!(made.status.success(), "{made:?}");
    IMAGE.set(fs::read(&image).unwrap());
    fs::remove_file(&image).unwrap();
    let image = Image::open(RootModule).unwrap();
    let number = image.root();
    let volume = volume(Some(image), 1 << 24);
    Some(Entry::new(b"", None, volume.image_node(number).unwrap()))
}

/// An empty folder for one run.
fn folder() -> PathBuf {
    let number = FOLDERS.replace(FOLDERS.get() + 1);
    let name = std::format!(
        "spore-tree-{}-{:?}-{number}",
        std::process::id(),
        std::thread::current().id()
    );
    let folder = std::env::temp_dir().join(name.replace(['(', ')'], "-"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A walk without links and generated files.
fn find(root: &Rc<Entry>, path: &str) -> Result<Found, Errno> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut parent = Rc::clone(root);
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        parent = parent.kept_child(part.as_bytes())?.ok_or(Errno::ENOENT)?;
    }
    if !parent.node.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    let entry = parent.kept_child(name.as_bytes())?;
    Ok(Found {
        parent,
        last: Last::Name(name.as_bytes().to_vec()),
        target: entry.map(Target::Entry),
        has_slash: false,
    })
}

#[derive(Debug, Clone)]
enum Operation {
    Make(String),
    MakeDirectory(String),
    Unlink(String),
    RemoveDirectory(String),
    Rename(String, String),
    Link(String, String),
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(std::vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        3 => paths().prop_map(Operation::Make),
        3 => paths().prop_map(Operation::MakeDirectory),
        1 => paths().prop_map(Operation::Unlink),
        1 => paths().prop_map(Operation::RemoveDirectory),
        3 => (paths(), paths()).prop_map(|(from, to)| Operation::Rename(from, to)),
        1 => (paths(), paths()).prop_map(|(from, to)| Operation::Link(from, to)),
    ];
    prop::collection::vec(operation, 1..40)
}

fn run_here(root: &Rc<Entry>, operation: &Operation) -> Result<(), Errno> {
    match operation {
        Operation::Make(path) => change::make(&find(root, path)?, S_IFREG | 0o644, 0).map(|_| ()),
        Operation::MakeDirectory(path) => change::make(&find(root, path)?, S_IFDIR | 0o755, 0).map(|_| ()),
        Operation::Unlink(path) => change::unlink(&find(root, path)?),
        Operation::RemoveDirectory(path) => change::remove_directory(&find(root, path)?),
        Operation::Rename(from, to) => {
            let from = find(root, from)?;
            let to = find(root, to)?;
            change::rename(&from, &to, Renaming::Replace)
        }
        Operation::Link(from, to) => {
            let entry = find(root, from)?.entry()?;
            change::link(&entry.node, &find(root, to)?)
        }
    }
}

fn run_there(folder: &Path, operation: &Operation) -> io::Result<()> {
    match operation {
        Operation::Make(path) => fs::File::create_new(folder.join(path)).map(|_| ()),
        Operation::MakeDirectory(path) => fs::create_dir(folder.join(path)),
        Operation::Unlink(path) => fs::remove_file(folder.join(path)),
        Operation::RemoveDirectory(path) => fs::remove_dir(folder.join(path)),
        Operation::Rename(from, to) => fs::rename(folder.join(from), folder.join(to)),
        Operation::Link(from, to) => fs::hard_link(folder.join(from), folder.join(to)),
    }
}

/// Paths with kinds and numbers of links, as a tree or a folder has them.
type Contents = BTreeMap<String, (bool, u64)>;

fn contents_here(entry: &Rc<Entry>, prefix: &str, contents: &mut Contents) {
    let mut names = Vec::new();
    let mut position = LOWER_START;
    // One line at a time, so that every position is gone on from.
    loop {
        let mut line = None;
        list_directory(entry, position, &mut |next| {
            if line.is_none() {
                line = Some((next.name.clone(), next.kind, next.number, next.next));
                return true;
            }
            false
        })
        .unwrap();
        let Some((name, kind, number, next)) = line else {
            break;
        };
        names.push((name, kind, number));
        position = next;
    }
    for (name, kind, number) in names {
        let child = entry.kept_child(&name).unwrap().unwrap();
        let path = std::format!("{prefix}{}", String::from_utf8(name).unwrap());
        assert_eq!(
            (kind, number),
            (child.node.kind().directory_type(), child.node.number)
        );
        assert_eq!(child.path(), [b"/", path.as_bytes()].concat());
        let is_directory = child.node.kind() == Kind::Directory;
        let known = contents.insert(path.clone(), (is_directory, u64::from(child.node.links())));
        assert_eq!(known, None, "{path} is listed twice");
        if is_directory {
            contents_here(&child, &(path + "/"), contents);
        }
    }
}

fn contents_there(folder: &Path, prefix: &str, contents: &mut Contents) {
    use std::os::unix::fs::MetadataExt;
    for item in fs::read_dir(folder).unwrap() {
        let item = item.unwrap();
        let path = std::format!("{prefix}{}", item.file_name().to_str().unwrap());
        let metadata = item.metadata().unwrap();
        contents.insert(path.clone(), (metadata.is_dir(), metadata.nlink()));
        if metadata.is_dir() {
            contents_there(&item.path(), &(path + "/"), contents);
        }
    }
}

fn compare(root: &Rc<Entry>, folder: &Path, operations: &[Operation]) {
    for operation in operations {
        let here = run_here(root, operation).err().map(|Errno(number)| number);
        let there = run_there(folder, operation).err();
        let there = there.map(|error| error.raw_os_error().unwrap().cast_unsigned());
        assert_eq!(here, there, "{operation:?} of {operations:?}");
    }
    let (mut here, mut there) = (Contents::new(), Contents::new());
    contents_here(root, "", &mut here);
    contents_there(folder, "", &mut there);
    // How file systems count the names of folders differs.
    for (path, (is_directory, links)) in &mut there {
        if *is_directory {
            *links = here.get(path).map_or(0, |(_, links)| *links);
        }
    }
    assert_eq!(here, there, "{operations:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changes_over_nothing_are_those_of_this_machine(operations in operations()) {
        let folder = folder();
        compare(&empty_root(1 << 24), &folder, &operations);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn changes_over_an_image_are_those_of_this_machine(before in operations(), after in operations()) {
        let folder = folder();
        for operation in &before {
            let _ = run_there(&folder, operation);
        }
        // Where images cannot be made, the test above has to do.
        if let Some(root) = image_root(&folder) {
            compare(&root, &folder, &after);
        }
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn memory_for_nodes_is_bounded_and_given_back() {
    let root = empty_root(100_000);
    for _ in 0..2 {
        let mut made = 0;
        let error = loop {
            match run_here(&root, &Operation::Make(made.to_string())) {
                Ok(()) => made += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, Errno::ENOSPC);
        assert!(made > 100);
        for number in 0..made {
            run_here(&root, &Operation::Unlink(number.to_string())).unwrap();
        }
    }
}

#[test]
fn a_chain_of_removed_folders_is_let_go_of_without_recursion() {
    let root = empty_root(1 << 30);
    let mut at = Rc::clone(&root);
    let mut chain = Vec::new();
    for _ in 0..200_000 {
        at = change::make_in(&at, b"n", S_IFDIR | 0o755, 0).unwrap();
        chain.push(Rc::clone(&at));
    }
    while let Some(entry) = chain.pop() {
        let parent = entry.parent().unwrap();
        change::remove_directory(&Found {
            parent,
            last: Last::Name(b"n".to_vec()),
            target: Some(Target::Entry(entry)),
            has_slash: false,
        })
        .unwrap();
    }
    assert!(at.is_removed());
    drop(at);
}
