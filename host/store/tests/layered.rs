//! Images that begin with the same layers have these once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use spore_sandbox::Root;
use spore_store::{Digest, Selector, Store};

/// A program that needs an interpreter, and one that is there.
const PROGRAM: &str = "/bin/true";
const INTERPRETER: &str = "lib64/ld-linux-x86-64.so.2";

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A runtime: more than a MiB.
fn runtime(mark: u8) -> Vec<u8> {
    let program = fs::read(PROGRAM).unwrap();
    let weight = vec![mark; 2 << 20];
    archive(&[
        ("usr/bin/run", &program),
        (INTERPRETER, b"a loader"),
        ("usr/lib/weight", &weight),
    ])
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { folder, store }
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        let mut upload = self.store.images.begin_upload().unwrap();
        upload.append(bytes).unwrap();
        let digest = Digest::of(bytes);
        self.store.images.finish_upload(upload, digest).unwrap();
        digest
    }

    fn image(&self, name: &str, layers: &[&[u8]]) -> Digest {
        self.image_of("", name, layers)
    }

    /// One that names a user.
    fn image_of(&self, user: &str, name: &str, layers: &[&[u8]]) -> Digest {
        let configuration = json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Entrypoint": ["run", "code"], "WorkingDir": "/function", "User": user},
        });
        let configuration = configuration.to_string();
        let descriptor = |kind: &str, bytes: &[u8]| {
            let digest = self.put(bytes).to_string();
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()})
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| descriptor("layer.v1.tar", layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", configuration.as_bytes()), "layers": layers,
        });
        let tag = Selector::Tag("latest".to_owned());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = manifest.to_string();
        self.store
            .images
            .put_manifest(name, &tag, media_type, manifest.as_bytes())
            .unwrap()
    }

    /// Base and head of an image, and the digest of what they make.
    fn derive(&self, image: Digest) -> (PathBuf, PathBuf, Digest) {
        let program = self.store.images.derive_program(image, &BTreeMap::new()).unwrap();
        let Root::Layered { base, head } = &program.root else {
            panic!("{program:?}");
        };
        (base.clone(), head.clone(), program.root_digest)
    }

    fn bases(&self) -> usize {
        fs::read_dir(self.folder.path().join("derived/bases")).map_or(0, Iterator::count)
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn images_of_one_runtime_share_its_file_system() {
    let place = Place::new();
    let base = runtime(1);
    let one = place.image("one", &[&base, &archive(&[("function/code", b"one")])]);
    let two = place.image("two", &[&base, &archive(&[("function/code", b"two")])]);
    let (one, two) = (place.derive(one), place.derive(two));
    assert_eq!(one.0, two.0);
    assert_eq!(place.bases(), 1);
    assert!(length(&one.0) > 2 << 20);
    for head in [&one.1, &two.1] {
        assert!(length(head) <= 6 * 4096, "{}", length(head));
    }
    assert_ne!(one.2, two.2);
    let files = [&one.0, &one.1].map(|path| fs::File::open(path).unwrap());
    let image = spore_rootfs::head::Parts::open(&files[0], &files[1]).unwrap();
    let code = image.find(b"/function/code").unwrap().unwrap();
    assert_eq!(std::io::read_to_string(image.reader(code)).unwrap(), "one");
    assert_eq!(
        fs::read_dir(place.folder.path().join("uploads")).unwrap().count(),
        0
    );
}

#[test]
fn images_of_one_runtime_and_user_share_a_file_system_that_belongs_to_that_user() {
    let place = Place::new();
    let base = runtime(1);
    let passwd = |line: &str| archive(&[("etc/passwd", line.as_bytes())]);
    let base = [
        &base[..base.len() - 1024],
        &passwd("app:x:100:101::/home/app:/bin/sh\n"),
    ]
    .concat();
    let code = archive(&[("function/code", b"code")]);
    let other = archive(&[("function/code", b"other")]);
    let one = place.derive(place.image_of("app", "one", &[&base, &code]));
    let two = place.derive(place.image_of("app", "two", &[&base, &other]));
    let nobody = place.derive(place.image("nobody", &[&base, &code]));
    assert_eq!(one.0, two.0);
    assert_ne!(one.0, nobody.0, "whose files are another's");
    assert_eq!(place.bases(), 2);
    for (derived, owner) in [(&one, (100, 101)), (&nobody, (0, 0))] {
        let files = [&derived.0, &derived.1].map(|path| fs::File::open(path).unwrap());
        let image = spore_rootfs::head::Parts::open(&files[0], &files[1]).unwrap();
        for path in ["/", "/function", "/function/code", "/usr/bin/run", "/etc/passwd"] {
            let found = image.find(path.as_bytes()).unwrap().unwrap();
            assert_eq!((found.user, found.group), owner, "{path}");
        }
    }
    // It is known again, and so is who that is.
    let user = |name| {
        let tag = Selector::Tag("latest".to_owned());
        let image = place.store.images.resolve(name, &tag).unwrap().unwrap();
        let program = place
            .store
            .images
            .derive_program(image, &BTreeMap::new())
            .unwrap();
        assert!(
            program
                .environment
                .contains(&("HOME".to_owned(), "/home/app".to_owned()))
        );
        (
            program.user.id,
            program.user.group,
            matches!(program.root, Root::Layered { .. }),
        )
    };
    assert_eq!(user("one"), (100, 101, true));
    assert_eq!(place.store.check_images().unwrap().problems, Vec::<String>::new());
    // The head makes that user another one, to whom nothing of the base belongs.
    let changed = [
        &code[..code.len() - 1024],
        &passwd("app:x:200:201::/home/app:/bin/sh\n"),
    ]
    .concat();
    place.image_of("app", "three", &[&base, &changed]);
    assert_eq!(user("three"), (200, 201, false));

    // The base stays for as long as somebody has it.
    let remove = |name: &str| {
        place
            .store
            .remove_image(name, &Selector::Tag("latest".to_owned()))
            .unwrap()
    };
    remove("one");
    assert!(two.0.exists());
    for name in ["three", "two", "nobody"] {
        remove(name);
    }
    assert_eq!(place.bases(), 0);
}

#[test]
fn deployments_at_the_same_time_make_one_base() {
    let place = Place::new();
    let base = runtime(1);
    let images: Vec<_> = (0..6)
        .map(|number| place.image(&format!("i{number}"), &[&base, &archive(&[("code", &[number])])]))
        .collect();
    let inodes: Vec<_> = std::thread::scope(|scope| {
        let derive = |image| place.derive(image).0;
        let threads: Vec<_> = images
            .iter()
            .map(|image| scope.spawn(move || derive(*image)))
            .collect();
        let bases = threads.into_iter().map(|thread| thread.join().unwrap());
        bases
            .map(|base| std::os::unix::fs::MetadataExt::ino(&fs::metadata(base).unwrap()))
            .collect()
    });
    assert!(
        inodes.iter().all(|inode| *inode == inodes[0]),
        "made once: {inodes:?}"
    );
}

#[test]
fn a_base_goes_with_the_last_image_that_needs_it() {
    let place = Place::new();
    let (shared, other) = (runtime(1), runtime(2));
    let latest = |name: &str| {
        place
            .store
            .remove_image(name, &Selector::Tag("latest".to_owned()))
            .unwrap()
    };
    for (name, base) in [("one", &shared), ("two", &shared), ("three", &other)] {
        let image = place.image(name, &[base, &archive(&[("code", name.as_bytes())])]);
        place.derive(image);
    }
    assert_eq!(place.bases(), 2);
    assert_eq!(place.store.check_images().unwrap().derived, 5);
    assert_eq!(latest("one").derived, 1, "the other one needs the base");
    assert_eq!(place.bases(), 2);
    assert_eq!(latest("two").derived, 2);
    assert_eq!(place.bases(), 1);
    place.store.prune_images(Duration::ZERO).unwrap();
    assert_eq!(place.bases(), 1, "it has a name");
    let report = place.store.check_images().unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    latest("three");
    assert_eq!(place.bases(), 0);
}

#[test]
fn what_is_damaged_or_gone_is_made_again() {
    let place = Place::new();
    let image = place.image("one", &[&runtime(1), &archive(&[("code", b"one")])]);
    let (base, head, digest) = place.derive(image);
    let root = place
        .store
        .images
        .derive_program(image, &BTreeMap::new())
        .unwrap()
        .root;
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[3000] ^= 1;
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for path in [&base, &head] {
        damage(path);
        let report = place.store.check_images().unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(!place.store.images.is_intact(&root));
        assert_eq!(place.derive(image).2, digest, "the same again");
        assert!(place.store.images.is_intact(&root));
        fs::remove_file(path).unwrap();
        assert!(!place.store.images.is_intact(&root));
        assert_eq!(place.derive(image).2, digest);
    }
    fs::write(base.with_file_name("seal.json"), "{").unwrap();
    assert!(!place.store.images.is_intact(&root));
    assert_eq!(place.derive(image).2, digest);
    fs::remove_dir_all(base.parent().unwrap()).unwrap();
    assert!(!place.store.images.is_intact(&root));
    assert_eq!(place.derive(image).2, digest);
    // As if another version of the tool had made it: the head does not fit it any more.
    let seal = base.with_file_name("seal.json");
    let text = fs::read_to_string(&seal).unwrap();
    let mut other = fs::read(&base).unwrap();
    other.extend_from_slice(&[0; 4096]);
    fs::remove_file(&base).unwrap();
    fs::write(&base, &other).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["digest"] = Digest::of(&other).to_string().into();
    value["bytes"] = other.len().into();
    fs::write(&seal, value.to_string()).unwrap();
    assert!(!place.store.images.is_intact(&root));
}

#[test]
fn what_no_head_can_be_made_of_is_a_whole() {
    let place = Place::new();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    let mut links = tar::Builder::new(Vec::new());
    links.append_link(&mut link, "lib", "usr/lib").unwrap();
    let links = links.into_inner().unwrap();
    let through = archive(&[("lib/code", b"through a link of the base")]);
    let image = place.image("through", &[&links, &runtime(1), &through]);
    let program = place
        .store
        .images
        .derive_program(image, &BTreeMap::new())
        .unwrap();
    assert!(matches!(program.root, Root::FileSystem(_)), "{program:?}");
    let again = place
        .store
        .images
        .derive_program(image, &BTreeMap::new())
        .unwrap();
    assert_eq!(again, program);
    // Damage of it does not make it another kind, which those that run would not find.
    fs::remove_file(program.root.path()).unwrap();
    assert_eq!(
        place
            .store
            .images
            .derive_program(image, &BTreeMap::new())
            .unwrap(),
        program
    );
}
