//! The commits of one frame before they are durable, checked against the books and against each other.
//!
//! A commit is checked as a whole before any part of it is added, so a refused commit leaves no trace. Only the writer sees
//! this data. After a failed write the writer drops it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use crate::{
    model::{
        ids::{Offset, PartitionId},
        record::Record,
    },
    runtime::clock::Timestamp,
    storage::{
        Append, AppendKind, Appended, Commit, CommitError, Committed, Dedup, DedupId,
        NewSettlement, Settle, StateChange,
        shares::{Share, ShareBytes, exceeded, share_of, state_cost},
    },
};

use crate::storage::local::{
    books::Books,
    format::{
        block::{self, NewBlock, Slot},
        ops::{DedupEntry, NewOp, Op, SettleRun, SettlementCode},
    },
    shared::EPOCH,
};

/// Bytes of a stored settlement at most.
const SETTLE_BYTES: usize = 80;

/// The changes of the frame, on top of the books.
#[derive(Debug, Default)]
pub(in crate::storage) struct Pending {
    entries: Vec<NewOp>,
    /// Estimated bytes of the entries.
    bytes: usize,
    /// Time of the last commit.
    last_time: u64,
    partitions: HashMap<Slot, PartitionDelta>,
    state: HashMap<Arc<str>, Value>,
    state_bytes: ShareBytes,
    state_revision: u64,
    dedup: HashMap<(u32, [u8; 16]), DedupEntry>,
    refers: HashSet<Arc<str>>,
    /// When a record last referred to a value, since this engine was opened. Kept from frame to frame. A frame that is not
    /// stored leaves its times here, which only keeps a value longer.
    referred: HashMap<Arc<str>, u64>,
}

/// Revision and cost of a state value; both are 0 for an absent value.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    revision: u64,
    cost: usize,
}

/// Number of removed values that `referred` may hold before they are dropped.
const REFERRED_SLACK_LEN: usize = 1_024;

#[derive(Debug)]
struct PartitionDelta {
    next: u64,
    settled: FrameEnds,
    /// Index of the entry with the block that takes further records.
    block: Option<usize>,
}

/// Settled offsets of one frame: runs without overlap, from first offset to the offset after the last one.
#[derive(Debug, Default)]
struct FrameEnds(BTreeMap<u64, u64>);

impl FrameEnds {
    fn contains(&self, offset: u64) -> bool {
        let before = self.0.range(..=offset).next_back();
        before.is_some_and(|(_, end)| offset < *end)
    }

    fn insert(&mut self, offsets: Range<u64>) {
        self.0.insert(offsets.start, offsets.end);
    }
}

impl Pending {
    /// Starts a frame on top of the books.
    pub(in crate::storage) fn begin(&mut self, books: &Books) {
        self.entries.clear();
        self.bytes = 0;
        self.last_time = books.last_time;
        self.partitions.clear();
        self.state.clear();
        self.state_bytes = books.state_bytes;
        self.state_revision = books.state_revision;
        self.dedup.clear();
        self.refers.clear();
        if self.referred.len() > books.state.len() + REFERRED_SLACK_LEN {
            self.referred.retain(|key, _| books.state.contains_key(key));
        }
    }

    pub(in crate::storage) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the entries of the frame and the time of its last commit.
    pub(in crate::storage) fn take(&mut self) -> (Vec<NewOp>, u64) {
        (std::mem::take(&mut self.entries), self.last_time)
    }

    /// Returns the state values that the frame's records refer to.
    pub(in crate::storage) fn take_refers(&mut self) -> Vec<Arc<str>> {
        self.refers.drain().collect()
    }

