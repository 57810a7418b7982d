//! An engine without threads: a test runs each step of the writer and of the housekeeper.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use crate::storage::{
    embedded::Embedded,
    local::{
        Disk, OpenError, Options,
        open::opening::{self, Workers},
        read::reader::RecordReader,
        space::housekeeper::Memory,
        write::writer::Writer,
    },
};
use crate::{runtime::clock::Clock, storage::CommitError};

/// What a test does to ends of records on their way to the writer.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    refusals: Mutex<VecDeque<CommitError>>,
    held: watch::Sender<bool>,
}

impl Ends {
    /// Answers the next end so; several calls queue up.
    pub(crate) fn refuse(&self, error: CommitError) {
        self.refusals.lock().unwrap().push_back(error);
    }

    /// From now on ends that are waited for are held here, or no longer.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How many are held.
    pub(crate) fn held_len(&self) -> usize {
        self.held.receiver_count()
    }

    pub(in crate::storage) fn refusal(&self) -> Result<(), CommitError> {
        self.refusals
            .lock()
            .unwrap()
            .pop_front()
            .map_or(Ok(()), Err)
    }

    pub(in crate::storage) async fn pass(&self) -> Result<(), CommitError> {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        self.refusal()
    }
}

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
        let mut reader = RecordReader::new(opened.shared.clone());
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
