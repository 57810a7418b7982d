//! `[retry]`, `[retention]`, `[logging]`, `[outcomes]`, `[[streams]]` and `[oci_sample]`.

use serde_json::json;

use super::{effects, take};
use crate::{
    reload::{LATER, NEVER, logged},
    testkit::{Act, Gateway, StubTarget, message, poll},
};

effects! {
    "retry.records_max" => a_retry_may_ask_for_fewer_records,
    "retry.time_budget_ms" => a_retry_has_more_time,
    "retry.in_flight_max" => a_retry_makes_more_calls_at_once,
    "retry.retries_max" => a_record_is_given_up_sooner,
    "retry.failing_calls_max" => a_target_that_only_fails_ends_a_retry_sooner,
    "retention.source_bytes" => less_of_the_source_stream_is_kept,
    "retention.error_bytes" => less_of_an_error_stream_is_kept,
    "retention.interval_seconds" => it_is_looked_more_often_what_is_too_much,
    "logging.level" => more_lines_are_shown,
    "outcomes.401" => failures_go_to_another_stream,
    "streams.name" => a_stream_is_made,
    "streams.partitions" => a_stream_gets_more_partitions,
    "streams.ocid" => a_stream_is_found_by_its_ocid,
    "streams.retention_hours" => a_stream_keeps_its_records_for_other_hours,
    "streams.retention_bytes" => a_stream_keeps_other_bytes,
    "oci_sample.compat" => the_manners_are_the_samples,
    "oci_sample.vault_ocid" => it_is_told_that_the_vault_is_ignored,
    "oci_sample.vault_key_ocid" => it_is_told_that_the_vault_key_is_ignored,
    "oci_sample.vault_compartment_ocid" => it_is_told_that_the_compartment_is_ignored,
    "oci_sample.stream_compartment_ocid" => it_is_told_that_the_streams_compartment_is_ignored,
}

fn plain() -> Gateway {
    Gateway::with_config("# nothing yet\n")
}

/// Puts so many records into the stream for what may succeed later.
async fn fail(gateway: &Gateway, target: &StubTarget, count: usize) {
    target.now(|_| Act::status(502));
    gateway
        .sync_all(&vec![message(&target.url("/x"), json!(1)); count])
        .await;
    gateway.drained("DataSyncStream").await;
}

async fn a_retry_may_ask_for_fewer_records() {
    let gateway = plain();
    gateway.retry(LATER, -1, 6).await;
    take(&gateway, "retry.records_max", "[retry]\nrecords_max = 5").await;
    let refused = gateway.retry_with(LATER, -1, 6, json!([])).await;
    refused.problem(400, "invalid_request");
}

async fn a_retry_has_more_time() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config("[retry]\ntime_budget_ms = 1\n");
    fail(&gateway, &target, 100).await;
    take(
        &gateway,
        "retry.time_budget_ms",
        "[retry]\ntime_budget_ms = 50000",
    )
    .await;
    target.now(|_| Act::status(200));
    let report = gateway.retry(LATER, -1, 100).await;
    assert_eq!(report["processedmessages"], 100, "{report}");
}

async fn a_retry_makes_more_calls_at_once() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config("[retry]\nin_flight_max = 1\n");
    fail(&gateway, &target, 3).await;
    take(
        &gateway,
        "retry.in_flight_max",
        "[retry]\nin_flight_max = 3",
    )
    .await;
    target.now(|_| Act::Hold);
    tokio::join!(gateway.retry(LATER, -1, 3), async {
        target.wait_for_calls(6).await;
        target.release(3);
    });
}

async fn a_record_is_given_up_sooner() {
    let target = StubTarget::start().await;
    let gateway = plain();
    fail(&gateway, &target, 1).await;
    take(&gateway, "retry.retries_max", "[retry]\nretries_max = 1").await;
    let mapping = json!([{"responsecode": "502", "stream": LATER}]);
    gateway.retry_with(LATER, -1, 1, mapping).await.ok();
    assert_eq!(gateway.records(NEVER).await.len(), 1);
}

