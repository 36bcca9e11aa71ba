//! Heads of root file systems: a base as it may be on a damaged disk, and layers over it.

use crate::layers::{BETWEEN, archive, split};

/// Where the root's inode is in the small base.
const ROOT: usize = 0x480;

pub(crate) fn run(bytes: &[u8]) {
    let parts = split(bytes);
    let layers: Vec<&[u8]> = parts[1..].iter().map(Vec::as_slice).collect();
    spore_store::fuzzing::head(&parts[0], &layers);
}

/// A base of two blocks: a root with a file, whose content is not there.
fn small() -> Vec<u8> {
    let mut image = vec![0; 0x2000];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x400, &0xe0f5_e1e2_u32.to_le_bytes());
    put(0x400 + 12, &[12, 0, (ROOT / 32) as u8]);
    put(0x400 + 36, &2_u32.to_le_bytes());
    let entries: [(&[u8], usize, u8); 3] = [(b".", ROOT, 2), (b"..", ROOT, 2), (b"a", ROOT + 64, 1)];
    let mut name_at = entries.len() * 12;
    for (index, (name, inode, kind)) in entries.into_iter().enumerate() {
        let at = 0x1000 + index * 12;
        put(at, &(inode as u64 / 32).to_le_bytes());
        put(at + 8, &(name_at as u16).to_le_bytes());
        put(at + 10, &[kind]);
        put(0x1000 + name_at, name);
        name_at += name.len();
    }
    for (at, mode, bytes) in [(ROOT, 0o040_755_u16, name_at as u64), (ROOT + 64, 0o100_644, 0)] {
        put(at, &[1]);
        put(at + 4, &mode.to_le_bytes());
        put(at + 8, &bytes.to_le_bytes());
        put(at + 16, &1_u32.to_le_bytes());
        put(at + 44, &1_u32.to_le_bytes());
    }
    image
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let first = archive(&[
        ("function/code", b'0', "text"),
        ("function/link", b'2', "code"),
        ("again", b'1', "function/code"),
    ]);
    let second = archive(&[
        (".wh.a", b'0', ""),
        ("function/.wh..wh..opq", b'0', ""),
        ("function/b/c", b'5', ""),
    ]);
    vec![
        [&small(), BETWEEN, &first].concat(),
        [&small(), BETWEEN, &first, BETWEEN, &second].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_can_be_made_of_the_seeds() {
        for seed in seeds() {
            let parts = split(&seed);
            let layers: Vec<&[u8]> = parts[1..].iter().map(Vec::as_slice).collect();
            assert!(spore_store::fuzzing::head(&parts[0], &layers).is_some_and(|count| count >= 3));
        }
    }
}
