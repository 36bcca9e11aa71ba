//! A guest's process that becomes a snapshot, or goes on from one.
//!
//! Two processes map a guest's memory, at several places, and must see the same: so a copy of a snapshot is a file of its
//! own, with those pages in it that are not zero.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::fstat;
use spore_abi::layout::PAGE_BYTES;
use spore_abi::process::{self as abi, ProcessPage};

use super::{GuestProcess, ProcessError, host_error};
use crate::features::Features;
use crate::memory::Region;
use crate::protocol::{ProcessorState, SNAPSHOT_EXTENTS_MAX};

/// Where `xsave` says which components are not in their initial state (Intel SDM volume 1, 13.4.2).
const COMPONENTS: usize = 512;
const EXTENDED_STATE: u64 = abi::EXTENDED_STATE - abi::PROCESS_PAGE;
/// Flags with which a guest goes on behind a doorbell: none but the one that is always set.
const FLAGS: u64 = 2;

macro_rules! field {
    ($field:ident) => {
        offset_of!(ProcessPage, $field) as u64
    };
}

fn unusable(reason: impl Into<String>) -> ProcessError {
    ProcessError::Snapshot(reason.into())
}

/// Fills empty memory of `ram_bytes` with what a snapshot has in these stretches.
pub(super) fn copy(
    snapshot: BorrowedFd<'_>,
    extents: &[(u64, u64)],
    ram: &OwnedFd,
    ram_bytes: u64,
) -> Result<(), ProcessError> {
    let failed = host_error::<io::Error>("copy a snapshot");
    let file_bytes = fstat(snapshot).map_err(|error| failed(error.into()))?.st_size;
    if u64::try_from(file_bytes) != Ok(ram_bytes) {
        return Err(unusable("its memory has another size"));
    }
    if extents.len() > SNAPSHOT_EXTENTS_MAX {
        return Err(unusable("it consists of too many parts"));
    }
    let ram = File::from(ram.try_clone().map_err(&failed)?);
    for &(start, length) in extents {
        let is_within = start.checked_add(length).is_some_and(|end| end <= ram_bytes);
        if !is_within || !start.is_multiple_of(PAGE_BYTES) || !length.is_multiple_of(PAGE_BYTES) || length == 0 {
            return Err(unusable("a part of it is beyond its end"));
        }
        copy_extent(snapshot, start, length as usize, &ram).map_err(&failed)?;
    }
    Ok(())
}

/// Copies those pages of a stretch that are not zero.
fn copy_extent(snapshot: BorrowedFd<'_>, start: u64, length: usize, ram: &File) -> io::Result<()> {
    let source = Region::part_of_file(snapshot, start, length)?;
    let pages = source.file_bytes().chunks_exact(PAGE_BYTES as usize);
    let mut run: Option<(usize, usize)> = None;
    let write = |(first, end): (usize, usize)| {
        let bytes = &source.file_bytes()[first..end];
        ram.write_all_at(bytes, start + first as u64)
    };
    for (index, page) in pages.enumerate() {
        let place = index * PAGE_BYTES as usize;
        match &mut run {
            _ if is_zero(page) => run.take().map_or(Ok(()), write)?,
            Some((_, end)) => *end = place + page.len(),
            None => run = Some((place, place + page.len())),
        }
    }
    run.map_or(Ok(()), write)
}

fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Lets a guest that waits for its first turn go on with these registers.
pub(super) fn set_state(
    area: &Region,
    state: &ProcessorState,
    here: &Features,
    mask: u64,
) -> Result<(), ProcessError> {
    if let Some(missing) = state.features.missing_in(here) {
        return Err(unusable(format!("this processor has not all that it needs: {missing}")));
    }
    let mut extended = Vec::with_capacity(abi::EXTENDED_STATE_BYTES as usize);
    extended.extend(state.extended_state.iter().flat_map(|word| word.to_ne_bytes()));
    if extended.len() as u64 != abi::EXTENDED_STATE_BYTES {
        return Err(unusable("its extended registers have another size"));
    }
    // KVM tells of components that no guest has, and the processor takes none that are not enabled.
    for (byte, mask) in extended[COMPONENTS..].iter_mut().zip(mask.to_le_bytes()) {
        *byte &= mask;
    }
    area.write_bytes(EXTENDED_STATE, &extended)?;
    area.write(field!(registers), state.registers())?;
    area.write(field!(fs_base), state.fs_base)?;
    area.write(field!(gs_base), state.gs_base)?;
    area.write(field!(top_table_gpa), state.top_table_gpa)?;
    area.write(field!(goes_on), 1_u32)?;
    Ok(())
}

impl GuestProcess {
    /// What a snapshot needs to know of the processor. The guest has left it in the process page, at a doorbell; it is
    /// copied once, and is checked where it is used.
    pub(crate) fn state(&self) -> Result<ProcessorState, ProcessError> {
        let registers = self.registers()?;
        let mut extended = vec![0; abi::EXTENDED_STATE_BYTES as usize];
        self.area.read_bytes(EXTENDED_STATE, &mut extended)?;
        let words = extended.as_chunks::<4>().0;
        Ok(ProcessorState {
            general: registers.general,
            instruction_pointer: registers.rip,
            flags: FLAGS,
            fs_base: self.area.read(field!(fs_base))?,
            gs_base: self.area.read(field!(gs_base))?,
            top_table_gpa: self.area.read(field!(top_table_gpa))?,
            extended_state: words.iter().map(|word| u32::from_ne_bytes(*word)).collect(),
            features: self.features.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::files;
    use super::*;

    const PAGE: u64 = PAGE_BYTES;

    #[test]
    fn a_copy_has_what_the_snapshot_has_and_no_page_more() {
        let bytes = 64 * PAGE;
        let [snapshot, ram] = [(); 2].map(|()| files::fixed_memory(c"spore-test", bytes).unwrap());
        let snapshot = File::from(snapshot);
        for page in [0, 1, 7, 20, 21, 63] {
            snapshot.write_all_at(&[page as u8 + 1], page * PAGE + 4095).unwrap();
        }
        let extents = [(0, 8 * PAGE), (16 * PAGE, 48 * PAGE)];
        copy(snapshot.as_fd(), &extents, &ram, bytes).unwrap();
        let ram = File::from(ram);
        let [mut there, mut here] = [(); 2].map(|()| vec![0; bytes as usize]);
        snapshot.read_exact_at(&mut there, 0).unwrap();
        ram.read_exact_at(&mut here, 0).unwrap();
        assert!(there == here);
        assert_eq!(fstat(&ram).unwrap().st_blocks, 6 * 8, "pages that are zero take no memory");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bytes = 8 * PAGE;
        let [snapshot, ram, other] =
            [bytes, bytes, 2 * bytes].map(|bytes| files::fixed_memory(c"spore-test", bytes).unwrap());
        for extent in [
            (0, bytes + PAGE),
            (u64::MAX - PAGE + 1, PAGE),
            (u64::MAX, 1),
            (1, PAGE),
            (0, 1),
            (bytes, 0),
        ] {
            let refused = copy(snapshot.as_fd(), &[extent], &ram, bytes);
            assert!(matches!(refused, Err(ProcessError::Snapshot(_))), "{extent:?}");
        }
        assert!(copy(snapshot.as_fd(), &[(0, PAGE)], &other, 2 * bytes).is_err());
        let many = vec![(0, PAGE); SNAPSHOT_EXTENTS_MAX + 1];
        assert!(copy(snapshot.as_fd(), &many, &ram, bytes).is_err());
    }
}
