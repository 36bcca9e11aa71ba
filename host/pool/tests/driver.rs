//! The pool's driver with the fake sandbox, in paused time.

use std::sync::Arc;
use std::time::Duration;

use spore_pool::{AboveMaximum, AcquireError, Pool, PoolLimits, PoolStatus, PreBootError, Scaling};
use spore_sandbox::fake::{FakeFunction, FakeSandbox};
use spore_sandbox::{Awaited, InstanceSpec, LogLine, LogSink, Root, StartError, StopReason};

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _line: LogLine) {}
}

fn template(program: &str) -> InstanceSpec {
    InstanceSpec {
        working_directory: "/".into(),
        user: spore_sandbox::User::default(),
        secrets: Vec::new(),
        rewrites_calls: true,
        is_cloned: false,
        is_reset: false,
        serves_runtime_api: false,
        isolation: None,
        sandbox: spore_sandbox::SandboxKind::Unikernel,
        egress: Vec::new(),
        function: "hello".to_owned(),
        instance: String::new(),
        root: Root::Program(program.into()),
        root_digest: None,
        arguments: vec!["/function".to_owned()],
        environment: Vec::new(),
        port: 8080,
        command: None,
        unikernel: None,
        memory_bytes: 1 << 27,
        processor_millis: 1000,
        ready_timeout: Duration::from_secs(10),
    }
}

/// Longer than any test waits for an instance.
const PATIENCE: Duration = Duration::from_secs(3600);

const LIMITS: PoolLimits = PoolLimits {
    min_instances: 0,
    max_instances: 2,
    max_waiting: 1,
    idle_timeout: Duration::from_secs(60),
    pause_after: None,
    ahead: 0,
    one_invocation: false,
    concurrency: 1,
    scaling: Scaling {
        target: None,
        down_window: Duration::ZERO,
        zero_after: None,
    },
};

fn pool(sandbox: &FakeSandbox, limits: PoolLimits) -> Pool<u32> {
    Pool::new(
        Arc::new(sandbox.clone()),
        Arc::new(NoLog),
        template("one"),
        limits,
    )
}

fn echo() -> FakeSandbox {
    FakeSandbox::new(|_| FakeFunction::echo().start_delay(Duration::from_millis(5)))
}

