//! What the user can type. Nothing here acts; `commands` does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use spore_builder::{FunctionName, Language, RuntimeLanguage};
use spore_gateway::{NatsAddress, Role};
use spore_registry::{Alias, Mirror};
use spore_sandbox::{EgressRule, Isolation, SandboxKind};

use crate::bench_arguments::BenchCommand;
use crate::image_arguments::ImageCommand;

/// Where the gateway is if nothing else is said.
pub(crate) const DEFAULT_GATEWAY: &str = "http://127.0.0.1:8080";

/// Functions as unikernels: from source to an HTTP answer out of a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(
    name = "spore",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Start:\n  spore serve &\n  spore new hello --lang c\n  spore deploy hello\n  spore invoke hello --query name=Ada"
)]
pub(crate) struct Arguments {
    /// Address of the gateway [default: that of the stack, or http://127.0.0.1:8080]
    #[arg(long, global = true, env = "OPENFAAS_URL", value_name = "URL")]
    pub(crate) gateway: Option<String>,
    /// Namespace of the functions, secrets or triggers that the command is about [default: openfaas-fn]
    #[arg(long, short = 'n', global = true, value_name = "NAME", value_parser = parse_namespace)]
    pub(crate) namespace: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Command {
    /// Whether it is about something that is in a namespace.
    pub(crate) const fn is_of_a_namespace(&self) -> bool {
        matches!(
            self,
            Self::Deploy(_)
                | Self::Up(_)
                | Self::Dev(_)
                | Self::Invoke(_)
                | Self::Async(_)
                | Self::Chain(_)
                | Self::Trigger(_)
                | Self::List(_)
                | Self::Logs(_)
                | Self::Stats(_)
                | Self::Describe(_)
                | Self::Scale(_)
                | Self::Remove(_)
                | Self::Secret(_)
        )
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon: gateway, functions and their instances
    Serve(Box<ServeArguments>),
    /// Write a new function from a template
    New(NewArguments),
    /// Build a function without deploying it
    Build(BuildArguments),
    /// Build functions and push their images to the gateway, without deploying them
    Push(PushArguments),
    /// Build a function, or take a program, and deploy it
    Deploy(Box<DeployArguments>),
    /// Build, push and deploy the function of a folder, or those of a stack
    Up(UpArguments),
    /// Deploy a function again whenever its source changes, and show its log
    Dev(DevArguments),
    /// Make or list the runtimes: the interpreters that functions of a language share
    Runtime {
        #[command(subcommand)]
        command: RuntimeCommand,
    },
    /// Run a program once as a unikernel, in the foreground and without the daemon
    Run(RunArguments),
    /// Call a function and print its answer
    Invoke(InvokeArguments),
    /// List, show, retry or drop invocations that nobody waits for
    Async(AsyncArguments),
    /// Send one request through several functions: the answer of each is the request of the next
    Chain(ChainArguments),
    /// List what calls functions by itself, at times or when files change, or call one as it does
    Trigger(TriggerArguments),
    /// List the functions
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Show what a function printed and what happened to its instances
    Logs(LogsArguments),
    /// Show how long a function's instances took to start and to answer
    Stats(StatsArguments),
    /// Show everything about a function
    Describe(DescribeArguments),
    /// Set how many instances of a function are kept started
    Scale(ScaleArguments),
    /// Remove a function
    #[command(visible_alias = "rm")]
    Remove(RemoveArguments),
    /// Keep name and password for a gateway that asks for them
    Login(LoginArguments),
    /// Forget name and password for the gateway
    Logout,
    /// Keep secrets for functions
    Secret(SecretArguments),
    /// Pull, push, import, export, list, remove and check the daemon's images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Measure functions in every sandbox side by side, report and compare
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Show what this machine offers for running unikernels
    Info(InfoArguments),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  spore completion bash > /etc/bash_completion.d/spore")]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  spore serve --listen 127.0.0.1:8080 --data ./data\n\nCtrl-C stops it: running invocations may finish."
)]
pub(crate) struct ServeArguments {
    /// Which part of OpenFaaS this is: everything, or the provider alone, behind a gateway of OpenFaaS's
    #[arg(long, value_name = "ROLE", default_value = "gateway")]
    pub(crate) role: RoleArgument,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:8080, of a provider 127.0.0.1:8081]
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        default_value_if("role", "provider", "127.0.0.1:8081"),
        hide_default_value = true
    )]
    pub(crate) listen: SocketAddr,
    /// Folder for functions, images and logs [default: $XDG_DATA_HOME/spore or ~/.local/share/spore]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How long an idle instance is kept
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::duration::parse)]
    pub(crate) idle_timeout: Duration,
    /// Most requests of a function that wait for a busy instance; more are answered with 429
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) max_waiting: u32,
    /// NATS server whose JetStream keeps the invocations that nobody waits for, so that several daemons can share them
    /// [default: a database in the data folder]
    ///
    /// Daemons with the same server and NAME share a queue. A name and a password may stand before the host.
    #[arg(
        long,
        value_name = "nats://HOST:PORT[/NAME]",
        env = "SPORE_QUEUE",
        hide_env_values = true
    )]
    pub(crate) queue: Option<NatsAddress>,
    /// File with what the NATS servers ask for: a .creds file of NATS, or a line USER:PASSWORD or TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) queue_credentials: Option<PathBuf>,
    /// NATS server whose messages call functions, by their annotation topic [default: that of --queue]
    #[arg(
        long,
        value_name = "nats://HOST:PORT[/NAME]",
        env = "SPORE_NATS",
        hide_env_values = true
    )]
    pub(crate) nats: Option<NatsAddress>,
    /// Longest body of an invocation that is sent to /async-function/
    #[arg(long, value_name = "SIZE", default_value = "1Mi", value_parser = parse_memory)]
    pub(crate) async_body_limit: u64,
    /// Folder below which functions may watch others: files that change there are sent to them
    #[arg(long, value_name = "DIR")]
    pub(crate) trigger_folder: Option<PathBuf>,
    /// Longest body of an invocation; others are answered with 413 [default: any]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(crate) body_limit: Option<u64>,
    /// Longest head of a request, its first line and header fields; others are answered with 431
    #[arg(long, value_name = "SIZE", default_value = "64Ki", value_parser = parse_memory)]
    pub(crate) head_limit: u64,
    /// How long a client may take to send the head of a request, and stay connected without one
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = crate::duration::parse)]
    pub(crate) head_timeout: Duration,
    /// How long a request's body may stand still before its answer has begun; then it is answered with 408
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::duration::parse)]
    pub(crate) body_timeout: Duration,
    /// How long a new instance may take until it listens on its port
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::duration::parse)]
    pub(crate) ready_timeout: Duration,
    /// What is around functions that ask for nothing in particular [default: a virtual machine, or a process where KVM
    /// cannot be used]
    #[arg(long, value_name = "FORM")]
    pub(crate) isolation: Option<IsolationArgument>,
    /// Refuse to start without KVM, and refuse functions that ask for the process form
    #[arg(long)]
    pub(crate) require_vm: bool,
    /// Ask clients for a name and a password on loopback addresses too; they are made at the first start and shown once
    ///
    /// On other addresses that is so anyway. Functions can be invoked without.
    #[arg(long, conflicts_with = "no_basic_auth")]
    pub(crate) basic_auth: bool,
    /// Ask nobody for a name and a password: whoever reaches the address may do everything
    #[arg(long)]
    pub(crate) no_basic_auth: bool,
    /// File with the name that clients must give, instead of one that is made
    #[arg(
        long,
        value_name = "FILE",
        requires = "basic_auth_password_file",
        conflicts_with = "no_basic_auth"
    )]
    pub(crate) basic_auth_user_file: Option<PathBuf>,
    /// File with the password that clients must give
    #[arg(long, value_name = "FILE", requires = "basic_auth_user_file")]
    pub(crate) basic_auth_password_file: Option<PathBuf>,
    /// Folder with both in the files basic-auth-user and basic-auth-password, as OpenFaaS has it
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["basic_auth_user_file", "no_basic_auth"]
    )]
    pub(crate) secrets: Option<PathBuf>,
    /// File with the certificate of the address, in PEM, and those that have signed it; SIGHUP reads it again
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// File with the certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where spans of invocations are sent by OTLP over HTTP, for example http://127.0.0.1:4318 [default: nowhere]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Cgroup below which those of the instances go, as a path in each hierarchy [default: the daemon's own]
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) microvm: MicrovmArguments,
    /// Let the kernel merge equal memory pages of all instances in virtual machines (ksm), to save memory
    ///
    /// An instance can then find out by timing whether another one, of any function, has a page with certain contents
    /// (a side channel): only for functions that trust each other. The kernel must be told to merge:
    /// `echo 1 > /sys/kernel/mm/ksm/run`.
    #[arg(long)]
    pub(crate) merge_pages: bool,
    /// A registry that stands in for another one, for example docker.io=127.0.0.1:5000; may be repeated
    #[arg(long, value_name = "HOST=ADDRESS")]
    pub(crate) mirror: Vec<Mirror>,
    /// A short name for a repository, for example python=registry.example.com/runtimes/python; may be repeated
    #[arg(long, value_name = "NAME=REPOSITORY")]
    pub(crate) alias: Vec<Alias>,
    /// Speak to no other registry: only images that were pushed or imported can be deployed
    #[arg(long, conflicts_with_all = ["mirror", "alias"])]
    pub(crate) no_pull: bool,
    /// End when the process that has started it does
    #[arg(long, hide = true)]
    pub(crate) end_with_parent: bool,
    /// How much the daemon says about itself on standard error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: LogLevel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What can be around a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationArgument {
    /// A virtual machine; needs KVM
    Vm,
    /// A process with a short list of system calls; needs no KVM, and shares the host's kernel
    Process,
}

