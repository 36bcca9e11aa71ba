//! Programs that are installed on this machine: Debian's Python, Node, Debian's nginx and Redis.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{
    FOLDER, Fixture, Function, Need, Program, get, get_with, post, refused, rooted, with_c_library_data,
};
use crate::build::{self, FixtureError, Key};
use crate::rootfs::RootFs;

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

/// `http.server` with a handler that tells its instances apart.
pub const PYTHON_IDENTITY: Program = Program {
    name: "python-identity",
    is_fast: false,
    needs: PYTHON_HTTP_SERVER.needs,
    memory: "128Mi",
    pages: &[],
    load_path: "/",
    make: || python("python", false, &["identity.py"]),
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

/// One that leaves something in every place that it has, and tells what it finds: see `tests/resets.rs`.
pub const PYTHON_LEAVING: Program = Program {
    name: "python-reset",
    is_fast: true,
    needs: PYTHON_HTTP_SERVER.needs,
    memory: "128Mi",
    pages: &[],
    load_path: "/",
    make: || python("python", false, &["leaving.py"]),
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
    make: || node("server.js"),
};

/// A script of this suite's with the real program, which may be behind a version manager's.
fn node(script: &str) -> Result<Fixture, FixtureError> {
    let node = build::run(Command::new("node").args(["-p", "process.execPath"]))?;
    let node = node.trim();
    let folder = with_c_library_data(RootFs::new())?
        .program(node)?
        .tree_at(FOLDER, &build::source("node"))?
        .file("/srv/helper", &helper()?)?
        .make("node")?;
    Ok(rooted(folder, &[node, script]))
}

/// Python that answers with random numbers.
pub fn python_clones() -> Result<Fixture, FixtureError> {
    python("python", false, &["clones.py"])
}

/// Node that answers with random numbers.
pub fn node_clones() -> Result<Fixture, FixtureError> {
    node("clones.js")
}

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
