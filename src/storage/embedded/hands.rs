//! An engine without threads: a test does the work of its writer and of its housekeeper, turn by turn.

use std::{sync::Arc, time::Duration};

use super::{
    Disk, Embedded, OpenError, Options,
    housekeeper::Memory,
    opening::{self, Workers},
    reader::Reader,
    writer::Writer,
};
use crate::clock::Clock;

/// Writer and housekeeper of an engine.
pub(crate) struct Hands {
    engine: Arc<Embedded>,
    writer: Writer,
    memory: Memory,
}

impl Hands {
    /// Opens a directory. Files are read where it is asked for, and no thread is started.
    pub(crate) fn open(
        options: Options,
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Result<(Arc<Embedded>, Self), OpenError> {
        let opened = opening::open(options, disk, clock.clone(), Workers::Hands)?;
        let mut reader = Reader::new(opened.shared.clone());
        reader.on_the_spot = true;
        let (engine, writer) = Embedded::of(opened, reader, clock);
        let hands = Self {
            memory: engine.housekeeper.begin(),
            engine: engine.clone(),
            writer,
        };
        Ok((engine, hands))
    }

    /// Returns when something was queued since this was asked last.
    pub(crate) async fn queued(engine: &Embedded) {
        engine.queue.pushed.notified().await;
    }

    /// Stores what is queued; with nothing there, shows that the last frame was written whole. Returns whether the engine
    /// is still open.
    pub(crate) fn write(&mut self) -> bool {
        self.writer.turn(Duration::ZERO, Some(Duration::ZERO))
    }

    /// Does one thing beside; returns whether there was any to do.
    pub(crate) fn keep(&mut self) -> bool {
        self.engine.housekeeper.work(&mut self.memory)
    }

    /// Stores what is queued, and takes nothing more.
    pub(crate) fn close(mut self) {
        self.engine.queue.close();
        while self.write() {}
    }
}
