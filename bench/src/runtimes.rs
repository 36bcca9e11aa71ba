//! What language runtimes cost in a unikernel: loops, allocation, starts; and what the system itself costs: calls, the
//! clock, reading a file. Each beside the same program as a process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spore_test_harness::program::free_port;
use spore_test_real::native::{Native, NativeCommand};
use spore_test_real::programs::{self, Fixture, Program, compiled, installed};

use crate::subject::{self, ColdFunction, START_MEANING, SetUp, Subject, Warm, first_answer};

/// Iterations of each language's loop in one sample: some tens of milliseconds.
const GO_ITERATIONS: u32 = 40_000_000;
const PYTHON_ITERATIONS: u32 = 500_000;
const NODE_ITERATIONS: u32 = 10_000_000;
/// Rounds of making and dropping objects in Python in one sample.
const OBJECT_ROUNDS: u32 = 2;
/// Calls in one sample.
const CALLS: u64 = 1_000_000;
/// Calls that a figure is quoted for.
pub(crate) const CALLS_QUOTED: u64 = 1000;

/// A group of series over one program: what it needs may be missing, and then they are left out.
pub(crate) struct Runtime {
    program: Program,
    fixture: Fixture,
}

impl Runtime {
    /// Builds the program and deploys it under its name; none if it cannot be had on this machine.
    pub(crate) fn deploy(set_up: &SetUp, program: Program) -> Result<Option<Runtime>> {
        let runtime = Runtime::make(program)?;
        if let Some(runtime) = &runtime {
            runtime.deploy_as(set_up, program.name, &[("dev.spore.idle-timeout", "1h")]);
        }
        Ok(runtime)
    }

    /// Makes what the program needs, or says why it cannot be had on this machine.
    pub(crate) fn make(program: Program) -> Result<Option<Runtime>> {
        if let Some(missing) = program.missing() {
            eprintln!("left out: {}: {missing}", program.name);
            return Ok(None);
        }
        let fixture = (program.make)().with_context(|| format!("{} could not be made", program.name))?;
        Ok(Some(Runtime { program, fixture }))
    }

    /// Deploys it under another name, with annotations.
    pub(crate) fn deploy_as(&self, set_up: &SetUp, name: &str, annotations: &[(&str, &str)]) {
        let options = subject::annotation_options(annotations);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.deploy_with(set_up, name, &options);
    }

    /// Deploys it under another name, with more options.
    pub(crate) fn deploy_with(&self, set_up: &SetUp, name: &str, more_options: &[&str]) {
        let port = programs::PORT.to_string();
        let mut options = vec!["deploy".to_owned(), name.to_owned()];
        options.extend(self.fixture.function.options());
        let more = ["--port", &port, "--memory", self.program.memory];
        options.extend(
            more.into_iter()
                .chain(more_options.iter().copied())
                .map(str::to_owned),
        );
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        set_up.daemon.spore_ok(&options);
    }

    /// The program as a process.
    pub(crate) fn native(&self) -> Native {
        Native::start(&self.fixture.native)
    }

    /// The same path of the function and of the process.
    fn warm(&self, set_up: &SetUp, path: &str) -> Result<[Warm; 2]> {
        let native = self.native();
        let address = native.address();
        let function = format!("/function/{}{path}", self.program.name);
        let guest = Warm::new(
            "spore",
            &set_up.isolation,
            set_up.daemon.address(),
            &function,
            None,
        )?;
        let native = Warm::new("process", "none", address, path, Some(Box::new(native)))?;
        Ok([guest, native])
    }

    /// Something that the program times itself, `per` of `count` of it.
    fn timed(
        &self,
        set_up: &SetUp,
        path: &str,
        meaning: &'static str,
        part: (u64, u64),
    ) -> Result<Vec<Box<dyn Subject>>> {
        let subjects = self.warm(set_up, path)?.map(|warm| {
            let timed: Box<dyn Subject> = Box::new(Timed { warm, meaning, part });
            timed
        });
        Ok(subjects.into())
    }

