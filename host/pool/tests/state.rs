//! The pool's rules, checked against a model over random inputs.

use std::time::Duration;

use proptest::prelude::*;
use spore_pool::state::{AHEAD_DELAY, InstanceId, PoolLimits, STARTS_MAX};
use spore_pool::{LoadKind, ScaleTarget, Scaling};

mod model;

use model::{Model, Step, fixed, fixed_limits, limits, pristine, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_after_every_input(limits in limits(), steps in prop::collection::vec(step(), 0..150)) {
        let mut model = Model::new(limits);
        for step in &steps {
            model.step(step);
        }
        model.settle();
    }
}

#[test]
fn thousands_are_started_a_few_at_a_time() {
    let mut model = fixed(0, 5000, 0, 60);
    model.step(&Step::Scale(2000));
    for _ in 0..2000 {
        assert!((1..=STARTS_MAX).contains(&model.starting.len()));
        model.step(&Step::Ready(0));
    }
    assert_eq!((model.starting.len(), model.idle.len()), (0, 2000));
    model.step(&Step::Scale(5000));
    assert_eq!(model.starting.len(), STARTS_MAX);
    for _ in 0..2000 {
        model.step(&Step::Arrive);
    }
    // Each request that waits has a start of its own besides.
    for _ in 0..100 {
        model.step(&Step::Arrive);
        let waiting = model.waiting.len();
        assert!((waiting..=waiting + STARTS_MAX).contains(&model.starting.len()));
    }
}

#[test]
fn most_recently_used_instance_is_first() {
    let mut model = fixed(0, 2, 0, 60);
    for step in [Step::Arrive, Step::Arrive, Step::Ready(0), Step::Ready(0)] {
        model.step(&step);
    }
    let (first, second) = (InstanceId(0), InstanceId(1));
    model.step(&Step::Finish(0, true));
    model.step(&Step::Pass(Duration::from_secs(1)));
    model.step(&Step::Finish(0, true));
    model.step(&Step::Arrive);
    assert!(model.busy.contains_key(&second) && model.idle.contains_key(&first));
}

#[test]
fn start_that_nobody_waits_for_becomes_idle_and_expires() {
    let mut model = fixed(0, 2, 0, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Leave(0));
    model.step(&Step::Ready(0));
    assert_eq!(model.idle.len(), 1);
    model.step(&Step::Pass(Duration::from_secs(60)));
    assert_eq!(model.live(), 0);
}

#[test]
fn queue_counts_only_requests_without_a_start_of_their_own() {
    let mut model = fixed(0, 1, 1, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Arrive);
    assert_eq!(model.waiting.len(), 2);
    model.step(&Step::Arrive);
    assert_eq!(model.waiting.len(), 2, "the third is rejected");
}

#[test]
fn failing_minimum_is_not_restarted_in_a_loop() {
    let mut model = fixed(1, 1, 0, 60);
    let mut starts = 0;
    for _ in 0..600 {
        starts += model.starting.len();
        model.step(&Step::Fail(0));
        model.step(&Step::Pass(Duration::from_millis(500)));
    }
    assert!((5..=15).contains(&starts), "{starts} starts in five minutes");
}

#[test]
fn zero_idle_timeout_gives_every_invocation_its_own_instance() {
    let mut model = fixed(0, 1, 5, 0);
    model.step(&Step::Arrive);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::Finish(0, true));
    assert_eq!(
        model.starting.keys().copied().collect::<Vec<_>>(),
        [InstanceId(1)]
    );
}

