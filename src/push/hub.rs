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
    time::{Duration, Instant},
};

use crate::{
    clock::{Clock, Timestamp},
    log::Streams,
    place::{Incarnation, Partition, StreamId},
    record::StoredRecord,
    storage::{ControlEvent, Stream},
    tasks::{Part, Tasks},
};

use super::{
    encode::Scratch,
    feed::{self, Carry, FeedError, Gap, Next, Run},
    frame::{Ends, Frame, FrameBuilder},
    frames::{Entry, Frames, Shares},
    gaps::{Gaps, Missing},
    position::{Contract, Place, PositionKey, Positions},
    resource::{QualityOfService, ResourceName},
};

/// How long records are gathered for one frame.
const LINGER: Duration = Duration::from_millis(20);
/// Looks at the time are further apart than that many records.
const LOOK_EVERY: u32 = 64;

/// Turns what is next into JSON text, or leaves it out.
pub(super) trait Encode: fmt::Debug + Send + Sync {
    /// Appends one object and returns true, or nothing if a rule leaves it out. `pos` writes the record's position;
    /// `scratch` is memory that is used again.
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
    ) -> bool;

    /// The same for a control event; `number` counts from 1.
    fn event(
        &self,
        number: u64,
        event: &ControlEvent,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> bool;

    /// Returns what comes before the first record: schemas and metadata, each one object.
    fn preamble(&self, stream: &Stream, missing: Option<&Missing>) -> Vec<Vec<u8>>;

    /// Returns the metadata of the stream, with what is missing; nothing if metadata is not sent.
    fn gap(&self, stream: &Stream, missing: &Missing) -> Option<Vec<u8>>;
}

/// What a hub is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: ResourceName,
    pub(super) streams: Streams,
    pub(super) stream: StreamId,
    pub(super) encode: Box<dyn Encode>,
    pub(super) key: PositionKey,
    pub(super) contract: Contract,
    pub(super) quality: QualityOfService,
    /// A frame has at most that many bytes, or one record.
    pub(super) frame_bytes: usize,
    pub(super) clock: Clock,
    pub(super) gaps: Gaps,
    pub(super) shares: Shares,
    /// Frames are made ahead in tasks of these.
    pub(super) tasks: Tasks,
}

/// Makes the frames of one data stream, each once.
#[derive(Debug)]
pub(super) struct Hub {
    parts: Parts,
    incarnation: Incarnation,
    frames: Frames,
    /// Bytes of the frame that was made last: the next one will have about as many.
    last_bytes: AtomicUsize,
    preamble: Vec<Arc<Frame>>,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum HubError {
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
    pub(super) fn new(parts: Parts, stream: &Stream) -> Self {
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
    pub(super) fn preamble(&self, missing: Option<&Missing>) -> Vec<Arc<Frame>> {
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
    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn frames(&self) -> &Frames {
        &self.frames
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Returns the frame that begins at a place, once there is something behind it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped; another one goes on.
    pub(super) async fn next(&self, place: &Place) -> Result<Arc<Frame>, HubError> {
        let entry = self.frames.entry(place);
        let make = || self.make(place, &entry);
        entry.frame.get_or_try_init(make).await.cloned()
    }

    /// Returns whether the frame that begins at a place is there.
    #[cfg(test)]
    pub(super) fn is_made(&self, place: &Place) -> bool {
        self.frames.entry(place).frame.initialized()
    }

    /// Has the frame made that begins at a place, if there is something behind it and nobody does that yet.
    pub(super) fn make_ahead(self: &Arc<Self>, place: &Place) {
        let Parts {
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

    /// Makes a frame. A panic in it ends the clients that wait for this frame, and nothing else: what it has changed
    /// until then is its own, and what was read ahead for it is read again.
    async fn make(&self, place: &Place, entry: &Entry) -> Result<Arc<Frame>, HubError> {
        let panics = self.parts.tasks.panics();
        let made = panics.guard(Part::Frame, self.make_whole(place, entry));
        made.await.unwrap_or(Err(HubError::Panicked))
    }

    async fn make_whole(&self, place: &Place, entry: &Entry) -> Result<Arc<Frame>, HubError> {
        let Parts {
            streams,
            stream,
            tasks,
            ..
        } = &self.parts;
        let read = async {
            feed::ready(streams, *stream, place).await?;
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
        until: Option<&Place>,
    ) -> Result<(Frame, Carry), FeedError> {
        let Parts { key, contract, .. } = &self.parts;
        let expected = self.last_bytes.load(Ordering::Relaxed);
        let mut frame = FrameBuilder::with_capacity(expected);
        let mut pen = Pen {
            now: self.parts.clock.now(),
            positions: key.positions(*contract, run.stream().incarnation),
            scratch: Scratch::default(),
        };
        let mut behind = Place::default();
        // The place behind the last record that is sent, once the run has gone on from there.
        let (mut last, mut is_at_last) = (None, false);
        let (mut begun, mut looks) = (None, 0_u32);
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
            let taken = self.encode(&run, next, &behind, &mut pen, &mut frame);
            if taken && frame.is_over(self.parts.frame_bytes) {
                frame.take_back();
                ends = Ends::Before;
                break;
            }
            if is_at_last && !taken {
                last = Some(run.place().clone());
            }
            is_at_last = taken;
            run.take(next, &mut behind);
            looks += 1;
            if looks.is_multiple_of(LOOK_EVERY) {
                let begun = *begun.get_or_insert_with(Instant::now);
                if begun.elapsed() > LINGER {
                    ends = Ends::Before;
                    break;
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
        let frame = frame.finish(place, last, ends);
        self.last_bytes.store(frame.wire().len(), Ordering::Relaxed);
        Ok((frame, carry))
    }

    fn encode(
        &self,
        run: &Run<'_>,
        next: Next,
        behind: &Place,
        pen: &mut Pen<'_>,
        frame: &mut FrameBuilder,
    ) -> bool {
        let encode = &self.parts.encode;
        let Pen {
            now,
            positions,
            scratch,
        } = pen;
        let mut pos = |out: &mut Vec<u8>| positions.write(behind, out);
        let (now, pos) = (*now, &mut pos);
        frame.add(|out| match next {
            Next::Event(number) => run
                .event(number)
                .is_some_and(|event| encode.event(number, event, now, pos, scratch, out)),
            Next::Record(partition) => run.record(partition).is_some_and(|record| {
                #[cfg(test)]
                crate::tasks::provoke(Part::Frame, &record.record.value);
                encode.record(run.stream(), partition, record, now, pos, scratch, out)
            }),
        })
    }

    /// Says what is missing, to those who want to go on.
    fn overtaken(&self, gap: Gap) -> Result<(Frame, Carry), HubError> {
        let Parts {
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
            frame.finish(gap.behind, None, Ends::Before),
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
            frames.push(Arc::new(std::mem::take(&mut frame).finish(
                Place::default(),
                None,
                Ends::Before,
            )));
            add(&mut frame);
        }
    }
    if !frame.is_empty() {
        frames.push(Arc::new(frame.finish(Place::default(), None, Ends::Before)));
    }
    frames
}
