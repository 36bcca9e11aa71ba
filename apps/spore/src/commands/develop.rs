//! `spore dev`: deploys a function again whenever its source changes, and shows its log meanwhile.

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use notify::{Event, EventKind, RecursiveMode, Watcher};
use spore_builder::interpreted::is_code;
use spore_builder::settings::{self, SETTINGS_FILE};
use spore_builder::stack::StackSource;
use spore_client::Client;
use spore_client::api::LogQuery;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::deploy::bring_up;
use super::logs;
use crate::arguments::DevArguments;
use crate::output;

/// Editors write in several steps: how long nothing more must come before the function is built.
const QUIET: Duration = Duration::from_millis(20);

/// Deploys the function in a folder until the user ends it.
pub(crate) async fn run(client: &Client, arguments: &DevArguments) -> anyhow::Result<ExitCode> {
    let folder = arguments
        .directory
        .canonicalize()
        .with_context(|| format!("there is no folder {}", arguments.directory.display()))?;
    let (sender, mut changes) = mpsc::unbounded_channel();
    let _watcher = watch(&folder, sender)?;
    // What is wrong at the start ends it; later it is shown, and the next change may mend it.
    let mut name = round(client, &arguments.directory).await?;
    let mut log = follow(client, &name);
    loop {
        tokio::select! {
            changed = changes.recv() => if changed.is_none() {
                return Ok(ExitCode::SUCCESS);
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("Ctrl-C cannot be waited for")?;
                log.abort();
                return Ok(ExitCode::SUCCESS);
            }
        }
        while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
        match round(client, &arguments.directory).await {
            Ok(now) => {
                if now != name || log.is_finished() {
                    log.abort();
                    name = now;
                    log = follow(client, &name);
                }
            }
            Err(error) => output::print_error(&error),
        }
    }
}

/// Builds, pushes and deploys once, and says how long it took; the function's name.
async fn round(client: &Client, folder: &Path) -> anyhow::Result<String> {
    let begin = Instant::now();
    let settings = settings::load(folder)?;
    let source = StackSource::Folder(folder.to_owned());
    let line = bring_up(client, &settings, &source).await?;
    let took = output::seconds(begin.elapsed().as_secs_f64());
    super::print(&format!("{} ({took})\n", line.trim_end()))?;
    Ok(settings.name.to_string())
}

/// Shows the function's log from now on.
fn follow(client: &Client, name: &str) -> JoinHandle<()> {
    let query = LogQuery {
        name: name.to_owned(),
        follow: true,
        tail: None,
        since: Some(Timestamp::now().to_string()),
    };
    let client = client.clone();
    tokio::spawn(async move {
        // A log that breaks off is followed again with the next change.
        if let Err(error) = logs::show_all(&client, &query, false).await {
            output::print_error(&error);
        }
    })
}

/// Reports changes of what is a part of the function.
fn watch(folder: &Path, sender: mpsc::UnboundedSender<()>) -> anyhow::Result<impl Watcher> {
    let base = folder.to_owned();
    let report = move |event: notify::Result<Event>| {
        // After an error something may have been missed.
        if event.map_or(true, |event| is_change(&base, &event)) {
            // The receiver is gone when the command ends.
            let _ = sender.send(());
        }
    };
    let mut watcher = notify::recommended_watcher(report).context("changes of files cannot be watched")?;
    watcher
        .watch(folder, RecursiveMode::Recursive)
        .with_context(|| format!("{} cannot be watched", folder.display()))?;
    Ok(watcher)
}

fn is_change(folder: &Path, event: &Event) -> bool {
    let is_write = !matches!(event.kind, EventKind::Access(_));
    is_write && event.paths.iter().any(|path| is_part(folder, path))
}

/// Whether a path is a part of the function: neither it nor a folder that it is in is left out.
fn is_part(folder: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(folder) else {
        return false;
    };
    if inside == Path::new(SETTINGS_FILE) {
        return true;
    }
    // Where cargo builds for tests.
    if inside.starts_with("target") {
        return false;
    }
    let mut part = PathBuf::new();
    inside.components().all(|component| {
        part.push(component);
        matches!(component, Component::Normal(_)) && is_code(&part)
    }) && inside != Path::new("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_build_writes_is_no_change() {
        let folder = Path::new("/somewhere/hello");
        for part in ["handler.py", "spore.toml", "lib/data.json"] {
            assert!(is_part(folder, &folder.join(part)), "{part}");
        }
        for other in [
            "build/function",
            "build",
            "",
            ".git/index",
            "lib/__pycache__/a.pyc",
            "../other",
        ] {
            assert!(!is_part(folder, &folder.join(other)), "{other}");
        }
    }
}
