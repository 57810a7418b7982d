//! An engine for tests of what lies above the seam: in memory, and it refuses when it is told to.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::{
    model::{
        ids::{Incarnation, Offset, PartitionId, StreamId, StreamName},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
};

use super::{
    Appended, Bounds, Caps, Commit, CommitError, Committed, ControlEvent, ControlEventKind, Counts,
    DedupId, Health, Keep, LeaseEvent, Leases, Ledger, Log, NewSettlement, OpenRecords, Page,
    PartitionStatus, PurgeNote, Purged, PurgedPartition, ReadError, Settle, SettledOffsets, Space,
    State, StateEntry, Stream, StreamBounds, StreamConfig, StreamError, StreamLedger,
    shares::{ShareBytes, exceeded, share_of, state_cost},
};

/// The engine.
#[derive(Debug)]
pub(crate) struct Memory {
    inner: Mutex<Inner>,
    health: watch::Sender<Health>,
    changed: watch::Sender<u64>,
    silent: AtomicBool,
    held: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    streams: Vec<Arc<Stream>>,
    partitions: HashMap<PartitionId, Part>,
    state: BTreeMap<Arc<str>, StateEntry>,
    revision: u64,
    refusals: VecDeque<CommitError>,
    dedup: HashMap<(StreamId, DedupId), Committed>,
    referred: HashMap<Arc<str>, Timestamp>,
    commits_len: usize,
}

