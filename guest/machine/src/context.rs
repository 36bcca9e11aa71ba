//! The program's registers, and running it.

use spore_abi::layout;
use spore_abi::pages::{Registers, Upcall, upcall_kind};

use crate::{entry, shared};

/// Register state of a task of the program, as far as every trap saves it.
#[derive(Debug, Clone)]
#[repr(C, align(16))]
pub struct Context {
    /// Integer registers, instruction pointer, flags.
    pub registers: Registers,
    /// Base of the FS segment (thread-local storage); valid while another task runs.
    pub fs_base: u64,
    /// Base of the GS segment; valid while another task runs.
    pub gs_base: u64,
    /// xmm0 … xmm15.
    vectors: [[u64; 2]; 16],
}

const _: () = assert!(core::mem::offset_of!(Context, fs_base) == 0x90);
const _: () = assert!(core::mem::offset_of!(Context, vectors) == 0xa0);

/// Flags that a program may have: status flags and direction, nothing that would trap in the library OS.
const PROGRAM_FLAGS: u64 = 0xcd5 | 0x20_0000;

/// Bytes of xmm0 … xmm15.
pub const VECTORS_BYTES: usize = 256;

/// Why the program stopped running.
#[derive(Debug)]
pub enum Trap {
    /// It executed `syscall`; number and arguments are in the registers.
    SystemCall,
    /// The same from a site that was rewritten, without a trap.
    RewrittenCall,
    /// It raised an exception; the registers are those of the faulting instruction.
    Fault(Upcall),
    /// The monitor interrupted it.
    Kick,
}

impl Context {
    /// A context that starts at `rip` with the stack pointer `rsp` and everything else zero.
    #[must_use]
    pub fn new(rip: u64, rsp: u64) -> Self {
        let mut registers = Registers {
            rip,
            rflags: 0x202,
            ..Registers::default()
        };
        registers.general[4] = rsp;
        Self {
            registers,
            fs_base: 0,
            gs_base: 0,
            vectors: [[0; 2]; 16],
        }
    }

    /// Makes this the state after a `syscall` instruction at `address` has trapped.
    pub fn enter_call(&mut self, address: u64) {
        /// Length of the `syscall` instruction.
        const CALL_BYTES: u64 = 2;
        let after = address.wrapping_add(CALL_BYTES);
        self.registers.rip = after;
        self.registers.general[1] = after;
        self.registers.general[11] = self.registers.rflags;
    }

    /// Number of the system call (rax).
    #[must_use]
    pub fn call_number(&self) -> u64 {
        self.registers.general[0]
    }

    /// Arguments of the system call: rdi, rsi, rdx, r10, r8, r9.
    #[must_use]
    pub fn call_arguments(&self) -> [u64; 6] {
        let general = &self.registers.general;
        [
            general[7],
            general[6],
            general[2],
            general[10],
            general[8],
            general[9],
        ]
    }

    /// Sets the result of the system call (rax).
    pub fn set_result(&mut self, value: u64) {
        self.registers.general[0] = value;
    }

    /// Lets the program make the system call again that it has just made, at this address and with this number.
    pub fn restart_call(&mut self, site: u64, number: u64) {
        self.registers.rip = site;
        self.registers.general[0] = number;
    }

    /// Whether the processor can go to the instruction pointer: it is canonical, in the lower half.
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        self.registers.rip < layout::USER_END
    }

    /// xmm0 … xmm15, as `xsave` lays them out.
    #[must_use]
    pub fn vectors(&self) -> [u8; VECTORS_BYTES] {
        let mut bytes = [0; VECTORS_BYTES];
        let words = self.vectors.as_flattened();
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Sets xmm0 … xmm15.
    pub fn set_vectors(&mut self, bytes: &[u8; VECTORS_BYTES]) {
        let words = self.vectors.as_flattened_mut();
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
    }
}

unsafe extern "C" {
    fn machine_run(context: *mut Context) -> u32;
}

/// Runs the program with these registers until it traps, then leaves its registers there.
pub fn run(context: &mut Context) -> Trap {
    context.registers.rflags = context.registers.rflags & PROGRAM_FLAGS | 0x202;
    // SAFETY: the routine keeps to the C calling convention as seen from here: it saves the callee-saved registers,
    // and comes back on this stack through one of the two trap entries. The context outlives the call. What the
    // program does meanwhile to memory of the library OS is outside the language's rules: library OS and program
    // form one protection domain, and the virtual machine is the boundary.
    let trap = unsafe { machine_run(context) };
    match trap {
        entry::TRAP_SYSTEM_CALL => return Trap::SystemCall,
        entry::TRAP_REWRITTEN_CALL => return Trap::RewrittenCall,
        _ => {}
    }
    let upcall = shared::upcall();
    context.registers = upcall.registers;
    if upcall.kind == upcall_kind::FAULT {
        Trap::Fault(upcall)
    } else {
        Trap::Kick
    }
}
