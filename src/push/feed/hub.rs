//! Frames of one data stream, made once and shared by all who read it.
//!
//! A frame begins where the one before ended, so whoever stands at the same place gets the same bytes. Frames are made
//! when the first client asks for what is behind a place; the others there wait for it. One that comes from further
//! back ends its frame where the next one begins that is known, and shares from there on. While a full frame is sent the
//! next is made: the two need different cores.

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
/// Looks at the time are further apart than that many records.
const LOOK_EVERY: u32 = 64;
/// Large records are looked at for longer, so after that many bytes there is a look too.
const LOOK_EVERY_BYTES: usize = 64 << 10;
/// How long records are encoded before others have their turn on this thread.
const TURN: Duration = Duration::from_millis(1);

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::push) enum Encoded {
    /// One object was appended.
    Taken,
    /// Nothing was appended: a rule leaves the record out.
    LeftOut,
    /// Nothing was appended: rules have a long look at this record. Others are to have their turn; then the record is to be
    /// encoded again, with the same scratch.
    NotYet,
}

/// Turns what is next into JSON text, or leaves it out.
pub(in crate::push) trait Encode: fmt::Debug + Send + Sync {
    /// Appends one object, or nothing. `pos` writes the record's position; `scratch` is memory that is used again. What one
    /// call costs is bounded by the sizes of the record and of the configuration.
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

    /// The same for a control event; `number` counts from 1.
    fn event(
        &self,
        number: u64,
        event: &ControlEvent,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded;

    /// Returns what comes before the first record: schemas and metadata, each one object.
    fn preamble(&self, stream: &Stream, missing: Option<&Missing>) -> Vec<Vec<u8>>;

    /// Returns the metadata of the stream, with what is missing; nothing if metadata is not sent.
    fn gap(&self, stream: &Stream, missing: &Missing) -> Option<Vec<u8>>;
}

/// What a hub is made of.
#[derive(Debug)]
pub(in crate::push) struct HubParts {
    pub(in crate::push) name: ResourceName,
    pub(in crate::push) streams: Streams,
    pub(in crate::push) stream: StreamId,
    pub(in crate::push) encode: Box<dyn Encode>,
    pub(in crate::push) key: PositionKey,
    pub(in crate::push) contract: Contract,
    pub(in crate::push) quality: QualityOfService,
    /// A frame has at most that many bytes, or one record.
    pub(in crate::push) frame_bytes: usize,
    pub(in crate::push) clock: Clock,
    pub(in crate::push) gaps: Gaps,
    pub(in crate::push) shares: Shares,
    /// Frames are made ahead in tasks of these.
    pub(in crate::push) tasks: Tasks,
}

/// Makes the frames of one data stream, each once.
#[derive(Debug)]
pub(in crate::push) struct Hub {
    parts: HubParts,
    incarnation: Incarnation,
    frames: Frames,
    /// Bytes of the frame that was made last: the next one will have about as many.
    last_bytes: AtomicUsize,
    preamble: Vec<Arc<Frame>>,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(in crate::push) enum HubError {
    /// The stream was deleted.
    #[error("the stream is gone")]
    Gone,
    /// Retention was faster than the client.
    #[error("records were removed before they were sent")]
    Overtaken,
    /// The log cannot be read.
    #[error(transparent)]
    Read(FeedError),
    /// A record, or what makes frames, is broken: another try would end like this one.
    #[error("a panic came up while the frame was made")]
    Panicked,
}

/// What one frame is written with.
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

    /// Returns what comes before the first record; with what is missing, if the client goes on behind a gap.
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

    /// Returns the life of the stream that its frames are of.
    pub(in crate::push) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(in crate::push) fn frames(&self) -> &Frames {
        &self.frames
    }

    pub(in crate::push) fn parts(&self) -> &HubParts {
        &self.parts
    }

    /// Returns the frame that begins at a place, once there is something behind it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped; another one goes on.
    pub(in crate::push) async fn next(
        self: &Arc<Self>,
        place: &StreamPlace,
    ) -> Result<Arc<Frame>, HubError> {
        let entry = self.frames.entry(place);
        let make = || self.make(place, &entry);
        entry.frame.get_or_try_init(make).await.cloned()
    }

    /// Returns whether the frame that begins at a place is there.
    #[cfg(test)]
    pub(in crate::push) fn is_made(&self, place: &StreamPlace) -> bool {
        self.frames.entry(place).frame.initialized()
    }

    /// Has the frame made that begins at a place, if there is something behind it and nobody does that yet.
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
                // Whoever comes there meets the same error.
                let _made = hub.next(&place).await.is_ok();
            });
        }
    }

    /// Makes a frame, once there is something behind its place.
    ///
    /// What takes more than one turn goes on as a task: a reader that turns to something else in between finds it there
    /// the next time. If it began anew then, one whose client talks a lot would get nothing.
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
        // Whoever asks for the same frame waits for it elsewhere, so this lock is free.
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
                // All readers may have gone.
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

    /// Makes a frame. A panic in it ends the clients that wait for this frame, and nothing else: what it has changed
    /// until then is its own, and what was read ahead for it is read again.
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

    /// Puts records into a frame until it is full, the next known one begins, or nothing is ready.
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
        // The place behind the last record that is sent, once the run has gone on from there.
        let (mut last, mut is_at_last) = (None, false);
        let (mut begun, mut looks, mut looked_at) = (None, 0_u32, 0);
        let mut turn = Instant::now();
        let mut ends = Ends::WithTheLog;
        while Some(run.place()) != until {
            let next = match run.next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                // The next frame says what is wrong.
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

    /// Says what is missing, to those who want to go on.
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

/// Puts records that have no position into frames.
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
