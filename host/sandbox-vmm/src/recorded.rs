//! What real monitors were asked and have answered, recorded byte for byte (`recordings/`), so that what is asked of them is known to be
//! right on machines that have neither them nor hardware virtualisation.
//!
//! Lines with `>` are ours, those with `<` the monitor's, without the ends of lines (CR LF), and without one at the end of a
//! body. To record anew, with both programs in PATH, the kernel of `scripts/microvm-kernel`, and KVM (of any kind, but for what
//! Cloud Hypervisor saves):
//!
//! ```text
//!   SPORE_RECORD=1 cargo test -p spore-sandbox-vmm recorded -- --ignored
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use spore_monitor::probe::{KvmKind, probe_host};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::api::Api;
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::monitor::Monitor;
use crate::payload;
use crate::requests::{self, Machine, Request};

const PATIENCE: Duration = Duration::from_secs(60);

/// A request, and its answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn path(monitor: Monitor, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    folder.join(format!("{}-{name}.txt", monitor.name()))
}

fn to_text(exchanges: &[Exchange]) -> String {
    let mut text = String::new();
    for exchange in exchanges {
        for (mark, bytes) in [('>', &exchange.request), ('<', &exchange.answer)] {
            for line in String::from_utf8_lossy(bytes).split("\r\n") {
                text.push_str(format!("{mark} {line}").trim_end());
                text.push('\n');
            }
        }
    }
    text
}

fn from_text(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut last = '<';
    for line in text.lines() {
        let mark = line.chars().next().unwrap();
        let line = line[1..].strip_prefix(' ').unwrap_or_default();
        if (last, mark) == ('<', '>') {
            exchanges.push(Exchange::default());
        }
        let exchange = exchanges.last_mut().unwrap();
        let bytes = if mark == '>' {
            &mut exchange.request
        } else {
            &mut exchange.answer
        };
        if last == mark {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(line.as_bytes());
        last = mark;
    }
    exchanges
}

/// What was recorded, and its requests.
const NAMES: [&str; 4] = ["start", "refusal", "save", "copy"];

fn requests(monitor: Monitor, name: &str) -> Vec<Request> {
    let machine = Machine {
        kernel: Path::new(if name == "refusal" { "none" } else { "vmlinux" }),
        initramfs: Path::new("initramfs"),
        disk: Path::new("root"),
        memory_bytes: 128 << 20,
    };
    let saved = Path::new("saved");
    let start = requests::start(monitor, &machine);
    match name {
        "save" => [start, requests::save(monitor, saved)].concat(),
        "copy" => requests::load(monitor, saved),
        _ => start,
    }
}

/// Asks for all of it; why it was refused.
async fn ask(socket: &Path, monitor: Monitor, name: &str) -> Result<(), String> {
    let mut api = Api::connect(socket).await.map_err(|error| error.to_string())?;
    for request in requests(monitor, name) {
        api.ask(&request).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Answers as it was recorded, as long as the requests are those of then.
async fn play(listener: UnixListener, exchanges: Vec<Exchange>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    for Exchange { request, answer } in exchanges {
        let mut asked = vec![0; request.len()];
        let count = stream.read_exact(&mut asked).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(count.is_ok(), "shorter than it was: {}", text(&asked));
        assert_eq!(text(&asked), text(&request));
        stream.write_all(&answer).await.unwrap();
    }
    let mut more = Vec::new();
    stream.read_to_end(&mut more).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&more), "", "more than was asked then");
}

async fn replay(monitor: Monitor, name: &str) -> Result<(), String> {
    let text = fs::read_to_string(path(monitor, name)).unwrap();
    let exchanges = from_text(&text);
    assert_eq!(to_text(&exchanges), text);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api");
    let listener = UnixListener::bind(&socket).unwrap();
    let both = async { tokio::join!(play(listener, exchanges), ask(&socket, monitor, name)).1 };
    tokio::time::timeout(PATIENCE, both).await.unwrap()
}

#[tokio::test]
async fn machines_are_asked_for_as_they_were_recorded() {
    for monitor in [Monitor::Firecracker, Monitor::CloudHypervisor] {
        for name in ["start", "save", "copy"] {
            assert_eq!(replay(monitor, name).await, Ok(()), "{monitor}, {name}");
        }
    }
}

#[tokio::test]
async fn reasons_of_refusals_are_told_as_they_were_recorded() {
    let told = replay(Monitor::Firecracker, "refusal").await.unwrap_err();
    assert_eq!(
        told,
        "it refuses its kernel (status 400): Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)"
    );
    let told = replay(Monitor::CloudHypervisor, "refusal").await.unwrap_err();
    assert!(
        told.ends_with(
            "The VM could not boot: Cannot open kernel file: No such file or directory (os error 2)"
        ),
        "{told}"
    );
    assert!(told.starts_with("it refuses its start (status 500): "), "{told}");
}

/// Passes bytes on in both directions, and keeps them.
async fn listen_in(listener: UnixListener, monitor: &Path) -> Vec<Exchange> {
    let (mut ours, _) = listener.accept().await.unwrap();
    let mut theirs = loop {
        match UnixStream::connect(monitor).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let mut exchanges: Vec<Exchange> = Vec::new();
    let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            Ok(count @ 1..) = ours.read(&mut request) => {
                if exchanges.last().is_none_or(|last| !last.answer.is_empty()) {
                    exchanges.push(Exchange::default());
                }
                exchanges.last_mut().unwrap().request.extend_from_slice(&request[..count]);
                theirs.write_all(&request[..count]).await.unwrap();
            }
            Ok(count @ 1..) = theirs.read(&mut answer) => {
                exchanges.last_mut().unwrap().answer.extend_from_slice(&answer[..count]);
                ours.write_all(&answer[..count]).await.unwrap();
            }
            else => return exchanges,
        }
    }
}

