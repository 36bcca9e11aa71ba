//! Programs, as the store checks them, the library OS loads them, and the monitor looks for symbols in them.

/// Type, program header type and flags of the small files that are the seeds.
const EXECUTABLE: (u16, u32) = (2, 1);
const POSITION_INDEPENDENT: (u16, u32) = (3, 1);
const DYNAMIC: (u16, u32) = (3, 3);

pub(crate) fn run(file: &[u8]) {
    spore_store::fuzzing::program_file(file);
    spore_libos::fuzzing::elf_file(file);
    for address in [0x40_0100, 0x5555_5555_4100, u64::MAX] {
        let _ = spore_monitor::fuzzing::symbol(file, address);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [EXECUTABLE, POSITION_INDEPENDENT, DYNAMIC].map(small).into();
    seeds.push(two_segments());
    seeds.push(b"#!/bin/sh -e\nexit 0\n".to_vec());
    seeds
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A file with one program header, which covers all of it.
fn small((kind, header): (u16, u32)) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &kind.to_le_bytes());
    put(&mut file, 18, &62_u16.to_le_bytes());
    put(&mut file, 20, &1_u32.to_le_bytes());
    put(&mut file, 24, &0x40_0100_u64.to_le_bytes());
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 52, &64_u16.to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &1_u16.to_le_bytes());
    put(&mut file, 58, &64_u16.to_le_bytes());
    program_header(&mut file, 64, header, [0, 0x40_0000, 0x200, 0x300]);
    put(&mut file, 0x180, b"/lib64/ld-linux-x86-64.so.2\0");
    if header == 3 {
        put(&mut file, 64 + 8, &0x180_u64.to_le_bytes());
        put(&mut file, 64 + 32, &28_u64.to_le_bytes());
    }
    file
}

/// A program header: type, then offset, address, bytes in the file, bytes in memory.
fn program_header(file: &mut [u8], at: usize, kind: u32, numbers: [u64; 4]) {
    let [offset, address, file_bytes, memory_bytes] = numbers;
    put(file, at, &kind.to_le_bytes());
    put(file, at + 4, &5_u32.to_le_bytes());
    let words = [offset, address, address, file_bytes, memory_bytes, 0x1000];
    for (index, word) in words.iter().enumerate() {
        put(file, at + 8 + index * 8, &word.to_le_bytes());
    }
}

/// Code, data, an interpreter and a stack, and a symbol table with one function.
fn two_segments() -> Vec<u8> {
    let mut file = small(POSITION_INDEPENDENT);
    file.resize(0x1200, 0);
    put(&mut file, 56, &4_u16.to_le_bytes());
    program_header(&mut file, 64 + 56, 1, [0x1000, 0x40_2000, 0x200, 0x400]);
    program_header(&mut file, 64 + 112, 3, [0x190, 0, 28, 28]);
    program_header(&mut file, 64 + 168, 0x6474_e551, [0, 0, 0, 0]);
    put(&mut file, 0x190, b"/lib64/ld-linux-x86-64.so.2\0");
    // Three section headers at 0x1000: nothing, symbols at 0x1100, their names at 0x1180.
    put(&mut file, 40, &0x1000_u64.to_le_bytes());
    put(&mut file, 60, &3_u16.to_le_bytes());
    for (index, (kind, offset, bytes, link, entry)) in
        [(2_u32, 0x1100_u64, 48_u64, 2_u32, 24_u64), (3, 0x1180, 16, 0, 0)]
            .into_iter()
            .enumerate()
    {
        let at = 0x1000 + 64 * (index + 1);
        put(&mut file, at + 4, &kind.to_le_bytes());
        put(&mut file, at + 24, &offset.to_le_bytes());
        put(&mut file, at + 32, &bytes.to_le_bytes());
        put(&mut file, at + 40, &link.to_le_bytes());
        put(&mut file, at + 56, &entry.to_le_bytes());
    }
    put(&mut file, 0x1118, &1_u32.to_le_bytes());
    put(&mut file, 0x111c, &[0x12, 0, 1, 0]);
    put(&mut file, 0x1120, &0x40_0100_u64.to_le_bytes());
    put(&mut file, 0x1128, &0x80_u64.to_le_bytes());
    put(&mut file, 0x1181, b"main");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_programs() {
        let loadable = seeds()
            .iter()
            .filter(|file| spore_libos::fuzzing::elf_file(file))
            .count();
        assert_eq!(loadable, 3);
        assert!(
            seeds()
                .iter()
                .all(|file| spore_store::fuzzing::program_file(file))
        );
    }
}
