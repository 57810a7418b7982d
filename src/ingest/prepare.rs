//! From checked messages to one commit.
//!
//! Each message passes the same steps once: seal its token, build its record, place it in a partition, append it to the
//! commit. A lost race prepares the whole submission again, because its secrets may have other versions then.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    log::Streams,
    model::{
        ids::PartitionId,
        record::{HeadersBuilder, Record, header},
        target::Origin,
    },
    secrets::{Draft, Used},
    storage::{Append, AppendKind, Commit, Committed, Dedup, Stream},
};

use super::{
    BODY_SLACK_BYTES, Error, Ingest, Placed, READ_WARNINGS_LEN_MAX, Submission, Warning,
    envelope::Checked, idempotency::Name, reply::KeptReply,
};

/// A commit, and what its answer needs.
pub(super) struct Work {
    pub(super) commit: Commit,
    pub(super) places: Vec<AppendPlace>,
    pub(super) warnings: Vec<Vec<Warning>>,
    /// Versions of secrets that the token of this submission replaces.
    pub(super) gone: Vec<Arc<str>>,
}

/// Number of an append of the commit, and of a record in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AppendPlace {
    pub(super) append: usize,
    pub(super) index: u64,
}

/// The secret that a record refers to.
#[derive(Default)]
struct Sealed<'a> {
    /// The name that the message gives.
    name: Option<&'a str>,
    /// The version that holds the submission's own token.
    used: Option<Used>,
    /// The message names a secret that nobody has presented yet.
    unknown: bool,
}

/// Parts that all records of a submission share.
struct Common<'a> {
    submission: &'a Submission<'a>,
    digest: Option<String>,
    /// Values are slices of the body. Else they are copied, so that a large body is not kept for small values.
    shares_body: bool,
}

impl Ingest {
    /// Makes the commit of a submission.
    pub(super) async fn prepare(
        &self,
        stream: &Stream,
        submission: &Submission<'_>,
        messages: &[Checked<'_>],
        batch: bool,
        name: Option<&Name>,
    ) -> Result<Work, Error> {
        let common = Common::new(submission, messages, name);
        let mut draft = submission
            .token
            .map(|token| self.secrets.draft(submission.source, token));
        let mut work = Work::new(messages.len());
        let mut warnings_left = READ_WARNINGS_LEN_MAX;
        for (index, message) in messages.iter().enumerate() {
            let index = batch.then_some(index);
            let sealed = self
                .seal(&mut draft, submission.source, message, index)
                .await?;
            let record = common.build(message, &sealed);
            let partition = self.place(stream, submission, &record);
            work.warn(message, sealed.unknown, &mut warnings_left);
            let refers = sealed.used.map(|used| used.state_key);
            work.append(partition, record, refers);
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

    /// Seals the submission's token for the target of a message, or checks that the source may use the secret it names.
    async fn seal<'m>(
        &self,
        draft: &mut Option<Draft<'_>>,
        source: &str,
        message: &'m Checked<'_>,
        index: Option<usize>,
    ) -> Result<Sealed<'m>, Error> {
        let Some(target) = &message.target else {
            return Ok(Sealed::default());
        };
        let name = message.secret_name.as_deref();
        match (draft, name) {
            (Some(draft), _) => Ok(Sealed {
                used: Some(draft.add(name, target).await?),
                ..Sealed::default()
            }),
            (None, Some(name)) => Ok(Sealed {
                unknown: !self.is_known(source, name, target, index).await?,
                name: Some(name),
                ..Sealed::default()
            }),
            (None, None) => Ok(Sealed::default()),
        }
    }

    async fn is_known(
        &self,
        source: &str,
        name: &str,
        target: &Origin,
        index: Option<usize>,
    ) -> Result<bool, Error> {
        let known = self.secrets.allowed(source, name, target).await;
        known.map_err(|_not| {
            let at = index.map_or_else(String::new, |index| format!("/{index}"));
            let pointer = at + "/streamMessage/vaultSecretName";
            Error::SecretNotForTarget { pointer }
        })
    }

    /// Returns the partition of a record: by its key, else by the idempotency key, so that a repeat finds the same one.
    fn place(&self, stream: &Stream, submission: &Submission<'_>, record: &Record) -> PartitionId {
        let key = match submission.key {
            Some(key) if record.key.is_empty() => key.as_str().as_bytes(),
            _ => &record.key,
        };
        self.streams.partition_for(stream, key)
    }
}

impl<'a> Common<'a> {
    fn new(submission: &'a Submission<'a>, messages: &[Checked<'_>], name: Option<&Name>) -> Self {
        let values_bytes: usize = messages.iter().map(|message| message.value.len()).sum();
        Self {
            submission,
            digest: name.map(|name| name.digest.text()),
            shares_body: submission.body.len() <= 2 * values_bytes + BODY_SLACK_BYTES,
        }
    }

    fn build(&self, message: &Checked<'_>, sealed: &Sealed<'_>) -> Record {
        let submission = self.submission;
        let mut headers = HeadersBuilder::default();
        headers.push(header::SOURCE, submission.source);
        if let Some(target) = &message.target {
            headers.push(header::TARGET, target.as_str());
        }
        match (&sealed.used, sealed.name) {
            (Some(used), _) => {
                headers.push(header::SECRET_NAME, &used.name);
                headers.push(header::SECRET_VERSION, &used.version.to_string());
            }
            (None, Some(name)) => {
                headers.push(header::SECRET_NAME, name);
            }
            (None, None) => {}
        }
        if let Some(content_type) = &message.content_type {
            headers.push(header::CONTENT_TYPE, content_type);
        }
        if let Some(traceparent) = submission.traceparent {
            headers.push(header::TRACEPARENT, traceparent);
        }
        if let (Some(key), Some(digest)) = (submission.key, &self.digest) {
            headers.push(header::IDEMPOTENCY_KEY, key.as_str());
            headers.push(header::IDEMPOTENCY_DIGEST, digest);
        }
        if let Some(layout) = &message.layout {
            headers.push(header::LAYOUT, layout);
        }
        Record {
            key: Bytes::copy_from_slice(message.key.as_bytes()),
            value: match self.shares_body {
                true => submission.body.slice_ref(message.value.as_bytes()),
                false => Bytes::copy_from_slice(message.value.as_bytes()),
            },
            headers: headers.build(),
        }
    }
}

impl Work {
    fn new(len: usize) -> Self {
        Self {
            commit: Commit::default(),
            places: Vec::with_capacity(len),
            warnings: Vec::with_capacity(len),
            gone: Vec::new(),
        }
    }

