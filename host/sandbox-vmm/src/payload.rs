//! The kernel within its file: what unpacks itself on an ordinary machine, unpacked beforehand.
//!
//! Emulated, a kernel takes a quarter of its whole start to unpack itself. The file's header (Linux: Documentation/arch/x86/boot.rst)
//! says where the packed kernel is, an ELF file that QEMU starts by its PVH entry. Firecracker and Cloud Hypervisor load nothing else.

use std::io::Read as _;

/// Longest unpacked kernel, in bytes.
const BYTES_MAX: usize = 256 << 20;
/// Where the header says of how many sectors the part for the BIOS is, beside the first one.
const SETUP_SECTORS: usize = 0x1f1;
const SIGNATURE: (usize, &[u8]) = (0x202, b"HdrS");
/// Where the packed kernel is, from the end of that part; and how long.
const PAYLOAD: usize = 0x248;
const SECTOR_BYTES: usize = 512;
/// How LZ4's older format begins, the one of the kernel.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Longest block of that format once it is unpacked, in bytes.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
const ZSTANDARD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ELF: &[u8] = b"\x7fELF";

/// The kernel in a file, unpacked; none if it is packed in another way than Debian's and Ubuntu's. Then the file itself starts too,
/// only not as soon.
pub(crate) fn unpack(file: &[u8]) -> Option<Vec<u8>> {
    if file.get(SIGNATURE.0..SIGNATURE.0 + SIGNATURE.1.len())? != SIGNATURE.1 {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?) as usize);
    let setup_bytes = (usize::from(*file.get(SETUP_SECTORS)?) + 1) * SECTOR_BYTES;
    let begin = setup_bytes.checked_add(number(PAYLOAD)?)?;
    let packed = file.get(begin..begin.checked_add(number(PAYLOAD + 4)?)?)?;
    let (magic, rest) = packed.split_first_chunk()?;
    let kernel = match *magic {
        LZ4_LEGACY => unpack_lz4(rest)?,
        ZSTANDARD => {
            let mut kernel = Vec::new();
            let decoder = ruzstd::decoding::StreamingDecoder::new(packed).ok()?;
            decoder.take(BYTES_MAX as u64).read_to_end(&mut kernel).ok()?;
            kernel
        }
        _ => return None,
    };
    kernel.starts_with(ELF).then_some(kernel)
}

/// Whether a file is such an ELF file itself.
pub(crate) fn is_unpacked(file: &[u8]) -> bool {
    file.starts_with(ELF)
}

/// Blocks, each after its length; the last four bytes are the length of the whole.
fn unpack_lz4(packed: &[u8]) -> Option<Vec<u8>> {
    let (mut packed, whole) = packed.split_last_chunk()?;
    let whole = u32::from_le_bytes(*whole) as usize;
    if whole > BYTES_MAX {
        return None;
    }
    let mut kernel = vec![0; whole];
    let mut at = 0;
    while let Some((length, rest)) = packed.split_first_chunk() {
        let block = rest.get(..u32::from_le_bytes(*length) as usize)?;
        let end = (at + LZ4_BLOCK_BYTES).min(whole);
        at += lz4_flex::block::decompress_into(block, &mut kernel[at..end]).ok()?;
        packed = &rest[block.len()..];
    }
    (at == whole).then_some(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as the kernel's build makes it, with this in it.
    fn file(packed: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 2 * SECTOR_BYTES + 100];
        file[SETUP_SECTORS] = 1;
        file[SIGNATURE.0..SIGNATURE.0 + 4].copy_from_slice(SIGNATURE.1);
        file[PAYLOAD..PAYLOAD + 4].copy_from_slice(&100_u32.to_le_bytes());
        file[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        [&file, packed, b"what follows"].concat()
    }

    /// Bytes in LZ4's older format, in one block of literals (lz4_Block_format.md).
    fn packed(content: &[u8]) -> Vec<u8> {
        let mut block = vec![0xf0];
        let mut rest = content.len() - 15;
        while rest >= 255 {
            block.push(255);
            rest -= 255;
        }
        block.push(rest as u8);
        block.extend_from_slice(content);
        let length = (block.len() as u32).to_le_bytes();
        [
            &LZ4_LEGACY[..],
            &length,
            &block,
            &(content.len() as u32).to_le_bytes(),
        ]
        .concat()
    }

    #[test]
    fn a_packed_kernel_is_found_and_unpacked() {
        let kernel = [ELF, &[7; 1000]].concat();
        assert_eq!(unpack(&file(&packed(&kernel))).as_deref(), Some(&kernel[..]));
    }

    #[test]
    fn what_is_none_is_left_alone() {
        let kernel = [ELF, &[7; 1000]].concat();
        let good = file(&packed(&kernel));
        for length in 0..good.len() - b"what follows".len() {
            assert_eq!(unpack(&good[..length]), None, "{length}");
        }
        let mut longer = good.clone();
        let end = longer.len() - b"what follows".len();
        longer[end - 4..end].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(unpack(&longer), None);
        assert_eq!(unpack(&file(&packed(&[1; 1000]))), None, "no ELF file");
        assert_eq!(unpack(&file(b"otherwise packed")), None);
    }
}
