//! An engine on a faulty disk, and the steps of a history, each made with the engine and with the model.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tempfile::TempDir;

use super::{
    faulty::{Crash, Dice, FaultyDisk},
    model::{Model, Seen},
};
use crate::{
    model::{
        ids::{Partition, PartitionId},
        record::{HeadersBuilder, Record},
    },
    runtime::clock::{Clock, Timestamp},
    storage::local::LogSettings,
    storage::{
        Append, AppendKind, Commit, CommitError, Dedup, DedupId, Engine, Log, NewSettlement,
        OpenRecords, PurgeNote, Settle, State, StateChange, Stream, StreamConfig, StreamError,
        conformance::{
            append,
            content::{Content, PartitionContent},
            record, settle, stream_name,
        },
        embedded::Embedded,
        local::{OpenError, Options, tests::until},
    },
};

/// Small, so that a short history fills several.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

/// Where engines are opened, one after the other.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) disk: FaultyDisk,
    pub(super) clock: Clock,
    pub(super) log: LogSettings,
    /// LOCK and index are on the real disk, in the newest of these. The others may still be in use by an engine that
    /// does not know yet that its disk crashed.
    dirs: Mutex<Vec<TempDir>>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::on(FaultyDisk::new())
    }

    pub(super) fn on(disk: FaultyDisk) -> Self {
        let rig = Self {
            disk,
            clock: Clock::manual(Timestamp(1_767_323_045_000_000)),
            log: LogSettings {
                segment_bytes: SEGMENT_BYTES,
                // Less than most histories hold, so that reads come from the disk, too.
                cache_bytes: 16 << 10,
                ..LogSettings::default()
            },
            dirs: Mutex::default(),
        };
        rig.forget_index();
        rig
    }

    /// Lets the next engine begin without an index.
    pub(super) fn forget_index(&self) {
        // In memory where that can be had: the index syncs a lot, and its loss is not what is tested.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => TempDir::new_in(memory),
            false => TempDir::new(),
        };
        self.dirs.lock().unwrap().push(dir.unwrap());
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.dirs.lock().unwrap().last().unwrap().path().to_owned()
    }

    pub(super) fn try_open(&self) -> Result<Arc<Embedded>, OpenError> {
        let disk = self.disk.mount(&self.dir());
        Embedded::open(self.options(), disk, self.clock.clone())
    }

    pub(super) fn open(&self) -> Arc<Embedded> {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }

    fn options(&self) -> Options {
        Options {
            dir: self.dir(),
            log: self.log.clone(),
        }
    }
}

/// Closes an engine and waits until it is gone.
pub(super) async fn shut(engine: Arc<Embedded>) {
    engine.close().await;
    assert_eq!(Arc::strong_count(&engine), 1, "someone else holds it");
}

/// Which partition: numbers that are taken modulo what there is.
pub(super) type Pick = (u8, u8);

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Commit(Draft),
    SettleSoon {
        at: Pick,
        count: u8,
    },
    Trim {
        at: Pick,
        /// Of what is retained; more than 100 is beyond the tail.
        percent: u8,
    },
    /// Removes all records of a stream, those without an end only if that is said.
    Purge {
        stream: u8,
        open: OpenRecords,
    },
    Create {
        name: u8,
        partitions: u8,
    },
    Grow {
        stream: u8,
        by: u8,
    },
    Delete {
        stream: u8,
    },
    Tick {
        millis: i16,
    },
    /// Waits until files that nobody needs are freed.
    Settle,
    Reopen {
        forget_index: bool,
    },
    Crash {
        how: Crash,
        forget_index: bool,
    },
    /// The power goes off after so many calls of the disk, during the step or behind it.
    CrashDuring {
        step: Box<Step>,
        calls: u8,
        how: Crash,
        forget_index: bool,
    },
}

/// A commit whose places depend on what is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) appends: Vec<DraftAppend>,
    pub(super) ends: Vec<DraftEnd>,
    pub(super) state: Vec<DraftState>,
    pub(super) dedup: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct DraftAppend {
    pub(super) at: Pick,
    /// Sizes of the values.
    pub(super) sizes: Vec<u16>,
    pub(super) kind: u8,
}

#[derive(Clone, Debug)]
pub(super) struct DraftEnd {
    pub(super) at: Pick,
    /// Which of the open records.
    pub(super) which: u16,
    pub(super) end: u8,
    /// Rather one that cannot end.
    pub(super) wrong: bool,
}

