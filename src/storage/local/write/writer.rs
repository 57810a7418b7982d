//! The writer thread: takes queued requests, writes them as a frame, syncs, publishes, answers.
//!
//! ```text
//! take the queue -> check, number, gather (8 MiB at most) -> write -> fdatasync -> readers see it -> answers
//! ```
//!
//! The writer never waits for more commits to fill a frame. While it syncs, the next commits queue, so batches grow with the
//! load by themselves. A timer would only add latency.
//!
//! After a full disk the writer refuses the gathered commits and tries again later. Any other failed write stops the log,
//! because the contents of the disk are then unknown.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    runtime::clock::Clock,
    storage::{Append, CommitError, Committed, Settle},
};

use super::{
    opened::{Fault, OpenSegment},
    pending::Pending,
    queue::{CommitAnswer, Queue, Request, Taken},
    room::{DISK_FULL_WAIT, Full},
};
use crate::storage::local::{
    format::{
        frame::{FRAME_BYTES_MAX, Frame, HEADER_LEN, aligned_len},
        ops::{NewOp, Op},
        snapshot::Summary,
    },
    lock,
    shared::EngineState,
    space::{housekeeper::Housekeeper, spare::Spares},
};

/// How long a queued settlement waits for a commit, whose frame it then shares.
const SETTLES_WAIT: Duration = Duration::from_millis(5);
/// The shortest time between two log lines about refused settlements.
const REFUSED_TOLD_EVERY: Duration = Duration::from_secs(10);
/// After this time without work, the writer adds an empty frame. It proves to recovery that the last frame is whole.
const IDLE: Duration = Duration::from_secs(1);

/// The writer. It runs on a thread of its own.
#[derive(Debug)]
pub(in crate::storage) struct Writer {
    pub(in crate::storage) shared: Arc<EngineState>,
    pub(in crate::storage) queue: Arc<Queue>,
    pub(in crate::storage) spares: Arc<Spares>,
    pub(in crate::storage) housekeeper: Arc<Housekeeper>,
    pub(in crate::storage) clock: Clock,
    pub(in crate::storage) journal: [u8; 16],
    pub(in crate::storage) segment_bytes: u64,
    /// Number of streams from which on no more are made. Existing streams above it stay.
    pub(in crate::storage) streams_max: usize,
    /// `None` = the last file is sealed, and the next one could not be made yet.
    pub(in crate::storage) open: Option<OpenSegment>,
    /// The next file, if it is made but the disk had no space for its name.
    pub(in crate::storage) named: Option<OpenSegment>,
    /// The file before the open one.
    pub(in crate::storage) before: Option<Summary>,
    pub(in crate::storage) next_frame: u64,
    pub(in crate::storage) pending: Pending,
    pub(in crate::storage) requests: VecDeque<Request>,
    pub(in crate::storage) settles: Vec<Settle>,
    pub(in crate::storage) stopped: Option<Arc<str>>,
    pub(in crate::storage) full: Option<Full>,
    /// The open file is the reserve.
    pub(in crate::storage) on_reserve: bool,
    /// Refused settlements since the last log line about them.
    pub(in crate::storage) refused_ends_len: usize,
    /// Time of the last log line about refused settlements.
    pub(in crate::storage) refused_told_at: Option<Instant>,
    /// There was no space for the last frame.
    pub(in crate::storage) refused: bool,
    /// When there was no space for another file.
    pub(in crate::storage) no_space_at: Option<Instant>,
    /// The last frame was not empty, and no frame follows it yet.
    pub(in crate::storage) unproven: bool,
}

impl Writer {
    /// Runs until the queue is closed or abandoned.
    pub(in crate::storage) fn run(mut self) {
        loop {
            let settles_wait = match self.full {
                Some(_) => DISK_FULL_WAIT,
                None => SETTLES_WAIT,
            };
            let waits = self.stopped.is_none() && (self.unproven || self.full.is_some());
            if !self.turn(settles_wait, waits.then_some(IDLE)) {
                return;
            }
        }
    }

    /// Waits for work and does it; returns whether there may be more.
    pub(in crate::storage) fn turn(
        &mut self,
        settles_wait: Duration,
        idle: Option<Duration>,
    ) -> bool {
        let taken = self
            .queue
            .take(&mut self.requests, &mut self.settles, settles_wait, idle);
        match taken {
            Taken::Work => {
                self.work();
                self.try_space();
            }
            Taken::Idle => {
                self.prove();
                self.try_space();
            }
            Taken::Closing => self.prove(),
            Taken::Dropped => {}
        }
        matches!(taken, Taken::Work | Taken::Idle)
    }

