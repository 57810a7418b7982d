//! Lanes: records of one target and key, one after the other. Pure.
//!
//! A lane is busy from the moment its record is ready until [`Lanes::end`]; what is pushed meanwhile waits behind it, in
//! order. What has no lane is ready at once.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use crate::target::Origin;

/// Whose order a record keeps: those of its target and key.
///
/// It is a keyed digest of both, so that to compare lanes touches no record. Two keys that have the same one, which no
/// caller can bring about, would wait for each other and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane(u64);

impl Lane {
    /// Returns the lane of a key at a target; `state` has to be the same for all that are compared.
    pub(crate) fn new(state: &RandomState, target: &Origin, key: &[u8]) -> Self {
        Self(state.hash_one((target, key)))
    }
}

/// A lane is a digest already.
#[derive(Debug, Default)]
struct Digest(u64);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "a lane is one number");
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }
}

/// Waiting jobs, and those that may start now.
#[derive(Debug)]
pub(crate) struct Lanes<J> {
    busy: HashSet<Lane, BuildHasherDefault<Digest>>,
    /// What waits in the busy lanes in which something waits. Apart, as that are few.
    waiting: HashMap<Lane, VecDeque<J>, BuildHasherDefault<Digest>>,
    ready: VecDeque<J>,
}

impl<J> Default for Lanes<J> {
    fn default() -> Self {
        Self {
            busy: HashSet::default(),
            waiting: HashMap::default(),
            ready: VecDeque::new(),
        }
    }
}

impl<J> Lanes<J> {
    /// Adds a job behind all of its lane.
    pub(crate) fn push(&mut self, lane: Option<Lane>, job: J) {
        match lane {
            Some(lane) if !self.busy.insert(lane) => {
                self.waiting.entry(lane).or_default().push_back(job);
            }
            _ => self.ready.push_back(job),
        }
    }

    /// Makes a job ready whose lane is busy with it: one that comes back from a wait. It goes first, it is the oldest.
    pub(crate) fn resume(&mut self, job: J) {
        self.ready.push_front(job);
    }

    /// Takes a job that may start now.
    pub(crate) fn take(&mut self) -> Option<J> {
        self.ready.pop_front()
    }

    /// Ends the job that its lane is busy with; the next one of the lane is ready then.
    pub(crate) fn end(&mut self, lane: Option<Lane>) {
        let Some(lane) = lane else { return };
        if !self.waiting.is_empty()
            && let Entry::Occupied(mut waiting) = self.waiting.entry(lane)
        {
            self.ready.extend(waiting.get_mut().pop_front());
            if waiting.get().is_empty() {
                waiting.remove();
            }
            return;
        }
        let was_busy = self.busy.remove(&lane);
        debug_assert!(was_busy, "a busy lane is known");
    }

    /// Returns how many may start now.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Returns every job that waits or is ready.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &J> {
        self.ready.iter().chain(self.waiting.values().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_differ_by_target_and_by_key() {
        let state = RandomState::new();
        let lane = |target, key: &str| {
            let target = Origin::of(target).unwrap();
            Lane::new(&state, &target, key.as_bytes())
        };
        assert_eq!(lane("http://a/x", "k"), lane("http://a:80", "k"));
        assert_ne!(lane("http://a", "k"), lane("http://a", "l"));
        assert_ne!(lane("http://a", "k"), lane("http://b", "k"));
    }

    fn taken(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.take()).collect()
    }

    #[test]
    fn a_lane_gives_its_next_job_only_when_the_one_before_has_ended() {
        let (a, b) = (Lane(1), Lane(2));
        let mut lanes = Lanes::default();
        for (lane, job) in [(a, "a1"), (a, "a2"), (b, "b1"), (a, "a3")] {
            lanes.push(Some(lane), job);
        }
        lanes.push(None, "free1");
        lanes.push(None, "free2");
        assert_eq!(taken(&mut lanes), ["a1", "b1", "free1", "free2"]);
        lanes.end(None);
        assert_eq!(taken(&mut lanes), [""; 0]);
        lanes.end(Some(a));
        lanes.end(Some(b));
        assert_eq!(taken(&mut lanes), ["a2"]);
        lanes.push(Some(b), "b2");
        assert_eq!(taken(&mut lanes), ["b2"], "an ended lane is free again");
        lanes.end(Some(a));
        assert_eq!(taken(&mut lanes), ["a3"]);
        lanes.end(Some(a));
        lanes.end(Some(b));
        let left = (lanes.busy.len(), lanes.waiting.len());
        assert_eq!(left, (0, 0), "an ended lane leaves nothing");
    }

    #[test]
    fn a_job_that_comes_back_from_a_wait_is_still_before_the_rest_of_its_lane() {
        let a = Lane(1);
        let mut lanes = Lanes::default();
        lanes.push(Some(a), "a1");
        lanes.push(Some(a), "a2");
        assert_eq!(taken(&mut lanes), ["a1"]);
        lanes.push(None, "free");
        lanes.resume("a1");
        assert_eq!(taken(&mut lanes), ["a1", "free"]);
        lanes.end(Some(a));
        assert_eq!(taken(&mut lanes), ["a2"]);
    }
}
