//! Traces: which function is asked when, and for how long it works. As text, comma-separated, with a line of names first:
//!
//! ```text
//! at_ms,function,duration_ms          milliseconds since the beginning; any names of functions
//! 0,resize,12.5
//! 40.2,login,0.8
//!
//! app,func,end_timestamp,duration     that of Azure's traces of 2021: seconds; the end, not the beginning
//! ```
//!
//! Other columns are skipped, the order of lines does not matter, and quotes mean nothing.

use std::collections::HashMap;
use std::io::{BufRead, Read as _};

/// Most requests of a trace.
const EVENTS_MAX: usize = 5_000_000;
/// Most functions of a trace.
const FUNCTIONS_MAX: usize = 100_000;
/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// Latest time of a request, and longest work, in milliseconds: a year.
const MS_MAX: f64 = 366.0 * 86_400_000.0;

/// A request of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// When it comes, in milliseconds since the beginning.
    pub at_ms: f64,
    /// Which function, by its index.
    pub function: usize,
    /// How long it works, in milliseconds.
    pub duration_ms: f64,
}

/// Requests, by when they come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Names of the functions.
    pub functions: Vec<String>,
    /// The requests.
    pub events: Vec<Event>,
}

/// Why a text is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("the trace cannot be read")]
    Read(#[source] std::io::Error),
    /// The first line does not name the columns.
    #[error(
        "the first line has to name the columns: at_ms,function,duration_ms or app,func,end_timestamp,duration"
    )]
    Head,
    /// A line is malformed.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is too much of it.
    #[error("the trace has more than {EVENTS_MAX} requests or {FUNCTIONS_MAX} functions")]
    TooLong,
}

/// Which columns hold what.
struct Columns {
    time: usize,
    function: [Option<usize>; 2],
    duration: usize,
    /// Milliseconds of their unit.
    unit_ms: f64,
    /// Whether the time is that of the end.
    is_end: bool,
}

impl Columns {
    fn of(head: &str) -> Option<Self> {
        let names: Vec<&str> = head.split(',').map(str::trim).collect();
        let column = |name| names.iter().position(|found| *found == name);
        let own = || {
            Some(Self {
                time: column("at_ms")?,
                function: [Some(column("function")?), None],
                duration: column("duration_ms")?,
                unit_ms: 1.0,
                is_end: false,
            })
        };
        let azure = || {
            Some(Self {
                time: column("end_timestamp")?,
                function: [Some(column("func")?), column("app")],
                duration: column("duration")?,
                unit_ms: 1000.0,
                is_end: true,
            })
        };
        own().or_else(azure)
    }
}

impl Trace {
    /// Reads a trace; its first request comes at 0 afterwards.
    ///
    /// # Errors
    ///
    /// If it is malformed, with the line, or longer than [`TraceError::TooLong`] says.
    pub fn read(mut input: impl BufRead) -> Result<Self, TraceError> {
        let head = next_line(&mut input, 1)?.ok_or(TraceError::Head)?;
        let columns = Columns::of(head.trim_start_matches('\u{feff}')).ok_or(TraceError::Head)?;
        let (mut trace, mut indices) = (Self::default(), HashMap::new());
        for line in 2.. {
            let Some(text) = next_line(&mut input, line)? else {
                break;
            };
            if text.trim().is_empty() {
                continue;
            }
            if trace.events.len() == EVENTS_MAX || indices.len() > FUNCTIONS_MAX {
                return Err(TraceError::TooLong);
            }
            trace
                .add(&text, &columns, &mut indices)
                .map_err(|problem| TraceError::Line { line, problem })?;
        }
        trace.order();
        Ok(trace)
    }