    /// Stores all taken requests.
    fn work(&mut self) {
        self.refused = false;
        while !self.requests.is_empty() || !self.settles.is_empty() {
            if let Some(reason) = self.stopped.clone() {
                self.settles.clear();
                self.refuse_all(&reason);
                return;
            }
            match self.requests.front() {
                None | Some(Request::Commit { .. }) => self.store_commits(),
                // Settlements queued before the purge are stored first, so that delivered records do not count as
                // discarded. On a full disk the purge goes first, because it frees space.
                Some(Request::Purge { .. }) if !self.settles.is_empty() && !self.refused => {
                    self.store_commits();
                }
                Some(_) => self.store_alone(),
            }
            if self.refused && self.requests.is_empty() {
                // The settlements stay for the next try.
                break;
            }
        }
        if self.refused && self.queue.is_closing() {
            // A closing log has no later try. These records are dispatched again after the next start.
            self.settles.clear();
        }
    }

    /// Writes one frame with as many commits as fit.
    fn store_commits(&mut self) {
        let (mut len, mut bytes) = (0, 0);
        let mut from_outside = false;
        let mut answers: Vec<(CommitAnswer, Result<Committed, CommitError>)> = Vec::new();
        let mut refused = Vec::new();
        {
            let view = lock::read(&self.shared.view);
            self.pending.begin(&view.books);
            if !self.settles.is_empty() {
                // Sorted settlements with consecutive offsets are stored as one run.
                self.settles.sort_unstable_by_key(|f| (f.of, f.offset));
                let now = self.clock.now();
                refused = self.pending.admit_soon(&view.books, &self.settles, now);
            }
            while let Some(Request::Commit { bytes: more, .. }) = self.requests.front() {
                if self.pending.bytes() > 0 && self.pending.bytes() + more > FRAME_BYTES_MAX {
                    break;
                }
                let Some(Request::Commit {
                    commit,
                    bytes: more,
                    answer,
                }) = self.requests.pop_front()
                else {
                    break;
                };
                len += 1;
                bytes += more;
                let outside = |append: &Append| append.kind.is_from_outside();
                from_outside |= commit.appends.iter().any(outside);
                let now = self.clock.now();
                let admitted = self.pending.admit(&view.books, commit, now);
                answers.push((answer, admitted));
            }
        }
        self.tell_refused(refused);
        let hint = self.pending.bytes();
        let refers = self.pending.take_refers();
        let (entries, time) = self.pending.take();
        let stored = if entries.is_empty() {
            Ok(())
        } else {
            self.store(entries, refers, time, hint, from_outside)
        };
        if stored.is_ok() {
            self.settles.clear();
        }
        // Release before the answers: otherwise a caller with an answer could be refused because its own last commit still
        // counts.
        self.queue.release(len, bytes);
        for (answer, admitted) in answers {
            let admitted = match (&stored, admitted) {
                (Ok(()), admitted) => admitted,
                (Err(fault), Ok(_)) => Err(fault.answer()),
                // Its refusal may rest on another commit of this frame, which is not stored either.
                (Err(fault), Err(_)) => Err(fault.answer_refused()),
            };
            // Ignore send errors: the caller may have gone away.
            let _told = answer.send(admitted).is_ok();
        }
    }

    /// Logs refused settlements, at most one line each 10 s, because a purge can cause many.
    fn tell_refused(&mut self, refused: Vec<CommitError>) {
        let Some(first) = refused.first() else {
            return;
        };
        self.refused_ends_len += refused.len();
        let told = self.refused_told_at.map(|at| at.elapsed());
        if told.is_none_or(|told| told >= REFUSED_TOLD_EVERY) {
            tracing::warn!(
                len = self.refused_ends_len,
                %first,
                "settlements refused; their records are settled already"
            );
            self.refused_ends_len = 0;
            self.refused_told_at = Some(Instant::now());
        }
    }

