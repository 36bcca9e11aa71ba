//! The process that becomes a monitor, QEMU for example: it gives up what that does not need, and then executes it. The tender of
//! Solo5's unikernels begins in the same way; it is part of this binary, and nothing is executed.
//!
//! The daemon starts it from its own binary, from a thread that is in namespaces without a network. QEMU and the tender have the channel,
//! the control socket and the console as standard input, output and error; other monitors the console alone, and a folder in which
//! they make their sockets.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::io::Errno;
use rustix::process::{
    Resource, Rlimit, Signal, geteuid, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// The hidden subcommand that runs [`main`].
pub const SUBCOMMAND: &str = "microvm";
/// What follows each list in the arguments.
pub(crate) const END_OF_LIST: &str = "--";
/// What monitors consist of, and what they ask of the kernel.
const OWN_FILES: [&str; 9] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/nix/store",
    "/proc",
    "/sys/devices/system",
];
/// Devices that it may write to.
const DEVICES: [&str; 4] = ["/dev/kvm", "/dev/null", "/dev/zero", "/dev/urandom"];
/// Descriptors that a monitor may have open.
const DESCRIPTORS_MAX: u64 = 256;
/// The console is a pipe, and the root is read-only: there is no file to be written to.
const FILE_BYTES_MAX: u64 = 0;
/// The same for monitors that make sockets: Firecracker has the rings of its devices in files in memory (memfd_create(2)), a page each.
const MEMORY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Becomes the program that the arguments name: the daemon's process number, the doors of its cgroup,
/// [`END_OF_LIST`], the files that it reads, [`END_OF_LIST`], the folders in which it makes sockets, [`END_OF_LIST`], where it
/// saves its machine and the most bytes of a file there, [`END_OF_LIST`], the program, its arguments. Called before any thread exists.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    become_program(arguments.into_iter()).unwrap_or_else(|error| {
        // The daemon reads it, as what a console says last.
        eprintln!("the virtual machine cannot be started: {error}");
        ExitCode::FAILURE
    })
}

/// Returns only if the program has not been executed, or was this one.
fn become_program(mut arguments: impl Iterator<Item = OsString>) -> std::io::Result<ExitCode> {
    let missing = || std::io::Error::other("the daemon has not said what is to be run");
    let daemon = arguments
        .next()
        .and_then(|number| number.into_string().ok()?.parse::<i32>().ok());
    let is_listed = |argument: &OsString| argument != END_OF_LIST;
    let doors: Vec<_> = arguments.by_ref().take_while(is_listed).collect();
    let files: Vec<_> = arguments.by_ref().take_while(is_listed).collect();
    let folders: Vec<_> = arguments.by_ref().take_while(is_listed).collect();
    let saves: Vec<_> = arguments.by_ref().take_while(is_listed).collect();
    let Some((daemon, program)) = daemon.zip(arguments.next()) else {
        return Err(missing());
    };
    for door in doors {
        // 0 stands for the process that writes.
        if let Err(error) = std::fs::write(&door, "0") {
            let text = format!("entering {}: {error}", door.display());
            return Err(std::io::Error::new(error.kind(), text));
        }
    }
    let file_bytes = match saves.get(1).map(|number| number.to_str()?.parse().ok()) {
        Some(number) => number.ok_or_else(missing)?,
        None if folders.is_empty() => FILE_BYTES_MAX,
        None => MEMORY_FILE_BYTES_MAX,
    };
    give_up(daemon, file_bytes)?;
    let status = restrict(&files, &folders, saves.first()).map_err(std::io::Error::other)?;
    if let Some(reason) = refusal(status, geteuid().is_root()) {
        return Err(std::io::Error::other(reason));
    }
    if program == spore_solo5::PROGRAM {
        return Ok(spore_solo5::main(arguments));
    }
    Err(Command::new(program).args(arguments).env_clear().exec())
}

