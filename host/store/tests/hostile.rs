//! A corpus of hostile archives and manifests: each is refused with exactly this message, and nothing is left of it outside
//! the store or half-made within it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use spore_store::{Digest, ImageStore, Selector, Store};
use tar::{EntryType, Header};

/// A header as it is in an archive, with whatever path: the library refuses to write some.
fn header(path: &[u8], kind: EntryType, link: &[u8], bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    let gnu = header.as_gnu_mut().expect("a GNU header");
    gnu.name[..path.len()].copy_from_slice(path);
    gnu.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_mtime(7);
    header.set_size(bytes);
    header.set_cksum();
    header
}

/// An archive of these entries: kind as in a header, path, and content or link.
fn archive(entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, content) in entries {
        let is_link = matches!(kind, b'1' | b'2');
        let (link, data) = if is_link { (*content, "") } else { ("", *content) };
        let header = header(
            path.as_bytes(),
            EntryType::new(*kind),
            link.as_bytes(),
            data.len() as u64,
        );
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// One entry whose header was changed after it was made.
fn changed(path: &str, change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = header(path.as_bytes(), EntryType::Regular, b"", 0);
    change(&mut header);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let digits = (rest + rest.to_string().len()).to_string().len();
    format!("{} {key}={value}\n", rest + digits)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

/// A frame of zstd that holds its content as it is.
fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Uncompressed)
}

/// The error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// A store in a folder with a file beside it that nobody may touch.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("canary"), "untouched").expect("writes");
        let store = Store::open(&folder.path().join("data")).expect("opens");
        Self { folder, store }
    }

    fn images(&self) -> &ImageStore {
        &self.store.images
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        let mut upload = self.images().begin_upload().expect("begins");
        upload.append(bytes).expect("writes");
        let digest = Digest::of(bytes);
        self.images().finish_upload(upload, digest).expect("stores");
        digest
    }

    /// Nothing was written outside the store, and nothing half-made is left in it.
    fn check(&self, name: &str) {
        let names = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path)
                .expect("reads")
                .map(|entry| entry.expect("reads").file_name().into_string().expect("text"))
                .collect();
            names.sort();
            names
        };
        let root = self.folder.path();
        assert_eq!(names(root), ["canary", "data"], "{name}");
        assert_eq!(
            fs::read(root.join("canary")).expect("reads"),
            b"untouched",
            "{name}"
        );
        let data = root.join("data");
        let folders = [
            "blobs",
            "derived",
            "downloads",
            "logs",
            "queue.redb",
            "spore.redb",
            "uploads",
        ];
        assert_eq!(names(&data), folders, "{name}");
        for folder in ["derived", "downloads", "uploads"] {
            assert_eq!(names(&data.join(folder)), [""; 0], "{name}: {folder}");
        }
    }
}

fn descriptor(digest: &str, size: u64) -> Value {
    json!({"mediaType": "application/octet-stream", "digest": digest, "size": size})
}

fn configuration() -> Value {
    json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Entrypoint": ["/program"]},
    })
}

/// What the store says of an image of these layers.
fn refusal_of_layers(place: &Place, layers: &[Vec<u8>]) -> String {
    let config = place.put(configuration().to_string().as_bytes());
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor(&place.put(layer).to_string(), layer.len() as u64))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "config": descriptor(&config.to_string(), 1), "layers": layers,
    });
    refusal_of_manifest(place, manifest.to_string().as_bytes())
}

/// What the store says of a manifest, at its push or at its deployment.
fn refusal_of_manifest(place: &Place, manifest: &[u8]) -> String {
    let tag = Selector::Tag("latest".to_owned());
    let digest = match place.images().put_manifest("hostile", &tag, "a/b", manifest) {
        Ok(digest) => digest,
        Err(error) => return chain(&error),
    };
    match place.images().derive_program(digest, &BTreeMap::new()) {
        Ok(program) => format!("taken: {program:?}"),
        Err(error) => chain(&error),
    }
}

const NO_PROGRAM: &str = "no program can be taken from the image: ";
const UNREADABLE: &str =
    "layer 0 cannot be read: it must be a tar archive, plain or compressed with gzip or zstd: ";
