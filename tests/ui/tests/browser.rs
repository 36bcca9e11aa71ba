//! A headless Chromium, driven by its DevTools protocol over two pipes: no port, no WebSocket, and of the protocol's hundreds
//! of methods the dozen that is needed, for which the crates that have all of them would be much to build.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long something may take to appear, on a machine that may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// The browser reads commands from descriptor 3 and writes to descriptor 4.
const WITH_PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;

/// The browser's program, if there is one.
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SPORE_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    candidates.find(|candidate| candidate.is_file())
}

/// A browser with one page. It ends when it is dropped.
pub(crate) struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    events: Vec<Value>,
    last_id: u64,
    session: Option<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one with an empty page of this size.
    pub(crate) fn start(width: u32, height: u32) -> Self {
        let profile = TempDir::with_prefix("spore-test-ui-").expect("the temporary folder is writable");
        let mut command = Command::new("sh");
        command
            .args(["-c", WITH_PIPES])
            .arg(program().expect("it was looked for"))
            // As root it has no sandbox of its own; what it loads is ours.
            .args([
                "--headless",
                "--no-sandbox",
                "--remote-debugging-pipe",
                "--disable-gpu",
            ])
            .args([
                "--no-first-run",
                "--hide-scrollbars",
                "--disable-background-networking",
                "--lang=en-GB",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("sh can be run");
        let commands = process.stdin.take().expect("it is a pipe");
        let output = process.stdout.take().expect("it is a pipe");
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Some(message) = message.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            process,
            commands,
            messages,
            events: Vec::new(),
            last_id: 0,
            session: None,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(width, height);
        browser
    }

    /// Calls a method of the protocol and returns its result; events that come meanwhile are kept.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser runs");
        loop {
            match self.messages.recv_timeout(TIMEOUT) {
                Ok(answer) if answer["id"] == id => {
                    assert!(answer["error"].is_null(), "{method}: {answer}");
                    return answer["result"].clone();
                }
                Ok(event) => self.events.push(event),
                Err(RecvTimeoutError::Timeout) => panic!("{method} was not answered"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser has ended during {method}"),
            }
        }
    }

    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Shows pages as to somebody who prefers dark ones, or light ones.
    pub(crate) fn prefer_dark(&mut self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": value });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// The value of an expression in the page, after its promise if it is one; what it throws is the error.
    pub(crate) fn try_evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", parameters);
        match result["exceptionDetails"]["exception"]["description"].as_str() {
            Some(thrown) => Err(thrown.to_owned()),
            None if result["exceptionDetails"].is_object() => Err(result["exceptionDetails"].to_string()),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// The same of an expression that throws nothing.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        self.try_evaluate(expression)
            .unwrap_or_else(|thrown| panic!("{expression}: {thrown}"))
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn wait_for(&mut self, condition: &str) {
        let started = Instant::now();
        // While one page gives way to the next there may be nothing that could be asked.
        while self.try_evaluate(&format!("Boolean({condition})")) != Ok(Value::Bool(true)) {
            if started.elapsed() > TIMEOUT {
                self.screenshot("failed");
                let text = self.evaluate("document.body.innerText");
                panic!("never: {condition}\n{}", text.as_str().unwrap_or_default());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until the text of an element holds this one, and returns it.
    pub(crate) fn wait_for_text(&mut self, selector: &str, text: &str) -> String {
        let found = format!("document.querySelector({})?.innerText", json!(selector));
        self.wait_for(&format!("{found}?.includes({})", json!(text)));
        self.evaluate(&found).as_str().unwrap_or_default().to_owned()
    }

    /// Clicks on the first such element when it is there.
    pub(crate) fn click(&mut self, selector: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        self.wait_for(&format!("{element} && !{element}.disabled"));
        self.evaluate(&format!("{element}.click()"));
    }

    /// Types into a field as a user would: focus it, take what is there, put the text in its place.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        self.wait_for(&element);
        self.evaluate(&format!("({element}.focus(), {element}.select(), null)"));
        self.call("Input.insertText", json!({ "text": text }));
        let value = self.evaluate(&format!("{element}.value"));
        assert_eq!(value, text, "{selector} takes what is typed");
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let windows_code = if key == "Tab" { 9 } else { 13 };
            let text = if key == "Enter" && kind == "keyDown" {
                "\r"
            } else {
                ""
            };
            self.call(
                "Input.dispatchKeyEvent",
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": windows_code, "text": text }),
            );
        }
    }

    /// Keeps a picture of the whole page.
    pub(crate) fn screenshot(&mut self, name: &str) {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let result = self.call("Page.captureScreenshot", parameters);
        let picture = STANDARD.decode(result["data"].as_str().unwrap_or_default());
        let path = crate::output_folder().join(format!("{name}.png"));
        std::fs::write(path, picture.expect("it is base64")).expect("the folder is writable");
    }

    /// What events of this kind said.
    fn told(&self, method: &str) -> impl Iterator<Item = &Value> {
        let events = self.events.iter().filter(move |event| event["method"] == method);
        events.map(|event| &event["params"])
    }

    /// Everything that was asked for so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = self.told("Network.requestWillBeSent");
        requests
            .filter_map(|request| request["request"]["url"].as_str().map(str::to_owned))
            .collect()
    }

    /// What went wrong in the page: exceptions, errors and warnings that it wrote, and the browser's own about it. Answers
    /// that are errors are none of these: a browser notes every one.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // Whatever has been said is there after the next answer.
        self.evaluate("null");
        let exceptions = self
            .told("Runtime.exceptionThrown")
            .map(|told| told["exceptionDetails"].to_string());
        let written = self
            .told("Runtime.consoleAPICalled")
            .filter(|told| told["type"] == "error" || told["type"] == "warning")
            .map(|told| told["args"].to_string());
        let noted = self
            .told("Log.entryAdded")
            .map(|told| &told["entry"])
            .filter(|entry| entry["level"] == "error" && entry["source"] != "network")
            .map(|entry| entry["text"].to_string());
        exceptions.chain(written).chain(noted).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already. Its helpers end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
