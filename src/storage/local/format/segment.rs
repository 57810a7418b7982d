//! A file of the journal: its header in two copies, its snapshot, then frames.
//!
//! ```text
//! 0      header  magic "SYNCGATE", format version u32, rewrite u32, number u64, life u64, first frame u64,
//!                last frame u64 (0 = not known), created u64 µs, snapshot length u64, journal 16 bytes,
//!                snapshot crc u32, header crc u32
//! 4096   the same header again: one flipped bit must not lose a file
//! 8192   snapshot, zeros up to a multiple of 8, frames, zeros
//! ```
//!
//! Magic, version and the place of the header crc stay as they are in every later version. The life is random at each
//! use of a file; all checksums of snapshot, frames and blocks begin with it. The journal's 16 bytes are random, made
//! with the directory. A file gets its final name only when header and snapshot are durable, so a file of that name
//! without a good header is damaged, never half made.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use bytes::BufMut;

use crate::runtime::descriptors::Shares;

use super::{
    codec::{ByteReader, Malformed, to_usize},
    frame::aligned_len,
};
use crate::storage::local::{
    disk::{Disk, DiskFile},
    lock,
};

/// The newest format that this build reads. It writes version 2 only from the first accepted loss on, which version 1 cannot
/// store. Until then an older release can open the directory.
pub(in crate::storage) const FORMAT_VERSION: u32 = 2;
/// Where the snapshot begins.
pub(in crate::storage) const SNAPSHOT_AT: u64 = 8192;

const MAGIC: &[u8; 8] = b"SYNCGATE";
const COPY_AT: usize = 4096;
const HEADER_LEN: usize = 88;
const CRC_AT: usize = 84;

/// The header of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct SegmentHeader {
    /// The format version that a reader needs: see [`snapshot::version`](super::snapshot::version).
    pub(in crate::storage) version: u32,
    pub(in crate::storage) number: u64,
    pub(in crate::storage) life: u64,
    /// How often the file was compacted.
    pub(in crate::storage) rewrite: u32,
    pub(in crate::storage) first_frame: u64,
    /// 0 = not known.
    pub(in crate::storage) last_frame: u64,
    pub(in crate::storage) created: u64,
    pub(in crate::storage) snapshot_len: u64,
    pub(in crate::storage) snapshot_crc: u32,
    pub(in crate::storage) journal: [u8; 16],
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum HeaderError {
    Newer(u32),
    Malformed(Malformed),
}

impl SegmentHeader {
    /// Returns where the first frame begins.
    pub(in crate::storage) fn frames_at(&self) -> u64 {
        aligned_len(SNAPSHOT_AT.saturating_add(self.snapshot_len))
    }

    /// Returns both copies with what lies between: the first [`SNAPSHOT_AT`] bytes of a file.
    pub(in crate::storage) fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(HEADER_LEN);
        copy.put_slice(MAGIC);
        copy.put_u32_le(self.version);
        copy.put_u32_le(self.rewrite);
        copy.put_u64_le(self.number);
        copy.put_u64_le(self.life);
        copy.put_u64_le(self.first_frame);
        copy.put_u64_le(self.last_frame);
        copy.put_u64_le(self.created);
        copy.put_u64_le(self.snapshot_len);
        copy.put_slice(&self.journal);
        copy.put_u32_le(self.snapshot_crc);
        copy.put_u32_le(crc32c::crc32c(&copy));
        let mut out = vec![0; to_usize(SNAPSHOT_AT)];
        out[..HEADER_LEN].copy_from_slice(&copy);
        out[COPY_AT..COPY_AT + HEADER_LEN].copy_from_slice(&copy);
        out
    }

    /// Reads the beginning of a file. Also returns what is wrong with one copy if the other one is good.
    pub(in crate::storage) fn decode(
        bytes: &[u8],
    ) -> Result<(Self, Option<Malformed>), HeaderError> {
        let first = Self::decode_copy(bytes);
        let second = Self::decode_copy(bytes.get(COPY_AT..).unwrap_or_default());
        match (first, second) {
            (Ok(first), Ok(second)) if first != second => Err(HeaderError::Malformed(Malformed(
                "the two copies of the header contradict each other",
            ))),
            (Ok(header), Ok(_)) => Ok((header, None)),
            (Ok(header), Err(error)) | (Err(error), Ok(header)) => {
                let what = match error {
                    HeaderError::Malformed(what) => what,
                    HeaderError::Newer(_) => Malformed("one copy is of a newer version"),
                };
                Ok((header, Some(what)))
            }
            // Both say so, and no other build would have refused to read both if one bit had flipped.
            (Err(HeaderError::Newer(version)), Err(_)) => Err(HeaderError::Newer(version)),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn decode_copy(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut reader = ByteReader::new(bytes);
        let cut = HeaderError::Malformed;
        if reader.array().map_err(cut)? != *MAGIC {
            return Err(cut(Malformed("the file has no journal header")));
        }
        let version = reader.u32().map_err(cut)?;
        let checked = bytes.get(..CRC_AT).zip(bytes.get(CRC_AT..HEADER_LEN));
        let good = checked.is_some_and(|(all, crc)| crc32c::crc32c(all).to_le_bytes() == crc);
        if !good {
            return Err(cut(Malformed("the file's header has a wrong checksum")));
        }
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer(version));
        }
        if version == 0 {
            return Err(cut(Malformed("the file has an impossible version")));
        }
        Self::decode_fields(&mut reader, version).map_err(cut)
    }

    fn decode_fields(reader: &mut ByteReader<'_>, version: u32) -> Result<Self, Malformed> {
        Ok(Self {
            version,
            rewrite: reader.u32()?,
            number: reader.u64()?,
            life: reader.u64()?,
            first_frame: reader.u64()?,
            last_frame: reader.u64()?,
            created: reader.u64()?,
            snapshot_len: reader.u64()?,
            journal: reader.array()?,
            snapshot_crc: reader.u32()?,
        })
    }
}

