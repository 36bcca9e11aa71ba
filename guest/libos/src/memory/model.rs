//! Random programs against a model: the address space as a plain table of pages. Page tables are edited for real, in
//! simulated RAM; a processor is imitated that walks them and asks for pages that are missing.

extern crate std;

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use std::sync::Mutex;

use proptest::prelude::*;
use spore_abi::layout::{FREE_GPA, MODULES_GPA, PAGE_BYTES, WINDOW_BASE};
use spore_machine::simulation;
use spore_machine::user::{self, Place as Memory};

use super::areas::Protection;
use super::frames::{self, SharedFrames};
use super::map::{Contents, Place, Request};
use super::pages::Pages;
use super::remap::Move;
use super::space::{AccessError, AddressSpace, Intent};
use crate::errno::Errno;

/// There is one guest memory in a process.
static MACHINE: Mutex<()> = Mutex::new(());

const RAM_BYTES: u64 = 64 << 20;
const RESERVED_END: u64 = FREE_GPA + (2 << 20);
const MODULE_PAGES: u64 = 24;
const FILE_PAGES: u64 = 20;
/// Where fixed mappings go: pages of an ordinary stretch, then pages of the window, which are refused.
const ORDINARY: u64 = 0x4000_0000;
const STRETCH_PAGES: u64 = 40;

/// What the model says of a page.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Anonymous(u64),
    Module(u64),
    PrivateFile(u64),
    Shared(u64),
}

#[derive(Debug, Clone, Copy)]
struct Page {
    source: Source,
    /// What the program has written to a page of its own.
    own: Option<u64>,
    protection: Protection,
}