    fn add(
        &mut self,
        text: &str,
        columns: &Columns,
        indices: &mut HashMap<String, usize>,
    ) -> Result<(), &'static str> {
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        let number = |column: usize| {
            let field = fields.get(column).ok_or("it has too few columns")?;
            let value: f64 = field.parse().map_err(|_| "a time is no number")?;
            let ms = value * columns.unit_ms;
            let is_time = (0.0..=MS_MAX).contains(&ms);
            is_time
                .then_some(ms)
                .ok_or("a time is negative, or more than a year")
        };
        let (time_ms, duration_ms) = (number(columns.time)?, number(columns.duration)?);
        let names = columns
            .function
            .iter()
            .flatten()
            .map(|column| fields.get(*column));
        let names = names
            .collect::<Option<Vec<_>>>()
            .ok_or("it has too few columns")?;
        let name = names
            .iter()
            .rev()
            .map(|name| **name)
            .collect::<Vec<_>>()
            .join("/");
        let next = self.functions.len();
        let function = *indices.entry(name.clone()).or_insert(next);
        if function == next {
            self.functions.push(name);
        }
        let at_ms = if columns.is_end {
            time_ms - duration_ms
        } else {
            time_ms
        };
        self.events.push(Event {
            at_ms,
            function,
            duration_ms,
        });
        Ok(())
    }

    /// Orders the requests by time, and lets the first one come at 0.
    pub fn order(&mut self) {
        self.events.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        let first = self.events.first().map_or(0.0, |event| event.at_ms);
        for event in &mut self.events {
            event.at_ms -= first;
        }
    }

    /// The trace as text, in the first form.
    pub fn to_csv(&self) -> String {
        let mut text = "at_ms,function,duration_ms\n".to_owned();
        for event in &self.events {
            let name = self.functions.get(event.function).map_or("", String::as_str);
            text.push_str(&format!("{:.3},{name},{:.3}\n", event.at_ms, event.duration_ms));
        }
        text
    }

    /// The functions with most requests, so many at most, and what becomes of the trace in so many seconds.
    ///
    /// Time is compressed; durations are scaled by one factor, so that all of them together keep `processors` busy for the
    /// share that is asked for, and then cut at the longest one. No function is asked more often than the settings allow:
    /// what is beyond is left out evenly.
    pub fn compressed(&self, settings: &super::LoadSettings, processors: usize) -> Self {
        let mut counts = vec![0_usize; self.functions.len()];
        for event in &self.events {
            counts[event.function] += 1;
        }
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(counts[*index]));
        order.truncate(settings.functions as usize);
        let seconds = f64::from(settings.seconds);
        let end_ms = seconds * 1000.0;
        let mut kept = vec![0.0_f64; self.functions.len()];
        let mut events: Vec<Event> = Vec::new();
        for event in &self.events {
            let at_ms = event.at_ms / settings.compression.max(f64::MIN_POSITIVE);
            let Some(function) = order.iter().position(|index| *index == event.function) else {
                continue;
            };
            // A bucket that fills at the greatest rate, and holds a second's requests.
            let room = settings.rate_max * (1.0 + at_ms / 1000.0);
            if at_ms >= end_ms || kept[event.function] + 1.0 > room {
                continue;
            }
            kept[event.function] += 1.0;
            events.push(Event {
                at_ms,
                function,
                ..*event
            });
        }
        let offered_ms: f64 = events.iter().map(|event| event.duration_ms).sum();
        let wanted_ms = end_ms * processors as f64 * settings.busy_share;
        let factor = if offered_ms > 0.0 {
            wanted_ms / offered_ms
        } else {
            1.0
        };
        for event in &mut events {
            event.duration_ms = (event.duration_ms * factor).min(settings.duration_max_ms);
        }
        let functions = order.iter().map(|index| self.functions[*index].clone()).collect();
        Self { functions, events }
    }
}

