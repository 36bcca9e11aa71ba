//! The contract between the platform and a sandbox.
//!
//! A *sandbox* is a way to run one function instance apart from everything else: a unikernel in its own virtual
//! machine, a container, a microVM. Pool and gateway know only the two traits here, [`Sandbox`] and [`Instance`],
//! and so treat every kind alike.
//!
//! ```text
//!  Sandbox::start ──> (booting) ──ready──> Instance ──connect──> IngressStream (HTTP/1.1 with the function)
//!                         │                   │
//!                         └─ StartError       ├─ reset() ──> what it was when it was started, if it can be reset
//!                                             └─ ended() / stop() ──> EndReport, exactly one per instance
//! ```
//!
//! Rules that every implementation keeps, and that `tests/conformance` checks:
//!
//! 1. `start` returns only when the function accepts connections on its port, or with an error after everything
//!    that it had made (processes, descriptors, virtual machines, files) is gone.
//! 2. An instance serves as many streams as it is asked for; *one invocation at a time* is the pool's rule.
//! 3. Whatever the function does, only its own instance ends, and [`Instance::ended`] says why.
//! 4. `stop` is idempotent; after it returns nothing of the instance is left. Dropping the last handle of an
//!    instance has the same effect, without waiting for it.
//! 5. A stream that ends with its instance ends with an error, or not before [`Instance::ended`] has its report: an end
//!    that the program meant is told from one that it did not.
//! 6. Every line that the function writes to its standard output or error reaches the [`LogSink`], as long as it
//!    keeps to the sandbox's rate limit; what was dropped is counted in a line of its own.
//! 7. Where the program asks for its invocations ([`InstanceSpec::serves_runtime_api`]), it is ready when it does. A request
//!    on a stream is an event, and the answer what the program has posted for it, unchanged: 200 if that is a response, 500
//!    if it is an error. Nothing of a request is read before the program has asked for it.
//! 8. Where [`InstanceSpec::command`] is set the program is not a server: `start` returns when all is ready for it, it is
//!    started by [`Instance::run_command`], and its end, of which [`Instance::finished`] tells, need not be the instance's.
//! 9. After `reset` has returned without an error, nothing that the instance has done, kept or been sent since its start
//!    can be seen by it or have an effect on it, and its randomness is fresh. Otherwise it is to be stopped.
//! 10. What a kind cannot do for a function is refused by [`Sandbox::check`], before the function is deployed. Nothing that
//!     was asked for is left out in silence.
//!
//! The kind is the function's ([`InstanceSpec::sandbox`]); the [`Roof`] hands each function to the sandbox of its kind.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

mod egress;
#[cfg(feature = "fake")]
pub mod fake;
mod kind;
mod lines;
mod roof;

pub use egress::{EGRESS_RULES_MAX, EgressRule, EgressRuleError};
pub use kind::{Availability, SandboxKind};
pub use lines::Lines;
pub use roof::Roof;

