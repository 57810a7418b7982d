//! Room for the next frame: the writer seals a file that is full and begins another, and knows when the disk is full.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    frame::{Frame, aligned_len},
    lock,
    opened::{Beginning, Fault, OpenSegment, SEAL_LEN, is_full, name_segment, open_segment},
    segment, snapshot,
    writer::Writer,
};

/// How long a full disk is left alone.
pub(super) const DISK_FULL_WAIT: Duration = Duration::from_secs(1);

/// A disk without space.
#[derive(Debug)]
pub(super) struct Full {
    /// The longest frame that was refused. A shorter one may still find a place, which is no news for anybody.
    frame_len: u64,
    /// When that was last tried.
    tried: Instant,
}

impl Writer {
    /// There was no space for a frame of that length.
    pub(super) fn had_no_space(&mut self, frame_len: u64) {
        let before = self.full.as_ref().map(|full| full.frame_len);
        self.full = Some(Full {
            frame_len: before.unwrap_or_default().max(frame_len),
            tried: Instant::now(),
        });
        if before.is_none() {
            tracing::error!("the disk is full; appends are refused until there is space");
            self.shared.condition.disk_full(true);
        }
    }

    /// There was space for a frame of that length.
    pub(super) fn had_space(&mut self, frame_len: u64) {
        if self
            .full
            .as_ref()
            .is_some_and(|full| full.frame_len <= frame_len)
        {
            self.full = None;
            tracing::info!("the disk has space again; appends are taken");
            self.shared.condition.disk_full(false);
        }
    }

    /// Looks whether a frame that was refused would be taken now, if the disk was left alone for long enough.
    pub(super) fn try_space(&mut self) {
        let Some(full) = &self.full else { return };
        if self.stopped.is_some() || full.tried.elapsed() < DISK_FULL_WAIT {
            return;
        }
        let frame_len = full.frame_len;
        self.shared.condition.step();
        let tried = self.make_room(frame_len).and_then(|()| match &self.open {
            Some(open) => open.try_space(frame_len, || {
                self.shared.condition.step();
                true
            }),
            None => Ok(()),
        });
        self.shared.condition.rest();
        self.note(&tried, frame_len);
    }

    /// Makes sure that a frame fits into the open file, together with the one that seals it.
    pub(super) fn make_room(&mut self, frame_len: u64) -> Result<(), Fault> {
        let fits = |open: &OpenSegment| open.place + frame_len + SEAL_LEN <= open.len;
        // A file whose name had to wait for space may be too short for the frame that comes now.
        while !self.open.as_ref().is_some_and(fits) {
            if self.named.is_none() {
                self.name_next(frame_len)?;
            }
            self.open_named()
                .map_err(|error| Fault::new("begin a journal file", &error))?;
        }
        Ok(())
    }

    /// Seals the open file and makes the next one, which has a name then that may not be durable.
    fn name_next(&mut self, frame_len: u64) -> Result<(), Fault> {
        // Trying means filling the disk to the brim, so it is not done for every commit that comes.
        if self
            .no_space_at
            .is_some_and(|at| at.elapsed() < DISK_FULL_WAIT)
        {
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
        let spare = self.spares.take(len, || {
            self.shared.condition.step();
            true
        });
        self.no_space_at = matches!(&spare, Err(error) if is_full(error)).then(Instant::now);
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
                Ok(())
            }
            Err(fault) => {
                self.spares.put_back(spare);
                Err(fault)
            }
        }
    }

    /// Lets the file that comes next take frames; it stays the next one if its name cannot be made durable now.
    pub(super) fn open_named(&mut self) -> io::Result<()> {
        if let Some(named) = &self.named {
            open_segment(&self.shared, &self.spares, named)?;
            self.open = self.named.take();
        }
        Ok(())
    }

    /// Ends the open file, if there is one, with a frame that says so.
    fn seal(&mut self) -> Result<(), Fault> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let time = lock::read(&self.shared.view).books.last_time;
        let at = open.frame_at(self.next_frame, time);
        let frame = Frame::encode(at, true, Vec::new(), 0);
        open.write(&frame).map_err(|fault| match fault {
            // The frame that is to be stored is not in this write.
            Fault::Torn(reason) => Fault::Broken(reason),
            fault => fault,
        })?;
        self.next_frame += 1;
        self.housekeeper.sealed(open.number);
        self.open = None;
        Ok(())
    }
}
