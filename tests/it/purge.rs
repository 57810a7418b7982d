//! `POST /v1/streams/{stream}/purge`: everything goes at once, the books balance, and nobody calls what is gone.

use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, run_on, within};

const SOURCE: &str = "DataSyncStream";
const UNAVAILABLE: &str = "ServerUnavailableStream";

async fn purge(gateway: &Gateway, stream: &str, body: &Value) -> crate::testkit::Answer {
    let path = format!("/v1/streams/{stream}/purge");
    gateway.post(&path, body).await
}

async fn send(gateway: &Gateway, target: &StubTarget, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let message = keyed(&format!("k{n}"), &target.url("/x"), json!({ "n": n }));
        gateway.sync(&message).await;
    }
}

/// The ledger's row of a stream; the whole of it balances.
async fn row(gateway: &Gateway, stream: &str) -> Value {
    let path = format!("/v1/ledger?stream={stream}");
    let ledger = gateway.get(&path).await.ok();
    assert_eq!(ledger["balanced"], true, "{ledger}");
    assert_eq!(ledger["total"]["difference"], 0, "{ledger}");
    ledger["streams"][0].clone()
}

#[track_caller]
fn check_journal(place: &Place) {
    let (code, report, said) = run_on(&["verify"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""), "{report}");
    assert_eq!(report["balanced"], true, "{report}");
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""), "{report}");
}

#[tokio::test]
async fn an_error_stream_is_purged_for_good_and_its_open_records_are_discarded() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::start();
    send(&gateway, &target, 0..4).await;
    gateway.record(UNAVAILABLE, 4).await;
    gateway.drained(SOURCE).await;
    target.now(|_| Act::status(200));
    gateway.retry(UNAVAILABLE, -1, 1).await;
    let done = purge(&gateway, UNAVAILABLE, &json!({"reason": "wrong target"})).await;
    let done = done.ok();
    assert_eq!(
        (&done["removed"], &done["discarded"]),
        (&json!(4), &json!(3))
    );
    let mut gateway = gateway;
    for _ in 0..2 {
        assert_eq!(gateway.records(UNAVAILABLE).await, [json!(null); 0]);
        let first = format!("/v1/streams/{UNAVAILABLE}/partitions/0/records/0");
        let gone = gateway.get(&first).await.problem(410, "offset_trimmed");
        assert_eq!(gone["earliest"], 4);
        let books = row(&gateway, UNAVAILABLE).await;
        let count = |name: &str| books[name].as_u64().unwrap();
        assert_eq!(
            ["received", "delivered", "discarded", "inErrorStreams"].map(count),
            [4, 1, 3, 0]
        );
        let stream = gateway.get(&format!("/v1/streams/{UNAVAILABLE}")).await;
        let last = stream.ok()["lastPurge"].clone();
        assert_eq!(last["reason"], "wrong target");
        assert_eq!(last["at"], done["at"]);
        // Without a word of that the answer stands: it is on disk.
        let place = gateway.kill();
        check_journal(&place);
        gateway = place.start();
    }
    let said = gateway.place().log();
    let line = said.lines().find(|line| line.contains("stream purged"));
    let line = line.expect("a line of the log");
    for part in [
        "WARN",
        UNAVAILABLE,
        "wrong target",
        "removed=4",
        "discarded=3",
    ] {
        assert!(line.contains(part), "{line}");
    }
    // Nothing of it is retried, and offsets go on.
    let report = gateway.retry(UNAVAILABLE, -1, 100).await;
    assert_eq!(
        (&report["attempted"], &report["endOfStream"]),
        (&json!(0), &json!(true))
    );
    target.now(|_| Act::status(503));
    send(&gateway, &target, 4..5).await;
    let failed = gateway.record(UNAVAILABLE, 1).await;
    assert_eq!(failed["offset"], 4);
    assert_eq!(row(&gateway, UNAVAILABLE).await["inErrorStreams"], 1);
}

#[tokio::test]
async fn what_waits_is_purged_only_if_asked_for_and_is_called_no_more() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let config = "[dispatch]\nin_flight_max = 2\nqueue_len_max = 8\n[server]\ngrace_ms = 50\n";
    let gateway = Gateway::with_config(config);
    send(&gateway, &target, 0..40).await;
    target.wait_for_calls(2).await;
    let refused = purge(&gateway, SOURCE, &json!({"reason": "x"})).await;
    let told = refused.problem(409, "stream_in_use");
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.starts_with("40 of its records wait"), "{detail}");
    assert_eq!(row(&gateway, SOURCE).await["pending"], 40);
    let all = json!({"reason": "x", "discardPending": true});
    let done = purge(&gateway, SOURCE, &all).await.ok();
    assert_eq!(
        (&done["removed"], &done["discarded"]),
        (&json!(40), &json!(40))
    );
    let books = row(&gateway, SOURCE).await;
    assert_eq!(
        (&books["discarded"], &books["pending"]),
        (&json!(40), &json!(0))
    );
    // The two that were in flight are answered, and end nothing any more.
    target.release(100);
    target.now(|_| Act::status(200));
    send(&gateway, &target, 100..103).await;
    gateway.drained(SOURCE).await;
    let numbers = |target: &StubTarget| {
        let calls = target.calls();
        let numbers = calls.iter().map(|call| call.json()["n"].as_u64().unwrap());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(&target), [0, 1, 100, 101, 102]);
    let mut gateway = gateway;
    for _ in 0..2 {
        let books = row(&gateway, SOURCE).await;
        assert_eq!(
            (&books["accepted"], &books["discarded"], &books["delivered"]),
            (&json!(43), &json!(40), &json!(3))
        );
        let place = gateway.kill();
        check_journal(&place);
        gateway = place.start();
    }
    send(&gateway, &target, 200..201).await;
    gateway.drained(SOURCE).await;
    assert_eq!(numbers(&target), [0, 1, 100, 101, 102, 200]);
}

