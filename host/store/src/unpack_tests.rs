//! Tests of `unpack`, on a real file system.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;
use tar::EntryType::{Directory, Link, Regular, Symlink};

use super::*;
use crate::archive::tests::{archive, header};

type Entries<'a> = &'a [(&'a str, EntryType, &'a str)];

struct Unpacked {
    folder: tempfile::TempDir,
    unpacker: Unpacker,
}

fn unpack_archives(layers: Vec<Cursor<Vec<u8>>>) -> Result<Unpacked, LayerError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut unpacker = Unpacker::new(folder.path()).expect("opens");
    for (number, layer) in layers.into_iter().enumerate() {
        unpacker.add(number, layer)?;
    }
    unpacker.finish();
    Ok(Unpacked { folder, unpacker })
}

fn unpack(layers: &[Entries<'_>]) -> Result<Unpacked, LayerError> {
    unpack_archives(layers.iter().map(|layer| archive(layer)).collect())
}

impl Unpacked {
    /// Contents of files, targets of links, by path; folders end in a slash.
    fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("reads") {
                let path = entry.expect("reads").path();
                let name = path.strip_prefix(self.folder.path()).expect("below");
                let name = name.to_str().expect("text").to_owned();
                let kind = path.symlink_metadata().expect("is there").file_type();
                if kind.is_dir() {
                    tree.insert(format!("{name}/"), String::new());
                    open.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).expect("reads");
                    tree.insert(name, format!("-> {}", target.display()));
                } else {
                    tree.insert(name, fs::read_to_string(&path).expect("reads"));
                }
            }
        }
        tree
    }

    fn files(&self) -> Vec<String> {
        let tree = self.tree();
        let files = tree.into_iter().filter(|(path, _)| !path.ends_with('/'));
        files.map(|(path, content)| format!("{path}={content}")).collect()
    }

    fn read(&self, path: &str) -> Result<String, LayerError> {
        let mut text = String::new();
        let mut file = self.unpacker.open_file(path)?;
        file.read_to_string(&mut text).expect("reads");
        Ok(text)
    }
}

#[test]
fn upper_layers_win_and_whiteouts_hide() {
    let bottom: Entries<'_> = &[
        ("./bin/a", Regular, "old"),
        ("bin/b", Regular, "b"),
        ("bin/deep/e", Regular, "e"),
        ("/etc/c", Regular, "c"),
    ];
    let files = |upper: Entries<'_>| unpack(&[bottom, upper]).expect("unpacks").files();
    assert_eq!(files(&[("/bin/a", Regular, "new")])[0], "bin/a=new");
    assert_eq!(
        files(&[
            ("bin/.wh.a", Regular, ""),
            ("bin/.wh.deep", Regular, ""),
            (".wh.nothing", Regular, "")
        ]),
        ["bin/b=b", "etc/c=c"]
    );
    let kept = ["bin/d=d", "bin/deep/f=f", "etc/c=c"];
    let additions: [(&str, EntryType, &str); 3] = [
        ("bin/d", Regular, "d"),
        ("bin/deep/f", Regular, "f"),
        ("bin/.wh..wh..opq", Regular, ""),
    ];
    assert_eq!(
        files(&additions),
        kept,
        "what a layer brings, its whiteouts spare"
    );
    let mut turned = additions;
    turned.rotate_right(1);
    assert_eq!(files(&turned), kept, "whichever comes first");
    assert_eq!(
        files(&[("bin", Regular, "file"), ("etc/c/x", Symlink, "")][..1]),
        ["bin=file", "etc/c=c"],
        "a file takes the place of a folder"
    );
    assert_eq!(
        files(&[("etc/c", Directory, ""), ("etc/c/d", Regular, "d")])[3],
        "etc/c/d=d"
    );
}

#[test]
fn links_lead_inside() {
    let image = unpack(&[
        &[
            ("usr/lib/x", Regular, "x"),
            ("lib", Symlink, "usr/lib"),
            ("absolute", Symlink, "/usr/lib"),
            ("escape", Symlink, "../../../../../../usr/lib"),
            ("hard", Link, "usr/lib/x"),
            ("loop", Symlink, "loop"),
        ],
        &[
            ("lib/one", Regular, "1"),
            ("absolute/two", Regular, "2"),
            ("escape/three", Regular, "3"),
            ("escape/hard", Link, "absolute/x"),
        ],
    ]);
    let image = image.expect("unpacks");
    for (path, content) in [("one", "1"), ("two", "2"), ("three", "3"), ("hard", "x")] {
        assert_eq!(image.read(&format!("/usr/lib/{path}")).expect(path), content);
        assert_eq!(image.read(&format!("/escape/{path}")).expect(path), content);
    }
    let links = image
        .folder
        .path()
        .join("hard")
        .metadata()
        .expect("is there")
        .nlink();
    assert_eq!(links, 3);
    assert!(matches!(
        image.read("/loop"),
        Err(LayerError::TooManyLinks { .. })
    ));
    assert!(matches!(image.read("/missing"), Err(LayerError::NotFound { .. })));
    assert!(matches!(image.read("/usr"), Err(LayerError::NotFile { .. })));
}

