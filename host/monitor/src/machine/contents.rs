//! What a machine runs: memory, image, program; and what a snapshot has of a processor.

use std::os::fd::BorrowedFd;

use kvm_bindings::{KVM_MEM_READONLY, kvm_xsave};
use rustix::fs::{fstat, ftruncate};
use spore_abi::layout::{IMAGE_BYTES_MAX, IMAGE_GPA, LARGE_PAGE_BYTES, MODULES_GPA, PAGE_BYTES, TEXT_GPA};

use super::neighbours::with_neighbours;
use super::stock::divided;
use super::{CR3_FLUSH_BIT, Machine, MachineError, PROGRAM_SLOT, TEXT_SLOT, kvm_error};
use crate::image::Image;
use crate::memory::Region;
use crate::module::RootFiles;
use crate::protocol::{ProcessorState, SNAPSHOT_EXTENTS_MAX, Snapshot};
use crate::{tables, text};

/// How much of the programs' memory, from its start, the host backs with small pages.
const SMALL_PAGES_BYTES: u64 = 12 << 20;
/// How long a program's file is at most that copies get whole, in memory of their own.
pub(super) const COPIED_PROGRAM_BYTES_MAX: u64 = 128 << 10;

/// Where the memory of a machine comes from; see [`crate::protocol::MemorySource`].
pub(crate) enum Memory<'a> {
    /// Zeroed memory.
    Fresh,
    /// This file, which is empty and gets as long as the memory.
    Within(BorrowedFd<'a>),
    /// A private copy of a file.
    CopyOf {
        file: BorrowedFd<'a>,
        /// See [`Snapshot::text_bytes`].
        text: Option<BorrowedFd<'a>>,
        snapshot: &'a Snapshot,
    },
}

impl Memory<'_> {
    /// Whether what was at the place of the image's code and constants is not there any more when the memory was filled.
    fn hides_image(&self) -> bool {
        let is_over = |&(start, length): &(u64, u64)| {
            start < IMAGE_GPA + IMAGE_BYTES_MAX && start.saturating_add(length) > IMAGE_GPA
        };
        match self {
            Self::Fresh => false,
            Self::Within(_) => true,
            // Stretches with a large gap are one where there would be too many.
            Self::CopyOf { snapshot, .. } => snapshot.extents.iter().any(is_over),
        }
    }

    /// The stretches of a memory of so many bytes for which there are to be pages when the guest begins.
    fn ahead(&self, ram_bytes: u64) -> Vec<(u64, u64)> {
        match self {
            Self::CopyOf { snapshot, .. } => {
                with_neighbours(snapshot.written.as_deref().unwrap_or_default(), ram_bytes)
            }
            Self::Fresh | Self::Within(_) => Vec::new(),
        }
    }

    /// Fills the memory of a machine, which nobody has touched. `ahead` as [`Memory::ahead`] has it; for some of that there
    /// are pages in `stock`.
    fn fill(&self, ram: &Region, ahead: &[(u64, u64)], stock: &[(u64, u64)]) -> Result<(), MachineError> {
        match self {
            Self::Fresh => Ok(()),
            Self::Within(file) => {
                ftruncate(file, ram.length()).map_err(|error| MachineError::Memory(error.into()))?;
                ram.share(*file).map_err(MachineError::Memory)
            }
            Self::CopyOf { file, snapshot, .. } => {
                let file_bytes = fstat(file)
                    .map_err(|error| MachineError::Memory(error.into()))?
                    .st_size;
                if u64::try_from(file_bytes) != Ok(ram.length()) {
                    return Err(MachineError::Snapshot("its memory has another size"));
                }
                if snapshot.extents.len() > SNAPSHOT_EXTENTS_MAX {
                    return Err(MachineError::Snapshot("it consists of too many parts"));
                }
                let beyond = |_| MachineError::Snapshot("a part of it is beyond its end");
                for (start, length, is_in_stock) in divided(&snapshot.extents, stock) {
                    let length = usize::try_from(length).map_err(beyond)?;
                    let filled = if is_in_stock {
                        ram.fill(*file, start, start, length)
                    } else {
                        ram.overlay(*file, start, start, length)
                    };
                    filled.map_err(MachineError::Memory)?;
                }
                for (start, length, is_in_stock) in divided(ahead, stock) {
                    if !is_in_stock {
                        ram.populate(start, usize::try_from(length).unwrap_or_default());
                    }
                }
                Ok(())
            }
        }
    }
}

