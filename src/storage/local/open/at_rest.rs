//! Reads a directory at rest without changing it: its state and its open records.

use std::{fs, io, ops::Bound, path::Path, sync::Arc};

use crate::{
    model::{
        ids::{Offset, PartitionId, StreamName},
        record::Record,
    },
    storage::{ReadError, StateEntry},
};

use super::recovery;
use crate::storage::local::{
    OpenError, RealDisk,
    books::dedup::Dedup,
    disk::{Disk, DiskFile},
    lock::{self, DirLock},
    making,
    read::{index::Index, reader::RecordReader},
    shared::EngineState,
};

/// Bytes of a page.
const PAGE_BYTES: usize = 256 << 10;
/// Number of offsets whose settlements are checked under one lock.
const ENDS_LEN: u64 = 16_384;

/// A directory at rest.
#[derive(Debug)]
pub struct AtRest {
    shared: Arc<EngineState>,
    reader: RecordReader,
    _lock: Option<DirLock>,
}

/// Result of [`AtRest::peek`].
#[derive(Debug)]
pub enum Peek {
    /// There is no journal; a start begins one.
    Nothing,
    /// A process uses it, so its contents may change.
    InUse,
    /// The contents. Other processes may still open the directory.
    There(AtRest),
}

impl AtRest {
    /// Reads a directory without taking its lock, and changes nothing in it.
    ///
    /// # Errors
    /// The [`OpenError`] with which a start would refuse the directory.
    pub fn peek(dir: &Path) -> Result<Peek, OpenError> {
        making::check_settled(dir)?;
        if lock::is_taken(dir)? {
            return Ok(Peek::InUse);
        }
        if !dir.join("journal").is_dir() {
            return Ok(Peek::Nothing);
        }
        match Self::of(dir, None) {
            Ok(found) => Ok(Peek::There(found)),
            // A gateway may have started meanwhile.
            Err(error) => match lock::is_taken(dir)? {
                true => Ok(Peek::InUse),
                false => Err(error),
            },
        }
    }

    /// Reads the journal of a directory, and holds its lock until this is dropped. Only `LOCK` is changed.
    ///
    /// # Errors
    /// [`OpenError`] for a directory that is in use or that a start would refuse.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        making::check_settled(dir)?;
        let journal = dir.join("journal");
        // Check first, because taking the lock would make an absent directory.
        fs::read_dir(&journal).map_err(|source| OpenError::io("list", &journal, source))?;
        let lock = lock::take_dir(dir)?;
        Self::of(dir, Some(lock))
    }

    /// As [`AtRest::open`], for a directory that only the caller knows.
    pub(in crate::storage) fn of(dir: &Path, lock: Option<DirLock>) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(Untouched);
        let (view, files, _) = recovery::recover(&disk, dir.join("journal"), Dedup::new(0, 1), 0)?;
        let index = Index::absent(dir.join("index"), dir.join("damaged"));
        let shared = Arc::new(EngineState::new(view, files, index));
        Ok(Self {
            reader: RecordReader::new(shared.clone()),
            shared,
            _lock: lock,
        })
    }

    /// Returns every value of state whose name begins with `prefix`.
    #[must_use]
    pub fn state(&self, prefix: &str) -> Vec<(Arc<str>, StateEntry)> {
        let view = lock::read(&self.shared.view);
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let values = view.books.state.range::<str, _>(from);
        values
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// Returns how many partitions a stream has; `None` if there is no such stream.
    #[must_use]
    pub fn partitions_of(&self, name: &StreamName) -> Option<u16> {
        let view = lock::read(&self.shared.view);
        let mut books = view.books.by_name();
        let found = books.find(|book| book.stream.name == *name);
        found.map(|book| book.stream.partitions)
    }

    /// Passes every open record to `show`. Returns the number of partitions with an unreadable record; later records of such a
    /// partition are not shown.
    pub async fn open_records(&self, mut show: impl FnMut(&StreamName, &Record)) -> usize {
        let streams: Vec<_> = {
            let view = lock::read(&self.shared.view);
            let streams = view.books.by_name();
            streams.map(|book| book.stream.clone()).collect()
        };
        let mut unreadable_len = 0;
        for stream in streams {
            for of in stream.all_partitions() {
                let shown = self
                    .partition(of, |record| show(&stream.name, record))
                    .await;
                unreadable_len += usize::from(shown.is_err());
            }
        }
        unreadable_len
    }

    async fn partition(
        &self,
        of: PartitionId,
        mut show: impl FnMut(&Record),
    ) -> Result<(), ReadError> {
        let bounds = |at: &Self| {
            let view = lock::read(&at.shared.view);
            let found = view.books.partition_of(of);
            found.map(|(_, book)| book.status())
        };
        let Some(status) = bounds(self) else {
            return Ok(());
        };
        let mut next = status.low_mark.max(status.bounds.earliest);
        while next < status.bounds.tail {
            let end = next.plus(ENDS_LEN).min(status.bounds.tail);
            let Some(open) = self.first_open(of, next, end) else {
                next = end;
                continue;
            };
            let page = self.reader.read(of, open, PAGE_BYTES).await?;
            for stored in &page.records {
                if self
                    .first_open(of, stored.offset, stored.offset.next())
                    .is_some()
                {
                    show(&stored.record);
                }
            }
            next = page.next.max(open.next());
        }
        Ok(())
    }

    fn first_open(&self, of: PartitionId, from: Offset, end: Offset) -> Option<Offset> {
        let view = lock::read(&self.shared.view);
        let (_, book) = view.books.partition_of(of)?;
        let open = (from.0..end.0).find(|offset| !book.settled.contains(*offset));
        open.map(Offset)
    }
}

/// The real disk without its writes: recovery's writes are dropped.
#[derive(Debug)]
pub(in crate::storage) struct Untouched;

#[derive(Debug)]
struct UntouchedFile(Box<dyn DiskFile>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl Disk for Untouched {
    fn create(&self, _path: &Path) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UntouchedFile(RealDisk.open(path)?)))
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        refused()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for UntouchedFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], _at: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
