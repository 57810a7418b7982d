//! The error streams of records whose retry fails.

use super::*;

#[tokio::test]
async fn a_failed_record_moves_by_the_mapping_with_its_origin_and_new_cause() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.sync("k", &message(target.address, "/x")).await;
    let first = target.next_call().await;
    let idempotency_key = first.header("idempotency-key")[0].to_owned();
    first.answer_with(503, &[], "down");
    gateway.settled().await;
    let before = gateway.record_at(UNAVAILABLE, 0).await;

    let mut request = gateway.request(UNAVAILABLE);
    request.mapping = gateway.mapping(&[("4xx", DEFAULT), ("404", INTERNAL)]);
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        let call = target.next_call().await;
        assert_eq!(call.header("idempotency-key"), [idempotency_key.as_str()]);
        call.answer(404);
    });
    assert_eq!(counts(&report), (0, 1, 0));
    assert_eq!(report.moved, 1);
    assert_eq!(report.by_status, [("404".to_owned(), 1)].into());
    let moved = gateway.record_at(INTERNAL, 0).await;
    assert_eq!(
        (&moved.record.key, &moved.record.value),
        (&before.record.key, &before.record.value)
    );
    let expected = [
        ("cause-status", "404"),
        ("cause-body", "-"),
        ("attempts", "2"),
        ("retries", "1"),
        ("origin-stream", SOURCE),
        ("origin-offset", "0"),
        ("message-id", header(&before, "message-id")),
        ("first-attempt-at", header(&before, "first-attempt-at")),
    ];
    for (name, value) in expected {
        assert_eq!(header(&moved, name), value, "{name}");
    }
    assert_ne!(
        header(&moved, "last-attempt-at"),
        header(&before, "last-attempt-at")
    );
    assert_eq!(gateway.counts(UNAVAILABLE).moved, 1);
    assert_eq!(
        gateway.counts(INTERNAL).appended[AppendKind::Moved as usize],
        1
    );

    // Without a status there is none in the headers either.
    drop(target);
    let retrier = gateway.retrier();
    let report = retry(&retrier, gateway.request(INTERNAL)).await;
    assert_eq!(counts(&report), (0, 1, 0));
    assert_eq!(report.by_status.keys().collect::<Vec<_>>(), ["reset"]);
    let moved = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(header(&moved, "cause-class"), "reset");
    assert_eq!(header(&moved, "cause-status"), "-");
    assert_eq!(header(&moved, "retries"), "2");
}

#[tokio::test]
async fn a_stream_mapped_to_itself_ends_at_its_first_tail_and_records_leave_after_the_greatest_count()
 {
    let target = StubTarget::always(500).await;
    let gateway = Harness::start(|config| config.retry.retries_max = 3).await;
    let retrier = gateway.retrier();
    gateway.failed(DEFAULT, target, 5).await;
    let mut after = None;
    for pass in 1..=2 {
        let mut request = gateway.request(DEFAULT);
        request.mapping = gateway.mapping(&[("default", DEFAULT)]);
        request.after = after;
        let report = retry(&retrier, request).await;
        assert_eq!(counts(&report), (0, 5, 0));
        assert!(report.end_of_stream);
        assert_eq!(report.last_read_offset, Some(Offset(pass * 5 - 1)));
        after = report.last_read_offset;
    }
    let mut last = gateway.request(DEFAULT);
    last.mapping = gateway.mapping(&[("500", DEFAULT)]);
    let report = retry(&retrier, last).await;
    assert_eq!(counts(&report), (0, 5, 10));
    assert_eq!(gateway.counts(DEFAULT).open_len(), 0);
    assert_eq!(gateway.counts(UNRECOVERABLE).open_len(), 5);
    assert_eq!(
        header(&gateway.record_at(UNRECOVERABLE, 0).await, "retries"),
        "3"
    );
}

/// Dispatch and retries have one outcome table. A mapping counts only in a request that gives one.
#[tokio::test]
async fn without_a_mapping_a_record_fails_into_the_stream_that_its_first_dispatch_would_choose() {
    for (status, stream) in [
        (503, UNAVAILABLE),
        (500, INTERNAL),
        (404, UNRECOVERABLE),
        (401, DEFAULT),
        (418, DEFAULT),
    ] {
        let target = StubTarget::always(status).await;
        let gateway = Harness::start(|_| {}).await;
        gateway.sync("k", &message(target, "/x")).await;
        gateway.settled().await;
        let first = gateway.record_at(stream, 0).await;
        let mut request = gateway.request(stream);
        request.mapping = ErrorMapping::default();
        let report = retry(&gateway.retrier(), request).await;
        assert_eq!((counts(&report), report.end_of_stream), ((0, 1, 0), true));
        assert_eq!(report.moved_to, [(stream.parse().unwrap(), 1)].into());
        let again = gateway.record_at(stream, 1).await;
        for name in [
            "cause-class",
            "cause-status",
            "cause-reason",
            "origin-offset",
        ] {
            assert_eq!(
                header(&again, name),
                header(&first, name),
                "{status} {name}"
            );
        }
        assert_eq!(header(&again, "retries"), "1");
        assert_eq!(gateway.counts(stream).open_len(), 1);
    }
}

