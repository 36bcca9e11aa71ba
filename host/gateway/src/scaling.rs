//! What OpenFaaS's labels and a deployment's annotations say of how many instances there are, and how many invocations each
//! serves at a time. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use spore_pool::{LoadKind, PoolLimits, ScaleTarget, Scaling};
use spore_store::FunctionDeployment;

use crate::config::DaemonConfig;
use crate::names::excerpt;
use crate::quantity::parse_duration;

/// Most instances of a function that names no bound.
const DEFAULT_MAX_INSTANCES: u32 = 20;
/// By how much of the maximum an alert scales up a function that does not say so, in percent.
const DEFAULT_FACTOR_PERCENT: u32 = 20;
/// How much of the target is aimed for, unless a function says otherwise, in thousandths.
const DEFAULT_PROPORTION_THOUSANDTHS: u64 = 900;
/// What an instance is to bear, unless a function that has a type or a proportion says otherwise.
const DEFAULT_TARGET: f64 = 50.0;
/// Highest target, which is no target at all.
const TARGET_MAX: f64 = 1e6;
/// How long a function is idle before it has no instance, where it says that it may and not when.
const DEFAULT_ZERO_DURATION: Duration = Duration::from_secs(15 * 60);
/// Longest window in which instances of a higher load are kept.
const DOWN_WINDOW_MAX: Duration = Duration::from_secs(5 * 60);
/// Most invocations of an instance at a time. Each takes one of the 64 streams that an instance has, of which those to the
/// outside need some.
const CONCURRENCY_MAX: u32 = 32;
/// Most requests that may wait.
const WAITING_MAX: u32 = 1_000_000;

const MIN: &str = "com.openfaas.scale.min";
const MAX: &str = "com.openfaas.scale.max";
const FACTOR: &str = "com.openfaas.scale.factor";
const TYPE: &str = "com.openfaas.scale.type";
const TARGET: &str = "com.openfaas.scale.target";
const PROPORTION: &str = "com.openfaas.scale.target-proportion";
const ZERO: &str = "com.openfaas.scale.zero";
const ZERO_DURATION: &str = "com.openfaas.scale.zero-duration";
const DOWN_WINDOW: &str = "com.openfaas.scale.down.window";
const AHEAD: &str = "dev.spore.ahead";
/// After how long an idle instance is paused.
pub(crate) const PAUSE_AFTER: &str = "dev.spore.pause-after";
const CONCURRENCY: &str = "dev.spore.concurrency";
const MAX_WAITING: &str = "dev.spore.max-waiting";
const MAX_INFLIGHT: &str = "dev.spore.max-inflight";
/// The watchdogs' variable for the same.
const MAX_INFLIGHT_VARIABLE: &str = "max_inflight";

/// Why what a deployment says of scaling was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScalingError {
    #[error("{name} is `{text}`: write {allowed}")]
    Value {
        /// The label or annotation.
        name: &'static str,
        text: String,
        /// What may stand there.
        allowed: &'static str,
    },
    #[error("{MIN} is {min}, more than {MAX}, which is {max}")]
    MinAboveMax { min: u32, max: u32 },
    #[error("{AHEAD} is {ahead}, more than {MAX}, which is {max}")]
    AheadAboveMax { ahead: u32, max: u32 },
    #[error(
        "{CONCURRENCY} is {concurrency}, but each invocation of the function has an instance of its own (isolation per \
         request, or a command): leave one of both out"
    )]
    SharedAndAlone { concurrency: u32 },
    #[error(
        "{CONCURRENCY} is {concurrency}, but a function of AWS Lambda is given one event at a time: leave it out"
    )]
    SharedEvents { concurrency: u32 },
    #[error("{CONCURRENCY} is {concurrency}, more than {name}, which is {max_inflight}")]
    ConcurrencyAboveInflight {
        name: &'static str,
        concurrency: u32,
        max_inflight: u32,
    },
}

type Settable = Option<BTreeMap<String, String>>;

