//! The suite that every engine passes: the promises of [`Log`](super::Log), [`State`](super::State) and
//! [`Leases`](super::Leases), each as a check that opens an engine, uses it through the traits alone, and opens it again,
//! because only data that survives a reopen was stored.
//!
//! An engine's tests give a [`EngineHome`] to [`suite!`], which makes a test of every check.

pub(crate) mod appends;
pub(crate) mod content;
pub(crate) mod dedup;
pub(crate) mod ends;
pub(crate) mod leases;
pub(crate) mod many;
pub(crate) mod purging;
pub(crate) mod reading;
pub(crate) mod refusals;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod trimming;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use self::content::Content;
use super::{
    Append, AppendKind, Commit, CommitError, Committed, Engine, Epoch, NewSettlement, Settle,
    StateChange, Stream, StreamConfig,
};
use crate::{
    model::{
        ids::{Offset, Partition, PartitionId, StreamName},
        record::{HeadersBuilder, Record},
    },
    runtime::clock::Clock,
};

/// Where an engine keeps its things, so that it can be opened again.
pub(crate) trait EngineHome: Send + Sync {
    /// Opens the engine, for the first time or again. The one before was closed and is gone.
    fn open(&self) -> Arc<dyn Engine>;

    /// The hand of the engine's clock.
    fn clock(&self) -> &Clock;
}

/// Makes a test of each check, for an engine whose place is `$place`.
macro_rules! suite {
    ($place:expr) => {
        $crate::storage::conformance::suite! { @tests $place;
            appends: offsets_are_dense_in_each_partition_and_go_on_after_a_reopen,
                records_are_read_back_byte_for_byte,
                a_record_larger_than_a_block_is_read_back,
                a_commit_may_append_twice_to_one_partition,
                times_never_go_back_even_if_the_clock_does,
                a_dropped_call_is_still_stored,
                a_closed_engine_refuses_everything_and_keeps_everything,
                close_answers_what_was_queued;
            many: many_committers_get_places_of_their_own,
                committers_that_race_for_one_value_take_turns,
                one_of_many_ends_a_record,
                bounds_show_a_commit_in_all_partitions_or_in_none;
            refusals: a_refused_part_refuses_all;
            ends: every_end_is_counted_and_moves_the_low_mark,
                records_without_an_end_are_named_in_order,
                a_record_ends_once,
                a_routed_record_and_its_copy_are_one_commit,
                settle_soon_is_stored_with_the_next_write,
                settle_soon_needs_no_other_write,
                a_refused_settle_soon_harms_nothing,
                ends_are_found_over_many_thousand_records;
            reading: pages_follow_each_other_to_the_tail,
                a_page_has_as_many_records_as_fit_and_at_least_one,
                beyond_the_tail_is_the_tail,
                offset_at_finds_the_first_record_of_a_time,
                offset_at_tells_records_of_one_write_apart,
                no_record_is_older_than_what_is_known_without_reading_it,
                the_tail_can_be_watched,
                an_unknown_partition_is_refused_everywhere;
            trimming: a_trim_removes_what_is_below_and_counts_what_was_open,
                offsets_go_on_after_everything_was_trimmed,
                a_trimmed_record_cannot_end,
                what_is_kept_is_at_least_what_was_asked_for;
            purging: a_purge_removes_everything_and_what_was_open_ends_as_discarded,
                a_purge_that_is_to_keep_open_records_is_refused_by_the_first,
                ends_that_were_queued_before_a_purge_are_stored_before_it,
                a_purged_record_cannot_end,
                each_purge_is_an_event_unless_nothing_came_since_the_last,
                with_as_many_events_as_there_may_be_a_purge_moves_the_last_one;
            streams: a_stream_is_found_by_name_and_id_and_is_there_after_a_reopen,
                a_name_is_taken_once,
                an_ocid_is_taken_once,
                a_stream_grows_and_never_shrinks,
                events_say_when_with_the_tails_of_that_moment,
                a_change_needs_the_revision_that_is_there,
                a_stream_made_again_is_another_one,
                changes_of_streams_can_be_watched,
                a_stream_with_open_records_is_removed_only_with_them;
            state: values_are_set_found_listed_and_removed,
                revisions_guard_a_value,
                values_of_the_greatest_size_are_kept,
                watchers_hear_of_their_prefix_alone,
                each_kind_keeps_to_its_share,
                a_record_from_outside_refers_to_what_is_there,
                a_value_that_a_record_refers_to_since_does_not_go;
            dedup: a_repeated_commit_is_answered_as_the_first_one_was,
                repetitions_are_seen_between_neighbours,
                a_refused_commit_is_not_remembered,
                an_id_goes_with_its_stream;
            leases: every_partition_is_granted_at_once_and_when_it_is_made;
        }
    };
    (@tests $place:expr; $($module:ident: $($check:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let place = $place;
                $crate::storage::conformance::in_time(
                    $crate::storage::conformance::$module::$check(&place),
                )
                .await;
            }
        )+)+
    };
}

