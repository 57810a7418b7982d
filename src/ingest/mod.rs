//! Ingest: checks a submission, keeps its token, appends it, and answers with its place.
//!
//! A submission is one message, or up to `batch_len_max` of them as a JSON array or as lines; it is stored whole, in
//! one commit with what its token changes, or not at all. The record's value is the exact bytes of `streamMessage`,
//! shared with the request's body unless that is mostly something else. One with an idempotency key is stored once, how
//! often it may be sent (`idempotency.rs`). Who calls: `api/sync.rs`.

mod check;
mod envelope;
mod field;
mod heavy;
mod idempotency;
mod reply;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock},
    time::{Instant, timeout_at},
};

pub use crate::json::scan::DEPTH_MAX;
pub use field::{FieldCode, FieldError, URL_BYTES_MAX};
pub use idempotency::IdempotencyKey;

use crate::{
    config::Config,
    dispatch::{Forbidden, call::address::AddressRule},
    log::Streams,
    model::{
        ids::{MessageId, Offset, Partition, StreamName},
        record::{HeadersBuilder, Record, header},
        slip::Slip,
    },
    runtime::{live::Live, tasks::Tasks},
    secrets::{PrepareError, Secrets},
    storage::{Append, AppendKind, Commit, CommitError, Committed, Dedup, Stream},
};

use self::{
    check::{Faults, explain, read_leniently, unread, wrong_type},
    envelope::{Checked, Envelope},
    heavy::Heavy,
    idempotency::{InFlight, Known, Name},
    reply::KeptReply,
};
use crate::json::scan::Start;

/// Races over one secret's state that a submission loses before it is refused as busy.
const RACES_MAX: usize = 100;

/// How long a source waits for the log. A disk that is merely slow answers within seconds; senders commonly wait for 30 s
/// to 60 s, and one that has gone is not told anything.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How long a pause waits for submissions under way. Those that come meanwhile wait with it.
const PAUSE_PATIENCE: Duration = Duration::from_secs(10);

/// What a body may have beside its messages to be kept in memory for their sake, while the log's queue counts only them.
const BODY_SLACK_BYTES: usize = 64 << 10;

/// Warnings of one answer that are made while its messages are read, at most. They are for a person who looks at one of
/// them, and an answer has a bound.
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

/// What a message may be.
#[derive(Clone, Debug)]
struct Limits {
    lenient: bool,
    operations: Vec<String>,
    record_bytes_max: usize,
    key_bytes_max: usize,
    headers_bytes_max: usize,
    batch_len_max: usize,
    /// Which addresses dispatch calls.
    rule: AddressRule,
}

/// What a source sent. Its `Debug` shows neither body nor token.
#[derive(Clone)]
pub struct Submission<'a> {
    /// Who sent it.
    pub source: &'a str,
    /// The whole body, unpacked.
    pub body: Bytes,
    /// How the body is cut into messages.
    pub form: Form,
    /// The target's token; never empty.
    pub token: Option<&'a str>,
    /// A `traceparent` of the request, already found to be well-formed.
    pub traceparent: Option<&'a str>,
    /// The same key with the same body is the same submission.
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

/// What became of a submission: everything in it is durable.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The stream it is in.
    pub stream: Arc<Stream>,
    /// Where each message is, in the order of the submission.
    pub placed: Vec<Placed>,
    /// It was an array or lines, be it of one message.
    pub batch: bool,
    /// It had been stored before under its idempotency key, and nothing was stored now.
    pub repeated: bool,
}

/// Where one message is.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its id.
    pub message_id: MessageId,
    /// What somebody should look at.
    pub warnings: Vec<Warning>,
}

/// What may keep a message from being delivered, or from doing what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// It names a secret that nobody has presented yet; if that stays so, its dispatch fails with cause `secret`.
    SecretUnknown,
    /// A member of it has nearly the name of one of ours, and so is not looked at.
    UnknownMember(Slip),
    /// Its target has an address that is not called; if that stays so, its dispatch fails with cause `blocked`.
    TargetBlocked(Forbidden),
}

