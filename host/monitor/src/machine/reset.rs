//! A machine that is put back to what it was when it was loaded with a snapshot.
//!
//! The guest may have had ring 0 of its machine, and has then changed whatever it liked. Registers are set anew. What is
//! not set is compared with what it was (`baseline`, the monitor's area): if it is something else, the machine cannot be
//! reset.
//!
//! Memory is put back by the guest's own processor, and not by this process: KVM may translate with shadow page tables,
//! which it makes from the guest's, and it learns that a guest's table has changed only when the *guest* writes to it
//! (Linux, Documentation/virt/kvm/x86/mmu.rst). So a few instructions of ours (`stub`) run in the guest, on page tables of
//! ours that it cannot write to:
//!
//! ```text
//!   page map of this process: which pages are copies of its own ──> list of (page, what it is to be)
//!   processor: our page tables ── stub ──> compares, writes what differs ──> doorbell
//!   processor: registers and page tables of the snapshot
//! ```
//!
//! What did not change is not written to, so page tables which are what they were cost nothing; and what KVM knows of the
//! guest's memory stays true, so the next invocation finds it warm.
//!
//! The pages through which guest and monitor speak are written to by this process too. Who uses one of them as a page
//! table, as no guest of ours does, fools at most the translations of one who does the same later, in memory that has been
//! put back.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use kvm_bindings::KVM_MEM_READONLY;
use kvm_ioctls::Kvm;
use spore_abi::layout::{IMAGE_BYTES_MAX, IMAGE_GPA, PAGE_BYTES};

use super::baseline::Baseline;
use super::stub::{Contents, DONE, PAGES_MAX, Page, SOURCE_GPA, STUB_GPA, Stub};
use super::{Exit, Machine, MachineError, kvm_error};
use crate::memory::{OutOfRange, Region};
use crate::protocol::{ProcessorState, Snapshot};
use crate::reset::NotReset;
use crate::tables::{MONITOR_BYTES, MONITOR_STACKS};
use crate::written::{PageMap, STRETCHES_MAX};

/// The memory slots: of the stub, and of the snapshot's file.
const STUB_SLOT: u32 = 8;
const SOURCE_SLOT: u32 = 9;
// A list that was cut is longer than what is put back.
const _: () = assert!(STRETCHES_MAX as u64 > PAGES_MAX);
/// How long the stub may take.
const STUB_TIMEOUT: Duration = Duration::from_secs(1);

/// What a machine was when it was loaded.
pub(crate) struct Pristine {
    processor: ProcessorState,
    baseline: Baseline,
    monitor_area: Vec<u8>,
    extents: Vec<(u64, u64)>,
    source: Region,
    stub: Stub,
}

impl Pristine {
    /// Memory that is mapped for that, in bytes.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.source.length() + self.stub.region().length()
    }
}

impl Machine {
    /// Notes what the machine is, which was loaded with this snapshot and has not run: so that it can be reset.
    pub(crate) fn prepare_reset(
        &mut self,
        kvm: &Kvm,
        file: BorrowedFd<'_>,
        snapshot: &Snapshot,
    ) -> Result<(), MachineError> {
        let baseline = Baseline::take(kvm, &self.processor)?;
        let monitor_area = monitor_area(&self.monitor_area)?;
        let ram_bytes = self.ram.length();
        let source = Region::file(file, ram_bytes as usize).map_err(MachineError::Memory)?;
        let stub = Stub::new(ram_bytes)?;
        let pristine = Pristine {
            processor: snapshot.processor.clone(),
            baseline,
            monitor_area,
            extents: snapshot.extents.clone(),
            source,
            stub,
        };
        self.map(SOURCE_SLOT, SOURCE_GPA, &pristine.source, KVM_MEM_READONLY)?;
        self.map(STUB_SLOT, STUB_GPA, pristine.stub.region(), KVM_MEM_READONLY)?;
        self.pristine = Some(pristine);
        Ok(())
    }

    /// Whether it is one that can be reset.
    pub(crate) fn can_be_reset(&self) -> bool {
        self.pristine.is_some()
    }

