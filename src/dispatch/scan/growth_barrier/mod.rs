//! Growth barriers: order over the growth of a stream.
//!
//! With more partitions a key may go to another one. Its first records there must not overtake those that it still has in
//! the partition from before, so they wait until that one has come past its tail at the growth:
//!
//! ```text
//! partition 0   . . . a a a a | . . .         the growth to two partitions, a barrier
//!                           ^ tail of then
//! partition 1                 | a a a         wait until all `a` on the left are on the queue of their target
//! ```
//!
//! On a queue is enough: there lanes keep the order in which they came. So who waits does so for its own target alone (a
//! target that is lagging in the partition from before is lagging in the new one too), or even for its lane alone, if no
//! more than that lane is lagging there.
//!
//! A key may have had records before several growths and none in between, so a record is looked at for each growth that
//! came before it. It waits for records from before that growth, which themselves wait for earlier growths only: so no two
//! partitions ever wait for each other.
//!
//! What an owner is past it shows to the others in [`Progress`], in events of the stream, so that it has something new to
//! show only when someone comes past a barrier, and nothing at all once everyone is past the last one. Nothing of this is
//! stored: after a restart the owners begin at their low marks, or where their checkpoints say, and see anew. What a checkpoint knows
//! nothing of (the sweep) is not waited for: where a checkpoint is wrong order is lost in one partition as well, and to wait
//! for it would be to wait for the slowest target.
//!
//! A partition whose owner is gone, or has not begun, is past nothing.

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
use crate::dispatch::{queue::lane::Lane, target_id::TargetId};
use crate::{
    log::Streams,
    model::ids::{Offset, Partition, PartitionId},
    storage::{ControlEventKind, Engine, Stream},
};

/// The barriers of a partition, from both sides: what waits in it, and what others wait for.
#[derive(Debug)]
pub(in crate::dispatch) struct GrowthBarrier {
    of: PartitionId,
    engine: Arc<dyn Engine>,
    /// Counts up when the stream may have grown.
    changed: watch::Receiver<u64>,
    /// As it was last seen; its events are numbered as they stand there.
    stream: Option<Arc<Stream>>,
    /// Growths that some other partition is not past as a whole, in order.
    open: VecDeque<Growth>,
    progress: Progress,
    all: watch::Receiver<All>,
    /// What the partitions of the stream are past, when that was last looked at and any growth was open.
    passed: HashMap<Partition, Arc<Passed>>,
    shown: Option<Arc<Passed>>,
    /// Nothing will change in what is shown before the stream does.
    is_past_all: bool,
}

#[derive(Clone, Copy, Debug)]
struct Growth {
    event: usize,
    /// How many partitions there were before.
    partitions: u16,
}

/// What a record waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Wait {
    /// The growth.
    event: usize,
    /// The partition that the record's key had before.
    before: Partition,
    /// Its lane.
    pub(in crate::dispatch) lane: Lane,
    /// The lane is lagging there; if not, its target is as a whole.
    pub(in crate::dispatch) for_lane: bool,
}

impl GrowthBarrier {
    /// That of a partition; [`GrowthBarrier::renew`] looks at the stream for the first time.
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

    /// Takes in what has happened. After a page was read, and before its records are looked at, it makes sure that every
    /// growth is known that came before one of them.
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

    /// Returns whether nobody can have to wait for a growth any more.
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

    /// Returns what a record has to wait for, if it has a lane.
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

    /// Returns whether what a record of a target has waited for has come about.
    pub(in crate::dispatch) fn is_over(&self, wait: &Wait, origin: &TargetId) -> bool {
        self.passed.get(&wait.before).is_some_and(|it| {
            it.has_target(wait.event, origin)
                && (!wait.for_lane || it.has_lane(wait.event, wait.lane))
        })
    }

    /// Shows the others how far this partition has come.
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

    /// Takes back what was shown: what is on queues is not sure to be called any more.
    pub(in crate::dispatch) fn withdraw(&mut self) {
        if let Some(shown) = self.shown.take() {
            self.progress.withdraw(self.of, &shown);
        }
    }

    /// Waits until [`GrowthBarrier::renew`] has something to do; with `waits`, for other partitions too.
    pub(in crate::dispatch) async fn news(&mut self, waits: bool) {
        tokio::select! {
            () = next(&mut self.changed) => {}
            () = next(&mut self.all), if waits => {}
        }
    }

    /// The partition's tail at an event; it had none before there was the partition.
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

/// Waits for a change and leaves it to be seen.
async fn next<T>(news: &mut watch::Receiver<T>) {
    match news.changed().await {
        Ok(()) => news.mark_changed(),
        // Nobody will tell anything any more.
        Err(_) => pending().await,
    }
}