#[test]
fn scaling_starts_and_ends_instances_until_the_next_version() {
    let mut model = fixed(1, 5, 5, 60);
    model.step(&Step::Scale(4));
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    model.step(&Step::Pass(Duration::from_secs(3600)));
    assert_eq!(model.idle.len(), 4, "kept however long they are idle");
    for step in [Step::Arrive, Step::Arrive, Step::Scale(1)] {
        model.step(&step);
    }
    assert_eq!((model.idle.len(), model.busy.len()), (0, 2));
    model.step(&Step::Finish(0, true));
    assert_eq!(model.live(), 1, "one more than wanted ends with its invocation");
    model.step(&Step::Finish(0, true));
    assert_eq!(model.idle.len(), 1);
    model.step(&Step::Scale(0));
    assert_eq!(model.live(), 0);
    model.step(&Step::Arrive);
    assert_eq!(model.starting.len(), 1, "the next request starts one");
    model.step(&Step::Ready(0));
    model.step(&Step::Finish(0, true));
    model.step(&Step::Pass(Duration::from_secs(60)));
    assert_eq!(model.live(), 0, "the minimum of the deployment does not count");
    model.step(&Step::Replace(fixed_limits(1, 5, 5, 60)));
    assert_eq!(model.live(), 1, "it does again");
}

#[test]
fn an_instance_scaled_away_and_back_again_goes_on() {
    let mut model = fixed(0, 2, 0, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::Scale(0));
    model.step(&Step::Scale(1));
    model.step(&Step::Finish(0, true));
    assert_eq!(model.idle.keys().collect::<Vec<_>>(), [&InstanceId(0)]);
}

#[test]
fn pre_booted_instances_are_as_mortal_as_others() {
    let mut model = fixed(0, 3, 0, 60);
    model.step(&Step::PreBoot(5));
    assert_eq!(model.starting.len(), 3);
    model.step(&Step::Fail(0));
    model.step(&Step::Ready(0));
    model.step(&Step::Ready(0));
    model.step(&Step::Pass(Duration::from_secs(59)));
    assert_eq!((model.idle.len(), model.starting.len()), (2, 0));
    model.step(&Step::Pass(Duration::from_secs(1)));
    assert_eq!(model.live(), 0);
}

#[test]
fn pristine_instances_wait_as_many_as_were_busy_and_no_longer_than_idle_ones() {
    let mut model = pristine(0, 8, 0, 60);
    for _ in 0..3 {
        model.step(&Step::Arrive);
    }
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    assert_eq!((model.busy.len(), model.idle.len()), (3, 3));
    for _ in 0..3 {
        model.step(&Step::Finish(0, true));
        model.step(&Step::Arrive);
    }
    assert_eq!(
        (model.busy.len(), model.live()),
        (3, 3),
        "not in the way of three"
    );
    model.step(&Step::Pass(AHEAD_DELAY));
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    assert_eq!((model.busy.len(), model.idle.len()), (3, 3));
    for _ in 0..3 {
        model.step(&Step::Finish(0, true));
    }
    assert_eq!((model.busy.len(), model.idle.len()), (0, 3));
    model.step(&Step::Pass(Duration::from_secs(59)));
    model.step(&Step::Arrive);
    assert_eq!(model.busy.len(), 1, "it need not wait");
    model.step(&Step::Finish(0, true));
    assert_eq!(
        model.starting.len(),
        1,
        "at once, since nothing else is to be done"
    );
    model.step(&Step::Ready(0));
    assert_eq!(model.idle.len(), 3);
    model.step(&Step::Pass(Duration::from_secs(1)));
    assert_eq!(
        model.idle.len(),
        1,
        "one was busy at a time within the last minute"
    );
    model.step(&Step::Pass(Duration::from_secs(59)));
    assert_eq!(model.live(), 0);
}

