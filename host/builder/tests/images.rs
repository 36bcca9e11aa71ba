//! What the builder makes of programs and folders.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use sha2::Digest as _;
use spore_builder::c;
use spore_builder::compiled::BuildError;
use spore_builder::image::{Image, ImageError, ImageSettings};
use spore_builder::program::{ProgramError, check};
use spore_builder::root::{RootImage, RootSettings};
use spore_builder::settings::Language;
use spore_builder::template;

fn template_program() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    template::create(folder.path(), &"hello".parse().unwrap(), Language::C).unwrap();
    let built = c::build(folder.path()).unwrap();
    assert_eq!(built.warnings, "");
    std::fs::read(built.path).unwrap()
}

fn compile(arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.c"), "int main(void) { return 0; }\n").unwrap();
    let status = std::process::Command::new("gcc")
        .current_dir(folder.path())
        .args(["main.c", "-o", "out"])
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(folder.path().join("out")).unwrap()
}

#[test]
fn an_image_holds_the_program_and_says_how_to_run_it() {
    let program = template_program();
    let settings = ImageSettings {
        environment: vec![("A".into(), "b=c".into())],
        port: 9000,
    };
    let image = Image::from_program(&program, &settings).unwrap();

    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest.content).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(manifest["config"]["digest"], *image.config.digest);
    assert_eq!(manifest["config"]["size"], image.config.content.len());
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["digest"], *image.layer.digest);
    assert_eq!(
        manifest["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );

    let config: serde_json::Value = serde_json::from_slice(&image.config.content).unwrap();
    assert_eq!(
        (&config["os"], &config["architecture"]),
        (&"linux".into(), &"amd64".into())
    );
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/function"]));
    assert_eq!(config["config"]["Env"], serde_json::json!(["A=b=c"]));
    assert_eq!(
        config["config"]["ExposedPorts"],
        serde_json::json!({"9000/tcp": {}})
    );
    assert_eq!(config["rootfs"]["type"], "layers");

    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&image.layer.content[..]));
    let mut entries = archive.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap(), Path::new("function"));
    assert_eq!(entry.header().mode().unwrap(), 0o755);
    assert_eq!(
        (entry.header().mtime().unwrap(), entry.header().uid().unwrap()),
        (0, 0)
    );
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    assert!(content == program);
    drop(entry);
    assert!(entries.next().is_none());
}

#[test]
fn the_same_input_gives_the_same_image() {
    let program = template_program();
    let settings = ImageSettings::default();
    let image = Image::from_program(&program, &settings).unwrap();
    assert_eq!(
        Image::from_program(&template_program(), &settings).unwrap(),
        image
    );
    let other = Image::from_program(&program, &ImageSettings { port: 1, ..settings }).unwrap();
    assert_eq!(other.layer.digest, image.layer.digest);
    assert_ne!(other.manifest.digest, image.manifest.digest);
}

#[test]
fn programs_that_cannot_run_are_refused_with_the_reason() {
    assert_eq!(check(b""), Err(ProgramError::NotElf));
    assert_eq!(check(b"#!/bin/sh\n"), Err(ProgramError::NotElf));
    assert!(matches!(
        check(b"\x7fELF\x01\x01"),
        Err(ProgramError::NotX86_64 { .. })
    ));
    assert!(matches!(
        check(b"\x7fELF\x02\x01"),
        Err(ProgramError::Damaged { .. })
    ));
    assert!(
        matches!(check(&compile(&[])), Err(ProgramError::Dynamic { interpreter }) if interpreter.contains("ld-linux"))
    );
    assert_eq!(
        check(&compile(&["-c"])),
        Err(ProgramError::NotExecutable {
            kind: "an object file"
        })
    );
    assert_eq!(
        check(&compile(&["-shared", "-fPIC", "-nostdlib"])),
        Err(ProgramError::NotExecutable {
            kind: "a shared library"
        })
    );
    assert_eq!(check(&compile(&["-static"])), Ok(()));
    assert_eq!(check(&compile(&["-static-pie"])), Ok(()));

    let mut arm = template_program();
    arm[18] = 0xb7;
    assert_eq!(
        check(&arm),
        Err(ProgramError::NotX86_64 {
            machine: "64-bit ARM".into()
        })
    );
    assert!(matches!(
        Image::from_program(&arm, &ImageSettings::default()),
        Err(ImageError::Program(_))
    ));
}

