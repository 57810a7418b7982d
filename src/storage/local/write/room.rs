//! Room for the next frame: the writer seals a full file, begins the next one, and handles a full disk.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    opened::{Beginning, Fault, OpenSegment, SEAL_LEN, is_full, name_segment, open_segment},
    writer::Writer,
};
use crate::storage::local::{
    format::{
        frame::{Frame, aligned_len},
        segment, snapshot,
    },
    lock,
};

/// Time between two tries to write to a full disk.
pub(in crate::storage) const DISK_FULL_WAIT: Duration = Duration::from_secs(1);

/// No more attempts begin once less than one part in so many of the reserve is left.
const RESERVE_PART: u64 = 4;

/// A disk without space.
#[derive(Debug)]
pub(in crate::storage) struct Full {
    /// Length of the longest refused frame. The disk counts as full until a frame of that length fits.
    frame_len: u64,
    /// Settlements and copies do not fit either.
    for_all: bool,
    /// Time of the last try.
    tried: Instant,
}

impl Writer {
    /// Notes that a frame of that length did not fit. `for_all` is false if only frames with records from outside do not fit.
    pub(in crate::storage) fn had_no_space(&mut self, frame_len: u64, for_all: bool) {
        let before = self.full.take();
        let was_for_all = before.as_ref().is_some_and(|full| full.for_all);
        if for_all && !was_for_all {
            tracing::error!("the disk is full; nothing is stored until there is space");
            self.shared.condition.disk_full(true);
        } else if before.is_none() {
            tracing::error!(
                "the disk is full; records from outside are refused until there is space"
            );
        }
        self.shared.condition.no_file(true);
        self.full = Some(Full {
            frame_len: before.map_or(0, |full| full.frame_len).max(frame_len),
            for_all: for_all || was_for_all,
            tried: Instant::now(),
        });
    }

    /// Notes that a frame of that length fits without the reserve.
    pub(in crate::storage) fn had_space(&mut self, frame_len: u64) {
        if self
            .full
            .as_ref()
            .is_some_and(|full| full.frame_len <= frame_len)
        {
            self.full = None;
            tracing::info!("the disk has space again; records are accepted");
            self.shared.condition.disk_full(false);
            self.shared.condition.no_file(false);
            self.housekeeper.want_reserve();
        }
    }

    /// Reports a full disk before the reserve is used up, because an attempt that begins now may need space for its failure.
    pub(in crate::storage) fn watch_reserve(&mut self) {
        let left = self
            .open
            .as_ref()
            .map_or(0, |open| open.len.saturating_sub(open.place));
        if left < self.spares.reserve_bytes() / RESERVE_PART && !self.spares.has_reserve() {
            self.had_no_space(0, true);
        }
    }

    /// Tries, once a second, whether a refused frame would fit now.
    pub(in crate::storage) fn try_space(&mut self) {
        let Some(full) = &self.full else { return };
        if self.stopped.is_some() || full.tried.elapsed() < DISK_FULL_WAIT {
            return;
        }
        let (frame_len, for_all) = (full.frame_len, full.for_all);
        self.shared.condition.step();
        let tried = match self.on_reserve {
            true => self.try_file(),
            false => self
                .make_room(frame_len, false)
                .and_then(|()| self.try_frame(frame_len)),
        };
        self.shared.condition.rest();
        self.note(&tried, frame_len, for_all);
        if tried.is_ok() {
            self.had_space(frame_len);
        }
    }

