//! Headers that change on the way between client and function.

use std::net::SocketAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use uuid::Uuid;

use crate::{trace, upgrade};

/// Identifies an invocation; the client's own is kept.
pub(crate) const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
/// When the invocation reached the gateway, in nanoseconds since 1970.
pub(crate) const START_TIME: HeaderName = HeaderName::from_static("x-start-time");
/// Seconds until the function's response began.
pub(crate) const DURATION_SECONDS: HeaderName = HeaderName::from_static("x-duration-seconds");
/// Whether the invocation waited for the start of an instance: `cold` or `warm`.
pub(crate) const START: HeaderName = HeaderName::from_static("x-spore-start");
/// Marks answers that are not the function's.
pub(crate) const INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");
/// On such an answer, who has to change something: `caller`, `function` or `platform`.
pub(crate) const FAULT: HeaderName = HeaderName::from_static("x-spore-fault");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what concerns only the connection on which the message came.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        // Answered by the server side of the gateway as soon as the body is wanted.
        EXPECT,
    ] {
        headers.remove(name);
    }
}

/// Makes a client's headers those of the request to the function.
pub(crate) fn to_function(headers: &mut HeaderMap, peer: SocketAddr, stamps: &Stamps) {
    let takes_trailers = headers.contains_key(TE) && upgrade::lists(headers, &TE, "trailers");
    remove_hop_by_hop(headers);
    if takes_trailers {
        // They are passed on, so it is true of the gateway too.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if headers.contains_key(TRAILER) && headers.remove(CONTENT_LENGTH).is_some() {
        // HTTP/2 has trailers behind a body of announced length; HTTP/1.1 only behind chunks.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    match headers.get(HOST) {
        None => drop(headers.insert(HOST, HeaderValue::from_static("localhost"))),
        Some(host) if !headers.contains_key(FORWARDED_HOST) => {
            let host = host.clone();
            headers.insert(FORWARDED_HOST, host);
        }
        Some(_) => {}
    }
    if !headers.contains_key(FORWARDED_FOR)
        && let Ok(peer) = HeaderValue::from_str(&peer.to_string())
    {
        headers.insert(FORWARDED_FOR, peer);
    }
    headers.insert(CALL_ID, stamps.call_id.clone());
    headers.insert(START_TIME, stamps.start_time.clone());
    trace::go_on(headers);
}

/// Makes a function's headers those of the response to the client.
pub(crate) fn to_client(headers: &mut HeaderMap, request_type: Option<HeaderValue>, has_body: bool) {
    remove_hop_by_hop(headers);
    if has_body && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(
            CONTENT_TYPE,
            request_type.unwrap_or(HeaderValue::from_static("text/plain")),
        );
    }
}

/// What every response to an invocation carries, whoever made it.
#[derive(Debug, Clone)]
pub(crate) struct Stamps {
    pub(crate) call_id: HeaderValue,
    pub(crate) start_time: HeaderValue,
}

impl Stamps {
    /// `now_ns` is the time since 1970.
    pub(crate) fn new(headers: &HeaderMap, now_ns: u128) -> Self {
        let call_id = headers
            .get(CALL_ID)
            .filter(|id| !id.is_empty())
            .cloned()
            .unwrap_or_else(|| {
                let mut buffer = Uuid::encode_buffer();
                let text = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
                HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
            });
        let start_time = u64::try_from(now_ns).unwrap_or(u64::MAX);
        Self {
            call_id,
            start_time: HeaderValue::from(start_time),
        }
    }

    pub(crate) fn put(self, headers: &mut HeaderMap) {
        headers.insert(CALL_ID, self.call_id);
        headers.insert(START_TIME, self.start_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 4242))
    }

    #[test]
    fn connection_headers_stay_behind_and_forwarding_is_noted() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "gateway:8080"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("x-call-id", "mine"),
            ("accept", "*/*"),
        ] {
            headers.insert(
                HeaderName::from_static(name).clone(),
                HeaderValue::from_static(value),
            );
        }
        let stamps = Stamps::new(&headers, 7);
        to_function(&mut headers, peer(), &stamps);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "accept",
            "host",
            "traceparent",
            "x-call-id",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-start-time",
        ];
        assert_eq!(names, expected);
        assert_eq!(headers["x-forwarded-host"], "gateway:8080");
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1:4242");
        assert_eq!(
            (&headers["x-call-id"], &headers["x-start-time"]),
            (&"mine".parse().expect("ok"), &HeaderValue::from(7))
        );
    }

    #[test]
    fn forwarding_headers_of_an_earlier_proxy_are_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("inner"));
        headers.insert(FORWARDED_HOST, HeaderValue::from_static("outer"));
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("10.0.0.9"));
        let stamps = Stamps::new(&headers, 7);
        to_function(&mut headers, peer(), &stamps);
        assert_eq!(
            (&headers["x-forwarded-host"], &headers["x-forwarded-for"]),
            (&"outer".parse().expect("ok"), &"10.0.0.9".parse().expect("ok"))
        );
        assert_eq!(headers["x-call-id"].len(), 36);
    }

    #[test]
    fn content_type_falls_back_to_the_requests() {
        let typed = |request: Option<&'static str>, has_body| {
            let mut headers = HeaderMap::new();
            to_client(&mut headers, request.map(HeaderValue::from_static), has_body);
            headers
                .get(CONTENT_TYPE)
                .map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(typed(Some("image/png"), true).as_deref(), Some("image/png"));
        assert_eq!(typed(None, true).as_deref(), Some("text/plain"));
        assert_eq!(typed(None, false), None);
    }
}