/// What is around a function's instances.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SandboxArgument {
    /// Kind of sandbox of the instances: `spore info` lists those that this machine has [default: unikernel]
    #[arg(id = "sandbox", long = "sandbox", value_name = "KIND", value_parser = sandbox_kind())]
    pub(crate) kind: Option<SandboxKind>,
}

fn sandbox_kind() -> impl TypedValueParser<Value = SandboxKind> {
    PossibleValuesParser::new(SandboxKind::ALL.map(SandboxKind::name))
        .map(|name| SandboxKind::from_name(&name).unwrap_or_default())
}

impl From<IsolationArgument> for Isolation {
    fn from(argument: IsolationArgument) -> Self {
        match argument {
            IsolationArgument::Vm => Self::VirtualMachine,
            IsolationArgument::Process => Self::Process,
        }
    }
}

/// How a function gets its invocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolArgument {
    /// It listens on its port, for HTTP/1.1
    Http,
    /// It asks for events by the Runtime API of AWS Lambda
    Lambda,
}

/// Which part of OpenFaaS a daemon takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArgument {
    /// Gateway and provider, queue and dashboard
    Gateway,
    /// What OpenFaaS's gateway has behind it
    Provider,
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Self {
        match role {
            RoleArgument::Gateway => Self::Gateway,
            RoleArgument::Provider => Self::Provider,
        }
    }
}

