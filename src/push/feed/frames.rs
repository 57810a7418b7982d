//! The frames of one data stream that are kept, by the place at which each begins.
//!
//! Readers of one data stream are mostly near each other: the first reader has a frame made, and the others find it.
//! A frame that every reader has passed is dropped at once. Of the others [`KEPT_BYTES`] are kept, shared evenly by
//! the data streams that have readers. For a reader that lags further, frames are made again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::{OnceCell, oneshot};

use super::{Carry, frame::Frame, hub::HubError};
use crate::push::position::StreamPlace;

/// Bytes of the frames that are kept for slower readers, of all data streams together. The newest two of each data
/// stream are always kept.
const KEPT_BYTES: usize = 16 << 20;
/// Places of one data stream that are known, at most.
const KEPT_LEN: usize = 1024;

/// How many data streams have readers, which is how many share [`KEPT_BYTES`]. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(in crate::push) struct Shares(Arc<AtomicUsize>);

impl Shares {
    /// Returns the share of one data stream.
    fn bytes(&self) -> usize {
        KEPT_BYTES / self.0.load(Ordering::Relaxed).max(1)
    }
}

/// The frames of one data stream.
#[derive(Debug)]
pub(in crate::push) struct Frames {
    known: Mutex<Known>,
}

type Key = (u64, StreamPlace);
type Making = oneshot::Receiver<Result<Arc<Frame>, HubError>>;

#[derive(Debug)]
struct Known {
    entries: BTreeMap<Key, Arc<FrameSlot>>,
    /// The keys of `entries`, oldest first; it may hold keys that were removed.
    order: VecDeque<Key>,
    /// How many readers stand at each rank.
    readers: BTreeMap<u64, usize>,
    bytes: usize,
    shares: Shares,
}

/// A place, and the frame that begins there.
#[derive(Debug, Default)]
pub(in crate::push) struct FrameSlot {
    pub(in crate::push) frame: OnceCell<Arc<Frame>>,
    /// The task that makes the frame, if that takes more than one turn.
    pub(in crate::push) making: tokio::sync::Mutex<Option<Making>>,
    carry: Mutex<Carry>,
    is_claimed: AtomicBool,
    /// Its part of [`Known`]'s `bytes`; changed under the lock of [`Known`].
    bytes: AtomicUsize,
}

