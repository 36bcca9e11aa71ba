//! What a command's variables say of how it is run: those of the classic watchdog, as far as they mean something here. Pure.

use std::time::Duration;

use http::HeaderValue;
use spore_sandbox::Command;

use crate::quantity::parse_duration;
use crate::settings::SettingsError;

/// How much of what a command writes is kept before the head of the answer goes out, in bytes: up to here its exit status
/// decides over the answer's.
const HELD_BYTES_MAX: usize = 1 << 20;

/// How a function's command is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecSettings {
    pub(crate) command: Command,
    /// How much of the output is kept before the head of the answer goes out, in bytes.
    pub(crate) held_bytes: usize,
    /// How long it may run, if the function's own timeout is not shorter; the caller is told so as the watchdog does.
    pub(crate) timeout: Option<Duration>,
    /// The answer's, whatever the request's is.
    pub(crate) content_type: Option<HeaderValue>,
    /// Whether it finds the request in its variables.
    pub(crate) has_variables: bool,
    /// Whether its output is logged too.
    pub(crate) logs_output: bool,
}

impl ExecSettings {
    /// Takes them from the variables that the function has.
    pub(crate) fn of(environment: &[(String, String)]) -> Result<Self, SettingsError> {
        let value = |wanted: &str| {
            let found = environment.iter().find(|(name, _)| name == wanted);
            found
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let is_true = |name: &str, default: bool| value(name).map_or(default, |value| value == "true");
        let timeout = value("exec_timeout").map(|text| {
            parse_duration(text).ok_or_else(|| SettingsError::Duration {
                setting: "the variable exec_timeout",
                text: text.to_owned(),
            })
        });
        let content_type = value("content_type").map(|text| {
            HeaderValue::from_str(text).map_err(|_| SettingsError::ContentType {
                text: text.to_owned(),
            })
        });
        Ok(Self {
            command: Command {
                combines_output: is_true("combine_output", false),
            },
            held_bytes: match value("mode") {
                Some("streaming") => 0,
                _ => HELD_BYTES_MAX,
            },
            timeout: timeout.transpose()?.filter(|timeout| !timeout.is_zero()),
            content_type: content_type.transpose()?,
            has_variables: is_true("cgi_headers", true),
            logs_output: is_true("write_debug", false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_the_classic_watchdog() {
        let of = |variables: &[(&str, &str)]| {
            let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
            ExecSettings::of(&variables.iter().map(pair).collect::<Vec<_>>())
        };
        let plain = of(&[]).unwrap();
        assert!(plain.has_variables && !plain.logs_output && !plain.command.combines_output);
        assert_eq!((plain.held_bytes, plain.timeout), (HELD_BYTES_MAX, None));
        let set = of(&[
            ("combine_output", "true"),
            ("exec_timeout", "2"),
            ("content_type", "text/html"),
            ("cgi_headers", "false"),
            ("write_debug", "true"),
            ("mode", "streaming"),
        ]);
        let set = set.unwrap();
        assert!(!set.has_variables && set.logs_output && set.command.combines_output);
        assert_eq!(set.held_bytes, 0);
        assert_eq!(set.timeout, Some(Duration::from_secs(2)));
        assert_eq!(set.content_type, Some(HeaderValue::from_static("text/html")));
        assert_eq!(of(&[("exec_timeout", "0")]).unwrap().timeout, None);
        for bad in [("exec_timeout", "soon"), ("content_type", "a\nb")] {
            assert!(of(&[bad]).is_err(), "{bad:?}");
        }
    }
}
