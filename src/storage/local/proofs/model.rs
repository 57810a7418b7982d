//! The model: a simple engine on vectors. The real engine must have the same contents.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    model::{
        ids::{Incarnation, Offset, PartitionId, StreamId, StreamName},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
    storage::{
        Appended, Commit, ControlEvent, ControlEventKind, Counts, DedupId, Engine, NewSettlement,
        OpenRecords, PurgeNote, Settle, StateEntry, Stream, StreamConfig,
        conformance::content::{Content, PartitionContent, StreamContent},
    },
};

/// What the engine should hold. A time or revision of 0 is one that nobody has been told yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) content: Content,
    dedup: HashMap<DedupId, Answer>,
}

/// Where the records of a commit are, and the reply if it repeats another.
pub(super) type Answer = (Vec<Appended>, Option<Bytes>);

impl Model {
    pub(super) fn partition(&self, of: PartitionId) -> Option<&PartitionContent> {
        let stream = self
            .content
            .streams
            .iter()
            .find(|s| s.stream.id == of.stream);
        stream?.partitions.get(usize::from(of.partition.0))
    }

    fn partition_mut(&mut self, of: PartitionId) -> Option<&mut PartitionContent> {
        let mut streams = self.content.streams.iter_mut();
        let stream = streams.find(|s| s.stream.id == of.stream);
        stream?.partitions.get_mut(usize::from(of.partition.0))
    }

    /// Returns what is there after a commit, and its answer; `None` if it must be refused.
    pub(super) fn commit(&self, commit: &Commit) -> Option<(Self, Answer)> {
        let mut after = self.clone();
        let known = commit.dedup.as_ref().and_then(|d| self.dedup.get(&d.id));
        if let Some(known) = known {
            return Some((after, known.clone()));
        }
        for settle in &commit.settles {
            after.settle(settle)?;
        }
        for change in &commit.state {
            let found = self
                .content
                .state
                .iter()
                .position(|(key, _)| *key == change.key);
            let there = found.map_or(0, |at| self.content.state[at].1.revision);
            if change.expected.is_some_and(|expected| expected != there) {
                return None;
            }
            after.put(&change.key, change.value.as_ref());
        }
        let mut appends = Vec::new();
        for append in &commit.appends {
            let partition = after.partition_mut(append.of)?;
            let first = partition.status.bounds.tail;
            partition.append(&append.records, append.kind as usize);
            appends.push(Appended {
                of: append.of,
                first,
                len: append.records.len() as u64,
            });
        }
        if let Some(dedup) = &commit.dedup {
            let again = (appends.clone(), Some(dedup.reply.clone()));
            after.dedup.insert(dedup.id, again);
        }
        Some((after, (appends, None)))
    }

    /// Ends a record; `None` if it cannot end.
    pub(super) fn settle(&mut self, settle: &Settle) -> Option<()> {
        let partition = self.partition_mut(settle.of)?;
        let bounds = partition.status.bounds;
        if settle.offset < bounds.earliest
            || settle.offset >= bounds.tail
            || !partition.ended.insert(settle.offset.0)
        {
            return None;
        }
        let counts = &mut partition.status.counts;
        *match settle.end {
            NewSettlement::Delivered => &mut counts.delivered,
            NewSettlement::Filtered => &mut counts.filtered,
            NewSettlement::Discarded => &mut counts.discarded,
            NewSettlement::Routed { .. } => &mut counts.routed,
            NewSettlement::Moved { .. } => &mut counts.moved,
        } += 1;
        partition.move_low_mark();
        Some(())
    }

    fn put(&mut self, key: &Arc<str>, value: Option<&Bytes>) {
        let state = &mut self.content.state;
        state.retain(|(there, _)| there != key);
        if let Some(value) = value {
            let entry = StateEntry {
                revision: 0,
                value: value.clone(),
            };
            state.push((key.clone(), entry));
            state.sort_by(|a, b| a.0.cmp(&b.0));
        }
    }

    pub(super) fn trim(&self, of: PartitionId, below: Offset) -> Option<Self> {
        let mut after = self.clone();
        after.partition_mut(of)?.trim(below);
        Some(after)
    }

    pub(super) fn create(
        &self,
        name: StreamName,
        partitions: u16,
        config: StreamConfig,
    ) -> Option<Self> {
        if self.content.streams.iter().any(|s| s.stream.name == name) {
            return None;
        }
        let mut after = self.clone();
        let made = ControlEvent {
            kind: ControlEventKind::Created { partitions },
            time: Timestamp(0),
            tails: vec![Offset(0); partitions.into()],
        };
        after.content.streams.push(StreamContent {
            stream: Stream {
                id: StreamId([0; 16]),
                incarnation: Incarnation(0),
                name,
                partitions,
                config,
                revision: 0,
                events: vec![made],
                last_purge: None,
            },
            partitions: vec![PartitionContent::default(); partitions.into()],
        });
        let streams = &mut after.content.streams;
        streams.sort_by(|a, b| a.stream.name.cmp(&b.stream.name));
        Some(after)
    }

