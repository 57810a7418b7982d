//! A status report is made also if the disk hangs. The clock is paused, because no test here has a socket.

use std::sync::Arc;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::record;
use crate::{
    config::Config,
    dispatch::{self, Dispatcher},
    gateway::credentials::FromSecrets,
    log::Streams,
    push::{self, Push},
    retry::Retrier,
    runtime::{clock::Clock, tasks::Tasks},
    secrets::{MasterKey, Secrets},
    status::{Deps, KEPT, Report, Status},
    storage::{Append, AppendKind, Commit, Engine, Log as _, StreamConfig, memory::Memory},
};

/// Makes a new report.
async fn next(status: &Status) -> Arc<Report> {
    sleep(KEPT).await;
    status.report().await
}

fn codes(report: &Report) -> Vec<&str> {
    report.problems.iter().map(|problem| problem.code).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hanging_disk_is_reported_and_the_last_count_is_kept() {
    let (config, tasks) = (Config::default(), Tasks::new());
    let memory = Memory::new();
    let engine: Arc<dyn Engine> = memory.clone();
    for (_, name) in config.roles.all() {
        let made = engine.create_stream(name.clone(), 1, StreamConfig::default());
        made.await.unwrap();
    }
    let streams = Streams::new(engine.clone());
    let secrets = Secrets::open(engine.clone(), &MasterKey::from_bytes([7; 32])).await;
    let clock = Clock::system();
    let deps = dispatch::Deps {
        streams: streams.clone(),
        credentials: Arc::new(FromSecrets(secrets.unwrap())),
        clock: clock.clone(),
        stats: Arc::default(),
    };
    let settings = dispatch::Settings::new(&config, &[]).unwrap();
    let dispatcher = Dispatcher::start(settings, deps, &tasks, CancellationToken::new());
    let of_push = push::Settings::from(&config);
    let push = Push::open(streams.clone(), clock.clone(), of_push, &tasks);
    let status = Status::new(Deps {
        streams,
        retrier: Retrier::new(&dispatcher, config.retry.clone()),
        dispatcher,
        push: push.await.unwrap(),
        source: config.roles.source.clone(),
        dir: "/data".into(),
        clock,
        tasks,
    });
    let well = next(&status).await;
    assert!(well.problems.is_empty() && well.space.is_some(), "{well:?}");

    let failed = memory.stream(&config.roles.unavailable).unwrap();
    let append = Append {
        of: failed.all_partitions().next().unwrap(),
        records: vec![record("http://a", Some(503))],
        kind: AppendKind::Accepted,
        refers: Vec::new(),
    };
    let commit = Commit {
        appends: vec![append],
        ..Commit::default()
    };
    memory.commit(commit).await.unwrap();
    assert!(Arc::ptr_eq(&well, &status.report().await), "too soon");
    assert_eq!(codes(&*next(&status).await), ["records_open"]);

    memory.hold(true);
    for _ in 0..3 {
        let hangs = next(&status).await;
        assert_eq!(codes(&hangs), ["not_looked", "records_open"]);
        let counted = &hangs.open.counted;
        assert_eq!((counted.looked_at, counted.is_complete), (1, false));
    }
    // No second read has begun beside the hanging one.
    assert_eq!(memory.held_len(), 1);
    memory.hold(false);
    let answers = next(&status).await;
    assert_eq!(codes(&answers), ["records_open"]);
    assert!(answers.open.counted.is_complete);
}
