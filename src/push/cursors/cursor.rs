//! One cursor: its position, and the client that holds it.
//!
//! A cursor has one client at a time. Each client that takes it gets a new number. Acknowledgements under an earlier
//! number are ignored, so a client that lost the cursor cannot move it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    push::{
        position::{ClientPosition, PositionKey, StreamPlace},
        resource::ResourceName,
    },
    runtime::clock::Timestamp,
};

use super::{Cursors, name::CursorName};

/// The holder's number while a request moves a cursor. No client has this number, and no client can take the cursor
/// meanwhile.
const MOVER: u64 = 0;

/// Data stream and name.
pub(super) type Id = (ResourceName, CursorName);

/// The position of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::push) struct At {
    /// Every record before this position is acknowledged.
    pub(in crate::push) position: ClientPosition,
    /// Set if the cursor was made for a time that no record had reached yet: earlier records are not sent.
    pub(in crate::push) waits_for: Option<Timestamp>,
}

/// The form in which it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    v: u8,
    pos: String,
    waits_for: Option<u64>,
    acked_at: Option<u64>,
    used_at: u64,
}

/// A cursor as it is at one moment.
#[derive(Clone, Debug)]
pub(in crate::push) struct State {
    pub(in crate::push) at: At,
    pub(in crate::push) acked_at: Option<Timestamp>,
    /// When a client last came, went or acknowledged.
    pub(in crate::push) used_at: Timestamp,
    /// Number of the client that has it, or [`MOVER`].
    holder: Option<u64>,
    /// The cursor was deleted; a client that still holds it has lost it.
    pub(super) removed: bool,
}

impl State {
    pub(in crate::push) fn new(at: At, now: Timestamp) -> Self {
        Self {
            at,
            acked_at: None,
            used_at: now,
            holder: None,
            removed: false,
        }
    }

    /// Reads the stored form; `None` if it is not one that this version can read.
    pub(super) fn read(stored: &[u8], key: &PositionKey) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(stored).ok()?;
        let position = key.read(&stored.pos).ok().filter(|_| stored.v == 1)?;
        let waits_for = stored.waits_for.map(Timestamp);
        Some(Self {
            acked_at: stored.acked_at.map(Timestamp),
            ..Self::new(
                At {
                    position,
                    waits_for,
                },
                Timestamp(stored.used_at),
            )
        })
    }

    /// Returns the form to store.
    pub(super) fn write(&self, key: &PositionKey) -> Vec<u8> {
        let stored = Stored {
            v: 1,
            pos: key.text(&self.at.position),
            waits_for: self.at.waits_for.map(|time| time.0),
            acked_at: self.acked_at.map(|time| time.0),
            used_at: self.used_at.0,
        };
        serde_json::to_vec(&stored).expect("texts and numbers always encode")
    }

    /// Returns whether a client holds it.
    pub(in crate::push) fn is_held(&self) -> bool {
        self.holder.is_some()
    }
}

/// A cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) id: Id,
    state: Mutex<State>,
    /// Number of the last client that took it.
    last: watch::Sender<u64>,
}

/// Another client has the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another client holds this cursor; takeover=true disconnects that client")]
pub struct CursorInUse;

impl Cursor {
    pub(super) fn new(id: Id, state: State) -> Self {
        Self {
            id,
            state: Mutex::new(state),
            last: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps clients away while the cursor is moved by a request.
    pub(super) fn begin_move(&self) -> Result<(), CursorInUse> {
        let mut state = self.state();
        if state.removed || state.is_held() {
            return Err(CursorInUse);
        }
        state.holder = Some(MOVER);
        Ok(())
    }

    /// Ends the move: `moved` is the new state; `None` leaves the cursor where it was.
    pub(super) fn end_move(&self, moved: Option<State>) {
        let mut state = self.state();
        match moved {
            Some(moved) => *state = moved,
            None => state.holder = None,
        }
    }

    /// Moves it forward and returns whether it moved. A position at or before its own changes nothing.
    pub(super) fn advance(state: &mut State, position: ClientPosition, now: Timestamp) -> bool {
        let known = &state.at.position;
        let same_life = known.incarnation == position.incarnation;
        if state.removed || (same_life && position.place.is_within(&known.place)) {
            return false;
        }
        state.at = At {
            position,
            waits_for: None,
        };
        (state.acked_at, state.used_at) = (Some(now), now);
        true
    }
}

/// A cursor held by one client, until this is dropped or another client takes it over.
#[derive(Debug)]
pub(in crate::push) struct Held {
    cursors: Cursors,
    cursor: Arc<Cursor>,
    number: u64,
    last: watch::Receiver<u64>,
}

impl Held {
    /// Takes a cursor and returns its state. With `takeover`, a client that holds it loses it.
    pub(super) fn take(
        cursors: &Cursors,
        cursor: &Arc<Cursor>,
        takeover: bool,
        now: Timestamp,
    ) -> Result<(Self, At), CursorInUse> {
        let mut state = cursor.state();
        let refused = match state.holder {
            None => state.removed,
            Some(MOVER) => true,
            Some(_) => state.removed || !takeover,
        };
        if refused {
            return Err(CursorInUse);
        }
        let number = *cursor.last.borrow() + 1;
        (state.holder, state.used_at) = (Some(number), now);
        cursor.last.send_replace(number);
        let held = Self {
            cursors: cursors.clone(),
            cursor: cursor.clone(),
            number,
            last: cursor.last.subscribe(),
        };
        Ok((held, state.at.clone()))
    }

    /// Returns once another client has taken it.
    pub(in crate::push) async fn taken_over(&mut self) {
        let number = self.number;
        // The error of a closed channel cannot occur: `self` holds the cursor, which owns the sender.
        let _changed = self.last.wait_for(|last| *last != number).await;
    }

    /// Records what the client has acknowledged; it is durable soon ([`Held::settle`]).
    pub(in crate::push) fn ack(&self, position: ClientPosition) {
        let now = self.cursors.now();
        let mut state = self.cursor.state();
        let news = state.holder == Some(self.number) && Cursor::advance(&mut state, position, now);
        drop(state);
        if news {
            self.cursors.store_soon(&self.cursor.id);
        }
    }

    /// Returns once every acknowledgement so far is durable.
    pub(in crate::push) async fn settle(&self) -> Result<(), crate::storage::CommitError> {
        self.cursors.store().await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.cursor.state();
        if state.holder == Some(self.number) {
            (state.holder, state.used_at) = (None, self.cursors.now());
            drop(state);
            self.cursors.store_soon(&self.cursor.id);
        }
    }
}

impl StreamPlace {
    /// Returns whether `other` has passed everything that this place has passed.
    pub(in crate::push) fn is_within(&self, other: &Self) -> bool {
        let mut next = self.next.iter().zip(0..);
        self.events <= other.events
            && next.all(|(next, at): (_, usize)| *next <= other.next.get(at).copied().unwrap_or(0))
    }
}
