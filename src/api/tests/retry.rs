//! `POST /stream/retry`, with fixed reports of passes.

use super::*;
use crate::{
    dispatch::{Cause, TargetId},
    retry::{Group, GroupName, GroupReport, Stopped, TargetFailing, Waiting},
};

fn retry_body(change: &[(&str, Value)]) -> String {
    let mut body = json!({"streamOCIDToRetry": "ServerUnavailableStream", "noOfMessagesToProcess": 5, "readAfterOffset": 405,
        "readPartition": "0", "errormapping": [{"responsecode": "404", "stream": "UnrecoverableErrorStream"}]});
    for (name, value) in change {
        body[name] = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn a_retry_answers_the_four_members_always() {
    let edge = Edge::plain().await;
    let of = edge.partition("ServerUnavailableStream", 0);
    let partition = PartitionReport {
        of,
        last_read_offset: Some(Offset(1 << 40)),
        start_offset: Offset(406),
        next_offset: Offset((1 << 40) + 1),
        tail: Offset((1 << 40) + 1),
        trimmed: 0,
        end_of_stream: true,
    };
    let report = RetryReport {
        attempted: 3,
        processed: 2,
        failed: 1,
        moved: 1,
        moved_to: BTreeMap::from([("UnrecoverableErrorStream".parse().unwrap(), 1)]),
        skipped: 4,
        unmatched: 6,
        trimmed: 0,
        end_of_stream: true,
        last_read_offset: Some(Offset(1 << 40)),
        start_offset: Offset(406),
        next_offset: Offset((1 << 40) + 1),
        by_status: BTreeMap::from([("200".to_owned(), 2), ("404".to_owned(), 1)]),
        stopped: None,
        waiting: Vec::new(),
        group: None,
        partitions: vec![partition],
    };
    edge.retries.answers.lock().unwrap().push(Ok(report));
    let answer = edge.post("/stream/retry", retry_body(&[])).await;
    let expected = json!({"lastReadOffset": 1_u64 << 40, "processedmessages": 2, "failedMessages": 1, "endOfStream": true,
        "attempted": 3, "delivered": 2, "moved": 1, "movedTo": {"UnrecoverableErrorStream": 1}, "skipped": 4, "unmatched": 6, "startOffset": 406, "nextOffset": (1_u64 << 40) + 1,
        "tail": (1_u64 << 40) + 1, "trimmed": 0, "byStatus": {"200": 2, "404": 1}});
    assert_eq!(answer.json(), expected);
    let asked = edge.retries.asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        (asked.after, asked.records_max, asked.dry_run),
        (Some(Offset(405)), 5, false)
    );
    assert_eq!(
        (&*asked.stream, asked.partitions),
        (
            &*edge.stream("ServerUnavailableStream"),
            vec![edge.partition("ServerUnavailableStream", 0)]
        )
    );

    // The retry read nothing, so the caller gets its own offset back.
    for (after, echoed) in [(json!(405), 405), (json!(-1), -1), (json!("-1"), -1)] {
        edge.retries.answers.lock().unwrap().push(Ok(RetryReport {
            end_of_stream: true,
            ..RetryReport::default()
        }));
        let answer = edge
            .post("/stream/retry", retry_body(&[("readAfterOffset", after)]))
            .await
            .json();
        assert_eq!(
            (&answer["lastReadOffset"], &answer["endOfStream"]),
            (&json!(echoed), &json!(true))
        );
    }
    let partition = PartitionReport {
        last_read_offset: None,
        start_offset: Offset(0),
        next_offset: Offset(0),
        tail: Offset(7),
        trimmed: 3,
        end_of_stream: false,
        ..partition
    };
    edge.retries.answers.lock().unwrap().push(Ok(RetryReport {
        stopped: Some(Stopped::Failing(TargetFailing {
            target: TargetId::of("https://a.example/x"),
            cause: Cause::Timeout,
            calls: 50,
        })),
        partitions: vec![partition],
        ..RetryReport::default()
    }));
    let answer = edge
        .post(
            "/stream/retry",
            retry_body(&[("readPartition", json!("*"))]),
        )
        .await
        .json();
    let stopped = json!({"reason": "target_failing", "target": "https://a.example:443", "cause": "timeout", "calls": 50});
    assert_eq!(answer["stopped"], stopped);
    assert_eq!(
        answer["partitions"]["0"],
        json!({"lastReadOffset": 405, "startOffset": 0, "nextOffset": 0, "tail": 7, "trimmed": 3, "endOfStream": false})
    );
}

#[tokio::test]
async fn a_retry_tells_which_targets_its_records_wait_for() {
    let edge = Edge::plain().await;
    let target = TargetId::of("https://a.example/x");
    let until = Timestamp::parse("2026-01-02T03:04:05.25Z").unwrap();
    let report = RetryReport {
        stopped: Some(Stopped::Open {
            target: target.clone(),
            until,
        }),
        waiting: vec![
            Waiting {
                target: Some(target),
                count: 3,
                until: Some(until),
            },
            Waiting {
                target: None,
                count: 7,
                until: None,
            },
        ],
        ..RetryReport::default()
    };
    edge.retries.answers.lock().unwrap().push(Ok(report));
    let answer = edge.post("/stream/retry", retry_body(&[])).await.json();
    let (named, until) = ("https://a.example:443", "2026-01-02T03:04:05.250000Z");
    assert_eq!(
        answer["stopped"],
        json!({"reason": "target_open", "target": named, "until": until})
    );
    assert_eq!(
        answer["waiting"],
        json!([{"target": named, "count": 3, "until": until}, {"target": "*", "count": 7}])
    );
    assert_eq!(
        (&answer["failedMessages"], &answer["endOfStream"]),
        (&json!(0), &json!(false))
    );
}

#[tokio::test]
async fn a_retry_names_the_wrong_members() {
    let edge = Edge::plain().await;
    let problem = edge
        .post("/stream/retry", "{}")
        .await
        .check_problem(400, "invalid_request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 4);
    edge.post("/stream/retry", "[]")
        .await
        .check_problem(400, "invalid_request");
    let unknown = json!("Nowhere");
    let retry = async |name: &str, value: Value| {
        edge.post("/stream/retry", retry_body(&[(name, value)]))
            .await
    };
    let problem = retry("streamOCIDToRetry", unknown.clone())
        .await
        .check_problem(404, "stream_unknown");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("/streamOCIDToRetry")
    );
    let mapping = json!([{"responsecode": "404", "stream": "DefaultErrorStream"}, {"responsecode": 500, "stream": "Nowhere"}]);
    let problem = retry("errormapping", mapping)
        .await
        .check_problem(404, "stream_unknown");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("/errormapping/1/stream")
    );
    retry("readPartition", json!("1"))
        .await
        .check_problem(404, "partition_unknown");
    retry("group", json!("9"))
        .await
        .check_problem(400, "invalid_request");
    let problem = retry("filter", json!("record.key == 'k'")).await;
    let problem = problem.check_problem(400, "filter_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/filter");
    let of = edge.partition("ServerUnavailableStream", 0);
    for (error, status, code) in [
        (
            crate::retry::Error::PartitionUnknown(of),
            404,
            "partition_unknown",
        ),
        (crate::retry::Error::NotLeased(of), 503, "queue_full"),
        (
            crate::retry::Error::NotStored(CommitError::DiskFull),
            507,
            "disk_full",
        ),
        (crate::retry::Error::GroupsFull, 400, "invalid_request"),
        (
            crate::retry::Error::GroupUnreadable("g".parse().unwrap()),
            500,
            "internal",
        ),
        (
            crate::retry::Error::GroupNotStored(CommitError::DiskFull),
            507,
            "disk_full",
        ),
        (crate::retry::Error::Stopping, 503, "draining"),
    ] {
        edge.retries.answers.lock().unwrap().push(Err(error));
        edge.post("/stream/retry", retry_body(&[]))
            .await
            .check_problem(status, code);
    }
}

