//! A command: a program that is made ready, and started when its invocation comes (`spore_abi::command`).
//!
//! ```text
//!   boot ──files found, segments mapped──> waiting ──first stream──> reading its variables ──> started: a program like others
//!                                             └── here it becomes a snapshot, and clones go on
//! ```

use alloc::rc::Rc;
use alloc::vec::Vec;

use spore_abi::command::{PREAMBLE_HEADER_BYTES, VARIABLES_BYTES_MAX};
use spore_abi::pages::{boot_flags, exit_kind};
use spore_machine::processor::{self, ExtendedState};
use spore_machine::shared;

use super::load::{self, Image, LoadError, Segments, Strings};
use crate::files::command::Output;
use crate::kernel::{Kernel, Line};
use crate::network::stream::Stream;
use crate::process::FIRST_PROCESS;

/// Bytes that are taken from the stream at once.
const STEP_BYTES: usize = 4096;

/// A command that waits for its invocation.
pub(crate) struct Command {
    image: Image,
    segments: Segments,
    /// The function's variables.
    environment: Strings,
    stream: Option<Rc<Stream>>,
    preamble: Preamble,
}

impl Command {
    pub(crate) fn new(image: Image, segments: Segments, environment: Strings) -> Self {
        Self {
            image,
            segments,
            environment,
            stream: None,
            preamble: Preamble::default(),
        }
    }
}

/// The variables of an invocation as far as they have come.
#[derive(Default)]
pub(crate) struct Preamble {
    header: [u8; PREAMBLE_HEADER_BYTES],
    header_bytes: usize,
    variables: Vec<u8>,
}

/// What no host of ours sends in place of variables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl Preamble {
    /// How many bytes are to come at least, or none if it is whole.
    pub(crate) fn missing(&self) -> Result<usize, Damaged> {
        if self.header_bytes < PREAMBLE_HEADER_BYTES {
            return Ok(PREAMBLE_HEADER_BYTES - self.header_bytes);
        }
        let length = u32::from_le_bytes(self.header) as usize;
        if length > VARIABLES_BYTES_MAX {
            return Err(Damaged);
        }
        Ok(length - self.variables.len())
    }

    /// Takes bytes, no more than are missing.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let to_header = bytes.len().min(PREAMBLE_HEADER_BYTES - self.header_bytes);
        let (header, variables) = bytes.split_at(to_header);
        self.header[self.header_bytes..self.header_bytes + to_header].copy_from_slice(header);
        self.header_bytes += to_header;
        self.variables.extend_from_slice(variables);
    }

    /// The variables, each `NAME=VALUE`.
    pub(crate) fn variables(&self) -> Result<Strings, Damaged> {
        let Some((last, strings)) = self.variables.split_last() else {
            return Ok(Strings::new());
        };
        let is_variable = |text: &[u8]| {
            text.iter()
                .position(|&byte| byte == b'=')
                .is_some_and(|at| at > 0)
        };
        let variables: Strings = strings.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        match *last == 0 && variables.iter().all(|text| is_variable(text)) {
            true => Ok(variables),
            false => Err(Damaged),
        }
    }
}

/// The function's variables with those of the invocation, each in the place of one of its name.
pub(crate) fn merged(mut environment: Strings, variables: Strings) -> Strings {
    let name_bytes = |text: &[u8]| {
        text.iter()
            .position(|&byte| byte == b'=')
            .map_or(text.len(), |at| at + 1)
    };
    let of_function = environment.len();
    for variable in variables {
        let name = &variable[..name_bytes(&variable)];
        match environment[..of_function]
            .iter_mut()
            .find(|text| text.starts_with(name))
        {
            Some(place) => *place = variable,
            None => environment.push(variable),
        }
    }
    environment
}

