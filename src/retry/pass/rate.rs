//! The rate at which a pass queues records and their calls begin.
//!
//! Records are queued in slots of the rate. Records that a target has held up would still begin together. So each call
//! also takes a slot when it begins, and while a call waits for one, no more records are queued.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::dispatch::pace::{Pace, Slots};

/// How often to check whether calls still wait for a slot.
const AGAIN: Duration = Duration::from_millis(10);

/// The rate of a pass.
#[derive(Debug)]
pub(in crate::retry) struct Rate {
    slots: Slots,
    pub(in crate::retry) pace: Arc<Pace>,
}

impl Rate {
    pub(in crate::retry) fn new(per_second: NonZeroU32) -> Self {
        let slots = Slots::new(Duration::from_secs(1) / per_second.get(), Instant::now());
        Self {
            slots,
            pace: Pace::new(slots),
        }
    }

    /// Takes the slot of a record, or returns when to ask again.
    pub(in crate::retry) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        match self.pace.is_behind() {
            true => Err(now + AGAIN),
            false => self.slots.take(now),
        }
    }
}
