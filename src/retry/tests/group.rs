//! Passes that continue where the last pass of their group ended.

use futures_util::future::join_all;

use super::*;
use crate::{
    retry::{
        GROUPS_LEN_MAX, Group, GroupStand,
        group::{Standing, UNUSED_MAX},
        groups,
    },
    storage::{Commit, OpenRecords, State, StateChange, StreamConfig},
};

impl Harness {
    /// A request that goes on with a group, and would call everything again that it does not leave out.
    fn going_on(&self, stream: &str, group: &str) -> RetryRequest {
        let mut request = self.request(stream);
        request.group = Some(Group {
            name: group.parse().unwrap(),
            moves: false,
        });
        request.redeliver = true;
        request
    }

    async fn standing(&self, stream: &str, group: &str) -> Standing {
        let (shared, stream) = (&self.dispatcher.shared, self.stream(stream).id);
        let group = Group {
            name: group.parse().unwrap(),
            moves: false,
        };
        let making = tokio::sync::Mutex::default();
        Standing::open(shared, &making, stream, group, false)
            .await
            .unwrap()
    }

    async fn groups(&self) -> Vec<String> {
        let all = self.engine.list("redrive/").await;
        all.into_iter().map(|(key, _)| key.to_string()).collect()
    }

    /// Stores a group as it would be stored if it had last been used then.
    async fn put_group(&self, key: String, used_at: u64) {
        let change = StateChange {
            key: key.into(),
            value: Some(format!("{{\"used_at\":{used_at},\"next\":{{\"0\":1}}}}").into()),
            expected: None,
        };
        let commit = Commit {
            state: vec![change],
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap();
    }
}

fn position(report: &RetryReport) -> Option<u64> {
    let group = report.group.as_ref().unwrap();
    let [(partition, last)] = group.positions[..] else {
        panic!("{group:?}")
    };
    assert_eq!(partition, Partition(0));
    last.map(|last| last.0)
}

#[tokio::test]
async fn a_group_goes_on_where_it_stands_also_after_a_restart() {
    let target = StubTarget::always(200).await;
    let mut gateway = Harness::start(|_| {}).await;
    gateway.failed(UNAVAILABLE, target, 7).await;
    for pass in 0..3 {
        let mut request = gateway.going_on(UNAVAILABLE, "nightly");
        request.records_max = 2;
        let report = retry(&gateway.retrier(), request).await;
        assert_eq!(counts(&report), (2, 0, 0));
        assert_eq!(report.start_offset, Offset(pass * 2));
        assert_eq!(report.last_read_offset, Some(Offset(pass * 2 + 1)));
        assert_eq!(position(&report), Some(pass * 2 + 1));
        gateway = Harness::start_in(gateway.stop().await, 1, |_| {}).await;
    }
    let stands = groups(&*gateway.engine, gateway.stream(UNAVAILABLE).id).await;
    let next = [(Partition(0), Offset(6))].into();
    let name = "nightly".to_owned();
    assert_eq!(stands, [GroupStand { name, next }]);
    // Another group, and no group, begin at the beginning.
    let other = retry(&gateway.retrier(), gateway.going_on(UNAVAILABLE, "other")).await;
    assert_eq!((counts(&other), position(&other)), ((7, 0, 0), Some(6)));
    let none = retry(&gateway.retrier(), gateway.request(UNAVAILABLE)).await;
    assert_eq!((counts(&none), none.group), ((0, 0, 7), None));
    // At the end nothing is read, and the group stays.
    let retrier = gateway.retrier();
    retry(&retrier, gateway.going_on(UNAVAILABLE, "nightly")).await;
    let last = retry(&retrier, gateway.going_on(UNAVAILABLE, "nightly")).await;
    assert_eq!((last.attempted, last.end_of_stream), (0, true));
    assert_eq!(
        (last.last_read_offset, position(&last)),
        (Some(Offset(6)), Some(6))
    );
}

#[tokio::test]
async fn an_offset_beside_a_group_takes_it_there_but_not_to_the_tail() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 5).await;
    let mut moves = gateway.going_on(UNAVAILABLE, "g");
    moves.group.as_mut().unwrap().moves = true;
    for (after, attempted) in [(Some(2), 2), (None, 5), (Some(3), 1)] {
        moves.after = after.map(Offset);
        let report = retry(&retrier, moves.clone()).await;
        assert_eq!((report.attempted, position(&report)), (attempted, Some(4)));
    }
    moves.after = Some(Offset(0));
    moves.records_max = 1;
    let report = retry(&retrier, moves.clone()).await;
    assert_eq!((report.attempted, position(&report)), (1, Some(1)));
    // What comes later would be left out for good.
    moves.after = Some(Offset(1_000));
    let refused = retrier.run(moves.clone()).await;
    assert!(
        matches!(refused, Err(Error::BeyondTail { .. })),
        "{refused:?}"
    );
    moves.group.as_mut().unwrap().name = "other".parse().unwrap();
    assert!(retrier.run(moves).await.is_err());
    assert_eq!(gateway.groups().await.len(), 1, "no group was made");
    let report = retry(&retrier, gateway.going_on(UNAVAILABLE, "g")).await;
    assert_eq!((report.attempted, position(&report)), (3, Some(4)));
    gateway.failed(UNAVAILABLE, target, 1).await;
    let report = retry(&retrier, gateway.going_on(UNAVAILABLE, "g")).await;
    assert_eq!((report.attempted, position(&report)), (1, Some(5)));
}

