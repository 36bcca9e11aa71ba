//! Lambda functions built from AWS's own libraries, unmodified: they answer, fail and end as they do on Lambda.

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client::Answer;
use spore_test_harness::daemon::Daemon;
use spore_test_real::FixtureError;
use spore_test_real::programs::{Fixture, Need, compiled};

use crate::{chain, is_native_only, more_options};

/// A program, and how its answers differ from the other's.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) is_fast: bool,
    needs: &'static [Need],
    make: fn() -> Result<Fixture, FixtureError>,
    /// Its answers name it.
    from: &'static str,
    /// Whether the process ends after a panic in the handler.
    ends_by_panic: bool,
    /// Whether it can be deployed for any event, too.
    has_raw_form: bool,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "lambda-go",
        is_fast: true,
        needs: &[Need::Command("go"), Need::GoModules("lambda")],
        make: compiled::go_lambda,
        from: "go",
        ends_by_panic: true,
        has_raw_form: false,
    },
    Case {
        name: "lambda-rust",
        is_fast: false,
        needs: &[
            Need::RustTarget("x86_64-unknown-linux-gnu"),
            Need::Command("cc"),
            Need::Crates("rust-lambda"),
        ],
        make: compiled::rust_lambda,
        from: "rust",
        ends_by_panic: false,
        has_raw_form: true,
    },
];

pub(crate) fn missing(case: &Case) -> Option<String> {
    let missing: Vec<_> = case.needs.iter().filter_map(|need| need.missing()).collect();
    match missing.as_slice() {
        [] => is_native_only().then(|| "nothing serves a process its events".to_owned()),
        missing => Some(missing.join(", ")),
    }
}

struct Deployed<'a> {
    daemon: Daemon,
    fixture: Fixture,
    case: &'a Case,
}

impl Deployed<'_> {
    fn deploy(&self, name: &str, more: &[&str]) {
        let mut options = vec!["deploy".to_owned(), name.to_owned()];
        options.extend(self.fixture.function.options());
        options.extend(["--protocol", "lambda", "--memory", "128Mi"].map(str::to_owned));
        options.extend(more.iter().map(|&option| option.to_owned()));
        options.extend(more_options());
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        self.daemon.spore_ok(&options);
    }

    fn get(&self, path: &str) -> Answer {
        self.daemon.get(&format!("/function/{path}"))
    }

    fn post(&self, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
        self.daemon
            .send_body(Method::POST, &format!("/function/{path}"), body)
    }

    /// The answers of one function, instance by instance.
    fn answers(&self) {
        self.deploy("answers", &["--timeout", "5s", "--max", "1"]);
        let answer = self.post("answers/any", "hello");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.text(), "POST hello 1");
        assert_eq!(answer.header("x-from"), self.case.from);
        let binary: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let request = http::Request::post("/function/answers/binary")
            .header("content-type", "application/octet-stream")
            .body(binary.clone().into())
            .expect("a request");
        let answer = self.daemon.send(request).expect("an answer");
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        assert!(answer.body[..] == binary[..], "the bytes came back");
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=b", "c=d"]);
        let answer = self.get("answers/big?bytes=3000000");
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 3_000_000));
        let answer = self.post("answers/any", "z".repeat(2_000_000));
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 2_000_007));
        let answer = self.get("answers/big?bytes=7000000");
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert!(answer.text().contains("longer than"), "{}", answer.text());
    }

    fn failures(&self) {
        let error = self.get("answers/error");
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert_eq!(error.header("x-amz-function-error"), "Unhandled");
        assert!(error.text().contains("this cannot be done"), "{}", error.text());
        let before = count(&self.get("answers/any"));
        assert!(before > 1, "an error ends nothing");
        let panic = self.get("answers/panic");
        assert_eq!(panic.status, StatusCode::BAD_GATEWAY, "{}", panic.text());
        assert!(panic.text().contains("out of order"), "{}", panic.text());
        let after = count(&self.get("answers/any"));
        assert_eq!(after == 1, self.case.ends_by_panic, "{after}");
        let exit = self.get("answers/exit");
        assert_eq!(exit.status, StatusCode::BAD_GATEWAY);
        assert!(exit.text().contains("exited with status 3"), "{}", exit.text());
        assert_eq!(count(&self.get("answers/any")), 1);
        let late = self.get("answers/sleep?ms=60000");
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT, "{}", late.text());
        assert_eq!(count(&self.get("answers/any")), 1);
    }

    fn concurrency(&self) {
        self.deploy("several", &["--max", "3"]);
        std::thread::scope(|scope| {
            for caller in 0..6 {
                scope.spawn(move || {
                    for call in 0..20 {
                        let body = format!("{caller}-{call}");
                        let answer = self.post("several/any", body.clone());
                        let text = answer.text();
                        assert!(
                            text.starts_with(&format!("POST {body} ")),
                            "{} {text}",
                            answer.status
                        );
                    }
                });
            }
        });
    }

    fn clones(&self) {
        self.deploy(
            "cloned",
            &["--snapshot", "--annotation", "dev.spore.idle-timeout=0s"],
        );
        for call in 0..10 {
            let answer = self.post("cloned/any", call.to_string());
            assert_eq!(answer.text(), format!("POST {call} 1"));
        }
        let boots = self
            .daemon
            .spore_ok(&["logs", "cloned"])
            .matches("booted")
            .count();
        assert_eq!(boots, 1, "the others were copies");
        self.deploy("reset", &["--snapshot", "--isolation-per-request"]);
        for call in 0..10 {
            let answer = self.post("reset/any", call.to_string());
            assert_eq!(answer.text(), format!("POST {call} 1"));
        }
    }

    fn any_event(&self) {
        let raw = "dev.spore.lambda.event=raw";
        self.deploy("raw", &["--env", "FORM=raw", "--annotation", raw]);
        let event = json!({"records": [1, 2]});
        let answer = self.post("raw", event.to_string());
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.json()["event"], event);
        assert_eq!(
            answer.json()["arn"],
            "arn:aws:lambda:us-east-1:000000000000:function:raw"
        );
        let error = self.post("raw", json!({"do": "error"}).to_string());
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert_eq!(error.json()["errorMessage"], "this cannot be done");
    }

    fn context(&self) {
        let request = http::Request::get("/function/answers/context")
            .header("x-call-id", "call-7")
            .header("x-amzn-trace-id", "Root=1-2-3")
            .body(bytes::Bytes::new())
            .expect("a request");
        let answer = self.daemon.send(request).expect("an answer");
        assert_eq!(
            answer.text(),
            "call-7 arn:aws:lambda:us-east-1:000000000000:function:answers answers true Root=1-2-3 128"
        );
    }
}

/// How many invocations the instance that answered has served.
fn count(answer: &Answer) -> u32 {
    let text = answer.text();
    let last = text.rsplit(' ').next().unwrap_or_default();
    last.parse()
        .unwrap_or_else(|_| panic!("{} {text}", answer.status))
}

pub(crate) fn run(case: &Case) -> Result<(), String> {
    let deployed = Deployed {
        daemon: Daemon::start(),
        fixture: (case.make)().map_err(chain)?,
        case,
    };
    deployed.answers();
    deployed.failures();
    deployed.concurrency();
    deployed.clones();
    match case.has_raw_form {
        true => deployed.any_event(),
        false => deployed.context(),
    }
    Ok(())
}
