//! The bound for all bodies together.
//!
//! Large bodies of sources leave a quarter of it to small ones and to users, so that slow senders of large bodies cannot
//! block the others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::too_many;
use crate::api::problem::Problem;

/// Bytes of all bodies that are being read or worked on.
pub(super) const ALL_BYTES_MAX: usize = 128 << 20;
/// Bytes that large bodies of sources leave free.
const KEPT_FROM_LARGE_BYTES: usize = ALL_BYTES_MAX / 4;
/// Bytes that small bodies of sources leave free for users.
const KEPT_FROM_SMALL_BYTES: usize = ALL_BYTES_MAX / 8;
/// A body of more bytes is a large one.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;

/// Kinds of senders of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Sender {
    /// An application that sends messages.
    Source,
    /// An authenticated user of the route.
    User,
}

/// Bytes that one body takes of the bound.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) held: Arc<AtomicUsize>,
    pub(super) len: usize,
    pub(super) sender: Sender,
    /// The declared length makes it a large body.
    pub(super) is_large: bool,
}

impl Share {
    /// Grows the share to `len` bytes.
    pub(super) fn cover(&mut self, len: usize) -> Result<(), Problem> {
        self.grow(len.saturating_sub(self.len))
    }

    /// Adds `len` bytes.
    pub(super) fn grow(&mut self, len: usize) -> Result<(), Problem> {
        let held = self.held.fetch_add(len, Ordering::Relaxed);
        self.len += len;
        if held + len > self.bytes_max() {
            return Err(too_many());
        }
        Ok(())
    }

    /// Gives all bytes back.
    pub(super) fn release(&mut self) {
        let len = std::mem::take(&mut self.len);
        self.held.fetch_sub(len, Ordering::Relaxed);
    }

    /// Returns how many bytes all bodies may take while this one grows.
    fn bytes_max(&self) -> usize {
        match self.sender {
            Sender::User => ALL_BYTES_MAX,
            Sender::Source if self.is_large || self.len > SMALL_BYTES_MAX => {
                ALL_BYTES_MAX - KEPT_FROM_LARGE_BYTES
            }
            Sender::Source => ALL_BYTES_MAX - KEPT_FROM_SMALL_BYTES,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}
