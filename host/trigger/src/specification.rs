//! What a function's annotations say of its triggers. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::schedule::{Missed, Schedule, ScheduleError};

/// The topic of OpenFaaS's cron connector.
pub const CRON_TOPIC: &str = "cron-function";
/// Most folders of a function.
pub const FOLDERS_MAX: usize = 8;
/// Most subjects of a function.
pub const SUBJECTS_MAX: usize = 64;
/// Longest subject.
const SUBJECT_BYTES_MAX: usize = 255;

const TOPIC: &str = "topic";
const SCHEDULE: &str = "schedule";
const TIME_ZONE: &str = "dev.spore.schedule.time-zone";
const MISSED: &str = "dev.spore.schedule.missed";
const FOLDER: &str = "dev.spore.trigger.folder";

/// Why annotations are none of triggers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggersError {
    /// There is no time.
    #[error(
        "the annotation {TOPIC} is {CRON_TOPIC}, but there is no annotation {SCHEDULE}: add one such as `*/5 * * * *`"
    )]
    NoSchedule,
    /// The times are not valid.
    #[error("the annotation {SCHEDULE} is not valid: {0}")]
    Schedule(#[from] ScheduleError),
    /// Neither of two words.
    #[error("{MISSED} is `{text}`: write `skip` or `once`")]
    Missed {
        /// What stands there.
        text: String,
    },
    /// The path leads elsewhere.
    #[error(
        "{FOLDER} is `{text}`: write paths below the daemon's --trigger-folder such as `incoming/images`, separated by commas"
    )]
    Folder {
        /// What stands there.
        text: String,
    },
    /// There are too many topics.
    #[error("{TOPIC} names {count} topics, more than the {SUBJECTS_MAX} that a function may have")]
    TooManySubjects {
        /// How many.
        count: usize,
    },
    /// There are too many folders.
    #[error("{FOLDER} names {count} folders, more than the {FOLDERS_MAX} that a function may watch")]
    TooManyFolders {
        /// How many.
        count: usize,
    },
}

/// What calls a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Times.
    pub schedule: Option<Schedule>,
    /// What becomes of those that the daemon misses.
    pub missed: Missed,
    /// Folders, below the one that the daemon watches.
    pub folders: Vec<PathBuf>,
    /// Topics that can be subjects of NATS, if the daemon follows a server.
    pub subjects: Vec<String>,
}

impl Triggers {
    /// Reads annotations; topics of others are left to them.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Result<Self, TriggersError> {
        let setting = |name: &str| annotations?.get(name).map(String::as_str);
        let topics = || {
            setting(TOPIC)
                .into_iter()
                .flat_map(|topics| topics.split(','))
                .map(str::trim)
        };
        let is_cron = topics().any(|topic| topic == CRON_TOPIC);
        let schedule = match (is_cron, setting(SCHEDULE)) {
            (true, Some(text)) => Some(Schedule::parse(text, setting(TIME_ZONE))?),
            (true, None) => return Err(TriggersError::NoSchedule),
            (false, _) => None,
        };
        let missed = match setting(MISSED) {
            None | Some("skip") => Missed::Skip,
            Some("once") => Missed::Once,
            Some(text) => {
                return Err(TriggersError::Missed {
                    text: text.chars().take(100).collect(),
                });
            }
        };
        let folders = match setting(FOLDER) {
            Some(text) => folders(text)?,
            None => Vec::new(),
        };
        let mut subjects = Vec::new();
        for topic in topics().filter(|topic| *topic != CRON_TOPIC && is_subject(topic)) {
            if !subjects.iter().any(|subject| subject == topic) {
                subjects.push(topic.to_owned());
            }
        }
        if subjects.len() > SUBJECTS_MAX {
            return Err(TriggersError::TooManySubjects {
                count: subjects.len(),
            });
        }
        Ok(Self {
            schedule,
            missed,
            folders,
            subjects,
        })
    }
}