/// Returns the checksum that goes with a snapshot.
pub(in crate::storage) fn snapshot_crc(life: u64, snapshot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&life.to_le_bytes()), snapshot)
}

/// Reads a file's snapshot; `None` if its bytes are not those that were written.
pub(in crate::storage) fn read_snapshot(
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> io::Result<Option<Vec<u8>>> {
    if header.frames_at() > file.len()? {
        return Ok(None);
    }
    let mut bytes = vec![0; to_usize(header.snapshot_len)];
    let read = read_up_to(file, &mut bytes, SNAPSHOT_AT)?;
    let good = read == bytes.len() && snapshot_crc(header.life, &bytes) == header.snapshot_crc;
    Ok(good.then_some(bytes))
}

/// Reads until the buffer is full or the file ends; returns how many bytes.
pub(in crate::storage) fn read_up_to(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    at: u64,
) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Returns `len` bytes from there on, or those up to the end.
pub(in crate::storage) fn read_some(
    file: &dyn DiskFile,
    len: usize,
    at: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let left = len - bytes.len();
        match file.read_onto(&mut bytes, left, at + (len - left) as u64) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Writes all of `bytes`; after an error, also returns how many were taken before it.
pub(in crate::storage) fn write_all(
    file: &dyn DiskFile,
    bytes: &[u8],
    at: u64,
) -> Result<(), (io::Error, usize)> {
    let mut len = 0;
    while len < bytes.len() {
        match file.write_at(&bytes[len..], at + len as u64) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), len)),
            Ok(written) => len += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((error, len)),
        }
    }
    Ok(())
}

/// Returns the name of a file of the journal.
pub(in crate::storage) fn file_name(number: u64) -> String {
    format!("{number:010}.seg")
}

/// Returns the number in a name; `None` if it is no name of a file of the journal.
pub(in crate::storage) fn number_of(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".seg")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The files of the journal: which there are, and a bounded number of open ones.
#[derive(Debug)]
pub(in crate::storage) struct Files {
    disk: Arc<dyn Disk>,
    journal: PathBuf,
    lives: RwLock<BTreeMap<u64, u64>>,
    /// Readers hold it for reading from the lookup of a place until its read. The removal of a file takes it for writing, so
    /// that no reader uses a stale place.
    pub(in crate::storage) in_use: RwLock<()>,
    /// The one used last is at the end.
    open: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
    open_len_max: usize,
}

impl Files {
    pub(in crate::storage) fn new(disk: Arc<dyn Disk>, journal: PathBuf) -> Self {
        Self {
            disk,
            journal,
            lives: RwLock::default(),
            in_use: RwLock::default(),
            open: Mutex::default(),
            open_len_max: Shares::of_process().journal_files,
        }
    }

    pub(in crate::storage) fn path(&self, number: u64) -> PathBuf {
        self.journal.join(file_name(number))
    }

    pub(in crate::storage) fn dir(&self) -> &Path {
        &self.journal
    }

    /// Adds a file, and replaces one of the same number.
    pub(in crate::storage) fn add(&self, number: u64, life: u64, file: Arc<dyn DiskFile>) {
        lock::write(&self.lives).insert(number, life);
        let mut open = lock::mutex(&self.open);
        open.retain(|(other, _)| *other != number);
        open.push_back((number, file));
        if open.len() > self.open_len_max {
            open.pop_front();
        }
    }

    /// Adds a file without opening it; the first read opens it.
    pub(in crate::storage) fn know(&self, number: u64, life: u64) {
        lock::write(&self.lives).insert(number, life);
    }

    /// Removes a file from the list.
    pub(in crate::storage) fn forget(&self, number: u64) {
        lock::write(&self.lives).remove(&number);
        lock::mutex(&self.open).retain(|(other, _)| *other != number);
    }

    /// Returns the number of the newest file.
    pub(in crate::storage) fn newest(&self) -> Option<u64> {
        let lives = lock::read(&self.lives);
        lives.last_key_value().map(|(number, _)| *number)
    }

    /// Returns the number of the oldest file.
    pub(in crate::storage) fn oldest(&self) -> Option<u64> {
        let lives = lock::read(&self.lives);
        lives.first_key_value().map(|(number, _)| *number)
    }

    /// Returns numbers and lives, oldest first.
    pub(in crate::storage) fn all(&self) -> Vec<(u64, u64)> {
        let lives = lock::read(&self.lives);
        lives
            .iter()
            .map(|(number, life)| (*number, *life))
            .collect()
    }

    /// Returns a file with its life.
    pub(in crate::storage) fn get(&self, number: u64) -> io::Result<(u64, Arc<dyn DiskFile>)> {
        let life = lock::read(&self.lives).get(&number).copied();
        let life = life.ok_or(io::ErrorKind::NotFound)?;
        let known = {
            let mut open = lock::mutex(&self.open);
            let at = open.iter().position(|(other, _)| *other == number);
            at.and_then(|at| open.remove(at))
        };
        let file = match known {
            Some((_, file)) => file,
            None => Arc::from(self.disk.open(&self.path(number))?),
        };
        self.add(number, life, file.clone());
        Ok((life, file))
    }
}
