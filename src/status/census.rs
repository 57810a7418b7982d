//! Open records by stream, target and cause.
//!
//! The log keeps which records have no end, and not where they go. So each open record is read once, and its target, cause
//! and times stay here for as long as it is open: 32 bytes a record. A count asks the log which records are open, drops
//! those that have ended, and reads those that are new. It costs as much as there are open records, however long the
//! streams are, and a purge, a trim or a stream that is made again needs nothing of its own.
//!
//! Bounds: [`KNOWN_LEN_MAX`] records are known, error streams first. A count reads for [`READ_TIME`], but at least
//! [`READ_LEN_MIN`] records; the next one goes on. Where either bound holds, the count says that it is not complete.

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

/// Open records that are known, 8 MiB of them.
const KNOWN_LEN_MAX: usize = 1 << 18;
/// Targets and causes that are told apart; records of further targets are counted together.
const KINDS_LEN_MAX: usize = 4_096;
/// How long a count reads.
const READ_TIME: Duration = Duration::from_millis(250);
/// Records that a count reads at least, however slow this machine is.
const READ_LEN_MIN: usize = 1_000;
/// Asked of the log at a time.
const READ_BYTES: usize = 1 << 20;
/// Open records that the log names at a time, so that its writer does not wait.
const STEP_LEN: usize = 16_384;
/// Records of a partition that a count tries to read in vain.
const FAILURES_MAX: usize = 8;
/// Groups whose reason is read.
const REASONS_LEN_MAX: usize = 100;

/// The open records that are known, from one count to the next.
#[derive(Debug)]
pub(super) struct Census {
    parts: HashMap<PartitionId, Part>,
    known_len_max: usize,
    kinds: HashSet<Arc<Kind>>,
    /// Of the newest record of each group, by its place.
    reasons: HashMap<(PartitionId, Offset), Option<Arc<str>>>,
    /// Records that the last count has read.
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
    /// When it failed first; of a record that has not, when it was stored.
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

/// Where a record is to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// To this target.
    Target(TargetId),
    /// The record names no target that can be called.
    Nowhere,
    /// To one of those that are not told apart.
    Others,
}

/// Open records of one stream with the same target and cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The stream.
    pub stream: Arc<Stream>,
    /// It is the source stream: the records wait for their dispatch, and for no retry.
    pub is_source: bool,
    /// Where they are to go.
    pub aim: Aim,
    /// Why they failed. A record of the source stream has a cause once it was called in vain.
    pub cause: Option<Cause>,
    /// How many.
    pub len: u64,
    /// When the first of them was called first, however often a retry has moved it since; of records that were not called,
    /// when the first came into the stream.
    pub first: Timestamp,
    /// When the last came into the stream.
    pub last: Timestamp,
    /// Where the last one is.
    pub newest: (PartitionId, Offset),
    /// The last one's cause in a sentence. It may tell what the target said.
    pub reason: Option<Arc<str>>,
}

/// The result of a count.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The groups: those of error streams first, the largest first.
    pub groups: Vec<Group>,
    /// Records in them.
    pub looked_at: u64,
    /// These are all open records.
    pub is_complete: bool,
    /// When the first open record of each partition was stored, of those that were looked at.
    pub oldest: HashMap<PartitionId, Timestamp>,
}

/// Facts about records that dispatch knows.
pub(super) struct Dispatch<'a> {
    /// The stream that is dispatched.
    pub(super) source: &'a StreamName,
    /// Returns the target of a record.
    pub(super) target_of: &'a (dyn Fn(&Record) -> Option<TargetId> + Send + Sync),
    /// The last cause of each record of the source stream that was called in vain and will be called again.
    pub(super) waiting: HashMap<(PartitionId, Offset), Cause>,
}

/// How much a count still reads.
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
    /// One that knows no record yet, and so many at most.
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
        // A backlog must not hide what waits for a person.
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
                // A stream that goes in between has no open records.
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

    /// Reads open records that are not known; returns whether these were all of them.
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
            // A record that stands alone among others is read alone.
            let alone = left.peek() != Some(&offset.next());
            let bytes = if alone { 1 } else { READ_BYTES };
            let page = match engine.read(of, offset, bytes).await {
                Ok(page) => page,
                // Retention was here just now.
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
            // The page passes over lost records; they have ended.
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

    /// Returns the one copy of a kind.
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

    /// Adds up what is known.
    async fn counted(&self, streams: &[Arc<Stream>], dispatch: &Dispatch<'_>) -> Counted {
        let mut counted = Counted::default();
        for stream in streams {
            let is_source = stream.name == *dispatch.source;
            // There is one copy of each kind, so its address stands for it: to hash a target takes longer.
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

    /// Reads why the last record of each of the first groups failed, unless that is known.
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
    /// Those that have to be read, by offset.
    unknown: Vec<Offset>,
    /// There are no others.
    is_whole: bool,
}

/// Parts the open records of a partition into those that are known and those that are not, `room` at most.
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
