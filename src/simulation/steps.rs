//! Steps of a life: send messages, change how targets answer, retry streams, let time pass.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{
    gateway::{Gateway, settings},
    target::{Manner, url},
    witness::Sent,
    world::{TARGETS_LEN, World},
};
use crate::{
    config::Config,
    dispatch::Settings,
    gateway::streams::{EnsureError, ensure},
    ingest::{self, Form, IdempotencyKey, Ingest, Submission},
    retry::{ErrorMapping, Filter, RetryRequest},
    storage::{CommitError, Log as _, OpenRecords, PurgeNote, StreamError},
};

const KEYS_LEN: usize = 3;
const PARTITIONS_MAX: u16 = 7;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Settings of a whole history.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) dispatch: Settings,
}

impl Plan {
    pub(super) fn draw(world: &World) -> Self {
        let mut config = Config::default();
        config.log.segment_bytes = 64 << 10;
        config.log.cache_bytes = [0, 16 << 10, 1 << 20][world.below(3)];
        // The made-up disk has no size limit.
        config.log.disk_free_bytes_min = 0;
        config.retention.error_hours = [0, 2][world.below(2)];
        config.retention.source_hours = [0, 1][world.below(2)];
        config.retention.interval_seconds = 600;
        config.retry.retries_max = [1, 3, 20][world.below(3)];
        world.lock().partitions = [1, 2, 3][world.below(3)];
        draw_dispatch(world, &mut config);
        Self {
            dispatch: settings(&config),
            config,
        }
    }
}

/// Sets how many partitions the source stream should have.
pub(super) fn with_partitions(config: &Config, partitions: u16) -> Config {
    let streams = format!("[[streams]]\nname = \"DataSyncStream\"\npartitions = {partitions}");
    Config {
        streams: toml::from_str::<Config>(&streams).unwrap().streams,
        ..config.clone()
    }
}

/// Adds partitions, as a reload does; after a crash the next start adds them.
fn grow(world: &World, plan: &Plan, gateway: &Gateway) {
    let more = [1, 2][world.below(2)];
    let partitions = world.lock().partitions + more;
    if partitions > PARTITIONS_MAX {
        return;
    }
    world.lock().partitions = partitions;
    world.tell(|| format!("the source stream gets {partitions} partitions"));
    let config = with_partitions(&plan.config, partitions);
    let (world, ingest, streams) = (
        world.clone(),
        gateway.ingest.clone(),
        gateway.streams.clone(),
    );
    gateway.tasks.spawn("growth", async move {
        let Ok(_pause) = ingest.pause().await else {
            return;
        };
        match ensure(&streams, &config).await {
            Ok(()) => world.tell(|| "it has grown".into()),
            Err(EnsureError::Shrink(_)) => {}
            Err(error) => assert!(world.disk.is_off(), "it does not grow: {error}"),
        }
    });
}

fn draw_dispatch(world: &World, config: &mut Config) {
    let dispatch = &mut config.dispatch;
    dispatch.private_addresses = true;
    dispatch.in_flight_max = 1 + world.below(3);
    dispatch.attempts_max = [1, 2, 3][world.below(3)];
    dispatch.backoff_ms = 50;
    dispatch.backoff_ms_max = 2_000;
    dispatch.connect_timeout_ms = 500;
    dispatch.response_timeout_ms = 1_000;
    dispatch.attempt_timeout_ms = 1_500;
    dispatch.queue_len_max = 1 + world.below(6);
    dispatch.targets_max = 1 + world.below(TARGETS_LEN);
}

