//! The first stack of a program (System V ABI, AMD64 supplement, 3.4.1): argument and environment strings, the
//! auxiliary vector, and the pointers to them.

use alloc::vec::Vec;

use linux_raw_sys::auxvec::{
    AT_BASE, AT_CLKTCK, AT_EGID, AT_ENTRY, AT_EUID, AT_EXECFN, AT_FLAGS, AT_GID, AT_HWCAP, AT_HWCAP2,
    AT_MINSIGSTKSZ, AT_NULL, AT_PAGESZ, AT_PHDR, AT_PHENT, AT_PHNUM, AT_PLATFORM, AT_RANDOM, AT_SECURE,
    AT_SYSINFO_EHDR, AT_UID,
};
use spore_abi::layout::PAGE_BYTES;

use crate::process::Identity;

/// AT_HWCAP2 bit: programs may use the FSGSBASE instructions.
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// What the stack tells the program.
pub(crate) struct Contents<'a> {
    /// `argv`, then `envp`, each string without its zero.
    pub(crate) arguments: &'a [Vec<u8>],
    pub(crate) environment: &'a [Vec<u8>],
    /// The path that the program was started by.
    pub(crate) path: &'a [u8],
    pub(crate) entry: u64,
    pub(crate) headers_address: u64,
    pub(crate) headers_count: u64,
    /// Where the interpreter was placed; 0 without one.
    pub(crate) interpreter_base: u64,
    /// Address of the virtual dynamic shared object; 0 without one.
    pub(crate) virtual_object: u64,
    /// What a signal needs on the stack, in bytes.
    pub(crate) signal_frame_bytes: u64,
    pub(crate) random: [u8; 16],
    /// Who the program runs as.
    pub(crate) identity: &'a Identity,
    /// Feature bits of CPUID leaf 1 (edx).
    pub(crate) processor_features: u64,
}

/// A stack.
pub(crate) struct Built {
    /// Its bytes, up to its end.
    pub(crate) bytes: Vec<u8>,
    /// The stack pointer, which is the address of the first of them.
    pub(crate) pointer: u64,
    /// The auxiliary vector, which is among them.
    pub(crate) auxiliary: Vec<u8>,
}

/// The stack that ends at `top`.
pub(crate) fn build(contents: &Contents<'_>, top: u64) -> Built {
    let mut strings = Vec::new();
    let mut offsets = Vec::new();
    let fixed: [&[u8]; 2] = [b"x86_64", contents.path];
    let first_argument = fixed.len();
    let all = fixed
        .into_iter()
        .chain(contents.arguments.iter().map(Vec::as_slice));
    for text in all.chain(contents.environment.iter().map(Vec::as_slice)) {
        offsets.push(strings.len() as u64);
        strings.extend_from_slice(text);
        strings.push(0);
    }
    let random_offset = strings.len() as u64;
    strings.extend_from_slice(&contents.random);
    let strings_base = (top - strings.len() as u64) & !15;
    let address = |index: usize| strings_base + offsets[index];

    let mut words = alloc::vec![contents.arguments.len() as u64];
    let first_environment = first_argument + contents.arguments.len();
    words.extend((first_argument..first_environment).map(address));
    words.push(0);
    words.extend((first_environment..offsets.len()).map(address));
    words.push(0);
    let [user, effective_user, ..] = contents.identity.users.map(u64::from);
    let [group, effective_group, ..] = contents.identity.groups.map(u64::from);
    let vector = [
        (AT_PHDR, contents.headers_address),
        (AT_PHENT, 56),
        (AT_PHNUM, contents.headers_count),
        (AT_PAGESZ, PAGE_BYTES),
        (AT_BASE, contents.interpreter_base),
        (AT_FLAGS, 0),
        (AT_ENTRY, contents.entry),
        (AT_UID, user),
        (AT_EUID, effective_user),
        (AT_GID, group),
        (AT_EGID, effective_group),
        (AT_SECURE, 0),
        (AT_RANDOM, strings_base + random_offset),
        (AT_HWCAP, contents.processor_features),
        (AT_HWCAP2, HWCAP2_FSGSBASE),
        (AT_CLKTCK, 100),
        (AT_PLATFORM, address(0)),
        (AT_EXECFN, address(1)),
        (AT_MINSIGSTKSZ, contents.signal_frame_bytes),
    ];
    let object = Some((AT_SYSINFO_EHDR, contents.virtual_object)).filter(|&(_, address)| address != 0);
    let pairs = object.into_iter().chain(vector).chain([(AT_NULL, 0)]);
    let auxiliary: Vec<u64> = pairs.flat_map(|(key, value)| [u64::from(key), value]).collect();
    words.extend_from_slice(&auxiliary);

    let to_bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let pointer = (strings_base - words.len() as u64 * 8) & !15;
    let mut bytes: Vec<u8> = to_bytes(&words);
    bytes.resize((strings_base - pointer) as usize, 0);
    bytes.extend_from_slice(&strings);
    Built {
        bytes,
        pointer,
        auxiliary: to_bytes(&auxiliary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_aligned_and_its_pointers_lead_to_the_strings() {
        let arguments = [b"program".to_vec(), b"--flag".to_vec()];
        let environment = [b"A=1".to_vec()];
        let top = 0x7fff_0000_0000;
        for extra in 0..20 {
            let environment = [environment[0].clone(), alloc::vec![b'x'; extra]];
            let contents = Contents {
                arguments: &arguments,
                environment: &environment,
                path: b"/bin/program",
                entry: 1,
                headers_address: 2,
                headers_count: 3,
                interpreter_base: 0,
                virtual_object: 0,
                signal_frame_bytes: 2048,
                random: [7; 16],
                identity: &Identity::new(1000, 50, Vec::new()),
                processor_features: 4,
            };
            let Built {
                bytes,
                pointer,
                auxiliary,
            } = build(&contents, top);
            assert_eq!(pointer % 16, 0);
            assert!(pointer + bytes.len() as u64 <= top);
            let word = |index: usize| u64::from_le_bytes(bytes[index * 8..index * 8 + 8].try_into().unwrap());
            let text = |address: u64| {
                let start = (address - pointer) as usize;
                let length = bytes[start..].iter().position(|&byte| byte == 0).unwrap();
                &bytes[start..start + length]
            };
            assert_eq!(word(0), 2);
            assert_eq!(
                (text(word(1)), text(word(2)), word(3)),
                (&b"program"[..], &b"--flag"[..], 0)
            );
            assert_eq!((text(word(4)), word(6)), (&b"A=1"[..], 0));
            assert_eq!(text(word(5)).len(), extra);
            assert_eq!((word(7), word(8)), (u64::from(AT_PHDR), 2));
            let pairs: Vec<(u64, u64)> = auxiliary
                .chunks(16)
                .map(|pair| {
                    let half = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().unwrap());
                    (half(0), half(8))
                })
                .collect();
            assert!(pairs.contains(&(AT_UID.into(), 1000)) && pairs.contains(&(AT_EGID.into(), 50)));
            assert_eq!(auxiliary, bytes[56..56 + auxiliary.len()]);
        }
    }
}
