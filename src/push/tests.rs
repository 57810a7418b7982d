//! Order, resuming and sharing, beginnings and ends, over the engine's double: what each subscriber is promised, whatever
//! the log does and whatever happens to its data stream.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use proptest::{collection::vec, prelude::*};

use super::{
    Asked, End, Push, Settings, StartRefused, SubscribeError, Subscription,
    begin::Begin,
    encode::Scratch,
    frame::Frame,
    frames::Shares,
    gaps::{Gaps, Missing},
    hub::{Encode, Hub, HubError, Parts},
    position::{Contract, Place, Position, PositionKey},
    reader::Reader,
    resource::QualityOfService,
    start::start,
};
use crate::{
    clock::{Clock, Timestamp},
    config::Config,
    log::Streams,
    place::{Incarnation, Offset, Partition},
    record::{HeadersBuilder, Record, StoredRecord},
    storage::{
        Append, AppendKind, Commit, CommitError, ControlEvent, Engine, Log as _, OpenRecords,
        Stream, StreamConfig, memory::Memory,
    },
    tasks::Tasks,
};

/// Writes where a record is, and leaves out those whose key says so.
#[derive(Debug)]
struct Places;

impl Encode for Places {
    fn record(
        &self,
        _stream: &Stream,
        partition: Partition,
        record: &StoredRecord,
        _now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> bool {
        if record.record.key == "left out" {
            return false;
        }
        let place = format!("{:020}.{partition}.{} ", record.time.0, record.offset);
        out.extend_from_slice(place.as_bytes());
        pos(out);
        true
    }

    fn event(
        &self,
        number: u64,
        _event: &ControlEvent,
        _now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> bool {
        out.extend_from_slice(format!("event {number} ").as_bytes());
        pos(out);
        true
    }

    fn preamble(&self, _stream: &Stream, _missing: Option<&Missing>) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn gap(&self, _stream: &Stream, missing: &Missing) -> Option<Vec<u8>> {
        Some(format!("gap {missing:?} ").into_bytes())
    }
}

struct Shown {
    engine: Arc<Memory>,
    streams: Streams,
    stream: Arc<Stream>,
    key: PositionKey,
    contract: Contract,
    gaps: Gaps,
}

impl Shown {
    async fn new(partitions: u16) -> Self {
        let engine = Memory::new();
        let made = engine.create_stream(
            "Shown".parse().unwrap(),
            partitions,
            StreamConfig::default(),
        );
        let stream = made.await.unwrap();
        Self {
            streams: Streams::new(engine.clone() as Arc<dyn Engine>),
            engine,
            stream,
            key: PositionKey::new(&[3; PositionKey::LEN]),
            contract: Contract::new("s1", "Shown", "append"),
            gaps: Gaps::default(),
        }
    }

    /// One commit, with a record in each of these partitions; returns its time.
    async fn commit(&self, partitions: &[u16], key: &'static str) -> Timestamp {
        self.commit_value(partitions, key, "{}").await
    }

    async fn commit_value(&self, partitions: &[u16], key: &'static str, value: &str) -> Timestamp {
        let appends = partitions.iter().map(|partition| Append {
            of: crate::place::PartitionId {
                stream: self.stream.id,
                partition: Partition(*partition),
            },
            records: vec![Record {
                key: key.into(),
                value: value.to_owned().into(),
                headers: HeadersBuilder::default().build(),
            }],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        });
        let commit = Commit {
            appends: appends.collect(),
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap().time
    }

    async fn grow(&self, partitions: u16) {
        let grown =
            self.engine
                .change_stream(self.stream.id, partitions, StreamConfig::default(), None);
        grown.await.unwrap();
    }

    fn hub(&self, quality: QualityOfService, frame_bytes: usize) -> Hub {
        let parts = Parts {
            name: "s1".parse().unwrap(),
            streams: self.streams.clone(),
            stream: self.stream.id,
            encode: Box::new(Places),
            key: self.key.clone(),
            contract: self.contract,
            quality,
            frame_bytes,
            clock: Clock::manual(Timestamp(1)),
            gaps: self.gaps.clone(),
            shares: Shares::default(),
            tasks: Tasks::new(),
        };
        Hub::new(parts, &self.stream)
    }

    /// All frames from there to what the log holds now.
    async fn frames(&self, hub: &Hub, begin: &Begin) -> Vec<Arc<Frame>> {
        let quality = QualityOfService::ExactlyOnce;
        let started = start(&self.streams, self.stream.id, begin, self.contract, quality).await;
        let mut place = started.unwrap().place;
        let mut frames = Vec::new();
        let tails = || {
            let found = self.engine.bounds(self.stream.id).unwrap();
            let tails: u64 = found.partitions.iter().map(|bounds| bounds.tail.0).sum();
            tails + found.stream.events.len() as u64
        };
        while place.rank() < tails() {
            let frame = hub.next(&place).await.unwrap();
            place.clone_from(frame.behind());
            frames.push(frame);
        }
        frames
    }
}

/// The records of frames, as they were written.
fn records(frames: &[Arc<Frame>]) -> Vec<String> {
    let texts = frames
        .iter()
        .map(|frame| String::from_utf8(frame.text().to_vec()).unwrap());
    let texts: Vec<_> = texts.collect();
    let records = texts
        .iter()
        .flat_map(|text| text[1..text.len() - 1].split(','));
    records
        .filter(|record| !record.is_empty())
        .map(str::to_owned)
        .collect()
}

fn position(record: &str) -> &str {
    record.rsplit(' ').next().unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<u16>, bool),
    Grow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let commit = (vec(0..8_u16, 1..4), prop::bool::weighted(0.2));
    let step = prop_oneof![
        8 => commit.prop_map(|(partitions, left_out)| Step::Commit(partitions, left_out)),
        1 => Just(Step::Grow),
    ];
    vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_resumes_anywhere_gets_strictly_the_rest(steps in steps(), partitions in 1..4_u16, frame_bytes in 1..600_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let shown = Shown::new(partitions).await;
            let mut partitions = partitions;
            // The stream's making, then what happens to it and in it, in order.
            let mut expected = vec!["event"];
            for step in steps {
                match step {
                    Step::Grow => {
                        partitions += 1;
                        shown.grow(partitions).await;
                        expected.push("event");
                    }
                    Step::Commit(into, left_out) => {
                        let mut into: Vec<_> = into.iter().map(|number| number % partitions).collect();
                        into.sort_unstable();
                        into.dedup();
                        if !left_out {
                            expected.extend(into.iter().map(|_| "record"));
                        }
                        shown.commit(&into, if left_out { "left out" } else { "" }).await;
                    }
                }
            }
            let hub = shown.hub(QualityOfService::ExactlyOnce, frame_bytes);
            let frames = shown.frames(&hub, &Begin::Earliest).await;
            for frame in &frames {
                prop_assert!(frame.text().len() <= frame_bytes || frame.records_len() <= 1);
            }
            let all = records(&frames);
            let kind = |record: &String| match record.starts_with("event") {
                true => "event",
                false => "record",
            };
            let kinds: Vec<_> = all.iter().map(kind).collect();
            prop_assert_eq!(kinds, expected, "every record once, and events where they happened");
            let places: Vec<_> = all.iter().filter(|record| !record.starts_with("event")).collect();
            prop_assert!(places.is_sorted(), "{:?}", places);
            for (at, record) in all.iter().enumerate() {
                let begin = Begin::parse(position(record), &shown.key).unwrap();
                // Another hub, whose frames begin elsewhere, says the same.
                for hub in [&hub, &shown.hub(QualityOfService::ExactlyOnce, frame_bytes + 40)] {
                    let rest = records(&shown.frames(hub, &begin).await);
                    prop_assert_eq!(&rest[..], &all[at + 1..]);
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn those_who_began_at_different_places_share_frames_from_then_on() {
    let shown = Shown::new(2).await;
    for n in 0..50 {
        shown.commit(&[n % 2], "").await;
    }
    let hub = shown.hub(QualityOfService::ExactlyOnce, 300);
    let first = shown.frames(&hub, &Begin::Earliest).await;
    let of_frame = records(&first[..3]);
    let begin = Begin::parse(position(&of_frame[of_frame.len() - 2]), &shown.key).unwrap();
    let second = shown.frames(&hub, &begin).await;
    // The first one ends where the next frame of the other begins.
    assert_eq!(records(&second[..1]), of_frame[of_frame.len() - 1..]);
    assert_eq!(second.len() - 1, first.len() - 3);
    for (one, other) in first[3..].iter().zip(&second[1..]) {
        assert!(Arc::ptr_eq(one, other));
    }
}

#[tokio::test]
async fn while_a_full_frame_is_sent_the_next_one_is_made() {
    let shown = Shown::new(1).await;
    for _ in 0..20 {
        shown.commit(&[0], "").await;
    }
    let hub = Arc::new(shown.hub(QualityOfService::ExactlyOnce, 300));
    let begun = start(
        &shown.streams,
        shown.stream.id,
        &Begin::Earliest,
        shown.contract,
        QualityOfService::ExactlyOnce,
    );
    let mut reader = Reader::new(hub.clone(), begun.await.unwrap().place);
    let mut frames = Vec::new();
    loop {
        let frame = hub.next(reader.place()).await.unwrap();
        reader.pass(&frame);
        frames.push(frame);
        if hub.parts().tasks.join(Duration::from_secs(5)).await > 0 {
            panic!("a task waits for something");
        }
        match hub.is_made(reader.place()) {
            true => {}
            false => break,
        }
    }
    // Nothing was asked for at the end of the log, and everything before it was there.
    assert_eq!(records(&frames).len(), 21);
    assert!(frames.len() > 3, "{}", frames.len());
}

#[tokio::test]
async fn who_waits_at_the_end_gets_what_comes_in_one_frame_for_all() {
    let shown = Shown::new(1).await;
    shown.commit(&[0], "").await;
    let hub = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let frames = shown.frames(&hub, &Begin::Earliest).await;
    let place = frames.last().unwrap().behind().clone();
    let comes = async {
        tokio::task::yield_now().await;
        shown.commit(&[0], "").await;
    };
    let (one, other, ()) = tokio::join!(hub.next(&place), hub.next(&place), comes);
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
}

#[tokio::test]
async fn what_was_removed_before_it_was_sent_is_never_passed_in_silence() {
    let shown = Shown::new(1).await;
    for _ in 0..9 {
        shown.commit(&[0], "").await;
    }
    let strict = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let lenient = shown.hub(QualityOfService::AtMostOnce, 1 << 20);
    let started = shown.frames(&strict, &Begin::Earliest).await;
    let third = Begin::parse(position(&records(&started)[3]), &shown.key).unwrap();
    let Begin::Position(at) = &third else {
        panic!("{third:?}");
    };
    let of = shown.stream.all_partitions().next().unwrap();
    shown.engine.trim(of, Offset(7)).await.unwrap();
    assert!(matches!(
        strict.next(&at.place).await,
        Err(HubError::Overtaken)
    ));
    assert_eq!(shown.gaps.counter().get(), 0);
    let gap = lenient.next(&at.place).await.unwrap();
    assert_eq!(shown.gaps.counter().get(), 1, "a gap is counted");
    assert_eq!(&gap.text()[..], b"[gap [(Partition(0), 3, 7)] ]");
    let rest = lenient.next(gap.behind()).await.unwrap();
    assert_eq!(rest.records_len(), 2);
    for (quality, goes_on) in [
        (QualityOfService::AtLeastOnce, false),
        (QualityOfService::AtMostOnce, true),
    ] {
        let started = start(
            &shown.streams,
            shown.stream.id,
            &third,
            shown.contract,
            quality,
        )
        .await;
        assert_eq!(started.is_ok(), goes_on);
    }
    // The stream's making is no longer told: what came with it is gone.
    let kept = records(&shown.frames(&strict, &Begin::Earliest).await);
    assert_eq!(kept.len(), 2);
}

#[tokio::test]
async fn a_position_that_is_no_longer_there_is_refused_or_a_gap_and_a_foreign_one_is_always_refused()
 {
    let shown = Shown::new(2).await;
    for n in 0..10 {
        shown.commit(&[n % 2], "").await;
    }
    for of in shown.stream.all_partitions() {
        shown.engine.trim(of, Offset(3)).await.unwrap();
    }
    let (own, life) = (shown.contract, shown.stream.incarnation);
    let other = Incarnation(life.0 + 1);
    let foreign = Contract::new("s2", "Shown", "append");
    let anew: Option<Vec<_>> = Some(Vec::new());
    let both = (0..2).map(|number| (Partition(number), u64::from(number), 3));
    for (contract, incarnation, events, next, expected) in [
        // It is there: the first one kept, one in the middle, the tail, and without what the stream had later.
        (own, life, 1, vec![3, 3], Ok(None)),
        (own, life, 1, vec![5, 4], Ok(None)),
        (own, life, 1, vec![5, 5], Ok(None)),
        (own, life, 0, vec![3, 3], Ok(None)),
        (
            own,
            life,
            1,
            vec![2, 3],
            Ok(Some(vec![(Partition(0), 2, 3)])),
        ),
        (own, life, 1, vec![0, 1], Ok(Some(both.collect()))),
        (own, life, 1, vec![5], Ok(Some(vec![(Partition(1), 0, 3)]))),
        // Above a tail, more partitions or events than there are, another life.
        (own, life, 1, vec![6, 3], Ok(anew.clone())),
        (own, life, 1, vec![3, 6], Ok(anew.clone())),
        (own, life, 1, vec![3, 3, 0], Ok(anew.clone())),
        (own, life, 2, vec![3, 3], Ok(anew.clone())),
        (own, other, 1, vec![3, 3], Ok(anew.clone())),
        (own, other, 1, vec![0, 0], Ok(anew)),
        (foreign, life, 1, vec![3, 3], Err(())),
        (foreign, other, 1, vec![3, 3], Err(())),
    ] {
        let place = Place { events, next };
        let position = Position {
            contract,
            incarnation,
            place: place.clone(),
        };
        let begin = Begin::Position(position);
        for quality in [
            QualityOfService::ExactlyOnce,
            QualityOfService::AtLeastOnce,
            QualityOfService::AtMostOnce,
        ] {
            let begun = start(&shown.streams, shown.stream.id, &begin, own, quality).await;
            let goes_on = quality == QualityOfService::AtMostOnce;
            match (&expected, begun) {
                (Ok(None), Ok(begun)) => {
                    assert_eq!((begun.place, begun.gap), (place.clone(), None))
                }
                (Ok(gap), Ok(begun)) => {
                    assert!(goes_on, "{place:?} {quality:?}");
                    assert_eq!(begun.gap, *gap);
                    // It goes on with what is kept.
                    let kept = [place.next.first(), place.next.get(1)];
                    let kept = kept.map(|next| match gap.as_deref() {
                        Some([]) => 3,
                        _ => next.copied().unwrap_or(0).max(3),
                    });
                    assert_eq!(begun.place.next, kept);
                }
                (Ok(_), Err(refused)) => {
                    assert!(
                        !goes_on && matches!(refused, StartRefused::Gone),
                        "{place:?}"
                    );
                }
                (Err(()), refused) => assert!(matches!(refused, Err(StartRefused::Foreign))),
            }
        }
    }
}

/// Push as a whole, with the data stream `s1`.
struct Whole {
    shown: Shown,
    push: Push,
    _tasks: Tasks,
}

impl Whole {
    async fn new(partitions: u16, clients_max: usize) -> Self {
        let shown = Shown::new(partitions).await;
        let tasks = Tasks::new();
        let settings = Settings {
            clients_max,
            ..Settings::new(&Config::default())
        };
        let clock = Clock::manual(Timestamp(1));
        let push = Push::open(shown.streams.clone(), clock, settings, &tasks);
        let push = push.await.unwrap();
        let config = br#"{"source":{"trail":"Shown"},"bufferSize":131072}"#;
        push.create("s1".parse().unwrap(), config).await.unwrap();
        Self {
            shown,
            push,
            _tasks: tasks,
        }
    }

    async fn subscribe(&self, begin: &str) -> Result<Subscription, SubscribeError> {
        let begin = Some(begin.to_owned());
        let asked = Asked {
            begin,
            ..Asked::default()
        };
        self.push.subscribe(&"s1".parse().unwrap(), asked).await
    }

    fn seats_taken(&self) -> usize {
        self.push.0.seats_taken.load(Ordering::Relaxed)
    }
}

/// `xid`s of what is there for a subscriber, schemas and metadata left out.
fn ready(subscription: &mut Subscription) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(frame) = subscription.next().now_or_never() {
        let text = frame.unwrap().text();
        let records: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let xids = records.iter().filter_map(|record| record["xid"].as_str());
        all.extend(xids.map(str::to_owned));
    }
    all
}

#[tokio::test]
async fn a_time_to_come_is_waited_for_and_what_comes_before_it_is_not_sent() {
    for (micros, expected) in [
        // From the growth on, which has that time; a little before; a little later; the last commit; later than all.
        (2_000_000, vec!["ddl.2", "1.0", "0.2", "1.1"]),
        (1_999_999, vec!["ddl.2", "1.0", "0.2", "1.1"]),
        (2_000_001, vec!["1.0", "0.2", "1.1"]),
        (3_000_000, vec!["1.0", "0.2", "1.1"]),
        (3_000_001, vec!["0.2", "1.1"]),
        (4_000_000, vec!["0.2", "1.1"]),
        (4_000_001, vec![]),
    ] {
        let whole = Whole::new(1, 10).await;
        let now = whole.shown.commit(&[0], "").await;
        let begin = now.plus_micros(micros).to_string();
        let mut subscription = whole.subscribe(&begin).await.unwrap();
        // Where it will be is no place yet.
        assert_eq!(subscription.pos(), None);
        assert_eq!(ready(&mut subscription), [""; 0]);
        let mut sent = Vec::new();
        for step in 1..=4 {
            let time = match step {
                2 => {
                    whole.shown.grow(2).await;
                    now.plus_micros(2_000_000)
                }
                1 => whole.shown.commit(&[0], "").await,
                3 => whole.shown.commit(&[1], "").await,
                _ => whole.shown.commit(&[0, 1], "").await,
            };
            assert_eq!(time, now.plus_micros(step * 1_000_000));
            let came = ready(&mut subscription);
            assert!(came.is_empty() || time >= now.plus_micros(micros));
            sent.extend(came);
        }
        assert_eq!(sent, expected, "{micros}");
        assert_eq!(subscription.pos().is_some(), !expected.is_empty());
        // Who comes later to the same time gets the same.
        let mut later = whole.subscribe(&begin).await.unwrap();
        assert_eq!(ready(&mut later), expected, "{micros}");
    }
}

/// What ends a data stream for those who read it.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Change,
    Delete,
    DeleteLog,
}

#[tokio::test]
async fn every_subscriber_ends_as_its_data_stream_does_and_leaves_its_seat() {
    const LEN: usize = 6;
    for ends in [Ends::Change, Ends::Delete, Ends::DeleteLog] {
        let whole = Whole::new(1, LEN).await;
        let name = "s1".parse().unwrap();
        for _ in 0..4 {
            // A frame has one of them.
            let value = format!("\"{}\"", "x".repeat(100_000));
            whole.shown.commit_value(&[0], "", &value).await;
        }
        let begins = [
            "earliest",
            "earliest",
            "earliest",
            "earliest",
            "now",
            "2999-01-01",
        ];
        let mut all = Vec::new();
        for begin in begins {
            all.push(whole.subscribe(begin).await.unwrap());
        }
        let one_more = whole.subscribe("now").await;
        assert!(matches!(one_more, Err(SubscribeError::Full)));
        // The first has had nothing, then one in the schemas, one in the middle, and those who wait.
        all[1].next().await.unwrap();
        while all[2].last_pos().is_none() {
            all[2].next().await.unwrap();
        }
        let waiting: Vec<_> = all[3..].iter_mut().map(ready).collect();
        assert_eq!(
            waiting,
            [vec!["ddl.1", "0.0", "0.1", "0.2", "0.3"], vec![], vec![]]
        );
        let old = whole.push.get(&name).unwrap();
        assert_eq!((old.clients_len(), whole.seats_taken()), (LEN, LEN));
        let last: Vec<_> = all
            .iter()
            .map(|one| one.last_pos().map(str::to_owned))
            .collect();
        // They wait when it happens.
        let waiting = futures_util::future::join_all(all[3..].iter_mut().map(Subscription::next));
        let happens = async {
            tokio::task::yield_now().await;
            match ends {
                Ends::Change => drop(whole.push.change(&name, b"{}", None).await.unwrap()),
                Ends::Delete => whole.push.delete(&name, None).await.unwrap(),
                Ends::DeleteLog => {
                    let (id, open) = (whole.shown.stream.id, OpenRecords::Drop);
                    let deleted = whole.shown.engine.delete_stream(id, None, open);
                    deleted.await.unwrap();
                }
            }
        };
        let fits = |end: End| match ends {
            Ends::Change => matches!(end, End::Changed),
            Ends::Delete | Ends::DeleteLog => matches!(end, End::Deleted),
        };
        let ended = async { tokio::join!(waiting, happens).0 };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        let ended = ended.unwrap_or_else(|_| panic!("nobody is told of {ends:?}"));
        for end in ended {
            assert!(end.is_err_and(fits), "{ends:?}");
        }
        for (subscription, last) in all.iter_mut().zip(&last) {
            // Where only the log has gone, frames that were made already may come.
            while let Ok(_frame) = subscription.next().await {
                assert!(matches!(ends, Ends::DeleteLog));
            }
            // And so it stays.
            assert!(subscription.next().await.is_err_and(fits), "{ends:?}");
            let is_still = subscription.last_pos() == last.as_deref();
            assert!(is_still || matches!(ends, Ends::DeleteLog));
        }
        all.truncate(1);
        assert_eq!((old.clients_len(), whole.seats_taken()), (1, 1));
        drop(all);
        assert_eq!((old.clients_len(), whole.seats_taken()), (0, 0));
        match ends {
            Ends::Change => assert_eq!(ready(&mut whole.subscribe("now").await.unwrap()), [""; 0]),
            Ends::Delete => {
                let gone = whole.subscribe("now").await;
                assert!(matches!(gone, Err(SubscribeError::Unknown)));
            }
            Ends::DeleteLog => {
                let gone = whole.subscribe("now").await;
                let gone = gone.is_err_and(|refused| {
                    matches!(refused, SubscribeError::Start(StartRefused::StreamGone))
                });
                assert!(gone);
            }
        }
        // A seat that was refused was none.
        assert_eq!(whole.seats_taken(), 0);
    }
}

#[tokio::test]
async fn a_change_that_comes_to_nothing_ends_nobody() {
    let whole = Whole::new(1, 10).await;
    let name = "s1".parse().unwrap();
    let mut subscription = whole.subscribe("now").await.unwrap();
    assert_eq!(ready(&mut subscription), [""; 0]);
    let invalid = whole.push.change(&name, br#"{"bufferSize":1}"#, None).await;
    assert!(invalid.is_err());
    assert!(whole.push.change(&name, b"{}", Some(0)).await.is_err());
    assert!(whole.push.delete(&name, Some(0)).await.is_err());
    for _ in 0..2 {
        whole.shown.engine.refuse(CommitError::Busy);
    }
    assert!(whole.push.change(&name, b"{}", None).await.is_err());
    assert!(whole.push.delete(&name, None).await.is_err());
    // An AsyncAPI document is for those who read documents.
    whole.push.document(&name, "asyncapi: 3.0.0").await.unwrap();
    whole.shown.commit(&[0], "").await;
    assert_eq!(ready(&mut subscription), ["0.0"]);
    assert_eq!(whole.push.get(&name).unwrap().clients_len(), 1);
}