    /// Makes the machine what it was, or says why that cannot be: then it must not run again. It stands at a doorbell or a
    /// tick.
    pub(crate) fn reset(&mut self, page_map: &PageMap) -> Result<(), NotReset> {
        let pristine = self.pristine.take().ok_or(NotReset::Unsupported)?;
        self.put_back(&pristine, page_map)?;
        self.pristine = Some(pristine);
        Ok(())
    }

    fn put_back(&mut self, pristine: &Pristine, page_map: &PageMap) -> Result<(), NotReset> {
        self.finish_instruction()?;
        if let Some(what) = pristine.baseline.change(&self.processor)? {
            return Err(NotReset::Changed(what));
        }
        if monitor_area(&self.monitor_area)? != pristine.monitor_area {
            return Err(NotReset::Changed("the tables of its processor"));
        }
        let pages = self.note_pages(pristine, page_map)?;
        if pages > 0 {
            self.run_stub(pages)?;
        }
        Ok(self.set_state(&pristine.processor)?)
    }

    /// Lets KVM finish the instruction that it has left the guest for. One that goes on after that is none of ours.
    fn finish_instruction(&mut self) -> Result<(), NotReset> {
        self.kick.set();
        match self.run() {
            Exit::Interrupted => Ok(()),
            _ => Err(NotReset::Changed("what its processor was doing")),
        }
    }

    /// Lists what has to be put back; the number of pages.
    fn note_pages(&self, pristine: &Pristine, page_map: &PageMap) -> Result<u64, NotReset> {
        let own = page_map.own_pages(&self.ram).ok_or(NotReset::PageMap)?;
        if own.iter().map(|(_, length)| length / PAGE_BYTES).sum::<u64>() > PAGES_MAX - stack_pages() {
            return Err(NotReset::TooMuch);
        }
        let mut extents = pristine.extents.iter().copied().peekable();
        let mut count = 0;
        for (start, length) in own {
            for gpa in (start..start + length).step_by(PAGE_BYTES as usize) {
                if (IMAGE_GPA..IMAGE_GPA + IMAGE_BYTES_MAX).contains(&gpa) {
                    return Err(NotReset::Changed("the library OS's code"));
                }
                while extents
                    .next_if(|&(start, length)| start + length <= gpa)
                    .is_some()
                {}
                let contents = match extents.peek() {
                    Some(&(start, _)) if start <= gpa => Contents::Snapshot(gpa),
                    _ => Contents::Zeros,
                };
                pristine.stub.note(count, Page::Ram(gpa), contents)?;
                count += 1;
            }
        }
        for number in 0..stack_pages() {
            let mut page = [0; PAGE_BYTES as usize];
            self.monitor_area
                .read_bytes(MONITOR_STACKS.start + number * PAGE_BYTES, &mut page)?;
            if page.iter().any(|&byte| byte != 0) {
                pristine.stub.note(count, Page::Stack(number), Contents::Zeros)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Puts back the pages that have been listed.
    fn run_stub(&mut self, pages: u64) -> Result<(), NotReset> {
        self.special.cr3 = Stub::top_table_gpa();
        self.processor
            .set_sregs(&self.special)
            .map_err(kvm_error("set special registers"))?;
        self.set_registers(&Stub::registers(pages))?;
        let deadline = Instant::now() + STUB_TIMEOUT;
        loop {
            match self.run() {
                Exit::Doorbell(DONE) => return self.finish_instruction(),
                Exit::Interrupted if Instant::now() < deadline => {}
                _ => return Err(NotReset::NotPutBack),
            }
        }
    }
}

fn stack_pages() -> u64 {
    (MONITOR_STACKS.end - MONITOR_STACKS.start) / PAGE_BYTES
}

/// What the monitor's area holds but for the stacks of exceptions.
fn monitor_area(area: &Region) -> Result<Vec<u8>, OutOfRange> {
    let (before, end) = (MONITOR_STACKS.start as usize, MONITOR_STACKS.end as usize);
    let mut bytes = vec![0; before + MONITOR_BYTES - end];
    area.read_bytes(0, &mut bytes[..before])?;
    area.read_bytes(MONITOR_STACKS.end, &mut bytes[before..])?;
    Ok(bytes)
}