#[derive(Clone, Debug)]
pub(super) struct DraftState {
    pub(super) key: u8,
    pub(super) size: Option<u16>,
    /// Says which revision is expected: 0 nothing, 1 the right one, 2 a wrong one.
    pub(super) expect: u8,
}

/// What may be there if the disk crashes between two calls.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// Calls of the disk when the step began.
    pub(super) began: u64,
    /// Calls of the disk when it was answered.
    pub(super) answered: u64,
    pub(super) model: Model,
    pub(super) soft: Vec<Settle>,
}

/// A history on its way.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) rig: Rig,
    /// Absent only between two lives.
    engine: Option<Arc<Embedded>>,
    pub(super) model: Model,
    /// Steps may fail though the disk goes on.
    pub(super) faults_expected: bool,
    /// What is there if the step that was hit was stored after all.
    maybe: Option<Model>,
    /// Ends queued by `settle_soon` that no later answer has confirmed.
    soft: Vec<Settle>,
    /// Makes values.
    dice: Dice,
    pub(super) moments: Vec<Moment>,
}

impl Run {
    pub(super) fn new(rig: Rig) -> Self {
        Self {
            engine: Some(rig.open()),
            rig,
            model: Model::default(),
            faults_expected: false,
            maybe: None,
            soft: Vec::new(),
            dice: Dice(1),
            moments: Vec::new(),
        }
    }

    pub(super) fn engine(&self) -> &Embedded {
        self.engine.as_ref().expect("open")
    }

    /// Closes the engine for good.
    pub(super) async fn end(mut self) -> Self {
        if let Some(engine) = self.engine.take() {
            shut(engine).await;
        }
        self
    }

    pub(super) async fn step(&mut self, step: &Step) {
        let began = self.rig.disk.ops();
        match step {
            Step::Reopen { forget_index } => self.reopen(*forget_index).await,
            Step::Crash { how, forget_index } => self.crash(*how, *forget_index).await,
            Step::CrashDuring {
                step,
                calls,
                how,
                forget_index,
            } => {
                self.rig.disk.power_off_after((*calls).into());
                self.write(step).await;
                self.crash(*how, *forget_index).await;
            }
            step => self.write(step).await,
        }
        self.moments.push(Moment {
            began,
            answered: self.rig.disk.ops(),
            model: self.model.clone(),
            soft: self.soft.clone(),
        });
    }

    async fn write(&mut self, step: &Step) {
        match step {
            Step::Commit(draft) => self.commit(draft).await,
            Step::SettleSoon { at, count } => self.settle_soon(*at, *count),
            Step::Trim { at, percent } => {
                self.confirm_soft().await;
                let Some((of, partition)) = self.pick(*at) else {
                    return;
                };
                let bounds = partition.status.bounds;
                let len = (bounds.tail.0 - bounds.earliest.0) * u64::from(*percent) / 100;
                let below = bounds.earliest.plus(len);
                let after = self.model.trim(of, below);
                let answer = self.engine().trim(of, below).await;
                self.answered(after, answer);
            }
            Step::Purge { stream, open } => {
                let Some(stream) = self.pick_stream(*stream) else {
                    return;
                };
                // What was queued before it is stored no later.
                let note = PurgeNote {
                    reason: format!("after {}", stream.events.len()),
                    by: None,
                };
                let after = self.with_soft().purge(stream.id, *open, note.clone());
                let answer = self.engine().purge_stream(stream.id, *open, note).await;
                if answer.is_ok() {
                    self.soft.clear();
                }
                self.stream_answered(after, answer.map(|purged| purged.stream));
            }
            Step::Create { name, partitions } => {
                let name = stream_name(&format!("s{}", name % 4));
                let partitions = u16::from(partitions % 3) + 1;
                let config = StreamConfig::default();
                let after = self.model.create(name.clone(), partitions, config.clone());
                let answer = self.engine().create_stream(name, partitions, config).await;
                self.stream_answered(after, answer);
            }
            Step::Grow { stream, by } => {
                let Some(stream) = self.pick_stream(*stream) else {
                    return;
                };
                let partitions = stream.partitions + u16::from(by % 3);
                let config = StreamConfig {
                    retention_hours: Some((*by).into()),
                    ..StreamConfig::default()
                };
                let after = self.model.grow(stream.id, partitions, config.clone());
                let revision = (by % 2 == 0).then_some(stream.revision);
                let answer = self
                    .engine()
                    .change_stream(stream.id, partitions, config, revision);
                let answer = answer.await;
                self.stream_answered(after, answer);
            }
            Step::Delete { stream } => {
                self.confirm_soft().await;
                let Some(stream) = self.pick_stream(*stream) else {
                    return;
                };
                let after = self.model.delete(stream.id);
                let answer = self
                    .engine()
                    .delete_stream(stream.id, None, OpenRecords::Drop)
                    .await;
                self.answered(after, answer.map_err(commit_error));
            }
            Step::Tick { millis } => {
                let now = self.rig.clock.now().0;
                let now = now.saturating_add_signed(i64::from(*millis) * 1_000);
                self.rig.clock.set(Timestamp(now));
            }
            Step::Settle => {
                let (engine, disk) = (self.engine(), &self.rig.disk);
                // Without its disk it would try for ever.
                until("files to be freed", || engine.is_tidy() || disk.is_off()).await;
            }
            Step::Reopen { .. } | Step::Crash { .. } | Step::CrashDuring { .. } => {
                unreachable!("not a write")
            }
        }
    }

