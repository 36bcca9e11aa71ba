//! `spore trigger`: what calls functions without a caller.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use spore_client::Client;
use spore_client::triggers::{Firing, Trigger};

use crate::arguments::TriggerCommand;
use crate::output;

/// Carries a command about them out.
pub(crate) async fn run(client: &Client, command: TriggerCommand) -> anyhow::Result<ExitCode> {
    match command {
        TriggerCommand::List { function, json } => {
            let function = function.map(|name| name.to_string());
            let triggers = client.triggers(function.as_deref()).await?;
            if json {
                super::print_json(&serde_json::to_value(triggers)?)
            } else {
                super::print(&output::table(&rows(&triggers, SystemTime::now())))
            }
        }
        TriggerCommand::Fire {
            name,
            file,
            topic,
            data,
            json,
        } => {
            let firing = match (file, topic) {
                (Some(file), _) => Firing::File(file),
                (None, Some(topic)) => Firing::Message {
                    topic,
                    body: message(data.as_deref())?,
                },
                (None, None) => Firing::Schedule,
            };
            let fired = client.fire_trigger(&name.to_string(), firing).await?;
            if json {
                super::print_json(&serde_json::to_value(fired)?)
            } else {
                super::print(&format!("{}\n", super::printable(&fired.call_id)))
            }
        }
    }
}

/// The message that is given, in full: the queue takes it as a whole.
fn message(data: Option<&str>) -> anyhow::Result<Bytes> {
    match data.map(|data| (data, data.strip_prefix('@'))) {
        Some((_, Some(path))) => {
            let content = std::fs::read(path).with_context(|| format!("{path} could not be read"))?;
            Ok(content.into())
        }
        Some((data, None)) => Ok(data.to_owned().into()),
        None if std::io::stdin().is_terminal() => Ok(Bytes::new()),
        None => {
            let mut content = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut content);
            read.context("standard input could not be read")?;
            Ok(content.into())
        }
    }
}

fn rows(triggers: &[Trigger], now: SystemTime) -> Vec<Vec<String>> {
    let head = ["FUNCTION", "KIND", "WHEN", "NEXT", "CALLS", "LAST", "ERROR"];
    let none = || "-".to_owned();
    let row = |trigger: &Trigger| {
        let when = match (&trigger.schedule, &trigger.folder) {
            (Some(schedule), _) => match trigger.time_zone.as_deref() {
                None | Some("UTC") => schedule.clone(),
                Some(zone) => format!("{schedule} ({zone})"),
            },
            (None, Some(folder)) => folder.clone(),
            (None, None) => trigger.subject.clone().unwrap_or_default(),
        };
        let next = trigger.next_ms.and_then(|next| u64::try_from(next).ok());
        let next = next.map(|next| {
            let next = UNIX_EPOCH + Duration::from_millis(next);
            format!("in {}", output::age(next.duration_since(now).unwrap_or_default()))
        });
        let last = trigger.last_ms.map(|last| {
            let last = UNIX_EPOCH + Duration::from_millis(last);
            format!(
                "{} ago",
                output::age(now.duration_since(last).unwrap_or_default())
            )
        });
        vec![
            trigger.function.clone(),
            trigger.kind.clone(),
            super::printable(&when),
            next.unwrap_or_else(none),
            trigger.calls.to_string(),
            last.unwrap_or_else(none),
            trigger.error.as_deref().map_or_else(none, super::printable),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec())
        .chain(triggers.iter().map(row))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_a_row() {
        let trigger = Trigger {
            function: "hello.openfaas-fn".to_owned(),
            kind: "schedule".to_owned(),
            schedule: Some("@daily".to_owned()),
            time_zone: Some("Europe/Berlin".to_owned()),
            missed: Some("skip".to_owned()),
            next_ms: Some(60_000),
            folder: None,
            subject: None,
            calls: 3,
            last_ms: None,
            last_call_id: None,
            error: Some("a\nb".to_owned()),
        };
        let rows = rows(&[trigger], UNIX_EPOCH);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1][2], "@daily (Europe/Berlin)");
        assert_eq!((rows[1][4].as_str(), rows[1][6].as_str()), ("3", "a\\nb"));
        assert!(rows[1][3].starts_with("in "), "{}", rows[1][3]);
    }
}
