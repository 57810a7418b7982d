//! The edge above the engine that it is for, and a restart.

use super::*;
use crate::{
    ingest::{Form, Submission},
    model::target::Origin,
    storage::local::LogSettings,
    storage::{
        embedded::Embedded,
        local::{Options, RealDisk, tests::far::journal_at},
    },
};

async fn open(dir: &std::path::Path) -> (Arc<Embedded>, Ingest, Secrets) {
    let options = Options {
        dir: dir.into(),
        log: LogSettings {
            segment_bytes: 1 << 20,
            ..LogSettings::default()
        },
    };
    let engine = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
    let master = MasterKey::from_bytes([7; 32]);
    let secrets = Secrets::open(engine.clone(), &master).await.unwrap();
    let streams = Streams::new(engine.clone());
    let config = Config::default();
    if streams.by_name(&config.roles.source).is_none() {
        let made = engine.create_stream(config.roles.source.clone(), 3, StreamConfig::default());
        made.await.unwrap();
    }
    (
        engine,
        Ingest::new(streams, secrets.clone(), &config, &Tasks::new()),
        secrets,
    )
}

fn submission(body: String, token: Option<&str>) -> Submission<'_> {
    Submission {
        source: "default",
        body: body.into(),
        form: Form::Json,
        token,
        traceparent: None,
        key: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_their_tokens_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let target = Origin::of("http://127.0.0.1:9/").unwrap();
    let mut placed = Vec::new();
    {
        let (engine, ingest, secrets) = open(dir.path()).await;
        // Twenty senders at once, four tokens under one name: each is told its own place, each keeps its own token.
        let sent = (0..20).map(|n| {
            let ingest = ingest.clone();
            async move {
                let token = format!("Bearer {}", n % 4);
                let key = format!("\"k{}\"", n % 5);
                let body = format!("[{0},{0}]", GOOD.replace("\"key1\"", &key));
                let accepted = ingest.submit(submission(body, Some(&token))).await.unwrap();
                (token, accepted.placed)
            }
        });
        placed.extend(futures_util::future::join_all(sent).await);
        let known = secrets.allowed("default", "789", &target).await;
        assert_eq!(known, Ok(true));
        engine.close().await;
    }
    let (engine, _, secrets) = open(dir.path()).await;
    let stream = engine.stream(&Config::default().roles.source).unwrap();
    let mut places = std::collections::HashSet::new();
    for (token, placed) in placed {
        for place in placed {
            assert!(
                places.insert((place.partition, place.offset)),
                "a place given twice"
            );
            let of = stream.partition(place.partition).unwrap();
            let page = engine.read(of, place.offset, 1).await.unwrap();
            let record = &page.records[0].record;
            assert!(GOOD.contains(std::str::from_utf8(&record.value).unwrap()));
            let version = record
                .headers
                .get("secret-version")
                .unwrap()
                .parse()
                .unwrap();
            let revealed = secrets
                .reveal("default", "789", Some(version), &target)
                .await;
            assert_eq!(&*revealed.unwrap(), token);
        }
    }
    assert_eq!(places.len(), 40);
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                !bytes.windows(8).any(|eight| eight == b"Bearer 1"),
                "{}",
                path.display()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_over_32_bits_are_plain_numbers() {
    let config = Config::default();
    let names: Vec<_> = config.roles.all().map(|(_, name)| name.as_str()).into();
    for edge in [1_u64 << 31, 1 << 32, 1 << 53] {
        let first = edge - 1;
        let dir = tempfile::tempdir().unwrap();
        journal_at(dir.path(), &names, first);
        let options = Options {
            dir: dir.path().into(),
            log: LogSettings::default(),
        };
        let log = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
        let edge = Edge::over(log.clone(), Memory::new(), &config).await;
        for offset in first..first + 3 {
            assert_eq!(edge.sync(GOOD).await.json()["offset"], offset);
        }
        let partitions = "/v1/streams/DataSyncStream/partitions";
        let bounds = edge.get(partitions).await.json();
        assert_eq!(
            (&bounds["items"][0]["earliest"], &bounds["items"][0]["tail"]),
            (&json!(first), &json!(first + 3))
        );
        let from = format!("{partitions}/0/records?from={}&limit=1", first + 1);
        let page = edge.get(&from).await.json();
        assert_eq!(
            (&page["items"][0]["offset"], &page["next"]),
            (&json!(first + 1), &json!(first + 2))
        );
        let one = edge
            .get(&format!("{partitions}/0/records/{}", first + 2))
            .await;
        assert_eq!(one.json()["offset"], first + 2);
        let trimmed = format!("{partitions}/0/records/{}", first - 1);
        let problem = edge
            .get(&trimmed)
            .await
            .check_problem(410, "offset_trimmed");
        assert_eq!(problem["earliest"], first);
    }
}
