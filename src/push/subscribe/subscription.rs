//! One client: its place, and the frames that it gets next.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use crate::{runtime::clock::Timestamp, storage::CommitError};

use super::{
    reader::FrameReader,
    start::{self, Start},
};
use crate::push::{
    cursors::Held,
    data_stream::{DataStream, Ended},
    feed::{
        self,
        frame::Frame,
        hub::{Hub, HubError},
    },
    position::{ClientPosition, StreamPlace},
};

/// The state of one client. Besides this, a client costs one frame while that is sent.
#[derive(Debug)]
pub struct Subscription {
    stream: Arc<DataStream>,
    reader: FrameReader,
    ended: watch::Receiver<Option<Ended>>,
    /// The frames that come first, in reverse order.
    preamble: Vec<Arc<Frame>>,
    /// Records before this time are not sent.
    waits_for: Option<Timestamp>,
    last_pos: Option<String>,
    cursor: Option<Held>,
    _seat: Seat,
}

/// One of the `push.clients_max` seats.
#[derive(Debug)]
pub(in crate::push) struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// Takes a seat, unless `len_max` are taken.
    pub(in crate::push) fn take(taken: &Arc<AtomicUsize>, len_max: usize) -> Option<Self> {
        let one_more = |taken: usize| (taken < len_max).then_some(taken + 1);
        let took = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        took.ok().map(|_| Self(taken.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a subscription ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The configuration has changed.
    #[error("the configuration of the data stream has changed")]
    Changed,
    /// The data stream or its log stream was deleted.
    #[error("the data stream was deleted")]
    Deleted,
    /// Records were removed before the client had them.
    #[error("records were removed before they were sent")]
    Gone,
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another client took the cursor over.
    #[error("another client took the cursor over")]
    TakenOver,
}

/// An acknowledgement of a position that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record with this position was sent on this connection")]
pub struct AckInvalid;

impl Subscription {
    pub(in crate::push) fn new(
        stream: Arc<DataStream>,
        hub: Arc<Hub>,
        start: Start,
        cursor: Option<Held>,
        seat: Seat,
    ) -> Self {
        let ended = stream.ended();
        stream.clients.fetch_add(1, Ordering::Relaxed);
        let mut preamble = hub.preamble(start.gap.as_deref());
        preamble.reverse();
        Self {
            stream,
            reader: FrameReader::new(hub, start.place),
            ended,
            preamble,
            waits_for: start.waits_for,
            last_pos: None,
            cursor,
            _seat: seat,
        }
    }

    /// Returns the data stream as it was when the client came.
    #[must_use]
    pub fn data_stream(&self) -> &Arc<DataStream> {
        &self.stream
    }

    /// Returns the next frame, once there is one. The frame counts as sent.
    ///
    /// # Errors
    /// [`End`] says why no frame follows.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub async fn next(&mut self) -> Result<Arc<Frame>, End> {
        loop {
            if let Some(ended) = self.stream.end() {
                return Err(ended.into());
            }
            if let Some(frame) = self.preamble.pop() {
                return Ok(frame);
            }
            let (hub, place) = (self.reader.hub(), self.reader.place());
            let waits_for = self.waits_for;
            let next = async {
                match waits_for {
                    Some(time) => wait(hub, place, time).await.map(Found::Start),
                    None => hub.next(place).await.map(Found::Frame),
                }
            };
            let found = tokio::select! {
                biased;
                _changed = self.ended.changed() => continue,
                () = taken_over(&mut self.cursor) => return Err(End::TakenOver),
                found = next => found,
            };
            match found.map_err(End::from)? {
                Found::Start(start) => {
                    self.reader.go_to(&start.place);
                    self.waits_for = start.waits_for;
                }
                Found::Frame(frame) => {
                    self.reader.pass(&frame);
                    if let Some(pos) = frame.last_pos() {
                        self.last_pos = Some(pos.to_owned());
                    }
                    if !frame.is_empty() {
                        return Ok(frame);
                    }
                }
            }
        }
    }

    /// Returns whether the client has a cursor, which its acknowledgements move.
    #[must_use]
    pub fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// Records that the client has processed everything up to a position.
    ///
    /// # Errors
    /// No record with that position was sent on this connection.
    pub fn ack(&self, pos: &str) -> Result<(), AckInvalid> {
        let cursor = self.cursor.as_ref().ok_or(AckInvalid)?;
        let hub = self.reader.hub();
        let position = hub.parts().key.read(pos).map_err(|_| AckInvalid)?;
        let sent = position.contract == hub.parts().contract
            && position.incarnation == hub.incarnation()
            && position.place.is_within(self.reader.place());
        if !sent {
            return Err(AckInvalid);
        }
        cursor.ack(position);
        Ok(())
    }

    /// Returns once every acknowledgement of the client is durable.
    ///
    /// # Errors
    /// The log refused the commit.
    pub async fn settle(&self) -> Result<(), CommitError> {
        match &self.cursor {
            Some(cursor) => cursor.settle().await,
            None => Ok(()),
        }
    }

    /// Returns the position of the client: after the last record that was returned, else where it has started. There
    /// is none while the client waits for a time, because that has no place yet.
    #[must_use]
    pub fn pos(&self) -> Option<String> {
        let hub = self.reader.hub();
        let parts = hub.parts();
        let at = || ClientPosition {
            contract: parts.contract,
            incarnation: hub.incarnation(),
            place: self.reader.place().clone(),
        };
        let known = self.waits_for.is_none();
        known.then(|| parts.key.text(&at()))
    }

    /// Returns the position of the last record that was returned.
    #[must_use]
    pub fn last_pos(&self) -> Option<&str> {
        self.last_pos.as_deref()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stream.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns once another client has taken the cursor over; never, without a cursor.
async fn taken_over(cursor: &mut Option<Held>) {
    match cursor {
        Some(cursor) => cursor.taken_over().await,
        None => std::future::pending().await,
    }
}

enum Found {
    Start(Start),
    Frame(Arc<Frame>),
}

/// Waits for a record, then looks for the first one that has the time.
async fn wait(hub: &Hub, place: &StreamPlace, time: Timestamp) -> Result<Start, HubError> {
    let parts = hub.parts();
    let ready = feed::ready(&parts.streams, parts.stream, place).await;
    ready.map_err(|_gone| HubError::Gone)?;
    let started = start::at_time(&parts.streams, parts.stream, time).await;
    started.map_err(|refused| match refused {
        start::StartRefused::Read(error) => HubError::Read(error.into()),
        _ => HubError::Gone,
    })
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Changed => Self::Changed,
            Ended::Deleted => Self::Deleted,
        }
    }
}

impl From<HubError> for End {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Gone => Self::Deleted,
            HubError::Overtaken => Self::Gone,
            HubError::Read(error) => Self::Failed(Box::new(error)),
            HubError::Panicked => Self::Failed(Box::new(HubError::Panicked)),
        }
    }
}
