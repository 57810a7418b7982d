//! How far the dispatch of a partition has come, in events of its stream. Pure, but for the place where owners show it.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use crate::dispatch::{queue::lane::Lane, target_id::TargetId};
use crate::model::ids::PartitionId;

/// What every owner shows of its partition to the others. Clones share it. It is bounded by who may be lagging, and holds
/// nothing about streams that have never grown.
#[derive(Clone, Debug, Default)]
pub(in crate::dispatch) struct Progress(watch::Sender<All>);

/// What all show.
pub(super) type All = HashMap<PartitionId, Arc<Passed>>;

/// How many events of its stream a partition is past: all of its records from before them are on a queue, or have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dispatch) struct Passed {
    /// As seen by whoever is not named below.
    scanner: usize,
    /// Targets that are past fewer of them.
    targets: HashMap<TargetId, usize>,
    /// Lanes that are.
    lanes: HashMap<Lane, usize>,
    /// What all are past.
    least: usize,
}

impl Passed {
    /// From the events that the scanner is past, each target that is lagging, and each lane that is.
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

    /// Returns how many events everyone is past.
    pub(super) fn least(&self) -> usize {
        self.least
    }

    /// Returns whether a target as a whole is past an event, but for lanes that are lagging.
    pub(super) fn has_target(&self, event: usize, origin: &TargetId) -> bool {
        event < *self.targets.get(origin).unwrap_or(&self.scanner)
    }

    /// Returns whether a lane is, as far as it has a cursor of its own.
    pub(super) fn has_lane(&self, event: usize, lane: Lane) -> bool {
        self.lanes.get(&lane).is_none_or(|passed| event < *passed)
    }
}

impl Progress {
    /// Follows all of it; the first look is due at once.
    pub(super) fn follow(&self) -> watch::Receiver<All> {
        let mut all = self.0.subscribe();
        all.mark_changed();
        all
    }

    pub(super) fn show(&self, of: PartitionId, passed: Arc<Passed>) {
        self.0.send_modify(|all| drop(all.insert(of, passed)));
    }

    /// Takes back what an owner has shown, if it was the last one to show anything of its partition.
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