/// How the guest is shown a program's file.
pub(super) fn program_flags(is_copied: bool) -> u32 {
    if is_copied { 0 } else { KVM_MEM_READONLY }
}

impl Machine {
    /// Gives the machine its contents: memory with the last `frames_bytes` of it for programs, the image, and a program.
    /// `text` is the file from which [`Machine::put_text`] has taken the image's code already. `is_reset`: it is to be put
    /// back to these contents later.
    pub(crate) fn load(
        &mut self,
        image: &Image,
        text: Option<BorrowedFd<'_>>,
        frames_bytes: u64,
        program: Option<&RootFiles>,
        memory: &Memory<'_>,
        is_reset: bool,
    ) -> Result<(), MachineError> {
        let ram_bytes = self.ram.length();
        let program_bytes = program.map_or(0, RootFiles::bytes).next_multiple_of(PAGE_BYTES);
        if let Some(program) = program {
            let is_copied = matches!(memory, Memory::CopyOf { .. }) && !is_reset;
            self.map_program(program, is_copied && program_bytes <= COPIED_PROGRAM_BYTES_MAX)?;
        }
        if !matches!(memory, Memory::CopyOf { snapshot, .. } if snapshot.text_bytes > 0) {
            self.take_place_of_text(0)?;
        }
        let ahead = memory.ahead(ram_bytes);
        // What is reset finds out by itself what is its own.
        let stock = self.take_stock(if is_reset { &[] } else { &ahead })?;
        memory.fill(&self.ram, &ahead, &stock)?;
        if let (true, Some(text)) = (memory.hides_image(), text) {
            self.put_text(text)?;
        }
        // A page that is touched first costs a fault in KVM, some 6 µs on a PVM host. Programs that take more than a little
        // memory touch thousands, one beside the other; for the others large pages would be mostly waste.
        let frames_gpa = ram_bytes.saturating_sub(frames_bytes) + SMALL_PAGES_BYTES;
        let frames_gpa = frames_gpa.next_multiple_of(LARGE_PAGE_BYTES);
        self.ram
            .advise_large_pages(frames_gpa, ram_bytes.saturating_sub(frames_gpa) as usize);
        match memory {
            Memory::CopyOf { text, snapshot, .. } => {
                if snapshot.text_bytes > 0 {
                    self.show_text(*text, snapshot.text_bytes)?;
                }
                self.set_state(&snapshot.processor)?;
                if snapshot.written.is_none() && !is_reset {
                    // Without it, only what is written to is known.
                    let _ = self.forget_accesses();
                }
            }
            Memory::Fresh | Memory::Within(_) => {
                if text.is_none() {
                    self.ram.advise_large_pages(IMAGE_GPA, LARGE_PAGE_BYTES as usize);
                    image.write_text(&self.ram)?;
                }
                image.write_data(&self.ram)?;
                let image_range = IMAGE_GPA..IMAGE_GPA + LARGE_PAGE_BYTES;
                self.page_tables_used_gpa = tables::fill_guest_tables(&self.ram, image_range, program_bytes)?;
            }
        }
        Ok(())
    }

