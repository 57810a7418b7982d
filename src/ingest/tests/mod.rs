mod faults;
mod idempotency;
mod pause;
mod readers;
mod secrets;

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::*;
use crate::{
    json::faults::FieldCode,
    model::{
        ids::{PartitionId, Position},
        record::Record,
    },
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
async fn a_message_that_is_too_large_is_not_parsed() {
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
    // Reading a batch stops at the bound, so the rest need not be JSON.
    for (form, body) in [
        (Form::Json, format!("[{}", "1,".repeat(4 << 20))),
        (Form::Lines, "1\n".repeat(4 << 20)),
    ] {
        let refused = bench.send(form, None, body).await.unwrap_err();
        assert_eq!(faults(refused), [(String::new(), FieldCode::TooLong)]);
    }
}