    /// Adds a commit, or refuses it as a whole.
    pub(in crate::storage) fn admit(
        &mut self,
        books: &Books,
        commit: Commit,
        now: Timestamp,
    ) -> Result<Committed, CommitError> {
        for append in &commit.appends {
            slot(books, append.of)?;
        }
        if let Some(first) = self.repeated(books, &commit, now) {
            return Ok(first);
        }
        for settle in &commit.settles {
            let run = std::slice::from_ref(settle);
            self.check_run(books, slot(books, settle.of)?, run)?;
        }
        if commit.settles.len() > 1 {
            let mut seen = HashSet::new();
            if let Some(twice) = commit
                .settles
                .iter()
                .find(|f| !seen.insert((f.of, f.offset)))
            {
                return Err(already(twice));
            }
        }
        self.check_state(books, &commit)?;

        let time = self.time(now);
        let mut appended = Vec::with_capacity(commit.appends.len());
        let mut copies = Vec::with_capacity(commit.appends.len());
        for append in commit.appends {
            let slot = slot(books, append.of)?;
            let answer = self.append(books, slot, append, time);
            copies.push((slot, answer.first.0));
            appended.push(answer);
        }
        if let (Some(dedup), Some((slot, _))) = (commit.dedup, copies.first()) {
            self.remember(dedup, slot.0, time, &appended);
        }
        for settle in &commit.settles {
            self.settle(books, slot(books, settle.of)?, (settle, 1), time, &copies)?;
        }
        for change in commit.state {
            self.change_state(books, change);
        }
        Ok(Committed {
            time: Timestamp(time),
            appends: appended,
            repeats: None,
        })
    }

    /// Returns the answer of the earlier commit with the same id.
    fn repeated(&self, books: &Books, commit: &Commit, now: Timestamp) -> Option<Committed> {
        let DedupId(id) = commit.dedup.as_ref()?.id;
        let of = commit.appends.first()?.of;
        let (stream, _) = books.slot(of)?;
        let in_frame = self.dedup.get(&(stream, id));
        let time = now.0.max(self.last_time);
        let entry = in_frame.or_else(|| books.dedup.get(stream, id, time))?;
        Some(entry.committed(of.stream))
    }

    fn remember(&mut self, dedup: Dedup, stream: u32, time: u64, appended: &[Appended]) {
        let place = |append: &Appended| (append.of.partition.0, append.first.0, append.len);
        let entry = DedupEntry {
            id: dedup.id.0,
            stream,
            time,
            places: appended.iter().map(place).collect(),
            reply: dedup.reply,
        };
        self.dedup.insert((stream, entry.id), entry.clone());
        let bytes = entry.stored_len_max();
        self.push(Op::Dedup(entry), bytes);
    }

    /// Adds queued settlements as one commit, and returns an error for each refused one.
    pub(in crate::storage) fn admit_soon(
        &mut self,
        books: &Books,
        settles: &[Settle],
        now: Timestamp,
    ) -> Vec<CommitError> {
        let time = self.time(now);
        let mut refused = Vec::new();
        for run in settles.chunk_by(follows) {
            if self.admit_run(books, run, time).is_ok() {
                continue;
            }
            // At least one settlement of the run is refused, so each is tried alone.
            for settle in run.chunks(1) {
                refused.extend(self.admit_run(books, settle, time).err());
            }
        }
        refused
    }

    /// Adds all of a run, or nothing.
    fn admit_run(&mut self, books: &Books, run: &[Settle], time: u64) -> Result<(), CommitError> {
        let Some(first) = run.first() else {
            return Ok(());
        };
        let slot = slot(books, first.of)?;
        self.check_run(books, slot, run)?;
        self.settle(books, slot, (first, run.len() as u64), time, &[])
    }

    fn time(&mut self, now: Timestamp) -> u64 {
        self.last_time = now.0.max(self.last_time.saturating_add(1));
        self.last_time
    }

    fn delta(&mut self, books: &Books, slot: Slot) -> &mut PartitionDelta {
        self.partitions
            .entry(slot)
            .or_insert_with(|| PartitionDelta {
                next: books.partition(slot).map_or(0, |book| book.next),
                settled: FrameEnds::default(),
                block: None,
            })
    }