/// Whether NATS can be asked for it: words separated by dots, of which `*` stands for any one and `>` at the end for all
/// that follow.
fn is_subject(topic: &str) -> bool {
    let is_word = |word: &str| {
        let has_wildcard = word.contains(['*', '>']);
        let is_printable = !word.contains(|c: char| c.is_whitespace() || c.is_control());
        !word.is_empty() && is_printable && (!has_wildcard || word.len() == 1)
    };
    let before_end = topic.strip_suffix('>').unwrap_or(topic);
    topic.len() <= SUBJECT_BYTES_MAX && topic.split('.').all(is_word) && !before_end.contains('>')
}

/// Whether a message on this subject is for who has asked for that one.
#[must_use]
pub fn subject_matches(asked_for: &str, subject: &str) -> bool {
    let mut words = subject.split('.');
    for asked in asked_for.split('.') {
        match (asked, words.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (asked, Some(word)) if asked == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

fn folders(text: &str) -> Result<Vec<PathBuf>, TriggersError> {
    let count = text.split(',').count();
    if count > FOLDERS_MAX {
        return Err(TriggersError::TooManyFolders { count });
    }
    let mut folders = Vec::with_capacity(count);
    for part in text.split(',').map(str::trim) {
        let path = Path::new(part);
        let mut components = path.components();
        let is_below = components.all(|component| matches!(component, Component::Normal(_)));
        if part.is_empty() || part.contains('\0') || part.len() > 1000 || !is_below {
            return Err(TriggersError::Folder {
                text: part.chars().take(100).collect(),
            });
        }
        let folder: PathBuf = path.components().collect();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Triggers, TriggersError> {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Triggers::of(Some(&owned.collect()))
    }

    #[test]
    fn annotations_are_those_of_the_cron_connector() {
        assert_eq!(of(&[]), Ok(Triggers::default()));
        let set = of(&[(TOPIC, "payment"), (SCHEDULE, "whatever")]).expect("valid");
        assert_eq!((set.schedule, set.subjects), (None, vec!["payment".to_owned()]));
        let set = of(&[
            (TOPIC, "payment, cron-function"),
            (SCHEDULE, "*/5 * * * *"),
            (MISSED, "once"),
        ]);
        let set = set.expect("valid");
        assert_eq!(set.schedule.as_ref().map(Schedule::text), Some("*/5 * * * *"));
        assert_eq!(set.missed, Missed::Once);
        let set = of(&[(FOLDER, "incoming, a/./b//c,incoming")]).expect("valid");
        assert_eq!(set.folders, ["incoming", "a/b/c"].map(PathBuf::from));
    }

    #[test]
    fn topics_that_can_be_subjects_are_taken() {
        let set = of(&[(TOPIC, "a, a.b.* ,a,orders.>,*,>,,a..b,a b,.a,a.,>.a,a*,a.>x,ü")]).expect("valid");
        assert_eq!(set.subjects, ["a", "a.b.*", "orders.>", "*", ">", "ü"]);
        let many = (0..=SUBJECTS_MAX)
            .map(|number| format!("a.{number}"))
            .collect::<Vec<_>>();
        assert!(of(&[(TOPIC, &many.join(","))]).is_err());
        assert!(of(&[(TOPIC, &many[1..].join(","))]).is_ok());
    }

    #[test]
    fn wildcards_stand_for_words() {
        for (asked_for, subject, is_match) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.b", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("*.b", "a.b", true),
            (">", "a", true),
        ] {
            assert_eq!(
                subject_matches(asked_for, subject),
                is_match,
                "{asked_for} {subject}"
            );
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for bad in [
            (FOLDER, "/etc"),
            (FOLDER, "../x"),
            (FOLDER, "a/../../b"),
            (FOLDER, ""),
            (FOLDER, "a,"),
            (FOLDER, "."),
            (FOLDER, "a,b,c,d,e,f,g,h,i"),
            (TOPIC, "cron-function"),
            (MISSED, "all"),
        ] {
            assert!(of(&[bad]).is_err(), "{bad:?}");
        }
        assert!(of(&[(TOPIC, CRON_TOPIC), (SCHEDULE, "soon")]).is_err());
    }
}