    fn pick_stream(&self, number: u8) -> Option<Stream> {
        let streams = &self.model.content.streams;
        let at = usize::from(number).checked_rem(streams.len())?;
        Some(streams[at].stream.clone())
    }

    fn pick(&self, at: Pick) -> Option<(PartitionId, &PartitionContent)> {
        let stream = self.pick_stream(at.0)?;
        let of = PartitionId {
            stream: stream.id,
            partition: Partition(u16::from(at.1) % stream.partitions),
        };
        Some((of, self.model.partition(of)?))
    }

    fn value(&mut self, size: u16) -> Bytes {
        let mut dice = Dice(self.dice.next());
        let words = std::iter::repeat_with(|| dice.next().to_le_bytes());
        words.flatten().take(size.into()).collect()
    }

    fn record(&mut self, size: u16) -> Record {
        let mut headers = HeadersBuilder::default();
        if size.is_multiple_of(3) {
            headers.push("source", "default").push("x-own", "ä");
        }
        Record {
            key: self.value(size % 5),
            value: self.value(size),
            headers: headers.build(),
        }
    }

    fn resolve(&mut self, draft: &Draft) -> Commit {
        let mut commit = Commit::default();
        let dedup = draft.dedup;
        for draft in &draft.appends {
            let Some((of, _)) = self.pick(draft.at) else {
                continue;
            };
            let records = draft.sizes.iter().map(|size| self.record(*size)).collect();
            commit.appends.push(Append {
                of,
                records,
                kind: AppendKind::ALL[usize::from(draft.kind) % 5],
                refers: dedup.iter().map(|n| key_name(*n)).collect(),
            });
        }
        if let (Some(number), Some(append)) = (dedup, commit.appends.first()) {
            let stream = append.of.stream;
            // An id is for one stream.
            commit.appends.retain(|append| append.of.stream == stream);
            let mut id = stream.0;
            id[15] = number;
            commit.dedup = Some(Dedup {
                id: DedupId(id),
                reply: self.value(u16::from(number) * 150),
            });
        }
        let mut can_route = !commit.appends.is_empty();
        for draft in &draft.ends {
            let Some((of, partition)) = self.pick(draft.at) else {
                continue;
            };
            let bounds = partition.status.bounds;
            let in_use = |offset: &u64| {
                let all = self.soft.iter().chain(&commit.settles);
                all.map(|f| (f.of, f.offset.0)).any(|f| f == (of, *offset))
            };
            let mut candidates: Vec<u64> = (bounds.earliest.0..bounds.tail.0)
                .filter(|offset| partition.ended.contains(offset) == draft.wrong)
                .filter(|offset| !in_use(offset))
                .collect();
            if draft.wrong {
                // One beyond everything appended here.
                candidates.push(bounds.tail.0 + 1_000);
            }
            let Some(at) = usize::from(draft.which).checked_rem(candidates.len()) else {
                continue;
            };
            let end = match draft.end % 5 {
                0 => NewSettlement::Filtered,
                1 => NewSettlement::Discarded,
                2 if std::mem::take(&mut can_route) => NewSettlement::Routed { append: 0 },
                3 if std::mem::take(&mut can_route) => NewSettlement::Moved { append: 0 },
                _ => NewSettlement::Delivered,
            };
            commit.settles.push(settle(of, candidates[at], end));
        }
        for draft in &draft.state {
            let key = key_name(draft.key);
            if commit.state.iter().any(|change| change.key == key) {
                continue;
            }
            let there = self.model.content.state.iter().find(|(k, _)| *k == key);
            let revision = there.map_or(0, |(_, entry)| entry.revision);
            let value = draft.size.map(|size| self.value(size));
            commit.state.push(StateChange {
                key,
                value,
                expected: match draft.expect % 3 {
                    0 => None,
                    1 => Some(revision),
                    _ => Some(revision + 1),
                },
            });
        }
        // Records from outside can only refer to what is there then.
        for append in &mut commit.appends {
            if append.kind.is_from_outside() {
                append.refers.retain(|key| {
                    let mut changes = commit.state.iter();
                    match changes.find(|change| change.key == *key) {
                        Some(change) => change.value.is_some(),
                        None => self.model.content.state.iter().any(|(k, _)| k == key),
                    }
                });
            }
        }
        commit
    }

