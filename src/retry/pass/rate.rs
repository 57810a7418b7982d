//! The rate at which a pass gives records out, and their calls begin.
//!
//! Records are given out in slots of the rate. That alone would let those that a target has held up begin together, so each
//! call takes a slot of its own as it begins; and while one waits for that, no more are given out.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::dispatch::queue::pace::{Pace, Slots};

/// When to look again whether calls still wait for their slot.
const AGAIN: Duration = Duration::from_millis(10);

/// A rate.
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

    /// Takes the slot of a record that is given out, or says when to ask again.
    pub(in crate::retry) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        match self.pace.is_behind() {
            true => Err(now + AGAIN),
            false => self.slots.take(now),
        }
    }
}
