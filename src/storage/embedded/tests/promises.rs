//! What callers are promised while nothing is damaged.

use crate::{
    place::{Offset, Partition, PartitionId, StreamId},
    storage::{
        Append, AppendKind, Appended, Commit, CommitError, ControlEventKind, Counts, DedupId,
        Epoch, Finish, Health, LeaseEvent, Leases, Log, MadeBy, NewEnd, ReadError, State,
        StateChange, StreamConfig, StreamError,
    },
};

use super::{Bench, append, appends, at, finish, finishes, put, record, states, texts};

#[tokio::test]
async fn records_are_read_back_as_they_were_also_after_a_crash() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let of = stream.partition(Partition(1)).unwrap();
    let first = bench.append(of, &["a", "b"]).await;
    let second = bench.append(of, &["c"]).await;
    assert!(second.time > first.time);
    assert_eq!(second.appends[0].first, Offset(2));
    for _ in 0..2 {
        let records = bench.all(of).await;
        assert_eq!(texts(&records), ["a", "b", "c"]);
        assert_eq!(records[0].record, record("a"));
        assert_eq!(records[1].time, first.time);
        assert_eq!(records[2].time, second.time);
        assert_eq!(records[2].offset, Offset(2));
        bench.crash();
    }
    assert_eq!(bench.append(of, &["d"]).await.appends[0].first, Offset(3));
    let other = stream.partition(Partition(0)).unwrap();
    assert_eq!(bench.engine().status(other).unwrap().bounds.tail, Offset(0));
}
