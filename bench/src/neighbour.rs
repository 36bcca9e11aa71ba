//! A noisy neighbour: one function spins at its limit of processor time while another one serves.
//!
//! Both subjects of a kind of sandbox ask the same warm function; for one of them the neighbour, in the same kind, computes
//! meanwhile, under the same limit. They are measured in turn, so the neighbour is told before each sample whether to.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::subject::{SetUp, Subject, Warm};

/// How long the neighbour has been spinning when the warm function is asked.
const BEFORE: Duration = Duration::from_millis(40);
/// How long it spins for one sample: longer than that, and than an answer takes.
const SPINS_MS: u32 = 80;
/// A function that computes for as long as it is told. Its server waits as those of `spore new` do, which all kinds of sandbox can
/// run.
const SPINNING: &str = r#"
#include <spore.h>
#include <stdlib.h>
#include <time.h>

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int handle(const struct spore_request *request, struct spore_response *response) {
    char wanted[16];
    if (spore_request_query(request, "ms", wanted, sizeof wanted) < 0) return -1;
    long long end = now_ms() + atoi(wanted);
    volatile unsigned value = 1;
    while (now_ms() < end)
        for (int turn = 0; turn < 100000; turn++) value = value * 1664525u + 1013904223u;
    spore_response_printf(response, "%u\n", value);
    return 0;
}
"#;
/// The kinds of sandbox: the name in the report beside the neighbour, that of the same without, and the kind.
const KINDS: [(&str, &str, &str); 4] = [
    ("spore", "spore, alone", "unikernel"),
    ("crun", "crun, alone", "crun"),
    ("runc", "runc, alone", "runc"),
    ("gvisor", "gvisor, alone", "gvisor"),
];

/// The function that computes when it is told to.
struct Neighbour {
    orders: Option<Sender<()>>,
    finished: Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn start(mut spinning: Warm) -> Neighbour {
        let (orders, ordered) = channel::<()>();
        let (finish, finished) = channel();
        let thread = std::thread::spawn(move || {
            for () in ordered {
                if finish.send(spinning.measure().map(|_| ())).is_err() {
                    return;
                }
            }
        });
        Neighbour {
            orders: Some(orders),
            finished,
            thread: Some(thread),
        }
    }

    /// Computes while `measured` is running, and has stopped when this returns.
    fn beside<T>(&self, measured: impl FnOnce() -> T) -> Result<T> {
        let gone = "the neighbour has ended";
        self.orders.as_ref().context(gone)?.send(()).context(gone)?;
        std::thread::sleep(BEFORE);
        let measured = measured();
        self.finished
            .recv()
            .context(gone)?
            .context("the neighbour failed")?;
        Ok(measured)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Beside {
    warm: Warm,
    name: &'static str,
    /// None for the function alone.
    neighbour: Option<Neighbour>,
}

impl Subject for Beside {
    fn name(&self) -> &str {
        self.name
    }

    fn isolation(&self) -> &str {
        self.warm.isolation()
    }

    fn meaning(&self) -> &'static str {
        "request to the last byte of a warm function's answer; the neighbour computes, with a limit of one processor"
    }

    fn measure(&mut self) -> Result<Duration> {
        match &self.neighbour {
            Some(neighbour) => neighbour.beside(|| self.warm.measure())?,
            None => {
                std::thread::sleep(BEFORE);
                self.warm.measure()
            }
        }
    }
}

/// The warm function alone, and beside a neighbour, in each kind of sandbox that this machine has.
pub(crate) fn subjects(set_up: &SetUp) -> Result<Vec<Box<dyn Subject>>> {
    let gateway = set_up.daemon.address();
    let spinning = set_up.build_from(SPINNING)?;
    let spinning = spinning
        .to_str()
        .context("the temporary folder's path is not UTF-8")?;
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    for (beside, alone, kind) in KINDS {
        let isolation = match kind {
            "unikernel" => set_up.isolation.clone(),
            _ => "container".to_owned(),
        };
        let deploy = |name: &str, program: &str| {
            let stays = "dev.spore.idle-timeout=1h";
            let options = ["--sandbox", kind, "--annotation", stays];
            set_up
                .daemon
                .spore(&[&["deploy", name, "--binary", program], &options[..]].concat())
        };
        let [warm, computing] = ["warm", "spinning"].map(|role| format!("{role}-{kind}"));
        let function = set_up
            .function()
            .to_str()
            .context("the temporary folder's path is not UTF-8")?;
        if !deploy(&warm, function).status.success() || !deploy(&computing, spinning).status.success() {
            eprintln!("neighbour: {kind} is left out: functions in it cannot be deployed here");
            continue;
        }
        let ask = |path: String, name| Warm::new(name, &isolation, gateway, &path, None);
        let neighbour = Neighbour::start(ask(format!("/function/{computing}?ms={SPINS_MS}"), beside)?);
        for (name, neighbour) in [(beside, Some(neighbour)), (alone, None)] {
            let warm = ask(format!("/function/{warm}"), name)?;
            subjects.push(Box::new(Beside {
                warm,
                name,
                neighbour,
            }));
        }
    }
    Ok(subjects)
}
