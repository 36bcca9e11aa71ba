//! Images made by the real tool. `scripts/test` installs it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use spore_rootfs::{Owners, cached_image, is_intact, make_image};

fn tree(root: &Path) {
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::write(root.join("etc/name"), "spore\n").unwrap();
    fs::write(root.join("etc/deep/block"), [7; 4096 + 1]).unwrap();
    fs::hard_link(root.join("etc/name"), root.join("etc/other")).unwrap();
    symlink("etc/name", root.join("link")).unwrap();
    fs::set_permissions(root.join("etc/name"), fs::Permissions::from_mode(0o640)).unwrap();
}

fn bytes(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let images = [(); 2].map(|()| {
        let target = tempfile::NamedTempFile::new().unwrap();
        make_image(folder.path(), target.path(), Owners::Root).unwrap();
        assert!(is_intact(target.as_file()));
        fs::read(target.path()).unwrap()
    });
    assert!(images[0] == images[1]);
    // Every file's bytes lie at the start of a block, as a guest can map them.
    let starts = |content: &[u8]| {
        images[0]
            .chunks(4096)
            .filter(|block| block.starts_with(content))
            .count()
    };
    assert_eq!(starts(b"spore\n\0\0"), 1, "one inode with two names");
    assert_eq!(starts(&[7; 4096]), 1);
    assert_eq!(starts(&[7, 0, 0]), 1);
}

#[test]
fn an_image_is_made_again_only_if_something_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    tree(folder.path());
    let image = || cached_image(folder.path(), Some(cache.path()), Owners::Kept).unwrap();
    let files = || fs::read_dir(cache.path()).unwrap().count();
    let first = bytes(&image());
    assert!(bytes(&image()) == first);
    assert_eq!(files(), 1);
    for number in 0..20 {
        fs::write(folder.path().join("etc/more"), format!("{number}")).unwrap();
        assert!(bytes(&image()) != first);
    }
    assert_eq!(files(), 8, "old ones are removed");
}

#[test]
fn damaged_images_are_told_apart_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    tree(folder.path());
    let image = || cached_image(folder.path(), Some(cache.path()), Owners::Kept).unwrap();
    let first = bytes(&image());
    let path = fs::read_dir(cache.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let file = File::options().write(true).read(true).open(&path).unwrap();
    file.set_len(first.len() as u64 - 4096).unwrap();
    assert!(!is_intact(&file));
    assert!(bytes(&image()) == first);
    let file = File::options().write(true).read(true).open(&path).unwrap();
    file.write_all_at(b"XXXX", 1024).unwrap();
    assert!(!is_intact(&file));
    assert!(bytes(&image()) == first);
}

#[test]
fn without_a_cache_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let image = cached_image(folder.path(), None, Owners::Root).unwrap();
    assert!(is_intact(&image));
    let links = std::os::unix::fs::MetadataExt::nlink(&image.metadata().unwrap());
    assert_eq!(links, 0);
}
