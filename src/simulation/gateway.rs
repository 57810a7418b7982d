//! The gateway of one life: the parts that `gateway` builds, over an engine stepped by hand.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    steps::{Plan, with_partitions},
    target::network,
    world::World,
};
use crate::{
    config::Config,
    dispatch::{Deps, Dispatcher, Settings, Stats},
    gateway::{credentials::FromSecrets, streams::ensure},
    ingest::Ingest,
    log::Streams,
    retention::Retention,
    retry::Retrier,
    runtime::{live::Live, tasks::Tasks},
    secrets::{MasterKey, Secrets},
    storage::{
        Engine,
        embedded::Embedded,
        local::{Options, proofs::hands::Hands},
    },
};

/// Longest time of a sync, in µs.
const SYNC_MICROS_MAX: usize = 5_000;
/// Without work for this long the log shows that its last frame was written whole.
const IDLE: Duration = Duration::from_secs(1);
/// Where the gateway says that it listens.
const OWN_ADDRESS: &str = "127.0.0.1:9002";

pub(super) struct Gateway {
    pub(super) engine: Arc<Embedded>,
    pub(super) streams: Streams,
    pub(super) ingest: Ingest,
    pub(super) dispatcher: Dispatcher,
    pub(super) retrier: Retrier,
    /// Of the gateway and of the world around it.
    pub(super) tasks: Tasks,
    dispatching: Tasks,
    stop: CancellationToken,
    hands: Arc<Mutex<Option<Hands>>>,
}

impl Gateway {
    /// Opens the log and starts all parts; `None` if the disk has failed by then.
    pub(super) async fn start(world: &World, dir: &Path, plan: &Plan) -> Option<Self> {
        let config = &with_partitions(&plan.config, world.lock().partitions);
        let options = Options {
            dir: dir.to_owned(),
            log: config.log.clone(),
        };
        let disk = world.disk.mount(dir);
        let opened = Hands::open(options, disk, world.clock.clone());
        let (engine, hands) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                assert!(world.disk.is_off(), "the log does not open: {error}");
                return None;
            }
        };
        let source = config.roles.source.clone();
        world
            .lock()
            .witness
            .begin_life(engine.clone(), source.clone());
        let hands = Arc::new(Mutex::new(Some(hands)));
        let tasks = Tasks::new();
        tasks.spawn(
            "writer",
            write(world.clone(), engine.clone(), hands.clone()),
        );

        let streams = Streams::new(engine.clone() as Arc<dyn Engine>);
        let must = |error: &dyn std::fmt::Display| {
            assert!(world.disk.is_off(), "the gateway does not start: {error}");
        };
        if let Err(error) = ensure(&streams, config).await {
            must(&error);
            return None;
        }
        let master = MasterKey::from_bytes([7; 32]);
        let secrets = match Secrets::open(engine.clone(), &master).await {
            Ok(secrets) => secrets,
            Err(error) => {
                must(&error);
                return None;
            }
        };
        let (dispatching, stop) = (Tasks::new(), CancellationToken::new());
        let deps = Deps {
            streams: streams.clone(),
            credentials: Arc::new(FromSecrets(secrets.clone())),
            clock: world.clock.clone(),
            stats: Arc::new(Stats::default()),
        };
        let network = network(world.clone(), tasks.clone());
        let dispatcher = Dispatcher::start_on(
            network,
            plan.dispatch.clone(),
            deps,
            &dispatching,
            stop.clone(),
        );
        let kept = Live::new(config.retention.clone());
        let retention = Retention::new(streams.clone(), source, &kept, world.clock.clone());
        dispatching.spawn("retention", retention.run(stop.clone()));
        Some(Self {
            ingest: Ingest::new(streams.clone(), secrets, config, &tasks),
            retrier: Retrier::new(&dispatcher, config.retry.clone()),
            engine,
            streams,
            dispatcher,
            tasks,
            dispatching,
            stop,
            hands,
        })
    }

    /// Replaces the settings of dispatch.
    pub(super) fn reload(&self, settings: Settings) {
        self.dispatcher.reload(settings);
    }

    /// Stops as a signal does: calls in flight end, and queued settlements are stored.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let left = self.dispatching.join(Duration::from_secs(60)).await;
        assert_eq!(left, 0, "tasks of dispatch do not end");
        let hands = self.hands.lock().unwrap().take();
        hands.expect("nobody else takes them").close();
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    Settings::new(config, &[OWN_ADDRESS.parse().unwrap()]).unwrap()
}

/// Does the work of the log's threads. Each frame takes a random time; the witness checks it before any reader sees it.
async fn write(world: World, engine: Arc<Embedded>, hands: Arc<Mutex<Option<Hands>>>) {
    let mut proven = false;
    loop {
        let queued = Hands::queued(&engine);
        if proven {
            queued.await;
        } else {
            proven = timeout(IDLE, queued).await.is_err();
        }
        let sync = world.micros_below(SYNC_MICROS_MAX);
        sleep(sync).await;
        world.tick();
        let (mut keep, keeps) = (world.below(3), world.percent(70));
        let mut hands = hands.lock().unwrap();
        let Some(hands) = &mut *hands else {
            return;
        };
        hands.write();
        match world.disk.is_off() {
            false => world.lock().witness.look(),
            // Records stored just before cannot be read in this life.
            true => world.lock().witness.blind = true,
        }
        while keeps && keep > 0 && hands.keep() {
            keep -= 1;
        }
        proven &= !keeps;
    }
}
