//! Records are read back unchanged from memory, from the index and from files.

use crate::{
    model::ids::Offset,
    storage::{CommitError, Log, NewSettlement, ReadError},
};

use super::{Bench, append, appends, at, fill, partition, record, settle, settles, texts};

#[tokio::test]
async fn records_are_read_back_as_they_were_also_after_a_crash() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let of = partition(&stream, 1);
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
    let other = partition(&stream, 0);
    let bounds = bench.engine().status(other).unwrap().bounds;
    assert_eq!(bounds.tail, Offset(0));
}

#[tokio::test]
async fn concurrent_commits_get_offsets_without_gaps_and_times_without_ties() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let engine = bench.engine();
    let commits = (0..500).map(|number: u16| {
        let of = partition(&stream, number % 2);
        engine.commit(appends([append(of, &[&number.to_string()])]))
    });
    let answers = futures_util::future::join_all(commits).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let mut times: Vec<_> = answers.iter().map(|answer| answer.time).collect();
    times.sort();
    times.dedup();
    assert_eq!(times.len(), 500);
    bench.crash();
    for part in 0..2 {
        let records = bench.all(partition(&stream, part)).await;
        assert_eq!(records.len(), 250);
        for (offset, record) in (0..).zip(&records) {
            assert_eq!(record.offset, Offset(offset));
            let number: usize = texts(std::slice::from_ref(record))[0].parse().unwrap();
            assert_eq!(answers[number].appends[0].first, record.offset);
            assert_eq!(answers[number].time, record.time);
        }
    }
}

#[tokio::test]
async fn a_commit_larger_than_a_file_and_than_the_queue_is_stored() {
    let mut bench = Bench::with(|log| log.queue_bytes_max = 1000);
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let large = "x".repeat(900 << 10);
    bench.append(of, &[&large, "small", &large]).await;
    bench.append(of, &["behind"]).await;
    for _ in 0..2 {
        assert_eq!(bench.values(of).await, [&large, "small", &large, "behind"]);
        bench.crash();
    }
}

#[tokio::test]
async fn records_of_many_files_are_read_in_order_from_anywhere() {
    let mut bench = Bench::with(|log| log.cache_bytes = 100 << 10);
    let stream = bench.stream("orders", 2).await;
    let of = partition(&stream, 0);
    fill(&bench, of, 60).await;
    bench.append(partition(&stream, 1), &["other"]).await;
    for round in 0..3 {
        for from in [0, 1, 29, 58, 59] {
            let records = bench.from(of, Offset(from)).await;
            assert_eq!(records.len() as u64, 60 - from, "round {round}");
            for (offset, record) in (from..).zip(&records) {
                assert_eq!(record.offset, Offset(offset));
                assert_eq!(record.record.value, format!("{offset:0>51200}"));
            }
        }
        let page = bench.engine().read(of, Offset(3), 160_000).await.unwrap();
        assert_eq!(page.records.len(), 3);
        assert_eq!(page.next, Offset(6));
        if round == 0 {
            bench.crash();
        } else {
            bench.reopen().await;
        }
    }
    assert!(bench.journal().len() >= 12);
}

#[tokio::test]
async fn a_page_at_the_tail_is_empty_and_one_below_the_earliest_is_refused() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a", "b", "c", "d"]).await;
    for from in [4, 100] {
        let page = bench.engine().read(of, Offset(from), 10).await.unwrap();
        assert!(page.records.is_empty());
        assert_eq!(page.next, Offset(4));
    }
    let done = settles([settle(of, 1, NewSettlement::Delivered)]);
    bench.engine().commit(done).await.unwrap();
    bench.engine().trim(of, Offset(3)).await.unwrap();
    bench.engine().trim(of, Offset(1)).await.unwrap();
    for _ in 0..2 {
        let trimmed = bench.engine().read(of, Offset(2), 10).await;
        assert!(matches!(
            trimmed,
            Err(ReadError::Trimmed {
                wanted: Offset(2),
                earliest: Offset(3)
            })
        ));
        let status = bench.engine().status(of).unwrap();
        assert_eq!(status.low_mark, Offset(3));
        assert_eq!((status.counts.expired, status.counts.delivered), (2, 1));
        assert_eq!(bench.values(of).await, ["d"]);
        let late = settles([settle(of, 0, NewSettlement::Delivered)]);
        let late = bench.engine().commit(late).await;
        assert!(matches!(late, Err(CommitError::AlreadySettled { .. })));
        bench.crash();
    }
    bench.engine().trim(of, Offset(u64::MAX)).await.unwrap();
    bench.crash();
    assert_eq!(
        bench.engine().status(of).unwrap().bounds.earliest,
        Offset(4)
    );
    assert_eq!(bench.append(of, &["e"]).await.appends[0].first, Offset(4));
}

#[tokio::test]
async fn a_time_finds_the_first_record_at_or_behind_it() {
    let mut bench = Bench::with(|log| log.cache_bytes = 0);
    bench.clock = crate::runtime::clock::Clock::manual(at(1_000_000));
    bench.crash();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let mut times = Vec::new();
    for number in 0..30u64 {
        bench.clock.set(at(2_000_000 + number * 1_000));
        let value = format!("{number:0>51200}");
        times.push(bench.append(of, &[&value, "second"]).await.time);
    }
    // A clock that goes back does not take time back.
    bench.clock.set(at(5));
    let late = bench.append(of, &["late"]).await.time;
    assert_eq!(late, times[29].plus_micros(1));
    bench.engine().trim(of, Offset(6)).await.unwrap();
    for round in 0..2 {
        let engine = bench.engine();
        for (number, time) in (0u64..).zip(&times) {
            let expected = Offset((number * 2).max(6));
            assert_eq!(
                engine.offset_at(of, *time).await.unwrap(),
                expected,
                "{round}"
            );
            let behind = Offset((number * 2 + 2).max(6));
            let after = time.plus_micros(1);
            assert_eq!(engine.offset_at(of, after).await.unwrap(), behind);
        }
        assert_eq!(engine.offset_at(of, at(0)).await.unwrap(), Offset(6));
        let never = engine.offset_at(of, late.plus_micros(1)).await;
        assert_eq!(never.unwrap(), Offset(61));
        bench.reopen().await;
    }
}

#[tokio::test]
async fn readers_of_records_keep_no_look_at_the_disk_away() {
    let bench = Bench::new();
    let engine = bench.engine();
    let (began, begun) = std::sync::mpsc::channel();
    let reads: Vec<_> = (0..8).map(|_| std::sync::mpsc::channel::<()>()).collect();
    let (ends, reads): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
    let mut reading = tokio::task::JoinSet::new();
    for wait in reads {
        let (reader, began) = (engine.reader.clone(), began.clone());
        reading.spawn(async move {
            let read = move |_: &super::super::read::reader::RecordReader| {
                began.send(()).unwrap();
                // It ends when its end is dropped.
                Ok(wait.recv().is_err())
            };
            reader.on_disk(read).await.unwrap()
        });
    }
    let all = tokio::task::spawn_blocking(move || begun.iter().take(8).count());
    assert_eq!(all.await.unwrap(), 8);
    let other = engine.reader.on_disk(|_| Ok(()));
    let mut other = std::pin::pin!(other);
    assert!(futures_util::poll!(&mut other).is_pending(), "all read");
    assert!(engine.space().await.unwrap().free_bytes > 0);
    drop(ends);
    other.await.unwrap();
    assert_eq!(reading.join_all().await, [true; 8]);
}
