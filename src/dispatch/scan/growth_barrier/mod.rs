//! Growth barriers keep the order of a key when its stream gets more partitions.
//!
//! With more partitions a key may move to another one. Its first records there must not overtake its open records in
//! the old partition. So they wait until the old partition is past the tail that it had at the growth:
//!
//! ```text
//! partition 0   . . . a a a a | . . .         the growth to two partitions, a barrier
//!                           ^ tail of then
//! partition 1                 | a a a         wait until all `a` on the left are on the queue of their target
//! ```
//!
//! The older records need only be queued, because a lane keeps the order of its queue. So a record waits for its own
//! target only, or for its lane only if the target is not lagging in the old partition. A target that is lagging in the
//! old partition is lagging in the new one too.
//!
//! A key may have had records before several growths and none in between, so a record is checked against each earlier
//! growth. It waits for records from before that growth, which wait for earlier growths only. So two partitions never
//! wait for each other.
//!
//! Each owner publishes in [`Progress`] how many events of the stream it is past. It publishes only when a reader comes
//! past a barrier, and no more once all are past the last one. Progress is not stored: after a restart the owners begin
//! at their low marks or checkpoints and count anew. Records do not wait for the sweep, because that would be a wait
//! for the slowest target. If a checkpoint is wrong, order is lost within one partition as well.
//!
//! A partition without a running owner is past no event.

mod passed;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::Arc,
};

use tokio::sync::watch;

use self::passed::All;
pub(in crate::dispatch) use self::passed::{Passed, Progress};
use super::lagging::Lagging;
use crate::dispatch::{job::Lane, target_id::TargetId};
use crate::{
    log::Streams,
    model::ids::{Offset, Partition, PartitionId},
    storage::{ControlEventKind, Engine, Stream},
};

/// The barriers of a partition: what its records wait for, and the progress that it publishes to others.
#[derive(Debug)]
pub(in crate::dispatch) struct GrowthBarrier {
    of: PartitionId,
    engine: Arc<dyn Engine>,
    /// Counts up when the stream may have grown.
    changed: watch::Receiver<u64>,
    /// The stream as last seen; events are numbered by their index in it.
    stream: Option<Arc<Stream>>,
    /// Growths that another partition is not wholly past, in order.
    open: VecDeque<Growth>,
    progress: Progress,
    all: watch::Receiver<All>,
    /// Progress of the partitions of the stream, as last read while a growth was open.
    passed: HashMap<Partition, Arc<Passed>>,
    shown: Option<Arc<Passed>>,
    /// The published progress stays the same until the stream changes.
    is_past_all: bool,
}

#[derive(Clone, Copy, Debug)]
struct Growth {
    event: usize,
    /// Partitions before the growth.
    partitions: u16,
}

/// The barrier that a record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Wait {
    /// The growth.
    event: usize,
    /// The partition that the record's key had before.
    before: Partition,
    /// Its lane.
    pub(in crate::dispatch) lane: Lane,
    /// Only the lane is lagging there; else its whole target is.
    pub(in crate::dispatch) for_lane: bool,
}

impl GrowthBarrier {
    /// The barriers of a partition. The first call of [`GrowthBarrier::renew`] reads the stream.
    pub(in crate::dispatch) fn new(
        streams: &Streams,
        progress: &Progress,
        of: PartitionId,
    ) -> Self {
        let engine = streams.engine().clone();
        let mut changed = engine.streams_changed();
        changed.mark_changed();
        Self {
            of,
            changed,
            engine,
            stream: None,
            open: VecDeque::new(),
            all: progress.follow(),
            progress: progress.clone(),
            passed: HashMap::new(),
            shown: None,
            is_past_all: true,
        }
    }

    /// Reads changes of the stream and of other partitions. Call it after a page was read and before its records are
    /// handled, so that every growth before one of them is known.
    pub(in crate::dispatch) fn renew(&mut self) {
        if self.changed.has_changed().unwrap_or(false) {
            self.changed.mark_unchanged();
            if let Some(stream) = self.engine.stream_by_id(self.of.stream) {
                self.take(stream);
            }
        }
        if !self.open.is_empty() && self.all.has_changed().unwrap_or(false) {
            let all = self.all.borrow_and_update();
            let own = all.iter().filter(|(of, _)| of.stream == self.of.stream);
            self.passed = own.map(|(of, p)| (of.partition, p.clone())).collect();
            drop(all);
            while self
                .open
                .front()
                .is_some_and(|first| self.is_closed(*first))
            {
                self.open.pop_front();
            }
        }
    }

