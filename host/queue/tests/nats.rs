//! The queue on a real NATS server: what is not so on a disk. Where no `nats-server` is installed, these say so and pass.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use spore_nats::{Address, Connection};
use spore_queue::{AcceptError, Limits, ListQuery, Message, NatsError, NatsOptions, Queue, State};
use spore_test_harness::nats::NatsServer;

async fn open(server: &NatsServer, data: &Path) -> Queue {
    let address: Address = server.url().parse().expect("an address");
    let options = NatsOptions {
        connection: Connection::open(&address, None, 1000).await.expect("it is there"),
        name: address.name().to_owned(),
        data: data.to_owned(),
    };
    Queue::open_nats(options, Limits::default()).await
}

async fn accept(queue: &Queue, call_id: &str, body: Vec<u8>) -> Result<(), AcceptError> {
    let message = Message {
        call_id: call_id.to_owned(),
        function: "f.ns".to_owned(),
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        callback: None,
        body_bytes: body.len() as u64,
        accepted_ms: 1,
        state: State::Waiting { due_ms: 1 },
        attempts: 0,
        last: None,
    };
    queue.accept(message, Bytes::from(body)).await
}

/// How often each invocation was run, by its call ID.
type Runs = Arc<Mutex<BTreeMap<String, usize>>>;

/// Runs what comes until the task is ended.
async fn run(queue: Arc<Queue>, runs: Runs) {
    loop {
        let turn = queue.next(|_| true).await;
        let runs = runs.clone();
        tokio::spawn(async move {
            let Some(delivery) = turn.begin().await else {
                return;
            };
            let call_id = delivery.message.call_id.clone();
            *runs.lock().expect("no panic").entry(call_id).or_default() += 1;
            delivery.answered().await;
        });
    }
}