/// Runs one step.
pub(super) async fn make(world: &World, plan: &Plan, gateway: &Gateway) {
    match world.below(20) {
        0..=7 => submit(world, gateway),
        8..=10 => {
            let target = world.below(TARGETS_LEN);
            let manner = Manner::draw(world);
            world.tell(|| format!("target {target} is now {manner:?}"));
            world.lock().manners[target] = manner;
        }
        11..=13 => sleep(Duration::from_millis(world.below(4_000) as u64)).await,
        14..=16 => retry(world, gateway),
        17 => {
            let mut config = plan.config.clone();
            draw_dispatch(world, &mut config);
            world.tell(|| "reload".into());
            gateway.reload(settings(&config));
        }
        18 if world.percent(20) => purge(world, gateway),
        18 if world.percent(60) => grow(world, plan, gateway),
        18 => {
            let hours = world.below(400) as i64 - 200;
            world.tell(|| format!("the clock jumps {hours} h"));
            world.jump(hours * HOUR_MICROS);
        }
        _ => {
            let minutes = world.below(200) as u64;
            world.tell(|| format!("{minutes} min pass"));
            sleep(Duration::from_secs(minutes * 60)).await;
        }
    }
    // Spread the steps over time.
    sleep(world.micros_below(2_000)).await;
}

/// A submission on its way, with its numbers.
struct Letter {
    body: Bytes,
    form: Form,
    token: Option<String>,
    key: Option<String>,
    numbers: Vec<u64>,
}

fn submit(world: &World, gateway: &Gateway) {
    let letter = write_letter(world);
    let again = letter.key.is_some() && world.percent(40);
    world.tell(|| format!("{:?} are sent, again: {again}", letter.numbers));
    let (world, ingest) = (world.clone(), gateway.ingest.clone());
    gateway.tasks.spawn("source", async move {
        send(&world, &ingest, &letter).await;
        if again {
            sleep(world.micros_below(20_000)).await;
            send(&world, &ingest, &letter).await;
        }
    });
}

fn write_letter(world: &World) -> Letter {
    let (many, lines) = (world.percent(40), world.percent(50));
    let len = if many { 1 + world.below(5) } else { 1 };
    let token = world
        .percent(30)
        .then(|| format!("Bearer {}", world.below(3)));
    let first = world.lock().witness.sent.len() as u64;
    let numbers: Vec<u64> = (first..first + len as u64).collect();
    let mut messages = Vec::new();
    // A token is for one target.
    let target = world.below(TARGETS_LEN);
    for n in &numbers {
        let target = match token {
            Some(_) => target,
            None => world.below(TARGETS_LEN),
        };
        let lane = world
            .percent(75)
            .then(|| (target, format!("k{}", world.below(KEYS_LEN))));
        let pad = if world.percent(15) {
            world.below(20_000)
        } else {
            world.below(100)
        };
        let payload = format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(pad));
        let secret = token.as_ref().map(|_| format!("s{target}"));
        let secret = secret.map_or(String::new(), |name| {
            format!("\"vaultSecretName\":\"{name}\",")
        });
        let key = lane.as_ref().map_or(json!(null), |(_, key)| json!(key));
        messages.push(format!(
            "{{\"streamKey\":{key},\"streamMessage\":{{{secret}\"targetRestApi\":\"{}\",\
             \"targetRestApiOperation\":\"POST\",\"targetRestApiPayload\":{payload}}}}}",
            url(target)
        ));
        let sent = Sent {
            lane,
            target,
            payload,
            token: token.clone(),
            batch: (first, first + len as u64),
        };
        world.lock().witness.sent.insert(*n, sent);
    }
    let (body, form) = match (many, lines) {
        (false, _) => (messages.remove(0), Form::Json),
        (true, false) => (format!("[{}]", messages.join(",")), Form::Json),
        (true, true) => (messages.join("\n"), Form::Lines),
    };
    Letter {
        body: body.into(),
        form,
        token,
        key: world.percent(35).then(|| format!("letter-{first}")),
        numbers,
    }
}

