//! The boot page's counts and the start block, as the library OS takes arguments and environment from them.

pub(crate) fn run(bytes: &[u8]) {
    let Some((counts, block)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let [arguments, environment] =
        [0, 4].map(|at| u32::from_le_bytes([counts[at], counts[at + 1], counts[at + 2], counts[at + 3]]));
    spore_libos::fuzzing::start_block(block, arguments, environment);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seed = |arguments: u32, environment: u32, block: &[u8]| {
        [&arguments.to_le_bytes(), &environment.to_le_bytes(), block].concat()
    };
    vec![
        seed(2, 1, b"program\0--flag\0A=1\0/\0"),
        seed(0, 0, b""),
        seed(1, 0, b"program"),
        seed(u32::MAX, u32::MAX, b"program\0/\0"),
        seed(3, 0, b"\0\0\0\0"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_start_blocks_or_are_refused() {
        let whole =
            |seed: &[u8]| spore_libos::fuzzing::start_block(&seed[8..], seed[0].into(), seed[4].into());
        let found: Vec<bool> = seeds().iter().map(|seed| whole(seed)).collect();
        assert_eq!(found, [true, true, true, false, true]);
    }
}
