//! Positions that are there, gone, or of something else.

use super::*;

#[tokio::test]
async fn removed_records_are_never_skipped_in_silence() {
    let shown = Shown::new(1).await;
    for _ in 0..9 {
        shown.commit(&[0], "").await;
    }
    let strict = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let lenient = shown.hub(QualityOfService::AtMostOnce, 1 << 20);
    let started = shown.frames(&strict, &Begin::Earliest).await;
    let third = Begin::parse(position(&records(&started)[3]), &shown.key).unwrap();
    let Begin::Position(at) = &third else {
        panic!("{third:?}");
    };
    let of = shown.stream.all_partitions().next().unwrap();
    shown.engine.trim(of, Offset(7)).await.unwrap();
    assert!(matches!(
        strict.next(&at.place).await,
        Err(HubError::Overtaken)
    ));
    assert_eq!(shown.gaps.counter().get(), 0);
    let gap = lenient.next(&at.place).await.unwrap();
    assert_eq!(shown.gaps.counter().get(), 1, "a gap is counted");
    assert_eq!(&gap.text()[..], b"[gap [(Partition(0), 3, 7)] ]");
    let rest = lenient.next(gap.behind()).await.unwrap();
    assert_eq!(rest.records_len(), 2);
    for (quality, goes_on) in [
        (QualityOfService::AtLeastOnce, false),
        (QualityOfService::AtMostOnce, true),
    ] {
        let started = start(
            &shown.streams,
            shown.stream.id,
            &third,
            shown.contract,
            quality,
        )
        .await;
        assert_eq!(started.is_ok(), goes_on);
    }
    // The event of the creation is not sent, because the records with it are gone.
    let kept = records(&shown.frames(&strict, &Begin::Earliest).await);
    assert_eq!(kept.len(), 2);
}

#[tokio::test]
async fn a_position_that_is_no_longer_there_is_refused_or_a_gap_and_a_foreign_one_is_always_refused()
 {
    let shown = Shown::new(2).await;
    for n in 0..10 {
        shown.commit(&[n % 2], "").await;
    }
    for of in shown.stream.all_partitions() {
        shown.engine.trim(of, Offset(3)).await.unwrap();
    }
    let (own, life) = (shown.contract, shown.stream.incarnation);
    let other = Incarnation(life.0 + 1);
    let foreign = Contract::new("s2", "Shown", "append");
    let anew: Option<Vec<_>> = Some(Vec::new());
    let both = (0..2).map(|number| (Partition(number), u64::from(number), 3));
    for (contract, incarnation, events, next, expected) in [
        // These places exist: the first kept record, one in the middle, the tail, and one from before the stream
        // grew.
        (own, life, 1, vec![3, 3], Ok(None)),
        (own, life, 1, vec![5, 4], Ok(None)),
        (own, life, 1, vec![5, 5], Ok(None)),
        (own, life, 0, vec![3, 3], Ok(None)),
        (
            own,
            life,
            1,
            vec![2, 3],
            Ok(Some(vec![(Partition(0), 2, 3)])),
        ),
        (own, life, 1, vec![0, 1], Ok(Some(both.collect()))),
        (own, life, 1, vec![5], Ok(Some(vec![(Partition(1), 0, 3)]))),
        // Above a tail, more partitions or events than there are, another life.
        (own, life, 1, vec![6, 3], Ok(anew.clone())),
        (own, life, 1, vec![3, 6], Ok(anew.clone())),
        (own, life, 1, vec![3, 3, 0], Ok(anew.clone())),
        (own, life, 2, vec![3, 3], Ok(anew.clone())),
        (own, other, 1, vec![3, 3], Ok(anew.clone())),
        (own, other, 1, vec![0, 0], Ok(anew)),
        (foreign, life, 1, vec![3, 3], Err(())),
        (foreign, other, 1, vec![3, 3], Err(())),
    ] {
        let place = StreamPlace { events, next };
        let position = ClientPosition {
            contract,
            incarnation,
            place: place.clone(),
        };
        let begin = Begin::Position(position);
        for quality in [
            QualityOfService::ExactlyOnce,
            QualityOfService::AtLeastOnce,
            QualityOfService::AtMostOnce,
        ] {
            let begun = start(&shown.streams, shown.stream.id, &begin, own, quality).await;
            let goes_on = quality == QualityOfService::AtMostOnce;
            match (&expected, begun) {
                (Ok(None), Ok(begun)) => {
                    assert_eq!((begun.place, begun.gap), (place.clone(), None))
                }
                (Ok(gap), Ok(begun)) => {
                    assert!(goes_on, "{place:?} {quality:?}");
                    assert_eq!(begun.gap, *gap);
                    // It continues with the first kept record.
                    let kept = [place.next.first(), place.next.get(1)];
                    let kept = kept.map(|next| match gap.as_deref() {
                        Some([]) => 3,
                        _ => next.copied().unwrap_or(0).max(3),
                    });
                    assert_eq!(begun.place.next, kept);
                }
                (Ok(_), Err(refused)) => {
                    assert!(
                        !goes_on && matches!(refused, StartRefused::Gone),
                        "{place:?}"
                    );
                }
                (Err(()), refused) => assert!(matches!(refused, Err(StartRefused::Foreign))),
            }
        }
    }
}

