//! The places of the blocks of sealed files, in sled. The index can be rebuilt from the journal.
//!
//! ```text
//! "i"                                   journal 16 bytes, version of this layout u32
//! "m" file number u64 BE                life u64, usage of the file: all of it is indexed
//! "b" stream u32 BE, partition u16 BE,
//!     first offset u64 BE               file number, then for each block: place, length, first offset, count (varints),
//!                                       first time u64; at most 128 blocks of one file
//! "d" file number u64 BE, chunk u32 BE  dedup operations of that file, at most 128
//! ```
//!
//! A mark is written after all blocks of its file are durable in the index. An index that does not open, panics, belongs to
//! another journal or names absent files is moved to `damaged/index` and rebuilt. Only speed depends on the index: without
//! it, reads search the files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::RwLock,
    thread::park_timeout,
    time::Duration,
};

use bytes::BufMut;

use crate::runtime::descriptors::patiently;

use super::{blocks::BlockRef, lookup::SegmentScan};
use crate::storage::local::{
    disk,
    format::{
        block::Slot,
        codec::{ByteReader, Malformed, put_varint},
        ops::DedupEntry,
    },
    lock,
    space::usage::SegmentUsage,
};

const LAYOUT_VERSION: u32 = 3;
const CHUNK_LEN: usize = 128;
const CACHE_BYTES: u64 = 16 << 20;
/// sled lets go of its file a moment after its handle is dropped.
const LOCK_TRIES: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(20);

const IDENTITY: &[u8] = b"i";
const MARK: u8 = b'm';
const BLOCKS: u8 = b'b';
const DEDUP: u8 = b'd';

/// The index; it may be absent.
#[derive(Debug)]
pub(in crate::storage) struct Index {
    dir: PathBuf,
    damaged_dir: PathBuf,
    db: RwLock<Option<sled::Db>>,
}

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error("a value is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("sled has panicked")]
    Panicked,
    #[error("it belongs to another journal")]
    Foreign,
    #[error("{0} is a link, and sled would write to what it names")]
    Link(String),
}

impl Index {
    /// No index.
    pub(in crate::storage) fn absent(dir: PathBuf, damaged_dir: PathBuf) -> Self {
        Self {
            dir,
            damaged_dir,
            db: RwLock::new(None),
        }
    }

    /// Opens the index of a journal, whose files have these lives by number.
    pub(in crate::storage) fn open(
        dir: PathBuf,
        damaged_dir: PathBuf,
        journal: [u8; 16],
        lives: &BTreeMap<u64, u64>,
    ) -> Self {
        let index = Self::absent(dir, damaged_dir);
        let mut opened = caught(|| index.try_open(journal, lives));
        if let Err(fault) = &opened {
            tracing::warn!(%fault, "the index is made anew from the journal");
            index.set_aside();
            opened = caught(|| index.try_open(journal, lives));
        }
        match opened {
            Ok(db) => *lock::write(&index.db) = Some(db),
            Err(fault) => {
                tracing::error!(%fault, "there is no index; journal files are searched instead");
            }
        }
        index
    }

    /// Begins an index anew; the one that was there is moved aside.
    pub(in crate::storage) fn anew(dir: PathBuf, damaged_dir: PathBuf, journal: [u8; 16]) -> Self {
        let index = Self::absent(dir, damaged_dir);
        if index.dir.exists() {
            index.set_aside();
        }
        let Self {
            dir, damaged_dir, ..
        } = index;
        Self::open(dir, damaged_dir, journal, &BTreeMap::new())
    }

