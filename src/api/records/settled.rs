//! Settlements of the records of a page, or of one record.

use std::{collections::HashMap, ops::Range};

use crate::{
    api::{EdgeState, wire},
    model::ids::{Offset, PartitionId},
    storage::{Settled, Settlement},
};

use super::reading::Reading;

/// Offsets of one lookup. A page with more shows no settlement for some records.
const OFFSETS_MAX: usize = 16 << 10;

/// Settlements by partition and offset of their record. Some may be missing.
#[derive(Debug, Default)]
pub(super) struct Settlements(HashMap<(PartitionId, Offset), Settled>);

impl Settlements {
    /// Looks up the settlements of a page of up to `limit` records.
    pub(super) async fn of_page(shared: &EdgeState, reading: &Reading, limit: usize) -> Self {
        let places: Vec<_> = reading.positions().collect();
        let len = limit.min(OFFSETS_MAX / places.len().max(1)) as u64;
        let sought = places
            .into_iter()
            .map(|(of, next)| (of, next..Offset(next.0.saturating_add(len))));
        Self::of(shared, &sought.collect::<Vec<_>>()).await
    }

    /// Looks up the settlement of one record.
    pub(super) async fn of_one(
        shared: &EdgeState,
        of: PartitionId,
        offset: Offset,
    ) -> Option<wire::SettlementView> {
        let found = Self::of(shared, &[(of, offset..offset.next())]).await;
        found.view(shared, of, offset)
    }

    async fn of(shared: &EdgeState, sought: &[(PartitionId, Range<Offset>)]) -> Self {
        let found = shared.streams.engine().settled(sought).await;
        // The page can show its records without their settlements.
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot read settlements for a page of records");
            Vec::new()
        });
        let by_place = |one: Settled| ((one.of, one.offset), one);
        Self(found.into_iter().map(by_place).collect())
    }

    /// Returns the memory of the settlements, in bytes.
    pub(super) fn bytes_len(&self) -> usize {
        self.0.capacity() * size_of::<((PartitionId, Offset), Settled)>()
    }

    pub(super) fn view(
        &self,
        shared: &EdgeState,
        of: PartitionId,
        offset: Offset,
    ) -> Option<wire::SettlementView> {
        let settled = self.0.get(&(of, offset))?;
        let engine = shared.streams.engine();
        let (end, copy) = match settled.end {
            Settlement::Delivered => ("delivered", None),
            Settlement::Filtered => ("filtered", None),
            Settlement::Discarded => ("discarded", None),
            Settlement::Moved { copy } => ("moved", copy),
        };
        let to = copy.and_then(|(stream, offset)| {
            let stream = engine.stream_by_id(stream)?;
            Some(wire::CopyView {
                stream: stream.name.to_string(),
                partition: of.partition.to_string(),
                offset: offset.0,
            })
        });
        Some(wire::SettlementView {
            end,
            at: settled.time.to_string(),
            attempts: settled.attempts,
            status: settled.status,
            to,
        })
    }
}
