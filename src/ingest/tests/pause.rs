//! Waits: for a pause, for the log, and for large bodies.

use super::*;

#[tokio::test]
async fn a_log_that_does_not_answer_leaves_it_open_whether_it_was_stored() {
    let mut bench = bench(1, |_| {}).await;
    bench.ingest.patience = Duration::ZERO;
    bench.engine.fall_silent();
    let error = in_time(bench.json(GOOD)).await.unwrap_err();
    assert!(matches!(error, Error::Unanswered), "{error}");
    assert_eq!(bench.records(0).await.len(), 1);
}

#[tokio::test]
async fn a_pause_that_does_not_end_refuses() {
    let mut bench = bench(1, |_| {}).await;
    bench.ingest.patience = Duration::ZERO;
    let _pause = bench.ingest.pause().await.unwrap();
    let error = in_time(bench.json(GOOD)).await.unwrap_err();
    assert!(matches!(error, Error::Commit(CommitError::Busy)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_its_wait_for_a_log_that_does_not_answer() {
    let bench = bench(1, |_| {}).await;
    bench.engine.fall_silent();
    let mut sent = Box::pin(bench.json(GOOD));
    assert!(futures_util::poll!(&mut sent).is_pending());
    let begun = Instant::now();
    assert!(bench.ingest.pause().await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    // Later submissions do not wait any more.
    assert!(bench.ingest.pause_lock.try_read().is_ok());
    drop(sent);
    bench.ingest.pause().await.unwrap();
}

#[tokio::test]
async fn a_pause_keeps_submissions_waiting() {
    let bench = bench(1, |_| {}).await;
    let pause = bench.ingest.pause().await.unwrap();
    let mut sent = Box::pin(bench.json(GOOD));
    assert!(futures_util::poll!(&mut sent).is_pending());
    drop(pause);
    sent.await.unwrap();
    bench.engine.set_health(Health::Running);
}

/// Else a stream could grow between the choice of a partition and the append.
#[tokio::test]
async fn a_pause_begins_when_submissions_under_way_have_their_answers() {
    let bench = bench(1, |_| {}).await;
    bench.engine.hold(true);
    let mut sent = Box::pin(bench.json(GOOD));
    assert!(futures_util::poll!(&mut sent).is_pending());
    assert_eq!(bench.engine.held_len(), 1, "the log has it");
    let mut pause = Box::pin(bench.ingest.pause());
    assert!(futures_util::poll!(&mut pause).is_pending());
    bench.engine.hold(false);
    in_time(sent).await.unwrap();
    let _pause = in_time(pause).await;
    assert_eq!(bench.records(0).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn digest_and_reading_of_a_large_body_wait_for_their_turn_and_small_ones_do_not() {
    let bench = bench(1, |_| {}).await;
    let large = Bytes::from(vec![with("18jan", &"x".repeat(8_000)); 1_000].join("\n"));
    let submission = |body: &Bytes, key| Submission {
        source: "default",
        body: body.clone(),
        form: Form::Lines,
        token: None,
        traceparent: None,
        key,
    };
    let key = IdempotencyKey::read(b"key");
    let first = bench.ingest.submit(submission(&large, key)).await;
    assert_eq!(first.unwrap().placed.len(), 1_000);
    let turns = bench.ingest.heavy.all_turns().await;
    // Under the key it has been stored, so that only its digest is needed.
    for key in [None, key] {
        let refused = bench.ingest.submit(submission(&large, key)).await;
        let refused = refused.map(|accepted| accepted.placed.len());
        let is_busy = matches!(refused, Err(Error::Commit(CommitError::Busy)));
        assert!(is_busy, "{refused:?}");
        let small = Bytes::from_static(GOOD.as_bytes());
        bench.ingest.submit(submission(&small, None)).await.unwrap();
    }
    drop(turns);
    let again = bench.ingest.submit(submission(&large, key)).await;
    assert!(again.unwrap().repeated);
}
