//! Memory of answers: the bytes of an answer count until the kernel has taken them.
//!
//! A client can request an answer and not read it, on each of its connections. So all answers share
//! `server.answers_bytes_max`; a request whose answer does not fit gets 503 `queue_full`.
//!
//! The buffer of an answer owns its share of the bound. hyper drops the buffer once it is written, which frees the share.
//! Answers of up to [`FREE_BYTES_MAX`] do not count, because a connection holds one at a time and itself costs more.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;

use crate::api::{
    Settings,
    problem::{Code, Problem},
};

/// Answers of this size or less do not count.
const FREE_BYTES_MAX: usize = 512;
/// One part in so many of the bound is kept for answers to batches, so that readers cannot block sources. As much is kept
/// for status answers, so that readers of records cannot block monitoring.
const KEPT_PART: usize = 8;
/// How long a streamed answer waits for space for its next part. A client that reads nothing is reset earlier.
const SPACE_PATIENCE: Duration = Duration::from_secs(20);

/// Counts the bytes of answers. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Answers(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    freed: Notify,
}

/// Bytes that an answer, or a part of one, takes of the bound until it is dropped.
#[derive(Debug)]
pub(in crate::api) struct Share {
    held: Arc<Held>,
    bytes: usize,
}

/// Marks a status answer, which may use the part kept for these.
#[derive(Clone, Copy, Debug)]
struct Look;

/// Marks an answer whose bytes count already.
#[derive(Clone, Copy, Debug)]
struct Counted;

impl Answers {
    /// Takes space for `bytes`; `None` if there is too little. An answer larger than the whole bound takes all of it, else
    /// it could never be sent.
    pub(in crate::api) fn take(&self, settings: &Settings, bytes: usize) -> Option<Share> {
        self.take_within(bytes_max(settings), bytes)
    }

    fn take_within(&self, bytes_max: usize, bytes: usize) -> Option<Share> {
        let bytes = bytes.min(bytes_max);
        let fits = |held: usize| (held + bytes <= bytes_max).then_some(held + bytes);
        let held = &self.0.bytes;
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        Some(Share {
            held: self.0.clone(),
            bytes,
        })
    }

    /// As [`Self::take`], with a problem in place of `None`.
    pub(in crate::api) fn take_or_refuse(
        &self,
        settings: &Settings,
        bytes: usize,
    ) -> Result<Share, Problem> {
        self.take(settings, bytes).ok_or_else(full)
    }

    /// Takes space for the answer to a batch before the batch is stored, also from the part kept for batches.
    pub(in crate::api) fn take_for_batch(
        &self,
        settings: &Settings,
        bytes: usize,
    ) -> Result<Share, Problem> {
        let share = self.take_within(settings.answers_bytes_max, bytes);
        share.ok_or_else(full)
    }

    /// As [`Self::take`], but waits for space, 20 s at most.
    pub(in crate::api) async fn take_in_time(
        &self,
        settings: &Settings,
        bytes: usize,
    ) -> Option<Share> {
        let taking = async {
            loop {
                let mut freed = std::pin::pin!(self.0.freed.notified());
                freed.as_mut().enable();
                if let Some(share) = self.take(settings, bytes) {
                    return share;
                }
                freed.await;
            }
        };
        tokio::time::timeout(SPACE_PATIENCE, taking).await.ok()
    }

    /// Takes space beyond the bound if necessary.
    fn take_anyway(&self, bytes: usize) -> Share {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Share {
            held: self.0.clone(),
            bytes,
        }
    }

    /// Counts an answer until it is dropped.
    ///
    /// A request that changed something always gets its answer, because a refusal would say that nothing changed. Such
    /// answers are small, except for those to batches, which take space before anything is stored (`sync.rs`).
    ///
    /// # Errors
    /// There is no space, and `may_refuse`: the request has changed nothing, so the client can repeat it.
    pub(in crate::api) fn count(
        &self,
        settings: &Settings,
        response: Response,
        may_refuse: bool,
    ) -> Result<Response, Problem> {
        let len = response.body().size_hint().exact();
        // A streamed answer counts part by part.
        let Some(len) = len.and_then(|len| usize::try_from(len).ok()) else {
            return Ok(response);
        };
        if len <= FREE_BYTES_MAX || response.extensions().get::<Counted>().is_some() {
            return Ok(response);
        }
        let is_look = response.extensions().get::<Look>().is_some();
        let share = match (may_refuse, is_look) {
            (true, true) => self
                .take_within(looks_bytes_max(settings), len)
                .ok_or_else(full)?,
            (true, false) => self.take_or_refuse(settings, len)?,
            (false, _) => self.take_anyway(len),
        };
        Ok(share.attach(response))
    }