#[derive(Debug)]
struct Part {
    records: Vec<StoredRecord>,
    earliest: Offset,
    ended: HashSet<Offset>,
    /// How many of these a purge has ended.
    discarded: u64,
    lost: Vec<Range<Offset>>,
    /// A record that cannot be read.
    damaged: Option<Offset>,
    tail: watch::Sender<Offset>,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            health: watch::Sender::new(Health::Running),
            changed: watch::Sender::new(0),
            silent: AtomicBool::new(false),
            held: watch::Sender::new(false),
        })
    }

    /// Answers the next commit so; several calls queue up.
    pub(crate) fn refuse(&self, error: CommitError) {
        self.inner.lock().unwrap().refusals.push_back(error);
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// From now on commits are stored and not answered.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// From now on commits, and looks at the disk, wait as behind a slow disk, or no longer.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How many commits wait so.
    pub(crate) fn held_len(&self) -> usize {
        self.held.receiver_count()
    }

    /// From now on a record cannot be read, or can be again.
    pub(crate) fn damage(&self, of: PartitionId, damaged: Option<Offset>) {
        let mut inner = self.inner.lock().unwrap();
        inner.partitions.get_mut(&of).unwrap().damaged = damaged;
    }

    /// A record was stored at another time, as by a clock that was wrong.
    pub(crate) fn stored_at(&self, of: PartitionId, offset: Offset, time: Timestamp) {
        let mut inner = self.inner.lock().unwrap();
        let part = inner.partitions.get_mut(&of).unwrap();
        let record = part
            .records
            .iter_mut()
            .find(|record| record.offset == offset);
        record.unwrap().time = time;
    }

    /// Has lost records to damage, which somebody has accepted.
    pub(crate) fn lose(&self, of: PartitionId, offsets: Range<u64>) {
        let mut inner = self.inner.lock().unwrap();
        let lost = Offset(offsets.start)..Offset(offsets.end);
        inner.partitions.get_mut(&of).unwrap().lost.push(lost);
    }

    /// How many commits were stored.
    pub(crate) fn commits_len(&self) -> usize {
        self.inner.lock().unwrap().commits_len
    }

    fn store(&self, commit: Commit) -> Result<Committed, CommitError> {
        let mut inner = self.inner.lock().unwrap();
        if let Some(refusal) = inner.refusals.pop_front() {
            return Err(refusal);
        }
        let dedup = commit.dedup.as_ref().map(|dedup| {
            let stream = commit.appends[0].of.stream;
            ((stream, dedup.id), dedup.reply.clone())
        });
        if let Some((key, _)) = &dedup
            && let Some(first) = inner.dedup.get(key)
        {
            return Ok(first.clone());
        }
        for change in &commit.state {
            let found = inner
                .state
                .get(&change.key)
                .map_or(0, |entry| entry.revision);
            if change.expected.is_some_and(|expected| expected != found) {
                let key = change.key.clone();
                return Err(CommitError::StateConflict { key });
            }
        }
        let before = inner.share_bytes();
        let mut after = before;
        for change in &commit.state {
            let share = &mut after[share_of(&change.key)];
            if let Some(old) = inner.state.get(&change.key) {
                *share -= state_cost(&change.key, &old.value);
            }
            *share += change
                .value
                .as_ref()
                .map_or(0, |value| state_cost(&change.key, value));
        }
        if let Some(share) = exceeded(&before, &after) {
            let (kind, bytes_max) = (share.kind, share.bytes_max);
            return Err(CommitError::StateFull { kind, bytes_max });
        }
        let removed = |key: &Arc<str>| {
            let mut state = commit.state.iter();
            state.any(|change| change.key == *key && change.value.is_none())
        };
        if let Some(since) = commit.unreferred_since {
            let mut needed = inner.referred.iter().filter(|(_, at)| **at >= since);
            if let Some((key, _)) = needed.find(|(key, _)| removed(key)) {
                return Err(CommitError::StateConflict { key: key.clone() });
            }
        }
        for append in &commit.appends {
            if !inner.partitions.contains_key(&append.of) {
                return Err(CommitError::PartitionUnknown(append.of));
            }
            for key in &append.refers {
                let made = commit.state.iter().any(|change| change.key == *key);
                let there = made || inner.state.contains_key(key);
                if append.kind.is_from_outside() && (!there || removed(key)) {
                    return Err(CommitError::StateConflict { key: key.clone() });
                }
            }
        }
        inner.revision += 1;
        inner.commits_len += 1;
        let (revision, time) = (inner.revision, Timestamp(inner.revision * 1_000_000));
        for change in commit.state {
            match change.value {
                Some(value) => {
                    let entry = StateEntry { revision, value };
                    inner.state.insert(change.key, entry);
                }
                None => drop(inner.state.remove(&change.key)),
            }
        }
        let mut appends = Vec::new();
        let refers = commit.appends.iter().flat_map(|append| &append.refers);
        let referred = refers.map(|key| (key.clone(), time));
        inner.referred.extend(referred);
        for append in commit.appends {
            let (of, len) = (append.of, append.records.len() as u64);
            let part = inner.partitions.get_mut(&of).unwrap();
            let first = part.bounds().tail;
            for record in append.records {
                let offset = part.bounds().tail;
                part.records.push(StoredRecord {
                    offset,
                    time,
                    record,
                });
            }
            part.tail.send_replace(part.bounds().tail);
            appends.push(Appended { of, first, len });
        }
        for Settle {
            of, offset, end, ..
        } in commit.settles
        {
            assert_eq!(end, NewSettlement::Delivered, "the tests need no other");
            inner.partitions.get_mut(&of).unwrap().ended.insert(offset);
        }
        let committed = Committed {
            time,
            appends,
            repeats: None,
        };
        if let Some((key, reply)) = dedup {
            let repeats = Some(reply);
            let again = Committed {
                repeats,
                ..committed.clone()
            };
            inner.dedup.insert(key, again);
        }
        Ok(committed)
    }

    /// Changes a state value behind everybody's back.
    pub(crate) fn tamper(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner.lock().unwrap();
        let entry = inner.state.get_mut(key).unwrap();
        let mut value = entry.value.to_vec();
        change(&mut value);
        entry.value = value.into();
        entry.revision += 1_000_000;
    }

    /// All state, as text where it is text.
    pub(crate) fn state_text(&self) -> String {
        let inner = self.inner.lock().unwrap();
        let line = |(key, entry): (&Arc<str>, &StateEntry)| {
            format!("{key}={}\n", String::from_utf8_lossy(&entry.value))
        };
        inner.state.iter().map(line).collect()
    }
}

impl Inner {
    fn share_bytes(&self) -> ShareBytes {
        let mut bytes = ShareBytes::default();
        for (key, entry) in &self.state {
            bytes[share_of(key)] += state_cost(key, &entry.value);
        }
        bytes
    }

    fn part(&self, of: PartitionId) -> Result<&Part, ReadError> {
        self.partitions
            .get(&of)
            .ok_or(ReadError::PartitionUnknown(of))
    }
}

impl Part {
    fn new() -> Self {
        Self {
            records: Vec::new(),
            earliest: Offset(0),
            ended: HashSet::new(),
            discarded: 0,
            lost: Vec::new(),
            damaged: None,
            tail: watch::Sender::new(Offset(0)),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            earliest: self.earliest,
            tail: Offset(self.records.len() as u64),
        }
    }