    /// Adds a record to the append of its partition.
    fn append(&mut self, of: PartitionId, record: Record, refers: Option<Arc<str>>) {
        let appends = &mut self.commit.appends;
        // A linear search is enough, because there is one append for each partition.
        let known = appends.iter().position(|append| append.of == of);
        let number = known.unwrap_or_else(|| {
            appends.push(Append {
                of,
                records: Vec::new(),
                kind: AppendKind::Accepted,
                refers: Vec::new(),
            });
            appends.len() - 1
        });
        let append = &mut appends[number];
        self.places.push(AppendPlace {
            append: number,
            index: u64::try_from(append.records.len()).unwrap_or(u64::MAX),
        });
        append.records.push(record);
        if let Some(key) = refers
            && !append.refers.contains(&key)
        {
            append.refers.push(key);
        }
    }

    /// Adds the warnings of a message; `left` is how many an answer still takes of those that reading made.
    fn warn(&mut self, message: &Checked<'_>, secret_unknown: bool, left: &mut usize) {
        let mut warnings = Vec::new();
        if secret_unknown {
            warnings.push(Warning::SecretUnknown);
        }
        let taken = message.warnings.len().min(*left);
        warnings.extend_from_slice(&message.warnings[..taken]);
        *left -= taken;
        self.warnings.push(warnings);
    }
}

/// Returns partition, offset and id of each message, in the order of the submission.
pub(super) fn placed(
    stream: &Stream,
    committed: &Committed,
    places: Vec<AppendPlace>,
    warnings: Vec<Vec<Warning>>,
) -> Vec<Placed> {
    let placed = |(place, warnings): (AppendPlace, Vec<Warning>)| {
        let append = &committed.appends[place.append];
        let (partition, offset) = (append.of.partition, append.first.plus(place.index));
        Placed {
            partition,
            offset,
            message_id: Streams::message_id(stream, partition, offset),
            warnings,
        }
    };
    places.into_iter().zip(warnings).map(placed).collect()
}