/// Why a submission was not, or may not have been, stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was stored, and the same submission never will be. Up to 100 faults are named.
    #[error("the submission is invalid")]
    Invalid(Vec<FieldError>),
    /// Nothing was stored: the message is larger than one may be.
    #[error("the message has {bytes} bytes, {bytes_max} are the most")]
    TooLarge {
        /// Key and message.
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
    /// Nothing was stored: what the log remembers of this idempotency key does not read.
    #[error("what is remembered of the idempotency key does not read")]
    ReplyMalformed,
    /// The log has not answered in time: it is stored, or will be, unless the log stops before.
    #[error("the log has not answered in time")]
    Unanswered,
    /// What the log said.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Submissions under way did not end within 10 s. None is kept waiting any longer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("submissions that are under way did not end within 10 s; the disk may be slow")]
pub struct NotPaused;

/// Keeps submissions waiting while it lives; see [`Ingest::pause`].
#[derive(Debug)]
pub struct Pause {
    _pause_lock: OwnedRwLockWriteGuard<()>,
}

impl Ingest {
    /// Puts ingest together: `sync`, `roles` and the sample's manners are taken from `config`. Commits that go on without
    /// their callers are tasks of `tasks`.
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

    /// Takes other limits, for submissions that come from now on.
    pub fn reload(&self, config: &Config) {
        self.limits.set(Arc::new(Limits::new(config)));
    }

    /// Stores a submission and returns where its messages landed.
    ///
    /// Everything in it is durable when this returns. A submission that was stored before under its idempotency key is
    /// not looked at any further: it is answered as it was then, whatever the settings have become.
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
        // A stream that grows while a key's record is on its way would give the next one another partition.
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
                // Another submission changed the same secret first, or the secret gave way to another token.
                Err(CommitError::StateConflict { key }) => {
                    self.secrets.conflicted(&key);
                    continue;
                }
                // Another submission took the room that this one had counted on.
                Err(CommitError::StateFull { .. }) => {
                    short_of_room = true;
                    continue;
                }
                // The engine takes every record that passed the door, so what has no room is the token.
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

    /// Waits until no submission is under way, and lets none begin before the pause is dropped.
    ///
    /// # Errors
    /// [`NotPaused`]: a disk that does not answer must not keep all submissions waiting behind those that it has.
    pub async fn pause(&self) -> Result<Pause, NotPaused> {
        let pause_lock =
            tokio::time::timeout(PAUSE_PATIENCE, self.pause_lock.clone().write_owned()).await;
        Ok(Pause {
            _pause_lock: pause_lock.map_err(|_elapsed| NotPaused)?,
        })
    }

    async fn prepare(
        &self,
        stream: &Stream,
        submission: &Submission<'_>,
        messages: &[Checked<'_>],
        batch: bool,
        name: Option<&Name>,
    ) -> Result<Work, Error> {
        let digest = name.map(|name| name.digest.text());
        let mut draft = submission
            .token
            .map(|token| self.secrets.draft(submission.source, token));
        let mut work = Work {
            commit: Commit::default(),
            places: Vec::with_capacity(messages.len()),
            warnings: Vec::with_capacity(messages.len()),
            gone: Vec::new(),
        };
        let values_bytes: usize = messages.iter().map(|message| message.value.len()).sum();
        let shares_body = submission.body.len() <= 2 * values_bytes + BODY_SLACK_BYTES;
        let mut warnings_left = READ_WARNINGS_LEN_MAX;
        for (index, message) in messages.iter().enumerate() {
            let mut headers = HeadersBuilder::default();
            headers.push(header::SOURCE, submission.source);
            let mut refers = None;
            let mut warnings = Vec::new();
            let name = message.secret_name.as_deref();
            if let Some(target) = &message.target {
                headers.push(header::TARGET, target.as_str());
                if let Some(draft) = &mut draft {
                    let used = draft.add(name, target).await?;
                    headers.push(header::SECRET_NAME, &used.name);
                    headers.push(header::SECRET_VERSION, &used.version.to_string());
                    refers = Some(used.state_key);
                } else if let Some(name) = name {
                    let known = self.secrets.allowed(submission.source, name, target).await;
                    let known = known.map_err(|_not| {
                        let at = if batch {
                            format!("/{index}")
                        } else {
                            String::new()
                        };
                        let pointer = at + "/streamMessage/vaultSecretName";
                        Error::SecretNotForTarget { pointer }
                    })?;
                    if !known {
                        warnings.push(Warning::SecretUnknown);
                    }
                    headers.push(header::SECRET_NAME, name);
                }
            }
            let told = message.warnings.len().min(warnings_left);
            warnings.extend_from_slice(&message.warnings[..told]);
            warnings_left -= told;
            if let Some(content_type) = &message.content_type {
                headers.push(header::CONTENT_TYPE, content_type);
            }
            if let Some(traceparent) = submission.traceparent {
                headers.push(header::TRACEPARENT, traceparent);
            }
            if let (Some(key), Some(digest)) = (submission.key, &digest) {
                headers.push(header::IDEMPOTENCY_KEY, key.as_str());
                headers.push(header::IDEMPOTENCY_DIGEST, digest);
            }
            if let Some(layout) = &message.layout {
                headers.push(header::LAYOUT, layout);
            }
            let record = Record {
                key: Bytes::copy_from_slice(message.key.as_bytes()),
                value: match shares_body {
                    true => submission.body.slice_ref(message.value.as_bytes()),
                    false => Bytes::copy_from_slice(message.value.as_bytes()),
                },
                headers: headers.build(),
            };
            let chooses = match submission.key {
                Some(key) if record.key.is_empty() => key.as_str().as_bytes(),
                _ => &record.key,
            };
            let of = self.streams.partition_for(stream, chooses);
            let appends = &mut work.commit.appends;
            // There are few: one for each partition that the batch meets.
            let there = appends.iter().position(|append| append.of == of);
            let append = there.unwrap_or_else(|| {
                appends.push(Append {
                    of,
                    records: Vec::new(),
                    kind: AppendKind::Accepted,
                    refers: Vec::new(),
                });
                appends.len() - 1
            });
            let place = &mut appends[append];
            work.places.push(AppendPlace {
                append,
                index: u64::try_from(place.records.len()).unwrap_or(u64::MAX),
            });
            place.records.push(record);
            if let Some(key) = refers
                && !place.refers.contains(&key)
            {
                place.refers.push(key);
            }
            work.warnings.push(warnings);
        }
        if let Some(draft) = draft {
            let changes = draft.into_changes().await?;
            work.commit.state = changes.state;
            work.commit.unreferred_since = changes.unreferred_since;
            work.gone = changes.gone;
        }
        work.commit.dedup = name.map(|name| Dedup {
            id: name.id,
            reply: KeptReply::encode(name.digest, batch, &work.places, &work.warnings),
        });
        Ok(work)
    }
}

impl Limits {
    fn new(config: &Config) -> Self {
        let (sync, oci) = (&config.sync, config.oci_sample.as_ref());
        Self {
            lenient: sync.lenient || oci.is_some_and(|oci| oci.compat),
            operations: sync.operations.clone(),
            record_bytes_max: sync.record_bytes_max,
            key_bytes_max: sync.key_bytes_max,
            headers_bytes_max: sync.headers_bytes_max,
            batch_len_max: sync.batch_len_max,
            rule: AddressRule::new(&config.dispatch, &[config.server.listen]),
        }
    }

    fn read<'a>(&self, body: &'a [u8], form: Form) -> Result<(bool, Vec<Checked<'a>>), Error> {
        let alone = |code, what: String| {
            let mut faults = Faults::default();
            faults.add(String::new(), (code, what));
            Error::Invalid(faults.into_errors())
        };
        let text = std::str::from_utf8(body)
            .map_err(|_| alone(FieldCode::NotUtf8, "the body is not UTF-8".into()))?;
        let deep = || {
            let what = format!("objects and arrays can be {DEPTH_MAX} deep");
            alone(FieldCode::TooLong, what)
        };
        let array = form == Form::Json && text.trim_ascii_start().starts_with('[');
        if form == Form::Json && !array {
            if !crate::json::scan::depth_is_legal(body) {
                return Err(deep());
            }
            return Ok((false, vec![self.read_one(Piece::whole(text), None)?]));
        }
        let len_max = self.batch_len_max;
        let too_many = || {
            let what = format!("a batch has at most {len_max} messages");
            alone(FieldCode::TooLong, what)
        };
        let pieces: Vec<Piece<'_>> = if array {
            // One more level is the array's own, and not the messages'.
            let inner = text.trim_ascii_start().as_bytes().get(1..);
            if !crate::json::scan::depth_is_legal(inner.unwrap_or_default()) {
                return Err(deep());
            }
            let elements = crate::json::scan::elements(text, len_max).map_err(|error| {
                let (code, what) = unread(text, &error, Start::default(), "an array");
                alone(code, what)
            })?;
            let elements = elements.ok_or_else(too_many)?.into_iter();
            // That they are JSON is known by now, so nobody asks where they begin.
            let texts = elements.map(RawValue::get);
            texts.map(Piece::whole).collect()
        } else {
            let lines = text.split('\n').enumerate();
            let lines = lines.map(|(at, line)| Piece::line(line, at));
            let lines = lines.filter(|line| !line.text.is_empty());
            lines.take(len_max + 1).collect()
        };
        if pieces.is_empty() {
            return Err(alone(FieldCode::Required, "the batch is empty".into()));
        }
        if pieces.len() > len_max {
            return Err(too_many());
        }
        if !array
            && !pieces
                .iter()
                .all(|line| crate::json::scan::depth_is_legal(line.text.as_bytes()))
        {
            return Err(deep());
        }
        Ok((true, self.read_batch(&pieces)?))
    }

    fn read_batch<'a>(&self, pieces: &[Piece<'a>]) -> Result<Vec<Checked<'a>>, Error> {
        let mut faults = Faults::default();
        let mut messages = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.iter().enumerate() {
            if faults.is_full() {
                break;
            }
            match self.read_one(*piece, Some(index)) {
                Ok(message) => messages.push(message),
                Err(Error::TooLarge { bytes_max, .. }) => {
                    let what = format!("a message has at most {bytes_max} bytes");
                    let pointer = format!("/{index}/streamMessage");
                    faults.add(pointer, (FieldCode::TooLong, what));
                }
                Err(Error::Invalid(errors)) => {
                    for error in errors {
                        faults.add(error.pointer, (error.code, error.detail));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        match faults.is_empty() {
            true => Ok(messages),
            false => Err(Error::Invalid(faults.into_errors())),
        }
    }

    /// Reads a message; `index` is its place in a batch.
    ///
    /// One that is too large is not looked at any closer: a list of its members could take ten times its bytes.
    fn read_one<'a>(&self, piece: Piece<'a>, index: Option<usize>) -> Result<Checked<'a>, Error> {
        let Piece { text, start } = piece;
        let bytes_max = self.record_bytes_max;
        let envelope = Envelope::read(text);
        if let Some(bytes) = envelope.as_ref().map(Envelope::bytes_len)
            && bytes > bytes_max
        {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        if let Some(message) = envelope.and_then(|envelope| envelope::read(envelope, self)) {
            return Ok(message);
        }
        // Key and message cannot be told from what else is there.
        let bytes = text.len();
        if bytes > bytes_max + BODY_SLACK_BYTES {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        let at = &index.map_or_else(String::new, |index| format!("/{index}"));
        let mut faults = Faults::default();
        if self.lenient {
            if let Some(message) = read_leniently(text, start, at, self, &mut faults) {
                let bytes = message.bytes_len();
                return match bytes > bytes_max {
                    true => Err(Error::TooLarge { bytes, bytes_max }),
                    false => Ok(message),
                };
            }
        } else {
            explain(text, start, at, self, &mut faults);
        }
        if faults.is_empty() {
            // The two ways disagree; refusing is the side on which nothing is lost.
            faults.add(at.into(), wrong_type("a sync message"));
        }
        Err(Error::Invalid(faults.into_errors()))
    }
}

/// The text of one message, and where in the body it begins.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    start: Start,
}

impl<'a> Piece<'a> {
    fn whole(text: &'a str) -> Self {
        let start = Start::default();
        Self { text, start }
    }

    /// Takes a line without the blanks around it.
    fn line(line: &'a str, lines_before: usize) -> Self {
        let behind = line.trim_ascii_start();
        let bytes_before = line.len() - behind.len();
        Self {
            text: behind.trim_ascii_end(),
            start: Start {
                lines_before,
                bytes_before,
            },
        }
    }
}

struct Work {
    commit: Commit,
    places: Vec<AppendPlace>,
    warnings: Vec<Vec<Warning>>,
    /// Tokens that give way to its own.
    gone: Vec<Arc<str>>,
}

/// Number of the append, and of the record in it.
#[derive(Debug, PartialEq, Eq)]
struct AppendPlace {
    append: usize,
    index: u64,
}

fn placed(
    stream: &Stream,
    committed: &Committed,
    places: Vec<AppendPlace>,
    warnings: Vec<Vec<Warning>>,
) -> Vec<Placed> {
    let place = |(place, warnings): (AppendPlace, Vec<Warning>)| {
        let append = &committed.appends[place.append];
        let (partition, offset) = (append.of.partition, append.first.plus(place.index));
        Placed {
            partition,
            offset,
            message_id: Streams::message_id(stream, partition, offset),
            warnings,
        }
    };
    places.into_iter().zip(warnings).map(place).collect()
}
