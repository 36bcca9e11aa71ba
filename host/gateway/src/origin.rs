//! Which site a browser's request comes from.
//!
//! A browser sends the credentials that its user has once typed with every request, whatever page makes it. So a request that
//! changes something is refused if the browser says that it was made by a page of another site. Clients that are no browsers
//! send neither header, and nothing is asked of them.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, Method};

/// Fetch Metadata: how the page and the address that it asks are related.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a browser's request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForeignRequest {
    #[error(
        "this request was made by a page of another site: only pages of this gateway may change something here"
    )]
    OtherSite,
    /// A name of somebody else's that was made to point here (DNS rebinding) looks like the gateway's own to a browser.
    #[error(
        "nobody is asked for a password here, so browsers may change something only under a loopback address or localhost: \
         use http://127.0.0.1, or start the gateway with --basic-auth"
    )]
    UnknownName,
}

/// Checks a request. `asks_nobody` says whether the gateway needs no credentials because only this machine reaches it.
pub(crate) fn check(method: &Method, headers: &HeaderMap, asks_nobody: bool) -> Result<(), ForeignRequest> {
    if method.is_safe() {
        return Ok(());
    }
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text(&ORIGIN);
    let host = text(&HOST).unwrap_or_default();
    let is_own = match (text(&SEC_FETCH_SITE), origin) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        (None, None) => return Ok(()),
    };
    if !is_own {
        return Err(ForeignRequest::OtherSite);
    }
    if asks_nobody && origin.is_some() && !is_local(host) {
        return Err(ForeignRequest::UnknownName);
    }
    Ok(())
}

/// Whether a name with its port can only mean this machine: an address, which no name server answers for, or `localhost`.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &Method, pairs: &[(&'static str, &str)], asks_nobody: bool) -> Option<ForeignRequest> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a header's value"));
        }
        check(method, &headers, asks_nobody).err()
    }

    #[test]
    fn what_another_site_asks_for_is_refused() {
        let host = ("host", "gateway:8080");
        for (pairs, expected) in [
            (vec![], None),
            (vec![("sec-fetch-site", "same-origin")], None),
            (vec![("sec-fetch-site", "none")], None),
            (
                vec![("sec-fetch-site", "same-site")],
                Some(ForeignRequest::OtherSite),
            ),
            (
                vec![("sec-fetch-site", "cross-site")],
                Some(ForeignRequest::OtherSite),
            ),
            (
                vec![("sec-fetch-site", "\u{e4}")],
                Some(ForeignRequest::OtherSite),
            ),
            (vec![("origin", "http://gateway:8080")], None),
            (vec![("origin", "https://GATEWAY:8080")], None),
            (
                vec![("origin", "http://gateway")],
                Some(ForeignRequest::OtherSite),
            ),
            (
                vec![("origin", "http://evil.example")],
                Some(ForeignRequest::OtherSite),
            ),
            (vec![("origin", "null")], Some(ForeignRequest::OtherSite)),
            (vec![("origin", "")], Some(ForeignRequest::OtherSite)),
        ] {
            let pairs = [&[host], pairs.as_slice()].concat();
            assert_eq!(checked(&Method::POST, &pairs, false), expected, "{pairs:?}");
            assert_eq!(checked(&Method::DELETE, &pairs, false), expected, "{pairs:?}");
            assert_eq!(checked(&Method::GET, &pairs, false), None, "{pairs:?}");
        }
    }

    #[test]
    fn a_name_that_may_be_anybodys_changes_nothing_where_nobody_is_asked() {
        for (host, is_refused) in [
            ("127.0.0.1:8080", false),
            ("[::1]:8080", false),
            ("localhost:8080", false),
            ("Localhost", false),
            ("spore.localhost:80", false),
            ("evil.example:8080", true),
            ("127.0.0.1.evil.example:8080", true),
            ("localhost.evil.example", true),
            ("evillocalhost", true),
            ("", true),
        ] {
            let origin = format!("http://{host}");
            let pairs = [("host", host), ("origin", origin.as_str())];
            let expected = is_refused.then_some(ForeignRequest::UnknownName);
            assert_eq!(checked(&Method::POST, &pairs, true), expected, "{host}");
            assert_eq!(checked(&Method::POST, &pairs, false), None, "{host}");
            assert_eq!(
                checked(&Method::POST, &[("host", host)], true),
                None,
                "no browser: {host}"
            );
        }
    }
}