    /// Tries whether the open file takes a frame of that length.
    fn try_frame(&self, frame_len: u64) -> Result<(), Fault> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        open.try_space(frame_len, || {
            self.shared.condition.step();
            true
        })
    }

    /// Looks whether there is space for another file: what is left of the reserve is not for records from outside.
    fn try_file(&self) -> Result<(), Fault> {
        if self.spares.is_ready(self.segment_bytes) {
            return Ok(());
        }
        let prepared = self.spares.prepare(self.segment_bytes, || {
            self.shared.condition.step();
            true
        });
        prepared.map_err(|error| Fault::new("make a journal file", &error))
    }

    /// Makes sure that a frame fits into the open file, together with the one that seals it; of the reserve if it may.
    pub(in crate::storage) fn make_room(
        &mut self,
        frame_len: u64,
        reserve: bool,
    ) -> Result<(), Fault> {
        let fits = |open: &OpenSegment| open.place + frame_len + SEAL_LEN <= open.len;
        // A file whose name had to wait for space may be too short for the frame that comes now.
        while !self.open.as_ref().is_some_and(fits) {
            if self.named.is_none() {
                self.name_next(frame_len, reserve)?;
            }
            self.open_named()
                .map_err(|error| Fault::new("begin a journal file", &error))?;
        }
        Ok(())
    }

    /// Seals the open file and makes the next one. Its name may not be durable yet.
    fn name_next(&mut self, frame_len: u64, reserve: bool) -> Result<(), Fault> {
        // A try fills the rest of the disk, so not every commit makes one.
        let waits = self
            .no_space_at
            .is_some_and(|at| at.elapsed() < DISK_FULL_WAIT);
        if waits && !(reserve && self.spares.has_reserve()) {
            return Err(Fault::DiskFull);
        }
        let sealed = self
            .open
            .as_ref()
            .map(|open| open.summary(self.next_frame, &self.shared));
        let before = sealed.or_else(|| self.before.clone());
        let snapshot = snapshot::encode(&lock::read(&self.shared.view).books, before.as_ref());
        let frames_at = aligned_len(segment::SNAPSHOT_AT + snapshot.len() as u64);
        let len = self.segment_bytes.max(frames_at + frame_len + SEAL_LEN);
        let mut spare = match waits {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.spares.take(len, || {
                self.shared.condition.step();
                true
            }),
        };
        let mut on_reserve = false;
        if matches!(&spare, Err(error) if is_full(error)) {
            self.no_space_at = Some(Instant::now());
            let least = frames_at + frame_len + SEAL_LEN;
            if reserve && let Some(reserved) = self.spares.take_reserve(least) {
                tracing::warn!(
                    "the reserve for settlements and copies of failed records is in use"
                );
                spare = Ok(reserved);
                on_reserve = true;
            }
        } else {
            self.no_space_at = None;
        }
        let spare = spare.map_err(|error| Fault::new("make a journal file", &error))?;
        let named = self.seal().and_then(|()| {
            self.before = before;
            let named = name_segment(
                &self.shared,
                &self.spares,
                &spare,
                Beginning {
                    number: self.before.as_ref().map_or(1, |before| before.number + 1),
                    first_frame: self.next_frame,
                    journal: self.journal,
                    created: self.clock.now().0,
                    snapshot: &snapshot,
                },
            );
            named.map_err(|error| Fault::new("begin a journal file", &error))
        });
        match named {
            Ok(named) => {
                self.named = Some(named);
                self.on_reserve = on_reserve;
                Ok(())
            }
            Err(fault) => {
                match on_reserve {
                    true => self.spares.put_back_reserve(spare),
                    false => self.spares.put_back(spare),
                }
                Err(fault)
            }
        }
    }

    /// Opens the named file for frames. If its name cannot be made durable now, the file stays in `named`.
    pub(in crate::storage) fn open_named(&mut self) -> io::Result<()> {
        if let Some(named) = &self.named {
            open_segment(&self.shared, &self.spares, named)?;
            self.open = self.named.take();
        }
        Ok(())
    }

    /// Seals the open file, if there is one, with a last frame.
    fn seal(&mut self) -> Result<(), Fault> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let time = lock::read(&self.shared.view).books.last_time;
        let at = open.frame_at(self.next_frame, time);
        let frame = Frame::encode(at, true, Vec::new(), 0);
        open.write(&frame).map_err(|fault| match fault {
            // The frame to be stored is not part of this write, so it is surely not stored.
            Fault::Torn(reason) => Fault::Broken(reason),
            fault => fault,
        })?;
        self.next_frame += 1;
        self.housekeeper.sealed(open.number);
        self.open = None;
        Ok(())
    }
}
