//! A page of records, written while its client reads it: one part of it is in memory at a time.
//!
//! The first part is made before the answer begins, so that what is wrong is said by a status. What goes wrong later ends
//! the page early: `next` says where to go on, and the client that asks there is told what is wrong.

use std::{convert::Infallible, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    place::{Offset, PartitionId},
    storage::{Bounds, Finished, Stream},
};

use super::{
    Shared,
    answers::{self, Share},
    problem::Problem,
    records,
};

/// A page ends early rather than hold more than this of keys, values and headers; `next` says where to go on.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Asked of the log at a time.
const READ_BYTES: usize = 64 << 10;
/// A part ends with the record that reaches this, as JSON.
const PART_BYTES: usize = 64 << 10;
/// What a part takes of the space for answers while it is made, if its records are not large.
const PART_BYTES_MAX: usize = 2 * PART_BYTES;

/// What is left of a page.
pub(super) struct Page {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    of: PartitionId,
    next: Offset,
    bounds: Bounds,
    /// Records that it may still have.
    left: usize,
    /// Bytes of its records so far.
    bytes: usize,
    begun: bool,
    over: bool,
    /// Held by the part that is not written yet.
    turn: Arc<Semaphore>,
}

/// What making a part came to.
enum Made {
    Part(Vec<u8>),
    /// Its first record takes more space than was taken for it.
    TooLarge(usize),
}

impl Page {
    /// A page of up to `limit` records of a partition.
    pub(super) fn new(
        shared: Arc<Shared>,
        stream: Arc<Stream>,
        of: PartitionId,
        from: Offset,
        limit: usize,
    ) -> Result<Self, Problem> {
        let bounds = shared.streams.engine().status(of)?.bounds;
        Ok(Self {
            shared,
            stream,
            of,
            next: from,
            bounds,
            left: limit,
            bytes: 0,
            begun: false,
            over: false,
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Answers with the page.
    ///
    /// # Errors
    /// Its first records cannot be read, or there is no space for answers.
    pub(super) async fn answer(mut self) -> Result<Response, Problem> {
        let settings = self.shared.settings.get();
        let answers = self.shared.answers.clone();
        let mut share = answers.take_or_refuse(&settings, PART_BYTES_MAX)?;
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

    /// Waits until the last part is written.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.turn.clone().acquire_owned().await.ok()
    }

    /// Returns the next part, or nothing behind the last one.
    async fn following(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let turn = self.turn().await;
        let settings = self.shared.settings.get();
        let answers = self.shared.answers.clone();
        let mut bytes = PART_BYTES_MAX;
        loop {
            let share = answers.take_in_time(&settings, bytes).await;
            let Some(share) = share else {
                // The end alone is a few bytes.
                let share = answers.take(&settings, 0)?;
                return Some(keep(share, self.end(Vec::new()), turn));
            };
            match self.part(share.bytes()).await {
                Ok(Made::Part(part)) => return Some(keep(share, part, turn)),
                Ok(Made::TooLarge(more)) => bytes = more,
                Err(problem) => {
                    tracing::debug!(code = problem.code().word(), "a page of records ends early");
                    return Some(keep(share, self.end(Vec::new()), turn));
                }
            }
        }
    }

    /// Makes the next part in at most `space` bytes, which is more only if that is the bound for all answers.
    async fn part(&mut self, space: usize) -> Result<Made, Problem> {
        let engine = self.shared.streams.engine().clone();
        let page = engine.read(self.of, self.next, READ_BYTES).await?;
        if let Some(first) = page.records.first() {
            let bytes = shown_bytes(first.record.bytes_len());
            let settings = self.shared.settings.get();
            if bytes > space && space < answers::bytes_max(&settings) {
                return Ok(Made::TooLarge(bytes));
            }
        }
        let finished = match (page.records.first(), page.records.last()) {
            (Some(first), Some(last)) => {
                engine.finished(self.of, first.offset..last.offset.next())?
            }
            _ => Finished::default(),
        };
        let mut part = Vec::with_capacity(PART_BYTES_MAX.min(space));
        if page.records.is_empty() {
            // Nothing but lost records may be left before the tail.
            self.next = self.next.max(page.next);
            return Ok(Made::Part(self.end(part)));
        }
        for record in &page.records {
            let bytes = record.record.bytes_len();
            if !part.is_empty() && part.len() + shown_bytes(bytes) > space {
                break;
            }
            part.extend_from_slice(match self.begun {
                true => b",",
                false => br#"{"items":["#,
            });
            self.begun = true;
            let is_finished = finished.contains(record.offset);
            let (of, stream) = (self.of.partition, &self.stream);
            let view = records::view(&self.shared, stream, of, record, is_finished);
            serde_json::to_writer(&mut part, &view).map_err(Problem::internal)?;
            self.next = record.offset.next();
            self.left -= 1;
            self.bytes += bytes;
            if self.left == 0 || self.bytes >= PAGE_BYTES_MAX {
                return Ok(Made::Part(self.end(part)));
            }
            if part.len() >= PART_BYTES {
                break;
            }
        }
        let tail = engine.status(self.of)?.bounds.tail;
        Ok(Made::Part(match self.next < tail {
            true => part,
            false => self.end(part),
        }))
    }

    /// Ends the page behind this part of it.
    fn end(&mut self, mut part: Vec<u8>) -> Vec<u8> {
        self.over = true;
        if !self.begun {
            part.extend_from_slice(br#"{"items":["#);
        }
        // A stream that has just been deleted is shown as it was.
        if let Ok(status) = self.shared.streams.engine().status(self.of) {
            self.bounds = status.bounds;
        }
        let Bounds { earliest, tail } = self.bounds;
        let next = match self.next < tail {
            true => self.next.to_string(),
            false => "null".to_owned(),
        };
        let end = format!(r#"],"next":{next},"earliest":{earliest},"tail":{tail}}}"#);
        part.extend_from_slice(end.as_bytes());
        part
    }
}

/// Returns about how many bytes a record has as JSON: its value may become base64, and its headers are named and escaped.
fn shown_bytes(bytes: usize) -> usize {
    bytes + bytes / 2 + (4 << 10)
}

fn keep(mut share: Share, part: Vec<u8>, turn: Option<OwnedSemaphorePermit>) -> Bytes {
    share.resize(part.capacity());
    share.hold(part, turn)
}
