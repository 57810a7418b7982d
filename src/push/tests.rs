//! Order, resuming and sharing, over the engine's double: what each subscriber is promised, whatever the log does.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::{
    begin::Begin,
    frame::Frame,
    gaps::{Gaps, Missing},
    hub::{Encode, Hub, HubError, Parts},
    position::{Contract, PositionKey},
    resource::QualityOfService,
    start::{StartRefused, start},
};
use crate::{
    clock::{Clock, Timestamp},
    log::Streams,
    place::{Offset, Partition},
    record::{HeadersBuilder, Record, StoredRecord},
    storage::{
        Append, AppendKind, Commit, ControlEvent, Engine, Log as _, OpenRecords, PurgeNote, Stream,
        StreamConfig, memory::Memory,
    },
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

    /// One commit, with a record in each of these partitions.
    async fn commit(&self, partitions: &[u16], key: &'static str) {
        let appends = partitions.iter().map(|partition| Append {
            of: crate::place::PartitionId {
                stream: self.stream.id,
                partition: Partition(*partition),
            },
            records: vec![Record {
                key: key.into(),
                value: "{}".into(),
                headers: HeadersBuilder::default().build(),
            }],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        });
        let commit = Commit {
            appends: appends.collect(),
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap();
    }

    async fn purge(&self) {
        let (open, note) = (OpenRecords::Drop, PurgeNote::default());
        let purged = self.engine.purge_stream(self.stream.id, open, note);
        purged.await.unwrap();
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
async fn a_purge_is_told_between_what_it_removed_and_what_comes_after_it() {
    let shown = Shown::new(2).await;
    shown.commit(&[0, 1], "").await;
    shown.commit(&[0], "").await;
    let hub = |quality| shown.hub(quality, 1 << 20);
    let strict = hub(QualityOfService::ExactlyOnce);
    let before = records(&shown.frames(&strict, &Begin::Earliest).await);
    let at = |record: &String| Begin::parse(position(record), &shown.key).unwrap();
    shown.purge().await;
    shown.commit(&[1], "").await;
    shown.commit(&[0, 1], "").await;

    // Whoever has had all of it, and whoever comes anew.
    let rest = records(&shown.frames(&strict, &at(&before[3])).await);
    let is_event = |record: &String| record.starts_with("event 2 ");
    assert!(is_event(&rest[0]) && rest.len() == 4, "{rest:?}");
    let now = shown.engine.bounds(shown.stream.id).unwrap();
    let purged = now.stream.purged().unwrap().time;
    let later = Timestamp(purged.0 + 1);
    for (begin, from) in [
        (Begin::Earliest, 0),
        (Begin::Time(Timestamp(1)), 0),
        (Begin::Time(purged), 0),
        (Begin::Time(later), 1),
        (Begin::Now, 4),
    ] {
        let anew = hub(QualityOfService::ExactlyOnce);
        let seen = records(&shown.frames(&anew, &begin).await);
        assert_eq!(seen, rest[from..], "{begin:?}");
    }
    for (number, record) in rest.iter().enumerate() {
        for hub in [&strict, &hub(QualityOfService::ExactlyOnce)] {
            let behind = records(&shown.frames(hub, &at(record)).await);
            assert_eq!(behind, rest[number + 1..]);
        }
    }

    // Whoever has missed something of it.
    for record in &before[..3] {
        let begin = at(record);
        let Begin::Position(missed) = &begin else {
            panic!("{begin:?}");
        };
        let started = async |quality| {
            let (streams, stream) = (&shown.streams, shown.stream.id);
            start(streams, stream, &begin, shown.contract, quality).await
        };
        for quality in [QualityOfService::ExactlyOnce, QualityOfService::AtLeastOnce] {
            let refused = started(quality).await;
            assert!(matches!(refused, Err(StartRefused::Gone)), "{refused:?}");
            let overtaken = hub(quality).next(&missed.place).await;
            assert!(matches!(overtaken, Err(HubError::Overtaken)));
        }
        let lenient = hub(QualityOfService::AtMostOnce);
        let gap = lenient.next(&missed.place).await.unwrap();
        let said = String::from_utf8(gap.text().to_vec()).unwrap();
        assert!(said.starts_with("[gap [(Partition("), "{said}");
        let started = started(QualityOfService::AtMostOnce).await.unwrap();
        assert!(started.gap.is_some());
        assert_eq!(&started.place, gap.behind(), "connected or not");
        let frame = lenient.next(gap.behind()).await.unwrap();
        let on = records(&[frame]);
        // The making of the stream was not told to the first of them.
        let on: Vec<_> = on.iter().filter(|r| !r.starts_with("event 1 ")).collect();
        assert_eq!(on, rest.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn of_purges_the_last_is_told_to_who_comes_anew_until_something_else_is_removed() {
    let shown = Shown::new(2).await;
    shown.purge().await;
    shown.commit(&[0], "").await;
    shown.purge().await;
    shown.grow(3).await;
    shown.commit(&[0, 2], "").await;
    let anew = async || {
        let hub = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
        let seen = records(&shown.frames(&hub, &Begin::Earliest).await);
        let kind = |record: &String| record[..8].to_owned();
        seen.iter().map(kind).collect::<Vec<_>>()
    };
    let record = "00000000";
    assert_eq!(anew().await, ["event 3 ", "event 4 ", record, record]);
    let of = shown.stream.all_partitions().next().unwrap();
    shown.engine.trim(of, Offset(2)).await.unwrap();
    assert_eq!(anew().await, [record]);
}

/// A stream that held nothing has lost nothing.
#[tokio::test]
async fn a_purge_of_nothing_is_told_behind_the_making_of_the_stream() {
    let shown = Shown::new(1).await;
    shown.purge().await;
    let hub = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let waits = shown.frames(&hub, &Begin::Earliest).await;
    assert_eq!(records(&waits).len(), 2);
    let place = waits.last().unwrap().behind().clone();
    let comes = async {
        tokio::task::yield_now().await;
        shown.commit(&[0], "").await;
        shown.purge().await;
    };
    // What was purged before it was sent is not passed in silence, nor waited for.
    let (next, ()) = tokio::join!(hub.next(&place), comes);
    assert!(matches!(next, Err(HubError::Overtaken)), "{next:?}");
}
