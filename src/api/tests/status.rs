//! `GET /v1/status`: its form, and the members that only operators see.

use super::{
    access::{PASSWORD, basic, guarded},
    *,
};
use crate::{
    dispatch::{BreakerState, Cause, LastFailure, TargetId},
    status::{Aim, Books, Counted, Group, Open, Problem, Reader, ReaderKind, Retry, Target},
    storage::Space,
};

const REASON: &str = "the target said something private";
const DIR: &str = "/var/lib/hidden";

pub(super) fn report() -> Report {
    let stream = Arc::new(Stream {
        id: crate::model::ids::StreamId([1; 16]),
        incarnation: crate::model::ids::Incarnation(1),
        name: "ServerUnavailableStream".parse().unwrap(),
        partitions: 1,
        config: StreamConfig::default(),
        revision: 1,
        events: Vec::new(),
        last_purge: None,
    });
    let id = TargetId::of("https://orders.example/x?token=1");
    let group = Group {
        stream: stream.clone(),
        is_source: false,
        aim: Aim::Target(id.clone()),
        cause: Some(Cause::Status(503)),
        len: 2,
        first: Timestamp(1_000_000),
        last: Timestamp(2_000_000),
        newest: (stream.partition(Partition(0)).unwrap(), Offset(1)),
        reason: Some(REASON.into()),
    };
    let others = Group {
        aim: Aim::Others,
        cause: None,
        ..group.clone()
    };
    let target = Target {
        id,
        name: "orders".into(),
        breaker: BreakerState::Open {
            until: Timestamp(9_000_000),
            is_asked: true,
        },
        since: Some(Timestamp(1_000_000)),
        in_flight: 0,
        pending: 3,
        in_error_streams: 2,
        oldest: Some(Timestamp(1_000_000)),
        last_failure: Some(LastFailure {
            cause: Cause::Status(503),
            reason: REASON.into(),
            at: Timestamp(3_000_000),
        }),
    };
    let problem = Problem {
        code: "target_open",
        text: "orders is not called".into(),
        reason: Some(REASON.into()),
        since: Some(Timestamp(1_000_000)),
        command: "syncgate retry ServerUnavailableStream --loop".into(),
        is_for_machine: false,
    };
    let stopped = Problem {
        code: "log_stopped",
        text: "The log has stopped".into(),
        reason: None,
        since: None,
        command: format!("syncgate doctor --data {DIR}"),
        is_for_machine: true,
    };
    let reader = |at: u16| Reader {
        kind: ReaderKind::Dispatch(Partition(at)),
        stream: Some("DataSyncStream".parse().unwrap()),
        lag: Some(3),
        oldest: None,
    };
    Report {
        at: Timestamp(4_000_000),
        started_at: Timestamp(0),
        problems: vec![problem, stopped],
        targets: vec![target],
        open: Open {
            streams: vec![(stream, 2)],
            counted: Counted {
                groups: vec![group, others],
                looked_at: 4,
                is_complete: false,
                ..Counted::default()
            },
        },
        dir: DIR.into(),
        space: Some(Space::default()),
        health: Health::Stopped(REASON.into()),
        unreadable_partitions: 0,
        ledger: Books {
            is_balanced: false,
            difference: 1,
            streams: vec![("DataSyncStream".into(), 1)],
            accepted_losses: 0,
        },
        readers: (0..103).map(reader).collect(),
        retries: vec![Retry {
            stream: "AbcStream".parse().unwrap(),
            since: Timestamp(8_000_000),
            by: Some("alice".into()),
            done: 12,
            total: 56,
        }],
    }
}

#[tokio::test]
async fn a_status_has_everything_and_long_lists_are_cut() {
    let edge = Edge::plain().await;
    let answer = edge.get("/v1/status").await.json();
    assert_eq!(answer["verdict"], "problems");
    assert_eq!(answer["startedAt"], "1970-01-01T00:00:00.000000Z");
    assert_eq!(
        answer["problems"][0],
        json!({
            "code": "target_open", "text": "orders is not called", "reason": REASON,
            "since": "1970-01-01T00:00:01.000000Z", "command": "syncgate retry ServerUnavailableStream --loop"
        })
    );
    let cause = json!({
        "class": "status", "status": 503, "reason": REASON, "at": "1970-01-01T00:00:03.000000Z"
    });
    assert_eq!(
        answer["targets"][0],
        json!({
            "target": "https://orders.example:443", "name": "orders", "state": "open",
            "since": "1970-01-01T00:00:01.000000Z", "until": "1970-01-01T00:00:09.000000Z", "untilAsked": true,
            "inFlight": 0, "pending": 3, "inErrorStreams": 2, "oldest": "1970-01-01T00:00:01.000000Z",
            "lastCause": cause
        })
    );
    assert_eq!(
        answer["open"][0],
        json!({
            "stream": "ServerUnavailableStream", "target": "https://orders.example:443", "count": 2,
            "cause": {"class": "status", "status": 503, "reason": REASON},
            "first": "1970-01-01T00:00:01.000000Z", "last": "1970-01-01T00:00:02.000000Z"
        })
    );
    assert_eq!(
        (&answer["open"][1]["target"], &answer["open"][1]["cause"]),
        (&json!("*"), &Value::Null)
    );
    assert_eq!(
        answer["openRecords"],
        json!({
            "count": 2, "lookedAt": 4, "complete": false,
            "streams": [{"stream": "ServerUnavailableStream", "count": 2}]
        })
    );
    assert_eq!(answer["journal"]["state"], "log_stopped");
    assert_eq!(answer["ledger"]["streams"][0]["difference"], 1);
    assert_eq!(answer["readers"].as_array().unwrap().len(), 100);
    assert_eq!(answer["readers"][7]["partition"], "7");
    assert_eq!(
        (&answer["moreReaders"], &answer["moreOpen"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(
        answer["retries"],
        json!([{
            "stream": "AbcStream", "since": "1970-01-01T00:00:08.000000Z", "by": "alice", "done": 12, "total": 56
        }])
    );
    let unknown = edge.get("/v1/status?x=1").await;
    unknown.check_problem(400, "invalid_request");
}

#[tokio::test]
async fn reasons_and_the_data_directory_are_for_operators() {
    let edge = guarded(|_| {}).await;
    for (name, sees) in [("uwe", false), ("olga", true), ("ada", true)] {
        let login = basic(name, PASSWORD);
        let answer = edge.with_header("GET", "/v1/status", &login).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.text().contains("private"), sees, "{name}");
        assert_eq!(
            answer.text().matches("private").count(),
            if sees { 4 } else { 0 }
        );
        assert_eq!(
            answer.text().matches(DIR).count(),
            if sees { 2 } else { 0 },
            "{name}"
        );
        let answer = answer.json();
        assert_eq!(answer["showsReasons"], sees);
        assert!(answer["problems"][0]["command"].is_string(), "{answer}");
        // Names, numbers, states and causes are for all.
        assert_eq!(answer["open"][0]["cause"]["status"], 503);
        assert_eq!(answer["targets"][0]["lastCause"]["class"], "status");
        assert!(!answer.to_string().contains("token="), "{answer}");
    }
    let nobody = edge.get("/v1/status").await;
    nobody.check_problem(401, "unauthenticated");
}
