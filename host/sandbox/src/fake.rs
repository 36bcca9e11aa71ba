//! A sandbox inside the test process: no isolation, no virtual machine, behaviour chosen by the test.
//!
//! The test gives a closure that looks at the [`InstanceSpec`] and says how such an instance behaves, as a
//! [`FakeFunction`]: what its start does, and what it does with a connection. It keeps the contract of
//! [`Sandbox`], so whatever passes with it relies on nothing that a real sandbox lacks.
//!
//! ```
//! # use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};
//! let sandbox = FakeSandbox::new(|_spec| {
//!     FakeFunction::http(|request, control| async move {
//!         if request.uri().path() == "/crash" {
//!             control.crash("null call");
//!         }
//!         response(200, "hello")
//!     })
//! });
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{
    ConnectError, EndCause, EndReport, IngressStream, Instance, InstanceSpec, Isolation, IsolationError,
    LogLine, LogSink, LogSource, ResetError, Sandbox, SandboxKind, StartError, StartStages, StopReason,
};

/// Bytes that a fake stream holds in each direction before its writer has to wait.
const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Body of a fake function's response; an error in it breaks the connection in the middle of the body.
pub type FakeBody = BoxBody<Bytes, std::io::Error>;

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve = Arc<dyn Fn(DuplexStream, FakeControl) -> Serving + Send + Sync>;
type Behaviour = Arc<dyn Fn(&InstanceSpec) -> FakeFunction + Send + Sync>;

/// A response with a body known in full. `status` must be a valid HTTP status code.
pub fn response(status: u16, body: impl Into<Bytes>) -> Response<FakeBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a valid HTTP status code");
    response
}

/// How one fake instance behaves.
#[derive(Clone)]
pub struct FakeFunction {
    start_delay: Duration,
    start_error: Option<Arc<dyn Fn() -> StartError + Send + Sync>>,
    /// How often it can be reset, where it is asked to be one that can.
    resets: u64,
    reset_delay: Duration,
    serve: Serve,
}

impl FakeFunction {
    /// A function that hands every connection, as a raw byte stream, to `serve`.
    pub fn raw<F, S>(serve: S) -> Self
    where
        S: Fn(DuplexStream, FakeControl) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let serve: Serve = Arc::new(move |stream, control| Box::pin(serve(stream, control)));
        Self {
            start_delay: Duration::ZERO,
            start_error: None,
            resets: 0,
            reset_delay: Duration::ZERO,
            serve,
        }
    }

    /// A function that speaks HTTP/1.1 and answers every request by `handler`.
    pub fn http<F, H>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>, FakeControl) -> F + Send + Sync + 'static,
        F: Future<Output = Response<FakeBody>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::raw(move |stream, control| {
            let handler = handler.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = handler(request, control.clone());
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                // A broken connection is the other side's to notice and to judge.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
    }

    /// A function that answers with the request's body, streamed, and its content type.
    pub fn echo() -> Self {
        Self::http(|request, _control| async move {
            let content_type = request.headers().get(hyper::header::CONTENT_TYPE).cloned();
            let body = request.into_body().map_err(std::io::Error::other).boxed();
            let mut response = Response::new(body);
            if let Some(value) = content_type {
                response.headers_mut().insert(hyper::header::CONTENT_TYPE, value);
            }
            response
        })
    }

    /// A function that accepts connections, reads nothing and never answers.
    pub fn hanging() -> Self {
        Self::raw(|stream, _control| async move {
            let _keep_open = stream;
            std::future::pending::<()>().await;
        })
    }

    /// Lets a start take `delay` until the function is ready.
    #[must_use]
    pub fn start_delay(mut self, delay: Duration) -> Self {
        self.start_delay = delay;
        self
    }

    /// Lets the instance be reset so many times, which takes `delay` each; the next time fails.
    #[must_use]
    pub fn resets(mut self, times: u64, delay: Duration) -> Self {
        (self.resets, self.reset_delay) = (times, delay);
        self
    }

    /// Lets a start fail, after its delay, with the error that `make` makes.
    #[must_use]
    pub fn start_error(mut self, make: impl Fn() -> StartError + Send + Sync + 'static) -> Self {
        self.start_error = Some(Arc::new(make));
        self
    }
}

