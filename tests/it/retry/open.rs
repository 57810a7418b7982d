//! A retry of records whose target is down ends soon and says so.

use std::time::Instant;

use serde_json::{Value, json};
use syncgate::runtime::clock::{Clock, Timestamp};

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed};

const INTERNAL: &str = "InternalserverErrorStream";
/// A breaker that has opened stays open, and one call is made at a time.
const LONG: &str =
    "[dispatch]\nbackoff_ms = 3600000\nbackoff_ms_max = 3600000\n[retry]\nin_flight_max = 1\n";

/// A gateway with so many records in the internal stream for each target, in turn; targets answer 200 from now on.
async fn failed(config: &str, count: usize, targets: &[&StubTarget]) -> Gateway {
    let gateway = Place::with_config(config).patient().start();
    for target in targets {
        target.now(|_| Act::status(500));
    }
    for n in 0..count {
        for (at, target) in targets.iter().enumerate() {
            let key = format!("k{at}-{n}");
            let message = keyed(&key, &target.url("/x"), json!({ "n": n }));
            gateway.post("/stream/sync", &message).await.ok();
            // In this order.
            gateway.record(INTERNAL, n * targets.len() + at + 1).await;
        }
    }
    for target in targets {
        target.now(|_| Act::status(200));
    }
    gateway
}

fn origin(target: &StubTarget) -> Value {
    target.url("").into()
}

/// Returns how many records wait for a target.
fn waiting(report: &Value, target: &Value) -> u64 {
    let list = report["waiting"].as_array().into_iter().flatten();
    let counts = list
        .filter(|one| one["target"] == *target)
        .map(|one| one["count"].as_u64().unwrap());
    counts.sum()
}

fn seconds_from_now(time: &Value) -> i64 {
    let time = Timestamp::parse(time.as_str().unwrap()).unwrap();
    let micros = |time: Timestamp| i64::try_from(time.0).unwrap();
    (micros(time) - micros(Clock::system().now())) / 1_000_000
}

#[tokio::test]
async fn a_retry_for_a_port_that_refuses_ends_soon_and_the_next_one_calls_nobody() {
    const LEN: u64 = 24;
    let target = StubTarget::start().await;
    let gateway = failed(LONG, 24, &[&target]).await;
    let origin = origin(&target);
    drop(target);
    let begun = Instant::now();
    let report = gateway.retry(INTERNAL, -1, 100).await;
    // Before, each record waited for the breaker.
    assert!(begun.elapsed().as_secs() < 30, "{report}");
    let failed = report["failedMessages"].as_u64().unwrap();
    assert!((5..=20).contains(&failed), "{report}");
    assert_eq!(report["stopped"]["reason"], "target_open", "{report}");
    assert_eq!(report["stopped"]["target"], origin, "{report}");
    let until = seconds_from_now(&report["stopped"]["until"]);
    assert!((1_700..=3_600).contains(&until), "{report}");
    assert_eq!(waiting(&report, &origin), LEN - failed, "{report}");
    assert_eq!(
        (
            &report["processedmessages"],
            &report["lastReadOffset"],
            &report["endOfStream"]
        ),
        (&json!(0), &json!(failed - 1), &json!(false)),
        "{report}"
    );
    assert_eq!(gateway.count(INTERNAL, "open").await, LEN - failed);

    let again = gateway.retry(INTERNAL, -1, 100).await;
    let counts = ["attempted", "failedMessages", "skipped", "lastReadOffset"];
    let expected = [json!(0), json!(0), json!(failed), json!(failed - 1)];
    assert_eq!(
        counts.map(|count| again[count].clone()),
        expected,
        "{again}"
    );
    assert_eq!(again["stopped"]["reason"], "target_open", "{again}");
    assert_eq!(waiting(&again, &origin), LEN - failed, "{again}");
}

