//! Call sites without traps: a `syscall` instruction is rewritten into a jump when it traps for the first time.
//!
//! ```text
//!   Short    B8 number32           mov eax, number        after   FF 24 25 slot32    jmp [slot]
//!            0F 05                 syscall                        (its last two bytes, 06 00, are no instruction)
//!
//!   Long     48 C7 C0 number32     mov rax, number        after   FF 24 25 slot32    jmp [slot]
//!            0F 05                 syscall                        0F 05              syscall
//!
//!   Compared 0F 05                 syscall                after   FF 24 E5 slot32    jmp [slot]
//!            48 3D bound32         cmp rax, bound                 (its last bytes, E5 and more, are an `in`, which is
//!                                                                 refused)
//!
//!   Moved    4C 8B 4C 24 08        mov r9, [rsp + 8]      after   FF 24 25 slot32    jmp [slot]
//!            (48 89 CA             mov rdx, rcx)
//!            0F 05                 syscall
//!
//!   slot:    address of the code that follows
//!            what came before; mov eax, number; movabs rcx, what comes next; jmp [entry]
//!            (what comes next, if it was overwritten: the comparison; movabs rcx, after the site; jmp rcx)
//! ```
//!
//! The first two are sites that load the number of their call themselves. The others get it from a variable, or come by it in
//! some other way: `syscall(2)`, cancellation points of musl and glibc, all calls of Go. Those of C libraries compare what
//! they get; if one does not, its last argument comes from the stack.
//!
//! The form is that of gVisor's systrap (`usertrap`): it never touches the program's stack, whose red zone is live.
//! Whoever was interrupted within what is overwritten, returns there from a call that trapped, or jumps there, raises an
//! exception, and the library OS lets it go on where the overwritten instruction is now ([`Rest`]): the slots lie at
//! [`SLOTS_BASE`], so that byte 5 of the jump is 06, which is no instruction in 64-bit mode, and byte 2 can be E5, which
//! is `in eax, port`, for a port that is no guest's. Sites in memory that the program can write are left alone, and so is every
//! site without one of the forms: correctness never depends on rewriting, and it can be switched off.
//!
//! Calls that only ask who the task is are answered by the slot itself, from [`spore_machine::identity`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use spore_abi::layout::PAGE_BYTES;
use spore_machine::entry::rewritten_call_entry;
use spore_machine::identity::Identity;
use spore_machine::{processor, user};

use super::AddressSpace;
use super::areas::{Area, Protection};
use super::map::{Place, Request};
use crate::errno::Errno;

/// Where the slots are. The third byte of every address in there is 06.
pub(crate) const SLOTS_BASE: u64 = 0x6_0000;
/// Room for slots, in bytes.
pub(crate) const SLOTS_BYTES: u64 = 0x1_0000;
/// Size of a slot, in bytes. The first one holds the address of the library OS's entry. A multiple of 64: the lowest byte
/// of a slot's address, which [`Form::Compared`] makes the number of a port, is none of the doorbell's.
const SLOT_BYTES: u64 = 64;
/// Where the code of a slot begins, in bytes.
const CODE: usize = 8;
/// Sites that are known to stay as they are; with more, they are looked at anew.
const HOPELESS_MAX: usize = 1024;
/// Length of the jump, and of what it replaces.
const JUMP_BYTES: usize = 7;
/// Length of a `syscall` instruction.
const CALL_BYTES: usize = 2;
/// Bytes of the program that are looked at before the `syscall` instruction.
const BEFORE_BYTES: usize = 8;
/// The same, behind it.
const AFTER_BYTES: usize = 6;
/// Length of an instruction that loads a register from near the top of the stack, or stores it there.
const STACK_MOVE_BYTES: usize = 5;
/// Length of an instruction that copies a register.
const MOVE_BYTES: usize = 3;

/// What a site looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `mov eax, number`: the jump ends where the `syscall` did.
    Short,
    /// `mov rax, number`: the jump ends where the `syscall` begins.
    Long,
    /// A comparison of the result comes next, of so many bytes; the jump begins where the `syscall` did.
    Compared(usize),
    /// Moves of arguments come before, of so many bytes in all.
    Moved(usize),
}

