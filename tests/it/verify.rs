//! The books from outside: `GET /v1/ledger` and `syncgate verify`.

use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, run_on, syncgate};

const UNAVAILABLE: &str = "ServerUnavailableStream";

/// Three delivered, four failed with 503; of these two were retried, one of them with success, and all have ended.
async fn lived() -> Gateway {
    let target = StubTarget::with(|call| match call.path.as_str() {
        "/down" => Act::status(503),
        _ => Act::status(200),
    })
    .await;
    let gateway = Gateway::start();
    let messages: Vec<_> = (0..7)
        .map(|n| {
            let path = if n < 3 { "/up" } else { "/down" };
            keyed(&format!("k{n}"), &target.url(path), json!({ "n": n }))
        })
        .collect();
    gateway.sync_all(&messages).await;
    gateway.record(UNAVAILABLE, 4).await;
    gateway.drained("DataSyncStream").await;
    gateway.retry(UNAVAILABLE, -1, 1).await;
    target.now(|_| Act::status(200));
    gateway.retry(UNAVAILABLE, 0, 1).await;
    gateway
}

fn offline(place: &Place) -> (Option<i32>, Value, String) {
    run_on(&["verify"], &place.data())
}

fn row<'a>(report: &'a Value, stream: &str) -> &'a Value {
    let streams = report["streams"].as_array().unwrap();
    let found = streams.iter().find(|row| row["stream"] == stream);
    found.expect("a row of the stream")
}

#[tokio::test]
async fn the_books_balance_while_it_runs_and_after_it_was_killed() {
    let gateway = lived().await;
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let total = &ledger["total"];
    assert_eq!(
        (&total["accepted"], &total["delivered"]),
        (&json!(7), &json!(4))
    );
    assert_eq!(
        (&total["inErrorStreams"], &total["pending"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(total["difference"], 0);
    let source = row(&ledger, "DataSyncStream");
    assert_eq!(
        (&source["delivered"], &source["moved"]),
        (&json!(3), &json!(4))
    );
    let errors = row(&ledger, UNAVAILABLE);
    assert_eq!(errors["delivered"], 1);

    let (code, _, said) = offline(gateway.place());
    assert_eq!(code, Some(1));
    assert!(said.contains("in use by another process"), "{said}");

    let place = gateway.kill();
    let (code, report, said) = offline(&place);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(report["journal"]["faultsCount"], 0);
    for part in ["streams", "gone", "total", "balanced"] {
        assert_eq!(report[part], ledger[part], "{part}");
    }
}

#[tokio::test]
async fn verify_asks_a_running_gateway() {
    let gateway = lived().await;
    let ended = syncgate()
        .args(["verify", "--url", &gateway.url])
        .output()
        .unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{text}");
    assert!(
        text.contains("DataSyncStream") && text.ends_with("balanced\n"),
        "{text}"
    );

    let only = gateway.get("/v1/ledger?stream=DataSyncStream").await.ok();
    assert_eq!(only["streams"].as_array().unwrap().len(), 1);
    assert_eq!(only["total"]["accepted"], 7);
    let unknown = gateway.get("/v1/ledger?stream=Nowhere").await;
    unknown.problem(404, "stream_unknown");
    let wrong = gateway.get("/v1/ledger?strem=x").await;
    wrong.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_damaged_journal_is_named_with_file_and_place() {
    let place = lived().await.stop().await;
    let file = place.segments().remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[12_400] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (code, _, said) = offline(&place);
    assert_eq!(code, Some(1));
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name) && said.contains("damaged"), "{said}");
}
