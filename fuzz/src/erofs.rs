//! Root file systems, as the library OS reads them.

use std::process::{Command, Stdio};

/// Where inodes begin in the small image that is the first seed.
const INODES: usize = 0x400 + 128;

pub(crate) fn run(image: &[u8]) {
    spore_libos::fuzzing::erofs_image(image);
}

/// A small image that is always there, and images by `mkfs.erofs` where it is installed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![small()];
    let options: [&[&str]; 4] = [
        &[],
        &["-b512"],
        &["-Enoinline_data,force-inode-extended"],
        &["-Eforce-inode-compact", "--chunksize=4096"],
    ];
    seeds.extend(options.iter().filter_map(|options| made(options)));
    seeds
}

/// A folder with one file of each kind, made into an image; nothing if there is no tool for that.
fn made(options: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().ok()?;
    let root = folder.path().join("root");
    let many = root.join("many");
    std::fs::create_dir_all(&many).ok()?;
    std::fs::write(root.join("small"), b"some text").ok()?;
    std::fs::write(root.join("large"), vec![7; 5000]).ok()?;
    std::fs::hard_link(root.join("small"), root.join("second")).ok()?;
    std::os::unix::fs::symlink("small", root.join("link")).ok()?;
    for number in 0..40 {
        std::fs::write(many.join(format!("file-with-a-rather-long-name-{number}")), b"").ok()?;
    }
    let image = folder.path().join("image");
    let made = Command::new("mkfs.erofs")
        .args(options)
        .arg("-T1")
        .args([&image, &root])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    made.success().then(|| std::fs::read(image).ok()).flatten()
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Blocks of 512 bytes: a root directory whose only file is in chunks.
fn small() -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    put(&mut image, 0x400, &0xe0f5_e1e2_u32.to_le_bytes());
    image[0x400 + 12] = 9;
    put(
        &mut image,
        0x400 + 14,
        &(((INODES - 0x400) / 32) as u16).to_le_bytes(),
    );
    put(&mut image, 0x400 + 40, &2_u32.to_le_bytes());
    put(&mut image, 0x400 + 80, &4_u32.to_le_bytes());
    // The root, extended, its entries in block 5.
    let entries: [(&[u8], u64, u8); 3] = [(b".", 4, 2), (b"..", 4, 2), (b"file", 6, 1)];
    let mut names_at = entries.len() * 12;
    for (index, (name, inode, kind)) in entries.into_iter().enumerate() {
        let at = 0xa00 + index * 12;
        put(&mut image, at, &inode.to_le_bytes());
        put(&mut image, at + 8, &(names_at as u16).to_le_bytes());
        image[at + 10] = kind;
        put(&mut image, 0xa00 + names_at, name);
        names_at += name.len();
    }
    inode(&mut image, INODES, 0, 0o040_755, names_at as u64, 5);
    inode(&mut image, INODES + 64, 4, 0o100_644, 900, 0);
    put(&mut image, INODES + 128, &[6, 0, 0, 0, 7, 0, 0, 0]);
    image
}

fn inode(image: &mut [u8], at: usize, layout: u16, mode: u16, size: u64, pointer: u32) {
    put(image, at, &(layout << 1 | 1).to_le_bytes());
    put(image, at + 4, &mode.to_le_bytes());
    put(image, at + 8, &size.to_le_bytes());
    put(image, at + 16, &pointer.to_le_bytes());
    put(image, at + 44, &1_u32.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_images() {
        assert!(spore_libos::fuzzing::erofs_image(&small()) >= 2);
        for image in seeds() {
            assert!(spore_libos::fuzzing::erofs_image(&image) >= 2);
        }
    }
}