impl Form {
    /// Distance from the `syscall` back to the jump.
    const fn bytes_before(self) -> usize {
        match self {
            Self::Short => 5,
            Self::Long => 7,
            Self::Compared(_) => 0,
            Self::Moved(bytes) => bytes,
        }
    }
}

/// A rewritten site.
#[derive(Debug, Clone, Copy)]
struct Site {
    /// Number of its slot.
    slot: u64,
    form: Form,
    /// The slot answers the call itself.
    is_identity: bool,
}

impl Site {
    /// Where the jump of the site is whose `syscall` instruction is at `address`.
    fn start(self, address: u64) -> u64 {
        address.wrapping_sub(self.form.bytes_before() as u64)
    }

    /// What the program would stand at that is at this distance from the beginning of the slot, and whose `syscall`
    /// instruction is at `address`.
    fn original(self, address: u64, distance: usize) -> u64 {
        let behind = address.wrapping_add(CALL_BYTES as u64);
        match (self.form, distance) {
            (Form::Compared(_), COMPARISON) => behind,
            (Form::Compared(bytes), COMPARISON..) => behind.wrapping_add(bytes as u64),
            (Form::Compared(_), _) => address,
            (_, CODE) => self.start(address),
            (Form::Moved(8), FIRST_MOVED) => address.wrapping_sub(MOVE_BYTES as u64),
            _ if self.is_identity => behind,
            _ => address,
        }
    }
}

/// Where, in a slot, the second of two moves is.
const FIRST_MOVED: usize = CODE + STACK_MOVE_BYTES;

/// How a task goes on that stands within what was overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It makes the call.
    Call,
    /// It goes on at this address.
    At(u64),
}

/// The rewritten sites of an address space.
pub(crate) struct Rewriter {
    is_enabled: bool,
    /// By the address of the `syscall` instruction.
    sites: BTreeMap<u64, Site>,
    /// Addresses of those that have slots, by the number of the slot less one.
    owners: Vec<u64>,
    /// Sites that cannot be rewritten.
    hopeless: BTreeSet<u64>,
}

