//! Order, resuming and sharing, beginnings and ends, over the engine's double: what each subscriber is promised, whatever
//! the log does and whatever happens to its data stream.

mod ends;
mod order;
mod purges;
mod starts;
mod turns;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use proptest::{collection::vec, prelude::*};

use super::{
    Asked, End, Push, Settings, SubscribeError, Subscription,
    encode::Scratch,
    feed::{
        frame::Frame,
        frames::Shares,
        gaps::{Gaps, Missing},
        hub::{Encode, Encoded, Hub, HubError, HubParts},
    },
    position::{ClientPosition, Contract, PositionKey, StreamPlace},
    resource::QualityOfService,
    subscribe::{
        begin::Begin,
        reader::FrameReader,
        start::{StartRefused, start},
    },
};
use crate::{
    config::Config,
    log::Streams,
    model::{
        ids::{Incarnation, Offset, Partition},
        record::{HeadersBuilder, Record, StoredRecord},
    },
    runtime::{
        clock::{Clock, Timestamp},
        tasks::Tasks,
    },
    storage::{
        Append, AppendKind, Commit, CommitError, ControlEvent, Engine, Log as _, OpenRecords,
        PurgeNote, Stream, StreamConfig, memory::Memory,
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
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded {
        if record.record.key == "left out" {
            return Encoded::LeftOut;
        }
        let place = format!("{:020}.{partition}.{} ", record.time.0, record.offset);
        out.extend_from_slice(place.as_bytes());
        pos(out);
        Encoded::Taken
    }

    fn event(
        &self,
        number: u64,
        _event: &ControlEvent,
        _now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        _scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded {
        out.extend_from_slice(format!("event {number} ").as_bytes());
        pos(out);
        Encoded::Taken
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
            of: crate::model::ids::PartitionId {
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

    fn hub(&self, quality: QualityOfService, frame_bytes: usize) -> Arc<Hub> {
        self.hub_with(Box::new(Places), quality, frame_bytes)
    }

    fn hub_with(
        &self,
        encode: Box<dyn Encode>,
        quality: QualityOfService,
        frame_bytes: usize,
    ) -> Arc<Hub> {
        let parts = HubParts {
            name: "s1".parse().unwrap(),
            streams: self.streams.clone(),
            stream: self.stream.id,
            encode,
            key: self.key.clone(),
            contract: self.contract,
            quality,
            frame_bytes,
            clock: Clock::manual(Timestamp(1)),
            gaps: self.gaps.clone(),
            shares: Shares::default(),
            tasks: Tasks::new(),
        };
        Arc::new(Hub::new(parts, &self.stream))
    }

    /// Returns all frames from a place to the present tail.
    async fn frames(&self, hub: &Arc<Hub>, begin: &Begin) -> Vec<Arc<Frame>> {
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
