//! Images from and to elsewhere: a real registry, the tools of others, folders and archives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};
use spore_test_harness::daemon::{Daemon, Setup};
use spore_test_harness::program;
use spore_test_harness::registry::{Registry, has_tools, run};
use tempfile::TempDir;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    an_image_goes_to_a_registry_and_comes_back,
    a_registry_with_users_is_told_who_asks,
    a_registry_is_believed_by_its_certificate,
    a_client_says_who_asks_a_registry,
    an_index_is_pushed_whole_if_it_is_stored_whole,
    mirrors_and_aliases_stand_in,
    names_that_were_written_out_are_short_ones,
    what_others_copy_is_what_we_store,
    an_exported_root_unpacks_to_the_same_tree,
    images_of_other_builders_run,
    images_in_use_stay_and_others_go,
    a_unikernel_of_another_project_is_stored_and_shown,
    damage_is_found,
];

fn folder() -> TempDir {
    TempDir::with_prefix("spore-test-images-").expect("the temporary folder is writable")
}

/// A daemon that may pull; nothing on this machine is docker.io but what a test says.
fn daemon(options: &[&str], environment: &[(&str, &Path)]) -> Daemon {
    let mut all: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    if !options.contains(&"--mirror") {
        all.extend(["--mirror".to_owned(), "docker.io=127.0.0.1:9".to_owned()]);
    }
    let environment = environment.iter();
    let environment = environment.map(|(name, path)| ((*name).to_owned(), path.display().to_string()));
    Daemon::start_as(Setup {
        options: all,
        environment: environment.collect(),
        ..Setup::default()
    })
}

fn inspect(daemon: &Daemon, image: &str) -> Value {
    let text = daemon.spore_ok(&["image", "inspect", image, "--json"]);
    serde_json::from_str(&text).expect("it is JSON")
}

fn assert_whole(daemon: &Daemon) {
    let report = daemon.spore_ok(&["image", "check"]);
    assert!(report.contains("all is whole"), "{report}");
}

