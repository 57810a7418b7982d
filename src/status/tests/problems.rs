//! Problems and their commands.

use std::sync::Arc;

use super::LATER;
use crate::{
    dispatch::{BreakerState, Cause, LastFailure, TargetId},
    model::ids::{Incarnation, Offset, Partition, PartitionId, StreamId},
    runtime::clock::Timestamp,
    status::{Aim, Books, Counted, Group, Open, Problem, Report, Retry, Target, problems},
    storage::{Health, Space, Stream, StreamConfig},
};

const SOURCE: &str = "DataSyncStream";

fn stream(name: &str, partitions: u16) -> Arc<Stream> {
    let mut id = [0; 16];
    let name_bytes = name.as_bytes();
    id[..name_bytes.len().min(16)].copy_from_slice(&name_bytes[..name_bytes.len().min(16)]);
    Arc::new(Stream {
        id: StreamId(id),
        incarnation: Incarnation(1),
        name: name.parse().unwrap(),
        partitions,
        config: StreamConfig::default(),
        revision: 1,
        events: Vec::new(),
        last_purge: None,
    })
}

/// Records that came a minute ago.
fn group(name: &str, target: &str, cause: Option<Cause>, len: u64) -> Group {
    let stream = stream(name, 1);
    let of = PartitionId {
        stream: stream.id,
        partition: Partition(0),
    };
    Group {
        is_source: name == SOURCE,
        stream,
        aim: Aim::Target(TargetId::of(target)),
        cause,
        len,
        first: ago(60),
        last: ago(60),
        newest: (of, Offset(len)),
        reason: Some("the target answered with secrets".into()),
    }
}

fn ago(seconds: u64) -> Timestamp {
    Timestamp(LATER.0 - seconds * 1_000_000)
}

fn target(url: &str, breaker: BreakerState) -> Target {
    let id = TargetId::of(url);
    Target {
        name: id.to_string(),
        id,
        breaker,
        since: Some(ago(30)),
        in_flight: 0,
        pending: 0,
        in_error_streams: 0,
        oldest: None,
        last_failure: None,
    }
}

fn report(targets: Vec<Target>, groups: Vec<Group>) -> Report {
    let mut streams: Vec<(Arc<Stream>, u64)> = Vec::new();
    for group in &groups {
        let mut known = streams.iter_mut();
        match known.find(|(stream, _)| stream.id == group.stream.id) {
            Some((_, len)) => *len += group.len,
            None => streams.push((group.stream.clone(), group.len)),
        }
    }
    Report {
        at: LATER,
        started_at: ago(3_600),
        problems: Vec::new(),
        targets,
        open: Open {
            streams,
            counted: Counted {
                groups,
                is_complete: true,
                ..Counted::default()
            },
        },
        dir: "/var/lib/sync gate".into(),
        space: Some(Space {
            free_bytes: 100 << 20,
            free_bytes_min: 256 << 20,
            ..Space::default()
        }),
        health: Health::Running,
        unreadable_partitions: 0,
        ledger: Books {
            is_balanced: true,
            difference: 0,
            streams: Vec::new(),
            accepted_losses: 0,
        },
        readers: Vec::new(),
        retries: Vec::new(),
    }
}

fn find(report: &Report) -> Vec<Problem> {
    problems::find(report, &SOURCE.parse().unwrap())
}

/// Code and command of each problem.
#[track_caller]
fn check(report: &Report, expected: &[(&str, &str)]) -> Vec<Problem> {
    let found = find(report);
    let shown: Vec<_> = found
        .iter()
        .map(|problem| (problem.code, &*problem.command))
        .collect();
    assert_eq!(shown, expected, "{found:#?}");
    found
}

const DOWN: Option<Cause> = Some(Cause::Status(503));

#[test]
fn a_gateway_at_work_has_no_problem() {
    check(&report(Vec::new(), Vec::new()), &[]);
    let busy = group(SOURCE, "http://a", None, 500);
    let closed = target("http://a", BreakerState::Closed);
    // An open breaker without waiting records is no problem.
    let resting = target("http://b", BreakerState::HalfOpen);
    check(&report(vec![closed, resting], vec![busy]), &[]);
}

