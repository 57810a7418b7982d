//! The one order of delivery: resuming anywhere in it, and sharing it.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<u16>, bool),
    Grow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let commit = (vec(0..8_u16, 1..4), prop::bool::weighted(0.2));
    let step = prop_oneof![
        8 => commit.prop_map(|(partitions, left_out)| Step::Commit(partitions, left_out)),
        1 => Just(Step::Grow),
    ];
    vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_subscriber_that_resumes_anywhere_gets_exactly_the_rest(steps in steps(), partitions in 1..4_u16, frame_bytes in 1..600_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let shown = Shown::new(partitions).await;
            let mut partitions = partitions;
            // The creation of the stream, then its records and events, in order.
            let mut expected = vec!["event"];
            for step in steps {
                match step {
                    Step::Grow => {
                        partitions += 1;
                        shown.grow(partitions).await;
                        expected.push("event");
                    }
                    Step::Commit(into, left_out) => {
                        let mut into: Vec<_> = into.iter().map(|number| number % partitions).collect();
                        into.sort_unstable();
                        into.dedup();
                        if !left_out {
                            expected.extend(into.iter().map(|_| "record"));
                        }
                        shown.commit(&into, if left_out { "left out" } else { "" }).await;
                    }
                }
            }
            let hub = shown.hub(QualityOfService::ExactlyOnce, frame_bytes);
            let frames = shown.frames(&hub, &Begin::Earliest).await;
            for frame in &frames {
                prop_assert!(frame.text().len() <= frame_bytes || frame.records_len() <= 1);
                let of_frame = records(std::slice::from_ref(frame));
                let last = of_frame.last().map(|record| position(record));
                prop_assert_eq!(frame.last_pos(), last, "also if the rest was left out");
            }
            let all = records(&frames);
            let kind = |record: &String| match record.starts_with("event") {
                true => "event",
                false => "record",
            };
            let kinds: Vec<_> = all.iter().map(kind).collect();
            prop_assert_eq!(kinds, expected, "every record once, and events where they happened");
            let places: Vec<_> = all.iter().filter(|record| !record.starts_with("event")).collect();
            prop_assert!(places.is_sorted(), "{:?}", places);
            for (at, record) in all.iter().enumerate() {
                let begin = Begin::parse(position(record), &shown.key).unwrap();
                // Another hub, whose frames begin elsewhere, sends the same records.
                for hub in [&hub, &shown.hub(QualityOfService::ExactlyOnce, frame_bytes + 40)] {
                    let rest = records(&shown.frames(hub, &begin).await);
                    prop_assert_eq!(&rest[..], &all[at + 1..]);
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn subscribers_from_different_places_come_to_share_frames() {
    let shown = Shown::new(2).await;
    for n in 0..50 {
        shown.commit(&[n % 2], "").await;
    }
    let hub = shown.hub(QualityOfService::ExactlyOnce, 300);
    let first = shown.frames(&hub, &Begin::Earliest).await;
    let of_frame = records(&first[..3]);
    let begin = Begin::parse(position(&of_frame[of_frame.len() - 2]), &shown.key).unwrap();
    let second = shown.frames(&hub, &begin).await;
    // The first one ends where the next frame of the other begins.
    assert_eq!(records(&second[..1]), of_frame[of_frame.len() - 1..]);
    assert_eq!(second.len() - 1, first.len() - 3);
    for (one, other) in first[3..].iter().zip(&second[1..]) {
        assert!(Arc::ptr_eq(one, other));
    }
}

#[tokio::test]
async fn while_a_full_frame_is_sent_the_next_one_is_made() {
    let shown = Shown::new(1).await;
    for _ in 0..20 {
        shown.commit(&[0], "").await;
    }
    let hub = shown.hub(QualityOfService::ExactlyOnce, 300);
    let begun = start(
        &shown.streams,
        shown.stream.id,
        &Begin::Earliest,
        shown.contract,
        QualityOfService::ExactlyOnce,
    );
    let mut reader = FrameReader::new(hub.clone(), begun.await.unwrap().place);
    let mut frames = Vec::new();
    loop {
        let frame = hub.next(reader.place()).await.unwrap();
        reader.pass(&frame);
        frames.push(frame);
        if hub.parts().tasks.join(Duration::from_secs(5)).await > 0 {
            panic!("a task waits for something");
        }
        match hub.is_made(reader.place()) {
            true => {}
            false => break,
        }
    }
    // Nothing was asked for at the end of the log, and everything before it was there.
    assert_eq!(records(&frames).len(), 21);
    assert!(frames.len() > 3, "{}", frames.len());
}

#[tokio::test]
async fn subscribers_at_the_tail_share_the_next_frame() {
    let shown = Shown::new(1).await;
    shown.commit(&[0], "").await;
    let hub = shown.hub(QualityOfService::ExactlyOnce, 1 << 20);
    let frames = shown.frames(&hub, &Begin::Earliest).await;
    let place = frames.last().unwrap().behind().clone();
    let comes = async {
        tokio::task::yield_now().await;
        shown.commit(&[0], "").await;
    };
    let (one, other, ()) = tokio::join!(hub.next(&place), hub.next(&place), comes);
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
}
