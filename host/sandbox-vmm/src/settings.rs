//! What a guest is told before it starts the program.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::{SystemTime, UNIX_EPOCH};

use spore_abi::microvm::{CONTENT_BYTES_MAX, Kind};
use spore_sandbox::{InstanceSpec, StartError};

use crate::frames::Frame;

/// Longest all of it together, in bytes.
const BYTES_MAX: usize = 4 << 20;

/// The frames, in order. `program_bytes` is the length of the root if that is the program, or 0.
pub(crate) fn frames(spec: &InstanceSpec, program_bytes: u64) -> Result<Vec<Frame>, StartError> {
    let mut frames = Vec::new();
    for argument in &spec.arguments {
        frames.push(Frame::new(Kind::Argument, 0, argument.as_bytes()));
    }
    for (name, value) in &spec.environment {
        frames.push(Frame::new(Kind::Variable, 0, format!("{name}={value}")));
    }
    frames.push(Frame::new(Kind::Directory, 0, spec.working_directory.as_bytes()));
    let user = [spec.user.id, spec.user.group];
    let user: Vec<u8> = user
        .iter()
        .chain(&spec.user.more_groups)
        .flat_map(|number| number.to_le_bytes())
        .collect();
    frames.push(Frame::new(Kind::User, 0, user));
    for secret in &spec.secrets {
        frames.push(Frame::new(Kind::Secret, 0, secret.name.as_bytes()));
        let parts = secret.value.chunks(CONTENT_BYTES_MAX);
        frames.extend(parts.map(|part| Frame::new(Kind::SecretPart, 0, part)));
    }
    let numbers = [u64::from(spec.port), spec.memory_bytes, program_bytes];
    let numbers: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
    frames.push(Frame::new(Kind::Settings, 0, numbers));
    let longest = frames
        .iter()
        .map(|frame| frame.content.len())
        .max()
        .unwrap_or_default();
    let total: usize = frames.iter().map(|frame| frame.content.len()).sum();
    if longest > CONTENT_BYTES_MAX || total > BYTES_MAX {
        let reason = format!(
            "its arguments and environment are too long for a microVM: none may be longer than {CONTENT_BYTES_MAX} bytes"
        );
        return Err(StartError::BadProgram { reason });
    }
    Ok(frames)
}

/// Bytes of a seed: what Linux makes its random numbers from.
const SEED_BYTES: usize = 32;

/// What a guest is told that was saved, but for the last ones.
pub(crate) fn seed() -> io::Result<Vec<Frame>> {
    let mut seed = [0; SEED_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(vec![Frame::new(Kind::Seed, 0, seed)])
}

/// The last ones, made when the guest is about to be started: what time it is, and that all is said.
pub(crate) fn start() -> [Frame; 2] {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    [
        Frame::new(Kind::Clock, 0, clock_ns.to_le_bytes()),
        Frame::new(Kind::Start, 0, []),
    ]
}
