//! The hub of a data stream: makes each frame once, for all readers.
//!
//! A frame begins where the one before ended, so readers at the same place get the same bytes. The first reader at a
//! place has its frame made; the others there wait for it. A reader that started elsewhere ends its frame where the
//! next known one begins, and shares frames from there on. While a full frame is sent, the next one is made, because
//! the two can use different cores.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::poll;
use tokio::{sync::oneshot, task::yield_now};

use crate::{
    log::Streams,
    model::{
        ids::{Incarnation, Partition, StreamId},
        record::StoredRecord,
    },
    runtime::{
        clock::{Clock, Timestamp},
        tasks::{Part, Tasks},
    },
    storage::{ControlEvent, Stream},
};

use super::{
    Carry, FeedError, FeedGap, Next, Run,
    frame::{Ends, Frame, FrameBuilder},
    frames::{FrameSlot, Frames, Shares},
    gaps::{Gaps, Missing},
};
use crate::push::{
    encode::Scratch,
    feed,
    position::{Contract, PositionKey, Positions, StreamPlace},
    resource::{QualityOfService, ResourceName},
};

/// How long records are gathered for one frame.
const LINGER: Duration = Duration::from_millis(20);
/// The clock is read once in that many records.
const LOOK_EVERY: u32 = 64;
/// The clock is also read after that many bytes, because large records take longer to encode.
const LOOK_EVERY_BYTES: usize = 64 << 10;
/// How long records are encoded before the task yields, so that others can use its thread.
const TURN: Duration = Duration::from_millis(1);

/// The result of encoding a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::push) enum Encoded {
    /// One JSON object was appended.
    Taken,
    /// Nothing was appended, because a rule leaves the record out.
    LeftOut,
    /// Nothing was appended yet, because the rules need long for this record. The caller yields and then encodes it
    /// again with the same scratch.
    NotYet,
}

