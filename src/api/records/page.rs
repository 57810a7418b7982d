//! A page of records, streamed: one part of it is in memory at a time.
//!
//! The first part is made before the answer starts, so that an error can still choose the status. A later error ends the
//! page early: `next` is the position of the failed record, and a request from there gets the error.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    dispatch::WaitingRecord,
    model::ids::{Offset, Partition, PartitionId},
    storage::{Bounds, Stream},
};

use super::{
    reading::{Held, Reading},
    settled::Settlements,
    token::Token,
    view, waits,
};
use crate::api::{
    EdgeState,
    problem::Problem,
    server::answers::{self, Share},
    wire,
};

/// Bytes of keys, values and headers of a page. A page with more ends early, with `next`.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// A part ends with the record that reaches this size, as JSON.
const PART_BYTES: usize = 64 << 10;
/// Bytes of answer space that a part takes while it is made, unless its records are large.
const PART_BYTES_MAX: usize = 2 * PART_BYTES;

/// The rest of a page.
pub(super) struct Page {
    shared: Arc<EdgeState>,
    stream: Arc<Stream>,
    reading: Reading,
    of: Of,
    /// What open records wait for, if the page shows it.
    waiting: Option<Waiting>,
    settlements: Settlements,
    /// Records that the page may still show.
    left: usize,
    /// Bytes of its records until now.
    bytes: usize,
    begun: bool,
    over: bool,
    /// The permit belongs to the part that is not written yet.
    turn: Arc<Semaphore>,
    /// Answer space of the page itself.
    _own: Option<Share>,
}

/// The partitions of a page. They decide its last members.
pub(super) enum Of {
    /// One partition. The page ends with its bounds as of then.
    One(Bounds),
    /// All partitions, with their bounds when the page began.
    All(Vec<Bounds>),
}

/// What the open records in target queues wait for.
pub(super) type Waiting = HashMap<(Partition, Offset), WaitingRecord>;

/// Result of making a part.
enum Made {
    Part(Vec<u8>),
    /// The first record needs this much more space than was taken.
    TooLarge(usize),
}

impl Page {
    /// A page of up to `limit` records.
    pub(super) fn new(
        shared: Arc<EdgeState>,
        stream: Arc<Stream>,
        reading: Reading,
        of: Of,
        (waiting, settlements): (Option<Waiting>, Settlements),
        limit: usize,
    ) -> Self {
        Self {
            shared,
            stream,
            reading,
            of,
            waiting,
            settlements,
            left: limit,
            bytes: 0,
            begun: false,
            over: false,
            turn: Arc::new(Semaphore::new(1)),
            _own: None,
        }
    }

    /// Answers with the page.
    ///
    /// # Errors
    /// Its first records cannot be read, or there is no space for answers.
    pub(super) async fn answer(mut self) -> Result<Response, Problem> {
        let settings = self.shared.settings.get();
        let answers = self.shared.answers.clone();
        self._own = Some(answers.take_or_refuse(&settings, self.own_bytes())?);
        let mut share = answers.take_or_refuse(&settings, self.part_bytes())?;
        let first = loop {
            match self.part(share.bytes()).await? {
                Made::Part(part) => break part,
                Made::TooLarge(bytes) => {
                    drop(share);
                    share = answers.take_or_refuse(&settings, bytes)?;
                }
            }
        };
        let turn = self.turn().await;
        let first = keep(share, first, turn);
        let body = match self.over {
            true => Body::from(first),
            false => Body::from_stream(stream::unfold(
                (Some(first), self),
                |(first, mut page)| async move {
                    let part = match first {
                        Some(part) => part,
                        None => page.following().await?,
                    };
                    Some((Ok::<_, Infallible>(part), (None, page)))
                },
            )),
        };
        let mut response = Response::new(body);
        answers::mark_counted(&mut response);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(response)
    }

