//! Records that damage took, and that somebody has given up: a subscriber is told, or let go.

use reqwest::Method;
use serde_json::json;

use crate::{
    loss::{spoil, waiting},
    testkit::run_on,
};

use super::{S1, made, next, open, pos, records, xid};

#[tokio::test]
async fn what_was_given_up_is_a_gap_and_never_passed_in_silence() {
    let (_target, place) = waiting(&["alder", "birch", "cedar"]).await;
    let file = spoil(&place, "birch");
    let accept = ["doctor", "--accept-loss", file.to_str().unwrap()];
    let (code, _, said) = run_on(&accept, &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let gateway = place.start();
    made(&gateway, &json!({})).await.ok();

    // Exactly once: what comes before it, and an end that says where.
    let mut strict = open(&gateway, "?begin=earliest").await.unwrap();
    let before = records(&mut strict, 2).await;
    assert_eq!((xid(&before[0]), xid(&before[1])), ("ddl.1", "0.0"));
    let last = pos(&before[1]);
    let closed = next(&mut strict).await.unwrap_err();
    assert_eq!(closed, (4410, format!("position_gone pos={last}")));
    let again = format!("?begin={last}");
    let refused = open(&gateway, &again).await.unwrap_err();
    assert_eq!(refused.status(), 410);
    // A time behind it is a beginning.
    let mut later = open(&gateway, "?begin=now").await.unwrap();
    assert!(next(&mut later).await.is_ok());

    // At most once: the same, then the gap, then the rest.
    let lenient = gateway.request(Method::PATCH, S1);
    let lenient = lenient.json(&json!({"qualityOfService": "atMostOnce"}));
    gateway.send(lenient).await.ok();
    for (query, first) in [("?begin=earliest", Some("0.0")), (&*again, None)] {
        let mut socket = open(&gateway, query).await.unwrap();
        let mut seen = Vec::new();
        let mut gap = None;
        while seen.last().is_none_or(|xid| xid != "0.2") {
            for record in next(&mut socket).await.unwrap() {
                if record["source"]["gap"].is_object() {
                    gap = Some((seen.len(), record["source"]["gap"].clone()));
                }
                if record.get("pos").is_some() && xid(&record) != "ddl.1" {
                    seen.push(xid(&record).to_owned());
                }
            }
        }
        let expected = Vec::from_iter(first.into_iter().chain(["0.2"]));
        assert_eq!(seen, expected);
        let lost = json!({"0": {"from": 1, "to": 2}});
        assert_eq!(gap, Some((expected.len() - 1, lost)), "{query}");
    }
}
