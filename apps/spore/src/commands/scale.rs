//! `spore scale`: how many instances of a function are kept started.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use spore_client::Client;
use spore_client::api::FunctionStatus;

use super::functions::not_found;
use crate::arguments::ScaleArguments;
use crate::output;

/// Pause between two looks at the function.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// Scales a function, and waits until it is as it was asked to be.
pub(crate) async fn run(client: &Client, arguments: &ScaleArguments) -> anyhow::Result<ExitCode> {
    let (name, wanted) = (&arguments.name, u64::from(arguments.instances));
    client
        .scale(name.as_str(), arguments.instances)
        .await
        .or_else(|error| not_found(error, name))?;
    let deadline = (!arguments.no_wait).then(|| Instant::now() + arguments.timeout);
    let function = settled(client, arguments, deadline).await?;
    if deadline.is_some() && function.available_replicas < wanted {
        bail!(
            "only {} of {} of {name} ready after {:?}: spore logs {name} says why, if a start has failed",
            function.available_replicas,
            instances(wanted, "is", "are"),
            arguments.timeout,
        );
    }
    if arguments.json {
        return super::print_json(&serde_json::to_value(function)?);
    }
    super::print(&format!("{}\n", description(&function, wanted)))
}

/// The function, as soon as it has neither fewer nor more instances than wanted, or the time is over.
async fn settled(
    client: &Client,
    arguments: &ScaleArguments,
    deadline: Option<Instant>,
) -> anyhow::Result<FunctionStatus> {
    let (name, wanted) = (&arguments.name, u64::from(arguments.instances));
    let spinner = output::spinner(String::new());
    let settled = loop {
        let function = client
            .describe(name.as_str())
            .await
            .or_else(|error| not_found(error, name));
        let function = match function {
            Ok(function) => function,
            Err(error) => break Err(error),
        };
        let is_settled = function.available_replicas >= wanted && function.replicas <= wanted;
        if is_settled || deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            break Ok(function);
        }
        spinner.set_message(description(&function, wanted));
        tokio::time::sleep(POLL_PAUSE).await;
    };
    spinner.finish_and_clear();
    settled
}

fn description(function: &FunctionStatus, wanted: u64) -> String {
    let FunctionStatus {
        name,
        replicas,
        available_replicas,
        ..
    } = function;
    if *available_replicas < wanted {
        format!(
            "{name}: {available_replicas} of {} ready",
            instances(wanted, "is", "are")
        )
    } else if *replicas > wanted {
        format!(
            "{name} has {}, {wanted} of them kept: the others serve invocations",
            instances(*replicas, "", "").trim_end()
        )
    } else {
        format!("{name} has {}", instances(*replicas, "", "").trim_end())
    }
}

fn instances(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 instance {one}"),
        _ => format!("{count} instances {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_and_what_is_to_come_are_told_apart() {
        let function = |replicas, available_replicas| FunctionStatus {
            name: "hello".into(),
            replicas,
            available_replicas,
            ..FunctionStatus::default()
        };
        for (status, wanted, text) in [
            (function(0, 0), 0, "hello has 0 instances"),
            (function(1, 1), 1, "hello has 1 instance"),
            (function(4, 1), 4, "hello: 1 of 4 instances are ready"),
            (function(1, 0), 1, "hello: 0 of 1 instance is ready"),
            (
                function(3, 3),
                1,
                "hello has 3 instances, 1 of them kept: the others serve invocations",
            ),
        ] {
            assert_eq!(description(&status, wanted), text);
        }
    }
}