    /// Shows the guest the program's file: read-only, or as a copy that is found as memory is ([`super::neighbours`]) since
    /// KVM looks for no neighbours in what is read-only. A guest that makes itself a way to write to its copy changes
    /// nothing but that, which is no more memory than the file has; but nobody puts it back.
    fn map_program(&mut self, program: &RootFiles, is_copied: bool) -> Result<(), MachineError> {
        let bytes = program.bytes().next_multiple_of(PAGE_BYTES);
        let region = match self.take_place_of_program(bytes, is_copied)? {
            Some(mut region) => {
                let taken = match is_copied {
                    true => region.take_copy(program),
                    false => region.take_module(program),
                };
                taken.map_err(MachineError::Memory)?;
                region
            }
            None => {
                let region = match is_copied {
                    true => Region::copied_module(program),
                    false => Region::module(program),
                };
                let region = region.map_err(MachineError::Memory)?;
                self.map(PROGRAM_SLOT, MODULES_GPA, &region, program_flags(is_copied))?;
                region
            }
        };
        if is_copied {
            region.populate(0, region.length() as usize);
        }
        self.program = Some(region);
        Ok(())
    }

    /// Shows the guest a file that holds the image's code and constants, in place of memory of its own.
    pub(crate) fn put_text(&self, text: BorrowedFd<'_>) -> Result<(), MachineError> {
        self.ram
            .overlay(text, 0, IMAGE_GPA, IMAGE_BYTES_MAX as usize)
            .map_err(MachineError::Memory)?;
        // Mapped for this process, it is found at once when the guest needs it.
        self.ram.read::<u8>(IMAGE_GPA)?;
        Ok(())
    }

    /// Shows the guest the large pages of text that a snapshot has.
    fn show_text(&mut self, text: Option<BorrowedFd<'_>>, bytes: u64) -> Result<(), MachineError> {
        let file = text.ok_or(MachineError::Snapshot("the file of its text is missing"))?;
        text::check(file, bytes).map_err(MachineError::Memory)?;
        let region = match self.take_place_of_text(bytes)? {
            Some(region) => region,
            None => {
                let region = text::place(bytes).map_err(MachineError::Memory)?;
                self.map(TEXT_SLOT, TEXT_GPA, &region, KVM_MEM_READONLY)?;
                region
            }
        };
        let shown = region.overlay(file, 0, 0, bytes as usize);
        shown.map_err(MachineError::Memory)?;
        self.snapshot_text = Some(region);
        Ok(())
    }

    /// What a snapshot needs to know of the processor, which stands at a doorbell.
    pub(crate) fn state(&mut self) -> Result<ProcessorState, MachineError> {
        // The registers are right only when KVM has finished the instruction (KVM API, KVM_EXIT_IO).
        self.run_nothing();
        let registers = self.registers()?;
        let special = self.processor.get_sregs().map_err(kvm_error("read registers"))?;
        let extended = self
            .processor
            .get_xsave()
            .map_err(kvm_error("read extended registers"))?;
        Ok(ProcessorState {
            general: registers.general,
            instruction_pointer: registers.rip,
            flags: registers.rflags,
            fs_base: special.fs.base,
            gs_base: special.gs.base,
            top_table_gpa: self.special.cr3 & !CR3_FLUSH_BIT,
            extended_state: extended.region.to_vec(),
            features: self.features.clone(),
        })
    }

    /// Sets the processor to what [`Machine::state`] has said of another one.
    pub(super) fn set_state(&mut self, state: &ProcessorState) -> Result<(), MachineError> {
        if let Some(missing) = state.features.missing_in(&self.features) {
            return Err(MachineError::MissingFeatures(missing));
        }
        if !self.is_table(state.top_table_gpa) {
            return Err(MachineError::Snapshot(
                "its page tables are not within its memory",
            ));
        }
        self.special.cr3 = state.top_table_gpa;
        let mut extended = kvm_xsave::default();
        if extended.region.len() != state.extended_state.len() {
            return Err(MachineError::Snapshot("its extended registers have another size"));
        }
        extended.region.copy_from_slice(&state.extended_state);
        // SAFETY: the state is as long as KVM takes it to be without the dynamic features, none of which is enabled.
        unsafe { self.processor.set_xsave(&extended) }.map_err(kvm_error("set extended registers"))?;
        let mut special = self.special;
        special.fs.base = state.fs_base;
        special.gs.base = state.gs_base;
        self.processor
            .set_sregs(&special)
            .map_err(kvm_error("set special registers"))?;
        self.set_registers(&state.registers())
    }
}
