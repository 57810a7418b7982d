//! Cursors over the engine's double.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{CursorError, Cursors, LEN_MAX, cursor::State};
use crate::{
    config::Config,
    log::Streams,
    model::{
        ids::{Offset, Partition, PartitionId},
        record::{HeadersBuilder, Record},
    },
    push::{Asked, Push, Settings, StartRefused, Subscription},
    runtime::{
        clock::{Clock, Timestamp},
        tasks::Tasks,
    },
    storage::{
        Append, AppendKind, Commit, CommitError, Engine, Log as _, State as _, StreamConfig,
        memory::Memory,
    },
};

const DAY: u64 = 24 * 3600 * 1_000_000;

struct Shown {
    engine: Arc<Memory>,
    push: Push,
    clock: Clock,
    tasks: Tasks,
}

impl Shown {
    /// The data stream `s1` with five records.
    async fn new() -> Self {
        let engine = Memory::new();
        let name = Config::default().roles.source;
        let made = engine.create_stream(name, 1, StreamConfig::default());
        let stream = made.await.unwrap();
        let clock = Clock::manual(Timestamp(DAY));
        let tasks = Tasks::new();
        let push = open(&engine, &clock, &tasks).await;
        let config = br#"{"source":{"trail":"a1"},"bufferSize":131072}"#;
        push.create("s1".parse().unwrap(), config).await.unwrap();
        for _ in 0..5 {
            let record = Record {
                key: "".into(),
                // So large that a frame has two of them.
                value: format!("\"{}\"", "x".repeat(100_000)).into(),
                headers: HeadersBuilder::default().build(),
            };
            let append = Append {
                of: PartitionId {
                    stream: stream.id,
                    partition: Partition(0),
                },
                records: vec![record],
                kind: AppendKind::Accepted,
                refers: Vec::new(),
            };
            let commit = Commit {
                appends: vec![append],
                ..Commit::default()
            };
            engine.commit(commit).await.unwrap();
        }
        Self {
            engine,
            push,
            clock,
            tasks,
        }
    }

    /// The same, after a restart.
    async fn reopened(&self) -> Push {
        open(&self.engine, &self.clock, &self.tasks).await
    }

    fn cursors(&self) -> &Cursors {
        &self.push.0.cursors
    }
}

async fn open(engine: &Arc<Memory>, clock: &Clock, tasks: &Tasks) -> Push {
    let streams = Streams::new(engine.clone() as Arc<dyn Engine>);
    let settings = Settings::from(&Config::default());
    let opened = Push::open(streams, clock.clone(), settings, tasks);
    opened.await.unwrap()
}

async fn subscribe(push: &Push, begin: &str, takeover: bool) -> Subscription {
    let asked = Asked {
        begin: Some(begin.into()),
        cursor: Some("c1".parse().unwrap()),
        takeover,
    };
    let subscribed = push.subscribe(&"s1".parse().unwrap(), asked).await;
    subscribed.unwrap()
}

/// Positions of the next records, with all of the last frame.
async fn positions(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut positions = Vec::new();
    while positions.len() < count {
        let frame = subscription.next().await.unwrap();
        let records: Vec<Value> = serde_json::from_slice(&frame.text()).unwrap();
        // The making of the stream is no message.
        let records = records
            .iter()
            .filter(|record| record.get("after").is_some());
        positions.extend(records.map(|record| record["pos"].as_str().unwrap().to_owned()));
    }
    positions
}

fn stored(push: &Push) -> Option<State> {
    let (stream, cursor) = ("s1".parse().unwrap(), "c1".parse().unwrap());
    push.0.cursors.get(&stream, &cursor)
}

fn pos(push: &Push) -> String {
    push.0.key.text(&stored(push).unwrap().at.position)
}

#[tokio::test]
async fn only_positions_sent_on_the_connection_can_be_acknowledged() {
    let shown = Shown::new().await;
    let all = positions(&mut subscribe(&shown.push, "earliest", false).await, 5).await;
    let mut subscription = subscribe(&shown.push, "earliest", false).await;
    assert!(subscription.ack(&all[0]).is_err(), "nothing was sent yet");
    positions(&mut subscription, 2).await;
    assert!(subscription.ack(&all[2]).is_err());
    for nothing in ["", "p1", "now", "earliest", "p1AAAA"] {
        assert!(subscription.ack(nothing).is_err(), "{nothing}");
    }
    subscription.ack(&all[1]).unwrap();
    assert_eq!(pos(&shown.push), all[1]);
    subscription.ack(&all[0]).unwrap();
    assert_eq!(
        pos(&shown.push),
        all[1],
        "what is below the last one is no news"
    );
}