/// Everything that a sandbox needs to know to start one instance of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Name of the function, a DNS label; used in log lines and process titles.
    pub function: String,
    /// Identifier of the instance, unique on this machine while the daemon lives.
    pub instance: String,
    /// The kind of sandbox that it is started in.
    pub sandbox: SandboxKind,
    /// Where the program comes from.
    pub root: Root,
    /// SHA-256 of the root's file; none if it is not known. What outlives the daemon goes by it.
    pub root_digest: Option<[u8; 32]>,
    /// `argv` of the program; the first entry is its own name.
    pub arguments: Vec<String>,
    /// Environment variables, in the order in which the program finds them.
    pub environment: Vec<(String, String)>,
    /// Directory in which the program starts, an absolute path inside the sandbox.
    pub working_directory: String,
    /// Who the program runs as inside the sandbox.
    pub user: User,
    /// What the function finds as read-only files in [`SECRETS_DIRECTORY`], by name.
    pub secrets: Vec<Secret>,
    /// Whether a sandbox that catches system calls may change the program's code to do so at less cost.
    pub rewrites_calls: bool,
    /// Whether instances may be copies of one that was booted once, where a sandbox can make them so.
    pub is_cloned: bool,
    /// Whether it is to be one that can be reset ([`Instance::reset`]), where a sandbox can make it so.
    pub is_reset: bool,
    /// Where the function may connect to; nowhere if there are no rules.
    pub egress: Vec<EgressRule>,
    /// TCP port on which the function listens inside the sandbox.
    pub port: u16,
    /// Whether the program, instead of listening, asks for its invocations by the Runtime API of AWS Lambda. The sandbox then
    /// serves that to it, at the address in [`RUNTIME_API_VARIABLE`], and what comes as a request on a stream is an event.
    pub serves_runtime_api: bool,
    /// How the program is run if it is no server but a command, which is started for one invocation; its arguments are
    /// `arguments`. None if it is a server.
    pub command: Option<Command>,
    /// What of the root is what, if it is a unikernel that others have built; none if it is a Linux program.
    pub unikernel: Option<ForeignUnikernel>,
    /// Upper bound of the memory that the function can use, in bytes.
    pub memory_bytes: u64,
    /// What is to be around the instance; none leaves it to the sandbox ([`Sandbox::isolation`]).
    pub isolation: Option<Isolation>,
    /// Upper bound of the processor time that the function can use, in thousandths of one processor.
    pub processor_millis: u32,
    /// How long the function may take until it accepts connections.
    pub ready_timeout: Duration,
}

impl InstanceSpec {
    /// What makes an instance ready.
    #[must_use]
    pub const fn awaited(&self) -> Awaited {
        if self.serves_runtime_api {
            Awaited::Asking
        } else {
            Awaited::Listening { port: self.port }
        }
    }
}

/// Who a program runs as, by the numbers of its image. The superuser by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Number of the user.
    pub id: u32,
    /// Number of its group.
    pub group: u32,
    /// Numbers of its further groups, at most [`MORE_GROUPS_MAX`].
    pub more_groups: Vec<u32>,
}

/// Most further groups of a [`User`]: what the library OS keeps.
pub const MORE_GROUPS_MAX: usize = 1024;

/// What a program does when it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// It listens.
    Listening {
        /// The port.
        port: u16,
    },
    /// It asks for its first invocation.
    Asking,
}

impl fmt::Display for Awaited {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { port } => write!(formatter, "listening on port {port}"),
            Self::Asking => formatter.write_str("asking for its first invocation at AWS_LAMBDA_RUNTIME_API"),
        }
    }
}

/// The variable that names the address of the Runtime API inside the sandbox. The sandbox sets it.
pub const RUNTIME_API_VARIABLE: &str = "AWS_LAMBDA_RUNTIME_API";
/// Fields of a request to a program that asks for its invocations, which it finds beside the event. The first is the
/// invocation's identifier; the sandbox makes one up where there is none.
pub const RUNTIME_API_FIELDS: [&str; 4] = [
    "lambda-runtime-aws-request-id",
    "lambda-runtime-deadline-ms",
    "lambda-runtime-invoked-function-arn",
    "lambda-runtime-trace-id",
];

/// A unikernel that others have built, as its image describes it. Paths are those of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignUnikernel {
    /// The framework, as the image names it, for example `unikraft`.
    pub framework: String,
    /// Its version, if the image tells it.
    pub framework_version: Option<String>,
    /// The monitor that it was built for, for example `qemu`.
    pub monitor: String,
    /// The kernel.
    pub kernel: String,
    /// The first file system.
    pub initrd: Option<String>,
    /// The file that is its disk.
    pub disk: Option<String>,
    /// Where the file system of the disk is to be, if the image tells it.
    pub disk_folder: Option<String>,
    /// A request, as method and path, that it answers with a success when it is ready; none if it is when its port is open.
    pub ready: Option<String>,
}

