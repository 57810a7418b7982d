//! Requests with a frame of their own: trims, and creation, change, purge and deletion of streams.
//!
//! They are rare, and all later requests must be checked against their changes. In a frame of their own they are durable
//! before the next check, so `pending` needs no rules for them.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    model::ids::Offset,
    runtime::clock::Timestamp,
    storage::{
        CommitError, ControlEvent, ControlEventKind, OpenRecords, Purged, Stream, StreamError,
    },
};

use super::queue::{Request, StreamAnswer};
use crate::storage::local::{
    books::{Books, PartitionBook, StreamBook},
    format::ops::{Op, StreamImage},
};

/// The caller of the request, with the answer for success.
#[derive(Debug)]
pub(in crate::storage) enum Answer {
    Trim(oneshot::Sender<Result<(), CommitError>>),
    Stream(StreamAnswer<Arc<Stream>>, Arc<Stream>),
    Purged(StreamAnswer<Purged>, Purged),
    Gone(StreamAnswer<()>),
}

impl Answer {
    /// Returns whether the request frees space in journal files.
    pub(in crate::storage) fn gives_back(&self) -> bool {
        match self {
            Self::Trim(_) | Self::Purged(..) | Self::Gone(_) => true,
            Self::Stream(..) => false,
        }
    }

    pub(in crate::storage) fn stored(self) {
        self.send(Ok(()));
    }

    pub(in crate::storage) fn refuse(self, error: CommitError) {
        self.send(Err(error));
    }

    fn send(self, stored: Result<(), CommitError>) {
        // Ignore send errors: the caller may have gone away.
        let _told = match self {
            Self::Trim(answer) => answer.send(stored).is_ok(),
            Self::Stream(answer, stream) => answer
                .send(stored.map(|()| stream).map_err(StreamError::from))
                .is_ok(),
            Self::Purged(answer, purged) => answer
                .send(stored.map(|()| purged).map_err(StreamError::from))
                .is_ok(),
            Self::Gone(answer) => answer.send(stored.map_err(StreamError::from)).is_ok(),
        };
    }
}

