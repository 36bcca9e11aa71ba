//! The queue on a real disk, and on a real NATS server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spore_nats::{Address, Connection};
use spore_queue::{
    AcceptError, Attempt, ChangeError, Delivery, Full, Limits, ListQuery, Message, NatsOptions, Queue, State,
};
use spore_store::Store;
use spore_test_harness::nats::NatsServer;

/// Where a queue is kept, in a test.
struct Place {
    directory: tempfile::TempDir,
    server: Option<NatsServer>,
}

impl Place {
    fn disk() -> Option<Self> {
        Some(Self {
            directory: tempfile::tempdir().expect("a folder"),
            server: None,
        })
    }

    fn nats() -> Option<Self> {
        Some(Self {
            server: Some(NatsServer::start()?),
            ..Self::disk()?
        })
    }

    async fn open(&self, limits: Limits) -> Queue {
        match &self.server {
            None => {
                let store = Store::open(self.directory.path()).expect("the store can be opened");
                Queue::open(Arc::new(store), limits).expect("the queue can be opened")
            }
            Some(server) => open_nats(server, self.directory.path(), limits).await,
        }
    }

    /// What a daemon finds that is started after another one was killed.
    fn after_a_kill(self) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let file = match self.server {
            None => "queue.redb",
            Some(_) => "queue-daemon",
        };
        let (from, to) = (self.directory.path().join(file), directory.path().join(file));
        std::fs::copy(from, to).expect("copied");
        Self { directory, ..self }
    }
}

async fn open_nats(server: &NatsServer, data: &Path, limits: Limits) -> Queue {
    let address: Address = server.url().parse().expect("an address");
    let options = NatsOptions {
        connection: Connection::open(&address, None, 1000).await.expect("it is there"),
        name: address.name().to_owned(),
        data: data.to_owned(),
    };
    Queue::open_nats(options, limits).await
}

/// The same tests for each place.
macro_rules! in_each_place {
    ($($name:ident),+ $(,)?) => {
        mod disk {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place::disk().expect("a folder")).await;
            })+
        }

        /// Where no `nats-server` is installed, they say so and pass.
        mod nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(place) = super::Place::nats() {
                    super::$name(place).await;
                }
            })+
        }
    };
}

in_each_place![
    what_was_not_answered_is_there_at_the_next_start,
    dead_ones_can_be_tried_again_and_dropped,
    bounds_hold_and_an_unfinished_delivery_waits_again,
    many_are_accepted_at_a_time,
];

async fn next(queue: &Queue) -> Delivery {
    loop {
        if let Some(delivery) = queue.next(|_| true).await.begin().await {
            return delivery;
        }
    }
}

fn message(call_id: &str, function: &str, body: &str) -> Message {
    Message {
        call_id: call_id.to_owned(),
        function: function.to_owned(),
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: vec![("x-ä".to_owned(), "\u{ff}".to_owned())],
        callback: None,
        body_bytes: body.len() as u64,
        accepted_ms: 1,
        state: State::Waiting { due_ms: 1 },
        attempts: 0,
        last: None,
    }
}

async fn accept(queue: &Queue, call_id: &str, function: &str, body: &str) -> Result<(), AcceptError> {
    queue
        .accept(
            message(call_id, function, body),
            Bytes::copy_from_slice(body.as_bytes()),
        )
        .await
}

fn failed() -> Attempt {
    Attempt {
        status: 500,
        ended_ms: 7,
        error: Some("no".to_owned()),
    }
}

