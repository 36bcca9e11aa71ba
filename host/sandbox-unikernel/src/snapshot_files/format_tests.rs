//! Files that are whole, and thousands that are not.

use spore_abi::layout::PAGE_BYTES;

use super::format::{HEADER_BYTES, ReadError, Refusal, reseal};
use super::identity::Identity;
use super::samples::{IDENTITY, contents, file, files, take};

/// How many changed files are tried of each kind.
const CHANGES: usize = 10_000;

fn refusal(file: &[u8]) -> Refusal {
    match take(file) {
        Err(ReadError::Refused(refusal)) => refusal,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn whole_files_are_taken_as_they_were_written() {
    let page = PAGE_BYTES;
    for written in [None, Some(vec![]), Some(vec![(page, page), (5 * page, 2 * page)])] {
        let contents = contents(written);
        for stretches in [
            vec![],
            vec![(0, page)],
            vec![(page, 3 * page), (7 * page, page), (15 * page, page)],
            vec![(0, 16 * page)],
        ] {
            let taken = take(&file(&contents, &stretches)).unwrap();
            assert_eq!(taken, (contents.clone(), stretches));
        }
    }
}

#[test]
fn ten_thousand_changed_headers_are_refused() {
    let mut random = fastrand::Rng::with_seed(1);
    let files = files();
    for _ in 0..CHANGES {
        let mut file = files[random.usize(..files.len())].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..HEADER_BYTES);
            file[at] ^= random.u8(1..);
        }
        if files.contains(&file) {
            // Two changes of one byte have cancelled each other.
            continue;
        }
        let refusal = refusal(&file);
        assert!(
            matches!(
                refusal,
                Refusal::NoSnapshot | Refusal::Version { .. } | Refusal::HeaderDamaged
            ),
            "{refusal}"
        );
    }
}

#[test]
fn ten_thousand_changed_bodies_are_refused() {
    let mut random = fastrand::Rng::with_seed(2);
    let files = &files()[1..];
    for _ in 0..CHANGES {
        let mut file = files[random.usize(..files.len())].clone();
        let at = random.usize(HEADER_BYTES..file.len());
        file[at] ^= random.u8(1..);
        let refusal = refusal(&file);
        assert!(
            matches!(
                refusal,
                Refusal::ContentsDamaged | Refusal::BadPart { .. } | Refusal::Length { .. }
            ),
            "{refusal}"
        );
    }
}

#[test]
fn ten_thousand_changes_with_right_digests_are_refused_or_are_snapshots() {
    let mut random = fastrand::Rng::with_seed(3);
    let files = files();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..CHANGES {
        let mut file = files[random.usize(..files.len())].clone();
        for _ in 0..random.usize(1..4) {
            // Numbers are at the beginning, and right behind the header.
            let near = [0..16, 176..368, HEADER_BYTES..HEADER_BYTES + 64, 0..file.len()];
            let range = near[random.usize(..near.len())].clone();
            let at = random.usize(range.start..range.end.min(file.len()).max(range.start + 1));
            let value = [0, 1, 0x10, 0x7f, 0x80, 0xff, random.u8(..)][random.usize(..7)];
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
        }
        reseal(&mut file);
        // Of what is taken, the file would be the same: `take` sees to that.
        match take(&file) {
            Ok(_) => taken += 1,
            Err(ReadError::Refused(_)) => refused += 1,
            Err(ReadError::Memory(error)) => panic!("{error}"),
        }
    }
    assert!(taken > 100 && refused > 1000, "{taken} {refused}");
}

#[test]
fn truncated_and_longer_files_are_refused() {
    for file in files() {
        for length in 0..file.len() {
            let mut cut = file[..length].to_vec();
            assert!(take(&cut).is_err(), "{length}");
            reseal(&mut cut);
            assert!(matches!(refusal(&cut), Refusal::Length { .. }), "{length}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(matches!(refusal(&longer), Refusal::Length { .. }));
        let (mut source, announced) = (&file[..file.len() - 1], file.len() as u64);
        // It gets shorter while it is read.
        let opened = super::format::Opened::read(&mut source, announced, &IDENTITY);
        let read = opened.map_err(ReadError::from);
        let read = read.and_then(|opened| opened.pages(&mut source, |_, _| Ok(())));
        assert!(matches!(read, Err(ReadError::Refused(Refusal::Unreadable(_)))));
    }
}

#[test]
fn what_belongs_to_something_else_is_refused_with_the_reason() {
    let whole = file(&contents(None), &[(0, PAGE_BYTES)]);
    type Change = fn(&mut Identity);
    let others: [(Change, &str); 6] = [
        (|other| other.abi_version = 8, "version 7"),
        (|other| other.library_os[0] = 9, "library OS"),
        (|other| other.processor[31] = 9, "processor"),
        (|other| other.host_boot[5] = 9, "booted"),
        (|other| other.root[5] = 9, "image"),
        (|other| other.configuration[5] = 9, "configuration"),
    ];
    for (change, word) in others {
        let mut other = IDENTITY;
        change(&mut other);
        let mut source = &whole[..];
        let refused = super::format::Opened::read(&mut source, whole.len() as u64, &other);
        let text = refused.err().expect("it belongs to something else").to_string();
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn numbers_that_cannot_be_right_are_refused() {
    let page = PAGE_BYTES;
    let with = |stretches: &[(u64, u64)]| refusal(&file(&contents(None), stretches));
    for stretches in [
        &[(page, page), (0, page)][..],
        &[(0, 2 * page), (page, page)],
        &[(0, page), (page, page)],
        &[(1, page)],
        &[(0, 17 * page)],
        &[(16 * page, page)],
        &[(u64::MAX - 4095, page)],
        &[(3 * page, 0)],
    ] {
        let refusal = with(stretches);
        assert!(
            matches!(refusal, Refusal::BadPart { .. }),
            "{stretches:?}: {refusal}"
        );
    }
    let many: Vec<_> = (0..10).map(|index| (2 * index * page, page)).collect();
    assert!(matches!(with(&many), Refusal::Parts { count: 10 }));
    for memory_bytes in [0, 1, page + 1, 17 << 30, u64::MAX] {
        let mut changed = contents(None);
        changed.memory_bytes = memory_bytes;
        let refusal = refusal(&file(&changed, &[]));
        assert!(matches!(refusal, Refusal::MemoryLength { .. }), "{refusal}");
    }
    for top_table_gpa in [1, 16 * page, u64::MAX - 4095] {
        let mut changed = contents(None);
        changed.captured.processor.top_table_gpa = top_table_gpa;
        let refusal = refusal(&file(&changed, &[]));
        assert!(matches!(refusal, Refusal::NoTable { .. }), "{refusal}");
    }
    let mut changed = contents(None);
    changed.captured.text_offers = vec![(0, 0); 49];
    let refused = refusal(&file(&changed, &[]));
    assert!(matches!(refused, Refusal::Parts { count: 49 }), "{refused}");
    let mut changed = contents(None);
    changed.captured.processor.extended_state = vec![0; 4096];
    assert!(take(&file(&changed, &[])).is_ok());
    let written = vec![(0, page); 257];
    let refusal = refusal(&file(&contents(Some(written)), &[]));
    assert!(matches!(refusal, Refusal::Parts { count: 257 }), "{refusal}");
}