#[tokio::test]
async fn settled_acknowledgements_survive_a_restart_and_others_are_sent_again() {
    let shown = Shown::new().await;
    let mut subscription = subscribe(&shown.push, "earliest", false).await;
    let all = positions(&mut subscription, 5).await;
    subscription.ack(&all[1]).unwrap();
    subscription.settle().await.unwrap();
    subscription.ack(&all[3]).unwrap();
    let push = shown.reopened().await;
    assert_eq!(pos(&push), all[1]);
    let mut again = subscribe(&push, "now", false).await;
    assert_eq!(positions(&mut again, 3).await, all[2..]);
}

#[tokio::test(start_paused = true)]
async fn many_acknowledgements_cost_one_commit_within_a_tenth_of_a_second() {
    let shown = Shown::new().await;
    let mut subscription = subscribe(&shown.push, "earliest", false).await;
    let all = positions(&mut subscription, 5).await;
    subscription.settle().await.unwrap();
    let key = "push/cursor/s1/c1";
    let before = shown.engine.get(key).await.unwrap().revision;
    for pos in &all {
        subscription.ack(pos).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = shown.engine.get(key).await.unwrap();
    assert_eq!(after.revision, before + 1);
    assert_eq!(pos(&shown.reopened().await), all[4]);
}

/// A log that was restored from a copy has another life, in which offsets begin again where the copy ended.
#[tokio::test]
async fn positions_of_another_life_are_not_measured_by_those_of_this_one() {
    let shown = Shown::new().await;
    let mut subscription = subscribe(&shown.push, "earliest", false).await;
    let all = positions(&mut subscription, 5).await;
    let in_life = |pos: &str, lives_later: u64| {
        let mut position = shown.push.0.key.read(pos).unwrap();
        position.incarnation.0 += lives_later;
        position
    };
    // Nothing of another life was sent here.
    let foreign = shown.push.0.key.text(&in_life(&all[1], 1));
    assert!(subscription.ack(&foreign).is_err());
    subscription.ack(&all[3]).unwrap();
    // A lower place in a later incarnation moves the cursor; in the same incarnation it does not.
    let (stream, cursor) = ("s1".parse().unwrap(), "c1".parse().unwrap());
    for (ack, stands_at) in [(1, 1), (0, 1), (2, 2)] {
        let acked = in_life(&all[ack], 1);
        let acked = shown.cursors().ack(&stream, &cursor, acked);
        acked.await.unwrap();
        let expected = in_life(&all[stands_at], 1);
        assert_eq!(stored(&shown.push).unwrap().at.position, expected);
    }
}

/// The paused clock moves only when every task waits, so a settle always comes before the store that an ack has
/// scheduled.
#[tokio::test(start_paused = true)]
async fn acknowledgements_that_the_log_refused_are_stored_at_the_next_chance() {
    let shown = Shown::new().await;
    let mut subscription = subscribe(&shown.push, "earliest", false).await;
    let all = positions(&mut subscription, 5).await;
    subscription.settle().await.unwrap();

    // The client waits for it, and asks again.
    subscription.ack(&all[1]).unwrap();
    shown.engine.refuse(CommitError::DiskFull);
    let refused = subscription.settle().await;
    assert!(matches!(refused, Err(CommitError::DiskFull)), "{refused:?}");
    assert_ne!(pos(&shown.reopened().await), all[1]);
    subscription.settle().await.unwrap();
    assert_eq!(pos(&shown.reopened().await), all[1]);

    // No client waits for it: the next acknowledgement of any client stores it too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (stream, other) = ("s1".parse().unwrap(), "c2".parse().unwrap());
    let at = stored(&shown.push).unwrap().at;
    let made = shown.cursors().make(&stream, &other, at.clone());
    made.await.unwrap();
    subscription.ack(&all[3]).unwrap();
    shown.engine.refuse(CommitError::Busy);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pos(&shown.reopened().await), all[1], "it was refused");
    let third = shown.push.0.key.read(&all[2]).unwrap();
    let acked = shown.cursors().ack(&stream, &other, third);
    acked.await.unwrap();
    assert_eq!(pos(&shown.reopened().await), all[3]);
}

#[tokio::test]
async fn a_client_that_lost_its_cursor_cannot_move_it() {
    let shown = Shown::new().await;
    let mut first = subscribe(&shown.push, "earliest", false).await;
    let all = positions(&mut first, 4).await;
    first.ack(&all[0]).unwrap();
    let stream = "s1".parse().unwrap();
    let refused = shown.push.subscribe(
        &stream,
        Asked {
            cursor: Some("c1".parse().unwrap()),
            ..Asked::default()
        },
    );
    assert!(refused.await.is_err());
    let mut second = subscribe(&shown.push, "earliest", true).await;
    let ended = first.next().await.unwrap_err();
    assert!(matches!(ended, crate::push::End::TakenOver), "{ended}");
    first.ack(&all[2]).unwrap();
    assert_eq!(pos(&shown.push), all[0]);
    drop(first);
    assert!(
        stored(&shown.push).unwrap().is_held(),
        "the second one has it"
    );
    assert_eq!(positions(&mut second, 3).await[..3], all[1..4]);
    drop(second);
    assert!(!stored(&shown.push).unwrap().is_held());
}

