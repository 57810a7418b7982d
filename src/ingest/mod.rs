//! Ingest: checks a submission, seals its token, and appends its records.
//!
//! A submission is one message, or a batch of up to `batch_len_max` messages: a JSON array or lines. One commit stores all
//! of it with the secret that its token changes, or nothing. The value of a record is the exact bytes of `streamMessage`.
//! A submission with an idempotency key is stored once, however often it is sent (`idempotency.rs`).
//!
//! The steps: `read.rs` checks the messages; `prepare.rs` seals the token, builds and places the records, and appends them
//! to a commit; [`Ingest::submit`] commits it. `api/sync.rs` calls it.

mod check;
mod envelope;
mod field;
mod heavy;
mod idempotency;
mod prepare;
mod read;
mod reply;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock},
    time::{Instant, timeout_at},
};

pub use idempotency::IdempotencyKey;

use crate::{
    config::Config,
    json::faults::FieldError,
    log::Streams,
    model::{
        address::Forbidden,
        ids::{MessageId, Offset, Partition, StreamName},
        slip::Slip,
    },
    runtime::{live::Live, tasks::Tasks},
    secrets::{PrepareError, Secrets},
    storage::{CommitError, Stream},
};

use self::{
    heavy::Heavy,
    idempotency::{InFlight, Known, Name},
    prepare::{Work, placed},
    read::Limits,
};

/// Races for one secret's state that a submission may lose before it is refused as busy.
const RACES_MAX: usize = 100;

/// How long a source waits for the log. A slow disk answers within seconds, and most senders give up after 30 s to 60 s.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How long a pause waits for submissions under way. New submissions wait as long.
const PAUSE_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes beside its messages that a body may have if records share its memory. The append queue counts only the messages.
const BODY_SLACK_BYTES: usize = 64 << 10;

/// Warnings of one answer that reading its messages makes, at most, because an answer has a bound.
const READ_WARNINGS_LEN_MAX: usize = 100;

/// Handle to ingest. Clones share everything.
#[derive(Clone, Debug)]
pub struct Ingest {
    streams: Streams,
    secrets: Secrets,
    stream: StreamName,
    limits: Arc<Live<Limits>>,
    pause_lock: Arc<RwLock<()>>,
    in_flight: InFlight,
    heavy: Heavy,
    tasks: Tasks,
    patience: Duration,
}

/// A body with its request's data. Its `Debug` shows neither body nor token.
#[derive(Clone)]
pub struct Submission<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// The whole body, unpacked.
    pub body: Bytes,
    /// How the body is cut into messages.
    pub form: Form,
    /// The target's token; never empty.
    pub token: Option<&'a str>,
    /// The `traceparent` of the request, well-formed.
    pub traceparent: Option<&'a str>,
    /// Its idempotency key: the same key with the same body is the same submission.
    pub key: Option<IdempotencyKey<'a>>,
}

impl fmt::Debug for Submission<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("source", &self.source)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// How a body is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object, or an array of them.
    Json,
    /// One JSON object a line; empty lines are skipped.
    Lines,
}

/// A stored submission: every record of it is durable.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The stream that holds it.
    pub stream: Arc<Stream>,
    /// Partition and offset of each message, in the order of the submission.
    pub placed: Vec<Placed>,
    /// The body was an array or lines, even if of one message.
    pub batch: bool,
    /// It was stored before under its idempotency key; this call stored nothing.
    pub repeated: bool,
}

/// Partition, offset and id of one message.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its id.
    pub message_id: MessageId,
    /// Doubts that a person should check.
    pub warnings: Vec<Warning>,
}

/// A reason why a message may not be delivered, or may not do what its sender meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Nobody has presented the secret that it names. Until then its dispatch fails with cause `secret`.
    SecretUnknown,
    /// A member has nearly the name of a known one; the gateway ignores it.
    UnknownMember(Slip),
    /// The address of its target is forbidden. Unless a setting changes, its dispatch fails with cause `blocked`.
    TargetBlocked(Forbidden),
}