async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "{what} did not come true");
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_share_a_queue_run_each_invocation_once() {
    let Some(server) = NatsServer::start() else { return };
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let mut queues = Vec::new();
    for folder in &folders {
        queues.push(Arc::new(open(&server, folder.path()).await));
    }
    for number in 0..500 {
        accept(&queues[number % 2], &format!("call-{number}"), vec![b'x'; number])
            .await
            .expect("there is room");
    }
    // Who has accepted nothing sees them too.
    wait_until("that all are known", async || queues[2].counts("f.ns").0 == 500).await;
    let runs = Runs::default();
    let runners: Vec<_> = queues
        .iter()
        .map(|queue| tokio::spawn(run(queue.clone(), runs.clone())))
        .collect();
    for queue in &queues {
        wait_until("that all are gone", async || queue.counts("f.ns") == (0, 0, 0)).await;
    }
    runners.iter().for_each(tokio::task::JoinHandle::abort);
    let runs = runs.lock().expect("no panic");
    assert_eq!((runs.len(), runs.values().max()), (500, Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_or_hastened_here_is_so_elsewhere() {
    let Some(server) = NatsServer::start() else { return };
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (first, second) = (
        open(&server, folders[0].path()).await,
        open(&server, folders[1].path()).await,
    );
    accept(&first, "a", b"body".to_vec())
        .await
        .expect("there is room");
    accept(&first, "b", Vec::new()).await.expect("there is room");
    let running = first.next(|_| true).await.begin().await.expect("it is due");
    assert_eq!(running.message.call_id, "a");
    wait_until("that it runs elsewhere", async || {
        second.counts("f.ns") == (1, 1, 0)
    })
    .await;
    let list = second
        .list(ListQuery {
            count: 10,
            ..ListQuery::default()
        })
        .await
        .expect("listed");
    let shown: Vec<_> = list
        .iter()
        .map(|entry| (entry.message.call_id.as_str(), entry.is_running))
        .collect();
    assert_eq!(shown, [("a", true), ("b", false)]);
    assert!(second.retry("a").await.is_err(), "it runs");
    let attempt = spore_queue::Attempt {
        status: 500,
        ended_ms: 1,
        error: None,
    };
    running.bury(attempt).await;
    wait_until("that it is dead", async || second.counts("f.ns") == (1, 0, 1)).await;
    second.retry("a").await.expect("it is dead");
    wait_until("that it waits", async || first.counts("f.ns").2 == 0).await;
    second.remove("a").await.expect("it waits");
    second.remove("b").await.expect("it waits");
    wait_until("that both are gone", async || first.counts("f.ns") == (0, 0, 0)).await;
    assert!(first.find("a").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_nothing_is_accepted_and_nothing_lost() {
    let Some(mut server) = NatsServer::start() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let queue = Arc::new(open(&server, folder.path()).await);
    for number in 0..20 {
        accept(&queue, &format!("early-{number}"), Vec::new())
            .await
            .expect("there is room");
    }
    let running = queue.next(|_| true).await.begin().await.expect("it is due");
    server.kill();
    wait_until("that it is missed", async || {
        matches!(
            accept(&queue, "refused", Vec::new()).await,
            Err(AcceptError::Nats(NatsError::Away))
        )
    })
    .await;
    assert!(
        queue
            .list(ListQuery {
                count: 1,
                ..ListQuery::default()
            })
            .await
            .is_err()
    );
    // Its end is told when there is somebody to tell.
    let ended = tokio::spawn(running.answered());
    let runs = Runs::default();
    let runner = tokio::spawn(run(queue.clone(), runs.clone()));
    server.start_again();
    wait_until("that it takes invocations again", async || {
        accept(&queue, "late", Vec::new()).await.is_ok()
    })
    .await;
    ended.await.expect("it comes to its end");
    wait_until("that all are gone", async || queue.counts("f.ns") == (0, 0, 0)).await;
    runner.abort();
    let runs = runs.lock().expect("no panic");
    assert!(
        runs.contains_key("late") && !runs.contains_key("early-0"),
        "{runs:?}"
    );
    assert!(
        (1..20).all(|number| runs.contains_key(&format!("early-{number}"))),
        "{runs:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_take_is_told() {
    let Some(server) = NatsServer::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let queue = open(&server, folder.path()).await;
    let long = accept(&queue, "long", vec![0; 1 << 20]).await;
    assert!(matches!(long, Err(AcceptError::TooLong { .. })), "{long:?}");
    let almost = vec![7; (1 << 20) - 4096];
    accept(&queue, "almost", almost.clone())
        .await
        .expect("there is room");
    let delivery = queue.next(|_| true).await.begin().await.expect("it is due");
    assert!(delivery.body == almost);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_others_are_left_alone() {
    let Some(server) = NatsServer::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let queue = open(&server, folder.path()).await;
    for key in ["odd", &"0".repeat(32)] {
        server.publish(&format!("spore.queue.call.{key}"), b"{}");
        server.publish(&format!("spore.queue.state.{key}"), &[0xff; 1000]);
    }
    server.publish("spore.queue.told.gone", b"nothing");
    server.publish("spore.queue.told.beat", &[b'x'; 100_000]);
    accept(&queue, "one", Vec::new()).await.expect("there is room");
    queue
        .next(|_| true)
        .await
        .begin()
        .await
        .expect("it is due")
        .answered()
        .await;
    let list = queue
        .list(ListQuery {
            count: 10,
            ..ListQuery::default()
        })
        .await
        .expect("listed");
    assert!(list.is_empty(), "{list:?}");
    drop(queue);
    let queue = open(&server, folder.path()).await;
    accept(&queue, "two", Vec::new()).await.expect("there is room");
    assert!(queue.next(|_| true).await.begin().await.is_some());
}

/// What is answered between the count and the reading does not keep a list waiting.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_while_invocations_come_and_go() {
    let Some(server) = NatsServer::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let queue = Arc::new(open(&server, folder.path()).await);
    let runs = Runs::default();
    let runner = tokio::spawn(run(queue.clone(), runs.clone()));
    for number in 0..500 {
        accept(&queue, &format!("call-{number}"), Vec::new())
            .await
            .expect("there is room");
        if number % 25 == 0 {
            let query = ListQuery {
                count: 1000,
                ..ListQuery::default()
            };
            queue.list(query).await.expect("listed");
        }
    }
    wait_until("that all are gone", async || queue.counts("f.ns") == (0, 0, 0)).await;
    runner.abort();
    assert_eq!(runs.lock().expect("no panic").len(), 500);
}

/// Daemons are killed while others accept: what each held is run by the next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_ran_when_a_daemon_ended_runs_at_its_next_start() {
    const STARTS: usize = 10;
    let Some(server) = NatsServer::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let runs = Runs::default();
    let mut held = Vec::new();
    for start in 0..STARTS {
        let queue = Arc::new(open(&server, folder.path()).await);
        for number in 0..20 {
            accept(&queue, &format!("{start}-{number}"), Vec::new())
                .await
                .expect("there is room");
        }
        // As a kill does, which leaves no time to say how they ended.
        for _ in 0..15 {
            held.extend(
                queue
                    .next(|_| true)
                    .await
                    .begin()
                    .await
                    .map(std::mem::ManuallyDrop::new),
            );
        }
    }
    let queue = Arc::new(open(&server, folder.path()).await);
    let runner = tokio::spawn(run(queue.clone(), runs.clone()));
    wait_until("that all are gone", async || queue.counts("f.ns") == (0, 0, 0)).await;
    runner.abort();
    let runs = runs.lock().expect("no panic");
    assert_eq!((runs.len(), runs.values().max()), (STARTS * 20, Some(&1)));
}
