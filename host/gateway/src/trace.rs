//! W3C's trace context: which trace an invocation belongs to (<https://www.w3.org/TR/trace-context/>).
//!
//! ```text
//!   traceparent: 00-<trace, 32 digits>-<span, 16 digits>-<flags, 2 digits>
//! ```
//!
//! Where the gateway records no spans of its own (`spans`), what a caller sends goes on unchanged. Without it, or with one that
//! is not valid, a new trace begins here; it is marked as sampled, so that a function that follows its callers records it.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Names trace and caller's span.
pub(crate) const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub(crate) const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest value that is taken: later versions may be longer than this one's 55 characters.
const LENGTH_MAX: usize = 256;

/// Where in which trace a request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller<'a> {
    /// 32 digits.
    pub(crate) trace: &'a str,
    /// 16 digits.
    pub(crate) span: &'a str,
    /// Whether it may have been recorded.
    pub(crate) is_sampled: bool,
}

/// What a request says of its caller, if that is valid.
pub(crate) fn caller(headers: &HeaderMap) -> Option<Caller<'_>> {
    let mut sent = headers.get_all(&TRACE_PARENT).iter();
    match (sent.next(), sent.next()) {
        (Some(only), None) => caller_of(only),
        _ => None,
    }
}

/// The caller's trace goes on, or a new one begins.
pub(crate) fn go_on(headers: &mut HeaderMap) {
    if caller(headers).is_some() {
        return;
    }
    // It belongs to the trace that ends here.
    headers.remove(&TRACE_STATE);
    let trace = Uuid::new_v4().simple();
    let span = fastrand::u64(1..);
    if let Ok(value) = HeaderValue::from_str(&format!("00-{trace}-{span:016x}-01")) {
        headers.insert(TRACE_PARENT, value);
    }
}

/// What a value says, if it is valid.
fn caller_of(value: &HeaderValue) -> Option<Caller<'_>> {
    let text = value.to_str().ok().filter(|text| text.len() <= LENGTH_MAX)?;
    let mut parts = text.splitn(4, '-');
    let version = parts.next().filter(|part| is_hexadecimal(part, 2))?;
    let trace = parts.next().filter(|part| is_hexadecimal(part, 32))?;
    let span = parts.next().filter(|part| is_hexadecimal(part, 16))?;
    let rest = parts.next()?;
    let (flags, later) = rest.split_at_checked(2)?;
    let is_known_end = match version {
        "ff" => false,
        "00" => later.is_empty(),
        // Later versions may go on behind a dash.
        _ => later.is_empty() || later.starts_with('-'),
    };
    let is_zero = |part: &str| part.bytes().all(|digit| digit == b'0');
    let is_valid = is_known_end && is_hexadecimal(flags, 2) && !is_zero(trace) && !is_zero(span);
    is_valid.then(|| Caller {
        trace,
        span,
        // The last bit.
        is_sampled: flags.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']),
    })
}

/// Lower-case digits of exactly this number.
fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The trace of a request that [`go_on`] has seen, for logs.
pub(crate) fn of(value: Option<&HeaderValue>) -> &str {
    value.and_then(caller_of).map_or("none", |caller| caller.trace)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn sent(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACE_STATE, HeaderValue::from_static("vendor=1"));
        for value in values {
            headers.append(TRACE_PARENT, value.parse().expect("a header's value"));
        }
        headers
    }

    #[test]
    fn a_callers_trace_goes_on_unchanged() {
        for value in [
            format!("00-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-00"),
            format!("cc-{TRACE}-00f067aa0ba902b7-09"),
            format!("cc-{TRACE}-00f067aa0ba902b7-09-what-else"),
        ] {
            let mut headers = sent(&[&value]);
            go_on(&mut headers);
            assert_eq!(headers, sent(&[&value]));
            assert_eq!(of(headers.get(TRACE_PARENT)), TRACE);
            let caller = caller(&headers).expect("it is valid");
            assert_eq!((caller.trace, caller.span), (TRACE, "00f067aa0ba902b7"));
            assert_eq!(caller.is_sampled, !value.ends_with("-00"), "{value}");
        }
    }

    #[test]
    fn what_is_not_valid_begins_a_new_trace_without_the_old_state() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let long = format!("cc-{TRACE}-00f067aa0ba902b7-01-{}", "x".repeat(300));
        let bad = [
            String::new(),
            "00".to_owned(),
            good.to_uppercase(),
            format!("{good}-x"),
            good.replace("00-4", "ff-4"),
            good.replace("-01", "-0"),
            good.replace("-01", "-0g"),
            good.replace(TRACE, &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace("00f067aa0ba902b7", "00f067aa0ba902b"),
            long,
        ];
        let mut cases: Vec<Vec<&str>> = bad.iter().map(|value| vec![value.as_str()]).collect();
        cases.extend([vec![], vec![good.as_str(), good.as_str()]]);
        for values in cases {
            let mut headers = sent(&values);
            go_on(&mut headers);
            assert!(!headers.contains_key(TRACE_STATE), "{values:?}");
            assert_eq!(headers.get_all(TRACE_PARENT).iter().count(), 1, "{values:?}");
            let made = of(headers.get(TRACE_PARENT));
            assert!(made != TRACE && made != "none", "{values:?}: {made}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_one_valid_trace_goes_on(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.insert(TRACE_PARENT, value);
            }
            go_on(&mut headers);
            prop_assert_ne!(of(headers.get(TRACE_PARENT)), "none");
        }
    }
}