/// Lets background tasks come to rest; free in paused time.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn instance_and_connection_are_kept_for_the_next_invocation() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
    assert!(lease.is_cold());
    let first = lease.instance().id().to_owned();
    lease.finish(Some(7));
    let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
    assert!(!lease.is_cold());
    assert_eq!(lease.take_connection(), Some(7));
    assert_eq!(lease.instance().id(), first);
    assert_eq!(sandbox.started(), 1);
    assert_eq!(
        pool.status(),
        PoolStatus {
            busy: 1,
            served: 1,
            ..PoolStatus::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_shared_as_far_as_allowed_and_stopped_for_the_reason_of_the_first_that_failed() {
    let sandbox = echo();
    let pool = pool(
        &sandbox,
        PoolLimits {
            concurrency: 3,
            ..LIMITS
        },
    );
    let mut leases = Vec::new();
    for _ in 0..3 {
        let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
        lease.instance();
        leases.push(lease);
    }
    assert_eq!((sandbox.started(), pool.status().served), (1, 3));
    leases.remove(0).finish(Some(7));
    let mut again = pool.acquire(PATIENCE).await.expect("an instance");
    assert_eq!((again.take_connection(), sandbox.started()), (Some(7), 1));
    let after = Duration::from_secs(5);
    leases.remove(0).discard(StopReason::TimedOut { after });
    settle().await;
    assert_eq!(sandbox.live().len(), 1, "others are served yet");
    let elsewhere = pool.acquire(PATIENCE).await.expect("an instance");
    assert_eq!(sandbox.started(), 2, "it gets no new ones");
    again.discard(StopReason::CallerGone);
    leases.remove(0).finish(None);
    settle().await;
    assert_eq!(sandbox.stops(), [StopReason::TimedOut { after }]);
    drop(elsewhere);
    assert_eq!((pool.status().idle, pool.status().served), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_instance_is_removed_after_its_time() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    let lease = pool.acquire(PATIENCE).await.expect("an instance");
    lease.finish(None);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(sandbox.live().len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sandbox.live().len(), 0);
    assert_eq!(sandbox.stops(), [StopReason::NotNeeded]);
}

#[tokio::test(start_paused = true)]
async fn minimum_is_kept_without_any_request() {
    let sandbox = echo();
    let pool = pool(
        &sandbox,
        PoolLimits {
            min_instances: 2,
            ..LIMITS
        },
    );
    settle().await;
    assert_eq!(pool.status().idle, 2);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((pool.status().idle, sandbox.started()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn used_lease_that_is_dropped_discards_its_instance_and_untouched_one_does_not() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    drop(pool.acquire(PATIENCE).await.expect("an instance"));
    assert_eq!(pool.status().idle, 1);
    let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
    lease.instance();
    drop(lease);
    settle().await;
    assert_eq!(sandbox.stops(), [StopReason::CallerGone]);
    assert_eq!(sandbox.live().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn full_queue_rejects_and_a_caller_that_leaves_frees_its_place() {
    let sandbox = echo();
    let pool = pool(
        &sandbox,
        PoolLimits {
            max_instances: 1,
            ..LIMITS
        },
    );
    let mut busy = pool.acquire(PATIENCE).await.expect("an instance");
    busy.instance();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(PATIENCE).await.map(drop) }
    });
    settle().await;
    assert!(matches!(
        pool.acquire(PATIENCE).await,
        Err(AcquireError::QueueFull { waiting: 1 })
    ));
    waiting.abort();
    settle().await;
    assert_eq!(pool.status().waiting, 0);
    let next = pool.acquire(PATIENCE);
    let (next, ()) = tokio::join!(next, async { busy.finish(None) });
    assert!(!next.expect("the instance that became free").is_cold());
}

#[tokio::test(start_paused = true)]
async fn failed_start_is_reported_and_given_up_start_leaves_nothing() {
    let sandbox = FakeSandbox::new(|spec| {
        let function = FakeFunction::echo().start_delay(Duration::from_secs(5));
        if spec.root.path().ends_with("bad") {
            return function.start_error(|| StartError::BadProgram {
                reason: "broken".to_owned(),
            });
        }
        function
    });
    let pool = pool(&sandbox, LIMITS);
    pool.replace(template("bad"), LIMITS);
    let error = pool
        .acquire(PATIENCE)
        .await
        .map(drop)
        .expect_err("the start fails");
    assert!(matches!(
        error,
        AcquireError::StartFailed(StartError::BadProgram { .. })
    ));
    let start = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(PATIENCE).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sandbox.live().len(), 1);
    pool.close();
    settle().await;
    assert_eq!(sandbox.live().len(), 0);
    assert!(matches!(
        start.await.expect("no panic"),
        Err(AcquireError::Closed)
    ));
}

#[tokio::test(start_paused = true)]
async fn end_of_patience_tells_a_slow_start_from_busy_instances() {
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo().start_delay(Duration::from_secs(5)));
    let limits = PoolLimits {
        max_instances: 1,
        ..LIMITS
    };
    let pool = pool(&sandbox, limits);
    let patience = Duration::from_secs(3);
    let error = pool.acquire(patience).await.map(drop).expect_err("it starts");
    assert!(
        matches!(error, AcquireError::NotReady { after, awaited: Awaited::Listening { port: 8080 } } if after == patience),
        "{error}"
    );
    assert_eq!(
        (pool.status().waiting, pool.status().starting),
        (0, 1),
        "the start goes on"
    );
    let busy = pool
        .acquire(patience)
        .await
        .expect("the start has two seconds left");
    let error = pool.acquire(patience).await.map(drop).expect_err("it is busy");
    assert!(
        matches!(error, AcquireError::NoneFree { after } if after == patience),
        "{error}"
    );
    assert_eq!(pool.status().waiting, 0);
    drop(busy);
    assert_eq!(sandbox.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn replaced_version_drains_and_gets_nothing_new() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    let mut old = pool.acquire(PATIENCE).await.expect("an instance");
    let old_id = old.instance().id().to_owned();
    pool.replace(template("two"), LIMITS);
    let mut new = pool.acquire(PATIENCE).await.expect("an instance");
    assert_ne!(new.instance().id(), old_id);
    assert_eq!(sandbox.live().len(), 2, "the old invocation goes on");
    old.finish(Some(1));
    settle().await;
    assert_eq!(sandbox.live(), [new.instance().id()]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_invocations_and_then_stops_them() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    let mut polite = pool.acquire(PATIENCE).await.expect("an instance");
    polite.instance();
    let mut stubborn = pool.acquire(PATIENCE).await.expect("an instance");
    stubborn.instance();
    let shutdown = tokio::spawn({
        let pool = pool.clone();
        async move { pool.shutdown(Duration::from_secs(5)).await }
    });
    settle().await;
    polite.finish(None);
    settle().await;
    assert_eq!(sandbox.live().len(), 1);
    shutdown.await.expect("no panic");
    assert_eq!(sandbox.live().len(), 0);
    drop(stubborn);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_never_share_an_instance() {
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo());
    let pool = pool(
        &sandbox,
        PoolLimits {
            max_instances: 4,
            max_waiting: 1000,
            ..LIMITS
        },
    );
    let in_use = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let callers = (0..32).map(|caller: u32| {
        let (pool, in_use) = (pool.clone(), in_use.clone());
        tokio::spawn(async move {
            for round in 0..100 {
                let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
                let id = lease.instance().id().to_owned();
                assert!(
                    in_use.lock().expect("no panic").insert(id.clone()),
                    "{id} serves two invocations"
                );
                tokio::task::yield_now().await;
                in_use.lock().expect("no panic").remove(&id);
                match (caller + round) % 7 {
                    0 => lease.discard(StopReason::CallerGone),
                    1 => drop(lease),
                    _ => lease.finish(Some(caller)),
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    pool.shutdown(Duration::from_secs(10)).await;
    assert_eq!(sandbox.live().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn scale_holds_until_the_next_version_and_stays_within_the_maximum() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    let (wanted, maximum) = (3, 2);
    assert_eq!(pool.scale(wanted), Err(AboveMaximum { wanted, maximum }));
    pool.scale(2).expect("within the maximum");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((pool.status().idle, sandbox.started()), (2, 2));
    pool.scale(0).expect("within the maximum");
    settle().await;
    assert_eq!((pool.status().idle, sandbox.live().len()), (0, 0));
    pool.scale(1).expect("within the maximum");
    settle().await;
    pool.replace(template("two"), LIMITS);
    settle().await;
    assert_eq!(pool.status(), PoolStatus::default());
}

#[tokio::test(start_paused = true)]
async fn pre_boot_says_how_many_it_starts_and_they_expire() {
    let sandbox = echo();
    let pool = pool(&sandbox, LIMITS);
    let (wanted, maximum) = (u64::MAX, 2);
    let above = AboveMaximum { wanted, maximum };
    assert_eq!(pool.pre_boot(wanted), Err(PreBootError::AboveMaximum(above)));
    assert_eq!(pool.pre_boot(1), Ok(1));
    assert_eq!(pool.pre_boot(2), Ok(1), "the other one is there already");
    settle().await;
    let lease = pool.acquire(PATIENCE).await.expect("an instance");
    assert!(!lease.is_cold());
    lease.finish(None);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(sandbox.live().len(), 0);
    let limits = PoolLimits {
        idle_timeout: Duration::ZERO,
        ..LIMITS
    };
    pool.replace(template("two"), limits);
    assert_eq!(pool.pre_boot(1), Err(PreBootError::NoneIdle));
}

#[tokio::test(start_paused = true)]
async fn one_invocation_each_and_the_next_one_is_ready() {
    let sandbox = echo();
    let pool = pool(
        &sandbox,
        PoolLimits {
            one_invocation: true,
            ..LIMITS
        },
    );
    let mut seen = std::collections::HashSet::new();
    for round in 0..20 {
        drop(pool.acquire(PATIENCE).await.expect("an instance"));
        let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
        assert!(!lease.is_cold(), "the one that was not used is as good as new");
        assert!(lease.take_connection().is_none());
        assert!(
            seen.insert(lease.instance().id().to_owned()),
            "served before round {round}"
        );
        settle().await;
        lease.finish(Some(7));
        assert_eq!(pool.status().idle, 1);
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((sandbox.live().len(), sandbox.started()), (0, 21));
}

#[tokio::test(start_paused = true)]
async fn instances_are_reset_for_the_next_invocation_as_long_as_that_works() {
    const RESETS: u64 = 5;
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo().resets(RESETS, Duration::from_millis(1)));
    let limits = PoolLimits {
        max_instances: 1,
        one_invocation: true,
        ..LIMITS
    };
    let mut spec = template("one");
    spec.is_reset = true;
    let pool = Pool::new(Arc::new(sandbox.clone()), Arc::new(NoLog), spec, limits);
    let mut ids = Vec::new();
    for _ in 0..2 * (RESETS + 1) {
        let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
        assert_eq!(
            lease.take_connection(),
            None,
            "nothing is left of the last invocation"
        );
        ids.push(lease.instance().id().to_owned());
        lease.finish(Some(7));
    }
    settle().await;
    assert_eq!(sandbox.started(), 3, "the third one waits");
    ids.dedup();
    assert_eq!(ids.len(), 2);
    assert_eq!(sandbox.live().len(), 1);
    // An instance that is being reset goes with its version, or with the pool.
    pool.acquire(PATIENCE).await.expect("an instance").finish(None);
    let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
    lease.instance();
    lease.finish(None);
    assert_eq!(pool.status().starting, 1);
    pool.shutdown(Duration::from_secs(1)).await;
    assert_eq!(sandbox.live().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_stands_still_until_it_is_used_or_stopped() {
    let sandbox = FakeSandbox::new(|_| FakeFunction::echo());
    let limits = PoolLimits {
        pause_after: Some(Duration::from_secs(10)),
        ..LIMITS
    };
    let pool = Pool::<()>::new(
        Arc::new(sandbox.clone()),
        Arc::new(NoLog),
        template("one"),
        limits,
    );
    for _ in 0..3 {
        let mut lease = pool.acquire(PATIENCE).await.expect("an instance");
        assert_eq!(sandbox.paused(), 0);
        lease.instance().connect().await.expect("it runs");
        lease.finish(None);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(sandbox.paused(), 0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(sandbox.paused(), 1);
    }
    let lease = pool.acquire(PATIENCE).await.expect("an instance");
    assert_eq!(sandbox.paused(), 0);
    drop(lease);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        (sandbox.paused(), sandbox.started()),
        (1, 1),
        "unused, and the same"
    );
    // A sandbox need not know how to end one that stands still.
    pool.shutdown(Duration::ZERO).await;
    assert_eq!((sandbox.paused(), sandbox.live().len()), (0, 0));
}
