//! The answers of a program natively and as a function, side by side.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use spore_test_harness::client::{self, Answer, Connection};
use spore_test_harness::daemon::{Daemon, excerpt};
use spore_test_real::native::Native;
use spore_test_real::programs::{PORT, Page, Program, get};

use crate::{chain, is_native_only, load, more_options};

/// Longest time for one answer: the first one includes the start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Instances of one function at a time.
const INSTANCES_MAX: &str = "2";
/// Header fields that differ from answer to answer, and those that say how the body is framed on one connection.
const NOT_COMPARED: &[&str] = &["connection", "date", "keep-alive", "transfer-encoding"];
/// Fields that the gateway adds.
const OWN_FIELDS: &[&str] = &["x-call-id", "x-duration-seconds", "x-spore-start", "x-start-time"];
/// How much of a body is shown in a message, from a little before the first difference.
const SHOWN_BYTES: usize = 800;
const SHOWN_BEFORE_BYTES: usize = 100;

/// Runs a program both ways, compares all pages, and requests one of them many times.
pub(crate) fn run(program: &Program) -> Result<(), String> {
    let fixture = (program.make)().map_err(chain)?;
    let native = Native::start(&fixture.native);
    if is_native_only() {
        let again = Native::start(&fixture.native);
        let differences = differences(program, native.address(), again.address(), "");
        return judge(differences, String::new);
    }
    let daemon = Daemon::start();
    let port = PORT.to_string();
    let mut options = vec!["deploy".to_owned(), program.name.to_owned()];
    options.extend(fixture.function.options());
    options.extend(more_options());
    let limits = [
        "--port",
        &port,
        "--memory",
        program.memory,
        "--max",
        INSTANCES_MAX,
        "--timeout",
        "100s",
    ];
    options.extend(limits.map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    daemon.spore_ok(&options);

    let prefix = format!("/function/{}", program.name);
    let mut differences = differences(program, native.address(), daemon.address(), &prefix);
    let expected = ask(native.address(), "", &get(program.load_path));
    match expected {
        Ok(expected) if differences.is_empty() => {
            let path = format!("{prefix}{}", program.load_path);
            differences.extend(load::run(daemon.address(), &path, &expected));
        }
        Ok(_) => {}
        Err(error) => differences.push(error),
    }
    judge(differences, || {
        let log = daemon.spore_ok(&["logs", program.name, "--tail", "60"]);
        format!(
            "\nlog of the function:\n{}\nlog of the daemon:\n{}",
            excerpt(&log),
            daemon.log()
        )
    })
}

fn judge(differences: Vec<String>, context: impl FnOnce() -> String) -> Result<(), String> {
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!("{}{}", differences.join("\n"), context()))
}

/// What differs, for each page that does.
fn differences(program: &Program, native: SocketAddr, other: SocketAddr, prefix: &str) -> Vec<String> {
    let differences = program.pages.iter().filter_map(|page| {
        let expected = ask(native, "", page);
        let found = ask(other, prefix, page);
        match (expected, found) {
            (Ok(expected), Ok(found)) => match page.refused.filter(|_| !is_native_only()) {
                Some(what) => not_refused(page, what, &found),
                None => difference(page, &expected, &found),
            },
            (Err(error), _) => Some(format!("natively: {error}")),
            (Ok(_), Err(error)) => Some(error),
        }
    });
    differences.collect()
}

/// What is wrong if a page that needs what Spore does not serve answers in another way than expected.
fn not_refused(page: &Page, what: &str, found: &Answer) -> Option<String> {
    let is_refused = found.status.as_u16() == 500 && found.text().contains(what);
    (!is_refused).then(|| {
        format!(
            "{}: {} without {what:?}: {}",
            page.path,
            found.status,
            found.text()
        )
    })
}

fn ask(address: SocketAddr, prefix: &str, page: &Page) -> Result<Answer, String> {
    let body = page
        .body_bytes
        .map(|length| (0..length).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request: Request<Bytes> = client::with_body(
        method,
        &format!("{prefix}{}", page.path),
        body.unwrap_or_default(),
    );
    for &(name, value) in page.headers {
        let value = value.parse().expect("the fields in tests are valid");
        request.headers_mut().insert(name, value);
    }
    // The name that was asked for appears in redirections.
    let host = "localhost".parse().expect("it is valid");
    request.headers_mut().insert(http::header::HOST, host);
    let connection = Connection::open(address, ANSWER_TIMEOUT);
    let answer = connection.and_then(|mut connection| connection.send(request));
    answer.map_err(|error| format!("{}: {}", page.path, chain(error)))
}

fn fields(answer: &Answer) -> BTreeMap<String, String> {
    let fields = answer.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    let is_compared = |name: &str| !NOT_COMPARED.contains(&name) && !OWN_FIELDS.contains(&name);
    let mut fields: BTreeMap<_, _> = fields.filter(|(name, _)| is_compared(name)).collect();
    // A body whose end was the connection's may have a length on the way, and the other way round.
    fields.remove("content-length");
    fields
}

fn difference(page: &Page, expected: &Answer, found: &Answer) -> Option<String> {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if expected.status != found.status {
        let _ = writeln!(
            text,
            "  status {} natively, {} from the function",
            expected.status, found.status
        );
    }
    let (native_fields, mut own_fields) = (fields(expected), fields(found));
    if !native_fields.contains_key("content-type") {
        own_fields.remove("content-type"); // the gateway gives the answer one
    }
    if native_fields != own_fields && expected.status == found.status {
        let _ = writeln!(
            text,
            "  fields natively {native_fields:?}\n  from the function {own_fields:?}"
        );
    }
    if expected.body != found.body {
        let pairs = expected.body.iter().zip(&found.body);
        let same = pairs.take_while(|(one, other)| one == other).count();
        let _ = writeln!(text, "  the bodies differ at byte {same}");
        let _ = writeln!(
            text,
            "  {} bytes natively: {}",
            expected.body.len(),
            shown(expected, same)
        );
        let _ = writeln!(
            text,
            "  {} bytes from the function: {}",
            found.body.len(),
            shown(found, same)
        );
    }
    (!text.is_empty()).then(|| format!("{}:\n{text}", page.path))
}

fn shown(answer: &Answer, difference: usize) -> String {
    let start = difference.saturating_sub(SHOWN_BEFORE_BYTES);
    let end = answer.body.len().min(start + SHOWN_BYTES);
    String::from_utf8_lossy(&answer.body[start..end]).into_owned()
}