/// What a fake function's code can do to its own instance.
#[derive(Clone)]
pub struct FakeControl {
    instance: Weak<Shared>,
    spec: Arc<InstanceSpec>,
    log: Arc<dyn LogSink>,
}

impl FakeControl {
    /// What the instance was started with.
    pub fn spec(&self) -> &InstanceSpec {
        &self.spec
    }

    /// Ends the instance as a fault would.
    pub fn crash(&self, summary: &str) {
        self.end(EndCause::Crashed {
            summary: summary.to_owned(),
        });
    }

    /// Ends the instance as a call of `exit` would.
    pub fn exit(&self, code: u8) {
        self.end(EndCause::Exited { code });
    }

    /// Writes one line to the function's log, as standard output.
    pub fn print(&self, text: &str) {
        let instance = self.spec.instance.clone();
        let time = SystemTime::now();
        self.log.write(LogLine {
            instance,
            time,
            source: LogSource::Stdout,
            text: text.to_owned(),
        });
    }

    fn end(&self, cause: EndCause) {
        if let Some(instance) = self.instance.upgrade() {
            instance.end(cause);
        }
    }
}

/// The sandbox; cheap to clone, and all clones count together.
#[derive(Clone)]
pub struct FakeSandbox {
    behaviour: Behaviour,
    ledger: Arc<Ledger>,
}

/// What the sandbox has seen so far.
#[derive(Default)]
struct Ledger {
    started: AtomicU64,
    connections: AtomicU64,
    paused: AtomicU64,
    /// Instances and starts under way, by identifier.
    live: Mutex<BTreeMap<String, ()>>,
    stops: Mutex<Vec<StopReason>>,
    deployed: Mutex<Vec<InstanceSpec>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeSandbox {
    /// A sandbox whose instances behave as `behaviour` says when they are started.
    pub fn new(behaviour: impl Fn(&InstanceSpec) -> FakeFunction + Send + Sync + 'static) -> Self {
        Self {
            behaviour: Arc::new(behaviour),
            ledger: Arc::default(),
        }
    }

    /// How many instances stand still.
    pub fn paused(&self) -> u64 {
        self.ledger.paused.load(Ordering::SeqCst)
    }

    /// How many starts were asked for, failed ones included.
    pub fn started(&self) -> u64 {
        self.ledger.started.load(Ordering::SeqCst)
    }

    /// How many streams to instances were opened.
    pub fn connections(&self) -> u64 {
        self.ledger.connections.load(Ordering::SeqCst)
    }

    /// Identifiers of the instances that live or are being started, in order.
    pub fn live(&self) -> Vec<String> {
        lock(&self.ledger.live).keys().cloned().collect()
    }

    /// The reasons of all stops that ended an instance so far, in order.
    pub fn stops(&self) -> Vec<StopReason> {
        lock(&self.ledger.stops).clone()
    }

    /// What is deployed, as the sandbox was told last.
    pub fn deployed(&self) -> Vec<InstanceSpec> {
        lock(&self.ledger.deployed).clone()
    }
}

/// Removes a start that was given up from the ledger.
struct Registered {
    ledger: Arc<Ledger>,
    id: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.ledger.live).remove(&self.id);
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    /// It passes for what functions get that name none.
    fn kind(&self) -> SandboxKind {
        SandboxKind::default()
    }

    fn isolation(&self, _: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        match wanted {
            Some(Isolation::VirtualMachine) => Err(IsolationError("a fake has no virtual machine".into())),
            _ => Ok(Isolation::Process),
        }
    }

