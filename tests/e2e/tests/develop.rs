//! `spore dev`: a saved change is deployed by itself, a mistake is shown and does no harm, and the log is shown.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::wait_until;

use crate::{Test, with_tools};

pub(crate) const TESTS: &[Test] = with_tools![
    a_saved_change_is_deployed: ["python3"],
    a_mistake_is_shown_and_mended: ["musl-gcc"],
];

/// Generous: only what never comes runs into it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `spore dev` whose output is collected.
struct Development {
    process: Child,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Development {
    fn start(daemon: &Daemon, folder: &Path) -> Development {
        let folder = folder.to_str().expect("test folders are UTF-8");
        let mut command = daemon.command(&["dev", folder]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the spore binary can be run");
        let output = Arc::new(Mutex::new(Vec::new()));
        let stdout = process.stdout.take().expect("it is piped");
        let stderr = process.stderr.take().expect("it is piped");
        let readers: [Box<dyn Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
        for mut reader in readers {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = reader.read(&mut buffer) {
                    output
                        .lock()
                        .expect("no reader panics")
                        .extend_from_slice(&buffer[..count]);
                }
            });
        }
        Development { process, output }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("no reader panics")).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let found = wait_until(PATIENCE, || self.text().contains(text));
        assert!(found, "{text:?} is not shown:\n{}", self.text());
    }
}

impl Drop for Development {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).expect("the temporary folder is writable");
}

fn wait_for_answer(daemon: &Daemon, expected: &str) {
    let mut answer = String::new();
    let came = wait_until(PATIENCE, || {
        answer = daemon.get("/function/hello").text().to_owned();
        answer == expected
    });
    assert!(came, "{answer:?} in place of {expected:?}");
}

fn a_saved_change_is_deployed() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let handler = folder.path().join("handler.py");
    let code = |word: &str| format!("def handle(event, context):\n    print('asked')\n    return '{word}'\n");
    write(&folder.path().join("spore.toml"), "name = \"hello\"\n");
    write(&handler, &code("one"));
    let mut development = Development::start(&daemon, folder.path());
    development.wait_for(&format!("http://{}/function/hello", daemon.address()));
    wait_for_answer(&daemon, "one");
    development.wait_for("asked");
    write(&handler, &code("two"));
    wait_for_answer(&daemon, "two");
    // Many editors write another file and rename it.
    let other = folder.path().join(".handler.py.new");
    write(&other, &code("three"));
    std::fs::rename(&other, &handler).expect("the temporary folder is writable");
    wait_for_answer(&daemon, "three");
    let pid = Pid::from_child(&development.process);
    kill_process(pid, Signal::INT).expect("it is our child");
    let ended = wait_until(PATIENCE, || !matches!(development.process.try_wait(), Ok(None)));
    assert!(ended, "Ctrl-C ends it:\n{}", development.text());
    wait_for_answer(&daemon, "three");
}

fn a_mistake_is_shown_and_mended() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let handler = folder.path().join("handler.c");
    let code = |word: &str| {
        format!(
            "#include <spore.h>\nint handle(const struct spore_request *request, struct spore_response *response) {{\n\
             (void)request;\nspore_response_printf(response, \"%s\", {word});\nreturn 0;\n}}\n"
        )
    };
    write(&folder.path().join("spore.toml"), "name = \"hello\"\n");
    write(&handler, &code("\"one\""));
    let development = Development::start(&daemon, folder.path());
    wait_for_answer(&daemon, "one");
    write(&handler, &code("undeclared_thing"));
    development.wait_for("undeclared_thing");
    wait_for_answer(&daemon, "one");
    write(&handler, &code("\"two\""));
    wait_for_answer(&daemon, "two");
}