#[test]
fn nothing_outside_is_touched() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").expect("writes");
    let outside_path = outside.path().to_str().expect("text");
    let link = format!("{outside_path}/");
    let target = format!("{outside_path}/victim");
    for attack in [
        &[("d", Symlink, &*link), ("d/victim", Regular, "overwritten")][..],
        &[("v", Symlink, &*target), ("v", Regular, "overwritten")],
        &[("d", Symlink, &*link), ("d/.wh.victim", Regular, "")],
        &[("d", Symlink, &*link), ("d/.wh..wh..opq", Regular, "")],
        &[("d", Symlink, &*link), (".wh.d", Regular, "")],
        &[("d", Symlink, &*link), ("d", Directory, "")],
        &[("h", Link, &*target), ("h", Regular, "overwritten")],
        &[("h", Link, "../victim")],
        &[("../victim", Regular, "overwritten")],
        &[("a/../../victim", Regular, "overwritten")],
        &[(&*target, Regular, "overwritten")],
        &[("a/.wh...", Regular, ""), ("a/.wh..", Regular, "")],
        &[("p", Symlink, "/proc/self/root"), ("p/x", Regular, "x")],
    ] {
        // Refused or led inside, both are right.
        let _ = unpack(&[attack]);
        assert_eq!(
            fs::read_to_string(&victim).expect("is there"),
            "untouched",
            "{attack:?}"
        );
        assert_eq!(
            fs::read_dir(outside.path()).expect("reads").count(),
            1,
            "{attack:?}"
        );
    }
    let escaping = unpack(&[&[("../etc/passwd", Regular, "x")]]);
    assert!(matches!(escaping, Err(LayerError::Escapes { layer: 0, .. })));
    let hard = unpack(&[&[("h", Link, "/etc/passwd")]]);
    assert!(
        matches!(hard, Err(LayerError::Unpack { .. })),
        "it is not in the image"
    );
}

#[test]
fn modes_and_times_are_kept_but_for_what_would_get_in_the_way() {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, mode) in [
        ("set", Regular, 0o6755),
        ("none", Regular, 0),
        ("tmp", Directory, 0o1777),
        ("closed", Directory, 0),
        ("closed/inside", Regular, 0o444),
        ("null", EntryType::Char, 0o666),
        ("pipe", EntryType::Fifo, 0o666),
    ] {
        let mut header = header(path, kind, "", 0);
        header.set_mode(mode);
        header.set_cksum();
        builder.append(&header, &b""[..]).expect("writes to memory");
    }
    let archive = Cursor::new(builder.into_inner().expect("writes to memory"));
    let image = unpack_archives(vec![archive]).expect("unpacks");
    let metadata = |path: &str| image.folder.path().join(path).metadata().expect("is there");
    for (path, mode) in [
        ("set", 0o755),
        ("none", 0o400),
        ("tmp", 0o1777),
        ("closed", 0o700),
        ("closed/inside", 0o444),
    ] {
        assert_eq!(metadata(path).permissions().mode() & 0o7777, mode, "{path}");
        assert_eq!(metadata(path).mtime(), 7, "{path}");
    }
    assert_eq!((image.unpacker.skipped, image.tree().len()), (2, 5));
}

