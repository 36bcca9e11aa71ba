//! The jail of a monitor process: what it can still do once the guest runs.
//!
//! ```text
//!   start, descriptors closed, /dev/kvm opened
//!     │  Jail::enter      namespaces, empty root
//!     v
//!   the guest is made: an empty virtual machine ahead of the request to start, or what that asks for
//!     │  Jail::give_up    own user, no capabilities, Landlock
//!     v
//!   the guest is loaded with what the request to start has brought
//!     │  Stripped::seal   limits, and last the list of system calls    right before the first instruction of the guest
//!     v
//!   the guest runs
//! ```
//!
//! Each step is a *layer*. One that the kernel or the user's rights do not allow is left out and reported, and the
//! others are taken all the same: which ones there are is known only by trying. `docs/jail.md` describes them.
//!
//! * `namespaces`: namespaces and the empty root; `privileges`: user, capabilities, limits; [`calls`]: system calls;
//! * `title`: the name under which `ps` shows the process.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;

use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::process;

pub mod calls;
mod landlocked;
mod namespaces;
mod privileges;
mod title;

use calls::{List, ListError};
pub use privileges::DESCRIPTORS_MAX;

/// A means by which a monitor process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// A user that owns nothing else: a number of its own where the daemon is root, a user namespace elsewhere.
    User,
    /// A mount namespace.
    MountNamespace,
    /// A PID namespace, in which it is alone.
    PidNamespace,
    /// A network namespace without any interface that is up.
    NetworkNamespace,
    /// A namespace for System V objects and POSIX message queues.
    IpcNamespace,
    /// A namespace for the host's name.
    UtsNamespace,
    /// A cgroup namespace.
    CgroupNamespace,
    /// A root in which there is nothing, and nothing can be made.
    EmptyRoot,
    /// No descriptor but its own, and the guest's streams.
    Descriptors,
    /// No capability in any set, and no way to get one.
    Capabilities,
    /// `no_new_privs`: no program that it might execute gets rights.
    NoNewPrivileges,
    /// Limits for memory, files, descriptors and processes.
    ResourceLimits,
    /// No other process of its user may look into it or trace it.
    NotDumpable,
    /// It ends with the process that started it.
    EndsWithDaemon,
    /// Landlock: no access to any file, port, abstract socket or process outside.
    Landlock,
    /// The list of system calls.
    SystemCalls,
}

impl Layer {
    /// All layers, in the order in which they are put on.
    pub const ALL: [Self; 16] = [
        Self::Descriptors,
        Self::PidNamespace,
        Self::MountNamespace,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::EmptyRoot,
        Self::User,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::NotDumpable,
        Self::EndsWithDaemon,
        Self::Landlock,
        Self::ResourceLimits,
        Self::SystemCalls,
    ];
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::User => "own user",
            Self::MountNamespace => "mount namespace",
            Self::PidNamespace => "PID namespace",
            Self::NetworkNamespace => "network namespace",
            Self::IpcNamespace => "IPC namespace",
            Self::UtsNamespace => "UTS namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::EmptyRoot => "empty root",
            Self::Descriptors => "own descriptors only",
            Self::Capabilities => "no capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::ResourceLimits => "resource limits",
            Self::NotDumpable => "not dumpable",
            Self::EndsWithDaemon => "ends with the daemon",
            Self::Landlock => "Landlock",
            Self::SystemCalls => "system call list",
        })
    }
}

/// Exit status of a process that has panicked, as Rust's own.
const PANIC_STATUS: i32 = 101;

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerState {
    /// The layer.
    pub layer: Layer,
    /// Why it is not there; none if it is.
    pub missing: Option<String>,
}

/// What became of all layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailReport {
    /// One entry for each layer that was tried, in order.
    pub layers: Vec<LayerState>,
}

impl JailReport {
    fn note<E: fmt::Display>(&mut self, layer: Layer, outcome: Result<(), E>) {
        let missing = outcome.err().map(|error| error.to_string());
        self.layers.push(LayerState { layer, missing });
    }

    /// Whether a layer was tried and is there.
    #[must_use]
    pub fn is_active(&self, layer: Layer) -> bool {
        let mut states = self.layers.iter();
        states.any(|state| state.layer == layer && state.missing.is_none())
    }

    /// The layers that are there.
    #[must_use]
    pub fn active(&self) -> Vec<Layer> {
        Layer::ALL
            .into_iter()
            .filter(|&layer| self.is_active(layer))
            .collect()
    }

    /// The first of these layers that is not there, with the reason.
    #[must_use]
    pub fn first_missing(&self, required: &[Layer]) -> Option<(Layer, String)> {
        let missing = required.iter().find(|&&layer| !self.is_active(layer))?;
        let state = self.layers.iter().find(|state| state.layer == *missing);
        let reason = state.and_then(|state| state.missing.clone());
        Some((*missing, reason.unwrap_or_else(|| "it was not tried".into())))
    }
}

/// What a monitor runs its guest by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestHandle {
    /// There is no guest.
    None,
    /// Number of the virtual processor's descriptor.
    Processor(i32),
    /// Number of the guest's process, a child.
    Process(i32),
}

/// What a sealed process may still use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// What it runs.
    pub guest: GuestHandle,
    /// Number of the descriptor on which descriptors may come in.
    pub control: i32,
    /// Number of the descriptor of its page map, if it is to read that.
    pub page_map: Option<i32>,
    /// Whether it may put its virtual machine back to what it was.
    pub resets: bool,
}