#[tokio::test]
async fn a_retry_that_runs_keeps_a_purge_away_and_the_other_way_round_nothing_is_lost() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::start();
    send(&gateway, &target, 0..1).await;
    gateway.record(UNAVAILABLE, 1).await;
    target.now(|_| Act::Hold);
    let reason = json!({"reason": "x"});
    let (report, ()) = tokio::join!(gateway.retry(UNAVAILABLE, -1, 1), async {
        target.wait_for_calls(2).await;
        let refused = purge(&gateway, UNAVAILABLE, &reason).await;
        refused.problem(409, "retry_running");
        target.release(1);
    });
    assert_eq!(report["processedmessages"], 1);
    let done = purge(&gateway, UNAVAILABLE, &reason).await.ok();
    assert_eq!(
        (&done["removed"], &done["discarded"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(row(&gateway, UNAVAILABLE).await["delivered"], 1);
}

#[tokio::test]
async fn a_purge_needs_a_reason_and_nothing_that_is_not_known() {
    let gateway = Gateway::with_config("[[streams]]\nname = \"Mine\"\npartitions = 2\n");
    for (body, pointer, code, right) in [
        (json!({}), "/reason", "required", "missing"),
        (json!({"reason": 7}), "/reason", "wrong_type", "a string"),
        (json!({"reason": ""}), "/reason", "wrong_type", "one line"),
        (
            json!({"reason": "x".repeat(1_025)}),
            "/reason",
            "too_long",
            "1024",
        ),
        (
            json!({"reason": "x", "discardPending": "yes"}),
            "/discardPending",
            "wrong_type",
            "true or false",
        ),
        (
            json!({"reason": "x", "force": true}),
            "/force",
            "unknown_member",
            "reason, discardPending",
        ),
    ] {
        let refused = purge(&gateway, "Mine", &body).await;
        let told = refused.problem(400, "invalid_request");
        let fault = &told["errors"][0];
        assert_eq!(
            (&fault["pointer"], &fault["code"]),
            (&json!(pointer), &json!(code)),
            "{told}"
        );
        assert!(fault["detail"].as_str().unwrap().contains(right), "{told}");
    }
    let done = purge(&gateway, "Mine", &json!({"reason": "it is configured"})).await;
    assert_eq!(done.ok()["partitions"].as_array().unwrap().len(), 2);
    purge(&gateway, "Nowhere", &json!({"reason": "x"}))
        .await
        .problem(404, "stream_unknown");
    // The next start leaves what is known of it.
    let gateway = gateway.stop().await.start();
    let stream = gateway.get("/v1/streams/Mine").await.ok();
    assert_eq!(stream["lastPurge"]["reason"], "it is configured");
}

/// Killed at any moment of a purge, all of it is there or nothing.
#[tokio::test]
async fn killed_around_purges_the_books_balance_and_no_answer_was_wrong() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let mut random = crate::crash::Random(std::process::id().into());
    let mut place = Place::new();
    let (mut accepted, mut discarded) = (0, 0);
    for _ in 0..8 {
        let gateway = place.start();
        send(&gateway, &target, accepted..accepted + 5).await;
        accepted += 5;
        let open = json!({"reason": "again", "discardPending": true});
        let request = gateway
            .request(
                reqwest::Method::POST,
                &format!("/v1/streams/{SOURCE}/purge"),
            )
            .json(&open);
        // The moment of the kill is the one thing here that is meant to be random.
        let wait = std::time::Duration::from_micros(random.below(4_000));
        let answer = tokio::spawn(request.send());
        tokio::time::sleep(wait).await;
        place = gateway.kill();
        let answered = within("an answer or none", answer).await.unwrap();
        check_journal(&place);
        let gateway = place.start();
        let books = row(&gateway, SOURCE).await;
        let count = |name: &str| books[name].as_u64().unwrap();
        assert_eq!(count("accepted"), accepted);
        assert!(
            [discarded, accepted].contains(&count("discarded")),
            "{books}"
        );
        if answered.is_ok_and(|answer| answer.status() == 200) {
            assert_eq!(count("discarded"), accepted, "{books}");
        }
        discarded = count("discarded");
        assert_eq!(count("pending"), accepted - discarded);
        place = gateway.kill();
    }
}
