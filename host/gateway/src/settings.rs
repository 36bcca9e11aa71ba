//! What a deployment's fields mean for this platform. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spore_pool::{LoadKind, PoolLimits};
use spore_queue::{RetryPolicy, RetryPolicyError};
use spore_sandbox::{EgressRule, EgressRuleError, Isolation, SECRETS_BYTES_MAX, SandboxKind};
use spore_store::{FunctionDeployment, Protocol};
use spore_trigger::{Triggers, TriggersError};

use crate::chain::{self, LinksError};
use crate::config::DaemonConfig;
use crate::fixed_request::{self, FixedRequest, NoRequest};
use crate::lambda::EventForm;
use crate::names::{excerpt, is_name};
use crate::quantity::{parse_duration, parse_memory, parse_processor_millis};
use crate::scaling::{self, PAUSE_AFTER, Scale, ScalingError};

/// Memory of a function that names no limit, in bytes.
const DEFAULT_MEMORY_BYTES: u64 = 128 << 20;
/// Processor time of a function that names no limit, in thousandths of one processor.
const DEFAULT_PROCESSOR_MILLIS: u32 = 1000;
/// How long a WebSocket and its kin may be idle, unless the function says otherwise.
const DEFAULT_UPGRADE_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

const TIMEOUT: &str = "dev.spore.timeout";
const IDLE_TIMEOUT: &str = "dev.spore.idle-timeout";
const UPGRADE_IDLE_TIMEOUT: &str = "dev.spore.upgrade-idle-timeout";
const REWRITING: &str = "dev.spore.syscall-rewriting";
const CLONING: &str = "dev.spore.snapshot";
const ISOLATION: &str = "dev.spore.isolation";
const SANDBOX: &str = "dev.spore.sandbox";
const ONE_INVOCATION: &str = "dev.spore.isolation-per-request";
const RESET: &str = "dev.spore.reset-in-place";
const PROTOCOL: &str = "dev.spore.protocol";
const LAMBDA_EVENT: &str = "dev.spore.lambda.event";
const EGRESS: &str = "dev.spore.allow-egress";

