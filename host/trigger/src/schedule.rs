//! Times at which a function is called. Pure: the time is an argument.
//!
//! ```text
//!   schedule  = entry *(";" entry)
//!   entry     = five fields of cron | @hourly | @daily | @weekly | @monthly | @yearly | "@every " duration
//! ```
//!
//! Fields of cron are of the civil time of a time zone. A time that a change of the clocks leaves out is made up for an hour
//! later; one that comes twice counts the first time. What is due every so often counts from 1970, so that it does not
//! depend on when the daemon was started.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};

/// Most entries of a schedule.
pub const ENTRIES_MAX: usize = 16;
/// Shortest time between two calls of an entry with `@every`.
pub const PERIOD_MIN: Duration = Duration::from_secs(1);
/// Longest one.
pub const PERIOD_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest entry, in bytes.
const ENTRY_BYTES_MAX: usize = 200;
/// How many civil times are tried that lie in the past because clocks were set back: more than minutes in three hours.
const TRIES_MAX: usize = 200;

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// An entry cannot be read.
    #[error(
        "`{entry}` is no time: write five fields (minute, hour, day of the month, month, day of the week) such as `*/5 * * * *`, or \
         `@hourly`, `@daily`, or `@every 10m`; several are separated by `;`"
    )]
    Entry {
        /// It, shortened.
        entry: String,
    },
    /// There are too many.
    #[error("{count} times are more than the {ENTRIES_MAX} that a function may have")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A time that never comes, such as 30 February.
    #[error("`{entry}` never comes")]
    Never {
        /// It.
        entry: String,
    },
    /// The pause is too short or too long.
    #[error("`{entry}`: a pause is from one second to a year long")]
    Period {
        /// It.
        entry: String,
    },
    /// The time zone is not known here.
    #[error(
        "`{name}` is no time zone that this machine knows: write one such as Europe/Berlin (Debian's package tzdata has them)"
    )]
    Zone {
        /// Its name.
        name: String,
    },
}

/// What becomes of times that pass while the daemon does not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// However many they were, the function is called once when the daemon runs again.
    Once,
}

#[derive(Debug, Clone)]
enum Entry {
    Cron(Box<Cron>),
    Every(Duration),
}

/// When a function is called.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    zone_name: String,
    zone: TimeZone,
    entries: Vec<Entry>,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.zone_name) == (&other.text, &other.zone_name)
    }
}

impl Eq for Schedule {}

impl Schedule {
    /// Reads a schedule. `zone` names its time zone; UTC without.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone_name = zone.unwrap_or("UTC");
        let zone = match zone_name {
            "UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| ScheduleError::Zone {
                name: name.chars().take(100).collect(),
            })?,
        };
        let count = text.split(';').count();
        if count > ENTRIES_MAX {
            return Err(ScheduleError::TooMany { count });
        }
        let entries = text.split(';').map(|entry| parse_entry(entry.trim()));
        let schedule = Self {
            text: text.to_owned(),
            zone_name: zone_name.to_owned(),
            zone,
            entries: entries.collect::<Result<_, _>>()?,
        };
        for (entry, text) in schedule.entries.iter().zip(text.split(';')) {
            if schedule.next_of(entry, Timestamp::UNIX_EPOCH).is_none() {
                let entry = text.trim().to_owned();
                return Err(ScheduleError::Never { entry });
            }
        }
        Ok(schedule)
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name of its time zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The first time after this one; none if there is none within the calendar.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.entries
            .iter()
            .filter_map(|entry| self.next_of(entry, after))
            .min()
    }

    fn next_of(&self, entry: &Entry, after: Timestamp) -> Option<Timestamp> {
        let cron = match entry {
            Entry::Every(period) => {
                let period = i64::try_from(period.as_millis()).ok()?;
                let next = after.as_millisecond().div_euclid(period).checked_add(1)?;
                return Timestamp::from_millisecond(next.checked_mul(period)?).ok();
            }
            Entry::Cron(cron) => cron,
        };
        // In the hour after a gap, what it left out is still to come: by the clock before it.
        let earlier = after.checked_sub(SignedDuration::from_hours(1)).unwrap_or(after);
        let offset = self.zone.to_offset(after).min(self.zone.to_offset(earlier));
        let mut civil = offset.to_datetime(after);
        for _ in 0..TRIES_MAX {
            civil = next_civil(cron, civil)?;
            let next = self.zone.to_zoned(civil).ok()?.timestamp();
            if next > after {
                return Some(next);
            }
        }
        None
    }
}

/// The first civil time after this one.
fn next_civil(cron: &Cron, after: civil::DateTime) -> Option<civil::DateTime> {
    let unsigned = |number: i8| u32::try_from(number).ok();
    let date = NaiveDate::from_ymd_opt(
        after.year().into(),
        unsigned(after.month())?,
        unsigned(after.day())?,
    )?;
    let time = date.and_hms_opt(
        unsigned(after.hour())?,
        unsigned(after.minute())?,
        unsigned(after.second())?,
    )?;
    let time = DateTime::<Utc>::from_naive_utc_and_offset(time, Utc);
    let next = cron.find_next_occurrence(&time, false).ok()?;
    let seconds = Timestamp::from_second(next.timestamp()).ok()?;
    Some(seconds.to_zoned(TimeZone::UTC).datetime())
}