    /// Returns the bytes that the page takes until its end, without its parts.
    fn own_bytes(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, HashMap::capacity);
        self.reading.bytes_len()
            + waiting * size_of::<((Partition, Offset), WaitingRecord)>()
            + self.settlements.bytes_len()
    }

    /// Returns the bytes that a part takes while it is made, unless its records are large.
    fn part_bytes(&self) -> usize {
        match self.of {
            Of::One(_) => PART_BYTES_MAX,
            Of::All(_) => PART_BYTES_MAX + self.reading.held_bytes_max(),
        }
    }

    /// Waits until the last part is written.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.turn.clone().acquire_owned().await.ok()
    }

    /// Returns the next part; `None` after the last one.
    async fn following(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let turn = self.turn().await;
        let settings = self.shared.settings.get();
        let answers = self.shared.answers.clone();
        let mut bytes = self.part_bytes();
        loop {
            let share = answers.take_in_time(&settings, bytes).await;
            let Some(share) = share else {
                // End the page: its last members need only a few bytes for each partition.
                let share = answers.take(&settings, 0)?;
                return Some(keep(share, self.end(Vec::new()), turn));
            };
            match self.part(share.bytes()).await {
                Ok(Made::Part(part)) => return Some(keep(share, part, turn)),
                Ok(Made::TooLarge(more)) => bytes = more,
                Err(problem) => {
                    tracing::debug!(code = problem.code().word(), "page of records ends early");
                    return Some(keep(share, self.end(Vec::new()), turn));
                }
            }
        }
    }

    /// Makes the next part in at most `space` bytes, unless one record needs more than all answers may take.
    async fn part(&mut self, space: usize) -> Result<Made, Problem> {
        let mut part = Vec::with_capacity(PART_BYTES_MAX.min(space));
        loop {
            let lane = match self.reading.next().await {
                Ok(Some(lane)) => lane,
                Ok(None) => return Ok(Made::Part(self.end(part))),
                Err(error) if part.is_empty() => return Err(error.into()),
                // A request for the next page gets the error.
                Err(_told_then) => return Ok(Made::Part(self.end(part))),
            };
            let Some((partition, held)) = self.reading.first(lane) else {
                return Ok(Made::Part(self.end(part)));
            };
            let bytes = held.record.record.bytes_len();
            let shown = part.len() + shown_bytes(bytes);
            if part.is_empty() {
                let settings = self.shared.settings.get();
                if shown > space && space < answers::bytes_max(&settings) {
                    return Ok(Made::TooLarge(shown));
                }
            } else if shown > space {
                break;
            }
            part.extend_from_slice(match self.begun {
                true => b",",
                false => br#"{"items":["#,
            });
            self.begun = true;
            let view = self.view(partition, held);
            serde_json::to_writer(&mut part, &view).map_err(Problem::internal)?;
            self.reading.pass(lane);
            self.left -= 1;
            self.bytes += bytes;
            if self.left == 0 || self.bytes >= PAGE_BYTES_MAX {
                return Ok(Made::Part(self.end(part)));
            }
            if part.len() >= PART_BYTES {
                break;
            }
        }
        // The client may read slowly, so do not keep the records meanwhile.
        self.reading.release();
        Ok(Made::Part(part))
    }

    fn view(&self, partition: Partition, held: &Held) -> wire::RecordView {
        let Held { record, settled } = held;
        let waiting = self.waiting.as_ref().map(|waiting| {
            let known = waiting.get(&(partition, record.offset));
            match known {
                Some(known) => waits(known),
                None => super::unqueued(&self.shared, &record.record),
            }
        });
        let of = PartitionId {
            stream: self.stream.id,
            partition,
        };
        let settlement = settled.then(|| self.settlements.view(&self.shared, of, record.offset));
        wire::RecordView {
            waiting,
            settlement: settlement.flatten(),
            ..view(&self.shared, &self.stream, partition, record, *settled)
        }
    }

    /// Ends the page after this part.
    fn end(&mut self, mut part: Vec<u8>) -> Vec<u8> {
        self.over = true;
        if !self.begun {
            part.extend_from_slice(br#"{"items":["#);
        }
        part.extend_from_slice(b"],");
        let written = match &self.of {
            Of::One(bounds) => serde_json::to_string(&self.end_of_one(*bounds)),
            Of::All(bounds) => serde_json::to_string(&self.end_of_all(bounds)),
        };
        // Strings and numbers always encode. The opening brace of the end is left out.
        let written = written.unwrap_or_default();
        part.extend_from_slice(written.trim_start_matches('{').as_bytes());
        part
    }

    fn end_of_one(&self, bounds: Bounds) -> wire::PageEnd {
        let place = self.reading.positions().next();
        let of = place.map(|(of, _)| of);
        let engine = self.shared.streams.engine();
        // A stream that was just deleted is shown as it was.
        let now = of.and_then(|of| engine.status(of).ok());
        let Bounds { earliest, tail } = now.map_or(bounds, |status| status.bounds);
        let next = place.map(|(_, next)| next).filter(|next| *next < tail);
        wire::PageEnd {
            next: next.map(|next| next.0),
            earliest: earliest.0,
            tail: tail.0,
        }
    }

    fn end_of_all(&self, bounds: &[Bounds]) -> wire::MergedPageEnd {
        let token = Token {
            incarnation: self.stream.incarnation,
            next: self.reading.positions().map(|(_, next)| next).collect(),
        };
        let position = token.text();
        wire::MergedPageEnd {
            next: (!self.reading.is_over()).then(|| position.clone()),
            position,
            trimmed: self.reading.trimmed(),
            earliest: (0..).zip(bounds.iter().map(|of| of.earliest.0)).collect(),
            tail: (0..).zip(bounds.iter().map(|of| of.tail.0)).collect(),
        }
    }
}

/// Estimates the bytes of a record as JSON: base64 makes a value longer, and headers have names and escapes.
fn shown_bytes(bytes: usize) -> usize {
    bytes + bytes / 2 + (4 << 10)
}

fn keep(mut share: Share, part: Vec<u8>, turn: Option<OwnedSemaphorePermit>) -> Bytes {
    share.resize(part.capacity());
    share.hold(part, turn)
}
