//! Small files of snapshots, for tests and the fuzz target.

use spore_abi::layout::PAGE_BYTES;
use spore_monitor::features::Features;
use spore_monitor::protocol::{Captured, ProcessorState};

use super::format::{Contents, Draft, Opened, ReadError};
use super::identity::Identity;

/// What the samples belong to.
pub(crate) const IDENTITY: Identity = Identity {
    abi_version: 7,
    library_os: [1; 32],
    processor: [2; 32],
    host_boot: [3; 32],
    root: [4; 32],
    configuration: [5; 32],
};

/// Registers of nobody's, and a memory of 16 pages.
pub(crate) fn contents(written: Option<Vec<(u64, u64)>>) -> Contents {
    Contents {
        memory_bytes: 16 * PAGE_BYTES,
        captured: Captured {
            processor: ProcessorState {
                general: std::array::from_fn(|index| index as u64),
                instruction_pointer: 0x40_1000,
                flags: 0x202,
                fs_base: 0x7000,
                gs_base: 0,
                top_table_gpa: 4 * PAGE_BYTES,
                extended_state: (0..100).collect(),
                features: Features::default(),
            },
            text_offers: vec![(0x4018, 0x5000), (u64::MAX, 3)],
        },
        written,
    }
}

/// A file of these contents, with pages that are not zero.
pub(crate) fn file(contents: &Contents, stretches: &[(u64, u64)]) -> Vec<u8> {
    let pages_bytes: u64 = stretches.iter().map(|(_, length)| length).sum();
    let pages: Vec<u8> = (0..pages_bytes).map(|at| (at / 7) as u8 | 1).collect();
    assemble(contents, stretches, &pages)
}

fn assemble(contents: &Contents, stretches: &[(u64, u64)], pages: &[u8]) -> Vec<u8> {
    let mut draft = Draft::new(&IDENTITY, contents, stretches).expect("the registers fit");
    draft.pages(pages);
    let tables = draft.tables().to_vec();
    [&draft.header()[..], &tables, pages].concat()
}

/// Takes a file apart, as [`super::read`] does. Also which stretches of the memory are in it.
///
/// # Panics
///
/// If it is taken, and the file of what was in it is another one.
pub(crate) fn take(file: &[u8]) -> Result<(Contents, Vec<(u64, u64)>), ReadError> {
    let mut source = file;
    let opened = Opened::read(&mut source, file.len() as u64, &IDENTITY)?;
    let (mut stretches, mut pages): (Vec<(u64, u64)>, Vec<u8>) = Default::default();
    let contents = opened.pages(&mut source, |at, bytes| {
        match stretches.last_mut() {
            // There is a gap between stretches.
            Some((start, length)) if *start + *length == at => *length += bytes.len() as u64,
            _ => stretches.push((at, bytes.len() as u64)),
        }
        pages.extend_from_slice(bytes);
        Ok(())
    })?;
    let again = assemble(&contents, &stretches, &pages);
    assert!(again == file, "what is taken is what was written");
    Ok((contents, stretches))
}

/// Some files.
pub(crate) fn files() -> Vec<Vec<u8>> {
    let page = PAGE_BYTES;
    vec![
        file(&contents(None), &[]),
        file(&contents(None), &[(0, page), (2 * page, 3 * page)]),
        file(&contents(Some(Vec::new())), &[(15 * page, page)]),
        file(
            &contents(Some(vec![(0, page), (3 * page, page)])),
            &[(0, 2 * page), (3 * page, 2 * page), (9 * page, page)],
        ),
    ]
}
