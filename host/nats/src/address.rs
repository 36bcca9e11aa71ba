//! Where a server is. Pure.

use std::fmt;
use std::str::FromStr;

use async_nats::ServerAddr;

/// Name of a queue, where the address has none.
const DEFAULT_NAME: &str = "spore";
/// Longest name.
const NAME_CHARACTERS_MAX: usize = 32;
/// Most servers of an address.
const SERVERS_MAX: usize = 16;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL of NATS.
    #[error("`{text}` is not the address of a NATS server: write it like nats://127.0.0.1:4222, or tls://…")]
    Server {
        /// The text, without what may be secret.
        text: String,
    },
    /// The path is no name.
    #[error(
        "`{name}` cannot name a queue: write up to {NAME_CHARACTERS_MAX} letters, digits, `-` and `_`, as in nats://HOST/NAME"
    )]
    Name {
        /// The path.
        name: String,
    },
    /// Too many servers.
    #[error("an address has up to {SERVERS_MAX} servers")]
    TooMany,
}

/// One or more servers of a cluster, and the name of what belongs together there.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    servers: Vec<ServerAddr>,
    name: String,
    user: Option<(String, Option<String>)>,
}

impl Address {
    /// What the subjects and streams of this installation begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// Name and password in the address; a name alone is a token.
    pub(crate) fn user(&self) -> Option<(&str, Option<&str>)> {
        let (name, password) = self.user.as_ref()?;
        Some((name, password.as_deref()))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (mut servers, mut name, mut user) = (Vec::new(), None, None);
        for part in text.split(',').map(str::trim) {
            let wrong = || AddressError::Server {
                // What stands before the host may be a password.
                text: part
                    .rsplit('@')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(100)
                    .collect(),
            };
            let has_scheme = part.starts_with("nats://") || part.starts_with("tls://");
            let url = part.parse::<ServerAddr>().map_err(|_| wrong())?.into_inner();
            if !has_scheme
                || url.host_str().is_none_or(str::is_empty)
                || url.query().is_some()
                || url.fragment().is_some()
            {
                return Err(wrong());
            }
            let path = url.path().trim_matches('/');
            if !path.is_empty() {
                name = Some(path.to_owned());
            }
            if !url.username().is_empty() {
                let decoded = |text: &str| decode(text).ok_or_else(wrong);
                user = Some((decoded(url.username())?, url.password().map(decoded).transpose()?));
            }
            servers.push(ServerAddr::from_url(url).map_err(|_| wrong())?);
        }
        if servers.len() > SERVERS_MAX {
            return Err(AddressError::TooMany);
        }
        let name = name.unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.len() > NAME_CHARACTERS_MAX || !name.chars().all(is_valid) {
            let name = name.chars().take(100).collect();
            return Err(AddressError::Name { name });
        }
        Ok(Self { servers, name, user })
    }
}

/// Without names and passwords, which are for nobody's log.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(
                formatter,
                "{comma}{}://{}:{}",
                server.scheme(),
                server.host(),
                server.port()
            )?;
        }
        write!(formatter, "/{}", self.name)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Percent-decoded.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let address: Address = "nats://ada:p%40ss@127.0.0.1:4223/left".parse().expect("valid");
        assert_eq!(address.name(), "left");
        assert_eq!(address.user(), Some(("ada", Some("p@ss"))));
        assert_eq!(address.to_string(), "nats://127.0.0.1:4223/left");
        assert!(!format!("{address:?}").contains("ss@"));
        let address: Address = "nats://a,tls://[::1]:1".parse().expect("valid");
        assert_eq!((address.name(), address.user()), ("spore", None));
        assert_eq!(address.to_string(), "nats://a:4222,tls://::1:1/spore");
    }

    #[test]
    fn what_is_none_is_refused_without_its_password() {
        for bad in [
            "",
            "127.0.0.1:4222",
            "http://a",
            "ws://a",
            "nats://",
            "nats://a:b:c",
            "nats://a?b=c",
            "nats://u:secret@ /",
            "nats://a/b.c",
            "nats://a/b/c",
            "nats://a/ü",
            "nats://a,",
        ] {
            let error = bad.parse::<Address>().expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let many = vec!["nats://a"; SERVERS_MAX + 1].join(",");
        assert_eq!(many.parse::<Address>(), Err(AddressError::TooMany));
    }
}