    fn try_open(&self, journal: [u8; 16], lives: &BTreeMap<u64, u64>) -> Result<sled::Db, Fault> {
        self.make_safe()?;
        let config = sled::Config::new()
            .path(&self.dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(error)) if is_locked(&error) && tries < LOCK_TRIES => {
                    tries += 1;
                    park_timeout(LOCK_WAIT);
                }
                opened => break opened?,
            }
        };
        let mut identity = journal.to_vec();
        identity.put_u32_le(LAYOUT_VERSION);
        match db.get(IDENTITY)? {
            Some(known) if *known == *identity => {}
            None if db.is_empty() => {
                db.insert(IDENTITY, identity)?;
            }
            _ => return Err(Fault::Foreign),
        }
        for entry in db.scan_prefix([MARK]) {
            let (key, life) = entry?;
            let mut reader = ByteReader::new(&key);
            reader.u8()?;
            let number = u64::from_be_bytes(reader.array()?);
            if lives.get(&number).map(|life| life.to_le_bytes()).as_ref() != life.first_chunk::<8>()
            {
                return Err(Fault::Foreign);
            }
        }
        Ok(db)
    }

    /// Makes the directory, for its owner alone: sled makes its files for everybody. Refuses links, which sled follows.
    fn make_safe(&self) -> Result<(), Fault> {
        disk::make_dirs(&self.dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                return Err(Fault::Link(entry.file_name().to_string_lossy().into()));
            }
        }
        Ok(())
    }

    /// Returns whether all of a file is in here.
    pub(in crate::storage) fn has(&self, number: u64) -> bool {
        self.with(|db| Ok(db.contains_key(mark_key(number))?))
            .unwrap_or(false)
    }

    /// Returns the block that holds an offset.
    pub(in crate::storage) fn find(&self, slot: Slot, offset: u64) -> Option<BlockRef> {
        self.with(|db| {
            let range = block_key(slot, 0)..=block_key(slot, offset);
            let Some(entry) = db.range(range).next_back() else {
                return Ok(None);
            };
            let blocks = decode_blocks(&entry?.1)?;
            let behind = blocks.partition_point(|block| block.first <= offset);
            let block = behind.checked_sub(1).and_then(|at| blocks.get(at));
            Ok(block.filter(|block| block.holds(offset)).copied())
        })
        .flatten()
    }

    /// Returns what a file holds, if all of it is in here.
    pub(in crate::storage) fn usage(&self, number: u64) -> Option<SegmentUsage> {
        self.with(|db| {
            let Some(mark) = db.get(mark_key(number))? else {
                return Ok(None);
            };
            let mut reader = ByteReader::new(&mark);
            reader.u64()?;
            Ok(Some(SegmentUsage::decode(&mut reader)?))
        })
        .flatten()
    }

    /// Takes in a sealed file; returns whether everything of it can be found here now.
    pub(in crate::storage) fn add(&self, number: u64, life: u64, scan: &SegmentScan) -> bool {
        self.add_blocks(number, scan) && self.mark(number, life, &scan.usage)
    }

    /// Lets blocks be found where they are, in place of what is known of the same offsets.
    pub(in crate::storage) fn add_blocks(&self, number: u64, scan: &SegmentScan) -> bool {
        self.with(|db| {
            remove_entries(db, number, &scan.usage)?;
            for (slot, blocks) in &scan.blocks {
                for chunk in blocks.chunks(CHUNK_LEN) {
                    let first = chunk.first().map_or(0, |block| block.first);
                    db.insert(block_key(*slot, first), encode_blocks(number, chunk))?;
                }
            }
            for (at, chunk) in (0u32..).zip(scan.dedup.chunks(CHUNK_LEN)) {
                let mut value = Vec::new();
                for entry in chunk {
                    entry.encode(&mut value);
                }
                db.insert(dedup_key(number, at), value)?;
            }
            Ok(())
        })
        .is_some()
    }

    /// Says durably that all of a file is in here.
    pub(in crate::storage) fn mark(&self, number: u64, life: u64, usage: &SegmentUsage) -> bool {
        self.with(|db| {
            self.sync(db)?;
            let mut mark = life.to_le_bytes().to_vec();
            usage.encode(&mut mark);
            db.insert(mark_key(number), mark)?;
            self.sync(db)
        })
        .is_some()
    }

    /// Takes a mark back, durably: what is here of the file is about to be wrong.
    pub(in crate::storage) fn unmark(&self, number: u64) {
        self.with(|db| {
            db.remove(mark_key(number))?;
            self.sync(db)
        });
    }

    /// Forgets a file.
    pub(in crate::storage) fn remove(&self, number: u64, usage: &SegmentUsage) {
        self.with(|db| remove_entries(db, number, usage));
    }

    /// Returns the dedup entries of a file, oldest first.
    pub(in crate::storage) fn dedup(&self, number: u64) -> Vec<DedupEntry> {
        self.with(|db| {
            let mut entries = Vec::new();
            for value in db.scan_prefix(&dedup_key(number, 0)[..9]).values() {
                let value = value?;
                let mut reader = ByteReader::new(&value);
                while !reader.is_empty() {
                    entries.push(DedupEntry::decode(&mut reader)?);
                }
            }
            Ok(entries)
        })
        .unwrap_or_default()
    }

    /// Lets go of the files.
    pub(in crate::storage) fn close(&self) {
        let db = lock::write(&self.db).take();
        drop_caught(db);
    }

    /// Says that something is missing that a mark promised; the next start makes the index anew.
    pub(in crate::storage) fn disagrees(&self) {
        if lock::read(&self.db).is_some() {
            self.fail(&Fault::Foreign);
        }
    }

    fn with<T>(&self, ask: impl FnOnce(&sled::Db) -> Result<T, Fault>) -> Option<T> {
        let answer = {
            let db = lock::read(&self.db);
            let db = db.as_ref()?;
            caught(|| ask(db))
        };
        answer.map_err(|fault| self.fail(&fault)).ok()
    }

    fn fail(&self, fault: &Fault) {
        tracing::error!(%fault, "the index has failed; journal files are searched until the next start makes it anew");
        self.close();
        self.set_aside();
    }

    /// sled's own flush starts the write but does not wait for the disk.
    fn sync(&self, db: &sled::Db) -> Result<(), Fault> {
        db.flush()?;
        let file = self.dir.join("db");
        patiently(|| File::open(&file))?.sync_data()?;
        Ok(())
    }

    fn set_aside(&self) {
        let to = self.damaged_dir.join("index");
        let moved = disk::make_dirs(&self.damaged_dir)
            .and_then(|()| match fs::remove_dir_all(&to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
            .and_then(|()| fs::rename(&self.dir, &to));
        if let Err(error) = moved {
            tracing::error!(%error, dir = %self.dir.display(), "cannot move the index aside");
        }
    }
}

fn remove_entries(db: &sled::Db, number: u64, usage: &SegmentUsage) -> Result<(), Fault> {
    let blocks = usage.records.iter().map(|(slot, share)| {
        let range = block_key(*slot, share.first)..block_key(*slot, share.end);
        db.range(range)
    });
    let dedup = db.scan_prefix(&dedup_key(number, 0)[..9]);
    for entry in blocks.flatten().chain(dedup) {
        db.remove(entry?.0)?;
    }
    Ok(())
}

fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn caught<T>(ask: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(Err(Fault::Panicked))
}

fn drop_caught(db: Option<sled::Db>) {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(db)));
    if dropped.is_err() {
        tracing::warn!("the index has panicked while it was closed");
    }
}

