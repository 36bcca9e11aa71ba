//! The event that a request becomes. Pure.
//!
//! Its shape is that of Lambda's function URLs and of API Gateway's HTTP APIs, payload format 2.0
//! (<https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html>).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, HeaderMap, USER_AGENT};
use http::request::Parts;
use jiff::Timestamp;
use serde::Serialize;

const FORWARDED_FOR: &str = "x-forwarded-for";
const AMAZON_TRACE: &str = "x-amzn-trace-id";
const W3C_TRACE: &str = "traceparent";
const ROUTE: &str = "$default";
/// Longest identifier of an invocation that is taken from its caller, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Longest trace header that is passed on, in bytes.
const TRACE_BYTES_MAX: usize = 512;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    route_key: &'static str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<String>,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<String, String>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    account_id: &'static str,
    api_id: &'a str,
    authentication: Option<()>,
    domain_name: String,
    domain_prefix: &'a str,
    http: Http<'a>,
    request_id: &'a str,
    route_key: &'static str,
    stage: &'static str,
    time: String,
    time_epoch: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    source_ip: String,
    user_agent: String,
}

/// The event of a request as the function would see it, in JSON.
pub(crate) fn event(function: &str, id: &str, head: &Parts, body: &[u8], now: Timestamp) -> Vec<u8> {
    let headers = &head.headers;
    let query = head.uri.query().unwrap_or_default();
    let text = |name: &http::HeaderName| headers.get(name).map(text_of).unwrap_or_default();
    let (body, is_base64_encoded) = encoded(headers, body);
    let event = Event {
        version: "2.0",
        route_key: ROUTE,
        raw_path: head.uri.path(),
        raw_query_string: query,
        cookies: cookies(headers),
        headers: fields(headers),
        query_string_parameters: parameters(query),
        request_context: Context {
            account_id: "anonymous",
            api_id: function,
            authentication: None,
            domain_name: text(&HOST),
            domain_prefix: function,
            http: Http {
                method: head.method.as_str(),
                path: head.uri.path(),
                protocol: "HTTP/1.1",
                source_ip: source_ip(headers),
                user_agent: text(&USER_AGENT),
            },
            request_id: id,
            route_key: ROUTE,
            stage: ROUTE,
            time: now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            time_epoch: now.as_millisecond(),
        },
        body,
        is_base64_encoded,
    };
    // It holds nothing that has no JSON.
    serde_json::to_vec(&event).unwrap_or_default()
}

fn text_of(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Each field once, its values joined by commas. Cookies are elsewhere.
fn fields(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != COOKIE) {
        let joined = fields.entry(name.as_str()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&text_of(value));
    }
    fields
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(COOKIE).iter().map(text_of);
    let split = |line: String| {
        let parts = line.split(';').map(|cookie| cookie.trim().to_owned());
        parts.collect::<Vec<_>>()
    };
    lines
        .flat_map(split)
        .filter(|cookie| !cookie.is_empty())
        .collect()
}

/// The parameters of a query, decoded; the values of one that comes twice are joined by commas.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        parameters
            .entry(decoded(name))
            .and_modify(|known| {
                known.push(',');
                known.push_str(&value);
            })
            .or_insert(value);
    }
    parameters
}

/// Text without percent-encoding, as in a form.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: u8| (digit as char).to_digit(16).map(|digit| digit as u8);
        match (*first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                bytes.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The first address that the request was forwarded for, without a port.
fn source_ip(headers: &HeaderMap) -> String {
    let forwarded = headers.get(FORWARDED_FOR).map(text_of).unwrap_or_default();
    let first = forwarded.split(',').next().unwrap_or_default().trim();
    match first.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip().to_string(),
        Err(_) => first.chars().take(ID_BYTES_MAX).collect(),
    }
}

/// The body as text, or in base64 where it is none, as API Gateway decides it.
fn encoded<'a>(headers: &HeaderMap, body: &'a [u8]) -> (Option<Cow<'a, str>>, bool) {
    if body.is_empty() {
        return (None, false);
    }
    match std::str::from_utf8(body) {
        Ok(text) if is_text(headers) => (Some(Cow::Borrowed(text)), false),
        _ => (Some(Cow::Owned(STANDARD.encode(body))), true),
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    if headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let kind = text_of(kind).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_named = ["application/json", "application/javascript", "application/xml"].contains(&kind);
    is_named || kind.starts_with("text/") || kind.ends_with("+json") || kind.ends_with("+xml")
}

/// The identifier of an invocation: the caller's, if it can be part of a path.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let is_part = |id: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain)
    };
    let given = headers
        .get(crate::headers::CALL_ID)
        .and_then(|id| id.to_str().ok());
    given
        .filter(is_part)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// The trace that the invocation belongs to, as X-Ray writes it; from the W3C's header if there is no other.
pub(crate) fn trace(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text(AMAZON_TRACE) {
        Some(own) if own.len() <= TRACE_BYTES_MAX => Some(own.to_owned()),
        _ => from_w3c(text(W3C_TRACE)?),
    }
}