#[test]
fn an_open_target_is_one_problem_with_the_records_that_a_retry_delivers() {
    let errors = "ServerUnavailableStream";
    let mut down = target("http://a", BreakerState::HalfOpen);
    down.pending = 3;
    down.last_failure = Some(LastFailure {
        cause: Cause::Connect,
        reason: "connection refused".into(),
        at: ago(1),
    });
    let groups = vec![
        group(errors, "http://a", DOWN, 50),
        group(errors, "http://a", Some(Cause::Connect), 6),
        group(
            "DefaultErrorStream",
            "http://a",
            Some(Cause::Status(401)),
            2,
        ),
        group(SOURCE, "http://a", DOWN, 3),
    ];
    let found = check(
        &report(vec![down.clone()], groups),
        &[
            (
                "target_open",
                "syncgate retry ServerUnavailableStream --loop",
            ),
            ("records_open", "syncgate records DefaultErrorStream --open"),
        ],
    );
    assert_eq!(
        found[0].text,
        "http://a:80 has not answered yet, its breaker is half-open (connect): 56 records wait in ServerUnavailableStream, \
         and 3 in DataSyncStream. Once it answers, deliver the first; the others are called by themselves:"
    );
    assert_eq!(found[0].reason.as_deref(), Some("connection refused"));
    assert_eq!(found[0].since, Some(ago(60)));
    assert!(!found.iter().any(|problem| problem.text.contains("secrets")));

    // Records that wait for their dispatch need no command, but an operator may want to see them.
    let until = ago(0);
    down.breaker = BreakerState::Open {
        until,
        is_asked: true,
    };
    let waiting = report(vec![down], vec![group(SOURCE, "http://a", DOWN, 3)]);
    let found = check(
        &waiting,
        &[("target_open", "syncgate records DataSyncStream --open")],
    );
    let said = format!("http://a:80 is not called before {until}, as it asked by Retry-After");
    assert!(found[0].text.starts_with(&said), "{found:?}");
}

#[test]
fn each_command_is_for_the_target_of_its_problem() {
    let errors = "ServerUnavailableStream";
    let down = |url: &str| target(url, BreakerState::HalfOpen);
    let groups = vec![
        group(errors, "http://a", DOWN, 50),
        group(errors, "http://b", DOWN, 6),
        group(errors, "http://c", DOWN, 2),
    ];
    let of = |target: &str| format!("syncgate retry {errors} --loop --filter target={target}");
    let (a, b, c) = (of("http://a:80"), of("http://b:80"), of("http://c:80"));
    let both = report(vec![down("http://a"), down("http://b")], groups.clone());
    check(
        &both,
        &[
            ("target_open", &*a),
            ("target_open", &*b),
            ("records_open", &*c),
        ],
    );
    // For several targets, or one that has the stream alone, the command is for the whole stream.
    let all = format!("syncgate retry {errors} --loop");
    check(
        &report(Vec::new(), groups.clone()),
        &[("records_open", &*all)],
    );
    let one = report(vec![down("http://a")], groups[..1].to_vec());
    check(&one, &[("target_open", &*all)]);
    // Uncounted records may have other targets.
    let mut partly = one;
    partly.open.counted.is_complete = false;
    check(&partly, &[("target_open", &*a)]);
}

#[test]
fn while_a_retry_runs_the_next_step_is_to_wait_for_it() {
    let errors = "ServerUnavailableStream";
    let groups = vec![
        group(errors, "http://a", DOWN, 50),
        group(errors, "http://b", Some(Cause::Status(404)), 60),
        group("XyzStream", "http://b", DOWN, 7),
    ];
    let down = target("http://a", BreakerState::HalfOpen);
    let mut runs = report(vec![down], groups);
    runs.retries = vec![Retry {
        stream: errors.parse().unwrap(),
        since: ago(3),
        by: Some("alice".into()),
        done: 1,
        total: 110,
    }];
    let wait = "syncgate status --watch";
    let found = check(
        &runs,
        &[
            ("records_open", wait),
            ("target_open", wait),
            ("records_open", "syncgate retry XyzStream --loop"),
        ],
    );
    for problem in &found[..2] {
        assert!(
            problem.text.contains("A retry of them runs; wait"),
            "{problem:?}"
        );
    }
}

#[test]
fn open_records_of_an_error_stream_name_the_next_step() {
    let cases = [
        (DOWN, "syncgate retry AbcStream --loop", "A retry may"),
        (
            Some(Cause::Status(401)),
            "syncgate records AbcStream --open",
            "a new token",
        ),
        (
            Some(Cause::Status(404)),
            "syncgate records AbcStream --open",
            "would fail again",
        ),
        (
            None,
            "syncgate records AbcStream --open",
            "would fail again",
        ),
    ];
    for (cause, command, says) in cases {
        let groups = vec![
            group("AbcStream", "http://a", cause, 5),
            group("AbcStream", "http://b", cause, 1),
            group("AbcStream", "http://c", cause, 1),
        ];
        let found = check(&report(Vec::new(), groups), &[("records_open", command)]);
        let text = &found[0].text;
        assert!(text.starts_with("7 records wait in AbcStream for a retry, 5 of http://a:80"));
        assert!(text.contains(", others. ") && text.contains(says), "{text}");
    }
    // The step that most of them need; the stream with most comes first.
    let mixed = vec![
        group("AbcStream", "http://a", Some(Cause::Status(404)), 2),
        group("AbcStream", "http://a", DOWN, 3),
        group("XyzStream", "http://a", DOWN, 9),
    ];
    let found = check(
        &report(Vec::new(), mixed),
        &[
            ("records_open", "syncgate retry XyzStream --loop"),
            ("records_open", "syncgate retry AbcStream --loop"),
        ],
    );
    assert_eq!(found[0].since, Some(ago(60)));
}

