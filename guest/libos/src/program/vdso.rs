//! The vDSO: a shared object of one page that the program finds through AT_SYSINFO_EHDR, as Linux has it (vdso(7)).
//!
//! ```text
//!   ELF header, program headers │ dynamic section │ hash, symbols, strings, versions │ code
//! ```

use alloc::rc::Rc;
use alloc::vec::Vec;

use spore_abi::layout::PAGE_BYTES;
use spore_machine::vdso;

use crate::errno::Errno;
use crate::memory::AddressSpace;
use crate::memory::areas::Protection;
use crate::memory::map::{Contents, Place, Request};
use crate::memory::pages::Pages;

/// Where it is mapped: above the first stack.
const BASE: u64 = 0x7fff_ff80_0000;
const OBJECT_NAME: &str = "linux-vdso.so.1";
/// The version that all symbols have.
const VERSION_NAME: &str = "LINUX_2.6";
const BASE_VERSION: u16 = 1;
const VERSION: u16 = 2;

const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SYMBOL_BYTES: u64 = 24;
const DYNAMIC_ENTRIES: u64 = 10;

/// Maps it; returns its address.
pub(super) fn map(space: &mut AddressSpace) -> Result<u64, Errno> {
    let pages = Pages::new(space.frames());
    pages.write(0, &build())?;
    space.map(&Request {
        contents: Contents::Pages {
            pages,
            offset: 0,
            shared: false,
        },
        label: Some((Rc::from(&b"[vdso]"[..]), 0)),
        ..Request::anonymous(
            Place::Fixed(BASE),
            PAGE_BYTES,
            Protection::READ | Protection::EXECUTE,
        )
    })
}

/// The hash of System V's ABI for symbol names.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0, |hash, byte| {
        let sum = (hash << 4) + u32::from(byte);
        let high = sum & 0xf000_0000;
        (sum ^ high >> 24) & !high
    })
}

/// Bytes of an object under construction.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Pads to a multiple of `alignment`; the offset there.
    fn align(&mut self, alignment: usize) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self.0.len() as u64
    }
}

/// The strings: their bytes, and the offset of each.
fn strings() -> (Vec<u8>, [u32; 2], [u32; 4]) {
    let mut bytes = alloc::vec![0];
    let mut add = |text: &str| {
        let offset = bytes.len() as u32;
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        offset
    };
    let versions = [OBJECT_NAME, VERSION_NAME].map(&mut add);
    let functions = vdso::functions().map(|(name, _)| add(name));
    (bytes, versions, functions)
}

