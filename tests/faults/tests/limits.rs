//! Limits around the daemon that are reached: clear errors, and everything works again when there is more.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode};
use procfs::process::Process;
use spore_test_harness::client;
use spore_test_harness::daemon::{self, Daemon, Setup, data_folder};
use spore_test_harness::{program, wait_until};

use crate::fixtures::{Neighbour, PATIENCE, Pending, Raw, check_failure, deploy_faults, monitor};
use crate::groups::{self, Group};
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing;
    idle_connections_leave_descriptors_for_the_rest,
    instances_that_need_all_descriptors_are_refused,
];
pub(crate) const TESTS_OF_PROCESSES: &[Test] =
    tests![Needs::Groups("pids"); no_more_processes_is_an_error_and_passes];
pub(crate) const TESTS_OF_USERS: &[Test] =
    tests![Needs::Mounts; an_ordinary_users_limit_of_processes_is_an_error_and_passes];
pub(crate) const TESTS_OF_MEMORY: &[Test] = tests![Needs::Groups("memory"); no_more_memory_ends_the_largest_instance_only,
    a_full_group_of_an_instance_ends_that_instance_only];

fn with_descriptors(limit: u32) -> Daemon {
    let limit = format!("--nofile={limit}:{limit}");
    Daemon::start_as(Setup {
        prefix: vec!["prlimit".to_owned(), limit],
        ..Setup::default()
    })
}

fn processor_ticks(daemon: &Daemon) -> u64 {
    let process = Process::new(daemon.pid() as i32).expect("it runs");
    let stat = process.stat().expect("it runs");
    stat.utime + stat.stime
}

/// Checks that the daemon does not compute while there is nothing that it could do.
fn check_idle(daemon: &Daemon) {
    let before = processor_ticks(daemon);
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_ticks(daemon) - before;
    assert!(
        spent < 50,
        "{spent} of 100 ticks: the daemon is in a loop\n{}",
        daemon.log()
    );
}

fn idle_connections_leave_descriptors_for_the_rest() {
    let daemon = with_descriptors(128);
    deploy_faults(&daemon, "faults", &[]);
    // Each of these has asked once, so that the daemon has surely taken it.
    let request = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut connections = Vec::new();
    let mut refusal = String::new();
    for _ in 0..200 {
        let mut connection = Raw::send(daemon.address(), request);
        let answer = connection.read_until("\r\n\r\n");
        if answer.starts_with("HTTP/1.1 503") {
            refusal = answer + &connection.read_until("\n");
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        connections.push(connection);
    }
    assert_eq!(
        connections.len(),
        64,
        "half of the descriptors are for connections"
    );
    assert!(refusal.to_lowercase().contains("retry-after: 1"), "{refusal}");
    assert!(refusal.contains("64 connections are open"), "{refusal}");
    // Those that are silent are not even told, and wait outside; no processor time is spent on them.
    let silent: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(daemon.address()).expect("the kernel takes it"))
        .collect();
    check_idle(&daemon);
    // One that has its connection is served still, with an instance that has to be started.
    let first = &mut connections[0];
    first.write(b"GET /function/faults/ HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = first.read_until("ok\n");
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    drop((silent, connections));
    let works = wait_until(PATIENCE, || {
        let answer = daemon.send(client::request(Method::GET, "/function/faults/"));
        answer.is_ok_and(|answer| answer.status == StatusCode::OK)
    });
    assert!(works, "{}", daemon.log());
}

fn instances_that_need_all_descriptors_are_refused() {
    let daemon = with_descriptors(64);
    let mut deployed = 0;
    let mut refused = None;
    let program = program::build("faults");
    let program = program.to_str().expect("UTF-8");
    for number in 0..64 {
        let name = format!("f{number}");
        let output = daemon.spore(&["deploy", &name, "--binary", program]);
        if !output.status.success() {
            refused = Some(String::from_utf8_lossy(&output.stderr).into_owned());
            break;
        }
        deployed += 1;
        let answer = daemon.get(&format!("/function/{name}/line"));
        if answer.status != StatusCode::OK {
            check_failure(
                &answer,
                StatusCode::SERVICE_UNAVAILABLE,
                &[&name, "limit of open files", "ulimit -n"],
            );
            assert!(!answer.header("retry-after").is_empty());
            refused = Some(answer.text());
            break;
        }
    }
    let refused = refused.expect("64 descriptors are not enough for 64 instances");
    // The command line may have met the limit by a HEAD, whose answer has no text.
    let is_told = refused.contains("limit of open files") || refused.contains("its log says why");
    assert!(is_told, "{refused}");
    assert!(daemon.log().contains("limit of open files") || !refused.contains("its log"));
    assert!(deployed > 4, "{refused}");
    // Connections find no descriptor either; the daemon does not turn in circles for that.
    let waiting: Vec<_> = (0..30)
        .map(|_| TcpStream::connect(daemon.address()).expect("the kernel takes it"))
        .collect();
    check_idle(&daemon);
    drop(waiting);
    // Some give theirs back, and there is room for others.
    for number in 0..deployed / 2 {
        daemon.spore_ok(&["remove", &format!("f{number}")]);
    }
    let works = wait_until(PATIENCE, || {
        daemon
            .spore(&["deploy", "after", "--binary", program])
            .status
            .success()
            && daemon.get("/function/after").status == StatusCode::OK
    });
    assert!(works, "{}", daemon.log());
}

fn no_more_processes_is_an_error_and_passes() {
    let group = Group::new("pids", 512);
    {
        let daemon = Daemon::start_as(group.setup());
        deploy_faults(&daemon, "faults", &CROWD);
        let neighbour = Neighbour::start(&daemon);
        group.set_limit(1);
        check_crowd(&daemon, "faults");
        // What needs a thread of the daemon's finds one.
        deploy_faults(&daemon, "another", &[]);
        daemon.spore_ok(&["logs", "faults"]);
        group.set_limit(512);
        for function in ["faults", "another"] {
            let answer = daemon.get(&format!("/function/{function}/"));
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        }
        neighbour.check();
    }
}

/// More instances than there are monitors made ahead.
const CROWD: [&str; 2] = ["--max", "100"];

/// Asks a function for more instances at a time than there are monitors made ahead: those that are served are served
/// well, and the others are told what is missing.
fn check_crowd(daemon: &Daemon, function: &str) {
    let path = format!("/function/{function}/wait?ms=1000");
    let crowd = daemon.waiting_monitors().len() + 6;
    let requests: Vec<_> = (0..crowd).map(|_| Pending::get(daemon, &path)).collect();
    let mut refused = 0;
    for answer in requests.into_iter().map(Pending::answer) {
        if answer.status != StatusCode::OK {
            check_failure(
                &answer,
                StatusCode::SERVICE_UNAVAILABLE,
                &[&format!("{function}: "), "limit of processes", "ulimit -u"],
            );
            assert!(!answer.header("retry-after").is_empty());
            refused += 1;
        }
    }
    assert!(refused > 0, "there may be no more processes");
}

/// Lets everybody use KVM, if it is there, in a mount namespace of the daemon's own, and makes the daemon one of an
/// ordinary user.
const AS_AN_ORDINARY_USER: &str = r#"user=$1 folder=$2 && shift 2 &&
    if [ -e /dev/kvm ]; then
        mount -t tmpfs tmpfs /mnt && cp -a /dev/kvm /mnt/kvm && chmod 666 /mnt/kvm && mount --bind /mnt/kvm /dev/kvm
    fi && chown -R "$user:$user" "$folder" &&
    exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs "$@""#;
/// A user whose processes are all this test's.
const USER: u32 = 54_321;

fn an_ordinary_users_limit_of_processes_is_an_error_and_passes() {
    let folder = data_folder();
    let user = (USER + std::process::id() % 1000).to_string();
    let path = folder.path().to_str().expect("UTF-8").to_owned();
    // The binary may be where an ordinary user cannot go.
    let binary = folder.path().join("spore");
    std::fs::copy(daemon::binary(), &binary).expect("the temporary folder is writable");
    let prefix = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        AS_AN_ORDINARY_USER,
        "sh",
        &user,
        &path,
    ];
    let daemon = Daemon::start_in(
        folder,
        Setup {
            prefix: prefix.map(str::to_owned).to_vec(),
            binary: Some(binary),
            ..Setup::default()
        },
    );
    deploy_faults(&daemon, "faults", &CROWD);
    let neighbour = Neighbour::start(&daemon);
    // As that user, for the superuser of a container may lack the capability to do it for others.
    let limit = |soft: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "prlimit"]);
        command.args(["--pid", &daemon.pid().to_string(), &format!("--nproc={soft}:")]);
        assert!(
            command.status().expect("setpriv is there").success(),
            "{command:?}"
        );
    };
    limit("1");
    check_crowd(&daemon, "faults");
    limit("1000");
    let answer = daemon.get("/function/faults/");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    neighbour.check();
}

