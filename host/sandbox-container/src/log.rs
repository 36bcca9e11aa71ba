//! What a function writes, on its way into the log: cut into lines, at a bounded rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use spore_allowance::{Allowance, cost};
use spore_sandbox::{Lines, LogLine, LogSink, LogSource};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// An instance's log.
pub(crate) struct Log {
    instance: String,
    sink: Arc<dyn LogSink>,
    state: Mutex<(Allowance, Instant)>,
}

impl Log {
    pub(crate) fn new(instance: &str, sink: Arc<dyn LogSink>) -> Self {
        Self {
            instance: instance.to_owned(),
            sink,
            state: Mutex::new((Allowance::new(), Instant::now())),
        }
    }

    pub(crate) fn write(&self, source: LogSource, text: String) {
        self.sink.write(LogLine {
            instance: self.instance.clone(),
            time: SystemTime::now(),
            source,
            text,
        });
    }

    /// Passes on what comes from a pipe, until all who could write to it have closed it.
    pub(crate) async fn pass_on(self: Arc<Self>, source: LogSource, mut pipe: impl AsyncRead + Unpin) {
        let mut lines = Lines::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
            let bytes = &chunk[..length];
            if self.admits(bytes) {
                lines.push(bytes, &mut |line| self.write(source, line));
            }
            self.tell_dropped(false);
        }
        lines.flush(&mut |line| self.write(source, line));
        self.tell_dropped(true);
    }

    fn admits(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (allowance, grown_at) = &mut *state;
        let now = Instant::now();
        allowance.grow(now.saturating_duration_since(*grown_at));
        *grown_at = now;
        let admits = allowance.admit(cost(bytes));
        if !admits {
            allowance.count_dropped(bytes.len() as u64);
        }
        admits
    }

    fn tell_dropped(&self, is_last: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let allowance = &mut state.0;
        if is_last {
            allowance.allow_last_report();
        }
        if let Some(bytes) = allowance.to_report() {
            allowance.reported();
            drop(state);
            let text = format!("{bytes} bytes of output were dropped: the function logs faster than it may");
            self.write(LogSource::Platform, text);
        }
    }
}
