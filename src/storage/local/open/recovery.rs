//! Recovery: reads the journal, checks it, and replays it to the books.
//!
//! Recovery changes nothing on disk before all files are found good. The end of the newest file may be torn, because a crash
//! can cut off a write without an answer. Any other bad frame is damage, named and refused:
//!
//! ```text
//! bad frame, and behind it a frame of the same life with a higher number   damage
//! bad frame in a file that is not the newest, before its known end         damage
//! bad frame in the newest file, nothing behind it                          torn write: cut off
//! ```
//!
//! Frames are replayed from the newest good snapshot on, which is normally that of the newest file.

use std::{path::PathBuf, sync::Arc};

use crate::storage::local::{
    OpenError,
    books::{Books, dedup::Dedup},
    disk::{Disk, DiskFile},
    format::{
        codec::Malformed,
        frame::Frame,
        ops::Op,
        scan::Frames,
        segment::{
            self, FORMAT_VERSION, Files, HeaderError, SNAPSHOT_AT, SegmentHeader, number_of,
            read_snapshot,
        },
        snapshot::{self, Summary},
    },
    read::cache::Cache,
    shared::View,
};

/// Result of recovery.
#[derive(Debug)]
pub(in crate::storage) struct Recovered {
    pub(in crate::storage) journal: [u8; 16],
    /// Summary of the newest file; `None` before the first one.
    pub(in crate::storage) before: Option<Summary>,
    pub(in crate::storage) next_frame: u64,
    /// The newest file, if it is empty. The next file then replaces it and takes its number.
    pub(in crate::storage) replace_newest: Option<SegmentHeader>,
    /// Summary of the file before the newest, from the newest file's snapshot.
    pub(in crate::storage) before_newest: Option<Summary>,
    /// All files, oldest first.
    pub(in crate::storage) segments: Vec<SegmentHeader>,
    /// Number of the first file that was replayed.
    pub(in crate::storage) replayed_from: u64,
    pub(in crate::storage) frames_len: u64,
    pub(in crate::storage) torn: Option<(PathBuf, u64)>,
}

/// A file with a good header. It is not kept open, because a journal may have more files than a process may open.
pub(in crate::storage) struct Found {
    pub(in crate::storage) path: PathBuf,
    pub(in crate::storage) header: SegmentHeader,
}

impl Found {
    pub(in crate::storage) fn open(
        &self,
        disk: &Arc<dyn Disk>,
    ) -> Result<Arc<dyn DiskFile>, OpenError> {
        let file = disk.open(&self.path);
        file.map(Arc::from)
            .map_err(|source| OpenError::io("open", &self.path, source))
    }
}