async fn send(world: &World, ingest: &Ingest, letter: &Letter) {
    let key = letter
        .key
        .as_ref()
        .map(|key| IdempotencyKey::read(key.as_bytes()).unwrap());
    let submission = Submission {
        source: "default",
        body: letter.body.clone(),
        form: letter.form,
        token: letter.token.as_deref(),
        traceparent: None,
        key,
    };
    let answer = ingest.submit(submission).await;
    let numbers = &letter.numbers;
    match answer {
        Ok(accepted) => {
            world.tell(|| format!("{numbers:?} are stored, again: {}", accepted.repeated));
            let mut inner = world.lock();
            for (n, placed) in numbers.iter().zip(&accepted.placed) {
                let of = accepted.stream.partition(placed.partition).unwrap();
                inner
                    .witness
                    .acknowledge(*n, of, placed.offset, placed.message_id);
            }
            assert_eq!(accepted.placed.len(), numbers.len());
        }
        Err(error) => {
            world.tell(|| format!("{numbers:?}: {error}"));
            // With an idempotency key a repeat may be stored. Without one, only these errors leave it open.
            let open = matches!(
                error,
                ingest::Error::Unanswered | ingest::Error::Commit(CommitError::MaybeStored(_))
            );
            let legal = world.disk.is_off()
                || matches!(
                    error,
                    ingest::Error::IdempotencyInFlight | ingest::Error::Commit(CommitError::Busy)
                );
            assert!(legal, "{error}");
            if !open && letter.key.is_none() {
                numbers.iter().for_each(|n| world.lock().witness.refuse(*n));
            }
        }
    }
}

/// Purges a stream, as the API does: not while a retry of it runs.
fn purge(world: &World, gateway: &Gateway) {
    let streams = gateway.streams.engine().streams();
    let stream = streams[world.below(streams.len())].clone();
    let open = [OpenRecords::Refuse, OpenRecords::Drop][world.below(2)];
    world.tell(|| format!("purge of {}, open records: {open:?}", stream.name));
    let (world, ingest, retrier, engine) = (
        world.clone(),
        gateway.ingest.clone(),
        gateway.retrier.clone(),
        gateway.engine.clone(),
    );
    gateway.tasks.spawn("purge", async move {
        // A change of a stream wakes the owners in an order that differs between runs, so the history must not depend
        // on it.
        let Ok(_pause) = ingest.pause().await else {
            return;
        };
        let Ok(_held) = retrier.hold(&stream, None) else {
            return;
        };
        let purged = engine.purge_stream(stream.id, open, PurgeNote::default());
        match purged.await {
            Ok(purged) => {
                world.tell(|| format!("purged: {:?}", purged.partitions));
            }
            Err(StreamError::Open { .. }) => {}
            Err(error) => assert!(world.disk.is_off(), "it is not purged: {error}"),
        }
    });
}

fn retry(world: &World, gateway: &Gateway) {
    let streams = gateway.streams.engine().streams();
    let stream = streams[world.below(streams.len())].clone();
    let mut partitions: Vec<_> = stream.all_partitions().collect();
    if world.percent(50) {
        partitions = vec![partitions[world.below(partitions.len())]];
    }
    let mapped = streams[world.below(streams.len())].clone();
    let is_source = |stream: &crate::storage::Stream| stream.name == Config::default().roles.source;
    let mapping = match world.percent(40) && !is_source(&mapped) {
        true => ErrorMapping::parse([("default", mapped)]).unwrap(),
        false => ErrorMapping::default(),
    };
    let request = RetryRequest {
        partitions,
        after: None,
        before: None,
        group: None,
        records_max: [1, 3, 1_000][world.below(3)],
        filter: Filter::default(),
        mapping,
        rate: None,
        redeliver: world.percent(10),
        dry_run: world.percent(10),
        time_budget: Duration::from_millis(world.below(5_000) as u64),
        by: None,
        stream,
    };
    if request.redeliver || is_source(&request.stream) {
        world.lock().witness.replays = true;
    }
    world.tell(|| format!("retry of {}", request.stream.name));
    // Some callers go away before the pass ends.
    let stays = match world.percent(20) {
        true => Duration::from_millis(world.below(2_000) as u64),
        false => Duration::MAX,
    };
    let (world, retrier) = (world.clone(), gateway.retrier.clone());
    gateway.tasks.spawn("retry", async move {
        let Ok(done) = timeout(stays, retrier.run(request)).await else {
            return world.tell(|| "the caller of a retry has hung up".to_owned());
        };
        world.tell(|| format!("retried: {done:?}"));
        if let Ok(report) = done {
            let dry = report.partitions.is_empty();
            assert!(
                dry || report.processed + report.failed <= report.attempted,
                "{report:?}"
            );
        }
    });
}