#[derive(Debug, Clone)]
enum Step {
    Map {
        place: u8,
        at: u64,
        pages: u64,
        kind: u8,
        protection: u8,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    Protect {
        at: u64,
        pages: u64,
        protection: u8,
    },
    Remap {
        at: u64,
        pages: u64,
        new_pages: u64,
        how: u8,
        to: u64,
    },
    Discard {
        at: u64,
        pages: u64,
    },
    Write {
        at: u64,
        value: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..2 * STRETCH_PAGES + 40;
    let pages = 1_u64..12;
    let step = prop_oneof![
        4 => (0u8..4, at.clone(), pages.clone(), 0u8..4, 0u8..5).prop_map(|(place, at, pages, kind, protection)| {
            Step::Map { place, at, pages, kind, protection }
        }),
        2 => (at.clone(), pages.clone()).prop_map(|(at, pages)| Step::Unmap { at, pages }),
        2 => (at.clone(), pages.clone(), 0u8..5)
            .prop_map(|(at, pages, protection)| Step::Protect { at, pages, protection }),
        3 => (at.clone(), pages.clone(), 1_u64..16, 0u8..3, at.clone())
            .prop_map(|(at, pages, new_pages, how, to)| Step::Remap { at, pages, new_pages, how, to }),
        1 => (at.clone(), pages).prop_map(|(at, pages)| Step::Discard { at, pages }),
        8 => (at, 1_u64..u64::MAX).prop_map(|(at, value)| Step::Write { at, value }),
    ];
    prop::collection::vec(step, 1..60)
}

fn protection(number: u8) -> Protection {
    match number {
        0 => Protection::empty(),
        1 => Protection::READ,
        2 => Protection::READ | Protection::EXECUTE,
        _ => Protection::READ_WRITE,
    }
}

/// The address space and its model.
struct World {
    space: AddressSpace,
    frames: SharedFrames,
    free_before: u64,
    model: BTreeMap<u64, Page>,
    /// The file that is mapped privately, and the one that is shared.
    files: [Rc<Pages>; 2],
    shared: [u64; FILE_PAGES as usize],
    /// Where mappings without an address went.
    elsewhere: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let boot = simulation::start(RAM_BYTES, RESERVED_END, MODULE_PAGES * PAGE_BYTES);
        let frames = frames::share(&boot);
        let files = [Pages::new(&frames), Pages::new(&frames)];
        for (file, pages) in files.iter().enumerate() {
            pages.set_length(FILE_PAGES * PAGE_BYTES);
            for index in 0..FILE_PAGES {
                let value = if file == 0 { 1000 + index } else { 0 };
                if file == 0 || index % 3 == 0 {
                    pages.write(index * PAGE_BYTES, &value.to_le_bytes()).unwrap();
                }
            }
        }
        let free_before = frames.borrow().free_bytes();
        Self {
            space: AddressSpace::new(&boot, &frames),
            frames,
            free_before,
            model: BTreeMap::new(),
            files,
            shared: [0; FILE_PAGES as usize],
            elsewhere: Vec::new(),
        }
    }

    /// An address from a small number.
    fn address(&self, at: u64) -> u64 {
        match at {
            0..STRETCH_PAGES => ORDINARY + at * PAGE_BYTES,
            at if at < 2 * STRETCH_PAGES => WINDOW_BASE + RESERVED_END + (at - STRETCH_PAGES) * PAGE_BYTES,
            at => {
                let known = at - 2 * STRETCH_PAGES;
                let base = self.elsewhere.get((known / 4) as usize).copied();
                base.unwrap_or(ORDINARY) + known % 4 * PAGE_BYTES
            }
        }
    }

    fn source(&self, kind: u8, index: u64) -> Source {
        match kind {
            0 => Source::Anonymous(0),
            1 => Source::Module(index),
            2 => Source::PrivateFile(index),
            _ => Source::Shared(index),
        }
    }

    fn map(&mut self, place: u8, at: u64, pages: u64, kind: u8, number: u8) {
        let address = self.address(at);
        // Some are longer than what is filled around a page that is touched.
        let pages = if place == 0 && at.is_multiple_of(2) {
            pages + 31
        } else {
            pages
        };
        let end = address + pages * PAGE_BYTES;
        let first = at % 8;
        let contents = match kind {
            0 => Contents::Anonymous,
            1 => Contents::Module {
                offset: first * PAGE_BYTES,
                end: MODULE_PAGES * PAGE_BYTES,
            },
            _ => Contents::Pages {
                pages: Rc::clone(&self.files[usize::from(kind - 2)]),
                offset: first * PAGE_BYTES,
                shared: kind == 3,
            },
        };
        let place = match place {
            0 => Place::Anywhere,
            1 => Place::Preferred(address),
            2 => Place::Fixed(address),
            _ => Place::FixedIfFree(address),
        };
        let is_used = self.model.range(address..end).next().is_some();
        let result = self.space.map(&Request {
            contents,
            ..Request::anonymous(place, pages * PAGE_BYTES, protection(number))
        });
        if place == Place::FixedIfFree(address) && is_used {
            assert_eq!(result, Err(Errno::EEXIST));
        }
        let Ok(start) = result else {
            assert!(at >= STRETCH_PAGES || result == Err(Errno::EEXIST), "{result:?}");
            return;
        };
        match place {
            Place::Fixed(_) | Place::FixedIfFree(_) => assert_eq!(start, address),
            Place::Preferred(_) if !is_used && at < STRETCH_PAGES => assert_eq!(start, address),
            _ => {
                let is_free = self
                    .model
                    .range(start..start + pages * PAGE_BYTES)
                    .next()
                    .is_none();
                assert!(is_free, "a mapping without an address replaces nothing");
                self.elsewhere.push(start);
            }
        }
        for index in 0..pages {
            let source = self.source(kind, first + index);
            self.model.insert(
                start + index * PAGE_BYTES,
                Page {
                    source,
                    own: None,
                    protection: protection(number),
                },
            );
        }
    }

    fn remap(&mut self, at: u64, pages: u64, new_pages: u64, how: u8, to: u64) {
        let (address, target) = (self.address(at), self.address(to));
        let how = match how {
            0 => Move::Never,
            1 => Move::IfNeeded,
            _ => Move::To(target),
        };
        let old = (0..pages).map(|index| self.model.get(&(address + index * PAGE_BYTES)).copied());
        let old: Vec<_> = old.collect();
        let result = self
            .space
            .remap(address, pages * PAGE_BYTES, new_pages * PAGE_BYTES, how);
        let Ok(start) = result else {
            // A range that is too long may have been cut before its new place was refused.
            if result == Err(Errno::ENOMEM) && new_pages < pages && old.iter().all(Option::is_some) {
                for index in new_pages..pages {
                    self.model.remove(&(address + index * PAGE_BYTES));
                }
            }
            return;
        };
        assert!(old.iter().all(Option::is_some), "only what is mapped is moved");
        for index in 0..pages {
            self.model.remove(&(address + index * PAGE_BYTES));
        }
        let last = old[0].unwrap();
        for index in 0..new_pages {
            let place = start + index * PAGE_BYTES;
            let page = match old.get(index as usize) {
                Some(page) => page.unwrap(),
                None => Page {
                    own: None,
                    source: match last.source {
                        Source::Anonymous(_) => Source::Anonymous(0),
                        Source::Module(first) => Source::Module(first + index),
                        Source::PrivateFile(first) => Source::PrivateFile(first + index),
                        Source::Shared(first) => Source::Shared(first + index),
                    },
                    ..last
                },
            };
            if !matches!(how, Move::To(_)) {
                assert!(
                    !self.model.contains_key(&place),
                    "nothing is replaced unless asked for"
                );
            }
            self.model.insert(place, page);
        }
        if start != address && !matches!(how, Move::To(_)) {
            self.elsewhere.push(start);
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Map {
                place,
                at,
                pages,
                kind,
                protection,
            } => self.map(place, at, pages, kind, protection),
            Step::Unmap { at, pages } => {
                let address = self.address(at);
                self.space.unmap(address, pages * PAGE_BYTES).unwrap();
                for index in 0..pages {
                    self.model.remove(&(address + index * PAGE_BYTES));
                }
            }
            Step::Protect {
                at,
                pages,
                protection: number,
            } => {
                let address = self.address(at);
                let places: Vec<u64> = (0..pages).map(|index| address + index * PAGE_BYTES).collect();
                let reached = places
                    .iter()
                    .take_while(|place| self.model.contains_key(place))
                    .count();
                let result = self
                    .space
                    .protect(address, pages * PAGE_BYTES, protection(number));
                assert_eq!(result.is_ok(), reached == places.len());
                for place in &places[..reached] {
                    if let Some(page) = self.model.get_mut(place) {
                        page.protection = protection(number);
                    }
                }
            }
            Step::Remap {
                at,
                pages,
                new_pages,
                how,
                to,
            } => self.remap(at, pages, new_pages, how, to),
            Step::Discard { at, pages } => {
                let address = self.address(at);
                let _ = self.space.discard(address, pages * PAGE_BYTES);
                for index in 0..pages {
                    if let Some(page) = self.model.get_mut(&(address + index * PAGE_BYTES)) {
                        page.own = None;
                        if let Source::Anonymous(value) = &mut page.source {
                            *value = 0;
                        }
                    }
                }
            }
            Step::Write { at, value } => {
                let address = self.address(at);
                self.write(address, value);
            }
        }
    }

    /// Where an access leads, as a processor finds it.
    fn access(&mut self, address: u64, intent: Intent) -> Result<u64, AccessError> {
        for _ in 0..2 {
            if let Some(mapped) = self.space.tables.mapped(address)
                && mapped.is_present
                && (intent == Intent::Read || mapped.is_writable)
            {
                return Ok(mapped.gpa);
            }
            self.space.fault(address, intent)?;
        }
        panic!("a fault that was served comes back");
    }

    fn write(&mut self, address: u64, value: u64) {
        let Some(&page) = self.model.get(&address) else {
            // The library OS's own view of RAM.
            if address < WINDOW_BASE {
                assert_eq!(self.access(address, Intent::Write), Err(AccessError::Forbidden));
            }
            return;
        };
        let result = self.access(address, Intent::Write);
        if !page.protection.contains(Protection::WRITE) {
            assert_eq!(result, Err(AccessError::Forbidden));
            return;
        }
        let is_beyond = match page.source {
            Source::Anonymous(_) => false,
            Source::Module(index) => index >= MODULE_PAGES,
            Source::PrivateFile(index) | Source::Shared(index) => index >= FILE_PAGES,
        };
        if is_beyond {
            assert_eq!(result, Err(AccessError::BeyondFile));
            return;
        }
        let gpa = result.unwrap();
        assert!(gpa < MODULES_GPA);
        assert!(user::write_place(Memory::Frame(gpa), &value.to_le_bytes()));
        if let Some(page) = self.model.get_mut(&address) {
            match &mut page.source {
                Source::Anonymous(place) => *place = value,
                Source::Shared(index) => self.shared[*index as usize] = value,
                Source::Module(_) | Source::PrivateFile(_) => page.own = Some(value),
            }
        }
    }

    fn check_page(&mut self, address: u64, page: Page) {
        let result = self.access(address, Intent::Read);
        if page.protection.is_empty() {
            assert_eq!(result, Err(AccessError::Forbidden));
            return;
        }
        let expected = match page.source {
            Source::Anonymous(value) => Some(value),
            Source::Module(index) if index < MODULE_PAGES => Some(index),
            Source::PrivateFile(index) if index < FILE_PAGES => Some(1000 + index),
            Source::Shared(index) if index < FILE_PAGES => Some(self.shared[index as usize]),
            _ => None,
        };
        let Some(expected) = expected else {
            assert_eq!(result, Err(AccessError::BeyondFile));
            return;
        };
        let gpa = result.unwrap();
        let place = if gpa >= MODULES_GPA {
            Memory::Module(gpa - MODULES_GPA)
        } else {
            Memory::Frame(gpa)
        };
        let mut bytes = [0; 8];
        assert!(user::read_place(place, &mut bytes));
        assert_eq!(
            u64::from_le_bytes(bytes),
            page.own.unwrap_or(expected),
            "at {address:#x}"
        );
    }

    fn check(&mut self) {
        let pages: Vec<_> = self
            .model
            .iter()
            .map(|(&address, &page)| (address, page))
            .collect();
        for (address, page) in pages {
            self.check_page(address, page);
        }
        let mapped: u64 = self.space.mapped_bytes();
        assert_eq!(mapped, self.model.len() as u64 * PAGE_BYTES);
    }

    /// After everything is unmapped, every frame is free again, and the window is as it was.
    fn end(mut self) {
        self.space.unmap(PAGE_BYTES, ORDINARY * 2).unwrap();
        assert!(
            self.space.tables.is_vacant(ORDINARY),
            "tables go with what they map"
        );
        self.space.clear();
        let made: u64 = self.files.iter().map(|pages| pages.taken_bytes()).sum();
        let made_before = (FILE_PAGES + FILE_PAGES.div_ceil(3)) * PAGE_BYTES;
        assert_eq!(
            self.frames.borrow().free_bytes() + (made - made_before),
            self.free_before
        );
        for gpa in (RESERVED_END..RAM_BYTES).step_by(PAGE_BYTES as usize) {
            let mapped = self.space.tables.mapped(WINDOW_BASE + gpa).unwrap();
            assert_eq!((mapped.gpa, mapped.is_writable), (gpa, true));
        }
    }
}

proptest! {
    #[test]
    fn memory_behaves_like_an_array_of_pages(steps in steps()) {
        let _machine = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
        }
        world.end();
    }
}