/// Gives up all files but these, the monitor's own and its devices (landlock(7)), as far as the kernel can do that: in the folders
/// sockets can be made, and nothing else, and where it saves its machine, files. Processes outside it cannot be signalled then.
fn restrict(
    files: &[OsString],
    folders: &[OsString],
    saves: Option<&OsString>,
) -> Result<RulesetStatus, RulesetError> {
    // Newer ones would refuse what QEMU asks of the devices.
    const NEWEST: ABI = ABI::V4;
    let reading = AccessFs::from_read(NEWEST);
    let saving =
        AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::ReadFile | AccessFs::ReadDir;
    let files = files.iter().map(std::path::Path::new);
    let readable = OWN_FILES.iter().map(std::path::Path::new).chain(files);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        // What is not there needs no rule.
        .add_rules(path_beneath_rules(readable, reading))?
        .add_rules(path_beneath_rules(DEVICES, reading | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(folders, AccessFs::MakeSock))?
        .add_rules(path_beneath_rules(saves, saving))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Why a monitor is not to be started, if it is not: root may write to this machine's files even without any capability.
fn refusal(status: RulesetStatus, is_root: bool) -> Option<&'static str> {
    (is_root && status == RulesetStatus::NotEnforced).then_some(
        "the kernel has no Landlock (it came with Linux 5.13), without which no such machine is run as root: boot with \
         `lsm=landlock,...`, or run the daemon as a user of its own",
    )
}

/// Why monitors are not confined by Landlock, if they are not.
pub(crate) fn without_landlock() -> Option<String> {
    let tried = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    tried.err().map(|error| error.to_string())
}

/// Gives up capabilities, the chance to get others, and life after the daemon.
fn give_up(daemon: i32, file_bytes: u64) -> Result<(), Errno> {
    // It is that of the thread that has started this process, which lives as long as the daemon wants it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(daemon) {
        // It was gone before.
        return Err(Errno::SRCH);
    }
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it; a user who has none to lose.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    set_no_new_privs(true)?;
    for (resource, wanted) in [
        (Resource::Core, 0),
        (Resource::Fsize, file_bytes),
        (Resource::Nofile, DESCRIPTORS_MAX),
    ] {
        // A limit that is lower already is kept.
        let maximum = getrlimit(resource).maximum;
        let value = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_starts_nothing_without_landlock() {
        assert!(refusal(RulesetStatus::NotEnforced, true).is_some());
        assert_eq!(refusal(RulesetStatus::NotEnforced, false), None);
        assert_eq!(refusal(RulesetStatus::PartiallyEnforced, true), None);
        assert_eq!(refusal(RulesetStatus::FullyEnforced, true), None);
    }

    /// What a thread gives up, the others keep.
    fn confined(folders: &[OsString], saves: Option<&OsString>, attempts: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let status = restrict(&[], folders, saves).unwrap();
                assert_ne!(status, RulesetStatus::NotEnforced);
                attempts();
            });
            thread.join().unwrap();
        });
    }

    #[test]
    fn sockets_can_be_made_in_a_folder_and_files_where_machines_are_saved() {
        use std::os::unix::net::UnixListener;

        if without_landlock().is_some() {
            return;
        }
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [sockets, saves, other] = folders.each_ref().map(tempfile::TempDir::path);
        confined(&[sockets.into()], None, || {
            assert!(UnixListener::bind(sockets.join("socket")).is_ok());
            assert!(UnixListener::bind(other.join("socket")).is_err());
            assert!(std::fs::write(sockets.join("file"), "").is_err());
            assert!(std::fs::create_dir(sockets.join("folder")).is_err());
            assert!(std::fs::remove_file(sockets.join("socket")).is_err());
            assert!(std::fs::read_dir(sockets).is_err());
        });
        confined(&[sockets.into()], Some(&saves.into()), || {
            assert!(std::fs::write(saves.join("file"), "state").is_ok());
            assert!(std::fs::write(saves.join("file"), "again").is_ok());
            assert!(UnixListener::bind(saves.join("socket")).is_err());
            assert!(std::os::unix::fs::symlink("/", saves.join("link")).is_err());
            assert!(std::fs::write(sockets.join("file"), "").is_err());
        });
    }
}
