//! What the fuzz target calls: a kernel's file, and what a guest asks for.

use crate::abi::{Call, KERNEL_START};
use crate::boot::{self, Told};
use crate::calls::samples::Recorder;
use crate::calls::{After, CallError, Calls};
use crate::kernel::Kernel;
use crate::kernel::samples::{CODE, DATA, abi, devices, kernel};
use crate::manifest::samples::manifest;
use crate::manifest::{Card, Disk, Manifest};
use crate::memory::{Bytes, Memory as _};

const MEMORY_BYTES: usize = 4 << 20;
/// Length of a call among what a guest asks for: its number, its address, what is there.
const CALL_BYTES: usize = 48;

/// A kernel's file, loaded and prepared as far as it is one.
///
/// # Panics
///
/// If something of the file comes to where the tender's own is.
pub fn load(file: &[u8]) {
    let Ok(kernel) = Kernel::read(file) else {
        return;
    };
    let memory = Bytes(vec![0; MEMORY_BYTES].into());
    if kernel.load(file, &memory).is_err() {
        return;
    }
    assert!(
        memory.0.borrow()[..KERNEL_START as usize]
            .iter()
            .all(|byte| *byte == 0)
    );
    let card = Card {
        address: [2; 6],
        packet_bytes_max: 1500,
    };
    let disk = Disk {
        bytes: 512,
        block_bytes: 512,
    };
    let told = Told {
        manifest: &kernel.manifest.attached(card, Some(disk)),
        command_line: "a line",
        time_stamp_hz: 1,
    };
    boot::prepare(&memory, &kernel, &told).expect("a kernel that was loaded fits");
}

/// Calls of a guest, one after the other.
///
/// # Panics
///
/// If one fails by the host's doing.
pub fn serve(bytes: &[u8]) {
    let memory = Bytes(vec![0; 64 << 10].into());
    let mut host = Recorder::new(vec![vec![b'f'; 1514], vec![b'f'; 60]]);
    let manifest = Manifest::parse(&manifest(&[1, 2])).expect("it is one");
    for asked in bytes.chunks_exact(CALL_BYTES) {
        let call = Call::ALL[usize::from(asked[0]) % Call::ALL.len()];
        let address = u32::from_le_bytes([asked[4], asked[5], asked[6], asked[7]]);
        // Where there is no room for it, it is not.
        let _ = memory.write(address.into(), &asked[8..]);
        let mut calls = Calls {
            memory: &memory,
            host: &mut host,
            manifest: &manifest,
        };
        match calls.serve(call, address) {
            Ok(After::Resumes) => {}
            Ok(After::Halted(_)) => return,
            Err(CallError::Memory { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A kernel, and a call of each kind.
#[must_use]
pub fn seeds() -> [Vec<u8>; 2] {
    let parts = [
        (0x10_0000, &b"code"[..], 4, CODE),
        (0x10_1000, b"data", 0x2000, DATA),
    ];
    let file = kernel(0x10_0000, &parts, &[abi(1, 2), devices(&manifest(&[1, 2]))]);
    let call = |number: u8, structure: [u64; 5]| {
        let head = [number, 0, 0, 0, 0, 0x10, 0, 0];
        [&head[..], structure.map(u64::to_le_bytes).as_flattened()].concat()
    };
    let calls = [
        call(0, [0; 5]),
        call(1, [0x2000, 100, 0, 0, 0]),
        call(2, [1000, 0, 0, 0, 0]),
        call(3, [1, 512, 0x2000, 512, 0]),
        call(4, [1, 0, 0x2000, 1024, 0]),
        call(5, [2, 0x2000, 60, 0, 0]),
        call(6, [2, 0x2000, 1514, 0, 0]),
        call(7, [0, 3, 0, 0, 0]),
    ];
    [file, calls.concat()]
}