#[tokio::test]
async fn every_cause_has_a_stream_even_if_the_mapping_names_none() {
    let target = StubTarget::always(404).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    let mut secret = message(target, "/x");
    secret["vaultSecretName"] = json!("gone");
    for message in [json!({}), secret, message(target, "/x")] {
        gateway
            .append(UNAVAILABLE, 0, vec![record("k", &message, &[])])
            .await;
    }
    let mut request = gateway.request(UNAVAILABLE);
    request.mapping = gateway.mapping(&[("500", INTERNAL), ("secret", INTERNAL)]);
    let report = retry(&retrier, request).await;
    assert_eq!(counts(&report), (0, 3, 0));
    let by_status = ["404", "invalid", "secret"].map(|cause| (cause.to_owned(), 1));
    assert_eq!(report.by_status, by_status.into());
    assert_eq!(gateway.counts(DEFAULT).open_len(), 2);
    assert_eq!(gateway.counts(INTERNAL).open_len(), 1);
    let moved = [(DEFAULT, 2), (INTERNAL, 1)].map(|(name, len)| (name.parse().unwrap(), len));
    assert_eq!(report.moved_to, moved.into());
}

#[tokio::test]
async fn a_record_out_of_retries_stays_in_the_unrecoverable_stream_and_a_loop_over_it_ends() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.retry.retries_max = 2).await;
    let retrier = gateway.retrier();
    let message = message(target.address, "/x");
    for (key, retries) in [("a", "0"), ("b", "1"), ("c", "2"), ("d", "9")] {
        let record = record(key, &message, &[("retries", retries)]);
        gateway.append(UNRECOVERABLE, 0, vec![record]).await;
    }
    let mut pass = gateway.request(UNRECOVERABLE);
    pass.mapping = gateway.mapping(&[("default", UNRECOVERABLE)]);
    pass.records_max = 1;
    let (reports, ()) = tokio::join!(
        async {
            let mut reports = Vec::new();
            loop {
                let report = retry(&retrier, pass.clone()).await;
                pass.after = report.last_read_offset;
                let ended = report.end_of_stream;
                reports.push(report);
                if ended {
                    return reports;
                }
                assert!(reports.len() < 20, "the loop does not end");
            }
        },
        async {
            // "a" is called three times, "b" twice, "c" and "d", which have failed as often as they may, once.
            for _ in 0..7 {
                target.next_call().await.answer(404);
            }
        }
    );
    let sum = |of: fn(&RetryReport) -> u64| reports.iter().map(of).sum::<u64>();
    assert_eq!((sum(|one| one.failed), sum(|one| one.moved)), (7, 3));
    assert!(target.waiting_call().is_none());
    let left = gateway.counts(UNRECOVERABLE);
    assert_eq!((left.moved, left.open_len()), (3, 4), "none is lost");
    let last = gateway.record_at(UNRECOVERABLE, 6).await;
    assert_eq!(header(&last, "retries"), "2");

    // It can still be delivered.
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNRECOVERABLE)), async {
        for _ in 0..4 {
            target.next_call().await.answer(200);
        }
    });
    assert_eq!(counts(&report), (4, 0, 3));
    assert_eq!(gateway.counts(UNRECOVERABLE).open_len(), 0);
}

/// A version replaces the one that a record came with only if it opens; of `long` version 4 is the newest for this target.
#[tokio::test]
async fn a_retry_names_the_version_of_the_secret_that_it_has_sent() {
    let refused = ("cause-class", "status");
    let statuses = ["401", "403", "404"].map(|status| [refused, ("cause-status", status)]);
    let [expired, forbidden, unknown] = statuses;
    let secret = [("cause-class", "secret"), ("cause-status", "")];
    let sent = |version: &str| Some(format!("Bearer {version}"));
    let token = || Some("Bearer token-of-the-target".to_owned());
    let newer = "; version 9 of the secret is newer, but was never presented for this target";
    let cases = [
        ("good", expired, sent("9"), "9", ""),
        ("good", forbidden, sent("9"), "9", ""),
        ("good", secret, sent("9"), "9", ""),
        ("good", unknown, sent("3"), "3", ""),
        ("long", expired, token(), "4", newer),
        // It does not open for this target, or at all: nothing is sent, and the record keeps its own.
        ("foreign", secret, None, "3", newer),
        ("sealed", secret, None, "3", ""),
        ("gone", secret, None, "3", ""),
    ];
    for (name, cause, sent, version, told) in cases {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|_| {}).await;
        let named = [("secret-name", name), ("secret-version", "3")];
        let headers = [&named[..], &cause].concat();
        let failed = record("k", &message(target.address, "/x"), &headers);
        gateway.append(UNAVAILABLE, 0, vec![failed]).await;
        let retrier = gateway.retrier();
        let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
            if let Some(sent) = &sent {
                let call = target.next_call().await;
                assert_eq!(call.header("authorization"), [sent.as_str()], "{name}");
                call.answer(401);
            }
        });
        assert_eq!(counts(&report), (0, 1, 0), "{name}");
        let copy = gateway.record_at(DEFAULT, 0).await;
        assert_eq!(header(&copy, "secret-version"), version, "{name}");
        let reason = header(&copy, "cause-reason");
        assert_eq!(reason.contains("; version"), !told.is_empty(), "{reason}");
        assert!(reason.ends_with(told), "{name}: {reason}");
    }
}
