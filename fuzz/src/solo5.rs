//! The kernel of a unikernel for Solo5's hvt, and what it asks of its tender.

use spore_solo5::fuzzing;

/// The first byte says which of both it is.
pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, file)) => fuzzing::load(file),
        Some((_, calls)) => fuzzing::serve(calls),
        None => {}
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let [kernel, calls] = fuzzing::seeds();
    vec![[&[0][..], &kernel].concat(), [&[1][..], &calls].concat()]
}
