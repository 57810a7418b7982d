//! Letting a client in: a seat, a cursor if it has one, a place to start at, and the hub of those who read the same.

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

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Where to begin, already percent-decoded; nothing is `earliest`.
    pub begin: Option<String>,
    /// The cursor that knows where it stands. Once that is there, `begin` is not looked at.
    pub cursor: Option<CursorName>,
    /// Whoever has the cursor is let go.
    pub takeover: bool,
}

/// Why a client cannot read a data stream.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// There is none of that name.
    #[error("there is no data stream of that name")]
    Unknown,
    /// There are as many clients as there may be.
    #[error("there are as many clients as there may be")]
    Full,
    /// It cannot start there.
    #[error(transparent)]
    Begin(#[from] BeginInvalid),
    /// It cannot start there any more.
    #[error(transparent)]
    Start(#[from] StartRefused),
    /// It does not get the cursor.
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

/// A data stream, and the log stream that it shows at the moment.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) stream: Arc<DataStream>,
    pub(super) log: Arc<Stream>,
    pub(super) contract: Contract,
}

impl Push {
    /// Lets a client read a data stream from where it wants.
    ///
    /// # Errors
    /// Each variant of [`SubscribeError`] is told before anything is sent.
    pub async fn subscribe(
        &self,
        name: &ResourceName,
        asked: Asked,
    ) -> Result<Subscription, SubscribeError> {
        let stream = self.get(name).ok_or(SubscribeError::Unknown)?;
        // Taken before anything is read: many may come at once.
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

    /// Returns where a client starts that has a cursor, and the cursor; one that is not there is made.
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
            // Who cannot start there takes it from nobody.
            Some(state) => {
                self.start_at(source, state.at).await?;
            }
        }
        let (held, at) = cursors.take(name, cursor, asked.takeover)?;
        Ok((self.start_at(source, at).await?, held))
    }

    /// Reads where a client wants to begin.
    pub(super) fn begin(&self, begin: Option<&str>) -> Result<Begin, BeginInvalid> {
        begin.map_or(Ok(Begin::Earliest), |text| Begin::parse(text, &self.0.key))
    }

    /// Returns the place of a new cursor.
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