/// How a command is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Command {
    /// Whether its standard error is part of the answer, rather than of the log.
    pub combines_output: bool,
}

/// Longest all variables of an invocation of a command together, in bytes, with two for each beside name and value.
pub const VARIABLES_BYTES_MAX: usize = 128 << 10;

/// Where instances find their secrets.
pub const SECRETS_DIRECTORY: &str = "/var/openfaas/secrets";

/// Longest all secrets of an instance together, in bytes of names and values.
pub const SECRETS_BYTES_MAX: usize = 128 << 10;

/// Something that only the function may know.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Name of its file.
    pub name: String,
    /// What is in the file.
    pub value: Arc<[u8]>,
}

/// Without the value, which no log is to show.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What an instance finds as its root: files on this host that are not changed while any instance runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The file is the program itself, a static one.
    Program(PathBuf),
    /// The file is an EROFS image, in which the first argument names the program.
    FileSystem(PathBuf),
    /// Two files make such an image: one that others may have as well, and what is this one's own. The first block is the
    /// head's, and the head's further blocks come behind the base's end.
    Layered {
        /// What others may have as well.
        base: PathBuf,
        /// What is its own.
        head: PathBuf,
    },
}

impl Root {
    /// The file; of two, the one that is its own.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Program(path) | Self::FileSystem(path) | Self::Layered { head: path, .. } => path,
        }
    }

    /// The file that others may have as well, if there is one.
    #[must_use]
    pub fn base(&self) -> Option<&Path> {
        match self {
            Self::Program(_) | Self::FileSystem(_) => None,
            Self::Layered { base, .. } => Some(base),
        }
    }
}

/// What is around an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A virtual machine.
    VirtualMachine,
    /// A process of the host's kernel.
    Process,
}

impl Isolation {
    /// The name as users write it: `vm` or `process`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtualMachine => "vm",
            Self::Process => "process",
        }
    }

    /// The isolation of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::VirtualMachine, Self::Process]
            .into_iter()
            .find(|isolation| isolation.name() == name)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The isolation that is asked for cannot be had; one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IsolationError(pub String);

/// A kind of sandbox cannot do what is asked for; one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnsupportedError(pub String);

/// A two-way byte stream to the function's port.
pub trait IngressStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> IngressStream for T {}

/// A kind of sandbox on this machine.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// The kind, or that of functions which name none if there are several.
    fn kind(&self) -> SandboxKind;

    /// The kinds that there are, and why others cannot be had.
    fn kinds(&self) -> Vec<Availability> {
        vec![Availability {
            kind: self.kind(),
            missing: None,
        }]
    }

    /// The isolation that an instance of a kind gets for which this one is asked, or none in particular.
    ///
    /// # Errors
    ///
    /// If it cannot be had here, or is not allowed. An instance is then not started either.
    fn isolation(&self, kind: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError>;

    /// Looks whether the sandbox has all that instances like this one need (rule 10), before anything is started.
    ///
    /// # Errors
    ///
    /// If it has not, or if there is no sandbox of the kind here.
    fn check(&self, spec: &InstanceSpec) -> Result<(), UnsupportedError> {
        match self.kind() == spec.sandbox {
            true => Ok(()),
            false => Err(UnsupportedError(format!(
                "there is no sandbox `{}` here, only `{}`",
                spec.sandbox,
                self.kind()
            ))),
        }
    }

    /// What keeps an instance apart on this machine, and what does so elsewhere but not here. Nothing if the sandbox
    /// does not know.
    fn layers(&self) -> Vec<Layer> {
        Vec::new()
    }

    /// Tells what is deployed from now on: what instances will be started like, but for their own names. What is kept for
    /// others may go. A sandbox that was never told keeps what it has in memory. Returns at once.
    fn retain(&self, deployed: &[InstanceSpec]) {
        let _ = deployed;
    }

    /// Starts an instance and waits until it is ready (rule 1). Dropping the future gives the attempt up and
    /// removes everything that it had made.
    async fn start(&self, spec: InstanceSpec, log: Arc<dyn LogSink>)
    -> Result<Arc<dyn Instance>, StartError>;
}

