//! The witness: sees each frame of the log and each call, and fails on violated promises.
//!
//! A record is identified by the number in its payload.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::target::Call;
use crate::{
    model::ids::{MessageId, Offset, PartitionId, StreamName},
    runtime::clock::Timestamp,
    storage::{Log, Stream, embedded::Embedded, ledger::Balance},
};

/// Longest time of a call, from the decision to make it (`dispatch.attempt_timeout_ms`).
const CALL_MAX: Duration = Duration::from_millis(1_500);

/// Records of one target and one key.
pub(super) type Lane = (usize, String);

/// A record that a source sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) lane: Option<Lane>,
    pub(super) target: usize,
    /// The exact bytes of the payload.
    pub(super) payload: String,
    pub(super) token: Option<String>,
    /// The numbers of its submission, which are stored together or not at all.
    pub(super) batch: (u64, u64),
}

/// Position of a record, which orders the records of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RecordPlace {
    /// Growths of the stream before it.
    growths: usize,
    offset: Offset,
    of: PartitionId,
}

#[derive(Default)]
pub(super) struct Witness {
    pub(super) sent: BTreeMap<u64, Sent>,
    /// Records acknowledged to sources.
    acknowledged: BTreeMap<u64, (PartitionId, Offset, MessageId)>,
    /// Records refused to sources.
    refused: BTreeSet<u64>,
    /// Records whose token was refused.
    unauthorized: BTreeSet<u64>,
    /// Position of each record of the source stream.
    found: BTreeMap<u64, RecordPlace>,
    lanes: BTreeMap<Lane, BTreeSet<(RecordPlace, u64)>>,
    /// Records with copies in error streams.
    copies: BTreeSet<u64>,
    /// First offset not checked yet, by partition.
    looked: BTreeMap<PartitionId, Offset>,
    /// The `Idempotency-Key` of each record's calls.
    keys: BTreeMap<u64, String>,
    numbers: BTreeMap<String, u64>,
    /// Delivered records, ever and in this life.
    taken: BTreeSet<u64>,
    taken_now: BTreeSet<u64>,
    calling: BTreeMap<Lane, u64>,
    /// Records whose call a target cut off and has not seen since, with the target.
    cut: BTreeMap<u64, usize>,
    /// Calls in lanes that had one already; the earlier one must end before the next check.
    overlaps: Vec<(Lane, u64)>,
    /// The last purge of the source stream in this life, and when it was seen.
    purge: Option<(Timestamp, Option<Instant>)>,
    /// A replay of the source stream may run, so calls of settled records are allowed.
    pub(super) replays: bool,
    /// A replay ran at some time, so records may have several copies and simultaneous calls.
    has_replayed: bool,
    /// The disk failed, so some records may be unchecked.
    pub(super) blind: bool,
    engine: Option<Arc<Embedded>>,
    source: Option<StreamName>,
    pub(super) calls_len: u64,
}

/// The number in a payload, or in a record that has one.
fn number(text: &[u8]) -> u64 {
    let text = std::str::from_utf8(text).unwrap();
    let (_, behind) = text.split_once("{\"n\":").expect("a payload of ours");
    let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap();
    behind[..end].parse().unwrap()
}

impl Witness {
    /// Begins a life with this engine.
    pub(super) fn begin_life(&mut self, engine: Arc<Embedded>, source: StreamName) {
        self.engine = Some(engine);
        self.source = Some(source);
        self.taken_now.clear();
        self.calling.clear();
        self.overlaps.clear();
        self.cut.clear();
        self.has_replayed |= self.replays;
        self.replays = false;
        self.blind = false;
        // Records seen before must still exist, so they are checked again.
        let before = std::mem::take(&mut self.found);
        self.lanes.clear();
        self.looked.clear();
        self.look();
        if let Some((_, seen)) = &mut self.purge {
            *seen = None;
        }
        for (n, place) in before {
            let is_trimmed = self.status(place.of).bounds.earliest > place.offset;
            match self.found.get(&n) {
                Some(now) => assert_eq!(*now, place, "{n} has moved"),
                None => assert!(is_trimmed, "{n} at {place:?} was seen and is gone"),
            }
            self.found.entry(n).or_insert(place);
        }
    }

    /// Ends a life.
    pub(super) fn end_life(&mut self) {
        self.engine = None;
    }

    fn engine(&self) -> &Arc<Embedded> {
        self.engine.as_ref().expect("a life")
    }

    fn status(&self, of: PartitionId) -> crate::storage::PartitionStatus {
        self.engine().status(of).unwrap()
    }

