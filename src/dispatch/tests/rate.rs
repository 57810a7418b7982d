//! Rates of targets: calls begin evenly, those of retries too.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    harness::{Harness, SOURCE, UNAVAILABLE, message, record},
    stub::{StubTarget, stand_still, within},
};
use crate::{
    config::Retry,
    model::ids::Offset,
    retry::{ErrorMapping, Retrier, RetryRequest},
    storage::{Log, OpenRecords, PurgeNote},
};

/// What a slot may be taken early.
const GRAIN: Duration = Duration::from_millis(2);

#[tokio::test]
async fn calls_of_a_target_begin_one_slot_after_the_other_and_nobody_elses_do() {
    let mut target = StubTarget::start().await;
    let mut other = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.targets.push(super::reload::named("slow", &target));
        config.targets[0].rate_per_second = Some(50);
    })
    .await;
    let begun = Instant::now();
    let each = |address| move |at| record("", &message(address, &format!("/{at}")), &[]);
    let mut records: Vec<_> = (0..21).map(each(target.address)).collect();
    records.extend((0..21).map(each(other.address)));
    gateway.append(SOURCE, 0, records).await;
    // None is answered, so that nothing but the rate holds the others up.
    let mut held = Vec::new();
    for _ in 0..21 {
        held.push(other.next_call().await);
    }
    let mut held_slow = Vec::new();
    for at in 0..21 {
        let call = target.next_call().await;
        let interval = Duration::from_millis(20);
        assert!(begun.elapsed() + GRAIN >= interval * at, "{at}");
        held_slow.push(call);
    }
    for call in held.into_iter().chain(held_slow) {
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 42);
}

#[tokio::test]
async fn a_retry_takes_the_slots_of_its_target() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.rate_per_second = Some(4)).await;
    let failed = |path| record("", &message(target.address, path), &[]);
    gateway
        .append(UNAVAILABLE, 0, vec![failed("/1"), failed("/2")])
        .await;
    let retrier = Retrier::new(&gateway.dispatcher, Retry::default());
    gateway.sync("", &message(target.address, "/0")).await;
    target.next_call().await.answer(200);
    let begun = Instant::now();
    let request = RetryRequest {
        stream: gateway.stream(UNAVAILABLE),
        partitions: vec![gateway.partition(UNAVAILABLE, 0)],
        after: None,
        before: None,
        group: None,
        records_max: 9,
        filter: crate::retry::Filter::default(),
        mapping: ErrorMapping::default(),
        rate: None,
        redeliver: false,
        dry_run: false,
        time_budget: Duration::from_secs(20),
        by: None,
    };
    let retry = retrier.run(request);
    let calls = async {
        for _ in 0..2 {
            target.next_call().await.answer(200);
        }
    };
    let (report, ()) = within("the retry", async { tokio::join!(retry, calls) }).await;
    let report = report.unwrap();
    assert_eq!(
        (report.processed, report.last_read_offset),
        (2, Some(Offset(1)))
    );
    // The first call had a slot less than 250 ms ago.
    let least = Duration::from_millis(245);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

/// With a slot for each of them the next record would be called after 40 seconds.
#[tokio::test]
async fn a_purged_record_takes_no_slot_of_its_target() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.rate_per_second = Some(1)).await;
    let old = |_| record("", &message(target.address, "/old"), &[]);
    gateway.append(SOURCE, 0, (0..40).map(old).collect()).await;
    let call = target.next_call().await;
    within("all to be on the queue", async {
        while gateway.dispatcher.targets()[0].queued_len < 39 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let id = gateway.stream(SOURCE).id;
    let purged = gateway
        .engine
        .purge_stream(id, OpenRecords::Drop, PurgeNote::default());
    purged.await.unwrap();
    gateway.sync("", &message(target.address, "/new")).await;
    call.answer(200);
    let next = target.next_call().await;
    assert_eq!(next.path, "/new");
    next.answer(200);
    assert_eq!(gateway.settled().await.delivered, 1);
}

/// With a slot for each of them the next record would be called after 40 seconds, and here no time passes.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_called_takes_no_slot_of_its_target() {
    let _still = stand_still();
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.rate_per_second = Some(1)).await;
    let message = message(target.address, "/x");
    let unknown = |_| record("k", &message, &[("secret-name", "of nobody")]);
    gateway
        .append(SOURCE, 0, (0..40).map(unknown).collect())
        .await;
    gateway.sync("k", &message).await;
    target.next_call().await.answer(200);
    let counts = gateway.settled().await;
    assert_eq!((counts.delivered, counts.routed), (1, 40));
}

#[tokio::test]
async fn a_rate_changes_while_records_wait_for_it() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.rate_per_second = Some(1)).await;
    let each = |at| record("", &message(target.address, &format!("/{at}")), &[]);
    gateway.append(SOURCE, 0, (0..60).map(each).collect()).await;
    target.next_call().await.answer(200);
    gateway.reload(|config| config.dispatch.rate_per_second = Some(1_000));
    for _ in 1..30 {
        target.next_call().await.answer(200);
    }
    gateway.reload(|config| config.dispatch.rate_per_second = None);
    for _ in 30..60 {
        target.next_call().await.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 60);
}
