//! Checks a journal from its first frame on, without the index and without changes.
//!
//! Opening starts from the newest snapshot; this check folds all frames and compares the books with each snapshot on the
//! way. Each copy in an error stream must have exactly one settlement that names it, in the same frame.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::storage::{AppendKind, Ledger};

use crate::storage::local::{
    OpenError,
    books::{Books, LOSSES_LEN_MAX, PartitionBook},
    disk::{Disk, DiskFile, RealDisk},
    format::{
        block::Slot,
        frame::Frame,
        ops::Op,
        scan::Frames,
        segment::{Files, SNAPSHOT_AT, read_snapshot},
        snapshot,
    },
    lock, making,
    open::recovery::{BAD_SNAPSHOT, Found, Replay, check_neighbours, find},
    read::{blocks::Blocks, cache::Cache},
    shared::View,
};

/// Faults that are named; beyond that they are only counted.
const FAULTS_LEN_MAX: usize = 100;

/// What a journal adds up to.
#[derive(Debug)]
pub struct Verified {
    /// The books at its end.
    pub ledger: Ledger,
    /// What of them the journal's first snapshot says: the history before it is gone.
    pub taken_over: Ledger,
    /// Files that were read.
    pub files_len: usize,
    /// Files of them that hold only what was left of them: what they add up to is taken from the snapshot behind.
    pub shortened_len: usize,
    /// Frames that were read.
    pub frames_len: u64,
    /// The last write was cut by a crash: file and place. It was not answered.
    pub torn: Option<(PathBuf, u64)>,
    /// What does not fit together, the first 100.
    pub faults: Vec<String>,
    /// How many there are.
    pub faults_len: u64,
}