/// The whole object.
fn build() -> Vec<u8> {
    let functions = vdso::functions();
    let symbols = functions.len() as u32 + 1;
    let (strings, [object_name, version_name], names) = strings();
    let tables_start = HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES + DYNAMIC_ENTRIES * 16;

    // What the dynamic section points to.
    let mut tables = Bytes::default();
    let hash_at = tables_start;
    tables.u32(1);
    tables.u32(symbols);
    tables.u32(1); // the one bucket begins with the first function
    tables.u32(0);
    for index in 1..symbols {
        tables.u32(if index + 1 < symbols { index + 1 } else { 0 });
    }
    let symbols_at = tables_start + tables.align(8);
    let code_at = symbols_at + u64::from(symbols) * SYMBOL_BYTES;
    // Versions and strings come after the symbols; the code after all.
    let version_table_at = code_at;
    let definitions_at = (version_table_at + u64::from(symbols) * 2).next_multiple_of(8);
    let strings_at = definitions_at + 2 * 28;
    let code_at = (strings_at + strings.len() as u64).next_multiple_of(64);
    tables.0.resize(tables.0.len() + SYMBOL_BYTES as usize, 0);
    for ((_, offset), name) in functions.iter().zip(names) {
        tables.u32(name);
        tables.0.extend_from_slice(&[0x12, 0]); // global function, default visibility
        tables.u16(1); // defined
        tables.u64(code_at + *offset as u64);
        tables.u64(0);
    }
    tables.u16(0);
    for _ in &functions {
        tables.u16(VERSION);
    }
    tables.align(8);
    for (flags, index, name, text, next) in [
        (1, BASE_VERSION, object_name, OBJECT_NAME, 28),
        (0, VERSION, version_name, VERSION_NAME, 0),
    ] {
        for value in [1, flags, index, 1] {
            tables.u16(value);
        }
        for value in [hash(text), 20, next, name, 0] {
            tables.u32(value);
        }
    }
    tables.0.extend_from_slice(&strings);
    tables.align(64);

    let dynamic = [
        (14, u64::from(object_name)),    // DT_SONAME
        (4, hash_at),                    // DT_HASH
        (6, symbols_at),                 // DT_SYMTAB
        (11, SYMBOL_BYTES),              // DT_SYMENT
        (5, strings_at),                 // DT_STRTAB
        (10, strings.len() as u64),      // DT_STRSZ
        (0x6fff_fff0, version_table_at), // DT_VERSYM
        (0x6fff_fffc, definitions_at),   // DT_VERDEF
        (0x6fff_fffd, 2),                // DT_VERDEFNUM
        (0, 0),                          // DT_NULL
    ];
    let end = code_at + vdso::code().len() as u64;
    let mut object = headers(end);
    for (tag, value) in dynamic {
        object.u64(tag);
        object.u64(value);
    }
    object.0.extend_from_slice(&tables.0);
    object.0.resize(code_at as usize, 0);
    object.0.extend_from_slice(vdso::code());
    object.0.truncate(PAGE_BYTES as usize);
    object.0
}

/// ELF header and program headers of an object that ends at `end`.
fn headers(end: u64) -> Bytes {
    let mut object = Bytes::default();
    object.0.extend_from_slice(b"\x7fELF\x02\x01\x01");
    object.align(16);
    object.u16(3); // shared object
    object.u16(62); // x86-64
    object.u32(1);
    object.u64(0);
    object.u64(HEADER_BYTES);
    object.u64(0);
    object.u32(0);
    for value in [HEADER_BYTES as u16, PROGRAM_HEADER_BYTES as u16, 2, 64, 0, 0] {
        object.u16(value);
    }
    let dynamic_at = HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
    for (kind, flags, start, bytes, alignment) in [
        (1, 5, 0, end, PAGE_BYTES),
        (2, 4, dynamic_at, DYNAMIC_ENTRIES * 16, 8),
    ] {
        object.u32(kind);
        object.u32(flags);
        for value in [start, start, start, bytes, bytes, alignment] {
            object.u64(value);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_abi() {
        assert_eq!(hash("LINUX_2.6"), 0x3ae_75f6);
        assert_eq!(hash(""), 0);
    }

    #[test]
    fn the_object_fits_into_its_page_and_names_its_functions() {
        let object = build();
        assert!(object.len() < PAGE_BYTES as usize);
        assert!(object.ends_with(vdso::code()));
        let word = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap());
        let dynamic = (HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES) as usize;
        let value = |tag: u64| {
            let entry = (0..DYNAMIC_ENTRIES as usize).find(|index| word(dynamic + index * 16) == tag);
            word(dynamic + entry.unwrap() * 16 + 8) as usize
        };
        let (symbols, strings) = (value(6), value(5));
        for (index, (name, offset)) in vdso::functions().into_iter().enumerate() {
            let symbol = symbols + (index + 1) * SYMBOL_BYTES as usize;
            let text = strings + u32::from_le_bytes(object[symbol..symbol + 4].try_into().unwrap()) as usize;
            assert!(object[text..].starts_with(name.as_bytes()));
            let code = word(symbol + 8) as usize;
            assert_eq!(object[code..], vdso::code()[offset..]);
        }
    }
}
