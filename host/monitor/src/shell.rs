//! A monitor process while it waits for an instance: with an empty virtual machine or guest process and without rights, if
//! it has been prepared.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use kvm_ioctls::Kvm;
use spore_abi::layout::LARGE_PAGE_BYTES;

use crate::guest_process::{self, EmptyProcess};
use crate::image::Image;
use crate::jail::{Boundary, GuestHandle, Jail, Stripped};
use crate::kick;
use crate::machine::Machine;
use crate::processor::Processor;
use crate::protocol::{Isolation, Preparation};
use crate::start::{StartError, ram_bytes, say_on_log};
use crate::written::PageMap;

/// A monitor process that has not yet been asked to start an instance. With a machine or a guest process it is a *shell*.
pub(crate) struct Waiting {
    pub(crate) rights: Rights,
    /// A virtual machine with nothing in it.
    machine: Option<Machine>,
    /// A guest process with nothing in it.
    process: Option<EmptyProcess>,
    /// The library OS's code and constants, shared with other instances.
    pub(crate) text: Option<OwnedFd>,
    pub(crate) page_map: Option<PageMap>,
}

/// What a monitor process may do besides what its guest needs.
pub(crate) enum Rights {
    Held(Jail),
    GivenUp(Stripped),
}

impl Waiting {
    /// One that has just come to jail.
    pub(crate) fn new(jail: Jail, page_map: Option<PageMap>) -> Self {
        Self {
            rights: Rights::Held(jail),
            machine: None,
            process: None,
            text: None,
            page_map,
        }
    }

    /// Makes a shell. Where there can be none nothing happens: whether that matters is known when an instance is asked for.
    pub(crate) fn prepare(
        mut self,
        preparation: &Preparation,
        kvm: &Result<Kvm, kvm_ioctls::Error>,
        control: &OwnedFd,
    ) -> Self {
        let Ok(image) = Image::library_os() else {
            return self;
        };
        let guest = match preparation.isolation {
            Isolation::VirtualMachine => {
                let known = preparation.processor.as_ref();
                let made = ram_bytes(preparation.memory_bytes).and_then(|ram_bytes| {
                    make_machine(kvm.as_ref(), &image, self.text.as_ref(), ram_bytes, known)
                });
                self.machine = made.ok();
                if let Some(machine) = &mut self.machine {
                    machine.lay_in_stock(&preparation.stock);
                }
                self.machine
                    .as_ref()
                    .map(|machine| GuestHandle::Processor(machine.processor_descriptor()))
            }
            Isolation::Process => {
                self.process = make_process(&image, self.text.as_ref(), preparation.user).ok();
                self.process
                    .as_ref()
                    .map(|process| GuestHandle::Process(process.id()))
            }
        };
        let Some(guest) = guest else { return self };
        let boundary = Boundary {
            guest,
            control: control.as_raw_fd(),
            page_map: None,
            resets: false,
        };
        let machine = self.machine.as_mut();
        self.rights = match self.rights {
            Rights::Held(jail) => {
                Rights::GivenUp(jail.give_up(boundary, preparation.user, say_on_log, || {
                    if let Some(machine) = machine {
                        machine.warm_up();
                    }
                }))
            }
            given_up @ Rights::GivenUp(_) => given_up,
        };
        give_heap_back();
        self
    }

    /// Only the rights: everything else is closed.
    pub(crate) fn into_rights(self) -> Rights {
        self.rights
    }

    /// A machine with so much memory: the one that is there, or another one.
    pub(crate) fn take_machine(
        &mut self,
        kvm: Result<&Kvm, &kvm_ioctls::Error>,
        image: &Image,
        ram_bytes: u64,
    ) -> Result<Machine, StartError> {
        let fits = |machine: &Machine| machine.ram.length() == ram_bytes.next_multiple_of(LARGE_PAGE_BYTES);
        if let Some(machine) = self.machine.take().filter(fits) {
            return Ok(machine);
        }
        let mut machine = make_machine(kvm, image, self.text.as_ref(), ram_bytes, None)?;
        if matches!(self.rights, Rights::GivenUp(_)) {
            machine.warm_up();
        }
        Ok(machine)
    }
}

impl Waiting {
    /// An empty guest process: the one that is there, or a new one.
    pub(crate) fn take_process(
        &mut self,
        image: &Image,
        user: Option<u32>,
    ) -> Result<EmptyProcess, StartError> {
        match (self.process.take(), &self.rights) {
            (Some(process), _) => Ok(process),
            (None, Rights::Held(_)) => make_process(image, self.text.as_ref(), user),
            (None, Rights::GivenUp(_)) => Err(StartError::NoRights),
        }
    }
}

impl Rights {
    pub(crate) fn set_title(&mut self, title: &str) {
        match self {
            Self::Held(jail) => jail.set_title(title),
            Self::GivenUp(stripped) => stripped.set_title(title),
        }
    }

    /// Gives up what is left. `last` as [`Jail::give_up`] has it.
    pub(crate) fn give_up(self, boundary: Boundary, user: Option<u32>, last: impl FnOnce()) -> Stripped {
        match self {
            Self::Held(jail) => jail.give_up(boundary, user, say_on_log, last),
            Self::GivenUp(stripped) => stripped,
        }
    }
}

/// Gives pages of the heap back that nothing is in any more: what comes before this needs more than an instance ever does.
fn give_heap_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what is free; there is one thread.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Makes a virtual machine that ticks can interrupt.
fn make_machine(
    kvm: Result<&Kvm, &kvm_ioctls::Error>,
    image: &Image,
    text: Option<&OwnedFd>,
    ram_bytes: u64,
    known: Option<&Processor>,
) -> Result<Machine, StartError> {
    let kvm = kvm.map_err(|error| StartError::Kvm(*error))?;
    let asked;
    let description = match known {
        Some(known) => known,
        None => {
            asked = Processor::of(kvm).map_err(StartError::Kvm)?;
            &asked
        }
    };
    let machine = Machine::new(kvm, image, ram_bytes, text.map(AsFd::as_fd), description)?;
    kick::install().map_err(|source| StartError::Io {
        what: "the timer signal cannot be handled",
        source,
    })?;
    Ok(machine)
}

/// Makes an empty guest process whose end interrupts the monitor.
fn make_process(
    image: &Image,
    text: Option<&OwnedFd>,
    user: Option<u32>,
) -> Result<EmptyProcess, StartError> {
    guest_process::be_interrupted().map_err(|source| StartError::Io {
        what: "the signal of a child's end cannot be handled",
        source,
    })?;
    Ok(EmptyProcess::new(image, text.map(AsFd::as_fd), user)?)
}
