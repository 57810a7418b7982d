//! The seam: the storage that the gateway needs, as three traits and their values.
//!
//! [`Log`] keeps records in partitions, [`State`] keeps small named values, [`Leases`] grants the right to settle records.
//! An engine implements all three ([`Engine`]). `embedded` is the default engine and stands on `local`, one directory.
//! `conformance` is the suite that every engine passes. Callers see no file, no tree and no thread of an engine.
//!
//! `traits` holds the three traits. `commit`, `read` and `streams` hold the values, `errors` the refusals. `shares` bounds
//! the state by kind. `ledger` checks that the counts of all streams add up.
//!
//! ```text
//! offset   0 1 2 3 4 5 6 7 8
//!          . . . R R R R R
//!                ^         ^
//!         earliest         tail, the first offset not written yet
//! ```
//!
//! Promises of every engine:
//! - [`Log::commit`] answers only when the commit would survive a crash of the process and of the machine.
//! - No reader sees a record before it is durable. Otherwise a crash could give the offset of a delivered record to
//!   another record.
//! - Offsets have no gaps, are never used twice, and outlive a trim of everything.
//! - The records, settlements and state changes of one commit are stored together or not at all.
//! - A record is settled once; a second settlement is refused.

mod commit;
#[cfg(test)]
pub(crate) mod conformance;
pub mod embedded;
mod errors;
pub(crate) mod ledger;
pub mod local;
#[cfg(test)]
pub(crate) mod memory;
mod read;
pub mod shares;
mod streams;
mod traits;

pub use commit::{
    Append, AppendKind, Appended, Commit, Committed, Dedup, DedupId, NewSettlement, OpenRecords,
    PurgeNote, Purged, PurgedPartition, Settle, Settlement, StateChange, StateEntry,
};
pub use errors::{CommitError, ReadError, StreamError};
pub use read::{
    Bounds, Counts, Health, Keep, Ledger, Page, PartitionStatus, SettledOffsets, Space,
    StreamBounds, StreamLedger,
};
pub use streams::{
    ControlEvent, ControlEventKind, EVENTS_MAX, Epoch, Lease, LeaseEvent, MadeBy, Stream,
    StreamConfig,
};
pub use traits::{Caps, Engine, Leases, Log, REPLY_BYTES_MAX, STATE_BYTES_MAX, State};

use crate::model::ids::Offset;
use crate::model::ids::PartitionId;
use crate::runtime::clock::Timestamp;

/// A stored settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its partition.
    pub of: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// How the record was settled.
    pub end: Settlement,
    /// Number of attempts.
    pub attempts: u32,
    /// The last HTTP status, if a target answered.
    pub status: Option<u16>,
    /// Time of the settlement.
    pub time: Timestamp,
}
