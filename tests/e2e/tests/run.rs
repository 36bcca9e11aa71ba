//! `spore run`: a program once, in the foreground, with its own output and status.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use spore_test_harness::client;
use spore_test_harness::daemon::binary;
use spore_test_harness::process::descendants;
use spore_test_harness::{guests_are_processes, isolation_options, program, wait_until};

use crate::{Test, with_functions, without_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    output_is_passed_on_byte_for_byte,
    the_status_is_the_programs,
    a_program_that_a_signal_ends_is_told_apart,
    much_output_is_neither_limited_nor_lost,
    a_reader_that_goes_ends_the_program,
    a_signal_ends_the_program_with_spore,
    connections_to_the_port_reach_the_program,
    programs_that_cannot_run_are_errors_of_spore,
];

pub(crate) const TESTS_OF_THE_COMMAND_LINE: &[Test] =
    without_functions![roots_that_cannot_be_packed_are_errors_of_spore];

fn spore_run(options: &[&str], program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("run").args(isolation_options());
    command.args(options).arg(program).args(arguments);
    command.stdin(Stdio::null());
    command
}

fn ending(arguments: &[&str]) -> Output {
    let mut command = spore_run(&[], &program::build("ending"), arguments);
    command.output().expect("the spore binary can be run")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn output_is_passed_on_byte_for_byte() {
    let program = program::build("ending");
    let arguments = ["--memory", "two words", ""];
    let mut native = Command::new(&program);
    let native = native
        .args(arguments)
        .env_clear()
        .env("GREETING", "Hi there")
        .output()
        .expect("the program can be run");
    let run = spore_run(
        &["--env", "GREETING=Hi there", "--memory", "32Mi"],
        &program,
        &arguments,
    )
    .output();
    let run = run.expect("the spore binary can be run");
    assert_eq!(run.stdout, native.stdout, "{}", errors(&run));
    assert_eq!(run.stderr, native.stderr, "{}", errors(&run));
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(ending(&["input"]).stdout, b"0\n", "standard input is at its end");
}

fn the_status_is_the_programs() {
    for status in [0, 1, 42, 255] {
        let run = ending(&["exit", &status.to_string()]);
        assert_eq!(run.status.code(), Some(status), "{}", errors(&run));
        assert_eq!(errors(&run), "", "the status says all");
    }
}

fn a_program_that_a_signal_ends_is_told_apart() {
    for (arguments, status, hint) in [
        (&["abort"][..], 134, "SIGABRT"),
        (&["fault"], 139, "segmentation fault: write to address 0x8"),
        (&["raise", "10"], 138, "10"),
        (&["raise", "15"], 143, "SIGTERM"),
    ] {
        let run = ending(arguments);
        assert_eq!(run.status.code(), Some(status), "{arguments:?}: {}", errors(&run));
        assert!(errors(&run).contains(hint), "{arguments:?}: {}", errors(&run));
    }
    let quiet = spore_run(&["--quiet"], &program::build("ending"), &["fault"]).output();
    let quiet = quiet.expect("the spore binary can be run");
    assert_eq!((quiet.status.code(), errors(&quiet)), (Some(139), String::new()));
}

fn much_output_is_neither_limited_nor_lost() {
    let run = ending(&["lines", "400000"]);
    let expected: String = (0..400_000).map(|line| format!("line {line}\n")).collect();
    assert!(
        run.stdout == expected.as_bytes(),
        "{} bytes arrived",
        run.stdout.len()
    );
    assert_eq!((run.status.code(), errors(&run)), (Some(0), String::new()));
}

fn a_reader_that_goes_ends_the_program() {
    let mut command = spore_run(&[], &program::build("ending"), &["lines", "1000000000"]);
    let mut run = command.stdout(Stdio::piped()).spawn().expect("it can be run");
    let mut output = run.stdout.take().expect("a pipe");
    output.read_exact(&mut [0; 100]).expect("lines arrive");
    drop(output);
    let ended = wait_until(Duration::from_secs(20), || !matches!(run.try_wait(), Ok(None)));
    if !ended {
        run.kill().expect("it is our child");
    }
    let status = run.wait().expect("it is our child");
    assert_eq!(status.code(), Some(141), "as a process that SIGPIPE has ended");
}

fn a_signal_ends_the_program_with_spore() {
    let mut command = spore_run(&[], &program::build("ending"), &["spin"]);
    let mut run = command.stdout(Stdio::piped()).spawn().expect("it can be run");
    let mut line = String::new();
    let mut output = BufReader::new(run.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("it has output");
    assert_eq!(line, "spinning\n");
    let monitors = descendants(run.id());
    assert_eq!(monitors.len(), if guests_are_processes() { 2 } else { 1 });
    // A terminal sends SIGINT to the foreground, where the monitor is not. Here that may be ignored, as it is for whatever
    // a shell starts in the background, and SIGTERM does the same.
    kill_process(Pid::from_child(&run), Signal::TERM).expect("it is our child");
    run.wait().expect("it is our child");
    let is_gone = || monitors.iter().all(|monitor| !monitor.is_alive());
    assert!(
        wait_until(Duration::from_secs(10), is_gone),
        "the monitor has ended too"
    );
}

fn connections_to_the_port_reach_the_program() {
    let port = program::free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let number = port.to_string();
    let mut command = spore_run(&["--port", &number], &program::build("httpd"), &[]);
    let mut run = command.spawn().expect("it can be run");
    let mut answer = None;
    wait_until(Duration::from_secs(20), || {
        answer = client::send(address, client::request(Method::GET, "/")).ok();
        answer.is_some()
    });
    run.kill().expect("it is our child");
    run.wait().expect("it is our child");
    let answer = answer.expect("an answer comes");
    assert!(answer.status.is_success(), "{answer:?}");
}

fn programs_that_cannot_run_are_errors_of_spore() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let text = folder.path().join("text");
    std::fs::write(&text, "no program").expect("the temporary folder is writable");
    for (path, hint) in [
        (folder.path().join("absent"), "absent cannot be read"),
        (folder.path().to_owned(), "is no file"),
        (text, "the program cannot run here"),
    ] {
        let run = spore_run(&[], &path, &[]).output().expect("it can be run");
        assert_eq!(run.status.code(), Some(125), "{}", errors(&run));
        assert!(errors(&run).contains(hint), "{}", errors(&run));
    }
}

fn roots_that_cannot_be_packed_are_errors_of_spore() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(folder.path().join("program"), "x").expect("the temporary folder is writable");
    let root = folder.path().to_str().expect("UTF-8");
    for (root, path, hint) in [
        (root, "/nonexistent", "install the package erofs-utils"),
        ("/", "/usr/bin", "the root of this machine"),
        ("/nonexistent", "/usr/bin", "is no folder"),
    ] {
        let mut command = spore_run(&["--rootfs", root], Path::new("program"), &[]);
        let run = command
            .env("PATH", path)
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .output()
            .expect("it can be run");
        assert_eq!(run.status.code(), Some(125), "{}", errors(&run));
        assert!(errors(&run).contains(hint), "{}", errors(&run));
    }
}
