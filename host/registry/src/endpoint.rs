//! Where a registry is spoken to, and which stand in for others. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::uri::{Authority, Scheme, Uri};

use crate::names::DEFAULT_HOST;

/// Where Docker's registry has its API.
const DEFAULT_HOST_API: &str = "registry-1.docker.io";

/// The address of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
}

/// Why a text is not the address of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not an address at all.
    #[error("`{0}` is not the address of a registry: write it like registry.example.com or 127.0.0.1:5000")]
    NotAnAddress(String),
    /// Plain HTTP over a network.
    #[error("`{0}` would be spoken to in plain HTTP, which is for this machine only: use https")]
    PlainHttp(String),
    /// Not two parts.
    #[error("`{0}` is not a mirror: write it like docker.io=127.0.0.1:5000")]
    NotAMirror(String),
}

/// Whether the host is this machine, by its name alone: nobody else's name server is asked.
pub(crate) fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || EndpointError::NotAnAddress(text.chars().take(300).collect());
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some(Scheme::HTTPS), rest),
            Some(("http", rest)) => (Some(Scheme::HTTP), rest),
            Some(_) => return Err(error()),
            None => (None, text),
        };
        let authority: Authority = rest.trim_end_matches('/').parse().map_err(|_| error())?;
        let port = authority.as_str().strip_prefix(authority.host());
        let has_good_port = port == Some("") || authority.port_u16().is_some_and(|port| port > 0);
        if authority.host().is_empty() || authority.as_str().contains('@') || !has_good_port {
            return Err(error());
        }
        let is_here = is_loopback(&authority);
        let scheme = match scheme {
            Some(scheme) if scheme == Scheme::HTTP && !is_here => {
                return Err(EndpointError::PlainHttp(text.to_owned()));
            }
            Some(scheme) => scheme,
            None if is_here => Scheme::HTTP,
            None => Scheme::HTTPS,
        };
        Ok(Self { scheme, authority })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.authority)
    }
}

impl Endpoint {
    /// Where the registry of that name is, as the mirrors say.
    pub(crate) fn of(host: &str, mirrors: &[Mirror]) -> Result<Self, EndpointError> {
        match mirrors.iter().find(|mirror| mirror.host == host) {
            Some(mirror) => Ok(mirror.endpoint.clone()),
            None if host == DEFAULT_HOST => DEFAULT_HOST_API.parse(),
            None => host.parse(),
        }
    }

    /// Whether a request on behalf of this registry may go there: never from HTTPS to plain HTTP, and in plain HTTP only
    /// within this machine.
    pub(crate) fn allows(&self, target: &Uri) -> bool {
        match (target.scheme(), target.authority()) {
            (Some(scheme), Some(_)) if *scheme == Scheme::HTTPS => true,
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => {
                self.scheme == Scheme::HTTP && is_loopback(authority)
            }
            _ => false,
        }
    }
}

/// A registry that stands in for another, written `HOST=ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    endpoint: Endpoint,
}

impl Mirror {
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for Mirror {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, endpoint) = text
            .split_once('=')
            .ok_or_else(|| EndpointError::NotAMirror(text.to_owned()))?;
        // Only to see that it is a name of a registry.
        host.parse::<Endpoint>()?;
        Ok(Self {
            host: host.to_owned(),
            endpoint: endpoint.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for (text, shown) in [
            ("ghcr.io", "https://ghcr.io"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("localhost:5000", "http://localhost:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("https://localhost:5000/", "https://localhost:5000"),
            ("127.0.0.1.example.com", "https://127.0.0.1.example.com"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), shown);
        }
        assert_eq!(
            "http://10.0.0.1:5000".parse::<Endpoint>(),
            Err(EndpointError::PlainHttp("http://10.0.0.1:5000".to_owned()))
        );
        for bad in ["", "a b", "ftp://x", "user@host", "host/path", "host:99999"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors_stand_in() {
        let mirrors = [
            "docker.io=127.0.0.1:5000".parse().expect("a mirror"),
            "quay.io=https://localhost:5001".parse().expect("a mirror"),
        ];
        let of = |host| Endpoint::of(host, &mirrors).expect(host).to_string();
        assert_eq!(of("docker.io"), "http://127.0.0.1:5000");
        assert_eq!(of("quay.io"), "https://localhost:5001");
        assert_eq!(of("ghcr.io"), "https://ghcr.io");
        let plain = Endpoint::of("docker.io", &[]).expect("an address");
        assert_eq!(plain.to_string(), "https://registry-1.docker.io");
        assert!("docker.io".parse::<Mirror>().is_err() && "=127.0.0.1".parse::<Mirror>().is_err());
    }

    #[test]
    fn nothing_leads_from_https_to_plain_http() {
        let may = |from: &str, to: &str| {
            let from: Endpoint = from.parse().expect("an address");
            from.allows(&to.parse().expect("a URI"))
        };
        assert!(may("ghcr.io", "https://storage.example.com/x"));
        assert!(!may("ghcr.io", "http://storage.example.com/x"));
        assert!(!may("ghcr.io", "http://127.0.0.1/x"));
        assert!(may("127.0.0.1:5000", "http://127.0.0.1:5001/x"));
        assert!(!may("127.0.0.1:5000", "http://10.0.0.1/x"));
        assert!(!may("127.0.0.1:5000", "/x"));
    }
}
