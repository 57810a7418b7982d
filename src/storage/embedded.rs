//! The embedded engine: implements the traits on one directory (`local`).
//!
//! Calls that store go through a queue to one writer thread. Reads take a lock on the view of durable data, or go to the
//! blocking pool where they need the disk.

use std::{
    ops::{Bound, Range},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Instant,
};

use async_trait::async_trait;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    model::ids::{Incarnation, Offset, PartitionId, StreamId, StreamName},
    runtime::{
        clock::{Clock, Timestamp},
        latency::histogram,
    },
    storage::{
        Append, Caps, Commit, CommitError, Committed, DedupId, Health, Keep, LeaseEvent, Leases,
        Ledger, Log, OpenRecords, Page, PartitionStatus, PurgeNote, Purged, ReadError, Settle,
        Settled, SettledOffsets, Space, State, StateEntry, Stream, StreamBounds, StreamConfig,
        StreamError, shares::ShareBytes,
    },
};

use super::local::{
    OpenError, Options,
    disk::Disk,
    lock::{self, DirLock},
    open::opening::{self, Opened, Workers, join},
    read::reader::RecordReader,
    shared::EngineState,
    space::housekeeper::Housekeeper,
    write::{
        limits::{check, check_note, check_stream},
        queue::{Queue, Request},
        writer::Writer,
    },
};

/// The embedded engine.
///
/// Dropping it without [`Log::close`] is like a crash: queued commits are not stored. The drop waits for the writer's last
/// disk call, unless a close was begun and given up.
#[derive(Debug)]
pub struct Embedded {
    pub(super) shared: Arc<EngineState>,
    pub(super) queue: Arc<Queue>,
    pub(super) reader: RecordReader,
    clock: Clock,
    pub(super) housekeeper: Arc<Housekeeper>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<DirLock>>,
    append_seconds: Histogram,
    close_began: AtomicBool,
    /// Lets a test hold up or refuse settlements.
    #[cfg(test)]
    ends: super::local::proofs::hands::Ends,
}