/// What a load is called in metrics, and what an instance is to bear of it.
pub(crate) type ShownTarget = (&'static str, f64);

/// What is not the pool's business, beside what is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    pub(crate) limits: PoolLimits,
    /// By how much of the maximum an alert scales up, in percent.
    pub(crate) factor_percent: u32,
    /// What the load is called in metrics, and what an instance is to bear of it.
    pub(crate) target: Option<ShownTarget>,
}

impl Scale {
    /// Reads labels and annotations; the daemon's configuration fills in what they leave open.
    pub(crate) fn of(
        deployment: &FunctionDeployment,
        idle_timeout: Duration,
        one_invocation: bool,
        config: &DaemonConfig,
    ) -> Result<Self, ScalingError> {
        let (labels, annotations) = (&deployment.labels, &deployment.annotations);
        let zero = switch(labels, ZERO)?;
        let min = number(labels, MIN, 0, u32::MAX, "a number of instances, 0 or more")?;
        // Without a word the minimum is none; whoever says that there must not be none wants what OpenFaaS keeps.
        let min_instances = min.unwrap_or(u32::from(zero == Some(false)));
        let max = number(labels, MAX, 1, u32::MAX, "a number of instances, 1 or more")?;
        let max_instances = max.unwrap_or(DEFAULT_MAX_INSTANCES.max(min_instances));
        if min_instances > max_instances {
            return Err(ScalingError::MinAboveMax {
                min: min_instances,
                max: max_instances,
            });
        }
        let zero_after = duration(labels, ZERO_DURATION, Duration::from_millis(1), Duration::MAX)?;
        let zero_after = zero_after.unwrap_or(DEFAULT_ZERO_DURATION);
        let down_window = duration(labels, DOWN_WINDOW, Duration::ZERO, DOWN_WINDOW_MAX)?;
        let (target, shown) = target(labels)?.unzip();
        let concurrency = number(
            annotations,
            CONCURRENCY,
            1,
            CONCURRENCY_MAX,
            "a number from 1 to 32",
        )?;
        let concurrency = concurrency.unwrap_or(1);
        if one_invocation && concurrency > 1 {
            return Err(ScalingError::SharedAndAlone { concurrency });
        }
        let ahead = number(
            annotations,
            AHEAD,
            0,
            u32::MAX,
            "a number of instances, 0 or more",
        )?;
        let ahead = ahead.unwrap_or(0);
        if ahead > max_instances {
            return Err(ScalingError::AheadAboveMax {
                ahead,
                max: max_instances,
            });
        }
        let waiting = number(
            annotations,
            MAX_WAITING,
            0,
            WAITING_MAX,
            "a number of requests from 0 to 1000000",
        )?;
        Ok(Self {
            limits: PoolLimits {
                min_instances,
                max_instances,
                max_waiting: waiting.map_or(config.max_waiting, |waiting| waiting as usize),
                idle_timeout,
                pause_after: duration(annotations, PAUSE_AFTER, Duration::from_millis(1), Duration::MAX)?,
                ahead,
                one_invocation,
                concurrency,
                scaling: Scaling {
                    target,
                    down_window: down_window.unwrap_or_default(),
                    zero_after: (zero == Some(true)).then_some(zero_after),
                },
            },
            factor_percent: number(labels, FACTOR, 0, 100, "a percentage from 0 to 100")?
                .unwrap_or(DEFAULT_FACTOR_PERCENT),
            target: shown,
        })
    }
}

