//! A history: lives of a gateway, each with some steps, one after the other over the same disk.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::time::sleep;

use super::{
    gateway::Gateway,
    steps::{self, Plan},
    target::Manner,
    world::{TARGETS_LEN, World},
};
use crate::{
    config::Config,
    retry::{Error, ErrorMapping, Filter, RetryReport, RetryRequest},
    runtime::random::dice,
    storage::{
        Log, Stream,
        local::proofs::{Crash, Dice},
    },
};

/// Lives before the last one.
const LIVES_MAX: usize = 2;
/// Steps of a life.
const STEPS_MAX: usize = 12;
/// How long open records may take to be dispatched once every target accepts all calls.
const SETTLE_SECONDS_MAX: u32 = 3_600;
/// Passes over an error stream until all of its records are settled.
const PASSES_MAX: usize = 20;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A crash at a random moment.
    Crash,
    Stop,
    /// All records are settled first.
    Settled,
}

/// Runs the history of a seed; returns its steps if they are recorded.
pub(super) fn play(seed: u64, tells: bool) -> Vec<String> {
    dice::set(Dice(seed.wrapping_mul(31)));
    let world = World::new(seed, tells);
    let named = Named(seed, world.clone());
    let dir = directory();
    let plan = Plan::draw(&world);
    world.tell(|| format!("{:?}", plan.config.dispatch));
    for _ in 0..world.below(LIVES_MAX + 1) {
        let end = match world.percent(75) {
            true => End::Crash,
            false => End::Stop,
        };
        live(&world, &dir.path().join("data"), &plan, end);
    }
    live(&world, &dir.path().join("data"), &plan, End::Settled);
    let told = world.told();
    std::mem::forget(named);
    told
}

/// Prints the seed and the recorded steps if the history fails.
struct Named(u64, World);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("{}", self.1.told().join("\n"));
        eprintln!("SYNCGATE_TEST_SEED={}", self.0);
    }
}

/// Directory of the LOCK file; all other files are on the made-up disk.
fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let dir = match memory.is_dir() {
        true => TempDir::new_in(memory),
        false => TempDir::new(),
    };
    dir.unwrap()
}

fn live(world: &World, dir: &std::path::Path, plan: &Plan, end: End) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    world.tell(|| format!("a life that ends with {end:?}"));
    runtime.block_on(async {
        world.begin_life();
        let Some(gateway) = Gateway::start(world, dir, plan).await else {
            return;
        };
        let tasks = gateway.tasks.clone();
        tokio::select! {
            biased;
            () = tasks.failed() => panic!("what a task said is above"),
            () = go_on(world, plan, gateway, end) => {}
        }
    });
    runtime.block_on(async { world.end_life() });
    // The runtime's end drops every task of the life.
    drop(runtime);
    if end == End::Crash {
        let how = match world.below(4) {
            0 => Crash::LoseAll,
            1 => Crash::Process,
            _ => Crash::Random(world.lock().dice.next()),
        };
        world.tell(|| format!("{how:?}"));
        world.disk.crash(how);
    }
}

async fn go_on(world: &World, plan: &Plan, gateway: Gateway, end: End) {
    for _ in 0..world.below(STEPS_MAX) {
        steps::make(world, plan, &gateway).await;
        world.tick();
        if world.disk.is_off() {
            break;
        }
        world.lock().witness.check();
    }
    match end {
        End::Crash => {
            if world.percent(50) {
                // In the middle of the next write of the log.
                world.disk.power_off_after(world.below(8) as u64);
                sleep(world.micros_below(50_000)).await;
            }
        }
        End::Stop => gateway.stop().await,
        End::Settled => settle(world, gateway).await,
    }
}

/// With targets that accept all calls, every record is settled.
async fn settle(world: &World, gateway: Gateway) {
    world.lock().manners = [Manner::Good; TARGETS_LEN];
    world.tell(|| "all targets are good".into());
    let open_len = |stream: &Stream| {
        let ledger = gateway.engine.ledger();
        let row = ledger.streams.iter().find(|row| row.stream.id == stream.id);
        row.map_or(0, |row| row.open)
    };
    let source = Config::default().roles.source;
    let source = gateway.streams.by_name(&source).unwrap();
    let mut seconds = 0;
    while open_len(&source) > 0 {
        sleep(Duration::from_secs(1)).await;
        seconds += 1;
        assert!(
            seconds < SETTLE_SECONDS_MAX,
            "{} records are never dispatched",
            open_len(&source)
        );
    }
    let mut passes = 0;
    loop {
        world.tick();
        world.lock().witness.check();
        let streams = gateway.engine.streams().into_iter();
        let Some(stream) = streams.clone().find(|stream| open_len(stream) > 0) else {
            break;
        };
        let done = retry(&gateway, &stream).await;
        passes += 1;
        assert!(passes < PASSES_MAX, "{}: {done:?}", stream.name);
        // A pass of an earlier step may still run.
        sleep(Duration::from_secs(5)).await;
    }
    let mut inner = world.lock();
    inner.witness.look();
    inner.witness.check_all_delivered();
    let sums = inner.witness.sums();
    drop(inner);
    world.tell(|| format!("sent, stored, calls: {sums:?}"));
}

async fn retry(gateway: &Gateway, stream: &std::sync::Arc<Stream>) -> Result<RetryReport, Error> {
    let request = RetryRequest {
        stream: stream.clone(),
        partitions: stream.all_partitions().collect(),
        after: None,
        before: None,
        group: None,
        records_max: 10_000,
        filter: Filter::default(),
        mapping: ErrorMapping::default(),
        rate: None,
        redeliver: false,
        dry_run: false,
        time_budget: Duration::from_secs(60),
        by: None,
    };
    gateway.retrier.run(request).await
}
