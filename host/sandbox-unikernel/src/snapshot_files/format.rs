//! What a file of a snapshot looks like, and which one is taken: pure, of bytes that anybody may have written.
//!
//! ```text
//!   header      fixed length: version, identity, sizes, registers, digest of the rest, digest of the header
//!   extended    the extended registers, in 32-bit words
//!   offers      of text for large pages: address of an entry and of its table, as the guest has said
//!   stretches   start and length in the memory, of everything that is not zero; in order, whole pages
//!   written     start and length, of what copies need while they give their first answer
//!   pages       the bytes of the stretches, one after the other, up to the end of the file
//! ```
//!
//! All numbers are as the processor has them (little-endian). A file is taken whole or not at all: where its length, one
//! of its digests or its identity is another one, or a number cannot be right, it is refused, and the reason is exact.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use spore_abi::layout::{PAGE_BYTES, RAM_BYTES_MAX, TEXT_PAGES_MAX};
use spore_monitor::features::Features;
use spore_monitor::protocol::{Captured, ProcessorState, SNAPSHOT_EXTENTS_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::identity::{Digest, Identity};

/// The first word of a file.
const MAGIC: u64 = u64::from_le_bytes(*b"SPORESNP");
/// The version of the format. Another one is another layout.
const VERSION: u32 = 1;
/// In place of a count: it is not known.
const NOT_KNOWN: u32 = u32::MAX;
/// Most extended registers, in 32-bit words: four times `struct kvm_xsave`.
const EXTENDED_WORDS_MAX: usize = 4096;
/// Bytes that are read, checked and passed on at a time.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Length of the header, in bytes.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();
const DIGEST_BYTES: usize = size_of::<Digest>();

/// The beginning of a file.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    /// [`MAGIC`].
    magic: u64,
    /// [`VERSION`].
    version: u32,
    /// [`Identity::abi_version`], and the rest of it.
    abi_version: u32,
    library_os: Digest,
    processor: Digest,
    host_boot: Digest,
    root: Digest,
    configuration: Digest,
    /// Length of the memory, in bytes.
    memory_bytes: u64,
    stretch_count: u32,
    /// [`NOT_KNOWN`] where nobody has told.
    written_count: u32,
    extended_words: u32,
    offer_count: u32,
    general: [u64; 16],
    instruction_pointer: u64,
    flags: u64,
    fs_base: u64,
    gs_base: u64,
    top_table_gpa: u64,
    /// SHA-256 of everything behind the header.
    body_digest: Digest,
    /// SHA-256 of everything before this.
    header_digest: Digest,
}

/// A part of the memory: start and length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Stretch {
    start: u64,
    length: u64,
}

const _: () = assert!(size_of::<Header>() == 432, "Header changed: raise VERSION");
const _: () = assert!(std::mem::offset_of!(Header, memory_bytes) == 176);
const _: () = assert!(std::mem::offset_of!(Header, general) == 200);
const _: () = assert!(std::mem::offset_of!(Header, body_digest) == 368);
const _: () = assert!(std::mem::offset_of!(Header, header_digest) + DIGEST_BYTES == HEADER_BYTES);
const _: () = assert!(size_of::<Stretch>() == 16, "Stretch changed: raise VERSION");
const _: () = assert!(cfg!(target_endian = "little"));

/// Why a file is not taken; what follows "the snapshot FILE is not used".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("it is cut short or too long: it has {found} bytes, and {expected} belong to it")]
    Length { expected: u64, found: u64 },
    #[error("it is no snapshot")]
    NoSnapshot,
    #[error("its format is version {found}, and this daemon knows version {VERSION}")]
    Version { found: u32 },
    #[error("its header is damaged")]
    HeaderDamaged,
    #[error(
        "it was made for version {found} of what guest and monitor agree on, and this is version {expected}"
    )]
    OtherAbi { expected: u32, found: u32 },
    #[error("another build of the library OS is in it")]
    OtherLibraryOs,
    #[error("it was made on a processor, or a kernel, that shows guests other features")]
    OtherProcessor,
    #[error("it was made before this machine was booted, and its clocks would go back")]
    OtherHostBoot,
    #[error("it was made of another image")]
    OtherRoot,
    #[error("it was made of another configuration")]
    OtherConfiguration,
    #[error("its memory cannot have {bytes} bytes")]
    MemoryLength { bytes: u64 },
    #[error("its page tables are said to lie at {gpa:#x}, outside of its memory")]
    NoTable { gpa: u64 },
    #[error("it cannot consist of {count} parts")]
    Parts { count: u32 },
    #[error("it cannot have {words} words of extended registers")]
    ExtendedState { words: u32 },
    #[error("its part {index} is not within its memory, or not behind the one before")]
    BadPart { index: usize },
    #[error("its contents are damaged")]
    ContentsDamaged,
}

