use std::hash::RandomState;

use super::*;
use crate::{
    model::ids::{Incarnation, StreamId},
    runtime::clock::Timestamp,
    storage::{ControlEvent, StreamConfig, memory::Memory},
};

const ID: StreamId = StreamId([7; 16]);

/// A stream that was made with one partition and has grown so: each time to so many, with the tails of then.
fn grown(growths: &[(u16, &[u64])]) -> Arc<Stream> {
    let event = |kind, tails: &[u64], partitions: u16| {
        let mut tails: Vec<_> = tails.iter().copied().map(Offset).collect();
        tails.resize(partitions.into(), Offset(0));
        ControlEvent {
            kind,
            time: Timestamp(0),
            tails,
        }
    };
    let mut events = vec![event(ControlEventKind::Created { partitions: 1 }, &[], 1)];
    let mut partitions = 1;
    for (now, tails) in growths {
        partitions = *now;
        let kind = ControlEventKind::Grown { partitions };
        events.push(event(kind, tails, partitions));
    }
    Arc::new(Stream {
        id: ID,
        incarnation: Incarnation(1),
        name: "DataSyncStream".parse().unwrap(),
        partitions,
        config: StreamConfig::default(),
        revision: 1,
        events,
        last_purge: None,
    })
}

fn origin(text: &str) -> Option<TargetId> {
    Some(TargetId::of(text))
}

impl Wait {
    /// One for a target as a whole.
    pub(in crate::dispatch) fn for_target(lane: Lane) -> Self {
        Self {
            event: 1,
            before: Partition(0),
            lane,
            for_lane: false,
        }
    }

    /// One for a lane alone.
    pub(in crate::dispatch) fn for_lane(lane: Lane) -> Self {
        Self {
            for_lane: true,
            ..Self::for_target(lane)
        }
    }
}

/// Growth barriers of the partitions of one stream.
struct Fixture {
    streams: Streams,
    progress: Progress,
    state: RandomState,
}

impl Fixture {
    fn new() -> Self {
        Self {
            streams: Streams::new(Memory::new()),
            progress: Progress::default(),
            state: RandomState::new(),
        }
    }

    fn barrier(&self, partition: u16, stream: &Arc<Stream>) -> GrowthBarrier {
        let of = PartitionId {
            stream: ID,
            partition: Partition(partition),
        };
        let mut barrier = GrowthBarrier::new(&self.streams, &self.progress, of);
        barrier.take(stream.clone());
        barrier
    }

    fn lane(&self, origin: &Option<TargetId>, key: &str) -> Lane {
        Lane::new(&self.state, origin.as_ref().unwrap(), key.as_bytes())
    }

    /// Returns the partition that a record waits for.
    fn waits(
        &self,
        barrier: &mut GrowthBarrier,
        at: u64,
        key: &str,
        origin: &Option<TargetId>,
    ) -> Option<u16> {
        barrier.renew();
        let lane = || Some(self.lane(origin, key));
        let wait = barrier.wait_of(Offset(at), key.as_bytes(), origin, lane)?;
        assert!(!barrier.is_over(&wait, origin.as_ref().unwrap()));
        Some(wait.before.0)
    }
}

/// A key whose partition among 1, 2, 3 … is as given.
fn key_with(partitions: &[u16]) -> String {
    let fits = |key: &String| {
        let mut counts = (1..).zip(partitions);
        counts.all(|(count, at)| Streams::partition_of(key.as_bytes(), count).0 == *at)
    };
    (0..).map(|at| format!("key{at}")).find(fits).unwrap()
}

#[test]
fn a_record_waits_until_its_target_is_past_the_tail_that_its_key_had_before() {
    let all = Fixture::new();
    let stream = grown(&[(2, &[50])]);
    let (mut old, mut new) = (all.barrier(0, &stream), all.barrier(1, &stream));
    let (a, b) = (origin("http://a"), origin("http://b"));
    let key = key_with(&[0, 1]);
    assert_eq!(all.waits(&mut new, 0, &key, &a), Some(0), "nobody began");
    let mut lagging = Lagging::default();
    old.show(&lagging, Offset(49));
    assert_eq!(all.waits(&mut new, 0, &key, &a), Some(0));
    assert!(lagging.start_lagging(a.clone(), Offset(49), None, 9));
    assert!(lagging.start_lagging(None, Offset(3), None, 9));
    old.show(&lagging, Offset(50));
    assert_eq!(all.waits(&mut new, 0, &key, &a), Some(0));
    assert_eq!(all.waits(&mut new, 0, &key, &b), None);
    assert_eq!(new.wait_of(Offset(0), b"", &b, || None), None, "no lane");
    // What was there before, and a key that stays, wait for nothing.
    assert_eq!(all.waits(&mut old, 49, &key, &a), None);
    assert_eq!(all.waits(&mut old, 50, &key_with(&[0, 0]), &a), None);
    assert!(new.is_open(), "a is not past it");
    let mut lagging = Lagging::default();
    assert!(lagging.start_lagging(a.clone(), Offset(50), None, 9));
    old.show(&lagging, Offset(60));
    assert_eq!(all.waits(&mut new, 0, &key, &a), None);
    assert!(!new.is_open(), "it costs nothing any more");
    let shown = old.all.borrow().clone();
    old.show(&Lagging::default(), Offset(70));
    assert_eq!(*old.all.borrow(), shown, "there is nothing more to show");
}

