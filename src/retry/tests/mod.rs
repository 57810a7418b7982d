//! Retries over a real log and real targets.

mod cut;
mod failing;
mod failures;
mod far;
mod filter;
mod group;
mod lookups;
mod open;
mod rate;
mod reach;
mod running;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Error, ErrorMapping, Filter, Retrier, RetryReport, RetryRequest};
use crate::{
    dispatch::tests::{
        harness::{
            DEFAULT, Harness, INTERNAL, SOURCE, UNAVAILABLE, UNRECOVERABLE, header, message, record,
        },
        stub::{StubTarget, until, within},
    },
    model::ids::{Offset, Partition},
    storage::{AppendKind, CommitError, Log},
};

impl Harness {
    fn retrier(&self) -> Retrier {
        Retrier::new(&self.dispatcher, self.config.retry.clone())
    }

    /// A request for all of partition 0, with a mapping that names nothing.
    fn request(&self, stream: &str) -> RetryRequest {
        RetryRequest {
            stream: self.stream(stream),
            partitions: vec![self.partition(stream, 0)],
            after: None,
            before: None,
            records_max: 1_000,
            group: None,
            filter: Filter::default(),
            mapping: self.mapping(&[]),
            rate: None,
            redeliver: false,
            dry_run: false,
            time_budget: Duration::from_secs(20),
            by: None,
        }
    }

    fn mapping(&self, codes: &[(&str, &str)]) -> ErrorMapping {
        let pairs = codes.iter().map(|(code, name)| (code, self.stream(name)));
        ErrorMapping::parse(pairs).unwrap()
    }

    /// Appends records to an error stream as if their dispatch had failed.
    async fn failed(&self, stream: &str, target: SocketAddr, len: usize) {
        for at in 0..len {
            let message = message(target, &format!("/{at}"));
            let record = record(&format!("k{at}"), &message, &[]);
            self.append(stream, 0, vec![record]).await;
        }
    }
}

async fn retry(retrier: &Retrier, request: RetryRequest) -> RetryReport {
    within("a retry", retrier.run(request)).await.unwrap()
}

fn counts(report: &RetryReport) -> (u64, u64, u64) {
    (report.processed, report.failed, report.skipped)
}

#[tokio::test]
async fn a_delivered_record_is_resolved_and_skipped_from_then_on() {
    let target = StubTarget::always(204).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 3).await;
    let report = retry(&retrier, gateway.request(UNAVAILABLE)).await;
    assert_eq!(counts(&report), (3, 0, 0));
    assert_eq!(report.last_read_offset, Some(Offset(2)));
    assert_eq!(
        (report.start_offset, report.next_offset),
        (Offset(0), Offset(3))
    );
    assert!(report.end_of_stream);
    assert_eq!(report.by_status, [("204".to_owned(), 3)].into());
    let ended = gateway.counts(UNAVAILABLE);
    assert_eq!(
        (ended.delivered, ended.open_len()),
        (3, 0),
        "all ends are stored already"
    );

    let report = retry(&retrier, gateway.request(UNAVAILABLE)).await;
    assert_eq!(counts(&report), (0, 0, 3));
    assert!(report.end_of_stream);
    let mut again = gateway.request(UNAVAILABLE);
    again.redeliver = true;
    let report = retry(&retrier, again).await;
    assert_eq!(counts(&report), (3, 0, 0));
    assert_eq!(gateway.counts(UNAVAILABLE), ended, "nothing ends twice");
}

#[tokio::test]
async fn replaying_the_source_stream_ends_nothing_and_leaves_waiting_records_alone() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    for path in ["/0", "/1"] {
        gateway.sync("", &message(target.address, path)).await;
    }
    let mut keys = Vec::new();
    for _ in 0..2 {
        let call = target.next_call().await;
        keys.push((
            call.path.clone(),
            call.header("idempotency-key")[0].to_owned(),
        ));
        call.answer(200);
    }
    gateway.settled().await;
    gateway.sync("", &message(target.address, "/2")).await;
    let waiting = target.next_call().await;
    assert_eq!(waiting.path, "/2");

    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(SOURCE)), async {
        for status in [200, 400] {
            let call = target.next_call().await;
            let key = call.header("idempotency-key")[0].to_owned();
            assert!(
                keys.contains(&(call.path.clone(), key)),
                "the key is that of the first call"
            );
            call.answer(status);
        }
    });
    assert_eq!(counts(&report), (1, 1, 1));
    assert!(report.end_of_stream);
    let ended = gateway.counts(SOURCE);
    assert_eq!((ended.delivered, ended.moved, ended.open_len()), (2, 0, 1));
    // No mapping: to the default stream, not where the outcome table would put it.
    let copies = gateway.counts(DEFAULT);
    assert_eq!(copies.appended[AppendKind::ReplayFailed as usize], 1);
    assert_eq!(
        header(&gateway.record_at(DEFAULT, 0).await, "origin-stream"),
        SOURCE
    );
    waiting.answer(200);
    assert_eq!(gateway.settled().await.delivered, 3);
}