#[test]
fn instances_that_can_be_reset_serve_again_and_none_is_started() {
    let mut model = pristine(0, 8, 0, 60);
    for _ in 0..3 {
        model.step(&Step::Arrive);
    }
    while !model.starting.is_empty() {
        model.step(&Step::Ready(0));
    }
    let started = model.seen.len();
    assert_eq!((model.busy.len(), model.idle.len(), started), (3, 3, 6));
    for round in 0..100 {
        model.step(&Step::FinishForReset(round));
        model.step(&Step::Arrive);
        model.step(&Step::Pass(AHEAD_DELAY));
        assert_eq!(
            (model.busy.len(), model.idle.len(), model.resetting.len()),
            (3, 2, 1)
        );
        model.step(&Step::Reset(0, true));
    }
    assert_eq!(model.seen.len(), started);
    model.step(&Step::FinishForReset(0));
    model.step(&Step::Reset(0, false));
    model.step(&Step::Arrive);
    assert_eq!(
        (model.idle.len(), model.starting.len()),
        (2, 0),
        "not in the way of three"
    );
    model.step(&Step::Pass(AHEAD_DELAY));
    assert_eq!(model.starting.len(), 1, "another one in its place");
}

#[test]
fn a_request_waits_for_an_instance_that_is_being_reset() {
    let mut model = pristine(0, 1, 1, 60);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::FinishForReset(0));
    model.step(&Step::Arrive);
    assert_eq!((model.waiting.len(), model.starting.len()), (1, 0));
    model.step(&Step::Reset(0, true));
    assert_eq!(model.busy.keys().collect::<Vec<_>>(), [&InstanceId(0)]);
    model.step(&Step::FinishForReset(0));
    model.step(&Step::Replace(fixed_limits(0, 1, 1, 60)));
    assert_eq!(model.live(), 0, "none of an old version is kept");
}

#[test]
fn failing_starts_ahead_are_not_repeated_in_a_loop() {
    let mut model = pristine(0, 4, 0, 3600);
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    let mut starts = 0;
    for _ in 0..600 {
        starts += model.starting.len();
        while !model.starting.is_empty() {
            model.step(&Step::Fail(0));
        }
        model.step(&Step::Pass(Duration::from_millis(500)));
    }
    assert!((5..=15).contains(&starts), "{starts} starts in five minutes");
}

#[test]
fn an_instance_takes_as_many_as_it_may_before_another_is_started() {
    let mut model = Model::new(PoolLimits {
        concurrency: 4,
        ..fixed_limits(0, 3, 2, 60)
    });
    for _ in 0..5 {
        model.step(&Step::Arrive);
    }
    assert_eq!(model.starting.len(), 2, "one for four, and one for the fifth");
    model.step(&Step::Ready(0));
    assert_eq!((model.busy[&InstanceId(0)].1.len(), model.waiting.len()), (4, 1));
    model.step(&Step::Ready(0));
    for _ in 0..3 {
        model.step(&Step::Arrive);
    }
    assert_eq!((model.busy.len(), model.starting.len(), model.open()), (2, 0, 0));
    model.step(&Step::Finish(0, false));
    model.step(&Step::Arrive);
    assert_eq!(
        (model.busy[&InstanceId(0)].1.len(), model.starting.len()),
        (3, 1),
        "one that has failed gets nothing more"
    );
    for _ in 0..3 {
        model.step(&Step::Finish(0, true));
    }
    assert_eq!(model.busy.keys().collect::<Vec<_>>(), [&InstanceId(1)]);
    assert!(model.idle.is_empty(), "it is stopped after the others");
}

#[test]
fn a_function_sleeps_once_nothing_was_under_way_for_long_enough() {
    let mut model = Model::new(PoolLimits {
        scaling: Scaling {
            zero_after: Some(Duration::from_secs(300)),
            ..Scaling::default()
        },
        ..fixed_limits(2, 4, 2, 60)
    });
    model.step(&Step::Ready(0));
    model.step(&Step::Ready(0));
    model.step(&Step::Pass(Duration::from_secs(299)));
    assert_eq!(model.live(), 2, "the minimum");
    model.step(&Step::Arrive);
    model.step(&Step::Pass(Duration::from_secs(3600)));
    assert_eq!(model.live(), 2, "a request is under way");
    model.step(&Step::Finish(0, true));
    model.step(&Step::Pass(Duration::from_secs(299)));
    assert_eq!(model.live(), 2);
    model.step(&Step::Pass(Duration::from_secs(1)));
    assert_eq!((model.live(), model.state.next_deadline()), (0, None));
    model.step(&Step::Arrive);
    assert_eq!(model.starting.len(), 2, "the minimum again");
    model.step(&Step::Leave(0));
    model.step(&Step::Scale(0));
    model.step(&Step::Pass(Duration::from_secs(60)));
    assert_eq!(model.live(), 0, "by hand");
    model.step(&Step::Arrive);
    assert_eq!(model.starting.len(), 2, "and it is awake again");
}

