//! Letting a client in: a seat, a place to start at, and the hub of those who read the same.

use std::sync::Arc;

use crate::storage::Stream;

use super::{
    begin::{Begin, BeginInvalid},
    data_stream::DataStream,
    encode::Encoder,
    hub::{Hub, Parts},
    position::Contract,
    registry::Push,
    resource::{ResourceName, View},
    start::{self, StartRefused},
    subscription::{Seat, Subscription},
};

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
}

impl Push {
    /// Lets a client read a data stream from where it wants; `begin` is already percent-decoded.
    ///
    /// # Errors
    /// Each variant of [`SubscribeError`] is told before anything is sent.
    pub async fn subscribe(
        &self,
        name: &ResourceName,
        begin: Option<&str>,
    ) -> Result<Subscription, SubscribeError> {
        let stream = self.get(name).ok_or(SubscribeError::Unknown)?;
        // Taken before anything is read: many may come at once.
        let len_max = self.settings().clients_max;
        let seat = Seat::take(&self.0.seats_taken, len_max).ok_or(SubscribeError::Full)?;
        let begin = match begin {
            None => Begin::Earliest,
            Some(text) => Begin::parse(text, &self.0.key)?,
        };
        let resource = &stream.resource;
        let log = self
            .trail(&resource.trail)
            .ok_or(StartRefused::StreamGone)?;
        let contract = self.contract(&stream, &log);
        let streams = &self.0.streams;
        let quality = resource.quality_of_service;
        let start = start::start(streams, log.id, &begin, contract, quality).await?;
        if let Some(missing) = &start.gap {
            self.0.gaps.note(name, missing);
        }
        let fits = |hub: &Hub| hub.parts().stream == log.id && hub.incarnation() == log.incarnation;
        let hub = stream.hub(fits, || self.hub(&stream, &log, contract));
        Ok(Subscription::new(stream, hub, start, seat))
    }

    fn hub(&self, stream: &DataStream, log: &Arc<Stream>, contract: Contract) -> Hub {
        let parts = Parts {
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
        };
        Hub::new(parts, log)
    }

    fn contract(&self, stream: &DataStream, log: &Stream) -> Contract {
        let view = match stream.resource.view {
            View::Append => "append",
            View::Operations(_) => "operations",
        };
        Contract::new(stream.name.as_str(), log.name.as_str(), view)
    }
}
