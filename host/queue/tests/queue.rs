//! The queue on a real disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spore_queue::{AcceptError, Attempt, ChangeError, Full, Limits, ListQuery, Message, Queue, State};
use spore_store::Store;

fn open(directory: &Path, limits: Limits) -> Queue {
    let store = Store::open(directory).expect("the store can be opened");
    Queue::open(Arc::new(store), limits).expect("the queue can be opened")
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

#[tokio::test]
async fn what_was_not_answered_is_there_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a folder");
    let queue = open(directory.path(), Limits::default());
    for call_id in ["answered", "failed", "dead", "running", "waiting"] {
        accept(&queue, call_id, "f.ns", call_id)
            .await
            .expect("there is room");
    }
    let first = queue.next().await;
    assert_eq!(
        (first.message.call_id.as_str(), &first.body[..]),
        ("answered", &b"answered"[..])
    );
    first.answered().await;
    queue.next().await.again(failed(), Duration::ZERO).await;
    let dead = queue.next().await;
    assert_eq!(dead.message.call_id, "dead", "the failed one is due later");
    dead.bury(failed()).await;
    let running = queue.next().await;
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

    let directory_copy = tempfile::tempdir().expect("a folder");
    std::fs::copy(
        directory.path().join("queue.redb"),
        directory_copy.path().join("queue.redb"),
    )
    .expect("copied");
    let queue = open(directory_copy.path(), Limits::default());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let delivery = queue.next().await;
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

#[tokio::test]
async fn dead_ones_can_be_tried_again_and_dropped() {
    let directory = tempfile::tempdir().expect("a folder");
    let queue = open(directory.path(), Limits::default());
    accept(&queue, "a", "f.ns", "").await.expect("there is room");
    queue.next().await.bury(failed()).await;
    queue.retry("a").await.expect("it is there");
    let again = queue.next().await;
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

#[tokio::test]
async fn bounds_hold_and_an_unfinished_delivery_waits_again() {
    let directory = tempfile::tempdir().expect("a folder");
    let limits = Limits {
        messages_per_function: 2,
        dead_per_function: 1,
        ..Limits::default()
    };
    let queue = open(directory.path(), limits);
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
    drop(queue.next().await);
    assert_eq!(queue.counts("f.ns"), (2, 0, 0));
    for _ in 0..3 {
        queue.next().await.bury(failed()).await;
    }
    while queue.counts("f.ns") != (0, 0, 1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Many callers at a time: their invocations go to disk together, and each is there once.
#[tokio::test(flavor = "multi_thread")]
async fn many_are_accepted_at_a_time() {
    let directory = tempfile::tempdir().expect("a folder");
    let queue = Arc::new(open(directory.path(), Limits::default()));
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
        let delivery = queue.next().await;
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
