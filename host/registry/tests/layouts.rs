//! Layouts and archives of images, good ones and such that lie.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use spore_registry::{Layout, push_name};
use spore_store::Digest;
use tar::{EntryType, Header};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn descriptor(bytes: &[u8]) -> Value {
    json!({"mediaType": OCI, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (
        format!("blobs/sha256/{}", Digest::of(bytes).to_hex()),
        bytes.to_vec(),
    )
}

fn text(name: &str, value: &Value) -> (String, Vec<u8>) {
    (name.to_owned(), value.to_string().into_bytes())
}

/// Files of a layout with one image, whose index was changed.
fn layout(change: &dyn Fn(&mut Value)) -> Vec<(String, Vec<u8>)> {
    let manifest = json!({"schemaVersion": 2, "config": descriptor(b"{}"), "layers": [descriptor(b"l"), descriptor(b"l")]});
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor(&manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "1.0"});
    let mut index = json!({"schemaVersion": 2, "manifests": [entry]});
    change(&mut index);
    vec![
        text("index.json", &index),
        blob(b"{}"),
        blob(b"l"),
        blob(&manifest),
    ]
}

fn saved(images: &Value) -> Vec<(String, Vec<u8>)> {
    vec![
        text("manifest.json", images),
        ("c.json".to_owned(), b"{}".to_vec()),
        ("a/layer.tar".to_owned(), b"l".to_vec()),
    ]
}

/// An archive, with links (kind, name, target) after the files.
fn archive(files: &[(String, Vec<u8>)], links: &[(u8, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |kind: u8, name: &str, link: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    };
    for (name, content) in files {
        add(b'0', name, "", content);
    }
    for (kind, name, link) in links {
        add(*kind, name, link, b"");
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn read(bytes: &[u8]) -> Result<Layout, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("archive");
    fs::write(&path, bytes).expect("writes");
    let result = Layout::read(&path).map_err(|error| {
        let mut line = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        line.replace(&path.display().to_string(), "ARCHIVE")
    });
    assert_eq!(
        fs::read_dir(folder.path()).expect("reads").count(),
        1,
        "nothing is written beside it"
    );
    result
}

#[test]
fn layouts_are_read_from_folders_and_archives() {
    let files = layout(&|_| {});
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in &files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("writes");
        fs::write(path, content).expect("writes");
    }
    let of_folder = Layout::read(folder.path()).expect("reads");
    let of_archive = read(&archive(&files, &[])).expect("reads");
    for layout in [of_folder, of_archive] {
        let image = &layout.images[0];
        assert_eq!(image.name.as_deref(), Some("1.0"));
        assert_eq!((image.blobs.len(), image.media_type.as_str()), (2, OCI));
        assert_eq!(fs::read(&image.blobs[1].path).expect("it is there"), b"l");
    }
    // A link in a folder may lead anywhere, and is not followed.
    let path = folder.path().join(&blob(b"l").0);
    fs::remove_file(&path).expect("it is there");
    std::os::unix::fs::symlink("/etc/hostname", &path).expect("writes");
    assert!(Layout::read(folder.path()).is_err());
    assert!(Layout::read(Path::new("/nonexistent")).is_err());
}

#[test]
fn what_docker_saves_is_read() {
    let images = json!([{"Config": "c.json", "RepoTags": ["a:1", "b:2"], "Layers": ["a/layer.tar", "b/layer.tar", "h"]}]);
    let links = [
        (b'2', "b/layer.tar", "../a/layer.tar"),
        (b'1', "h", "a/layer.tar"),
    ];
    let layout = read(&archive(&saved(&images), &links)).expect("reads");
    let names: Vec<_> = layout.images.iter().map(|image| image.name.as_deref()).collect();
    assert_eq!(names, [Some("a:1"), Some("b:2")]);
    let manifest: Value = serde_json::from_slice(&layout.images[0].manifest).expect("JSON");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(3));
    assert_eq!(layout.images[0].blobs.len(), 2, "each once");
}

#[test]
fn what_lies_is_refused() {
    let one = |layers: Value| json!([{"Config": "c.json", "RepoTags": null, "Layers": layers}]);
    let absent = Digest::of(b"absent");
    let mut changed = layout(&|_| {});
    changed[2].1 = b"x".to_vec();
    let without_manifest = layout(&|_| {})[..3].to_vec();
    let manifest_name = layout(&|_| {})[3].0.clone();
    for (name, files, links, expected) in [
        ("nothing", vec![], &[][..], "ARCHIVE is neither an OCI image layout nor what `docker save` writes: it has no index.json and no manifest.json".to_owned()),
        ("no image", layout(&|index| index["manifests"] = json!([])), &[], "it holds no image".to_owned()),
        ("many images", layout(&|index| index["manifests"] = vec![index["manifests"][0].clone(); 101].into()), &[], "it holds more than 100 images".to_owned()),
        ("no index", vec![("index.json".to_owned(), b"[]".to_vec())], &[], "`index.json` in it is not what it should be: ".to_owned()),
        ("manifest that is not there", without_manifest, &[], format!("`{manifest_name}`, which it names, is not in it")),
        ("blob with another content", changed, &[], format!("`{}` in it has the digest {}", blob(b"l").0, Digest::of(b"x"))),
        ("digest of another kind", layout(&|index| index["manifests"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into()), &[], format!("an image in it cannot be taken: the manifest names `sha512:{}`: only sha256 digests are taken", "0".repeat(128))),
        ("other platforms", {
            let inner = json!({"schemaVersion": 2, "manifests": [{"mediaType": OCI, "digest": absent.to_string(), "size": 1, "platform": {"os": "windows", "architecture": "amd64"}}]});
            let inner = inner.to_string().into_bytes();
            let mut files = layout(&|index| index["manifests"] = json!([descriptor(&inner)]));
            files.push(blob(&inner));
            files
        }, &[], "an image in it cannot be taken: the image is for windows/amd64, not for linux/amd64".to_owned()),
        ("layer that leads out", saved(&one(json!(["../../etc/passwd"]))), &[], "`../../etc/passwd`, which it names, is not in it".to_owned()),
        ("absolute layer", saved(&one(json!(["/etc/passwd"]))), &[], "`/etc/passwd`, which it names, is not in it".to_owned()),
        ("link that leads out", saved(&one(json!(["out"]))), &[(b'2', "out", "../../../../etc/passwd")], "`out`, which it names, is not in it".to_owned()),
        ("absolute link", saved(&one(json!(["out"]))), &[(b'2', "out", "/etc/passwd")], "`out`, which it names, is not in it".to_owned()),
        ("links in a circle", saved(&one(json!(["x"]))), &[(b'2', "x", "y"), (b'2', "y", "x")], "`x`, which it names, is not in it".to_owned()),
        ("no list", vec![("manifest.json".to_owned(), b"{}".to_vec())], &[], "`manifest.json` in it is not what it should be: ".to_owned()),
        ("many names", saved(&json!([{"Config": "c.json", "RepoTags": vec!["a:1"; 101], "Layers": ["a/layer.tar"]}])), &[], "it holds more than 100 images".to_owned()),
        ("many layers", saved(&one(json!(vec!["a/layer.tar"; 501]))), &[], "an image in it cannot be taken: the image has 501 layers, and at most 500 are taken".to_owned()),
    ] {
        let found = read(&archive(&files, links)).map(|layout| layout.images).expect_err(name);
        assert!(found == expected || (expected.ends_with(": ") && found.starts_with(&expected)), "{name}: {found}");
    }
    for (name, bytes) in [
        ("text", b"hello".repeat(200)),
        ("cut off", archive(&layout(&|_| {}), &[])[..700].to_vec()),
    ] {
        let found = read(&bytes).map(|layout| layout.images).expect_err(name);
        assert!(
            found.starts_with("ARCHIVE could not be read: "),
            "{name}: {found}"
        );
    }
}

#[test]
fn names_of_imported_images_are_names_here() {
    assert_eq!(push_name("a/b:1"), Some(("a/b".to_owned(), "1".to_owned())));
    assert_eq!(
        push_name("docker.io/library/a"),
        Some(("docker.io/library/a".to_owned(), "latest".to_owned()))
    );
    for bad in [
        "",
        "A",
        "localhost:5000/a:1",
        "a:b:c",
        "../a",
        &format!("a@{}", Digest::of(b"")),
    ] {
        assert_eq!(push_name(bad), None, "{bad}");
    }
}
