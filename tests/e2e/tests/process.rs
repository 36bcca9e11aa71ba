//! The process form: how it is chosen and shown, what is left in a guest's process, and what comes of attempts to get out.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::process::{ProcessIdentity, descendants};
use spore_test_harness::{kvm_is_usable, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    calls_of_the_host_end_the_guest,
    what_is_allowed_is_of_no_use,
    a_forged_page_ends_the_guest,
    a_guest_process_holds_its_memory_and_nothing_else,
    a_clones_process_holds_its_snapshot_besides,
    a_guest_ends_with_its_monitor,
    a_guest_that_is_killed_is_no_crash_and_its_monitor_ends,
    seccomp_catches_calls_as_dispatch_does,
    each_function_has_the_isolation_that_it_asks_for,
    a_daemon_that_requires_virtual_machines_has_nothing_else,
    without_kvm_functions_run_in_processes,
];

/// Attempts of `programs/escape.c` that the list of system calls stops.
const DENIED: &[&str] = &[
    "open-a-host-file",
    "make-a-socket",
    "connect-to-loopback",
    "signal-the-parent",
    "trace-a-process",
    "mount",
    "fork",
    "make-a-thread",
    "execute",
    "write-to-a-descriptor",
    "write-another-process",
    "take-anonymous-memory",
    "map-privately",
    "map-another-descriptor",
    "wait-at-another-word",
    "allow-all-calls",
    "end-without-a-word",
    "32-bit-call",
];

fn run_in_process(options: &[&str], program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["run", "--isolation", "process"]).args(options);
    command.arg(program::build(program)).args(arguments);
    let output = command.stdin(Stdio::null()).output();
    output.expect("the spore binary can be run")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn calls_of_the_host_end_the_guest() {
    for attempt in DENIED {
        let output = run_in_process(&[], "escape", &[attempt]);
        let errors = errors(&output);
        assert_eq!(output.stdout, b"trying\n", "{attempt}: {errors}");
        assert!(
            errors.contains("a system call that it may not make"),
            "{attempt}: {errors}"
        );
        assert!(!output.status.success(), "{attempt}");
    }
}

fn what_is_allowed_is_of_no_use() {
    // The descriptor is open for reading only, the address space has a bound, and a root of one file has no head.
    for (attempt, error) in [
        ("write-the-root", "-13"),
        ("map-beyond-all-bounds", "-12"),
        ("map-a-head-of-nobody", "-9"),
    ] {
        let output = run_in_process(&[], "escape", &[attempt]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("trying\n{error}\n"),
            "{attempt}: {}",
            errors(&output)
        );
    }
    let output = run_in_process(&[], "escape", &["unmap-everything"]);
    assert!(errors(&output).contains("SIGSEGV"), "{}", errors(&output));
}

fn a_forged_page_ends_the_guest() {
    for attempt in ["forge-the-turn", "forge-a-stop"] {
        let output = run_in_process(&[], "escape", &[attempt]);
        assert!(
            errors(&output).contains("damaged its machine"),
            "{}",
            errors(&output)
        );
        assert!(!output.status.success(), "{attempt}");
    }
}

/// A daemon with one instance in the process form: its monitor, and its guest.
fn daemon_with_a_guest(options: &[&str]) -> (Daemon, ProcessIdentity, ProcessIdentity) {
    let daemon = Daemon::start_with(&["--isolation", "process"]);
    daemon.deploy(
        "httpd",
        &program::build("httpd"),
        &[&["--min", "1"], options].concat(),
    );
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    let mut family = None;
    wait_until(Duration::from_secs(10), || {
        family = daemon.descendants().into_iter().find_map(|monitor| {
            let guest = descendants(monitor.pid as u32).into_iter().next()?;
            Some((monitor, guest))
        });
        family.is_some()
    });
    let (monitor, guest) = family.expect("a monitor with a guest");
    (daemon, monitor, guest)
}

fn a_guest_process_holds_its_memory_and_nothing_else() {
    what_a_guest_process_holds(&[]);
}

fn a_clones_process_holds_its_snapshot_besides() {
    what_a_guest_process_holds(&["--snapshot"]);
}

