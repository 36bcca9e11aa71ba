//! `/metrics`: what Prometheus reads, in its text format (version 0.0.4).
//!
//! The names of OpenFaaS are kept, two of which break Prometheus's rules for names: a counter without `_total`, a gauge with
//! `_count`. These are told without a type, as the format allows, so that no client stumbles. Libraries for this format
//! do not write such; hence the few lines here. An invocation costs one lock that nobody holds for longer than it takes
//! to count; everything else is gathered when it is asked for.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use spore_queue::Queue;

use crate::body::GatewayBody;
use crate::errors::ApiError;
use crate::functions::{Function, Functions};
use crate::names::FunctionId;
use crate::reply::Answer;
use crate::settings::Settings;
use crate::usage::{self, Usage};

/// Upper bounds of a histogram's buckets, in seconds: those of OpenFaaS.
const BOUNDS_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Durations as Prometheus's histograms count them.
#[derive(Debug, Default, Clone)]
struct Histogram {
    /// Not cumulative; the last one has those beyond all bounds.
    buckets: [u64; BOUNDS_SECONDS.len() + 1],
    sum_seconds: f64,
}

impl Histogram {
    fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket] += 1;
        self.sum_seconds += seconds;
    }

    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What is counted of a function's invocations, since the daemon started or the function was deployed first.
#[derive(Debug, Default)]
pub(crate) struct InvocationCounts {
    /// By the status of the answer.
    by_status: Mutex<BTreeMap<u16, Histogram>>,
    /// Those that waited for the start of an instance.
    pub(crate) cold: AtomicU64,
}

impl InvocationCounts {
    /// Counts an invocation whose answer has begun.
    pub(crate) fn record(&self, status: StatusCode, duration: Duration) {
        let mut by_status = self.by_status.lock().unwrap_or_else(PoisonError::into_inner);
        by_status.entry(status.as_u16()).or_default().record(duration);
    }

    /// How many answers had which status.
    pub(crate) fn by_status(&self) -> BTreeMap<u16, u64> {
        let by_status = self.by_status.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = by_status
            .iter()
            .map(|(status, histogram)| (*status, histogram.count()));
        counts.collect()
    }
}

/// Which requests are counted together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RequestKind {
    path: &'static str,
    method: &'static str,
    status: u16,
}

/// What is counted of requests to the API.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts(Mutex<BTreeMap<RequestKind, Histogram>>);

impl RequestCounts {
    /// Counts a request that has its answer.
    pub(crate) fn record(&self, method: &Method, path: &str, status: StatusCode, duration: Duration) {
        let kind = RequestKind {
            path: collapsed(path),
            method: known(method),
            status: status.as_u16(),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(kind).or_default().record(duration);
    }
}

/// The path without what differs from request to request: there are only so many.
fn collapsed(path: &str) -> &'static str {
    const PATHS: [&str; 14] = [
        "/system/functions",
        "/system/function",
        "/system/scale-function",
        "/system/info",
        "/system/logs",
        "/system/secrets",
        "/system/namespaces",
        "/system/namespace",
        "/system/alert",
        "/healthz",
        "/metrics",
        "/v2",
        "/pre-boot",
        "/ui",
    ];
    let is_below = |known: &&str| {
        path.strip_prefix(*known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    PATHS.into_iter().find(is_below).unwrap_or("other")
}

fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The text that is being written.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Begins a metric. `kind` is `counter`, `gauge`, `histogram` or `untyped`.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let text = text.to_string();
            let text = text
                .replace('\\', r"\\")
                .replace('"', r#"\""#)
                .replace('\n', r"\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &dyn Display)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let bounds = BOUNDS_SECONDS.iter().map(ToString::to_string);
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(histogram.buckets) {
            below += count;
            let labels: Vec<_> = labels
                .iter()
                .copied()
                .chain([("le", &bound as &dyn Display)])
                .collect();
            self.sample(&bucket, &labels, below);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum_seconds);
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }
}

/// `GET /metrics`
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "Prometheus's text format", body = String, content_type = "text/plain"),
    )
)]
pub(crate) async fn answer(
    functions: &Functions,
    queue: &Queue,
    requests: &RequestCounts,
) -> Result<Answer, ApiError> {
    let mut page = Page::default();
    let all = functions.all();
    let usages = usage::of(all.clone()).await?;
    let functions_now: Vec<_> = all
        .iter()
        .zip(usages)
        .map(|(function, usage)| Now::of(function, usage, functions))
        .collect();
    invocations(&mut page, &functions_now);
    instances(&mut page, &functions_now);
    taken(&mut page, &functions_now);
    queued(&mut page, &functions_now, queue);
    api(&mut page, requests);
    process(&mut page);
    let mut response = Response::new(GatewayBody::full(page.0));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    Ok(response)
}

