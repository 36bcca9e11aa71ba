//! The kernel's file: an ELF executable with two notes of Solo5's. Read piece by piece, pure; the file may hold anything.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::pod;

use crate::abi::{KERNEL_START, PAGE_BYTES, TARGET, VERSION};
use crate::manifest::{self, Manifest, ManifestError};
use crate::memory::{Memory, OutOfRange};

/// Most program headers.
const HEADERS_MAX: u16 = 64;
/// Where segments end at the latest: what there is room for page tables for.
const END_MAX: u64 = 400 << 20;
/// What is copied at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// A note: lengths of name and content, its kind, the name.
const NOTE_HEAD_BYTES: usize = 20;
const NOTE_NAME: [u8; 8] = *b"Solo5\0\0\0";
const NOTE_NAME_BYTES: u32 = 6;
const ABI_NOTE: u32 = u32::from_le_bytes(*b"ABI1");
const ABI_BYTES: usize = 16;
const MANIFEST_NOTE: u32 = u32::from_le_bytes(*b"MFT1");
/// The manifest's note is laid out so that the manifest is at a multiple of 8.
const MANIFEST_PADDING: usize = 4;
const NOTE_BYTES_MAX: usize = MANIFEST_PADDING + manifest::BYTES_MAX;

/// What is wrong with a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It is another kind of file.
    #[error("it is no executable for x86-64 (ELF)")]
    NoExecutable,
    /// It has no note of the ABI.
    #[error("it is no unikernel of Solo5: it does not say for which tender it is")]
    NoAbi,
    /// It is for another tender.
    #[error(
        "it is for tender {target} in version {version} of Solo5's ABI: build it for `hvt` with Solo5 0.8 or a later one"
    )]
    OtherAbi {
        /// Number of the tender: 2 is spt, 3 virtio.
        target: u32,
        /// Version of the ABI.
        version: u32,
    },
    /// It has no manifest.
    #[error("it has no manifest of its devices")]
    NoManifest,
    /// Its manifest cannot be served.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It has no network card.
    #[error("it has no network device (NET_BASIC), by which a function is reached")]
    NoNetDevice,
    /// It has a disk and the image none, or the other way round.
    #[error(
        "{}",
        if *is_expected {
            "it has a block device (BLOCK_BASIC), and the image names no file for it: name one with `com.urunc.unikernel.block`"
        } else {
            "the image names a file for a block device, and the unikernel has none"
        }
    )]
    Disk {
        /// Whether the kernel has one.
        is_expected: bool,
    },
    /// A segment is where none can be.
    #[error("its segment {index} {what}")]
    Segment {
        /// Its place among the program headers.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The first instruction is not within a segment that is executed.
    #[error("it begins at {0:#x}, where it has no code")]
    Entry(u64),
    /// It does not fit into the memory.
    #[error(
        "it ends at {end:#x}, and the guest has {memory_bytes} bytes of memory: allow the function more of it"
    )]
    TooLarge {
        /// Where it ends.
        end: u64,
        /// Memory of the guest.
        memory_bytes: u64,
    },
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It was loaded to where nothing is; cannot happen.
    #[error(transparent)]
    Range(#[from] OutOfRange),
}

/// A file, or what stands for one.
pub trait Source {
    /// Fills `bytes` with what is there from `offset` on.
    ///
    /// # Errors
    ///
    /// If it ends before, or cannot be read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, bytes)
    }
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).ok();
        let found = offset
            .and_then(|offset| self.get(offset..))
            .and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A stretch of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it is in memory, in whole pages.
    pub(crate) pages: Range<u64>,
    pub(crate) is_writable: bool,
    pub(crate) is_executable: bool,
    address: u64,
    file_offset: u64,
    file_bytes: u64,
}

/// A kernel that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its first instruction.
    pub(crate) entry: u64,
    /// In the order of their addresses, without overlap.
    pub(crate) segments: Vec<Segment>,
    pub(crate) manifest: Manifest,
}

impl Kernel {
    /// Reads what the file says of itself.
    ///
    /// # Errors
    ///
    /// If it is none that the tender can run.
    pub fn read(source: &(impl Source + ?Sized)) -> Result<Self, KernelError> {
        let (entry, headers) = headers(source)?;
        abi(source, &headers)?;
        let manifest = note(source, &headers, MANIFEST_NOTE)?.ok_or(KernelError::NoManifest)?;
        let manifest = manifest.get(MANIFEST_PADDING..).unwrap_or_default();
        let manifest = Manifest::parse(manifest)?;
        let segments = segments(&headers)?;
        let is_code = |segment: &Segment| segment.is_executable && segment.pages.contains(&entry);
        if !segments.iter().any(is_code) {
            return Err(KernelError::Entry(entry));
        }
        Ok(Self {
            entry,
            segments,
            manifest,
        })
    }

