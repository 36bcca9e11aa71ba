//! What users do in the dashboard, and what it must never do.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use spore_test_harness::client::with_body;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};

use crate::browser::Browser;

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_function_is_deployed_invoked_and_watched",
        a_function_is_deployed_invoked_and_watched,
    ),
    ("failures_are_explained", failures_are_explained),
    (
        "what_failed_for_good_is_tried_again_and_dropped",
        what_failed_for_good_is_tried_again_and_dropped,
    ),
    ("a_phone_shows_all_of_it", a_phone_shows_all_of_it),
    (
        "what_functions_say_is_text_and_the_policy_holds",
        what_functions_say_is_text_and_the_policy_holds,
    ),
    (
        "pages_of_other_sites_change_nothing",
        pages_of_other_sites_change_nothing,
    ),
];

const TIMEOUT: Duration = Duration::from_secs(60);

fn page(daemon: &Daemon, path: &str) -> String {
    format!("http://{}/ui/#{path}", daemon.address())
}

/// A desktop's window with a page.
fn opened(daemon: &Daemon, path: &str) -> Browser {
    let mut browser = Browser::start(1280, 900);
    browser.open(&page(daemon, path));
    browser
}

/// All that was asked for came from the gateway, and nobody complained.
fn check_whole(browser: &mut Browser, daemon: &Daemon) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let own = format!("http://{}/", daemon.address());
    let requests = browser.requests();
    assert!(requests.len() > 10, "the browser tells what it asks for");
    let foreign: Vec<_> = requests
        .iter()
        .filter(|url| !url.starts_with(&own) && *url != "about:blank")
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// Invokes by the form, and waits for a status.
fn invoke(browser: &mut Browser, path: &str, body: &str, status: &str) {
    browser.fill("#invoke-path", path);
    browser.fill("#invoke-body", body);
    // The result of before goes first, so that it is not taken for the new one.
    browser.evaluate("document.getElementById('result').replaceChildren()");
    browser.click("#invoke-go");
    browser.wait_for_text("#result-status", status);
}

fn a_function_is_deployed_invoked_and_watched() {
    let daemon = Daemon::start();
    let mut browser = opened(&daemon, "/");
    browser.wait_for_text("main", "No function is deployed yet");
    browser.screenshot("empty");

    // An image that is in the store, of a function that is not there any more.
    daemon.deploy("seed", &program::build("httpd"), &[]);
    daemon.spore_ok(&["remove", "seed"]);
    browser.click("header a.button");
    browser.fill("#deploy-image", "seed:latest");
    let suggested = browser.evaluate("document.getElementById('deploy-name').value");
    assert_eq!(suggested, "seed", "the name follows the image's");
    browser.fill("#deploy-name", "hello");
    browser.fill("#deploy-memory", "64Mi");
    browser.fill("#deploy-environment", "LEVEL=info\nGREETING=a=b");
    browser.screenshot("deploy");
    browser.click("#deploy-go");
    browser.wait_for("location.hash === '#/function/hello.openfaas-fn'");
    let deployed = daemon.get("/system/function/hello").json();
    assert_eq!(deployed["envVars"], json!({ "LEVEL": "info", "GREETING": "a=b" }));
    assert_eq!(deployed["limits"]["memory"], "64Mi");

    browser.wait_for("document.getElementById('invoke-go')");
    invoke(&mut browser, "/echo?x=1", "to and fro", "200");
    assert_eq!(browser.wait_for_text("#result-body", "to"), "to and fro");
    browser.wait_for_text(".result-head", "cold start");
    browser.wait_for("document.querySelectorAll('#result-stages .stage-list li').length === 6");
    browser.wait_for_text("#result-stages", "boot to request read");

    // The charts follow what others do.
    browser.wait_for("document.getElementById('chart-latency').dataset.points >= 1");
    for _ in 0..20 {
        assert_eq!(daemon.get("/function/hello/log?lines=1").status, StatusCode::OK);
    }
    browser.wait_for("document.getElementById('chart-latency').dataset.points >= 15");
    browser.wait_for(
        "!document.getElementById('chart-rate').getAttribute('aria-description').endsWith('at most 0/s')",
    );
    browser.wait_for("document.getElementById('chart-memory').dataset.points >= 2");
    browser.wait_for("document.querySelectorAll('#chart-latency path.c-cold').length === 1");
    browser.wait_for_text("#log", "line");
    invoke(&mut browser, "/echo", "again", "200");
    browser.wait_for_text(".result-head", "warm");
    browser.screenshot("function");

    browser.open(&page(&daemon, "/"));
    browser.wait_for_text("tbody", "hello");
    browser.wait_for_text("tbody", "ready");
    browser.screenshot("functions");
    check_whole(&mut browser, &daemon);
}

