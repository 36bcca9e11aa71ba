//! Functions that are asked in one form, whatever their callers ask: programs, unikernels above all, that take an invocation by
//! one request (`POST /invoke`) and know no other. Pure.

use std::str::FromStr;

use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri};

/// The annotation.
pub(crate) const ANNOTATION: &str = "dev.spore.invoke";
/// What the caller has asked for.
const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const TARGET: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The request that each invocation is, but for headers and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FixedRequest {
    method: Method,
    target: PathAndQuery,
}

/// It is not a method and a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a method and a path: write it like `POST /invoke`")]
pub(crate) struct NoRequest;

impl FromStr for FixedRequest {
    type Err = NoRequest;

    fn from_str(text: &str) -> Result<Self, NoRequest> {
        let (method, target) = text.split_once(' ').ok_or(NoRequest)?;
        let method = Method::from_str(method).map_err(|_| NoRequest)?;
        let target = PathAndQuery::from_str(target).map_err(|_| NoRequest)?;
        let is_plain =
            target.as_str().starts_with('/') && method != Method::CONNECT && method != Method::HEAD;
        match is_plain {
            true => Ok(Self { method, target }),
            false => Err(NoRequest),
        }
    }
}

impl FixedRequest {
    /// A caller's request in this form: what it was is told by `X-Forwarded-Method` and `X-Forwarded-Uri`.
    pub(crate) fn apply<B>(&self, mut request: Request<B>) -> Request<B> {
        let method = HeaderValue::from_str(request.method().as_str());
        let target = HeaderValue::from_str(request.uri().path_and_query().map_or("/", PathAndQuery::as_str));
        for (name, value) in [(METHOD, method), (TARGET, target)] {
            // Both were in the head of a request.
            if let Ok(value) = value {
                request.headers_mut().insert(name, value);
            }
        }
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_what_it_was_in_headers() {
        let fixed: FixedRequest = "POST /invoke?v=1".parse().unwrap();
        let request = Request::builder()
            .method("GET")
            .uri("/a/b?c=d")
            .header("x-forwarded-method", "forged")
            .body("body")
            .unwrap();
        let request = fixed.apply(request);
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&Method::POST, "/invoke?v=1")
        );
        assert_eq!(request.headers()[METHOD], "GET");
        assert_eq!(request.headers()[TARGET], "/a/b?c=d");
        assert_eq!(*request.body(), "body");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "",
            "/invoke",
            "POST",
            "POST invoke",
            "POST /a b",
            "PO ST /",
            "CONNECT /",
            "HEAD /",
            "POST *",
            "POST http://a/",
        ] {
            assert_eq!(text.parse::<FixedRequest>(), Err(NoRequest), "{text}");
        }
    }
}