/// What an image says whose layers are handled, and hold no program.
const HANDLED: &str = "the image has no file `/program`";

#[test]
fn hostile_layers_are_refused_or_handled() {
    let long = "n".repeat(5000);
    let deep: Vec<_> = (0..45).map(|_| "d".repeat(90)).collect();
    let deep = deep.join("/");
    let cut_gzip = gzip(&archive(&[(b'0', "a", &"x".repeat(5000))]));
    let cases: Vec<(&str, Vec<Vec<u8>>, String)> = vec![
        // Names that lead out.
        (
            "parent",
            vec![archive(&[(b'0', "../x", "1")])],
            "layer 0 holds the path `../x`, which leads out of the image".into(),
        ),
        (
            "parent inside",
            vec![archive(&[(b'0', "a/../../x", "1")])],
            "layer 0 holds the path `a/../../x`, which leads out of the image".into(),
        ),
        (
            "parent at the end",
            vec![archive(&[(b'5', "a/..", "")])],
            "layer 0 holds the path `a/..`, which leads out of the image".into(),
        ),
        (
            "parent in a whiteout's folder",
            vec![archive(&[(b'0', "../.wh.canary", "")])],
            "layer 0 holds the path `../.wh.canary`, which leads out of the image".into(),
        ),
        (
            "parent in a record",
            vec![archive(&[(b'x', "r", &record("path", "../x")), (b'0', "a", "")])],
            "layer 0 holds the path `../x`, which leads out of the image".into(),
        ),
        (
            "parent in a long name",
            vec![archive(&[(b'L', "l", "../x\0"), (b'0', "a", "")])],
            "layer 0 holds the path `../x`, which leads out of the image".into(),
        ),
        (
            "hard link that leads out",
            vec![archive(&[(b'1', "h", "../canary")])],
            "layer 0 holds the path `../canary`, which leads out of the image".into(),
        ),
        (
            "hard link to the root",
            vec![archive(&[(b'1', "h", "/")])],
            "layer 0 cannot be unpacked at `h`: invalid data".into(),
        ),
        (
            "hard link to what is not there",
            vec![archive(&[(b'1', "h", "/etc/passwd")])],
            "layer 0 cannot be unpacked at `h`: No such file or directory (os error 2)".into(),
        ),
        (
            "hard link to a folder",
            vec![archive(&[(b'5', "d", ""), (b'1', "h", "d")])],
            "layer 0 cannot be unpacked at `h`: Operation not permitted (os error 1)".into(),
        ),
        (
            "whiteout of the parent",
            vec![archive(&[(b'0', ".wh...", "")])],
            "layer 0 cannot be unpacked at `.wh...`: it hides nothing that can have a name".into(),
        ),
        (
            "whiteout of its folder",
            vec![archive(&[(b'0', "a/.wh..", "")])],
            "layer 0 cannot be unpacked at `a/.wh..`: it hides nothing that can have a name".into(),
        ),
        (
            "whiteout of nothing",
            vec![archive(&[(b'0', ".wh.", "")])],
            "layer 0 cannot be unpacked at `.wh.`: it hides nothing that can have a name".into(),
        ),
        (
            "file within a file",
            vec![archive(&[(b'0', "a", ""), (b'0', "a/b", "")])],
            "layer 0 cannot be unpacked at `a/b`: Not a directory (os error 20)".into(),
        ),
        (
            "link to itself",
            vec![archive(&[(b'2', "a", "a"), (b'0', "a/b", "")])],
            "layer 0 cannot be unpacked at `a/b`: Too many levels of symbolic links (os error 40)".into(),
        ),
        (
            "name with a zero",
            vec![archive(&[(b'x', "r", &record("path", "a\0b")), (b'0', "a", "")])],
            "layer 0 cannot be unpacked at `a\u{fffd}b`: Invalid argument (os error 22)".into(),
        ),
        (
            "name that is too long for a folder",
            vec![archive(&[(b'L', "l", &"x".repeat(300)), (b'0', "a", "")])],
            format!(
                "layer 0 cannot be unpacked at `{}`: File name too long (os error 36)",
                "x".repeat(300)
            ),
        ),
        (
            "path that is too deep",
            vec![archive(&[(b'L', "l", &deep), (b'0', "a", "")])],
            format!(
                "layer 0 cannot be unpacked at `{}`: File name too long (os error 36)",
                &deep[..500]
            ),
        ),
        (
            "second layer",
            vec![archive(&[(b'0', "a", "1")]), archive(&[(b'0', "../a", "1")])],
            "layer 1 holds the path `../a`, which leads out of the image".into(),
        ),
        // Too much.
        (
            "file of terabytes",
            vec![changed("huge", |header| header.set_size(1 << 42))],
            "with `huge` of layer 0 the image holds more than 4294967296 bytes or 500000 files".into(),
        ),
        (
            "file of all bytes there are",
            vec![changed("huge", |header| header.set_size(u64::MAX >> 1))],
            "with `huge` of layer 0 the image holds more than 4294967296 bytes or 500000 files".into(),
        ),
        (
            "file that is cut off",
            vec![changed("cut", |header| header.set_size(1 << 20))],
            "layer 0 cannot be unpacked at `cut`: unexpected end of file".into(),
        ),
        // What is no archive.
        (
            "text",
            vec![b"hello, this is no archive".repeat(40)],
            format!("{UNREADABLE}numeric field was not a number: "),
        ),
        (
            "wrong checksum",
            vec![{
                let mut bytes = archive(&[(b'0', "a", "")]);
                bytes[0] ^= 1;
                bytes
            }],
            format!("{UNREADABLE}archive header checksum mismatch"),
        ),
        (
            "half a header",
            vec![archive(&[(b'0', "a", "")])[..300].to_vec()],
            format!("{UNREADABLE}failed to read entire block"),
        ),
        (
            "gzip that is cut off",
            vec![cut_gzip[..cut_gzip.len() / 2].to_vec()],
            format!("{UNREADABLE}incomplete deflate stream"),
        ),
        (
            "gzip of garbage",
            vec![vec![0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]],
            format!("{UNREADABLE}invalid gzip header"),
        ),
        (
            "zstd of garbage",
            vec![vec![0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
            UNREADABLE.into(),
        ),
        (
            "zstd that is cut off",
            vec![{
                let bytes = zstd(&archive(&[(b'0', "a", "")]));
                bytes[..40].to_vec()
            }],
            UNREADABLE.into(),
        ),
        (
            "zstd with a window of terabytes",
            vec![vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00]],
            UNREADABLE.into(),
        ),
        // What headers and records say.
        (
            "sparse file",
            vec![archive(&[(b'S', "holes", "")])],
            format!("{UNREADABLE}`holes` is a sparse file"),
        ),
        (
            "sparse file by a record",
            vec![archive(&[
                (b'x', "r", &record("GNU.sparse.major", "1")),
                (b'0', "holes", ""),
            ])],
            format!("{UNREADABLE}`holes` is a sparse file"),
        ),
        (
            "two lengths",
            vec![archive(&[(b'x', "r", &record("size", "9")), (b'0', "a", "1")])],
            format!("{UNREADABLE}`a`: its header and its PAX record tell different lengths"),
        ),
        (
            "no length",
            vec![changed("a", |header| {
                header.as_mut_bytes()[124..136].copy_from_slice(b"zzzzzzzzzzz\0")
            })],
            UNREADABLE.into(),
        ),
        (
            "no mode",
            vec![changed("a", |header| {
                header.as_mut_bytes()[100..108].copy_from_slice(b"zzzzzzz\0")
            })],
            format!("{UNREADABLE}`a`: its header tells no mode"),
        ),
        (
            "no time",
            vec![changed("a", |header| {
                header.as_mut_bytes()[136..148].copy_from_slice(b"zzzzzzzzzzz\0")
            })],
            format!("{UNREADABLE}`a`: its header tells no time"),
        ),
        (
            "long link",
            vec![archive(&[(b'K', "k", &long), (b'2', "a", "")])],
            format!("{UNREADABLE}a name or extension is too long"),
        ),
        (
            "long name",
            vec![archive(&[(b'L', "l", &long), (b'0', "a", "")])],
            format!("{UNREADABLE}a name or extension is too long"),
        ),
        (
            "long records",
            vec![archive(&[
                (b'x', "r", &" ".repeat((1 << 20) + 1)),
                (b'0', "a", ""),
            ])],
            format!("{UNREADABLE}a name or extension is too long"),
        ),
        (
            "record of no length",
            vec![archive(&[(b'x', "r", "abc path=x\n"), (b'0', "a", "")])],
            format!("{UNREADABLE}malformed pax extension"),
        ),
        (
            "time that is none",
            vec![archive(&[
                (b'x', "r", &record("mtime", "later")),
                (b'0', "a", ""),
            ])],
            format!("{UNREADABLE}a PAX record has no time"),
        ),
        // What is handled, and leads nowhere.
        (
            "absolute symbolic link",
            vec![archive(&[(b'2', "d", "/"), (b'0', "d/../x", "")])],
            "layer 0 holds the path `d/../x`, which leads out of the image".into(),
        ),
        (
            "symbolic links out",
            vec![archive(&[
                (b'2', "d", "../../../.."),
                (b'0', "d/canary", "changed"),
            ])],
            HANDLED.into(),
        ),
        (
            "symbolic link through /proc",
            vec![archive(&[(b'2', "p", "/proc/self/root"), (b'5', "p/x", "")])],
            "layer 0 cannot be unpacked at `p/x`: File exists (os error 17)".into(),
        ),
        (
            "devices and pipes",
            vec![archive(&[
                (b'3', "null", ""),
                (b'4', "disk", ""),
                (b'6', "pipe", ""),
            ])],
            HANDLED.into(),
        ),
        (
            "duplicates",
            vec![archive(&[
                (b'0', "a", "1"),
                (b'5', "a", ""),
                (b'2', "a", "x"),
                (b'0', "a", "2"),
            ])],
            HANDLED.into(),
        ),
        (
            "extended attributes",
            vec![archive(&[
                (b'x', "r", &record("SCHILY.xattr.security.capability", "x")),
                (b'0', "a", ""),
            ])],
            HANDLED.into(),
        ),
        (
            "opaque folder through a link",
            vec![archive(&[(b'2', "d", "/../.."), (b'0', "d/.wh..wh..opq", "")])],
            HANDLED.into(),
        ),
        (
            "zstd, two frames and a note",
            vec![
                [
                    zstd(&archive(&[(b'0', "a", "")])[..512]),
                    vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9],
                    zstd(&archive(&[])),
                ]
                .concat(),
            ],
            HANDLED.into(),
        ),
        ("gzip", vec![gzip(&archive(&[(b'0', "a", "")]))], HANDLED.into()),
    ];
    assert!(cases.len() >= 40);
    let mut wrong = Vec::new();
    for (name, layers, expected) in cases {
        let place = Place::new();
        let found = refusal_of_layers(&place, &layers);
        let expected = format!("{NO_PROGRAM}{expected}");
        // What comes after is the libraries' own.
        if found != expected && !(expected.ends_with(": ") && found.starts_with(&expected)) {
            wrong.push(format!("{name}:\n  {found}\n  {expected}"));
        }
        place.check(name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hostile_manifests_are_refused() {
    let digest = Digest::of(b"absent").to_string();
    let md5 = format!("md5:{}", "0".repeat(32));
    let place = Place::new();
    let config = |value: Value| place.put(value.to_string().as_bytes()).to_string();
    let manifest = |config: &str| json!({"schemaVersion": 2, "config": descriptor(config, 1), "layers": []});
    let with_config = |change: &dyn Fn(&mut Value)| {
        let mut value = configuration();
        change(&mut value);
        manifest(&config(value))
    };
    let own = config(configuration());
    let invalid = "it is neither an OCI image manifest nor an OCI image index: ";
    let index = |platform: Value| {
        let inner = place.put(manifest(&own).to_string().as_bytes()).to_string();
        let mut entry = descriptor(&inner, 1);
        entry["platform"] = platform;
        json!({"schemaVersion": 2, "manifests": [entry]})
    };
    let mut nested = descriptor(
        &place
            .put(
                index(json!({"os": "linux", "architecture": "amd64"}))
                    .to_string()
                    .as_bytes(),
            )
            .to_string(),
        1,
    );
    nested["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let cases: Vec<(&str, Vec<u8>, String)> = vec![
        ("nothing", Vec::new(), invalid.into()),
        ("garbage", vec![0xff; 100], invalid.into()),
        ("text", b"hello".to_vec(), invalid.into()),
        ("list", b"[]".to_vec(), invalid.into()),
        ("nested lists", "[".repeat(100_000).into_bytes(), invalid.into()),
        ("number", b"1e999".to_vec(), invalid.into()),
        ("no parts", b"{}".to_vec(), invalid.into()),
        ("Docker's first version", json!({"schemaVersion": 1, "fsLayers": [], "history": []}).to_string().into_bytes(), invalid.into()),
        ("negative length", json!({"schemaVersion": 2, "config": {"mediaType": "a/b", "digest": own, "size": -1}, "layers": []}).to_string().into_bytes(), invalid.into()),
        ("digest that is a path", manifest("sha256:../../../etc/passwd").to_string().into_bytes(), invalid.into()),
        ("digest of another kind", manifest(&md5).to_string().into_bytes(), format!("it names {md5}, which was not pushed")),
        ("part that was not pushed", manifest(&digest).to_string().into_bytes(), format!("it names {digest}, which was not pushed")),
        ("layer that was not pushed", json!({"schemaVersion": 2, "config": descriptor(&own, 1), "layers": [descriptor(&digest, 1)]}).to_string().into_bytes(), format!("it names {digest}, which was not pushed")),
        ("index of what was not pushed", json!({"schemaVersion": 2, "manifests": [descriptor(&digest, 1)]}).to_string().into_bytes(), format!("it names {digest}, which was not pushed")),
        ("empty index", json!({"schemaVersion": 2, "manifests": []}).to_string().into_bytes(), "the image is for no platform at all: build it for linux/amd64".into()),
        ("index of other platforms", index(json!({"os": "windows", "architecture": "arm64"})).to_string().into_bytes(), "the image is for windows/arm64: build it for linux/amd64".into()),
        ("index of an index", json!({"schemaVersion": 2, "manifests": [nested]}).to_string().into_bytes(), " is not the manifest of an image: ".into()),
        ("configuration that is none", manifest(&place.put(b"none").to_string()).to_string().into_bytes(), " is not the configuration of an image: ".into()),
        ("configuration of another platform", with_config(&|value| value["os"] = "plan9".into()).to_string().into_bytes(), "the image is for plan9/amd64: build it for linux/amd64".into()),
        ("configuration without a program", with_config(&|value| value["config"] = json!({})).to_string().into_bytes(), "the image has neither an entry point nor a command, nor a bootstrap for AWS Lambda in /var/runtime, /var/task or /opt".into()),
        ("program without a name", with_config(&|value| value["config"] = json!({"Entrypoint": [""]})).to_string().into_bytes(), "the image has neither an entry point nor a command, nor a bootstrap for AWS Lambda in /var/runtime, /var/task or /opt".into()),
        ("configuration that is too long", manifest(&place.put(&vec![b' '; (4 << 20) + 1]).to_string()).to_string().into_bytes(), " has more than 4194304 bytes".into()),
    ];
    let mut wrong = Vec::new();
    for (name, manifest, expected) in cases {
        let found = refusal_of_manifest(&place, &manifest);
        // Where a digest comes first, or a library has the last word.
        let is_right = found == expected
            || (expected.ends_with(": ") && found.starts_with(&expected))
            || (expected.starts_with(' ') && found.contains(expected.as_str()));
        if !is_right {
            wrong.push(format!("{name}:\n  {found}\n  {expected}"));
        }
        place.check(name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
