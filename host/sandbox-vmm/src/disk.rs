//! The block device of a guest, where its root consists of two files.
//!
//! ```text
//!   base and head (docs/decisions/0013):   head's page 0 │ base's pages 1 … │ head's pages 1 …
//! ```
//!
//! QEMU puts them together by a *descriptor*: a text in the form of VMware's disks (VMDK), whose extents are stretches of other
//! files. So nothing is copied, and all functions of a runtime share the pages of its base in the host's cache.

use std::path::Path;

/// Where the head's first page ends and the base's begin to be used, in bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Why there is no descriptor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("base and head of the root do not consist of whole pages")]
    NotWhole,
    #[error("the path of the root has a character that cannot be named to QEMU: move the data folder")]
    Path,
}

/// Whether so many bytes can be a base's or a head's.
pub(crate) const fn is_whole(bytes: u64) -> bool {
    bytes >= PAGE_BYTES && bytes.is_multiple_of(PAGE_BYTES)
}

/// The descriptor of a base and a head of these lengths, in bytes.
pub(crate) fn descriptor(base: (&Path, u64), head: (&Path, u64)) -> Result<String, DiskError> {
    if !is_whole(base.1) || !is_whole(head.1) {
        return Err(DiskError::NotWhole);
    }
    let extents = [
        (head.0, 0, PAGE_BYTES),
        (base.0, PAGE_BYTES, base.1 - PAGE_BYTES),
        (head.0, PAGE_BYTES, head.1 - PAGE_BYTES),
    ];
    // No empty line anywhere: QEMU's reader would take the extent after one twice.
    let mut text = String::from(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n",
    );
    for (path, offset, bytes) in extents.into_iter().filter(|(_, _, bytes)| *bytes > 0) {
        let name = path.to_str().filter(|name| !name.contains(['"', '\n', '\r']));
        let name = name.ok_or(DiskError::Path)?;
        let (sectors, offset) = (bytes / SECTOR_BYTES, offset / SECTOR_BYTES);
        text.push_str(&format!("RW {sectors} FLAT \"{name}\" {offset}\n"));
    }
    text.push_str("ddb.adapterType = \"ide\"\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_follow_each_other() {
        let (base, head) = (Path::new("/b"), Path::new("/h"));
        let text = descriptor((base, 3 * PAGE_BYTES), (head, 2 * PAGE_BYTES)).unwrap();
        let extents: Vec<_> = text.lines().filter(|line| line.starts_with("RW")).collect();
        assert_eq!(
            extents,
            ["RW 8 FLAT \"/h\" 0", "RW 16 FLAT \"/b\" 8", "RW 8 FLAT \"/h\" 8"]
        );
        assert!(!text.contains("\n\n"));
        let text = descriptor((base, PAGE_BYTES), (head, PAGE_BYTES)).unwrap();
        assert_eq!(text.matches("FLAT ").count(), 1);
    }

    #[test]
    fn what_is_no_root_is_refused() {
        let (base, head) = (Path::new("/b"), Path::new("/h"));
        let refused = descriptor((base, 5000), (head, PAGE_BYTES));
        assert_eq!(refused, Err(DiskError::NotWhole));
        assert_eq!(
            descriptor((Path::new("/\"b"), 2 * PAGE_BYTES), (head, PAGE_BYTES)),
            Err(DiskError::Path)
        );
    }
}