fn failures_are_explained() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.deploy("faults", &program::build("faults"), &[]);
    let mut browser = opened(&daemon, "/function/httpd.openfaas-fn");
    let explained = "#result .notice";

    // The program answers for itself.
    invoke(&mut browser, "/status?code=500", "", "500");
    browser.wait_for_text(explained, "The program itself answered 500");
    browser.wait_for_text(explained, "The function has to change");
    browser.screenshot("failure-of-the-program");
    // It ends instead.
    invoke(&mut browser, "/exit?code=3", "", "502");
    let text = browser.wait_for_text(explained, "The program ended instead of answering");
    assert!(
        text.contains("status 3") && text.contains("does not help"),
        "{text}"
    );
    // In the middle of its answer.
    browser.fill("#invoke-path", "/die?after=1000");
    browser.click("#invoke-go");
    browser.wait_for_text(explained, "The answer broke off");
    browser.screenshot("failure-in-the-middle");

    browser.open(&page(&daemon, "/function/faults.openfaas-fn"));
    browser.wait_for_text("h1", "faults");
    invoke(&mut browser, "/memory", "", "502");
    browser.wait_for_text(explained, "higher memory limit");
    browser.wait_for_text("#result-log", "memory");
    browser.screenshot("failure-memory");

    // A function that is not there.
    browser.open(&page(&daemon, "/function/nobody.openfaas-fn"));
    browser.wait_for_text("main", "There is no function nobody");
    invoke(&mut browser, "/", "", "404");
    browser.wait_for_text(explained, "The caller has to change something");
    browser.screenshot("failure-unknown");

    // What cannot be deployed is told, with what to do.
    browser.open(&page(&daemon, "/deploy"));
    browser.fill("#deploy-image", "absent:latest");
    browser.click("#deploy-go");
    browser.wait_for_text(".notice.bad", "push it first");
    browser.fill("#deploy-image", "httpd:latest");
    browser.click("#deploy-go");
    browser.wait_for_text(".notice.bad", "Change that function instead");
    browser.screenshot("failure-to-deploy");
    check_whole(&mut browser, &daemon);
}

fn dead(daemon: &Daemon) -> Vec<Value> {
    let list = daemon.get("/system/async?state=dead").json();
    list.as_array().expect("a list").clone()
}

fn what_failed_for_good_is_tried_again_and_dropped() {
    let daemon = Daemon::start();
    let attempts = ["--annotation", "com.openfaas.retry.attempts=1"];
    daemon.deploy("httpd", &program::build("httpd"), &attempts);
    let mut browser = opened(&daemon, "/queue");
    browser.wait_for_text("main", "The queue is empty");
    let mut request = with_body(
        Method::POST,
        "/async-function/httpd/status?code=500",
        "kept <b>body</b>",
    );
    let call_id = "<b>fails</b>".parse().expect("a header's value");
    request.headers_mut().insert("x-call-id", call_id);
    let accepted = daemon.send(request).expect("the daemon answers");
    assert_eq!(accepted.status, StatusCode::ACCEPTED);

    browser.wait_for_text("tbody", "dead");
    browser.wait_for_text("tbody", "<b>fails</b>");
    browser.wait_for_text("tbody", "answered 500");
    browser.screenshot("queue");
    browser.click("tbody button.plain");
    browser.wait_for_text("dialog pre", "kept <b>body</b>");
    browser.screenshot("queue-details");
    browser.click("dialog .actions button");
    let first = dead(&daemon)[0]["last"]["ended_ms"].as_u64().expect("a number");
    browser.click("tbody .actions button:not(.danger)");
    let again = wait_until(TIMEOUT, || {
        let dead = dead(&daemon);
        dead.first().and_then(|one| one["last"]["ended_ms"].as_u64()) > Some(first)
    });
    assert!(again, "it is tried again: {:?}", dead(&daemon));

    browser.wait_for_text("tbody", "dead");
    browser.click("tbody .actions button.danger");
    browser.wait_for_text("dialog", "Drop this invocation?");
    browser.click("dialog button.danger");
    browser.wait_for_text("main", "The queue is empty");
    assert!(dead(&daemon).is_empty());
    check_whole(&mut browser, &daemon);
}

