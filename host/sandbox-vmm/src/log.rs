//! What a guest's program writes, as lines of the function's log, within the limits of every sandbox.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use spore_allowance::{Allowance, cost};
use spore_monitor::dropped_line;
use spore_sandbox::{Lines, LogLine, LogSink, LogSource};

/// The log of an instance.
pub(crate) struct Log {
    sink: Arc<dyn LogSink>,
    instance: String,
    output: Lines,
    errors: Lines,
    allowance: Allowance,
    grown: Instant,
}

impl Log {
    pub(crate) fn new(sink: Arc<dyn LogSink>, instance: String) -> Self {
        Self {
            sink,
            instance,
            output: Lines::default(),
            errors: Lines::default(),
            allowance: Allowance::new(),
            grown: Instant::now(),
        }
    }

    /// Takes what the program has written to its standard output, as far as the limit allows it.
    pub(crate) fn push_output(&mut self, bytes: &[u8]) {
        if self.admits(bytes) {
            let (sink, instance) = (&self.sink, &self.instance);
            self.output
                .push(bytes, &mut |text| write(sink, instance, LogSource::Stdout, text));
        }
        self.report_dropped();
    }

    /// The same for standard error.
    pub(crate) fn push_errors(&mut self, bytes: &[u8]) {
        if self.admits(bytes) {
            let (sink, instance) = (&self.sink, &self.instance);
            self.errors
                .push(bytes, &mut |text| write(sink, instance, LogSource::Stderr, text));
        }
        self.report_dropped();
    }

    /// A line of the platform's own.
    pub(crate) fn platform(&self, text: &str) {
        write(&self.sink, &self.instance, LogSource::Platform, text.to_owned());
    }

    /// Nothing more comes: what is there of a line is one.
    pub(crate) fn finish(&mut self) {
        let (sink, instance) = (&self.sink, &self.instance);
        self.output
            .flush(&mut |text| write(sink, instance, LogSource::Stdout, text));
        self.errors
            .flush(&mut |text| write(sink, instance, LogSource::Stderr, text));
        self.allowance.allow_last_report();
        self.report_dropped();
    }

    fn admits(&mut self, bytes: &[u8]) -> bool {
        let now = Instant::now();
        self.allowance.grow(now.duration_since(self.grown));
        self.grown = now;
        let admits = self.allowance.admit(cost(bytes));
        if !admits {
            self.allowance.count_dropped(bytes.len() as u64);
        }
        admits
    }

    fn report_dropped(&mut self) {
        if let Some(bytes) = self.allowance.to_report() {
            self.allowance.reported();
            self.platform(&dropped_line(bytes));
        }
    }
}

fn write(sink: &Arc<dyn LogSink>, instance: &str, source: LogSource, text: String) {
    sink.write(LogLine {
        instance: instance.to_owned(),
        time: SystemTime::now(),
        source,
        text,
    });
}
