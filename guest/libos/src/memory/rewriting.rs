//! Call sites without traps: a `syscall` instruction is rewritten into a jump when it traps for the first time.
//!
//! ```text
//!   before   B8 number32           mov eax, number        after   FF 24 25 slot32    jmp [slot]
//!            0F 05                 syscall                        (its last two bytes, 06 00, are no instruction)
//!
//!   before   48 C7 C0 number32     mov rax, number        after   FF 24 25 slot32    jmp [slot]
//!            0F 05                 syscall                        0F 05              syscall
//!
//!   slot:    address of the code that follows
//!            mov eax, number; movabs rcx, after the site; jmp [entry]
//! ```
//!
//! The form is that of gVisor's systrap (`usertrap`): it never touches the program's stack, whose red zone is live. The
//! slots lie at [`SLOTS_BASE`], so that byte 5 of the jump is 06, which is no instruction in 64-bit mode: whoever jumps
//! to the `syscall` itself, or was interrupted right before it, raises an exception there, and the library OS serves the
//! call all the same. Sites in memory that the program can write are left alone, and so is every site without one of the
//! two forms: correctness never depends on rewriting, and it can be switched off.
//!
//! Calls that only ask who the task is are answered by the slot itself, from [`spore_machine::identity`].

use alloc::collections::{BTreeMap, BTreeSet};

use linux_raw_sys::general as nr;
use spore_abi::layout::PAGE_BYTES;
use spore_machine::entry::rewritten_call_entry;
use spore_machine::identity::Identity;
use spore_machine::{processor, user};

use super::AddressSpace;
use super::areas::Protection;
use super::map::{Place, Request};
use crate::errno::Errno;

/// Where the slots are. The third byte of every address in there is 06.
pub(crate) const SLOTS_BASE: u64 = 0x6_0000;
/// Room for slots, in bytes.
pub(crate) const SLOTS_BYTES: u64 = 0x1_0000;
/// Size of a slot, in bytes. The first one holds the address of the library OS's entry.
const SLOT_BYTES: u64 = 32;
/// Sites that are known to stay as they are; with more, they are looked at anew.
const HOPELESS_MAX: usize = 1024;
/// Length of the jump, and of what it replaces.
const JUMP_BYTES: usize = 7;
/// Bytes of the program that are looked at: those before the `syscall` instruction.
const BEFORE_BYTES: usize = 8;

/// How a site loads the number of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `mov eax, number`: the jump ends where the `syscall` did.
    Short,
    /// `mov rax, number`: the jump ends where the `syscall` begins.
    Long,
}

impl Form {
    /// Distance from the `syscall` back to the jump.
    fn bytes_before(self) -> u64 {
        match self {
            Self::Short => 5,
            Self::Long => 7,
        }
    }
}

/// The rewritten sites of an address space.
pub(crate) struct Rewriter {
    is_enabled: bool,
    /// Number of the slot, by the address of the `syscall` instruction.
    sites: BTreeMap<u64, u64>,
    /// Sites that cannot be rewritten.
    hopeless: BTreeSet<u64>,
}

impl Rewriter {
    /// Nothing is rewritten yet.
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self {
            is_enabled,
            sites: BTreeMap::new(),
            hopeless: BTreeSet::new(),
        }
    }

    /// Whether sites are rewritten.
    pub(super) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Remembers that a site cannot be rewritten.
    fn give_up(&mut self, site: u64) {
        if self.hopeless.len() >= HOPELESS_MAX {
            self.hopeless.clear();
        }
        self.hopeless.insert(site);
    }
}

/// How the number is loaded by the instruction that ends where the `syscall` begins, if that can be rewritten.
fn form(before: &[u8; BEFORE_BYTES], number: u32) -> Option<Form> {
    let [other, a, b, c, rest @ ..] = before;
    if rest != &number.to_le_bytes() {
        return None;
    }
    match (other, a, b, c) {
        (_, 0x48, 0xc7, 0xc0) => Some(Form::Long),
        // With a prefix it would be an instruction for another register.
        (_, _, prefix, 0xb8) if !(0x40..0x50).contains(prefix) && *prefix != 0x66 => Some(Form::Short),
        _ => None,
    }
}