/// A function at this moment.
struct Now {
    name: String,
    id: FunctionId,
    usage: Usage,
    by_status: BTreeMap<u16, Histogram>,
    started: u64,
    cold: u64,
    is_cloned: bool,
    pool: spore_pool::PoolStatus,
    min: u32,
    max: u32,
    target: Option<(&'static str, f64)>,
}

impl Now {
    fn of(function: &Function, usage: Usage, functions: &Functions) -> Self {
        let counts = &function.counts;
        let by_status = counts.by_status.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = Settings::of(&function.record().deployment, &functions.config);
        let limits = settings.as_ref().map(|settings| settings.limits);
        Self {
            name: function.id.key(),
            id: function.id.clone(),
            usage,
            by_status: by_status.clone(),
            started: function.invocations.load(Ordering::Relaxed),
            cold: counts.cold.load(Ordering::Relaxed),
            is_cloned: function.template().is_cloned,
            pool: function.pool.status(),
            min: limits.as_ref().map_or(0, |limits| limits.min_instances),
            max: limits.as_ref().map_or(0, |limits| limits.max_instances),
            target: settings.ok().and_then(|settings| settings.scale_target),
        }
    }
}

fn invocations(page: &mut Page, functions: &[Now]) {
    let name = "gateway_functions_seconds";
    page.metric(
        name,
        "histogram",
        "Time until the answer to an invocation begins.",
    );
    for function in functions {
        for (code, histogram) in &function.by_status {
            page.histogram(
                name,
                &[("function_name", &function.name), ("code", code)],
                histogram,
            );
        }
    }
    let name = "gateway_function_invocation_total";
    page.metric(
        name,
        "counter",
        "Invocations that were answered, by the status of the answer.",
    );
    for function in functions {
        for (code, histogram) in &function.by_status {
            let labels: [(&str, &dyn Display); 2] = [("function_name", &function.name), ("code", code)];
            page.sample(name, &labels, histogram.count());
        }
    }
    let name = "gateway_function_invocation_started";
    page.metric(name, "untyped", "Invocations that were begun, a counter.");
    for function in functions {
        page.sample(name, &[("function_name", &function.name)], function.started);
    }
    let name = "gateway_function_invocation_inflight";
    page.metric(
        name,
        "gauge",
        "Invocations under way, those that wait for an instance included.",
    );
    for function in functions {
        let pool = &function.pool;
        let under_way = pool.served + pool.waiting;
        page.sample(name, &[("function_name", &function.name)], under_way);
    }
    let name = "spore_cold_starts_total";
    page.metric(
        name,
        "counter",
        "Invocations that waited for the start of an instance, by what it starts from.",
    );
    for function in functions {
        let from = if function.is_cloned { "snapshot" } else { "image" };
        page.sample(
            name,
            &[("function_name", &function.name), ("from", &from)],
            function.cold,
        );
    }
}

fn instances(page: &mut Page, functions: &[Now]) {
    type Reading = fn(&Now) -> usize;
    let readings: [(&str, &str, &str, Reading); 7] = [
        ("gateway_service_count", "untyped", "Instances, a gauge.", |now| {
            now.pool.starting + now.pool.idle + now.pool.busy
        }),
        (
            "gateway_service_ready_count",
            "untyped",
            "Instances that are ready, a gauge.",
            |now| now.pool.idle + now.pool.busy,
        ),
        (
            "gateway_service_min",
            "gauge",
            "Instances that are kept however little there is to do.",
            |now| now.min as usize,
        ),
        (
            "spore_instances_max",
            "gauge",
            "Most instances that there may be.",
            |now| now.max as usize,
        ),
        (
            "spore_instances_starting",
            "gauge",
            "Instances that are being started or reset.",
            |now| now.pool.starting,
        ),
        (
            "spore_instances_idle",
            "gauge",
            "Instances that wait for an invocation.",
            |now| now.pool.idle,
        ),
        (
            "spore_requests_waiting",
            "gauge",
            "Invocations that wait for an instance.",
            |now| now.pool.waiting,
        ),
    ];
    for (name, kind, help, reading) in readings {
        page.metric(name, kind, help);
        for function in functions {
            page.sample(name, &[("function_name", &function.name)], reading(function));
        }
    }
    let name = "gateway_service_target";
    page.metric(name, "gauge", "Load that one instance is to bear.");
    for function in functions {
        if let Some((kind, target)) = &function.target {
            let labels: [(&str, &dyn Display); 2] =
                [("function_name", &function.name), ("scaling_type", kind)];
            page.sample(name, &labels, target);
        }
    }
}

/// What instances take of this machine. These labels are OpenFaaS's: name and namespace apart.
fn taken(page: &mut Page, functions: &[Now]) {
    type Reading = fn(&Usage) -> String;
    let readings: [(&str, &str, &str, Reading); 2] = [
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "Processor time of instances, as it was whenever this was asked.",
            |usage| usage.processor.as_secs_f64().to_string(),
        ),
        (
            "pod_memory_working_set_bytes",
            "gauge",
            "Memory of instances, of what they share with others their part.",
            |usage| usage.memory_bytes.to_string(),
        ),
    ];
    for (name, kind, help, reading) in readings {
        page.metric(name, kind, help);
        for function in functions {
            let labels: [(&str, &dyn Display); 2] = [
                ("function_name", &function.id.name),
                ("namespace", &function.id.namespace),
            ];
            page.sample(name, &labels, reading(&function.usage));
        }
    }
}