/// The next line, or none at the end.
fn next_line(input: &mut impl BufRead, line: usize) -> Result<Option<String>, TraceError> {
    let mut bytes = Vec::new();
    let limited = &mut input.take(LINE_BYTES_MAX as u64 + 1);
    limited.read_until(b'\n', &mut bytes).map_err(TraceError::Read)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > LINE_BYTES_MAX {
        return Err(TraceError::Line {
            line,
            problem: "it is too long",
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| TraceError::Line {
        line,
        problem: "it is no UTF-8",
    })?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::LoadSettings;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::read(text.as_bytes())
    }

    #[test]
    fn both_forms_are_read() {
        let own = read("at_ms,function,duration_ms\n50,b,2\n10.5,a,1,more\n\n").expect("it is one");
        assert_eq!(own.functions, ["b", "a"]);
        assert_eq!(
            own.events[0],
            Event {
                at_ms: 0.0,
                function: 1,
                duration_ms: 1.0
            }
        );
        assert_eq!(own.events[1].at_ms, 39.5);
        let azure =
            read("app,func,end_timestamp,duration\nA,f,10.0,0.5\nB,f,9.0,0.25\r\n").expect("it is one");
        assert_eq!(azure.functions, ["A/f", "B/f"]);
        assert_eq!(azure.events[0].duration_ms, 250.0);
        assert_eq!(
            azure.events[1].at_ms, 750.0,
            "they begin when they end less what they take"
        );
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_line() {
        for (text, message) in [
            ("", "the first line has to name"),
            ("a,b\n", "the first line has to name"),
            (
                "at_ms,function,duration_ms\n1,a\n",
                "line 2: it has too few columns",
            ),
            (
                "at_ms,function,duration_ms\n1,a,1\nx,a,1\n",
                "line 3: a time is no number",
            ),
            (
                "at_ms,function,duration_ms\n-1,a,1\n",
                "line 2: a time is negative",
            ),
            (
                "at_ms,function,duration_ms\nNaN,a,1\n",
                "line 2: a time is negative",
            ),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let long = format!("at_ms,function,duration_ms\n1,{},1\n", "a".repeat(5000));
        assert!(
            read(&long)
                .expect_err("it is long")
                .to_string()
                .ends_with("it is too long")
        );
        assert!(Trace::read(&b"at_ms,function,duration_ms\n\xff\n"[..]).is_err());
    }

    fn traces() -> impl Strategy<Value = Trace> {
        prop::collection::vec((0_u32..100_000, 0_usize..5, 0_u32..5000), 1..300).prop_map(|rows| {
            let mut trace = Trace {
                functions: (0..5).map(|index| format!("f{index}")).collect(),
                events: rows
                    .into_iter()
                    .map(|(at, function, duration)| Event {
                        at_ms: f64::from(at),
                        function,
                        duration_ms: f64::from(duration),
                    })
                    .collect(),
            };
            trace.order();
            trace
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in traces()) {
            let again = read(&trace.to_csv()).expect("it is one");
            let named = |trace: &Trace| -> Vec<(f64, String, f64)> {
                trace.events.iter().map(|e| (e.at_ms, trace.functions[e.function].clone(), e.duration_ms)).collect()
            };
            prop_assert_eq!(named(&again), named(&trace));
        }

        #[test]
        fn a_compressed_trace_keeps_within_its_bounds(trace in traces(), compression in 1.0_f64..50.0) {
            let settings = LoadSettings {
                compression,
                functions: 3,
                seconds: 20,
                rate_max: 2.0,
                duration_max_ms: 40.0,
                busy_share: 0.5,
                trace: None,
            };
            let found = trace.compressed(&settings, 2);
            prop_assert!(found.functions.len() <= 3);
            prop_assert!(found.events.is_sorted_by(|a, b| a.at_ms <= b.at_ms));
            let total: f64 = found.events.iter().map(|event| event.duration_ms).sum();
            prop_assert!(total <= 20_000.0 * 2.0 * 0.5 + 1e-6);
            for event in &found.events {
                prop_assert!(event.at_ms < 20_000.0 && event.duration_ms <= 40.0 && event.function < 3);
                let before = found.events.iter().filter(|other| {
                    other.function == event.function && other.at_ms <= event.at_ms
                });
                prop_assert!(before.count() as f64 <= 2.0 * (1.0 + event.at_ms / 1000.0));
            }
        }

        #[test]
        fn any_bytes_are_a_trace_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut text = b"at_ms,function,duration_ms\n".to_vec();
            text.extend(bytes);
            if let Ok(trace) = Trace::read(&text[..]) {
                prop_assert!(trace.events.iter().all(|event| event.function < trace.functions.len()));
            }
        }
    }
}
