//! Small answers of the gateway's own.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::body::GatewayBody;

/// Any answer of the gateway.
pub(crate) type Answer = Response<GatewayBody>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(GatewayBody::empty());
    *response.status_mut() = status;
    response
}

/// A line of text.
pub(crate) fn text(status: StatusCode, line: &str) -> Answer {
    let mut response = Response::new(GatewayBody::full(format!("{line}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// A JSON document.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(GatewayBody::full(bytes));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be encoded");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer could not be encoded",
            )
        }
    }
}

/// Tells the caller that a retry after a second helps.
pub(crate) fn retry_soon(mut response: Answer) -> Answer {
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