/// Reads the whole journal of a directory that no process works with.
///
/// # Errors
/// [`OpenError`] for a directory that is in use, and for what cannot be read at all.
pub fn verify(dir: &Path) -> Result<Verified, OpenError> {
    making::check_settled(dir)?;
    let journal_dir = dir.join("journal");
    // A directory that is not there is not made.
    std::fs::read_dir(&journal_dir)
        .map_err(|source| OpenError::io("list", &journal_dir, source))?;
    let _lock = lock::take_dir(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    read(&disk, journal_dir)
}

pub(in crate::storage) fn read(
    disk: &Arc<dyn Disk>,
    journal_dir: PathBuf,
) -> Result<Verified, OpenError> {
    let files = Files::new(disk.clone(), journal_dir);
    let found = find(disk, &files)?;
    check_neighbours(&found, &files)?;
    if found.is_empty() {
        // Most likely another directory was meant: nothing is no balance.
        let nothing = io::ErrorKind::NotFound.into();
        return Err(OpenError::io(
            "find a journal file in",
            files.dir(),
            nothing,
        ));
    }
    let mut view = View {
        books: Books::default(),
        blocks: Blocks::default(),
        cache: Cache::new(0),
    };
    let mut faults = Faults::default();
    let mut replay = Replay::default();
    let mut taken_over = Ledger::default();
    let mut shortened_len = 0;
    let mut after_shortened = true;
    for (at, this) in found.iter().enumerate() {
        let file = this.open(disk)?;
        let noted = noted(disk, this)?;
        if after_shortened {
            view.books = noted;
            taken_over = view.books.ledger();
        } else {
            faults.accepted(this, &mut view.books, &noted);
            faults.compare(this, &view.books, &noted);
        }
        after_shortened = this.header.rewrite > 0;
        if after_shortened {
            shortened_len += 1;
            check_frames(this, file)?;
            continue;
        }
        let look = |view: &View, frame: &Frame| faults.copies(&view.books, frame);
        replay.segment(&mut view, look, this, &file, found.get(at + 1))?;
        // Where blocks lie is of no use here, and there may be many.
        view.blocks = Blocks::default();
    }
    Ok(Verified {
        ledger: view.books.ledger(),
        taken_over,
        files_len: found.len(),
        shortened_len,
        frames_len: replay.frames_len,
        torn: replay.torn,
        faults: faults.named,
        faults_len: faults.len,
    })
}

/// Reads all frames of a file that was written again.
fn check_frames(this: &Found, file: Arc<dyn DiskFile>) -> Result<(), OpenError> {
    let Found { path, header } = this;
    let failed = |source| OpenError::io("read", path, source);
    let first = header.first_frame;
    let frames = Frames::new(file, header.life, header.frames_at(), first);
    let mut frames = frames.map_err(failed)?;
    loop {
        let place = frames.place();
        let frame = frames.next().map_err(failed)?;
        let frame = frame.map_err(|what| OpenError::damaged(path, place, what))?;
        if frame.header.last {
            return Ok(());
        }
    }
}

fn noted(disk: &Arc<dyn Disk>, this: &Found) -> Result<Books, OpenError> {
    let Found { path, header } = this;
    let bytes = read_snapshot(&*this.open(disk)?, header)
        .map_err(|source| OpenError::io("read a snapshot", path, source))?;
    let books = bytes
        .ok_or(BAD_SNAPSHOT)
        .and_then(|bytes| snapshot::decode(&bytes));
    let (books, _before) = books.map_err(|what| OpenError::damaged(path, SNAPSHOT_AT, what))?;
    Ok(books)
}

#[derive(Debug, Default)]
pub(in crate::storage) struct Faults {
    pub(in crate::storage) named: Vec<String>,
    len: u64,
}

impl Faults {
    fn add(&mut self, fault: impl FnOnce() -> String) {
        self.len += 1;
        if self.named.len() < FAULTS_LEN_MAX {
            self.named.push(fault());
        }
    }

    /// Takes over what a snapshot says to be lost, if somebody has accepted that right before its file was begun.
    fn accepted(&mut self, this: &Found, folded: &mut Books, noted: &Books) {
        let (known, said) = (&folded.losses, &noted.losses);
        let new = known.len() < said.len() && said.starts_with(known);
        let last = known.len() == LOSSES_LEN_MAX && known.get(1..) == said.get(..known.len() - 1);
        if known == said || !(new || last) {
            return;
        }
        let mut open = 0;
        for (slot, lost) in noted.lost() {
            if let Ok(book) = folded.partition_mut(slot) {
                open += book.lose(&lost.without(&book.lost));
                book.lost = Arc::new(lost.clone());
            }
        }
        let accepted = said.last().map_or(0, |loss| loss.open);
        if open != accepted {
            self.add(|| {
                let file = this.path.display();
                format!(
                    "{file}: {open} records are lost by the snapshot, and {accepted} were accepted"
                )
            });
        }
        folded.losses.clone_from(said);
        folded.unmatched = noted.unmatched;
    }

    /// Compares what the frames before a file add up to with what its snapshot says.
    fn compare(&mut self, this: &Found, folded: &Books, noted: &Books) {
        let file = this.path.display();
        let mut said: BTreeMap<_, _> = noted.streams().collect();
        for (number, book) in folded.streams() {
            let name = &book.stream.name;
            let Some(other) = said.remove(&number) else {
                self.add(|| format!("{file}: the snapshot lacks stream {name}"));
                continue;
            };
            if *book.stream != *other.stream {
                self.add(|| format!("{file}: the snapshot has stream {name} otherwise"));
            }
            let partitions = book.partitions.iter().zip(&other.partitions);
            for (partition, (folded, noted)) in partitions.enumerate() {
                if let Some(what) = differs(folded, noted) {
                    self.add(|| format!("{file}: {name}/{partition}: {what}"));
                }
            }
        }
        for (_, book) in said {
            let name = &book.stream.name;
            self.add(|| format!("{file}: the snapshot has a stream {name} that was never made"));
        }
        let revisions = |books: &Books| -> BTreeMap<_, _> {
            let entries = books.state.iter();
            entries
                .map(|(key, entry)| (key.clone(), entry.revision))
                .collect()
        };
        if revisions(folded) != revisions(noted) {
            self.add(|| format!("{file}: the snapshot has other state than was written"));
        }
        if (&folded.losses, folded.unmatched) != (&noted.losses, noted.unmatched) {
            self.add(|| format!("{file}: the snapshot has other accepted losses"));
        }
        if folded.gone != noted.gone {
            self.add(|| format!("{file}: the snapshot counts streams that are gone otherwise"));
        }
    }

    /// Compares the copies that a frame appends with the ends in it that speak of copies.
    pub(in crate::storage) fn copies(&mut self, books: &Books, frame: &Frame) {
        let mut appended: BTreeMap<(Slot, u64), AppendKind> = BTreeMap::new();
        for op in &frame.ops {
            if let Op::Append(block) = op
                && matches!(block.kind, AppendKind::Routed | AppendKind::Moved)
            {
                let offsets = block.first..block.first + u64::from(block.count);
                appended.extend(offsets.map(|offset| ((block.slot, offset), block.kind)));
            }
        }
        let number = frame.header.at.number;
        let place = |slot: Slot, offset: u64| {
            let stream = books.streams().find(|(number, _)| *number == slot.0);
            let name = stream.map(|(_, book)| book.stream.name.to_string());
            format!("{}/{}/{offset}", name.unwrap_or_default(), slot.1)
        };
        for op in &frame.ops {
            let Op::Settle(run) = op else { continue };
            let Some((slot, first)) = run.copies else {
                continue;
            };
            for at in 0..run.count {
                if appended.remove(&(slot, first + at)).is_none() {
                    self.add(|| {
                        let (origin, copy) =
                            (place(run.slot, run.first + at), place(slot, first + at));
                        format!(
                            "frame {number}: the copy {copy} of {origin} is missing or has two ends"
                        )
                    });
                }
            }
        }
        for (slot, offset) in appended.into_keys() {
            self.add(|| {
                format!(
                    "frame {number}: nothing ended with the copy {}",
                    place(slot, offset)
                )
            });
        }
    }
}

/// Returns what two accounts of a partition do not agree on.
fn differs(folded: &PartitionBook, noted: &PartitionBook) -> Option<String> {
    let numbers = [
        ("the next offset", folded.next, noted.next),
        ("the earliest offset", folded.earliest, noted.earliest),
        (
            "the first record without an end",
            folded.settled.low_mark(),
            noted.settled.low_mark(),
        ),
        (
            "the number of ends",
            folded.settled.len(),
            noted.settled.len(),
        ),
    ];
    let different = numbers
        .into_iter()
        .find(|(_, folded, noted)| folded != noted);
    if let Some((what, folded, noted)) = different {
        return Some(format!(
            "{what} is {folded} by the frames and {noted} by the snapshot"
        ));
    }
    if folded.settled != noted.settled {
        return Some("frames and snapshot have other records ended".into());
    }
    if folded.lost != noted.lost {
        return Some("frames and snapshot have other records lost".into());
    }
    (folded.counts != noted.counts).then(|| {
        let (folded, noted) = (folded.counts, noted.counts);
        format!("the frames count {folded:?}, the snapshot {noted:?}")
    })
}
