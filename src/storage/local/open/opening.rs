//! Opening a directory in steps: lock, journal, index, a new file, threads.

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Instant,
};

use crate::runtime::clock::Clock;

use super::{
    exposure,
    recovery::{self, Recovered},
};
use crate::storage::local::{
    OpenError, Options,
    books::dedup::Dedup,
    disk::Disk,
    format::{frame::HEADER_LEN, segment::SegmentHeader, snapshot},
    lock::{self, DirLock},
    making,
    read::{index::Index, lookup},
    shared::EngineState,
    space::{
        housekeeper::{FreeSpace, Housekeeper, STEP_WAIT},
        spare::Spares,
    },
    write::{
        opened::{Beginning, is_full, name_segment},
        pending::Pending,
        queue::Queue,
        writer::Writer,
    },
};

/// The smallest journal file. A smaller one would hold little more than its header and snapshot.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The parts of an engine whose threads are not started yet.
pub(in crate::storage) struct Opened {
    pub(in crate::storage) shared: Arc<EngineState>,
    pub(in crate::storage) queue: Arc<Queue>,
    pub(in crate::storage) housekeeper: Arc<Housekeeper>,
    pub(in crate::storage) writer: Writer,
    pub(in crate::storage) lock: DirLock,
}

/// The threads that do the engine's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Workers {
    /// Threads of the engine.
    Threads,
    /// A test takes each step, so that every run has the same order. The index is off, because sled has threads of its own.
    #[cfg(test)]
    Hands,
}

/// Opens a directory.
pub(in crate::storage) fn open(
    options: Options,
    disk: Arc<dyn Disk>,
    clock: Clock,
    workers: Workers,
) -> Result<Opened, OpenError> {
    let start = Instant::now();
    let Options { dir, log } = options;
    making::check_settled(&dir)?;
    let lock = lock::take_dir(&dir)?;
    // The mode is not changed here, because an operator may have set it on purpose.
    if let Some(mode) = exposure::mode_for_others(&dir) {
        let mode = format!("{mode:o}");
        tracing::warn!(
            dir = %dir.display(), mode,
            "other users may read the data directory; `chmod -R go=` takes that right from them"
        );
    }
    let journal_dir = dir.join("journal");
    disk.create_dir_all(&journal_dir)
        .and_then(|()| disk.sync_dir(&dir))
        .map_err(|source| OpenError::io("make", &journal_dir, source))?;

    let dedup = Dedup::new(log.dedup_len_max, log.dedup_age_hours);
    let (view, files, found) =
        recovery::recover(&disk, journal_dir.clone(), dedup, log.cache_bytes)?;
    if let Some((file, at)) = &found.torn {
        tracing::warn!(file = %file.display(), at, "the last write was cut off by a crash and is dropped; its commits were never answered");
    }
    let segment_bytes = log.segment_bytes.max(SEGMENT_BYTES_MIN);
    let free_min = log.disk_free_bytes_min;
    let streams_max = log.streams_max;
    let spares = Spares::open(disk.clone(), journal_dir.join("spare"), segment_bytes);
    let spares =
        spares.map_err(|source| OpenError::io("make files ready in", &journal_dir, source));
    let spares = Arc::new(spares?);
    let lives = found.segments.iter().map(|s| (s.number, s.life)).collect();
    let (index_dir, damaged_dir) = (dir.join("index"), dir.join("damaged"));
    let index = match workers {
        Workers::Threads => Index::open(index_dir, damaged_dir, found.journal, &lives),
        #[cfg(test)]
        Workers::Hands => Index::absent(index_dir, damaged_dir),
    };
    let shared = Arc::new(EngineState::new(view, files, index));
    let dedup_age_us = u64::from(log.dedup_age_hours) * 3_600_000_000;
    let since = clock.now().0.saturating_sub(dedup_age_us);
    let unindexed = catch_up(&shared, &found.segments, found.replayed_from, since);
    let queue = Arc::new(Queue::new(log.queue_len_max, log.queue_bytes_max));
    let housekeeper = Housekeeper::new(
        spares.clone(),
        shared.clone(),
        clock.clone(),
        segment_bytes,
        FreeSpace {
            disk,
            dir: journal_dir.clone(),
            min: free_min,
        },
        match workers {
            Workers::Threads => STEP_WAIT,
            #[cfg(test)]
            Workers::Hands => std::time::Duration::ZERO,
        },
    );
    housekeeper.look_at_space();
    housekeeper.want_reserve();
    let housekeeper = Arc::new(housekeeper);
    let writer = Writer {
        shared: shared.clone(),
        queue: queue.clone(),
        spares,
        housekeeper: housekeeper.clone(),
        clock,
        journal: found.journal,
        segment_bytes,
        streams_max,
        open: None,
        named: None,
        before: None,
        next_frame: 1,
        pending: Pending::default(),
        requests: VecDeque::new(),
        settles: Vec::new(),
        stopped: None,
        full: None,
        on_reserve: false,
        refused_ends_len: 0,
        refused_told_at: None,
        refused: false,
        no_space_at: None,
        unproven: false,
    };
    let files_len = found.segments.len();
    let frames_len = found.frames_len;
    let writer = begin(writer, found)
        .map_err(|source| OpenError::io("begin a journal file in", &journal_dir, source))?;
    let open_number = writer.open.as_ref().map(|open| open.number);
    for number in unindexed {
        // The open file has replaced an empty newest file, and has its number.
        if Some(number) != open_number {
            housekeeper.sealed(number);
        }
    }
    let losses_len = lock::read(&shared.view).books.losses.len();
    if losses_len > 0 {
        tracing::warn!(
            losses = losses_len,
            "records of this log were lost to damage, and the losses were accepted; the ledger counts them"
        );
    }
    tracing::info!(
        dir = %dir.display(),
        files = files_len,
        frames = frames_len,
        streams = lock::read(&shared.view).books.by_name().count(),
        took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        "log is open"
    );
    Ok(Opened {
        shared,
        queue,
        housekeeper,
        writer,
        lock,
    })
}

