//! Where a function may connect to. Pure: nothing is resolved here.
//!
//! ```text
//!   HOST[:PORT]          db.example.com:5432     a name, which whoever enforces the rule resolves
//!   ADDRESS[:PORT]       10.0.0.7:53  [fd00::7]:53  fd00::7
//!   NETWORK[:PORT]       10.0.0.0/8:443  [fd00::/8]:443  fd00::/8
//! ```
//!
//! Without a port all ports are meant. A function without rules may connect to nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Most rules of a function.
pub const EGRESS_RULES_MAX: usize = 256;
/// Longest host name, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// Longest label of a host name, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// One place that a function may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EgressRule {
    /// Whatever addresses this name has.
    Host {
        /// The name, in lower case and without a dot at its end.
        name: String,
        /// The port; all if there is none.
        port: Option<u16>,
    },
    /// The addresses of a network; a single address is a network of one.
    Network {
        /// The network, without bits beyond its prefix.
        network: IpNet,
        /// The port; all if there is none.
        port: Option<u16>,
    },
}

/// Why a text is no egress rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressRuleError {
    /// It names nothing that can be connected to.
    #[error(
        "`{text}` names no place to connect to: write it like db.example.com:5432, 10.0.0.7 or 10.0.0.0/8:443"
    )]
    Place {
        /// The text, cut if it is long.
        text: String,
    },
    /// Its port is none.
    #[error("the port of `{text}` is not a number from 1 to 65535")]
    Port {
        /// The text, cut if it is long.
        text: String,
    },
    /// Names with wildcards are not known.
    #[error(
        "`{text}` has a wildcard, which rules cannot have: name each host, or a network such as 0.0.0.0/0"
    )]
    Wildcard {
        /// The text, cut if it is long.
        text: String,
    },
    /// Too many rules.
    #[error("there are more than {EGRESS_RULES_MAX} rules: name networks instead")]
    TooMany,
}

impl EgressRule {
    /// The port; all if there is none.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Host { port, .. } | Self::Network { port, .. } => *port,
        }
    }

    /// Reads a list with commas between the rules; empty entries count for nothing.
    ///
    /// # Errors
    ///
    /// If one of them is no rule, or there are too many.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, EgressRuleError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut rules = Vec::new();
        for entry in entries {
            let rule = entry.parse()?;
            if rules.len() == EGRESS_RULES_MAX {
                return Err(EgressRuleError::TooMany);
            }
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        Ok(rules)
    }
}

impl FromStr for EgressRule {
    type Err = EgressRuleError;

    fn from_str(text: &str) -> Result<Self, EgressRuleError> {
        let shown = || text.chars().take(100).collect::<String>();
        // An IPv6 address without brackets has colons of its own, and no port.
        if let Some(network) = parse_network(text) {
            return Ok(Self::Network { network, port: None });
        }
        let (place, port) = match text.rsplit_once(':') {
            Some((place, port)) if !port.ends_with(']') => (place, Some(port)),
            _ => (text, None),
        };
        let port = port
            .map(|port| parse_port(port).ok_or_else(|| EgressRuleError::Port { text: shown() }))
            .transpose()?;
        let inner = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = inner {
            let network = parse_network(inner).filter(|network| matches!(network, IpNet::V6(_)));
            let network = network.ok_or_else(|| EgressRuleError::Place { text: shown() })?;
            return Ok(Self::Network { network, port });
        }
        match parse_network(place) {
            Some(network @ IpNet::V4(_)) => return Ok(Self::Network { network, port }),
            Some(IpNet::V6(_)) => return Err(EgressRuleError::Place { text: shown() }),
            None => {}
        }
        if place.contains('*') {
            return Err(EgressRuleError::Wildcard { text: shown() });
        }
        let name = parse_name(place).ok_or_else(|| EgressRuleError::Place { text: shown() })?;
        Ok(Self::Host { name, port })
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, .. } => formatter.write_str(name)?,
            Self::Network { network, port } => {
                let is_single = network.prefix_len() == network.max_prefix_len();
                let place = if is_single {
                    network.addr().to_string()
                } else {
                    network.to_string()
                };
                match (network, port) {
                    (IpNet::V6(_), Some(_)) => write!(formatter, "[{place}]")?,
                    _ => formatter.write_str(&place)?,
                }
            }
        }
        match self.port() {
            Some(port) => write!(formatter, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A network, or an address as a network of one.
fn parse_network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse::<IpNet>().ok().map(|network| network.trunc()),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_plain && port > 0)
}

