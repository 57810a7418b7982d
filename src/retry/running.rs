//! Claims on partitions by running retries and purges, one for each partition.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    model::ids::{PartitionId, StreamName},
    runtime::clock::Timestamp,
};

/// A partition that a retry or a purge has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The stream.
    pub stream: StreamName,
    /// Its partition.
    pub of: PartitionId,
    /// What claims it.
    pub work: Work,
    /// When that began; for a loop of retries, when its present call began.
    pub since: Timestamp,
    /// The user of the request, or the address of an anonymous caller.
    pub by: Option<Arc<str>>,
}

/// The kind of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A retry.
    Retry,
    /// A purge.
    Purge,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, partition, since) = (&self.stream, self.of.partition, self.since);
        let by = match &self.by {
            Some(by) => format!(", by {by}"),
            None => String::new(),
        };
        match self.work {
            // Says "present call", because a loop of calls may have begun long before.
            Work::Retry => write!(
                f,
                "a retry of {stream}, partition {partition}, is running{by}; its present call began at {since}"
            ),
            Work::Purge => write!(
                f,
                "a purge of {stream}, partition {partition}, has been running since {since}{by}"
            ),
        }
    }
}

/// A running retry of a partition, with the progress of its present call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningRetry {
    /// The stream.
    pub stream: StreamName,
    /// Its partition.
    pub of: PartitionId,
    /// When its present call began; a loop makes one call after the other.
    pub since: Timestamp,
    /// The user of the request, or the address of an anonymous caller.
    pub by: Option<Arc<str>>,
    /// Records that the call has settled in this partition.
    pub done: u64,
    /// Open records of the partition when the call reached it; all records from its start on in a replay or with
    /// `redeliver`. A filter, a group or a bound may leave some out. `None` before the call reaches the partition.
    pub total: Option<u64>,
}

/// All claimed partitions.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<PartitionId, Entry>>);

#[derive(Debug)]
struct Entry {
    taken: Taken,
    done: u64,
    total: Option<u64>,
}

impl Running {
    /// Claims partitions of a stream, or returns the first one that is claimed already.
    pub(super) fn take(
        self: &Arc<Self>,
        partitions: &[PartitionId],
        taken: impl Fn(PartitionId) -> Taken,
    ) -> Result<Claim, Taken> {
        let mut all = self.lock();
        if let Some(other) = partitions.iter().find_map(|of| all.get(of)) {
            return Err(other.taken.clone());
        }
        let entry = |of: &PartitionId| Entry {
            taken: taken(*of),
            done: 0,
            total: None,
        };
        all.extend(partitions.iter().map(|of| (*of, entry(of))));
        Ok(Claim {
            running: self.clone(),
            partitions: partitions.to_vec(),
        })
    }

    /// Notes that a retry has reached a partition, and how many records it may call there.
    pub(super) fn comes_to(self: &Arc<Self>, of: PartitionId, total: u64) -> Here {
        if let Some(entry) = self.lock().get_mut(&of) {
            entry.total = Some(total);
        }
        Here {
            running: self.clone(),
            of,
        }
    }

    /// Returns the running retries, by stream and partition.
    pub(super) fn retries(&self) -> Vec<RunningRetry> {
        let retry = |entry: &Entry| RunningRetry {
            stream: entry.taken.stream.clone(),
            of: entry.taken.of,
            since: entry.taken.since,
            by: entry.taken.by.clone(),
            done: entry.done,
            total: entry.total,
        };
        let all = self.lock();
        let retries = all.values().filter(|entry| entry.taken.work == Work::Retry);
        let mut retries: Vec<_> = retries.map(retry).collect();
        drop(all);
        retries.sort_by(|a, b| (&a.stream, a.of.partition).cmp(&(&b.stream, b.of.partition)));
        retries
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partition that a retry has reached.
#[derive(Debug)]
pub(super) struct Here {
    running: Arc<Running>,
    of: PartitionId,
}

impl Here {
    /// Notes that a record is settled.
    pub(super) fn settled(&self) {
        if let Some(entry) = self.running.lock().get_mut(&self.of) {
            entry.done += 1;
        }
    }
}

/// Claimed partitions; free again when the claim is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    running: Arc<Running>,
    partitions: Vec<PartitionId>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.running.lock();
        for of in &self.partitions {
            all.remove(of);
        }
    }
}