/// Why nothing came of a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is not to be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may be all right, but there is no room for its memory.
    #[error("its memory cannot be put in place")]
    Memory(#[source] io::Error),
}

/// What a snapshot has besides its memory, which is as it was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Length of the memory, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) captured: Captured,
    /// See [`spore_monitor::protocol::Snapshot::written`].
    pub(crate) written: Option<Vec<(u64, u64)>>,
}

/// The snapshot has a state of the processor for which there is no room in a file.
#[derive(Debug, thiserror::Error)]
#[error("its registers do not fit into a file")]
pub(crate) struct Unfit;

/// A file that is being written: everything but the pages, whose digest is not known yet.
pub(super) struct Draft {
    header: Header,
    tables: Vec<u8>,
    body: Sha256,
    /// Length of the whole file, in bytes.
    pub(super) file_bytes: u64,
}

impl Draft {
    /// Begins a file of this snapshot. `stretches` are those of its memory that are not zero.
    pub(super) fn new(
        identity: &Identity,
        contents: &Contents,
        stretches: &[(u64, u64)],
    ) -> Result<Self, Unfit> {
        let Captured {
            processor,
            text_offers,
        } = &contents.captured;
        let ProcessorState {
            general,
            instruction_pointer,
            flags,
            fs_base,
            gs_base,
            top_table_gpa,
            extended_state,
            // The same wherever the file is taken: see [`Identity::processor`].
            features: _,
        } = processor;
        if extended_state.len() > EXTENDED_WORDS_MAX {
            return Err(Unfit);
        }
        let written = contents.written.as_deref();
        let count = |length: usize| u32::try_from(length).map_err(|_| Unfit);
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            abi_version: identity.abi_version,
            library_os: identity.library_os,
            processor: identity.processor,
            host_boot: identity.host_boot,
            root: identity.root,
            configuration: identity.configuration,
            memory_bytes: contents.memory_bytes,
            stretch_count: count(stretches.len())?,
            written_count: written.map_or(Ok(NOT_KNOWN), |written| count(written.len()))?,
            extended_words: count(extended_state.len())?,
            offer_count: count(text_offers.len())?,
            general: *general,
            instruction_pointer: *instruction_pointer,
            flags: *flags,
            fs_base: *fs_base,
            gs_base: *gs_base,
            top_table_gpa: *top_table_gpa,
            body_digest: Digest::default(),
            header_digest: Digest::default(),
        };
        let parts = stretches.iter().chain(written.unwrap_or_default());
        let parts: Vec<Stretch> = parts.map(|&(start, length)| Stretch { start, length }).collect();
        let offers: Vec<[u64; 2]> = text_offers.iter().map(|&(entry, table)| [entry, table]).collect();
        let tables = [extended_state.as_bytes(), offers.as_bytes(), parts.as_bytes()].concat();
        let pages_bytes: u64 = stretches.iter().map(|(_, length)| length).sum();
        Ok(Self {
            body: Sha256::new_with_prefix(&tables),
            file_bytes: (HEADER_BYTES + tables.len()) as u64 + pages_bytes,
            header,
            tables,
        })
    }

    /// What follows the header.
    pub(super) fn tables(&self) -> &[u8] {
        &self.tables
    }

    /// Takes note of the next bytes of the pages.
    pub(super) fn pages(&mut self, bytes: &[u8]) {
        self.body.update(bytes);
    }

    /// The header, when all pages have been noted.
    pub(super) fn header(self) -> [u8; HEADER_BYTES] {
        let mut header = self.header;
        header.body_digest = self.body.finalize().into();
        header.header_digest = digest_of_header(header.as_bytes());
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(header.as_bytes());
        bytes
    }
}