    pub(super) fn grow(&self, id: StreamId, partitions: u16, config: StreamConfig) -> Option<Self> {
        let mut after = self.clone();
        let mut streams = after.content.streams.iter_mut();
        let stream = streams.find(|s| s.stream.id == id)?;
        if partitions < stream.stream.partitions {
            return None;
        }
        if partitions > stream.stream.partitions {
            let tails = stream.partitions.iter().map(|p| p.status.bounds.tail);
            stream.stream.events.push(ControlEvent {
                kind: ControlEventKind::Grown { partitions },
                time: Timestamp(0),
                tails: tails.collect(),
            });
        }
        let added = PartitionContent::default();
        stream.partitions.resize(partitions.into(), added);
        stream.stream.partitions = partitions;
        stream.stream.config = config;
        stream.stream.revision = 0;
        Some(after)
    }

    /// Returns what is there after a purge; `None` if it must be refused.
    pub(super) fn purge(&self, id: StreamId, open: OpenRecords, note: PurgeNote) -> Option<Self> {
        let mut after = self.clone();
        let mut streams = after.content.streams.iter_mut();
        let StreamContent { stream, partitions } = streams.find(|s| s.stream.id == id)?;
        let counts = || partitions.iter().map(|p| p.status.counts);
        let open_len: u64 = counts().map(|counts| counts.open_len()).sum();
        if open == OpenRecords::Refuse && open_len > 0 {
            return None;
        }
        let tails = partitions.iter().map(|p| p.status.bounds.tail);
        let tails: Vec<_> = tails.collect();
        let last = stream.events.last();
        if last.is_some_and(|last| last.kind == ControlEventKind::Purged && last.tails == tails) {
            return Some(after);
        }
        for partition in partitions {
            let counts = partition.status.counts;
            partition.trim(Offset(u64::MAX));
            partition.status.counts = counts;
            partition.status.counts.discarded += counts.open_len();
        }
        *stream = stream.after_purge(Timestamp(0), tails, note);
        stream.revision = 0;
        Some(after)
    }

    pub(super) fn delete(&self, id: StreamId) -> Option<Self> {
        let mut after = self.clone();
        let before = after.content.streams.len();
        after.content.streams.retain(|s| s.stream.id != id);
        (after.content.streams.len() < before).then_some(after)
    }

    /// Notes the time of the commit that was made last.
    pub(super) fn told_time(&mut self, time: Timestamp) {
        let partitions = self
            .content
            .streams
            .iter_mut()
            .flat_map(|s| &mut s.partitions);
        let records = partitions.flat_map(|partition| partition.records.iter_mut().rev());
        records
            .filter(|record| record.time == Timestamp(0))
            .for_each(|record| record.time = time);
    }

    /// Takes from the engine what only the engine can know, where the rest agrees.
    pub(super) fn told(&mut self, seen: &Content) {
        let by_name = |name| seen.streams.iter().find(|s| s.stream.name == name);
        for mine in &mut self.content.streams {
            let Some(seen) = by_name(mine.stream.name.clone()) else {
                continue;
            };
            if mine.stream.revision == 0 && is_told_rightly(&mine.stream, &seen.stream) {
                mine.stream = seen.stream.clone();
            }
            for (mine, seen) in mine.partitions.iter_mut().zip(&seen.partitions) {
                for (mine, seen) in mine.records.iter_mut().zip(&seen.records) {
                    if mine.time == Timestamp(0) {
                        mine.time = seen.time;
                    }
                }
            }
        }
        let newest = self.content.state.iter().map(|(_, entry)| entry.revision);
        let newest = newest.max().unwrap_or(0);
        for (key, entry) in &mut self.content.state {
            let found = seen.state.iter().find(|(seen, _)| seen == key);
            if let Some((_, seen)) = found
                && entry.revision == 0
                && seen.revision > newest
            {
                entry.revision = seen.revision;
            }
        }
    }

    /// Returns whether the engine holds this, with those of `soft` that it has stored (nobody waited for them).
    pub(super) fn matches(&mut self, seen: &Content, soft: &[Settle]) -> bool {
        self.told(seen);
        for settle in soft {
            let streams = || seen.streams.iter();
            let stream = streams().find(|s| s.stream.id == settle.of.stream);
            let partition = usize::from(settle.of.partition.0);
            let ended = stream
                .and_then(|stream| stream.partitions.get(partition))
                .is_some_and(|partition| partition.ended.contains(&settle.offset.0));
            if ended {
                let _already = self.settle(settle);
            }
        }
        self.content == *seen
    }
}

