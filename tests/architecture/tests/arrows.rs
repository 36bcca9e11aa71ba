//! Fails when a crate depends on one that it must not know.
//!
//! ```text
//! apps ──> host ──> abi <── guest        tests, bench, fuzz ──> what they test
//! ```
//!
//! The table below is the architecture: a new crate gets a row, and a new arrow is a decision to be defended in
//! review. `host/monitor` embeds the built guest image by its build script, which is not a cargo dependency.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Each crate by its folder, and the crates of this repository that its code may use (tests of a crate excepted).
const ARROWS: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("guest/machine", &["abi"]),
    ("guest/libos", &["abi", "guest/machine"]),
    ("guest/image", &["abi", "guest/machine", "guest/libos"]),
    ("guest/init", &["abi"]),
    // The contract knows nobody; a sandbox knows the contract and what it is made of, never another sandbox.
    ("host/sandbox", &[]),
    // Pure, and used on either side of a function's log.
    ("host/allowance", &[]),
    ("host/monitor", &["abi", "host/allowance"]),
    ("host/cgroups", &["host/sandbox"]),
    (
        "host/sandbox-unikernel",
        &["abi", "host/cgroups", "host/monitor", "host/sandbox"],
    ),
    (
        "host/sandbox-container",
        &["host/allowance", "host/cgroups", "host/sandbox"],
    ),
    (
        "host/sandbox-vmm",
        &[
            "abi",
            "host/allowance",
            "host/cgroups",
            "host/monitor",
            // Kernels of unikernels are taken out of their images.
            "host/rootfs",
            "host/sandbox",
            // What runs some of them, in the same process as the launcher.
            "host/solo5",
        ],
    ),
    // It knows nobody: a guest, KVM, and three descriptors.
    ("host/solo5", &[]),
    ("host/pool", &["host/sandbox"]),
    ("host/nats", &[]),
    ("host/queue", &["host/nats", "host/store"]),
    ("host/rootfs", &["abi"]),
    ("host/store", &["host/rootfs", "host/sandbox"]),
    ("host/registry", &["host/store"]),
    ("host/trigger", &[]),
    (
        "host/gateway",
        &[
            "host/nats",
            "host/pool",
            "host/queue",
            "host/registry",
            "host/sandbox",
            "host/store",
            "host/trigger",
        ],
    ),
    ("host/builder", &[]),
    ("host/client", &[]),
    // It measures whoever keeps the contracts that users see, so it knows nobody.
    ("host/evaluation", &[]),
    (
        "apps/spore",
        &[
            "host/builder",
            "host/client",
            "host/evaluation",
            "host/gateway",
            "host/monitor",
            "host/pool",
            "host/registry",
            "host/rootfs",
            "host/sandbox",
            "host/sandbox-container",
            "host/sandbox-unikernel",
            "host/sandbox-vmm",
            "host/store",
        ],
    ),
    ("tests/architecture", &[]),
    ("tests/harness", &[]),
    ("tests/e2e", &[]),
    ("tests/conformance", &[]),
    ("tests/faults", &[]),
    ("tests/real", &["tests/harness"]),
    ("tests/linux", &[]),
    ("tests/openfaas", &[]),
    ("tests/ui", &[]),
    ("bench", &["host/evaluation", "tests/harness", "tests/real"]),
    // One target for each untrusted input, wherever it is read.
    (
        "fuzz",
        &[
            "guest/libos",
            "guest/machine",
            "host/evaluation",
            "host/gateway",
            "host/monitor",
            "host/registry",
            "host/sandbox",
            "host/sandbox-unikernel",
            "host/sandbox-vmm",
            "host/solo5",
            "host/store",
            "host/trigger",
        ],
    ),
];

/// Crates that may hold unsafe code, each for a reason that its own documentation gives.
const UNSAFE_CRATES: &[&str] = &[
    "guest/machine",
    "guest/image",
    // One control call.
    "guest/init",
    "host/monitor",
    "host/solo5",
];

/// What the monitor must not know, wherever in its dependency tree it would come from.
const FOREIGN_TO_MONITOR: &[&str] = &["axum", "http", "hyper", "reqwest", "serde_json", "tower"];

fn metadata_of(manifest: &str) -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join(manifest))
        .exec()
        .expect("cargo metadata succeeds")
}

fn root() -> std::path::PathBuf {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the repository is still there")
}

/// The folder of one of our crates, relative to the repository; `None` for crates from elsewhere.
fn folder(manifest_path: &str) -> Option<String> {
    let folder = std::path::Path::new(manifest_path)
        .parent()?
        .canonicalize()
        .ok()?;
    Some(folder.strip_prefix(root()).ok()?.to_str()?.to_owned())
}