#[tokio::test]
async fn a_target_that_asks_for_later_gets_its_records_later_and_they_stay_where_they_are() {
    for status in [429, 503] {
        let target = StubTarget::start().await;
        let gateway = failed(LONG, 3, &[&target]).await;
        target.now(move |_| Act::Answer(status, vec![("retry-after", "2000".to_owned())]));
        let report = gateway.retry(INTERNAL, -1, 100).await;
        let counts = [
            "attempted",
            "processedmessages",
            "failedMessages",
            "moved",
            "lastReadOffset",
        ];
        let expected = [1, 0, 0, 0, -1].map(|count| json!(count));
        assert_eq!(
            counts.map(|count| report[count].clone()),
            expected,
            "{report}"
        );
        assert_eq!(waiting(&report, &origin(&target)), 3, "{report}");
        assert_eq!(report["endOfStream"], false, "{report}");
        let until = seconds_from_now(&report["stopped"]["until"]);
        assert!(until > 1_000, "{report}");
        assert_eq!(
            report["waiting"][0]["until"], report["stopped"]["until"],
            "{report}"
        );
        assert_eq!(gateway.count(INTERNAL, "open").await, 3);
        assert_eq!(gateway.records(INTERNAL).await.len(), 3);
        assert_eq!(target.calls().len(), 4);

        // The waits are cut, the target is well: each record is delivered once.
        target.now(|_| Act::status(200));
        let short = LONG.replace("3600000", "1");
        let short = short.replace("[retry]", "retry_after_ms_max = 0\n[retry]");
        gateway.reload(&short).await.ok();
        let report = gateway.retry(INTERNAL, -1, 100).await;
        assert_eq!(
            (&report["processedmessages"], &report["endOfStream"]),
            (&json!(3), &json!(true)),
            "{report}"
        );
        assert_eq!(
            (&report["stopped"], &report["waiting"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(target.calls().len(), 7);
    }
}

#[tokio::test]
async fn other_targets_go_on_and_the_offset_stays_below_the_first_record_that_was_left() {
    let (down, fine) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = failed(LONG, 4, &[&fine, &down]).await;
    down.now(|_| Act::Answer(429, vec![("retry-after", "2000".to_owned())]));
    let body = json!({ "streamOCIDToRetry": INTERNAL, "noOfMessagesToProcess": 100, "group": "cron",
        "readPartition": "0", "errormapping": [] });
    let report = gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(
        (
            &report["processedmessages"],
            &report["failedMessages"],
            &report["lastReadOffset"]
        ),
        (&json!(4), &json!(0), &json!(0)),
        "{report}"
    );
    assert_eq!(
        (
            waiting(&report, &origin(&down)),
            waiting(&report, &origin(&fine))
        ),
        (4, 0),
        "{report}"
    );
    assert_eq!(report["stopped"]["target"], origin(&down), "{report}");
    assert_eq!(report["group"]["positions"]["0"], 0, "{report}");
    assert_eq!(gateway.count(INTERNAL, "open").await, 4);
    // What is settled behind it is skipped by the next call.
    let calls = fine.calls().len();
    let report = gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(
        (&report["attempted"], &report["skipped"]),
        (&json!(0), &json!(3)),
        "{report}"
    );
    assert_eq!((fine.calls().len(), down.calls().len()), (calls, 5));
}

/// The loop of the sample, with a budget that is over at once.
#[tokio::test]
async fn a_loop_with_hardly_any_time_moves_or_ends_while_a_target_is_down() {
    let target = StubTarget::start().await;
    let gateway = failed(LONG, 12, &[&target]).await;
    target.now(|_| Act::status(502));
    let (mut after, mut calls) = (-1, 0);
    let last = loop {
        let body = json!({ "streamOCIDToRetry": INTERNAL, "noOfMessagesToProcess": 100, "readAfterOffset": after,
            "readPartition": "0", "errormapping": [], "timeBudgetMs": 1 });
        let report = gateway.post("/stream/retry", &body).await.ok();
        calls += 1;
        if report["endOfStream"] == true || report.get("stopped").is_some() {
            break report;
        }
        let last = report["lastReadOffset"].as_i64().unwrap();
        assert!(last > after, "it neither moves nor ends: {report}");
        after = last;
    };
    assert_eq!(last["stopped"]["reason"], "target_open", "{last}");
    assert!(calls <= 13, "{calls}");
}

#[tokio::test]
async fn with_the_manners_of_the_sample_or_if_nothing_is_put_off_a_429_is_a_failure() {
    let compat = format!("{LONG}[oci_sample]\ncompat = true\n");
    let none = LONG.replace("[retry]", "deferred_ms_max = 0\n[retry]");
    for config in [compat, none] {
        let target = StubTarget::start().await;
        let gateway = failed(&config, 2, &[&target]).await;
        target.now(|_| Act::Answer(429, vec![("retry-after", "2000".to_owned())]));
        let report = gateway.retry(INTERNAL, -1, 100).await;
        assert_eq!(
            (&report["failedMessages"], &report["endOfStream"]),
            (&json!(2), &json!(true)),
            "{report}"
        );
        assert_eq!(gateway.count(INTERNAL, "open").await, 0);
    }
}

#[tokio::test]
async fn a_filter_takes_the_target_that_an_answer_names() {
    let target = StubTarget::start().await;
    let entry = format!(
        "[[targets]]\nname = \"orders\"\norigin = \"{}\"\npath_prefix = \"/orders\"\n",
        target.url("")
    );
    let long = format!("{LONG}{entry}");
    let gateway = Place::with_config(&long).patient().start();
    target.now(|_| Act::status(500));
    for (n, path) in ["/orders/1", "/x/1", "/orders/2", "/x/2"]
        .iter()
        .enumerate()
    {
        let message = keyed(path, &target.url(path), json!(n));
        gateway.post("/stream/sync", &message).await.ok();
        gateway.record(INTERNAL, n + 1).await;
    }
    target.now(|_| Act::Answer(429, vec![("retry-after", "2000".to_owned())]));
    let report = gateway.retry(INTERNAL, -1, 1).await;
    let named = report["waiting"][0]["target"].clone();
    assert_eq!(named, target.url("/orders"), "{report}");

    target.now(|_| Act::status(200));
    let short = long.replace("3600000", "1");
    let short = short.replace("[retry]", "retry_after_ms_max = 0\n[retry]");
    gateway.reload(&short).await.ok();
    let retry = async |filtered: &Value| {
        let body = json!({ "streamOCIDToRetry": INTERNAL, "noOfMessagesToProcess": 100, "readAfterOffset": -1,
            "readPartition": "0", "errormapping": [], "filter": {"target": filtered} });
        gateway.post("/stream/retry", &body).await
    };
    let calls = target.calls().len();
    let report = retry(&named).await.ok();
    let counts = (&report["processedmessages"], &report["unmatched"]);
    assert_eq!(counts, (&json!(2), &json!(2)), "{report}");
    let calls = target.calls().split_off(calls);
    assert!(calls.iter().all(|call| call.path.starts_with("/orders/")));
    // The name that its metrics have is as good, and the origin stands for all of it.
    let report = retry(&json!("orders")).await.ok();
    assert_eq!(report["processedmessages"], 0, "{report}");
    let report = retry(&json!([origin(&target), "orders"])).await.ok();
    assert_eq!(report["processedmessages"], 2, "{report}");
    let problem = retry(&json!("order")).await;
    let problem = problem.problem(400, "filter_invalid");
    let told = problem["detail"].as_str().unwrap();
    assert!(told.contains("give a target such as https://"), "{told}");
}