/// One of the means by which a sandbox keeps its instances apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is, in a few words.
    pub name: String,
    /// Why it is not there; none if it is.
    pub missing: Option<String>,
}

/// A running instance of a function.
#[async_trait]
pub trait Instance: Send + Sync {
    /// The identifier given in [`InstanceSpec::instance`].
    fn id(&self) -> &str;

    /// Opens a stream to the function's port. The function sees a new connection to accept. That of a command has none.
    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError>;

    /// Starts the command, once in the life of an instance or between two resets, with these variables, none of which has
    /// a name with `=` or anything with a zero byte in it, in place of those of the same name that the function has. What
    /// is written to the stream, up to its shutdown, is the command's standard input, which it need not read; what is
    /// read is its standard output.
    ///
    /// # Errors
    ///
    /// As of [`Instance::connect`]; also if the instance is none of a command, or the variables are too long.
    async fn run_command(
        &self,
        variables: &[(String, Vec<u8>)],
    ) -> Result<Box<dyn IngressStream>, ConnectError> {
        let _ = variables;
        Err(ConnectError::Host(std::io::ErrorKind::Unsupported.into()))
    }

    /// Resolves when the command that was started has ended, and all that it wrote has left, or when the instance has
    /// ended. The stream may end before.
    async fn finished(&self) -> EndReport {
        self.ended().await
    }

    /// Resolves when the instance has ended by itself or was stopped; at once if it has ended already.
    async fn ended(&self) -> EndReport;

    /// When its start reached which stage, as far as the sandbox knows: nothing, unless it says otherwise. Resolves when
    /// no more will be known, which may be a moment after the first answer, and at the end of the instance at the latest.
    /// Nobody who waits for an answer waits for this.
    async fn start_stages(&self) -> StartStages {
        StartStages::default()
    }

    /// Memory of this machine that it takes now, in bytes, of what it shares with others its part; none if the sandbox does
    /// not know. Asks the kernel, which may take milliseconds and blocks.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }

    /// Processor time that it has used since it was started; none if the sandbox does not know. Asks the kernel, which
    /// takes microseconds and blocks.
    fn processor_time(&self) -> Option<Duration> {
        None
    }

    /// Whether [`Instance::reset`] may succeed.
    fn can_be_reset(&self) -> bool {
        false
    }

    /// Makes the instance what it was when it was started (rule 9). Streams that were opened before end.
    ///
    /// # Errors
    ///
    /// If it cannot be done, or has not been within a bounded time. The instance is to be stopped then.
    async fn reset(&self) -> Result<(), ResetError> {
        Err(ResetError::Unsupported)
    }