/// Whether the call only asks who the task is, and what.
fn identity(number: u32) -> Option<Identity> {
    match number {
        nr::__NR_getpid => Some(Identity::Process),
        nr::__NR_getppid => Some(Identity::Parent),
        nr::__NR_gettid => Some(Identity::Task),
        nr::__NR_getuid | nr::__NR_geteuid | nr::__NR_getgid | nr::__NR_getegid => Some(Identity::Owner),
        _ => None,
    }
}

/// Address of a slot.
fn slot_address(slot: u64) -> u64 {
    SLOTS_BASE + slot * SLOT_BYTES
}

/// `jmp [slot]`.
fn jump(slot: u64) -> [u8; JUMP_BYTES] {
    let [a, b, c, d] = (slot_address(slot) as u32).to_le_bytes();
    [0xff, 0x24, 0x25, a, b, c, d]
}

/// What a slot holds.
fn slot(slot: u64, number: u32, after: u64) -> [u8; SLOT_BYTES as usize] {
    let mut bytes = [0xcc; SLOT_BYTES as usize];
    let code = slot_address(slot) + 8;
    bytes[..8].copy_from_slice(&code.to_le_bytes());
    let return_to = |bytes: &mut [u8]| {
        bytes[..2].copy_from_slice(&[0x48, 0xb9]);
        bytes[2..10].copy_from_slice(&after.to_le_bytes());
    };
    if let Some(identity) = identity(number) {
        // movabs rax, [address]; movabs rcx, after; jmp rcx
        bytes[8..10].copy_from_slice(&[0x48, 0xa1]);
        bytes[10..18].copy_from_slice(&identity.address().to_le_bytes());
        return_to(&mut bytes[18..28]);
        bytes[28..30].copy_from_slice(&[0xff, 0xe1]);
        return bytes;
    }
    // mov eax, number; movabs rcx, after; jmp [rip + distance to the first slot]
    bytes[8] = 0xb8;
    bytes[9..13].copy_from_slice(&number.to_le_bytes());
    return_to(&mut bytes[13..23]);
    bytes[23..25].copy_from_slice(&[0xff, 0x25]);
    let distance = (SLOTS_BASE as u32).wrapping_sub(slot_address(slot) as u32 + 29);
    bytes[25..29].copy_from_slice(&distance.to_le_bytes());
    bytes
}

impl AddressSpace {
    /// The `syscall` instruction at `site` has trapped with this number: rewrites it if that can be done.
    pub(crate) fn note_trap(&mut self, site: u64, number: u64) {
        if !self.rewriter.is_enabled || self.rewriter.hopeless.contains(&site) {
            return;
        }
        if self.rewrite(site, number).is_none() {
            self.rewriter.give_up(site);
        }
    }

    /// Whether an invalid instruction at `address` is the rest of a rewritten call: then it is that call.
    pub(crate) fn is_rewritten_call(&mut self, address: u64) -> bool {
        let Some(&slot) = self.rewriter.sites.get(&address) else {
            return false;
        };
        let start = address.wrapping_sub(Form::Short.bytes_before());
        self.read_array::<JUMP_BYTES>(start)
            .is_ok_and(|bytes| bytes == jump(slot))
    }

    fn rewrite(&mut self, site: u64, number: u64) -> Option<()> {
        let number = u32::try_from(number).ok()?;
        let mut before = [0; BEFORE_BYTES];
        self.read(site.checked_sub(BEFORE_BYTES as u64)?, &mut before)
            .ok()?;
        let form = form(&before, number)?;
        let start = site - form.bytes_before();
        let index = match self.rewriter.sites.get(&site) {
            Some(&index) => index,
            // The first slot is not a site's.
            None => self.rewriter.sites.len() as u64 + 1,
        };
        if (index + 1) * SLOT_BYTES > SLOTS_BYTES {
            return None;
        }
        if self.rewriter.sites.is_empty() {
            self.make_slots().ok()?;
        }
        let after = site.wrapping_add(2);
        self.write_text(slot_address(index), &slot(index, number, after))?;
        self.rewriter.sites.insert(site, index);
        self.write_text(start, &jump(index))?;
        processor::serialize();
        Some(())
    }

