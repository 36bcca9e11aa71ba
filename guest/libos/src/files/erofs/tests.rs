//! Images made by `mkfs.erofs` where it is installed, and random damage.

extern crate std;

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::files::metadata::device_number;

struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.0.get(offset..offset.checked_add(buffer.len())?));
        part.map(|part| buffer.copy_from_slice(part)).is_some()
    }
}

/// A block of a directory with these entries, sorted.
fn directory_block(entries: &[(&[u8], u64, u8)]) -> Vec<u8> {
    let mut names_at = entries.len() * 12;
    let mut block = Vec::new();
    for (name, inode, file_type) in entries {
        block.extend_from_slice(&inode.to_le_bytes());
        block.extend_from_slice(&(names_at as u16).to_le_bytes());
        block.extend_from_slice(&[*file_type, 0]);
        names_at += name.len();
    }
    for (name, ..) in entries {
        block.extend_from_slice(name);
    }
    block
}

/// An extended inode.
fn inode(layout: u16, mode: u32, size: u64, pointer: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..2].copy_from_slice(&(layout << 1 | 1).to_le_bytes());
    bytes[4..6].copy_from_slice(&(mode as u16).to_le_bytes());
    bytes[8..16].copy_from_slice(&size.to_le_bytes());
    bytes[16..20].copy_from_slice(&pointer.to_le_bytes());
    bytes[32..40].copy_from_slice(&1_700_000_000_u64.to_le_bytes());
    bytes[44..48].copy_from_slice(&1_u32.to_le_bytes());
    bytes
}

const ROOT: u64 = 0;
const INLINE: u64 = 16;
const CHUNKS: u64 = 32;
const LINK: u64 = 48;

/// A small image with one file of each layout. Blocks: 0 superblock, 1 inodes, 2 root directory, 3 and 4 data.
fn image() -> Vec<u8> {
    let names: [(&[u8], u64, u8); 6] = [
        (b".", ROOT, 2),
        (b"..", ROOT, 2),
        (b"chunks", CHUNKS, 1),
        (b"device", 64, 3),
        (b"inline", INLINE, 1),
        (b"link", LINK, 7),
    ];
    let directory = directory_block(&names);
    let mut image = vec![0; 5 * 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(1024, &MAGIC.to_le_bytes());
    put(1024 + 12, &[12]);
    put(1024 + 16, &5_u64.to_le_bytes());
    put(1024 + 36, &5_u32.to_le_bytes());
    put(1024 + 40, &1_u32.to_le_bytes());
    put(1024 + 80, &4_u32.to_le_bytes());
    put(4096, &inode(0, 0o040_755, directory.len() as u64, 2));
    put(4096 + 512, &inode(2, 0o100_644, 4096 + 5, 3));
    put(4096 + 512 + 64, b"tail!");
    put(4096 + 1024, &inode(4, 0o100_600, 3 * 4096, 0));
    for (index, block) in [4_u32, u32::MAX, 3].iter().enumerate() {
        put(4096 + 1024 + 64 + index * 4, &block.to_le_bytes());
    }
    put(4096 + 1536, &inode(2, 0o120_777, 6, 0));
    put(4096 + 1536 + 64, b"inline");
    put(4096 + 2048, &inode(0, 0o020_666, 0, 0x103));
    put(2 * 4096, &directory);
    put(3 * 4096, &[b'3'; 4096]);
    put(4 * 4096, &[b'4'; 4096]);
    image
}

fn contents(image: &Image<Bytes>, name: &[u8]) -> Vec<u8> {
    let root = image.inode(image.root()).unwrap();
    let (number, _) = image.lookup(&root, name).unwrap().unwrap();
    let inode = image.inode(number).unwrap();
    let mut bytes = vec![0; inode.size as usize];
    assert_eq!(image.read(&inode, 0, &mut bytes), Ok(bytes.len()));
    bytes
}

#[test]
fn each_layout_is_read() {
    let image = Image::open(Bytes(image())).unwrap();
    let inline = contents(&image, b"inline");
    assert_eq!(
        (&inline[..4096], &inline[4096..]),
        (&[b'3'; 4096][..], &b"tail!"[..])
    );
    let chunks = contents(&image, b"chunks");
    assert_eq!(chunks, [[b'4'; 4096], [0; 4096], [b'3'; 4096]].concat());
    assert_eq!(contents(&image, b"link"), b"inline");
    let root = image.inode(image.root()).unwrap();
    let (device, kind) = image.lookup(&root, b"device").unwrap().unwrap();
    assert_eq!(
        (image.inode(device).unwrap().rdev, kind),
        (device_number(1, 3), 3)
    );
    for absent in [&b"aaa"[..], b"zzz", b"inlin", b"inlinee", b""] {
        assert_eq!(image.lookup(&root, absent), Ok(None));
    }
}

#[test]
fn only_what_is_in_one_piece_on_pages_is_contiguous() {
    let image = Image::open(Bytes(image())).unwrap();
    let contiguous = |number| image.contiguous(&image.inode(number).unwrap(), 4096).unwrap();
    assert_eq!(contiguous(ROOT), Some(2 * 4096));
    assert_eq!(contiguous(INLINE), None);
    assert_eq!(contiguous(CHUNKS), None);
}

/// Every entry of a directory, in order.
fn list(image: &Image<Bytes>, directory: &Inode) -> Result<Vec<DirectoryEntry>, Errno> {
    let mut entries = Vec::new();
    let mut position = 0;
    while let Some(entry) = image.entry(directory, position)? {
        assert!(entry.next > position);
        position = entry.next;
        entries.push(entry);
    }
    Ok(entries)
}

#[test]
fn listing_gives_every_name_once() {
    let image = Image::open(Bytes(image())).unwrap();
    let root = image.inode(image.root()).unwrap();
    let names: Vec<_> = list(&image, &root)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        names,
        [&b"."[..], b"..", b"chunks", b"device", b"inline", b"link"]
    );
}