/// A program of three adjacent segments with two large pages, offered to the host, which has accepted.
fn offered_text() -> (AddressSpace, SharedFrames, u64) {
    const PAGES: [(u64, Protection); 3] = [
        (30, Protection::READ),
        (700, Protection::READ.union(Protection::EXECUTE)),
        (400, Protection::READ),
    ];
    let module_bytes = PAGES.iter().map(|(pages, _)| pages).sum::<u64>() * PAGE_BYTES;
    let boot = simulation::start(RAM_BYTES, RESERVED_END, module_bytes);
    let frames = frames::share(&boot);
    let free_before = frames.borrow().free_bytes();
    let mut space = AddressSpace::new(&boot, &frames);
    let mut first = 0;
    for (pages, protection) in PAGES {
        let contents = Contents::Module {
            offset: first * PAGE_BYTES,
            end: module_bytes,
        };
        let place = Place::Fixed(TEXT + first * PAGE_BYTES);
        let request = Request::anonymous(place, pages * PAGE_BYTES, protection);
        space.map(&Request { contents, ..request }).unwrap();
        first += pages;
    }
    // Data beside it is nobody's text.
    let data = Request::anonymous(Place::Fixed(TEXT + (6 << 20)), 2 << 20, Protection::READ_WRITE);
    space.map(&data).unwrap();
    // A page that the rewriting of calls has made the program's own.
    space.fault(TEXT + 40 * PAGE_BYTES, Intent::Execute).unwrap();
    let area = space.areas.find(TEXT + 40 * PAGE_BYTES).unwrap().1.clone();
    space.own_page(TEXT + 40 * PAGE_BYTES, &area).unwrap();
    let offers = space.offer_text();
    assert_eq!(offers.len(), 2);
    let before: Vec<_> = text_frames(&space).collect();
    assert!(before.iter().all(Option::is_some));
    for (offer, page) in offers.iter().zip(0..) {
        simulation::accept_offer(offer, page);
    }
    assert!(text_frames(&space).eq(before), "it looks as before");
    (space, frames, free_before)
}

