//! The loop: run the guest, serve what it asks, wait with it, end it.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use spore_abi::doorbell;
use spore_abi::layout::{GUEST_PAGE_GPA, HOST_PAGE_GPA};
use spore_abi::pages::{Clock, ExitRecord, GuestPage, HostPage, Registers, Upcall, upcall_kind};

use crate::clocks::Clocks;
use crate::egress::Egress;
use crate::form::{Form, FormError};
use crate::guest_process::ProcessEnd;
use crate::image::Image;
use crate::log::{DamagedRing, Log};
use crate::machine::Exit;
use crate::memory::OutOfRange;
use crate::protocol::{Cause, End, Event, Milestones, Request, StopReason};
use crate::report::{self, Fault};
use crate::reset::NotReset;
use crate::start::{self, ControlError};
use crate::streams::{StreamError, Streams};
use crate::written::PageMap;

/// How long the last bytes of a guest that has ended by itself may take to leave: its answer may be on its way to a
/// client that reads slowly. The daemon ends the wait by a request to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where the log has no limit: whoever reads takes the time that it takes, or goes.
const UNLIMITED_DRAIN_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same for a guest that was stopped: nobody waits for its answers, only its log matters.
const STOPPED_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Streams that the guest asks for and has at a time, at most: some slots are left for the gateway's.
const EGRESS_STREAMS_MAX: usize = 48;
const NS_PER_S: u64 = 1_000_000_000;

