//! Subscribing: a seat, a cursor if the client names one, the place to start at, and the hub of the data stream.

pub(super) mod begin;
pub(super) mod reader;
pub(super) mod start;
pub(super) mod subscription;

use std::sync::Arc;

use crate::storage::Stream;

use super::{
    cursors::{At, CursorError, CursorName, Held},
    data_stream::DataStream,
    encode::Encoder,
    feed::hub::{Hub, HubParts},
    position::{ClientPosition, Contract},
    registry::Push,
    resource::{ResourceName, View},
    subscribe::{
        begin::{Begin, BeginInvalid},
        start::{Start, StartRefused},
        subscription::{Seat, Subscription},
    },
};

/// The request of a client.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Where to begin, already percent-decoded; `None` is `earliest`.
    pub begin: Option<String>,
    /// The cursor to use. If it exists, `begin` is ignored.
    pub cursor: Option<CursorName>,
    /// Another client that holds the cursor loses it.
    pub takeover: bool,
}

/// Why a client cannot read a data stream.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// There is no data stream with that name.
    #[error("there is no data stream of that name")]
    Unknown,
    /// There are as many clients as `push.clients_max` allows.
    #[error("as many clients are connected as push.clients_max allows")]
    Full,
    /// `begin` is not a legal start.
    #[error(transparent)]
    Begin(#[from] BeginInvalid),
    /// The client cannot start there any more.
    #[error(transparent)]
    Start(#[from] StartRefused),
    /// The cursor cannot be had.
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

/// A data stream, and the log stream that it shows now.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) stream: Arc<DataStream>,
    pub(super) log: Arc<Stream>,
    pub(super) contract: Contract,
}

impl Push {
    /// Subscribes a client.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing was sent.
    pub async fn subscribe(
        &self,
        name: &ResourceName,
        asked: Asked,
    ) -> Result<Subscription, SubscribeError> {
        let stream = self.get(name).ok_or(SubscribeError::Unknown)?;
        // The seat is taken first, because many clients may come at once and the next steps read the log.
        let len_max = self.settings().clients_max;
        let seat = Seat::take(&self.0.seats_taken, len_max).ok_or(SubscribeError::Full)?;
        let source = self.source(stream)?;
        let (start, held) = match &asked.cursor {
            None => {
                let begin = self.begin(asked.begin.as_deref())?;
                (self.start(&source, &begin).await?, None)
            }
            Some(cursor) => {
                let (start, held) = self.start_with(&source, cursor, &asked).await?;
                (start, Some(held))
            }
        };
        if let Some(missing) = &start.gap {
            self.0.gaps.note(name, missing);
        }
        let Source {
            stream,
            log,
            contract,
        } = source;
        let fits = |hub: &Hub| hub.parts().stream == log.id && hub.incarnation() == log.incarnation;
        let hub = stream.hub(fits, || self.hub(&stream, &log, contract));
        Ok(Subscription::new(stream, hub, start, held, seat))
    }

    /// Returns the cursor of a client and where it starts; a cursor that does not exist is made.
    async fn start_with(
        &self,
        source: &Source,
        cursor: &CursorName,
        asked: &Asked,
    ) -> Result<(Start, Held), SubscribeError> {
        let (cursors, name) = (&self.0.cursors, &source.stream.name);
        match cursors.get(name, cursor) {
            None => {
                let begin = self.begin(asked.begin.as_deref())?;
                let at = self.at(source, &begin).await?;
                cursors.make(name, cursor, at).await?;
            }
            // The start is checked first: a client that cannot start does not take the cursor from another one.
            Some(state) => {
                self.start_at(source, state.at).await?;
            }
        }
        let (held, at) = cursors.take(name, cursor, asked.takeover)?;
        Ok((self.start_at(source, at).await?, held))
    }

    /// Reads `begin`.
    pub(super) fn begin(&self, begin: Option<&str>) -> Result<Begin, BeginInvalid> {
        begin.map_or(Ok(Begin::Earliest), |text| Begin::parse(text, &self.0.key))
    }

    /// Returns the position of a new cursor.
    pub(super) async fn at(&self, source: &Source, begin: &Begin) -> Result<At, StartRefused> {
        let start = self.start(source, begin).await?;
        Ok(At {
            position: ClientPosition {
                contract: source.contract,
                incarnation: source.log.incarnation,
                place: start.place,
            },
            waits_for: start.waits_for,
        })
    }

    async fn start_at(&self, source: &Source, at: At) -> Result<Start, StartRefused> {
        let start = self.start(source, &Begin::Position(at.position)).await?;
        Ok(Start {
            waits_for: at.waits_for,
            ..start
        })
    }

    async fn start(&self, source: &Source, begin: &Begin) -> Result<Start, StartRefused> {
        let quality = source.stream.resource.quality_of_service;
        let (streams, log) = (&self.0.streams, source.log.id);
        start::start(streams, log, begin, source.contract, quality).await
    }

    /// Returns a data stream with the log stream that it shows.
    pub(super) fn source(&self, stream: Arc<DataStream>) -> Result<Source, StartRefused> {
        let log = self.trail(&stream.resource.trail);
        let log = log.ok_or(StartRefused::StreamGone)?;
        let view = match stream.resource.view {
            View::Append => "append",
            View::Operations(_) => "operations",
        };
        Ok(Source {
            contract: Contract::new(stream.name.as_str(), log.name.as_str(), view),
            stream,
            log,
        })
    }

    fn hub(&self, stream: &DataStream, log: &Arc<Stream>, contract: Contract) -> Hub {
        let parts = HubParts {
            name: stream.name.clone(),
            streams: self.0.streams.clone(),
            stream: log.id,
            encode: Box::new(Encoder::new(stream, log, self.settings())),
            key: self.0.key.clone(),
            contract,
            quality: stream.resource.quality_of_service,
            frame_bytes: usize::try_from(stream.resource.buffer_size).unwrap_or(usize::MAX),
            clock: self.0.clock.clone(),
            gaps: self.0.gaps.clone(),
            shares: self.0.shares.clone(),
            tasks: self.0.tasks.clone(),
        };
        Hub::new(parts, log)
    }
}