/// Turns a request into its operation and time. Returns `None` if it was answered and nothing is stored.
pub(in crate::storage) fn plan(
    books: &Books,
    request: Request,
    now: Timestamp,
    streams_max: usize,
) -> Option<(Op, u64, Answer)> {
    let time = now.0.max(books.last_time.saturating_add(1));
    let (op, answer) = match request {
        Request::Commit { .. } => {
            request.refuse(CommitError::Busy);
            return None;
        }
        Request::Trim { of, below, answer } => {
            let answer = Answer::Trim(answer);
            let Some((slot, book)) = books.partition_of(of) else {
                answer.refuse(CommitError::PartitionUnknown(of));
                return None;
            };
            let below = below.0.min(book.next);
            if below <= book.earliest {
                answer.stored();
                return None;
            }
            (Op::Trim { slot, below }, answer)
        }
        Request::Create {
            id,
            incarnation,
            name,
            partitions,
            config,
            answer,
        } => {
            let ocid_taken = config
                .ocid
                .as_ref()
                .is_some_and(|ocid| books.is_taken(ocid));
            if books.is_taken(name.as_str()) || ocid_taken {
                return refuse(answer, StreamError::Exists);
            }
            if books.streams_len() >= streams_max {
                return refuse(answer, StreamError::TooMany { streams_max });
            }
            let created = ControlEvent {
                kind: ControlEventKind::Created { partitions },
                time: Timestamp(time),
                tails: vec![Offset(0); partitions.into()],
            };
            let stream = Arc::new(Stream {
                id,
                incarnation,
                name,
                partitions,
                config,
                revision: 1,
                events: vec![created],
                last_purge: None,
            });
            let image = StreamImage {
                number: books.next_stream,
                stream: stream.clone(),
            };
            (Op::StreamMade(image), Answer::Stream(answer, stream))
        }
        Request::Change {
            id,
            partitions,
            config,
            revision,
            answer,
        } => {
            let (number, book) = match seen(books, id, revision) {
                Ok(found) => found,
                Err(error) => return refuse(answer, error),
            };
            let old = &book.stream;
            if partitions < old.partitions {
                let partitions = old.partitions;
                return refuse(answer, StreamError::Shrink { partitions });
            }
            if partitions == old.partitions && config == old.config {
                Answer::Stream(answer, old.clone()).stored();
                return None;
            }
            let mut stream = Stream::clone(old);
            stream.config = config;
            stream.revision += 1;
            if partitions > old.partitions {
                let mut tails: Vec<_> = book.partitions.iter().map(|p| Offset(p.next)).collect();
                tails.resize(partitions.into(), Offset(0));
                stream.partitions = partitions;
                stream.events.push(ControlEvent {
                    kind: ControlEventKind::Grown { partitions },
                    time: Timestamp(time),
                    tails,
                });
            }
            let stream = Arc::new(stream);
            let image = StreamImage {
                number,
                stream: stream.clone(),
            };
            (Op::StreamChanged(image), Answer::Stream(answer, stream))
        }
        Request::Renew {
            id,
            incarnation,
            answer,
        } => {
            let (number, book) = match seen(books, id, None) {
                Ok(found) => found,
                Err(error) => return refuse(answer, error),
            };
            let mut stream = Stream::clone(&book.stream);
            stream.incarnation = incarnation;
            stream.revision += 1;
            let stream = Arc::new(stream);
            let image = StreamImage {
                number,
                stream: stream.clone(),
            };
            (Op::StreamChanged(image), Answer::Stream(answer, stream))
        }
        Request::Purge {
            id,
            open,
            note,
            answer,
        } => {
            let (number, book) = match seen(books, id, None) {
                Ok(found) => found,
                Err(error) => return refuse(answer, error),
            };
            let open_len = open_len(book);
            if open == OpenRecords::Refuse && open_len > 0 {
                return refuse(answer, StreamError::Open { open_len });
            }
            let (old, partitions) = (&book.stream, book.partitions.iter());
            let removed: Vec<_> = partitions.map(PartitionBook::to_purge).collect();
            let tails: Vec<_> = removed.iter().map(|removed| removed.bounds.tail).collect();
            let last = old.events.last();
            let purged = |stream: &Arc<Stream>| Purged {
                stream: stream.clone(),
                partitions: removed.clone(),
            };
            if last.is_some_and(|last| last.kind == ControlEventKind::Purged && last.tails == tails)
            {
                Answer::Purged(answer, purged(old)).stored();
                return None;
            }
            let mut stream = old.after_purge(Timestamp(time), tails, note);
            stream.revision += 1;
            let stream = Arc::new(stream);
            let answer = Answer::Purged(answer, purged(&stream));
            (Op::StreamChanged(StreamImage { number, stream }), answer)
        }
        Request::Delete {
            id,
            revision,
            open,
            answer,
        } => match seen(books, id, revision) {
            Ok((_, book)) if open == OpenRecords::Refuse && open_len(book) > 0 => {
                let open_len = open_len(book);
                return refuse(answer, StreamError::Open { open_len });
            }
            Ok((stream, _)) => (Op::StreamGone { stream }, Answer::Gone(answer)),
            Err(error) => return refuse(answer, error),
        },
    };
    Some((op, time, answer))
}

fn open_len(book: &StreamBook) -> u64 {
    let partitions = book.partitions.iter();
    partitions
        .map(|partition| partition.counts.open_len())
        .sum()
}

fn seen(
    books: &Books,
    id: crate::model::ids::StreamId,
    revision: Option<u64>,
) -> Result<(u32, &StreamBook), StreamError> {
    let (number, book) = books.with_id(id).ok_or(StreamError::Unknown)?;
    if revision.is_some_and(|revision| revision != book.stream.revision) {
        return Err(StreamError::ChangedMeanwhile);
    }
    Ok((number, book))
}

fn refuse<T, U>(answer: StreamAnswer<T>, error: StreamError) -> Option<U> {
    // Ignore send errors: the caller may have gone away.
    let _told = answer.send(Err(error)).is_ok();
    None
}
