//! The seam: what the gateway needs of a store, as three traits, and the values they speak of.
//!
//! [`Log`] keeps records in partitions, [`State`] keeps small named values, [`Leases`] says who may settle records.
//! An engine implements all three ([`Engine`]); `embedded` is the one there is; it stands on `local`. `conformance` is the suite that every
//! engine passes. Callers never see how an engine stores: no file, no tree, no thread.
//!
//! ```text
//! offset   0 1 2 3 4 5 6 7 8
//!          . . . R R R R R
//!                ^         ^
//!         earliest         tail, the first offset not written yet
//! ```
//!
//! Promises of every engine:
//! - [`Log::commit`] answers after what it holds would survive a crash of the process and of the machine.
//! - No reader sees a record before that: a target must never be called for an offset that a crash could give to
//!   another record.
//! - Offsets have no gaps, are never used twice, and outlive a trim of everything.
//! - What one commit holds (records, ends of records, state) is stored together or not at all.
//! - A record gets one end, once: a second one is refused.

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

/// How a record ended, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its partition.
    pub of: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its end.
    pub end: Settlement,
    /// How many calls were made for it.
    pub attempts: u32,
    /// The last HTTP status, if a target answered.
    pub status: Option<u16>,
    /// When.
    pub time: Timestamp,
}