    /// Checks that all records of a run can be settled. A run has one partition and epoch.
    fn check_run(&self, books: &Books, slot: Slot, run: &[Settle]) -> Result<(), CommitError> {
        let book = books.partition(slot);
        let delta = self.partitions.get(&slot);
        for settle in run {
            if settle.epoch != EPOCH {
                return Err(CommitError::Fenced(settle.of));
            }
            let book = book.ok_or(CommitError::PartitionUnknown(settle.of))?;
            let next = delta.map_or(book.next, |delta| delta.next);
            let offset = settle.offset.0;
            let ended = book.settled.contains(offset)
                || delta.is_some_and(|delta| delta.settled.contains(offset));
            if ended || offset >= next {
                return Err(already(settle));
            }
        }
        Ok(())
    }

    fn settle(
        &mut self,
        books: &Books,
        slot: Slot,
        (settle, count): (&Settle, u64),
        time: u64,
        copies: &[(Slot, u64)],
    ) -> Result<(), CommitError> {
        let (end, append) = match settle.end {
            NewSettlement::Delivered => (SettlementCode::Delivered, None),
            NewSettlement::Filtered => (SettlementCode::Filtered, None),
            NewSettlement::Discarded => (SettlementCode::Discarded, None),
            NewSettlement::Routed { append } => (SettlementCode::Routed, Some(append)),
            NewSettlement::Moved { append } => (SettlementCode::Moved, Some(append)),
        };
        let copies = match append {
            None => None,
            // `limits` refuses an index without an append before the queue.
            Some(append) => Some(*copies.get(append).ok_or_else(|| already(settle))?),
        };
        let run = SettleRun {
            slot,
            first: settle.offset.0,
            count,
            end,
            attempts: settle.attempts,
            status: settle.status.unwrap_or(0),
            time,
            copies,
        };
        let offsets = settle.offset.0..settle.offset.0 + count;
        self.delta(books, slot).settled.insert(offsets);
        if let Some(NewOp::Op(Op::Settle(last))) = self.entries.last_mut()
            && last.extend(&run)
        {
            return Ok(());
        }
        self.push(Op::Settle(run), SETTLE_BYTES);
        Ok(())
    }

    fn append(&mut self, books: &Books, slot: Slot, append: Append, time: u64) -> Appended {
        let first = self.delta(books, slot).next;
        let len = append.records.len() as u64;
        for record in append.records {
            self.append_record(books, slot, append.kind, record, time);
        }
        for key in append.refers {
            match self.referred.get_mut(&key) {
                Some(at) => *at = time,
                None => drop(self.referred.insert(key.clone(), time)),
            }
            // The writer later drops those that the file has already, once the file of this frame is known.
            if !self.refers.contains(&key) {
                self.bytes += 16 + key.len();
                self.refers.insert(key);
            }
        }
        Appended {
            of: append.of,
            first: Offset(first),
            len,
        }
    }

    fn append_record(
        &mut self,
        books: &Books,
        slot: Slot,
        kind: AppendKind,
        record: Record,
        time: u64,
    ) {
        self.bytes += block::stored_len(&record);
        let entries_len = self.entries.len();
        let delta = self.delta(books, slot);
        let offset = delta.next;
        delta.next += 1;
        let block = delta.block.replace(entries_len);
        let record = match block.and_then(|at| self.entries.get_mut(at).map(|entry| (at, entry))) {
            Some((at, NewOp::Block(block))) => match block.push(kind, time, record) {
                Ok(()) => {
                    self.delta(books, slot).block = Some(at);
                    return;
                }
                Err(record) => record,
            },
            _ => record,
        };
        let mut block = NewBlock::new(slot, kind, offset, time);
        self.bytes += block.len();
        block
            .push(kind, time, record)
            .expect("an empty block takes any record of its own kind and time");
        self.entries.push(NewOp::Block(block));
    }

