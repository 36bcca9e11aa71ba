//! One program in one target: how an invocation finds a fresh instance, and how instances are kept ready.
//!
//! | target | fresh instance | kept ready |
//! |---|---|---|
//! | function | deployed with an idle timeout of none: each invocation starts an instance, which ends after it | a second function, scaled to so many |
//! | process | a process for each request | so many processes |
//! | URL | not possible: when its platform starts an instance is its own affair | whatever there is |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::gateway::{Gateway, GatewayError, PREFIX};
use super::process::NativeProcess;
use super::{SNAPSHOT, TargetKind, TargetSpec};
use crate::client::{Answer, Ask, Place, ask_once};
use crate::context::{Clock, Context};
use crate::measures::MeasureError;
use crate::processes::Family;
use crate::workloads::{Language, Program};

const IDLE_TIMEOUT: &str = "dev.spore.idle-timeout";
const START: &str = "x-spore-start";
const CALL_ID: &str = "x-call-id";
/// How long the daemon may take to know the stages of a start whose answer is there.
const STAGES_TIMEOUT: Duration = Duration::from_millis(200);
/// Invocations before anything is measured, where instances are copies: the first makes the snapshot, and the first copy tells
/// what copies write to. Others are asked once, to see that they answer.
const PREPARING_COPIES: usize = 2;

/// A program in a target.
pub(crate) struct Subject {
    pub(crate) target: String,
    pub(crate) language: Language,
    kind: Kind,
}

enum Kind {
    Function { fresh: String, kept: String },
    Bare { command: Vec<PathBuf>, mark: String },
    Url { place: Place },
}

/// An answer of a fresh instance.
pub(crate) struct FreshAnswer {
    /// From the request to the last byte.
    pub(crate) elapsed: Duration,
    /// From the request to when the program was there to serve it, if that can be known.
    pub(crate) initialisation: Option<Duration>,
}

/// Instances that are ready; [`Subject::release`] ends them.
pub(crate) struct Held {
    /// Where they are asked: one address for all, or one for each.
    pub(crate) places: Vec<Place>,
    function: Option<String>,
    processes: Vec<NativeProcess>,
}

impl Held {
    /// Everything that runs for the instances: processes of their own, or the daemon and what it has started.
    pub(crate) fn family(&self, context: &Context) -> Family {
        let pids: Vec<i32> = self.processes.iter().map(NativeProcess::pid).collect();
        if pids.is_empty() {
            context.family()
        } else {
            Family::now(&pids, None)
        }
    }
}

/// What a function of a language in a target is called.
pub(crate) fn function_name(target: &str, language: Language, end: &str) -> String {
    format!("{PREFIX}{}-{target}-{end}", language.name())
}

/// The name under which the image of a language is pushed.
pub(crate) fn image_name(language: Language) -> String {
    format!("{PREFIX}{}", language.name())
}

impl Subject {
    /// Deploys the program in the target, and asks it for the first time.
    pub(crate) fn deploy(
        context: &mut Context,
        target: &TargetSpec,
        program: &Program,
    ) -> Result<Self, MeasureError> {
        let language = program.language;
        let kind = match &target.kind {
            TargetKind::Bare => Kind::Bare {
                command: program.native(&context.spore)?,
                mark: context.mark.clone(),
            },
            TargetKind::Url { url } => Kind::Url {
                place: Place::parse(url).map_err(GatewayError::from)?,
            },
            TargetKind::Function { annotations } => {
                let [fresh, kept] = [("fresh", "0s"), ("kept", "1h")]
                    .map(|(end, idle)| (function_name(&target.name, language, end), idle));
                for (name, idle) in [&fresh, &kept] {
                    deploy_function(context, name, language, annotations, idle)?;
                }
                Kind::Function {
                    fresh: fresh.0,
                    kept: kept.0,
                }
            }
        };
        let subject = Self {
            target: target.name.clone(),
            language,
            kind,
        };
        let is_copied = target
            .settings()
            .get(SNAPSHOT)
            .is_some_and(|value| value == "true");
        subject.prepare(context, if is_copied { PREPARING_COPIES } else { 1 })?;
        Ok(subject)
    }

    fn prepare(&self, context: &Context, times: usize) -> Result<(), MeasureError> {
        let hello = Ask::get("/hello");
        match &self.kind {
            Kind::Function { fresh, kept } => {
                let gateway = context.gateway()?;
                for name in [fresh, kept] {
                    for _ in 0..times {
                        context
                            .clock
                            .block_on(ask_once(&gateway.function(name), &hello))?;
                    }
                }
                gateway.scale(&context.clock, kept, 0)?;
            }
            Kind::Bare { .. } => {
                self.fresh(context, &hello, false)?;
            }
            Kind::Url { place } => {
                context.clock.block_on(ask_once(place, &Ask::get("")))?;
            }
        }
        Ok(())
    }

    /// The function whose invocations all find fresh instances, if it is one.
    pub(crate) fn fresh_function(&self) -> Option<&str> {
        match &self.kind {
            Kind::Function { fresh, .. } => Some(fresh),
            _ => None,
        }
    }

    /// The function of which instances are kept.
    pub(crate) fn kept_function(&self) -> Option<&str> {
        match &self.kind {
            Kind::Function { kept, .. } => Some(kept),
            _ => None,
        }
    }

    /// Whether it runs the programs of this crate: what is behind a URL may be anything.
    pub(crate) fn has_workloads(&self) -> bool {
        !matches!(self.kind, Kind::Url { .. })
    }