    #[cfg(test)]
    pub(in crate::api) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// Returns the bytes that answers may take, except those to batches and status answers.
pub(in crate::api) fn bytes_max(settings: &Settings) -> usize {
    settings.answers_bytes_max - 2 * (settings.answers_bytes_max / KEPT_PART)
}

/// Returns the bytes that answers may take, status answers included.
fn looks_bytes_max(settings: &Settings) -> usize {
    settings.answers_bytes_max - settings.answers_bytes_max / KEPT_PART
}

impl Share {
    /// Changes the share to `bytes`.
    pub(in crate::api) fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                self.held.bytes.fetch_add(more, Ordering::Relaxed);
            }
            None => self.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    pub(in crate::api) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns bytes that own the share and `with`, and drop both with the last of them.
    pub(in crate::api) fn hold(
        self,
        bytes: impl AsRef<[u8]> + Send + 'static,
        with: impl Send + 'static,
    ) -> Bytes {
        Bytes::from_owner(Owner {
            bytes,
            _share: self,
            _with: with,
        })
    }

    /// Gives the share to the body of an answer.
    pub(in crate::api) fn attach(self, response: Response) -> Response {
        let mut response = response.map(|body| {
            Body::new(CountedBody {
                body,
                share: Some(self),
            })
        });
        response.extensions_mut().insert(Counted);
        response
    }

    fn give_back(&self, bytes: usize) {
        self.held.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.held.freed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// Marks a status answer.
pub(in crate::api) fn mark_look(response: &mut Response) {
    response.extensions_mut().insert(Look);
}

/// Marks an answer whose bytes own a share already.
pub(in crate::api) fn mark_counted(response: &mut Response) {
    response.extensions_mut().insert(Counted);
}

struct Owner<B, W> {
    bytes: B,
    _share: Share,
    _with: W,
}

impl<B: AsRef<[u8]>, W> AsRef<[u8]> for Owner<B, W> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// A body of one part whose bytes own a share.
struct CountedBody {
    body: Body,
    share: Option<Share>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|data| match self.share.take() {
                    Some(share) => share.hold(data, ()),
                    None => data,
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn full() -> Problem {
    let what = "answers that clients have not read yet use all of server.answers_bytes_max; send the request again";
    Problem::new(Code::QueueFull, what).retry_after(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(bytes_max: usize) -> Settings {
        let mut settings = Settings::new(&Config::default()).unwrap();
        settings.answers_bytes_max = bytes_max;
        settings
    }

    #[tokio::test]
    async fn bytes_count_until_the_last_of_them_is_dropped() {
        let (answers, settings) = (Answers::default(), settings(10_000));
        let of = |len: usize| Response::new(Body::from(vec![b'x'; len]));
        let counted = answers.count(&settings, of(6_000), true).unwrap();
        assert_eq!(answers.bytes(), 6_000);
        let refused = answers.count(&settings, of(6_000), true).unwrap_err();
        assert_eq!(refused.code(), Code::QueueFull);
        // Small answers are free, and a request that has changed something gets its answer in any case.
        let small = answers.count(&settings, of(FREE_BYTES_MAX), true).unwrap();
        let change = answers.count(&settings, of(6_000), false).unwrap();
        assert_eq!(answers.bytes(), 12_000);
        drop((small, change));
        // What counts once does not count again.
        let counted = answers.count(&settings, counted, true).unwrap();
        let read = axum::body::to_bytes(counted.into_body(), 6_000).await;
        let tail = read.unwrap().slice(5_999..);
        assert_eq!((answers.bytes(), &tail[..]), (6_000, &b"x"[..]));
        drop(tail);
        assert_eq!(answers.bytes(), 0);
    }

    #[tokio::test]
    async fn looks_at_the_gateway_have_space_that_nothing_else_takes_but_batches() {
        let (answers, settings) = (Answers::default(), settings(80_000));
        let of = |len: usize| Response::new(Body::from(vec![b'x'; len]));
        let look = |len: usize| {
            let mut look = of(len);
            mark_look(&mut look);
            answers.count(&settings, look, true)
        };
        // Pages of records and all other answers together.
        let page = answers.take(&settings, 55_000).unwrap();
        let other = answers.count(&settings, of(5_000), true).unwrap();
        assert!(answers.take(&settings, 1).is_none());
        assert!(answers.count(&settings, of(600), true).is_err());
        let first = look(6_000).unwrap();
        let second = look(4_000).unwrap();
        assert_eq!(answers.bytes(), 70_000);
        // The rest is for batches.
        assert_eq!(look(600).unwrap_err().code(), Code::QueueFull);
        let batch = answers.take_for_batch(&settings, 10_000).unwrap();
        drop((page, other, first, second, batch));
        assert_eq!(answers.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_space_gets_what_others_give_back_or_gives_up() {
        let (answers, settings) = (Answers::default(), settings(1_000));
        let first = answers.take(&settings, 600).unwrap();
        let mut waits = Box::pin(answers.take_in_time(&settings, 600));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(first);
        let second = waits.await.unwrap();
        assert!(answers.take_in_time(&settings, 600).await.is_none());
        drop(second);
        // One that is larger than the bound has it alone.
        let all = answers.take(&settings, 5_000).unwrap();
        assert_eq!((all.bytes(), answers.bytes()), (750, 750));
        assert!(answers.take(&settings, 1).is_none());
        let batch = answers.take_for_batch(&settings, 250).unwrap();
        assert!(answers.take_for_batch(&settings, 1).is_err());
        drop((all, batch));
        assert_eq!(answers.bytes(), 0);
    }
}