fn what_a_guest_process_holds(options: &[&str]) {
    let (_daemon, monitor, guest) = daemon_with_a_guest(options);
    let folder = PathBuf::from(format!("/proc/{}", guest.pid));
    let status = fs::read_to_string(folder.join("status")).expect("the guest runs");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        (field("Seccomp:"), field("NoNewPrivs:")),
        ("2".into(), "1".into())
    );
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    // Nobody but root may look further: the process cannot be traced.
    if !geteuid().is_root() {
        assert!(fs::read_dir(folder.join("fd")).is_err());
        return;
    }
    assert_eq!(field("CapBnd:"), "0000000000000000");
    assert_ne!(field("Uid:"), "0");
    let descriptors: BTreeSet<String> = fs::read_dir(folder.join("fd"))
        .expect("root may look")
        .map(|entry| {
            entry
                .expect("it stays")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(descriptors, BTreeSet::from(["3".to_owned(), "4".to_owned()]));
    let module = fs::read_link(folder.join("fd/4")).expect("the module");
    let maps = fs::read_to_string(folder.join("maps")).expect("root may look");
    for line in maps.lines() {
        let name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
        // Newer kernels leave nobody without the pages of the vDSO.
        let is_kernels = name.starts_with("[v") && name != "[vsyscall]";
        let is_own = name.starts_with("/memfd:spore-guest")
            || name.starts_with("/memfd:spore-process")
            || name == module.to_string_lossy()
            || name == "[vsyscall]";
        // What it shares with others it cannot write to.
        let is_others = name.starts_with("/memfd:spore-library-os")
            || (!options.is_empty() && name.starts_with("/memfd:spore-snapshot"));
        let is_read_only = line.split(' ').nth(1).is_some_and(|rights| !rights.contains('w'));
        assert!(is_own || is_kernels || (is_others && is_read_only), "{line}");
    }
    let root = fs::read_dir(folder.join("root")).expect("root may look");
    assert_eq!(root.count(), 0, "the root is empty");
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("root may look");
        assert_ne!(of(guest.pid), of(monitor.pid), "{kind}");
    }
}

fn a_guest_that_is_killed_is_no_crash_and_its_monitor_ends() {
    let (daemon, monitor, guest) = daemon_with_a_guest(&[]);
    let guest_pid = Pid::from_raw(guest.pid).expect("a number");
    kill_process(guest_pid, Signal::KILL).expect("the guest runs");
    // Nobody asks for it: that the function waits must not keep its memory.
    assert!(wait_until(Duration::from_secs(10), || !monitor.is_alive()));
    daemon.wait_for_log("httpd", "the guest's process was killed");
    assert!(!daemon.spore_ok(&["logs", "httpd"]).contains("crashed"));
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
}

fn a_guest_ends_with_its_monitor() {
    let (daemon, monitor, guest) = daemon_with_a_guest(&[]);
    kill_process(Pid::from_raw(monitor.pid).expect("a process"), Signal::KILL).expect("it is ours");
    let gone = wait_until(Duration::from_secs(10), || !guest.is_alive());
    assert!(gone, "the guest lives on without its monitor");
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
}

fn seccomp_catches_calls_as_dispatch_does() {
    let arguments = ["--loud", "two words"];
    let dispatched = run_in_process(&["--no-syscall-rewriting"], "ending", &arguments);
    let trapped = run_in_process(
        &["--no-syscall-rewriting", "--no-syscall-user-dispatch"],
        "ending",
        &arguments,
    );
    assert_eq!(dispatched.stdout, trapped.stdout);
    assert_eq!(dispatched.status.code(), trapped.status.code());
    let output = run_in_process(&["--no-syscall-user-dispatch"], "escape", &["open-a-host-file"]);
    assert!(errors(&output).contains("a system call that it may not make"));
}

fn isolation(daemon: &Daemon, function: &str) -> String {
    let status = daemon.get(&format!("/system/function/{function}")).json();
    status["isolation"].as_str().unwrap_or_default().to_owned()
}