    /// Asks a fresh instance; with `stages`, the gateway is asked afterwards how it came to be.
    pub(crate) fn fresh(
        &self,
        context: &Context,
        ask: &Ask,
        stages: bool,
    ) -> Result<FreshAnswer, MeasureError> {
        match &self.kind {
            Kind::Function { fresh, .. } => {
                let gateway = context.gateway()?;
                let place = gateway.function(fresh);
                let (elapsed, answer) = context.clock.block_on(ask_once(&place, ask))?;
                check_cold(&answer)?;
                let call = answer.header(CALL_ID).filter(|_| stages);
                let initialisation =
                    call.and_then(|call| initialisation(&context.clock, gateway, fresh, call));
                Ok(FreshAnswer {
                    elapsed,
                    initialisation,
                })
            }
            Kind::Bare { command, mark } => context.clock.block_on(fresh_process(command, mark, ask)),
            Kind::Url { .. } => Err(MeasureError::NotApplicable),
        }
    }

    /// Asks so many fresh instances at the same time; how long each took.
    pub(crate) fn fresh_at_once(
        &self,
        context: &Context,
        ask: &Ask,
        count: u32,
    ) -> Result<Vec<Duration>, MeasureError> {
        let mut asks = tokio::task::JoinSet::new();
        context.clock.block_on(async {
            for _ in 0..count {
                let ask = ask.clone();
                match &self.kind {
                    Kind::Function { fresh, .. } => {
                        let place = context.gateway()?.function(fresh);
                        asks.spawn(async move {
                            let (elapsed, answer) = ask_once(&place, &ask).await?;
                            check_cold(&answer).map(|()| elapsed)
                        });
                    }
                    Kind::Bare { command, mark } => {
                        let (command, mark) = (command.clone(), mark.clone());
                        asks.spawn(async move { Ok(fresh_process(&command, &mark, &ask).await?.elapsed) });
                    }
                    Kind::Url { .. } => return Err(MeasureError::NotApplicable),
                }
            }
            asks.join_all().await.into_iter().collect()
        })
    }

    /// Has so many instances ready, none of which has been asked.
    pub(crate) fn hold(&self, context: &Context, instances: u32) -> Result<Held, MeasureError> {
        match &self.kind {
            Kind::Function { kept, .. } => {
                let gateway = context.gateway()?;
                let held = Held {
                    places: vec![gateway.function(kept)],
                    function: Some(kept.clone()),
                    processes: Vec::new(),
                };
                match gateway.scale(&context.clock, kept, instances) {
                    Ok(()) => Ok(held),
                    Err(error) => {
                        let _ = self.release(context, held); // the first error is the one to tell
                        Err(error.into())
                    }
                }
            }
            Kind::Bare { command, mark } => {
                let start = |_| NativeProcess::start(command, mark);
                let processes: Vec<_> = (0..instances).map(start).collect::<Result<_, _>>()?;
                for process in &processes {
                    context.clock.block_on(process.listens())?;
                }
                Ok(Held {
                    places: processes.iter().map(|process| process.place.clone()).collect(),
                    function: None,
                    processes,
                })
            }
            Kind::Url { place } => Ok(Held {
                places: vec![place.clone()],
                function: None,
                processes: Vec::new(),
            }),
        }
    }

    /// Ends the instances.
    pub(crate) fn release(&self, context: &Context, held: Held) -> Result<(), MeasureError> {
        if let Some(function) = &held.function {
            context.gateway()?.scale(&context.clock, function, 0)?;
        }
        Ok(())
    }
}

/// Deploys the image of a language under a name, with an idle timeout.
pub(crate) fn deploy_function(
    context: &mut Context,
    name: &str,
    language: Language,
    annotations: &BTreeMap<String, String>,
    idle: &str,
) -> Result<(), MeasureError> {
    let mut annotations = annotations.clone();
    annotations.insert(IDLE_TIMEOUT.to_owned(), idle.to_owned());
    let memory = context.configuration.memory.clone();
    let (clock, gateway) = context.gateway_mut()?;
    let image = image_name(language);
    gateway.deploy(clock, name, &image, &annotations, memory.as_deref())?;
    Ok(())
}

/// Gateways that tell whether an instance was started for an invocation have to say that it was.
fn check_cold(answer: &Answer) -> Result<(), MeasureError> {
    match answer.header(START) {
        Some("warm") => Err(MeasureError::NotCold),
        _ => Ok(()),
    }
}

async fn fresh_process(command: &[PathBuf], mark: &str, ask: &Ask) -> Result<FreshAnswer, MeasureError> {
    let begun = Instant::now();
    let process = NativeProcess::start(command, mark)?;
    process.listens().await?;
    let initialisation = begun.elapsed();
    ask_once(&process.place, ask).await?;
    Ok(FreshAnswer {
        elapsed: begun.elapsed(),
        initialisation: Some(initialisation),
    })
}

/// From the request to when the program read it, as the daemon has seen it for a call: all stages of the start but the answer.
fn initialisation(clock: &Clock, gateway: &Gateway, function: &str, call: &str) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        let activity = gateway
            .get(clock, &format!("/system/function/{function}/activity"))
            .ok()?;
        let starts = activity["coldStarts"].as_array().into_iter().flatten();
        let found = starts
            .into_iter()
            .find(|start| start["callId"].as_str() == Some(call));
        if let Some(start) = found {
            let answer = start["stages"]["answer"].as_f64();
            let whole: Option<f64> = start["wholeSeconds"].as_f64();
            let is_known = start["stages"]["handlerEntered"] != Value::Null;
            let before = whole? - answer.filter(|_| is_known)?;
            return Duration::try_from_secs_f64(before).ok();
        }
        if begun.elapsed() > STAGES_TIMEOUT {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
