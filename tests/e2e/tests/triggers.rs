//! What calls functions without a caller.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde_json::Value;
use spore_test_harness::daemon::{Daemon, Setup};
use spore_test_harness::nats::NatsServer;
use spore_test_harness::{program, wait_until};

use crate::{Test, with_functions, with_tools};

pub(crate) const TESTS: &[Test] = with_functions![
    schedules_call_functions,
    missed_times_are_made_up_for_once_if_asked_for,
    files_that_rest_are_sent_to_functions,
    a_folder_that_is_replaced_is_watched_on,
];

pub(crate) const TESTS_OF_SUBJECTS: &[Test] = with_tools![
    messages_call_functions: ["nats-server"],
];

const TIMEOUT: Duration = Duration::from_secs(30);

/// Deploys a command that appends `!` to what it reads, and logs that.
fn deploy(daemon: &Daemon, name: &str, annotations: &[&str]) {
    let mut options = vec!["--fprocess", "append !", "--env", "write_debug=true"];
    annotations
        .iter()
        .for_each(|annotation| options.extend(["--annotation", annotation]));
    daemon.deploy(name, &program::build("append"), &options);
}

fn refused(daemon: &Daemon, annotations: &[&str]) -> String {
    let program = program::build("append");
    let mut arguments = vec!["deploy", "refused", "--binary", program.to_str().expect("a path")];
    annotations
        .iter()
        .for_each(|annotation| arguments.extend(["--annotation", annotation]));
    let output = daemon.spore(&arguments);
    assert!(!output.status.success(), "{annotations:?} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn listed(daemon: &Daemon) -> Vec<Value> {
    let list = daemon.spore_ok(&["trigger", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list.as_array().expect("a list").clone()
}

fn schedules_call_functions() {
    let daemon = Daemon::start();
    deploy(&daemon, "often", &["topic=cron-function", "schedule=@every 1s"]);
    deploy(
        &daemon,
        "seldom",
        &["topic=other,cron-function", "schedule=0 0 1 1 *; @yearly"],
    );
    deploy(&daemon, "never", &["topic=other", "schedule=@every 1s"]);
    let calls = |index: usize| listed(&daemon)[index]["calls"].as_u64().expect("a number");
    assert!(wait_until(TIMEOUT, || calls(0) >= 3), "{:?}", listed(&daemon));
    let list = listed(&daemon);
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!(
        (&list[1]["function"], &list[1]["calls"]),
        (&"seldom.openfaas-fn".into(), &0.into())
    );
    assert!(list[1]["next_ms"].as_i64().is_some_and(|next| next > 0));
    daemon.wait_for_log("often", "Forking fprocess.");
    let answered = || daemon.get("/system/async?function=often").json() == Value::Array(Vec::new());
    assert!(wait_until(TIMEOUT, answered), "they are not answered");

    let call_id = daemon.spore_ok(&["trigger", "fire", "seldom"]);
    assert_eq!(listed(&daemon)[1]["last_call_id"], call_id.trim());
    daemon.wait_for_log("seldom", "!");
    let table = daemon.spore_ok(&["trigger", "list", "--function", "seldom"]);
    assert!(
        table.contains("0 0 1 1 *; @yearly") && !table.contains("often"),
        "{table}"
    );
    let nothing = daemon.send_body(Method::POST, "/system/triggers/never/fire", "");
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST, "{}", nothing.text());
    let unknown = daemon.send_body(Method::POST, "/system/triggers/nobody/fire", "");
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);

    daemon.spore_ok(&["remove", "often"]);
    assert_eq!(listed(&daemon).len(), 1);
    let error = refused(&daemon, &["topic=cron-function", "schedule=61 * * * *"]);
    assert!(error.contains("schedule is not valid: `61 * * * *`"), "{error}");
    let error = refused(&daemon, &["topic=cron-function"]);
    assert!(error.contains("there is no annotation schedule"), "{error}");
}

fn missed_times_are_made_up_for_once_if_asked_for() {
    const PERIOD: Duration = Duration::from_secs(40);
    let mut daemon = Daemon::start();
    let period = format!("schedule=@every {}s", PERIOD.as_secs());
    let topic = "topic=cron-function";
    deploy(
        &daemon,
        "made-up",
        &[topic, &period, "dev.spore.schedule.missed=once"],
    );
    deploy(&daemon, "skipped", &[topic, &period]);
    let kept = daemon.data().join("schedules-kept-until");
    assert!(wait_until(TIMEOUT, || kept.exists()));
    daemon.kill();
    // Until it is due once more, from when there is time until it is again.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let rest_ms = PERIOD.as_millis() - now.as_millis() % PERIOD.as_millis();
    std::thread::sleep(Duration::from_millis(rest_ms as u64 + 100));
    daemon.start_again();
    let calls = || {
        let list = listed(&daemon);
        [0, 1].map(|index| list[index]["calls"].as_u64().expect("a number"))
    };
    let is_made_up = wait_until(TIMEOUT, || calls() == [1, 0]);
    assert!(is_made_up, "{:?}\n{}", listed(&daemon), daemon.log());
    daemon.wait_for_log("made-up", "Forking fprocess.");
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).expect("the temporary folder is writable");
}

