//! From the files to those who read a log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::record::LogRecord;
use super::writer::{CURRENT_FILE, FunctionLog, OLD_FILE, Progress};

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only the last so many of the lines that exist already.
    pub tail: Option<usize>,
    /// Only lines received at this time or later.
    pub since: Option<Timestamp>,
    /// Only lines of this instance.
    pub instance: Option<String>,
    /// Whether to go on with lines as they arrive.
    pub follow: bool,
}

impl LogQuery {
    fn wants(&self, record: &LogRecord) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self
                .instance
                .as_ref()
                .is_none_or(|instance| record.instance == *instance)
    }
}

/// Where a reader has come to.
#[derive(Debug, Clone, Copy)]
struct Position {
    rotations: u64,
    offset_bytes: u64,
}

/// Reads one log.
#[derive(Debug)]
pub struct LogReader {
    log: Arc<FunctionLog>,
    query: LogQuery,
    progress: watch::Receiver<Progress>,
    position: Option<Position>,
}

impl FunctionLog {
    /// A reader for the lines that `query` asks for.
    pub fn read(self: &Arc<Self>, query: LogQuery) -> LogReader {
        LogReader {
            log: self.clone(),
            query,
            progress: self.progress.subscribe(),
            position: None,
        }
    }
}

impl LogReader {
    /// The next lines, perhaps none of them wanted and so an empty list; `None` when there will be no more. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> io::Result<Option<Vec<LogRecord>>> {
        if self.position.is_some() {
            if !self.query.follow || self.progress.borrow().removed || self.progress.changed().await.is_err()
            {
                return Ok(None);
            }
        } else {
            self.progress.mark_unchanged();
        }
        let (log, query, position) = (self.log.clone(), self.query.clone(), self.position);
        let task = tokio::task::spawn_blocking(move || read(&log, &query, position));
        let (records, position) = task.await.map_err(io::Error::other)??;
        self.position = Some(position);
        Ok(Some(records))
    }
}

fn read(
    log: &FunctionLog,
    query: &LogQuery,
    position: Option<Position>,
) -> io::Result<(Vec<LogRecord>, Position)> {
    let (old, current, rotations) = log.open_files()?;
    let mut lines = Lines {
        directory: log.directory(),
        query,
        limit: position.map_or(query.tail, |_| None),
        records: VecDeque::new(),
    };
    let mut offset_bytes = 0;
    match position {
        Some(position) if position.rotations == rotations => offset_bytes = position.offset_bytes,
        Some(position) => {
            let missed = position.rotations + 1 != rotations;
            if missed {
                lines.records.push_back(LogRecord::of_platform(
                    "lines were skipped here: the log grew faster".to_owned(),
                ));
            }
            lines.take(old, OLD_FILE, if missed { 0 } else { position.offset_bytes })?;
        }
        None => drop(lines.take(old, OLD_FILE, 0)?),
    }
    let offset_bytes = lines.take(current, CURRENT_FILE, offset_bytes)?;
    Ok((
        lines.records.into(),
        Position {
            rotations,
            offset_bytes,
        },
    ))
}

/// Collects wanted lines.
struct Lines<'a> {
    directory: &'a Path,
    query: &'a LogQuery,
    limit: Option<usize>,
    records: VecDeque<LogRecord>,
}

impl Lines<'_> {
    /// Takes all complete lines of the file from the offset on and returns the offset behind them.
    fn take(&mut self, file: Option<File>, name: &str, offset_bytes: u64) -> io::Result<u64> {
        let Some(mut file) = file else {
            return Ok(offset_bytes);
        };
        file.seek(SeekFrom::Start(offset_bytes))?;
        let mut reader = BufReader::new(file);
        let mut end = offset_bytes;
        let mut line = Vec::new();
        let mut damaged = 0;
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                self.tell_of_damage(name, damaged);
                return Ok(end);
            }
            end += read as u64;
            let Ok(record) = serde_json::from_slice::<LogRecord>(&line) else {
                damaged += u64::from(line.len() > 1);
                continue;
            };
            self.tell_of_damage(name, std::mem::take(&mut damaged));
            if self.query.wants(&record) {
                self.push(record);
            }
        }
    }

    fn push(&mut self, record: LogRecord) {
        self.records.push_back(record);
        if self.limit.is_some_and(|limit| self.records.len() > limit) {
            self.records.pop_front();
        }
    }

    /// A daemon that is killed, or a full disk, leaves a line cut in two; more than that is somebody else's doing.
    fn tell_of_damage(&mut self, name: &str, lines: u64) {
        if lines > 0 {
            let file = self.directory.join(name);
            self.push(LogRecord::of_platform(format!(
                "{lines} damaged lines of {} are left out here",
                file.display()
            )));
        }
    }
}
