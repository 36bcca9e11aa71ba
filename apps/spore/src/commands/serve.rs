//! `spore serve`: the daemon.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spore_gateway::{Daemon, DaemonConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::{LogLevel, ServeArguments};

/// Runs the daemon until SIGINT or SIGTERM.
pub(crate) fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_max_level(level(arguments.log))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(crate::daemon_log::Limited::new(std::io::stderr))
        // It would be told on standard error, which is what has failed: a log on a full disk must not end a thread.
        .log_internal_errors(false)
        .init();
    let data = match &arguments.data {
        Some(data) => data.clone(),
        None => default_data_folder()?,
    };
    let max_connections = connections_for(raise_descriptor_limit());
    let sandbox = crate::unikernel::sandbox(
        arguments.isolation.map(Into::into),
        arguments.require_vm,
        arguments.cgroup_parent.clone(),
        &data,
        arguments.merge_pages,
    )?;
    for layer in sandbox.layers() {
        if let Some(reason) = layer.missing {
            tracing::warn!(layer = layer.name, reason, "instances are confined without it");
        }
    }
    let config = DaemonConfig {
        listen: arguments.listen,
        data: data.clone(),
        idle_timeout: arguments.idle_timeout,
        ready_timeout: arguments.ready_timeout,
        max_connections,
        max_queued_body_bytes: usize::try_from(arguments.async_body_limit).unwrap_or(usize::MAX),
        ..DaemonConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        // A thread for work that blocks, once made, is kept: where no process can be made any more, the daemon could not
        // even say so without one.
        .thread_keep_alive(Duration::MAX)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(async {
        // Before the start, so that a signal in between stops the daemon in order too.
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let daemon = Daemon::start(config, sandbox)
            .await
            .context("the daemon could not be started")?;
        super::print(&format!("spore is ready at http://{}\n", daemon.local_address()))?;
        tracing::info!(data = %data.display(), "serving");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; a second signal stops at once");
        tokio::select! {
            () = daemon.shutdown() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
            _ = terminate.recv() => Ok(ExitCode::FAILURE),
        }
    })
}

/// Threads that serve the gateway: half of the processors. The other half is for the instances, without which the
/// gateway has nothing to do; and on a small machine one thread that keeps a request to itself answers sooner than two
/// that hand it to each other.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// Raises the limit of open files as far as it goes, as daemons do that need many, and returns it.
fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    }
}

/// Connections of clients that are served at a time under a limit of open files: half of them, so that there are some
/// left for instances, files and connections to the outside.
fn connections_for(descriptors: Option<u64>) -> usize {
    let half = descriptors.unwrap_or(u64::MAX) / 2;
    usize::try_from(half).unwrap_or(usize::MAX).max(1)
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn default_data_folder() -> anyhow::Result<PathBuf> {
    if let Some(base) = super::absolute_variable("XDG_DATA_HOME") {
        return Ok(base.join("spore"));
    }
    match super::absolute_variable("HOME") {
        Some(home) => Ok(home.join(".local/share/spore")),
        None => bail!("there is no place for the data, for HOME is not set: name a folder with --data DIR"),
    }
}