const TEXT: u64 = 0x40_0000;

fn text_frames(space: &AddressSpace) -> impl Iterator<Item = Option<u64>> {
    (0..1024).map(|page| Some(space.tables.mapped(TEXT + page * PAGE_BYTES)?.gpa))
}

#[test]
fn text_in_large_pages_can_be_changed_page_by_page() {
    let _machine = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (mut space, frames, free_before) = offered_text();
    let before: Vec<_> = text_frames(&space).collect();
    let changed = TEXT + 100 * PAGE_BYTES;
    space
        .protect(changed, PAGE_BYTES, Protection::READ_WRITE)
        .unwrap();
    space.fault(changed, Intent::Write).unwrap();
    assert!(!space.tables.mapped(changed).unwrap().is_borrowed);
    space.unmap(TEXT + 200 * PAGE_BYTES, PAGE_BYTES).unwrap();
    // Moved as a whole, across both.
    let target = 0x7000_0000;
    let moved = space.remap(
        TEXT + 730 * PAGE_BYTES,
        300 * PAGE_BYTES,
        300 * PAGE_BYTES,
        Move::To(target),
    );
    assert_eq!(moved, Ok(target));
    for (page, before) in before.iter().enumerate() {
        let address = TEXT + page as u64 * PAGE_BYTES;
        let now = |address: u64| space.tables.mapped(address).map(|mapped| mapped.gpa);
        match page {
            100 => assert_ne!(now(address), *before),
            200 => assert_eq!(now(address), None),
            730.. => assert_eq!(now(target + address - TEXT - 730 * PAGE_BYTES), *before),
            _ => assert_eq!(now(address), *before, "{page}"),
        }
    }
    space.clear();
    assert!(text_frames(&space).all(|frame| frame.is_none()));
    drop(space);
    assert_eq!(frames.borrow().free_bytes(), free_before, "no frame is lost");
}

