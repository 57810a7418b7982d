//! Receives a body: under a bound, at a least rate.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::time::Instant;

use super::{share::Share, too_large};
use crate::api::problem::{Code, Problem};

/// Window of the least rate, which is 1 KiB a second.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(5);
const RATE_WINDOW_BYTES_MIN: usize = 5 << 10;

/// Bytes that are read and dropped of a refused body. Closing a connection with unread bytes resets it, and a client that
/// is still sending would lose the answer.
const DISCARDED_BYTES_MAX: usize = 16 << 20;
/// Such a client waits for the answer once it has sent nothing for so long.
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Memory that a declared length reserves at once, at most, because the bytes may never come.
const RESERVED_BYTES_MAX: usize = 256 << 10;

const CUT_SHORT: &str = "the body ended too early, or its chunks are not well-formed";

/// Returns the whole body as it was sent.
pub(super) async fn collect<B>(
    body: &mut B,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > bytes_max {
        return Err(too_large(bytes_max));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut rate = Rate::new();
    while let Some(frame) = rate.next(body).await? {
        let cut = |_error| Problem::new(Code::InvalidRequest, CUT_SHORT);
        let Ok(data) = frame.map_err(cut)?.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        // Most bodies are one frame, which is passed on without a copy.
        if first.is_empty() && all.is_empty() {
            share.cover(data.len())?;
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(
                declared
                    .min(RESERVED_BYTES_MAX)
                    .max(first.len() + data.len()),
            );
            all.extend_from_slice(&first);
            first = Bytes::new();
        }
        all.extend_from_slice(&data);
        share.cover(all.capacity())?;
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The rate at which a body arrives.
struct Rate {
    window_ends: Instant,
    /// Bytes that came in this window.
    bytes: usize,
}

impl Rate {
    fn new() -> Self {
        Self {
            window_ends: Instant::now() + RATE_WINDOW,
            bytes: 0,
        }
    }

    /// Returns the next frame; `None` at the end of the body.
    async fn next<B>(
        &mut self,
        body: &mut B,
    ) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let frame = tokio::time::timeout_at(self.window_ends, body.frame()).await;
            let Ok(frame) = frame else {
                if self.bytes < RATE_WINDOW_BYTES_MIN {
                    let what = "less than 1 KiB a second arrived of the body";
                    return Err(Problem::new(Code::TooSlow, what));
                }
                *self = Self::new();
                continue;
            };
            if let Some(Ok(frame)) = &frame {
                self.bytes += frame.data_ref().map_or(0, Bytes::len);
            }
            return Ok(frame);
        }
    }
}

/// Reads the rest of a refused body and drops it.
pub(super) async fn discard<B>(body: &mut B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = DISCARDED_BYTES_MAX;
    // A longer body would not be read to its end, so reading it is of no use.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|declared| declared > left) {
        return;
    }
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE_MAX, body.frame()).await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
