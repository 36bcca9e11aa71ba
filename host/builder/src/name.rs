//! Names of functions: DNS labels, so that they fit into host names, image names and paths alike.

use std::fmt;
use std::str::FromStr;

/// Longest name of a function, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// The name of a function: a DNS label in lower case, `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct FunctionName(String);

/// Why a text is no name of a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a function's name must not be empty")]
    Empty,
    /// Too long for a DNS label.
    #[error("the name \"{name}\" has {} bytes: use at most {MAX_NAME_BYTES}", name.len())]
    TooLong {
        /// The name as given.
        name: String,
    },
    /// A byte that a DNS label cannot hold, or a hyphen at either end.
    #[error(
        "\"{name}\" is no function name: use lower-case letters, digits and hyphens, and begin and end with a letter or digit"
    )]
    NotDnsLabel {
        /// The name as given.
        name: String,
    },
}

impl FunctionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
            return Err(NameError::Empty);
        };
        if bytes.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { name: text.into() });
        }
        let is_label = is_alphanumeric(first)
            && is_alphanumeric(last)
            && bytes.iter().all(|&byte| is_alphanumeric(byte) || byte == b'-');
        if is_label {
            Ok(Self(text.into()))
        } else {
            Err(NameError::NotDnsLabel { name: text.into() })
        }
    }
}

impl TryFrom<String> for FunctionName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        assert_eq!("".parse::<FunctionName>(), Err(NameError::Empty));
        for bad in ["-a", "a-", "Hello", "a_b", "a.b", "ä", "a b", "a/b", ".."] {
            assert!(
                matches!(bad.parse::<FunctionName>(), Err(NameError::NotDnsLabel { .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            "a".repeat(64).parse::<FunctionName>(),
            Err(NameError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn dns_labels_are_taken(name in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?") {
            let parsed: FunctionName = name.parse().unwrap();
            prop_assert_eq!(parsed.as_str(), name);
        }

        #[test]
        fn whatever_is_taken_is_a_dns_label(text in "[-a-zA-Z0-9._]{0,70}") {
            if text.parse::<FunctionName>().is_ok() {
                prop_assert!(text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-'));
                prop_assert!(text.chars().all(|c| c == '-' || c.is_ascii_digit() || c.is_ascii_lowercase()));
            }
        }
    }
}