fn assert_answers(daemon: &Daemon, name: &str) {
    let answer = daemon.get(&format!("/function/{name}/"));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

/// What a command that has to fail says.
fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.spore(arguments);
    assert!(!output.status.success(), "{arguments:?} should fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn skopeo(arguments: &[&str], folder: &Path) -> Vec<u8> {
    run("skopeo", arguments, folder).stdout
}

fn an_image_goes_to_a_registry_and_comes_back() {
    if !has_tools(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, scratch) = (Registry::start(), folder());
    let mut daemon = daemon(&[], &[]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let name = format!("{}/team/httpd:1.0", registry.address());
    daemon.spore_ok(&["image", "push", "httpd", &name]);
    let own = inspect(&daemon, "httpd");
    let docker = format!("docker://{name}");
    let theirs = skopeo(&["inspect", "--tls-verify=false", &docker], scratch.path());
    let theirs: Value = serde_json::from_slice(&theirs).expect("it is JSON");
    assert_eq!(theirs["Digest"], own["digest"]);
    assert_eq!(theirs["Layers"][0], own["layers"][0]["digest"]);
    // Gone here, and back from there by a deployment alone, as any client of OpenFaaS makes it.
    daemon.spore_ok(&["remove", "httpd"]);
    daemon.spore_ok(&["image", "remove", "httpd"]);
    assert_eq!(
        daemon.spore_ok(&["image", "list"]).lines().count(),
        1,
        "the head alone"
    );
    let body = serde_json::json!({"service": "back", "image": name}).to_string();
    let answer = daemon.send_body(http::Method::POST, "/system/functions", body);
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_answers(&daemon, "back");
    assert_eq!(inspect(&daemon, &name)["digest"], own["digest"]);
    assert_whole(&daemon);
    // Without the registry, it is still there.
    drop(registry);
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_answers(&daemon, "back");
    daemon.spore_ok(&["deploy", "again", "--image", &name]);
    let error = refused(&daemon, &["deploy", "other", "--image", "localhost:9/nobody"]);
    assert!(
        error.contains("cannot be pulled as localhost:9/nobody:latest"),
        "{error}"
    );
}

fn a_registry_with_users_is_told_who_asks() {
    if !has_tools(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (registry, scratch) = (Registry::start_for("ada", "secret"), folder());
    let config = scratch.path().join("config.json");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", scratch.path().display());
    let daemon = daemon(
        &[],
        &[("DOCKER_CONFIG", scratch.path()), ("PATH", Path::new(&path))],
    );
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let name = format!("{}/httpd:1", registry.address());
    let push = ["image", "push", "httpd", &name];
    let error = refused(&daemon, &push);
    assert!(
        error.contains("without credentials") && error.contains("docker login"),
        "{error}"
    );
    let with = |auth: &str| {
        format!(
            r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#,
            registry.address()
        )
    };
    // "ada:wrong"
    fs::write(&config, with("YWRhOndyb25n")).expect("writable");
    let error = refused(&daemon, &push);
    assert!(
        error.contains("with the credentials that Docker's config.json names"),
        "{error}"
    );
    // "ada:secret"
    fs::write(&config, with("YWRhOnNlY3JldA==")).expect("writable");
    daemon.spore_ok(&push);
    // The same from a credential helper.
    fs::write(
        &config,
        format!(r#"{{"credHelpers": {{"{}": "test"}}}}"#, registry.address()),
    )
    .expect("writable");
    let helper = scratch.path().join("docker-credential-test");
    let script = "#!/bin/sh\nread -r server\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"ada\",\"Secret\":\"secret\"}' \"$server\"\n";
    fs::write(&helper, script).expect("writable");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("it is ours");
    daemon.spore_ok(&["image", "pull", &name]);
    fs::write(&config, "{").expect("writable");
    let error = refused(&daemon, &["image", "pull", &name]);
    assert!(error.contains("config.json"), "{error}");
    fs::remove_file(&config).expect("it is there");
    let error = refused(&daemon, &["image", "pull", &name]);
    assert!(error.contains("without credentials"), "{error}");
}

fn a_client_says_who_asks_a_registry() {
    if !has_tools(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (registry, scratch, nobody) = (Registry::start_for("ada", "secret"), folder(), folder());
    let daemon = daemon(&[], &[("DOCKER_CONFIG", nobody.path())]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let name = format!("{}/httpd:1", registry.address());
    // "ada:secret"
    let config = format!(
        r#"{{"auths": {{"{}": {{"auth": "YWRhOnNlY3JldA=="}}}}}}"#,
        registry.address()
    );
    fs::write(scratch.path().join("config.json"), config).expect("writable");
    let as_user = |folder: &Path, arguments: &[&str]| {
        let mut command = daemon.command(arguments);
        let output = command.env("DOCKER_CONFIG", folder).output();
        let output = output.expect("the spore binary can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let [push, pull, deploy] = [
        &["image", "push", "httpd", &name][..],
        &["image", "pull", &name],
        &["deploy", "pulled", "--image", &name],
    ];
    for (folder, expected) in [(nobody.path(), false), (scratch.path(), true)] {
        let (is_done, said) = as_user(folder, push);
        assert_eq!(is_done, expected, "{said}");
        assert!(is_done || said.contains("without credentials"), "{said}");
    }
    let (is_done, said) = as_user(scratch.path(), deploy);
    assert!(is_done, "{said}");
    assert_answers(&daemon, "pulled");
    // It was for that once.
    let (is_done, said) = as_user(nobody.path(), pull);
    assert!(!is_done && said.contains("without credentials"), "{said}");
    let (is_done, said) = as_user(scratch.path(), pull);
    assert!(is_done, "{said}");
    // What cannot be read is said, and another user's business.
    fs::write(nobody.path().join("config.json"), "{").expect("writable");
    let (is_done, said) = as_user(nobody.path(), &["deploy", "again", "--image", "httpd"]);
    assert!(
        is_done && said.contains("warning") && said.contains("config.json"),
        "{said}"
    );
}

fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An OCI layout in the folder `layout`: an index, named 1, of the image for this machine and of one for another, both with the same
/// layer. The index's digest.
fn write_index(daemon: &Daemon, scratch: &Path) -> String {
    let layout = scratch.join("layout");
    daemon.spore_ok(&["image", "export", "httpd", &layout.display().to_string()]);
    let blob = |bytes: &[u8]| {
        let digest = digest_of(bytes);
        fs::write(layout.join("blobs/sha256").join(&digest), bytes).expect("writable");
        (format!("sha256:{digest}"), bytes.len())
    };
    let read = |digest: &str| -> Value {
        let path = layout
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"));
        serde_json::from_slice(&fs::read(path).expect("it was exported")).expect("it is JSON")
    };
    let path = layout.join("index.json");
    let mut top: Value = serde_json::from_slice(&fs::read(&path).expect("it was exported")).expect("JSON");
    let mut here = top["manifests"][0].clone();
    here.as_object_mut().expect("a descriptor").remove("annotations");
    here["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    let mut manifest = read(here["digest"].as_str().expect("a digest"));
    let mut config = read(manifest["config"]["digest"].as_str().expect("a digest"));
    config["architecture"] = "arm64".into();
    let (digest, bytes) = blob(config.to_string().as_bytes());
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = bytes.into();
    let (digest, bytes) = blob(manifest.to_string().as_bytes());
    let mut there = here.clone();
    there["digest"] = digest.into();
    there["size"] = bytes.into();
    there["platform"]["architecture"] = "arm64".into();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [here, there],
    });
    let (digest, bytes) = blob(index.to_string().as_bytes());
    top["manifests"] = serde_json::json!([{
        "mediaType": index["mediaType"],
        "digest": digest,
        "size": bytes,
        "annotations": {"org.opencontainers.image.ref.name": "1"},
    }]);
    fs::write(&path, top.to_string()).expect("writable");
    digest
}

fn an_index_is_pushed_whole_if_it_is_stored_whole() {
    if !has_tools(&["docker-registry", "skopeo"]) {
        return;
    }
    let (registry, scratch) = (Registry::start(), folder());
    let (daemon, other) = (daemon(&[], &[]), daemon(&[], &[]));
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let index = write_index(&daemon, scratch.path());
    let at = |name: &str| format!("{}/{name}", registry.address());
    let copy = |target: &str| {
        let layout = format!("oci:{}:1", scratch.path().join("layout").display());
        let options = ["copy", "-q", "--all", "--dest-tls-verify=false"];
        skopeo(&[&options[..], &[&layout, target]].concat(), scratch.path());
    };
    let raw = |name: &str| {
        let docker = format!("docker://{name}");
        skopeo(
            &["inspect", "--raw", "--tls-verify=false", &docker],
            scratch.path(),
        )
    };
    // Pushed here with all of its images, it goes on whole.
    copy(&format!("docker://{}/several:1", daemon.address()));
    let pushed = daemon.spore_ok(&["image", "push", "several:1", &at("several:1")]);
    assert!(pushed.contains(&index), "{pushed}");
    assert_eq!(format!("sha256:{}", digest_of(&raw(&at("several:1")))), index);
    // A pull elsewhere takes the image for that machine, and its push says what is missing.
    let pull = ["image", "pull", &at("several:1")];
    other.spore_ok(&pull);
    let part = other.spore(&["image", "push", &at("several:1"), &at("part:1")]);
    let said = String::from_utf8_lossy(&part.stderr).into_owned();
    assert!(part.status.success(), "{said}");
    assert!(
        said.contains("linux/arm64") && said.contains("--all-platforms"),
        "{said}"
    );
    let kept: Value = serde_json::from_slice(&raw(&at("part:1"))).expect("it is JSON");
    assert!(kept["layers"].is_array(), "it is that of an image: {kept}");
    // With all of them, it is the same again.
    other.spore_ok(&[&pull[..], &["--all-platforms"]].concat());
    let whole = other.spore_ok(&["image", "push", &at("several:1"), &at("whole:1")]);
    assert!(whole.contains(&index), "{whole}");
    let target = format!("oci:{}:1", scratch.path().join("back").display());
    let options = ["copy", "-q", "--all", "--src-tls-verify=false"];
    let source = format!("docker://{}", at("whole:1"));
    skopeo(&[&options[..], &[&source, &target]].concat(), scratch.path());
    other.spore_ok(&["deploy", "several", "--image", &at("several:1")]);
    assert_answers(&other, "several");
    assert_whole(&other);
}

fn names_that_were_written_out_are_short_ones() {
    if !has_tools(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let alias = format!("short={}/team/long", registry.address());
    let daemon = daemon(&["--alias", &alias], &[]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.spore_ok(&[
        "image",
        "push",
        "httpd",
        &format!("{}/team/long:2", registry.address()),
    ]);
    // As other tools of OpenFaaS write what was pushed here, and what is an alias; docker.io itself is nowhere here.
    for (name, image) in [
        ("own", "docker.io/library/httpd:latest"),
        ("bare", "docker.io/httpd"),
        ("alias", "docker.io/library/short:2"),
    ] {
        daemon.spore_ok(&["deploy", name, "--image", image]);
        assert_answers(&daemon, name);
    }
    assert_eq!(
        inspect(&daemon, "docker.io/library/httpd")["digest"],
        inspect(&daemon, "httpd")["digest"]
    );
    let error = refused(&daemon, &["deploy", "other", "--image", "quay.io/library/httpd"]);
    assert!(error.contains("quay.io/library/httpd"), "{error}");
}

fn a_registry_is_believed_by_its_certificate() {
    if !has_tools(&["docker-registry", "openssl"]) {
        return;
    }
    let registry = Registry::start_with_tls();
    let mirror = format!("docker.io=https://localhost:{}", registry.address().port());
    let certificate = registry.certificate();
    let trusting = daemon(&["--mirror", &mirror], &[("SSL_CERT_FILE", &certificate)]);
    trusting.deploy("httpd", &program::build("httpd"), &[]);
    trusting.spore_ok(&["image", "push", "httpd", "team/httpd:1"]);
    let careful = daemon(&["--mirror", &mirror], &[]);
    let error = refused(&careful, &["image", "pull", "team/httpd:1"]);
    assert!(
        error.contains("cannot be reached") && error.contains("certificate"),
        "{error}"
    );
    let error = refused(
        &careful,
        &[
            "image",
            "pull",
            &format!("localhost:{}/team/httpd:1", registry.address().port()),
        ],
    );
    assert!(
        error.contains("400 Bad Request"),
        "loopback is spoken to in plain HTTP: {error}"
    );
    trusting.spore_ok(&["deploy", "pulled", "--image", "team/httpd:1"]);
    assert_answers(&trusting, "pulled");
}

fn mirrors_and_aliases_stand_in() {
    if !has_tools(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let mirror = format!("docker.io={}", registry.address());
    let alias = format!("short={}/team/long", registry.address());
    let daemon = daemon(&["--mirror", &mirror, "--alias", &alias], &[]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    for name in ["library/tiny:latest", "team/long:2"] {
        daemon.spore_ok(&[
            "image",
            "push",
            "httpd",
            &format!("{}/{name}", registry.address()),
        ]);
    }
    daemon.spore_ok(&["deploy", "a", "--image", "tiny"]);
    daemon.spore_ok(&["deploy", "b", "--image", "short:2"]);
    assert_answers(&daemon, "a");
    assert_answers(&daemon, "b");
    let list = daemon.spore_ok(&["image", "list"]);
    assert!(list.contains("docker.io/library/tiny:latest"), "{list}");
}

fn what_others_copy_is_what_we_store() {
    if !has_tools(&["skopeo"]) {
        return;
    }
    let (scratch, daemon) = (folder(), daemon(&[], &[]));
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let own = inspect(&daemon, "httpd")["digest"].clone();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    daemon.spore_ok(&["image", "export", "httpd", &at("ours.tar")]);
    daemon.spore_ok(&["image", "export", "httpd", &at("ours")]);
    for source in [
        format!("oci-archive:{}", at("ours.tar")),
        format!("oci:{}", at("ours")),
    ] {
        let theirs = skopeo(&["inspect", &source], scratch.path());
        let theirs: Value = serde_json::from_slice(&theirs).expect("it is JSON");
        assert_eq!(theirs["Digest"], own, "{source}");
    }
    // What `docker save` would write, made by others from what `docker load` would read.
    let (from, to) = (
        format!("docker-archive:{}", at("ours.tar")),
        format!("docker-archive:{}:saved:1", at("theirs.tar")),
    );
    skopeo(&["copy", "-q", &from, &to], scratch.path());
    assert_eq!(
        daemon.spore_ok(&["image", "import", &at("theirs.tar"), "--name", "docker"]),
        "docker:latest imported\n"
    );
    skopeo(
        &["copy", "-q", &from, &format!("oci:{}:v1", at("layout"))],
        scratch.path(),
    );
    assert_eq!(
        daemon.spore_ok(&["image", "import", &at("layout")]),
        "layout:v1 imported\n"
    );
    daemon.spore_ok(&["deploy", "a", "--image", "docker"]);
    daemon.spore_ok(&["deploy", "b", "--image", "layout:v1"]);
    assert_answers(&daemon, "a");
    assert_answers(&daemon, "b");
    // Compressed by zstd, on the way from one to the other.
    let (from, to) = (
        format!("oci-archive:{}", at("ours.tar")),
        format!("oci:{}:1", at("zstd")),
    );
    let format = ["--dest-compress-format", "zstd", "--dest-compress"];
    skopeo(
        &[&["copy", "-q"], &format[..], &[&from, &to]].concat(),
        scratch.path(),
    );
    daemon.spore_ok(&["image", "import", &at("zstd")]);
    let kind = inspect(&daemon, "zstd:1")["layers"][0]["mediaType"].clone();
    assert!(
        kind.as_str().is_some_and(|kind| kind.ends_with("+zstd")),
        "{kind}"
    );
    daemon.spore_ok(&["deploy", "c", "--image", "zstd:1"]);
    assert_answers(&daemon, "c");
    let error = refused(&daemon, &["image", "export", "httpd", &at("ours")]);
    assert!(error.contains("there already"), "{error}");
    let error = refused(
        &daemon,
        &["image", "import", scratch.path().to_str().expect("UTF-8")],
    );
    assert!(error.contains("neither an OCI image layout nor"), "{error}");
    assert_whole(&daemon);
}

/// Path, kind and content of everything below a folder.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let metadata = path.symlink_metadata().expect("it is there");
            let content = if metadata.is_dir() {
                open.push(path);
                "folder".to_owned()
            } else if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).expect("a link").display())
            } else {
                format!("{:?}", fs::read(&path).expect("readable"))
            };
            found.insert(name, format!("{:o} {content}", metadata.permissions().mode()));
        }
    }
    found
}

fn an_exported_root_unpacks_to_the_same_tree() {
    if !has_tools(&["umoci"]) {
        return;
    }
    let (scratch, daemon) = (folder(), daemon(&[], &[]));
    let root = scratch.path().join("root");
    for name in ["bin", "etc/deep/er", "empty"] {
        fs::create_dir_all(root.join(name)).expect("writable");
    }
    fs::copy(program::build("httpd"), root.join("bin/httpd")).expect("writable");
    fs::write(root.join("etc/deep/er/text"), "hello").expect("writable");
    fs::set_permissions(root.join("etc/deep/er/text"), fs::Permissions::from_mode(0o640))
        .expect("it is ours");
    std::os::unix::fs::symlink("../bin/httpd", root.join("etc/link")).expect("writable");
    let path = root.to_str().expect("UTF-8");
    daemon.spore_ok(&["deploy", "web", "--rootfs", path, "--entrypoint", "/bin/httpd"]);
    let layout = scratch.path().join("layout").display().to_string();
    daemon.spore_ok(&["image", "export", "web", &layout]);
    let mut arguments = vec!["unpack", "--image"];
    let image = format!("{layout}:latest");
    arguments.extend([image.as_str(), "bundle"]);
    if !is_superuser() {
        arguments.insert(1, "--rootless");
    }
    run("umoci", &arguments, scratch.path());
    assert_eq!(tree(&scratch.path().join("bundle/rootfs")), tree(&root));
}

fn is_superuser() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

fn images_of_other_builders_run() {
    let (scratch, daemon) = (folder(), daemon(&[], &[]));
    fs::copy(program::build("httpd"), scratch.path().join("httpd")).expect("writable");
    if has_tools(&["umoci"]) {
        let umoci = |arguments: &[&str]| drop(run("umoci", arguments, scratch.path()));
        umoci(&["init", "--layout", "umoci"]);
        umoci(&["new", "--image", "umoci:1"]);
        umoci(&[
            "insert",
            "--rootless",
            "--image",
            "umoci:1",
            "httpd",
            "/srv/httpd",
        ]);
        umoci(&["insert", "--rootless", "--image", "umoci:1", "httpd", "/srv/copy"]);
        let settings = ["--config.entrypoint", "./httpd", "--config.workingdir", "/srv"];
        let more = [
            "--config.env",
            "LEVEL=deep",
            "--config.exposedports",
            "9321/tcp",
            "--config.user",
            "1000:1000",
        ];
        umoci(&[&["config", "--image", "umoci:1"], &settings[..], &more].concat());
        let layout = scratch.path().join("umoci").display().to_string();
        assert_eq!(
            daemon.spore_ok(&["image", "import", &layout]),
            "umoci:1 imported\n"
        );
        daemon.spore_ok(&["deploy", "by-umoci", "--image", "umoci:1"]);
        let environment = daemon.get("/function/by-umoci/environment").text();
        assert!(
            environment.contains("LEVEL=deep\n") && environment.contains("PORT=9321\n"),
            "{environment}"
        );
        let shown = daemon.spore_ok(&["image", "inspect", "umoci:1"]);
        for part in [
            "./httpd",
            "/srv",
            "LEVEL=deep",
            "9321/tcp",
            "1000:1000",
            "by-umoci",
            "root.erofs",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
    if has_tools(&["buildah"]) {
        let at = |name: &str| scratch.path().join(name).display().to_string();
        let (root, state) = (at("storage"), at("state"));
        let buildah = |arguments: &[&str]| {
            let own = ["--root", &root, "--runroot", &state, "--storage-driver", "vfs"];
            let output = run("buildah", &[&own[..], arguments].concat(), scratch.path());
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let container = buildah(&["from", "scratch"]);
        buildah(&["copy", &container, "httpd", "/usr/bin/httpd"]);
        buildah(&[
            "config",
            "--entrypoint",
            r#"["httpd"]"#,
            "--port",
            "9000",
            &container,
        ]);
        buildah(&[
            "commit",
            "-q",
            &container,
            &format!("oci-archive:{}:built", at("buildah.tar")),
        ]);
        daemon.spore_ok(&["image", "import", &at("buildah.tar")]);
        daemon.spore_ok(&["deploy", "by-buildah", "--image", "buildah:built"]);
        assert_answers(&daemon, "by-buildah");
        // And by its own push, as decision 0002 has it.
        let target = format!("docker://{}/pushed:1", daemon.address());
        buildah(&["commit", "-q", "--tls-verify=false", &container, &target]);
        daemon.spore_ok(&["deploy", "pushed", "--image", "pushed:1"]);
        assert_answers(&daemon, "pushed");
    }
    assert_whole(&daemon);
}

fn images_in_use_stay_and_others_go() {
    let daemon = daemon(&[], &[]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let error = refused(&daemon, &["image", "remove", "httpd"]);
    assert!(error.contains("is used by httpd: remove or update"), "{error}");
    daemon.spore_ok(&["image", "prune", "--unused-for", "0s"]);
    assert_answers(&daemon, "httpd");
    // Another version under the same name: the first one is nobody's any more.
    daemon.deploy("httpd", &program::build("faults"), &[]);
    let list: Value = serde_json::from_str(&daemon.spore_ok(&["image", "list", "--json"])).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    let pruned: Value = serde_json::from_str(&daemon.spore_ok(&["image", "prune", "--json"])).expect("JSON");
    assert_eq!(pruned["blobs"], 0, "what was just pushed may be somebody's");
    let pruned = daemon.spore_ok(&["image", "prune", "--unused-for", "0s", "--json"]);
    let pruned: Value = serde_json::from_str(&pruned).expect("JSON");
    assert_eq!(
        (&pruned["blobs"], &pruned["derived"]),
        (&3.into(), &1.into()),
        "{pruned}"
    );
    assert_whole(&daemon);
    daemon.spore_ok(&["remove", "httpd"]);
    let removed = daemon.spore_ok(&["image", "remove", "httpd"]);
    assert!(removed.starts_with("httpd:latest removed, "), "{removed}");
    let blobs = fs::read_dir(daemon.data().join("blobs/sha256")).expect("it is there");
    let derived = fs::read_dir(daemon.data().join("derived")).expect("it is there");
    assert_eq!((blobs.count(), derived.count()), (0, 0), "nothing is left");
    let error = refused(&daemon, &["image", "inspect", "httpd"]);
    assert!(error.contains("not stored here"), "{error}");
}

fn a_unikernel_of_another_project_is_stored_and_shown() {
    if !has_tools(&["umoci"]) {
        return;
    }
    let (scratch, daemon) = (folder(), daemon(&[], &[]));
    fs::write(scratch.path().join("kernel"), "no program of Linux's").expect("writable");
    let umoci = |arguments: &[&str]| drop(run("umoci", arguments, scratch.path()));
    umoci(&["init", "--layout", "foreign"]);
    umoci(&["new", "--image", "foreign:1"]);
    umoci(&[
        "insert",
        "--rootless",
        "--image",
        "foreign:1",
        "kernel",
        "/unikernel/app.hvt",
    ]);
    umoci(&["tag", "--image", "foreign:1", "file"]);
    let label = |name: &str, value: &str| format!("com.urunc.unikernel.{name}={value}");
    let labels = [
        label("unikernelType", "rumprun"),
        label("hypervisor", "hvt"),
        label("binary", "/unikernel/app.hvt"),
    ];
    let options = labels.iter().flat_map(|label| ["--config.label", label.as_str()]);
    let arguments: Vec<_> = ["config", "--image", "foreign:1", "--config.cmd", "app"]
        .into_iter()
        .chain(options)
        .collect();
    umoci(&arguments);
    // The same in the file that engines keep which drop labels.
    let encoded = r#"{"com.urunc.unikernel.unikernelType":"dW5pa3JhZnQ=","com.urunc.unikernel.hypervisor":"cWVtdQ==","com.urunc.unikernel.binary":"L2tlcm5lbA=="}"#;
    fs::write(scratch.path().join("urunc.json"), encoded).expect("writable");
    umoci(&[
        "insert",
        "--rootless",
        "--image",
        "foreign:file",
        "urunc.json",
        "/urunc.json",
    ]);
    umoci(&["config", "--image", "foreign:file", "--config.cmd", "app"]);
    daemon.spore_ok(&[
        "image",
        "import",
        &scratch.path().join("foreign").display().to_string(),
    ]);
    for (image, kind) in [
        ("foreign:1", "a rumprun unikernel for the monitor hvt"),
        ("foreign:file", "a unikraft unikernel for the monitor qemu"),
    ] {
        let shown = daemon.spore_ok(&["image", "inspect", image]);
        assert!(shown.contains(kind), "{shown}");
        let error = refused(&daemon, &["deploy", "f", "--image", image]);
        assert!(
            error.contains(kind) && error.contains("`--sandbox foreign`"),
            "{error}"
        );
    }
    assert_whole(&daemon);
}

fn damage_is_found() {
    let daemon = daemon(&[], &[]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let layer = inspect(&daemon, "httpd")["layers"][0]["digest"].clone();
    let layer = layer.as_str().expect("a digest").to_owned();
    let path = daemon
        .data()
        .join("blobs/sha256")
        .join(layer.trim_start_matches("sha256:"));
    let bytes = fs::read(&path).expect("it is there");
    fs::write(&path, &bytes[1..]).expect("it is ours");
    let output = daemon.spore(&["image", "check"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && report.contains(&format!("blob {layer} is damaged")),
        "{report}"
    );
    fs::remove_file(&path).expect("it is there");
    let output = daemon.spore(&["image", "check", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = format!("image httpd:latest (used by httpd): its part {layer} is not stored");
    assert_eq!(report["problems"], serde_json::json!([expected]));
    fs::write(&path, &bytes).expect("writable");
    assert_whole(&daemon);
}