#[tokio::test]
async fn a_cursor_waits_for_the_time_it_was_made_for_in_every_life() {
    let shown = Shown::new().await;
    for push in [&shown.push, &shown.reopened().await] {
        let mut subscription = subscribe(push, "2099-01-01", false).await;
        while let Some(Ok(frame)) = futures_util::FutureExt::now_or_never(subscription.next()) {
            assert_eq!(frame.last_pos(), None, "there is nothing of that time");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unused_cursors_are_removed_and_a_clock_jump_removes_none() {
    let shown = Shown::new().await;
    let held = subscribe(&shown.push, "earliest", false).await;
    let (stream, other) = ("s1".parse().unwrap(), "c2".parse().unwrap());
    let at = stored(&shown.push).unwrap().at;
    shown.cursors().make(&stream, &other, at).await.unwrap();
    let stop = CancellationToken::new();
    shown
        .tasks
        .spawn("sweep", shown.push.clone().sweep(stop.clone()));
    let hour = Duration::from_secs(3600);
    // The clock jumps by thirty-one days. The sweep runs each hour, and far less time has passed.
    tokio::time::sleep(hour / 2).await;
    shown.clock.set(Timestamp(33 * DAY));
    tokio::time::sleep(hour).await;
    assert!(shown.cursors().get(&stream, &other).is_some());
    for _ in 0..31 * 24 {
        shown.clock.set(shown.clock.now().plus_micros(DAY / 24));
        tokio::time::sleep(hour).await;
    }
    assert!(shown.cursors().get(&stream, &other).is_none());
    assert!(shown.engine.get("push/cursor/s1/c2").await.is_none());
    assert!(stored(&shown.push).is_some(), "a client has it");
    drop(held);
    stop.cancel();
}

#[tokio::test]
async fn cursors_have_a_bound_and_go_with_their_data_stream() {
    let shown = Shown::new().await;
    drop(subscribe(&shown.push, "earliest", false).await);
    let stream = "s1".parse().unwrap();
    let at = stored(&shown.push).unwrap().at;
    for n in 1..LEN_MAX {
        let name = format!("d{n}").parse().unwrap();
        shown
            .cursors()
            .make(&stream, &name, at.clone())
            .await
            .unwrap();
    }
    let (new, old) = ("e".parse().unwrap(), "d7".parse().unwrap());
    let one_more = shown.cursors().make(&stream, &new, at.clone());
    assert!(matches!(one_more.await, Err(CursorError::TooMany)));
    let known = shown.cursors().make(&stream, &old, at);
    known.await.unwrap();
    shown.push.delete(&stream, None).await.unwrap();
    assert_eq!(shown.engine.list("push/cursor/").await.len(), 0);
    assert!(stored(&shown.push).is_none());
}

#[tokio::test]
async fn a_cursor_keeps_no_record_and_missing_records_are_refused_or_a_gap() {
    for (quality, goes_on) in [
        ("exactlyOnce", false),
        ("atLeastOnce", false),
        ("atMostOnce", true),
    ] {
        let shown = Shown::new().await;
        let name = "s1".parse().unwrap();
        let patch = format!(r#"{{"qualityOfService":"{quality}"}}"#);
        shown
            .push
            .change(&name, patch.as_bytes(), None)
            .await
            .unwrap();
        let mut subscription = subscribe(&shown.push, "earliest", false).await;
        let all = positions(&mut subscription, 5).await;
        subscription.ack(&all[1]).unwrap();
        drop(subscription);
        let log = shown.push.trail("a1").unwrap();
        let of = log.all_partitions().next().unwrap();
        shown.engine.trim(of, Offset(3)).await.unwrap();
        let asked = Asked {
            begin: Some("now".into()),
            cursor: Some("c1".parse().unwrap()),
            takeover: false,
        };
        let again = shown.push.subscribe(&name, asked).await;
        let stands = stored(&shown.push).unwrap();
        assert_eq!(
            pos(&shown.push),
            all[1],
            "until it is moved or acknowledges"
        );
        match again {
            Ok(mut subscription) => {
                assert!(goes_on && stands.is_held());
                let schemas = subscription.next().await.unwrap().text();
                let records: Vec<Value> = serde_json::from_slice(&schemas).unwrap();
                let gap = serde_json::json!({ "0": { "from": 2, "to": 3 } });
                assert_eq!(records[1]["source"]["gap"], gap);
                assert_eq!(positions(&mut subscription, 2).await, all[3..]);
                assert_eq!(shown.push.gaps().get(), 1);
            }
            Err(refused) => {
                assert!(!goes_on && !stands.is_held(), "{quality}: {refused}");
                let gone = crate::push::SubscribeError::Start(StartRefused::Gone);
                assert_eq!(refused.to_string(), gone.to_string());
            }
        }
    }
}