/// Why a submission was not, or may not have been, stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was stored, and no repeat of this submission will be. Up to 100 faults are named.
    #[error("the submission is invalid")]
    Invalid(Vec<FieldError>),
    /// Nothing was stored: the message is too large.
    #[error("the message has {bytes} bytes, {bytes_max} are the most")]
    TooLarge {
        /// Bytes of key and message.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Nothing was stored: a message names a secret that was never presented for its target.
    #[error("the secret is not bound to the target of this message")]
    SecretNotForTarget {
        /// The member that names it.
        pointer: String,
    },
    /// Nothing was stored: the token cannot be kept.
    #[error(transparent)]
    Secret(#[from] PrepareError),
    /// Nothing was stored: the stream for submissions is gone.
    #[error("stream {0} for submissions is gone")]
    StreamGone(StreamName),
    /// Nothing was stored: its idempotency key came with another body before.
    #[error("the idempotency key came with another body before")]
    IdempotencyMismatch,
    /// Nothing was stored by this call; the submission that has the same idempotency key has no answer yet.
    #[error("a submission with the same idempotency key is being stored")]
    IdempotencyInFlight,
    /// Nothing was stored: the log's entry of this idempotency key cannot be decoded.
    #[error("the kept reply of the idempotency key cannot be decoded")]
    ReplyMalformed,
    /// The log has not answered in time. The submission is stored, or will be unless the log stops before.
    #[error("the log has not answered in time")]
    Unanswered,
    /// The commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Submissions under way did not end within 10 s, so the pause was given up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("submissions that are under way did not end within 10 s; the disk may be slow")]
pub struct NotPaused;

/// Keeps submissions waiting while it lives; see [`Ingest::pause`].
#[derive(Debug)]
pub struct Pause {
    _pause_lock: OwnedRwLockWriteGuard<()>,
}

impl Ingest {
    /// Makes ingest with `[sync]`, `[roles]` and `[oci_sample]` of `config`. A commit whose caller has gone is a task of
    /// `tasks`.
    #[must_use]
    pub fn new(streams: Streams, secrets: Secrets, config: &Config, tasks: &Tasks) -> Self {
        Self {
            streams,
            secrets,
            stream: config.roles.source.clone(),
            limits: Arc::new(Live::new(Limits::new(config))),
            pause_lock: Arc::default(),
            in_flight: InFlight::default(),
            heavy: Heavy::default(),
            tasks: tasks.clone(),
            patience: ANSWER_PATIENCE,
        }
    }

    /// Replaces the limits for later submissions.
    pub fn reload(&self, config: &Config) {
        self.limits.set(Arc::new(Limits::new(config)));
    }

    /// Stores a submission and returns partition and offset of its messages.
    ///
    /// All its records are durable when this returns. A submission that was stored before under its idempotency key gets
    /// the first answer again, also if the settings would refuse it now.
    ///
    /// # Errors
    /// [`Error`]; only [`Error::Unanswered`] and [`CommitError::MaybeStored`] leave open whether it was stored.
    ///
    /// # Cancel safety
    /// A call dropped after its commit was queued is still stored; the caller only loses the answer. Its idempotency key
    /// stays in flight until the log has answered.
    pub async fn submit(&self, submission: Submission<'_>) -> Result<Accepted, Error> {
        let Some(key) = submission.key else {
            return self.store(&submission, None).await;
        };
        match self.recognise(key, &submission).await? {
            Known::Repeated(accepted) => Ok(accepted),
            Known::New(name) => self.store(&submission, Some(name)).await,
        }
    }

    fn stream(&self) -> Result<Arc<Stream>, Error> {
        let stream = self.streams.by_name(&self.stream);
        stream.ok_or_else(|| Error::StreamGone(self.stream.clone()))
    }

    async fn store(
        &self,
        submission: &Submission<'_>,
        name: Option<Name>,
    ) -> Result<Accepted, Error> {
        let body = &submission.body;
        let by = Instant::now() + self.patience;
        let read = || self.limits.get().read(body, submission.form);
        let (batch, messages) = self.heavy.run(body.len(), by, read).await??;
        // The stream must not grow until the commit is queued: else two records of a key could swap their order.
        let open = timeout_at(by, self.pause_lock.read()).await;
        let _open = open.map_err(|_| CommitError::Busy)?;
        let mut short_of_room = false;
        for _ in 0..RACES_MAX {
            let stream = self.stream()?;
            let work = self
                .prepare(&stream, submission, &messages, batch, name.as_ref())
                .await?;
            let Work {
                commit,
                places,
                warnings,
                gone,
            } = work;
            let state = !commit.state.is_empty();
            let committed = match &name {
                None => timeout_at(by, self.streams.engine().commit(commit)).await,
                Some(name) => timeout_at(by, self.commit_apart(commit, name)).await,
            };
            let committed = match committed.map_err(|_| Error::Unanswered)? {
                Ok(committed) => committed,
                // Another submission changed the same secret first, or replaced it.
                Err(CommitError::StateConflict { key }) => {
                    self.secrets.conflicted(&key);
                    continue;
                }
                // Another submission used the room for state that this one had found.
                Err(CommitError::StateFull { .. }) => {
                    short_of_room = true;
                    continue;
                }
                // The engine takes every record that passed the checks, so the token has no room.
                Err(CommitError::TooLarge { .. }) if state => return Err(PrepareError::Full.into()),
                Err(error) => return Err(error.into()),
            };
            if let (Some(_), Some(name)) = (&committed.repeats, &name) {
                return idempotency::repeated(stream, &committed, name.digest);
            }
            self.secrets.stored(&gone);
            let placed = placed(&stream, &committed, places, warnings);
            return Ok(Accepted {
                stream,
                placed,
                batch,
                repeated: false,
            });
        }
        match short_of_room {
            true => Err(PrepareError::Full.into()),
            false => Err(Error::Commit(CommitError::Busy)),
        }
    }

    /// Waits until no submission is under way. None begins until the pause is dropped.
    ///
    /// # Errors
    /// [`NotPaused`] after 10 s, because new submissions wait meanwhile.
    pub async fn pause(&self) -> Result<Pause, NotPaused> {
        let pause_lock =
            tokio::time::timeout(PAUSE_PATIENCE, self.pause_lock.clone().write_owned()).await;
        Ok(Pause {
            _pause_lock: pause_lock.map_err(|_elapsed| NotPaused)?,
        })
    }
}
