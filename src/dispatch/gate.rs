//! May a target be called now? Pure. A gate has as many slots as calls may be in flight at the same time.

/// Slots of one target.
#[derive(Debug)]
pub(crate) struct Gate {
    in_flight: usize,
    in_flight_max: usize,
}

impl Gate {
    /// A gate with at least one slot.
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self {
            in_flight: 0,
            in_flight_max: in_flight_max.max(1),
        }
    }

    /// Takes a slot, if one is free.
    pub(crate) fn enter(&mut self) -> bool {
        let free = self.in_flight < self.in_flight_max;
        self.in_flight += usize::from(free);
        free
    }

    /// Gives a slot back.
    pub(crate) fn leave(&mut self) {
        debug_assert!(self.in_flight > 0, "a slot is given back once");
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Returns how many slots are taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_up_to_the_greatest_and_given_back() {
        let mut gate = Gate::new(2);
        assert!(gate.enter() && gate.enter());
        assert!(!gate.enter(), "no third slot");
        gate.leave();
        assert_eq!(gate.in_flight(), 1);
        assert!(gate.enter());
        assert!(Gate::new(0).enter(), "no slot at all would stop a target");
    }
}