fn each_function_has_the_isolation_that_it_asks_for() {
    let daemon = Daemon::start_with(&["--isolation", "process"]);
    let httpd = program::build("httpd");
    daemon.deploy("asks-nothing", &httpd, &[]);
    assert_eq!(isolation(&daemon, "asks-nothing"), "process");
    assert!(daemon.spore_ok(&["list"]).contains("process"));
    assert!(
        daemon
            .spore_ok(&["describe", "asks-nothing"])
            .contains("kernel is shared")
    );
    assert_eq!(daemon.get("/system/info").json()["isolation"], "process");

    let path = httpd.to_str().expect("the paths of test programs are UTF-8");
    let asks = ["deploy", "asks-vm", "--binary", path, "--isolation", "vm"];
    if kvm_is_usable() {
        daemon.spore_ok(&asks);
        assert_eq!(isolation(&daemon, "asks-vm"), "vm");
        assert_eq!(daemon.get("/function/asks-vm").status, StatusCode::OK);
        // A virtual machine has no process beside its monitor.
        let families = daemon.descendants();
        let monitors_without_guests = families
            .iter()
            .filter(|one| descendants(one.pid as u32).is_empty());
        assert_eq!(monitors_without_guests.count(), families.len());
    } else {
        let output = daemon.spore(&asks);
        assert!(
            errors(&output).contains("isolation `process`"),
            "{}",
            errors(&output)
        );
    }
    let wrong = daemon.spore(&[
        "deploy",
        "odd",
        "--binary",
        path,
        "--annotation",
        "dev.spore.isolation=jail",
    ]);
    assert!(
        errors(&wrong).contains("neither vm nor process"),
        "{}",
        errors(&wrong)
    );
}

fn a_daemon_that_requires_virtual_machines_has_nothing_else() {
    if !kvm_is_usable() {
        let output = serve_once(Command::new(binary()));
        assert!(
            !output.status.success() && errors(&output).contains("/dev/kvm"),
            "{}",
            errors(&output)
        );
        return;
    }
    let daemon = Daemon::start_with(&["--require-vm"]);
    let httpd = program::build("httpd");
    daemon.deploy("httpd", &httpd, &[]);
    assert_eq!(isolation(&daemon, "httpd"), "vm");
    let path = httpd.to_str().expect("the paths of test programs are UTF-8");
    let output = daemon.spore(&["deploy", "other", "--binary", path, "--isolation", "process"]);
    assert!(
        errors(&output).contains("virtual machines only"),
        "{}",
        errors(&output)
    );
}

/// `spore serve --require-vm`, which is expected not to start.
fn serve_once(mut command: Command) -> Output {
    let data = tempfile::tempdir().expect("the temporary folder is writable");
    command.args(["serve", "--require-vm", "--listen", "127.0.0.1:0", "--data"]);
    command
        .arg(data.path())
        .output()
        .expect("the spore binary can be run")
}

/// The `spore` binary where there is no KVM; none if this user cannot hide it.
fn spore_without_kvm() -> Option<Command> {
    if !geteuid().is_root() {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg("test ! -e /dev/kvm || mount --bind /dev/null /dev/kvm; exec \"$0\" \"$@\"");
    command.arg(binary());
    Some(command)
}

fn without_kvm_functions_run_in_processes() {
    let Some(mut command) = spore_without_kvm() else {
        eprintln!("KVM cannot be hidden by this user");
        return;
    };
    let program = program::build("ending");
    let output = command.arg("run").arg(&program).arg("status").output();
    let output = output.expect("the spore binary can be run");
    let here = Command::new(&program).arg("status").env_clear().output();
    assert_eq!(
        output.stdout,
        here.expect("the program can be run").stdout,
        "{}",
        errors(&output)
    );

    let mut command = spore_without_kvm().expect("as before");
    let output = command.args(["run", "--isolation", "vm"]).arg(&program).output();
    let output = output.expect("the spore binary can be run");
    assert_eq!(output.status.code(), Some(125));
    assert!(
        errors(&output).contains("--isolation process"),
        "{}",
        errors(&output)
    );

    let output = serve_once(spore_without_kvm().expect("as before"));
    assert!(!output.status.success());
    assert!(errors(&output).contains("--require-vm"), "{}", errors(&output));
}
