//! Calls functions when files change in the folders that they watch.
//!
//! ```text
//!   deployed, changed, removed ──> one task for each folder of each function
//!     folder cannot be opened ──RETRY_PAUSE──> again
//!     something may have changed, or LOOK_PAUSE ──> look ──a file rests──> read, call
//! ```

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use spore_trigger::folder::{Folder, FolderError, Root};
use spore_trigger::{Change, Settling};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{CONNECTOR, Call, Kind, TOPIC, call, failed};
use crate::errors::one_line;
use crate::functions::Function;
use crate::routes::Gateway;

/// The file's path below the daemon's folder, percent-encoded where a header needs it.
const FILE: HeaderName = HeaderName::from_static("x-spore-file");
/// `created` or `changed`.
const CHANGE: HeaderName = HeaderName::from_static("x-spore-change");

/// How often a folder is looked at that seems not to change: some file systems tell of nothing.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// How long a folder that cannot be used is left alone.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// Shortest pause between two looks, however much changes.
const REST: Duration = Duration::from_millis(50);

/// One task for a folder; aborted when it is dropped.
struct Watching {
    function: Arc<Function>,
    task: JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches the folders of all functions until the daemon stops.
pub(crate) async fn watch_folders(gateway: Arc<Gateway>) {
    let mut stopping = gateway.stopping.clone();
    let mut changed = gateway.functions.changed();
    let mut watching: BTreeMap<(String, String), Watching> = BTreeMap::new();
    loop {
        changed.mark_unchanged();
        let mut wanted = BTreeMap::new();
        for function in gateway.functions.all() {
            for folder in &function.triggers().folders {
                // They come from annotations, which are text.
                let folder = folder.to_string_lossy().into_owned();
                wanted.insert((function.id.key(), folder), function.clone());
            }
        }
        // A function of the same name that was removed meanwhile begins anew: its task has ended.
        watching.retain(|key, watching| {
            let is_its_own = |function| Arc::ptr_eq(function, &watching.function);
            wanted.get(key).is_some_and(is_its_own) && !watching.task.is_finished()
        });
        for (key, function) in wanted {
            let folder = key.1.clone();
            watching.entry(key).or_insert_with(|| {
                let gateway = gateway.clone();
                Watching {
                    function: function.clone(),
                    task: tokio::spawn(async move { watch(&gateway, &function, folder).await }),
                }
            });
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    // Nothing of theirs is left when the daemon has stopped.
    for (_, mut watching) in watching {
        watching.task.abort();
        let _ = (&mut watching.task).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FolderError> + Send + 'static,
) -> Option<Result<T, FolderError>> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Watches one folder, as long as the function is deployed.
async fn watch(gateway: &Gateway, function: &Arc<Function>, path: String) {
    let kind = Kind::Folder(path.clone());
    let is_deployed = || {
        let deployed = gateway.functions.find(&function.id.key());
        deployed.is_some_and(|deployed| Arc::ptr_eq(&deployed, function))
    };
    let begun = Instant::now();
    // What has been told of, also of a folder that comes to lie at the same path, and while it could not be looked at.
    let mut settling = None;
    while is_deployed() {
        let Some(root) = gateway.functions.trigger_folder() else {
            let line = "the daemon watches no folder: start it with --trigger-folder DIR".to_owned();
            failed(gateway, function, &kind, line);
            return;
        };
        let kept = (begun, &mut settling);
        match watch_open(gateway, function, &kind, root, &path, &is_deployed, kept).await {
            Ok(()) => {}
            Err(error) => {
                failed(gateway, function, &kind, one_line(&error));
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        tokio::time::sleep(REST).await;
    }
}

/// Watches a folder until it cannot be looked at, or another one is at its path.
async fn watch_open(
    gateway: &Gateway,
    function: &Arc<Function>,
    kind: &Kind,
    root: Arc<Root>,
    path: &str,
    is_deployed: &(impl Fn() -> bool + Sync),
    (begun, settling): (Instant, &mut Option<Settling>),
) -> Result<(), FolderError> {
    let wake = Arc::new(Notify::new());
    let (woken, owned, opening) = (wake.clone(), path.to_owned(), root.clone());
    let opened = blocking(move || {
        let folder = Arc::new(opening.folder(Path::new(&owned))?);
        // Before the first look, so that nothing comes between.
        let watcher = folder.watch(move || woken.notify_one())?;
        let files = folder.files()?;
        Ok((folder, watcher, files))
    });
    let Some(opened) = opened.await else { return Ok(()) };
    let (folder, _watcher, files) = opened?;
    let settling = settling.get_or_insert_with(|| Settling::new(files));
    while is_deployed() {
        let pause = settling
            .next_at()
            .map_or(LOOK_PAUSE, |at| at.saturating_sub(begun.elapsed()));
        // Either way it is looked at.
        let _ = tokio::time::timeout(pause.min(LOOK_PAUSE), wake.notified()).await;
        let (looking, root) = (folder.clone(), root.clone());
        let looked = blocking(move || {
            let is_there = root.leads_to(&looking)?;
            is_there.then(|| looking.files()).transpose()
        });
        let Some(looked) = looked.await else {
            return Ok(());
        };
        let Some(files) = looked? else { return Ok(()) };
        for (name, change) in settling.look(begun.elapsed(), &files) {
            if !tell(gateway, function, kind, &folder, name.clone(), change).await {
                settling.forget(&name);
                tokio::time::sleep(REST * 10).await;
            }
        }
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

/// Calls the function for a file; says whether that is done, one way or another.
async fn tell(
    gateway: &Gateway,
    function: &Function,
    kind: &Kind,
    folder: &Arc<Folder>,
    name: OsString,
    change: Change,
) -> bool {
    match file_call(gateway, folder, name, change.name()).await {
        Ok(told) => call(gateway, function, kind, told).await.is_ok(),
        Err(error) => {
            // It is no better the next time.
            failed(gateway, function, kind, one_line(&error));
            true
        }
    }
}

/// What a function is told of a file.
pub(super) async fn file_call(
    gateway: &Gateway,
    folder: &Arc<Folder>,
    name: OsString,
    change: &'static str,
) -> Result<Call, FolderError> {
    let limit_bytes = gateway.functions.config.max_queued_body_bytes;
    let file = encoded(folder.path().join(&name).as_os_str());
    let (reading, read) = (folder.clone(), name.clone());
    let body = blocking(move || reading.read(&read, limit_bytes)).await;
    let body = body.unwrap_or_else(|| {
        Err(FolderError::NoFile {
            path: folder.path().join(&name),
        })
    })?;
    let mut headers = vec![
        (TOPIC, HeaderValue::from_static("folder")),
        (CONNECTOR, HeaderValue::from_static("spore")),
        (CHANGE, HeaderValue::from_static(change)),
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
    ];
    headers.extend(HeaderValue::from_str(&file).ok().map(|value| (FILE, value)));
    Ok(Call { headers, body })
}

/// A path with everything but letters, digits and a few signs percent-encoded.
fn encoded(path: &OsStr) -> String {
    let mut text = String::new();
    for &byte in path.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_a_header() {
        let name = OsStr::from_bytes(b"in/a b\n\xff.csv");
        assert_eq!(encoded(name), "in/a%20b%0A%FF.csv");
        assert!(HeaderValue::from_str(&encoded(name)).is_ok());
    }
}
