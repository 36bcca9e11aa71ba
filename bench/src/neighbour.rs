//! A noisy neighbour: one function spins at its limit of processor time while another one serves.
//!
//! Both subjects ask the same warm function; for one of them the neighbour works meanwhile. They are measured in turn, so
//! the neighbour is told before each sample whether to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::subject::{SetUp, Subject, Warm};

/// Iterations of one request to the neighbour: a few milliseconds, so that it soon does what it is told.
const ITERATIONS: u32 = 2_000_000;
/// How long the neighbour may take to do what it is told.
const CHANGE: Duration = Duration::from_millis(25);

/// The function that is deployed with a limit, and asked all the time.
struct Neighbour {
    is_wanted: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn start(set_up: &SetUp) -> Arc<Self> {
        let path = format!("/function/compute?iterations={ITERATIONS}");
        let address = set_up.daemon.address();
        let (is_wanted, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (wanted, over) = (Arc::clone(&is_wanted), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let Ok(mut warm) = Warm::new("neighbour", "", address, &path, None) else {
                return;
            };
            while !over.load(Ordering::Relaxed) {
                // A request that fails is the next one's business.
                if !wanted.load(Ordering::Relaxed) || warm.measure().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let thread = Some(thread);
        Arc::new(Self {
            is_wanted,
            is_over,
            thread,
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Beside {
    warm: Warm,
    name: &'static str,
    spins: bool,
    neighbour: Arc<Neighbour>,
}

impl Subject for Beside {
    fn name(&self) -> &str {
        self.name
    }

    fn isolation(&self) -> &str {
        self.warm.isolation()
    }

    fn meaning(&self) -> &'static str {
        "request to the last byte of a warm function's answer; the neighbour spins at its limit of one processor"
    }

    fn measure(&mut self) -> Result<Duration> {
        self.neighbour.is_wanted.store(self.spins, Ordering::Relaxed);
        std::thread::sleep(CHANGE);
        let elapsed = self.warm.measure();
        self.neighbour.is_wanted.store(false, Ordering::Relaxed);
        elapsed
    }
}

/// The warm function alone, and beside a neighbour.
pub(crate) fn subjects(set_up: &SetUp) -> Result<Vec<Box<dyn Subject>>> {
    let neighbour = Neighbour::start(set_up);
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    for (name, spins) in [("spore", true), ("spore, alone", false)] {
        let gateway = set_up.daemon.address();
        let warm = Warm::new(name, &set_up.isolation, gateway, "/function/warm", None)?;
        subjects.push(Box::new(Beside {
            warm,
            name,
            spins,
            neighbour: Arc::clone(&neighbour),
        }));
    }
    Ok(subjects)
}
