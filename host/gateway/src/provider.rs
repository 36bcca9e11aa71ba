//! The daemon as OpenFaaS's provider, behind a gateway of OpenFaaS's.
//!
//! ```text
//!   client ──> OpenFaaS's gateway ── /system/…, /function/NAME ──> this daemon ──> instance
//!                   │  queue, /async-function, alerts, dashboard, metrics of invocations
//! ```
//!
//! What belongs to the gateway is not answered here, and times and identifiers of an invocation are the gateway's. What a
//! provider has, and OpenFaaS's have not, stays: images, the registry, statistics.
//!
//! The gateway takes a function without an available instance for one that it has to scale from zero, and asks in steps of
//! 100 ms whether that is done. Here an instance is a matter of the invocation itself, so a function is reported as available
//! as long as nobody has scaled it to zero by hand.

use http::{HeaderMap, Method, StatusCode};

use crate::config::Role;
use crate::headers::START_TIME;
use crate::reply::{self, Answer};
use crate::routes::wrong_method;

/// Methods of requests to functions.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The answer to a request that a provider does not serve; none if it does.
pub(crate) fn refusal(role: Role, method: &Method, path: &str) -> Option<Answer> {
    if role == Role::Gateway {
        return None;
    }
    if is_of_gateway(path) {
        return Some(reply::text(
            StatusCode::NOT_FOUND,
            "this is an address of OpenFaaS's gateway, and this daemon is a provider behind one (spore serve --role provider): \
             ask the gateway",
        ));
    }
    (path.starts_with("/function/") && !METHODS.contains(method))
        .then(|| wrong_method("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
}

/// Whether the gateway alone answers at this address.
fn is_of_gateway(path: &str) -> bool {
    let is_below = |known: &str| {
        path.strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path == "/"
        || [
            "/async-function",
            "/ui",
            "/system/alert",
            "/system/async",
            "/system/triggers",
        ]
        .into_iter()
        .any(is_below)
}

/// When the invocation reached the gateway, in nanoseconds since 1970, if the gateway has said so.
pub(crate) fn start_time_ns(role: Role, headers: &HeaderMap) -> Option<u128> {
    let value = headers.get(START_TIME).filter(|_| role == Role::Provider)?;
    let time: u64 = value.to_str().ok()?.parse().ok()?;
    Some(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &Method, path: &str) -> Option<StatusCode> {
        refusal(Role::Provider, method, path).map(|answer| answer.status())
    }

    #[test]
    fn a_provider_leaves_to_the_gateway_what_is_the_gateways() {
        for path in [
            "/",
            "/ui",
            "/ui/",
            "/async-function/a",
            "/system/alert",
            "/system/async/a",
            "/system/triggers",
        ] {
            assert_eq!(status(&Method::POST, path), Some(StatusCode::NOT_FOUND), "{path}");
            assert!(refusal(Role::Gateway, &Method::POST, path).is_none(), "{path}");
        }
        for path in [
            "/function/a",
            "/system/functions",
            "/system/alerts",
            "/uix",
            "/healthz",
            "/metrics",
            "/v2/",
        ] {
            assert_eq!(status(&Method::GET, path), None, "{path}");
        }
        for method in ["TRACE", "CONNECT", "PROPFIND"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(
                status(&method, "/function/a"),
                Some(StatusCode::METHOD_NOT_ALLOWED)
            );
        }
    }

    #[test]
    fn only_a_gateway_says_when_an_invocation_began() {
        let mut headers = HeaderMap::new();
        headers.insert(START_TIME, "1700000000000000001".parse().expect("a value"));
        assert_eq!(
            start_time_ns(Role::Provider, &headers),
            Some(1_700_000_000_000_000_001)
        );
        assert_eq!(start_time_ns(Role::Gateway, &headers), None);
        headers.insert(START_TIME, "-1".parse().expect("a value"));
        assert_eq!(start_time_ns(Role::Provider, &headers), None);
    }
}
