//! Room for the next frame: the writer seals a file that is full and begins another.

use std::time::Instant;

use super::{
    frame::{Frame, aligned_len},
    lock,
    opened::{Beginning, Fault, SEAL_LEN, begin_segment, is_full},
    segment, snapshot,
    writer::{DISK_FULL_WAIT, Writer},
};

impl Writer {
    /// Makes sure that a frame fits into the open file, together with the one that seals it.
    pub(super) fn make_room(&mut self, frame_len: u64) -> Result<(), Fault> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.place + frame_len + SEAL_LEN <= open.len)
        {
            return Ok(());
        }
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
        let spare = self.spares.take(len);
        self.no_space_at = matches!(&spare, Err(error) if is_full(error)).then(Instant::now);
        let spare = spare.map_err(|error| Fault::new("make a journal file", &error))?;
        let begun = self.seal().and_then(|()| {
            self.before = before;
            let begun = begin_segment(
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
            begun.map_err(|error| Fault::new("begin a journal file", &error))
        });
        match begun {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
            }
            Err(fault) => {
                self.spares.put_back(spare);
                Err(fault)
            }
        }
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