/// A running instance.
pub(crate) struct Instance {
    pub(crate) machine: Form,
    pub(crate) image: Image,
    pub(crate) control: Rc<OwnedFd>,
    pub(crate) log: Log,
    pub(crate) streams: Streams,
    pub(crate) egress: Egress,
    pub(crate) memory_bytes: u64,
    pub(crate) is_ready: bool,
    /// It is for one command, whose end is not its own.
    pub(crate) is_command: bool,
    /// The daemon knows how the command has ended.
    pub(crate) is_finished: bool,
    /// It goes on from a snapshot.
    pub(crate) is_clone: bool,
    /// To see which pages it writes to.
    pub(crate) page_map: Option<PageMap>,
    /// The daemon is to hear which ones these were when the first answer has left.
    pub(crate) tells_written: bool,
    /// It is to become a snapshot when it is ready.
    pub(crate) captures: bool,
    /// A request of the guest's was answered with an error since it last ran.
    pub(crate) has_answered: bool,
    pub(crate) clocks: Clocks,
    /// How it came to its first answer; none once the daemon was told. What the guest knows of it is not in here.
    pub(crate) milestones: Option<Milestones>,
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the instance is asked to stop")]
    Stop(StopReason),
    #[error("the instance is asked to begin again")]
    Reset,
    #[error("the instance cannot be reset: {0}")]
    NotReset(#[from] NotReset),
    #[error("the daemon is gone")]
    DaemonGone,
    #[error("its memory is a snapshot")]
    Captured,
    #[error(transparent)]
    Form(#[from] FormError),
    #[error(transparent)]
    Memory(#[from] OutOfRange),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Log(#[from] DamagedRing),
    #[error("the library OS faulted at {rip:#x}")]
    LibraryOsFault { fault: Box<Fault>, rip: u64 },
    #[error("the guest did something unexpected: {0}")]
    Unexpected(String),
    #[error("the guest rang the doorbell with the unknown request {0}")]
    UnknownRequest(u32),
    #[error("the guest asks for page tables at {0:#x}, where none can be")]
    NoTable(u64),
    #[error("the control socket fails")]
    Control(#[from] ControlError),
    #[error(transparent)]
    Lost(#[from] ProcessEnd),
    #[error("waiting fails")]
    Poll(#[source] Errno),
}

macro_rules! guest_field {
    ($self:ident, $field:ident) => {
        $self
            .machine
            .ram()
            .read(GUEST_PAGE_GPA + std::mem::offset_of!(GuestPage, $field) as u64)
    };
}

macro_rules! host_field {
    ($field:ident) => {
        HOST_PAGE_GPA + std::mem::offset_of!(HostPage, $field) as u64
    };
}

/// CLOCK_MONOTONIC and CLOCK_REALTIME, in nanoseconds.
pub(crate) fn host_clocks_ns() -> (u64, u64) {
    let [monotonic, realtime] = [ClockId::Monotonic, ClockId::Realtime].map(|clock| {
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * NS_PER_S + time.tv_nsec.unsigned_abs()
    });
    (monotonic, realtime)
}

impl Instance {
    /// Runs until the instance ends, and says how.
    pub(crate) fn run(mut self) -> End {
        let mut outcome = self.first_news().map(|()| None);
        let mut end = loop {
            outcome = match outcome {
                Ok(None) => self.step(),
                Ok(Some(end)) => break end,
                // It stands at a doorbell or a tick, whatever was being served there.
                Err(Failure::Reset) => self.reset().map(|()| None),
                Err(failure) => break self.describe(failure),
            };
        };
        // Memory may be short, and this process holds the guest's: nothing else first, as if it were killed itself.
        if matches!(end.cause, Cause::Killed(_)) {
            return end;
        }
        self.drain(match &end.cause {
            Cause::Stopped => STOPPED_DRAIN_TIMEOUT,
            _ if self.log.is_limited() => DRAIN_TIMEOUT,
            _ => UNLIMITED_DRAIN_TIMEOUT,
        });
        // Fails only if the daemon is gone.
        let _ = self.tell_milestones();
        let (streams, newest_bytes) = self.streams.read_of_newest(self.machine.ram());
        let read = Event::Read {
            streams,
            newest_bytes,
        };
        // As above.
        let _ = start::send(&self.control, &read);
        end.details.extend(self.log.unsaid(self.machine.ram()));
        if !self.is_finished {
            end.details.extend(self.missing_calls());
        }
        end
    }

    /// How many calls the library OS could not serve, if any; their names were said when they came first.
    fn missing_calls(&self) -> Option<String> {
        let count: u32 = guest_field!(self, missing_calls).ok()?;
        (count > 0).then(|| format!("{count} system calls failed with ENOSYS because they are not served"))
    }

    /// A guest that is a clone waits: a connection that has been opened already is there when it goes on.
    fn first_news(&mut self) -> Result<(), Failure> {
        if self.is_clone {
            self.receive_requests()?;
            self.serve()?;
        }
        if let Some(milestones) = &mut self.milestones {
            (milestones.first_instruction_ns, _) = host_clocks_ns();
        }
        Ok(())
    }

    /// Runs the guest up to its next exit and serves that; an end if the guest asked for it.
    fn step(&mut self) -> Result<Option<End>, Failure> {
        match self.machine.run() {
            Exit::Doorbell(doorbell::WAIT) => self.wait()?,
            Exit::Doorbell(doorbell::NOTIFY) => {
                self.serve()?;
                self.hold_for_log()?;
            }
            Exit::Doorbell(doorbell::FLUSH_TRANSLATIONS) => self.machine.flush_translations()?,
            Exit::Doorbell(doorbell::SWITCH_TABLES) => {
                let top_gpa: u64 = guest_field!(self, top_table_gpa)?;
                if !self.machine.switch_tables(top_gpa)? {
                    return Err(Failure::NoTable(top_gpa));
                }
            }
            Exit::Doorbell(doorbell::EXIT) => {
                let end = self.exit_requested()?;
                let had_begun = self.is_ready || self.is_clone;
                if self.is_command && had_begun && was_run(&end.cause) {
                    return self.finish(end).map(Some);
                }
                return Ok(Some(end));
            }
            Exit::Doorbell(other) => return Err(Failure::UnknownRequest(other)),
            Exit::Exception => self.exception()?,
            Exit::Interrupted => self.tick()?,
            Exit::Unexpected(what) => return Err(Failure::Unexpected(what)),
            Exit::Lost(end) => return Err(end.into()),
            Exit::Refused(error) => return Err(FormError::from(error).into()),
        }
        Ok(None)
    }

    /// Serves log and streams; whether the guest has news.
    pub(crate) fn serve(&mut self) -> Result<bool, Failure> {
        // Answers first: a caller waits for them, nobody for the log.
        let has_news = self.streams.serve(self.machine.ram(), &mut self.egress)?;
        let has_news = self.serve_egress()? || has_news || std::mem::take(&mut self.has_answered);
        self.serve_log()?;
        Ok(has_news)
    }

    pub(crate) fn serve_log(&mut self) -> Result<(), Failure> {
        let tail: u32 = guest_field!(self, log_tail)?;
        let head = self.log.drain(self.machine.ram(), tail)?;
        Ok(self.machine.ram().write(host_field!(log_head), head)?)
    }

    /// Passes on what the guest asks of the outside; whether some of it was answered at once.
    fn serve_egress(&mut self) -> Result<bool, Failure> {
        let mut is_answered = false;
        let requests = self.egress.take_requests(self.machine.ram())?;
        if !requests.is_empty()
            && let Some(clock) = self.clocks.catch_up()
        {
            self.show_clock(clock)?;
        }
        let mut under_way = self.streams.egress_count() + self.egress.pending();
        for request in requests {
            if under_way > EGRESS_STREAMS_MAX {
                let error = Errno::NOBUFS.raw_os_error().unsigned_abs();
                self.egress
                    .answer(self.machine.ram(), request.place as usize, error)?;
                under_way -= 1;
                is_answered = true;
            } else {
                start::send(&self.control, &Event::Connect(request))?;
            }
        }
        Ok(is_answered)
    }

    /// Takes the daemon's answer to a request of the guest's.
    fn connected(&mut self, place: u32, error: u16, socket: Option<OwnedFd>) -> Result<(), Failure> {
        if !self.egress.is_pending(place) {
            return Ok(());
        }
        match socket {
            Some(socket) if error == 0 => self.streams.add_egress(socket, place),
            _ => {
                let error = if error == 0 {
                    Errno::IO.raw_os_error() as u16
                } else {
                    error
                };
                self.egress
                    .answer(self.machine.ram(), place as usize, error.into())?;
                self.has_answered = true;
            }
        }
        Ok(())
    }

    /// Lets the guest stand still while its log ring is full and the daemon is about to read, for a bounded time.
    fn hold_for_log(&mut self) -> Result<(), Failure> {
        while let Some(left) = self.log.hold_guest() {
            if self.poll(Some(left))? {
                self.receive_requests()?;
            }
            self.serve()?;
        }
        Ok(())
    }

    /// The guest has run for a while: look after everything, and interrupt the program if something else could run.
    fn tick(&mut self) -> Result<(), Failure> {
        self.receive_requests()?;
        self.serve()?;
        self.report_ready(false)?;
        self.tell_of_answer()?;
        let wants_kicks: u32 = guest_field!(self, wants_kicks)?;
        if wants_kicks == 0 {
            return Ok(());
        }
        if let Some(registers) = self.machine.interrupted_program(&self.image)? {
            self.deliver(Upcall {
                kind: upcall_kind::KICK,
                vector: 0,
                error_code: 0,
                fault_address: 0,
                registers,
            })?;
        }
        Ok(())
    }

    /// Lets the guest go on at its upcall address.
    fn deliver(&mut self, upcall: Upcall) -> Result<(), Failure> {
        self.machine.ram().write(host_field!(upcall), upcall)?;
        let entry = Registers {
            rip: self.image.header.upcall_entry,
            rflags: 2,
            ..upcall.registers
        };
        Ok(self.machine.set_registers(&entry)?)
    }

    /// The guest has raised an exception.
    fn exception(&mut self) -> Result<(), Failure> {
        let raised = self.machine.exception()?;
        let registers = raised.upcall.registers;
        let rip = registers.rip;
        let header = &self.image.header;
        let is_user_copy = (header.user_copy_start..header.user_copy_end).contains(&rip);
        if raised.is_from_supervisor && !self.image.contains(rip) {
            // None of our code is there: the guest has made itself a way to ring 0.
            let what = Fault::from_upcall(&raised.upcall).summary();
            return Err(Failure::Unexpected(format!("{what} at ring 0, at {rip:#x}")));
        }
        if self.image.contains(rip) && !is_user_copy || raised.is_from_supervisor {
            let fault = Box::new(Fault::from_upcall(&raised.upcall));
            return Err(Failure::LibraryOsFault { fault, rip });
        }
        let failed = header.user_copy_failed;
        self.machine.leave_supervisor()?;
        if is_user_copy {
            return Ok(self.machine.set_registers(&Registers {
                rip: failed,
                ..registers
            })?);
        }
        self.deliver(raised.upcall)
    }

    /// Tells the daemon once that the function's port is listened on. A program that waits does so at its first wait;
    /// one that polls without ever waiting, at the first tick.
    fn report_ready(&mut self, is_waiting: bool) -> Result<(), Failure> {
        let listening: u32 = guest_field!(self, listening)?;
        if listening == 1 && !self.is_ready {
            self.is_ready = true;
            if self.captures {
                self.capture(is_waiting)?;
            }
            // Nobody waits for a copy to be ready, but somebody for its answer, which may be about to leave.
            if !self.is_clone {
                start::send(&self.control, &Event::Ready)?;
            }
        }
        Ok(())
    }

    /// Tells the daemon what it is to know when the first answer has left: a program that goes on after it without ever
    /// waiting may be stopped before it does.
    fn tell_of_answer(&mut self) -> Result<(), Failure> {
        self.tell_milestones()?;
        if self.tells_written && self.streams.has_answered() {
            self.tell_written()?;
        }
        Ok(())
    }

    /// The guest waits: sleep until it has news or its deadline has passed.
    fn wait(&mut self) -> Result<(), Failure> {
        self.report_ready(true)?;
        let deadline_ns: u64 = guest_field!(self, wait_deadline_ns)?;
        let unseen_slots: u64 = self.machine.ram().read(host_field!(changed_slots))?;
        let unseen_answers: u64 = self.machine.ram().read(host_field!(answered_egress))?;
        let unseen = unseen_slots | unseen_answers;
        let mut has_news = self.serve()? || unseen != 0;
        self.tell_of_answer()?;
        while !has_news {
            let now_ns = self.clocks.monotonic_ns();
            if now_ns >= deadline_ns {
                break;
            }
            let timeout = (deadline_ns != u64::MAX).then(|| Duration::from_nanos(deadline_ns - now_ns));
            if self.poll(timeout)? {
                self.receive_requests()?;
            }
            // What a tick asks for that came meanwhile has been done, or is done now.
            self.machine.forget_tick();
            has_news = self.serve()?;
        }
        match self.clocks.refreshed() {
            Some(clock) => self.show_clock(clock),
            None => Ok(()),
        }
    }

    /// Sleeps until a socket moves; whether the control socket has.
    pub(crate) fn poll(&self, timeout: Option<Duration>) -> Result<bool, Failure> {
        let mut list = vec![PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN)];
        let watch = self.machine.watch();
        list.extend(watch.map(|watch| PollFd::from_borrowed_fd(watch, PollFlags::IN)));
        list.extend(self.log.poll_entry());
        self.streams.poll_list(self.machine.ram(), &mut list)?;
        let timeout = timeout.into_iter().chain(self.log.until_report()).min();
        match poll(&mut list, timeout.map(timespec).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(error) => return Err(Failure::Poll(error)),
        }
        let has_ended = watch.is_some() && !list[1].revents().is_empty();
        match has_ended.then(|| self.machine.end()).flatten() {
            Some(end) => Err(end.into()),
            None => Ok(!list[0].revents().is_empty()),
        }
    }

    /// Takes what the daemon asks.
    pub(crate) fn receive_requests(&mut self) -> Result<(), Failure> {
        while let Some((request, attachment)) = start::receive(&self.control)? {
            match (request, attachment) {
                (start::Received::Message(Request::Open), Some(socket)) => self.streams.add(socket),
                (start::Received::Message(Request::Connected { place, error }), socket) => {
                    self.connected(place, error, socket)?;
                }
                (start::Received::Message(Request::Reset), _) => return Err(Failure::Reset),
                (start::Received::Message(Request::Stop(reason)), _) => return Err(Failure::Stop(reason)),
                (start::Received::Message(_), _) => {}
                (start::Received::Closed, _) => return Err(Failure::DaemonGone),
            }
        }
        Ok(())
    }

    /// Shows the guest other clocks.
    pub(crate) fn show_clock(&self, clock: Clock) -> Result<(), Failure> {
        Ok(self.machine.ram().write(host_field!(clock), clock)?)
    }

    /// The guest asks to end.
    fn exit_requested(&mut self) -> Result<End, Failure> {
        let record: ExitRecord = guest_field!(self, exit)?;
        let upcall: Upcall = self.machine.ram().read(host_field!(upcall))?;
        let (cause, details) = report::exit(&record, &upcall, &self.machine.program());
        Ok(End {
            cause: self.with_memory_note(cause)?,
            details,
        })
    }

    /// The command has ended: lets what it wrote leave, as long as that takes, and waits for what is next.
    fn finish(&mut self, mut end: End) -> Result<End, Failure> {
        self.serve()?;
        self.tell_milestones()?;
        if self.tells_written {
            self.tell_written()?;
        }
        while self.is_sending() {
            if self.poll_to_send()? {
                self.receive_requests()?;
            }
            self.serve()?;
        }
        end.details.extend(self.missing_calls());
        self.is_finished = true;
        start::send(&self.control, &Event::Finished(end))?;
        self.streams = self.streams.renewed();
        loop {
            if self.poll(None)? {
                self.receive_requests()?;
            }
            self.serve_log()?;
        }
    }

    /// Whether a stream is to take more of what the guest has written.
    fn is_sending(&self) -> bool {
        !self.streams.unsent().is_empty()
    }

    /// Sleeps until a stream takes more, or the daemon asks something; whether it has.
    fn poll_to_send(&self) -> Result<bool, Failure> {
        let mut list = vec![PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN)];
        let unsent = self.streams.unsent();
        list.extend(
            unsent
                .iter()
                .map(|socket| PollFd::from_borrowed_fd(*socket, PollFlags::OUT)),
        );
        list.extend(self.log.poll_entry());
        match poll(&mut list, None) {
            Ok(_) => Ok(!list[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(Failure::Poll(error)),
        }
    }

    /// What a failure of the loop means to the daemon.
    fn describe(&mut self, failure: Failure) -> End {
        let mut details = Vec::new();
        let cause = match failure {
            Failure::Stop(StopReason::NotNeeded) | Failure::DaemonGone | Failure::Captured => Cause::Stopped,
            Failure::NotReset(reason) => {
                details.extend(reason.detail());
                Cause::Stopped
            }
            Failure::Stop(StopReason::TimedOut) => {
                details.push(self.whereabouts());
                Cause::Stopped
            }
            Failure::LibraryOsFault { fault, rip } => {
                details = fault.details(&format!("{rip:#x}"));
                Cause::Failed(format!("{} in the library OS at {rip:#x}", fault.summary()))
            }
            // Only a guest that has damaged itself gets here.
            Failure::Unexpected(_)
            | Failure::UnknownRequest(_)
            | Failure::NoTable(_)
            | Failure::Memory(_)
            | Failure::Stream(_)
            | Failure::Log(_) => Cause::Crashed {
                signal: None,
                summary: chain(&failure),
            },
            Failure::Lost(ProcessEnd::Killed(_)) => Cause::Killed(chain(&failure)),
            other => Cause::Failed(chain(&other)),
        };
        End { cause, details }
    }

    /// Where the program is, for a report about a time limit.
    fn whereabouts(&self) -> String {
        match self.machine.registers() {
            Ok(registers) if !self.image.contains(registers.rip) => {
                format!(
                    "it was running at {}",
                    report::place(&self.machine.program(), registers.rip)
                )
            }
            _ => "it was waiting for input, output or time".into(),
        }
    }

    /// A program that crashes after it was refused memory most likely crashed for that.
    fn with_memory_note(&self, cause: Cause) -> Result<Cause, OutOfRange> {
        let refused: u32 = guest_field!(self, refused_allocations)?;
        Ok(match cause {
            Cause::Crashed { signal, summary } if refused > 0 => Cause::Crashed {
                signal,
                summary: format!(
                    "{summary}, after {refused} requests for memory were refused: the limit is {} bytes",
                    self.memory_bytes
                ),
            },
            other => other,
        })
    }

    /// Lets the last bytes of log and streams out, until `timeout` has passed or the daemon wants no more.
    fn drain(&mut self, timeout: Duration) {
        self.log.allow_last_report();
        let deadline = Instant::now() + timeout;
        loop {
            if self.serve().is_err() {
                // Its streams mean nothing any more; what it wrote to its log may.
                self.streams = Streams::new(false);
                if self.serve_log().is_err() {
                    break;
                }
            }
            let mut list: Vec<PollFd<'_>> = self
                .streams
                .unsent()
                .into_iter()
                .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::OUT))
                .chain(self.log.poll_entry())
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if list.is_empty() || left.is_zero() {
                break;
            }
            list.push(PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN));
            match poll(&mut list, Some(&timespec(left))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            let is_asked = list.last().is_some_and(|control| !control.revents().is_empty());
            if is_asked && !self.refuse_requests() {
                break;
            }
        }
    }

    /// Takes what the daemon asks of an ended guest: streams are closed. Whether it lets the guest's last bytes go on.
    fn refuse_requests(&mut self) -> bool {
        loop {
            match start::receive(&self.control) {
                Ok(None) => return true,
                Ok(Some((start::Received::Message(Request::Open | Request::Connected { .. }), _))) => {}
                _ => return false,
            }
        }
    }
}

/// Whether it is an end of the program's, rather than of what runs it.
fn was_run(cause: &Cause) -> bool {
    match cause {
        Cause::Exited(_) | Cause::Crashed { .. } | Cause::OutOfMemory => true,
        Cause::Stopped | Cause::Killed(_) | Cause::BadProgram(_) | Cause::Failed(_) => false,
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
