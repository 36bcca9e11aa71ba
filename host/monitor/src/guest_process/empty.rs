//! A guest's process with nothing in it: made and confined before it is known what it will run, and then loaded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spore_abi::layout::{FREE_GPA, IMAGE_GPA, LARGE_PAGE_BYTES, PAGE_BYTES, PAGE_TABLES_GPA};
use spore_abi::process::{self as abi, ProcessPage, turn};
use zerocopy::FromZeros;

use super::{
    Child, GuestProcess, HWCAP2_FSGSBASE, Layers, ProcessError, child, clock, files, filter, snapshot,
};
use super::{gate, has_dispatch, host_error, is_root_empty};
use crate::features;
use crate::image::Image;
use crate::machine::{Memory, extended_state};
use crate::memory::Region;
use crate::module::RootFiles;
use crate::tables;

/// A guest's process that waits for what it is to run.
pub(crate) struct EmptyProcess {
    child: Child,
    area: Region,
    /// Where the child waits.
    gate: OwnedFd,
    /// Instructions of the seccomp program in the area.
    filter_length: u32,
    has_text: bool,
    has_dispatch: bool,
    time_stamp_khz: u64,
    layers: Layers,
}

/// What a guest's process is loaded with.
pub(crate) struct Load<'a> {
    pub(crate) image: &'a Image,
    /// Size of its memory, in bytes; rounded up to large pages.
    pub(crate) ram_bytes: u64,
    /// The root module.
    pub(crate) program: &'a RootFiles,
    pub(crate) memory: &'a Memory<'a>,
    /// Whether system calls are caught by Syscall User Dispatch, where the kernel has it.
    pub(crate) uses_dispatch: bool,
}

impl EmptyProcess {
    /// A process that waits. As `user` (and group) it is told from others; none keeps the own one, in a namespace where
    /// there is one. `text` is a file with the image's code, if that is not to be in each guest's own memory.
    pub(crate) fn new(
        image: &Image,
        text: Option<BorrowedFd<'_>>,
        user: Option<u32>,
    ) -> Result<Self, ProcessError> {
        if crate::auxiliary_value(libc::AT_HWCAP2) & HWCAP2_FSGSBASE == 0 {
            return Err(ProcessError::NoSegmentBases);
        }
        let no_memory = host_error("get memory for the guest");
        let area_file = files::fixed_memory(c"spore-process", abi::AREA_BYTES).map_err(&no_memory)?;
        let area = Region::shared(area_file.as_fd(), abi::AREA_BYTES as usize).map_err(&no_memory)?;
        let filter = filter::program()?;
        area.write_bytes(abi::FILTER - abi::PROCESS_PAGE, filter::bytes(&filter))?;
        let plan = child::Plan {
            area: area_file.as_fd(),
            text,
            entry: image.header.process_entry,
            sequence: child::Sequence::of_this_thread(),
            user,
            has_empty_root: is_root_empty(),
        };
        let (gate, childs_gate) = gate().map_err(host_error("make a socket"))?;
        let id = child::start(&plan, &gate, &childs_gate).map_err(host_error("make a process"))?;
        drop(childs_gate);
        let child = Child {
            id,
            // Made while the child cannot have been waited for, so that the number is its. Without, its end is seen when
            // it should run.
            watch: Pid::from_raw(id).and_then(|id| pidfd_open(id, PidfdFlags::empty()).ok()),
        };
        let layers = child::receive_report(&gate, id)?;
        Ok(Self {
            child,
            area,
            gate,
            filter_length: filter.len() as u32,
            has_text: text.is_some(),
            has_dispatch: has_dispatch(),
            time_stamp_khz: clock::time_stamp_khz(),
            layers,
        })
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> i32 {
        self.child.id
    }

    /// Gives it memory and a program. It makes itself ready, and waits for its first turn.
    pub(crate) fn load(self, load: &Load<'_>) -> Result<GuestProcess, ProcessError> {
        let ram_bytes = load.ram_bytes.next_multiple_of(LARGE_PAGE_BYTES);
        let program_bytes = load.program.bytes().next_multiple_of(PAGE_BYTES);
        let no_memory = host_error("get memory for the guest");
        let no_program = host_error("map the program");
        let executable = |file: &_, bytes: u64| files::executable(file, bytes.next_multiple_of(PAGE_BYTES));
        let module = load.program.map_files(executable).map_err(&no_program)?;
        let program = Region::module(&module).map_err(&no_program)?;
        let ram_file = match load.memory {
            Memory::Within(file) => files::fixed_memory_within(*file, ram_bytes),
            Memory::Fresh | Memory::CopyOf { .. } => files::fixed_memory(c"spore-guest", ram_bytes),
        }
        .map_err(&no_memory)?;
        let ram = Region::shared(ram_file.as_fd(), ram_bytes as usize).map_err(&no_memory)?;

        let extended_state = extended_state(clock::state_leaf);
        let features = features::of_processes();
        let page = ProcessPage {
            turn: turn::MONITOR,
            uses_dispatch: u32::from(load.uses_dispatch && self.has_dispatch),
            filter_length: self.filter_length,
            leaves_state: u32::from(matches!(load.memory, Memory::Within(_))),
            ram_bytes,
            module_bytes: program_bytes,
            module_base_bytes: module.base_bytes(),
            top_table_gpa: PAGE_TABLES_GPA,
            extended_state_mask: extended_state.mask,
            ..ProcessPage::new_zeroed()
        };
        self.area.write(0, page)?;
        if !self.has_text {
            load.image.write_text(&ram)?;
        }
        let (mut page_tables_used_gpa, mut missing, mut window_bytes) = (0, None, ram_bytes);
        let mut files = vec![ram_file.as_fd()];
        files.extend(module.files());
        match load.memory {
            Memory::CopyOf { file, snapshot, .. } => {
                snapshot::set_state(&self.area, &snapshot.processor, &features, extended_state.mask)?;
                let left = snapshot::fill(*file, snapshot, &ram_file, ram_bytes)?;
                left.write(&self.area)?;
                missing = Some(left);
                window_bytes = FREE_GPA;
                files.push(*file);
            }
            Memory::Fresh | Memory::Within(_) => {
                load.image.write_data(&ram)?;
                let image_range = IMAGE_GPA..IMAGE_GPA + LARGE_PAGE_BYTES;
                page_tables_used_gpa = tables::fill_guest_tables(&ram, image_range, program_bytes)?;
            }
        }
        let contents = child::Contents {
            ram_bytes,
            module_bytes: program_bytes,
            module_base_bytes: module.base_bytes(),
            window_bytes,
            has_snapshot: u64::from(missing.is_some()),
        };
        child::send_contents(&self.gate, &contents, &files)
            .map_err(host_error("give the guest its memory"))?;
        Ok(GuestProcess {
            child: self.child,
            ram,
            area: self.area,
            program,
            missing,
            tick_at: None,
            extended_state,
            features,
            page_tables_used_gpa,
            time_stamp_khz: self.time_stamp_khz,
            layers: self.layers,
        })
    }
}