fn is_told_rightly(mine: &Stream, seen: &Stream) -> bool {
    let events = || mine.events.iter().zip(&seen.events);
    let is_new = mine.id == StreamId([0; 16]);
    (mine.partitions, &mine.config, &mine.last_purge)
        == (seen.partitions, &seen.config, &seen.last_purge)
        && (is_new || (mine.id, mine.incarnation) == (seen.id, seen.incarnation))
        && seen.revision > 0
        && mine.events.len() == seen.events.len()
        && events().all(|(mine, seen)| {
            let known = mine.time != Timestamp(0);
            let same_tails = seen.tails.starts_with(&mine.tails);
            (!known || mine == seen) && mine.kind == seen.kind && same_tails
        })
}

impl PartitionContent {
    fn append(&mut self, records: &[crate::model::record::Record], kind: usize) {
        let bounds = &mut self.status.bounds;
        for record in records {
            self.records.push(StoredRecord {
                offset: bounds.tail,
                time: Timestamp(0),
                record: record.clone(),
            });
            bounds.tail = bounds.tail.next();
        }
        self.status.counts.appended[kind] += records.len() as u64;
        self.move_low_mark();
    }

    fn trim(&mut self, below: Offset) {
        let bounds = &mut self.status.bounds;
        let below = below.min(bounds.tail).max(bounds.earliest);
        let gone = bounds.earliest.0..below.0;
        let expired = gone.filter(|offset| !self.ended.contains(offset)).count();
        self.status.counts.expired += expired as u64;
        bounds.earliest = below;
        self.ended = self.ended.split_off(&below.0);
        self.records.retain(|record| record.offset >= below);
        self.move_low_mark();
    }

    fn move_low_mark(&mut self) {
        let bounds = self.status.bounds;
        let mut retained = bounds.earliest.0..bounds.tail.0;
        let open = retained.find(|offset| !self.ended.contains(offset));
        self.status.low_mark = open.map_or(bounds.tail, Offset);
    }
}

/// What an engine lets others see at a moment when its disk may be gone: a reader may have acted on it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    partitions: Vec<(PartitionId, Offset, Counts, Vec<Offset>)>,
    streams: Vec<Arc<Stream>>,
    state: Vec<(Arc<str>, u64)>,
}

impl Seen {
    pub(super) async fn of(engine: &dyn Engine) -> Self {
        let mut seen = Self {
            streams: engine.streams(),
            ..Self::default()
        };
        for of in seen.streams.iter().flat_map(|s| s.all_partitions()) {
            // Deleted meanwhile by a call that nobody waits for any more.
            let (Ok(status), Ok(tail)) = (engine.status(of), engine.tail(of)) else {
                continue;
            };
            let tail = status.bounds.tail.max(*tail.borrow());
            let range = status.bounds.earliest..tail;
            let settled = engine.settled_offsets(of, range.clone()).unwrap();
            let ended = (range.start.0..range.end.0).map(Offset);
            let ended = ended.filter(|offset| settled.contains(*offset)).collect();
            seen.partitions.push((of, tail, status.counts, ended));
        }
        let state = engine.list("").await.into_iter();
        seen.state = state.map(|(key, entry)| (key, entry.revision)).collect();
        seen
    }

    /// Fails if anything seen is not there after a crash. What was `answered` before may have been removed by a call
    /// that was on its way.
    #[track_caller]
    pub(super) fn assert_kept(&self, content: &Content, answered: &Model) {
        let streams = || content.streams.iter();
        for seen in &self.streams {
            let kept = streams().find(|s| s.stream.id == seen.id);
            let was_there = |s: &StreamContent| s.stream == **seen;
            let fine = match kept {
                Some(kept) => kept.stream.revision >= seen.revision,
                None => answered.content.streams.iter().any(was_there),
            };
            assert!(fine, "stream {} was seen and is gone", seen.name);
        }
        for (of, tail, counts, ended) in &self.partitions {
            let Some(stream) = streams().find(|s| s.stream.id == of.stream) else {
                continue;
            };
            let kept = &stream.partitions[usize::from(of.partition.0)];
            let bounds = kept.status.bounds;
            assert!(
                bounds.tail >= *tail,
                "{of}: a reader saw the tail at {tail}"
            );
            let lost = ended
                .iter()
                .find(|o| **o >= bounds.earliest && !kept.ended.contains(&o.0));
            assert!(lost.is_none(), "{of}: the end of {lost:?} was seen");
            let now = kept.status.counts;
            assert!(
                now.appended_len() >= counts.appended_len()
                    && now.ended_len() >= counts.ended_len(),
                "{of}: counts go back from {counts:?} to {now:?}"
            );
        }
        let revision_of = |content: &Content, key| {
            let found = content.state.iter().find(|(there, _)| there == key);
            found.map(|(_, entry)| entry.revision)
        };
        for (key, revision) in &self.state {
            let fine = match revision_of(content, key) {
                Some(kept) => kept >= *revision,
                None => revision_of(&answered.content, key) == Some(*revision),
            };
            assert!(fine, "state {key} goes back from revision {revision}");
        }
    }
}
