//! A stream is purged while it is shown.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::testkit::{Gateway, within};

use super::{made, next, open, pos, records, sync, xid};

async fn purge(gateway: &Gateway) {
    let body = json!({"reason": "begin anew", "discardPending": true});
    let done = gateway
        .post("/v1/streams/DataSyncStream/purge", &body)
        .await;
    assert_eq!(done.ok()["removed"], 3);
}

fn xids(records: &[Value]) -> Vec<&str> {
    records.iter().map(xid).collect()
}

#[tokio::test]
async fn subscribers_get_a_truncate_in_its_place_and_positions_around_it_are_exact() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await.ok();
    let mut live = open(&gateway, "").await.unwrap();
    sync(&gateway, 0..3).await;
    let mut all = records(&mut live, 4).await;
    purge(&gateway).await;
    all.extend(records(&mut live, 1).await);
    sync(&gateway, 3..5).await;
    all.extend(records(&mut live, 2).await);
    assert_eq!(
        xids(&all),
        ["ddl.1", "0.0", "0.1", "0.2", "ddl.2", "0.3", "0.4"]
    );
    let truncate = &all[4];
    let (time, at) = (&truncate["op_ts"], pos(truncate));
    assert_eq!(
        *truncate,
        json!({"qual_table": "SYNCGATE.DataSyncStream", "op_type": "TRUNCATE", "op_ts": time,
               "pos": at, "xid": "ddl.2"})
    );
    let time = time.as_str().unwrap();
    assert!(all[3]["op_ts"].as_str().unwrap() < time && time < all[5]["op_ts"].as_str().unwrap());

    let gateway = gateway.kill().start();
    // Behind the last record that went, and from there on, each gets strictly what is behind it, to the byte.
    for (at, record) in all.iter().enumerate().take(6).skip(3) {
        let query = format!("?begin={}", pos(record));
        let mut again = open(&gateway, &query).await.unwrap();
        let rest = records(&mut again, 6 - at).await;
        assert_eq!(rest, all[at + 1..], "{query}");
    }
    // Who begins anew is told as well: it may have something of before.
    let mut anew = open(&gateway, "?begin=earliest").await.unwrap();
    let told = within("three records", records(&mut anew, 3)).await;
    assert_eq!(told, all[4..]);
    let mut now = open(&gateway, "?begin=now").await.unwrap();
    next(&mut now).await.unwrap();
    sync(&gateway, 5..6).await;
    assert_eq!(xids(&records(&mut now, 1).await), ["0.5"]);
    // Who stands before it has missed something.
    for record in &all[..3] {
        let query = format!("?begin={}", pos(record));
        let refused = open(&gateway, &query).await.unwrap_err();
        assert_eq!(refused.status(), 410, "{query}");
        let body: Value = serde_json::from_slice(refused.body().as_ref().unwrap()).unwrap();
        let kind = &body["messages"][0]["type"];
        assert_eq!(kind, "urn:syncgate:problem:position_gone");
    }
}

#[tokio::test]
async fn at_most_once_goes_on_behind_the_gap_with_the_truncate() {
    let gateway = Gateway::start();
    made(&gateway, &json!({"qualityOfService": "atMostOnce"}))
        .await
        .ok();
    sync(&gateway, 0..3).await;
    let mut first = open(&gateway, "").await.unwrap();
    let before = records(&mut first, 4).await;
    drop(first);
    purge(&gateway).await;
    sync(&gateway, 3..4).await;
    for (seen, from) in [(1, 1), (2, 2)] {
        let query = format!("?begin={}", pos(&before[seen]));
        let mut socket = open(&gateway, &query).await.unwrap();
        let preamble = next(&mut socket).await.unwrap();
        let metadata = preamble
            .iter()
            .find(|record| record["op_type"] == "STREAM_METADATA");
        let gap = &metadata.unwrap()["source"]["gap"];
        assert_eq!(*gap, json!({"0": {"from": from, "to": 3}}));
        assert_eq!(xids(&records(&mut socket, 2).await), ["ddl.2", "0.3"]);
    }
}

#[tokio::test]
async fn a_cursor_that_has_acknowledged_all_goes_on_with_the_truncate() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await.ok();
    sync(&gateway, 0..3).await;
    let mut first = open(&gateway, "?cursor=c1").await.unwrap();
    let before = records(&mut first, 4).await;
    let ack = json!({"ack": pos(&before[3])}).to_string();
    first.send(Message::Text(ack.into())).await.unwrap();
    first.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", first.next()).await {}
    purge(&gateway).await;
    let cursors = gateway.get("/v1/data-streams/s1/cursors").await.ok();
    assert_eq!(cursors["items"][0]["recordsBehind"], 0);
    let gateway = gateway.kill().start();
    let mut again = open(&gateway, "?cursor=c1").await.unwrap();
    assert_eq!(xids(&records(&mut again, 1).await), ["ddl.2"]);
}
