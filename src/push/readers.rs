//! Readers of data streams, as operators see them: clients and cursors with their lag. Cursors are moved, removed, and
//! acknowledged for clients that cannot do so on their connection.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    model::ids::{Offset, PartitionId, StreamName},
    runtime::clock::Timestamp,
    storage::{Bounds, ReadError, StreamBounds},
};

use super::{
    cursors::{CursorError, CursorName, State},
    data_stream::DataStream,
    feed,
    position::PositionInvalid,
    registry::Push,
    resource::ResourceName,
    subscribe::{begin::BeginInvalid, start::StartRefused},
};

/// A cursor and its lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorStatus {
    /// Its name.
    pub name: CursorName,
    /// Every record up to this position is acknowledged.
    pub pos: String,
    /// When a client last acknowledged something.
    pub acked_at: Option<Timestamp>,
    /// When a client last came, went or acknowledged.
    pub used_at: Timestamp,
    /// Whether a client holds it.
    pub is_connected: bool,
    /// Records that are kept and not acknowledged.
    pub records_behind: u64,
    /// Age of the oldest of them.
    pub behind: Duration,
}

/// A data stream and its readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataStreamReaders {
    /// Its name.
    pub name: ResourceName,
    /// The log stream that it shows; `None` if that stream was deleted.
    pub log: Option<StreamName>,
    /// Clients that read it now.
    pub clients_len: usize,
    /// Its cursors, by name.
    pub cursors: Vec<CursorLag>,
}

/// A cursor, and how many records it lags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorLag {
    /// Its name.
    pub name: CursorName,
    /// Whether a client holds it.
    pub is_connected: bool,
    /// When a client last acknowledged something.
    pub acked_at: Option<Timestamp>,
    /// Records that are kept and not acknowledged.
    pub records_behind: u64,
}

