//! The engine as its callers see it: opened, asked, closed.

use std::{
    collections::VecDeque,
    fs::File,
    ops::{Bound, Range},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use async_trait::async_trait;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::{Clock, Timestamp},
    place::{Incarnation, Offset, PartitionId, StreamId, StreamName},
    storage::{
        Caps, Commit, CommitError, Committed, Finish, Finished, Health, LeaseEvent, Leases, Log,
        NewEnd, Page, PartitionStatus, ReadError, STATE_BYTES_MAX, State, StateEntry, Stream,
        StreamConfig, StreamError,
    },
    telemetry::metrics::latency,
};

use super::{
    COMMIT_BYTES_MAX, OpenError, Options, PARTITIONS_MAX, block,
    dedup::Dedup,
    disk::Disk,
    housekeeper::Housekeeper,
    index::Index,
    lock, lookup,
    pending::Pending,
    queue::{Queue, Request},
    reader::Reader,
    recovery,
    segment::SegmentHeader,
    shared::Shared,
    snapshot,
    spare::Spares,
    writer::{Beginning, Writer, begin_segment, is_full},
};

/// Below this a file holds little more than its own header.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const STATE_KEY_BYTES_MAX: usize = 512;
const RECORD_KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Name and config of a stream are small; its config is written again with every change.
const STREAM_CONFIG_BYTES_MAX: usize = 64 << 10;

/// The embedded engine. Dropping it without [`Log::close`] is like a crash: what is queued is not stored.
#[derive(Debug)]
pub struct Embedded {
    pub(super) shared: Arc<Shared>,
    queue: Arc<Queue>,
    reader: Reader,
    housekeeper: Arc<Housekeeper>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
    append_seconds: Histogram,
}

impl Embedded {
    /// Opens a directory: takes its lock, reads its journal, begins a new file in it.
    ///
    /// Blocks its thread while it reads; call it before there are others to wait.
    ///
    /// # Errors
    /// Each variant of [`OpenError`] says what is true and what can be done. No bytes of the journal were changed then,
    /// but for [`OpenError::Io`] while the new file was made.
    pub fn open(
        options: Options,
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenError> {
        let start = Instant::now();
        let Options { dir, log } = options;
        let lock = lock::take_dir(&dir)?;
        let journal_dir = dir.join("journal");
        disk.create_dir_all(&journal_dir)
            .and_then(|()| disk.sync_dir(&dir))
            .map_err(|source| OpenError::io("make", &journal_dir, source))?;

        let dedup = Dedup::new(log.dedup_len_max, log.dedup_age_hours);
        let found = recovery::recover(&disk, journal_dir.clone(), dedup, log.cache_bytes)?;
        let spare_dir = journal_dir.join("spare");
        let failed = |source| OpenError::io("begin a journal file in", &journal_dir, source);
        let spares = Arc::new(Spares::open(disk, spare_dir).map_err(failed)?);
        let lives = found.segments.iter().map(|s| (s.number, s.life)).collect();
        let index = Index::open(
            dir.join("index"),
            dir.join("damaged"),
            found.journal,
            &lives,
        );
        let shared = Arc::new(Shared::new(found.view, found.files, index));
        let log_age_us = u64::from(log.dedup_age_hours) * 3_600_000_000;
        let since = clock.now().0.saturating_sub(log_age_us);
        let indexing = catch_up(&shared, &found.segments, found.replayed_from, since);

        let segment_bytes = log.segment_bytes.max(SEGMENT_BYTES_MIN);
        let (number, first_frame, before) = match found.replace_newest {
            Some(newest) => (newest.number, newest.first_frame, found.before_newest),
            None => {
                let number = found.before.as_ref().map_or(1, |before| before.number + 1);
                (number, found.next_frame, found.before)
            }
        };
        let snapshot = snapshot::encode(&lock::read(&shared.view).books, before.as_ref());
        let beginning = Beginning {
            number,
            first_frame,
            journal: found.journal,
            created: clock.now().0,
            snapshot: &snapshot,
        };
        let begun = spares
            .take(segment_bytes.max(snapshot.len() as u64 + SEGMENT_BYTES_MIN))
            .and_then(|spare| begin_segment(&shared, &spares, &spare, beginning));
        let open = match begun {
            Ok(open) => Some(open),
            // What is there can still be read, and the writer tries again until there is space.
            Err(error) if is_full(&error) => None,
            Err(error) => return Err(failed(error)),
        };
        if open.is_none() {
            tracing::error!("the disk is full; appends are refused until there is space");
            shared.disk_full(true);
        }

        let queue = Arc::new(Queue::new(log.queue_len_max, log.queue_bytes_max));
        let housekeeper = Arc::new(Housekeeper::new(spares.clone(), shared.clone()));
        for replayed in indexing.into_iter().filter(|replayed| *replayed < number) {
            housekeeper.sealed(replayed);
        }
        let writer = Writer {
            shared: shared.clone(),
            queue: queue.clone(),
            spares,
            housekeeper: housekeeper.clone(),
            clock,
            journal: found.journal,
            segment_bytes,
            disk_full: open.is_none(),
            open,
            before,
            next_frame: first_frame,
            pending: Pending::default(),
            requests: VecDeque::new(),
            finishes: Vec::new(),
            stopped: None,
            no_space_at: None,
            unproven: false,
        };
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.into()).spawn(run);
            started.map_err(|source| OpenError::io("start a thread for", &dir, source))
        };
        let keeping = housekeeper.clone();
        let engine = Self {
            reader: Reader::new(shared.clone()),
            shared,
            queue,
            housekeeper,
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            append_seconds: latency(),
        };
        let threads = [
            thread("syncgate-keeper", Box::new(move || keeping.run()))?,
            thread("syncgate-writer", Box::new(move || writer.run()))?,
        ];
        lock::mutex(&engine.threads).extend(threads);