    /// Whether it can be a function, whose image has a disk or none.
    ///
    /// # Errors
    ///
    /// If it has no network card, or needs a disk that there is not, or would not use one.
    pub fn check_devices(&self, has_disk: bool) -> Result<(), KernelError> {
        if self.manifest.net().is_none() {
            return Err(KernelError::NoNetDevice);
        }
        match self.manifest.block().is_some() {
            is_expected if is_expected == has_disk => Ok(()),
            is_expected => Err(KernelError::Disk { is_expected }),
        }
    }

    /// Where it ends in memory.
    pub(crate) fn end(&self) -> u64 {
        self.segments.last().map_or(KERNEL_START, |last| last.pages.end)
    }

    /// Puts it into memory that is zero.
    pub(crate) fn load(
        &self,
        source: &(impl Source + ?Sized),
        memory: &impl Memory,
    ) -> Result<(), KernelError> {
        if self.end() > memory.length() {
            return Err(KernelError::TooLarge {
                end: self.end(),
                memory_bytes: memory.length(),
            });
        }
        let mut piece = vec![0; PIECE_BYTES];
        for segment in &self.segments {
            let mut done = 0;
            while done < segment.file_bytes {
                let count = (segment.file_bytes - done).min(PIECE_BYTES as u64);
                let piece = &mut piece[..count as usize];
                source.read_at(segment.file_offset + done, piece)?;
                memory.write(segment.address + done, piece)?;
                done += count;
            }
        }
        Ok(())
    }
}

type Header = ProgramHeader64<LittleEndian>;

/// The first instruction, and what the file consists of.
fn headers(source: &(impl Source + ?Sized)) -> Result<(u64, Vec<Header>), KernelError> {
    let refused = || KernelError::NoExecutable;
    // Words, for they are aligned.
    let mut words = [0_u64; size_of::<FileHeader64<LittleEndian>>() / 8];
    let bytes = pod::bytes_of_slice_mut(&mut words);
    source.read_at(0, bytes).map_err(|_| refused())?;
    let (header, _) = pod::from_bytes::<FileHeader64<LittleEndian>>(bytes).map_err(|()| refused())?;
    let endian = LittleEndian;
    let count = header.e_phnum.get(endian);
    let identity = &header.e_ident;
    let is_executable = identity.magic == elf::ELFMAG
        && identity.class == elf::ELFCLASS64
        && identity.data == elf::ELFDATA2LSB
        && header.e_type.get(endian) == elf::ET_EXEC
        && header.e_machine.get(endian) == elf::EM_X86_64
        && usize::from(header.e_phentsize.get(endian)) == size_of::<Header>()
        && (1..=HEADERS_MAX).contains(&count);
    if !is_executable {
        return Err(refused());
    }
    let (entry, offset) = (header.e_entry.get(endian), header.e_phoff.get(endian));
    let mut words = vec![0_u64; usize::from(count) * size_of::<Header>() / 8];
    let bytes = pod::bytes_of_slice_mut(&mut words);
    source.read_at(offset, bytes).map_err(|_| refused())?;
    let headers = pod::slice_from_bytes::<Header>(bytes, usize::from(count));
    let (headers, _) = headers.map_err(|()| refused())?;
    Ok((entry, headers.to_vec()))
}

/// Fails unless the kernel is for this tender.
fn abi(source: &(impl Source + ?Sized), headers: &[Header]) -> Result<(), KernelError> {
    let content = note(source, headers, ABI_NOTE)?.ok_or(KernelError::NoAbi)?;
    let number = |at: usize| {
        let bytes = content.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_le_bytes(*bytes))
    };
    let numbers = number(0).zip(number(4)).filter(|_| content.len() == ABI_BYTES);
    match numbers.ok_or(KernelError::NoAbi)? {
        (TARGET, VERSION) => Ok(()),
        (target, version) => Err(KernelError::OtherAbi { target, version }),
    }
}