/// Reads the journal of a directory; makes none.
pub(in crate::storage) fn recover(
    disk: &Arc<dyn Disk>,
    journal_dir: PathBuf,
    dedup: Dedup,
    cache_bytes: usize,
) -> Result<(View, Files, Recovered), OpenError> {
    let files = Files::new(disk.clone(), journal_dir);
    let found = find(disk, &files)?;
    check_neighbours(&found, &files)?;

    let mut start = found.len();
    let mut books = Books::default();
    let mut before = None;
    while start > 0 {
        start -= 1;
        let Found { path, header } = &found[start];
        let bytes = read_snapshot(&*found[start].open(disk)?, header)
            .map_err(|source| OpenError::io("read a snapshot", path, source))?;
        match bytes.ok_or(BAD_SNAPSHOT).and_then(|b| snapshot::decode(&b)) {
            Ok((good, summary)) => {
                (books, before) = (good, summary);
                break;
            }
            // The earlier files lead to the same books, if all of them are there.
            Err(what) if start > 0 => {
                tracing::error!(file = %path.display(), %what, "snapshot is damaged, reading the file before it");
            }
            Err(what) => return Err(OpenError::damaged(path, SNAPSHOT_AT, what)),
        }
    }
    books.dedup = dedup;
    let mut view = View {
        books,
        blocks: crate::storage::local::read::blocks::Blocks::default(),
        cache: Cache::new(cache_bytes),
    };
    let mut recovered = Replay::default();
    let mut replayed = Vec::new();
    for (at, this) in found.iter().enumerate().skip(start) {
        let next = found.get(at + 1);
        if at > start {
            before = recovered.summary.take();
        }
        if at + 1 < found.len() && this.header.rewrite > 0 {
            return Err(OpenError::damaged(&this.path, 0, NOT_WHOLE));
        }
        let file = this.open(disk)?;
        recovered.segment(&mut view, |_, _| {}, this, &file, next)?;
        replayed.push((this, file));
    }
    for (found, file) in &replayed {
        file.sync_data()
            .map_err(|source| OpenError::io("sync a journal file", &found.path, source))?;
    }
    recovered.write_last_again(replayed.last())?;
    for found in &found {
        files.know(found.header.number, found.header.life);
    }
    let newest = found.last().map(|found| &found.header);
    let empty = recovered.ops_len == 0 && recovered.torn.is_none();
    let journal = match newest {
        Some(newest) => newest.journal,
        None => crate::storage::local::random()
            .map_err(|source| OpenError::io("get random numbers for", files.dir(), source))?,
    };
    let replace_newest = newest.filter(|_| empty).cloned();
    let recovered = Recovered {
        journal,
        before: recovered.summary,
        next_frame: recovered.next_frame.max(1),
        replace_newest,
        before_newest: before,
        replayed_from: found.get(start).map_or(1, |found| found.header.number),
        segments: found.into_iter().map(|found| found.header).collect(),
        frames_len: recovered.frames_len,
        torn: recovered.torn,
    };
    Ok((view, files, recovered))
}

const NOT_WHOLE: Malformed = Malformed(
    "the snapshots of the files behind it are damaged, and it was shortened, so what they said cannot be found again",
);
pub(in crate::storage) const BAD_SNAPSHOT: Malformed =
    Malformed("the snapshot has a wrong checksum");

/// Opens every file of the journal and reads its header, oldest first.
pub(in crate::storage) fn find(
    disk: &Arc<dyn Disk>,
    files: &Files,
) -> Result<Vec<Found>, OpenError> {
    let names = disk
        .list(files.dir())
        .map_err(|source| OpenError::io("list", files.dir(), source))?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = files.path(number);
        let failed = |source| OpenError::io("read", &path, source);
        let file: Arc<dyn DiskFile> = Arc::from(disk.open(&path).map_err(failed)?);
        let mut bytes = vec![0; crate::storage::local::format::codec::to_usize(SNAPSHOT_AT)];
        let len = segment::read_up_to(&*file, &mut bytes, 0).map_err(failed)?;
        let header = match SegmentHeader::decode(&bytes[..len]) {
            Ok((header, None)) => header,
            Ok((header, Some(what))) => {
                tracing::error!(file = %path.display(), %what, "one copy of the header is damaged, the other is used");
                header
            }
            Err(HeaderError::Newer(found)) => {
                return Err(OpenError::NewerFormat {
                    file: path,
                    found,
                    known: FORMAT_VERSION,
                });
            }
            Err(HeaderError::Malformed(what)) => return Err(OpenError::damaged(&path, 0, what)),
        };
        if header.number != number {
            let what = Malformed("the file's name is not that of its header");
            return Err(OpenError::damaged(&path, 0, what));
        }
        found.push(Found { path, header });
    }
    Ok(found)
}

pub(in crate::storage) fn check_neighbours(
    found: &[Found],
    files: &Files,
) -> Result<(), OpenError> {
    for pair in found.windows(2) {
        let [older, newer] = pair else { continue };
        if older.header.number + 1 != newer.header.number {
            let missing = files.path(older.header.number + 1);
            let what = Malformed("the file is missing, and those around it are there");
            return Err(OpenError::damaged(&missing, 0, what));
        }
        if older.header.journal != newer.header.journal {
            let what = Malformed("the file belongs to another directory's journal");
            return Err(OpenError::damaged(&newer.path, 0, what));
        }
        if older.header.first_frame > newer.header.first_frame {
            let what = Malformed("the file begins before the one that it follows");
            return Err(OpenError::damaged(&newer.path, 0, what));
        }
    }
    Ok(())
}