#[tokio::test]
async fn a_dry_run_neither_makes_nor_moves_a_group() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 3).await;
    let mut dry = gateway.going_on(UNAVAILABLE, "g");
    dry.dry_run = true;
    let report = retry(&retrier, dry.clone()).await;
    assert_eq!((report.attempted, position(&report)), (3, None));
    assert_eq!(gateway.groups().await, [""; 0]);
    let mut one = gateway.going_on(UNAVAILABLE, "g");
    one.records_max = 1;
    retry(&retrier, one).await;
    for _ in 0..2 {
        let report = retry(&retrier, dry.clone()).await;
        assert_eq!((report.attempted, position(&report)), (2, Some(0)));
    }
}

#[tokio::test]
async fn records_trimmed_before_a_group_saw_them_are_reported() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 6).await;
    let mut one = gateway.going_on(UNAVAILABLE, "g");
    one.records_max = 1;
    retry(&retrier, one).await;
    let of = gateway.partition(UNAVAILABLE, 0);
    gateway.engine.trim(of, Offset(4)).await.unwrap();
    let report = retry(&retrier, gateway.going_on(UNAVAILABLE, "g")).await;
    assert_eq!((report.trimmed, report.start_offset), (3, Offset(4)));
    assert_eq!((report.attempted, position(&report)), (2, Some(5)));
    // A new group has lost nothing.
    let report = retry(&retrier, gateway.going_on(UNAVAILABLE, "new")).await;
    assert_eq!((report.trimmed, report.attempted), (0, 2));
}

#[tokio::test]
async fn filtered_records_are_done_for_the_group() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 4).await;
    let mut request = gateway.going_on(UNAVAILABLE, "g");
    request.filter.keys = vec!["k1".into()];
    let report = retry(&retrier, request).await;
    assert_eq!((counts(&report), position(&report)), ((1, 0, 0), Some(3)));
}

#[tokio::test]
async fn a_pass_that_is_cut_leaves_the_group_at_the_end_of_what_is_done() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.retry.in_flight_max = 1).await;
    gateway.failed(UNAVAILABLE, target.address, 4).await;
    let request = gateway.going_on(UNAVAILABLE, "g");
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        target.next_call().await.answer(200);
        let second = target.next_call().await;
        gateway.stop.cancel();
        second.answer(200);
    });
    assert_eq!((report.attempted, position(&report)), (2, Some(1)));
    let gateway = Harness::start_in(gateway.stop().await, 1, |_| {}).await;
    let request = gateway.going_on(UNAVAILABLE, "g");
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        for path in ["/2", "/3"] {
            let call = target.next_call().await;
            assert_eq!(call.path, path);
            call.answer(200);
        }
    });
    assert_eq!((report.attempted, position(&report)), (2, Some(3)));
}

