//! `spore serve`: the daemon.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use spore_gateway::{BasicAuth, Daemon, DaemonConfig, TlsFiles};
use spore_registry::RegistryOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::{LogLevel, RoleArgument, ServeArguments};

/// Runs the daemon until SIGINT or SIGTERM.
pub(crate) fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_max_level(level(arguments.log))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(crate::daemon_log::Limited::new(std::io::stderr))
        // It would be told on standard error, which is what has failed: a log on a full disk must not end a thread.
        .log_internal_errors(false)
        .init();
    if arguments.end_with_parent {
        end_with_parent()?;
    }
    let data = match &arguments.data {
        Some(data) => data.clone(),
        None => super::default_data_folder()?,
    };
    let max_connections = connections_for(raise_descriptor_limit());
    let sandbox = crate::sandboxes::sandboxes(crate::sandboxes::SandboxesOptions {
        isolation: arguments.isolation.map(Into::into),
        requires_virtual_machine: arguments.require_vm,
        cgroup_parent: arguments.cgroup_parent.clone(),
        data: &data,
        merges_pages: arguments.merge_pages,
        microvm: arguments.microvm.clone(),
    })?;
    for layer in sandbox.layers() {
        if let Some(reason) = layer.missing {
            tracing::warn!(layer = layer.name, reason, "instances are confined without it");
        }
    }
    if arguments.role == RoleArgument::Provider && arguments.trigger_folder.is_some() {
        bail!("--trigger-folder is of no use with --role provider: triggers and the queue are the gateway's");
    }
    let config = DaemonConfig {
        role: arguments.role.into(),
        listen: arguments.listen,
        data: data.clone(),
        idle_timeout: arguments.idle_timeout,
        max_waiting: arguments.max_waiting as usize,
        trigger_folder: arguments.trigger_folder.clone(),
        ready_timeout: arguments.ready_timeout,
        max_connections,
        basic_auth: basic_auth(arguments),
        tls: tls(arguments),
        registries: (!arguments.no_pull).then(|| RegistryOptions {
            aliases: arguments.alias.clone(),
            mirrors: arguments.mirror.clone(),
        }),
        queue: arguments.queue.clone(),
        nats: arguments.nats.clone(),
        nats_credentials: arguments.queue_credentials.clone(),
        max_queued_body_bytes: usize::try_from(arguments.async_body_limit).unwrap_or(usize::MAX),
        max_body_bytes: arguments.body_limit,
        max_head_bytes: u32::try_from(arguments.head_limit).unwrap_or(u32::MAX),
        head_timeout: arguments.head_timeout,
        body_timeout: arguments.body_timeout,
        // An environment variable that is set to nothing counts as not set.
        otlp_endpoint: arguments
            .otlp_endpoint
            .clone()
            .filter(|endpoint| !endpoint.is_empty()),
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
        // What a terminal's end sends stops a daemon without a certificate, as ever.
        let mut hang_up = if daemon.has_tls() {
            Some(signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?)
        } else {
            None
        };
        if let Some(new) = daemon.new_credentials() {
            super::print(&format!(
                "name {}, password {}: shown this once, kept in {}\n",
                new.user,
                new.password,
                new.folder.display()
            ))?;
        }
        let scheme = if daemon.has_tls() { "https" } else { "http" };
        super::print(&format!(
            "spore is ready at {scheme}://{}\n",
            daemon.local_address()
        ))?;
        tracing::info!(data = %data.display(), "serving");
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                () = received(&mut hang_up) => reload_certificate(&daemon),
            }
        }
        tracing::info!("stopping; a second signal stops at once");
        tokio::select! {
            () = daemon.shutdown() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
            _ = terminate.recv() => Ok(ExitCode::FAILURE),
        }
    })
}

/// Lets the kernel stop the daemon in order when the process that has started it ends, however that ends.
fn end_with_parent() -> anyhow::Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("the daemon cannot be bound to its parent")?;
    if getppid() != parent {
        bail!("the process that has started the daemon has ended already");
    }
    Ok(())
}

/// Resolves with the next signal; never if there is none to wait for.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn reload_certificate(daemon: &Daemon) {
    match daemon.reload_certificate() {
        Ok(()) => tracing::info!("the certificate was read again"),
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::error!("the certificate of before is kept: {error:#}");
        }
    }
}

/// Who may use the API: whoever reaches the address, as long as that is this machine's users.
fn basic_auth(arguments: &ServeArguments) -> BasicAuth {
    let is_loopback = arguments.listen.ip().is_loopback();
    if arguments.no_basic_auth {
        if !is_loopback {
            tracing::warn!(
                address = %arguments.listen,
                "whoever reaches the address can deploy functions and read their logs"
            );
        }
        return BasicAuth::Off;
    }
    let files = arguments
        .basic_auth_user_file
        .clone()
        .zip(arguments.basic_auth_password_file.clone());
    match (files, &arguments.secrets) {
        (Some((user, password)), _) => BasicAuth::Files { user, password },
        (None, Some(folder)) => BasicAuth::in_folder(folder),
        (None, None) if arguments.basic_auth || !is_loopback => BasicAuth::Generated,
        (None, None) => BasicAuth::Off,
    }
}

fn tls(arguments: &ServeArguments) -> Option<TlsFiles> {
    let files = arguments.tls_certificate.clone().zip(arguments.tls_key.clone());
    files.map(|(certificate, key)| TlsFiles { certificate, key })
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