        if let Some((file, at)) = &found.torn {
            tracing::warn!(file = %file.display(), at, "the last write was cut by a crash; it was not answered and is left out");
        }
        tracing::info!(
            dir = %dir.display(),
            files = found.segments.len(),
            frames = found.frames_len,
            streams = lock::read(&engine.shared.view).books.by_name().count(),
            took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "log is open"
        );
        Ok(Arc::new(engine))
    }

    /// Returns how long commits took from their queuing to their answer; counted here, shown by whoever shows metrics.
    #[must_use]
    pub fn append_seconds(&self) -> &Histogram {
        &self.append_seconds
    }

    async fn ask<T, E: From<CommitError>>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Request,
    ) -> Result<T, E> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(request(answer))?;
        let answered = answered.await;
        // Without an answer the writer has ended in the middle of it.
        answered
            .unwrap_or_else(|_| Err(CommitError::MaybeStored("the writer has ended".into()).into()))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue.abandon();
        self.housekeeper.stop();
        join(std::mem::take(&mut *lock::mutex(&self.threads)));
        self.shared.index.close();
    }
}

/// Indexes files that an earlier run has left unindexed, and finds the dedup entries that are younger than `since`.
///
/// Returns the files that are left to the housekeeper: those that were replayed, whose blocks are in memory.
fn catch_up(
    shared: &Shared,
    segments: &[SegmentHeader],
    replayed_from: u64,
    since: u64,
) -> Vec<u64> {
    let mut older = Vec::new();
    let mut replayed = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        if segment.number >= replayed_from {
            replayed.push(segment.number);
            continue;
        }
        let indexed = shared.index.has(segment.number);
        // What a file holds is older than the next one.
        let recent = segments
            .get(at + 1)
            .is_none_or(|next| next.created >= since);
        if !indexed {
            tracing::info!(file = %shared.files.path(segment.number).display(), "indexing a journal file");
            match lookup::scan(&shared.files, segment.number) {
                Ok(scan) => {
                    shared.index.add(segment.number, segment.life, &scan);
                    older.extend(scan.dedup);
                }
                // Its records may be out of reach; that is no reason to keep the others from being dispatched.
                Err(error) => tracing::error!(%error, "cannot index a journal file"),
            }
        } else if recent {
            older.extend(shared.index.dedup(segment.number));
        }
    }
    let books = &mut lock::write(&shared.view).books;
    older.retain(|entry| books.id_of(entry.slot.0).is_some());
    books.dedup.prepend(older);
    replayed
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the log has panicked");
        }
    }
}