#[test]
fn load_keeps_instances_started_and_its_end_lets_them_go_after_the_window() {
    let mut model = Model::new(PoolLimits {
        scaling: Scaling {
            target: Some(ScaleTarget {
                kind: LoadKind::RequestsPerSecond,
                per_instance_thousandths: 5_500,
            }),
            down_window: Duration::from_secs(120),
            zero_after: None,
        },
        ..fixed_limits(0, 6, 100, 10)
    });
    model.step(&Step::Arrive);
    model.step(&Step::Ready(0));
    model.step(&Step::Finish(0, true));
    for _ in 0..20 * 20 {
        model.step(&Step::Arrive);
        model.step(&Step::Finish(0, true));
        model.step(&Step::Pass(Duration::from_millis(50)));
        while !model.starting.is_empty() {
            model.step(&Step::Ready(0));
        }
    }
    assert_eq!(model.idle.len(), 4, "twenty a second, five and a half for each");
    for _ in 0..100 {
        model.step(&Step::Pass(Duration::from_secs(1)));
    }
    assert_eq!(model.idle.len(), 4, "within the window");
    for _ in 0..60 {
        model.step(&Step::Pass(Duration::from_secs(1)));
    }
    assert_eq!((model.idle.len(), model.state.next_deadline()), (0, None));
}

/// A day of traffic from one seed: arrivals, service times and failures drawn from it, in time order.
#[test]
fn simulated_day_answers_every_request() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = fixed_limits(
            random.u32(0..2),
            random.u32(1..8),
            random.usize(0..50),
            random.u64(0..120),
        );
        let mut model = Model::new(PoolLimits {
            ahead: seed as u32 % 3,
            pause_after: (seed % 2 == 0).then_some(Duration::from_secs(seed * 7)),
            one_invocation: seed % 2 == 1,
            concurrency: 1 + seed as u32 / 4 * 3,
            scaling: Scaling {
                target: (seed % 4 > 1).then_some(ScaleTarget {
                    kind: LoadKind::InFlight,
                    per_instance_thousandths: 1500,
                }),
                down_window: Duration::from_secs(300),
                zero_after: (seed % 3 == 0).then_some(Duration::from_secs(900)),
            },
            ..limits
        });
        for _ in 0..20_000 {
            let step = match random.u32(0..100) {
                0..40 => Step::Arrive,
                40..42 => Step::Leave(random.usize(..)),
                42..60 => Step::Ready(random.usize(..)),
                60 => Step::Fail(random.usize(..)),
                61 => Step::End(random.usize(..)),
                62..78 => Step::Finish(random.usize(..), random.u32(0..20) != 0),
                78..86 => Step::FinishForReset(random.usize(..)),
                86..94 => Step::Reset(random.usize(..), random.u32(0..20) != 0),
                94 => match random.u32(0..20) {
                    0 => Step::Scale(random.u32(0..9)),
                    1 => Step::PreBoot(random.usize(0..9)),
                    _ => Step::GiveBack(random.usize(..)),
                },
                _ => Step::Pass(Duration::from_secs(random.u64(0..90))),
            };
            model.step(&step);
        }
        assert!(model.next_request > 5_000);
        model.settle();
    }
}