impl Embedded {
    /// Opens a directory: takes its lock, reads its journal, begins a new file in it.
    ///
    /// Blocks the calling thread while it reads, so call it before the runtime serves requests.
    ///
    /// # Errors
    /// Each variant of [`OpenError`] says what is true and what you can do. An error changes no bytes of the journal, except
    /// [`OpenError::Io`] while the new file was made.
    pub fn open(
        options: Options,
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenError> {
        let dir = options.dir.clone();
        let opened = opening::open(options, disk, clock.clone(), Workers::Threads)?;
        let reader = RecordReader::new(opened.shared.clone());
        let (engine, writer) = Self::of(opened, reader, clock);
        let threads = opening::start_threads(&dir, &engine.housekeeper, writer)?;
        *lock::mutex(&engine.threads) = threads;
        Ok(engine)
    }

    /// Builds an engine. It works once its threads are started.
    pub(super) fn of(opened: Opened, reader: RecordReader, clock: Clock) -> (Arc<Self>, Writer) {
        let engine = Self {
            reader,
            shared: opened.shared,
            queue: opened.queue,
            clock,
            housekeeper: opened.housekeeper,
            threads: Mutex::default(),
            lock: Mutex::new(Some(opened.lock)),
            append_seconds: histogram(),
            close_began: AtomicBool::new(false),
            #[cfg(test)]
            ends: super::local::proofs::hands::Ends::default(),
        };
        (Arc::new(engine), opened.writer)
    }

    /// Sets in a test whether the disk counts as full.
    #[cfg(test)]
    pub(crate) fn say_disk_full(&self, full: bool) {
        self.shared.condition.disk_full(full);
    }

    /// Returns the controls of a test over settlements.
    #[cfg(test)]
    pub(crate) fn ends(&self) -> &super::local::proofs::hands::Ends {
        &self.ends
    }

    /// Returns whether the housekeeper is idle.
    #[cfg(test)]
    pub(crate) fn is_tidy(&self) -> bool {
        self.housekeeper.is_idle()
    }

    /// Gives a stream a new incarnation, because its offsets may now mean other records than before.
    pub(super) async fn renew_stream(&self, id: StreamId) -> Result<Arc<Stream>, StreamError> {
        let incarnation = Incarnation(u64::from_le_bytes(random()?));
        self.ask(|answer| Request::Renew {
            id,
            incarnation,
            answer,
        })
        .await
    }

    /// Returns the histogram of commit times, from the queue to the answer. The gateway exports it.
    #[must_use]
    pub fn append_seconds(&self) -> &Histogram {
        &self.append_seconds
    }

    /// Refuses a call while the disk hangs. The caller then knows that nothing was stored; a call in the queue could not.
    fn check_disk(&self) -> Result<(), CommitError> {
        match self.shared.condition.is_stalled() {
            true => Err(CommitError::Busy),
            false => Ok(()),
        }
    }

    async fn ask<T, E: From<CommitError>>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Request,
    ) -> Result<T, E> {
        self.check_disk()?;
        let (answer, answered) = oneshot::channel();
        self.queue.push(request(answer))?;
        let answered = answered.await;
        // A dropped answer means that the writer ended while it stored this request.
        answered
            .unwrap_or_else(|_| Err(CommitError::MaybeStored("the writer has ended".into()).into()))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue.abandon();
        self.housekeeper.stop();
        self.shared.condition.end();
        let threads = std::mem::take(&mut *lock::mutex(&self.threads));
        let lock = lock::mutex(&self.lock).take();
        let given_up = self.close_began.load(Ordering::Relaxed) && !threads.is_empty();
        let shared = self.shared.clone();
        let end = move || {
            join(threads);
            shared.index.close();
            drop(lock);
        };
        if !given_up {
            return end();
        }
        // The caller gave up its close, perhaps because the disk does not answer. Waiting here would keep the process from
        // ending. The thread below holds the directory's lock for as long as the writer may still write.
        tracing::warn!("the log was given up while it was closing");
        let ending = Builder::new().name("syncgate-end".into()).spawn(end);
        if let Err(error) = ending {
            tracing::error!(%error, "cannot start the thread that waits for the log's threads; they are not joined");
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], CommitError> {
    super::local::random()
        .map_err(|error| CommitError::Stopped(format!("no random numbers: {error}").into()))
}

#[async_trait]
impl Log for Embedded {
    fn caps(&self) -> Caps {
        Caps {
            commit_over_partitions: true,
            settle_atomic: true,
            dedup: true,
            trim: true,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        let bytes = check(&commit)?;
        #[cfg(test)]
        if !commit.settles.is_empty() {
            self.ends.pass().await?;
        }
        let from_outside = |append: &Append| append.kind.is_from_outside();
        if self.shared.condition.is_low() && commit.appends.iter().any(from_outside) {
            return Err(CommitError::DiskFull);
        }
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

    fn committed(&self, stream: StreamId, id: DedupId) -> Option<Committed> {
        let now = self.clock.now().0;
        let view = lock::read(&self.shared.view);
        let (number, _) = view.books.with_id(stream)?;
        let entry = view.books.dedup.get(number, id.0, now)?;
        Some(entry.committed(stream))
    }

    fn settle_soon(&self, settle: Settle) -> Result<(), CommitError> {
        self.check_disk()?;
        #[cfg(test)]
        self.ends.refusal()?;
        self.queue.push_settle(settle)
    }

    async fn read(
        &self,
        of: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Page, ReadError> {
        self.reader.read(of, from, bytes_max).await
    }

    async fn not_before(&self, places: &[(PartitionId, Offset)]) -> Vec<Timestamp> {
        self.reader.not_before(places).await
    }

    fn status(&self, of: PartitionId) -> Result<PartitionStatus, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        found
            .map(|(_, book)| book.status())
            .ok_or(ReadError::PartitionUnknown(of))
    }

    fn bounds(&self, stream: StreamId) -> Option<StreamBounds> {
        let view = lock::read(&self.shared.view);
        let (_, book) = view.books.with_id(stream)?;
        Some(StreamBounds {
            stream: book.stream.clone(),
            partitions: book.partitions.iter().map(|book| book.bounds()).collect(),
            lost: book.lost().collect(),
        })
    }

    fn ledger(&self) -> Ledger {
        lock::read(&self.shared.view).books.ledger()
    }

    fn tail(&self, of: PartitionId) -> Result<watch::Receiver<Offset>, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        found
            .map(|(_, book)| book.tail.subscribe())
            .ok_or(ReadError::PartitionUnknown(of))
    }

    fn settled_offsets(
        &self,
        of: PartitionId,
        offsets: Range<Offset>,
    ) -> Result<SettledOffsets, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        let (_, book) = found.ok_or(ReadError::PartitionUnknown(of))?;
        // Offsets beyond the tail are open, so the answer ends at the tail and takes no memory for them.
        let end = offsets.end.0.min(book.next).max(offsets.start.0);
        Ok(book.settled.of(offsets.start.0..end))
    }

    fn open_offsets(
        &self,
        of: PartitionId,
        from: Offset,
        len_max: usize,
    ) -> Result<Vec<Offset>, ReadError> {
        let view = lock::read(&self.shared.view);
        let found = view.books.partition_of(of);
        let (_, book) = found.ok_or(ReadError::PartitionUnknown(of))?;
        Ok(book.settled.open(from.0..book.next, len_max))
    }

    async fn settled(
        &self,
        sought: &[(PartitionId, Range<Offset>)],
    ) -> Result<Vec<Settled>, ReadError> {
        self.reader.settled(sought).await
    }

    async fn offset_at(&self, of: PartitionId, time: Timestamp) -> Result<Offset, ReadError> {
        self.reader.offset_at(of, time).await
    }

    async fn first_kept(&self, stream: StreamId, keep: Keep) -> Result<Vec<Offset>, ReadError> {
        self.reader.first_kept(stream, keep).await
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

    async fn delete_stream(
        &self,
        id: StreamId,
        revision: Option<u64>,
        open: OpenRecords,
    ) -> Result<(), StreamError> {
        self.ask(|answer| Request::Delete {
            id,
            revision,
            open,
            answer,
        })
        .await
    }

    async fn purge_stream(
        &self,
        id: StreamId,
        open: OpenRecords,
        note: PurgeNote,
    ) -> Result<Purged, StreamError> {
        check_note(&note)?;
        self.ask(|answer| Request::Purge {
            id,
            open,
            note,
            answer,
        })
        .await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.condition.health()
    }

    async fn space(&self) -> Result<Space, ReadError> {
        let housekeeper = self.housekeeper.clone();
        let looked = self.reader.beside(move |_| {
            let space = housekeeper.space();
            space.map_err(|error| ReadError::Io(Arc::new(error)))
        });
        looked.await
    }

    async fn close(&self) {
        self.close_began.store(true, Ordering::Relaxed);
        self.queue.close();
        let mut ended = self.shared.writer_ended.subscribe();
        let waited = ended.wait_for(|ended| *ended).await;
        drop(waited);
        self.housekeeper.stop();
        self.shared.condition.end();
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

    fn share_bytes(&self) -> ShareBytes {
        lock::read(&self.shared.view).books.state_bytes
    }
}

impl Leases for Embedded {
    fn leases(&self, stream: StreamId) -> mpsc::Receiver<LeaseEvent> {
        self.shared.hold(stream)
    }
}