pub(crate) use suite;

/// The deadline of everything that a check waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Fails a check that hangs.
pub(crate) async fn in_time<T>(check: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(DEADLINE, check).await;
    ended.expect("the check did not end in time")
}

/// Looks every millisecond until `holds` does: for what has no wake-up of its own.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    let looking = async {
        while !holds() {
            look.tick().await;
        }
    };
    let ended = tokio::time::timeout(DEADLINE / 2, looking).await;
    assert!(ended.is_ok(), "never seen: {what}");
}

/// Closes an engine and opens it again, twice: what the first opening found, the second one finds as the first has left
/// it. Everything is as before.
async fn reopened(mut engine: Arc<dyn Engine>, place: &dyn EngineHome) -> Arc<dyn Engine> {
    engine.close().await;
    let before = Content::of(engine.as_ref()).await;
    for when in ["after a reopen", "after another reopen"] {
        engine.close().await;
        assert_eq!(Arc::strong_count(&engine), 1, "someone else holds it");
        drop(engine);
        engine = place.open();
        before.assert_same(&Content::of(engine.as_ref()).await, when);
    }
    engine
}

/// Makes a stream.
pub(crate) async fn make(engine: &dyn Engine, name: &str, partitions: u16) -> Arc<Stream> {
    let config = StreamConfig::default();
    engine
        .create_stream(stream_name(name), partitions, config)
        .await
        .unwrap()
}

/// Makes a stream of one partition and returns that.
async fn one_partition(engine: &dyn Engine) -> PartitionId {
    part(make(engine, "src", 1).await.as_ref(), 0)
}

/// Returns a name.
pub(crate) fn stream_name(name: &str) -> StreamName {
    name.parse().unwrap()
}

/// Returns a partition of a stream.
pub(crate) fn part(stream: &Stream, partition: u16) -> PartitionId {
    PartitionId {
        stream: stream.id,
        partition: Partition(partition),
    }
}

/// Returns a record without key and headers.
pub(crate) fn record(value: impl Into<Bytes>) -> Record {
    Record {
        key: Bytes::new(),
        value: value.into(),
        headers: HeadersBuilder::default().build(),
    }
}

/// Returns an append of accepted records.
pub(crate) fn append(of: PartitionId, records: Vec<Record>) -> Append {
    Append {
        of,
        records,
        kind: AppendKind::Accepted,
        refers: Vec::new(),
    }
}

/// Returns an append of `count` small records whose values are their numbers.
fn numbered(of: PartitionId, numbers: std::ops::Range<u64>) -> Append {
    append(of, numbers.map(|n| record(n.to_string())).collect())
}

/// Returns an end.
pub(crate) fn settle(of: PartitionId, offset: u64, end: NewSettlement) -> Settle {
    Settle {
        of,
        offset: Offset(offset),
        end,
        attempts: 1,
        status: Some(200),
        epoch: Epoch(1),
    }
}

/// Returns a change of a value.
pub(crate) fn change(key: &str, value: Option<&'static str>, expected: Option<u64>) -> StateChange {
    StateChange {
        key: key.into(),
        value: value.map(Bytes::from),
        expected,
    }
}

impl From<Append> for Commit {
    fn from(append: Append) -> Self {
        Self {
            appends: vec![append],
            ..Self::default()
        }
    }
}

impl From<Vec<Settle>> for Commit {
    fn from(settles: Vec<Settle>) -> Self {
        Self {
            settles,
            ..Self::default()
        }
    }
}

impl From<StateChange> for Commit {
    fn from(change: StateChange) -> Self {
        Self {
            state: vec![change],
            ..Self::default()
        }
    }
}

/// Commits, which goes well.
pub(crate) async fn stored(engine: &dyn Engine, commit: impl Into<Commit>) -> Committed {
    engine.commit(commit.into()).await.unwrap()
}

/// Commits, which is refused.
async fn refused(engine: &dyn Engine, commit: impl Into<Commit>) -> CommitError {
    engine.commit(commit.into()).await.unwrap_err()
}
