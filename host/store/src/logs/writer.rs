//! From the instances to the files.
//!
//! A line that cannot be written, because the disk is full or the file cannot be opened, is counted and forgotten: the
//! first line after it that can be written is one of the platform's which tells how many are missing.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::Instant;

use spore_sandbox::{LogLine, LogSink};
use tokio::sync::watch;

use super::allowance::Allowance;
use super::lock;
use super::record::LogRecord;

pub(super) const CURRENT_FILE: &str = "current.jsonl";
pub(super) const OLD_FILE: &str = "old.jsonl";
/// Longest a log file grows before it becomes the old one, in bytes.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Most text that waits to be written, per function, in bytes.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// What a line costs beside its text, in bytes; bounds the number of empty lines.
const LINE_OVERHEAD_BYTES: usize = 64;

enum Message {
    /// Lines wait in this log's queue.
    Drain(Arc<FunctionLog>),
    /// Answer when everything before was written.
    Flush(mpsc::Sender<()>),
}

/// Handle of the writer thread, which ends when no handle and no log is left.
#[derive(Clone)]
pub(super) struct Writer {
    messages: mpsc::Sender<Message>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Writer")
    }
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        let (messages, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("function-logs".to_owned())
            .spawn(move || {
                for message in receiver {
                    match message {
                        Message::Drain(log) => log.drain(),
                        // Nobody waits any more if this fails.
                        Message::Flush(done) => drop(done.send(())),
                    }
                }
            })?;
        Ok(Self { messages })
    }

    pub(super) fn function(&self, directory: PathBuf) -> Arc<FunctionLog> {
        Arc::new_cyclic(|itself| FunctionLog {
            itself: itself.clone(),
            writer: self.clone(),
            directory,
            queue: Mutex::default(),
            files: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
        })
    }

    pub(super) fn flush(&self) {
        let (done, wait) = mpsc::channel();
        if self.messages.send(Message::Flush(done)).is_ok() {
            // An error means that the thread is gone, and with it everything to wait for.
            let _ = wait.recv();
        }
    }
}

/// What readers wait for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Changes with every batch of lines.
    pub(super) batches: u64,
    /// The log was removed.
    pub(super) removed: bool,
}

#[derive(Default)]
struct Queue {
    allowance: Allowance,
    lines: Vec<LogLine>,
    bytes: usize,
    dropped: u64,
    /// Whether the writer was told.
    scheduled: bool,
}

/// The files of a log. Readers open theirs under the same lock, so that no rotation comes between.
#[derive(Debug, Default)]
pub(super) struct Files {
    current: Option<File>,
    current_bytes: u64,
    /// How often `current.jsonl` became `old.jsonl` since the daemon started.
    pub(super) rotations: u64,
    removed: bool,
    /// Lines that could not be written since the last one that could, and why the first of them was not.
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    lines: usize,
    reason: String,
}

/// The log of one function.
pub struct FunctionLog {
    itself: Weak<Self>,
    writer: Writer,
    directory: PathBuf,
    queue: Mutex<Queue>,
    files: Mutex<Files>,
    pub(super) progress: watch::Sender<Progress>,
}

impl fmt::Debug for FunctionLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FunctionLog")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Lost {
    /// The line that tells of it, as stored.
    fn note(&self) -> Vec<u8> {
        let Self { lines, reason } = self;
        let text = format!("{lines} lines are missing here: they could not be stored ({reason})");
        let mut note = serde_json::to_vec(&LogRecord::of_platform(text)).unwrap_or_default();
        note.push(b'\n');
        note
    }
}

impl LogSink for FunctionLog {
    fn write(&self, line: LogLine) {
        let mut queue = lock(&self.queue);
        let bytes = line.text.len() + LINE_OVERHEAD_BYTES;
        if queue.bytes + bytes > MAX_QUEUED_BYTES || !queue.allowance.admit(bytes, Instant::now()) {
            queue.dropped += 1;
            return;
        }
        queue.bytes += bytes;
        queue.lines.push(line);
        if !std::mem::replace(&mut queue.scheduled, true)
            && let Some(itself) = self.itself.upgrade()
        {
            // The thread outlives every log, so this arrives.
            let _ = self.writer.messages.send(Message::Drain(itself));
        }
    }
}

