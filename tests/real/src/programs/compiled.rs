//! Programs that are built from the sources of this suite: Go, C, Rust, Java.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::{FOLDER, Fixture, Need, Page, Program, binary, dynamic, get, post, rooted, with_c_library_data};
use crate::build::{self, FixtureError, Key};
use crate::rootfs::RootFs;

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

/// A program that answers with random numbers.
pub fn go_clones() -> Result<Fixture, FixtureError> {
    build::go("clones", false, &[]).map(binary)
}

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

/// Times what a program asks of its system, for `bench/`; not among [`all`](super::all).
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
    make: || {
        dynamic(
            "hyper-server",
            &build::rust("rust", "hyper-server", "x86_64-unknown-linux-gnu")?,
        )
    },
};

/// tokio and hyper, static.
pub const RUST_MUSL: Program = Program {
    name: "rust-hyper-musl",
    needs: &[Need::RustTarget("x86_64-unknown-linux-musl")],
    make: || build::rust("rust", "hyper-server", "x86_64-unknown-linux-musl").map(binary),
    ..RUST_GLIBC
};
/// A Lambda function in Go, with the library of AWS.
pub fn go_lambda() -> Result<Fixture, FixtureError> {
    build::go("lambda", false, &[]).map(binary)
}

/// Lambda functions in Rust, with the crates of AWS.
pub fn rust_lambda() -> Result<Fixture, FixtureError> {
    let program = build::rust("rust-lambda", "lambda", "x86_64-unknown-linux-gnu")?;
    dynamic("lambda", &program)
}

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
