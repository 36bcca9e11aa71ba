//! What the fuzz targets call: the readers of what registries and clients send, and of archives of images.

use std::path::Path;

use http::HeaderMap;
use http::header::{CONTENT_RANGE, LOCATION, WWW_AUTHENTICATE};

use crate::authorization::{challenge, token};
use crate::credentials::ClientCredential;
use crate::endpoint::Endpoint;
use crate::layouts::{Layout, push_name};
use crate::pull::begins_at;
use crate::transport::{resolve, shown};

/// Headers of an answer as a registry sends it, and its body. Returns whether it asks for credentials.
pub fn answer(header: &[u8], body: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(header) {
        for name in [WWW_AUTHENTICATE, CONTENT_RANGE, LOCATION] {
            headers.insert(name, value.clone());
        }
        if let Some(written) = ClientCredential::from_header(&value)
            .ok()
            .and_then(|read| Some((read.to_header()?, read)))
        {
            let again = ClientCredential::from_header(&written.0).expect("what is written can be read");
            assert!(again == written.1, "and is the same");
        }
    }
    let message = shown(body);
    assert!(
        message.chars().count() <= 300 && !message.contains(char::is_control),
        "a short line"
    );
    let _ = (token(body), begins_at(&headers, 7));
    let base = http::Uri::from_static("https://registry.example/v2/");
    if let Ok(text) = std::str::from_utf8(header) {
        let endpoint: Endpoint = "registry.example".parse().expect("an address");
        if let Some(target) = resolve(&base, text)
            && endpoint.allows(&target)
        {
            assert_eq!(target.scheme_str(), Some("https"), "nothing leads to plain HTTP");
        }
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            let again: Endpoint = endpoint.to_string().parse().expect("an address as it is written");
            assert_eq!(again, endpoint);
        }
        if let Some((repository, tag)) = push_name(text) {
            assert!(
                !repository.contains("..") && !tag.contains('/'),
                "names stay in their place"
            );
        }
    }
    challenge(&headers).is_some()
}

/// An archive of images. Returns how many images are in it if it is whole.
pub fn archive(path: &Path) -> Option<usize> {
    Layout::read(path).ok().map(|layout| layout.images.len())
}