fn digest_of_header(header: &[u8]) -> Digest {
    Sha256::digest(&header[..HEADER_BYTES - DIGEST_BYTES]).into()
}

/// A file whose header and tables have been read and are right.
pub(super) struct Opened {
    header: Header,
    extended_state: Vec<u32>,
    text_offers: Vec<(u64, u64)>,
    stretches: Vec<Stretch>,
    written: Option<Vec<Stretch>>,
    body: Sha256,
}

impl Opened {
    /// Reads the beginning of a file of so many bytes, which has to be of this identity.
    pub(super) fn read(source: &mut dyn Read, file_bytes: u64, expected: &Identity) -> Result<Self, Refusal> {
        let too_short = Refusal::Length {
            expected: HEADER_BYTES as u64,
            found: file_bytes,
        };
        if file_bytes < HEADER_BYTES as u64 {
            return Err(too_short);
        }
        let mut bytes = [0; HEADER_BYTES];
        fill(source, &mut bytes)?;
        let header = Header::read_from_bytes(&bytes).map_err(|_| Refusal::HeaderDamaged)?;
        check(&header, expected)?;
        let written_count = match header.written_count {
            NOT_KNOWN => 0,
            count => count,
        };
        let count = header.stretch_count as usize + written_count as usize;
        let extended_words = header.extended_words as usize;
        let offer_count = header.offer_count as usize;
        let tables_bytes = extended_words * size_of::<u32>()
            + offer_count * size_of::<[u64; 2]>()
            + count * size_of::<Stretch>();
        let before_pages = (HEADER_BYTES + tables_bytes) as u64;
        if file_bytes < before_pages {
            return Err(Refusal::Length {
                expected: before_pages,
                found: file_bytes,
            });
        }
        let mut extended_state = vec![0_u32; extended_words];
        fill(source, extended_state.as_mut_bytes())?;
        let mut offers = vec![[0_u64; 2]; offer_count];
        fill(source, offers.as_mut_bytes())?;
        let mut parts = vec![Stretch { start: 0, length: 0 }; count];
        fill(source, parts.as_mut_bytes())?;
        let body = Sha256::new_with_prefix(extended_state.as_bytes())
            .chain_update(offers.as_bytes())
            .chain_update(parts.as_bytes());
        let written = parts.split_off(header.stretch_count as usize);
        check_parts(&parts, header.memory_bytes)?;
        let expected = before_pages + parts.iter().map(|part| part.length).sum::<u64>();
        if file_bytes != expected {
            return Err(Refusal::Length {
                expected,
                found: file_bytes,
            });
        }
        Ok(Self {
            written: (header.written_count != NOT_KNOWN).then_some(written),
            header,
            extended_state,
            text_offers: offers.into_iter().map(|[entry, table]| (entry, table)).collect(),
            stretches: parts,
            body,
        })
    }

    /// Length of the memory, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.header.memory_bytes
    }

    /// Reads the rest and has it put in place. What was put there counts for nothing if this fails.
    pub(super) fn pages(
        mut self,
        source: &mut dyn Read,
        mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<Contents, ReadError> {
        let mut piece = vec![0; PIECE_BYTES];
        for part in &self.stretches {
            let mut at = 0;
            while at < part.length {
                let length = (part.length - at).min(PIECE_BYTES as u64) as usize;
                let piece = &mut piece[..length];
                fill(source, piece)?;
                self.body.update(&*piece);
                put(part.start + at, piece).map_err(ReadError::Memory)?;
                at += length as u64;
            }
        }
        if Digest::from(self.body.finalize()) != self.header.body_digest {
            return Err(Refusal::ContentsDamaged.into());
        }
        let header = self.header;
        let plain = |part: Stretch| (part.start, part.length);
        Ok(Contents {
            memory_bytes: header.memory_bytes,
            captured: Captured {
                processor: ProcessorState {
                    general: header.general,
                    instruction_pointer: header.instruction_pointer,
                    flags: header.flags,
                    fs_base: header.fs_base,
                    gs_base: header.gs_base,
                    top_table_gpa: header.top_table_gpa,
                    extended_state: self.extended_state,
                    features: Features::default(),
                },
                text_offers: self.text_offers,
            },
            written: self
                .written
                .map(|written| written.into_iter().map(plain).collect()),
        })
    }
}