/// State of a replay.
#[derive(Default)]
pub(in crate::storage) struct Replay {
    next_frame: u64,
    pub(in crate::storage) frames_len: u64,
    /// Operations in the newest file.
    ops_len: usize,
    summary: Option<Summary>,
    last_frame: Option<Frame>,
    pub(in crate::storage) torn: Option<(PathBuf, u64)>,
}

impl Replay {
    /// Replays the frames of a file, each after `look` has seen it.
    pub(in crate::storage) fn segment(
        &mut self,
        view: &mut View,
        mut look: impl FnMut(&View, &Frame),
        this: &Found,
        file: &Arc<dyn DiskFile>,
        next: Option<&Found>,
    ) -> Result<(), OpenError> {
        let Found { path, header } = this;
        let failed = |source| OpenError::io("read", path, source);
        let mut frames = Frames::new(
            file.clone(),
            header.life,
            header.frames_at(),
            header.first_frame,
        )
        .map_err(failed)?;
        let mut summary = Summary {
            number: header.number,
            life: header.life,
            first_frame: header.first_frame,
            first_time: view.books.last_time,
            ..Summary::default()
        };
        self.ops_len = 0;
        self.last_frame = None;
        loop {
            // The header of the next file decides the end of this one. Later bytes come from a write that a crash cut off.
            if next.is_some_and(|next| next.header.first_frame == frames.number()) {
                break;
            }
            let place = frames.place();
            let what = match frames.next().map_err(failed)? {
                Ok(frame) => {
                    look(view, &frame);
                    view.replay(header.number, &frame)
                        .map_err(|what| OpenError::damaged(path, place, what))?;
                    if self.ops_len == 0 && !frame.ops.is_empty() {
                        summary.first_time = frame.header.at.time;
                    }
                    self.ops_len += frame.ops.len();
                    self.frames_len += 1;
                    let refers = frame.ops.iter().filter_map(|op| match op {
                        Op::Refer { key } => Some(key.clone()),
                        _ => None,
                    });
                    summary.refers.extend(refers);
                    let last = frame.header.last;
                    self.last_frame = Some(frame);
                    if !last {
                        continue;
                    }
                    match next {
                        None => break,
                        Some(next) if next.header.first_frame == frames.number() => break,
                        Some(_) => Malformed("the next file does not begin where this one ends"),
                    }
                }
                Err(what) => what,
            };
            if next.is_some() {
                return Err(OpenError::damaged(path, place, what));
            }
            if let Some(behind) = frames.find_behind().map_err(failed)? {
                tracing::error!(
                    file = %path.display(), place, number = frames.number(),
                    good_number = behind.at.number, good_place = behind.at.place,
                    "a frame is damaged and a later one is good"
                );
                return Err(OpenError::damaged(path, place, what));
            }
            if frames.is_torn().map_err(failed)? {
                self.torn = Some((path.clone(), place));
            }
            break;
        }
        self.next_frame = frames.number();
        summary.last_frame = frames.number() - 1;
        summary.last_time = view.books.last_time;
        summary.bytes = frames.place();
        self.summary = Some(summary);
        Ok(())
    }

    /// Writes the last frame again with the same bytes.
    ///
    /// After a failed `fdatasync` the system may keep bytes in memory that it believes to be on disk. A run that ended that
    /// way leaves at most one such frame, the last. Recovery counts it as stored, so it must really be on disk.
    fn write_last_again(
        &self,
        newest: Option<&(&Found, Arc<dyn DiskFile>)>,
    ) -> Result<(), OpenError> {
        let (Some(frame), Some((newest, file))) = (&self.last_frame, newest) else {
            return Ok(());
        };
        let place = frame.header.at.place;
        segment::write_all(&**file, &frame.bytes, place)
            .map_err(|(error, _)| error)
            .and_then(|()| file.sync_data())
            .map_err(|source| OpenError::io("write the last frame of", &newest.path, source))
    }
}