#[test]
fn no_damage_to_a_program_makes_the_check_fail_otherwise_than_by_an_error() {
    let program = template_program();
    for length in (0..512).chain([program.len() / 4]) {
        assert!(
            check(&program[..length]).is_err(),
            "{length} bytes are no program"
        );
    }
    let mut damaged = program;
    for position in 0..256 {
        for value in [0, 1, 0x7f, 0xff] {
            let original = std::mem::replace(&mut damaged[position], value);
            let _ = check(&damaged);
            damaged[position] = original;
        }
    }
    assert_eq!(check(&damaged), Ok(()));
}

#[test]
fn compiler_errors_are_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        c::build(folder.path()),
        Err(BuildError::NoSources { .. })
    ));
    std::fs::write(
        folder.path().join("-odd name.c"),
        "#include <spore.h>\nint handle(void) { return x; }\n",
    )
    .unwrap();
    let Err(BuildError::Failed { diagnostics, .. }) = c::build(folder.path()) else {
        panic!("this cannot compile")
    };
    assert!(
        diagnostics.contains("-odd name.c:2:") && diagnostics.contains("conflicting types"),
        "{diagnostics}"
    );
}

#[test]
fn the_templates_own_test_passes() {
    let folder = tempfile::tempdir().unwrap();
    template::create(folder.path(), &"hello".parse().unwrap(), Language::C).unwrap();
    c::build(folder.path()).unwrap();
    let readme = std::fs::read_to_string(folder.path().join("README.md")).unwrap();
    let line = readme
        .lines()
        .find(|line| line.contains("&& cc "))
        .expect("the README says how to test");
    let command = line.split_once("&& ").unwrap().1;
    let output = std::process::Command::new("sh")
        .current_dir(folder.path())
        .args(["-ec", command])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("handler_test: ok"));
}

fn pack(folder: &Path) -> RootImage {
    let settings = RootSettings {
        entrypoint: vec!["/bin/run".into(), "two words".into()],
        working_directory: "/srv".into(),
        user: Some("app:video".into()),
        port: 9000,
    };
    RootImage::from_folder(folder, &settings, &mut |_| {}).unwrap()
}

#[test]
fn a_folder_becomes_a_layer_whose_digests_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let long = "long/".repeat(60);
    std::fs::create_dir_all(root.join(&long)).unwrap();
    std::fs::create_dir(root.join("bin")).unwrap();
    std::fs::write(root.join("bin/run"), "program").unwrap();
    std::fs::set_permissions(root.join("bin/run"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::fs::hard_link(root.join("bin/run"), root.join("bin/same")).unwrap();
    std::os::unix::fs::symlink("/bin/run", root.join("link")).unwrap();
    std::fs::write(root.join(&long).join("file"), vec![7; 300_000]).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let image = pack(root);
    assert_eq!(image.skipped, [root.join("socket")]);

    let content = std::fs::read(image.layer.file.path()).unwrap();
    let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)));
    assert_eq!(image.layer.digest, digest(&content));
    assert_eq!(image.layer.bytes, content.len() as u64);
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest.content).unwrap();
    assert_eq!(manifest["layers"][0]["digest"], *image.layer.digest);
    assert_eq!(manifest["layers"][0]["size"], content.len());
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&content[..])
        .read_to_end(&mut plain)
        .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&image.config.content).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], *digest(&plain));
    assert_eq!(
        config["config"]["Entrypoint"],
        serde_json::json!(["/bin/run", "two words"])
    );
    assert_eq!(config["config"]["WorkingDir"], "/srv");
    assert_eq!(config["config"]["User"], "app:video");

    let unpacked = tempfile::tempdir().unwrap();
    let mut archive = tar::Archive::new(&plain[..]);
    archive.set_preserve_permissions(true);
    archive.unpack(unpacked.path()).unwrap();
    let file = unpacked.path().join("bin/run").metadata().unwrap();
    assert_eq!((file.mode() & 0o7777, file.nlink(), file.len()), (0o750, 2, 7));
    assert_eq!(
        std::fs::read_link(unpacked.path().join("link")).unwrap(),
        Path::new("/bin/run")
    );
    let long = std::fs::read(unpacked.path().join(&long).join("file")).unwrap();
    assert!(long == vec![7; 300_000]);

    assert_eq!(
        pack(root).manifest.digest,
        image.manifest.digest,
        "the same again"
    );
}