#[test]
fn a_lagging_lane_makes_no_other_lane_wait() {
    let all = Fixture::new();
    let stream = grown(&[(2, &[50])]);
    let (mut old, mut new) = (all.barrier(0, &stream), all.barrier(1, &stream));
    let a = origin("http://a");
    let hot = key_with(&[0, 1]);
    let mut lagging = Lagging::default();
    lagging.lane_full(all.lane(&a, &hot), &a, Offset(20));
    old.show(&lagging, Offset(50));
    assert_eq!(all.waits(&mut new, 0, &hot, &a), Some(0));
    let other = format!("{hot}x");
    let other = (0..).map(|at| format!("{other}{at}"));
    let mut moved = other.filter(|key| Streams::partition_of(key.as_bytes(), 2).0 == 1);
    assert_eq!(all.waits(&mut new, 0, &moved.next().unwrap(), &a), None);
}

#[test]
fn every_growth_before_a_record_is_looked_at() {
    let all = Fixture::new();
    let (a, key) = (origin("http://a"), key_with(&[0, 1, 2]));
    let stream = grown(&[(2, &[50]), (3, &[60, 10])]);
    let [mut first, mut second, mut third] = [0, 1, 2].map(|at| all.barrier(at, &stream));
    second.show(&Lagging::default(), Offset(10));
    // The key had no records in between, but some in the first partition.
    assert_eq!(all.waits(&mut third, 0, &key, &a), Some(0));
    first.show(&Lagging::default(), Offset(50));
    assert_eq!(all.waits(&mut third, 0, &key, &a), None);
    assert!(third.is_open(), "others may have to wait for the second");
    // Between the growths only the first one counts.
    assert_eq!(all.waits(&mut second, 9, &key, &a), None);
    let stays = key_with(&[0, 0, 1]);
    assert_eq!(all.waits(&mut second, 9, &stays, &a), None);
    assert_eq!(all.waits(&mut second, 10, &stays, &a), Some(0));
    first.show(&Lagging::default(), Offset(60));
    assert_eq!(all.waits(&mut second, 10, &stays, &a), None);
    assert!(!second.is_open());
}

#[test]
fn a_growth_that_comes_later_is_open_until_all_are_past_it_too() {
    let all = Fixture::new();
    let stream = grown(&[(2, &[50])]);
    let [mut first, mut second] = [0, 1].map(|at| all.barrier(at, &stream));
    first.show(&Lagging::default(), Offset(80));
    second.renew();
    assert!(!second.is_open());
    let stream = grown(&[(2, &[50]), (3, &[80, 7])]);
    let mut third = all.barrier(2, &stream);
    second.take(stream.clone());
    let key = key_with(&[0, 0, 2]);
    assert_eq!(all.waits(&mut third, 0, &key, &origin("http://a")), Some(0));
    // Idle as it is, it shows where it stands once it knows.
    first.take(stream);
    first.show(&Lagging::default(), Offset(80));
    assert_eq!(all.waits(&mut third, 0, &key, &origin("http://a")), None);
}

#[test]
fn progress_of_a_stopped_owner_does_not_count_but_its_successors_does() {
    let all = Fixture::new();
    let stream = grown(&[(2, &[50])]);
    let (mut old, mut new) = (all.barrier(0, &stream), all.barrier(1, &stream));
    let (a, key) = (origin("http://a"), key_with(&[0, 1]));
    let mut lagging = Lagging::default();
    assert!(lagging.start_lagging(origin("http://b"), Offset(1), None, 9));
    old.show(&lagging, Offset(50));
    assert_eq!(all.waits(&mut new, 0, &key, &a), None);
    old.withdraw();
    assert_eq!(all.waits(&mut new, 0, &key, &a), Some(0));
    let mut again = all.barrier(0, &stream);
    old.show(&Lagging::default(), Offset(49));
    again.show(&lagging, Offset(50));
    drop(old);
    assert_eq!(all.waits(&mut new, 0, &key, &a), None);
}
