//! `spore run`: a program once, in the foreground, without the daemon.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use spore_rootfs::{Owners, cached_image};

use crate::arguments::{ProtocolArgument, RunArguments};
use crate::output::print_error;
use crate::unikernel::{self, Cause, End, LogOrigin, MemorySource, RootKind, RunError, StartRequest, User};

/// Exit status for errors of ours, as other tools that run programs in sandboxes have it.
const OWN_FAILURE: u8 = 125;
/// What is added to a signal's number, as shells do.
const SIGNAL_BASE: u8 = 128;
const SIGKILL: u8 = 9;
const SIGPIPE: u8 = 13;
/// Where the function listens if nothing is said.
const DEFAULT_PORT: u16 = 8080;
/// Where programs of a root file system are looked for if nothing is said.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program and exits as it does.
pub(crate) fn run(arguments: RunArguments) -> ExitCode {
    let code = start(arguments).unwrap_or_else(|error| {
        print_error(&error);
        OWN_FAILURE
    });
    ExitCode::from(code)
}

fn start(arguments: RunArguments) -> anyhow::Result<u8> {
    let Some(program) = arguments.command.first() else {
        bail!("name a program");
    };
    let (root, kind) = match &arguments.rootfs {
        Some(folder) => (root_image(folder)?, RootKind::FileSystem),
        None => (open_program(Path::new(program))?, RootKind::Program),
    };
    let listener = arguments.port.map(listen).transpose()?;
    let memory_bytes = arguments.memory;
    let is_lambda = arguments.protocol == Some(ProtocolArgument::Lambda);
    let mut environment = environment(&arguments.env, kind, arguments.port);
    if is_lambda {
        let given = arguments.env.iter().map(|(name, _)| name.as_str()).collect();
        environment.extend(lambda_environment(&given, memory_bytes));
    }
    let request = StartRequest {
        arguments: arguments.command,
        environment,
        working_directory: arguments.workdir,
        user: User::default(),
        secrets: Vec::new(),
        port: arguments.port.unwrap_or(DEFAULT_PORT),
        command: None,
        memory_bytes,
        root: kind,
        memory: MemorySource::Fresh,
        rewrites_calls: !arguments.no_syscall_rewriting,
        reaches_host_loopback: unikernel::reaches_loopback(&arguments.allow_egress),
        serves_runtime_api: is_lambda,
        merges_pages: false,
        limits_log: false,
        isolation: unikernel::isolation_choice(arguments.isolation.map(Into::into)),
        is_reset: false,
        uses_dispatch: !arguments.no_syscall_user_dispatch,
    };
    let quiet = arguments.quiet;
    let mut output = |origin, text: &[u8]| pass_on(origin, text, quiet);
    match unikernel::run_once(request, root, listener, arguments.allow_egress, &mut output) {
        Ok(end) => report(end, memory_bytes, quiet),
        // Nobody reads any more (`spore run … | head -1`): a process would have got this signal.
        Err(RunError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(SIGNAL_BASE + SIGPIPE)
        }
        Err(error) => Err(error.into()),
    }
}

/// The variables as given. Besides, a program of a root file system finds `PATH`, as in a container, and a server
/// `PORT`, as under the daemon.
fn environment(given: &[(String, String)], kind: RootKind, port: Option<u16>) -> Vec<String> {
    let is_missing = |variable: &str| given.iter().all(|(name, _)| name != variable);
    let path = (kind == RootKind::FileSystem && is_missing("PATH")).then(|| format!("PATH={DEFAULT_PATH}"));
    let port = port
        .filter(|_| is_missing("PORT"))
        .map(|port| format!("PORT={port}"));
    let given = given.iter().map(|(name, value)| format!("{name}={value}"));
    path.into_iter().chain(port).chain(given).collect()
}

/// What a program of Lambda's finds besides, as under the daemon.
fn lambda_environment(given: &BTreeSet<&str>, memory_bytes: u64) -> Vec<String> {
    let memory_mb = (memory_bytes >> 20).max(1).to_string();
    let variables = [
        ("_HANDLER", "bootstrap"),
        ("LAMBDA_TASK_ROOT", "/var/task"),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "run"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory_mb),
    ];
    let missing = variables.into_iter().filter(|(name, _)| !given.contains(name));
    missing
        .map(|(name, value)| format!("{name}={value}"))
        .chain([unikernel::runtime_api_variable()])
        .collect()
}

fn open_program(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if !file.metadata()?.is_file() {
        bail!("{} is no file: name a program", path.display());
    }
    Ok(file)
}

/// The image of a folder, kept in the user's cache for the next run.
fn root_image(folder: &Path) -> anyhow::Result<File> {
    let cache = super::cache_folder().map(|base| base.join("spore/roots"));
    // Whoever is not root can read, as a rule, only their own files, and means them to be the program's.
    let owners = if is_root() { Owners::Kept } else { Owners::Root };
    let progress = crate::output::spinner(format!("packing {}", folder.display()));
    let image = cached_image(folder, cache.as_deref(), owners);
    progress.finish_and_clear();
    Ok(image?)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
        format!("cannot listen on port {port}: choose another one, or stop what listens there")
    })
}

/// Output goes on as it comes.
fn pass_on(origin: LogOrigin, text: &[u8], quiet: bool) -> io::Result<()> {
    match origin {
        LogOrigin::Stdout => {
            let mut output = io::stdout().lock();
            output.write_all(text)?;
            output.flush()
        }
        LogOrigin::Stderr => io::stderr().lock().write_all(text),
        LogOrigin::Platform if quiet => Ok(()),
        LogOrigin::Platform => {
            let mut lines = String::new();
            for line in String::from_utf8_lossy(text).lines() {
                lines.push_str("spore: ");
                lines.push_str(line);
                lines.push('\n');
            }
            io::stderr().lock().write_all(lines.as_bytes())
        }
    }
}

/// Says how the program ended where its own output does not; the exit status.
fn report(end: End, memory_bytes: u64, quiet: bool) -> anyhow::Result<u8> {
    let (code, line) = match end.cause {
        Cause::Exited(code) => (code, None),
        Cause::Crashed {
            signal: Some(signal),
            summary,
        } => (SIGNAL_BASE.saturating_add(signal), Some(summary)),
        Cause::OutOfMemory => {
            let line = format!(
                "the program ran out of its {memory_bytes} bytes of memory: give it more with --memory"
            );
            (SIGNAL_BASE + SIGKILL, Some(line))
        }
        Cause::Crashed {
            signal: None,
            summary,
        } => bail!("the program damaged its machine: {summary}"),
        Cause::BadProgram(reason) => bail!("the program cannot run here: {reason}"),
        Cause::Killed(reason) | Cause::Failed(reason) => bail!("{reason}"),
        Cause::Stopped => bail!("the program was stopped"),
    };
    if !quiet {
        // A fault's details begin with the line about it.
        let line = line.filter(|line| !end.details.iter().any(|detail| detail.contains(line.as_str())));
        let lines: String = line
            .into_iter()
            .chain(end.details)
            .map(|line| format!("spore: {line}\n"))
            .collect();
        // Nobody may read it any more; the status says it too.
        let _ = io::stderr().lock().write_all(lines.as_bytes());
    }
    Ok(code)
}
