//! What a monitor says, made fit to be shown. A monitor of ours says nothing else; one that its guest has taken over may
//! say anything.

use spore_monitor::protocol::{Cause, End, Event};

/// Longest line of a report, in characters.
const LINE_CHARS_MAX: usize = 1000;
/// Lines of a report, at most.
const LINES_MAX: usize = 64;

/// The message in a packet; none if it is empty, which is the end of the socket, or damaged.
pub(crate) fn event(packet: &[u8]) -> Option<Event> {
    let event = postcard::from_bytes(packet).ok()?;
    Some(match event {
        Event::Ended(end) => Event::Ended(fit(end)),
        Event::Finished(end) => Event::Finished(fit(end)),
        other => other,
    })
}

fn fit(end: End) -> End {
    let cause = match end.cause {
        Cause::Crashed { signal, summary } => Cause::Crashed {
            signal,
            summary: line(&summary),
        },
        Cause::Killed(reason) => Cause::Killed(line(&reason)),
        Cause::BadProgram(reason) => Cause::BadProgram(line(&reason)),
        Cause::Failed(reason) => Cause::Failed(line(&reason)),
        other @ (Cause::Stopped | Cause::Exited(_) | Cause::OutOfMemory) => other,
    };
    let details = end.details.iter().take(LINES_MAX).map(|text| line(text));
    End {
        cause,
        details: details.collect(),
    }
}

/// One line of bounded length, without anything that a terminal or a log would act on.
fn line(text: &str) -> String {
    let shown = text.chars().take(LINE_CHARS_MAX);
    shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_lines_of_bounded_length() {
        let end = End {
            cause: Cause::Failed("a\nb\x1b[31m".repeat(1000)),
            details: vec!["c\rd".into(); 1000],
        };
        let packet = postcard::to_stdvec(&Event::Ended(end)).unwrap();
        let Some(Event::Ended(end)) = event(&packet) else {
            panic!("an end")
        };
        let Cause::Failed(reason) = end.cause else {
            panic!("a failure")
        };
        assert!(reason.starts_with("a b [31ma b") && reason.chars().count() == LINE_CHARS_MAX);
        assert_eq!((end.details.len(), end.details[0].as_str()), (LINES_MAX, "c d"));
        assert_eq!(event(&[]), None);
        assert_eq!(event(&[0xff; 8]), None);
    }

    #[test]
    fn what_a_monitor_of_ours_says_stays_as_it_is() {
        let end = End {
            cause: Cause::Crashed {
                signal: Some(11),
                summary: "segmentation fault at 0x1 (main+0x1)".into(),
            },
            details: vec!["  rip 0000000000000001".into()],
        };
        let packet = postcard::to_stdvec(&Event::Ended(end.clone())).unwrap();
        assert_eq!(event(&packet), Some(Event::Ended(end)));
    }
}
