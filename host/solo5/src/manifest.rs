//! The manifest of a kernel: which devices it has, as a note of its file tells (`mft_abi.h`). Pure; the file may hold anything.
//!
//! ```text
//!   version, number of entries │ entry 0: reserved │ entry ... : name, kind, properties, whether it is attached
//! ```
//!
//! The tender writes properties of devices into it, and the guest reads them there.

/// Version of this form.
const VERSION: u32 = 1;
/// Most entries.
pub(crate) const ENTRIES_MAX: usize = 64;
const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 104;
/// Longest manifest, in bytes.
pub(crate) const BYTES_MAX: usize = HEAD_BYTES + ENTRIES_MAX * ENTRY_BYTES;
/// Room for a name, with the zero behind it, and where the other parts of an entry are.
const NAME_BYTES: usize = 68;
const KIND: usize = 68;
const PROPERTIES: usize = 72;
const ATTACHED: usize = 96;
/// Kinds of entries.
const BLOCK: u32 = 1;
const NET: u32 = 2;
const RESERVED: u32 = 1 << 30;

/// What is wrong with a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its length, version, or an entry is not as it has to be.
    #[error("the manifest of its devices is damaged")]
    Damaged,
    /// It has an entry of a kind that is not known.
    #[error("it has a device of the unknown kind {0}")]
    UnknownKind(u32),
    /// There is more than one network card.
    #[error("it has {0} network devices (NET_BASIC): there can be one")]
    NetDevices(usize),
    /// There is more than one disk.
    #[error("it has {0} block devices (BLOCK_BASIC): there can be one")]
    BlockDevices(usize),
}

/// A manifest with a network card or none, and a disk or none. Devices are known by the numbers of their entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    net: Option<usize>,
    block: Option<usize>,
}

/// What a guest is to be told of its network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) address: [u8; 6],
    /// Longest packet, without the head of its frame, in bytes.
    pub(crate) packet_bytes_max: u16,
}

/// The same of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    /// What is read at a time, in bytes.
    pub(crate) block_bytes: u16,
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

