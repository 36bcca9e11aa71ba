//! The programs: what each needs to be there, how it is made, how it runs natively and as a function, and what it is
//! asked.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{self, FixtureError, Key};
use crate::native::NativeCommand;
use crate::rootfs::RootFs;

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
}

impl Need {
    /// What to say if it is missing.
    fn missing(self) -> Option<String> {
        match self {
            Need::Command(name) => (!is_command(name)).then(|| format!("no {name}")),
            Need::File(path, package) => (!Path::new(path).exists()).then(|| format!("no package {package}")),
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
        GO_HELLO,
        GO_BUSY,
        C_POOL,
        PYTHON_HTTP_SERVER,
        PYTHON_HANDLER,
        PYTHON_ASYNCIO,
        NODE,
        NGINX,
        GO_HELLO_CGO,
        RUST_GLIBC,
        RUST_MUSL,
        JAVA,
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

/// The helper that Python and Node start.
fn helper() -> Result<PathBuf, FixtureError> {
    build::c("musl-gcc", &["-static"], "helper")
}

/// Web pages: text, a style sheet that compresses well, and bytes that do not.
fn pages() -> Result<PathBuf, FixtureError> {
    build::kept("pages", Key::default().text("1"), |folder| {
        let put = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            let parent = path.parent().expect("it is in the folder");
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, content))
                .map_err(FixtureError::file(&path))
        };
        let noise: Vec<u8> = (0..300_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        put(
            "index.html",
            b"<!doctype html>\n<title>Pages</title>\n<p>Some pages.\n",
        )?;
        put("style.css", "p { margin: 0 auto; }\n".repeat(500).as_bytes())?;
        put("noise.bin", &noise)?;
        put("listing/one.txt", b"one\n")?;
        put("listing/two.txt", b"two\n")
    })
}

const HELLO_PAGES: &[Page] = &[get("/"), get("/anything?else=1"), post("/", 10_000)];

/// The smallest web server in Go, without a C library.
pub const GO_HELLO: Program = Program {
    name: "go-hello-static",
    is_fast: true,
    needs: &[Need::Command("go")],
    memory: "64Mi",
    pages: HELLO_PAGES,
    load_path: "/",
    make: || {
        let mut fixture = binary(build::go("hello", false, &[])?);
        fixture.native = binary(hello_elsewhere(false)?).native;
        Ok(fixture)
    },
};

/// It always listens on port 8080. What runs natively beside other tests differs from it in that and nothing else.
fn hello_elsewhere(with_cgo: bool) -> Result<PathBuf, FixtureError> {
    let replaced = [
        ("\":8080\"", "\"127.0.0.1:\" + os.Getenv(\"PORT\")"),
        ("\"net/http\"", "\"net/http\"\n\t\"os\""),
    ];
    build::go("hello", with_cgo, &replaced)
}

/// The same with cgo: linked against the C library.
pub const GO_HELLO_CGO: Program = Program {
    name: "go-hello-cgo",
    is_fast: false,
    needs: &[Need::Command("go"), Need::Command("gcc")],
    make: || {
        let mut fixture = dynamic("go-hello-cgo", &build::go("hello", true, &[])?)?;
        fixture.native = binary(hello_elsewhere(true)?).native;
        Ok(fixture)
    },
    ..GO_HELLO
};

/// What is special about Go's runtime.
pub const GO_BUSY: Program = Program {
    name: "go-busy",
    is_fast: true,
    needs: &[Need::Command("go")],
    memory: "128Mi",
    pages: &[
        get("/"),
        get("/sum"),
        get("/relay"),
        get("/timers"),
        get("/garbage"),
        get("/fault"),
        get("/starve"),
        get("/loopback"),
        get("/files"),
        post("/echo", 3_000_000),
    ],
    load_path: "/sum",
    make: || build::go("busy", false, &[]).map(binary),
};

/// Threads of the C library.
pub const C_POOL: Program = Program {
    name: "c-glibc-threads",
    is_fast: true,
    needs: &[Need::Command("gcc")],
    memory: "64Mi",
    pages: &[
        get("/"),
        get("/sum"),
        get("/local"),
        get("/clock"),
        get("/libc"),
        get("/none"),
        post("/echo", 0),
        post("/echo", 900_000),
    ],
    load_path: "/sum",
    make: || dynamic("pool", &build::c("gcc", &["-pthread"], "pool")?),
};

/// The file that [`FIGURES`] reads, from the folder in which it starts.
pub const LARGE_FILE: &str = "large";
const LARGE_FILE_BYTES: usize = 256 << 20;

/// Times what a program asks of its system, for `bench/`; not among [`all`].
pub const FIGURES: Program = Program {
    name: "figures",
    is_fast: false,
    needs: &[Need::Command("musl-gcc")],
    memory: "64Mi",
    pages: &[],
    load_path: "/",
    make: || {
        let program = build::c("musl-gcc", &["-static"], "figures")?;
        let large = build::kept("large", Key::default().text("1"), |folder| {
            let block: Vec<u8> = (0..1_u32 << 20)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8)
                .collect();
            let path = folder.join(LARGE_FILE);
            let mut file = std::fs::File::create(&path).map_err(FixtureError::file(&path))?;
            for _ in 0..LARGE_FILE_BYTES / block.len() {
                file.write_all(&block).map_err(FixtureError::file(&path))?;
            }
            Ok(())
        })?;
        let folder = RootFs::new()
            .file("/usr/local/bin/figures", &program)?
            .tree_at(FOLDER, &large)?
            .make("figures")?;
        let mut fixture = rooted(folder, &["/usr/local/bin/figures"]);
        fixture.native.words = vec![program.display().to_string()];
        Ok(fixture)
    },
};