/// The content of the first note of this kind. Each is a stretch of its own (Solo5's linker script).
fn note(
    source: &(impl Source + ?Sized),
    headers: &[Header],
    kind: u32,
) -> Result<Option<Vec<u8>>, KernelError> {
    let endian = LittleEndian;
    for header in headers
        .iter()
        .filter(|header| header.p_type.get(endian) == elf::PT_NOTE)
    {
        let (offset, length) = (header.p_offset.get(endian), header.p_filesz.get(endian));
        if length < NOTE_HEAD_BYTES as u64 {
            continue;
        }
        let mut head = [0; NOTE_HEAD_BYTES];
        source.read_at(offset, &mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (name_bytes, content_bytes) = (number(0), number(4) as usize);
        if name_bytes != NOTE_NAME_BYTES || head[12..] != NOTE_NAME || number(8) != kind {
            continue;
        }
        let rest_bytes = length - NOTE_HEAD_BYTES as u64;
        if content_bytes > NOTE_BYTES_MAX || content_bytes as u64 > rest_bytes {
            return Ok(None);
        }
        let mut content = vec![0; content_bytes];
        // What it begins with was read from before.
        source.read_at(offset.saturating_add(NOTE_HEAD_BYTES as u64), &mut content)?;
        return Ok(Some(content));
    }
    Ok(None)
}

fn segments(headers: &[Header]) -> Result<Vec<Segment>, KernelError> {
    let endian = LittleEndian;
    let mut segments: Vec<Segment> = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let bytes = header.p_memsz.get(endian);
        if header.p_type.get(endian) != elf::PT_LOAD || bytes == 0 {
            continue;
        }
        let refused = |what| KernelError::Segment { index, what };
        let (address, file_bytes) = (header.p_vaddr.get(endian), header.p_filesz.get(endian));
        let end = address.checked_add(bytes).filter(|end| *end <= END_MAX);
        let end = end.ok_or(refused("ends where no kernel can be"))?;
        let pages = address / PAGE_BYTES * PAGE_BYTES..end.next_multiple_of(PAGE_BYTES);
        if pages.start < KERNEL_START {
            return Err(refused("begins where no kernel can be"));
        }
        if segments.last().is_some_and(|last| pages.start < last.pages.end) {
            return Err(refused("begins before the one before it ends"));
        }
        let file_offset = header.p_offset.get(endian);
        if file_bytes > bytes || file_offset.checked_add(file_bytes).is_none() {
            return Err(refused("has more in the file than in memory"));
        }
        let flags = header.p_flags.get(endian);
        let (is_writable, is_executable) = (flags.contains(elf::PF_W), flags.contains(elf::PF_X));
        if is_writable && is_executable {
            return Err(refused("is to be both written to and executed"));
        }
        segments.push(Segment {
            pages,
            // What is nothing but zeros in the beginning is there to be written to, whatever the linker says of it.
            is_writable: is_writable || file_bytes == 0,
            is_executable,
            address,
            file_offset,
            file_bytes,
        });
    }
    Ok(segments)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod samples {
    //! Kernels that are made for tests and as seeds.

    /// A segment: address, bytes, length in memory, flags.
    pub(crate) type Part<'a> = (u64, &'a [u8], u64, u32);

    /// Flags of segments.
    pub(crate) const CODE: u32 = 5;
    pub(crate) const DATA: u32 = 6;

    fn note(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let lengths = [6_u32.to_le_bytes(), (content.len() as u32).to_le_bytes()];
        [lengths.as_flattened(), kind, b"Solo5\0\0\0", content].concat()
    }

    /// The note of an ABI.
    pub(crate) fn abi(target: u32, version: u32) -> Vec<u8> {
        let numbers = [target, version, 0, 0].map(u32::to_le_bytes);
        note(b"ABI1", numbers.as_flattened())
    }

    /// The note of a manifest.
    pub(crate) fn devices(manifest: &[u8]) -> Vec<u8> {
        note(b"MFT1", &[&[0; 4], manifest].concat())
    }

    /// A kernel of these segments and notes.
    pub(crate) fn kernel(entry: u64, parts: &[Part<'_>], notes: &[Vec<u8>]) -> Vec<u8> {
        const HEAD_BYTES: u64 = 64;
        const HEADER_BYTES: u64 = 56;
        let count = parts.len() + notes.len();
        let mut offset = HEAD_BYTES + HEADER_BYTES * count as u64;
        let (mut headers, mut contents) = (Vec::new(), Vec::new());
        let loaded = parts.iter().map(|part| (1_u32, *part));
        let noted = notes.iter().map(|note| (4, (0, &note[..], note.len() as u64, 4)));
        for (kind, (address, bytes, memory_bytes, flags)) in loaded.chain(noted) {
            headers.extend(kind.to_le_bytes());
            headers.extend(flags.to_le_bytes());
            let numbers = [offset, address, address, bytes.len() as u64, memory_bytes, 4096];
            headers.extend(numbers.map(u64::to_le_bytes).as_flattened());
            contents.extend_from_slice(bytes);
            offset += bytes.len() as u64;
        }
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        head.extend([entry, HEAD_BYTES, 0].map(u64::to_le_bytes).as_flattened());
        head.extend([0; 4]);
        let sizes = [HEAD_BYTES as u16, HEADER_BYTES as u16, count as u16, 0, 0, 0];
        head.extend(sizes.map(u16::to_le_bytes).as_flattened());
        [head, headers, contents].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{CODE, DATA, Part, abi, devices, kernel};
    use super::*;
    use crate::manifest::samples::manifest;
    use crate::memory::Bytes;

    use proptest::prelude::*;

    fn notes() -> [Vec<u8>; 2] {
        [abi(1, 2), devices(&manifest(&[2]))]
    }

    const PARTS: [Part<'_>; 2] = [(0x10_0000, b"code", 4, CODE), (0x10_1000, b"data", 0x2000, DATA)];

    fn refused(parts: &[Part<'_>]) -> String {
        let file = kernel(0x10_0000, parts, &notes());
        Kernel::read(&file[..]).unwrap_err().to_string()
    }

    #[test]
    fn segments_are_loaded_where_they_are_to_be() {
        let file = kernel(0x10_0002, &PARTS, &notes());
        let found = Kernel::read(&file[..]).unwrap();
        assert_eq!((found.entry, found.end()), (0x10_0002, 0x10_3000));
        assert!(found.check_devices(false).is_ok() && found.check_devices(true).is_err());
        let memory = Bytes(vec![0; 0x20_0000].into());
        found.load(&file[..], &memory).unwrap();
        let bytes = memory.0.into_inner();
        assert_eq!(bytes[0x10_0000..0x10_0006], *b"code\0\0");
        assert_eq!(bytes[0x10_1000..0x10_1006], *b"data\0\0");
        let small = Bytes(vec![0; 0x10_2000].into());
        let error = found.load(&file[..], &small).unwrap_err();
        assert!(error.to_string().contains("allow the function more"), "{error}");
    }

    #[test]
    fn kernels_for_others_are_refused() {
        let read = |notes: &[Vec<u8>]| {
            let file = kernel(0x10_0000, &PARTS, notes);
            Kernel::read(&file[..]).unwrap_err().to_string()
        };
        assert!(read(&[]).contains("no unikernel of Solo5"));
        assert!(read(&[abi(1, 2)]).contains("no manifest"));
        for (target, version) in [(2, 2), (1, 1), (1, 3)] {
            let [_, devices] = notes();
            let text = read(&[abi(target, version), devices]);
            assert!(
                text.contains(&format!("tender {target} in version {version}")),
                "{text}"
            );
        }
        let file = kernel(0x10_0000, &PARTS, &[abi(1, 2), devices(&manifest(&[]))]);
        let found = Kernel::read(&file[..]).unwrap();
        assert!(matches!(
            found.check_devices(false),
            Err(KernelError::NoNetDevice)
        ));
        for file in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0; 4096]] {
            assert!(matches!(Kernel::read(file), Err(KernelError::NoExecutable)));
        }
    }

    #[test]
    fn segments_are_where_they_may_be() {
        let code = PARTS[0];
        for (parts, word) in [
            (&[(0xf_f000, &b"a"[..], 1, CODE)][..], "begins where"),
            (&[(0, b"a", 1, CODE)], "begins where"),
            (&[(u64::MAX, b"a", 1, CODE)], "ends where"),
            (&[(u64::MAX - 1, b"a", 16, CODE)], "ends where"),
            (&[(0x10_0000, b"a", u64::MAX, CODE)], "ends where"),
            (&[(0x10_0000, b"a", END_MAX, CODE)], "ends where"),
            (&[(0x10_0000, b"code", 3, CODE)], "more in the file"),
            (&[(0x10_0000, b"a", 1, 7)], "both written to and executed"),
            (&[code, (0x10_0800, b"a", 1, DATA)], "before the one before"),
            (&[(0x10_1000, b"a", 1, DATA), code], "before the one before"),
            (&[(0x10_0000, b"a", 1, DATA)], "has no code"),
            (&[(0x10_1000, b"a", 1, CODE)], "has no code"),
            (&[], "has no code"),
        ] {
            assert!(refused(parts).contains(word), "{word}: {}", refused(parts));
        }
        // A file that ends before its segment does.
        let mut file = kernel(0x10_0000, &[(0x10_0000, &[1; 64], 64, CODE)], &notes());
        let at = 64 + 8;
        file[at..at + 8].copy_from_slice(&(u64::MAX - 64).to_le_bytes());
        let found = Kernel::read(&file[..]).unwrap();
        let memory = Bytes(vec![0; 0x20_0000].into());
        assert!(matches!(found.load(&file[..], &memory), Err(KernelError::Io(_))));
    }

    proptest! {
        #[test]
        fn any_change_of_a_kernel_is_taken(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut file = kernel(0x10_0000, &PARTS, &notes());
            for (place, byte) in changes {
                let place = place.index(file.len());
                file[place] = byte;
            }
            if let Ok(found) = Kernel::read(&file[..]) {
                let memory = Bytes(vec![0; 0x20_0000].into());
                // It fits or does not.
                let _ = found.load(&file[..], &memory);
                let begin = &memory.0.borrow()[..KERNEL_START as usize];
                prop_assert!(begin.iter().all(|byte| *byte == 0));
            }
        }
    }
}
