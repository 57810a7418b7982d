//! Counts open records by stream, target and cause.
//!
//! The log knows which records are open, but not their targets. So the census reads each open record once, and keeps its
//! target, cause and times while it is open: 32 bytes a record. A count gets the open offsets from the log, drops settled
//! records and reads new ones. Its cost depends on the number of open records, not on the length of streams. Purge, trim
//! and a stream that is made again need no special case.
//!
//! Bounds: the census keeps [`KNOWN_LEN_MAX`] records, error streams first. A count reads for [`READ_TIME`], but at least
//! [`READ_LEN_MIN`] records; the next count continues. A count that meets a bound says that it is not complete.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::yield_now;

use crate::{
    dispatch::{Cause, TargetId, outcome::error_record},
    model::{
        ids::{Incarnation, Offset, PartitionId, StreamName},
        record::{Record, StoredRecord, header},
    },
    runtime::clock::Timestamp,
    storage::{Engine, ReadError, Stream},
};

/// Open records that the census keeps: 8 MiB.
const KNOWN_LEN_MAX: usize = 1 << 18;
/// Pairs of target and cause that are counted separately. Records of further targets are counted together.
const KINDS_LEN_MAX: usize = 4_096;
/// How long a count reads.
const READ_TIME: Duration = Duration::from_millis(250);
/// Records that a count reads at least, also on a slow machine.
const READ_LEN_MIN: usize = 1_000;
/// Bytes of one read of the log.
const READ_BYTES: usize = 1 << 20;
/// Open offsets that the log returns at once. More would make its writer wait.
const STEP_LEN: usize = 16_384;
/// Failed reads after which a count leaves a partition.
const FAILURES_MAX: usize = 8;
/// Groups that get a reason.
const REASONS_LEN_MAX: usize = 100;

/// The known open records, kept from one count to the next.
#[derive(Debug)]
pub(super) struct Census {
    parts: HashMap<PartitionId, Part>,
    known_len_max: usize,
    kinds: HashSet<Arc<Kind>>,
    /// Reasons of the newest record of each group, by partition and offset.
    reasons: HashMap<(PartitionId, Offset), Option<Arc<str>>>,
    /// Records that the last count read.
    #[cfg(test)]
    pub(super) read_len: usize,
}

impl Default for Census {
    fn default() -> Self {
        Self::new(KNOWN_LEN_MAX)
    }
}

#[derive(Debug)]
struct Part {
    life: Incarnation,
    /// By offset.
    known: Vec<Known>,
}

/// An open record.
#[derive(Clone, Debug)]
struct Known {
    offset: Offset,
    /// Time of its first failure; without one, the time when it was stored.
    since: Timestamp,
    /// When it was stored.
    time: Timestamp,
    kind: Arc<Kind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    aim: Aim,
    cause: Option<Cause>,
}

/// The target of open records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// This target.
    Target(TargetId),
    /// None: the record names no target that can be called.
    Nowhere,
    /// One of the targets that are counted together.
    Others,
}

/// Open records of one stream with the same target and cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The stream.
    pub stream: Arc<Stream>,
    /// The stream is the source stream: its records wait for dispatch, not for a retry.
    pub is_source: bool,
    /// Their target.
    pub aim: Aim,
    /// Cause of their failure. A record of the source stream has one after a failed call.
    pub cause: Option<Cause>,
    /// How many.
    pub len: u64,
    /// Earliest first call of these records, retries included. Without a call, the time when the first one was stored.
    pub first: Timestamp,
    /// When the last one was stored.
    pub last: Timestamp,
    /// Partition and offset of the last one.
    pub newest: (PartitionId, Offset),
    /// Reason of the last one in a sentence. It may quote the target.
    pub reason: Option<Arc<str>>,
}

/// The result of a count.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The groups: those of error streams first, the largest first.
    pub groups: Vec<Group>,
    /// Records in them.
    pub looked_at: u64,
    /// The groups have all open records.
    pub is_complete: bool,
    /// When the first counted open record of each partition was stored.
    pub oldest: HashMap<PartitionId, Timestamp>,
}

/// Facts that dispatch knows of records.
pub(super) struct Dispatch<'a> {
    /// The source stream.
    pub(super) source: &'a StreamName,
    /// Returns the target of a record.
    pub(super) target_of: &'a (dyn Fn(&Record) -> Option<TargetId> + Send + Sync),
    /// Cause of the last call of each record of the source stream that waits for another call.
    pub(super) waiting: HashMap<(PartitionId, Offset), Cause>,
}

/// The reads of one count.
struct Budget {
    began: Instant,
    read_len: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.read_len >= READ_LEN_MIN && self.began.elapsed() >= READ_TIME
    }
}