/// Why a cursor is not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// `begin` is not a legal start.
    #[error(transparent)]
    Begin(#[from] BeginInvalid),
    /// A cursor cannot stand at `begin` any more.
    #[error(transparent)]
    Start(#[from] StartRefused),
    /// The cursor refused the move.
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

/// Why an acknowledgement is refused.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// The text is not a position.
    #[error(transparent)]
    Position(#[from] PositionInvalid),
    /// No record of this stream has that position now.
    #[error(transparent)]
    Start(#[from] StartRefused),
    /// The cursor refused the move.
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

impl Push {
    /// Returns every data stream with its readers, from memory.
    #[must_use]
    pub fn readers(&self) -> Vec<DataStreamReaders> {
        let mut cursors: HashMap<_, Vec<_>> = HashMap::new();
        for (stream, name, state) in self.0.cursors.all() {
            cursors.entry(stream).or_default().push((name, state));
        }
        let readers = |stream: Arc<DataStream>| {
            let log = self.trail(&stream.resource.trail);
            let found = log.as_ref();
            let found = found.and_then(|log| self.0.streams.engine().bounds(log.id));
            let lag = |(name, state): (CursorName, State)| CursorLag {
                name,
                is_connected: state.is_held(),
                acked_at: state.acked_at,
                records_behind: unacked(&state, found.as_ref())
                    .map(|(_, of)| of.end.0 - of.start.0)
                    .sum(),
            };
            let cursors = cursors.remove(&stream.name).unwrap_or_default();
            DataStreamReaders {
                name: stream.name.clone(),
                clients_len: stream.clients_len(),
                cursors: cursors.into_iter().map(lag).collect(),
                log: log.map(|log| log.name.clone()),
            }
        };
        self.list().into_iter().map(readers).collect()
    }

    /// Returns the cursors of a data stream by name, at most `limit` behind `after`, and whether there are more.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn cursors(
        &self,
        stream: &Arc<DataStream>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<CursorStatus>, bool), ReadError> {
        let mut all = self.0.cursors.list(&stream.name);
        all.retain(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let more = all.len() > limit;
        all.truncate(limit);
        let log = self.source(stream.clone()).ok();
        let found = log.and_then(|source| self.0.streams.engine().bounds(source.log.id));
        let mut list = Vec::with_capacity(all.len());
        for (name, state) in all {
            list.push(self.status(name, &state, found.as_ref()).await?);
        }
        Ok((list, more))
    }

    /// Returns the names of all cursors of a data stream.
    #[must_use]
    pub fn cursor_names(&self, stream: &DataStream) -> Vec<CursorName> {
        let all = self.0.cursors.list(&stream.name).into_iter();
        all.map(|(name, _)| name).collect()
    }

    /// Returns a cursor.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn cursor(
        &self,
        stream: &Arc<DataStream>,
        name: &CursorName,
    ) -> Result<Option<CursorStatus>, ReadError> {
        let Some(state) = self.0.cursors.get(&stream.name, name) else {
            return Ok(None);
        };
        let log = self.source(stream.clone()).ok();
        let found = log.and_then(|source| self.0.streams.engine().bounds(source.log.id));
        self.status(name.clone(), &state, found.as_ref())
            .await
            .map(Some)
    }

    /// Moves a cursor, durably; one that does not exist is made. Without `begin` a new cursor stands at the first
    /// record that is kept. An existing one stays where it is, because a move to the start would send every record
    /// again.
    ///
    /// # Errors
    /// [`MoveError`]; the cursor has not moved.
    pub async fn put_cursor(
        &self,
        stream: &Arc<DataStream>,
        name: &CursorName,
        begin: Option<&str>,
    ) -> Result<(), MoveError> {
        let cursors = &self.0.cursors;
        if begin.is_none() && cursors.get(&stream.name, name).is_some() {
            return Ok(());
        }
        let place = self.begin(begin)?;
        let source = self.source(stream.clone())?;
        let at = self.at(&source, &place).await?;
        let put = match begin {
            Some(_) => cursors.put(&stream.name, name, at).await,
            None => cursors.make(&stream.name, name, at).await,
        };
        Ok(put?)
    }

    /// Removes a cursor that no client holds, durably.
    ///
    /// # Errors
    /// [`CursorError::Unknown`], [`CursorError::InUse`].
    pub async fn remove_cursor(
        &self,
        stream: &DataStream,
        name: &CursorName,
    ) -> Result<(), CursorError> {
        self.0.cursors.remove(&stream.name, name).await
    }

    /// Moves a cursor forward, durably. A position at or before its own changes nothing.
    ///
    /// # Errors
    /// [`AckError`]; the cursor has not moved.
    pub async fn ack_cursor(
        &self,
        stream: &Arc<DataStream>,
        name: &CursorName,
        pos: &str,
    ) -> Result<(), AckError> {
        let position = self.0.key.read(pos)?;
        let source = self.source(stream.clone())?;
        if position.contract != source.contract {
            return Err(StartRefused::Foreign.into());
        }
        let found = self.0.streams.engine().bounds(source.log.id);
        let found = found.ok_or(StartRefused::StreamGone)?;
        if !feed::knows(&found, position.incarnation, &position.place) {
            return Err(StartRefused::Gone.into());
        }
        Ok(self.0.cursors.ack(&stream.name, name, position).await?)
    }

    /// Removes unused cursors, at intervals, until `stop` fires.
    pub async fn sweep(self, stop: CancellationToken) {
        let unused_max = self.settings().cursor_unused;
        self.0.cursors.clone().sweep(unused_max, stop).await;
    }

    async fn status(
        &self,
        name: CursorName,
        state: &State,
        found: Option<&StreamBounds>,
    ) -> Result<CursorStatus, ReadError> {
        let (mut records_behind, mut oldest) = (0, None);
        for (of, unacked) in unacked(state, found) {
            records_behind += unacked.end.0 - unacked.start.0;
            if !unacked.is_empty() {
                let page = self.0.streams.engine().read(of, unacked.start, 1).await;
                let page = match page {
                    // Retention has removed the record since the bounds were read.
                    Err(ReadError::Trimmed { .. }) => continue,
                    page => page?,
                };
                let time = page.records.first().map(|first| first.time);
                oldest = oldest.into_iter().chain(time).min();
            }
        }
        let now = self.0.clock.now();
        Ok(CursorStatus {
            name,
            pos: self.0.key.text(&state.at.position),
            acked_at: state.acked_at,
            used_at: state.used_at,
            is_connected: state.is_held(),
            records_behind,
            behind: oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
        })
    }
}

/// Returns, by partition, the offsets that are kept and not acknowledged.
fn unacked<'a>(
    state: &'a State,
    found: Option<&'a StreamBounds>,
) -> impl Iterator<Item = (PartitionId, Range<Offset>)> + 'a {
    let position = &state.at.position;
    found.into_iter().flat_map(move |found| {
        // Offsets of another incarnation of the log cannot be compared with those of this one.
        let same_life = found.stream.incarnation == position.incarnation;
        let partitions = found.stream.all_partitions().zip(&found.partitions);
        partitions.map(move |(of, Bounds { earliest, tail })| {
            let next = match same_life {
                true => feed::next_of(&position.place, of.partition),
                false => Offset(0),
            };
            (of, next.clamp(*earliest, *tail)..*tail)
        })
    })
}