    /// Maps the slots, and writes the first.
    fn make_slots(&mut self) -> Result<(), Errno> {
        let protection = Protection::READ | Protection::EXECUTE;
        self.map(&Request::anonymous(
            Place::FixedIfFree(SLOTS_BASE),
            SLOTS_BYTES,
            protection,
        ))?;
        self.write_text(SLOTS_BASE, &rewritten_call_entry().to_le_bytes())
            .ok_or(Errno::ENOMEM)
    }

    /// Writes text that the program can execute and not write, within a page: the page becomes its own if it is a
    /// file's. None if it is no such text.
    fn write_text(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        let page = address & !(PAGE_BYTES - 1);
        let (_, area) = self.areas.find(address)?;
        let is_text = area.protection.contains(Protection::EXECUTE)
            && !area.protection.contains(Protection::WRITE)
            && !area.backing.is_shared();
        if !is_text || address + bytes.len() as u64 > page + PAGE_BYTES {
            return None;
        }
        let area = area.clone();
        self.populate(page, page + PAGE_BYTES, true).ok()?;
        if self.tables.mapped(page)?.is_borrowed {
            self.own_page(page, &area).ok()?;
            self.flush();
        }
        let gpa = self.tables.mapped(page)?.gpa + address % PAGE_BYTES;
        user::write_place(user::Place::Frame(gpa), bytes).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_forms_are_recognised() {
        let number = nr::__NR_futex;
        let mut short = [0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0];
        short[4..].copy_from_slice(&number.to_le_bytes());
        assert_eq!(form(&short, number), Some(Form::Short));
        assert_eq!(form(&short, number + 1), None);
        for prefix in [0x41, 0x48, 0x66] {
            let mut other = short;
            other[2] = prefix;
            assert_eq!(form(&other, number), None);
        }
        let mut long = short;
        long[1..4].copy_from_slice(&[0x48, 0xc7, 0xc0]);
        assert_eq!(form(&long, number), Some(Form::Long));
        long[3] = 0xc1;
        assert_eq!(form(&long, number), None);
    }

    #[test]
    fn the_rest_of_a_jump_is_no_instruction() {
        let last = SLOTS_BYTES / SLOT_BYTES - 1;
        for slot in [0, 1, 77, last] {
            assert_eq!(jump(slot)[5..], [0x06, 0x00]);
        }
    }

    #[test]
    fn slots_lead_to_the_entry_and_back() {
        let after = 0x1234_5678_9abc;
        let bytes = slot(3, nr::__NR_read, after);
        let code = slot_address(3) + 8;
        assert_eq!(bytes[..8], code.to_le_bytes());
        assert_eq!(bytes[9..13], nr::__NR_read.to_le_bytes());
        assert_eq!(bytes[15..23], after.to_le_bytes());
        let distance = i32::from_le_bytes(bytes[25..29].try_into().unwrap());
        let target = (slot_address(3) + 29).wrapping_add_signed(i64::from(distance));
        assert_eq!(target, SLOTS_BASE);
        let who = slot(4, nr::__NR_getpid, after);
        assert_eq!(who[10..18], Identity::Process.address().to_le_bytes());
        assert_eq!(who[20..28], after.to_le_bytes());
    }

    #[test]
    fn hopeless_sites_are_remembered_within_bounds() {
        let mut rewriter = Rewriter::new(true);
        for site in 0..3 * HOPELESS_MAX as u64 {
            rewriter.give_up(site);
            assert!(rewriter.hopeless.contains(&site));
            assert!(rewriter.hopeless.len() <= HOPELESS_MAX);
        }
    }
}