/// What an instance is to bear, as the pool knows it and as metrics show it; none if no label asks for that.
fn target(labels: &Settable) -> Result<Option<(ScaleTarget, ShownTarget)>, ScalingError> {
    let [kind, target, proportion] = [TYPE, TARGET, PROPORTION].map(|name| setting(labels, name));
    if kind.is_none() && target.is_none() && proportion.is_none() {
        return Ok(None);
    }
    let (kind, name) = match kind.unwrap_or("rps") {
        "rps" => (LoadKind::RequestsPerSecond, "rps"),
        "capacity" => (LoadKind::InFlight, "capacity"),
        "cpu" => (LoadKind::Processor, "cpu"),
        "queue" => (LoadKind::Queued, "queue"),
        other => {
            return Err(ScalingError::Value {
                name: TYPE,
                text: excerpt(other),
                allowed: "`rps` (requests a second), `capacity` (requests under way), `cpu` (thousandths of a processor) or \
                          `queue` (invocations that nobody waits for); there are no types of one's own here",
            });
        }
    };
    let target = decimal(
        target,
        TARGET,
        TARGET_MAX,
        "a number above 0, up to 1000000: how much of the load one instance is to bear",
    )?;
    let target = target.unwrap_or(DEFAULT_TARGET);
    let proportion = decimal(
        proportion,
        PROPORTION,
        1.0,
        "a fraction above 0, up to 1, such as 0.9",
    )?;
    let proportion = proportion.unwrap_or(DEFAULT_PROPORTION_THOUSANDTHS as f64 / 1000.0);
    let thousandths = (target * proportion * 1000.0).round().max(1.0);
    let pool = ScaleTarget {
        kind,
        per_instance_thousandths: thousandths as u64,
    };
    Ok(Some((pool, (name, target))))
}

/// Most invocations under way for each instance, those that wait included; what says so, and how many. More are told by 429
/// at once, as the watchdogs do.
pub(crate) fn max_inflight(
    deployment: &FunctionDeployment,
    environment: &[(String, String)],
) -> Result<Option<(&'static str, u32)>, ScalingError> {
    const ALLOWED: &str = "a number of invocations, 0 for as many as may wait anyway";
    let annotated = number(&deployment.annotations, MAX_INFLIGHT, 0, WAITING_MAX, ALLOWED)?;
    let (name, found) = match annotated {
        Some(number) => (MAX_INFLIGHT, Some(number)),
        None => {
            let variable = environment.iter().find(|(name, _)| name == MAX_INFLIGHT_VARIABLE);
            let text = variable
                .map(|(_, value)| value.as_str())
                .filter(|text| !text.is_empty());
            let name = "the variable max_inflight";
            (name, parse(text, name, 0, WAITING_MAX, ALLOWED)?)
        }
    };
    Ok(found.filter(|number| *number > 0).map(|number| (name, number)))
}

/// Bounds what may wait so that no more than `max_inflight` invocations for each instance are under way.
pub(crate) fn bound_inflight(
    limits: &mut PoolLimits,
    (name, max_inflight): (&'static str, u32),
) -> Result<(), ScalingError> {
    let concurrency = limits.concurrency;
    if concurrency > max_inflight {
        return Err(ScalingError::ConcurrencyAboveInflight {
            name,
            concurrency,
            max_inflight,
        });
    }
    let waiting = u64::from(max_inflight - concurrency) * u64::from(limits.max_instances);
    let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
    limits.max_waiting = limits.max_waiting.min(waiting);
    Ok(())
}

/// Refuses what a function of AWS Lambda cannot do.
pub(crate) fn check_events(limits: &PoolLimits) -> Result<(), ScalingError> {
    match limits.concurrency {
        0 | 1 => Ok(()),
        concurrency => Err(ScalingError::SharedEvents { concurrency }),
    }
}

/// Makes an instance serve one invocation only.
pub(crate) fn serve_alone(limits: &mut PoolLimits) -> Result<(), ScalingError> {
    limits.one_invocation = true;
    match limits.concurrency {
        0 | 1 => Ok(()),
        concurrency => Err(ScalingError::SharedAndAlone { concurrency }),
    }
}

fn setting<'a>(settable: &'a Settable, name: &str) -> Option<&'a str> {
    settable.as_ref()?.get(name).map(String::as_str)
}

fn bad(name: &'static str, text: &str, allowed: &'static str) -> ScalingError {
    ScalingError::Value {
        name,
        text: excerpt(text),
        allowed,
    }
}

fn parse(
    text: Option<&str>,
    name: &'static str,
    least: u32,
    most: u32,
    allowed: &'static str,
) -> Result<Option<u32>, ScalingError> {
    let parse = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_plain);
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| bad(name, text, allowed))
    };
    text.map(parse).transpose()
}

fn number(
    settable: &Settable,
    name: &'static str,
    least: u32,
    most: u32,
    allowed: &'static str,
) -> Result<Option<u32>, ScalingError> {
    parse(setting(settable, name), name, least, most, allowed)
}