/// Begins the file for the next frames.
fn begin(mut writer: Writer, found: Recovered) -> std::io::Result<Writer> {
    let (number, first_frame, before) = match found.replace_newest {
        Some(newest) => (newest.number, newest.first_frame, found.before_newest),
        None => {
            let number = found.before.as_ref().map_or(1, |before| before.number + 1);
            (number, found.next_frame, found.before)
        }
    };
    let snapshot = snapshot::encode(&lock::read(&writer.shared.view).books, before.as_ref());
    let beginning = Beginning {
        number,
        first_frame,
        journal: found.journal,
        created: writer.clock.now().0,
        snapshot: &snapshot,
    };
    let len = snapshot.len() as u64 + SEGMENT_BYTES_MIN;
    let spare = writer.spares.take(writer.segment_bytes.max(len), || true);
    let spare = match spare {
        Err(error) if is_full(&error) => {
            writer.on_reserve = true;
            writer.spares.take_reserve(len).ok_or(error)
        }
        spare => spare,
    };
    let named = spare.and_then(|spare| {
        let named = name_segment(&writer.shared, &writer.spares, &spare, beginning);
        if named.is_err() {
            match writer.on_reserve {
                true => writer.spares.put_back_reserve(spare),
                false => writer.spares.put_back(spare),
            }
        }
        named
    });
    let begun = named.and_then(|named| {
        writer.named = Some(named);
        writer.open_named()
    });
    match begun {
        Ok(()) if writer.on_reserve => writer.had_no_space(HEADER_LEN as u64, false),
        Ok(()) => {}
        // Stored records can still be read, and the writer tries again until there is space.
        Err(error) if is_full(&error) => {
            writer.had_no_space(HEADER_LEN as u64, true);
        }
        Err(error) => return Err(error),
    }
    writer.before = before;
    writer.next_frame = first_frame;
    Ok(writer)
}

pub(in crate::storage) fn start_threads(
    dir: &Path,
    housekeeper: &Arc<Housekeeper>,
    writer: Writer,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let failed = |source| OpenError::io("start a thread for", dir, source);
    let keeping = housekeeper.clone();
    let keeper = Builder::new().name("syncgate-keeper".into());
    let keeper = keeper.spawn(move || keeping.run()).map_err(failed)?;
    let mut threads = vec![keeper];
    let shared = writer.shared.clone();
    let watched = shared.clone();
    let watching = Builder::new().name("syncgate-watch".into());
    let started = watching
        .spawn(move || watched.condition.watch())
        .and_then(|watch| {
            threads.push(watch);
            let writing = Builder::new().name("syncgate-writer".into());
            writing.spawn(move || writer.run())
        });
    match started {
        Ok(writer) => {
            threads.push(writer);
            Ok(threads)
        }
        Err(source) => {
            housekeeper.stop();
            shared.condition.end();
            join(threads);
            Err(failed(source))
        }
    }
}

/// Waits for the threads of an engine, and logs each that has panicked.
pub(in crate::storage) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the log has panicked");
        }
    }
}

/// Indexes files that an earlier run has not indexed, and finds the dedup entries younger than `since`.
///
/// Returns the replayed files. Their blocks are in memory, and the housekeeper indexes them later.
fn catch_up(
    shared: &EngineState,
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
        let usage = shared.index.usage(segment.number);
        // The contents of a file are older than the next file.
        let recent = segments
            .get(at + 1)
            .is_none_or(|next| next.created >= since);
        if let Some(usage) = usage {
            lock::mutex(&shared.usage).set(segment.number, usage);
            if recent {
                older.extend(shared.index.dedup(segment.number));
            }
        } else {
            tracing::info!(file = %shared.files.path(segment.number).display(), "indexing a journal file");
            match lookup::scan(&shared.files, segment.number) {
                Ok(scan) => {
                    shared.index.add(segment.number, segment.life, &scan);
                    shared.note_usage(segment.number, &scan);
                    older.extend(scan.dedup);
                }
                // Go on: records of other files can still be dispatched.
                Err(error) => tracing::error!(%error, "cannot index a journal file"),
            }
        }
    }
    let books = &mut lock::write(&shared.view).books;
    older.retain(|entry| books.id_of(entry.stream).is_some());
    books.dedup.prepend(older);
    replayed
}
