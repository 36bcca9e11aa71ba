//! The logic of the files, with folders in place of hierarchies: a kernel has the files in each folder, and here they
//! appear when they are written.

use super::*;

use tempfile::TempDir;

fn hierarchy(version: Version, controllers: &[Controller], parent: &Path) -> Hierarchy {
    Hierarchy {
        version,
        controllers: controllers.to_vec(),
        parent: parent.to_path_buf(),
        home: parent.to_path_buf(),
        is_root: true,
    }
}

fn version_one(folder: &Path) -> Vec<Hierarchy> {
    Controller::ALL
        .map(|controller| hierarchy(Version::One, &[controller], &folder.join(controller.name())))
        .into()
}

fn version_two(folder: &Path) -> Vec<Hierarchy> {
    vec![hierarchy(Version::Two, &Controller::LIMITS, folder)]
}

fn text(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Removes the files that a kernel would have taken with the folder.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn folder_of(group: &Group, controller: Controller) -> PathBuf {
    let mut places = group.places.iter();
    places
        .find(|place| place.controllers.contains(&controller))
        .unwrap()
        .folder
        .clone()
}

#[test]
fn limits_of_version_one_are_in_three_hierarchies() {
    let folder = TempDir::new().unwrap();
    let groups = Groups::within(&version_one(folder.path())).unwrap();
    let group = groups.make("1", 4).unwrap();
    group.limit(64 << 20, 500).unwrap();
    let memory = folder_of(&group, Controller::Memory);
    assert!(memory.starts_with(folder.path().join("memory/spore")));
    assert_eq!(text(&memory, "memory.limit_in_bytes"), (64 << 20).to_string());
    let processor = folder_of(&group, Controller::Processor);
    assert_eq!(text(&processor, "cpu.cfs_period_us"), "100000");
    assert_eq!(text(&processor, "cpu.cfs_quota_us"), "50000");
    assert_eq!(text(&folder_of(&group, Controller::Processes), "pids.max"), "4");
    assert!(
        groups
            .layers()
            .iter()
            .all(|layer| layer.name.ends_with("version 1"))
    );
}

#[test]
fn limits_of_version_two_are_in_one_and_controllers_are_passed_down() {
    let folder = TempDir::new().unwrap();
    let groups = Groups::within(&version_two(folder.path())).unwrap();
    let own = groups.places[0].folder.clone();
    for above in [folder.path(), own.parent().unwrap(), &own] {
        assert_eq!(text(above, "cgroup.subtree_control"), "+memory +cpu +pids");
    }
    let group = groups.make("1", 4).unwrap();
    group.limit(1 << 30, 2500).unwrap();
    let place = folder_of(&group, Controller::Memory);
    assert_eq!(text(&place, "memory.max"), (1 << 30).to_string());
    assert_eq!(text(&place, "memory.swap.max"), "0");
    assert_eq!(text(&place, "cpu.max"), "250000 100000");
    // The kernel takes no less than a millisecond.
    group.limit(1 << 30, 1).unwrap();
    assert_eq!(text(&place, "cpu.max"), "1000 100000");
}

#[test]
fn an_end_by_the_memory_limit_is_told_from_others() {
    let folder = TempDir::new().unwrap();
    for (hierarchies, file, none, one) in [
        (
            version_one(&folder.path().join("1")),
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        ),
        (
            version_two(&folder.path().join("2")),
            "memory.events",
            "low 0\nmax 7\noom 0\noom_kill 1\noom_group_kill 1\n",
            "low 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 1\n",
        ),
    ] {
        let groups = Groups::within(&hierarchies).unwrap();
        let group = groups.make("1", 4).unwrap();
        assert!(!group.was_out_of_memory());
        let place = folder_of(&group, Controller::Memory);
        fs::write(place.join(file), none).unwrap();
        assert!(!group.was_out_of_memory());
        fs::write(place.join(file), one).unwrap();
        // By another limit than its own, in version 1.
        fs::write(place.join("memory.failcnt"), "0\n").unwrap();
        assert_eq!(group.was_out_of_memory(), file == "memory.events");
        fs::write(place.join("memory.failcnt"), "3\n").unwrap();
        assert!(group.was_out_of_memory());
    }
}

#[test]
fn what_a_daemon_left_is_removed_and_what_one_has_is_not() {
    let folder = TempDir::new().unwrap();
    let hierarchies = version_one(folder.path());
    let alive = Groups::within(&hierarchies).unwrap();
    let used = alive.make("1", 4).unwrap();
    // A daemon that was killed leaves everything, without the lock.
    for hierarchy in &hierarchies {
        fs::create_dir_all(hierarchy.parent.join("spore/1-1/7")).unwrap();
    }
    let next = Groups::within(&[hierarchies[0].clone()]).unwrap();
    drop(next);
    empty(&folder_of(&used, Controller::Processes));
    assert!(alive.stale().remove());
    for hierarchy in &hierarchies {
        assert!(!hierarchy.parent.join("spore/1-1").exists(), "{hierarchy:?}");
    }
    assert!(used.places.iter().all(|place| place.folder.is_dir()));
    used.remove();
    drop(alive);
    assert!(!hierarchies[0].parent.join("spore").exists());
}

#[test]
fn without_a_hierarchy_the_reason_is_told() {
    let error = Groups::within(&[]).unwrap_err();
    let layers = missing_layers(&error);
    assert_eq!(layers.len(), 3);
    assert!(
        layers
            .iter()
            .all(|layer| layer.missing.as_deref().unwrap().contains("no hierarchy"))
    );
}

#[test]
fn a_group_is_held_and_let_go_where_the_kernel_has_the_means() {
    let folder = TempDir::new().unwrap();
    let groups = Groups::within(&version_one(folder.path())).unwrap();
    let group = groups.make("1", 4).unwrap();
    let holder = folder_of(&group, Controller::Freezer);
    for (is_held, expected) in [(true, "FROZEN"), (false, "THAWED"), (true, "FROZEN")] {
        group.hold(is_held).unwrap();
        assert_eq!(text(&holder, "freezer.state"), expected);
    }
    group.kill();
    assert_eq!(text(&holder, "freezer.state"), "THAWED", "or it would not end");

    let folder = TempDir::new().unwrap();
    let groups = Groups::within(&version_two(folder.path())).unwrap();
    let group = groups.make("1", 4).unwrap();
    group.hold(true).unwrap();
    assert_eq!(text(&folder_of(&group, Controller::Memory), "cgroup.freeze"), "1");

    let folder = TempDir::new().unwrap();
    let limits = &version_one(folder.path())[..3];
    let group = Groups::within(limits).unwrap().make("1", 4).unwrap();
    assert_eq!(group.hold(true).unwrap_err().kind(), io::ErrorKind::Unsupported);
}
