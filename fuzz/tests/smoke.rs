//! Each target over its seeds and some thousand changes of them: short, without an engine, the same each time.
//! A finding is written to a file, which is named.
//!
//! SPORE_FUZZ_SEED chooses other changes, SPORE_FUZZ_RUNS how many. `fuzz/run TARGET -- FILE` runs one again.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use spore_fuzz::{TARGETS, Target};

/// Changes of seeds that a target is given.
const RUNS: usize = 4000;
/// The same for a target of which each run touches the host's file system.
const SLOW_RUNS: usize = 300;

/// Panics so far, those within tasks of a runtime too, which nobody else would hear of.
static PANICS: AtomicUsize = AtomicUsize::new(0);

static TURN: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Changes an input in one of the ways that readers stumble over.
fn change(random: &mut fastrand::Rng, input: &mut Vec<u8>, other: &[u8]) {
    const NUMBERS: [u64; 10] = [
        0,
        1,
        0x7f,
        0xff,
        0x1000,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 32,
        i64::MAX as u64,
        u64::MAX,
    ];
    let at = random.usize(..=input.len());
    match random.u8(..8) {
        0 => input.truncate(at),
        1 => input.insert(at, random.u8(..)),
        2 => {
            let from = random.usize(..=other.len());
            let part = &other[from..(from + random.usize(..256)).min(other.len())];
            input.splice(at..at, part.iter().copied());
        }
        3 => {
            let end = (at + random.usize(..256)).min(input.len());
            input.drain(at..end);
        }
        4 | 5 => {
            let width = 1 << random.u32(..4);
            let bytes = NUMBERS[random.usize(..NUMBERS.len())].to_le_bytes();
            for (place, byte) in input.iter_mut().skip(at).zip(&bytes[..width]) {
                *place = *byte;
            }
        }
        6 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u32(..8);
            }
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.u8(..);
            }
        }
    }
}

/// Runs an input; where it was written to if it is a finding.
fn finding(target: &Target, input: &[u8]) -> Option<PathBuf> {
    // The tests run side by side; one's panics are not the other's.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = PANICS.load(Ordering::SeqCst);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let is_sound = outcome.is_ok() && PANICS.load(Ordering::SeqCst) == before;
    (!is_sound).then(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("finding-{}", target.name));
        std::fs::write(&path, input).expect("the folder for temporary files takes a finding");
        path
    })
}

#[test]
fn no_target_fails_on_its_seeds_and_changes_of_them() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(info);
    }));
    let seed = number("SPORE_FUZZ_SEED").unwrap_or(1) as u64;
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has seeds", target.name);
        let found = seeds.iter().find_map(|input| finding(target, input));
        assert_eq!(found, None, "{} fails on a seed", target.name);
        let runs = if target.is_slow { SLOW_RUNS } else { RUNS };
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..number("SPORE_FUZZ_RUNS").unwrap_or(runs) {
            let mut input = seeds[random.usize(..seeds.len())].clone();
            let other = &seeds[random.usize(..seeds.len())];
            for _ in 0..random.usize(1..6) {
                change(&mut random, &mut input, other);
            }
            assert_eq!(
                finding(target, &input),
                None,
                "{} fails with seed {seed}",
                target.name
            );
        }
    }
}

#[test]
fn a_target_that_panics_is_found() {
    let target = Target {
        name: "panics",
        run: |input| assert!(!input.starts_with(b"x")),
        seeds: Vec::new,
        is_slow: false,
    };
    assert_eq!(finding(&target, b"y"), None);
    let path = finding(&target, b"x!").expect("a finding");
    assert_eq!(std::fs::read(path).expect("it was written"), b"x!");
}