fn files_that_rest_are_sent_to_functions() {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let incoming = root.path().join("incoming");
    std::fs::create_dir(&incoming).expect("it is ours");
    write(&incoming, "early", "before the deployment");
    let setup = Setup {
        options: [
            "--trigger-folder",
            root.path().to_str().expect("a path"),
            "--async-body-limit",
            "64Ki",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Setup::default()
    };
    let mut daemon = Daemon::start_as(setup);
    let error = refused(&daemon, &["dev.spore.trigger.folder=nowhere"]);
    assert!(
        error.contains("nowhere cannot be opened: make it first"),
        "{error}"
    );
    let error = refused(&daemon, &["dev.spore.trigger.folder=../elsewhere"]);
    assert!(
        error.contains("write paths below the daemon's --trigger-folder"),
        "{error}"
    );

    deploy(&daemon, "taker", &["dev.spore.trigger.folder=incoming"]);
    // It watches once it has looked for the first time, which nobody is told: the file changes until it is told of.
    let mut count = 0;
    let is_told = wait_until(TIMEOUT, || {
        count += 1;
        write(&incoming, "first.txt", &format!("content {count}"));
        wait_until(Duration::from_secs(2), || listed(&daemon)[0]["calls"] != 0)
    });
    assert!(is_told, "{:?}\n{}", listed(&daemon), daemon.log());
    daemon.wait_for_log("taker", &format!("content {count}! incoming/first.txt "));
    write(&incoming, "first.txt", "other content");
    daemon.wait_for_log("taker", "other content! incoming/first.txt changed");
    write(&incoming, "a b", "new");
    daemon.wait_for_log("taker", "new! incoming/a%20b created");
    write(&incoming, "long", &"x".repeat((64 << 10) + 1));
    daemon.wait_for_log("taker", "incoming/long is longer than 65536 bytes");

    let error = listed(&daemon)[0]["error"].as_str().map(str::to_owned);
    assert!(error.is_some_and(|error| error.contains("longer")));
    let fired = daemon.spore_ok(&["trigger", "fire", "taker", "--file", "incoming/early"]);
    assert!(!fired.trim().is_empty());
    daemon.wait_for_log("taker", "before the deployment! incoming/early changed");
    for file in ["incoming/missing", "../etc/passwd", "early"] {
        let refused = daemon.spore(&["trigger", "fire", "taker", "--file", file]);
        assert!(!refused.status.success(), "{file}");
    }
    let calls = listed(&daemon)[0]["calls"].as_u64().expect("a number");

    // A daemon that watches nothing any more says so, and serves the function as ever.
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.start_again_as(Setup::default());
    daemon.wait_for_log("taker", "start it with --trigger-folder DIR");
    assert_eq!(
        daemon.send_body(Method::POST, "/function/taker", "x").text(),
        "x!"
    );
    assert!(calls >= 4, "{calls}");
}

fn messages_call_functions() {
    let mut server = NatsServer::start().expect("nats-server is installed");
    let options = ["--nats", &server.url(), "--async-body-limit", "64Ki"];
    let daemon = Daemon::start_with(&options);
    // One of two that share a name gets each message.
    let other = Daemon::start_with(&options);
    for daemon in [&daemon, &other] {
        deploy(daemon, "orders", &["topic=orders.new, orders.*.paid, two words"]);
        deploy(daemon, "all", &["topic=>"]);
    }
    let calls = |function: &str, subject: &str| {
        let of = |daemon: &Daemon| {
            let list = listed(daemon);
            let is_it = |shown: &&Value| {
                shown["function"] == format!("{function}.openfaas-fn") && shown["subject"] == subject
            };
            list.iter()
                .find(is_it)
                .and_then(|shown| shown["calls"].as_u64())
                .expect("it is listed")
        };
        of(&daemon) + of(&other)
    };
    let list = listed(&daemon);
    assert_eq!(list.len(), 3, "{list:?}");
    assert_eq!(
        (&list[1]["kind"], &list[1]["subject"]),
        (&"subject".into(), &"orders.new".into())
    );
    // Until both follow it.
    assert!(wait_until(TIMEOUT, || {
        server.publish("orders.new", b"first");
        calls("orders", "orders.new") > 0 && calls("all", ">") > 0
    }));
    let before = (
        calls("orders", "orders.new"),
        calls("orders", "orders.*.paid"),
        calls("all", ">"),
    );
    for number in 0..20 {
        server.publish("orders.new", format!("new {number}").as_bytes());
        server.publish("orders.7.paid", format!("paid {number}").as_bytes());
        server.publish("elsewhere", b"x");
        // None of a function's business.
        server.publish("$ODD.x", b"x");
        server.publish("spore.queue.told.gone", b"x");
    }
    let wanted = (before.0 + 20, before.1 + 20, before.2 + 60);
    let counts = || {
        (
            calls("orders", "orders.new"),
            calls("orders", "orders.*.paid"),
            calls("all", ">"),
        )
    };
    assert!(
        wait_until(TIMEOUT, || counts() == wanted),
        "{:?}, not {wanted:?}",
        counts()
    );
    let logs = || {
        let of = |daemon: &Daemon| daemon.spore_ok(&["logs", "orders"]);
        format!("{}{}", of(&daemon), of(&other))
    };
    assert!(wait_until(TIMEOUT, || logs().contains("paid 19!")), "{}", logs());
    server.publish("orders.new", &vec![b'x'; (64 << 10) + 1]);
    let is_told = || {
        [&daemon, &other].iter().any(|daemon| {
            listed(daemon)[1]["error"]
                .to_string()
                .contains("--async-body-limit")
        })
    };
    assert!(wait_until(TIMEOUT, is_told), "{:?}", listed(&daemon));

    // By hand.
    let fired = daemon.spore_ok(&[
        "trigger",
        "fire",
        "orders",
        "--topic",
        "orders.8.paid",
        "--data",
        "by hand",
    ]);
    assert_eq!(listed(&daemon)[2]["last_call_id"], fired.trim());
    daemon.wait_for_log("orders", "by hand!");
    let fire = |query: &str| {
        daemon
            .send_body(Method::POST, &format!("/system/triggers/orders/fire{query}"), "x")
            .status
    };
    assert_eq!(fire("?topic=other"), StatusCode::BAD_REQUEST);
    assert_eq!(fire("?topic=orders.new&file=x"), StatusCode::BAD_REQUEST);
    assert_eq!(fire(""), StatusCode::BAD_REQUEST);

    // The server comes back, and so do the messages.
    server.kill();
    server.start_again();
    let before = calls("orders", "orders.new");
    assert!(wait_until(TIMEOUT, || {
        server.publish("orders.new", b"again");
        calls("orders", "orders.new") > before
    }));
    daemon.spore_ok(&["remove", "orders"]);
    assert_eq!(listed(&daemon).len(), 1);
}

fn a_folder_that_is_replaced_is_watched_on() {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let incoming = root.path().join("incoming");
    std::fs::create_dir(&incoming).expect("it is ours");
    write(&incoming, "kept", "in both");
    let daemon = Daemon::start_with(&["--trigger-folder", root.path().to_str().expect("a path")]);
    deploy(&daemon, "taker", &["dev.spore.trigger.folder=incoming"]);
    let told = |content: &str, file: &str| {
        let line = format!("{content}! incoming/{file} ");
        let is_told = wait_until(TIMEOUT, || daemon.spore_ok(&["logs", "taker"]).contains(&line));
        assert!(is_told, "{file}: {:?}\n{}", listed(&daemon), daemon.log());
    };
    // Until the folder is looked at, which nobody is told, files change.
    let mut count = 0;
    let is_told = wait_until(TIMEOUT, || {
        count += 1;
        write(&incoming, "first", &format!("content {count}"));
        wait_until(Duration::from_secs(2), || listed(&daemon)[0]["calls"] != 0)
    });
    assert!(is_told, "{:?}\n{}", listed(&daemon), daemon.log());

    // Another one at the same path, ready before it is put there, as programs do that change all at once.
    let ready = root.path().join("ready");
    std::fs::create_dir(&ready).expect("it is ours");
    write(&ready, "ready", "already there");
    let aside = root.path().join("aside");
    std::fs::rename(&incoming, &aside).expect("it is ours");
    std::fs::rename(&ready, &incoming).expect("it is ours");
    told("already there", "ready");
    write(&incoming, "second", "after the first change");
    told("after the first change", "second");
    // The one that was moved away is nobody's any more.
    write(&aside, "stray", "must not be told");

    // One that is gone for a while, and comes back.
    std::fs::remove_dir_all(&incoming).expect("it is ours");
    let is_missed = || {
        listed(&daemon)[0]["error"]
            .as_str()
            .is_some_and(|error| error.contains("cannot be opened"))
    };
    assert!(wait_until(TIMEOUT, is_missed), "{:?}", listed(&daemon));
    std::fs::create_dir(&incoming).expect("it is ours");
    write(&incoming, "third", "it is back");
    told("it is back", "third");
    let log = daemon.spore_ok(&["logs", "taker"]);
    assert!(
        !log.contains("must not be told") && !log.contains("in both"),
        "{log}"
    );
}