impl Census {
    /// Makes a census that keeps at most `known_len_max` records.
    pub(super) fn new(known_len_max: usize) -> Self {
        Self {
            parts: HashMap::new(),
            known_len_max,
            kinds: HashSet::new(),
            reasons: HashMap::new(),
            #[cfg(test)]
            read_len: 0,
        }
    }

    /// Counts the open records of all streams.
    pub(super) async fn count(&mut self, engine: &dyn Engine, dispatch: &Dispatch<'_>) -> Counted {
        let mut streams = engine.streams();
        // The source stream comes last: its backlog must not hide records that need an operator.
        streams.sort_by_key(|stream| stream.name == *dispatch.source);
        let lives = streams.iter().flat_map(|stream| {
            stream
                .all_partitions()
                .map(move |of| (of, stream.incarnation))
        });
        let lives: HashMap<_, _> = lives.collect();
        self.parts
            .retain(|of, part| lives.get(of) == Some(&part.life));
        let mut budget = Budget {
            began: Instant::now(),
            read_len: 0,
        };
        let (mut room, mut is_complete) = (self.known_len_max, true);
        for stream in &streams {
            for of in stream.all_partitions() {
                let before = self.parts.remove(&of);
                let before = before.map_or_else(Vec::new, |part| part.known);
                // A stream that was just deleted has no open records.
                let Ok(mut sifted) = sift(engine, of, before, room).await else {
                    continue;
                };
                is_complete &= sifted.is_whole;
                is_complete &= self
                    .read(engine, of, &mut sifted, &mut budget, dispatch.target_of)
                    .await;
                room -= sifted.known.len();
                let part = Part {
                    life: stream.incarnation,
                    known: sifted.known,
                };
                self.parts.insert(of, part);
            }
        }
        #[cfg(test)]
        {
            self.read_len = budget.read_len;
        }
        let mut counted = self.counted(&streams, dispatch).await;
        counted.is_complete = is_complete;
        self.kinds.retain(|kind| Arc::strong_count(kind) > 1);
        self.add_reasons(engine, &mut counted.groups).await;
        counted
    }

    /// Reads the unknown open records; returns whether it has read all of them.
    async fn read(
        &mut self,
        engine: &dyn Engine,
        of: PartitionId,
        sifted: &mut Sifted,
        budget: &mut Budget,
        target_of: &(dyn Fn(&Record) -> Option<TargetId> + Send + Sync),
    ) -> bool {
        let Sifted { known, unknown, .. } = sifted;
        let mut left = unknown.drain(..).peekable();
        let (known_len, mut failures) = (known.len(), 0);
        while let Some(offset) = left.next() {
            if budget.is_spent() || failures == FAILURES_MAX {
                failures += 1;
                break;
            }
            // If the next offset is not open, read this record only.
            let alone = left.peek() != Some(&offset.next());
            let bytes = if alone { 1 } else { READ_BYTES };
            let page = match engine.read(of, offset, bytes).await {
                Ok(page) => page,
                // Retention has just removed it.
                Err(ReadError::Trimmed { .. } | ReadError::PartitionUnknown(_)) => continue,
                Err(ReadError::Damaged(_) | ReadError::Io(_)) => {
                    failures += 1;
                    continue;
                }
            };
            for record in &page.records {
                while left.next_if(|next| *next < record.offset).is_some() {}
                let is_wanted = record.offset == offset
                    || left.next_if(|next| *next == record.offset).is_some();
                if is_wanted {
                    budget.read_len += 1;
                    known.push(self.known(record, target_of));
                }
            }
            // The page skips lost records, which are settled.
            while left.next_if(|next| *next < page.next).is_some() {}
            yield_now().await;
        }
        drop(left);
        if known.len() > known_len {
            known.sort_unstable_by_key(|known| known.offset);
        }
        failures == 0
    }

    fn known(
        &mut self,
        stored: &StoredRecord,
        target_of: &(dyn Fn(&Record) -> Option<TargetId> + Send + Sync),
    ) -> Known {
        let kind = Kind {
            aim: target_of(&stored.record).map_or(Aim::Nowhere, Aim::Target),
            cause: error_record::cause(&stored.record),
        };
        let first = stored.record.headers.get(header::FIRST_ATTEMPT_AT);
        let first = first.and_then(Timestamp::parse).into_iter();
        Known {
            offset: stored.offset,
            since: first.fold(stored.time, Ord::min),
            time: stored.time,
            kind: self.shared(kind),
        }
    }

