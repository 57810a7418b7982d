//! The edge of the gateway above an engine of this process. What appends has threads of its own, so that what serves can
//! be told from it.

use std::{any::Any, path::PathBuf, process::ExitCode, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use syncgate::{
    api::{self, Api, ReloadError, Reloaded, Reloads, Reports, Retries, Waits},
    config::Config,
    dispatch::{WaitingRecord, WaitsFor},
    ingest::Ingest,
    log::Streams,
    model::{
        ids::{Offset, Partition, PartitionId, StreamId},
        record::{Headers, Record},
    },
    push::{self, Push},
    retry::{self, RetryReport, RetryRequest},
    runtime::{
        clock::{Clock, Timestamp},
        live::Live,
        tasks::Tasks,
    },
    secrets::{MasterKey, Secrets},
    status::Report,
    storage::{
        Append, AppendKind, Commit, Log, Stream, StreamConfig,
        embedded::Embedded,
        local::{Options, RealDisk},
    },
    telemetry::Metrics,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Plan;

const VALUE_BYTES: usize = 512;
/// Commits that are under way at the same time, where they come as fast as they can.
const AT_ONCE: usize = 2;
/// Records of one commit of those that are there before.
const STORED_LEN: u64 = 1_000;

/// Nobody asks for these.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Retries for Nothing {
    async fn run(&self, _request: RetryRequest) -> Result<RetryReport, retry::Error> {
        Err(retry::Error::Stopping)
    }

    fn hold(&self, _: &Stream, _: Arc<str>) -> Result<Box<dyn Any + Send>, retry::Error> {
        Err(retry::Error::Stopping)
    }
}

impl Waits for Nothing {
    fn waiting(
        &self,
        _stream: StreamId,
        _is_sought: &dyn Fn(Partition, Offset) -> bool,
        _len_max: usize,
    ) -> Vec<WaitingRecord> {
        Vec::new()
    }

    fn unqueued(&self, _record: &Record) -> (WaitsFor, Option<Timestamp>) {
        (WaitsFor::Turn, None)
    }
}

#[async_trait]
impl Reloads for Nothing {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        Err(ReloadError::Stopping)
    }
}

#[async_trait]
impl Reports for Nothing {
    async fn report(&self) -> Arc<Report> {
        std::future::pending().await
    }
}

/// Serves the data stream `s1`; appends as planned once all subscribers are there, and writes down when each commit was
/// durable.
pub async fn serve() -> ExitCode {
    let plan = Plan::from_environment();
    let dir = PathBuf::from(std::env::var("FIGURES_DIR").unwrap());
    let config = Config::default();
    let options = Options {
        dir: dir.join("data"),
        log: config.log.clone(),
    };
    let engine = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
    let name = "Figures".parse().unwrap();
    let stream = match engine.stream(&name) {
        Some(stream) => stream,
        None => engine
            .create_stream(name, 1, StreamConfig::default())
            .await
            .unwrap(),
    };
    let of = stream.all_partitions().next().unwrap();
    for _ in 0..plan.stored / STORED_LEN {
        append(&engine, of, STORED_LEN).await;
    }

    let streams = Streams::new(engine.clone());
    let tasks = Tasks::new();
    let settings = push::Settings::from(&config);
    let push = Push::open(streams.clone(), Clock::system(), settings, &tasks);
    let push = push.await.unwrap();
    let resource = "s1".parse().unwrap();
    let made = match push.get(&resource) {
        Some(made) => made,
        None => {
            let config = br#"{"source":{"trail":"Figures"}}"#;
            push.create(resource, config).await.unwrap()
        }
    };
    let master = MasterKey::from_bytes([7; 32]);
    let secrets = Secrets::open(engine.clone(), &master);
    let parts = api::ApiParts {
        ingest: Ingest::new(streams.clone(), secrets.await.unwrap(), &config, &tasks),
        streams,
        push,
        users: None,
        retrier: Arc::new(Nothing),
        waits: Arc::new(Nothing),
        reloads: Arc::new(Nothing),
        reports: Arc::new(Nothing),
        metrics: Metrics::new(&Clock::system()),
        sources: Vec::new(),
    };
    let settings = Arc::new(Live::new(api::Settings::new(&config).unwrap()));
    let api = Api::new(parts, settings, &config.roles);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());

    let appender = std::thread::Builder::new().name("appender".into());
    let all_there = move || made.clients_len() >= plan.subscribers;
    appender
        .spawn(move || append_all(&engine, of, &plan, &dir, all_there))
        .unwrap();
    api.serve(listener, CancellationToken::new(), &tasks)
        .await
        .unwrap();
    ExitCode::SUCCESS
}

fn append_all(
    engine: &Embedded,
    of: PartitionId,
    plan: &Plan,
    dir: &std::path::Path,
    all_there: impl Fn() -> bool,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        while !all_there() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut ticks = (!plan.every.is_zero()).then(|| tokio::time::interval(plan.every));
        // As sources do that do not wait for each other: while one commit is stored, the next is on its way.
        let at_once = if ticks.is_some() { 1 } else { AT_ONCE };
        let starts = futures_util::stream::poll_fn(|cx| match &mut ticks {
            Some(ticks) => ticks.poll_tick(cx).map(|_| Some(())),
            None => std::task::Poll::Ready(Some(())),
        });
        let commits = usize::try_from(plan.records / plan.batch).unwrap();
        let durable = starts
            .take(commits)
            .map(async |()| {
                append(engine, of, plan.batch).await;
                format!("{}\n", super::micros(SystemTime::now()))
            })
            .buffered(at_once)
            .collect::<String>()
            .await;
        // Whoever reads it waits for all of it.
        std::fs::write(dir.join("durable.new"), durable).unwrap();
        std::fs::rename(dir.join("durable.new"), dir.join("durable")).unwrap();
    });
}

async fn append(engine: &Embedded, of: PartitionId, len: u64) {
    let record = Record {
        key: "key".into(),
        value: value().into(),
        headers: Headers::default(),
    };
    let append = Append {
        of,
        records: vec![record; usize::try_from(len).unwrap()],
        kind: AppendKind::Accepted,
        refers: Vec::new(),
    };
    let commit = Commit {
        appends: vec![append],
        ..Commit::default()
    };
    engine.commit(commit).await.unwrap();
}

/// A message of that many bytes.
fn value() -> String {
    let message = r#"{"vaultSecretName":"789","targetRestApi":"https://api.example/latest/orders","targetRestApiOperation":"POST","targetRestApiPayload":{"orderid":"18jan","PO":"18jan","lines":"PADDING"},"targetRestApiHeaders":[{"key":"Content-Type","value":"application/json"}]}"#;
    let short = VALUE_BYTES - (message.len() - "PADDING".len());
    message.replace("PADDING", &"x".repeat(short))
}