fn mark_key(number: u64) -> Vec<u8> {
    let mut key = vec![MARK];
    key.put_u64(number);
    key
}

fn block_key((stream, partition): Slot, first: u64) -> Vec<u8> {
    let mut key = vec![BLOCKS];
    key.put_u32(stream);
    key.put_u16(partition);
    key.put_u64(first);
    key
}

fn dedup_key(number: u64, chunk: u32) -> Vec<u8> {
    let mut key = vec![DEDUP];
    key.put_u64(number);
    key.put_u32(chunk);
    key
}

fn encode_blocks(number: u64, blocks: &[BlockRef]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, number);
    for block in blocks {
        put_varint(&mut out, block.place);
        put_varint(&mut out, block.len.into());
        put_varint(&mut out, block.first);
        put_varint(&mut out, block.count.into());
        out.put_u64_le(block.first_time);
    }
    out
}

fn decode_blocks(bytes: &[u8]) -> Result<Vec<BlockRef>, Malformed> {
    let mut reader = ByteReader::new(bytes);
    let segment = reader.varint()?;
    let mut blocks = Vec::new();
    while !reader.is_empty() {
        blocks.push(BlockRef {
            segment,
            place: reader.varint()?,
            len: reader.small()?,
            first: reader.varint()?,
            count: reader.small()?,
            first_time: reader.u64()?,
        });
    }
    Ok(blocks)
}
