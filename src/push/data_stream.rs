//! A data stream under its present configuration, with the hub of its readers.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    feed::hub::Hub,
    misfits::Misfits,
    resource::{Resource, ResourceName},
};

/// A data stream under one configuration; a new configuration makes a new one.
#[derive(Debug)]
pub struct DataStream {
    /// Its name.
    pub name: ResourceName,
    /// Grows with every change.
    pub revision: u64,
    /// Its configuration.
    pub resource: Resource,
    /// The configuration as JSON, with all defaults.
    pub config: Bytes,
    pub(super) clients: AtomicUsize,
    pub(super) misfits: Arc<Misfits>,
    hub: Mutex<Weak<Hub>>,
    document: Mutex<Option<Arc<str>>>,
    ended: watch::Sender<Option<Ended>>,
}

/// Why a data stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Changed,
    Deleted,
}

impl DataStream {
    pub(super) fn new(
        name: ResourceName,
        revision: u64,
        resource: Resource,
        config: Bytes,
    ) -> Self {
        Self {
            name,
            revision,
            resource,
            config,
            document: Mutex::default(),
            clients: AtomicUsize::new(0),
            misfits: Arc::default(),
            hub: Mutex::default(),
            ended: watch::Sender::new(None),
        }
    }

    /// Returns the number of its clients.
    #[must_use]
    pub fn clients_len(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Returns the AsyncAPI document that an operator stored for it.
    #[must_use]
    pub fn document(&self) -> Option<Arc<str>> {
        let document = self.document.lock();
        document.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_document(&self, text: &str) {
        let document = self.document.lock();
        *document.unwrap_or_else(PoisonError::into_inner) = Some(text.into());
    }

    /// Returns the hub that all clients share, or makes one; it is dropped with the last client. `fits` is false for
    /// the hub of a stream that was deleted and made again.
    pub(super) fn hub(&self, fits: impl Fn(&Hub) -> bool, make: impl FnOnce() -> Hub) -> Arc<Hub> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hub.upgrade().filter(|hub| fits(hub)) {
            return hub;
        }
        let made = Arc::new(make());
        *hub = Arc::downgrade(&made);
        made
    }

    /// Ends the subscriptions of all clients.
    pub(super) fn end_as(&self, ended: Ended) {
        self.ended.send_replace(Some(ended));
    }

    pub(super) fn end(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    pub(super) fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }
}
