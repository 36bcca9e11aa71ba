//! The commands, one module each where there is something to do.

mod artefact;
mod bench;
mod chain;
mod deploy;
mod develop;
mod functions;
mod image;
mod image_export;
mod invoke;
mod login;
mod logs;
mod queued;
mod run;
mod runtime;
mod scale;
mod secret;
mod serve;
mod source;
mod stats;
mod targets;
mod trigger;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::CommandFactory;
use spore_client::Client;

use crate::arguments::{Arguments, Command, DEFAULT_GATEWAY};
use crate::credentials::{self, Credentials};

/// Runs the command that the user typed.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let gateway = Gateway {
        // An environment variable that is set to nothing counts as not set.
        named: arguments.gateway.filter(|gateway| !gateway.is_empty()),
        namespace: arguments.namespace,
    };
    if gateway.namespace.is_some() && !arguments.command.is_of_a_namespace() {
        bail!("--namespace is for commands about functions, secrets and triggers, which this one is not");
    }
    let unknown = || gateway.unknown_client(None);
    let client = || gateway.client(None);
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::New(arguments) => source::new(&arguments),
        Command::Build(arguments) => source::build(&arguments),
        Command::Push(arguments) => block_on(deploy::push(&gateway, &arguments)),
        Command::Deploy(arguments) => block_on(deploy::run(&gateway, &arguments)),
        Command::Up(arguments) => block_on(deploy::up(&gateway, &arguments)),
        Command::Dev(arguments) => block_on(develop::run(&client()?, &arguments)),
        Command::Runtime { command } => runtime::run(&command),
        Command::Run(arguments) => Ok(run::run(arguments)),
        Command::Invoke(arguments) => block_on(invoke::run(&client()?, arguments)),
        Command::Async(arguments) => block_on(queued::run(&client()?, arguments.command)),
        Command::Chain(arguments) => block_on(chain::run(&client()?, arguments)),
        Command::Trigger(arguments) => block_on(trigger::run(&client()?, arguments.command)),
        Command::List(arguments) => block_on(functions::list(&client()?, &arguments)),
        Command::Logs(arguments) => block_on(logs::run(&client()?, arguments)),
        Command::Stats(arguments) => block_on(stats::run(&client()?, &arguments)),
        Command::Describe(arguments) => block_on(functions::describe(&client()?, &arguments)),
        Command::Scale(arguments) => block_on(scale::run(&client()?, &arguments)),
        Command::Remove(arguments) => block_on(functions::remove(&client()?, &arguments)),
        Command::Login(arguments) => block_on(login::login(unknown()?, &arguments)),
        Command::Logout => login::logout(&unknown()?),
        Command::Secret(arguments) => block_on(secret::run(&client()?, arguments.command)),
        Command::Image(command) => block_on(image::run(&client()?, command)),
        Command::Bench { command } => bench::run(&gateway, command),
        Command::Info(arguments) => info(&arguments),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "spore", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => print(&format!("spore {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// Where the gateway is, as far as the user has said.
pub(crate) struct Gateway {
    named: Option<String>,
    /// Where the functions are that the command is about, if not in the default namespace.
    namespace: Option<String>,
}

impl Gateway {
    /// A client of the gateway that the user has named, or else of that of a stack, or else of the usual one, with what
    /// `spore login` has kept for it.
    fn client(&self, of_stack: Option<&str>) -> anyhow::Result<Client> {
        with_credentials(self.unknown_client(of_stack)?)
    }

    /// The same without what `spore login` has kept.
    fn unknown_client(&self, of_stack: Option<&str>) -> anyhow::Result<Client> {
        let url = self.named.as_deref().or(of_stack).unwrap_or(DEFAULT_GATEWAY);
        Ok(Client::new(url)?.in_namespace(self.namespace.clone()))
    }
}

/// The client with what `spore login` has kept for its gateway.
fn with_credentials(client: Client) -> anyhow::Result<Client> {
    let Some(file) = credentials::file() else {
        return Ok(client);
    };
    let credentials = Credentials::load(&file)?;
    Ok(match credentials.of(&client.url()) {
        Some((username, password)) => client.with_credentials(username, password),
        None => client,
    })
}

/// One thread is enough for the client side; standard input has its own.
fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let result = runtime.block_on(work);
    // A thread may still wait for standard input, which need not ever end.
    runtime.shutdown_background();
    result
}

fn info(arguments: &crate::arguments::InfoArguments) -> anyhow::Result<ExitCode> {
    let cgroup_parent = arguments.cgroup_parent.as_deref();
    let microvm = &arguments.microvm;
    if arguments.json {
        let mut value = crate::unikernel::host_json(cgroup_parent)?;
        value["sandboxes"] = crate::sandboxes::json(microvm);
        print_json(&value)
    } else {
        let mut text = ensure_line_end(crate::unikernel::host_description(cgroup_parent)?);
        text.push_str(&crate::sandboxes::description(microvm));
        print(&text)
    }
}

fn ensure_line_end(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The folder that an environment variable names. An empty or relative one counts as unset, as the XDG specification
/// says.
pub(crate) fn absolute_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// Where what can be made again is kept, if there is a place for it.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    absolute_variable("XDG_CACHE_HOME").or_else(|| Some(absolute_variable("HOME")?.join(".cache")))
}

/// Where functions, images and runtimes are if nothing else is said.
fn default_data_folder() -> anyhow::Result<PathBuf> {
    if let Some(base) = absolute_variable("XDG_DATA_HOME") {
        return Ok(base.join("spore"));
    }
    match absolute_variable("HOME") {
        Some(home) => Ok(home.join(".local/share/spore")),
        None => bail!("there is no place for the data, for HOME is not set: name one in XDG_DATA_HOME"),
    }
}

/// Prints to standard output. A reader that has gone (`spore list | head -1`) is no failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    write_out(text.as_bytes()).map(|_| ExitCode::SUCCESS)
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<ExitCode> {
    print(&format!("{value:#}\n"))
}

/// Writes to standard output; false if nobody reads any more.
fn write_out(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output could not be written"),
    }
}

/// A function must not be able to command the terminal: control characters except tabs are shown by their escapes.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}