/// Why a deployment's fields were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A program cannot be started for each invocation and ask for invocations too.
    #[error(
        "`fprocess` makes a command of the function, which asks for no events of AWS Lambda: leave one of `fprocess` and \
         `dev.spore.protocol: lambda` out"
    )]
    TwoProtocols,
    #[error(
        "`{name}` cannot be the name of a function: use 1 to 63 lower-case letters, digits and dashes, \
         with a letter or digit first and last"
    )]
    Name { name: String },
    #[error("no image is named: set the field `image`")]
    NoImage,
    #[error("the secret `{name}` does not exist: make it first (POST /system/secrets)")]
    UnknownSecret { name: String },
    #[error("the secrets take {bytes} bytes, more than the {SECRETS_BYTES_MAX} that a function may have")]
    SecretsTooLong { bytes: usize },
    #[error("there is no resource `{name}` here: leave it out of limits and requests")]
    UnknownResource { name: String },
    #[error("the memory limit `{text}` is not an amount of memory: write it like 128Mi")]
    Memory { text: String },
    #[error("the CPU limit `{text}` is not an amount of processor time: write it like 500m or 1.5")]
    Processor { text: String },
    #[error("{setting} is `{text}`, which is not a duration: write it like 30s or 1m30s")]
    Duration { setting: &'static str, text: String },
    #[error("the variable content_type is `{text}`, which cannot be a header")]
    ContentType { text: String },
    #[error("{setting} is `{text}`, which is neither true nor false")]
    Switch { setting: &'static str, text: String },
    #[error("{ISOLATION} is `{text}`, which is neither vm nor process")]
    Isolation { text: String },
    #[error("{SANDBOX} is `{text}`, which is none of {}", SandboxKind::ALL.map(SandboxKind::name).join(", "))]
    Sandbox { text: String },
    #[error(
        "{PAUSE_AFTER} is for containers: leave it out, or choose a sandbox that makes some (the function's is `{sandbox}`, whose \
         idle instances wait without it)"
    )]
    NoPause { sandbox: SandboxKind },
    #[error("{PROTOCOL} is `{text}`, which is neither http nor lambda")]
    Protocol { text: String },
    #[error("{LAMBDA_EVENT} is `{text}`, which is neither http nor raw")]
    LambdaEvent { text: String },
    #[error("{EGRESS} is not valid: {0}")]
    Egress(#[from] EgressRuleError),
    #[error("{} is `{text}`: {reason}", fixed_request::ANNOTATION)]
    FixedRequest { text: String, reason: NoRequest },
    #[error(
        "{} is for functions that are HTTP servers, which this one is not: leave it out",
        fixed_request::ANNOTATION
    )]
    NoServer,
    #[error(transparent)]
    Retry(#[from] RetryPolicyError),
    #[error(transparent)]
    Scaling(#[from] ScalingError),
    #[error(transparent)]
    Chain(#[from] LinksError),
    #[error(transparent)]
    Triggers(#[from] TriggersError),
    #[error("the function watches a folder, but the daemon none: start it with --trigger-folder DIR")]
    NoTriggerFolder,
    #[error("`{name}` cannot be an environment variable: its name is empty, or holds = or a zero byte")]
    Environment { name: String },
}

/// A deployment's fields in this platform's terms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) limits: PoolLimits,
    /// By how much of the maximum an alert scales up, in percent.
    pub(crate) scale_factor_percent: u32,
    /// What its load is called, and what an instance is to bear of it.
    pub(crate) scale_target: Option<(&'static str, f64)>,
    /// Most invocations under way for each instance, if somebody says so.
    pub(crate) max_inflight: Option<u32>,
    /// The functions that its answers go on to.
    pub(crate) chain: Option<Arc<[String]>>,
    /// What calls it without a caller.
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) timeout: Duration,
    /// How long an upgraded connection may be idle.
    pub(crate) upgrade_idle_timeout: Duration,
    /// What each invocation is, if not what its caller asks.
    pub(crate) fixed_request: Option<FixedRequest>,
    pub(crate) memory_bytes: u64,
    pub(crate) processor_millis: u32,
    pub(crate) rewrites_calls: bool,
    pub(crate) is_cloned: bool,
    /// Whether an instance that is for one invocation may be reset for the next one.
    pub(crate) is_reset: bool,
    pub(crate) isolation: Option<Isolation>,
    /// The kind of sandbox of its instances.
    pub(crate) sandbox: SandboxKind,
    pub(crate) protocol: Protocol,
    /// What the events of a Lambda function are made of.
    pub(crate) event_form: EventForm,
    pub(crate) egress: Vec<EgressRule>,
}

impl Settings {
    /// Checks the fields; the daemon's configuration fills in what they leave open.
    pub(crate) fn of(deployment: &FunctionDeployment, config: &DaemonConfig) -> Result<Self, SettingsError> {
        if !is_name(&deployment.service) {
            return Err(SettingsError::Name {
                name: excerpt(&deployment.service),
            });
        }
        if deployment.image.is_empty() {
            return Err(SettingsError::NoImage);
        }
        let resources = deployment.limits.iter().chain(&deployment.requests);
        if let Some(name) = resources.flat_map(|resources| resources.others.keys()).next() {
            return Err(SettingsError::UnknownResource { name: excerpt(name) });
        }
        check_environment(deployment)?;
        let chain = chain::of_deployment(deployment)?;
        retry_policy(deployment)?;
        let idle_timeout = duration(&deployment.annotations, IDLE_TIMEOUT)?.unwrap_or(config.idle_timeout);
        let one_invocation = switch(&deployment.annotations, ONE_INVOCATION)?.unwrap_or(false);
        let scale = Scale::of(deployment, idle_timeout, one_invocation, config)?;
        let limits = scale.limits;
        let timeout = duration(&deployment.annotations, TIMEOUT)?.unwrap_or(config.invocation_timeout);
        if timeout.is_zero() {
            return Err(SettingsError::Duration {
                setting: TIMEOUT,
                text: "0".to_owned(),
            });
        }
        let sandbox = named(&deployment.annotations, SANDBOX, SandboxKind::from_name)
            .map_err(|text| SettingsError::Sandbox { text })?;
        if limits.pause_after.is_some() && !sandbox.is_container() {
            return Err(SettingsError::NoPause { sandbox });
        }
        let protocol = named(&deployment.annotations, PROTOCOL, Protocol::from_name)
            .map_err(|text| SettingsError::Protocol { text })?;
        if protocol == Protocol::Lambda {
            scaling::check_events(&limits)?;
        }
        let fixed_request = fixed_request(&deployment.annotations)?;
        if fixed_request.is_some() && protocol != Protocol::Http {
            return Err(SettingsError::NoServer);
        }
        Ok(Self {
            limits,
            scale_factor_percent: scale.factor_percent,
            scale_target: scale.target,
            max_inflight: None,
            chain: chain.map(Into::into),
            triggers: Arc::new(Triggers::of(deployment.annotations.as_ref())?),
            timeout,
            upgrade_idle_timeout: duration(&deployment.annotations, UPGRADE_IDLE_TIMEOUT)?
                .unwrap_or(DEFAULT_UPGRADE_IDLE_TIMEOUT),
            fixed_request,
            memory_bytes: memory_bytes(deployment)?,
            isolation: isolation(&deployment.annotations)?,
            sandbox,
            processor_millis: processor_millis(deployment)?,
            rewrites_calls: switch(&deployment.annotations, REWRITING)?.unwrap_or(true),
            is_cloned: switch(&deployment.annotations, CLONING)?.unwrap_or(false),
            is_reset: limits.one_invocation && switch(&deployment.annotations, RESET)?.unwrap_or(true),
            protocol,
            event_form: named(&deployment.annotations, LAMBDA_EVENT, EventForm::from_name)
                .map_err(|text| SettingsError::LambdaEvent { text })?,
            egress: EgressRule::parse_list(setting(&deployment.annotations, EGRESS).unwrap_or_default())?,
        })
    }
}

impl Settings {
    /// The image is one for AWS Lambda: its program asks for events, unless the deployment names another protocol.
    pub(crate) fn ask_for_events(&mut self, deployment: &FunctionDeployment) -> Result<(), SettingsError> {
        if setting(&deployment.annotations, PROTOCOL).is_none() {
            if self.fixed_request.is_some() {
                return Err(SettingsError::NoServer);
            }
            self.protocol = Protocol::Lambda;
            scaling::check_events(&self.limits)?;
        }
        Ok(())
    }

    /// The function is a command: each invocation has an instance of its own, which is a copy of one that stands before
    /// the command's first instruction unless the deployment says otherwise.
    pub(crate) fn run_commands(&mut self, deployment: &FunctionDeployment) -> Result<(), SettingsError> {
        if self.protocol == Protocol::Lambda {
            return Err(SettingsError::TwoProtocols);
        }
        if self.fixed_request.is_some() {
            return Err(SettingsError::NoServer);
        }
        self.protocol = Protocol::Exec;
        scaling::serve_alone(&mut self.limits)?;
        self.is_cloned = switch(&deployment.annotations, CLONING)?.unwrap_or(true);
        self.is_reset = switch(&deployment.annotations, RESET)?.unwrap_or(true);
        Ok(())
    }
}

impl Settings {
    /// What its load is, if its pool has to be told.
    pub(crate) fn told_load(&self) -> Option<LoadKind> {
        let kind = self.limits.scaling.target.map(|target| target.kind);
        kind.filter(|kind| matches!(kind, LoadKind::Queued | LoadKind::Processor))
    }

    /// Bounds the invocations under way as deployment and variables say.
    pub(crate) fn bound_inflight(
        &mut self,
        deployment: &FunctionDeployment,
        environment: &[(String, String)],
    ) -> Result<(), SettingsError> {
        if let Some(bound) = scaling::max_inflight(deployment, environment)? {
            scaling::bound_inflight(&mut self.limits, bound)?;
            self.max_inflight = Some(bound.1);
        }
        Ok(())
    }
}

/// What becomes of invocations that nobody waits for and that failed.
pub(crate) fn retry_policy(deployment: &FunctionDeployment) -> Result<RetryPolicy, RetryPolicyError> {
    RetryPolicy::of(deployment.annotations.as_ref(), parse_duration)
}

fn check_environment(deployment: &FunctionDeployment) -> Result<(), SettingsError> {
    for (name, value) in deployment.env_vars.iter().flatten() {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(SettingsError::Environment { name: name.clone() });
        }
    }
    Ok(())
}

fn memory_bytes(deployment: &FunctionDeployment) -> Result<u64, SettingsError> {
    let text = deployment
        .limits
        .as_ref()
        .map_or("", |limits| limits.memory.as_str());
    if text.is_empty() {
        return Ok(DEFAULT_MEMORY_BYTES);
    }
    let bytes = parse_memory(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| SettingsError::Memory {
        text: text.to_owned(),
    })
}

fn processor_millis(deployment: &FunctionDeployment) -> Result<u32, SettingsError> {
    let text = deployment
        .limits
        .as_ref()
        .map_or("", |limits| limits.cpu.as_str());
    if text.is_empty() {
        return Ok(DEFAULT_PROCESSOR_MILLIS);
    }
    let millis = parse_processor_millis(text).filter(|millis| *millis > 0);
    millis.ok_or_else(|| SettingsError::Processor {
        text: text.to_owned(),
    })
}

type Settable = Option<BTreeMap<String, String>>;

fn setting<'a>(settable: &'a Settable, name: &str) -> Option<&'a str> {
    settable.as_ref()?.get(name).map(String::as_str)
}