#[test]
fn text_in_large_pages_ends_with_its_address_space() {
    let _machine = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (mut space, frames, free_before) = offered_text();
    // A page that a table has taken back is still the one that it was.
    let gpa = space.tables.mapped(TEXT + 40 * PAGE_BYTES).unwrap().gpa;
    assert!(gpa < MODULES_GPA);
    space.clear();
    assert_eq!(frames.borrow().free_bytes(), free_before);
    space
        .map(&Request::anonymous(
            Place::Fixed(TEXT),
            4 << 20,
            Protection::READ_WRITE,
        ))
        .unwrap();
    space.fault(TEXT, Intent::Write).unwrap();
    assert!(space.tables.mapped(TEXT).unwrap().is_writable);
}

#[test]
fn large_mappings_are_filled_in_large_steps() {
    let _machine = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new();
    let bytes = 24 << 20;
    let request = Request::anonymous(Place::Anywhere, bytes, Protection::READ_WRITE);
    let start = world.space.map(&request).unwrap();
    let mut faults = 0;
    for at in (start..start + bytes).step_by(PAGE_BYTES as usize) {
        if world.space.tables.mapped(at).is_none() {
            faults += 1;
            world.space.fault(at, Intent::Write).unwrap();
        }
    }
    assert!(faults < 60, "{faults} faults");
    world
        .space
        .protect(start + (10 << 20), 4096, Protection::READ)
        .unwrap();
    world.space.unmap(start + (5 << 20), 1 << 20).unwrap();
    world.space.discard(start, 4 << 20).unwrap();
    let moved = world
        .space
        .remap(start + (12 << 20), 8 << 20, 9 << 20, Move::IfNeeded)
        .unwrap();
    assert!(
        world
            .space
            .tables
            .mapped(moved + (8 << 20) - PAGE_BYTES)
            .is_some()
    );
    world.end();
}

#[test]
fn an_address_space_that_ends_leaves_nothing() {
    let _machine = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new();
    for _ in 0..600 {
        let mut other = world.space.sibling().unwrap();
        other.activate();
        for place in [ORDINARY, 0x7fff_0000_0000] {
            let request = Request::anonymous(Place::Fixed(place), 512 * PAGE_BYTES, Protection::READ_WRITE);
            other.map(&request).unwrap();
            other.fault(place, Intent::Write).unwrap();
        }
        assert!(world.space.tables.mapped(ORDINARY).is_none());
        other.clear();
        world.space.activate();
    }
    world.end();
}
