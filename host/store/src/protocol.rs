//! How a function gets its invocations: what its image and its deployment say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Names of programs that run a command for each invocation, or pass invocations on to a server.
const WATCHDOGS: [&str; 4] = ["fwatchdog", "of-watchdog", "classic-watchdog", "watchdog"];
/// The variables that name the command: that of both watchdogs, and the other one of of-watchdog.
const COMMAND_VARIABLES: [&str; 2] = ["fprocess", "function_process"];
/// The variable that says what of-watchdog does, and the values with which it runs no command for each invocation.
const MODE_VARIABLE: &str = "mode";
const SERVING_MODES: [&str; 3] = ["http", "static", "inproc"];

/// How a function gets its invocations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Its program listens on a port and is sent requests of HTTP/1.1.
    #[default]
    Http,
    /// Its program asks for events by the Runtime API of AWS Lambda.
    Lambda,
    /// A command is started for each invocation, with the body as its standard input (`docs/openfaas.md`, Commands).
    Exec,
}

impl Protocol {
    /// Those that a deployment may ask for by name. A command is one by what it names as such.
    pub const NAMED: [Self; 2] = [Self::Http, Self::Lambda];

    /// The name as users see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Lambda => "lambda",
            Self::Exec => "exec",
        }
    }

    /// The protocol of this name, if a deployment may ask for it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|protocol| protocol.name() == name)
    }

    /// How a function is called whose image runs `entry`, and the arguments of what is run: `entry` itself, or the command
    /// that a variable names, as a watchdog splits it (at each space).
    #[must_use]
    pub fn of(entry: &[String], variables: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let value = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let command = COMMAND_VARIABLES.iter().find_map(|name| value(name));
        let Some(command) = command else {
            return (Self::Http, entry.to_vec());
        };
        let has_watchdog = entry.iter().any(|argument| is_watchdog(argument));
        let serves = value(MODE_VARIABLE).is_some_and(|mode| SERVING_MODES.contains(&mode.as_str()));
        if has_watchdog && serves {
            return (Self::Http, entry.to_vec());
        }
        (Self::Exec, command.split(' ').map(str::to_owned).collect())
    }
}

fn is_watchdog(argument: &str) -> bool {
    let name = argument.rsplit('/').next().unwrap_or_default();
    WATCHDOGS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_run_unless_a_watchdog_serves() {
        let of = |entry: &[&str], variables: &[(&str, &str)]| {
            let entry: Vec<_> = entry.iter().map(|&argument| argument.to_owned()).collect();
            let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
            let (protocol, arguments) = Protocol::of(&entry, &variables.iter().map(pair).collect());
            (protocol, arguments.join("|"))
        };
        let http = |arguments: &str| (Protocol::Http, arguments.to_owned());
        let exec = |arguments: &str| (Protocol::Exec, arguments.to_owned());
        assert_eq!(of(&["/server"], &[]), http("/server"));
        assert_eq!(of(&["/server"], &[("fprocess", "")]), http("/server"));
        assert_eq!(of(&["/server"], &[("fprocess", "cat")]), exec("cat"));
        assert_eq!(of(&[], &[("fprocess", "wc -l")]), exec("wc|-l"));
        assert_eq!(of(&["fwatchdog"], &[("fprocess", "wc  -l")]), exec("wc||-l"));
        assert_eq!(
            of(
                &["/usr/bin/fwatchdog"],
                &[("fprocess", "node x.js"), ("mode", "http")]
            ),
            http("/usr/bin/fwatchdog")
        );
        assert_eq!(
            of(
                &["tini", "--", "fwatchdog"],
                &[("function_process", "a"), ("mode", "http")]
            ),
            http("tini|--|fwatchdog")
        );
        assert_eq!(
            of(&["fwatchdog"], &[("fprocess", "cat"), ("mode", "streaming")]),
            exec("cat")
        );
        assert_eq!(
            of(&["/server"], &[("fprocess", "cat"), ("mode", "http")]),
            exec("cat")
        );
    }
}