    /// Lets the instance stand still: it keeps its memory and takes no processor time until [`Instance::resume`]. To be
    /// called only while nobody uses it. Takes microseconds, and blocks.
    ///
    /// # Errors
    ///
    /// If the sandbox has no means to, or the kernel refuses. The instance runs on then.
    fn pause(&self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Ends [`Instance::pause`]; to be called before anything else of an instance that was paused.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, which it has no reason to.
    fn resume(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Ends the instance and waits until nothing of it is left (rule 4). `reason` is written to the function's log
    /// where it is the platform's doing that the user should hear of.
    async fn stop(&self, reason: StopReason) -> EndReport;
}

/// When the start of an instance reached which stage, in this order; none is a stage that is not known, or was not
/// reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartStages {
    /// The start of this very instance began; what several instances share was there.
    pub begun: Option<Instant>,
    /// There was something empty to run it in: a process, a virtual machine, a container.
    pub shell_taken: Option<Instant>,
    /// Its memory was in place.
    pub mapped: Option<Instant>,
    /// The first instruction inside was next.
    pub first_instruction: Option<Instant>,
    /// The program had read the first bytes of its first request.
    pub handler_entered: Option<Instant>,
}

/// Why the platform ends an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// It is not needed any more: idle, function removed or replaced, daemon stopping.
    NotNeeded,
    /// An invocation ran past the function's timeout. The sandbox reports where the program was.
    TimedOut {
        /// The timeout that it ran past.
        after: Duration,
    },
    /// The caller went away in the middle of an invocation.
    CallerGone,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndReport {
    /// What ended it.
    pub cause: EndCause,
    /// More lines for the function's log, already written there: registers, addresses, symbols.
    pub details: Vec<String>,
    /// How many bytes the program had read of the stream that was opened last; none if that is not known. What it had
    /// not read can be sent to another instance.
    pub read_bytes: Option<u64>,
}

/// What ended an instance; `Display` is the one line that a caller gets to see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndCause {
    /// The platform stopped it.
    #[error("the instance was stopped")]
    Stopped,
    /// The program exited by itself.
    #[error("the function exited with status {code}")]
    Exited {
        /// Exit status, 0 to 255.
        code: u8,
    },
    /// The program was ended by a fault or a signal that it did not handle.
    #[error("the function crashed: {summary}")]
    Crashed {
        /// One line: kind of fault, address, nearest symbol.
        summary: String,
    },
    /// The function's memory was used up.
    #[error("the function ran out of its {limit_bytes} bytes of memory")]
    OutOfMemory {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The function ran past its timeout.
    #[error("the function did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// The timeout that it ran past.
        after: Duration,
    },
    /// The sandbox itself failed (a monitor process that was killed, a host error).
    #[error("the sandbox failed: {summary}")]
    SandboxFailed {
        /// One line: what the platform saw.
        summary: String,
    },
}

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program cannot run in this sandbox at all; a retry does not help.
    #[error("the program cannot run here: {reason}")]
    BadProgram {
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The program ended before it accepted connections.
    #[error("the function ended before it was ready: {}", .0.cause)]
    EndedEarly(EndReport),
    /// The program did not accept connections in time.
    #[error("the function was not ready ({awaited}) within {} ms", after.as_millis())]
    NotReady {
        /// The time that it had.
        after: Duration,
        /// What it should have done.
        awaited: Awaited,
    },
    /// The isolation that is asked for cannot be had.
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    /// The host refused something: no KVM, no memory, no descriptors. A retry may help.
    #[error("the host could not start an instance: {what}")]
    Host {
        /// What the platform tried.
        what: &'static str,
        /// Why the host refused.
        #[source]
        source: std::io::Error,
    },
}

/// Why a stream to an instance could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The instance has ended.
    #[error("{}", .0.cause)]
    Ended(EndReport),
    /// The host refused, for example for want of descriptors.
    #[error("no stream to the instance could be opened")]
    Host(#[source] std::io::Error),
}

/// Why an instance could not be reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// It is of no kind that can be, or has been often enough.
    #[error("it is none that can be reset")]
    Unsupported,
    /// It has ended, for whatever reason.
    #[error("{}", .0.cause)]
    Ended(EndReport),
    /// It has not been within its time.
    #[error("it took too long")]
    TimedOut,
}

/// Where a line of the function's log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// The platform: fault reports, dropped lines, missing system calls.
    Platform,
}

/// One line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Identifier of the instance that wrote it.
    pub instance: String,
    /// When the platform received it.
    pub time: SystemTime,
    /// Where it comes from.
    pub source: LogSource,
    /// The line without its line feed, invalid UTF-8 replaced, at most [`MAX_LOG_LINE_BYTES`] long.
    pub text: String,
}

/// Longest line of a log, in bytes; longer ones are cut into several.
pub const MAX_LOG_LINE_BYTES: usize = 16 * 1024;

/// Takes the lines that an instance writes. Must not block.
pub trait LogSink: Send + Sync {
    /// Takes one line.
    fn write(&self, line: LogLine);
}