    /// From the start to the first answer, booted each time.
    fn starts(&self, set_up: &SetUp) -> Vec<Box<dyn Subject>> {
        let name = format!("cold-{}", self.program.name);
        self.deploy_as(set_up, &name, &[("dev.spore.idle-timeout", "0s")]);
        vec![
            Box::new(ColdFunction::new(set_up, &name)),
            Box::new(self.native_start()),
        ]
    }

    /// The program as a process that is started for each sample.
    pub(crate) fn native_start(&self) -> NativeStart {
        NativeStart(self.fixture.native.clone())
    }
}

/// A series that is still to be measured: its name and subjects.
pub(crate) type Planned = (&'static str, Vec<Box<dyn Subject>>);

/// All series about one runtime that are times.
pub(crate) fn series(set_up: &SetUp, runtime: &Runtime) -> Result<Vec<Planned>> {
    let loop_of = |iterations| {
        let path = format!("/compute?iterations={iterations}");
        runtime.timed(set_up, &path, "a fixed loop, timed inside the program", (1, 1))
    };
    Ok(match runtime.program.name {
        name if name == compiled::GO_BUSY.name => vec![("compute-go", loop_of(GO_ITERATIONS)?)],
        name if name == installed::PYTHON_HANDLER.name => {
            let path = format!("/objects?rounds={OBJECT_ROUNDS}");
            let meaning = "making and dropping many objects, timed inside the program";
            vec![
                ("compute-python", loop_of(PYTHON_ITERATIONS)?),
                ("objects-python", runtime.timed(set_up, &path, meaning, (1, 1))?),
                ("start-python", runtime.starts(set_up)),
            ]
        }
        name if name == installed::NODE.name => vec![
            ("compute-node", loop_of(NODE_ITERATIONS)?),
            ("start-node", runtime.starts(set_up)),
        ],
        _ => {
            let calls = |path: &str, meaning| {
                runtime.timed(
                    set_up,
                    &format!("{path}?count={CALLS}"),
                    meaning,
                    (CALLS_QUOTED, CALLS),
                )
            };
            let read = format!("/read?path={}", runtime.large_file()?);
            let meaning = "one reading of a cached file of 256 MiB in blocks of 128 KiB";
            vec![
                ("getpid", calls("/getpid", "1,000 calls of getpid")?),
                ("clock", calls("/clock", "1,000 calls of clock_gettime")?),
                ("read", runtime.timed(set_up, &read, meaning, (1, 1))?),
            ]
        }
    })
}

impl Runtime {
    /// The file to be read, by the path that it has in the root and, since the program starts in that folder, here.
    fn large_file(&self) -> Result<&'static str> {
        let native = self.fixture.native.folder.join(compiled::LARGE_FILE);
        ensure!(Path::new(&native).is_file(), "{} is missing", native.display());
        Ok(compiled::LARGE_FILE)
    }
}

/// Something warm that times itself.
struct Timed {
    warm: Warm,
    meaning: &'static str,
    /// What part of the time is the sample.
    part: (u64, u64),
}

impl Subject for Timed {
    fn name(&self) -> &str {
        self.warm.name()
    }

    fn isolation(&self) -> &str {
        self.warm.isolation()
    }

    fn meaning(&self) -> &'static str {
        self.meaning
    }

    fn measure(&mut self) -> Result<Duration> {
        let elapsed = subject::elapsed_inside(&mut self.warm)?.as_nanos() as u64;
        Ok(Duration::from_nanos(elapsed * self.part.0 / self.part.1))
    }
}

/// The program as a process, started for each sample.
pub(crate) struct NativeStart(NativeCommand);

impl Subject for NativeStart {
    fn name(&self) -> &str {
        "process"
    }

    fn isolation(&self) -> &str {
        "none"
    }

    fn meaning(&self) -> &'static str {
        START_MEANING
    }

    fn measure(&mut self) -> Result<Duration> {
        let scratch = tempfile::tempdir().context("the temporary folder is not writable")?;
        let port = free_port();
        let mut command: Command = self.0.on_port(port, scratch.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let start = Instant::now();
        let mut process = command.spawn().context("the program cannot be run")?;
        let answered = first_answer(port);
        let elapsed = start.elapsed();
        process.kill().context("the process cannot be ended")?;
        process.wait().context("the process cannot be waited for")?;
        answered.map(|()| elapsed)
    }
}