impl ProtocolArgument {
    /// The name as the daemon knows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Lambda => "lambda",
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore new hello --lang python\n  spore new resize --lang node --append    adds it to stack.yaml too"
)]
pub(crate) struct NewArguments {
    /// Name of the function: lower-case letters, digits and hyphens
    pub(crate) name: FunctionName,
    /// Language of the template
    #[arg(long, value_name = "LANGUAGE", value_parser = languages())]
    pub(crate) lang: Language,
    /// Folder to write to [default: the name]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Add the function to a stack, which is made if it is not there [default: stack.yaml]
    #[arg(long, value_name = "FILE")]
    pub(crate) append: Option<Option<PathBuf>>,
}

/// The names of the templates.
fn languages() -> impl TypedValueParser<Value = Language> {
    let names = PossibleValuesParser::new(Language::ALL.map(Language::name));
    names.try_map(|name| name.parse::<Language>())
}

/// The names of languages that have a runtime.
fn runtime_languages() -> impl TypedValueParser<Value = RuntimeLanguage> {
    let names = PossibleValuesParser::new(RuntimeLanguage::ALL.map(RuntimeLanguage::name));
    names.try_map(|name| {
        let found = RuntimeLanguage::ALL
            .into_iter()
            .find(|language| language.name() == name);
        found.ok_or_else(|| format!("{name} has no runtime"))
    })
}