impl Rewriter {
    /// Nothing is rewritten yet.
    pub(crate) fn new(is_enabled: bool) -> Self {
        Self {
            is_enabled,
            sites: BTreeMap::new(),
            owners: Vec::new(),
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

/// What a site looks like that can be rewritten.
fn form(before: &[u8; BEFORE_BYTES], after: &[u8; AFTER_BYTES], number: u32) -> Option<Form> {
    let [other, a, b, c, loaded @ ..] = before;
    if loaded == &number.to_le_bytes() {
        match (other, a, b, c) {
            (_, 0x48, 0xc7, 0xc0) => return Some(Form::Long),
            // With a prefix it would be an instruction for another register.
            (_, _, prefix, 0xb8) if !(0x40..0x50).contains(prefix) && *prefix != 0x66 => {
                return Some(Form::Short);
            }
            _ => {}
        }
    }
    match after {
        [0x48, 0x3d, ..] => return Some(Form::Compared(6)),
        [0x3d, ..] => return Some(Form::Compared(5)),
        _ => {}
    }
    let (first, last) = before.split_at(STACK_MOVE_BYTES);
    if is_stack_move(&before[MOVE_BYTES..]) {
        Some(Form::Moved(STACK_MOVE_BYTES))
    } else if is_stack_move(first) && is_move(last) {
        Some(Form::Moved(STACK_MOVE_BYTES + MOVE_BYTES))
    } else {
        None
    }
}

/// Whether this is `mov register64, [rsp + distance8]`, or the other way.
fn is_stack_move(bytes: &[u8]) -> bool {
    matches!(bytes, [0x48 | 0x4c, 0x89 | 0x8b, modes, 0x24, _] if modes & 0xc7 == 0x44)
}

/// Whether this is `mov register64, register64`.
fn is_move(bytes: &[u8]) -> bool {
    matches!(bytes, [0x48 | 0x49 | 0x4c | 0x4d, 0x89, modes] if *modes >= 0xc0)
}

/// Whether the call only asks who the task is, and what.
fn identity(number: u32) -> Option<Identity> {
    match number {
        nr::__NR_getpid => Some(Identity::Process),
        nr::__NR_getppid => Some(Identity::Parent),
        nr::__NR_gettid => Some(Identity::Task),
        nr::__NR_getuid => Some(Identity::User),
        nr::__NR_geteuid => Some(Identity::EffectiveUser),
        nr::__NR_getgid => Some(Identity::Group),
        nr::__NR_getegid => Some(Identity::EffectiveGroup),
        _ => None,
    }
}

/// Address of a slot.
fn slot_address(slot: u64) -> u64 {
    SLOTS_BASE + slot * SLOT_BYTES
}

/// `jmp [slot]`, the address without base and index. What a processor does not look at, the scale, makes byte 2 what it is to be.
fn jump(site: Site) -> [u8; JUMP_BYTES] {
    let [a, b, c, d] = (slot_address(site.slot) as u32).to_le_bytes();
    let scale = if matches!(site.form, Form::Compared(_)) {
        0xe5
    } else {
        0x25
    };
    [0xff, 0x24, scale, a, b, c, d]
}

/// Writes a slot from its beginning.
struct SlotWriter {
    slot: u64,
    bytes: [u8; SLOT_BYTES as usize],
    end: usize,
}

impl SlotWriter {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.end..][..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// `movabs rcx, address`.
    fn return_to(&mut self, address: u64) {
        self.put(&[0x48, 0xb9]);
        self.put(&address.to_le_bytes());
    }

    /// `jmp [rip + distance to the first slot]`.
    fn enter(&mut self) {
        self.put(&[0xff, 0x25]);
        let here = slot_address(self.slot) as u32 + self.end as u32 + 4;
        self.put(&(SLOTS_BASE as u32).wrapping_sub(here).to_le_bytes());
    }

    /// `jmp rcx`.
    fn go_back(&mut self) {
        self.put(&[0xff, 0xe1]);
    }
}

/// Where, in a slot, a comparison is that was overwritten: behind `movabs rcx, …` and `jmp [entry]`.
const COMPARISON: usize = CODE + 10 + 6;

/// What the slot of the site holds whose `syscall` instruction is at `address`.
fn slot(
    site: Site,
    address: u64,
    number: u32,
    before: &[u8; BEFORE_BYTES],
    after: &[u8; AFTER_BYTES],
) -> [u8; SLOT_BYTES as usize] {
    let behind = address.wrapping_add(CALL_BYTES as u64);
    let mut writer = SlotWriter {
        slot: site.slot,
        bytes: [0xcc; SLOT_BYTES as usize],
        end: 0,
    };
    writer.put(&(slot_address(site.slot) + CODE as u64).to_le_bytes());
    match site.form {
        Form::Short | Form::Long => {
            if let Some(identity) = identity(number) {
                // movabs rax, [address]
                writer.put(&[0x48, 0xa1]);
                writer.put(&identity.address().to_le_bytes());
                writer.return_to(behind);
                writer.go_back();
            } else {
                // mov eax, number
                writer.put(&[0xb8]);
                writer.put(&number.to_le_bytes());
                writer.return_to(behind);
                writer.enter();
            }
        }
        Form::Compared(bytes) => {
            writer.return_to(slot_address(site.slot) + COMPARISON as u64);
            writer.enter();
            writer.put(&after[..bytes]);
            writer.return_to(behind.wrapping_add(bytes as u64));
            writer.go_back();
        }
        Form::Moved(bytes) => {
            writer.put(&before[BEFORE_BYTES - bytes..]);
            writer.return_to(behind);
            writer.enter();
        }
    }
    writer.bytes
}

impl AddressSpace {
    /// The `syscall` instruction at `site` has trapped with this number: rewrites it if that can be done. Where the task goes
    /// on that has made the call.
    pub(crate) fn note_trap(&mut self, site: u64, number: u64) -> u64 {
        let behind = site.wrapping_add(CALL_BYTES as u64);
        if !self.rewriter.is_enabled || self.rewriter.hopeless.contains(&site) {
            return behind;
        }
        if self.rewrite(site, number).is_none() {
            self.rewriter.give_up(site);
        }
        match self.rest_of_rewritten(behind) {
            Some(Rest::At(address)) => address,
            Some(Rest::Call) | None => behind,
        }
    }

    /// Where the call is made whose task goes on at this address when it has its answer.
    pub(crate) fn site_of_call(&self, goes_on_at: u64) -> u64 {
        self.original_address(goes_on_at).wrapping_sub(CALL_BYTES as u64)
    }

    /// What the program would stand at, were no site rewritten, that stands at `address`: the same, or where the overwritten
    /// instruction was whose copy it is at. That is what handlers of signals see; they, and those who unwind the stack, know the
    /// program's text.
    pub(crate) fn original_address(&self, address: u64) -> u64 {
        let original = || {
            let distance = address.checked_sub(SLOTS_BASE)?;
            let owner = usize::try_from(distance / SLOT_BYTES).ok()?.checked_sub(1)?;
            let &at = self.rewriter.owners.get(owner)?;
            let &site = self.rewriter.sites.get(&at)?;
            Some(site.original(at, (distance % SLOT_BYTES) as usize))
        };
        original().unwrap_or(address)
    }

    /// What is to be done by a task that stands at `address`, if that is within a rewritten call.
    pub(crate) fn rest_of_rewritten(&mut self, address: u64) -> Option<Rest> {
        let nearby = address.saturating_sub(JUMP_BYTES as u64)..=address.saturating_add(JUMP_BYTES as u64);
        let around = self.rewriter.sites.range(nearby).filter(|&(&at, site)| {
            let start = site.start(at);
            (start + 1..start + JUMP_BYTES as u64).contains(&address)
        });
        // Those of text that is no longer there may be among them.
        let around: Vec<_> = around.map(|(&at, &site)| (at, site)).collect();
        let (at, site) = around
            .into_iter()
            .find(|&(at, site)| self.is_as_written(at, site))?;
        let slot = slot_address(site.slot);
        match (site.form, address.wrapping_sub(site.start(at))) {
            _ if address == at => Some(Rest::Call),
            (Form::Compared(_), 2) => Some(Rest::At(slot + COMPARISON as u64)),
            (Form::Moved(_), 5) => Some(Rest::At(slot + CODE as u64 + 5)),
            _ => None,
        }
    }

    /// Whether the jump is there that was written for this site.
    fn is_as_written(&mut self, at: u64, site: Site) -> bool {
        self.read_array::<JUMP_BYTES>(site.start(at))
            .is_ok_and(|bytes| bytes == jump(site))
    }

    fn rewrite(&mut self, site: u64, number: u64) -> Option<()> {
        let number = u32::try_from(number).ok()?;
        // Those who unwind the stack know where handlers return by how it looks.
        if number == nr::__NR_rt_sigreturn {
            return None;
        }
        let known = self.rewriter.sites.get(&site).copied();
        // Whoever jumps to the instruction that some forms leave there makes its call.
        if let Some(known) = known
            && self.is_as_written(site, known)
        {
            return None;
        }
        let mut before = [0; BEFORE_BYTES];
        self.read(site.checked_sub(BEFORE_BYTES as u64)?, &mut before)
            .ok()?;
        let after = self.read_array(site + CALL_BYTES as u64).ok()?;
        let form = form(&before, &after, number)?;
        // The first slot is not a site's.
        let slot_number = known.map_or(self.rewriter.owners.len() as u64 + 1, |known| known.slot);
        let rewritten = Site {
            slot: slot_number,
            form,
            is_identity: matches!(form, Form::Short | Form::Long) && identity(number).is_some(),
        };
        // Before a slot is taken for it.
        self.text_at(rewritten.start(site), JUMP_BYTES)?;
        if (slot_number + 1) * SLOT_BYTES > SLOTS_BYTES {
            return None;
        }
        if self.rewriter.owners.is_empty() {
            self.make_slots().ok()?;
        }
        let contents = slot(rewritten, site, number, &before, &after);
        self.write_text(slot_address(slot_number), &contents)?;
        if self.rewriter.sites.insert(site, rewritten).is_none() {
            self.rewriter.owners.push(site);
        }
        self.write_text(rewritten.start(site), &jump(rewritten))?;
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

    /// The area of text that the program can execute and not write, within a page. None if it is no such text.
    fn text_at(&self, address: u64, length: usize) -> Option<Area> {
        let page = address & !(PAGE_BYTES - 1);
        let (_, area) = self.areas.find(address)?;
        let is_text = area.protection.contains(Protection::EXECUTE)
            && !area.protection.contains(Protection::WRITE)
            && !area.backing.is_shared();
        (is_text && address + length as u64 <= page + PAGE_BYTES).then(|| area.clone())
    }

    /// Writes such text: the page becomes the program's own if it is a file's.
    fn write_text(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        let page = address & !(PAGE_BYTES - 1);
        let area = self.text_at(address, bytes.len())?;
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

    const OTHER: [u8; AFTER_BYTES] = [0x48, 0x89, 0xc7, 0xe8, 1, 2];
    const COMPARES: [u8; AFTER_BYTES] = [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff];
    /// musl's `__syscall_cp_c`: `mov r9, [rsp + 8]; mov rdx, rcx`.
    const MOVES: [u8; BEFORE_BYTES] = [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x48, 0x89, 0xca];
    const NOTHING: [u8; BEFORE_BYTES] = [0x90; BEFORE_BYTES];

    fn site_of(slot: u64, form: Form) -> Site {
        Site {
            slot,
            form,
            is_identity: false,
        }
    }

    #[test]
    fn what_is_in_a_slot_stands_for_what_was_overwritten() {
        let at = 0x40_0100;
        let of = |form, distance| site_of(1, form).original(at, distance);
        for distance in [0, CODE, COMPARISON - 1] {
            assert_eq!(of(Form::Compared(6), distance), at);
        }
        assert_eq!(of(Form::Compared(6), COMPARISON), at + 2);
        for distance in [COMPARISON + 6, COMPARISON + 16] {
            assert_eq!(of(Form::Compared(6), distance), at + 8);
        }
        assert_eq!(of(Form::Moved(8), CODE), at - 8);
        assert_eq!(of(Form::Moved(8), CODE + 5), at - 3);
        assert_eq!(of(Form::Moved(8), CODE + 8), at);
        assert_eq!(of(Form::Moved(5), CODE), at - 5);
        assert_eq!(of(Form::Moved(5), CODE + 5), at);
        assert_eq!(of(Form::Short, CODE), at - 5);
        assert_eq!(of(Form::Short, CODE + 5), at);
        assert_eq!(of(Form::Long, CODE), at - 7);
        let identity = Site {
            is_identity: true,
            ..site_of(1, Form::Short)
        };
        assert_eq!(identity.original(at, CODE), at - 5);
        assert_eq!(identity.original(at, CODE + 10), at + 2);
    }

    fn word(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn only_the_forms_are_recognised() {
        let number = nr::__NR_futex;
        let mut short = [0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0];
        short[4..].copy_from_slice(&number.to_le_bytes());
        assert_eq!(form(&short, &OTHER, number), Some(Form::Short));
        assert_eq!(form(&short, &COMPARES, number), Some(Form::Short));
        assert_eq!(form(&short, &OTHER, number + 1), None);
        assert_eq!(form(&short, &COMPARES, number + 1), Some(Form::Compared(6)));
        for prefix in [0x41, 0x48, 0x66] {
            let mut other = short;
            other[2] = prefix;
            assert_eq!(form(&other, &OTHER, number), None);
        }
        let mut long = short;
        long[1..4].copy_from_slice(&[0x48, 0xc7, 0xc0]);
        assert_eq!(form(&long, &OTHER, number), Some(Form::Long));
        long[3] = 0xc1;
        assert_eq!(form(&long, &OTHER, number), None);
        assert_eq!(
            form(&NOTHING, &[0x3d, 0, 0xf0, 0xff, 0xff, 0x77], number),
            Some(Form::Compared(5))
        );
        assert_eq!(form(&MOVES, &OTHER, number), Some(Form::Moved(8)));
        // musl's `__syscall_cp_asm`: `mov [rsp + 8], r11`.
        let stored = [0x90, 0x90, 0x90, 0x4c, 0x89, 0x5c, 0x24, 0x08];
        assert_eq!(form(&stored, &OTHER, number), Some(Form::Moved(5)));
        for (place, byte) in [(3, 0x4a), (4, 0x8d), (5, 0x1c), (6, 0x25)] {
            let mut other = stored;
            other[place] = byte;
            assert_eq!(form(&other, &OTHER, number), None, "{other:02x?}");
        }
        assert_eq!(form(&NOTHING, &OTHER, number), None);
    }

    #[test]
    fn what_is_left_within_a_jump_raises_exceptions() {
        let last = SLOTS_BYTES / SLOT_BYTES - 1;
        for slot in [0, 1, 77, last] {
            let of = |form| jump(site_of(slot, form));
            for form in [Form::Short, Form::Moved(5), Form::Moved(8)] {
                assert_eq!(of(form)[5..], [0x06, 0x00]);
            }
            let [_, _, opcode, port, ..] = of(Form::Compared(6));
            assert_eq!(opcode, 0xe5);
            let ports = u16::from(port)..u16::from(port) + 4;
            let doorbell = spore_abi::doorbell::DOORBELL_PORT;
            assert!(
                !(doorbell..doorbell + spore_abi::doorbell::DOORBELL_PORTS).any(|port| ports.contains(&port))
            );
        }
    }

    #[test]
    fn slots_lead_to_the_entry_and_back() {
        let address = 0x1234_5678_9abc;
        let of = |number, form, call| {
            let site = site_of(number, form);
            slot(site, address, call, &MOVES, &COMPARES)
        };
        let enters = |slot: u64, bytes: &[u8; SLOT_BYTES as usize], at: usize| {
            assert_eq!(bytes[at..at + 2], [0xff, 0x25]);
            let distance = i32::from_le_bytes(bytes[at + 2..at + 6].try_into().unwrap());
            let target = (slot_address(slot) + at as u64 + 6).wrapping_add_signed(i64::from(distance));
            assert_eq!(target, SLOTS_BASE);
        };
        let bytes = of(3, Form::Short, nr::__NR_read);
        assert_eq!(word(&bytes[..8]), slot_address(3) + 8);
        assert_eq!(bytes[9..13], nr::__NR_read.to_le_bytes());
        assert_eq!(word(&bytes[15..23]), address + 2);
        enters(3, &bytes, 23);
        let who = of(4, Form::Long, nr::__NR_getpid);
        assert_eq!(word(&who[10..18]), Identity::Process.address());
        assert_eq!(word(&who[20..28]), address + 2);
        let moved = of(5, Form::Moved(8), nr::__NR_poll);
        assert_eq!(moved[8..16], MOVES);
        assert_eq!(word(&moved[18..26]), address + 2);
        enters(5, &moved, 26);
        let compared = of(6, Form::Compared(6), nr::__NR_poll);
        assert_eq!(word(&compared[10..18]), slot_address(6) + COMPARISON as u64);
        enters(6, &compared, 18);
        assert_eq!(compared[COMPARISON..COMPARISON + 6], COMPARES);
        assert_eq!(word(&compared[COMPARISON + 8..COMPARISON + 16]), address + 8);
        assert_eq!(compared[COMPARISON + 16..COMPARISON + 18], [0xff, 0xe1]);
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