    fn retain(&self, deployed: &[InstanceSpec]) {
        *lock(&self.ledger.deployed) = deployed.to_vec();
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let begun = Some(Instant::now());
        self.ledger.started.fetch_add(1, Ordering::SeqCst);
        lock(&self.ledger.live).insert(spec.instance.clone(), ());
        let registered = Registered {
            ledger: self.ledger.clone(),
            id: spec.instance.clone(),
        };
        let function = (self.behaviour)(&spec);
        if !function.start_delay.is_zero() {
            let allowed = spec.ready_timeout.min(function.start_delay);
            tokio::time::sleep(allowed).await;
            if allowed < function.start_delay {
                return Err(StartError::NotReady {
                    after: allowed,
                    awaited: spec.awaited(),
                });
            }
        }
        if let Some(make) = &function.start_error {
            return Err(make());
        }
        let shared = Shared {
            end: watch::Sender::new(None),
            connections: Mutex::default(),
            registered: Mutex::new(Some(registered)),
        };
        let resets = AtomicU64::new(function.resets);
        Ok(Arc::new(FakeInstance {
            serve: function.serve,
            can_be_reset: spec.is_reset && function.resets > 0,
            resets,
            reset_delay: function.reset_delay,
            spec: Arc::new(spec),
            log,
            shared: Arc::new(shared),
            ledger: self.ledger.clone(),
            stages: StartStages {
                begun,
                first_instruction: Some(Instant::now()),
                ..StartStages::default()
            },
        }))
    }
}

/// The part of an instance that its own function's code may reach.
struct Shared {
    end: watch::Sender<Option<EndReport>>,
    connections: Mutex<Vec<AbortHandle>>,
    registered: Mutex<Option<Registered>>,
}

impl Shared {
    /// Ends the instance unless it has ended already; says whether it did.
    fn end(&self, cause: EndCause) -> bool {
        let first = self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(EndReport {
                    cause,
                    details: Vec::new(),
                    read_bytes: None,
                });
            }
            first
        });
        if first {
            lock(&self.registered).take();
            for connection in lock(&self.connections).drain(..) {
                connection.abort();
            }
        }
        first
    }

    fn report(&self) -> Option<EndReport> {
        self.end.borrow().clone()
    }
}

struct FakeInstance {
    serve: Serve,
    can_be_reset: bool,
    /// How often it still can.
    resets: AtomicU64,
    reset_delay: Duration,
    spec: Arc<InstanceSpec>,
    log: Arc<dyn LogSink>,
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    /// A fake has no memory to map, and cannot look into its function.
    stages: StartStages,
}

impl Drop for FakeInstance {
    fn drop(&mut self) {
        self.shared.end(EndCause::Stopped);
    }
}

#[async_trait]
impl Instance for FakeInstance {
    fn id(&self) -> &str {
        &self.spec.instance
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        let (ours, theirs) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        let control = FakeControl {
            instance: Arc::downgrade(&self.shared),
            spec: self.spec.clone(),
            log: self.log.clone(),
        };
        let mut connections = lock(&self.shared.connections);
        if let Some(report) = self.shared.report() {
            return Err(ConnectError::Ended(report));
        }
        self.ledger.connections.fetch_add(1, Ordering::SeqCst);
        connections.retain(|connection| !connection.is_finished());
        connections.push(tokio::spawn((self.serve)(theirs, control)).abort_handle());
        Ok(Box::new(ours))
    }

    async fn ended(&self) -> EndReport {
        let mut end = self.shared.end.subscribe();
        let ended = end.wait_for(Option::is_some).await.map(|report| report.clone());
        match ended {
            Ok(Some(report)) => report,
            // The sender lives in `self`, and the predicate asked for a report.
            Ok(None) | Err(_) => unreachable!("an instance ended without a report"),
        }
    }

    async fn start_stages(&self) -> StartStages {
        self.stages
    }

    fn pause(&self) -> std::io::Result<()> {
        self.ledger.paused.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn resume(&self) -> std::io::Result<()> {
        self.ledger.paused.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn can_be_reset(&self) -> bool {
        self.can_be_reset
    }

    async fn reset(&self) -> Result<(), ResetError> {
        for connection in lock(&self.shared.connections).drain(..) {
            connection.abort();
        }
        tokio::time::sleep(self.reset_delay).await;
        if let Some(report) = self.shared.report() {
            return Err(ResetError::Ended(report));
        }
        let left = self
            .resets
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| ResetError::Unsupported)
    }

    async fn stop(&self, reason: StopReason) -> EndReport {
        let cause = match reason {
            StopReason::TimedOut { after } => EndCause::TimedOut { after },
            StopReason::NotNeeded | StopReason::CallerGone => EndCause::Stopped,
        };
        if self.shared.end(cause) {
            lock(&self.ledger.stops).push(reason);
        }
        self.ended().await
    }
}
