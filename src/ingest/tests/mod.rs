mod idempotency;

use std::{collections::HashMap, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    model::ids::{PartitionId, Position},
    secrets::MasterKey,
    storage::{Health, Log as _, StreamConfig, conformance::in_time, memory::Memory},
};

const GOOD: &str = r#"{"streamKey":"key1","streamMessage":{"vaultSecretName":"789","targetRestApi":"http://127.0.0.1:9/orders","targetRestApiOperation":"POST","targetRestApiPayload":{"orderid":"18jan","n": 1.10},"targetRestApiHeaders":[{"key":"Content-Type","value":"application/json"}]}}"#;

struct Bench {
    engine: Arc<Memory>,
    ingest: Ingest,
    stream: Arc<Stream>,
}

async fn bench(partitions: u16, change: impl FnOnce(&mut Config)) -> Bench {
    let engine = Memory::new();
    let mut config = Config::default();
    change(&mut config);
    let name = config.roles.source.clone();
    let made = engine
        .create_stream(name, partitions, StreamConfig::default())
        .await;
    let secrets = Secrets::open(engine.clone(), &MasterKey::from_bytes([7; 32]))
        .await
        .unwrap();
    Bench {
        ingest: Ingest::new(
            Streams::new(engine.clone()),
            secrets,
            &config,
            &Tasks::new(),
        ),
        engine,
        stream: made.unwrap(),
    }
}

