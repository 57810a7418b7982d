//! Offsets that do not fit into 32 bits.

use super::*;
use crate::storage::local::tests::far::journal_at;

#[tokio::test]
async fn records_over_each_edge_of_32_bits_are_dispatched_and_retried_once() {
    for edge in [1_u64 << 31, 1 << 32, 1 << 53] {
        let first = edge - 1;
        let mut target = StubTarget::start().await;
        let dir = tempfile::TempDir::new().unwrap();
        let names = [SOURCE, UNAVAILABLE, INTERNAL, UNRECOVERABLE, DEFAULT];
        journal_at(dir.path(), &names, first);
        let gateway = Harness::start_in(dir, 1, |_| {}).await;
        let mut keys = Vec::new();
        for number in 0..3 {
            let message = message(target.address, &format!("/{number}"));
            assert_eq!(gateway.sync("k", &message).await.0, first + number);
            let call = target.next_call().await;
            keys.push(call.header("idempotency-key")[0].to_owned());
            call.answer(503);
        }
        gateway.settled().await;
        let last = gateway.record_at(UNAVAILABLE, first + 2).await;
        assert_eq!(header(&last, "origin-offset"), (first + 2).to_string());

        let mut request = gateway.request(UNAVAILABLE);
        request.after = Some(Offset(first));
        let retrier = gateway.retrier();
        let (report, ()) = tokio::join!(retry(&retrier, request), async {
            for key in &keys[1..] {
                let call = target.next_call().await;
                assert_eq!(call.header("idempotency-key")[0], *key);
                call.answer(200);
            }
        });
        assert_eq!(counts(&report), (2, 0, 0));
        assert_eq!(report.last_read_offset, Some(Offset(first + 2)));

        let gateway = Harness::start_in(gateway.stop().await, 1, |_| {}).await;
        let retrier = gateway.retrier();
        let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
            let call = target.next_call().await;
            assert_eq!(call.header("idempotency-key")[0], keys[0]);
            call.answer(200);
        });
        assert_eq!(counts(&report), (1, 0, 2), "after a restart");
        assert_eq!(
            (report.start_offset.0, report.last_read_offset),
            (first, Some(Offset(first + 2)))
        );
        assert_eq!(gateway.counts(UNAVAILABLE).open_len(), 0);
        gateway.stop().await;
    }
}
