//! Schedules and lists of folders, as whoever deploys a function writes them.

use std::collections::BTreeMap;

use spore_trigger::{Schedule, Triggers};

pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    if let Ok(schedule) = Schedule::parse(&text, None) {
        let mut time = "2026-02-28T23:59:59Z".parse().expect("a time");
        for _ in 0..3 {
            let Some(next) = schedule.next_after(time) else {
                break;
            };
            assert!(next > time, "time does not pass");
            time = next;
        }
    }
    let annotations = BTreeMap::from([("dev.spore.trigger.folder".to_owned(), text)]);
    if let Ok(triggers) = Triggers::of(Some(&annotations)) {
        for folder in triggers.folders {
            let is_below = folder.is_relative() && folder.components().all(|part| part.as_os_str() != "..");
            assert!(is_below, "{} leads elsewhere", folder.display());
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "*/5 * * * *",
        "0 6 1,15 JAN-MAR MON#2",
        "59 23 L * 5L;@every 1h30m",
        "@yearly",
        "incoming/images,other",
    ];
    seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
}
