//! The programs: what each needs to be there, how it is made, how it runs natively and as a function, and what it is
//! asked.
//!
//! - [`compiled`]: Go, C, Rust and Java, built from the sources of this suite;
//! - [`installed`]: Python, Node, nginx and Redis, as the machine has them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{self, FixtureError};
use crate::native::NativeCommand;
use crate::rootfs::RootFs;

pub mod compiled;
pub mod installed;

/// The port on which functions listen.
pub const PORT: u16 = 8080;
/// Where programs of a root file system have what is their own.
const FOLDER: &str = "/srv";

/// Something that has to be on this machine for a program to be tried.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A command on the path.
    Command(&'static str),
    /// A file, and the Debian package that brings it.
    File(&'static str, &'static str),
    /// A target of the Rust toolchain.
    RustTarget(&'static str),
    /// The modules of a Go program of this suite.
    GoModules(&'static str),
    /// The crates of a Rust program of this suite.
    Crates(&'static str),
}

impl Need {
    /// What to say if it is missing.
    pub fn missing(self) -> Option<String> {
        match self {
            Need::Command(name) => (!is_command(name)).then(|| format!("no {name}")),
            Need::File(path, package) => (!Path::new(path).exists()).then(|| format!("no package {package}")),
            Need::GoModules(name) => (is_command("go") && !build::has_go_modules(name))
                .then(|| "the Go modules cannot be had".to_owned()),
            Need::Crates(folder) => {
                (!build::has_crates(folder)).then(|| "the crates cannot be had".to_owned())
            }
            Need::RustTarget(target) => {
                let sysroot = build::run(Command::new("rustc").args(["--print", "sysroot"]));
                let library = |sysroot: String| {
                    Path::new(sysroot.trim())
                        .join("lib/rustlib")
                        .join(target)
                        .join("lib")
                };
                let is_there = sysroot.is_ok_and(|sysroot| library(sysroot).is_dir());
                (!is_there).then(|| format!("no Rust target {target}"))
            }
        }
    }
}

fn is_command(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// One request; its answer must be the same natively and from the function.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Path and query.
    pub path: &'static str,
    /// Header fields beside the usual ones.
    pub headers: &'static [(&'static str, &'static str)],
    /// Length of the body; without one the method is GET, with one POST.
    pub body_bytes: Option<usize>,
    /// What the function's answer says instead, with status 500, if Spore does not serve what this page needs.
    pub refused: Option<&'static str>,
}

/// A plain request.
pub const fn get(path: &'static str) -> Page {
    get_with(path, &[])
}

const fn get_with(path: &'static str, headers: &'static [(&'static str, &'static str)]) -> Page {
    Page {
        path,
        headers,
        body_bytes: None,
        refused: None,
    }
}

const fn post(path: &'static str, body_bytes: usize) -> Page {
    Page {
        path,
        headers: &[],
        body_bytes: Some(body_bytes),
        refused: None,
    }
}

/// A page whose answer is the native one only natively.
const fn refused(path: &'static str, what: &'static str) -> Page {
    Page {
        refused: Some(what),
        ..get(path)
    }
}

/// A program that serves HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, also the test's and the function's.
    pub name: &'static str,
    /// Whether it is in the subset that is always run.
    pub is_fast: bool,
    /// What has to be there.
    pub needs: &'static [Need],
    /// Most memory of the function.
    pub memory: &'static str,
    /// What it is asked.
    pub pages: &'static [Page],
    /// The path that is requested under load.
    pub load_path: &'static str,
    /// Builds or collects it.
    pub make: fn() -> Result<Fixture, FixtureError>,
}

impl Program {
    /// What is missing on this machine, if anything is.
    pub fn missing(&self) -> Option<String> {
        let missing: Vec<String> = self.needs.iter().filter_map(|need| need.missing()).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

/// A program that is ready to be run.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// How it becomes a function.
    pub function: Function,
    /// How it runs as a process.
    pub native: NativeCommand,
}

/// What is deployed.
#[derive(Debug, Clone)]
pub enum Function {
    /// One static program.
    Binary(PathBuf),
    /// A root file system and the command in it.
    Root {
        /// The folder.
        folder: PathBuf,
        /// The command.
        entrypoint: String,
        /// Environment beside what Spore sets.
        environment: Vec<(String, String)>,
    },
}

impl Function {
    /// The options of `spore deploy` that say what it is.
    pub fn options(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("paths of fixtures are UTF-8").to_owned();
        match self {
            Function::Binary(file) => vec!["--binary".to_owned(), path(file)],
            Function::Root {
                folder,
                entrypoint,
                environment,
            } => {
                let mut options = vec!["--rootfs".to_owned(), path(folder)];
                options.extend(["--entrypoint".to_owned(), entrypoint.clone()]);
                options.extend(["--workdir".to_owned(), FOLDER.to_owned()]);
                for (name, value) in environment {
                    options.extend(["--env".to_owned(), format!("{name}={value}")]);
                }
                options
            }
        }
    }
}

/// All programs that serve HTTP, the most important first.
pub fn all() -> Vec<Program> {
    vec![
        compiled::GO_HELLO,
        compiled::GO_BUSY,
        compiled::C_POOL,
        installed::PYTHON_HTTP_SERVER,
        installed::PYTHON_HANDLER,
        installed::PYTHON_ASYNCIO,
        installed::NODE,
        installed::NGINX,
        compiled::GO_HELLO_CGO,
        compiled::RUST_GLIBC,
        compiled::RUST_MUSL,
        compiled::JAVA,
    ]
}
/// A static program, run as it is.
fn binary(program: PathBuf) -> Fixture {
    Fixture {
        native: command(&[&program.display().to_string()], Path::new("/")),
        function: Function::Binary(program),
    }
}

fn command(words: &[&str], folder: &Path) -> NativeCommand {
    NativeCommand {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        environment: Vec::new(),
        folder: folder.to_path_buf(),
    }
}

/// A command that is the same in the root and on this machine, started in the root's own folder.
fn rooted(folder: PathBuf, words: &[&str]) -> Fixture {
    Fixture {
        native: command(words, &folder.join(&FOLDER[1..])),
        function: Function::Root {
            folder,
            entrypoint: words.join(" "),
            environment: Vec::new(),
        },
    }
}

/// One dynamic program of our own in a root.
fn dynamic(name: &str, program: &Path) -> Result<Fixture, FixtureError> {
    let root = with_c_library_data(RootFs::new())?;
    let folder = root
        .file(&format!("/usr/local/bin/{name}"), program)?
        .folder(FOLDER)
        .make(name)?;
    let mut fixture = rooted(folder, &[&format!("/usr/local/bin/{name}")]);
    fixture.native.words = vec![program.display().to_string()];
    Ok(fixture)
}

/// What the C library reads or loads beside what programs are linked against, where it is there.
fn with_c_library_data(mut root: RootFs) -> Result<RootFs, FixtureError> {
    for file in [
        "/etc/localtime",
        "/etc/services",
        "/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "/lib/x86_64-linux-gnu/libm.so.6",
    ] {
        if Path::new(file).exists() {
            root = root.program(file)?;
        }
    }
    let locale = "/usr/lib/locale/C.utf8";
    if Path::new(locale).is_dir() {
        root.tree(locale)
    } else {
        Ok(root)
    }
}