    async fn commit(&mut self, draft: &Draft) {
        let commit = self.resolve(draft);
        // What was queued before it is stored no later.
        let base = self.with_soft();
        let Some((mut after, expected)) = base.commit(&commit) else {
            let answer = self.engine().commit(commit).await.map(drop);
            return self.answered(None, answer);
        };
        let is_empty = commit.appends.is_empty() && commit.settles.is_empty();
        let is_empty = is_empty && commit.state.is_empty();
        let id = commit.dedup.as_ref().map(|dedup| dedup.id);
        let id = id.zip(commit.appends.first().map(|append| append.of.stream));
        let mut state = commit.state.clone();
        let answer = self.engine().commit(commit).await;
        if let Ok(committed) = &answer {
            let told = (committed.appends.clone(), committed.repeats.clone());
            assert_eq!(told, expected);
            if let Some((id, stream)) = id {
                let found = self.engine().committed(stream, id).unwrap();
                assert_eq!((&found.appends, found.time), (&told.0, committed.time));
            }
            if committed.repeats.is_some() {
                state.clear();
            }
            after.told_time(committed.time);
            let mut told = Content::default();
            for change in &state {
                let entry = self.engine().get(&change.key).await;
                assert_eq!(entry.as_ref().map(|e| &e.value), change.value.as_ref());
                told.state.extend(entry.map(|e| (change.key.clone(), e)));
            }
            after.told(&told);
            let told = after.content.state.iter().all(|(_, e)| e.revision > 0);
            assert!(told, "a revision does not grow");
            if is_empty {
                // Nothing had to be written for it.
                return;
            }
            self.soft.clear();
        }
        self.answered(Some(after), answer.map(drop));
    }

    fn with_soft(&self) -> Model {
        let mut model = self.model.clone();
        for settle in &self.soft {
            let _refused = model.settle(settle);
        }
        model
    }

    fn settle_soon(&mut self, at: Pick, count: u8) {
        let Some((of, partition)) = self.pick(at) else {
            return;
        };
        let bounds = partition.status.bounds;
        let open: Vec<u64> = (bounds.earliest.0..bounds.tail.0)
            .filter(|offset| !partition.ended.contains(offset))
            .filter(|offset| {
                !self
                    .soft
                    .iter()
                    .any(|f| (f.of, f.offset.0) == (of, *offset))
            })
            .take((count % 8).into())
            .collect();
        for offset in open {
            let end = settle(of, offset, NewSettlement::Delivered);
            match self.engine().settle_soon(end.clone()) {
                Ok(()) => self.soft.push(end),
                Err(error) => assert!(self.is_hit(&error), "{error}"),
            }
        }
    }

    /// Makes sure that the ends nobody waited for are there, before something that would change what they mean.
    async fn confirm_soft(&mut self) {
        if !self.soft.is_empty() {
            let state = vec![DraftState {
                key: 0,
                size: Some(1),
                expect: 0,
            }];
            let flush = Draft {
                state,
                ..Draft::default()
            };
            self.commit(&flush).await;
        }
    }

    fn is_hit(&self, error: &CommitError) -> bool {
        match error {
            CommitError::Stopped(_) | CommitError::MaybeStored(_) => {
                self.rig.disk.is_off() || self.faults_expected
            }
            CommitError::DiskFull => self.faults_expected,
            _ => false,
        }
    }