impl FunctionLog {
    /// Writes what waits. Runs on the writer thread.
    fn drain(&self) {
        let (lines, dropped) = {
            let mut queue = lock(&self.queue);
            queue.bytes = 0;
            queue.scheduled = false;
            (
                std::mem::take(&mut queue.lines),
                std::mem::take(&mut queue.dropped),
            )
        };
        let dropped = (dropped > 0).then(|| {
            LogRecord::of_platform(format!(
                "{dropped} lines were dropped here: the function logs faster than is stored"
            ))
        });
        let mut batch = Vec::new();
        for record in lines.into_iter().map(LogRecord::from).chain(dropped) {
            match serde_json::to_writer(&mut batch, &record) {
                Ok(()) => batch.push(b'\n'),
                Err(error) => tracing::error!(%error, "a log line could not be encoded"),
            }
        }
        self.append(&mut lock(&self.files), &batch);
        self.progress.send_modify(|progress| progress.batches += 1);
    }

    /// Adds complete lines to the file, and before them how many are missing; counts those that cannot be written.
    fn append(&self, files: &mut Files, batch: &[u8]) {
        if files.removed {
            return;
        }
        let note = files.lost.as_ref().map_or_else(Vec::new, Lost::note);
        let lines = [&note[..], batch].concat();
        let mut written = 0;
        if let Err(error) = self.write(files, &lines, &mut written) {
            // Opened anew, the file gets an end for the line that may have been cut in two.
            files.current = None;
            let missing = &batch[written.saturating_sub(note.len())..];
            let missing = missing.iter().filter(|&&byte| byte == b'\n').count();
            if written < note.len() {
                if let Some(lost) = &mut files.lost {
                    lost.lines += missing;
                }
                return;
            }
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "log lines are lost until they can be stored again");
            files.lost = Some(Lost {
                lines: missing,
                reason: error.to_string(),
            });
        } else if !note.is_empty() {
            files.lost = None;
        }
    }

    fn write(&self, files: &mut Files, lines: &[u8], written: &mut usize) -> io::Result<()> {
        if files.current.is_some() && files.current_bytes + lines.len() as u64 > MAX_FILE_BYTES {
            files.current = None;
            fs::rename(self.directory.join(CURRENT_FILE), self.directory.join(OLD_FILE))?;
            files.rotations += 1;
        }
        if files.current.is_none() {
            let (file, bytes) = self.open_current()?;
            files.current = Some(file);
            files.current_bytes = bytes;
        }
        let Some(file) = &mut files.current else {
            return Ok(());
        };
        while *written < lines.len() {
            match file.write(&lines[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += count;
                    files.current_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the current file for appending; a line that a dying daemon left unfinished is ended first.
    fn open_current(&self) -> io::Result<(File, u64)> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(CURRENT_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != [b'\n'] {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok((file, bytes))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Opens the old and the current file for reading; the number tells how often they were rotated up to now.
    pub(super) fn open_files(&self) -> io::Result<(Option<File>, Option<File>, u64)> {
        let mut files = lock(&self.files);
        if files.lost.is_some() {
            // Whoever reads now should hear of the gap, if there is room again to say so.
            self.append(&mut files, &[]);
        }
        let open = |name| match File::open(self.directory.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok((open(OLD_FILE)?, open(CURRENT_FILE)?, files.rotations))
    }

    /// Deletes the files; later lines are dropped.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut files = lock(&self.files);
        files.removed = true;
        files.current = None;
        let removed = remove_folder(&self.directory);
        drop(files);
        self.progress.send_modify(|progress| progress.removed = true);
        removed
    }
}

/// Removes a log's folder, if it is there.
pub(super) fn remove_folder(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