#[tokio::test]
async fn passes_over_different_partitions_do_not_undo_each_other() {
    let dir = tempfile::TempDir::new().unwrap();
    let gateway = Harness::start_in(dir, 32, |_| {}).await;
    let all: Vec<_> = gateway.stream(UNAVAILABLE).all_partitions().collect();
    let mut standing = Vec::new();
    for _ in &all {
        standing.push(gateway.standing(UNAVAILABLE, "g").await);
    }
    let each = standing.iter_mut().zip(&all);
    let store = each.map(|(one, of)| one.store(*of, Offset(of.partition.0.into())));
    for stored in join_all(store).await {
        stored.unwrap();
    }
    let standing = gateway.standing(UNAVAILABLE, "g").await;
    for of in all {
        let next = u64::from(of.partition.0);
        assert_eq!(standing.begins_with(of.partition), Some(Offset(next)));
    }
}

#[tokio::test]
async fn where_a_group_stands_is_not_lost_in_silence() {
    let gateway = Harness::start(|_| {}).await;
    let mut standing = gateway.standing(UNAVAILABLE, "g").await;
    gateway.engine.close().await;
    let of = gateway.partition(UNAVAILABLE, 0);
    let refused = standing.store(of, Offset(1)).await;
    assert!(
        matches!(refused, Err(Error::GroupNotStored(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_stream_has_so_many_groups_and_a_new_one_takes_the_place_of_one_long_unused() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 1).await;
    let id = gateway.stream(UNAVAILABLE).id;
    let now = gateway.dispatcher.shared.clock.now().0;
    let unused = u64::try_from(UNUSED_MAX.as_micros()).unwrap();
    for at in 0..GROUPS_LEN_MAX {
        // Not used for some time, but not long enough.
        let used_at = now - unused + 3_600_000_000;
        gateway
            .put_group(format!("redrive/{id}/g{at}"), used_at)
            .await;
    }
    let full = retrier.run(gateway.going_on(UNAVAILABLE, "new")).await;
    assert!(matches!(full, Err(Error::GroupsFull)), "{full:?}");
    assert!(target.waiting_call().is_none());
    // Other streams have their own, and those that are there go on.
    retry(&retrier, gateway.going_on(INTERNAL, "new")).await;
    let old = retry(&retrier, gateway.going_on(UNAVAILABLE, "g7")).await;
    assert_eq!(position(&old), Some(0));

    gateway
        .put_group(format!("redrive/{id}/g5"), now - unused)
        .await;
    gateway
        .put_group(format!("redrive/{id}/g9"), now - unused - 1)
        .await;
    let (made, ()) = tokio::join!(
        retry(&retrier, gateway.going_on(UNAVAILABLE, "new")),
        async { target.next_call().await.answer(200) }
    );
    assert_eq!(position(&made), Some(0));
    let left = gateway.groups().await;
    let has = |name: &str| left.contains(&format!("redrive/{id}/{name}"));
    assert!(has("new") && has("g5") && !has("g9"), "{left:?}");
    assert_eq!(left.len(), GROUPS_LEN_MAX + 1);
}

#[tokio::test]
async fn the_groups_of_a_stream_go_with_it() {
    let gateway = Harness::start(|_| {}).await;
    let kept = format!("redrive/{}/g", gateway.stream(UNAVAILABLE).id);
    let name = || "Mine".parse().unwrap();
    let config = StreamConfig::default;
    let mine = gateway
        .engine
        .create_stream(name(), 1, config())
        .await
        .unwrap();
    let of = mine.partition(Partition(0)).unwrap();
    let mut late = gateway.standing("Mine", "late").await;
    // A retrier that comes later finds what one before it has left.
    let left = format!("redrive/{}/g", "0".repeat(32));
    gateway.put_group(left, 1).await;
    let retrier = gateway.retrier();
    retry(&retrier, gateway.going_on("Mine", "g")).await;
    retry(&retrier, gateway.going_on(UNAVAILABLE, "g")).await;
    let delete = gateway
        .engine
        .delete_stream(mine.id, None, OpenRecords::Drop);
    delete.await.unwrap();
    let mut changed = gateway.engine.changed("redrive/");
    within("the groups to go", async {
        while gateway.groups().await != [kept.as_str()] {
            changed.changed().await.unwrap();
        }
    })
    .await;
    // A pass that ends now leaves nothing behind, and a stream made again begins anew.
    late.store(of, Offset(1)).await.unwrap();
    assert_eq!(gateway.groups().await, [kept.as_str()]);
    gateway
        .engine
        .create_stream(name(), 1, config())
        .await
        .unwrap();
    let report = retry(&retrier, gateway.going_on("Mine", "g")).await;
    assert_eq!(position(&report), None);
}