    fn take(&mut self, stream: Arc<Stream>) {
        let known = self.stream.as_ref().map_or(0, |known| known.events.len());
        let mut partitions = 0;
        for (event, happened) in stream.events.iter().enumerate() {
            let now = match happened.kind {
                ControlEventKind::Created { partitions } => partitions,
                ControlEventKind::Grown { partitions: now } => {
                    if event >= known {
                        self.open.push_back(Growth { event, partitions });
                        self.is_past_all = false;
                    }
                    now
                }
                ControlEventKind::Purged => partitions,
            };
            partitions = now;
        }
        self.stream = Some(stream);
    }

    /// Returns whether no record can have to wait for a growth.
    fn is_closed(&self, growth: Growth) -> bool {
        let mut before = (0..growth.partitions).map(Partition);
        before.all(|before| {
            let passed = self.passed.get(&before);
            before == self.of.partition || passed.is_some_and(|it| it.least() > growth.event)
        })
    }

    /// Returns whether a growth is open, so that records may have to wait.
    pub(in crate::dispatch) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Returns the barrier that a record has to wait for, if it has a lane.
    pub(in crate::dispatch) fn wait_of(
        &self,
        at: Offset,
        key: &[u8],
        origin: &Option<TargetId>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> Option<Wait> {
        if self.open.is_empty() {
            return None;
        }
        let (origin, lane) = (origin.as_ref()?, lane()?);
        let came_before = |growth: &&Growth| self.tail(growth.event) <= at;
        let mut growths = self.open.iter().take_while(came_before);
        growths.find_map(|growth| {
            let before = Streams::partition_of(key, growth.partitions);
            if before == self.of.partition {
                return None;
            }
            let event = growth.event;
            let passed = self.passed.get(&before);
            let for_lane = passed.is_some_and(|it| it.has_target(event, origin));
            let wait = Wait {
                event,
                before,
                lane,
                for_lane,
            };
            (!self.is_over(&wait, origin)).then_some(wait)
        })
    }

    /// Returns whether the wait of a target's record is over.
    pub(in crate::dispatch) fn is_over(&self, wait: &Wait, origin: &TargetId) -> bool {
        self.passed.get(&wait.before).is_some_and(|it| {
            it.has_target(wait.event, origin)
                && (!wait.for_lane || it.has_lane(wait.event, wait.lane))
        })
    }

    /// Publishes the progress of this partition.
    pub(in crate::dispatch) fn show(&mut self, lagging: &Lagging, scanner: Offset) {
        if self.is_past_all {
            return;
        }
        let Some(stream) = &self.stream else { return };
        let passed = lagging.passed(scanner, |at| {
            let events = 0..stream.events.len();
            // Tails only grow from one event to the next.
            events.take_while(|event| self.tail(*event) <= at).count()
        });
        self.is_past_all = passed.least() == stream.events.len();
        if self.shown.as_deref() != Some(&passed) {
            let passed = Arc::new(passed);
            self.progress.show(self.of, passed.clone());
            self.shown = Some(passed);
        }
    }

    /// Withdraws the published progress, because queued records may never be called when the owner stops.
    pub(in crate::dispatch) fn withdraw(&mut self) {
        if let Some(shown) = self.shown.take() {
            self.progress.withdraw(self.of, &shown);
        }
    }

    /// Waits for a change of the stream, and with `waits` for progress of other partitions too.
    pub(in crate::dispatch) async fn news(&mut self, waits: bool) {
        tokio::select! {
            () = next(&mut self.changed) => {}
            () = next(&mut self.all), if waits => {}
        }
    }

    /// The partition's tail at an event; 0 if the partition was added later.
    fn tail(&self, event: usize) -> Offset {
        let events = self.stream.as_ref().map_or(&[][..], |it| &it.events);
        let tails = events.get(event).map(|event| &event.tails);
        let tail = tails.and_then(|tails| tails.get(usize::from(self.of.partition.0)));
        tail.copied().unwrap_or_default()
    }
}

impl Drop for GrowthBarrier {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Waits for a change without marking it as seen.
async fn next<T>(news: &mut watch::Receiver<T>) {
    match news.changed().await {
        Ok(()) => news.mark_changed(),
        // The sender is gone, so no change will come.
        Err(_) => pending().await,
    }
}