fn from_w3c(parent: &str) -> Option<String> {
    let mut parts = parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == length && text.bytes().all(is_digit)
    };
    let is_valid = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    let is_none = |text: &str| text.bytes().all(|byte| byte == b'0');
    if !is_valid || version == "ff" || is_none(trace) || is_none(span) {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    let (epoch, rest) = trace.split_at(8);
    Some(format!("Root=1-{epoch}-{rest};Parent={span};Sampled={sampled}"))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn made(request: http::request::Builder, body: &[u8]) -> Value {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let now = "2026-03-12T19:03:58.5Z".parse().expect("a time");
        serde_json::from_slice(&event("hello", "some-id", &head, body, now)).expect("JSON")
    }

    #[test]
    fn a_request_becomes_an_event_of_format_2() {
        let request = Request::post("/a%20b/c?x=1&y=a+b%21&x=2&empty")
            .header("host", "gateway:8080")
            .header("user-agent", "curl/8")
            .header("cookie", "a=b; c=d")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .header("content-type", "application/json")
            .header("x-forwarded-for", "192.0.2.7:4242, 10.0.0.1");
        assert_eq!(
            made(request, b"{\"a\":1}"),
            json!({
                "version": "2.0", "routeKey": "$default", "rawPath": "/a%20b/c",
                "rawQueryString": "x=1&y=a+b%21&x=2&empty", "cookies": ["a=b", "c=d"],
                "headers": {
                    "host": "gateway:8080", "user-agent": "curl/8", "x-twice": "1,2",
                    "content-type": "application/json", "x-forwarded-for": "192.0.2.7:4242, 10.0.0.1",
                },
                "queryStringParameters": {"x": "1,2", "y": "a b!", "empty": ""},
                "requestContext": {
                    "accountId": "anonymous", "apiId": "hello", "authentication": null,
                    "domainName": "gateway:8080", "domainPrefix": "hello",
                    "http": {"method": "POST", "path": "/a%20b/c", "protocol": "HTTP/1.1",
                             "sourceIp": "192.0.2.7", "userAgent": "curl/8"},
                    "requestId": "some-id", "routeKey": "$default", "stage": "$default",
                    "time": "12/Mar/2026:19:03:58 +0000", "timeEpoch": 1_773_342_238_500_i64,
                },
                "body": "{\"a\":1}", "isBase64Encoded": false,
            })
        );
        let bare = made(Request::get("/"), b"");
        assert!(
            bare.get("body").is_none() && bare.get("cookies").is_none(),
            "{bare}"
        );
    }

    #[test]
    fn bodies_that_are_no_text_are_encoded() {
        let typed = |kind: &str, body: &[u8]| {
            let event = made(Request::post("/").header("content-type", kind), body);
            (
                event["body"].as_str().expect("a body").to_owned(),
                event["isBase64Encoded"] == true,
            )
        };
        assert_eq!(
            typed("text/plain; charset=utf-8", b"hi"),
            ("hi".to_owned(), false)
        );
        assert_eq!(typed("application/problem+json", b"{}"), ("{}".to_owned(), false));
        assert_eq!(
            typed("application/octet-stream", b"hi"),
            ("aGk=".to_owned(), true)
        );
        assert_eq!(typed("text/plain", &[0xff]), ("/w==".to_owned(), true));
        let packed = Request::post("/").header("content-encoding", "gzip");
        assert_eq!(made(packed, b"hi")["isBase64Encoded"], true);
        assert_eq!(made(Request::post("/"), b"hi")["isBase64Encoded"], false);
    }

    #[test]
    fn traces_are_taken_from_either_header() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            trace(&headers)
        };
        assert_eq!(of(AMAZON_TRACE, "Root=1-a").as_deref(), Some("Root=1-a"));
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            of(W3C_TRACE, parent).as_deref(),
            Some("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1")
        );
        for bad in [
            "",
            "00-0-0-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(of(W3C_TRACE, bad), None, "{bad}");
        }
    }

    #[test]
    fn identifiers_of_callers_are_kept_if_they_can_be_in_a_path() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(crate::headers::CALL_ID, value.parse().expect("a value"));
            request_id(&headers)
        };
        assert_eq!(of("Mine_0-9"), "Mine_0-9");
        for bad in ["", "a/b", "a b", "a%2f", &"a".repeat(65)] {
            assert_eq!(of(bad).len(), 36, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_body_comes_back(body in prop::collection::vec(any::<u8>(), 1..200), kind in "(text/plain|image/png)") {
            let event = made(Request::post("/").header("content-type", kind), &body);
            let text = event["body"].as_str().expect("a body");
            let back = match event["isBase64Encoded"] == true {
                true => STANDARD.decode(text).expect("base64"),
                false => text.as_bytes().to_vec(),
            };
            prop_assert_eq!(back, body);
        }

        #[test]
        fn every_parameter_comes_back(pairs in prop::collection::btree_map("[a-z]{1,5}", ".{0,10}", 0..5)) {
            let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
            prop_assert_eq!(parameters(&query.join("&")), pairs);
        }
    }
}