/// While one runs, a refusal of the next names its user. A purge is not called a retry.
#[tokio::test]
async fn a_refusal_names_start_and_user_of_the_running_retry() {
    let edge = Edge::plain().await;
    let time = "2026-01-02T03:04:05.000000Z";
    for (work, code, told) in [
        (
            Work::Retry,
            "retry_running",
            format!(
                "a retry of ServerUnavailableStream, partition 0, is running, by alice; its present call began at {time}"
            ),
        ),
        (
            Work::Purge,
            "stream_in_use",
            format!(
                "a purge of ServerUnavailableStream, partition 0, has been running since {time}, by alice"
            ),
        ),
    ] {
        let running = crate::retry::Error::Running(taken(&edge, "ServerUnavailableStream", work));
        edge.retries.answers.lock().unwrap().push(Err(running));
        let answer = edge.post("/stream/retry", retry_body(&[])).await;
        let problem = answer.check_problem(409, code);
        let detail = format!("{told}; send the request again when that has ended");
        assert_eq!(problem["detail"], detail);
        let expected = (&json!("2026-01-02T03:04:05.000000Z"), &json!("alice"));
        assert_eq!((&problem["since"], &problem["by"]), expected);
    }
    // In open mode callers have no name, so their address is shown.
    let by = edge.retries.asked.lock().unwrap().pop().unwrap().by;
    let by: SocketAddr = by.unwrap().parse().unwrap();
    assert!(by.ip().is_loopback(), "{by}");
}

#[tokio::test]
async fn an_offset_needs_a_partition_if_the_stream_has_several() {
    let edge = Edge::plain().await;
    edge.post("/v1/streams", r#"{"name":"Several","partitions":2}"#)
        .await;
    let answer = |more: &[(&str, Value)]| {
        let all = [
            ("streamOCIDToRetry", json!("Several")),
            ("readPartition", json!("*")),
        ];
        let ok = Ok(RetryReport::default());
        edge.retries.answers.lock().unwrap().push(ok);
        edge.post("/stream/retry", retry_body(&[&all[..], more].concat()))
    };
    for group in [None, Some(("group", json!("nightly")))] {
        let more: Vec<_> = group.into_iter().collect();
        let problem = answer(&more).await.check_problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["pointer"], "/readAfterOffset");
    }
    let earliest = answer(&[("readAfterOffset", json!(-1))]).await;
    assert_eq!(earliest.status, 200, "{}", earliest.text());
    let one = answer(&[("readPartition", json!("1"))]).await;
    assert_eq!(one.status, 200, "{}", one.text());
}