    /// Checks the new records of the log.
    pub(super) fn look(&mut self) {
        let engine = self.engine().clone();
        for stream in engine.streams() {
            if Some(&stream.name) == self.source.as_ref()
                && let Some(purged) = stream.purged()
                && self.purge.is_none_or(|(known, _)| known != purged.time)
            {
                self.purge = Some((purged.time, Some(Instant::now())));
            }
            for of in stream.all_partitions() {
                let bounds = engine.status(of).unwrap().bounds;
                let mut next = self.looked.get(&of).copied().unwrap_or(Offset(0));
                next = next.max(bounds.earliest);
                while next < bounds.tail {
                    let page = engine.read(of, next, 1 << 20).now_or_never().unwrap();
                    let page = page.unwrap();
                    for record in &page.records {
                        self.see(&stream, of, record.offset, &record.record.value);
                    }
                    next = page.next;
                }
                self.looked.insert(of, next);
            }
        }
    }

    fn see(&mut self, stream: &Stream, of: PartitionId, offset: Offset, value: &[u8]) {
        let n = number(value);
        if Some(&stream.name) != self.source.as_ref() {
            self.copies.insert(n);
            assert!(
                self.replays || self.has_replayed || !self.cut.contains_key(&n),
                "{n} has failed by a connection that was cut when it was used again"
            );
            return;
        }
        let grown = |event: &&crate::storage::ControlEvent| {
            let before = event.tails.get(usize::from(of.partition.0));
            // A partition added later has only later records.
            before.is_none_or(|tail| offset >= *tail)
        };
        let growths = stream.events.iter().skip(1).filter(grown).count();
        let place = RecordPlace {
            growths,
            offset,
            of,
        };
        let before = self.found.insert(n, place);
        assert_eq!(before, None, "{n} is stored twice, now at {place:?}");
        if let Some(lane) = self.sent[&n].lane.clone() {
            self.lanes.entry(lane).or_default().insert((place, n));
        }
    }

    fn has_ended(&self, place: RecordPlace) -> bool {
        let engine = self.engine();
        let bounds = engine.status(place.of).unwrap().bounds;
        let settled = engine.settled_offsets(place.of, place.offset..place.offset.next());
        place.offset < bounds.earliest || settled.unwrap().contains(place.offset)
    }

    /// Returns whether a purge has removed the record at a position.
    fn is_purged(&self, of: PartitionId, offset: Offset) -> bool {
        let stream = self.engine().stream_by_id(of.stream);
        stream.is_some_and(|stream| offset < stream.purged_below(of.partition))
    }

    /// Returns whether a call of a purged record had begun before the purge.
    fn was_under_way(&self) -> bool {
        let seen = self.purge.and_then(|(_, seen)| seen);
        seen.is_some_and(|seen| seen.elapsed() <= CALL_MAX)
    }

    /// Notes that a source got an acknowledgement.
    pub(super) fn acknowledge(&mut self, n: u64, of: PartitionId, offset: Offset, id: MessageId) {
        let place = self.found.get(&n).map(|place| (place.of, place.offset));
        let unseen = (self.blind || self.is_purged(of, offset)) && place.is_none();
        assert!(
            unseen || place == Some((of, offset)),
            "{n} is not where its source was told"
        );
        let known = self.acknowledged.insert(n, (of, offset, id));
        assert!(
            known.is_none_or(|known| known == (of, offset, id)),
            "{n}: another answer"
        );
    }

    /// Notes that a source got a refusal.
    pub(super) fn refuse(&mut self, n: u64) {
        self.refused.insert(n);
    }

    /// Notes a call at a target.
    pub(super) fn call_begins(&mut self, call: &Call) -> u64 {
        self.calls_len += 1;
        let n = number(call.body.as_bytes());
        self.cut.remove(&n);
        let sent = self.sent.get(&n).expect("nobody sent that").clone();
        assert_eq!(
            (call.target, &call.body),
            (sent.target, &sent.payload),
            "{n}"
        );
        self.check_token(n, &sent, call.header("authorization"));
        let key = call.header("idempotency-key").expect("a key").to_owned();
        let known = self.keys.entry(n).or_insert_with(|| key.clone()).clone();
        assert_eq!(known, key, "{n} was called under another key");
        assert_eq!(
            *self.numbers.entry(key).or_insert(n),
            n,
            "a key for two records"
        );
        let Some(place) = self.found.get(&n).copied() else {
            assert!(self.blind, "{n} is called before it is stored");
            return n;
        };
        let first = !self.has_ended(place);
        if !first && !self.replays {
            let purged = self.is_purged(place.of, place.offset) && self.was_under_way();
            assert!(
                self.copies.contains(&n) || purged,
                "{n} is called after its end"
            );
        }
        let Some(lane) = sent.lane else {
            return n;
        };
        if first {
            for (earlier, m) in self.lanes[&lane].range(..(place, n)) {
                assert!(
                    self.taken_now.contains(m) || self.has_ended(*earlier),
                    "{n} is called before {m} of its lane has ended"
                );
            }
        }
        if let Some(other) = self.calling.insert(lane.clone(), n) {
            self.overlaps.push((lane, other));
        }
        n
    }