/// Encodes a record or control event as JSON text, or leaves it out.
pub(in crate::push) trait Encode: fmt::Debug + Send + Sync {
    /// Appends one object, or nothing. `pos` writes the record's position; `scratch` is memory for reuse. The sizes
    /// of record and configuration bound the cost of one call.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a record is, and where to write"
    )]
    fn record(
        &self,
        stream: &Stream,
        partition: Partition,
        record: &StoredRecord,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded;

    /// Does the same for a control event; `number` counts from 1.
    fn event(
        &self,
        number: u64,
        event: &ControlEvent,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded;

    /// Returns the schema and metadata records that come first, each one object.
    fn preamble(&self, stream: &Stream, missing: Option<&Missing>) -> Vec<Vec<u8>>;

    /// Returns the stream's metadata with the missing offsets; `None` if metadata is not sent.
    fn gap(&self, stream: &Stream, missing: &Missing) -> Option<Vec<u8>>;
}

/// The parts of a hub.
#[derive(Debug)]
pub(in crate::push) struct HubParts {
    pub(in crate::push) name: ResourceName,
    pub(in crate::push) streams: Streams,
    pub(in crate::push) stream: StreamId,
    pub(in crate::push) encode: Box<dyn Encode>,
    pub(in crate::push) key: PositionKey,
    pub(in crate::push) contract: Contract,
    pub(in crate::push) quality: QualityOfService,
    /// Bytes of a frame, at most; a single larger record still makes a frame.
    pub(in crate::push) frame_bytes: usize,
    pub(in crate::push) clock: Clock,
    pub(in crate::push) gaps: Gaps,
    pub(in crate::push) shares: Shares,
    /// Tasks that make frames ahead.
    pub(in crate::push) tasks: Tasks,
}

/// Makes the frames of one data stream, each once.
#[derive(Debug)]
pub(in crate::push) struct Hub {
    parts: HubParts,
    incarnation: Incarnation,
    frames: Frames,
    /// Bytes of the last frame, as a guess for the next one.
    last_bytes: AtomicUsize,
    preamble: Vec<Arc<Frame>>,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(in crate::push) enum HubError {
    /// The stream was deleted.
    #[error("the stream is gone")]
    Gone,
    /// Retention removed records that the client had not read.
    #[error("records were removed before they were sent")]
    Overtaken,
    /// The log cannot be read.
    #[error(transparent)]
    Read(FeedError),
    /// Encoding has panicked; another try would panic again.
    #[error("a panic occurred while the frame was made")]
    Panicked,
}

/// Memory and settings to write one frame.
struct Pen<'a> {
    now: Timestamp,
    positions: Positions<'a>,
    scratch: Scratch,
}

impl Hub {
    pub(in crate::push) fn new(parts: HubParts, stream: &Stream) -> Self {
        let preamble = parts.encode.preamble(stream, None);
        Self {
            preamble: frames(preamble, parts.frame_bytes),
            incarnation: stream.incarnation,
            frames: Frames::new(parts.shares.clone()),
            last_bytes: AtomicUsize::new(0),
            parts,
        }
    }

    /// Returns the frames before the first record; `missing` names the gap that the client continues after.
    pub(in crate::push) fn preamble(&self, missing: Option<&Missing>) -> Vec<Arc<Frame>> {
        let found = self.parts.streams.engine().stream_by_id(self.parts.stream);
        match (missing, found) {
            (Some(missing), Some(stream)) => {
                let records = self.parts.encode.preamble(&stream, Some(missing));
                frames(records, self.parts.frame_bytes)
            }
            _ => self.preamble.clone(),
        }
    }

    /// Returns the incarnation of the stream that its frames show.
    pub(in crate::push) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(in crate::push) fn frames(&self) -> &Frames {
        &self.frames
    }

    pub(in crate::push) fn parts(&self) -> &HubParts {
        &self.parts
    }

    /// Returns the frame that begins at a place, once a record has come there.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped; the next call goes on.
    pub(in crate::push) async fn next(
        self: &Arc<Self>,
        place: &StreamPlace,
    ) -> Result<Arc<Frame>, HubError> {
        let entry = self.frames.entry(place);
        let make = || self.make(place, &entry);
        entry.frame.get_or_try_init(make).await.cloned()
    }

    /// Returns whether the frame that begins at a place is made.
    #[cfg(test)]
    pub(in crate::push) fn is_made(&self, place: &StreamPlace) -> bool {
        self.frames.entry(place).frame.initialized()
    }

    /// Makes the frame that begins at a place in a task, if a record is there and no other caller does it.
    pub(in crate::push) fn make_ahead(self: &Arc<Self>, place: &StreamPlace) {
        let HubParts {
            streams,
            stream,
            tasks,
            ..
        } = &self.parts;
        if self.frames.has_room()
            && feed::is_ready(streams, *stream, place)
            && self.frames.entry(place).claim()
        {
            let (hub, place) = (self.clone(), place.clone());
            tasks.spawn_guarded(Part::Frame, async move {
                // A reader that comes to the place meets the same error.
                let _made = hub.next(&place).await.is_ok();
            });
        }
    }

    /// Makes a frame, once a record has come to its place.
    ///
    /// A frame that takes more than one turn is made by a task, so a reader that is interrupted finds it at its next
    /// call. If each call began anew, a client that sends many messages would never get a frame.
    async fn make(
        self: &Arc<Self>,
        place: &StreamPlace,
        entry: &Arc<FrameSlot>,
    ) -> Result<Arc<Frame>, HubError> {
        let HubParts {
            streams,
            stream,
            tasks,
            ..
        } = &self.parts;
        // Callers for the same frame wait at `OnceCell`, so this lock is free.
        let mut making = entry.making.lock().await;
        if making.is_none() {
            let ready = feed::ready(streams, *stream, place).await;
            ready.map_err(|_gone| HubError::Gone)?;
            let (hub, place, entry) = (self.clone(), place.clone(), entry.clone());
            let mut work = Box::pin(async move { hub.make_guarded(&place, &entry).await });
            if let Poll::Ready(made) = poll!(&mut work) {
                return made;
            }
            let (tell, told) = oneshot::channel();
            tasks.spawn_guarded(Part::Frame, async move {
                // Ignore send errors: all readers may have gone.
                let _told = tell.send(work.await).is_ok();
            });
            *making = Some(told);
        }
        let made = match making.as_mut() {
            Some(told) => told.await.ok(),
            None => None,
        };
        *making = None;
        made.unwrap_or(Err(HubError::Panicked))
    }

    /// Makes a frame. A panic ends the clients that wait for this frame, and nothing else. It cannot leave shared
    /// state half changed, because the frame and the records read for it belong to this call alone.
    async fn make_guarded(
        &self,
        place: &StreamPlace,
        entry: &FrameSlot,
    ) -> Result<Arc<Frame>, HubError> {
        let panics = self.parts.tasks.panics();
        let made = panics.guard(Part::Frame, self.make_whole(place, entry));
        made.await.unwrap_or(Err(HubError::Panicked))
    }

    async fn make_whole(
        &self,
        place: &StreamPlace,
        entry: &FrameSlot,
    ) -> Result<Arc<Frame>, HubError> {
        let HubParts {
            streams,
            stream,
            tasks,
            ..
        } = &self.parts;
        let read = async {
            let until = self.frames.next_behind(place);
            let run = Run::begin(streams, tasks, *stream, place.clone(), entry.carry())?;
            self.gather(run, until.as_ref()).await
        };
        let (frame, carry) = match read.await {
            Ok(made) => made,
            Err(FeedError::Gone) => return Err(HubError::Gone),
            Err(FeedError::Overtaken(gap)) => self.overtaken(gap)?,
            Err(error @ FeedError::Read(_)) => return Err(HubError::Read(error)),
        };
        self.frames.keep(place, &frame, carry);
        Ok(Arc::new(frame))
    }

    /// Adds records until the frame is full, the next known frame begins, or no record is ready.
    async fn gather(
        &self,
        mut run: Run<'_>,
        until: Option<&StreamPlace>,
    ) -> Result<(Frame, Carry), FeedError> {
        let HubParts { key, contract, .. } = &self.parts;
        let expected = self.last_bytes.load(Ordering::Relaxed);
        let mut frame = FrameBuilder::with_capacity(expected);
        let mut pen = Pen {
            now: self.parts.clock.now(),
            positions: key.positions(*contract, run.stream().incarnation),
            scratch: Scratch::default(),
        };
        let mut behind = StreamPlace::default();
        // The place after the last sent record; it gets known when the run has gone on from there.
        let (mut last, mut is_at_last) = (None, false);
        let (mut begun, mut looks, mut looked_at) = (None, 0_u32, 0);
        let mut turn = Instant::now();
        let mut ends = Ends::WithTheLog;
        while Some(run.place()) != until {
            let next = match run.next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                // The next frame returns the error.
                Err(_) if !frame.is_empty() => break,
                Err(error) => return Err(error),
            };
            run.behind(next, &mut behind);
            let taken = loop {
                match self.encode(&run, next, &behind, &mut pen, &mut frame) {
                    Encoded::Taken => break true,
                    Encoded::LeftOut => break false,
                    Encoded::NotYet => {
                        yield_now().await;
                        turn = Instant::now();
                    }
                }
            };
            if taken && frame.is_over(self.parts.frame_bytes) {
                frame.take_back();
                ends = Ends::Before;
                break;
            }
            if is_at_last && !taken {
                last = Some(run.place().clone());
            }
            is_at_last = taken;
            looked_at += run.bytes_len(next);
            run.take(next, &mut behind);
            looks += 1;
            let is_time = looks.is_multiple_of(LOOK_EVERY);
            if is_time || looked_at >= LOOK_EVERY_BYTES {
                looked_at = 0;
                let now = Instant::now();
                if is_time && now - *begun.get_or_insert(now) > LINGER {
                    ends = Ends::Before;
                    break;
                }
                if now - turn > TURN {
                    yield_now().await;
                    turn = Instant::now();
                }
            }
        }
        let (place, carry) = run.end();
        let last = if is_at_last {
            Some(&place)
        } else {
            last.as_ref()
        };
        let last = last.map(|place| pen.positions.text(place));
        let frame = frame.build(place, last, ends);
        self.last_bytes.store(frame.wire().len(), Ordering::Relaxed);
        Ok((frame, carry))
    }

    fn encode(
        &self,
        run: &Run<'_>,
        next: Next,
        behind: &StreamPlace,
        pen: &mut Pen<'_>,
        frame: &mut FrameBuilder,
    ) -> Encoded {
        let encode = &self.parts.encode;
        let Pen {
            now,
            positions,
            scratch,
        } = pen;
        let mut pos = |out: &mut Vec<u8>| positions.write(behind, out);
        let (now, pos) = (*now, &mut pos);
        let mut encoded = Encoded::LeftOut;
        frame.add(|out| {
            match next {
                Next::Event(number) => {
                    if let Some(event) = run.event(number) {
                        encoded = encode.event(number, event, now, pos, scratch, out);
                    }
                }
                Next::Record(partition) => {
                    if let Some(record) = run.record(partition) {
                        #[cfg(test)]
                        crate::runtime::tasks::provoke(Part::Frame, &record.record.value);
                        let stream = run.stream();
                        encoded = encode.record(stream, partition, record, now, pos, scratch, out);
                    }
                }
            }
            encoded == Encoded::Taken
        });
        encoded
    }

    /// Returns a frame that names the missing records, if the client accepts gaps.
    fn overtaken(&self, gap: FeedGap) -> Result<(Frame, Carry), HubError> {
        let HubParts {
            name,
            streams,
            stream,
            encode,
            quality,
            gaps,
            ..
        } = &self.parts;
        if *quality != QualityOfService::AtMostOnce {
            return Err(HubError::Overtaken);
        }
        let found = streams.engine().stream_by_id(*stream);
        let found = found.ok_or(HubError::Gone)?;
        gaps.note(name, &gap.missing);
        let mut frame = FrameBuilder::default();
        if let Some(record) = encode.gap(&found, &gap.missing) {
            frame.add(|out| {
                out.extend_from_slice(&record);
                true
            });
        }
        Ok((
            frame.build(gap.behind, None, Ends::Before),
            Carry::default(),
        ))
    }
}

/// Puts records without a position (schemas, metadata) into frames.
fn frames(records: Vec<Vec<u8>>, frame_bytes: usize) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    let mut frame = FrameBuilder::default();
    for record in records {
        let add = |frame: &mut FrameBuilder| {
            frame.add(|out| {
                out.extend_from_slice(&record);
                true
            })
        };
        add(&mut frame);
        if frame.is_over(frame_bytes) {
            frame.take_back();
            frames.push(Arc::new(std::mem::take(&mut frame).build(
                StreamPlace::default(),
                None,
                Ends::Before,
            )));
            add(&mut frame);
        }
    }
    if !frame.is_empty() {
        frames.push(Arc::new(frame.build(
            StreamPlace::default(),
            None,
            Ends::Before,
        )));
    }
    frames
}
