//! The balance of all streams: appended records against settled and open ones. Pure.
//!
//! ```text
//! of a stream   accepted + replayed + received + unknown = delivered + moved + filtered + discarded + expired + lost
//!                                                          + pending + inErrorStreams
//! in total      the same without received and moved, which are each other's but for `unmatched`
//! ```
//!
//! `lost`, `unknown` and `unmatched` are 0 until an operator accepts that damage took records. `unmatched` is computed once,
//! when the loss is accepted. It does not change later, so that a later difference still shows.
//!
//! Open records are counted in the settled sets. All other numbers come from counters of what was written. A difference
//! means that one of the two is wrong.

use serde::Serialize;

use crate::{
    model::ids::StreamName,
    storage::{AppendKind, Counts, Ledger, StreamLedger},
};

/// The books of all streams.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Balance {
    /// No row has a difference.
    pub(crate) balanced: bool,
    /// Number of accepted losses.
    pub(crate) accepted_losses: u64,
    /// Records moved minus records received, after accepted losses.
    pub(crate) unmatched: i64,
    pub(crate) streams: Vec<Row>,
    /// The sum over all deleted streams.
    pub(crate) gone: Row,
    pub(crate) total: Row,
}

#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
    /// From sources.
    accepted: u64,
    /// Copies of settled records: of a failed replay, or from an archive.
    replayed: u64,
    /// Copies of records that failed in another stream.
    received: u64,
    /// Records of unknown origin after an accepted loss.
    unknown: u64,
    delivered: u64,
    /// Moved to another stream by a failure.
    moved: u64,
    filtered: u64,
    discarded: u64,
    expired: u64,
    /// Lost to damage while open.
    lost: u64,
    /// Open in the source stream.
    pending: u64,
    /// Open in an error stream.
    in_error_streams: u64,
    pub(crate) difference: i64,
}

impl Balance {
    /// Computes the balance. Open records of the stream `source` are pending, those of other streams wait for a retry.
    pub(crate) fn of(ledger: &Ledger, source: Option<&StreamName>) -> Self {
        let row = |stream| Row::of(stream, source);
        let streams: Vec<_> = ledger.streams.iter().map(row).collect();
        let gone = Row::new(&ledger.gone).checked(ledger.gone.appended_len());
        let mut counts = ledger.gone;
        for stream in &ledger.streams {
            counts.add(&stream.counts);
        }
        let total = Row::total(&counts, &streams, ledger.unmatched);
        let mut differences = streams.iter().map(|row| row.difference);
        let balanced = differences.all(|difference| difference == 0);
        Self {
            balanced: balanced && gone.difference == 0 && total.difference == 0,
            accepted_losses: ledger.losses_len,
            unmatched: ledger.unmatched,
            streams,
            gone,
            total,
        }
    }
}

impl Row {
    fn of(ledger: &StreamLedger, source: Option<&StreamName>) -> Self {
        let name = &ledger.stream.name;
        let mut row = Self::new(&ledger.counts);
        row.stream = Some(name.to_string());
        match source == Some(name) {
            true => row.pending = ledger.open,
            false => row.in_error_streams = ledger.open,
        }
        row.checked(ledger.placed)
    }

    fn new(counts: &Counts) -> Self {
        let appended = |kind: AppendKind| counts.appended[kind as usize];
        Self {
            accepted: appended(AppendKind::Accepted),
            replayed: appended(AppendKind::ReplayFailed) + appended(AppendKind::Restored),
            received: counts.received_len(),
            delivered: counts.delivered,
            moved: counts.routed + counts.moved,
            filtered: counts.filtered,
            discarded: counts.discarded,
            expired: counts.expired,
            lost: counts.lost,
            unknown: counts.unknown,
            ..Self::default()
        }
    }

    /// Sets the difference of one stream. If that is 0, sets the difference between its records and the `placed` offsets.
    fn checked(mut self, placed: u64) -> Self {
        let came = self.came();
        let difference = difference(came, self.ended() + self.moved);
        self.difference = match difference {
            0 => self::difference(came, placed),
            difference => difference,
        };
        self
    }

    /// Returns the sum of all counts, with the open records of the existing streams.
    fn total(counts: &Counts, streams: &[Self], unmatched: i64) -> Self {
        let mut total = Self::new(counts);
        total.pending = streams.iter().map(|row| row.pending).sum();
        total.in_error_streams = streams.iter().map(|row| row.in_error_streams).sum();
        let came = total.accepted + total.replayed + total.unknown;
        total.difference = difference(came, total.ended()).saturating_sub(unmatched);
        total
    }

    /// Number of appended records.
    pub(crate) fn came(&self) -> u64 {
        self.accepted + self.replayed + self.received + self.unknown
    }

    /// Number of records that did not move to another stream.
    fn ended(&self) -> u64 {
        let ends = self.delivered + self.filtered + self.discarded + self.expired + self.lost;
        ends + self.pending + self.in_error_streams
    }
}

fn difference(came: u64, went: u64) -> i64 {
    i64::try_from(i128::from(came) - i128::from(went)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(appended: [u64; 5], delivered: u64, routed: u64) -> Counts {
        Counts {
            appended,
            delivered,
            routed,
            ..Counts::default()
        }
    }

    fn row(counts: &Counts, pending: u64) -> Row {
        let mut row = Row::new(counts);
        row.pending = pending;
        row.checked(counts.appended_len())
    }

    #[test]
    fn a_record_too_many_or_too_few_is_a_difference() {
        let counts = counts([9, 0, 0, 0, 0], 5, 1);
        assert_eq!(row(&counts, 3).difference, 0);
        assert_eq!(row(&counts, 2).difference, 1);
        assert_eq!(row(&counts, 4).difference, -1);
        assert_eq!(row(&counts, 3).checked(8).difference, 1);
    }

    #[test]
    fn in_total_each_copy_has_its_origin() {
        let total = |errors: Counts, waiting| {
            let source = counts([9, 0, 0, 0, 0], 5, 4);
            let rows = [row(&source, 0), row(&errors, waiting)];
            assert!(rows.iter().all(|row| row.difference == 0));
            let mut sum = source;
            sum.add(&errors);
            Row::total(&sum, &rows, 0)
        };
        let whole = total(counts([0, 4, 0, 1, 0], 2, 0), 3);
        assert_eq!(
            (whole.difference, whole.accepted, whole.replayed),
            (0, 9, 1)
        );
        let lost = total(counts([0, 3, 0, 1, 0], 2, 0), 2);
        assert_eq!(lost.difference, 1);
    }

    #[test]
    fn accepted_losses_are_in_the_balance_and_hide_nothing_else() {
        // One of nine is lost without an end, and one copy's origin lost its end.
        let mut source = counts([8, 0, 0, 0, 0], 5, 3);
        (source.lost, source.unknown) = (1, 1);
        let errors = counts([0, 4, 0, 0, 0], 0, 0);
        let of = |errors: &Counts, waiting| {
            let rows = [row(&source, 0), row(errors, waiting)];
            let mut sum = source;
            sum.add(errors);
            Row::total(&sum, &rows, -1).difference
        };
        assert_eq!(row(&source, 0).difference, 0);
        assert_eq!(of(&errors, 4), 0);
        assert_eq!(of(&counts([0, 3, 0, 0, 0], 0, 0), 3), 1);
        assert_eq!(of(&counts([0, 5, 0, 0, 0], 0, 0), 5), -1);
    }
}