#[test]
fn a_command_is_for_all_partitions() {
    let mut open = group("AbcStream", "http://a", DOWN, 5);
    open.stream = stream("AbcStream", 4);
    let all = "syncgate retry AbcStream --loop";
    check(
        &report(Vec::new(), vec![open.clone()]),
        &[("records_open", all)],
    );
    open.cause = Some(Cause::Invalid);
    let all = "syncgate records AbcStream --open";
    check(&report(Vec::new(), vec![open]), &[("records_open", all)]);
}

#[test]
fn uncounted_records_are_a_problem_too() {
    let mut open = report(Vec::new(), vec![group("AbcStream", "http://a", DOWN, 5)]);
    open.open.counted.groups.clear();
    let found = check(
        &open,
        &[("records_open", "syncgate records AbcStream --open")],
    );
    assert!(
        found[0]
            .text
            .starts_with("5 records wait in AbcStream for a retry. ")
    );
}

#[test]
fn the_disk_the_log_and_the_books_come_first() {
    let mut bad = report(Vec::new(), vec![group("AbcStream", "http://a", DOWN, 5)]);
    bad.unreadable_partitions = 2;
    bad.ledger.is_balanced = false;
    bad.ledger.streams = vec![("AbcStream".into(), -2)];
    let doctor = "syncgate doctor --data '/var/lib/sync gate'";
    let df = "df -h '/var/lib/sync gate'";
    for (health, code, command) in [
        (
            Health::Stopped("fdatasync failed".into()),
            "log_stopped",
            doctor,
        ),
        (Health::DiskStalled, "disk_stalled", df),
        (Health::DiskFull, "disk_full", df),
        (Health::SpaceLow, "disk_free_min", df),
    ] {
        bad.health = health;
        let found = check(
            &bad,
            &[
                (code, command),
                ("records_unreadable", doctor),
                ("ledger_difference", "syncgate verify"),
                ("records_open", "syncgate retry AbcStream --loop"),
            ],
        );
        assert!(!found[0].text.contains("fdatasync"), "{found:?}");
        for problem in &found {
            assert!(!problem.text.contains("sync gate"), "{problem:?}");
            assert_eq!(
                problem.is_for_machine,
                problem.command.contains("sync gate")
            );
        }
        assert!(found[2].text.contains("-2 in AbcStream"), "{found:?}");
        if code == "disk_free_min" {
            let text = &found[0].text;
            assert!(
                text.contains("100 MiB are free") && text.contains("256 MiB must"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_disk_that_does_not_answer_is_a_problem_of_an_idle_log_too() {
    let mut hangs = report(Vec::new(), Vec::new());
    hangs.space = None;
    check(&hangs, &[("not_looked", "df -h '/var/lib/sync gate'")]);
}

#[test]
fn records_that_wait_long_without_an_open_breaker_are_a_problem() {
    let mut slow = group(SOURCE, "http://a", None, 7);
    let closed = target("http://a", BreakerState::Closed);
    slow.first = ago(299);
    check(&report(vec![closed.clone()], vec![slow.clone()]), &[]);
    slow.first = ago(301);
    let late = ("dispatch_late", "syncgate records DataSyncStream --open");
    let found = check(&report(vec![closed], vec![slow.clone()]), &[late]);
    assert_eq!(found[0].since, Some(ago(301)));
    // An open breaker is a problem of its own.
    let mut open = target("http://a", BreakerState::HalfOpen);
    open.pending = 7;
    let told = ("target_open", "syncgate records DataSyncStream --open");
    check(&report(vec![open], vec![slow]), &[told]);
}

#[test]
fn sizes_have_readable_units() {
    for (bytes, text) in [
        (0, "0.0 KiB"),
        (1_536, "1.5 KiB"),
        (100 << 20, "100 MiB"),
        ((10 << 30) + (1 << 29), "10 GiB"),
        (5 << 40, "5.0 TiB"),
        (u64::MAX, "16777215 TiB"),
    ] {
        assert_eq!(problems::size(bytes), text);
    }
}