fn switch(annotations: &Settable, name: &'static str) -> Result<Option<bool>, SettingsError> {
    let parse = |text: &str| {
        text.parse().map_err(|_| SettingsError::Switch {
            setting: name,
            text: text.to_owned(),
        })
    };
    setting(annotations, name).map(parse).transpose()
}

/// The value that a setting names, or the default; the text that names none.
fn named<T: Default>(
    annotations: &Settable,
    name: &str,
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<T, String> {
    match setting(annotations, name) {
        Some(text) => from_name(text).ok_or_else(|| excerpt(text)),
        None => Ok(T::default()),
    }
}

fn fixed_request(annotations: &Settable) -> Result<Option<FixedRequest>, SettingsError> {
    let parse = |text: &str| {
        text.parse().map_err(|reason| SettingsError::FixedRequest {
            text: excerpt(text),
            reason,
        })
    };
    setting(annotations, fixed_request::ANNOTATION)
        .map(parse)
        .transpose()
}

fn isolation(annotations: &Settable) -> Result<Option<Isolation>, SettingsError> {
    let parse = |text: &str| {
        Isolation::from_name(text).ok_or_else(|| SettingsError::Isolation {
            text: text.to_owned(),
        })
    };
    setting(annotations, ISOLATION).map(parse).transpose()
}

fn duration(annotations: &Settable, name: &'static str) -> Result<Option<Duration>, SettingsError> {
    let parse = |text: &str| {
        parse_duration(text).ok_or_else(|| SettingsError::Duration {
            setting: name,
            text: text.to_owned(),
        })
    };
    setting(annotations, name).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> FunctionDeployment {
        let map = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        FunctionDeployment {
            service: "hello".to_owned(),
            image: "hello:latest".to_owned(),
            labels: map(labels),
            annotations: map(annotations),
            ..FunctionDeployment::default()
        }
    }

    fn settings(deployment: &FunctionDeployment) -> Result<Settings, SettingsError> {
        Settings::of(deployment, &DaemonConfig::default())
    }

    #[test]
    fn a_command_asks_for_no_events() {
        let plain = deployment(&[], &[]);
        let mut command = settings(&plain).expect("valid");
        assert!(command.run_commands(&plain).is_ok());
        assert_eq!(command.protocol, Protocol::Exec);
        assert!(command.limits.one_invocation && command.is_cloned && command.is_reset);
        let lambda = deployment(&[], &[(PROTOCOL, "lambda")]);
        let refused = settings(&lambda).expect("valid").run_commands(&lambda);
        assert!(matches!(refused, Err(SettingsError::TwoProtocols)), "{refused:?}");
    }

    #[test]
    fn defaults_and_overrides() {
        let plain = settings(&deployment(&[], &[])).expect("valid");
        assert_eq!((plain.limits.min_instances, plain.limits.max_instances), (0, 20));
        assert_eq!(
            (plain.timeout, plain.memory_bytes),
            (Duration::from_secs(60), 128 << 20)
        );
        assert!(plain.rewrites_calls && plain.egress.is_empty() && plain.isolation.is_none());
        assert!(!plain.is_cloned && !plain.limits.one_invocation);
        let set = settings(&deployment(
            &[],
            &[
                (REWRITING, "false"),
                (CLONING, "true"),
                (ONE_INVOCATION, "true"),
                (EGRESS, "db:5432,10.0.0.0/8"),
                (ISOLATION, "process"),
                (SANDBOX, "gvisor"),
                (PROTOCOL, "lambda"),
                (LAMBDA_EVENT, "raw"),
            ],
        ));
        let set = set.expect("valid");
        assert_eq!(set.isolation, Some(Isolation::Process));
        assert_eq!(
            (plain.sandbox, set.sandbox),
            (SandboxKind::Unikernel, SandboxKind::Gvisor)
        );
        assert_eq!((set.protocol, set.event_form), (Protocol::Lambda, EventForm::Raw));
        assert_eq!(
            (plain.protocol, plain.event_form),
            (Protocol::Http, EventForm::Http)
        );
        assert_eq!((set.rewrites_calls, set.egress.len()), (false, 2));
        assert!(set.is_cloned && set.limits.one_invocation);
        let labels = [("com.openfaas.scale.min", "2"), ("com.openfaas.scale.max", "3")];
        let set = settings(&deployment(&labels, &[(TIMEOUT, "1.5s"), (IDLE_TIMEOUT, "0")])).expect("valid");
        assert_eq!((set.limits.min_instances, set.limits.max_instances), (2, 3));
        assert_eq!(
            (set.timeout, set.limits.idle_timeout),
            (Duration::from_millis(1500), Duration::ZERO)
        );
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            deployment(&[("com.openfaas.scale.min", "-1")], &[]),
            deployment(&[("com.openfaas.scale.max", "0")], &[]),
            deployment(
                &[("com.openfaas.scale.min", "3"), ("com.openfaas.scale.max", "2")],
                &[],
            ),
            deployment(&[], &[(TIMEOUT, "0s")]),
            deployment(&[], &[(IDLE_TIMEOUT, "soon")]),
            deployment(&[], &[(REWRITING, "no")]),
            deployment(&[], &[(ISOLATION, "none")]),
            deployment(&[], &[(SANDBOX, "docker")]),
            deployment(&[], &[(PROTOCOL, "grpc")]),
            deployment(&[], &[(LAMBDA_EVENT, "s3")]),
            deployment(&[], &[("com.openfaas.retry.attempts", "0")]),
            deployment(&[], &[(ONE_INVOCATION, "yes")]),
            deployment(&[], &[(EGRESS, "db:5432,*.example.com")]),
            FunctionDeployment {
                image: String::new(),
                ..deployment(&[], &[])
            },
            FunctionDeployment {
                requests: serde_json::from_str(r#"{"nvidia.com/gpu": "1"}"#).expect("resources"),
                ..deployment(&[], &[])
            },
        ] {
            assert!(settings(&bad).is_err(), "{bad:?}");
        }
        let long = "a".repeat(64);
        for name in ["", "Hello", "-a", "a-", "a_b", "a.b", "ä", "../x", &long] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("a") && is_name("0-b") && is_name(&long[1..]));
    }
}
