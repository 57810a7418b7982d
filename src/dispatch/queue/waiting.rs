//! Conditions that open records of the source stream wait for. A search keeps only the records that were stored first,
//! at most as many as the caller shows.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::dispatch::{job::Job, outcome::Cause};
use crate::{
    model::ids::{Offset, Partition, PartitionId, StreamId},
    runtime::clock::Timestamp,
};

/// What an open record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// The answer to its call in flight.
    Answer,
    /// A free slot of its target, or room in its queue.
    Turn,
    /// An earlier record with the same target and key.
    Key,
    /// The breaker of its target, which is open.
    TargetOpen,
    /// A slot of its target's rate.
    Rate,
    /// The end of the wait that its target asked for.
    RetryAfter,
    /// The time between two attempts, or between two calls of a target that puts records off.
    Backoff,
    /// The log, which has not taken its settlement.
    Log,
}

impl WaitsFor {
    /// Returns its word in answers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Turn => "turn",
            Self::Key => "key",
            Self::TargetOpen => "target_open",
            Self::Rate => "rate",
            Self::RetryAfter => "retry_after",
            Self::Backoff => "backoff",
            Self::Log => "log",
        }
    }
}

/// Calls of a record since it was queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// How many.
    pub(crate) attempts: u32,
    /// Cause of the last failure.
    pub(crate) cause: Option<Cause>,
}

impl Calls {
    pub(crate) fn of(job: &Job) -> Self {
        Self {
            attempts: job.tried.attempts,
            cause: job.tried.cause,
        }
    }
}

/// What the search found of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) waits_for: WaitsFor,
    pub(crate) calls: Calls,
    /// Earliest time of its next call, if known.
    pub(crate) due: Option<Instant>,
}

/// A search of the queues for records of one stream.
pub(crate) struct Search<'a> {
    stream: StreamId,
    is_sought: &'a dyn Fn(Partition, Offset) -> bool,
    len_max: usize,
    found: BTreeMap<(Timestamp, Partition, Offset), Found>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        stream: StreamId,
        is_sought: &'a dyn Fn(Partition, Offset) -> bool,
        len_max: usize,
    ) -> Self {
        Self {
            stream,
            is_sought,
            len_max,
            found: BTreeMap::new(),
        }
    }

    /// Adds a waiting job. Jobs of retries are left out, because their records are not open in the source stream.
    pub(crate) fn job(&mut self, job: &Job, waits_for: WaitsFor, due: Option<Instant>) {
        if job.is_first() {
            self.record(job.of, job.offset, job.time, || Found {
                waits_for,
                calls: Calls::of(job),
                due,
            });
        }
    }

    /// Adds a record that was stored at `time`.
    pub(crate) fn record(
        &mut self,
        of: PartitionId,
        offset: Offset,
        time: Timestamp,
        found: impl FnOnce() -> Found,
    ) {
        let at = (time, of.partition, offset);
        let is_full = self.found.len() >= self.len_max;
        let is_too_late = || {
            self.found
                .last_key_value()
                .is_none_or(|(last, _)| *last < at)
        };
        if of.stream != self.stream
            || is_full && is_too_late()
            || !(self.is_sought)(of.partition, offset)
        {
            return;
        }
        self.found.insert(at, found());
        if self.found.len() > self.len_max {
            self.found.pop_last();
        }
    }

    /// Returns the found records, oldest first.
    pub(crate) fn found(self) -> impl Iterator<Item = (Partition, Offset, Found)> {
        let found = self.found.into_iter();
        found.map(|((_, partition, offset), found)| (partition, offset, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_keeps_the_records_that_were_stored_first() {
        let stream = StreamId([1; 16]);
        let of = |stream, partition| PartitionId {
            stream,
            partition: Partition(partition),
        };
        let is_sought = |_: Partition, offset: Offset| offset != Offset(7);
        let mut search = Search::new(stream, &is_sought, 3);
        let found = || Found {
            waits_for: WaitsFor::Turn,
            calls: Calls::default(),
            due: None,
        };
        for (partition, offset, time) in [
            (0, 9, 90),
            (1, 4, 40),
            (1, 7, 1),
            (0, 3, 40),
            (1, 2, 20),
            (0, 1, 99),
        ] {
            search.record(
                of(stream, partition),
                Offset(offset),
                Timestamp(time),
                found,
            );
        }
        search.record(of(StreamId([2; 16]), 0), Offset(0), Timestamp(0), found);
        let found = search
            .found()
            .map(|(partition, offset, _)| (partition.0, offset.0));
        assert_eq!(found.collect::<Vec<_>>(), [(1, 2), (0, 3), (1, 4)]);
        let mut none = Search::new(stream, &is_sought, 0);
        none.record(of(stream, 0), Offset(0), Timestamp(0), || {
            panic!("there is no room")
        });
        assert_eq!(none.found().count(), 0);
    }
}
