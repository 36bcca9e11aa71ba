//! Logs of functions: bounded files that outlive the instances which wrote them.
//!
//! ```text
//!  LogSink::write ──> queue (bounded, per function) ──> one writer thread ──> current.jsonl ──8 MiB──> old.jsonl
//!        └─ full: the line is dropped and counted            └─ tells the readers that follow
//! ```
//!
//! Writing never blocks: an instance that floods its log loses lines of its own, and only those.

mod allowance;
mod reader;
mod record;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use reader::{LogQuery, LogReader};
pub use record::LogRecord;
pub use writer::FunctionLog;

use writer::Writer;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The logs of all functions.
#[derive(Debug)]
pub struct LogStore {
    directory: PathBuf,
    writer: Writer,
    functions: Mutex<HashMap<String, Arc<FunctionLog>>>,
}

impl LogStore {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            writer: Writer::start()?,
            functions: Mutex::default(),
        })
    }

    /// The log of the function `key` (`NAME.NAMESPACE`, checked by the caller), made if there is none.
    pub fn function(&self, key: &str) -> Arc<FunctionLog> {
        let mut functions = lock(&self.functions);
        let make = || self.writer.function(self.directory.join(key));
        functions.entry(key.to_owned()).or_insert_with(make).clone()
    }

    /// Removes the log of a function; those who follow it see its end.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        let log = lock(&self.functions).remove(key);
        match log {
            Some(log) => log.remove(),
            None => writer::remove_folder(&self.directory.join(key)),
        }
    }

    /// Waits until every line that was written before this call is in its file.
    pub fn flush(&self) {
        self.writer.flush();
    }
}
