//! Submissions that are sent again: recognised by the key that their source gave them, answered as the first time.
//!
//! The key and the body's digest go with the commit: its dedup id is a digest of source and key, its reply
//! (`reply.rs`) has the digest and what the answer said beside the places. The engine keeps both with the records in one
//! write, so they are there after a crash exactly if the records are. Nothing is read from the log for an answer: the
//! records may have been trimmed since.
//!
//! Whether a commit repeats another is for the engine to say, which orders all of them. That a key is *in flight*
//! ([`InFlight`]) is known here, and only spares the log the second body.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use data_encoding::HEXLOWER;
use ring::digest::{Context, Digest, SHA256};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    model::ids::StreamId,
    runtime::tasks::Part,
    storage::{Commit, CommitError, Committed, DedupId, Stream},
};

use super::{Accepted, Error, Ingest, Submission, placed, reply::KeptReply};

/// Keys whose commits are on their way, at most; further ones are refused. An entry has about 50 bytes.
const IN_FLIGHT_LEN_MAX: usize = 65_536;

const KEY_BYTES_MAX: usize = 255;

/// What a source calls a submission: 1 to 255 visible ASCII characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey<'a>(&'a str);

impl<'a> IdempotencyKey<'a> {
    /// What a key must be, for those whose key is none.
    pub const RULE: &'static str = "must be 1 to 255 visible ASCII characters, without blanks";

    /// Takes a header's bytes; `None` if they are no key.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let legal =
            (1..=KEY_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(bytes).ok()?;
        legal.then_some(Self(text))
    }

    /// Returns the key.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// Returns the id of commits under this key.
    pub(super) fn dedup_id(&self, source: &str) -> DedupId {
        let mut digest = Context::new(&SHA256);
        digest.update(b"syncgate idempotency key 1");
        // A length before the source keeps its end apart from the key's beginning.
        digest.update(&(source.len() as u64).to_le_bytes());
        digest.update(source.as_bytes());
        digest.update(self.0.as_bytes());
        DedupId(half(&digest.finish()))
    }
}

/// Digest of the bytes of a body, as they are after unpacking: what tells one body from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyDigest(pub(super) [u8; 16]);

impl BodyDigest {
    pub(super) fn of(body: &[u8]) -> Self {
        Self(half(&ring::digest::digest(&SHA256, body)))
    }

    /// Returns it as records show it.
    pub(super) fn text(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

/// 128 bits: nobody finds two texts with the same ones by trying.
fn half(digest: &Digest) -> [u8; 16] {
    let (half, _) = digest.as_ref().split_first_chunk().expect("it has 32");
    *half
}

/// What a submission with a key is recognised by.
pub(super) struct Name {
    pub(super) id: DedupId,
    pub(super) digest: BodyDigest,
    pub(super) entered: Arc<Entered>,
}

/// What is known of a submission with a key.
pub(super) enum Known {
    /// It was stored before; this is its answer.
    Repeated(Accepted),
    /// Its key is in flight now, for as long as this lives.
    New(Name),
}

impl Ingest {
    /// Looks whether a submission was stored before, or is being stored.
    ///
    /// # Errors
    /// What [`repeated`] and [`InFlight::enter`] say, and [`CommitError::Busy`].
    pub(super) async fn recognise(
        &self,
        key: IdempotencyKey<'_>,
        submission: &Submission<'_>,
    ) -> Result<Known, Error> {
        let id = key.dedup_id(submission.source);
        let body = &submission.body;
        let by = Instant::now() + self.patience;
        let digest = self.heavy.run(body.len(), by, || BodyDigest::of(body));
        let digest = digest.await?;
        let stream = self.stream()?;
        if let Some(first) = self.streams.engine().committed(stream.id, id) {
            return repeated(stream, &first, digest).map(Known::Repeated);
        }
        let entered = self.in_flight.enter((stream.id, id))?;
        Ok(Known::New(Name {
            id,
            digest,
            entered: Arc::new(entered),
        }))
    }

    /// Commits, and waits for the answer on a task of its own: the key stays in flight until then, also if the caller
    /// goes away.
    pub(super) async fn commit_apart(
        &self,
        commit: Commit,
        name: &Name,
    ) -> Result<Committed, CommitError> {
        let engine = self.streams.engine().clone();
        let mut committing = Box::pin(async move { engine.commit(commit).await });
        // Here, and not on the task: the stream must not grow before it is queued.
        if let Poll::Ready(committed) = futures_util::poll!(&mut committing) {
            return committed;
        }
        let (tell, told) = oneshot::channel();
        let entered = name.entered.clone();
        self.tasks.spawn_guarded(Part::Commit, async move {
            let committed = committing.await;
            drop(entered);
            // Nobody may be waiting any more; that changes nothing.
            let _told = tell.send(committed).is_ok();
        });
        let ended = || CommitError::MaybeStored("the task of the commit has ended".into());
        told.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Returns the answer that the first submission under a key had, if this one has the same body.
pub(super) fn repeated(
    stream: Arc<Stream>,
    first: &Committed,
    digest: BodyDigest,
) -> Result<Accepted, Error> {
    let reply = first.repeats.as_deref().unwrap_or_default();
    let reply = KeptReply::decode(reply, &first.appends).ok_or(Error::ReplyMalformed)?;
    if reply.digest != digest {
        return Err(Error::IdempotencyMismatch);
    }
    Ok(Accepted {
        placed: placed(&stream, first, reply.places, reply.warnings),
        stream,
        batch: reply.batch,
        repeated: true,
    })
}

/// Keys whose commits have no answer yet. Clones share one set.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight(Arc<Mutex<HashSet<Commitment>>>);

type Commitment = (StreamId, DedupId);

impl InFlight {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Takes a key for as long as the answer lives.
    ///
    /// # Errors
    /// [`Error::IdempotencyInFlight`] if another has it, and [`CommitError::Busy`].
    pub(super) fn enter(&self, commitment: Commitment) -> Result<Entered, Error> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= IN_FLIGHT_LEN_MAX {
            return Err(CommitError::Busy.into());
        }
        if !all.insert(commitment) {
            return Err(Error::IdempotencyInFlight);
        }
        Ok(Entered {
            all: self.clone(),
            commitment,
        })
    }
}

/// Keeps its key in flight while it lives.
#[derive(Debug)]
pub(super) struct Entered {
    all: InFlight,
    commitment: Commitment,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.commitment);
    }
}
