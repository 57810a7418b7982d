//! Random histories, each step made with the engine and with the model. After every reopen both have equal contents.

use std::{
    cell::Cell,
    env,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};

use super::{
    crashes::append,
    faulty::Crash,
    rig::{Draft, DraftAppend, DraftEnd, DraftState, Rig, Run, Step},
};
use crate::storage::OpenRecords;

/// What the random histories may take together.
const TIME_MAX: Duration = Duration::from_secs(15);

fn pick() -> impl Strategy<Value = (u8, u8)> {
    (0..4_u8, 0..4_u8)
}

fn sizes() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![
        4 => vec(0..200_u16, 1..5),
        2 => vec(0..5_000_u16, 1..4),
        1 => vec(0..40_000_u16, 1),
        1 => vec(0..3_u16, 50..120),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let append =
        (pick(), sizes(), 0..5_u8).prop_map(|(at, sizes, kind)| DraftAppend { at, sizes, kind });
    let end = (pick(), 0..500_u16, 0..8_u8, prop::bool::weighted(0.05)).prop_map(
        |(at, which, end, wrong)| DraftEnd {
            at,
            which,
            end,
            wrong,
        },
    );
    let expect = prop_oneof![4 => Just(0_u8), 4 => Just(1), 1 => Just(2)];
    let state = (0..6_u8, prop::option::weighted(0.8, 0..3_000_u16), expect)
        .prop_map(|(key, size, expect)| DraftState { key, size, expect });
    let draft = (
        vec(append, 0..3),
        vec(end, 0..4),
        vec(state, 0..2),
        prop::option::weighted(0.3, 0..3_u8),
    );
    draft.prop_map(|(appends, ends, state, dedup)| Draft {
        appends,
        ends,
        state,
        dedup,
    })
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![
        1 => Just(Crash::LoseAll),
        1 => Just(Crash::Process),
        3 => any::<u64>().prop_map(Crash::Random),
    ]
}

fn write() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => draft().prop_map(Step::Commit),
        3 => (pick(), 1..8_u8).prop_map(|(at, count)| Step::SettleSoon { at, count }),
        2 => (pick(), 0..120_u8).prop_map(|(at, percent)| Step::Trim { at, percent }),
        1 => (0..4_u8, prop::bool::weighted(0.7)).prop_map(|(stream, all)| Step::Purge {
            stream,
            open: if all { OpenRecords::Drop } else { OpenRecords::Refuse },
        }),
        2 => (0..4_u8, 0..3_u8)
            .prop_map(|(name, partitions)| Step::Create { name, partitions }),
        1 => (0..4_u8, 0..6_u8).prop_map(|(stream, by)| Step::Grow { stream, by }),
        1 => (0..4_u8).prop_map(|stream| Step::Delete { stream }),
        1 => Just(Step::Settle),
        1 => (-3_000..3_000_i16).prop_map(|millis| Step::Tick { millis }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let during = (write(), 0..12_u8, crash(), any::<bool>());
    prop_oneof![
        24 => write(),
        1 => any::<bool>().prop_map(|forget_index| Step::Reopen { forget_index }),
        1 => (crash(), any::<bool>())
            .prop_map(|(how, forget_index)| Step::Crash { how, forget_index }),
        1 => during.prop_map(|(step, calls, how, forget_index)| Step::CrashDuring {
            step: Box::new(step),
            calls,
            how,
            forget_index,
        }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 10..60).prop_map(|mut steps| {
        let partitions = 1;
        steps.insert(
            0,
            Step::Create {
                name: 0,
                partitions,
            },
        );
        let forget_index = true;
        steps.push(Step::Reopen { forget_index });
        steps
    })
}

fn check(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new(Rig::new());
        for step in steps {
            run.step(step).await;
        }
        run.end().await;
    });
}

#[test]
fn random_histories_end_as_the_model_says() {
    let seed = match env::var("SYNCGATE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => getrandom::u64().unwrap(),
    };
    eprintln!("SYNCGATE_TEST_SEED={seed}");
    let mut runner = TestRunner::new(Config {
        cases: 1_000,
        failure_persistence: None,
        max_shrink_time: 60_000,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    });
    let started = Instant::now();
    let histories = Cell::new(0);
    // Stays set when a history fails: then shorter ones are looked for, however long that takes.
    let running = Cell::new(false);
    let ended = runner.run(&steps(), |steps| {
        if running.replace(true) || started.elapsed() < TIME_MAX {
            check(&steps);
            histories.set(histories.get() + 1);
        }
        running.set(false);
        Ok(())
    });
    match ended {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            panic!("SYNCGATE_TEST_SEED={seed}: {why}\n{steps:?}")
        }
        Err(error) => panic!("SYNCGATE_TEST_SEED={seed}: {error}"),
    }
    eprintln!("{} histories", histories.get());
}

#[test]
fn a_crash_right_after_the_first_commit() {
    let forget_index = true;
    let create = Step::Create {
        name: 0,
        partitions: 0,
    };
    let how = Crash::LoseAll;
    let crash = Step::Crash { how, forget_index };
    check(&[create, append((0, 0), &[1]), crash.clone(), crash]);
}