fn parse_entry(text: &str) -> Result<Entry, ScheduleError> {
    let refused = || ScheduleError::Entry {
        entry: text.chars().take(100).collect(),
    };
    if text.len() > ENTRY_BYTES_MAX || !text.is_ascii() {
        return Err(refused());
    }
    if let Some(period) = text.strip_prefix("@every ") {
        let period: SignedDuration = period.trim().parse().map_err(|_| refused())?;
        let period = Duration::try_from(period).map_err(|_| refused())?;
        let is_valid = (PERIOD_MIN..=PERIOD_MAX).contains(&period);
        return is_valid
            .then_some(Entry::Every(period))
            .ok_or_else(|| ScheduleError::Period {
                entry: text.to_owned(),
            });
    }
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        text => text,
    };
    if text.contains('@') || text.split_ascii_whitespace().count() != 5 {
        return Err(refused());
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(text).map_err(|_| refused())?;
    Ok(Entry::Cron(Box::new(cron)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn schedule(text: &str, zone: &str) -> Schedule {
        Schedule::parse(text, Some(zone)).expect("a schedule")
    }

    fn times(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let next = |after: &Timestamp| schedule.next_after(*after);
        let first = schedule.next_after(at(from));
        let times = std::iter::successors(first, next).take(count);
        times.map(|time| time.to_string()).collect()
    }

    #[test]
    fn five_fields_are_as_cron_has_them() {
        for (text, expected) in [
            ("*/20 * * * *", ["2026-03-01T10:20:00Z", "2026-03-01T10:40:00Z"]),
            (
                "30 9 * * MON-FRI",
                ["2026-03-02T09:30:00Z", "2026-03-03T09:30:00Z"],
            ),
            ("0 0 1,15 * *", ["2026-03-15T00:00:00Z", "2026-04-01T00:00:00Z"]),
            // A day of the month or a day of the week.
            ("0 0 13 * 5", ["2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z"]),
            ("0 12 29 2 *", ["2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"]),
            ("@daily", ["2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"]),
            ("@every 90m", ["2026-03-01T10:30:00Z", "2026-03-01T12:00:00Z"]),
            (
                "0 11 * * *; 30 10 * * *",
                ["2026-03-01T10:30:00Z", "2026-03-01T11:00:00Z"],
            ),
        ] {
            assert_eq!(
                times(&schedule(text, "UTC"), "2026-03-01T10:00:00Z", 2),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn civil_times_follow_the_clocks_of_their_zone() {
        let Ok(_) = TimeZone::get("Europe/Berlin") else {
            eprintln!("skipped: this machine knows no time zones");
            return;
        };
        let early = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            times(&early, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"],
            "half past two does not exist on the 29th, and is an hour later"
        );
        assert_eq!(
            times(&early, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            "half past two comes twice on the 25th, and counts once"
        );
        // Another call of the same schedule comes between the gap and what it has left out.
        let both = schedule("30 2 * * *; 10 3 * * *", "Europe/Berlin");
        assert_eq!(
            times(&both, "2026-03-29T00:00:00Z", 3),
            [
                "2026-03-29T01:10:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-30T00:30:00Z"
            ],
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let long = "1,".repeat(200);
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* * 32 * *",
            "@every",
            "@every 5",
            "@every x",
            "@noon",
            "0 0 30 2 *",
            "@every 10ms",
            "@every 9000h",
            "@daily;",
            "ä * * * *",
            &long,
            &"@daily;".repeat(17),
        ] {
            let refused = Schedule::parse(text, None);
            assert!(refused.is_err(), "{text}: {refused:?}");
        }
        let zone = Schedule::parse("@daily", Some("Mars/Olympus"));
        assert!(matches!(zone, Err(ScheduleError::Zone { .. })));
    }

    /// Minutes, hours and days of the week, with the times that they stand for.
    fn simple() -> impl Strategy<Value = (String, u32, u32, Option<u32>)> {
        (0u32..60, 0u32..24, prop::option::of(0u32..7)).prop_map(|(minute, hour, day)| {
            let day_text = day.map_or("*".to_owned(), |day| day.to_string());
            (format!("{minute} {hour} * * {day_text}"), minute, hour, day)
        })
    }

    proptest! {
        #[test]
        fn next_is_the_first_minute_that_fits((text, minute, hour, day) in simple(), second in 0i64..4_000_000_000) {
            let after = Timestamp::from_second(second).expect("within range");
            let next = schedule(&text, "UTC").next_after(after).expect("it comes");
            prop_assert!(next > after);
            let fits = |time: Timestamp| {
                let civil = time.to_zoned(TimeZone::UTC);
                let of_week = civil.weekday().to_sunday_zero_offset();
                civil.minute() as u32 == minute && civil.hour() as u32 == hour && civil.second() == 0
                    && day.is_none_or(|day| of_week as u32 == day)
            };
            prop_assert!(fits(next), "{next}");
            // A week is enough for the one before.
            let mut minute_before = next.as_second() - 60;
            while minute_before > after.as_second() {
                prop_assert!(!fits(Timestamp::from_second(minute_before).expect("within range")));
                minute_before -= 60;
            }
        }

        #[test]
        fn whatever_is_written_is_refused_or_comes_again_and_again(text in "[0-9*/,\\-?LW#@;A-Z a-z]{0,24}|([0-9*/,\\-]{1,4} ){4}[0-9*/,\\-]{1,4}") {
            let now = at("2026-01-01T00:00:00Z");
            if let Ok(schedule) = Schedule::parse(&text, None) {
                let first = schedule.next_after(now).expect("it comes");
                let second = schedule.next_after(first);
                prop_assert!(first > now && second.is_none_or(|second| second > first));
            }
        }
    }
}
