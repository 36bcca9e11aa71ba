//! Traces of a load, as whoever replays one has got them.

use spore_evaluation::load::LoadSettings;
use spore_evaluation::load::trace::Trace;

/// Longest work of a request after compression, in milliseconds.
const DURATION_MS_MAX: f64 = 40.0;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(trace) = Trace::read(bytes) else {
        return;
    };
    let begins = trace.events.first().is_none_or(|event| event.at_ms == 0.0);
    assert!(begins, "the first request does not come at the beginning");
    for event in &trace.events {
        assert!(event.function < trace.functions.len(), "a function has no name");
        assert!(event.at_ms.is_finite() && event.duration_ms >= 0.0, "{event:?}");
    }
    assert!(trace.events.is_sorted_by(|a, b| a.at_ms <= b.at_ms));
    let settings = LoadSettings {
        functions: 3,
        duration_max_ms: DURATION_MS_MAX,
        ..LoadSettings::quick()
    };
    let compressed = trace.compressed(&settings, 2);
    assert!(compressed.functions.len() <= 3, "more functions than asked for");
    for event in &compressed.events {
        let is_within =
            event.at_ms < f64::from(settings.seconds) * 1000.0 && event.duration_ms <= DURATION_MS_MAX;
        assert!(
            is_within && event.function < compressed.functions.len(),
            "{event:?}"
        );
    }
    // What is written is a trace again, of as many requests.
    let again = Trace::read(trace.to_csv().as_bytes()).expect("what was written can be read");
    assert_eq!(again.events.len(), trace.events.len());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "at_ms,function,duration_ms\n0,resize,12.5\n40.2,login,0.8\n\n40.2,resize,1e3,more\n",
        "app,func,end_timestamp,duration\nA,f,10.0,0.5\r\nB,f,9.0,0.25\r\n",
        "\u{feff}duration_ms,x,function,at_ms\n1,y,f,31536000000\n0.001,,g,0\n",
        "at_ms,function,duration_ms\n-0,a,0\n1e-300,a,NaN\n",
    ];
    seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
}
