//! The frame that a handler finds on its stack (`struct rt_sigframe` of Linux on x86-64).
//!
//! ```text
//!   high   red zone (128 bytes), or end of the alternate stack
//!          extended state as `xsave` writes it, at a multiple of 64, and FP_XSTATE_MAGIC2
//!          siginfo_t                         128
//!          ucontext: flags, link, stack_t, sigcontext, mask      304
//!   low    address that the handler returns to: a stack pointer of 16 n + 8
//! ```

use spore_abi::pages::Registers;

use super::{FaultRecord, SignalInfo};

/// Bytes of `siginfo_t`.
pub(crate) const INFO_BYTES: usize = 128;
/// Bytes of the frame without the extended state.
pub(crate) const FRAME_BYTES: usize = INFO + INFO_BYTES;
/// Where the frame has its ucontext.
pub(crate) const CONTEXT: usize = 8;
/// Where the frame has its siginfo.
pub(crate) const INFO: usize = CONTEXT + CONTEXT_BYTES;
/// Bytes of `struct ucontext`.
pub(crate) const CONTEXT_BYTES: usize = MASK + 8;
/// Parts of the ucontext.
const STACK: usize = 16;
const MACHINE: usize = 40;
const MACHINE_BYTES: usize = 256;
const MASK: usize = MACHINE + MACHINE_BYTES;
/// Words of the `sigcontext` within the ucontext.
const SEGMENTS: usize = 18;
const ERROR: usize = 19;
const VECTOR: usize = 20;
const OLD_MASK: usize = 21;
const FAULT_ADDRESS: usize = 22;
const EXTENDED: usize = 23;
/// There is extended state, and the stack segment is there to be restored as it is.
const CONTEXT_FLAGS: u64 = 0b111;
/// Code and stack segment of 64-bit programs on Linux: cs, gs, fs, ss.
const SEGMENT_VALUES: u64 = 0x33 | 0x2b << 48;
/// Bytes below the stack pointer that belong to the interrupted code.
const RED_ZONE_BYTES: u64 = 128;
/// Marks of a frame with more than the legacy region.
const MAGIC_1: u32 = 0x4650_5853;
pub(crate) const MAGIC_2: u32 = 0x4650_5845;
/// Where the legacy region leaves room for software, and how much.
pub(crate) const SOFTWARE: usize = 464;
pub(crate) const SOFTWARE_BYTES: usize = 48;

/// Numbers of the general registers (as `Registers` orders them) in the order of a `sigcontext`; the instruction
/// pointer and the flags follow.
const ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Address of the extended state.
    pub(crate) extended: u64,
    /// Address of the frame: the handler's stack pointer.
    pub(crate) frame: u64,
}

/// Where a frame with `extended_bytes` of extended state goes: below the red zone of interrupted code with this stack
/// pointer, or at the end of a stack of its own.
pub(crate) fn place(stack_pointer: u64, stack_end: Option<u64>, extended_bytes: u64) -> Place {
    let top = stack_end.unwrap_or(stack_pointer.wrapping_sub(RED_ZONE_BYTES));
    // Mark 2 follows the extended state.
    let extended = top.wrapping_sub(extended_bytes + 4) & !63;
    let frame = (extended.wrapping_sub(FRAME_BYTES as u64) & !15).wrapping_sub(8);
    Place { extended, frame }
}

/// What a frame says.
pub(crate) struct Contents<'a> {
    pub(crate) return_address: u64,
    pub(crate) registers: &'a Registers,
    /// The mask that is restored when the handler returns.
    pub(crate) mask: u64,
    /// `stack_t` of the alternate stack.
    pub(crate) stack: [u8; 24],
    pub(crate) fault: FaultRecord,
    pub(crate) info: SignalInfo,
    /// Address of the extended state.
    pub(crate) extended: u64,
}

/// The bytes of a frame, without the extended state.
pub(crate) fn build(contents: &Contents<'_>) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, contents.return_address);
    put(CONTEXT, CONTEXT_FLAGS);
    let word = |index: usize| CONTEXT + MACHINE + index * 8;
    let registers = contents.registers;
    for (index, number) in ORDER.into_iter().enumerate() {
        put(word(index), registers.general[number]);
    }
    put(word(16), registers.rip);
    put(word(17), registers.rflags);
    put(word(SEGMENTS), SEGMENT_VALUES);
    put(word(ERROR), contents.fault.error_code);
    put(word(VECTOR), contents.fault.vector);
    put(word(OLD_MASK), contents.mask);
    put(word(FAULT_ADDRESS), contents.fault.address);
    put(word(EXTENDED), contents.extended);
    put(CONTEXT + MASK, contents.mask);
    bytes[CONTEXT + STACK..CONTEXT + STACK + 24].copy_from_slice(&contents.stack);
    bytes[INFO..].copy_from_slice(&contents.info.to_bytes());
    bytes
}

