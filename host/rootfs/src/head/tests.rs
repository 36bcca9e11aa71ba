//! Heads over small bases, read again as one image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::erofs::Inode;
use crate::image::{Owners, make_image};

/// What is at each path: mode, time, names, and content, target or nothing.
type Seen = BTreeMap<Vec<u8>, (u16, u64, u32, u32, Vec<u8>)>;

fn seen<B: Blocks>(image: &Image<B>) -> Seen {
    let mut all = Seen::new();
    let mut open = vec![(Vec::new(), image.root().unwrap())];
    while let Some((path, inode)) = open.pop() {
        let content = content(image, &inode);
        if inode.is_folder() {
            for entry in image.entries(&inode).unwrap() {
                let path = [path.as_slice(), b"/", &entry.name].concat();
                open.push((path, image.inode(entry.inode).unwrap()));
            }
        }
        all.insert(
            path,
            (
                inode.mode,
                inode.modified_s,
                inode.modified_ns,
                inode.links,
                content,
            ),
        );
    }
    all
}

fn content<B: Blocks>(image: &Image<B>, inode: &Inode) -> Vec<u8> {
    let mut bytes = Vec::new();
    if inode.is_file() {
        io::Read::read_to_end(&mut image.reader(*inode), &mut bytes).unwrap();
    } else if inode.is_link() {
        bytes = image.link_target(inode).unwrap();
    }
    bytes
}

fn base(fill: impl Fn(&Path)) -> (TempDir, File) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fill(&root);
    let path = folder.path().join("base.erofs");
    fs::write(&path, "").unwrap();
    make_image(&root, &path, Owners::Root).unwrap();
    let file = File::open(&path).unwrap();
    (folder, file)
}

fn small(root: &Path) {
    fs::create_dir_all(root.join("usr/lib/deep")).unwrap();
    fs::write(root.join("usr/lib/one"), vec![1; 9000]).unwrap();
    fs::write(root.join("usr/lib/deep/two"), "two").unwrap();
    fs::write(root.join("usr/first"), "named twice").unwrap();
    fs::hard_link(root.join("usr/first"), root.join("usr/second")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
}

fn change<'a>(path: &'a str, kind: ChangeKind<'a>) -> Change<'a> {
    Change {
        path: path.as_bytes(),
        kind,
        mode: 0o644,
        modified_s: 77,
        modified_ns: 5,
    }
}

fn file<'a>(path: &'a str, text: &'a str) -> (Change<'a>, &'a str) {
    (change(path, ChangeKind::File(text.len() as u64)), text)
}