fn a_phone_shows_all_of_it() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &["--env", "LEVEL=info"]);
    let long = format!("a{}z", "-very-long".repeat(5));
    daemon.deploy(&long, &program::build("httpd"), &[]);
    for _ in 0..5 {
        assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    }
    daemon.send_body(Method::POST, "/async-function/httpd/sleep?ms=30000", "x");
    let mut browser = opened(&daemon, "/");
    browser.resize(360, 740);
    let function = format!("/function/{long}.openfaas-fn");
    for (path, text, name) in [
        ("/", long.as_str(), "phone-functions"),
        (&function, "Settings", "phone-function-long"),
        ("/function/httpd.openfaas-fn", "LEVEL", "phone-function"),
        ("/deploy", "Deploy from an image", "phone-deploy"),
        ("/queue", "running", "phone-queue"),
        ("/images", "httpd:latest", "phone-images"),
        ("/secrets", "No secret is stored", "phone-secrets"),
        ("/system", "openfaas-fn", "phone-system"),
    ] {
        browser.open(&page(&daemon, path));
        browser.wait_for_text("main", text);
        if path.starts_with("/function/httpd") {
            invoke(&mut browser, "/echo", &"wide".repeat(200), "200");
        }
        browser.screenshot(name);
        let width = browser.evaluate("document.documentElement.scrollWidth");
        assert_eq!(width, 360, "{path} is as wide as the screen");
    }
    browser.prefer_dark(true);
    browser.resize(1280, 900);
    browser.open(&page(&daemon, "/function/httpd.openfaas-fn"));
    browser.wait_for_text("main", "LEVEL");
    browser.wait_for("document.getElementById('chart-latency').dataset.points >= 5");
    browser.screenshot("dark-function");
    let ground = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    browser.prefer_dark(false);
    let light = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    assert_ne!(ground, light);

    // Without a mouse: the first stop leads past the head of the page, links and buttons are stops of their own.
    browser.open(&format!("http://{}/ui/?keyboard", daemon.address()));
    browser.wait_for_text("tbody", "httpd");
    browser.press("Tab");
    assert_eq!(browser.evaluate("document.activeElement.className"), "skip");
    for _ in 0..20 {
        if browser.evaluate("document.activeElement.textContent") == "Queue" {
            break;
        }
        browser.press("Tab");
    }
    browser.press("Enter");
    browser.wait_for("location.hash === '#/queue'");
    check_whole(&mut browser, &daemon);
}

fn what_functions_say_is_text_and_the_policy_holds() {
    const HOSTILE: &str = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>";
    let daemon = Daemon::start();
    let label = format!("note={HOSTILE}");
    let options = ["--label", &label, "--annotation", &label, "--env", &label];
    daemon.deploy("httpd", &program::build("httpd"), &options);
    daemon.deploy("faults", &program::build("faults"), &[]);
    let mut browser = opened(&daemon, "/function/httpd.openfaas-fn");
    browser.wait_for_text("main", HOSTILE);
    invoke(&mut browser, "/echo", HOSTILE, "200");
    assert_eq!(browser.wait_for_text("#result-body", "<img"), HOSTILE);
    browser.screenshot("hostile");
    browser.open(&page(&daemon, "/edit/httpd.openfaas-fn"));
    browser.wait_for("document.getElementById('deploy-labels').value.includes('<img')");
    browser.open(&page(&daemon, "/function/%3Cimg%20src=x%20onerror=hit%3E"));
    browser.wait_for_text("h1", "<img src=x");
    assert_eq!(
        browser.evaluate("document.querySelectorAll('main img, main script').length"),
        0
    );
    assert_eq!(browser.evaluate("typeof window.hit"), "undefined");
    check_whole(&mut browser, &daemon);

    // Were there a mistake in the page, the policy would stop what it lets in.
    let thrown = browser.try_evaluate("document.querySelector('main').innerHTML = '<b>x</b>'");
    assert!(
        thrown
            .as_ref()
            .is_err_and(|thrown| thrown.contains("TrustedHTML")),
        "{thrown:?}"
    );
    let elsewhere = browser.evaluate(
        "new Promise((resolve) => { addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective)); \
         void fetch('http://127.0.0.1:9/').catch(() => {}); })",
    );
    assert_eq!(elsewhere, "connect-src");
    let inline = browser.evaluate(
        "(() => { const button = document.createElement('button'); document.body.append(button); \
         try { button.setAttribute('onclick', 'window.hit = 1'); button.click(); } catch {} return typeof window.hit; })()",
    );
    assert_eq!(inline, "undefined", "no script that is no file");
}

fn pages_of_other_sites_change_nothing() {
    let daemon = Daemon::start();
    let other = Daemon::start();
    let mut browser = Browser::start(800, 600);
    // A page without a policy of its own.
    browser.open(&format!("http://{}/healthz", other.address()));
    browser.wait_for("document.body.innerText.includes('OK')");
    let ask = |target: std::net::SocketAddr| {
        format!(
            "fetch('http://{target}/system/namespace/', {{ method: 'POST', mode: 'no-cors', body: '{{\"name\":\"evil\"}}' }})\
             .then((answer) => answer.type)"
        )
    };
    assert_eq!(browser.evaluate(&ask(daemon.address())), "opaque", "it was sent");
    assert_eq!(daemon.get("/system/namespaces").json(), json!(["openfaas-fn"]));
    // The same request from a page of the gateway itself does what it says.
    assert_eq!(browser.evaluate(&ask(other.address())), "basic");
    let names = other.get("/system/namespaces").text();
    assert!(names.contains("evil"), "{names}");
}