fn fill(source: &mut dyn Read, bytes: &mut [u8]) -> Result<(), Refusal> {
    source.read_exact(bytes).map_err(Refusal::Unreadable)
}

/// Whether a header is whole, of this identity, and has numbers that can be right.
fn check(header: &Header, expected: &Identity) -> Result<(), Refusal> {
    if header.magic != MAGIC {
        return Err(Refusal::NoSnapshot);
    }
    if header.version != VERSION {
        return Err(Refusal::Version {
            found: header.version,
        });
    }
    if header.header_digest != digest_of_header(header.as_bytes()) {
        return Err(Refusal::HeaderDamaged);
    }
    if header.abi_version != expected.abi_version {
        return Err(Refusal::OtherAbi {
            expected: expected.abi_version,
            found: header.abi_version,
        });
    }
    let parts = [
        (header.library_os == expected.library_os, Refusal::OtherLibraryOs),
        (header.processor == expected.processor, Refusal::OtherProcessor),
        (header.host_boot == expected.host_boot, Refusal::OtherHostBoot),
        (header.root == expected.root, Refusal::OtherRoot),
        (
            header.configuration == expected.configuration,
            Refusal::OtherConfiguration,
        ),
    ];
    if let Some((_, refusal)) = parts.into_iter().find(|(is_same, _)| !is_same) {
        return Err(refusal);
    }
    let bytes = header.memory_bytes;
    if bytes == 0 || bytes > RAM_BYTES_MAX || !bytes.is_multiple_of(PAGE_BYTES) {
        return Err(Refusal::MemoryLength { bytes });
    }
    let gpa = header.top_table_gpa;
    if gpa >= bytes || !gpa.is_multiple_of(PAGE_BYTES) {
        return Err(Refusal::NoTable { gpa });
    }
    if header.extended_words as usize > EXTENDED_WORDS_MAX {
        return Err(Refusal::ExtendedState {
            words: header.extended_words,
        });
    }
    if header.offer_count as usize > TEXT_PAGES_MAX {
        return Err(Refusal::Parts {
            count: header.offer_count,
        });
    }
    // Two of them have a page between them at least.
    let stretches_max = bytes / PAGE_BYTES / 2 + 1;
    if u64::from(header.stretch_count) > stretches_max {
        return Err(Refusal::Parts {
            count: header.stretch_count,
        });
    }
    if header.written_count != NOT_KNOWN && header.written_count as usize > SNAPSHOT_EXTENTS_MAX {
        return Err(Refusal::Parts {
            count: header.written_count,
        });
    }
    Ok(())
}

/// Whether stretches are whole pages, in order with gaps between them, and within a memory of so many bytes.
fn check_parts(parts: &[Stretch], memory_bytes: u64) -> Result<(), Refusal> {
    let mut end = 0;
    for (index, part) in parts.iter().enumerate() {
        let is_whole = part.start.is_multiple_of(PAGE_BYTES) && part.length.is_multiple_of(PAGE_BYTES);
        let next_end = part.start.checked_add(part.length);
        match next_end.filter(|&next_end| next_end <= memory_bytes) {
            Some(next_end) if is_whole && part.length > 0 && (index == 0 || part.start > end) => {
                end = next_end
            }
            _ => return Err(Refusal::BadPart { index }),
        }
    }
    Ok(())
}

/// Gives the digests of a file the values that fit what it holds, as somebody would who means harm.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn reseal(file: &mut [u8]) {
    if file.len() < HEADER_BYTES {
        return;
    }
    let (head, body) = file.split_at_mut(HEADER_BYTES);
    let at = std::mem::offset_of!(Header, body_digest);
    head[at..at + DIGEST_BYTES].copy_from_slice(&Sha256::digest(body));
    let digest = digest_of_header(head);
    head[HEADER_BYTES - DIGEST_BYTES..].copy_from_slice(&digest);
}