#[test]
fn images_of_mkfs_are_read() {
    let folder = std::env::temp_dir().join(std::format!("spore-erofs-{}", std::process::id()));
    let tree = folder.join("tree");
    std::fs::create_dir_all(tree.join("many")).unwrap();
    for number in 0..2_000 {
        let path = tree.join(std::format!("many/file-{number:04}-with-a-rather-long-name"));
        std::fs::write(path, std::format!("{number}")).unwrap();
    }
    std::fs::write(tree.join("large"), [7; 100_001]).unwrap();
    for options in [&[][..], &["-Enoinline_data"], &["--chunksize=8192"]] {
        let path = folder.join("image");
        let made = std::process::Command::new("mkfs.erofs")
            .args(options)
            .arg(&path)
            .arg(&tree)
            .output();
        // Where the tool is not installed, the image of this test by hand has to do.
        let Ok(made) = made else { break };
        assert!(made.status.success(), "{made:?}");
        let image = Image::open(Bytes(std::fs::read(&path).unwrap())).unwrap();
        let root = image.inode(image.root()).unwrap();
        let many = image
            .inode(image.lookup(&root, b"many").unwrap().unwrap().0)
            .unwrap();
        assert_eq!(list(&image, &many).unwrap().len(), 2_002);
        for number in [0, 1, 999, 1_998, 1_999] {
            let name = std::format!("file-{number:04}-with-a-rather-long-name");
            let (file, _) = image.lookup(&many, name.as_bytes()).unwrap().unwrap();
            let file = image.inode(file).unwrap();
            let mut bytes = [0; 16];
            let length = image.read(&file, 0, &mut bytes).unwrap();
            assert_eq!(bytes[..length], *std::format!("{number}").as_bytes());
        }
        assert_eq!(contents(&image, b"large"), [7; 100_001]);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_lies_beyond_the_image_is_not_in_one_piece() {
    let mut bytes = image();
    // The root directory's length: more than there is of the image.
    bytes[4096 + 8..4096 + 16].copy_from_slice(&(6 * 4096_u64).to_le_bytes());
    let image = Image::open(Bytes(bytes)).unwrap();
    let root = image.inode(ROOT).unwrap();
    assert_eq!(image.contiguous(&root, 4096), Err(Errno::EIO));
}

/// Walks everything that can be reached, with bounds of its own; damage may make it fail but not panic or hang.
fn walk(bytes: Vec<u8>) {
    let Ok(image) = Image::open(Bytes(bytes)) else {
        return;
    };
    let mut numbers = vec![image.root()];
    let mut seen = 0;
    while let Some(number) = numbers.pop() {
        seen += 1;
        if seen > 64 {
            return;
        }
        let Ok(inode) = image.inode(number) else { continue };
        for name in [&b"inline"[..], b"chunks", b"", b"\xff"] {
            let _ = image.lookup(&inode, name);
        }
        let mut position = 0;
        for _ in 0..64 {
            let Ok(Some(entry)) = image.entry(&inode, position) else {
                break;
            };
            assert!(entry.next > position && !entry.name.is_empty());
            position = entry.next;
            numbers.push(entry.inode);
        }
        let mut buffer = [0; 8192];
        for position in [0, 4000, inode.size.saturating_sub(100), u64::MAX - 5] {
            let _ = image.read(&inode, position, &mut buffer);
        }
        if inode.size < 1 << 20 {
            let _ = image.contiguous(&inode, 4096);
        }
    }
}

proptest! {
    #[test]
    fn damage_never_panics(
        changes in prop::collection::vec((prop_oneof![1024_usize..1152, 4096_usize..8400], any::<u8>()), 1..12),
        length in prop_oneof![Just(5 * 4096_usize), 0..5 * 4096_usize],
    ) {
        let mut bytes = image();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(length);
        walk(bytes);
    }

    #[test]
    fn noise_behind_a_superblock_never_panics(noise in prop::collection::vec(any::<u8>(), 4096)) {
        let mut bytes = image();
        bytes[4096 + 64..8192].copy_from_slice(&noise[64..]);
        bytes[2 * 4096..3 * 4096].copy_from_slice(&noise);
        walk(bytes);
    }
}