    /// Notes that a target cut a call on a reused connection. The call must be repeated before it may fail.
    pub(super) fn call_is_cut(&mut self, call: &Call) -> u64 {
        let n = self.call_begins(call);
        self.call_ends(n);
        self.cut.insert(n, call.target);
        n
    }

    /// Notes that a target has no call in flight, nor one that it has cut.
    pub(super) fn refuses(&mut self, target: usize) {
        self.cut.retain(|_, cut_by| *cut_by != target);
    }

    /// Checks the token of a call: the one of its record, or a newer one once the target has refused that.
    fn check_token(&self, n: u64, sent: &Sent, token: Option<&str>) {
        if token == sent.token.as_deref() {
            return;
        }
        let for_target =
            |other: &Sent| other.target == sent.target && other.token.as_deref() == token;
        assert!(
            self.unauthorized.contains(&n) && token.is_some() && self.sent.values().any(for_target),
            "{n} is called with {token:?} in place of {:?}",
            sent.token
        );
    }

    /// Notes that a target refused the token of a call.
    pub(super) fn refuses_token(&mut self, n: u64) {
        self.unauthorized.insert(n);
    }

    pub(super) fn takes(&mut self, n: u64) {
        self.taken.insert(n);
        self.taken_now.insert(n);
    }

    /// Notes the end of a call: its connection is free or closed.
    pub(super) fn call_ends(&mut self, n: u64) {
        let Some(lane) = &self.sent[&n].lane else {
            return;
        };
        if let Some(at) = self
            .overlaps
            .iter()
            .position(|over| over == &(lane.clone(), n))
        {
            self.overlaps.swap_remove(at);
        } else if self.calling.get(lane) == Some(&n) {
            self.calling.remove(lane);
        }
    }

    /// Checks that all observations agree, once every task has run.
    pub(super) fn check(&self) {
        assert!(
            self.overlaps.is_empty(),
            "calls of a lane at once: {:?}",
            self.overlaps
        );
        let ledger = self.engine().ledger();
        let balance = Balance::of(&ledger, self.source.as_ref());
        assert!(balance.balanced, "the books differ: {balance:?}");
        for (n, place) in &self.found {
            let (from, to) = self.sent[n].batch;
            let whole = (from..to).all(|m| self.found.contains_key(&m));
            assert!(whole, "{n} is stored without all of its batch {from}..{to}");
            assert!(
                !self.refused.contains(n),
                "{n} is stored, and its source was told it is not"
            );
            if self.has_ended(*place) && !self.copies.contains(n) {
                let is_given_up = self.given_up() > 0;
                assert!(
                    self.taken.contains(n) || is_given_up,
                    "{n} has ended without a call"
                );
            }
        }
        for (n, (of, offset, _)) in &self.acknowledged {
            let place = self.found.get(n).map(|place| (place.of, place.offset));
            let is_there = place == Some((*of, *offset));
            let is_purged = self.is_purged(*of, *offset);
            assert!(
                is_there || is_purged || self.blind,
                "{n} was acknowledged and is gone"
            );
        }
    }

    /// Returns how many records were settled without a call: trimmed, or purged.
    fn given_up(&self) -> u64 {
        let ledger = self.engine().ledger();
        let counts = ledger.streams.iter().map(|stream| stream.counts);
        counts.map(|counts| counts.expired + counts.discarded).sum()
    }

    /// Checks that every record is settled, with targets that accept all calls.
    pub(super) fn check_all_delivered(&self) {
        let left = self.found.keys().filter(|n| !self.taken.contains(n));
        let left: Vec<_> = left.collect();
        let given_up = self.given_up();
        assert!(
            left.len() as u64 <= given_up,
            "{left:?} were never delivered, {given_up} given up"
        );
    }

    pub(super) fn sums(&self) -> (usize, usize, u64) {
        (self.sent.len(), self.found.len(), self.calls_len)
    }
}