impl Manifest {
    /// Reads one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let head = number(bytes, 0).zip(number(bytes, 4));
        let (version, entries) = head.ok_or(ManifestError::Damaged)?;
        let entries = entries as usize;
        let is_whole = version == VERSION
            && (1..=ENTRIES_MAX).contains(&entries)
            && bytes.len() == HEAD_BYTES + entries * ENTRY_BYTES;
        if !is_whole {
            return Err(ManifestError::Damaged);
        }
        let (mut nets, mut blocks) = (Vec::new(), Vec::new());
        for (index, entry) in bytes[HEAD_BYTES..].chunks_exact(ENTRY_BYTES).enumerate() {
            if entry[NAME_BYTES - 1] != 0 || entry[ATTACHED] != 0 {
                return Err(ManifestError::Damaged);
            }
            match (index, number(entry, KIND).ok_or(ManifestError::Damaged)?) {
                (0, RESERVED) if entry[0] == 0 => {}
                (0, _) | (_, RESERVED) => return Err(ManifestError::Damaged),
                (_, NET) => nets.push(index),
                (_, BLOCK) => blocks.push(index),
                (_, kind) => return Err(ManifestError::UnknownKind(kind)),
            }
        }
        if nets.len() > 1 {
            return Err(ManifestError::NetDevices(nets.len()));
        }
        if blocks.len() > 1 {
            return Err(ManifestError::BlockDevices(blocks.len()));
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            net: nets.first().copied(),
            block: blocks.first().copied(),
        })
    }

    /// Number of the network card.
    pub(crate) fn net(&self) -> Option<usize> {
        self.net
    }

    /// Number of the disk.
    pub(crate) fn block(&self) -> Option<usize> {
        self.block
    }

    /// What the guest is given: all devices are attached. Nothing of what the file has in other places of an entry is kept.
    pub(crate) fn attached(&self, card: Card, disk: Option<Disk>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (index, entry) in bytes[HEAD_BYTES..].chunks_exact_mut(ENTRY_BYTES).enumerate() {
            entry[PROPERTIES..].fill(0);
            if Some(index) == self.net {
                let properties = &mut entry[PROPERTIES..];
                properties[..6].copy_from_slice(&card.address);
                properties[6..8].copy_from_slice(&card.packet_bytes_max.to_le_bytes());
                entry[ATTACHED] = 1;
            } else if Some(index) == self.block
                && let Some(disk) = disk
            {
                let properties = &mut entry[PROPERTIES..];
                properties[..8].copy_from_slice(&disk.bytes.to_le_bytes());
                properties[8..10].copy_from_slice(&disk.block_bytes.to_le_bytes());
                entry[ATTACHED] = 1;
            }
        }
        bytes
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod samples {
    //! Manifests that are made for tests and as seeds.

    use super::{ENTRY_BYTES, KIND, RESERVED, VERSION};

    /// A manifest with entries of these kinds behind the reserved one.
    pub(crate) fn manifest(kinds: &[u32]) -> Vec<u8> {
        let entry = |name: &str, kind: u32| {
            let mut entry = vec![0; ENTRY_BYTES];
            entry[..name.len()].copy_from_slice(name.as_bytes());
            entry[KIND..KIND + 4].copy_from_slice(&kind.to_le_bytes());
            entry
        };
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(kinds.len() as u32 + 1).to_le_bytes());
        bytes.extend(entry("", RESERVED));
        kinds
            .iter()
            .for_each(|kind| bytes.extend(entry("service", *kind)));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::samples::manifest;
    use super::*;

    #[test]
    fn devices_are_known_by_their_entries() {
        let found = Manifest::parse(&manifest(&[BLOCK, NET])).unwrap();
        assert_eq!((found.net(), found.block()), (Some(2), Some(1)));
        let card = Card {
            address: [1, 2, 3, 4, 5, 6],
            packet_bytes_max: 1500,
        };
        let disk = Disk {
            bytes: 1 << 20,
            block_bytes: 512,
        };
        let told = found.attached(card, Some(disk));
        let entry = |index: usize| &told[HEAD_BYTES + index * ENTRY_BYTES..][..ENTRY_BYTES];
        assert_eq!(entry(2)[PROPERTIES..PROPERTIES + 8], [1, 2, 3, 4, 5, 6, 0xdc, 5]);
        assert_eq!(
            entry(1)[PROPERTIES..PROPERTIES + 10],
            [0, 0, 16, 0, 0, 0, 0, 0, 0, 2]
        );
        assert_eq!([0, 1, 2].map(|index| entry(index)[ATTACHED]), [0, 1, 1]);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let parse = |kinds: &[u32]| Manifest::parse(&manifest(kinds)).unwrap_err();
        assert_eq!(parse(&[NET, NET]), ManifestError::NetDevices(2));
        assert_eq!(parse(&[NET, BLOCK, BLOCK]), ManifestError::BlockDevices(2));
        assert_eq!(parse(&[NET, 7]), ManifestError::UnknownKind(7));
        assert_eq!(parse(&[NET, RESERVED]), ManifestError::Damaged);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let good = manifest(&[NET]);
        assert!(Manifest::parse(&good).is_ok());
        assert_eq!(Manifest::parse(&manifest(&[])).unwrap().net(), None);
        let wrong = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Manifest::parse(&bytes)
        };
        let entry = HEAD_BYTES + ENTRY_BYTES;
        for (at, byte) in [
            (0, 2),
            (4, 0),
            (4, 3),
            (4, 65),
            (7, 0xff),
            (HEAD_BYTES, b'a'),
            (HEAD_BYTES + KIND, 1),
            (entry + NAME_BYTES - 1, b'a'),
            (entry + ATTACHED, 1),
        ] {
            assert_eq!(wrong(at, byte), Err(ManifestError::Damaged), "{at}");
        }
        for length in [0, 1, 7, 8, good.len() - 1] {
            assert_eq!(Manifest::parse(&good[..length]), Err(ManifestError::Damaged));
        }
    }
}
