//! The source stream is purged while its records wait or are called: purged records are settled and not called again.

use super::{
    checkpoints::crashed,
    harness::{Harness, SOURCE, message, record},
    stub::{StubTarget, within},
};
use crate::{
    dispatch::WaitsFor,
    model::ids::Offset,
    storage::{Log, OpenRecords, PurgeNote, Purged, ledger::Balance},
};

impl Harness {
    /// Purges the source stream, with what waits.
    async fn purge(&self) -> Purged {
        let stream = self.stream(SOURCE);
        let note = PurgeNote::default();
        let purged = self
            .engine
            .purge_stream(stream.id, OpenRecords::Drop, note)
            .await;
        purged.unwrap()
    }

    #[track_caller]
    fn assert_balanced(&self) {
        let source = SOURCE.parse().unwrap();
        let balance = Balance::of(&self.engine.ledger(), Some(&source));
        assert!(balance.balanced, "{balance:?}");
    }
}

#[tokio::test]
async fn a_call_that_was_under_way_ends_nothing_any_more() {
    for status in [200, 404] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|_| {}).await;
        gateway.sync("k", &message(target.address, "/0")).await;
        let call = target.next_call().await;
        let purged = gateway.purge().await;
        assert_eq!(purged.partitions[0].discarded, 1);
        gateway.assert_balanced();
        call.answer(status);
        // The next call of the key begins when the one before has ended.
        gateway.sync("k", &message(target.address, "/1")).await;
        let next = target.next_call().await;
        assert_eq!(next.path, "/1");
        next.answer(status);
        let counts = gateway.settled().await;
        let (delivered, routed) = (u64::from(status == 200), u64::from(status != 200));
        assert_eq!(
            (counts.discarded, counts.delivered, counts.routed),
            (1, delivered, routed)
        );
        gateway.assert_balanced();
        let errors = gateway.engine.streams();
        let errors = errors
            .iter()
            .filter(|stream| stream.name.as_str() != SOURCE);
        let copies = errors.map(|stream| gateway.counts(stream.name.as_str()).appended_len());
        assert_eq!(copies.sum::<u64>(), routed, "a copy of what was purged");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn once_a_purge_is_answered_no_call_begins_for_what_it_removed() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.attempts_max = 5;
        config.dispatch.backoff_ms = 1;
        config.dispatch.backoff_ms_max = 2;
    })
    .await;
    let mut records = vec![record("k", &message(target.address, "/0"), &[])];
    for at in 1..50 {
        // One after the first in its lane, and one without a lane.
        let key = ["k", ""][at % 2];
        records.push(record(key, &message(target.address, "/old"), &[]));
    }
    gateway.append(SOURCE, 0, records).await;
    let call = target.next_call().await;
    // All are on the queue.
    within("the queue to be filled", async {
        while gateway.dispatcher.targets()[0].queued_len < 49 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gateway.purge().await;
    gateway.sync("k", &message(target.address, "/new")).await;
    // It would be tried again, and then the others.
    call.answer(500);
    let next = target.next_call().await;
    assert_eq!(next.path, "/new");
    next.answer(200);
    let counts = gateway.settled().await;
    assert_eq!((counts.discarded, counts.delivered), (50, 1));
    assert!(target.waiting_call().is_none());
    gateway.assert_balanced();
    gateway.stop().await;
}

/// Otherwise it would keep its lane busy for the ten minutes that the target asks for.
#[tokio::test]
async fn a_record_that_was_put_off_and_is_purged_holds_its_lane_up_no_longer() {
    for purged_during_call in [false, true] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|_| {}).await;
        gateway.sync("k", &message(target.address, "/old")).await;
        let call = target.next_call().await;
        if purged_during_call {
            gateway.purge().await;
        }
        call.answer_with(429, &[("retry-after", "600")], "");
        if !purged_during_call {
            let stream = gateway.partition(SOURCE, 0).stream;
            let is_put_off = || {
                let waiting = gateway.dispatcher.waiting(stream, &|_, _| true, 1);
                waiting
                    .iter()
                    .any(|one| one.waits_for == WaitsFor::RetryAfter)
            };
            within("the record to be put off", async {
                while !is_put_off() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            gateway.purge().await;
        }
        gateway.sync("k", &message(target.address, "/new")).await;
        let next = target.next_call().await;
        assert_eq!(next.path, "/new");
        next.answer(200);
        let counts = gateway.settled().await;
        assert_eq!((counts.discarded, counts.delivered), (1, 1));
        gateway.assert_balanced();
        gateway.stop().await;
    }
}

#[tokio::test]
async fn targets_that_were_behind_go_on_with_what_comes_after_a_purge() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(|config| {
        config.dispatch.queue_len_max = 4;
        config.dispatch.in_flight_max = 2;
        config.dispatch.attempt_timeout_ms = 600_000;
    })
    .await;
    let old = |at: usize| {
        let target = [&hanging, &live][at % 2];
        record(
            &format!("k{}", at % 6),
            &message(target.address, "/old"),
            &[],
        )
    };
    gateway.append(SOURCE, 0, (0..400).map(old).collect()).await;
    let mut held = vec![hanging.next_call().await, hanging.next_call().await];
    for _ in 0..200 {
        live.next_call().await.answer(200);
    }
    within("the live target's ends", async {
        while gateway.counts(SOURCE).delivered < 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let purged = gateway.purge().await;
    assert_eq!(purged.partitions[0].discarded, 200);
    for (at, target) in [&hanging, &live].into_iter().enumerate() {
        let message = message(target.address, "/new");
        let offset = gateway.sync("k0", &message).await;
        assert_eq!(offset, Offset(400 + at as u64));
    }
    let call = live.next_call().await;
    assert_eq!(call.path, "/new");
    call.answer(200);
    held.drain(..).for_each(|call| call.answer(200));
    let call = hanging.next_call().await;
    assert_eq!(call.path, "/new");
    within("the live target's end", async {
        while gateway.counts(SOURCE).delivered < 201 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Also after a crash, because the checkpoint of lagging targets may be older than the purge.
    let dir = crashed(&gateway);
    call.answer(200);
    gateway.stop().await;
    let gateway = Harness::start_in(dir, 1, |_| {}).await;
    let call = hanging.next_call().await;
    assert_eq!(call.path, "/new");
    call.answer(200);
    let counts = gateway.settled().await;
    assert_eq!((counts.discarded, counts.delivered), (200, 202));
    gateway.assert_balanced();
    gateway.stop().await;
}
