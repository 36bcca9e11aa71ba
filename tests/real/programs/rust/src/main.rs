//! A server on tokio's threads and hyper, whose pages use timers, tasks, channels, files, blocking calls and sockets.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A thousand tasks that hand numbers on.
async fn tasks() -> Result<String, Failure> {
    let (sender, mut receiver) = mpsc::channel(16);
    for number in 0..1000_u64 {
        let sender = sender.clone();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            sender.send(number * number).await
        });
    }
    drop(sender);
    let (mut count, mut sum) = (0, 0);
    while let Some(square) = receiver.recv().await {
        count += 1;
        sum += square;
    }
    let (reply, answer) = oneshot::channel();
    std::thread::spawn(move || reply.send(7));
    Ok(format!("{count} {sum} {}", answer.await?))
}

/// Timers in the order of their durations, which differ by more than a busy machine lets a thread wait, and one that is
/// too late.
async fn timers() -> Result<String, Failure> {
    let mut sleepers = JoinSet::new();
    for number in (0..8_u64).rev() {
        sleepers.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 50)).await;
            number
        });
    }
    let mut order = String::new();
    while let Some(number) = sleepers.join_next().await {
        write!(order, "{} ", number?)?;
    }
    let start = Instant::now();
    let late = tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>()).await;
    let waited = start.elapsed();
    let is_as_asked = waited >= Duration::from_millis(20) && waited < Duration::from_secs(10);
    Ok(format!("{order}{} {is_as_asked}", late.is_err()))
}

/// Calls that block, in threads beside the runtime's own.
async fn blocking() -> Result<String, Failure> {
    let mut calls = JoinSet::new();
    for number in 0..32_u64 {
        calls.spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(2));
            number
        });
    }
    Ok(calls.join_all().await.into_iter().sum::<u64>().to_string())
}

async fn files() -> Result<String, Failure> {
    let folder = std::env::temp_dir().join(format!("hyper-{}", std::process::id()));
    tokio::fs::create_dir_all(folder.join("a/b")).await?;
    let path = folder.join("data");
    tokio::fs::write(&path, vec![7; 100_000]).await?;
    tokio::fs::rename(&path, folder.join("renamed")).await?;
    let length = tokio::fs::read(folder.join("renamed")).await?.len();
    let missing = tokio::fs::read(&path).await.expect_err("it was renamed").kind();
    tokio::fs::remove_dir_all(&folder).await?;
    Ok(format!("{length} {missing} {}", folder.exists()))
}

/// Fifty connections at once to a listener in here.
async fn loopback() -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let echo = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    let mut clients = JoinSet::new();
    for number in 0..50_u8 {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            let (mut reader, mut writer) = stream.split();
            let mut back = Vec::new();
            let send = async {
                writer.write_all(&vec![number; 10_000]).await?;
                writer.shutdown().await
            };
            tokio::try_join!(send, reader.read_to_end(&mut back))?;
            Ok::<_, std::io::Error>(back.len())
        });
    }
    let mut total = 0;
    while let Some(length) = clients.join_next().await {
        total += length??;
    }
    echo.abort();
    Ok(total.to_string())
}

/// Panics in tasks stay in them.
async fn panics() -> Result<String, Failure> {
    let ended = tokio::spawn(async {
        let list: Vec<u32> = Vec::new();
        list[std::hint::black_box(3)]
    })
    .await;
    Ok(format!("{}", ended.is_err_and(|error| error.is_panic())))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match request.uri().path() {
        "/" => Ok("hyper".to_owned()),
        "/tasks" => tasks().await,
        "/timers" => timers().await,
        "/blocking" => blocking().await,
        "/files" => files().await,
        "/loopback" => loopback().await,
        "/panics" => panics().await,
        "/echo" => match request.into_body().collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
                Ok(format!("{} bytes, sum {sum}", body.len()))
            }
            Err(error) => Err(error.into()),
        },
        _ => Err("no such page".into()),
    };
    let (status, text) = match text {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    Ok(response)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> Result<(), Failure> {
    let port: u16 = std::env::var("PORT")?.parse()?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}
