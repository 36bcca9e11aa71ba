//! Control messages (`struct cmsghdr`): descriptors and credentials that travel with data.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use linux_raw_sys::net::{self, MSG_CTRUNC, SCM_CREDENTIALS, SCM_RIGHTS, SO_PASSCRED, SOL_SOCKET};

use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::network::inbox::Ancillary;
use crate::network::socket::Socket;

/// Longest control data that is read.
const CONTROL_BYTES_MAX: u64 = 20_480;
/// Length of a `struct cmsghdr`.
const HEADER_BYTES: usize = 16;
/// Most descriptors of one message (`SCM_MAX_FD`).
const RIGHTS_MAX: usize = 253;
/// Length of a `struct ucred`.
const CREDENTIALS_BYTES: usize = 12;
/// User and group of a sender who is not known.
const NOBODY: u32 = 65_534;

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Reads what a program sends with its data.
pub(super) fn read(
    kernel: &mut Kernel,
    socket: &Socket,
    address: u64,
    length: u64,
) -> Result<Ancillary, Errno> {
    let mut ancillary = Ancillary::default();
    if length == 0 {
        return Ok(ancillary);
    }
    if length > CONTROL_BYTES_MAX {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = vec![0; length as usize];
    kernel.process.space.read(address, &mut bytes)?;
    if socket.common.domain != net::AF_UNIX {
        // What tunes single packets of a network that is not there.
        return Ok(ancillary);
    }
    let mut rest = bytes.as_slice();
    while rest.len() >= HEADER_BYTES {
        let (low, high) = (number(rest, 0), number(rest, 4));
        let (level, kind) = (number(rest, 8), number(rest, 12));
        let whole = low as usize;
        if high != 0 || whole < HEADER_BYTES || whole > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = &rest[HEADER_BYTES..whole];
        if level == SOL_SOCKET {
            match kind {
                SCM_RIGHTS => take_rights(kernel, data, &mut ancillary)?,
                SCM_CREDENTIALS => take_credentials(kernel, data, &mut ancillary)?,
                _ => return Err(Errno::EINVAL),
            }
        }
        rest = &rest[whole.next_multiple_of(8).min(rest.len())..];
    }
    if !ancillary.rights.is_empty() {
        let share = kernel.budget.passed_files(ancillary.rights.len());
        ancillary.share = Some(share.ok_or(Errno::ETOOMANYREFS)?);
    }
    Ok(ancillary)
}

fn take_rights(kernel: &Kernel, data: &[u8], ancillary: &mut Ancillary) -> Result<(), Errno> {
    let count = data.len() / 4;
    if ancillary.rights.len() + count > RIGHTS_MAX {
        return Err(Errno::EINVAL);
    }
    for index in 0..count {
        let descriptor = number(data, index * 4);
        ancillary
            .rights
            .push(kernel.process.files.get(u64::from(descriptor))?);
    }
    Ok(())
}

fn take_credentials(kernel: &Kernel, data: &[u8], ancillary: &mut Ancillary) -> Result<(), Errno> {
    if data.len() != CREDENTIALS_BYTES {
        return Err(Errno::EINVAL);
    }
    let claimed = [0, 4, 8].map(|at| number(data, at));
    if claimed[0] != kernel.process.id {
        return Err(Errno::ESRCH);
    }
    ancillary.credentials = Some(claimed);
    Ok(())
}

/// Gives the program what came with the data it has received: the length of the control data, and flags.
pub(super) fn write(
    kernel: &mut Kernel,
    socket: &Socket,
    ancillary: Ancillary,
    place: (u64, u64),
    close_on_exec: bool,
) -> Result<(u64, u32), Errno> {
    let (address, length) = place;
    let room = length.min(CONTROL_BYTES_MAX) as usize;
    let mut control = Vec::new();
    let mut flags = 0;
    if socket.common.options.is_set(SOL_SOCKET, SO_PASSCRED) {
        let credentials = ancillary.credentials.unwrap_or([0, NOBODY, NOBODY]);
        let mut data = [0; CREDENTIALS_BYTES];
        for (place, value) in data.chunks_mut(4).zip(credentials) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        if !push(&mut control, room, SCM_CREDENTIALS, &data) {
            flags |= MSG_CTRUNC;
        }
    }
    let (data, is_cut) = install(
        kernel,
        ancillary.rights,
        room.saturating_sub(control.len()),
        close_on_exec,
    );
    if is_cut {
        flags |= MSG_CTRUNC;
    }
    if !data.is_empty() {
        push(&mut control, room, SCM_RIGHTS, &data);
    }
    if !control.is_empty() {
        kernel.process.space.write(address, &control)?;
    }
    Ok((control.len() as u64, flags))
}

/// Gives files descriptors, as many as there is room for: their numbers, and whether some are lost.
fn install(
    kernel: &mut Kernel,
    rights: Vec<Rc<OpenFile>>,
    room: usize,
    close_on_exec: bool,
) -> (Vec<u8>, bool) {
    let mut fitting = room.saturating_sub(HEADER_BYTES) / 4;
    let mut data = Vec::new();
    let mut is_cut = false;
    for open in rights {
        let added = match fitting {
            0 => None,
            _ => {
                let files = &mut kernel.process.files;
                files.add(Rc::clone(&open), close_on_exec, 0).ok()
            }
        };
        match added {
            Some(descriptor) => {
                data.extend_from_slice(&(descriptor as u32).to_le_bytes());
                fitting -= 1;
            }
            None => {
                is_cut = true;
                fitting = 0;
                kernel.network.discarded.push(open);
            }
        }
    }
    (data, is_cut)
}

/// Adds a control message; `false` if there is no room for it (what fits is there then, as on Linux).
fn push(control: &mut Vec<u8>, room: usize, kind: u32, data: &[u8]) -> bool {
    let left = room - control.len().min(room);
    if left < HEADER_BYTES {
        return false;
    }
    let fits = left >= HEADER_BYTES + data.len();
    let length = left.min(HEADER_BYTES + data.len());
    control.extend_from_slice(&(length as u64).to_le_bytes());
    control.extend_from_slice(&SOL_SOCKET.to_le_bytes());
    control.extend_from_slice(&kind.to_le_bytes());
    control.extend_from_slice(&data[..length - HEADER_BYTES]);
    // The next one is aligned, if there is room to the very end of this one's padding.
    let padded = control.len().next_multiple_of(8).min(room);
    control.resize(padded, 0);
    fits
}