fn made(base: &File, changes: &[(Change<'_>, &str)]) -> Result<File, Reason> {
    let output = tempfile::tempfile()?;
    let mut head = Head::new(base, &output)?;
    head.begin_layer();
    for (change, text) in changes {
        head.add(change, &mut text.as_bytes())?;
    }
    let bytes = head.finish()?;
    assert_eq!(
        bytes,
        base.metadata()?.len() + output.metadata()?.len() - BLOCK_BYTES
    );
    Ok(output)
}

#[test]
fn only_what_changes_is_written() {
    let (_folder, base) = base(small);
    let before = seen(&Image::open(&base).unwrap());
    let head = made(
        &base,
        &[
            file("function/handler.py", "def handle"),
            (
                change("function/link", ChangeKind::SymbolicLink(b"handler.py")),
                "",
            ),
            (
                change("function/again", ChangeKind::HardLink(b"./function/handler.py")),
                "",
            ),
            file("usr/lib/.wh.one", ""),
            file("usr/lib/deep/more", ""),
        ],
    )
    .unwrap();
    assert!(
        head.metadata().unwrap().len() <= 5 * BLOCK_BYTES,
        "{:?}",
        head.metadata()
    );
    let image = Parts::open(&base, &head).unwrap();
    let after = seen(&image);
    let mut expected = before;
    expected.remove(&b"/usr/lib/one"[..]);
    let time = |mode, links, text: &[u8]| (mode, 77, 5, links, text.to_vec());
    expected.insert(b"/function".to_vec(), (0o040_755, 0, 0, 2, Vec::new()));
    expected.insert(
        b"/function/handler.py".to_vec(),
        time(0o100_644, 2, b"def handle"),
    );
    expected.insert(b"/function/again".to_vec(), time(0o100_644, 2, b"def handle"));
    expected.insert(b"/function/link".to_vec(), time(0o120_777, 1, b"handler.py"));
    expected.insert(b"/usr/lib/deep/more".to_vec(), time(0o100_644, 1, b""));
    expected.get_mut(&b""[..]).unwrap().3 += 1;
    assert_eq!(after, expected);
    let found = |path: &str| {
        image
            .find(path.as_bytes())
            .unwrap()
            .map(|inode| content(&image, &inode))
    };
    assert_eq!(found("function/link").unwrap(), b"def handle");
    assert_eq!(
        found("/lib/deep/two").unwrap(),
        b"two",
        "through a link of the base"
    );
    assert_eq!(
        found("../function/../lib/../../function/again").unwrap(),
        b"def handle"
    );
    assert!(found("lib/one").is_none() && found("function/handler.py/x").is_none());
}

#[test]
fn folders_of_many_names_are_sorted_in_blocks() {
    let (_folder, base) = base(|root| {
        fs::create_dir(root.join("many")).unwrap();
        for number in 0..500 {
            let name = format!("many/{number}-with-a-long-name");
            fs::write(root.join(name), number.to_string()).unwrap();
        }
    });
    // Some come before `.`, which is an entry like any other.
    let names: Vec<String> = (0..500).map(|number| format!("many/+{number:0100}")).collect();
    let changes: Vec<_> = names.iter().map(|name| file(name, name)).collect();
    let head = made(&base, &changes).unwrap();
    let image = Parts::open(&base, &head).unwrap();
    let listed: Vec<_> = image
        .entries(&image.find(b"many").unwrap().unwrap())
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(listed.len(), 1000);
    assert!(listed.is_sorted());
    for name in names {
        let inode = image.find(name.as_bytes()).unwrap().unwrap();
        assert_eq!(content(&image, &inode), name.as_bytes());
    }
}

#[test]
fn what_is_not_plain_is_left_to_the_whole_image() {
    let (_folder, base) = base(small);
    for changes in [
        &[file("lib/through-a-link", "")][..],
        &[file("usr/lib/one/below-a-file", "")],
        &[file("usr/.wh.first", "")],
        &[file("usr/second", "one of two names")],
        &[file(".wh.usr", "")],
        &[file("a/../b", "")],
        &[file(".wh...", "")],
        &[(change("x", ChangeKind::HardLink(b"usr/lib/one")), "")],
        &[(change("x", ChangeKind::HardLink(b"nothing")), "")],
        &[(change("usr/lib/deep", ChangeKind::SymbolicLink(b"elsewhere")), "")],
        &[(change("x", ChangeKind::File(10)), "short")],
        &[(change("x", ChangeKind::File(1 << 40)), "long")],
    ] {
        assert!(made(&base, changes).is_err(), "{changes:?}");
    }
}

#[test]
fn a_damaged_base_is_an_error() {
    let (_folder, base) = base(small);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &base, &mut bytes).unwrap();
    let changes = [file("usr/lib/deep/new", "new"), file(".wh.lib", "")];
    let mut seed = 1_u32;
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = 1024 + seed as usize % 1500;
            damaged[at] = (seed >> 24) as u8;
        }
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&damaged, 0).unwrap();
        // Whatever comes of it, it comes to an end.
        if let Ok(head) = made(&file, &changes)
            && let Ok(image) = Parts::open(&file, &head)
        {
            let _ = image.find(b"usr/lib/deep/new");
            let _ = image.root().and_then(|root| image.holds_only(&root));
        }
    }
}
