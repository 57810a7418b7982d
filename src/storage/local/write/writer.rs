//! The one writer: gathers what is queued, writes it as a frame, syncs, publishes, answers.
//!
//! ```text
//! take the queue -> check, number, gather (8 MiB at most) -> write -> fdatasync -> readers see it -> answers
//! ```
//!
//! It never waits for more commits: while it syncs, the next ones queue. A full disk refuses what was gathered and is
//! tried again; any other failure stops the log for good, because what is on disk is then not known.

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

/// How long an end waits for a frame to travel with.
const SETTLES_WAIT: Duration = Duration::from_millis(5);
/// How often a line tells of refused ends.
const REFUSED_TOLD_EVERY: Duration = Duration::from_secs(10);
/// Without work for this long, an empty frame shows that the last one was written whole.
const IDLE: Duration = Duration::from_secs(1);

/// The writer, on a thread of its own.
#[derive(Debug)]
pub(in crate::storage) struct Writer {
    pub(in crate::storage) shared: Arc<EngineState>,
    pub(in crate::storage) queue: Arc<Queue>,
    pub(in crate::storage) spares: Arc<Spares>,
    pub(in crate::storage) housekeeper: Arc<Housekeeper>,
    pub(in crate::storage) clock: Clock,
    pub(in crate::storage) journal: [u8; 16],
    pub(in crate::storage) segment_bytes: u64,
    /// Streams that may be made; more that are there already stay.
    pub(in crate::storage) streams_max: usize,
    /// `None` = the last file is sealed and the next one could not be made yet.
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
    /// Ends that were refused and not told of yet.
    pub(in crate::storage) refused_ends_len: usize,
    /// When such were told of last.
    pub(in crate::storage) refused_told_at: Option<Instant>,
    /// There was no space for the last frame.
    pub(in crate::storage) refused: bool,
    /// When there was no space for another file.
    pub(in crate::storage) no_space_at: Option<Instant>,
    /// The last frame held something.
    pub(in crate::storage) unproven: bool,
}

impl Writer {
    /// Works until the queue is closed or abandoned.
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

    /// Stores all that was taken.
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
                // What was delivered before the purge is not to count as discarded. Without space for that, it has
                // to be: the purge is what makes some.
                Some(Request::Purge { .. }) if !self.settles.is_empty() && !self.refused => {
                    self.store_commits();
                }
                Some(_) => self.store_alone(),
            }
            if self.refused && self.requests.is_empty() {
                // The ends stay for the next try.
                break;
            }
        }
        if self.refused && self.queue.is_closing() {
            // There is no later try; these records are dispatched again after the next start.
            self.settles.clear();
        }
    }

    /// Writes one frame of as many commits as it takes.
    fn store_commits(&mut self) {
        let (mut len, mut bytes) = (0, 0);
        let mut from_outside = false;
        let mut answers: Vec<(CommitAnswer, Result<Committed, CommitError>)> = Vec::new();
        let mut refused = Vec::new();
        {
            let view = lock::read(&self.shared.view);
            self.pending.begin(&view.books);
            if !self.settles.is_empty() {
                // Neighbours become runs.
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
        // Before the answers: whoever has one must not be refused for its own last commit.
        self.queue.release(len, bytes);
        for (answer, admitted) in answers {
            let admitted = match (&stored, admitted) {
                (Ok(()), admitted) => admitted,
                (Err(fault), Ok(_)) => Err(fault.answer()),
                // What it was refused for may not be there either.
                (Err(fault), Err(_)) => Err(fault.answer_refused()),
            };
            // Nobody may be waiting any more; that changes nothing.
            let _told = answer.send(admitted).is_ok();
        }
    }

    /// Tells of ends that are refused, all of some time in one line: a purge can make many of them.
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
                "ends of records were refused; their records have ended already"
            );
            self.refused_ends_len = 0;
            self.refused_told_at = Some(Instant::now());
        }
    }

    /// Stores the change of a stream, a trim or a purge in a frame of its own.
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

    /// Writes an empty frame if the last one held something.
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
    /// `refers` are state values that its records need; `hint` bounds the length of its body. Records from outside do not
    /// get the reserve.
    fn store(
        &mut self,
        entries: Vec<NewOp>,
        refers: Vec<Arc<str>>,
        time: u64,
        hint: usize,
        from_outside: bool,
    ) -> Result<(), Fault> {
        // The file decides about life and place, which the frame's checksums begin with: room first, bytes later.
        let frame_len = aligned_len((HEADER_LEN + hint) as u64);
        self.shared.condition.step();
        let room = self.make_room(frame_len, !from_outside);
        // Then there is a reserve that others may use.
        let for_all = room.is_ok() || !from_outside || !self.spares.has_reserve();
        let stored = room.and_then(|()| self.write(entries, refers, time, hint));
        self.shared.condition.rest();
        self.note(&stored, frame_len, for_all);
        stored
    }

    /// Notes what became of a frame of that length, or of a try to write one.
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
                tracing::error!(%reason, "the log has stopped; reads go on");
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
        // Only a bug can make this fail: the commits were checked against the same books.
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
