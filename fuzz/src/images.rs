//! What image publishers and registries say of images: manifests, annotations, headers, archives.
//!
//! The first byte says what it is; parts are separated.

use std::fs;

/// Between two parts.
const BETWEEN: &[u8] = b"\xffpart\xff";

pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let parts = split(rest);
    let part = |number: usize| parts.get(number).copied().unwrap_or_default();
    match kind % 4 {
        0 => drop(spore_store::fuzzing::manifest(rest)),
        1 => drop(spore_store::fuzzing::annotations(part(0), part(1), part(2))),
        2 => drop(spore_registry::fuzzing::answer(part(0), part(1))),
        _ => drop(archive(rest)),
    }
}

fn archive(bytes: &[u8]) -> Option<usize> {
    let folder = tempfile::tempdir().ok()?;
    let path = folder.path().join("archive");
    fs::write(&path, bytes).ok()?;
    let count = spore_registry::fuzzing::archive(&path);
    assert_eq!(
        fs::read_dir(folder.path()).into_iter().flatten().count(),
        1,
        "nothing is written beside an archive"
    );
    count
}

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = rest.windows(BETWEEN.len()).position(|part| part == BETWEEN) {
        parts.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    parts.push(rest);
    parts
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}

fn descriptor(bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{}", digest(bytes)),
        "size": bytes.len(), "annotations": {"org.unikraft.kernel.image": "/unikraft/bin/kernel"},
    })
}

/// An archive with an image, in the form of OCI and in Docker's.
fn archives() -> [Vec<u8>; 2] {
    let (config, layer) = (b"{}", b"layer");
    let manifest =
        serde_json::json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)]});
    let manifest = manifest.to_string().into_bytes();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(&manifest)]})
        .to_string()
        .into_bytes();
    let saved = serde_json::json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar", "link"]}]);
    let saved = saved.to_string().into_bytes();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes));
    let tar = |files: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            let _ = builder.append_data(&mut header, name, *content);
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        let _ = builder.append_link(&mut link, "link", "l.tar");
        builder.into_inner().unwrap_or_default()
    };
    [
        tar(&[
            ("index.json", &index),
            (&blob(config), config),
            (&blob(layer), layer),
            (&blob(&manifest), &manifest),
        ]),
        tar(&[("manifest.json", &saved), ("c.json", config), ("l.tar", layer)]),
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let urunc = |value: &dyn Fn(&str) -> String| {
        serde_json::json!({
            "com.urunc.unikernel.unikernelType": value("rumprun"),
            "com.urunc.unikernel.hypervisor": value("hvt"),
            "com.urunc.unikernel.binary": value("/app"),
        })
    };
    let plain = urunc(&str::to_owned);
    // "YXBw" is "app".
    let encoded = urunc(&|_| "YXBw".to_owned());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "annotations": plain, "config": descriptor(b"c"), "layers": [descriptor(b"l")],
    });
    let configuration = serde_json::json!({
        "architecture": "amd64", "os": "qemu", "rootfs": {"type": "layers", "diff_ids": []}, "config": {"Labels": plain},
    });
    let mut entry = descriptor(b"m");
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64", "os.features": ["X"]});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry, descriptor(b"n")]});
    let challenge = "Bearer realm=\"https://auth.example/token\",service=\"r\", Basic realm=\"x\"";
    let error = r#"{"errors":[{"code":"DENIED","message":"no"}],"token":"t"}"#;
    let with = |kind: u8, parts: &[&[u8]]| [&[kind], parts.join(BETWEEN).as_slice()].concat();
    let text = |value: &serde_json::Value| value.to_string().into_bytes();
    let [layout, saved] = archives();
    vec![
        with(0, &[&text(&manifest)]),
        with(0, &[&text(&index)]),
        with(1, &[&text(&manifest), &text(&configuration), &text(&encoded)]),
        with(2, &[challenge.as_bytes(), error.as_bytes()]),
        with(2, &[b"bytes 7-9/10", b"<html>"]),
        with(2, &[b"https://storage.example/x?y=z", b"text"]),
        with(2, &[b"localhost:5000/team/app:1.0", b""]),
        with(3, &[&layout]),
        with(3, &[&saved]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_what_they_should_be() {
        let seeds = seeds();
        let rest = |number: usize| &seeds[number][1..];
        assert_eq!(spore_store::fuzzing::manifest(rest(0)), Some(2));
        assert_eq!(spore_store::fuzzing::manifest(rest(1)), Some(2));
        let parts = split(rest(2));
        assert!(spore_store::fuzzing::annotations(parts[0], parts[1], b""));
        assert!(spore_store::fuzzing::annotations(b"", b"", parts[2]));
        let parts = split(rest(3));
        assert!(spore_registry::fuzzing::answer(parts[0], parts[1]));
        assert_eq!((archive(rest(7)), archive(rest(8))), (Some(1), Some(1)));
    }
}
