//! Lanes: the records of one target and key start one after the other. Pure.
//!
//! A lane is busy from the moment its record is ready until [`Lanes::end`]. Jobs pushed meanwhile wait in order. A job
//! without a lane is ready at once. Callers bound the jobs that wait in a lane by its [`Share`].

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
};

use crate::dispatch::job::Lane;

/// Hasher that passes a lane on, because a lane is a digest already.
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
    /// Waiting jobs of busy lanes. A map of its own, because few busy lanes have any.
    waiting: HashMap<Lane, Waiting<J>, BuildHasherDefault<Digest>>,
    ready: VecDeque<J>,
}

/// Waiting jobs of one lane; never empty.
#[derive(Debug)]
struct Waiting<J> {
    /// Jobs, each with its bytes.
    jobs: VecDeque<(J, usize)>,
    bytes: usize,
    /// How many jobs waited when the lane had filled its share; 0 = it has not, or its room was reported since.
    full_len: usize,
}

/// Bounds of the jobs that wait in one lane. One job always fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Jobs.
    pub(crate) len: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

/// Room for more jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Nothing.
    None,
    /// Enough to read along with another reader's page. So lanes of equal speed stay together and share reads.
    Little,
    /// Enough to read a page for.
    Enough,
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

impl<J> Default for Waiting<J> {
    fn default() -> Self {
        Self {
            jobs: VecDeque::new(),
            bytes: 0,
            full_len: 0,
        }
    }
}

impl<J> Waiting<J> {
    /// Returns once that a full lane has got rid of half of its jobs.
    fn half_is_gone(&mut self) -> bool {
        let half = self.full_len > 0 && self.jobs.len() <= self.full_len / 2;
        if half {
            self.full_len = 0;
        }
        half
    }
}

impl<J> Lanes<J> {
    /// Adds a job of `bytes` bytes at the end of its lane.
    pub(crate) fn push(&mut self, lane: Option<Lane>, job: J, bytes: usize) {
        match lane {
            Some(lane) if !self.busy.insert(lane) => {
                let waiting = self.waiting.entry(lane).or_default();
                waiting.jobs.push_back((job, bytes));
                waiting.bytes += bytes;
            }
            _ => self.ready.push_back(job),
        }
    }

