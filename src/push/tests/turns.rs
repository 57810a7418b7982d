//! While a frame is made, others have their turn on the same thread.

use std::{sync::atomic::AtomicUsize, time::Instant};

use tokio_util::sync::CancellationToken;

use super::*;

/// Encodes as [`Places`] does, and keeps the thread busy with each record.
#[derive(Debug)]
struct Busy {
    time: Duration,
    /// How often each record asks for a break.
    breaks: usize,
    left: AtomicUsize,
}

impl Encode for Busy {
    fn record(
        &self,
        stream: &Stream,
        partition: Partition,
        record: &StoredRecord,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded {
        let until = Instant::now() + self.time;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        if self.left.load(Ordering::Relaxed) > 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
            return Encoded::NotYet;
        }
        self.left.store(self.breaks, Ordering::Relaxed);
        Places.record(stream, partition, record, now, pos, scratch, out)
    }

    fn event(
        &self,
        number: u64,
        event: &ControlEvent,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded {
        Places.event(number, event, now, pos, scratch, out)
    }

    fn preamble(&self, stream: &Stream, missing: Option<&Missing>) -> Vec<Vec<u8>> {
        Places.preamble(stream, missing)
    }

    fn gap(&self, stream: &Stream, missing: &Missing) -> Option<Vec<u8>> {
        Places.gap(stream, missing)
    }
}

/// Makes a frame of all records, and returns it with how often another task had its turn meanwhile.
async fn made(shown: &Shown, encode: Busy) -> (String, usize) {
    let quality = QualityOfService::ExactlyOnce;
    let hub = shown.hub_with(Box::new(encode), quality, 10 << 20);
    let begin = Begin::Earliest;
    let started = start(
        &shown.streams,
        shown.stream.id,
        &begin,
        shown.contract,
        quality,
    )
    .await;
    let place = started.unwrap().place;
    let (tasks, stop, turns) = (
        Tasks::new(),
        CancellationToken::new(),
        Arc::new(AtomicUsize::new(0)),
    );
    let (stopped, counted) = (stop.clone(), turns.clone());
    tasks.spawn("another", async move {
        while !stopped.is_cancelled() {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let frame = hub.next(&place).await.unwrap();
    let turns = turns.load(Ordering::Relaxed);
    stop.cancel();
    assert_eq!(tasks.join(Duration::from_secs(10)).await, 0);
    (String::from_utf8(frame.text().to_vec()).unwrap(), turns)
}

#[tokio::test]
async fn large_records_do_not_keep_a_thread_for_themselves() {
    let shown = Shown::new(1).await;
    for _ in 0..8 {
        shown.commit_value(&[0], "", &"x".repeat(70_000)).await;
    }
    let busy = Busy {
        time: Duration::from_millis(2),
        breaks: 0,
        left: AtomicUsize::new(0),
    };
    let (text, turns) = made(&shown, busy).await;
    assert_eq!(text.matches(".0.").count(), 8, "{text}");
    assert!(turns >= 7, "{turns}");
}

#[tokio::test]
async fn a_record_that_rules_look_at_for_long_is_looked_at_in_steps() {
    let shown = Shown::new(1).await;
    shown.commit(&[0], "").await;
    shown.commit(&[0], "").await;
    let busy = Busy {
        time: Duration::ZERO,
        breaks: 3,
        left: AtomicUsize::new(3),
    };
    let (text, turns) = made(&shown, busy).await;
    assert_eq!(text.matches(".0.").count(), 2, "{text}");
    assert!(turns >= 6, "{turns}");
}

#[tokio::test]
async fn a_frame_goes_on_being_made_while_its_reader_turns_to_something_else() {
    let shown = Shown::new(1).await;
    for _ in 0..8 {
        shown.commit_value(&[0], "", &"x".repeat(70_000)).await;
    }
    let busy = Busy {
        time: Duration::from_millis(2),
        breaks: 0,
        left: AtomicUsize::new(0),
    };
    let quality = QualityOfService::ExactlyOnce;
    let hub = shown.hub_with(Box::new(busy), quality, 10 << 20);
    let begin = Begin::Earliest;
    let started = start(
        &shown.streams,
        shown.stream.id,
        &begin,
        shown.contract,
        quality,
    );
    let place = started.await.unwrap().place;
    // Each look at it is over before the frame is made.
    let mut looks = 1;
    let frame = loop {
        if let Some(frame) = hub.next(&place).now_or_never() {
            break frame.unwrap();
        }
        tokio::task::yield_now().await;
        looks += 1;
        assert!(looks < 100, "it begins anew each time");
    };
    assert_eq!(
        frame.records_len(),
        9,
        "the making of the stream and eight records"
    );
    assert!(looks > 1, "it took more than one turn");
}