    fn to_purge(&self) -> PurgedPartition {
        let bounds = self.bounds();
        PurgedPartition {
            bounds,
            discarded: bounds.tail.0 - self.ended.len() as u64,
        }
    }
}

#[async_trait]
impl Log for Memory {
    fn caps(&self) -> Caps {
        Caps {
            commit_over_partitions: true,
            settle_atomic: true,
            dedup: true,
            trim: true,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        let committed = self.store(commit);
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        committed
    }

    fn committed(&self, stream: StreamId, id: DedupId) -> Option<Committed> {
        let inner = self.inner.lock().unwrap();
        inner.dedup.get(&(stream, id)).cloned()
    }

    fn settle_soon(&self, _settle: Settle) -> Result<(), CommitError> {
        Err(CommitError::Busy)
    }

    async fn read(
        &self,
        of: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Page, ReadError> {
        let inner = self.inner.lock().unwrap();
        let part = inner.part(of)?;
        let bounds = part.bounds();
        if from < bounds.earliest {
            return Err(ReadError::Trimmed {
                wanted: from,
                earliest: bounds.earliest,
            });
        }
        if part.damaged == Some(from) {
            return Err(ReadError::Damaged("on purpose".into()));
        }
        let mut records: Vec<StoredRecord> = Vec::new();
        let mut bytes = 0;
        let is_lost = |offset: &Offset| part.lost.iter().any(|lost| lost.contains(offset));
        let there = |record: &&StoredRecord| record.offset >= from && !is_lost(&record.offset);
        for record in part.records.iter().filter(there) {
            bytes += record.record.bytes_len();
            if !records.is_empty() && bytes > bytes_max {
                break;
            }
            records.push(record.clone());
        }
        let next = records
            .last()
            .map_or(bounds.tail, |last| last.offset.next());
        Ok(Page {
            records,
            next,
            bounds,
        })
    }

    fn status(&self, of: PartitionId) -> Result<PartitionStatus, ReadError> {
        let inner = self.inner.lock().unwrap();
        let part = inner.part(of)?;
        let open = |offset: &u64| !part.ended.contains(&Offset(*offset));
        let tail = part.bounds().tail.0;
        let mut counts = Counts::default();
        counts.appended[0] = tail;
        counts.delivered = part.ended.len() as u64 - part.discarded;
        counts.discarded = part.discarded;
        Ok(PartitionStatus {
            bounds: part.bounds(),
            low_mark: Offset((0..tail).find(open).unwrap_or(tail)),
            counts,
        })
    }

    fn bounds(&self, stream: StreamId) -> Option<StreamBounds> {
        let inner = self.inner.lock().unwrap();
        let stream = inner.streams.iter().find(|known| known.id == stream)?;
        let bounds = |of| Some(inner.part(of).ok()?.bounds());
        Some(StreamBounds {
            stream: stream.clone(),
            partitions: stream.all_partitions().map(bounds).collect::<Option<_>>()?,
            lost: stream
                .all_partitions()
                .flat_map(|of| {
                    let lost = inner.part(of).map_or(Vec::new(), |part| part.lost.clone());
                    lost.into_iter().map(move |lost| (of.partition, lost))
                })
                .collect(),
        })
    }

    fn ledger(&self) -> Ledger {
        let streams = self.inner.lock().unwrap().streams.clone();
        let rows = streams.into_iter().map(|stream| {
            let mut counts = Counts::default();
            for of in stream.all_partitions() {
                counts.add(&self.status(of).unwrap().counts);
            }
            let (placed, open) = (counts.appended_len(), counts.open_len());
            StreamLedger {
                stream,
                counts,
                placed,
                open,
            }
        });
        Ledger {
            losses_len: 0,
            unmatched: 0,
            streams: rows.collect(),
            gone: Counts::default(),
        }
    }

    fn tail(&self, of: PartitionId) -> Result<watch::Receiver<Offset>, ReadError> {
        Ok(self.inner.lock().unwrap().part(of)?.tail.subscribe())
    }

    fn settled_offsets(
        &self,
        of: PartitionId,
        offsets: Range<Offset>,
    ) -> Result<SettledOffsets, ReadError> {
        let inner = self.inner.lock().unwrap();
        let len = usize::try_from(offsets.end.0 - offsets.start.0).unwrap();
        let mut settled = SettledOffsets::none(offsets.start, len);
        for offset in &inner.part(of)?.ended {
            settled.set(*offset);
        }
        Ok(settled)
    }

    fn open_offsets(
        &self,
        of: PartitionId,
        from: Offset,
        len_max: usize,
    ) -> Result<Vec<Offset>, ReadError> {
        let inner = self.inner.lock().unwrap();
        let part = inner.part(of)?;
        let Bounds { earliest, tail } = part.bounds();
        let all = (from.max(earliest).0..tail.0).map(Offset);
        let open = all.filter(|offset| !part.ended.contains(offset));
        Ok(open.take(len_max).collect())
    }

    /// As near as a block's head is: the first of four records has its own time, the others have that one's.
    async fn not_before(&self, places: &[(PartitionId, Offset)]) -> Vec<Timestamp> {
        let inner = self.inner.lock().unwrap();
        let time = |(of, from): &(PartitionId, Offset)| {
            let part = inner.part(*of).ok()?;
            let is_lost = |offset| part.lost.iter().any(|lost| lost.contains(&offset));
            if *from < part.bounds().earliest || part.damaged == Some(*from) {
                return None;
            }
            let mut behind = part.records.iter();
            let found = behind.find(|record| record.offset >= *from && !is_lost(record.offset))?;
            let head = Offset(found.offset.0 / 4 * 4);
            let head = part.records.iter().find(|record| record.offset == head);
            Some(head.map_or(found.time, |head| head.time.min(found.time)))
        };
        let times = places.iter().map(|place| time(place).unwrap_or_default());
        times.collect()
    }

    async fn offset_at(&self, of: PartitionId, time: Timestamp) -> Result<Offset, ReadError> {
        let inner = self.inner.lock().unwrap();
        let part = inner.part(of)?;
        let found = part.records.iter().find(|record| record.time >= time);
        Ok(found.map_or(part.bounds().tail, |record| record.offset))
    }

    async fn first_kept(&self, stream: StreamId, keep: Keep) -> Result<Vec<Offset>, ReadError> {
        assert_eq!(keep.bytes_max, None, "the tests need none");
        let stream = self.stream_by_id(stream).unwrap();
        let mut kept = Vec::new();
        for of in stream.all_partitions() {
            kept.push(self.offset_at(of, keep.since.unwrap_or_default()).await?);
        }
        Ok(kept)
    }

    async fn trim(&self, of: PartitionId, below: Offset) -> Result<(), CommitError> {
        let mut inner = self.inner.lock().unwrap();
        inner.partitions.get_mut(&of).unwrap().earliest = below;
        Ok(())
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        let mut streams = self.inner.lock().unwrap().streams.clone();
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        streams
    }

    fn stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.streams().into_iter().find(|s| s.name == *name)
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.streams().into_iter().find(|s| s.id == id)
    }

    fn streams_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn create_stream(
        &self,
        name: StreamName,
        partitions: u16,
        config: StreamConfig,
    ) -> Result<Arc<Stream>, StreamError> {
        let mut inner = self.inner.lock().unwrap();
        let taken = |text: &str| inner.streams.iter().any(|stream| stream.is_called(text));
        if taken(name.as_str()) || config.ocid.as_deref().is_some_and(taken) {
            return Err(StreamError::Exists);
        }
        inner.revision += 1;
        let revision = inner.revision;
        let stream = Arc::new(Stream {
            id: StreamId(u128::from(revision).to_be_bytes()),
            incarnation: Incarnation(revision),
            name,
            partitions,
            config,
            revision,
            events: vec![ControlEvent {
                kind: ControlEventKind::Created { partitions },
                time: Timestamp(revision * 1_000_000),
                tails: vec![Offset(0); partitions.into()],
            }],
            last_purge: None,
        });
        for of in stream.all_partitions() {
            inner.partitions.insert(of, Part::new());
        }
        inner.streams.push(stream.clone());
        Ok(stream)
    }

    async fn change_stream(
        &self,
        id: StreamId,
        partitions: u16,
        config: StreamConfig,
        revision: Option<u64>,
    ) -> Result<Arc<Stream>, StreamError> {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        inner.revision += 1;
        let next = inner.revision;
        let found = inner.streams.iter_mut().find(|stream| stream.id == id);
        let stream = found.ok_or(StreamError::Unknown)?;
        if revision.is_some_and(|revision| revision != stream.revision) {
            return Err(StreamError::ChangedMeanwhile);
        }
        if partitions < stream.partitions {
            let partitions = stream.partitions;
            return Err(StreamError::Shrink { partitions });
        }
        let mut changed = Stream {
            partitions,
            config,
            revision: next,
            ..Stream::clone(stream)
        };
        if partitions > stream.partitions {
            let old = stream.all_partitions();
            let tails = old.map(|of| inner.partitions[&of].bounds().tail);
            let mut tails: Vec<_> = tails.collect();
            tails.resize(partitions.into(), Offset(0));
            changed.events.push(ControlEvent {
                kind: ControlEventKind::Grown { partitions },
                time: Timestamp(next * 1_000_000),
                tails,
            });
        }
        *stream = Arc::new(changed);
        let stream = stream.clone();
        for of in stream.all_partitions() {
            inner.partitions.entry(of).or_insert_with(Part::new);
        }
        Ok(stream)
    }

    async fn delete_stream(
        &self,
        id: StreamId,
        revision: Option<u64>,
        open: OpenRecords,
    ) -> Result<(), StreamError> {
        let mut inner = self.inner.lock().unwrap();
        let found = inner.streams.iter().position(|stream| stream.id == id);
        let at = found.ok_or(StreamError::Unknown)?;
        if revision.is_some_and(|revision| revision != inner.streams[at].revision) {
            return Err(StreamError::ChangedMeanwhile);
        }
        let parts = inner.partitions.iter().filter(|(of, _)| of.stream == id);
        let open_len = parts.map(|(_, part)| part.bounds().tail.0 - part.ended.len() as u64);
        let open_len = open_len.sum();
        if open == OpenRecords::Refuse && open_len > 0 {
            return Err(StreamError::Open { open_len });
        }
        inner.streams.remove(at);
        inner.partitions.retain(|of, _| of.stream != id);
        Ok(())
    }

    async fn purge_stream(
        &self,
        id: StreamId,
        open: OpenRecords,
        note: PurgeNote,
    ) -> Result<Purged, StreamError> {
        let mut inner = self.inner.lock().unwrap();
        let inner = &mut *inner;
        let found = inner.streams.iter_mut().find(|stream| stream.id == id);
        let stream = found.ok_or(StreamError::Unknown)?;
        let parts = stream.all_partitions().map(|of| &inner.partitions[&of]);
        let partitions: Vec<_> = parts.map(Part::to_purge).collect();
        let open_len = partitions.iter().map(|part| part.discarded).sum();
        if open == OpenRecords::Refuse && open_len > 0 {
            return Err(StreamError::Open { open_len });
        }
        let tails: Vec<_> = partitions.iter().map(|part| part.bounds.tail).collect();
        if stream.purged().map(|event| &event.tails) != Some(&tails) {
            inner.revision += 1;
            let time = Timestamp(inner.revision * 1_000_000);
            let purged = Stream {
                revision: inner.revision,
                ..stream.after_purge(time, tails, note)
            };
            *stream = Arc::new(purged);
        }
        let stream = stream.clone();
        for (of, purged) in stream.all_partitions().zip(&partitions) {
            let part = inner.partitions.get_mut(&of).unwrap();
            part.earliest = purged.bounds.tail;
            part.ended.extend((0..purged.bounds.tail.0).map(Offset));
            part.discarded += purged.discarded;
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(Purged { stream, partitions })
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn space(&self) -> Result<Space, ReadError> {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        Ok(Space::default())
    }

    async fn close(&self) {}
}

#[async_trait]
impl State for Memory {
    async fn get(&self, key: &str) -> Option<StateEntry> {
        self.inner.lock().unwrap().state.get(key).cloned()
    }

    async fn list(&self, prefix: &str) -> Vec<(Arc<str>, StateEntry)> {
        let inner = self.inner.lock().unwrap();
        let all = inner
            .state
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        all.map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    fn changed(&self, _prefix: &str) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn share_bytes(&self) -> ShareBytes {
        self.inner.lock().unwrap().share_bytes()
    }
}

impl Leases for Memory {
    fn leases(&self, _stream: StreamId) -> mpsc::Receiver<LeaseEvent> {
        mpsc::channel(1).1
    }
}