#[tokio::test]
async fn lost_records_are_never_skipped_in_silence() {
    let shown = Shown::new(2).await;
    for n in 0..12 {
        shown.commit(&[n % 2], "").await;
    }
    let partitions: Vec<_> = shown.stream.all_partitions().collect();
    let whole = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let all = records(&shown.frames(&whole, &Begin::Earliest).await);
    shown.engine.lose(partitions[0], 2..4);
    let is_lost = |record: &&String| [".0.2 ", ".0.3 "].iter().any(|lost| record.contains(lost));
    // The event is sent after the last record before it, whatever comes next in other partitions.
    let before = &all[..4];
    let strict = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let first = strict.next(&StreamPlace::default()).await.unwrap();
    assert_eq!(records(std::slice::from_ref(&first)), before);
    let overtaken = strict.next(first.behind()).await;
    assert!(matches!(overtaken, Err(HubError::Overtaken)));

    let lenient = shown.hub(QualityOfService::AtMostOnce, 1 << 20);
    let frames = shown.frames(&lenient, &Begin::Earliest).await;
    assert_eq!(&frames[1].text()[..], b"[gap [(Partition(0), 2, 4)] ]");
    assert_eq!(records(&frames[..1]), before);
    // Positions are different: the gap is after all of them.
    let places = |records: &[String]| {
        let kept = records.iter().filter(|record| !is_lost(record));
        let place = |record: &String| record.split(' ').next().unwrap_or_default().to_owned();
        kept.map(place).collect::<Vec<_>>()
    };
    assert_eq!(places(&records(&frames[2..])), places(&all[4..]));
    assert_eq!(shown.gaps.counter().get(), 1);

    // A client with a position before the purge, and a new client.
    let begin = Begin::parse(position(&before[3]), &shown.key).unwrap();
    let started = async |begin, quality| {
        let (streams, stream) = (&shown.streams, shown.stream.id);
        start(streams, stream, begin, shown.contract, quality).await
    };
    let refused = started(&begin, QualityOfService::ExactlyOnce).await;
    assert!(matches!(refused, Err(StartRefused::Gone)), "{refused:?}");
    let goes_on = started(&begin, QualityOfService::AtMostOnce).await.unwrap();
    assert_eq!(goes_on.gap, Some(vec![(Partition(0), 2, 4)]));
    assert_eq!(&goes_on.place, frames[1].behind());
    shown.engine.lose(partitions[1], 0..3);
    let anew = started(&Begin::Earliest, QualityOfService::ExactlyOnce).await;
    assert_eq!(anew.unwrap().place.next, [0, 3]);
}