#[tokio::test]
async fn an_absent_mapping_is_not_an_empty_one() {
    let edge = Edge::plain().await;
    for (mapping, is_given) in [(json!(null), false), (json!([]), true)] {
        let ok = Ok(RetryReport::default());
        edge.retries.answers.lock().unwrap().push(ok);
        let body = retry_body(&[("errormapping", mapping.clone())]);
        assert_eq!(edge.post("/stream/retry", body).await.status, 200);
        let asked = edge.retries.asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked.mapping.is_given(), is_given, "{mapping}");
    }
}

#[tokio::test]
async fn failures_cannot_be_mapped_to_the_main_stream_by_any_of_its_names() {
    let ocid = "ocid1.stream.main";
    let edge = Edge::plain().await;
    let main = edge.stream("DataSyncStream");
    let config = StreamConfig {
        ocid: Some(ocid.into()),
        ..main.config.clone()
    };
    let changed = edge.engine.change_stream(main.id, 1, config, None);
    changed.await.unwrap();
    for stream in ["DataSyncStream", ocid] {
        for retried in ["ServerUnavailableStream", "DataSyncStream"] {
            let mapping = json!([{"responsecode": "404", "stream": "DefaultErrorStream"},
                {"responsecode": "default", "stream": stream}]);
            let body = retry_body(&[
                ("streamOCIDToRetry", json!(retried)),
                ("errormapping", mapping),
            ]);
            let answer = edge.post("/stream/retry", body).await;
            let problem = answer.check_problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["pointer"], "/errormapping/1/stream");
        }
    }
    assert!(edge.retries.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_is_retried_by_its_ocid_too() {
    let edge = Edge::plain().await;
    edge.post("/v1/streams", r#"{"name":"Mine","ocid":"ocid1.stream.x"}"#)
        .await;
    edge.retries
        .answers
        .lock()
        .unwrap()
        .push(Ok(RetryReport::default()));
    let answer = edge
        .post(
            "/stream/retry",
            retry_body(&[("streamOCIDToRetry", json!("ocid1.stream.x"))]),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        edge.retries.asked.lock().unwrap()[0].stream.name.as_str(),
        "Mine"
    );
}

#[tokio::test]
async fn a_retry_ends_before_an_offset_of_one_partition() {
    let edge = Edge::plain().await;
    edge.post("/v1/streams", r#"{"name":"Several","partitions":2}"#)
        .await;
    let ok = Ok(RetryReport::default());
    edge.retries.answers.lock().unwrap().push(ok);
    let body = |partition: &str, before: Value| {
        retry_body(&[
            ("streamOCIDToRetry", json!("Several")),
            ("readPartition", json!(partition)),
            ("readAfterOffset", json!(-1)),
            ("readBeforeOffset", before),
        ])
    };
    let answer = edge.post("/stream/retry", body("0", json!(39))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = edge.retries.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked.before, Some(Offset(39)));
    for (partition, wrong) in [("*", json!(39)), ("0", json!(-1)), ("0", json!(null))] {
        let answer = edge.post("/stream/retry", body(partition, wrong)).await;
        let problem = answer.check_problem(400, "invalid_request");
        assert_eq!(
            problem["errors"][0]["pointer"], "/readBeforeOffset",
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_group_has_its_positions_in_the_answer() {
    let edge = Edge::plain().await;
    let group = || "nightly".parse::<GroupName>().unwrap();
    for (after, moves) in [(None, false), (Some(-1), true), (Some(405), true)] {
        let report = RetryReport {
            group: Some(GroupReport {
                name: group(),
                positions: vec![(Partition(0), Some(Offset(41))), (Partition(1), None)],
            }),
            ..RetryReport::default()
        };
        edge.retries.answers.lock().unwrap().push(Ok(report));
        let mut body: Value = serde_json::from_str(&retry_body(&[])).unwrap();
        body["group"] = json!("nightly");
        match after {
            Some(after) => body["readAfterOffset"] = json!(after),
            None => drop(body.as_object_mut().unwrap().remove("readAfterOffset")),
        }
        let answer = edge.post("/stream/retry", body.to_string()).await.json();
        let stands = json!({"name": "nightly", "positions": {"0": 41, "1": -1}});
        assert_eq!(answer["group"], stands);
        assert_eq!(answer["lastReadOffset"], after.unwrap_or(-1));
        let asked = edge.retries.asked.lock().unwrap().pop().unwrap();
        let name = group();
        assert_eq!(asked.group, Some(Group { name, moves }));
        let expected = after.and_then(|after| u64::try_from(after).ok());
        assert_eq!(asked.after, expected.map(Offset));
    }
}
