//! Purged streams: subscribers that had all records go on, others learn of the gap.

use super::*;

#[tokio::test]
async fn a_purge_is_sent_between_the_removed_records_and_the_next() {
    let shown = Shown::new(2).await;
    shown.commit(&[0, 1], "").await;
    shown.commit(&[0], "").await;
    let hub = |quality| shown.hub(quality, 1 << 20);
    let strict = hub(QualityOfService::ExactlyOnce);
    let before = records(&shown.frames(&strict, &Begin::Earliest).await);
    let at = |record: &String| Begin::parse(position(record), &shown.key).unwrap();
    shown.purge().await;
    shown.commit(&[1], "").await;
    shown.commit(&[0, 1], "").await;

    // Subscribers that had every record, and new ones.
    let rest = records(&shown.frames(&strict, &at(&before[3])).await);
    let is_event = |record: &String| record.starts_with("event 2 ");
    assert!(is_event(&rest[0]) && rest.len() == 4, "{rest:?}");
    let now = shown.engine.bounds(shown.stream.id).unwrap();
    let purged = now.stream.purged().unwrap().time;
    let later = Timestamp(purged.0 + 1);
    for (begin, from) in [
        (Begin::Earliest, 0),
        (Begin::Time(Timestamp(1)), 0),
        (Begin::Time(purged), 0),
        (Begin::Time(later), 1),
        (Begin::Now, 4),
    ] {
        let anew = hub(QualityOfService::ExactlyOnce);
        let seen = records(&shown.frames(&anew, &begin).await);
        assert_eq!(seen, rest[from..], "{begin:?}");
    }
    for (number, record) in rest.iter().enumerate() {
        for hub in [&strict, &hub(QualityOfService::ExactlyOnce)] {
            let behind = records(&shown.frames(hub, &at(record)).await);
            assert_eq!(behind, rest[number + 1..]);
        }
    }

    // Subscribers that have missed records.
    for record in &before[..3] {
        let begin = at(record);
        let Begin::Position(missed) = &begin else {
            panic!("{begin:?}");
        };
        let started = async |quality| {
            let (streams, stream) = (&shown.streams, shown.stream.id);
            start(streams, stream, &begin, shown.contract, quality).await
        };
        for quality in [QualityOfService::ExactlyOnce, QualityOfService::AtLeastOnce] {
            let refused = started(quality).await;
            assert!(matches!(refused, Err(StartRefused::Gone)), "{refused:?}");
            let overtaken = hub(quality).next(&missed.place).await;
            assert!(matches!(overtaken, Err(HubError::Overtaken)));
        }
        let lenient = hub(QualityOfService::AtMostOnce);
        let gap = lenient.next(&missed.place).await.unwrap();
        let said = String::from_utf8(gap.text().to_vec()).unwrap();
        assert!(said.starts_with("[gap [(Partition("), "{said}");
        let started = started(QualityOfService::AtMostOnce).await.unwrap();
        assert!(started.gap.is_some());
        assert_eq!(&started.place, gap.behind(), "connected or not");
        let frame = lenient.next(gap.behind()).await.unwrap();
        let on = records(&[frame]);
        // The first of them did not get the event of the creation.
        let on: Vec<_> = on.iter().filter(|r| !r.starts_with("event 1 ")).collect();
        assert_eq!(on, rest.iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_new_subscriber_gets_the_last_purge_until_more_is_removed() {
    let shown = Shown::new(2).await;
    shown.purge().await;
    shown.commit(&[0], "").await;
    shown.purge().await;
    shown.grow(3).await;
    shown.commit(&[0, 2], "").await;
    let anew = async || {
        let hub = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
        let seen = records(&shown.frames(&hub, &Begin::Earliest).await);
        let kind = |record: &String| record[..8].to_owned();
        seen.iter().map(kind).collect::<Vec<_>>()
    };
    let record = "00000000";
    assert_eq!(anew().await, ["event 3 ", "event 4 ", record, record]);
    let of = shown.stream.all_partitions().next().unwrap();
    shown.engine.trim(of, Offset(2)).await.unwrap();
    assert_eq!(anew().await, [record]);
}

/// A stream that held nothing has lost nothing.
#[tokio::test]
async fn a_purge_of_an_empty_stream_is_sent_after_its_creation() {
    let shown = Shown::new(1).await;
    shown.purge().await;
    let hub = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let waits = shown.frames(&hub, &Begin::Earliest).await;
    assert_eq!(records(&waits).len(), 2);
    let place = waits.last().unwrap().behind().clone();
    let comes = async {
        tokio::task::yield_now().await;
        shown.commit(&[0], "").await;
        shown.purge().await;
    };
    // Records that were purged before they were sent are reported as a gap, and not waited for.
    let (next, ()) = tokio::join!(hub.next(&place), comes);
    assert!(matches!(next, Err(HubError::Overtaken)), "{next:?}");
}
