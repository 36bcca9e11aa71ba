//! One line of a log, as stored: a JSON object.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spore_sandbox::{LogLine, LogSource};

/// One stored line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Identifier of the instance that wrote it; empty for the platform's own lines about no single instance.
    pub instance: String,
    /// When the platform received it.
    pub time: Timestamp,
    /// Where it comes from.
    #[serde(with = "source_name")]
    pub source: LogSource,
    /// The line without its line feed.
    pub text: String,
}

impl LogRecord {
    /// A line of the platform about no single instance.
    pub(crate) fn of_platform(text: String) -> Self {
        LogLine {
            instance: String::new(),
            time: SystemTime::now(),
            source: LogSource::Platform,
            text,
        }
        .into()
    }
}

impl From<LogLine> for LogRecord {
    fn from(line: LogLine) -> Self {
        let time = Timestamp::try_from(line.time).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            instance: line.instance,
            time,
            source: line.source,
            text: line.text,
        }
    }
}

mod source_name {
    use serde::{Deserialize, Deserializer, Serializer};
    use spore_sandbox::LogSource;

    pub(super) fn serialize<S: Serializer>(source: &LogSource, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match source {
            LogSource::Stdout => "stdout",
            LogSource::Stderr => "stderr",
            LogSource::Platform => "platform",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogSource, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "stdout" => Ok(LogSource::Stdout),
            "stderr" => Ok(LogSource::Stderr),
            "platform" => Ok(LogSource::Platform),
            _ => Err(serde::de::Error::unknown_variant(
                &name,
                &["stdout", "stderr", "platform"],
            )),
        }
    }
}