const PYTHON: Need = Need::File("/usr/bin/python3", "python3");

/// Debian's Python with its standard library, and what the scripts of this suite need.
fn python(name: &str, numpy: bool, words: &[&str]) -> Result<Fixture, FixtureError> {
    let python = "/usr/bin/python3";
    let ask = [
        "-I",
        "-c",
        "import sysconfig; print(sysconfig.get_path('stdlib'))",
    ];
    let library = build::run(Command::new(python).args(ask))?;
    let mut root = with_c_library_data(RootFs::new())?
        .program(python)?
        .tree(library.trim())?;
    if numpy {
        root = root.tree("/usr/lib/python3/dist-packages/numpy")?;
    }
    for file in ["/usr/bin/env", "/usr/lib/ssl/openssl.cnf"] {
        if Path::new(file).exists() {
            root = root.program(file)?;
        }
    }
    let helper = helper()?;
    let folder = root
        .tree_at(FOLDER, &build::source("python"))?
        .tree_at("/srv/pages", &pages()?)?
        .tree_at(FOLDER, &build::certificate()?)?
        .file("/srv/helper", &helper)?
        .make(name)?;
    let mut fixture = rooted(folder, &[&[python], words].concat());
    set_environment(
        &mut fixture,
        &[
            ("LANG", "C.UTF-8"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ],
    );
    Ok(fixture)
}

fn set_environment(fixture: &mut Fixture, variables: &[(&str, &str)]) {
    let variables = variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    fixture.native.environment.extend(variables.clone());
    if let Function::Root { environment, .. } = &mut fixture.function {
        environment.extend(variables);
    }
}

/// `python3 -m http.server`.
pub const PYTHON_HTTP_SERVER: Program = Program {
    name: "python-http-server",
    is_fast: true,
    needs: &[PYTHON, Need::Command("musl-gcc"), Need::Command("openssl")],
    memory: "128Mi",
    pages: &[
        get("/"),
        get("/style.css"),
        get("/noise.bin"),
        get("/listing/"),
        get("/listing"),
        get("/none"),
        post("/", 5),
    ],
    load_path: "/style.css",
    make: || {
        let mut fixture = python(
            "python",
            false,
            &["-m", "http.server", "8080", "--directory", "pages"],
        )?;
        let words = [
            "/usr/bin/python3",
            "-m",
            "http.server",
            "{port}",
            "--bind",
            "127.0.0.1",
            "--directory",
            "pages",
        ];
        fixture.native.words = words.map(str::to_owned).to_vec();
        Ok(fixture)
    },
};

/// The parts of Python's standard library that lean on the system, and numpy.
pub const PYTHON_HANDLER: Program = Program {
    name: "python-library",
    is_fast: true,
    needs: &[
        PYTHON,
        Need::Command("musl-gcc"),
        Need::Command("openssl"),
        Need::File("/usr/lib/python3/dist-packages/numpy", "python3-numpy"),
    ],
    memory: "512Mi",
    pages: &[
        get("/"),
        get("/threads"),
        get("/sqlite3"),
        get("/ssl"),
        get("/json"),
        get("/hashlib"),
        get("/zlib"),
        get("/subprocess"),
        get("/numpy"),
        get("/files"),
        get("/sockets"),
        get("/signals"),
        get("/none"),
        post("/echo", 2_000_000),
    ],
    load_path: "/json",
    make: || python("python-numpy", true, &["handler.py"]),
};

/// A server on asyncio.
pub const PYTHON_ASYNCIO: Program = Program {
    name: "python-asyncio",
    is_fast: false,
    needs: PYTHON_HTTP_SERVER.needs,
    memory: "256Mi",
    pages: &[
        get("/"),
        get("/gather"),
        get("/tasks"),
        get("/executor"),
        get("/loopback"),
        get("/process"),
        get("/signals"),
        get("/none"),
        post("/echo", 500_000),
    ],
    load_path: "/",
    make: || python("python", false, &["aio.py"]),
};

/// Node and what it does outside of its one thread.
pub const NODE: Program = Program {
    name: "node",
    is_fast: true,
    needs: &[Need::Command("node"), Need::Command("musl-gcc")],
    memory: "512Mi",
    pages: &[
        get("/"),
        get("/worker_threads"),
        get("/crypto"),
        get("/zlib"),
        get("/streams"),
        get("/fs"),
        get("/timers"),
        get("/net"),
        get("/engine"),
        // libuv starts programs with fork alone, which no unikernel serves.
        refused("/child_process", "spawn ENOSYS"),
        get("/none"),
        post("/echo", 2_000_000),
    ],
    load_path: "/",
    make: || {
        // The real program, which may be behind a version manager's.
        let node = build::run(Command::new("node").args(["-p", "process.execPath"]))?;
        let node = node.trim();
        let folder = with_c_library_data(RootFs::new())?
            .program(node)?
            .tree_at(FOLDER, &build::source("node"))?
            .file("/srv/helper", &helper()?)?
            .make("node")?;
        Ok(rooted(folder, &[node, "server.js"]))
    },
};

/// Debian's nginx in one process.
pub const NGINX: Program = Program {
    name: "nginx",
    is_fast: false,
    needs: &[Need::File("/usr/sbin/nginx", "nginx-light")],
    memory: "64Mi",
    pages: &[
        get("/"),
        get("/hello"),
        get("/moved"),
        get("/noise.bin"),
        get("/style.css"),
        get("/listing"),
        get("/none"),
        get("/proxied/hello"),
        get("/proxied/style.css"),
        get_with("/style.css", &[("accept-encoding", "gzip")]),
        get_with("/noise.bin", &[("range", "bytes=100000-100099")]),
        get_with(
            "/index.html",
            &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")],
        ),
        post("/hello", 100_000),
        post("/index.html", 10),
    ],
    load_path: "/noise.bin",
    make: || {
        let source = build::source("nginx/nginx.conf");
        let text = std::fs::read_to_string(&source).map_err(FixtureError::file(&source))?;
        let inside = |text: &str| {
            text.replace("PORT_HERE", "8080")
                .replace("PAGES_HERE", "/srv/pages")
                .replace("SCRATCH_HERE", "/tmp")
        };
        let folder = with_c_library_data(RootFs::new())?
            .program("/usr/sbin/nginx")?
            .program("/etc/nginx/mime.types")?
            .text("/srv/nginx.conf", &inside(&text))
            .text("/srv/nginx.conf.in", &text)
            .tree_at("/srv/pages", &pages()?)?
            .make("nginx")?;
        let mut fixture = rooted(
            folder,
            &["/usr/sbin/nginx", "-e", "stderr", "-c", "/srv/nginx.conf"],
        );
        let script = "sed \"s#PORT_HERE#$PORT#; s#PAGES_HERE#$PWD/pages#; s#SCRATCH_HERE#$TMPDIR#\" nginx.conf.in \
                      >\"$TMPDIR/nginx.conf\" && exec /usr/sbin/nginx -e stderr -c \"$TMPDIR/nginx.conf\"";
        fixture.native.words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Ok(fixture)
    },
};

const RUST_PAGES: &[Page] = &[
    get("/"),
    get("/tasks"),
    get("/timers"),
    get("/blocking"),
    get("/files"),
    get("/loopback"),
    get("/panics"),
    get("/none"),
    post("/echo", 1_000_000),
];

/// tokio and hyper on the shared C library.
pub const RUST_GLIBC: Program = Program {
    name: "rust-hyper-glibc",
    is_fast: false,
    needs: &[Need::RustTarget("x86_64-unknown-linux-gnu"), Need::Command("cc")],
    memory: "64Mi",
    pages: RUST_PAGES,
    load_path: "/tasks",
    make: || dynamic("hyper-server", &build::rust("x86_64-unknown-linux-gnu")?),
};

/// tokio and hyper, static.
pub const RUST_MUSL: Program = Program {
    name: "rust-hyper-musl",
    needs: &[Need::RustTarget("x86_64-unknown-linux-musl")],
    make: || build::rust("x86_64-unknown-linux-musl").map(binary),
    ..RUST_GLIBC
};

/// OpenJDK's own HTTP server.
pub const JAVA: Program = Program {
    name: "java",
    is_fast: false,
    needs: &[Need::Command("java"), Need::Command("javac")],
    memory: "512Mi",
    pages: &[
        get("/"),
        get("/threads"),
        get("/garbage"),
        get("/faults"),
        get("/files"),
        get("/loopback"),
        get("/digest"),
        get("/none"),
        post("/", 100_000),
    ],
    load_path: "/",
    make: || {
        let settings = Command::new("java")
            .args(["-XshowSettings:properties", "-version"])
            .output();
        let settings = settings.map_err(|source| FixtureError::Start {
            command: "java".to_owned(),
            source,
        })?;
        let text = String::from_utf8_lossy(&settings.stderr).into_owned();
        let home = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("java.home = "));
        let home = home.ok_or_else(|| FixtureError::Failed {
            command: "java -XshowSettings:properties".to_owned(),
            output: text.clone(),
        })?;
        let java = format!("{home}/bin/java");
        let folder = with_c_library_data(RootFs::new())?
            .program(&java)?
            .tree(&format!("{home}/lib"))?
            .tree(&format!("{home}/conf"))?
            .tree_at(FOLDER, &build::java()?)?
            .make("java")?;
        Ok(rooted(folder, &[&java, "-cp", ".", "Server"]))
    },
};

/// Redis beside a program that starts it and talks to it: it serves no HTTP.
pub mod redis {
    use super::{Command, FixtureError, Need, PathBuf, RootFs, build, with_c_library_data};

    /// What has to be there.
    pub const NEEDS: &[Need] = &[
        Need::File("/usr/bin/redis-server", "redis-server"),
        Need::Command("musl-gcc"),
    ];

    /// The client on this machine, and the root with both.
    pub fn make() -> Result<(PathBuf, PathBuf), FixtureError> {
        let client = build::c("musl-gcc", &["-static"], "redis")?;
        let root = with_c_library_data(RootFs::new())?.program("/usr/bin/redis-server")?;
        let root = root.file("/usr/local/bin/redis-client", &client)?.make("redis")?;
        Ok((client, root))
    }

    /// What is missing on this machine, if anything is.
    pub fn missing() -> Option<String> {
        let missing: Vec<String> = NEEDS.iter().filter_map(|need| need.missing()).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// The client as a process, with the server on a port.
    pub fn native(client: &std::path::Path, port: u16) -> Command {
        let mut command = Command::new(client);
        command.arg("/usr/bin/redis-server").arg(port.to_string());
        command
    }
}
