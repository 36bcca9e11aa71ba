//! The kernel's random numbers, made anew in a machine that is a copy of another.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};

use crate::machine::context;

const DEVICE: &str = "/dev/urandom";
/// Makes the kernel draw from what was written, at once and not within a minute (random(4)).
const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 7);

/// Lets all random numbers from now on depend on a seed, which whoever has the machine's memory does not know.
pub(crate) fn renew(seed: &[u8]) -> io::Result<()> {
    let mut device = OpenOptions::new().write(true).open(DEVICE)?;
    device.write_all(seed)?;
    reseed(&device).map_err(context("renewing random numbers"))
}

#[allow(
    unsafe_code,
    reason = "nothing else makes the kernel do it at once, and there is no safe form of it"
)]
fn reseed(device: &File) -> Result<(), rustix::io::Errno> {
    // SAFETY: the number is that of RNDRESEEDCRNG in Linux' `random.h`, which takes no argument.
    let request = unsafe { NoArg::<RNDRESEEDCRNG>::new() };
    // SAFETY: the call reads and writes no memory of this process.
    unsafe { ioctl(device, request) }
}