/// Checks all that can be checked without the books; returns the size for the queue's bound.
fn check(commit: &Commit) -> Result<usize, CommitError> {
    let too_large = |what, bytes, bytes_max| CommitError::TooLarge {
        what,
        bytes,
        bytes_max,
    };
    let mut all = 80 * commit.finishes.len();
    for finish in &commit.finishes {
        if let NewEnd::Routed { append } | NewEnd::Moved { append } = finish.end
            && append >= commit.appends.len()
        {
            let most = commit.appends.len().saturating_sub(1);
            return Err(too_large("the number of an end's append", append, most));
        }
    }
    for append in &commit.appends {
        all += 128;
        for record in &append.records {
            if record.key.len() > RECORD_KEY_BYTES_MAX {
                let bytes = record.key.len();
                return Err(too_large("a record's key", bytes, RECORD_KEY_BYTES_MAX));
            }
            all += block::HEADER_LEN + block::stored_len(record);
        }
        all += append
            .refers
            .iter()
            .map(|key| key.len() + 16)
            .sum::<usize>();
    }
    for change in &commit.state {
        let value_len = change.value.as_ref().map_or(0, bytes::Bytes::len);
        if value_len > STATE_BYTES_MAX {
            return Err(too_large("a state value", value_len, STATE_BYTES_MAX));
        }
        if change.key.len() > STATE_KEY_BYTES_MAX {
            let bytes = change.key.len();
            return Err(too_large(
                "the name of a state value",
                bytes,
                STATE_KEY_BYTES_MAX,
            ));
        }
        all += 32 + change.key.len() + value_len;
    }
    if all > COMMIT_BYTES_MAX {
        return Err(too_large("a commit", all, COMMIT_BYTES_MAX));
    }
    Ok(all)
}