    /// Returns whether a lane has filled its share, so that it takes no more bytes; [`Lanes::end`] says when it has room.
    pub(crate) fn is_full(&mut self, lane: Lane, bytes: usize, share: Share) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let Some(waiting) = self.waiting.get_mut(&lane) else {
            return false;
        };
        let full = waiting.jobs.len() >= share.len || waiting.bytes + bytes > share.bytes;
        if full {
            waiting.full_len = waiting.jobs.len();
        }
        full
    }

    /// Returns the room of a lane that was full. It is [`Space::Enough`] once [`Lanes::end`] has returned `true`.
    pub(crate) fn space(&self, lane: Lane) -> Space {
        let Some(waiting) = self.waiting.get(&lane) else {
            return Space::Enough;
        };
        match (waiting.full_len, waiting.jobs.len()) {
            (0, _) => Space::Enough,
            (full, len) if len < full => Space::Little,
            _ => Space::None,
        }
    }

    /// Makes a job ready that comes back from a wait and keeps its lane busy. It goes first because it is the oldest.
    pub(crate) fn resume(&mut self, job: J) {
        self.ready.push_front(job);
    }

    /// Takes a job that may start now.
    pub(crate) fn take(&mut self) -> Option<J> {
        self.ready.pop_front()
    }

    /// Ends the job that keeps its lane busy and makes the next one of the lane ready. Returns whether the lane was
    /// full and half of its jobs are gone now.
    pub(crate) fn end(&mut self, lane: Option<Lane>) -> bool {
        let Some(lane) = lane else { return false };
        if !self.waiting.is_empty()
            && let Entry::Occupied(mut entry) = self.waiting.entry(lane)
        {
            let waiting = entry.get_mut();
            if let Some((job, bytes)) = waiting.jobs.pop_front() {
                self.ready.push_back(job);
                waiting.bytes -= bytes;
            }
            let half = waiting.half_is_gone();
            if waiting.jobs.is_empty() {
                entry.remove();
            }
            return half;
        }
        let was_busy = self.busy.remove(&lane);
        debug_assert!(was_busy, "a busy lane is known");
        false
    }

    /// Takes the wanted jobs out that wait in lanes; returns whether a full lane has room by that.
    pub(crate) fn take_waiting(&mut self, is_wanted: impl Fn(&J) -> bool) -> (Vec<J>, bool) {
        let (mut taken, mut has_room) = (Vec::new(), false);
        self.waiting.retain(|_, waiting| {
            let before = waiting.jobs.len();
            for (job, bytes) in std::mem::take(&mut waiting.jobs) {
                match is_wanted(&job) {
                    true => {
                        waiting.bytes -= bytes;
                        taken.push(job);
                    }
                    false => waiting.jobs.push_back((job, bytes)),
                }
            }
            has_room |= waiting.jobs.len() < before && waiting.half_is_gone();
            !waiting.jobs.is_empty()
        });
        (taken, has_room)
    }

    /// Takes the wanted jobs out that are ready. Their lanes stay busy: the caller calls [`Lanes::end`] for each.
    pub(crate) fn take_ready(&mut self, is_wanted: impl Fn(&J) -> bool) -> Vec<J> {
        let mut taken = Vec::new();
        for job in std::mem::take(&mut self.ready) {
            match is_wanted(&job) {
                true => taken.push(job),
                false => self.ready.push_back(job),
            }
        }
        taken
    }

    /// Returns how many jobs may start now.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Returns every job that is ready, in the order in which they start.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &J> {
        self.ready.iter()
    }

    /// Returns every job that waits behind another of its lane.
    pub(crate) fn behind(&self) -> impl Iterator<Item = &J> {
        let waiting = self.waiting.values().flat_map(|waiting| &waiting.jobs);
        waiting.map(|(job, _)| job)
    }

    /// Returns every job that waits or is ready.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &J> {
        self.ready().chain(self.behind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_all(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.take()).collect()
    }

    #[test]
    fn a_lane_gives_its_next_job_only_when_the_one_before_has_ended() {
        let (a, b) = (Lane(1), Lane(2));
        let mut lanes = Lanes::default();
        for (lane, job) in [(a, "a1"), (a, "a2"), (b, "b1"), (a, "a3")] {
            lanes.push(Some(lane), job, 1);
        }
        lanes.push(None, "free1", 1);
        lanes.push(None, "free2", 1);
        assert_eq!(taken_all(&mut lanes), ["a1", "b1", "free1", "free2"]);
        lanes.end(None);
        assert_eq!(taken_all(&mut lanes), [""; 0]);
        lanes.end(Some(a));
        lanes.end(Some(b));
        assert_eq!(taken_all(&mut lanes), ["a2"]);
        lanes.push(Some(b), "b2", 1);
        assert_eq!(taken_all(&mut lanes), ["b2"], "an ended lane is free again");
        lanes.end(Some(a));
        assert_eq!(taken_all(&mut lanes), ["a3"]);
        lanes.end(Some(a));
        lanes.end(Some(b));
        let left = (lanes.busy.len(), lanes.waiting.len());
        assert_eq!(left, (0, 0), "an ended lane leaves nothing");
    }

    #[test]
    fn a_job_that_comes_back_from_a_wait_is_still_before_the_rest_of_its_lane() {
        let a = Lane(1);
        let mut lanes = Lanes::default();
        lanes.push(Some(a), "a1", 1);
        lanes.push(Some(a), "a2", 1);
        assert_eq!(taken_all(&mut lanes), ["a1"]);
        lanes.push(None, "free", 1);
        lanes.resume("a1");
        assert_eq!(taken_all(&mut lanes), ["a1", "free"]);
        lanes.end(Some(a));
        assert_eq!(taken_all(&mut lanes), ["a2"]);
    }

    #[test]
    fn a_lane_takes_its_share_and_says_once_when_half_of_it_is_gone() {
        let hot = Lane(1);
        let share = Share { len: 8, bytes: 100 };
        let mut lanes = Lanes::default();
        // The first one is ready and does not wait.
        for job in 0..9 {
            assert!(!lanes.is_full(hot, 10, share), "{job}");
            lanes.push(Some(hot), job, 10);
        }
        assert!(lanes.is_full(hot, 10, share));
        assert_eq!(lanes.space(hot), Space::None);
        assert!(!lanes.is_full(Lane(2), 10, share), "it is not the other's");
        let told: Vec<_> = (0..9)
            .map(|_| (lanes.end(Some(hot)), lanes.space(hot)))
            .collect();
        let (little, enough) = (Space::Little, Space::Enough);
        assert_eq!(told[..3], [(false, little); 3]);
        assert_eq!(told[3..5], [(true, enough), (false, enough)]);
        assert!(told[5..].iter().all(|told| *told == (false, enough)));
    }

    #[test]
    fn jobs_taken_out_leave_the_rest_in_order_and_report_room() {
        let (a, b) = (Lane(1), Lane(2));
        let share = Share { len: 4, bytes: 100 };
        let mut lanes = Lanes::default();
        for job in ["a1", "a2x", "a3x", "a4", "a5x"] {
            lanes.push(Some(a), job, 10);
        }
        lanes.push(Some(b), "b1x", 10);
        lanes.push(None, "free", 10);
        lanes.push(Some(b), "b2x", 10);
        assert!(lanes.is_full(a, 1, share));
        let is_wanted = |job: &&'static str| job.ends_with('x');
        let (mut taken, has_room) = lanes.take_waiting(is_wanted);
        taken.sort_unstable();
        assert_eq!(taken, ["a2x", "a3x", "a5x", "b2x"]);
        assert!(has_room && lanes.space(a) == Space::Enough);
        assert_eq!(lanes.take_ready(is_wanted), ["b1x"]);
        lanes.end(Some(b));
        assert_eq!(taken_all(&mut lanes), ["a1", "free"]);
        lanes.end(Some(a));
        assert_eq!(taken_all(&mut lanes), ["a4"]);
        lanes.end(Some(a));
        let left = (lanes.busy.len(), lanes.waiting.len());
        assert_eq!(left, (0, 0), "an ended lane leaves nothing");
    }

    #[test]
    fn a_share_is_of_bytes_too_but_one_job_always_may_wait() {
        let hot = Lane(1);
        let share = Share { len: 8, bytes: 100 };
        let mut lanes = Lanes::default();
        lanes.push(Some(hot), 0, 1000);
        assert!(!lanes.is_full(hot, 1000, share));
        lanes.push(Some(hot), 1, 1000);
        assert!(lanes.is_full(hot, 0, share));
        assert_eq!(lanes.space(hot), Space::None);
        assert!(lanes.end(Some(hot)), "it is empty");
        lanes.push(Some(hot), 2, 60);
        assert!(!lanes.is_full(hot, 40, share));
        assert!(lanes.is_full(hot, 41, share));
    }
}
