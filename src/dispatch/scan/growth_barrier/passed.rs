//! Progress of partitions, counted in events of their stream. Pure, but for [`Progress`], through which owners publish
//! it.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use crate::dispatch::{job::Lane, target_id::TargetId};
use crate::model::ids::PartitionId;

/// The published progress of all owners. Clones share it. Its size is bounded by the number of lagging targets and
/// lanes. It holds no entry for streams that have never grown.
#[derive(Clone, Debug, Default)]
pub(in crate::dispatch) struct Progress(watch::Sender<All>);

/// Progress by partition.
pub(super) type All = HashMap<PartitionId, Arc<Passed>>;

/// How many events of its stream a partition is past: all of its records from before an event are queued or settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dispatch) struct Passed {
    /// For all targets and lanes not named below.
    scanner: usize,
    /// Targets that are past fewer of them.
    targets: HashMap<TargetId, usize>,
    /// Lanes that are past fewer of them.
    lanes: HashMap<Lane, usize>,
    /// Events that every reader is past.
    least: usize,
}

impl Passed {
    /// From the events that the scanner, each lagging target and each lagging lane are past.
    pub(in crate::dispatch) fn new(
        scanner: usize,
        targets: impl Iterator<Item = (TargetId, usize)>,
        lanes: impl Iterator<Item = (Lane, usize)>,
    ) -> Self {
        let targets: HashMap<_, _> = targets.filter(|(_, passed)| *passed < scanner).collect();
        let lanes: HashMap<_, _> = lanes.filter(|(_, passed)| *passed < scanner).collect();
        let lagging = targets.values().chain(lanes.values());
        let least = lagging.copied().min().unwrap_or(scanner);
        Self {
            scanner,
            targets,
            lanes,
            least,
        }
    }

    /// Returns how many events every reader is past.
    pub(super) fn least(&self) -> usize {
        self.least
    }

    /// Returns whether a target is past an event, apart from its lagging lanes.
    pub(super) fn has_target(&self, event: usize, origin: &TargetId) -> bool {
        event < *self.targets.get(origin).unwrap_or(&self.scanner)
    }

    /// Returns whether a lane is past an event; true for a lane that is not lagging.
    pub(super) fn has_lane(&self, event: usize, lane: Lane) -> bool {
        self.lanes.get(&lane).is_none_or(|passed| event < *passed)
    }
}

impl Progress {
    /// Returns a receiver of all progress, with a first change to read at once.
    pub(super) fn follow(&self) -> watch::Receiver<All> {
        let mut all = self.0.subscribe();
        all.mark_changed();
        all
    }

    pub(super) fn show(&self, of: PartitionId, passed: Arc<Passed>) {
        self.0.send_modify(|all| drop(all.insert(of, passed)));
    }

    /// Withdraws the progress that an owner published, unless another owner has published for the partition since.
    pub(super) fn withdraw(&self, of: PartitionId, shown: &Arc<Passed>) {
        self.0.send_if_modified(|all| {
            let is_last = all.get(&of).is_some_and(|last| Arc::ptr_eq(last, shown));
            if is_last {
                all.remove(&of);
            }
            is_last
        });
    }
}
