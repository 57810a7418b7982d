//! The whole contents of an engine, read through the traits and checked for consistency.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    model::{
        ids::{Offset, PartitionId},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
    storage::{Engine, PartitionStatus, ReadError, StateEntry, Stream},
};

/// All streams and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) streams: Vec<StreamContent>,
    pub(crate) state: Vec<(Arc<str>, StateEntry)>,
}

/// A stream with all its records.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamContent {
    pub(crate) stream: Stream,
    pub(crate) partitions: Vec<PartitionContent>,
}

/// A partition with all its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartitionContent {
    pub(crate) status: PartitionStatus,
    pub(crate) records: Vec<StoredRecord>,
    /// Retained records that have an end.
    pub(crate) ended: BTreeSet<u64>,
}

impl Content {
    /// Reads everything; the engine is not used by others meanwhile.
    pub(crate) async fn of(engine: &dyn Engine) -> Self {
        let mut streams = Vec::new();
        for stream in engine.streams() {
            assert_eq!(engine.stream(&stream.name).as_ref(), Some(&stream));
            assert_eq!(engine.stream_by_id(stream.id).as_ref(), Some(&stream));
            let mut partitions = Vec::new();
            for of in stream.all_partitions() {
                partitions.push(PartitionContent::of(engine, of).await);
            }
            streams.push(StreamContent {
                stream: stream.as_ref().clone(),
                partitions,
            });
        }
        let names: Vec<_> = streams.iter().map(|stream| &stream.stream.name).collect();
        assert!(names.is_sorted(), "streams come by name: {names:?}");
        let state = engine.list("").await;
        for (key, entry) in &state {
            assert_eq!(engine.get(key).await.as_ref(), Some(entry), "{key}");
        }
        Self { streams, state }
    }

    /// Fails with the first difference.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Self, when: &str) {
        let names = |content: &Self| -> Vec<_> {
            let names = content.streams.iter();
            names.map(|stream| stream.stream.name.clone()).collect()
        };
        assert_eq!(names(self), names(other), "streams {when}");
        for (one, two) in self.streams.iter().zip(&other.streams) {
            let name = &one.stream.name;
            assert_eq!(one.stream, two.stream, "{when}");
            assert_eq!(
                one.partitions.len(),
                two.partitions.len(),
                "partitions of {name} {when}"
            );
            for (number, (one, two)) in one.partitions.iter().zip(&two.partitions).enumerate() {
                let of = format!("{name}/{number} {when}");
                assert_eq!(one.status, two.status, "status of {of}");
                assert_eq!(one.ended, two.ended, "ends of {of}");
                assert_eq!(one.records.len(), two.records.len(), "records of {of}");
                for (one, two) in one.records.iter().zip(&two.records) {
                    assert_eq!(one, two, "record of {of}");
                }
            }
        }
        let state = |content: &Self| -> Vec<_> {
            let entries = content.state.iter();
            entries
                .map(|(key, entry)| (key.clone(), entry.revision, entry.value.len()))
                .collect()
        };
        assert_eq!(state(self), state(other), "state {when}");
        assert!(self == other, "bytes of state {when}");
    }
}

impl PartitionContent {
    async fn of(engine: &dyn Engine, of: PartitionId) -> Self {
        let status = engine.status(of).unwrap();
        let bounds = status.bounds;
        assert!(bounds.earliest <= bounds.tail, "{of}: {bounds:?}");
        assert_eq!(*engine.tail(of).unwrap().borrow(), bounds.tail, "{of}");

        let mut records: Vec<StoredRecord> = Vec::new();
        let mut next = bounds.earliest;
        while next < bounds.tail {
            let page = engine.read(of, next, 50_000).await;
            let page = page.unwrap_or_else(|error| panic!("{of}/{next}: {error}"));
            assert_eq!(page.bounds, bounds, "{of}");
            assert!(!page.records.is_empty(), "{of}/{next} of {bounds:?}");
            records.extend(page.records);
            next = page.next;
        }
        let retained = bounds.earliest.0..bounds.tail.0;
        let offsets = records.iter().map(|record| record.offset.0);
        assert!(offsets.eq(retained.clone()), "{of} is not dense");
        let times: Vec<Timestamp> = records.iter().map(|record| record.time).collect();
        assert!(times.is_sorted(), "{of}: times go back");
        if let Some(below) = bounds.earliest.0.checked_sub(1) {
            let trimmed = engine.read(of, Offset(below), 1).await;
            assert!(matches!(trimmed, Err(ReadError::Trimmed { .. })), "{of}");
        }

        let around = Offset(bounds.earliest.0.saturating_sub(3))..bounds.tail.plus(3);
        let settled = engine.settled_offsets(of, around.clone()).unwrap();
        let is_ended = |offset: &u64| settled.contains(Offset(*offset));
        assert!(
            (around.start.0..bounds.earliest.0).all(|n| is_ended(&n)),
            "{of}"
        );
        assert!(
            !(bounds.tail.0..around.end.0).any(|n| is_ended(&n)),
            "{of}: an end beyond the tail"
        );
        let ended: BTreeSet<u64> = retained.clone().filter(is_ended).collect();
        let first_open = retained.clone().find(|offset| !ended.contains(offset));
        assert_eq!(
            status.low_mark.0,
            first_open.unwrap_or(bounds.tail.0),
            "low mark of {of}"
        );
        let counts = status.counts;
        assert_eq!(counts.appended_len(), bounds.tail.0, "{of}: {counts:?}");
        let open = (bounds.tail.0 - bounds.earliest.0) - ended.len() as u64;
        assert_eq!(
            counts.ended_len() + open,
            bounds.tail.0,
            "{of}: the books do not balance: {counts:?}"
        );
        Self {
            status,
            records,
            ended,
        }
    }
}
