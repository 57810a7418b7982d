//! The suite of every engine, on the real disk and on one that writes little at a time.

use std::sync::Arc;

use super::{
    faulty::FaultyDisk,
    rig::{Rig, SEGMENT_BYTES},
};
use crate::{
    clock::Clock,
    storage::{
        Engine,
        conformance::{Place, suite},
        embedded::RealDisk,
    },
};

struct OnDisk(Rig);

impl OnDisk {
    fn new() -> Self {
        let mut rig = Rig::new();
        rig.log.segment_bytes = 4 << 20;
        Self(rig)
    }
}

impl Place for OnDisk {
    fn open(&self) -> Arc<dyn Engine> {
        self.0.open_on(Arc::new(RealDisk))
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
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

impl Place for InMemory {
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
