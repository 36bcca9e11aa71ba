//! `spore login` and `spore logout`.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use spore_client::Client;

use crate::arguments::LoginArguments;
use crate::credentials::{self, Credentials};

/// Asks the gateway whether it takes the credentials, and keeps them if so.
pub(crate) async fn login(client: Client, arguments: &LoginArguments) -> anyhow::Result<ExitCode> {
    let file = credentials::file().context(NO_PLACE)?;
    if client.is_exposed() {
        eprintln!(
            "warning: {} is not encrypted: whoever is on the way can read the password",
            client.url()
        );
    }
    let password = password(&arguments.username)?;
    let client = client.with_credentials(&arguments.username, &password);
    client.list().await?;
    let mut credentials = Credentials::load(&file)?;
    credentials.insert(client.url(), &arguments.username, &password);
    credentials.save(&file)?;
    super::print(&format!("logged in to {}\n", client.url()))
}

/// Forgets the gateway's credentials.
pub(crate) fn logout(client: &Client) -> anyhow::Result<ExitCode> {
    let file = credentials::file().context(NO_PLACE)?;
    let mut credentials = Credentials::load(&file)?;
    if !credentials.remove(&client.url()) {
        bail!("you are not logged in to {}", client.url());
    }
    credentials.save(&file)?;
    super::print(&format!("logged out of {}\n", client.url()))
}

const NO_PLACE: &str = "there is no place for passwords: set HOME or XDG_CONFIG_HOME";

/// The first line of standard input; a terminal does not show it.
fn password(username: &str) -> anyhow::Result<String> {
    let input = std::io::stdin();
    let shown = if input.is_terminal() {
        eprint!("Password of {username}: ");
        let shown = tcgetattr(&input).context("the terminal cannot be used")?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &hidden).context("the terminal cannot be used")?;
        Some(shown)
    } else {
        None
    };
    let mut line = String::new();
    let result = input.lock().read_line(&mut line);
    if let Some(shown) = shown {
        eprintln!();
        tcsetattr(&input, OptionalActions::Flush, &shown).context("the terminal cannot be used")?;
    }
    result.context("standard input could not be read")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("standard input holds no password: give it there, for example with < FILE");
    }
    Ok(password.to_owned())
}