    fn answered(&mut self, after: Option<Model>, answer: Result<(), CommitError>) {
        match (after, answer) {
            (Some(after), Ok(())) => {
                assert!(self.maybe.is_none(), "stored behind a failed write");
                self.model = after;
            }
            (None, Ok(())) => panic!("stored, but the model refuses it"),
            (Some(after), Err(error @ CommitError::MaybeStored(_))) if self.is_hit(&error) => {
                self.maybe.get_or_insert(after);
            }
            (_, Err(error)) if self.is_hit(&error) => {}
            (Some(_), Err(error)) => panic!("refused, but the model stores it: {error}"),
            (None, Err(error)) => assert!(
                matches!(
                    error,
                    CommitError::AlreadySettled { .. } | CommitError::StateConflict { .. }
                ),
                "{error}"
            ),
        }
    }

    fn stream_answered(&mut self, after: Option<Model>, answer: Result<Arc<Stream>, StreamError>) {
        let Some(mut after) = after else {
            assert!(
                matches!(
                    answer,
                    Err(StreamError::Exists
                        | StreamError::Shrink { .. }
                        | StreamError::Open { .. })
                ),
                "{answer:?}"
            );
            return;
        };
        if let Ok(stream) = &answer {
            let seen = after.content.streams.iter();
            let seen = seen.filter(|s| s.stream.name == stream.name);
            let mut told = Content {
                streams: seen.cloned().collect(),
                state: Vec::new(),
            };
            told.streams[0].stream = stream.as_ref().clone();
            after.told(&told);
            let told = after.content.streams.iter().all(|s| s.stream.revision > 0);
            assert!(told, "{stream:?} is not what was asked for");
        }
        self.answered(Some(after), answer.map(drop).map_err(commit_error));
    }

    async fn reopen(&mut self, forget_index: bool) {
        self.engine().close().await;
        self.model = self.with_soft();
        self.soft.clear();
        if forget_index {
            self.rig.forget_index();
        }
        self.replace_engine();
        self.compare("after a reopen").await;
    }

    async fn crash(&mut self, how: Crash, forget_index: bool) {
        // What the engine shows once it has found its disk gone was seen, too.
        let before = self.model.clone();
        let seen = Seen::of(self.engine()).await;
        self.rig.disk.crash(how);
        self.engine().close().await;
        let seen_behind = Seen::of(self.engine()).await;
        if forget_index {
            self.rig.forget_index();
        }
        self.replace_engine();
        let content = self.compare(&format!("after {how:?}")).await;
        seen.assert_kept(&content, &before);
        seen_behind.assert_kept(&content, &before);
    }

    /// Opens anew; the engine of before was closed.
    fn replace_engine(&mut self) {
        let old = self.engine.take().expect("open");
        assert_eq!(Arc::strong_count(&old), 1, "someone else holds it");
        drop(old);
        self.engine = Some(self.rig.open());
    }

    /// Fails if the engine holds something else than the model, or the model with the step that was hit.
    pub(super) async fn compare(&mut self, when: &str) -> Content {
        let content = Content::of(self.engine()).await;
        let soft = std::mem::take(&mut self.soft);
        let mut models = vec![self.model.clone()];
        models.extend(self.maybe.take());
        self.model = one_of(models, &content, &soft, when);
        content
    }
}

/// Returns the model that the engine agrees with.
#[track_caller]
pub(super) fn one_of(models: Vec<Model>, content: &Content, soft: &[Settle], when: &str) -> Model {
    let mut first = None;
    for mut model in models {
        if model.matches(content, soft) {
            return model;
        }
        first.get_or_insert(model);
    }
    first.unwrap().content.assert_same(content, when);
    unreachable!("it differs")
}

fn key_name(number: u8) -> Arc<str> {
    format!("t/{}", number % 6).into()
}

fn commit_error(error: StreamError) -> CommitError {
    match error {
        StreamError::Commit(error) => error,
        other => panic!("{other}"),
    }
}

/// Appends to every partition: offsets go on where the content ends, and nothing else changes.
pub(super) async fn goes_on(engine: &dyn Engine, content: &Content) {
    for stream in &content.streams {
        for (of, partition) in stream.stream.all_partitions().zip(&stream.partitions) {
            let one_more = append(of, vec![record("one more")]);
            let committed = engine.commit(one_more.into()).await.unwrap();
            let tail = partition.status.bounds.tail;
            assert_eq!(committed.appends[0].first, tail, "{of}");
        }
    }
}