fn check_stream(partitions: u16, config: &StreamConfig) -> Result<(), CommitError> {
    let ocid_len = config.ocid.as_ref().map_or(0, String::len);
    if partitions > PARTITIONS_MAX {
        return Err(CommitError::TooLarge {
            what: "the number of partitions",
            bytes: partitions.into(),
            bytes_max: PARTITIONS_MAX.into(),
        });
    }
    if ocid_len > STREAM_CONFIG_BYTES_MAX {
        return Err(CommitError::TooLarge {
            what: "the config of a stream",
            bytes: ocid_len,
            bytes_max: STREAM_CONFIG_BYTES_MAX,
        });
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], CommitError> {
    super::random()
        .map_err(|error| CommitError::Stopped(format!("no random numbers: {error}").into()))
}

#[async_trait]
impl Log for Embedded {
    fn caps(&self) -> Caps {
        Caps {
            commit_over_partitions: true,
            finish_atomic: true,
            dedup: true,
            trim: true,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        let bytes = check(&commit)?;
        let start = Instant::now();
        let committed = self
            .ask(|answer| Request::Commit {
                commit,
                bytes,
                answer,
            })
            .await?;
        self.append_seconds.observe(start.elapsed().as_secs_f64());
        Ok(committed)
    }

    fn finish_soon(&self, finish: Finish) -> Result<(), CommitError> {
        self.queue.push_finish(finish)
    }

    async fn read(
        &self,
        of: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Page, ReadError> {
        self.reader.read(of, from, bytes_max).await
    }

    fn status(&self, of: PartitionId) -> Result<PartitionStatus, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        found
            .map(|(_, book)| book.status())
            .ok_or(ReadError::PartitionUnknown(of))
    }

    fn tail(&self, of: PartitionId) -> Result<watch::Receiver<Offset>, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        found
            .map(|(_, book)| book.tail.subscribe())
            .ok_or(ReadError::PartitionUnknown(of))
    }

    fn finished(&self, of: PartitionId, offsets: Range<Offset>) -> Result<Finished, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        let (_, book) = found.ok_or(ReadError::PartitionUnknown(of))?;
        // Nothing behind the tail has ended, so no memory is spent on it.
        let end = offsets.end.0.min(book.next).max(offsets.start.0);
        Ok(book.finished.of(offsets.start.0..end))
    }

    async fn offset_at(&self, of: PartitionId, time: Timestamp) -> Result<Offset, ReadError> {
        self.reader.offset_at(of, time).await
    }

    async fn trim(&self, of: PartitionId, below: Offset) -> Result<(), CommitError> {
        self.ask(|answer| Request::Trim { of, below, answer }).await
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        let view = lock::read(&self.shared.view);
        view.books
            .by_name()
            .map(|book| book.stream.clone())
            .collect()
    }

    fn stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        let view = lock::read(&self.shared.view);
        view.books.named(name).map(|book| book.stream.clone())
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        let view = lock::read(&self.shared.view);
        view.books.with_id(id).map(|(_, book)| book.stream.clone())
    }

    fn streams_changed(&self) -> watch::Receiver<u64> {
        self.shared.streams_changed.subscribe()
    }

    async fn create_stream(
        &self,
        name: StreamName,
        partitions: u16,
        config: StreamConfig,
    ) -> Result<Arc<Stream>, StreamError> {
        check_stream(partitions, &config)?;
        let id = StreamId(random()?);
        let incarnation = Incarnation(u64::from_le_bytes(random()?));
        self.ask(|answer| Request::Create {
            id,
            incarnation,
            name,
            partitions: partitions.max(1),
            config,
            answer,
        })
        .await
    }

    async fn change_stream(
        &self,
        id: StreamId,
        partitions: u16,
        config: StreamConfig,
        revision: Option<u64>,
    ) -> Result<Arc<Stream>, StreamError> {
        check_stream(partitions, &config)?;
        self.ask(|answer| Request::Change {
            id,
            partitions,
            config,
            revision,
            answer,
        })
        .await
    }

    async fn delete_stream(&self, id: StreamId, revision: Option<u64>) -> Result<(), StreamError> {
        self.ask(|answer| Request::Delete {
            id,
            revision,
            answer,
        })
        .await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn close(&self) {
        self.queue.close();
        let mut ended = self.shared.writer_ended.subscribe();
        let waited = ended.wait_for(|ended| *ended).await;
        drop(waited);
        self.housekeeper.stop();
        let threads = std::mem::take(&mut *lock::mutex(&self.threads));
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if joined.is_err() {
            tracing::warn!("the runtime ended before the threads of the log");
        }
        self.shared.index.close();
        lock::mutex(&self.lock).take();
    }
}

#[async_trait]
impl State for Embedded {
    async fn get(&self, key: &str) -> Option<StateEntry> {
        lock::read(&self.shared.view).books.state.get(key).cloned()
    }

    async fn list(&self, prefix: &str) -> Vec<(Arc<str>, StateEntry)> {
        let view = lock::read(&self.shared.view);
        let from = view
            .books
            .state
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    fn changed(&self, prefix: &str) -> watch::Receiver<u64> {
        self.shared.watch_state(prefix)
    }
}

impl Leases for Embedded {
    fn leases(&self, stream: StreamId) -> mpsc::Receiver<LeaseEvent> {
        self.shared.hold(stream)
    }
}
