//! The conformance suite, on the real disk and on a disk with short writes.

use std::sync::Arc;

use tempfile::TempDir;

use super::{
    faulty::FaultyDisk,
    rig::{Rig, SEGMENT_BYTES},
};
use crate::{
    runtime::clock::{Clock, Timestamp},
    storage::local::LogSettings,
    storage::{
        Engine,
        conformance::{EngineHome, suite},
        embedded::Embedded,
        local::{Options, RealDisk},
    },
};

struct OnDisk {
    dir: TempDir,
    clock: Clock,
}

impl OnDisk {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            clock: Clock::manual(Timestamp(1_767_323_045_000_000)),
        }
    }
}

impl EngineHome for OnDisk {
    fn open(&self) -> Arc<dyn Engine> {
        let log = LogSettings {
            segment_bytes: 4 << 20,
            ..LogSettings::default()
        };
        let dir = self.dir.path().to_owned();
        let options = Options { dir, log };
        Embedded::open(options, Arc::new(RealDisk), self.clock.clone()).unwrap()
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// Segments that a test fills, short writes, and an index that is lost at every second opening.
struct InMemory(Rig);

impl InMemory {
    fn new() -> Self {
        let mut rig = Rig::on(FaultyDisk::new());
        // Holds the largest commit of the suite.
        rig.log.segment_bytes = SEGMENT_BYTES * 16;
        Self(rig)
    }
}

impl EngineHome for InMemory {
    fn open(&self) -> Arc<dyn Engine> {
        let disk = &self.0.disk;
        disk.write_short(disk.ops());
        if disk.ops() % 2 == 1 {
            self.0.forget_index();
        }
        self.0.open()
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

mod on_disk {
    use super::*;

    suite!(OnDisk::new());
}

mod in_memory {
    use super::*;

    suite!(InMemory::new());
}
