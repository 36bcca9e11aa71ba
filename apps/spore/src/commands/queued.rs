//! `spore async`: invocations that nobody waits for.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use spore_builder::FunctionName;
use spore_client::Client;
use spore_client::queued::{QueuedInvocation, QueuedQuery};

use crate::arguments::AsyncCommand;
use crate::output;

/// Carries a command about them out.
pub(crate) async fn run(client: &Client, command: AsyncCommand) -> anyhow::Result<ExitCode> {
    match command {
        AsyncCommand::List {
            function,
            dead,
            limit,
            json,
        } => {
            let query = QueuedQuery {
                function: of_function(client, function)?,
                state: dead.then_some("dead"),
                limit: Some(limit),
            };
            let invocations = client.queued(&query).await?;
            if json {
                super::print_json(&serde_json::to_value(invocations)?)
            } else {
                super::print(&output::table(&rows(&invocations, SystemTime::now())))
            }
        }
        AsyncCommand::Show { call_id } => {
            let invocations = client.queued_invocation(&call_id).await?;
            super::print_json(&serde_json::to_value(invocations)?)
        }
        AsyncCommand::Retry { call_ids } => {
            for call_id in call_ids {
                client.retry_queued(&call_id).await?;
                super::print(&format!("{call_id} is tried again\n"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        AsyncCommand::Drop {
            call_ids,
            function,
            dead,
        } => {
            for call_id in &call_ids {
                client.drop_queued(call_id).await?;
                super::print(&format!("{call_id} dropped\n"))?;
            }
            if call_ids.is_empty() {
                let query = QueuedQuery {
                    function: of_function(client, function)?,
                    state: dead.then_some("dead"),
                    limit: None,
                };
                let dropped = client.drop_all_queued(&query).await?;
                super::print(&format!("{dropped} dropped\n"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The function whose invocations are meant, if those of one are.
fn of_function(client: &Client, function: Option<FunctionName>) -> anyhow::Result<Option<String>> {
    if function.is_none() && client.namespace().is_some() {
        bail!("there is one queue for all namespaces: name a function of this one with --function");
    }
    Ok(function.map(|name| client.full_name(name.as_str())))
}

fn rows(invocations: &[QueuedInvocation], now: SystemTime) -> Vec<Vec<String>> {
    let head = ["CALL ID", "FUNCTION", "STATE", "AGE", "ATTEMPTS", "LAST"];
    let age = |since_ms| {
        let since = UNIX_EPOCH + Duration::from_millis(since_ms);
        output::age(now.duration_since(since).unwrap_or_default())
    };
    let row = |invocation: &QueuedInvocation| {
        let last = invocation.last.as_ref().map(|last| match &last.error {
            Some(error) => format!("{}: {}", last.status, super::printable(error)),
            None => last.status.to_string(),
        });
        vec![
            super::printable(&invocation.call_id),
            invocation.function.clone(),
            invocation.state.clone(),
            age(invocation.accepted_ms),
            invocation.attempts.to_string(),
            last.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    std::iter::once(head.map(str::to_owned).to_vec())
        .chain(invocations.iter().map(row))
        .collect()
}