/// Invocations that nobody waits for. There is one queue.
fn queued(page: &mut Page, functions: &[Now], queue: &Queue) {
    let counts: Vec<_> = functions
        .iter()
        .map(|function| queue.counts(&function.name))
        .collect();
    type Reading = fn(&(usize, usize, usize)) -> usize;
    let readings: [(&str, &str, Reading); 3] = [
        (
            "queue_worker_pending_messages",
            "Queued invocations that wait.",
            |(waiting, ..)| *waiting,
        ),
        (
            "queue_worker_function_invocation_inflight",
            "Queued invocations that run, or whose results are on their way.",
            |(_, running, _)| *running,
        ),
        (
            "spore_queue_dead_messages",
            "Queued invocations that have failed for good.",
            |(.., dead)| *dead,
        ),
    ];
    for (name, help, reading) in readings {
        page.metric(name, "gauge", help);
        for (function, counts) in functions.iter().zip(&counts) {
            let labels: [(&str, &dyn Display); 2] =
                [("queue_name", &"default"), ("function_name", &function.name)];
            page.sample(name, &labels, reading(counts));
        }
    }
}

fn api(page: &mut Page, requests: &RequestCounts) {
    let counts = requests.0.lock().unwrap_or_else(PoisonError::into_inner);
    let name = "provider_http_requests_total";
    page.metric(name, "counter", "Requests to the API and the registry.");
    for (kind, histogram) in &*counts {
        let labels: [(&str, &dyn Display); 3] = [
            ("code", &kind.status),
            ("method", &kind.method),
            ("path", &kind.path),
        ];
        page.sample(name, &labels, histogram.count());
    }
    let name = "provider_http_request_duration_seconds";
    page.metric(
        name,
        "histogram",
        "Time until the answer to such a request begins.",
    );
    for (kind, histogram) in &*counts {
        let labels: [(&str, &dyn Display); 3] = [
            ("code", &kind.status),
            ("method", &kind.method),
            ("path", &kind.path),
        ];
        page.histogram(name, &labels, histogram);
    }
}

/// The daemon itself, without its instances, which are processes of their own.
fn process(page: &mut Page) {
    let memory_bytes = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| {
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    });
    if let Some(bytes) = memory_bytes {
        let name = "process_resident_memory_bytes";
        page.metric(name, "gauge", "Memory of the daemon, without its instances.");
        page.sample(name, &[], bytes);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        let name = "process_open_fds";
        page.metric(name, "gauge", "Open file descriptors of the daemon.");
        // Reading the folder takes one.
        page.sample(name, &[], descriptors.count().saturating_sub(1));
    }
    let name = "spore_info";
    page.metric(name, "gauge", "Always 1; its label has the daemon's version.");
    page.sample(name, &[("version", &env!("CARGO_PKG_VERSION"))], 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_up_to_each_bound() {
        let mut histogram = Histogram::default();
        for ms in [1, 5, 6, 20_000] {
            histogram.record(Duration::from_millis(ms));
        }
        let mut page = Page::default();
        page.histogram("a", &[("b", &"c")], &histogram);
        for line in [
            "a_bucket{b=\"c\",le=\"0.005\"} 2",
            "a_bucket{b=\"c\",le=\"0.01\"} 3",
            "a_bucket{b=\"c\",le=\"10\"} 3",
            "a_bucket{b=\"c\",le=\"+Inf\"} 4",
            "a_sum{b=\"c\"} 20.012",
            "a_count{b=\"c\"} 4",
        ] {
            assert!(page.0.lines().any(|found| found == line), "{line}\n{}", page.0);
        }
    }

    #[test]
    fn labels_are_escaped_and_paths_are_few() {
        let mut page = Page::default();
        page.sample("a", &[("b", &"\"\\\n")], 1);
        assert_eq!(page.0, "a{b=\"\\\"\\\\\\n\"} 1\n");
        for (path, expected) in [
            ("/system/function/hello", "/system/function"),
            ("/system/functions", "/system/functions"),
            ("/system/namespaces/team", "/system/namespaces"),
            ("/v2/a/b/c", "/v2"),
            ("/v2x", "other"),
            ("/", "other"),
        ] {
            assert_eq!(collapsed(path), expected);
        }
    }
}
