//! What the guest of a microVM sends through its channel, another project's unikernel through its network card, QEMU on its
//! control socket, and other monitors on theirs; and files that are to be kernels.

use std::sync::OnceLock;

use spore_sandbox_vmm::fuzzing::{cable, guest, kernel, qemu, refusal};
use tokio::runtime::Runtime;

/// Tasks of streams are made and dropped; none has to run for a frame to be taken.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().expect("a runtime can be made")
    })
}

/// The first byte says who speaks, and in pieces of which length.
pub(crate) fn run(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else {
        return;
    };
    let piece = usize::from(how >> 2) + 1;
    match how & 3 {
        0 => runtime().block_on(async { guest(bytes, piece) }),
        1 => qemu(bytes, piece),
        2 => runtime().block_on(async { cable(bytes, piece) }),
        _ => {
            kernel(bytes);
            refusal(bytes);
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frame = |kind: u8, stream: u8, content: &[u8]| {
        let length = (content.len() as u32).to_le_bytes();
        [&[kind, 0, stream, 0], &length[..], content].concat()
    };
    let frames = [
        frame(31, 0, b""),
        frame(33, 0, b"a line\n"),
        frame(32, 0, b""),
        frame(17, 1, b"HTTP/1.1 200 OK\r\n\r\n"),
        frame(19, 1, &[0, 1, 0, 0]),
        frame(18, 1, b""),
        frame(20, 2, b""),
        frame(21, 2, b""),
        frame(35, 0, &[0, 3]),
    ];
    let greeting =
        br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#;
    let event = br#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
    let messages = [
        &greeting[..],
        event,
        br#"{"return": {}}"#,
        br#"{"error": {"desc": "no"}}"#,
    ]
    .join(&b"\r\n"[..]);
    let whole = [&[0xfc][..], &frames.concat()].concat();
    let mut seeds = vec![
        whole,
        [&[0xfd][..], &messages, b"\n"].concat(),
        [&[5][..], &messages].concat(),
        [&[0xfe][..], &ethernet()].concat(),
        [&[3][..], &kernel_file()].concat(),
        b"\x03{\"fault_message\":\"no\"}".to_vec(),
        b"\x03[\"Error from API\",\"no\"]".to_vec(),
    ];
    seeds.extend(frames.iter().map(|frame| [&[8][..], frame].concat()));
    seeds
}

/// A kernel's file as the kernel's build makes it, packed by LZ4 as one block of literals.
fn kernel_file() -> Vec<u8> {
    let packed = b"\x02\x21\x4c\x18\x05\x00\x00\x00\x40\x7fELF\x04\x00\x00\x00";
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x24c..0x250].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    [&file, &packed[..]].concat()
}

/// A question by ARP, the answer to the first packet of a stream, and one that nobody has asked for.
fn ethernet() -> Vec<u8> {
    let frame = |kind: [u8; 2], content: &[u8]| {
        let length = (14 + content.len() as u32).to_be_bytes();
        [&length[..], &[0x52; 12], &kind, content].concat()
    };
    let question = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &[0x52; 6],
        &[10, 0, 0, 2],
        &[0; 6],
        &[10, 0, 0, 1],
    ];
    // From port 80 to the first port of streams: SYN and ACK of whatever was sent. The checksums are of no account here.
    let segment = |flags: u8| {
        [
            &[
                0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0x66, 0xce, 10, 0, 0, 2, 10, 0, 0, 1,
            ][..],
            &[
                0, 80, 0xc0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0,
            ],
        ]
        .concat()
    };
    [
        frame([8, 6], &question.concat()),
        frame([8, 0], &segment(0x12)),
        frame([8, 0], &segment(0x10)),
        frame([0x86, 0xdd], &[0x60; 40]),
    ]
    .concat()
}