#[test]
fn bombs_are_refused() {
    let mut unpacker = {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Unpacker::new(folder.path()).expect("opens")
    };
    // The header promises more than there may be; nothing of it is written.
    let huge = header("huge", Regular, "", BOUNDS.bytes + 1);
    let mut stream = huge.as_bytes().to_vec();
    stream.extend([0; 4096]);
    assert!(matches!(
        unpacker.add(0, Cursor::new(stream)),
        Err(LayerError::TooLarge { .. })
    ));

    let cut = header("cut", Regular, "", 1 << 20);
    let mut stream = cut.as_bytes().to_vec();
    stream.extend([0; 4096]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut unpacker = Unpacker::new(folder.path()).expect("opens");
    assert!(unpacker.add(0, Cursor::new(stream)).is_err());

    unpacker.left.entries = 2;
    let entries: Entries<'_> = &[("a", Regular, ""), ("b", Regular, ""), ("c", Regular, "")];
    assert!(matches!(
        unpacker.add(0, archive(entries)),
        Err(LayerError::TooLarge { .. })
    ));

    // A path that no entry has as a whole: each link doubles it.
    let part = "d".repeat(90);
    let mut paths = vec![(part.clone(), Directory, String::new())];
    for number in 0..200 {
        let link = format!("l{number}");
        let target = if number == 0 {
            part.clone()
        } else {
            format!("l{}/{}", number - 1, "d".repeat(90))
        };
        if number > 0 {
            paths.push((target.clone(), Directory, String::new()));
        }
        paths.push((link, Symlink, target));
    }
    let entries: Vec<_> = paths
        .iter()
        .map(|(path, kind, link)| (path.as_str(), *kind, link.as_str()))
        .collect();
    let deep = unpack(&[&entries]);
    assert!(matches!(deep, Err(LayerError::Unpack { .. })), "too deep");
}

#[test]
fn folders_that_no_entry_names_count_as_entries() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut unpacker = Unpacker::new(folder.path()).expect("opens");
    unpacker.left.entries = 40;
    // Each entry makes twenty folders.
    let paths = ["a", "b", "c"].map(|name| format!("{name}{}/file", "/x".repeat(19)));
    let entries: Vec<_> = paths.iter().map(|path| (path.as_str(), Regular, "")).collect();
    let result = unpacker.add(0, archive(&entries));
    assert!(matches!(result, Err(LayerError::TooLarge { .. })), "{result:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 2);
}

#[test]
fn the_paths_of_folders_are_bounded_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut unpacker = Unpacker::new(folder.path()).expect("opens");
    unpacker.folder_path_bytes = FOLDER_PATH_BYTES_MAX - 10;
    unpacker
        .add(0, archive(&[("short", Directory, "")]))
        .expect("fits");
    let result = unpacker.add(1, archive(&[("longer", Directory, "")]));
    assert!(matches!(result, Err(LayerError::TooLarge { .. })), "{result:?}");
}

#[test]
fn an_image_that_is_one_program_is_told_apart() {
    for (layers, expected) in [
        (&[("bin/function", Regular, "code")][..], true),
        (&[("f", Regular, "code"), ("etc", Directory, "")], true),
        (&[("f", Regular, "code"), ("etc/x", Regular, "")], false),
        (&[("f", Regular, "code"), ("g", Link, "f")], false),
        (&[("f", Regular, "code"), ("g", Symlink, "f")], false),
    ] {
        let image = unpack(&[layers]).expect("unpacks");
        let file = image.unpacker.open_file(layers[0].0).expect("is there");
        assert_eq!(
            image.unpacker.holds_only(&file).expect("reads"),
            expected,
            "{layers:?}"
        );
    }
}

fn entry() -> impl Strategy<Value = (String, EntryType, String)> {
    let component = prop::sample::select(vec!["a", "b", "c", "..", ".", ".wh.a", ".wh.b", ".wh..wh..opq"]);
    let path = prop::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(vec![Regular, Directory, Symlink, Link, EntryType::Fifo]);
    let link = prop::sample::select(vec![
        "a",
        "/b",
        "../..",
        "a/b",
        "/",
        "../../../../../../../../tmp",
    ]);
    (path, kind, link.prop_map(str::to_owned))
}

proptest! {
    #[test]
    fn whatever_comes_stays_inside(layers in prop::collection::vec(prop::collection::vec(entry(), 0..12), 1..4)) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("image");
        fs::create_dir(&folder).expect("makes a folder");
        let mut unpacker = Unpacker::new(&folder).expect("opens");
        for (number, layer) in layers.iter().enumerate() {
            let entries: Vec<_> = layer
                .iter()
                .map(|(path, kind, link)| (path.as_str(), *kind, link.as_str()))
                .collect();
            let _ = unpacker.add(number, archive(&entries));
        }
        unpacker.finish();
        prop_assert_eq!(fs::read_dir(parent.path()).expect("reads").count(), 1);
        drop(unpacker);
        fs::remove_dir_all(&folder).expect("all of it can be removed");
    }
}
