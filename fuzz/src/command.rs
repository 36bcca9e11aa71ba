//! What a command's stream begins with, as the library OS takes the variables of an invocation from it.

pub(crate) fn run(bytes: &[u8]) {
    let Some((&step, stream)) = bytes.split_first() else {
        return;
    };
    spore_libos::fuzzing::command_variables(stream, usize::from(step) + 1);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seed = |step: u8, length: u32, rest: &[u8]| [&[step], &length.to_le_bytes()[..], rest].concat();
    vec![
        seed(0, 20, b"A=1\0Http_Method=GET\0input"),
        seed(3, 0, b"input"),
        seed(200, 4, b"A=1"),
        seed(200, 3, b"A=1"),
        seed(200, u32::MAX, b"A=1\0"),
        vec![7, 1, 0],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_variables_or_are_refused() {
        let whole = |seed: &[u8]| spore_libos::fuzzing::command_variables(&seed[1..], seed[0].into());
        let found: Vec<bool> = seeds()
            .iter()
            .map(|seed| whole(&[&[seed[0].max(1)], &seed[1..]].concat()))
            .collect();
        assert_eq!(found, [true, true, false, false, false, false]);
    }
}