/// Functions of a stack.yaml.
#[derive(Debug, Args)]
pub(crate) struct StackArguments {
    /// A stack.yaml of OpenFaaS [default: stack.yaml in this folder, if no folder of a function is named]
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) yaml: Option<PathBuf>,
    /// Only functions of the stack whose name matches; * stands for anything
    #[arg(long, value_name = "PATTERN", conflicts_with = "regex")]
    pub(crate) filter: Option<String>,
    /// Only functions of the stack whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub(crate) regex: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore build hello\n  spore build -f stack.yaml --filter 'image-*'\n\nA program of C is then hello/build/function; for others, the digest of the image is printed."
)]
pub(crate) struct BuildArguments {
    /// Folder of the function
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore push hello\n  spore push -f stack.yaml    then: spore deploy -f stack.yaml"
)]
pub(crate) struct PushArguments {
    /// Folder of the function
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore up hello\n  spore up -f stack.yaml --filter 'image-*'\n  spore up    for the stack.yaml in this folder"
)]
pub(crate) struct UpArguments {
    /// Folder of the function
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgument,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  spore dev hello\n\nCtrl-C ends it; the function stays deployed.")]
pub(crate) struct DevArguments {
    /// Folder of the function
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// Make the runtime of a language anew, from the interpreter of this machine
    Build(RuntimeBuildArguments),
    /// List the runtimes that were made
    #[command(visible_alias = "ls")]
    List(RuntimeListArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore runtime build python\n  spore runtime build python --from /opt/python3.13/bin/python3\n\nFunctions get it when they are built again. It is made by itself when a function needs one and there is none yet."
)]
pub(crate) struct RuntimeBuildArguments {
    /// The language
    #[arg(value_name = "LANGUAGE", value_parser = runtime_languages())]
    pub(crate) language: RuntimeLanguage,
    /// The interpreter to take [default: the distribution's, or else the first one in PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RuntimeListArguments {
    /// Print JSON, with what each is made of
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore deploy hello\n  spore deploy hello --memory 64Mi --env GREETING=Hi\n  spore deploy proxy --binary ./proxy --port 9000\n  spore deploy web --rootfs ./debian --entrypoint 'python3 server.py' --workdir /srv --allow-egress db.example.com:5432\n  spore deploy again --image web:latest\n  spore deploy -f stack.yaml    what spore push has pushed of it\n\nA folder's spore.toml holds its settings; flags go before it. A function of that name is replaced."
)]
pub(crate) struct DeployArguments {
    /// Folder of the function; with --binary, --rootfs or --image its name
    #[arg(value_name = "DIR|NAME", required_unless_present_any = ["yaml", "filter", "regex"])]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
    /// A static Linux program for x86-64 that serves HTTP
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Command that is run for each invocation with the body as its standard input, in place of a server; it is split at
    /// spaces
    #[arg(long, value_name = "COMMAND")]
    pub(crate) fprocess: Option<String>,
    /// Folder that becomes the function's root file system
    #[arg(long, value_name = "DIR", conflicts_with = "binary")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Program of the root file system and its arguments, quoted as for a shell
    #[arg(long, value_name = "COMMAND", requires = "rootfs")]
    pub(crate) entrypoint: Option<String>,
    /// Directory of the root file system in which the program starts [default: /]
    #[arg(long, value_name = "DIR", requires = "rootfs")]
    pub(crate) workdir: Option<String>,
    /// Who the program runs as: names of the root file system's /etc/passwd and /etc/group, or numbers [default: root]
    #[arg(long, value_name = "USER[:GROUP]", requires = "rootfs")]
    pub(crate) user: Option<String>,
    /// Image that is stored in the daemon, or that it pulls
    #[arg(long, value_name = "REFERENCE", conflicts_with_all = ["binary", "rootfs", "port"])]
    pub(crate) image: Option<String>,
    /// TCP port on which the program listens [default: 8080]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Most memory of an instance, for example 64Mi
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) memory: Option<String>,
    /// Most processor time of an instance, for example 500m (half of one) or 1 [default: 1]
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) cpu: Option<String>,
    /// Longest time of an invocation, for example 30s
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Secret that the function finds as a file in /var/openfaas/secrets; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// Label; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) label: Vec<(String, String)>,
    /// Annotation; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Let the function connect to this place, as it may to none otherwise; may be repeated
    #[arg(long, value_name = "HOST[:PORT]|CIDR")]
    pub(crate) allow_egress: Vec<EgressRule>,
    /// Let every system call trap: slower; for finding faults
    #[arg(long)]
    pub(crate) no_syscall_rewriting: bool,
    /// Boot the function once, and make every instance a copy of that moment: see docs/snapshots.md for what it shares
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// How the function gets its invocations [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<ProtocolArgument>,
    /// What is to be around the instances [default: what the daemon was started with]
    #[arg(long, value_name = "FORM")]
    pub(crate) isolation: Option<IsolationArgument>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgument,
    /// Let each invocation find a pristine instance; the next ones are reset or started ahead of demand
    #[arg(long)]
    pub(crate) isolation_per_request: bool,
    /// Instances kept even when idle
    #[arg(long, value_name = "N")]
    pub(crate) min: Option<u32>,
    /// Most instances at a time
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u32>,
    /// Instances that wait, ready, for requests that have not come yet, beyond those that are busy
    #[arg(long, value_name = "N")]
    pub(crate) ahead: Option<u32>,
    /// Fail if there is a function of that name
    #[arg(long)]
    pub(crate) no_replace: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore run ./hello world\n  spore run --env GREETING=Hi --memory 64Mi -- ./hello --loud\n  spore run --rootfs ./debian --workdir /srv -- python3 -c 'print(1)'\n  spore run --port 8080 ./server    then: curl http://127.0.0.1:8080/\n\nIt exits with the program's status, with 128+N if signal N ended the program (137 if its memory was used up), and\nwith 125 if Spore itself fails. The program finds the end of file at its standard input. Ctrl-C ends it."
)]
pub(crate) struct RunArguments {
    /// Folder that becomes the program's root file system; PROGRAM is looked for in there
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<PathBuf>,
    /// Directory in which the program starts
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) workdir: String,
    /// Environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Most memory of the program
    #[arg(long, value_name = "QUANTITY", default_value = "256Mi", value_parser = parse_memory)]
    pub(crate) memory: u64,
    /// Pass connections to this port of 127.0.0.1 on to the program, which listens on the same one
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Let the program connect to this place, as it may to none otherwise; may be repeated
    #[arg(long, value_name = "HOST[:PORT]|CIDR")]
    pub(crate) allow_egress: Vec<EgressRule>,
    /// Let every system call trap: slower; for finding faults
    #[arg(long)]
    pub(crate) no_syscall_rewriting: bool,
    /// How the program gets what comes in at --port [default: http]
    #[arg(long, value_name = "PROTOCOL", requires = "port")]
    pub(crate) protocol: Option<ProtocolArgument>,
    /// What is around the program [default: a virtual machine, or a process where KVM cannot be used]
    #[arg(long, value_name = "FORM")]
    pub(crate) isolation: Option<IsolationArgument>,
    /// Let the seccomp list catch system calls in a process, as on kernels before Linux 5.11; for finding faults
    #[arg(long, hide = true)]
    pub(crate) no_syscall_user_dispatch: bool,
    /// Leave out what Spore itself has to say, such as system calls that are not served
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// A static Linux program for x86-64, or one in the root file system, and its arguments
    #[arg(
        value_name = "PROGRAM [ARGUMENTS]",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore invoke hello --query name=Ada\n  echo some text | spore invoke hello\n  spore invoke hello --data @picture.png --header Content-Type=image/png --path /resize"
)]
pub(crate) struct InvokeArguments {
    /// Name of the function
    pub(crate) name: FunctionName,
    /// Body of the request, or @FILE to read it from a file [default: standard input, if piped]
    #[arg(long, short, value_name = "TEXT|@FILE")]
    pub(crate) data: Option<String>,
    /// Method of the request
    #[arg(long, short, default_value = "POST")]
    pub(crate) method: String,
    /// Header field; may be repeated
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<(String, String)>,
    /// Query parameter; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub(crate) query: Vec<(String, String)>,
    /// Path below the function's own
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub(crate) path: String,
    /// Do not wait for the answer: prints the call ID once the invocation is on the daemon's disk
    #[arg(long = "async", short = 'a')]
    pub(crate) queued: bool,
    /// URL that the answer is sent to
    #[arg(long, value_name = "URL", requires = "queued")]
    pub(crate) callback: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore invoke hello --async --data Ada\n  spore async list --dead\n  spore async drop --function hello --dead"
)]
pub(crate) struct AsyncArguments {
    #[command(subcommand)]
    pub(crate) command: AsyncCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AsyncCommand {
    /// List the invocations that wait, run, or have failed for good
    #[command(visible_alias = "ls")]
    List {
        /// Only those of a function
        #[arg(long, value_name = "NAME")]
        function: Option<FunctionName>,
        /// Only those that have failed for good
        #[arg(long)]
        dead: bool,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show everything about an invocation
    Show {
        /// Its call ID
        call_id: String,
    },
    /// Try an invocation again now, with all its attempts
    Retry {
        /// Its call ID
        #[arg(required = true)]
        call_ids: Vec<String>,
    },
    /// Drop invocations; one that is running comes to its end, and is not tried again
    #[command(visible_aliases = ["cancel", "rm"])]
    Drop {
        /// Their call IDs
        #[arg(required_unless_present_any = ["function", "dead"])]
        call_ids: Vec<String>,
        /// All those of a function
        #[arg(long, value_name = "NAME", conflicts_with = "call_ids")]
        function: Option<FunctionName>,
        /// All those that have failed for good
        #[arg(long, conflicts_with = "call_ids")]
        dead: bool,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  spore chain extract translate summarise --data @page.html\n\nThe body goes from one to the next within the daemon. Status and headers are those of the last one, or of the first\nthat does not answer with success."
)]
pub(crate) struct ChainArguments {
    /// Names of the functions, in order
    #[arg(required = true, num_args = 2.., value_name = "NAME")]
    pub(crate) names: Vec<FunctionName>,
    /// Body of the first request, or @FILE to read it from a file [default: standard input, if piped]
    #[arg(long, short, value_name = "TEXT|@FILE")]
    pub(crate) data: Option<String>,
    /// Header field of the first request; may be repeated
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<(String, String)>,
    /// Do not wait for the answer: prints the call ID once the invocation is on the daemon's disk
    #[arg(long = "async", short = 'a')]
    pub(crate) queued: bool,
    /// URL that the answer is sent to
    #[arg(long, value_name = "URL", requires = "queued")]
    pub(crate) callback: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore deploy report --binary ./report --annotation topic=cron-function --annotation 'schedule=0 6 * * *'\n  spore trigger list\n  spore trigger fire report\n  spore trigger fire import --file incoming/orders.csv\n  spore trigger fire ship --topic orders.new --data '{}'"
)]
pub(crate) struct TriggerArguments {
    #[command(subcommand)]
    pub(crate) command: TriggerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TriggerCommand {
    /// List what calls functions, when next, and what became of it
    #[command(visible_alias = "ls")]
    List {
        /// Only of a function
        #[arg(long, value_name = "NAME")]
        function: Option<FunctionName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Call a function now, as its schedule, a file or a message does; prints the call ID
    Fire {
        /// Name of the function
        name: FunctionName,
        /// A file in a folder that it watches, as a path below the daemon's --trigger-folder
        #[arg(long, value_name = "PATH")]
        file: Option<String>,
        /// Subject of a message that it is called for
        #[arg(long, value_name = "SUBJECT", conflicts_with = "file")]
        topic: Option<String>,
        /// The message, or @FILE to read it from a file [default: standard input, if piped]
        #[arg(long, short, value_name = "TEXT|@FILE", requires = "topic")]
        data: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  spore logs hello --tail 20\n  spore logs hello --since 5m --follow")]
pub(crate) struct LogsArguments {
    /// Name of the function
    pub(crate) name: FunctionName,
    /// Go on with lines as they are written
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the latest N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Only lines not older than this
    #[arg(long, value_name = "DURATION", value_parser = crate::duration::parse)]
    pub(crate) since: Option<Duration>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Counted are answers that were complete, since the function was deployed or the daemon was started, whichever is\nlater. See docs/statistics.md for what each row measures."
)]
pub(crate) struct StatsArguments {
    /// Name of the function
    pub(crate) name: FunctionName,
    /// Print JSON, with durations in seconds
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArguments {
    /// Name of the function
    pub(crate) name: FunctionName,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore scale hello 4\n  spore scale hello 0    ends those that are idle; the next request starts one\n\nIt holds until the next scale, deployment or start of the daemon, in place of the minimum.\nDemand still starts more, up to the maximum."
)]
pub(crate) struct ScaleArguments {
    /// Name of the function
    pub(crate) name: FunctionName,
    /// How many instances are kept started, however long they are idle
    #[arg(value_name = "N")]
    pub(crate) instances: u32,
    /// How long to wait until they are there
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::duration::parse)]
    pub(crate) timeout: Duration,
    /// Return at once
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// Print JSON: the function as it is then
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Name of the function
    pub(crate) name: FunctionName,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore secret create db-password < password.txt\n  spore secret update tls-key --from-file key.pem\n  spore deploy hello --secret db-password\n\nA function finds it as the file /var/openfaas/secrets/NAME. Nothing shows its value."
)]
pub(crate) struct SecretArguments {
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Make a secret
    Create(SecretValueArguments),
    /// Change a secret; functions that use it get the new one with their next invocation
    Update(SecretValueArguments),
    /// List the names of the secrets
    #[command(visible_alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret that no function uses
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the secret
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SecretValueArguments {
    /// Name of the secret
    pub(crate) name: String,
    /// File that holds the value, as it is [default: standard input, without the line's end]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  spore login\n  spore login --gateway https://gateway.example.com --username admin < password.txt\n\nThe password is read from standard input."
)]
pub(crate) struct LoginArguments {
    /// Name of the user
    #[arg(long, short, value_name = "NAME", default_value = "admin")]
    pub(crate) username: String,
}

/// What microVMs are made of.
#[derive(Debug, Clone, Args)]
pub(crate) struct MicrovmArguments {
    /// What runs microVMs; Firecracker and Cloud Hypervisor need hardware virtualisation, which QEMU emulates where there is none
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        default_value_t,
        env = "SPORE_MICROVM_MONITOR"
    )]
    pub(crate) microvm_monitor: MonitorArgument,
    /// Let Firecracker and Cloud Hypervisor try KVM without hardware virtualisation too
    #[arg(long)]
    pub(crate) microvm_any_kvm: bool,
    /// Kernel of microVMs [default: the newest of Debian's or Ubuntu's kernels for virtual machines that is found]
    #[arg(long, value_name = "FILE", env = "SPORE_MICROVM_KERNEL")]
    pub(crate) microvm_kernel: Option<PathBuf>,
}

