//! Which partitions are taken: by a retry that is under way, or by a purge that keeps retries away.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock::Timestamp,
    place::{PartitionId, StreamName},
};

/// A partition that a retry or a purge has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The stream.
    pub stream: StreamName,
    /// Its partition.
    pub of: PartitionId,
    /// What is done there.
    pub work: Work,
    /// When that began.
    pub since: Timestamp,
    /// The user who asked for it, or the address of a caller without a name.
    pub by: Option<Arc<str>>,
}

/// What a partition is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A retry.
    Retry,
    /// A purge.
    Purge,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Retry => "retry",
            Work::Purge => "purge",
        };
        let (stream, partition, since) = (&self.stream, self.of.partition, self.since);
        write!(
            f,
            "a {work} of {stream}, partition {partition}, has been running since {since}"
        )?;
        match &self.by {
            Some(by) => write!(f, ", by {by}"),
            None => Ok(()),
        }
    }
}

/// All partitions that are taken.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<PartitionId, Taken>>);

impl Running {
    /// Takes partitions of a stream, or returns the first one that is taken already.
    pub(super) fn take(
        self: &Arc<Self>,
        partitions: &[PartitionId],
        taken: impl Fn(PartitionId) -> Taken,
    ) -> Result<Claim, Taken> {
        let mut all = self.lock();
        if let Some(other) = partitions.iter().find_map(|of| all.get(of)) {
            return Err(other.clone());
        }
        all.extend(partitions.iter().map(|of| (*of, taken(*of))));
        Ok(Claim {
            running: self.clone(),
            partitions: partitions.to_vec(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionId, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Partitions that are taken; they are free again when the claim is dropped.
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