    /// Checks all changes of state in order, and then that the values exist that the records refer to.
    fn check_state(&self, books: &Books, commit: &Commit) -> Result<(), CommitError> {
        let conflict = |key: &Arc<str>| CommitError::StateConflict { key: key.clone() };
        let mut bytes = self.state_bytes;
        let revisions = self.state_revision + 1..;
        let mut after: HashMap<&str, Value> = HashMap::new();
        for (revision, change) in revisions.zip(&commit.state) {
            let StateChange {
                key,
                value,
                expected,
            } = change;
            let known = after.get(&**key).copied();
            let current = known.unwrap_or_else(|| self.value_of(books, key));
            if expected.is_some_and(|expected| expected != current.revision) {
                return Err(conflict(key));
            }
            let new = value.as_ref().map_or(Value::default(), |value| Value {
                revision,
                cost: state_cost(key, value),
            });
            let share = &mut bytes[share_of(key)];
            *share = *share + new.cost - current.cost;
            after.insert(key, new);
        }
        if let Some(Share {
            kind, bytes_max, ..
        }) = exceeded(&self.state_bytes, &bytes)
        {
            let bytes_max = *bytes_max;
            return Err(CommitError::StateFull { kind, bytes_max });
        }
        if let Some(since) = commit.unreferred_since {
            let mut removed = commit.state.iter().filter(|change| change.value.is_none());
            let is_needed = |key| self.referred.get(key).is_some_and(|at| *at >= since.0);
            if let Some(change) = removed.find(|change| is_needed(&change.key)) {
                return Err(conflict(&change.key));
            }
        }
        let appends = commit.appends.iter();
        let outside = appends.filter(|append| append.kind.is_from_outside());
        for key in outside.flat_map(|append| &append.refers) {
            let known = after.get(&**key).copied();
            if known.unwrap_or_else(|| self.value_of(books, key)).revision == 0 {
                return Err(conflict(key));
            }
        }
        Ok(())
    }

    fn value_of(&self, books: &Books, key: &str) -> Value {
        let pending = self.state.get(key).copied();
        pending.unwrap_or_else(|| {
            books
                .state
                .get(key)
                .map_or(Value::default(), |entry| Value {
                    revision: entry.revision,
                    cost: state_cost(key, &entry.value),
                })
        })
    }

    fn change_state(&mut self, books: &Books, change: StateChange) {
        self.state_revision += 1;
        let revision = self.state_revision;
        let StateChange { key, value, .. } = change;
        let current = self.value_of(books, &key);
        let share = share_of(&key);
        match value {
            Some(value) => {
                let cost = state_cost(&key, &value);
                self.state.insert(key.clone(), Value { revision, cost });
                self.state_bytes[share] = self.state_bytes[share] + cost - current.cost;
                let put = Op::StatePut {
                    revision,
                    key,
                    value,
                };
                self.push(put, cost);
            }
            // Removing an absent value changes nothing and is not stored.
            None if current.revision != 0 => {
                self.state.insert(key.clone(), Value::default());
                self.state_bytes[share] -= current.cost;
                let bytes = state_cost(&key, &[]);
                self.push(Op::StateDelete { revision, key }, bytes);
            }
            None => {}
        }
    }

    fn push(&mut self, op: Op, bytes: usize) {
        self.entries.push(NewOp::Op(op));
        self.bytes += bytes;
    }
}

/// Returns whether `next` settles the next offset in the same way, so that both form a run.
fn follows(one: &Settle, next: &Settle) -> bool {
    (one.of, one.end, one.attempts, one.status, one.epoch)
        == (next.of, next.end, next.attempts, next.status, next.epoch)
        && one.offset.0.checked_add(1) == Some(next.offset.0)
}

fn slot(books: &Books, of: PartitionId) -> Result<Slot, CommitError> {
    books.slot(of).ok_or(CommitError::PartitionUnknown(of))
}

fn already(settle: &Settle) -> CommitError {
    CommitError::AlreadySettled {
        of: settle.of,
        offset: settle.offset,
    }
}