async fn what_was_not_answered_is_there_at_the_next_start(place: Place) {
    let queue = place.open(Limits::default()).await;
    for call_id in ["answered", "failed", "dead", "running", "waiting"] {
        accept(&queue, call_id, "f.ns", call_id)
            .await
            .expect("there is room");
    }
    let first = next(&queue).await;
    assert_eq!(
        (first.message.call_id.as_str(), &first.body[..]),
        ("answered", &b"answered"[..])
    );
    first.answered().await;
    next(&queue).await.again(failed(), Duration::ZERO).await;
    let dead = next(&queue).await;
    assert_eq!(dead.message.call_id, "dead", "the failed one is due later");
    dead.bury(failed()).await;
    let running = next(&queue).await;
    assert_eq!(running.message.call_id, "running");
    let list = queue
        .list(ListQuery {
            count: 10,
            ..ListQuery::default()
        })
        .await
        .expect("listed");
    let names: Vec<_> = list
        .iter()
        .map(|entry| (entry.message.call_id.as_str(), entry.is_running))
        .collect();
    assert_eq!(
        names,
        [
            ("failed", false),
            ("dead", false),
            ("running", true),
            ("waiting", false)
        ]
    );
    // As a kill does, which leaves no time to say how it ended.
    std::mem::forget(running);
    drop(queue);

    let place = place.after_a_kill();
    let queue = place.open(Limits::default()).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let delivery = next(&queue).await;
        assert_eq!(delivery.body, delivery.message.call_id);
        assert_eq!(delivery.message.headers[0].1, "\u{ff}");
        seen.push((delivery.message.call_id.clone(), delivery.message.attempts));
        delivery.answered().await;
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            ("failed".to_owned(), 1),
            ("running".to_owned(), 0),
            ("waiting".to_owned(), 0)
        ]
    );
    assert_eq!(queue.counts("f.ns"), (0, 0, 1));
    let (entry, body) = queue.find("dead").await.expect("it is kept").remove(0);
    assert_eq!((entry.message.last, &body[..]), (Some(failed()), &b"dead"[..]));
}

async fn dead_ones_can_be_tried_again_and_dropped(place: Place) {
    let queue = place.open(Limits::default()).await;
    accept(&queue, "a", "f.ns", "").await.expect("there is room");
    next(&queue).await.bury(failed()).await;
    queue.retry("a").await.expect("it is there");
    let again = next(&queue).await;
    assert_eq!(
        (again.message.attempts, again.message.last.as_ref()),
        (0, Some(&failed()))
    );
    assert!(matches!(queue.retry("a").await, Err(ChangeError::Running { .. })));
    queue.remove("a").await.expect("it is there");
    // It was dropped while it ran: it does not come back.
    again.again(failed(), Duration::ZERO).await;
    assert!(matches!(queue.find("a").await, Err(ChangeError::Unknown { .. })));
    assert_eq!(queue.counts("f.ns"), (0, 0, 0));
    assert!(matches!(
        queue.remove("a").await,
        Err(ChangeError::Unknown { .. })
    ));
}

async fn bounds_hold_and_an_unfinished_delivery_waits_again(place: Place) {
    let limits = Limits {
        messages_per_function: 2,
        dead_per_function: 1,
        ..Limits::default()
    };
    let queue = place.open(limits).await;
    accept(&queue, "a", "f.ns", "").await.expect("there is room");
    accept(&queue, "b", "f.ns", "").await.expect("there is room");
    let refused = accept(&queue, "c", "f.ns", "").await;
    assert!(
        matches!(refused, Err(AcceptError::Full(Full::Function { messages: 2 }))),
        "{refused:?}"
    );
    accept(&queue, "c", "g.ns", "")
        .await
        .expect("that of another function");
    drop(next(&queue).await);
    assert_eq!(queue.counts("f.ns"), (2, 0, 0));
    for _ in 0..3 {
        next(&queue).await.bury(failed()).await;
    }
    while queue.counts("f.ns") != (0, 0, 1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Many callers at a time: their invocations go to disk together, and each is there once.
async fn many_are_accepted_at_a_time(place: Place) {
    let queue = Arc::new(place.open(Limits::default()).await);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..50 {
        let queue = queue.clone();
        callers.spawn(async move {
            for number in 0..20 {
                let call_id = format!("{caller}-{number}");
                accept(&queue, &call_id, "f.ns", &call_id)
                    .await
                    .expect("there is room");
            }
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 1000 {
        let delivery = next(&queue).await;
        assert!(
            seen.insert(delivery.message.call_id.clone()),
            "{} came twice",
            delivery.message.call_id
        );
        tokio::spawn(delivery.answered());
    }
    callers.join_all().await;
    while queue.counts("f.ns") != (0, 0, 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
