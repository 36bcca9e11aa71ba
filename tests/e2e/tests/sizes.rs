//! What is stored of functions, of which there is another one in the same language: in C at most 100 KiB each, in Python and Node
//! their code alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spore_test_harness::daemon::Daemon;

use crate::{Test, with_tools};

pub(crate) const TESTS: &[Test] = with_tools![
    a_function_in_c_takes_at_most_100_kib: ["musl-gcc"],
    of_a_function_in_python_only_its_code_is_stored: ["python3"],
    of_a_function_in_node_only_its_code_is_stored: ["node"],
];

const C_BYTES: u64 = 100 << 10;
/// Of Python and Node: the code, manifest and configuration, and the part of the root that each has for itself, most of which says
/// where things are in the shared one.
const INTERPRETED_BYTES: u64 = 64 << 10;

/// Names and lengths of all files of images, and of what instances map.
fn stored(daemon: &Daemon) -> BTreeSet<(String, u64)> {
    fn add(folder: &Path, found: &mut BTreeSet<(String, u64)>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.expect("the data folder is readable");
            let metadata = entry.metadata().expect("it is there");
            if metadata.is_dir() {
                add(&entry.path(), found);
            } else {
                found.insert((entry.path().display().to_string(), metadata.len()));
            }
        }
    }
    let mut found = BTreeSet::new();
    for folder in ["blobs", "derived"] {
        add(&daemon.data().join(folder), &mut found);
    }
    found
}

/// Deploys what a template has written, and another function, whose handler says something else; what was stored of that.
fn stored_of_the_second(daemon: &Daemon, language: &str, handler: &str) -> Vec<(String, u64)> {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = folder.path().join("function");
    let text = folder.to_str().expect("test folders are UTF-8");
    daemon.spore_ok(&["new", "first", "--lang", language, "--directory", text]);
    daemon.spore_ok(&["deploy", text]);
    assert_eq!(
        daemon.get("/function/first").text(),
        "Hello, world, from a unikernel!\n"
    );
    for (file, from, to) in [
        ("spore.toml", "\"first\"", "\"second\""),
        (handler, "Hello", "Good day"),
    ] {
        let path = folder.join(file);
        let source = fs::read_to_string(&path).expect("the template has it");
        fs::write(&path, source.replace(from, to)).expect("the temporary folder is writable");
    }
    let before = stored(daemon);
    daemon.spore_ok(&["deploy", text]);
    assert_eq!(
        daemon.get("/function/second").text(),
        "Good day, world, from a unikernel!\n"
    );
    let added: Vec<_> = stored(daemon).difference(&before).cloned().collect();
    assert!(!added.is_empty(), "another program is stored");
    added
}

fn bytes(files: &[(String, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

fn a_function_in_c_takes_at_most_100_kib() {
    let daemon = Daemon::start();
    let files = stored_of_the_second(&daemon, "c", "handler.c");
    assert!(bytes(&files) <= C_BYTES, "{} bytes: {files:#?}", bytes(&files));
}

fn of_a_function_in_python_only_its_code_is_stored() {
    only_code_is_stored(
        "python",
        "handler.py",
        &["README.md", "handler.py", "requirements.txt"],
    );
}

fn of_a_function_in_node_only_its_code_is_stored() {
    only_code_is_stored("node", "handler.js", &["README.md", "handler.js", "package.json"]);
}

/// Of a template of this language, whose function is these files.
fn only_code_is_stored(language: &str, handler: &str, code: &[&str]) {
    let daemon = Daemon::start();
    let files = stored_of_the_second(&daemon, language, handler);
    assert!(
        bytes(&files) <= INTERPRETED_BYTES,
        "{} bytes: {files:#?}",
        bytes(&files)
    );
    let layers = |function: &str| -> Vec<String> {
        let manifest: Value = daemon.get(&format!("/v2/{function}/manifests/latest")).json();
        let layers = manifest["layers"].as_array().expect("an image has layers");
        let digest = |layer: &Value| layer["digest"].as_str().expect("it has a digest").to_owned();
        layers.iter().map(digest).collect()
    };
    let (first, second) = (layers("first"), layers("second"));
    let (own, shared) = second.split_last().expect("an image has layers");
    assert_eq!(shared, &first[..first.len() - 1], "all others are shared");
    let blob = daemon
        .data()
        .join("blobs/sha256")
        .join(own.trim_start_matches("sha256:"));
    let listed = Command::new("tar").arg("-tzf").arg(&blob).output();
    let listed = listed.expect("tar can be run");
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let folders = ["function", "function/"];
    let files: BTreeSet<&str> = listed.lines().filter(|name| !folders.contains(name)).collect();
    let expected: BTreeSet<String> = code.iter().map(|name| format!("function/{name}")).collect();
    assert_eq!(files, expected.iter().map(String::as_str).collect());
}
