//! The daemon's own log: each place in the code may say so much and no more, since callers and functions can make the
//! daemon come there as often as they like.
//!
//! Lines that are only there for whoever looks for a fault (`--log debug`) have no limit.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that one place may write at once, and each second in the long run.
const BURST_LINES: f64 = 20.0;
const LINES_PER_S: f64 = 0.5;

/// What one place may still write.
#[derive(Debug)]
struct Place {
    lines: f64,
    grown_at: Instant,
    left_out: u64,
}

impl Place {
    fn new(now: Instant) -> Self {
        Self {
            lines: BURST_LINES,
            grown_at: now,
            left_out: 0,
        }
    }

    /// How many lines were left out before this one, or nothing if it is left out too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.grown_at);
        self.lines = (self.lines + elapsed.as_secs_f64() * LINES_PER_S).min(BURST_LINES);
        self.grown_at = now;
        if self.lines < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// A writer with these limits.
#[derive(Debug)]
pub(crate) struct Limited<M> {
    inner: M,
    places: Mutex<HashMap<Identifier, Place>>,
}

/// Where one line goes: on, after a note about lines that were left out, or nowhere.
pub(crate) struct Line<W> {
    inner: Option<W>,
    left_out: u64,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(bytes.len());
        };
        if let count @ 1.. = std::mem::take(&mut self.left_out) {
            writeln!(inner, "({count} lines like the next one were left out)")?;
        }
        inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl<M> Limited<M> {
    /// Limits what goes to `inner`.
    pub(crate) fn new(inner: M) -> Self {
        Self {
            inner,
            places: Mutex::default(),
        }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Limited<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            inner: Some(self.inner.make_writer()),
            left_out: 0,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let is_limited = *metadata.level() <= Level::INFO;
        let admitted = if is_limited {
            let now = Instant::now();
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let place = places.entry(metadata.callsite());
            place.or_insert_with(|| Place::new(now)).admit(now)
        } else {
            Some(0)
        };
        Line {
            inner: admitted.map(|_| self.inner.make_writer_for(metadata)),
            left_out: admitted.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut place = Place::new(start);
        let passed = (0..100).filter(|_| place.admit(start).is_some()).count();
        assert_eq!(passed, BURST_LINES as usize);
        let later = start + Duration::from_secs(2);
        assert_eq!(place.admit(later), Some(80));
        assert_eq!(place.admit(later), None);
        let much_later = start + Duration::from_secs(1_000_000);
        let passed = (0..100).filter(|_| place.admit(much_later).is_some()).count();
        assert_eq!(passed, BURST_LINES as usize);
    }

    #[test]
    fn one_place_does_not_silence_another_and_debug_lines_all_pass() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&written);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .with_writer(Limited::new(move || Shared(Arc::clone(&into))))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                tracing::warn!(number, "a caller's doing");
                tracing::debug!(number, "looked for");
            }
            tracing::warn!("something else");
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("a caller's doing").count(), BURST_LINES as usize);
        assert_eq!(text.matches("looked for").count(), 100);
        assert_eq!(text.matches("something else").count(), 1);
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