/// The answers of a real monitor that begins in a folder.
async fn real(folder: &Path, monitor: Monitor, name: &str) -> Vec<Exchange> {
    let program = crate::found::program(monitor).unwrap();
    let (inherited, ours) = (folder.join("inherited"), folder.join("ours"));
    let (stdin, socket) = match monitor {
        Monitor::CloudHypervisor => {
            let listener = std::os::unix::net::UnixListener::bind(&inherited).unwrap();
            (Stdio::from(std::os::fd::OwnedFd::from(listener)), inherited)
        }
        _ => (Stdio::null(), folder.join("api")),
    };
    let mut process = Command::new(program)
        .args(requests::arguments(monitor))
        .current_dir(folder)
        .stdin(stdin)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let listener = UnixListener::bind(&ours).unwrap();
    let asked = async {
        // What comes of it is in the answers.
        let _ = ask(&ours, monitor, name).await;
        process.kill().unwrap();
    };
    let both = async { tokio::join!(listen_in(listener, &socket), asked).0 };
    let exchanges = tokio::time::timeout(PATIENCE, both).await.unwrap();
    process.wait().unwrap();
    for name in ["ours", "inherited", "api", "vsock"] {
        // Not each of them has all.
        let _ = fs::remove_file(folder.join(name));
    }
    exchanges
}

#[tokio::test]
#[ignore = "needs firecracker and cloud-hypervisor in PATH, a kernel, and KVM of any kind"]
async fn real_monitors_answer_as_they_were_recorded() {
    let cache = PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/spore/kernel/boot");
    let found = Kernel::find(None, &[PathBuf::from("/boot"), cache]).unwrap();
    let kernel = payload::unpack(&fs::read(&found.path).unwrap()).unwrap();
    let is_hardware = probe_host().is_ok_and(|probe| probe.kvm_kind != KvmKind::Pvm);
    for monitor in [Monitor::Firecracker, Monitor::CloudHypervisor] {
        let folder = tempfile::tempdir().unwrap();
        let within = |name: &str| folder.path().join(name);
        fs::write(within("vmlinux"), &kernel).unwrap();
        fs::write(within("initramfs"), Archive::default().finish()).unwrap();
        fs::write(within("root"), [0; 4096]).unwrap();
        fs::create_dir(within("saved")).unwrap();
        for name in NAMES {
            // It asks KVM for the state of nested machines, which is known to hardware virtualisation alone.
            if monitor == Monitor::CloudHypervisor && matches!(name, "save" | "copy") && !is_hardware {
                continue;
            }
            let text = to_text(&real(folder.path(), monitor, name).await);
            if std::env::var_os("SPORE_RECORD").is_some() {
                fs::write(path(monitor, name), &text).unwrap();
            }
            assert_eq!(
                text,
                fs::read_to_string(path(monitor, name)).unwrap(),
                "{monitor}, {name}"
            );
        }
    }
}
