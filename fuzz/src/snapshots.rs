//! Files of snapshots: as they are, and with digests that are right whatever else is in them.

use spore_sandbox_unikernel::fuzzing::{snapshot_file, snapshot_files};

pub(crate) fn run(bytes: &[u8]) {
    if let Some((&kind, file)) = bytes.split_first() {
        let _ = snapshot_file(file, kind != 0);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let files = snapshot_files().into_iter().enumerate();
    files
        .map(|(index, file)| [&[index as u8 % 2][..], &file].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_snapshots_and_seals_matter() {
        for seed in seeds() {
            assert!(snapshot_file(&seed[1..], false) && snapshot_file(&seed[1..], true));
            let mut changed = seed[1..].to_vec();
            // A general register.
            changed[208] ^= 1;
            assert!(!snapshot_file(&changed, false) && snapshot_file(&changed, true));
        }
    }
}