/// The instance's own group has no more memory, which its guest alone cannot bring about.
fn a_full_group_of_an_instance_ends_that_instance_only() {
    let daemon = Daemon::start();
    deploy_faults(&daemon, "greedy", &["--memory", "256Mi"]);
    let neighbour = Neighbour::start(&daemon);
    for _ in 0..2 {
        assert_eq!(daemon.get("/function/greedy/").status, StatusCode::OK);
        let greedy = monitor(&daemon, "greedy");
        let Some(limit) = groups::limit_of_memory(greedy.pid) else {
            eprintln!("instances have no groups for memory here");
            return;
        };
        std::fs::write(limit, (48 << 20).to_string()).expect("the superuser may lower it");
        let answer = daemon.get("/function/greedy/memory");
        check_failure(&answer, StatusCode::BAD_GATEWAY, &["greedy: ", "268435456 bytes"]);
        assert!(!greedy.is_alive());
    }
    daemon.wait_for_log("greedy", "268435456 bytes");
    let answer = daemon.get("/function/greedy/hold?bytes=10000000");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    neighbour.check();
}

fn no_more_memory_ends_the_largest_instance_only() {
    let group = Group::new("memory", 400 << 20);
    {
        let daemon = Daemon::start_as(group.setup());
        deploy_faults(&daemon, "greedy", &["--memory", "2Gi"]);
        let neighbour = Neighbour::start(&daemon);
        let greedy = {
            assert_eq!(daemon.get("/function/greedy/").status, StatusCode::OK);
            monitor(&daemon, "greedy")
        };
        let answer = daemon.get("/function/greedy/memory");
        check_failure(
            &answer,
            StatusCode::BAD_GATEWAY,
            &["greedy: ", "killed", "memory"],
        );
        assert!(!greedy.is_alive());
        daemon.wait_for_log("greedy", "killed");
        // Less of it fits.
        let answer = daemon.get("/function/greedy/hold?bytes=10000000");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        neighbour.check();
    }
}