impl FrameSlot {
    /// Takes the records that were read beyond the frame before.
    pub(in crate::push) fn carry(&self) -> Carry {
        std::mem::take(&mut *self.carry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns true to one caller only, while there is no frame: that caller makes the frame ahead.
    pub(in crate::push) fn claim(&self) -> bool {
        !self.frame.initialized() && !self.is_claimed.swap(true, Ordering::Relaxed)
    }
}

impl Frames {
    pub(in crate::push) fn new(shares: Shares) -> Self {
        Self {
            known: Mutex::new(Known {
                entries: BTreeMap::new(),
                order: VecDeque::new(),
                readers: BTreeMap::new(),
                bytes: 0,
                shares,
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the slot of a place, a new one if there is none.
    pub(in crate::push) fn entry(&self, place: &StreamPlace) -> Arc<FrameSlot> {
        self.known().entry(place)
    }

    /// Returns the nearest known place after `place`.
    pub(in crate::push) fn next_behind(&self, place: &StreamPlace) -> Option<StreamPlace> {
        let from = (place.rank().checked_add(1)?, StreamPlace::default());
        let known = self.known();
        let next = known.entries.range(from..).next();
        next.map(|((_, place), _)| place.clone())
    }

    /// Keeps a frame that begins at a place, and the records that were read beyond it.
    pub(in crate::push) fn keep(&self, place: &StreamPlace, frame: &Frame, carry: Carry) {
        let mut known = self.known();
        let behind = known.entry(frame.behind());
        // The records beyond the frame count until their place is forgotten, because no reader may ever go on there.
        let carried = carry.bytes_len();
        *behind.carry.lock().unwrap_or_else(PoisonError::into_inner) = carry;
        known.count(&behind, carried);
        // The slot may have been forgotten while the frame was made.
        if let Some(entry) = known.entries.get(&(place.rank(), place.clone())).cloned() {
            known.count(&entry, frame.bytes_len());
        }
        known.forget_too_much();
    }

    /// Returns whether a frame that is made ahead would be kept until a reader comes.
    pub(in crate::push) fn has_room(&self) -> bool {
        let known = self.known();
        known.bytes <= known.shares.bytes() / 2
    }

    /// Counts a reader in at a place.
    pub(in crate::push) fn come(&self, place: &StreamPlace) {
        let mut known = self.known();
        if known.readers.is_empty() {
            known.shares.0.fetch_add(1, Ordering::Relaxed);
        }
        *known.readers.entry(place.rank()).or_default() += 1;
    }

    /// Moves a reader to another place, or counts it out if `to` is `None`.
    pub(in crate::push) fn leave(&self, place: &StreamPlace, to: Option<&StreamPlace>) {
        let mut known = self.known();
        if let Some(to) = to {
            *known.readers.entry(to.rank()).or_default() += 1;
        }
        if let Some(left) = known.readers.get_mut(&place.rank()) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                known.readers.remove(&place.rank());
                known.forget_passed();
                if known.readers.is_empty() {
                    known.shares.0.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Known {
    fn entry(&mut self, place: &StreamPlace) -> Arc<FrameSlot> {
        let key = (place.rank(), place.clone());
        if let Some(entry) = self.entries.get(&key) {
            return entry.clone();
        }
        let entry = Arc::<FrameSlot>::default();
        self.entries.insert(key.clone(), entry.clone());
        self.order.push_back(key);
        entry
    }

    fn count(&mut self, entry: &FrameSlot, bytes: usize) {
        entry.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    fn forget(&mut self, entry: &FrameSlot) {
        self.bytes -= entry.bytes.load(Ordering::Relaxed);
    }

    /// Forgets the places that every reader has passed.
    fn forget_passed(&mut self) {
        let first = self.readers.keys().next().copied();
        while let Some(entry) = self.entries.first_entry() {
            if first.is_some_and(|first| entry.key().0 >= first) {
                break;
            }
            let gone = entry.remove();
            self.forget(&gone);
        }
        while self
            .order
            .front()
            .is_some_and(|key| !self.entries.contains_key(key))
        {
            self.order.pop_front();
        }
    }

    /// Forgets the oldest places while there are too many, except the last two, where most readers are.
    fn forget_too_much(&mut self) {
        while self.order.len() > 2
            && (self.bytes > self.shares.bytes() || self.order.len() > KEPT_LEN)
        {
            let Some(key) = self.order.pop_front() else {
                return;
            };
            if let Some(gone) = self.entries.remove(&key) {
                self.forget(&gone);
            }
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if !self.readers.is_empty() {
            self.shares.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::feed::frame::{Ends, FrameBuilder};

    fn at(next: u64) -> StreamPlace {
        StreamPlace {
            events: 0,
            next: vec![next],
        }
    }

    /// A frame of one record with that many bytes, up to a place.
    fn frame(bytes: usize, behind: u64) -> Frame {
        let mut builder = FrameBuilder::default();
        builder.add(|out| {
            out.resize(out.len() + bytes, b'x');
            true
        });
        builder.build(at(behind), None, Ends::Before)
    }

    /// Frames of those bytes between the first places.
    fn fill(frames: &Frames, lens: &[usize]) {
        for (place, bytes) in (0..).zip(lens) {
            let made = frame(*bytes, place + 1);
            frames.entry(&at(place));
            frames.keep(&at(place), &made, Carry::default());
        }
    }

    fn places(frames: &Frames) -> Vec<u64> {
        let known = frames.known();
        known.entries.keys().map(|(rank, _)| *rank).collect()
    }

    #[test]
    fn frames_that_every_reader_has_passed_are_dropped_and_others_kept() {
        let frames = Frames::new(Shares::default());
        frames.come(&at(0));
        frames.come(&at(0));
        fill(&frames, &[1000; 4]);
        frames.leave(&at(0), Some(&at(3)));
        assert_eq!(places(&frames), [0, 1, 2, 3, 4], "one stands at the start");
        frames.leave(&at(0), Some(&at(2)));
        assert_eq!(places(&frames), [2, 3, 4]);
        assert!((2000..4000).contains(&frames.known().bytes));
        frames.leave(&at(3), None);
        assert_eq!(places(&frames), [2, 3, 4]);
        frames.leave(&at(2), None);
        assert_eq!((places(&frames), frames.known().bytes), (Vec::new(), 0));
    }

    #[test]
    fn data_streams_share_the_kept_bytes_and_each_keeps_its_newest() {
        let shares = Shares::default();
        let quarter = KEPT_BYTES / 4;
        let streams = [(); 3].map(|()| Frames::new(shares.clone()));
        streams[0].come(&at(0));
        fill(&streams[0], &[quarter - 1000; 6]);
        assert_eq!(places(&streams[0]), [2, 3, 4, 5, 6], "the oldest went");
        assert!(!streams[0].has_room());
        streams[1].come(&at(0));
        fill(&streams[1], &[quarter - 1000; 4]);
        assert_eq!(places(&streams[1]), [2, 3, 4], "a half is its own");
        streams[2].come(&at(0));
        fill(&streams[2], &[KEPT_BYTES; 3]);
        assert_eq!(places(&streams[2]), [2, 3]);
        streams[1].leave(&at(0), None);
        assert_eq!(shares.bytes(), KEPT_BYTES / 2);
        drop(streams);
        assert_eq!(shares.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn as_many_places_are_known_whatever_they_weigh() {
        let frames = Frames::new(Shares::default());
        fill(&frames, &[1; 2 * KEPT_LEN]);
        assert_eq!(places(&frames).len(), KEPT_LEN);
    }

    #[test]
    fn a_frame_is_made_ahead_by_one() {
        let frames = Frames::new(Shares::default());
        assert!(frames.entry(&at(7)).claim());
        assert!(!frames.entry(&at(7)).claim());
    }
}