/// The name in lower case; none if it is no host's.
fn parse_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number would be an address that was mistyped.
    let last = name.rsplit('.').next()?;
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: Option<u16>) -> EgressRule {
        let name = name.to_owned();
        EgressRule::Host { name, port }
    }

    fn network(network: &str, port: Option<u16>) -> EgressRule {
        let network = network.parse().unwrap();
        EgressRule::Network { network, port }
    }

    #[test]
    fn rules_are_read_and_shown() {
        let cases = [
            ("db.example.com", host("db.example.com", None), "db.example.com"),
            (
                "DB.Example.com.:5432",
                host("db.example.com", Some(5432)),
                "db.example.com:5432",
            ),
            ("localhost:1", host("localhost", Some(1)), "localhost:1"),
            ("_srv.1.example", host("_srv.1.example", None), "_srv.1.example"),
            ("10.0.0.7", network("10.0.0.7/32", None), "10.0.0.7"),
            ("10.0.0.7:53", network("10.0.0.7/32", Some(53)), "10.0.0.7:53"),
            ("10.1.2.3/8", network("10.0.0.0/8", None), "10.0.0.0/8"),
            ("0.0.0.0/0:443", network("0.0.0.0/0", Some(443)), "0.0.0.0/0:443"),
            ("fd00::7", network("fd00::7/128", None), "fd00::7"),
            ("[fd00::7]", network("fd00::7/128", None), "fd00::7"),
            ("[fd00::7]:53", network("fd00::7/128", Some(53)), "[fd00::7]:53"),
            ("fd00::/8", network("fd00::/8", None), "fd00::/8"),
            ("[fd00::/8]:443", network("fd00::/8", Some(443)), "[fd00::/8]:443"),
        ];
        for (text, rule, shown) in cases {
            assert_eq!(text.parse(), Ok(rule.clone()), "{text}");
            assert_eq!(rule.to_string(), shown);
            assert_eq!(shown.parse(), Ok(rule), "{shown}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let long = "a".repeat(64);
        let many = "a.".repeat(130);
        for text in [
            "",
            ".",
            "-a",
            "a-",
            "a..b",
            "a b",
            "1.2.3",
            "256.1.1.1",
            "10.0.0.0/33",
            "fd00::/129",
            "[10.0.0.1]:5",
            "[fd00::7",
            "http://a",
            "a/b",
            "ä.example",
            "[]:80",
            &long,
            &many,
        ] {
            assert!(
                matches!(
                    text.parse::<EgressRule>(),
                    Err(EgressRuleError::Place { .. } | EgressRuleError::Port { .. })
                ),
                "{text}"
            );
        }
        for text in [
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:x",
            "10.0.0.0/8:99999",
            "[::1]:x",
        ] {
            assert!(
                matches!(text.parse::<EgressRule>(), Err(EgressRuleError::Port { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            "*.example.com".parse::<EgressRule>(),
            Err(EgressRuleError::Wildcard { .. })
        ));
    }

    #[test]
    fn lists_are_bounded_and_say_each_rule_once() {
        let rules = EgressRule::parse_list("a:1, 10.0.0.0/8 ,,a:1,").unwrap();
        assert_eq!(rules, [host("a", Some(1)), network("10.0.0.0/8", None)]);
        assert_eq!(EgressRule::parse_list(" "), Ok(Vec::new()));
        let many: String = (0..=EGRESS_RULES_MAX)
            .map(|number| format!("h{number},"))
            .collect();
        assert_eq!(EgressRule::parse_list(&many), Err(EgressRuleError::TooMany));
    }
}
