//! Idempotency keys: a repeated submission is recognised by its key, and gets the first answer again.
//!
//! The commit carries a dedup id, a digest of source and key, and a reply (`reply.rs`) with the body's digest and the
//! warnings. The engine keeps both in one write with the records, so after a crash all are there or none. An answer reads
//! nothing from the log, because the records may have been trimmed.
//!
//! The engine decides whether a commit repeats another, because it orders all commits. [`InFlight`] only saves the log from
//! a second body while the first has no answer.

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

use super::{Accepted, Error, Ingest, Submission, prepare::placed, reply::KeptReply};

/// Keys in flight, at most; further submissions are refused. An entry has about 50 bytes.
const IN_FLIGHT_LEN_MAX: usize = 65_536;

const KEY_BYTES_MAX: usize = 255;

/// What a source calls a submission: 1 to 255 visible ASCII characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey<'a>(&'a str);

impl<'a> IdempotencyKey<'a> {
    /// The rule for keys, for answers that refuse one.
    pub const RULE: &'static str = "must be 1 to 255 visible ASCII characters, without blanks";

    /// Reads a header value; `None` if it is not a key.
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
        // The length of the source keeps ("a", "bc") and ("ab", "c") apart.
        digest.update(&(source.len() as u64).to_le_bytes());
        digest.update(source.as_bytes());
        digest.update(self.0.as_bytes());
        DedupId(half(&digest.finish()))
    }
}

/// Digest of the bytes of an unpacked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyDigest(pub(super) [u8; 16]);

impl BodyDigest {
    pub(super) fn of(body: &[u8]) -> Self {
        Self(half(&ring::digest::digest(&SHA256, body)))
    }

    /// Returns the digest as record headers show it.
    pub(super) fn text(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

/// Returns 128 bits, which are enough against collisions found by trying.
fn half(digest: &Digest) -> [u8; 16] {
    let (half, _) = digest
        .as_ref()
        .split_first_chunk()
        .expect("SHA-256 has 32 bytes");
    *half
}

/// Identity of a submission with a key.
pub(super) struct Name {
    pub(super) id: DedupId,
    pub(super) digest: BodyDigest,
    pub(super) entered: Arc<Entered>,
}

/// Whether a submission with a key was stored before.
pub(super) enum Known {
    /// It was stored before; this is its answer.
    Repeated(Accepted),
    /// It is new. Its key is in flight until this is dropped.
    New(Name),
}

impl Ingest {
    /// Returns whether a submission was stored before, and puts its key in flight if not.
    ///
    /// # Errors
    /// Those of [`repeated`] and [`InFlight::enter`], and [`CommitError::Busy`].
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

    /// Commits, and waits for the answer on a task of its own, so that the key stays in flight even if the caller goes
    /// away.
    pub(super) async fn commit_apart(
        &self,
        commit: Commit,
        name: &Name,
    ) -> Result<Committed, CommitError> {
        let engine = self.streams.engine().clone();
        let mut committing = Box::pin(async move { engine.commit(commit).await });
        // The first poll queues the commit. It happens here and not on the task, because the caller holds the pause lock: the
        // stream must not grow before the commit is queued.
        if let Poll::Ready(committed) = futures_util::poll!(&mut committing) {
            return committed;
        }
        let (tell, told) = oneshot::channel();
        let entered = name.entered.clone();
        self.tasks.spawn_guarded(Part::Commit, async move {
            let committed = committing.await;
            drop(entered);
            // Ignore send errors: the caller may have gone away.
            let _told = tell.send(committed).is_ok();
        });
        let ended = || CommitError::MaybeStored("the task of the commit has ended".into());
        told.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Returns the answer of the first submission with this key, if the body is the same.
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

/// Keys whose commits have no answer yet. Clones share the set.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight(Arc<Mutex<HashSet<Commitment>>>);

type Commitment = (StreamId, DedupId);

impl InFlight {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// Puts a key in flight until the result is dropped.
    ///
    /// # Errors
    /// [`Error::IdempotencyInFlight`] if the key is in flight, and [`CommitError::Busy`] if too many are.
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

/// Keeps its key in flight until it is dropped.
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
