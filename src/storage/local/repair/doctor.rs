//! Examines a directory at rest: its damage, and the error with which a start would refuse it.
//!
//! Only `LOCK` is changed, unless the caller asks for more ([`rebuild_index`], [`renew`], [`accept_loss`]).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    runtime::clock::{Clock, Timestamp},
    storage::Log,
};

use super::mend;
use crate::storage::{
    embedded::Embedded,
    local::{
        OpenError, Options, RealDisk,
        books::dedup::Dedup,
        disk::{Disk, DiskFile},
        format::{
            codec::to_usize,
            scan::Frames,
            segment::{
                self, Files, HeaderError, SNAPSHOT_AT, SegmentHeader, number_of, read_snapshot,
            },
            snapshot,
        },
        lock, making,
        open::{
            at_rest::Untouched,
            exposure,
            recovery::{self, check_neighbours, find},
        },
        read::{index::Index, lookup},
    },
};

pub use super::mend::{AcceptError, LossReport, LostFile, LostRecords, accept_loss};
pub use crate::storage::local::open::exposure::Exposed;

/// Result of [`examine`].
#[derive(Debug)]
pub struct Examined {
    /// Every file of the journal, oldest first.
    pub files: Vec<FileState>,
    /// The index exists. A start rebuilds an absent or damaged one.
    pub has_index: bool,
    /// The error with which a start would refuse the directory.
    pub refusal: Option<OpenError>,
    /// The loss that `--accept-loss` would accept.
    pub loss: Option<LossReport>,
    /// Losses that were accepted before.
    pub accepted: Vec<Accepted>,
    /// Files that other users may read or change.
    pub exposed: Exposed,
}

/// A loss that an operator has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Time of the acceptance.
    pub time: Timestamp,
    /// Numbers of the files.
    pub files: Vec<u64>,
    /// Bytes that could not be read.
    pub bytes: u64,
    /// Number of frames without a readable header.
    pub frames: u64,
    /// Number of lost records that were settled.
    pub ended: u64,
    /// Number of lost records that were open.
    pub open: u64,
}

/// A file of the journal.
#[derive(Debug)]
pub struct FileState {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Number of good frames.
    pub frames_len: u64,
    /// The file was compacted.
    pub shortened: bool,
    /// Its damaged parts.
    pub damages: Vec<Damage>,
    /// Position of a write that a crash cut off; it was never answered.
    pub torn: Option<u64>,
}

/// Damaged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Position of the first byte.
    pub at: u64,
    /// Description of the damage.
    pub what: &'static str,
    /// Position of the next good frame, if there is one.
    pub good_at: Option<u64>,
}

/// Examines a directory.
///
/// # Errors
/// [`OpenError`] for a directory that is in use, or cannot be read at all.
pub fn examine(dir: &Path) -> Result<Examined, OpenError> {
    making::check_settled(dir)?;
    let journal_dir = dir.join("journal");
    // Check first, because taking the lock would make an absent directory.
    fs::read_dir(&journal_dir).map_err(|source| OpenError::io("list", &journal_dir, source))?;
    let _lock = lock::take_dir(dir)?;
    let exposed = exposure::look(dir);
    let disk: Arc<dyn Disk> = Arc::new(Untouched);
    let names = disk.list(&journal_dir);
    let names = names.map_err(|source| OpenError::io("list", &journal_dir, source))?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let mut files = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        let path = journal_dir.join(segment::file_name(*number));
        let next = numbers
            .get(at + 1)
            .map(|next| journal_dir.join(segment::file_name(*next)));
        let state = examine_file(disk.as_ref(), &path, next.as_deref());
        files.push(state.map_err(|source| OpenError::io("read", &path, source))?);
    }
    let loss = mend::look_ahead(&disk, &Files::new(disk.clone(), journal_dir.clone()));
    let recovered = recovery::recover(&disk, journal_dir, Dedup::new(0, 1), 0);
    let mut accepted = Vec::new();
    if let Ok((view, ..)) = &recovered {
        let losses = view.books.losses.iter();
        accepted.extend(losses.map(|loss| Accepted {
            time: Timestamp(loss.time),
            files: loss.files.clone(),
            bytes: loss.bytes,
            frames: loss.frames,
            ended: loss.ended,
            open: loss.open,
        }));
    }
    Ok(Examined {
        files,
        has_index: dir.join("index").is_dir(),
        refusal: recovered.err(),
        // What is worse than damage is the refusal.
        loss: loss.ok().flatten(),
        accepted,
        exposed,
    })
}