impl Bench {
    async fn send(
        &self,
        form: Form,
        token: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Accepted, Error> {
        let submission = Submission {
            source: "default",
            body: body.into(),
            form,
            token,
            traceparent: None,
            key: None,
        };
        self.ingest.submit(submission).await
    }

    async fn json(&self, body: impl Into<Bytes>) -> Result<Accepted, Error> {
        self.send(Form::Json, None, body).await
    }

    async fn records(&self, partition: u16) -> Vec<Record> {
        let of = PartitionId {
            stream: self.stream.id,
            partition: Partition(partition),
        };
        let mut cursor = self.ingest.streams.cursor(of, Position::Earliest).unwrap();
        let page = cursor.read(usize::MAX).await.unwrap();
        page.records
            .into_iter()
            .map(|stored| stored.record)
            .collect()
    }
}

/// The good message with a part of its text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

fn faults(error: Error) -> Vec<(String, FieldCode)> {
    match error {
        Error::Invalid(errors) => errors.into_iter().map(|e| (e.pointer, e.code)).collect(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(bench: &Bench, body: &str, expected: &[(&str, FieldCode)]) {
    let read = bench.ingest.limits.get().read(body.as_bytes(), Form::Json);
    let found = read.err().map(faults).unwrap_or_default();
    let found: Vec<_> = found.iter().map(|(at, code)| (&**at, *code)).collect();
    assert_eq!(found, expected, "{body}");
}

#[tokio::test]
async fn each_fault_has_its_code_and_its_pointer() {
    use FieldCode::*;
    let bench = bench(1, |_| {}).await;
    check(&bench, GOOD, &[]);
    for (body, code) in [
        ("", WrongType),
        ("{", WrongType),
        ("\"x\"", WrongType),
        ("null", WrongType),
        ("{}x", WrongType),
    ] {
        check(&bench, body, &[("", code)]);
    }
    check(&bench, "{}", &[("/streamMessage", Required)]);
    check(&bench, &with(r#""key1""#, "null"), &[]);
    check(
        &bench,
        &with(r#""key1""#, "17"),
        &[("/streamKey", WrongType)],
    );
    check(&bench, &with("key1", &"k".repeat(256)), &[]);
    check(
        &bench,
        &with("key1", &"k".repeat(257)),
        &[("/streamKey", TooLong)],
    );
    check(
        &bench,
        &with(r#"{"streamKey""#, r#"{"x/~y":1,"streamKey""#),
        &[("/x~1~0y", UnknownMember)],
    );
    check(
        &bench,
        r#"{"streamMessage":[]}"#,
        &[("/streamMessage", WrongType)],
    );
    check(
        &bench,
        r#"{"streamMessage":null}"#,
        &[("/streamMessage", WrongType)],
    );
    check(
        &bench,
        r#"{"streamMessage":{}}"#,
        &[
            ("/streamMessage/targetRestApi", Required),
            ("/streamMessage/targetRestApiOperation", Required),
        ],
    );
    // Unknown members inside the message are kept and not looked at.
    check(&bench, &with(r#"{"vault"#, r#"{"more":[1,{}],"vault"#), &[]);
    let url = |text: &str| with("http://127.0.0.1:9/orders", text);
    let at = "/streamMessage/targetRestApi";
    check(&bench, &url("ftp://a/"), &[(at, SchemeNotAllowed)]);
    for bad in [
        "",
        "orders",
        "//a/b",
        "http://",
        r"http://a/\r\nHost: b",
        r"http://a/\u0000",
        "http://u:p@a/",
    ] {
        check(&bench, &url(bad), &[(at, UrlInvalid)]);
    }
    check(
        &bench,
        &url(&format!("http://a/{}", "x".repeat(9000))),
        &[(at, TooLong)],
    );
    check(
        &bench,
        &with(r#""http://127.0.0.1:9/orders""#, "7"),
        &[(at, WrongType)],
    );
    let at = "/streamMessage/targetRestApiOperation";
    for good in ["PUT", "PATCH", "DELETE", "GET"] {
        check(&bench, &with("POST", good), &[]);
    }
    for bad in ["post", "HEAD", "", "POST ", "CONNECT"] {
        check(&bench, &with("POST", bad), &[(at, MethodNotAllowed)]);
    }
    check(&bench, &with(r#""POST""#, "null"), &[(at, WrongType)]);
    let at = "/streamMessage/vaultSecretName";
    check(&bench, &with(r#""789""#, "null"), &[]);
    check(&bench, &with("789", ""), &[]);
    check(&bench, &with(r#""789""#, "789"), &[(at, WrongType)]);
    for bad in ["a b", "a/b", "ä", &"x".repeat(256)] {
        check(&bench, &with("789", bad), &[(at, SecretNameInvalid)]);
    }
    let headers = |text: &str| {
        with(
            r#"[{"key":"Content-Type","value":"application/json"}]"#,
            text,
        )
    };
    let at = "/streamMessage/targetRestApiHeaders";
    for good in [
        "[]",
        "null",
        r#"[{"key":"a","value":"b"},{"key":"a","value":"ü","x":1}]"#,
    ] {
        check(&bench, &headers(good), &[]);
    }
    check(&bench, &headers("{}"), &[(at, WrongType)]);
    let entry = |entry: &str| headers(&format!("[{{\"key\":\"ok\",\"value\":\"\"}},{entry}]"));
    let at = |member: &str| format!("/streamMessage/targetRestApiHeaders/1{member}");
    check(&bench, &entry("1"), &[(&at(""), WrongType)]);
    check(&bench, &entry(r#"["a","b"]"#), &[(&at(""), WrongType)]);
    check(
        &bench,
        &entry("{}"),
        &[(&at("/key"), Required), (&at("/value"), Required)],
    );
    check(
        &bench,
        &entry(r#"{"key":1,"value":2}"#),
        &[(&at("/key"), WrongType), (&at("/value"), WrongType)],
    );
    for bad in [r"a\r\nb", r"\u0000", "", "a b", "ä"] {
        check(
            &bench,
            &entry(&format!(r#"{{"key":"{bad}","value":""}}"#)),
            &[(&at("/key"), HeaderInvalid)],
        );
    }
    for bad in [r"a\r\nX: b", r"a\nb", r"\u0000", r"\u007f"] {
        check(
            &bench,
            &entry(&format!(r#"{{"key":"x","value":"{bad}"}}"#)),
            &[(&at("/value"), HeaderInvalid)],
        );
    }
    for bad in [
        "Host",
        "content-length",
        "Connection",
        "TE",
        "Upgrade",
        "transfer-encoding",
    ] {
        check(
            &bench,
            &entry(&format!(r#"{{"key":"{bad}","value":""}}"#)),
            &[(&at("/key"), HeaderHopByHop)],
        );
    }
    let long = format!(r#"{{"key":"x","value":"{}"}}"#, "v".repeat(16 << 10));
    check(
        &bench,
        &entry(&long),
        &[("/streamMessage/targetRestApiHeaders", TooLong)],
    );
    // Members given twice: which one was meant?
    check(
        &bench,
        r#"{"streamKey":"a","streamKey":"b","streamMessage":1}"#,
        &[("/streamKey", WrongType), ("/streamMessage", WrongType)],
    );
    check(
        &bench,
        &with(r#"{"vault"#, r#"{"targetRestApi":"http://evil/","vault"#),
        &[("/streamMessage/targetRestApi", WrongType)],
    );
}

#[tokio::test]
async fn all_faults_come_at_once_and_none_quotes_a_value() {
    let bench = bench(1, |_| {}).await;
    let body = r#"{"streamKey":[],"TOPSECRET":1,"streamMessage":{"vaultSecretName":"TOP SECRET","targetRestApi":"TOPSECRET","targetRestApiOperation":"TOPSECRET","targetRestApiHeaders":[{"key":"TOP SECRET","value":"TOPSECRET\n"}]}}"#;
    let Err(Error::Invalid(errors)) = bench.json(body).await else {
        panic!();
    };
    assert_eq!(errors.len(), 7);
    assert!(
        errors.iter().all(|error| !error.detail.contains("SECRET")),
        "{errors:?}"
    );
}

#[tokio::test]
async fn bytes_that_are_not_utf8_and_json_that_is_too_deep_are_refused() {
    let bench = bench(1, |_| {}).await;
    let mut body = GOOD.as_bytes().to_vec();
    body[20] = 0xff;
    assert_eq!(
        faults(bench.json(body).await.unwrap_err()),
        [(String::new(), FieldCode::NotUtf8)]
    );
    // The object of the message, the object around it, and so many arrays of the payload.
    let nested = |depth: usize| {
        let payload = "[".repeat(depth) + &"]".repeat(depth);
        with(r#"{"orderid":"18jan","n": 1.10}"#, &payload)
    };
    bench.json(nested(DEPTH_MAX - 2)).await.unwrap();
    bench
        .json(format!("[{}]", nested(DEPTH_MAX - 2)))
        .await
        .unwrap();
    for body in [
        nested(DEPTH_MAX - 1),
        nested(10_000),
        "[".repeat(10_000),
        format!("[{}]", nested(DEPTH_MAX - 1)),
    ] {
        assert_eq!(
            faults(bench.json(body).await.unwrap_err()),
            [(String::new(), FieldCode::TooLong)]
        );
    }
    let lines = format!("{GOOD}\n{}", nested(10_000));
    let refused = bench.send(Form::Lines, None, lines).await.unwrap_err();
    assert_eq!(faults(refused), [(String::new(), FieldCode::TooLong)]);
}

#[tokio::test]
async fn the_value_keeps_every_byte_and_the_headers_say_where_it_came_from() {
    let bench = bench(1, |_| {}).await;
    let value = "{\"targetRestApi\" :\"http://Bücher.example/ü\",\n \"targetRestApiOperation\":\"POST\",\"targetRestApiPayload\":{\"n\": 1.10, \"n\":1e0,\"t\":\"ü\\u00fc\"},\"targetRestApiHeaders\":[{\"key\":\"content-type\",\"value\":\"text/ü\"}]}";
    let body = format!(" {{ \"streamMessage\" :{value} }}\r\n");
    let submission = Submission {
        source: "default",
        body: body.into(),
        form: Form::Json,
        token: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        key: None,
    };
    let accepted = bench.ingest.submit(submission).await.unwrap();
    assert!(!accepted.batch && accepted.placed[0].warnings.is_empty());
    let records = bench.records(0).await;
    assert_eq!(records[0].value, value);
    assert_eq!(records[0].key, "");
    let headers: Vec<_> = records[0].headers.iter().collect();
    assert_eq!(
        headers,
        [
            ("source", "default"),
            ("target", "http://xn--bcher-kva.example:80"),
            ("content-type", "text/ü"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            ),
        ]
    );
}

#[tokio::test]
async fn no_key_null_and_an_empty_one_are_the_same() {
    let bench = bench(1, |_| {}).await;
    for body in [
        with(r#""streamKey":"key1","#, ""),
        with(r#""key1""#, "null"),
        with("key1", ""),
        GOOD.into(),
        with("key1", r"k\u0065y1"),
    ] {
        bench.json(body).await.unwrap();
    }
    let keys: Vec<_> = bench.records(0).await.into_iter().map(|r| r.key).collect();
    assert_eq!(keys, ["", "", "", "key1", "key1"]);
}

#[tokio::test]
async fn a_token_is_stored_with_its_record_and_one_commit() {
    let bench = bench(1, |_| {}).await;
    let before = bench.engine.commits_len();
    let send = |token, body: String| bench.send(Form::Json, Some(token), body);
    send("Bearer one", GOOD.into()).await.unwrap();
    send("Bearer two", GOOD.into()).await.unwrap();
    send("Bearer one", GOOD.into()).await.unwrap();
    send("Bearer x", with("789", "")).await.unwrap();
    assert_eq!(bench.engine.commits_len(), before + 4);
    let records = bench.records(0).await;
    let header = |at: usize, name| records[at].headers.get(name).unwrap().to_owned();
    let version = |at| (header(at, "secret-name"), header(at, "secret-version"));
    assert_eq!(version(0), ("789".into(), "1".into()));
    assert_eq!(version(1), ("789".into(), "2".into()));
    assert_eq!(version(2), ("789".into(), "1".into()));
    assert!(version(3).0.starts_with("auto-"));
    let state = bench.engine.state_text();
    assert!(!state.contains("Bearer"), "{state}");
}

#[tokio::test]
async fn naming_a_secret_warns_if_it_is_unknown_and_is_refused_for_another_target() {
    let bench = bench(1, |_| {}).await;
    let accepted = bench.json(GOOD).await.unwrap();
    assert_eq!(accepted.placed[0].warnings, [Warning::SecretUnknown]);
    bench.send(Form::Json, Some("t"), GOOD).await.unwrap();
    let accepted = bench.json(GOOD).await.unwrap();
    assert!(accepted.placed[0].warnings.is_empty());
    let records = bench.records(0).await;
    assert_eq!(records[2].headers.get("secret-name"), Some("789"));
    assert_eq!(
        records[2].headers.get("secret-version"),
        None,
        "the newest at the time of the call"
    );
    let evil = with("127.0.0.1:9", "127.0.0.1:10");
    let refused = bench.json(evil.clone()).await.unwrap_err();
    assert!(
        matches!(refused, Error::SecretNotForTarget { pointer } if pointer == "/streamMessage/vaultSecretName")
    );
    let refused = bench.json(format!("[{GOOD},{evil}]")).await.unwrap_err();
    assert!(
        matches!(refused, Error::SecretNotForTarget { pointer } if pointer == "/1/streamMessage/vaultSecretName")
    );
    assert_eq!(
        bench.records(0).await.len(),
        3,
        "nothing of a refused batch is stored"
    );
}

#[tokio::test]
async fn a_batch_is_stored_whole_and_answered_in_order() {
    let bench = bench(4, |_| {}).await;
    let messages: Vec<_> = (0..50)
        .map(|n| with("key1", &format!("key{}", n % 7)))
        .collect();
    let before = bench.engine.commits_len();
    let array = bench
        .json(format!("[{}]", messages.join(",")))
        .await
        .unwrap();
    let lines = messages.join("\r\n\n") + "\n";
    let lines = bench.send(Form::Lines, Some("t"), lines).await.unwrap();
    assert_eq!(bench.engine.commits_len(), before + 2);
    for (accepted, base) in [(array, 0), (lines, 1)] {
        assert!(accepted.batch);
        assert_eq!(accepted.placed.len(), 50);
        let mut per_key = HashMap::new();
        for (n, placed) in accepted.placed.iter().enumerate() {
            let records = bench.records(placed.partition.0).await;
            let record = &records[usize::try_from(placed.offset.0).unwrap()];
            assert_eq!(record.key, format!("key{}", n % 7));
            let place = (placed.partition, placed.offset);
            if let Some((partition, offset)) = per_key.insert(n % 7, place) {
                assert!(
                    partition == placed.partition && offset < placed.offset,
                    "{base} {n}"
                );
            }
        }
    }
}

#[tokio::test]
async fn one_bad_message_refuses_its_whole_batch() {
    let bench = bench(1, |_| {}).await;
    let bad = with(r#""targetRestApi":"http://127.0.0.1:9/orders","#, "");
    let expected = [(
        "/2/streamMessage/targetRestApi".to_owned(),
        FieldCode::Required,
    )];
    let array = format!("[{GOOD},{GOOD},{bad}]");
    assert_eq!(faults(bench.json(array).await.unwrap_err()), expected);
    let lines = format!("{GOOD}\n\n{GOOD}\n{bad}\n{{");
    let refused = bench.send(Form::Lines, None, lines).await.unwrap_err();
    assert_eq!(
        faults(refused),
        [expected[0].clone(), ("/3".into(), FieldCode::WrongType)]
    );
    for empty in ["[]", " [ ] "] {
        assert_eq!(
            faults(bench.json(empty).await.unwrap_err()),
            [(String::new(), FieldCode::Required)]
        );
    }
    let refused = bench.send(Form::Lines, None, "\n \n").await.unwrap_err();
    assert_eq!(faults(refused), [(String::new(), FieldCode::Required)]);
    let many = vec![GOOD; 1001].join("\n");
    let refused = bench.send(Form::Lines, None, many).await.unwrap_err();
    assert_eq!(faults(refused), [(String::new(), FieldCode::TooLong)]);
    let all_bad = format!("[{}]", vec!["1"; 1000].join(","));
    assert_eq!(faults(bench.json(all_bad).await.unwrap_err()).len(), 100);
    assert!(bench.records(0).await.is_empty());
    bench
        .send(Form::Lines, None, vec![GOOD; 1000].join("\n"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_message_may_be_as_large_as_the_bound_and_no_larger() {
    let bench = bench(1, |_| {}).await;
    let sized = |bytes: usize| {
        let message = with("18jan", "");
        let own = message.len() - r#"{"streamKey":"","streamMessage":}"#.len();
        message.replacen(
            r#""orderid":"#,
            &format!(r#""orderid":"{}","x":"#, "p".repeat(bytes - own - 7)),
            1,
        )
    };
    bench.json(sized(1 << 20)).await.unwrap();
    assert_eq!(bench.records(0).await[0].value.len() + 4, 1 << 20);
    let refused = bench.json(sized((1 << 20) + 1)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::TooLarge {
                bytes: 1_048_577,
                bytes_max: 1_048_576
            }
        ),
        "{refused:?}"
    );
    let batch = format!("[{GOOD},{}]", sized((1 << 20) + 1));
    assert_eq!(
        faults(bench.json(batch).await.unwrap_err()),
        [("/1/streamMessage".to_owned(), FieldCode::TooLong)]
    );
}

#[tokio::test]
async fn lenient_mode_stores_what_the_sample_stores() {
    let bench = bench(1, |config| config.sync.lenient = true).await;
    for (body, key, value) in [
        (
            GOOD,
            "key1",
            &GOOD[GOOD.find("{\"vault").unwrap()..GOOD.len() - 1],
        ),
        (
            r#"{"streamKey":17,"streamMessage":"x","other":1}"#,
            "17",
            r#""x""#,
        ),
        (r#"{"streamKey":true,"streamMessage":{}}"#, "true", "{}"),
        (r#"{"streamKey":{"a":1},"streamMessage":[1]}"#, "", "[1]"),
        (r#"{"streamKey":null,"streamMessage":null}"#, "", "null"),
        (
            r#"{"streamMessage":{"targetRestApi":"nowhere","targetRestApiOperation":"HEAD"}}"#,
            "",
            r#"{"targetRestApi":"nowhere","targetRestApiOperation":"HEAD"}"#,
        ),
        (r#"{"streamMessage":1,"streamMessage":2}"#, "", "2"),
    ] {
        let accepted = bench.send(Form::Json, Some("t"), body).await.unwrap();
        let at = usize::try_from(accepted.placed[0].offset.0).unwrap();
        let record = &bench.records(0).await[at];
        assert_eq!(
            (&record.key[..], &record.value[..]),
            (key.as_bytes(), value.as_bytes()),
            "{body}"
        );
        assert_eq!(record.headers.get("target").is_some(), at == 0, "{body}");
    }
    for refused in ["x", "{}", "[]", r#"{"streamMessage":{]}"#] {
        assert!(
            matches!(bench.json(refused).await, Err(Error::Invalid(_))),
            "{refused}"
        );
    }
    // A token whose secret cannot have a name would be lost.
    let refused = bench
        .send(Form::Json, Some("t"), with("789", "a b"))
        .await
        .unwrap_err();
    assert_eq!(
        faults(refused),
        [(
            "/streamMessage/vaultSecretName".to_owned(),
            FieldCode::SecretNameInvalid
        )]
    );
}

#[tokio::test]
async fn a_lost_race_is_run_again_and_a_refusal_is_passed_on() {
    let bench = bench(1, |_| {}).await;
    let conflict = || CommitError::StateConflict { key: "k".into() };
    for _ in 0..3 {
        bench.engine.refuse(conflict());
    }
    bench.send(Form::Json, Some("t"), GOOD).await.unwrap();
    assert_eq!(bench.records(0).await.len(), 1);
    for _ in 0..RACES_MAX {
        bench.engine.refuse(conflict());
    }
    let refused = bench.json(GOOD).await.unwrap_err();
    assert!(matches!(refused, Error::Commit(CommitError::Busy)));
    bench.engine.refuse(CommitError::DiskFull);
    assert!(matches!(
        bench.json(GOOD).await,
        Err(Error::Commit(CommitError::DiskFull))
    ));
    assert_eq!(bench.records(0).await.len(), 1);
}

#[tokio::test]
async fn first_submissions_at_once_make_one_version_each() {
    let bench = bench(1, |_| {}).await;
    let tokens: Vec<_> = (0..40).map(|n| format!("t{}", n % 4)).collect();
    let sent = tokens
        .iter()
        .map(|token| bench.send(Form::Json, Some(token), GOOD));
    for accepted in futures_util::future::join_all(sent).await {
        accepted.unwrap();
    }
    let versions: std::collections::HashSet<_> = bench
        .records(0)
        .await
        .iter()
        .map(|record| record.headers.get("secret-version").unwrap().to_owned())
        .collect();
    assert_eq!(versions.len(), 4);
}

#[tokio::test]
async fn a_log_that_does_not_answer_leaves_it_open_whether_it_was_stored() {
    let mut bench = bench(1, |_| {}).await;
    bench.ingest.patience = Duration::ZERO;
    bench.engine.fall_silent();
    let error = in_time(bench.json(GOOD)).await.unwrap_err();
    assert!(matches!(error, Error::Unanswered), "{error}");
    assert_eq!(bench.records(0).await.len(), 1);
}

#[tokio::test]
async fn a_pause_that_does_not_end_refuses() {
    let mut bench = bench(1, |_| {}).await;
    bench.ingest.patience = Duration::ZERO;
    let _pause = bench.ingest.pause().await.unwrap();
    let error = in_time(bench.json(GOOD)).await.unwrap_err();
    assert!(matches!(error, Error::Commit(CommitError::Busy)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_its_wait_for_a_log_that_does_not_answer() {
    let bench = bench(1, |_| {}).await;
    bench.engine.fall_silent();
    let mut sent = Box::pin(bench.json(GOOD));
    assert!(futures_util::poll!(&mut sent).is_pending());
    let begun = Instant::now();
    assert!(bench.ingest.pause().await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    // Those that come later are not kept waiting any more.
    assert!(bench.ingest.pause_lock.try_read().is_ok());
    drop(sent);
    bench.ingest.pause().await.unwrap();
}

#[tokio::test]
async fn a_pause_keeps_submissions_waiting() {
    let bench = bench(1, |_| {}).await;
    let pause = bench.ingest.pause().await.unwrap();
    let mut sent = Box::pin(bench.json(GOOD));
    assert!(futures_util::poll!(&mut sent).is_pending());
    drop(pause);
    sent.await.unwrap();
    bench.engine.set_health(Health::Running);
}

/// Else a stream could grow between the choice of a partition and the append.
#[tokio::test]
async fn a_pause_begins_when_what_is_under_way_has_its_answer() {
    let bench = bench(1, |_| {}).await;
    bench.engine.hold(true);
    let mut sent = Box::pin(bench.json(GOOD));
    assert!(futures_util::poll!(&mut sent).is_pending());
    assert_eq!(bench.engine.held_len(), 1, "the log has it");
    let mut pause = Box::pin(bench.ingest.pause());
    assert!(futures_util::poll!(&mut pause).is_pending());
    bench.engine.hold(false);
    in_time(sent).await.unwrap();
    let _pause = in_time(pause).await;
    assert_eq!(bench.records(0).await.len(), 1);
}

fn limits() -> Limits {
    Limits::new(&Config::default())
}

/// Both ways through a message say the same: what the fast one takes has no fault, what it leaves has one.
fn both_ways_agree(text: &str) {
    let limits = limits();
    let mut faults = Faults::default();
    explain(text, Start::default(), "", &limits, &mut faults);
    assert_eq!(
        Envelope::read(text).is_some_and(|found| envelope::read(found, &limits).is_some()),
        faults.is_empty(),
        "{text}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_taken_and_never_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&body);
        both_ways_agree(&text);
        crate::json::scan::depth_is_legal(&body);
    }

    #[test]
    fn a_changed_message_is_seen_alike_by_both_ways(at in 0..GOOD.len(), len in 0..12usize, to in "[\\PC\\x00-\\x1f]{0,3}|null|\\{|\\}|\\[|\\]|\"|,|:|[0-9]|\\\\u0000|\\\\") {
        let end = (at + len).min(GOOD.len());
        let text = format!("{}{to}{}", &GOOD[..at], &GOOD[end..]);
        both_ways_agree(&text);
        let mut faults = Faults::default();
        let read = read_leniently(&text, Start::default(), "", &limits(), &mut faults);
        assert_eq!(read.is_none(), !faults.is_empty());
    }
}

#[tokio::test]
async fn a_body_of_blanks_is_not_kept_in_memory_for_its_message() {
    let bench = bench(1, |_| {}).await;
    for (blanks, shared) in [(0, true), (1 << 20, false)] {
        let body = Bytes::from(GOOD.to_owned() + &" ".repeat(blanks));
        let place = bench.json(body.clone()).await.unwrap().placed[0].offset;
        let records = bench.records(0).await;
        let value = &records[usize::try_from(place.0).unwrap()].value;
        let is_slice = body.as_ptr_range().contains(&value.as_ptr());
        assert_eq!(is_slice, shared, "{blanks}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_taken_apart() {
    let bench = bench(1, |_| {}).await;
    let members = format!(r#"{{{}"z":1}}"#, r#""":1,"#.repeat(1 << 20));
    for body in [
        format!(r#"{{"streamMessage":{members}}}"#),
        format!(r#"{{"streamMessage":{{}},"x":{members}}}"#),
        members.clone(),
    ] {
        let refused = bench.json(body).await.unwrap_err();
        assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
    }
    let batch = format!(r#"[{GOOD},{{"streamMessage":{{}},"x":{members}}}]"#);
    assert_eq!(
        faults(bench.json(batch).await.unwrap_err()),
        [("/1/streamMessage".to_owned(), FieldCode::TooLong)]
    );
    // A batch is read as far as it may go: behind that it need not even be JSON.
    for (form, body) in [
        (Form::Json, format!("[{}", "1,".repeat(4 << 20))),
        (Form::Lines, "1\n".repeat(4 << 20)),
    ] {
        let refused = bench.send(form, None, body).await.unwrap_err();
        assert_eq!(faults(refused), [(String::new(), FieldCode::TooLong)]);
    }
}

#[tokio::test(start_paused = true)]
async fn digest_and_reading_of_a_large_body_wait_for_their_turn_and_small_ones_do_not() {
    let bench = bench(1, |_| {}).await;
    let large = Bytes::from(vec![with("18jan", &"x".repeat(8_000)); 1_000].join("\n"));
    let submission = |body: &Bytes, key| Submission {
        source: "default",
        body: body.clone(),
        form: Form::Lines,
        token: None,
        traceparent: None,
        key,
    };
    let key = IdempotencyKey::read(b"key");
    let first = bench.ingest.submit(submission(&large, key)).await;
    assert_eq!(first.unwrap().placed.len(), 1_000);
    let turns = bench.ingest.heavy.all_turns().await;
    // Under the key it has been stored, so that only its digest is needed.
    for key in [None, key] {
        let refused = bench.ingest.submit(submission(&large, key)).await;
        let refused = refused.map(|accepted| accepted.placed.len());
        let is_busy = matches!(refused, Err(Error::Commit(CommitError::Busy)));
        assert!(is_busy, "{refused:?}");
        let small = Bytes::from_static(GOOD.as_bytes());
        bench.ingest.submit(submission(&small, None)).await.unwrap();
    }
    drop(turns);
    let again = bench.ingest.submit(submission(&large, key)).await;
    assert!(again.unwrap().repeated);
}
