//! File descriptors for connections to targets: a bound on all together, and a fair part for each target.
//!
//! Hanging targets keep their connections for as long as a call may take. So the more descriptors a target has, the
//! more must be free for others: it gets another one only while it has less than an eighth of the free ones. One target
//! alone gets a ninth of all. Of 32, sixteen hanging targets take 25 at most, and a target without one gets the next
//! one. The attempt of a record begins after this wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{model::target::Origin, runtime::descriptors::FREE_PART};

/// Descriptors for calls. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::dispatch) struct Sockets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    /// Copy of the count in `state`, read without the lock.
    taken: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    /// Targets that have a descriptor or wait for one.
    targets: HashMap<Origin, Holder>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Holder {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Socket>>,
}

/// A descriptor that a connection may take; given back when dropped.
#[derive(Debug)]
pub(in crate::dispatch) struct Socket {
    sockets: Sockets,
    origin: Origin,
}

impl Sockets {
    pub(in crate::dispatch) fn new(max: usize) -> Self {
        Self(Arc::new(Inner {
            max: max.max(1),
            taken: AtomicUsize::new(0),
            state: Mutex::default(),
        }))
    }

    /// Waits for a descriptor.
    ///
    /// # Cancel safety
    /// A call that is dropped has taken nothing.
    pub(in crate::dispatch) async fn take(&self, origin: &Origin) -> Socket {
        loop {
            let told = {
                let mut state = self.state();
                if self.has_one_for(&state, origin) {
                    return self.give(&mut state, origin);
                }
                let (tell, told) = oneshot::channel();
                let holder = state.targets.entry(origin.clone()).or_default();
                holder.waiting.push_back(tell);
                state.waiting += 1;
                told
            };
            // No sender is dropped unused today; asking again is right if one ever is.
            if let Ok(socket) = told.await {
                return socket;
            }
        }
    }

    /// Returns whether three quarters are taken; idle connections should be closed then.
    pub(in crate::dispatch) fn are_scarce(&self) -> bool {
        self.0.taken.load(Ordering::Relaxed) >= self.0.max - self.0.max / 4
    }

    fn has_one_for(&self, state: &State, origin: &Origin) -> bool {
        let held = state.targets.get(origin).map_or(0, |holder| holder.held);
        let free = self.0.max - state.taken;
        free > 0 && (held == 0 || held < free / FREE_PART)
    }

    fn give(&self, state: &mut State, origin: &Origin) -> Socket {
        state.taken += 1;
        self.0.taken.store(state.taken, Ordering::Relaxed);
        state.targets.entry(origin.clone()).or_default().held += 1;
        Socket {
            sockets: self.clone(),
            origin: origin.clone(),
        }
    }

    fn give_back(&self, origin: &Origin) {
        let mut unwanted = Vec::new();
        let mut state = self.state();
        state.taken -= 1;
        self.0.taken.store(state.taken, Ordering::Relaxed);
        if let Some(holder) = state.targets.get_mut(origin) {
            holder.held -= 1;
        }
        state.tidy(origin);
        while let Some(next) = state.neediest() {
            if !self.has_one_for(&state, &next) {
                break;
            }
            let holder = state.targets.get_mut(&next);
            let Some(told) = holder.and_then(|holder| holder.waiting.pop_front()) else {
                break;
            };
            state.waiting -= 1;
            if told.is_closed() {
                state.tidy(&next);
                continue;
            }
            let socket = self.give(&mut state, &next);
            // Dropped after the lock is released, because its drop takes the lock. The waiting worker has gone.
            unwanted.extend(told.send(socket).err());
        }
        drop(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the waiting target with the fewest descriptors.
    fn neediest(&self) -> Option<Origin> {
        if self.waiting == 0 {
            return None;
        }
        let waiting = self.targets.iter();
        let waiting = waiting.filter(|(_, holder)| !holder.waiting.is_empty());
        let neediest = waiting.min_by_key(|(_, holder)| holder.held);
        neediest.map(|(origin, _)| origin.clone())
    }

    fn tidy(&mut self, origin: &Origin) {
        let is_idle = |holder: &Holder| holder.held == 0 && holder.waiting.is_empty();
        if self.targets.get(origin).is_some_and(is_idle) {
            self.targets.remove(origin);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.sockets.give_back(&self.origin);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;
    use crate::dispatch::tests::stub::within;
    use crate::runtime::descriptors::most_of_one;

    fn target(number: usize) -> Origin {
        Origin::bare(&format!("http://target-{number}:80")).unwrap()
    }

    /// Takes as many as a target gets now.
    fn fill(sockets: &Sockets, origin: &Origin) -> Vec<Socket> {
        std::iter::from_fn(|| sockets.take(origin).now_or_never()).collect()
    }

    #[tokio::test]
    async fn targets_that_hang_leave_one_for_another_target() {
        let sockets = Sockets::new(32);
        let mut hanging = Vec::new();
        for number in 0..16 {
            hanging.extend(fill(&sockets, &target(number)));
        }
        assert!((24..32).contains(&hanging.len()), "{}", hanging.len());
        assert!(sockets.are_scarce());
        let got = within("one for a new target", sockets.take(&target(99))).await;
        assert!(got.origin == target(99));
        // A descriptor is not reserved for a target that no longer waits.
        assert!(sockets.take(&target(0)).now_or_never().is_none());
        drop((hanging, got));
        assert_eq!(sockets.state().taken, 0);
        assert!(sockets.state().targets.is_empty(), "{sockets:?}");
        assert_eq!(fill(&sockets, &target(0)).len(), most_of_one(32));
    }

    #[tokio::test]
    async fn the_target_with_the_fewest_is_served_first() {
        let sockets = Sockets::new(32);
        let (rich, poor) = (target(100), target(101));
        let mut held = fill(&sockets, &rich);
        assert_eq!(held.len(), 3);
        held.extend((0..29).filter_map(|number| sockets.take(&target(number)).now_or_never()));
        assert_eq!(held.len(), 32);
        let mut more = pin!(sockets.take(&rich));
        let mut first = pin!(sockets.take(&poor));
        assert!(more.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_none());
        held.pop();
        let got = within("the first one", first).await;
        assert!(more.as_mut().now_or_never().is_none());
        drop((got, held));
        within("the other one", more).await;
        assert_eq!(sockets.state().taken, 0);
        assert!(sockets.state().targets.is_empty(), "{sockets:?}");
    }
}