/// A process on its way into jail.
pub struct Jail {
    report: JailReport,
    title: Option<title::Title>,
    /// Where standard error will lead to.
    nowhere: Option<File>,
    is_in_user_namespace: bool,
}

/// A process that has given up its rights, and can still make every system call.
pub struct Stripped {
    report: JailReport,
    title: Option<title::Title>,
    /// The list of system calls for this boundary, ready to be put into force.
    list: (Boundary, Result<List, ListError>),
}

impl Jail {
    /// Leaves everything that the set-up of a virtual machine does not need. To be called before any other thread
    /// exists.
    ///
    /// `kept` is the highest number of a descriptor that the process needs, all higher ones are closed. `open` opens
    /// what cannot be opened any more afterwards; its result is returned too.
    pub fn enter<T>(kept: i32, open: impl FnOnce() -> T) -> (Self, T) {
        process::unblock_signals();
        let mut report = JailReport::default();
        report.note(Layer::Descriptors, close_from(kept + 1));
        let opened = open();
        let title = title::Title::find();
        let nowhere = OpenOptions::new().write(true).open("/dev/null").ok();
        let is_told = |fact: &str| std::env::args_os().any(|argument| argument == fact);
        let is_in_user_namespace = is_told(process::IN_USER_NAMESPACE);
        let (shares, is_to_be_copied) = (is_told(process::IN_SHARED_NAMESPACES), is_told(process::ZYGOTE));
        namespaces::enter(&mut report, shares, is_to_be_copied);
        let jail = Self {
            report,
            title,
            nowhere,
            is_in_user_namespace,
        };
        (jail, opened)
    }

    /// What there is of layers so far.
    pub(crate) fn report(&self) -> &JailReport {
        &self.report
    }

    /// To be called in a copy of a process that has entered jail, when it is in its cgroups: enters the namespaces that are the
    /// copy's own.
    pub(crate) fn enter_as_copy(&mut self) {
        namespaces::enter_own(&mut self.report);
    }

    /// Shows the process under this title from now on.
    pub fn set_title(&mut self, title: &str) {
        if let Some(place) = &mut self.title {
            place.set(title);
        }
    }

    /// Gives up user and capabilities, and translates the list of system calls for `boundary`. `user` is the user (and
    /// group) that the process becomes, if the daemon is root. Panics are told with `say` from here on, since standard
    /// error leads nowhere. `last` does what has to be done without capabilities, and before limits are set.
    #[must_use]
    pub fn give_up(
        self,
        boundary: Boundary,
        user: Option<u32>,
        say: fn(&str),
        last: impl FnOnce(),
    ) -> Stripped {
        let mut report = self.report;
        std::panic::set_hook(Box::new(move |panic| {
            say(&format!("the monitor failed: {panic}"));
            // There is nobody to go on, and taking the stack apart takes calls that are not on the list.
            // SAFETY: ends the process.
            unsafe { libc::_exit(PANIC_STATUS) }
        }));
        if let Some(nowhere) = &self.nowhere {
            // What is written there in spite of the hook is lost only if this works.
            let _ = rustix::stdio::dup2_stderr(nowhere.as_fd());
        }
        drop(self.nowhere);
        privileges::give_up(&mut report, user, self.is_in_user_namespace);
        report.note(
            Layer::NotDumpable,
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        );
        // After the user has changed, which undoes it (prctl(2)).
        report.note(
            Layer::EndsWithDaemon,
            set_parent_process_death_signal(Some(Signal::KILL)),
        );
        last();
        // The guest's process is outside of what Landlock puts around the monitor, and has to be interrupted.
        let may_signal = matches!(boundary.guest, GuestHandle::Process(_));
        report.note(Layer::Landlock, landlocked::deny_everything(may_signal));
        Stripped {
            report,
            title: self.title,
            list: (boundary, List::translate(&boundary)),
        }
    }
}

impl Stripped {
    /// Shows the process under this title from now on.
    pub fn set_title(&mut self, title: &str) {
        if let Some(place) = &mut self.title {
            place.set(title);
        }
    }

    /// Sets limits, for a process in which `guest_bytes` are mapped for the guest, and leaves nothing but what `boundary`
    /// says and [`calls`] lists.
    #[must_use]
    pub fn seal(mut self, boundary: &Boundary, guest_bytes: u64) -> JailReport {
        self.limit(guest_bytes);
        let (for_boundary, list) = self.list;
        let list = if for_boundary == *boundary {
            list
        } else {
            List::translate(boundary)
        };
        let outcome = list.and_then(|list| list.put_into_force());
        self.report.note(Layer::SystemCalls, outcome);
        self.report
    }

    /// All of [`Stripped::seal`] but the list of system calls: what holds even without.
    #[must_use]
    pub fn seal_without_list(mut self, guest_bytes: u64) -> JailReport {
        self.limit(guest_bytes);
        self.report
    }

    fn limit(&mut self, guest_bytes: u64) {
        self.report
            .note(Layer::ResourceLimits, privileges::limit(guest_bytes));
    }
}

/// Closes all descriptors from this number on.
fn close_from(first: i32) -> io::Result<()> {
    // SAFETY: whatever has these numbers belongs to nobody here: the process has just started.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    // Kernels before 5.9.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    for number in first..limit.current.unwrap_or(4096) as i32 {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
    Ok(())
}