fn examine_file(disk: &dyn Disk, path: &Path, next: Option<&Path>) -> io::Result<FileState> {
    let file: Arc<dyn DiskFile> = Arc::from(disk.open(path)?);
    let mut state = FileState {
        path: path.into(),
        bytes: file.len()?,
        frames_len: 0,
        shortened: false,
        damages: Vec::new(),
        torn: None,
    };
    let damage = |at, what| Damage {
        at,
        what,
        good_at: None,
    };
    let header = match read_header(&*file)? {
        Ok((header, None)) => header,
        Ok((header, Some(what))) => {
            state.damages.push(damage(0, what));
            header
        }
        Err(what) => {
            state.damages.push(damage(0, what));
            return Ok(state);
        }
    };
    state.shortened = header.rewrite > 0;
    match read_snapshot(&*file, &header)? {
        None => state
            .damages
            .push(damage(SNAPSHOT_AT, recovery::BAD_SNAPSHOT.0)),
        Some(bytes) => {
            if let Err(what) = snapshot::decode(&bytes) {
                state.damages.push(damage(SNAPSHOT_AT, what.0));
            }
        }
    }
    let end = match next {
        Some(next) => {
            let next = read_header(&*disk.open(next)?)?;
            next.ok().map(|(next, _)| next.first_frame)
        }
        None => None,
    };
    let (life, first) = (header.life, header.first_frame);
    let mut frames = Frames::new(file, life, header.frames_at(), first)?;
    while end.is_none_or(|end| frames.number() < end) {
        let at = frames.place();
        match frames.next()? {
            Ok(frame) => {
                state.frames_len += 1;
                if frame.header.last {
                    break;
                }
            }
            Err(what) => {
                let behind = frames.find_behind()?;
                let is_damage = behind.is_some() || next.is_some();
                if is_damage {
                    state.damages.push(Damage {
                        at,
                        what: what.0,
                        good_at: behind.map(|header| header.at.place),
                    });
                } else if frames.is_torn()? {
                    state.torn = Some(at);
                }
                match behind {
                    Some(header) => frames.go_to(&header),
                    None => break,
                }
            }
        }
    }
    Ok(state)
}

type Header = Result<(SegmentHeader, Option<&'static str>), &'static str>;

fn read_header(file: &dyn DiskFile) -> io::Result<Header> {
    let mut bytes = vec![0; to_usize(SNAPSHOT_AT)];
    let len = segment::read_up_to(file, &mut bytes, 0)?;
    Ok(match SegmentHeader::decode(&bytes[..len]) {
        Ok((header, what)) => Ok((header, what.map(|what| what.0))),
        Err(HeaderError::Newer(_)) => Err("it is of a newer format"),
        Err(HeaderError::Malformed(what)) => Err(what.0),
    })
}

/// Rebuilds the index from all files but the newest, and returns their number. The old index moves to `damaged/index`.
///
/// # Errors
/// As [`examine`], and for a journal that cannot be read.
pub fn rebuild_index(dir: &Path) -> Result<usize, OpenError> {
    let journal_dir = dir.join("journal");
    fs::read_dir(&journal_dir).map_err(|source| OpenError::io("list", &journal_dir, source))?;
    let _lock = lock::take_dir(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let files = Files::new(disk.clone(), journal_dir);
    let found = find(&disk, &files)?;
    check_neighbours(&found, &files)?;
    for found in &found {
        files.know(found.header.number, found.header.life);
    }
    let Some((newest, sealed)) = found.split_last() else {
        return Ok(0);
    };
    let index_dir = dir.join("index");
    let index = Index::anew(
        index_dir.clone(),
        dir.join("damaged"),
        newest.header.journal,
    );
    let mut len = 0;
    for found in sealed {
        let header = &found.header;
        let scan = lookup::scan(&files, header.number)
            .map_err(|source| OpenError::io("read", &found.path, source))?;
        if !index.add(header.number, header.life, &scan) {
            let refused =
                io::Error::other("the index takes nothing; see the log lines before this");
            return Err(OpenError::io("write the index in", &index_dir, refused));
        }
        len += 1;
    }
    index.close();
    Ok(len)
}

/// Gives every stream a new incarnation, after a restore from a copy. Offsets after the copy belonged to other records before,
/// and readers must not confuse them. Returns the number of streams.
///
/// # Errors
/// As [`Embedded::open`], and if the change cannot be stored; then it is to be done again.
pub async fn renew(options: Options, clock: Clock) -> Result<usize, RenewError> {
    let engine = tokio::task::spawn_blocking(|| Embedded::open(options, Arc::new(RealDisk), clock));
    let engine = engine.await.map_err(io::Error::other)??;
    let streams = engine.streams();
    for stream in &streams {
        engine.renew_stream(stream.id).await?;
    }
    engine.close().await;
    Ok(streams.len())
}

/// Why not all streams have a new incarnation.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The directory does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The change was not stored.
    #[error("cannot give a stream its new incarnation: {0}")]
    Change(#[from] crate::storage::StreamError),
    /// The system refused a call.
    #[error(transparent)]
    Io(#[from] io::Error),
}
