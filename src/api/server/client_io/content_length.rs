//! Corrects one wrong answer of hyper.
//!
//! hyper uses the two largest numbers of 64 bits internally. It answers a `Content-Length` of either with 431, as if there
//! were too many headers, and calls no code of ours. [`Length`] replaces these bytes by the right answer: 400.

use std::io::IoSlice;

use memchr::memmem;

/// Recognises such a request, and the answer to it.
#[derive(Debug)]
pub(super) struct Length {
    finder: memmem::Finder<'static>,
    impossible: bool,
}

/// The common digits of 2^64 - 1 and 2^64 - 2.
const IMPOSSIBLE: &[u8] = b"1844674407370955161";
/// The headers are at the start of a read; bytes further in are a body.
const LOOKED_AT_BYTES_MAX: usize = 8 << 10;

impl Length {
    pub(super) fn new() -> Self {
        Self {
            finder: memmem::Finder::new(IMPOSSIBLE),
            impossible: false,
        }
    }

    /// Looks for such a number in the bytes of a read.
    pub(super) fn look(&mut self, read: &[u8]) {
        let head = &read[..read.len().min(LOOKED_AT_BYTES_MAX)];
        self.impossible |= self.finder.find(head).is_some();
    }

    /// Returns the bytes to write in place of these.
    pub(super) fn instead(&self, parts: &[IoSlice<'_>]) -> Option<&'static [u8]> {
        const TOLD: &[u8] = b"HTTP/1.1 431 ";
        const MEANT: &[u8] =
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let is_told = self.impossible && parts.first()?.starts_with(TOLD);
        is_told.then_some(MEANT)
    }
}
