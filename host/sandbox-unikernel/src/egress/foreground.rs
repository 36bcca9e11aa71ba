//! Egress for a program in the foreground: a thread of its own serves what the monitor asks.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use spore_monitor::protocol::{Connect, Request};
use spore_sandbox::EgressRule;
use tokio::sync::mpsc;

use super::Egress;

/// Requests that wait for the thread, at most; a monitor of ours never has so many.
const REQUESTS_MAX: usize = 256;

/// The thread, and what it says. It ends when this is dropped.
pub(crate) struct Foreground {
    requests: mpsc::Sender<Connect>,
    lines: UnixStream,
}

impl Foreground {
    /// Starts the thread. `send` passes an answer on to the monitor.
    pub(crate) fn start(
        rules: Vec<EgressRule>,
        send: impl Fn(&Request, Option<OwnedFd>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (lines, said) = UnixStream::pair()?;
        let said = Mutex::new(said);
        let (requests, mut queue) = mpsc::channel(REQUESTS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new().name("egress".into()).spawn(move || {
            runtime.block_on(async {
                let say = move |line: String| {
                    if let Ok(mut said) = said.lock() {
                        // Nobody hears it any more if this fails.
                        let _ = writeln!(said, "{line}");
                    }
                };
                let mut egress = Egress::new(rules, Box::new(say));
                while let Some(connect) = queue.recv().await {
                    let send = send.clone();
                    egress.serve(connect, |request, socket| async move { send(&request, socket) });
                }
            });
            // A name that is still being looked up is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { requests, lines })
    }

    /// Serves a request.
    pub(crate) fn serve(&self, connect: Connect) {
        // With so many requests it is no monitor of ours.
        let _ = self.requests.try_send(connect);
    }

    /// Where the lines about denied connections come out.
    pub(crate) fn lines(&self) -> impl AsFd + '_ {
        self.lines.as_fd()
    }

    /// Reads what was said.
    pub(crate) fn read_lines(&self, buffer: &mut [u8]) -> usize {
        io::Read::read(&mut &self.lines, buffer).unwrap_or(0)
    }
}