/// All crates of the repository: the workspace, and the guest's programs that stand outside it.
fn own_packages() -> BTreeMap<String, Package> {
    let image = metadata_of("guest/image/Cargo.toml");
    let init = metadata_of("guest/init/Cargo.toml");
    let workspace = metadata_of("Cargo.toml");
    let packages = workspace
        .workspace_packages()
        .into_iter()
        .chain(image.workspace_packages())
        .chain(init.workspace_packages());
    packages
        .map(|package| {
            (
                folder(package.manifest_path.as_str()).expect("ours"),
                package.clone(),
            )
        })
        .collect()
}

/// The crates of this repository that a crate names, with or without its dev-dependencies.
fn own_dependencies(package: &Package, with_tests: bool) -> BTreeSet<String> {
    let dependencies = package.dependencies.iter();
    dependencies
        .filter(|dependency| with_tests || dependency.kind != DependencyKind::Development)
        .filter_map(|dependency| folder(dependency.path.as_ref()?.join("Cargo.toml").as_str()))
        .collect()
}

#[test]
fn every_arrow_between_crates_is_in_the_table() {
    let mut wrong = Vec::new();
    for (name, package) in own_packages() {
        let Some((_, allowed)) = ARROWS.iter().find(|(folder, _)| *folder == name) else {
            wrong.push(format!("{name} has no row in ARROWS"));
            continue;
        };
        for used in own_dependencies(&package, false) {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name} must not depend on {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "wrong arrows:\n{}", wrong.join("\n"));
}

#[test]
fn guest_and_host_do_not_know_each_other_in_tests_either() {
    for (name, package) in own_packages() {
        for used in own_dependencies(&package, true) {
            let crosses = (name.starts_with("guest/") && used.starts_with("host/"))
                || (name.starts_with("host/") && used.starts_with("guest/"));
            assert!(
                !crosses,
                "{name} must not depend on {used}: what both need belongs in abi"
            );
        }
    }
}

#[test]
fn the_monitor_knows_no_http_and_no_json() {
    let metadata = metadata_of("Cargo.toml");
    let resolve = metadata
        .resolve
        .as_ref()
        .expect("cargo metadata resolves dependencies");
    let name_of = |id: &PackageId| metadata[id].name.to_string();
    let monitor = metadata
        .packages
        .iter()
        .find(|package| package.name == "spore-monitor")
        .expect("it is a member");
    let mut reached = BTreeSet::from([monitor.id.clone()]);
    let mut open = vec![monitor.id.clone()];
    while let Some(id) = open.pop() {
        let node = &resolve[&id];
        let normal = node.deps.iter().filter(|dependency| {
            dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
        });
        open.extend(
            normal
                .filter(|dependency| reached.insert(dependency.pkg.clone()))
                .map(|found| found.pkg.clone()),
        );
    }
    let foreign: Vec<_> = reached
        .iter()
        .map(name_of)
        .filter(|name| FOREIGN_TO_MONITOR.contains(&&**name))
        .collect();
    assert!(
        foreign.is_empty(),
        "host/monitor must not depend on {foreign:?}, not through others either"
    );
}

#[test]
fn unsafe_code_is_forbidden_outside_the_named_crates() {
    for (name, package) in own_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("manifests are readable");
        let manifest: toml::Table = manifest.parse().expect("cargo read it already");
        let lints = manifest.get("lints").and_then(|lints| lints.as_table());
        let lints = lints.unwrap_or_else(|| panic!("{name}/Cargo.toml needs [lints] with workspace = true"));
        if lints.get("workspace").and_then(|inherits| inherits.as_bool()) == Some(true) {
            continue; // the workspace forbids it
        }
        let own = lints.get("rust").and_then(|rust| rust.get("unsafe_code"));
        if own.and_then(|level| level.as_str()) == Some("forbid") {
            continue; // a workspace of its own, which forbids it too
        }
        assert!(
            UNSAFE_CRATES.contains(&name.as_str()),
            "{name}/Cargo.toml must say [lints] workspace = true"
        );
        for (group, lint) in [
            ("rust", "unsafe_op_in_unsafe_fn"),
            ("clippy", "undocumented_unsafe_blocks"),
        ] {
            let level = lints
                .get(group)
                .and_then(|group| group.get(lint))
                .and_then(|level| level.as_str());
            assert_eq!(level, Some("deny"), "{name}/Cargo.toml must deny {lint}");
        }
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is readable");
    assert!(
        workspace.contains("unsafe_code = \"forbid\""),
        "the workspace lints forbid unsafe code"
    );
}