/// What a handler, or whoever calls `rt_sigreturn`, wants the thread to go on with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) registers: Registers,
    pub(crate) mask: u64,
    pub(crate) stack: [u8; 24],
    /// Address of the extended state; 0 for the initial one.
    pub(crate) extended: u64,
}

/// Reads a ucontext.
pub(crate) fn parse(bytes: &[u8; CONTEXT_BYTES]) -> Wish {
    let get = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let word = |index: usize| get(MACHINE + index * 8);
    let mut registers = Registers {
        rip: word(16),
        rflags: word(17),
        ..Registers::default()
    };
    for (index, number) in ORDER.into_iter().enumerate() {
        registers.general[number] = word(index);
    }
    let mut stack = [0; 24];
    stack.copy_from_slice(&bytes[STACK..STACK + 24]);
    Wish {
        registers,
        mask: get(MASK),
        stack,
        extended: word(EXTENDED),
    }
}

/// What a frame says of its extended state, in the room that the legacy region leaves for software.
pub(crate) fn software_bytes(components: u64, extended_bytes: u32) -> [u8; SOFTWARE_BYTES] {
    let mut bytes = [0; SOFTWARE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC_1.to_le_bytes());
    bytes[4..8].copy_from_slice(&(extended_bytes + 4).to_le_bytes());
    bytes[8..16].copy_from_slice(&components.to_le_bytes());
    bytes[16..20].copy_from_slice(&extended_bytes.to_le_bytes());
    bytes
}

/// The components and the length that a program's extended state claims to have; none if it is only the legacy region.
pub(crate) fn parse_software_bytes(bytes: &[u8; SOFTWARE_BYTES]) -> Option<(u64, u32)> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let components = u64::from(word(8)) | u64::from(word(12)) << 32;
    let (extended, size) = (word(4), word(16));
    let is_whole = word(0) == MAGIC_1 && size >= 576 && extended >= size;
    is_whole.then_some((components, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_aligned_and_leaves_the_red_zone_alone() {
        for pointer in (0x10_0000..0x10_0100).step_by(8) {
            for extended_bytes in [576, 832, 2696] {
                let place = place(pointer, None, extended_bytes);
                assert_eq!(place.extended % 64, 0);
                assert_eq!(place.frame % 16, 8);
                assert!(place.extended + extended_bytes + 4 <= pointer - RED_ZONE_BYTES);
                assert!(place.frame + FRAME_BYTES as u64 <= place.extended);
            }
        }
        let own = place(0x10_0000, Some(0x20_0000), 576);
        assert!(own.extended > 0x1f_f000 && own.extended + 580 <= 0x20_0000);
    }

    #[test]
    fn absurd_stack_pointers_do_no_harm() {
        for pointer in [0, 1, 100, u64::MAX] {
            let _ = place(pointer, None, 2696);
            let _ = place(0, Some(pointer), 2696);
        }
    }

    #[test]
    fn what_is_built_can_be_read_back() {
        let mut registers = Registers {
            rip: 100,
            rflags: 0x246,
            ..Registers::default()
        };
        for (index, register) in registers.general.iter_mut().enumerate() {
            *register = index as u64 + 1;
        }
        let bytes = build(&Contents {
            return_address: 7,
            registers: &registers,
            mask: 0xff00,
            stack: [3; 24],
            fault: FaultRecord::default(),
            info: SignalInfo::kernel(11),
            extended: 0x4000,
        });
        let mut context = [0; CONTEXT_BYTES];
        context.copy_from_slice(&bytes[CONTEXT..CONTEXT + CONTEXT_BYTES]);
        assert_eq!(
            parse(&context),
            Wish {
                registers,
                mask: 0xff00,
                stack: [3; 24],
                extended: 0x4000
            }
        );
        // Where C programs look: uc_mcontext.gregs[REG_RIP] and [REG_RSP].
        assert_eq!(context[40 + 16 * 8], 100);
        assert_eq!(context[40 + 15 * 8], 5);
        assert_eq!(bytes[INFO], 11);
    }

    #[test]
    fn the_words_for_software_tell_the_size() {
        let bytes = software_bytes(0xe7, 2696);
        assert_eq!(parse_software_bytes(&bytes), Some((0xe7, 2696)));
        assert_eq!(parse_software_bytes(&[0; SOFTWARE_BYTES]), None);
    }
}
