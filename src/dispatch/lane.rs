//! Lanes: records of one target and key, one after the other. Pure.
//!
//! A lane is busy from the moment its record is ready until [`Lanes::end`]; what is pushed meanwhile waits behind it, in
//! order. What has no lane is ready at once.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// Waiting jobs, and those that may start now.
#[derive(Debug)]
pub(crate) struct Lanes<J> {
    /// Each busy lane, with what waits in it.
    waiting: HashMap<Bytes, VecDeque<J>>,
    ready: VecDeque<J>,
}

impl<J> Default for Lanes<J> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            ready: VecDeque::new(),
        }
    }
}

impl<J> Lanes<J> {
    /// Adds a job behind all of its lane.
    pub(crate) fn push(&mut self, lane: Option<&Bytes>, job: J) {
        if let Some(lane) = lane {
            if let Some(waiting) = self.waiting.get_mut(lane) {
                waiting.push_back(job);
                return;
            }
            self.waiting.insert(lane.clone(), VecDeque::new());
        }
        self.ready.push_back(job);
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
    pub(crate) fn end(&mut self, lane: Option<&Bytes>) {
        let Some(lane) = lane else { return };
        let Some(waiting) = self.waiting.get_mut(lane) else {
            debug_assert!(false, "a busy lane is known");
            return;
        };
        match waiting.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => {
                self.waiting.remove(lane);
            }
        }
    }

    /// Returns how many may start now.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Returns every busy lane.
    pub(crate) fn busy(&self) -> impl Iterator<Item = &Bytes> {
        self.waiting.keys()
    }

    /// Returns every job that waits or is ready.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &J> {
        self.ready.iter().chain(self.waiting.values().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.take()).collect()
    }

    #[test]
    fn a_lane_gives_its_next_job_only_when_the_one_before_has_ended() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let mut lanes = Lanes::default();
        for (lane, job) in [(&a, "a1"), (&a, "a2"), (&b, "b1"), (&a, "a3")] {
            lanes.push(Some(lane), job);
        }
        lanes.push(None, "free1");
        lanes.push(None, "free2");
        assert_eq!(taken(&mut lanes), ["a1", "b1", "free1", "free2"]);
        lanes.end(None);
        assert_eq!(taken(&mut lanes), [""; 0]);
        lanes.end(Some(&a));
        lanes.end(Some(&b));
        assert_eq!(taken(&mut lanes), ["a2"]);
        lanes.push(Some(&b), "b2");
        assert_eq!(taken(&mut lanes), ["b2"], "an ended lane is free again");
        lanes.end(Some(&a));
        assert_eq!(taken(&mut lanes), ["a3"]);
        lanes.end(Some(&a));
        lanes.end(Some(&b));
        assert!(lanes.waiting.is_empty(), "an ended lane leaves nothing");
    }

    #[test]
    fn a_job_that_comes_back_from_a_wait_is_still_before_the_rest_of_its_lane() {
        let a = Bytes::from_static(b"a");
        let mut lanes = Lanes::default();
        lanes.push(Some(&a), "a1");
        lanes.push(Some(&a), "a2");
        assert_eq!(taken(&mut lanes), ["a1"]);
        lanes.push(None, "free");
        lanes.resume("a1");
        assert_eq!(taken(&mut lanes), ["a1", "free"]);
        lanes.end(Some(&a));
        assert_eq!(taken(&mut lanes), ["a2"]);
    }
}