async fn a_target_that_only_fails_ends_a_retry_sooner() {
    let target = StubTarget::start().await;
    let one_by_one = "[retry]\nin_flight_max = 1\n";
    let gateway = Gateway::with_config(one_by_one);
    fail(&gateway, &target, 3).await;
    let sooner = format!("{one_by_one}failing_calls_max = 1");
    take(&gateway, "retry.failing_calls_max", &sooner).await;
    let report = gateway.retry(LATER, -1, 3).await;
    assert_eq!(report["stopped"]["reason"], "target_failing", "{report}");
}

/// A gateway with small files, of which it looks once a day what is too much.
fn small_files(more: &str) -> Gateway {
    Gateway::with_config(&format!("{SMALL_FILES}{more}"))
}

const SMALL_FILES: &str =
    "[log]\nsegment_bytes = 1048576\n[sync]\nbatch_bytes_max = 524288\nrecord_bytes_max = 262144\n";
const SELDOM: &str = "[retention]\ninterval_seconds = 86400\n";

/// Posts some files full of messages, which fail or do not.
async fn many(gateway: &Gateway, url: &str) {
    let large = message(url, json!("x".repeat(200_000)));
    for _ in 0..12 {
        gateway.sync_all(&[large.clone(), large.clone()]).await;
    }
    gateway.drained("DataSyncStream").await;
}

async fn removed(gateway: &Gateway, stream: &str, least: u64) {
    poll(
        &format!("{stream} to begin at {least} or later"),
        async || {
            let stream = gateway.get(&format!("/v1/streams/{stream}")).await.ok();
            let earliest = stream["bounds"][0]["earliest"].as_u64();
            (earliest >= Some(least)).then_some(())
        },
    )
    .await;
}

async fn less_of_the_source_stream_is_kept() {
    let target = StubTarget::start().await;
    let gateway = small_files(SELDOM);
    many(&gateway, &target.url("/x")).await;
    let less = format!("{SMALL_FILES}{SELDOM}source_bytes = 1000");
    take(&gateway, "retention.source_bytes", &less).await;
    removed(&gateway, "DataSyncStream", 1).await;
}

async fn less_of_an_error_stream_is_kept() {
    let target = StubTarget::with(|_| Act::status(502)).await;
    let gateway = small_files(SELDOM);
    many(&gateway, &target.url("/x")).await;
    let less = format!("{SMALL_FILES}{SELDOM}error_bytes = 1000");
    take(&gateway, "retention.error_bytes", &less).await;
    removed(&gateway, LATER, 1).await;
}

async fn it_is_looked_more_often_what_is_too_much() {
    let target = StubTarget::start().await;
    let less = "source_bytes = 1000\n";
    let gateway = small_files(&format!("{SELDOM}{less}"));
    let often = format!("{SMALL_FILES}[retention]\ninterval_seconds = 1\n{less}");
    take(&gateway, "retention.interval_seconds", &often).await;
    // Nothing is there yet when the settings are taken; what comes later is found by later looks.
    many(&gateway, &target.url("/x")).await;
    removed(&gateway, "DataSyncStream", 1).await;
}

async fn a_stream_keeps_its_records_for_other_hours() {
    let gateway = Gateway::with_config("[[streams]]\nname = \"Orders\"\n");
    let config = "[[streams]]\nname = \"Orders\"\nretention_hours = 7";
    take(&gateway, "streams[0].retention_hours", config).await;
    let stream = gateway.get("/v1/streams/Orders").await.ok();
    assert_eq!(stream["retentionHours"], 7);
}

async fn a_stream_keeps_other_bytes() {
    let target = StubTarget::start().await;
    let named = "[[streams]]\nname = \"DataSyncStream\"\n";
    let gateway = small_files(&format!("{SELDOM}{named}"));
    many(&gateway, &target.url("/x")).await;
    let config = format!("{SMALL_FILES}{SELDOM}{named}retention_bytes = 1000");
    take(&gateway, "streams[0].retention_bytes", &config).await;
    // The next look is by another key.
    let often = config.replace("interval_seconds = 86400", "interval_seconds = 1");
    take(&gateway, "retention.interval_seconds", &often).await;
    removed(&gateway, "DataSyncStream", 1).await;
}

