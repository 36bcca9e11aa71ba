//! The dashboard: files that are in this binary, served below `/ui/` ([guide](../../../docs/dashboard.md)).
//!
//! It is a client of the API like any other: nothing here knows what the files do. The headers see to it that nothing but
//! these files runs in them, that nothing is loaded from elsewhere, and that no text can become markup.

use std::sync::LazyLock;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::body::GatewayBody;
use crate::reply::{self, Answer};
use crate::routes::wrong_method;

/// Where the files are.
const FOLDER: &str = "/ui/";

/// What the pages may do: run these files, talk to this gateway, and nothing that needs markup made of text.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:ident),+ $(,)?) => {
        [$(($name, $kind, include_str!(concat!("../ui/", $name)))),+]
    };
}

/// Name, kind and content.
const FILES: [(&str, &str, &str); 15] = files![
    "index.html": HTML,
    "style.css": CSS,
    "icon.svg": ICON,
    "api.js": SCRIPT,
    "app.js": SCRIPT,
    "charts.js": SCRIPT,
    "deploy.js": SCRIPT,
    "dom.js": SCRIPT,
    "explain.js": SCRIPT,
    "function.js": SCRIPT,
    "invoke.js": SCRIPT,
    "log.js": SCRIPT,
    "overview.js": SCRIPT,
    "queue.js": SCRIPT,
    "store.js": SCRIPT,
];

/// By which a browser knows that it has a file already, one for each of [`FILES`].
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |content: &str| {
        let digest = Sha256::digest(content);
        let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"{digits}\"")
    };
    FILES.iter().map(|(_, _, content)| tag(content)).collect()
});

/// Whether a path is the dashboard's.
pub(crate) fn is_ui(path: &str) -> bool {
    path == "/" || path == "/ui" || path.starts_with(FOLDER)
}

/// `GET /`
#[utoipa::path(
    get,
    path = "/",
    responses((status = 302, description = "The dashboard is at /ui/")),
)]
pub(crate) fn lead_there() -> Answer {
    let mut answer = reply::empty(StatusCode::FOUND);
    let folder = HeaderValue::from_static(FOLDER);
    answer.headers_mut().insert(LOCATION, folder);
    answer
}

/// `GET /ui/FILE`
#[utoipa::path(
    get,
    path = "/ui/{name}",
    params(("name" = String, Path, description = "A file; empty for the page itself")),
    responses(
        (status = 200, description = "The file", body = String, content_type = "text/html"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "The dashboard has no such file"),
    )
)]
pub(crate) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return wrong_method("GET, HEAD");
    }
    let Some(name) = path.strip_prefix(FOLDER) else {
        return lead_there();
    };
    let name = if name.is_empty() { "index.html" } else { name };
    let Some(at) = FILES.iter().position(|(file, _, _)| *file == name) else {
        return reply::text(StatusCode::NOT_FOUND, "the dashboard has no such file: see /ui/");
    };
    let (_, kind, content) = FILES[at];
    let tag = &TAGS[at];
    let mut answer = if names(headers, tag) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else if *method == Method::HEAD {
        // Its length is that of the file, which the server's side of HTTP cannot see.
        let mut answer = reply::empty(StatusCode::OK);
        let length = HeaderValue::from(content.len());
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, length);
        answer
    } else {
        Response::new(GatewayBody::full(content.as_bytes()))
    };
    let fields = answer.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        fields.insert(ETAG, tag);
    }
    for (name, value) in [
        (CONTENT_TYPE, kind),
        // Asked for each time, answered with 304: a new daemon's files are never mixed with an old one's.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Whether the client says that it has what this tag names.
fn names(headers: &HeaderMap, tag: &str) -> bool {
    let sent = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    sent.flat_map(|value| value.split(','))
        .map(|value| value.trim())
        .any(|value| value == "*" || value.strip_prefix("W/").unwrap_or(value) == tag)
}