fn decimal(
    text: Option<&str>,
    name: &'static str,
    most: f64,
    allowed: &'static str,
) -> Result<Option<f64>, ScalingError> {
    let parse = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = text.parse::<f64>().ok().filter(|_| is_plain);
        number
            .filter(|number| *number > 0.0 && *number <= most)
            .ok_or_else(|| bad(name, text, allowed))
    };
    text.map(parse).transpose()
}

fn switch(settable: &Settable, name: &'static str) -> Result<Option<bool>, ScalingError> {
    let parse = |text: &str| text.parse().map_err(|_| bad(name, text, "`true` or `false`"));
    setting(settable, name).map(parse).transpose()
}

fn duration(
    settable: &Settable,
    name: &'static str,
    least: Duration,
    most: Duration,
) -> Result<Option<Duration>, ScalingError> {
    let allowed = match most {
        DOWN_WINDOW_MAX => "a duration of at most five minutes, such as 2m",
        _ => "a duration above zero, such as 15m",
    };
    let parse = |text: &str| {
        parse_duration(text)
            .filter(|duration| (least..=most).contains(duration))
            .ok_or_else(|| bad(name, text, allowed))
    };
    setting(settable, name).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deployment(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> FunctionDeployment {
        let map = |pairs: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            Some(pairs.iter().map(owned).collect())
        };
        FunctionDeployment {
            labels: map(labels),
            annotations: map(annotations),
            ..FunctionDeployment::default()
        }
    }

    fn scale(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Result<Scale, ScalingError> {
        let deployment = deployment(labels, annotations);
        let config = DaemonConfig::default();
        Scale::of(&deployment, config.idle_timeout, false, &config)
    }

    #[test]
    fn nothing_is_kept_unless_somebody_asks_for_it() {
        let plain = scale(&[], &[]).expect("valid").limits;
        assert_eq!((plain.min_instances, plain.max_instances), (0, 20));
        assert_eq!((plain.concurrency, plain.max_waiting), (1, 1000));
        assert_eq!(plain.scaling, Scaling::default());
        let of = |labels: &[(&str, &str)]| scale(labels, &[]).expect("valid").limits;
        assert_eq!(
            of(&[(ZERO, "false")]).min_instances,
            1,
            "that is OpenFaaS's minimum"
        );
        assert_eq!(of(&[(ZERO, "false"), (MIN, "0")]).min_instances, 0);
        let zero = of(&[(ZERO, "true"), (MIN, "2")]);
        assert_eq!(
            (zero.min_instances, zero.scaling.zero_after),
            (2, Some(Duration::from_secs(900)))
        );
        let zero = of(&[(ZERO, "true"), (ZERO_DURATION, "90s"), (DOWN_WINDOW, "5m")]);
        assert_eq!(zero.scaling.zero_after, Some(Duration::from_secs(90)));
        assert_eq!(zero.scaling.down_window, Duration::from_secs(300));
        assert_eq!(
            of(&[(ZERO_DURATION, "90s")]).scaling.zero_after,
            None,
            "nobody has asked"
        );
        assert_eq!(of(&[(MIN, "30")]).max_instances, 30);
    }

    #[test]
    fn a_target_counts_with_its_proportion() {
        let of = |labels: &[(&str, &str)]| scale(labels, &[]).expect("valid").limits.scaling.target;
        let expected = |kind, per_instance_thousandths| {
            Some(ScaleTarget {
                kind,
                per_instance_thousandths,
            })
        };
        assert_eq!(
            of(&[(TARGET, "10")]),
            expected(LoadKind::RequestsPerSecond, 9_000)
        );
        assert_eq!(
            of(&[(TYPE, "cpu"), (TARGET, "500")]),
            expected(LoadKind::Processor, 450_000)
        );
        assert_eq!(of(&[(TYPE, "capacity")]), expected(LoadKind::InFlight, 45_000));
        let queue = [(TYPE, "queue"), (TARGET, "2.5"), (PROPORTION, "1")];
        assert_eq!(of(&queue), expected(LoadKind::Queued, 2_500));
    }

    #[test]
    fn what_is_under_way_is_bounded_by_instance() {
        let bounded = |annotations: &[(&str, &str)], variable: &str| {
            let deployment = deployment(&[(MAX, "4")], annotations);
            let mut limits = scale(&[(MAX, "4")], annotations).expect("valid").limits;
            let environment = [(MAX_INFLIGHT_VARIABLE.to_owned(), variable.to_owned())];
            match max_inflight(&deployment, &environment)? {
                Some(bound) => bound_inflight(&mut limits, bound).map(|()| limits.max_waiting),
                None => Ok(limits.max_waiting),
            }
        };
        assert_eq!(bounded(&[], "0"), Ok(1000));
        assert_eq!(
            bounded(&[], "1"),
            Ok(0),
            "whoever finds no place is told so at once"
        );
        assert_eq!(bounded(&[], "3"), Ok(8));
        assert_eq!(bounded(&[(MAX_INFLIGHT, "2")], "9"), Ok(4));
        assert_eq!(bounded(&[(CONCURRENCY, "3")], "3"), Ok(0));
        assert!(bounded(&[(CONCURRENCY, "4")], "3").is_err() && bounded(&[], "many").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let labels = [
            (MIN, "-1"),
            (MIN, "+1"),
            (MIN, "two"),
            (MAX, "0"),
            (FACTOR, "101"),
            (TYPE, "memory"),
            (TYPE, "RPS"),
            (TARGET, "0"),
            (TARGET, "1e3"),
            (TARGET, "inf"),
            (TARGET, "1000001"),
            (PROPORTION, "1.1"),
            (PROPORTION, "90%"),
            (ZERO, "yes"),
            (ZERO_DURATION, "0"),
            (ZERO_DURATION, "soon"),
            (DOWN_WINDOW, "6m"),
        ];
        for (name, text) in labels {
            let error = scale(&[(name, text)], &[])
                .expect_err("it is refused")
                .to_string();
            assert!(
                error.starts_with(&format!("{name} is `{text}`: write ")),
                "{error}"
            );
        }
        for (name, text) in [
            (CONCURRENCY, "0"),
            (CONCURRENCY, "33"),
            (MAX_WAITING, "-1"),
            (MAX_WAITING, "1000001"),
        ] {
            let error = scale(&[], &[(name, text)])
                .expect_err("it is refused")
                .to_string();
            assert!(
                error.starts_with(&format!("{name} is `{text}`: write ")),
                "{error}"
            );
        }
        assert!(scale(&[(MIN, "3"), (MAX, "2")], &[]).is_err());
        let config = DaemonConfig::default();
        let alone = Scale::of(
            &deployment(&[], &[(CONCURRENCY, "2")]),
            config.idle_timeout,
            true,
            &config,
        );
        assert_eq!(alone, Err(ScalingError::SharedAndAlone { concurrency: 2 }));
    }

    proptest! {
        /// Whatever stands in the labels, they are refused or mean something.
        #[test]
        fn labels_are_valid_or_refused(values in prop::collection::vec("[0-9a-z.]{0,6}|true|false|rps|capacity|queue|[0-9]{1,3}[ms]?", 9)) {
            let names = [MIN, MAX, FACTOR, TYPE, TARGET, PROPORTION, ZERO, ZERO_DURATION, DOWN_WINDOW];
            for with in 0..names.len() {
                let pairs: Vec<_> = names.iter().copied().zip(values.iter().map(String::as_str)).take(with + 1).collect();
                if let Ok(scale) = scale(&pairs, &[]) {
                    let limits = scale.limits;
                    prop_assert!(limits.min_instances <= limits.max_instances && limits.max_instances > 0);
                    prop_assert!(limits.scaling.zero_after.is_none_or(|after| !after.is_zero()));
                    prop_assert!(limits.scaling.target.is_none_or(|target| target.per_instance_thousandths > 0));
                    prop_assert!(limits.scaling.down_window <= DOWN_WINDOW_MAX && scale.factor_percent <= 100);
                }
            }
        }
    }
}