    /// Stores a trim, or a change of a stream, in a frame of its own.
    fn store_alone(&mut self) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        self.queue.release(1, 0);
        let plan = {
            let view = lock::read(&self.shared.view);
            super::alone::plan(&view.books, request, self.clock.now(), self.streams_max)
        };
        let Some((op, time, answer)) = plan else {
            return;
        };
        let mut encoded = Vec::new();
        op.encode(&mut encoded, time);
        let gives_back = answer.gives_back();
        match self.store(vec![NewOp::Op(op)], Vec::new(), time, encoded.len(), false) {
            Ok(()) => {
                if gives_back {
                    self.housekeeper.trimmed();
                }
                answer.stored();
            }
            Err(fault) => answer.refuse(fault.answer()),
        }
    }

    /// Writes an empty frame after a frame with contents.
    fn prove(&mut self) {
        if self.unproven && self.stopped.is_none() {
            let time = lock::read(&self.shared.view).books.last_time;
            if self.store(Vec::new(), Vec::new(), time, 0, false).is_ok() {
                self.unproven = false;
            }
        }
    }

    /// Makes a frame durable and lets readers see it.
    ///
    /// `refers` are the state values that its records need. `hint` bounds the length of its body. Records from outside may
    /// not use the reserve.
    fn store(
        &mut self,
        entries: Vec<NewOp>,
        refers: Vec<Arc<str>>,
        time: u64,
        hint: usize,
        from_outside: bool,
    ) -> Result<(), Fault> {
        // Make room before encoding, because the frame's checksums cover the file's life and the frame's place in it.
        let frame_len = aligned_len((HEADER_LEN + hint) as u64);
        self.shared.condition.step();
        let room = self.make_room(frame_len, !from_outside);
        // If a reserve exists, settlements and copies can still be stored, so the log is not full for all.
        let for_all = room.is_ok() || !from_outside || !self.spares.has_reserve();
        let stored = room.and_then(|()| self.write(entries, refers, time, hint));
        self.shared.condition.rest();
        self.note(&stored, frame_len, for_all);
        stored
    }

    /// Updates the condition of the log after a write, or a failed try, of a frame of that length.
    pub(in crate::storage) fn note(
        &mut self,
        stored: &Result<(), Fault>,
        frame_len: u64,
        for_all: bool,
    ) {
        self.refused = matches!(stored, Err(Fault::DiskFull));
        match stored {
            Ok(()) if self.full.is_some() => self.watch_reserve(),
            Ok(()) => {}
            Err(Fault::DiskFull) => self.had_no_space(frame_len, for_all),
            Err(Fault::Broken(reason) | Fault::Torn(reason)) => {
                tracing::error!(%reason, "the log has stopped after a failed write; reads go on");
                self.stop(&reason.clone());
            }
        }
    }

    fn write(
        &mut self,
        mut entries: Vec<NewOp>,
        mut refers: Vec<Arc<str>>,
        time: u64,
        hint: usize,
    ) -> Result<(), Fault> {
        let unproven = !entries.is_empty();
        let Some(open) = &mut self.open else {
            return Err(Fault::Broken("there is no open file".into()));
        };
        refers.retain(|key| !open.referred.contains(key));
        entries.extend(
            refers
                .iter()
                .map(|key| NewOp::Op(Op::Refer { key: key.clone() })),
        );
        let at = open.frame_at(self.next_frame, time);
        let frame = Frame::encode(at, false, entries, hint);
        debug_assert!(
            frame.bytes.len() as u64 <= aligned_len((HEADER_LEN + hint) as u64),
            "the hint is an upper bound"
        );
        self.shared.condition.step();
        open.write(&frame)?;
        open.place += frame.bytes.len() as u64;
        open.first_time.get_or_insert(time);
        open.referred.extend(refers);
        self.next_frame += 1;
        self.unproven = unproven;
        if open.place > open.len / 2 {
            self.housekeeper.want_spare(self.segment_bytes);
        }
        // Only a bug can make this fail, because the commits were checked against the same books.
        self.shared
            .publish(open.number, &frame)
            .map_err(|malformed| Fault::Torn(format!("cannot publish a frame: {malformed}").into()))
    }

    fn stop(&mut self, reason: &Arc<str>) {
        self.shared.condition.stopped(reason);
        self.stopped.get_or_insert_with(|| reason.clone());
        let queued = self.queue.stop(reason);
        self.requests.extend(queued);
        let reason = self.stopped.clone().unwrap_or_else(|| reason.clone());
        self.refuse_all(&reason);
    }

    fn refuse_all(&mut self, reason: &Arc<str>) {
        for request in self.requests.drain(..) {
            request.refuse(CommitError::Stopped(reason.clone()));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let reason = if panicked {
            "the writer has panicked"
        } else {
            crate::storage::local::CLOSED
        };
        self.stop(&reason.into());
        self.shared.writer_ended.send_replace(true);
    }
}