    /// Returns the shared copy of a kind.
    fn shared(&mut self, kind: Kind) -> Arc<Kind> {
        if let Some(shared) = self.kinds.get(&kind) {
            return shared.clone();
        }
        let is_other = matches!(kind.aim, Aim::Target(_)) && self.kinds.len() >= KINDS_LEN_MAX;
        if is_other {
            return self.shared(Kind {
                aim: Aim::Others,
                ..kind
            });
        }
        let shared = Arc::new(kind);
        self.kinds.insert(shared.clone());
        shared
    }

    /// Adds up the known records.
    async fn counted(&self, streams: &[Arc<Stream>], dispatch: &Dispatch<'_>) -> Counted {
        let mut counted = Counted::default();
        for stream in streams {
            let is_source = stream.name == *dispatch.source;
            // Each kind has one copy, so its address is a key that is cheaper to hash than a target.
            let mut groups: HashMap<(usize, Option<Cause>), Group> = HashMap::new();
            for of in stream.all_partitions() {
                let known = self.parts.get(&of).map_or(&[][..], |part| &part.known);
                counted.looked_at += known.len() as u64;
                let first = known.first().map(|first| (of, first.since));
                counted.oldest.extend(first);
                for (at, one) in known.iter().enumerate() {
                    if at % STEP_LEN == STEP_LEN - 1 {
                        yield_now().await;
                    }
                    let Known {
                        offset,
                        since,
                        time,
                        kind,
                    } = one;
                    let cause = match is_source {
                        true => dispatch.waiting.get(&(of, *offset)).copied(),
                        false => kind.cause,
                    };
                    let group = groups
                        .entry((Arc::as_ptr(kind).addr(), cause))
                        .or_insert_with(|| Group {
                            stream: stream.clone(),
                            is_source,
                            aim: kind.aim.clone(),
                            cause,
                            len: 0,
                            first: *since,
                            last: *time,
                            newest: (of, *offset),
                            reason: None,
                        });
                    group.len += 1;
                    group.first = group.first.min(*since);
                    if *time >= group.last {
                        (group.last, group.newest) = (*time, (of, *offset));
                    }
                }
            }
            counted.groups.extend(groups.into_values());
        }
        counted.groups.sort_unstable_by(|a, b| {
            let rank = |group: &Group| (group.is_source, u64::MAX - group.len);
            let by_name = || a.stream.name.cmp(&b.stream.name);
            rank(a)
                .cmp(&rank(b))
                .then_with(by_name)
                .then_with(|| a.newest.cmp(&b.newest))
        });
        counted
    }

    /// Reads the missing reasons of the first groups from their last records.
    async fn add_reasons(&mut self, engine: &dyn Engine, groups: &mut [Group]) {
        let mut reasons = HashMap::new();
        let failed = groups.iter_mut().filter(|group| !group.is_source);
        for group in failed.take(REASONS_LEN_MAX) {
            let (of, offset) = group.newest;
            let reason = match self.reasons.remove(&group.newest) {
                Some(known) => known,
                None => match engine.read(of, offset, 1).await {
                    Ok(page) => page
                        .records
                        .first()
                        .filter(|first| first.offset == offset)
                        .and_then(|first| first.record.headers.get(header::CAUSE_REASON))
                        .map(Arc::from),
                    Err(_) => continue,
                },
            };
            group.reason.clone_from(&reason);
            reasons.insert(group.newest, reason);
        }
        self.reasons = reasons;
    }
}

/// The open records of a partition.
struct Sifted {
    known: Vec<Known>,
    /// Offsets to read.
    unknown: Vec<Offset>,
    /// The partition has no other open records.
    is_whole: bool,
}

/// Splits the open records of a partition into known and unknown ones, at most `room`.
async fn sift(
    engine: &dyn Engine,
    of: PartitionId,
    before: Vec<Known>,
    room: usize,
) -> Result<Sifted, ReadError> {
    let mut before = before.into_iter().peekable();
    let mut sifted = Sifted {
        known: Vec::new(),
        unknown: Vec::new(),
        is_whole: false,
    };
    let mut from = Offset(0);
    loop {
        let open = engine.open_offsets(of, from, STEP_LEN)?;
        let Some(last) = open.last() else {
            sifted.is_whole = true;
            return Ok(sifted);
        };
        from = last.next();
        for offset in open {
            if sifted.known.len() + sifted.unknown.len() >= room {
                return Ok(sifted);
            }
            while before.next_if(|known| known.offset < offset).is_some() {}
            match before.next_if(|known| known.offset == offset) {
                Some(known) => sifted.known.push(known),
                None => sifted.unknown.push(offset),
            }
        }
        yield_now().await;
    }
}