impl Kernel {
    /// Goes on with the command, if there is one that waits.
    pub(crate) fn look_after_command(&mut self) {
        let Some(command) = &mut self.command else { return };
        if command.stream.is_none() {
            command.stream = self.network.take_for_command();
        }
        let Some(stream) = &command.stream else { return };
        let mut step = [0; STEP_BYTES];
        loop {
            let Ok(missing) = command.preamble.missing() else {
                damaged()
            };
            if missing == 0 {
                break;
            }
            let count = stream.take_own(&mut step[..missing.min(STEP_BYTES)]);
            if count == 0 {
                return;
            }
            command.preamble.take(&step[..count]);
        }
        if let Some(command) = self.command.take()
            && let Err(error) = self.start_command(*command)
        {
            bad_program(&error);
        }
    }

    fn start_command(&mut self, command: Command) -> Result<(), LoadError> {
        let Ok(variables) = command.preamble.variables() else {
            damaged()
        };
        shared::note_first_read(processor::time_stamp());
        let environment = merged(command.environment, variables);
        let placed = load::place_stack(self, &command.image, &command.segments, &environment)?;
        let boot = shared::boot();
        if let Some(stream) = command.stream {
            let is_combined = boot.flags & boot_flags::COMBINED_OUTPUT != 0;
            self.open_streams(&stream, is_combined.then(|| Output(Rc::clone(&stream))));
        }
        self.process.note_program(&placed);
        let extended = ExtendedState::new(boot.extended_state_mask, boot.extended_state_bytes);
        let task = self.first_task(placed.context, extended, placed.name);
        self.tasks.insert(FIRST_PROCESS, task);
        self.ready.push(FIRST_PROCESS);
        Ok(())
    }
}

fn damaged() -> ! {
    shared::end(
        exit_kind::LIBRARY_OS_FAILED,
        0,
        "the variables of the invocation are damaged",
    )
}

/// Ends the instance, for the program cannot be loaded.
pub(crate) fn bad_program(error: &LoadError) -> ! {
    use core::fmt::Write as _;
    let mut message = Line::default();
    // Cannot fail: a line takes what fits.
    let _ = write!(message, "{error}");
    shared::end(exit_kind::BAD_PROGRAM, 0, message.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<(Strings, usize), Damaged> {
        let mut preamble = Preamble::default();
        let mut at = 0;
        while preamble.missing()? > 0 {
            let end = (at + preamble.missing()?.min(step)).min(bytes.len());
            assert!(end > at, "more is wanted than there is");
            preamble.take(&bytes[at..end]);
            at = end;
        }
        Ok((preamble.variables()?, at))
    }

    fn preamble(variables: &[u8]) -> Vec<u8> {
        [&(variables.len() as u32).to_le_bytes(), variables].concat()
    }

    #[test]
    fn variables_are_read_in_whatever_pieces_they_come() {
        let bytes = [preamble(b"A=1\0Http_Method=GET\0B=\0"), b"input".to_vec()].concat();
        for step in 1..=bytes.len() {
            let (variables, taken) = read(&bytes, step).expect("it is sound");
            assert_eq!(variables, [&b"A=1"[..], b"Http_Method=GET", b"B="]);
            assert_eq!(taken, bytes.len() - 5, "what comes after is the program's");
        }
        assert_eq!(read(&preamble(b""), 9), Ok((Strings::new(), 4)));
    }

    #[test]
    fn what_is_no_list_of_variables_is_refused() {
        for variables in [&b"A=1"[..], b"A\0", b"=1\0", b"\0", b"A=1\0\0"] {
            assert_eq!(read(&preamble(variables), 99), Err(Damaged), "{variables:?}");
        }
        let too_long = (VARIABLES_BYTES_MAX as u32 + 1).to_le_bytes();
        assert_eq!(read(&too_long, 99), Err(Damaged));
    }

    #[test]
    fn the_invocations_variables_take_the_place_of_the_functions() {
        let strings = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .collect::<Strings>()
        };
        let function = strings(&["PATH=/bin", "AB=1", "A=2"]);
        let all = merged(function, strings(&["A=3", "C=4", "PAT=5"]));
        assert_eq!(all, strings(&["PATH=/bin", "AB=1", "A=3", "C=4", "PAT=5"]));
    }
}
