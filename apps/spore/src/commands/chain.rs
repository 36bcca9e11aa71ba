//! `spore chain`: one request through several functions.

use std::process::ExitCode;

use spore_client::Client;

use super::invoke;
use crate::arguments::{ChainArguments, InvokeArguments};

/// Calls the first function, whose answer goes on to the others within the daemon.
pub(crate) async fn run(client: &Client, arguments: ChainArguments) -> anyhow::Result<ExitCode> {
    invoke::run(client, request(arguments)?).await
}

fn request(arguments: ChainArguments) -> anyhow::Result<InvokeArguments> {
    let mut names = arguments.names.into_iter();
    let Some(name) = names.next() else {
        anyhow::bail!("name two functions or more");
    };
    let others: Vec<_> = names.map(|name| name.to_string()).collect();
    let mut header = arguments.header;
    header.push(("x-spore-chain".to_owned(), others.join(",")));
    Ok(InvokeArguments {
        name,
        data: arguments.data,
        method: "POST".to_owned(),
        header,
        query: Vec::new(),
        path: "/".to_owned(),
        queued: arguments.queued,
        callback: arguments.callback,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_called_with_the_names_of_the_others() {
        let names = ["a", "b", "c"].map(|name| name.parse().expect("a name"));
        let request = request(ChainArguments {
            names: names.to_vec(),
            data: None,
            header: Vec::new(),
            queued: false,
            callback: None,
        });
        let request = request.expect("valid");
        assert_eq!(request.name.to_string(), "a");
        assert_eq!(request.header, [("x-spore-chain".to_owned(), "b,c".to_owned())]);
    }
}
