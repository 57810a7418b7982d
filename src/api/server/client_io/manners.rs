//! What the answers of a connection tell its socket.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// How long a client may take nothing of an answer. A response with another value than [`Patience::USUAL`] carries it as
/// an extension.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Patience(pub(in crate::api) Duration);

impl Patience {
    const USUAL: Self = Self(Duration::from_secs(10));
}

/// Settings of a socket that each answer of its connection may change.
#[derive(Debug)]
pub(in crate::api) struct Manners {
    patience_ms: AtomicU64,
    lingers: AtomicBool,
    watches: AtomicBool,
}

impl Default for Manners {
    fn default() -> Self {
        let manners = Self {
            patience_ms: AtomicU64::new(0),
            lingers: AtomicBool::new(false),
            watches: AtomicBool::new(false),
        };
        manners.set_patience(Patience::USUAL);
        manners
    }
}

impl Manners {
    /// Sets patience and lingering for the next answer. `lingers`: the answer is a refusal, and the request may have unread
    /// bytes.
    pub(in crate::api) fn answers(&self, patience: Option<Patience>, lingers: bool) {
        self.set_patience(patience.unwrap_or(Patience::USUAL));
        self.lingers.store(lingers, Ordering::Relaxed);
        self.watch(false);
    }

    /// Sets whether the connection ends as soon as the client hangs up.
    ///
    /// hyper cannot do this for one route: its setting for half-closed clients is for all requests of the server.
    pub(in crate::api) fn watch(&self, watches: bool) {
        self.watches.store(watches, Ordering::Relaxed);
    }

    fn set_patience(&self, Patience(patience): Patience) {
        let ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.patience_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    pub(super) fn watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed)
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.load(Ordering::Relaxed))
    }
}