async fn more_lines_are_shown() {
    let gateway = Gateway::with_config("[logging]\nlevel = \"error\"\n");
    gateway
        .post("/stream/sync", &json!({}))
        .await
        .problem(400, "invalid_message");
    take(&gateway, "logging.level", "[logging]\nlevel = \"debug\"").await;
    gateway
        .post("/stream/sync", &json!({}))
        .await
        .problem(400, "invalid_message");
    logged(&gateway, &["DEBUG", "request refused", "invalid_message"]).await;
    let lines = gateway.place().log().matches("request refused").count();
    assert_eq!(lines, 1, "{}", gateway.place().log());
    take(&gateway, "logging.level", "[logging]\nlevel = \"error\"").await;
    gateway
        .post("/stream/sync", &json!({}))
        .await
        .problem(400, "invalid_message");
    let lines = gateway.place().log().matches("request refused").count();
    assert_eq!(lines, 1, "{}", gateway.place().log());
}

async fn failures_go_to_another_stream() {
    let target = StubTarget::by_path().await;
    let gateway = plain();
    take(
        &gateway,
        "outcomes.401",
        "[outcomes]\n401 = \"unrecoverable\"",
    )
    .await;
    gateway
        .sync(&message(&target.url("/status/401"), json!(1)))
        .await;
    gateway.record(NEVER, 1).await;
}

async fn a_stream_is_made() {
    let gateway = plain();
    take(&gateway, "streams[0]", "[[streams]]\nname = \"Orders\"").await;
    gateway.get("/v1/streams/Orders").await.ok();
    take(&gateway, "streams[0]", "# nothing any more").await;
    let stream = gateway.get("/v1/streams/Orders").await.ok();
    assert_eq!(stream["madeBy"], "api", "it can be deleted now");
}

async fn a_stream_gets_more_partitions() {
    let gateway = Gateway::with_config("[[streams]]\nname = \"Orders\"\n");
    let text = "[[streams]]\nname = \"Orders\"\npartitions = 3";
    take(&gateway, "streams[0].partitions", text).await;
    let stream = gateway.get("/v1/streams/Orders").await.ok();
    assert_eq!(stream["partitions"], 3);
}

async fn a_stream_is_found_by_its_ocid() {
    let gateway = Gateway::with_config("[[streams]]\nname = \"Orders\"\n");
    let unknown = gateway.retry_with("ocid1.orders", -1, 1, json!([])).await;
    unknown.problem(404, "stream_unknown");
    let text = "[[streams]]\nname = \"Orders\"\nocid = \"ocid1.orders\"";
    take(&gateway, "streams[0].ocid", text).await;
    gateway.retry("ocid1.orders", -1, 1).await;
}

async fn the_manners_are_the_samples() {
    let target = StubTarget::by_path().await;
    let gateway = plain();
    take(&gateway, "oci_sample.compat", "[oci_sample]\ncompat = true").await;
    // A text answer, a message that only lenient checks take, and the sample's table.
    let answer = gateway
        .post("/stream/sync", &json!({"streamMessage": {}}))
        .await
        .ok();
    assert_eq!(answer, "success");
    gateway.drained("DataSyncStream").await;
    let before = gateway.records("DefaultErrorStream").await.len();
    let gone = message(&target.url("/status/404"), json!(1));
    gateway.post("/stream/sync", &gone).await.ok();
    gateway.record("DefaultErrorStream", before + 1).await;
}

async fn is_ignored_aloud(key: &str) {
    let gateway = plain();
    let text = format!("[oci_sample]\n{key} = \"ocid1.x\"");
    take(&gateway, &format!("oci_sample.{key}"), &text).await;
    logged(&gateway, &["WARN", &format!("oci_sample.{key} is ignored")]).await;
}

async fn it_is_told_that_the_vault_is_ignored() {
    is_ignored_aloud("vault_ocid").await;
}

async fn it_is_told_that_the_vault_key_is_ignored() {
    is_ignored_aloud("vault_key_ocid").await;
}

async fn it_is_told_that_the_compartment_is_ignored() {
    is_ignored_aloud("vault_compartment_ocid").await;
}

async fn it_is_told_that_the_streams_compartment_is_ignored() {
    is_ignored_aloud("stream_compartment_ocid").await;
}