/// A monitor of microVMs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MonitorArgument {
    #[default]
    Qemu,
    Firecracker,
    CloudHypervisor,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Cgroup below which `spore serve` would put those of the instances [default: this process's own]
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) microvm: MicrovmArguments,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("\"{text}\" is no NAME=VALUE")),
    }
}

/// A DNS label, as functions have it for their names.
fn parse_namespace(text: &str) -> Result<String, String> {
    let name: FunctionName = text.parse().map_err(|_| {
        format!("\"{text}\" is no name of a namespace: lower-case letters, digits and dashes")
    })?;
    Ok(name.to_string())
}

fn parse_memory(text: &str) -> Result<u64, String> {
    spore_gateway::parse_memory(text)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("\"{text}\" is no quantity of memory: write it like 64Mi or 1Gi"))
}

/// Headers may be written with a colon as well, as curl takes them.
fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.find([':', '=']) {
        Some(position) if position > 0 => Ok((
            text[..position].to_owned(),
            text[position + 1..].trim().to_owned(),
        )),
        _ => Err(format!("\"{text}\" is no NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn pairs_are_split_at_the_first_sign() {
        assert_eq!(parse_pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(parse_pair("A="), Ok(("A".into(), String::new())));
        assert!(parse_pair("A").is_err() && parse_pair("=b").is_err());
        assert_eq!(parse_header("Accept: a=b"), Ok(("Accept".into(), "a=b".into())));
        assert_eq!(parse_header("Accept=a:b"), Ok(("Accept".into(), "a:b".into())));
        assert!(parse_header(": a").is_err() && parse_header("a").is_err());
    }
}
