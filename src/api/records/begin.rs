//! The start of a page, in one partition or in all of them.

use std::sync::Arc;

use super::{
    page::Of,
    reading::Reading,
    token::{Token, TokenInvalid},
};
use crate::{
    api::{
        EdgeState,
        problem::{Code, Problem},
        query::{Query, invalid},
    },
    model::{
        ids::{Offset, PartitionId},
        when,
    },
    runtime::clock::Timestamp,
    storage::{Bounds, ReadError, Stream, StreamBounds},
};

/// The start of a page.
pub(super) enum Begin {
    Earliest,
    Tail,
    At(Timestamp),
    /// An offset, or the `next` of a page of all partitions.
    Position(String),
}

impl Begin {
    /// Reads `from` and `at`. Both accept times; a duration such as `10m` counts back from `now`.
    pub(super) fn parse(query: &Query<'_>, now: Timestamp) -> Result<Self, Problem> {
        match (query.get("from"), query.get("at")) {
            (Some(_), Some(_)) => Err(invalid("give from or at, not both".into())),
            (None, Some(time)) => {
                let wrong = || invalid(format!("at is a time: give {}", when::EXAMPLES));
                when::read(time, now).map(Self::At).ok_or_else(wrong)
            }
            (None | Some("earliest"), None) => Ok(Self::Earliest),
            (Some("tail"), None) => Ok(Self::Tail),
            (Some(text), None) => Ok(match when::read(text, now) {
                Some(time) => Self::At(time),
                None => Self::Position(text.to_owned()),
            }),
        }
    }
}

/// Returns the reading of a page of one partition.
pub(super) async fn of_one(
    shared: &EdgeState,
    of: PartitionId,
    from: Begin,
    open: bool,
) -> Result<(Reading, Of), Problem> {
    let (engine, turns) = (shared.streams.engine(), &shared.page_turns);
    let status = engine.status(of)?;
    let Bounds { earliest, tail } = status.bounds;
    let mut from = match from {
        Begin::Earliest => earliest,
        Begin::Tail => tail,
        Begin::At(time) => turns.take(engine.offset_at(of, time)).await?,
        Begin::Position(offset) => {
            let wrong = || match Token::parse(&offset) {
                Err(TokenInvalid::NotOne) => {
                    "from is an offset, earliest, tail, or a time such as 2026-12-01 or 10m"
                }
                _ => "this from goes on with all partitions; give * as the partition",
            };
            let number = offset.parse().map_err(|_| invalid(wrong().into()))?;
            Offset(number)
        }
    };
    if open {
        if from < earliest {
            let wanted = from;
            return Err(ReadError::Trimmed { wanted, earliest }.into());
        }
        from = from.max(status.low_mark.min(tail));
    }
    let reading = Reading::one(engine.clone(), turns.clone(), (of, from, tail), open);
    Ok((reading, Of::One(status.bounds)))
}

/// Returns the reading of a page of all partitions, and the stream as of its start: it may have grown since the caller
/// looked it up.
pub(super) async fn of_all(
    shared: &EdgeState,
    stream: &Stream,
    from: Begin,
    open: bool,
) -> Result<(Arc<Stream>, Reading, Of), Problem> {
    let (engine, turns) = (shared.streams.engine(), &shared.page_turns);
    let gone = || Problem::new(Code::StreamUnknown, "the stream has just been deleted");
    let StreamBounds {
        stream, partitions, ..
    } = engine.bounds(stream.id).ok_or_else(gone)?;
    let positions = match &from {
        Begin::Position(text) => positions(&stream, &partitions, text)?,
        _ => Vec::new(),
    };
    let mut lanes = Vec::with_capacity(partitions.len());
    for (number, (of, bounds)) in stream.all_partitions().zip(&partitions).enumerate() {
        let next = match from {
            Begin::Earliest => bounds.earliest,
            Begin::Tail => bounds.tail,
            Begin::At(time) => turns
                .take(engine.offset_at(of, time))
                .await?
                .min(bounds.tail),
            Begin::Position(_) => positions.get(number).copied().unwrap_or_default(),
        };
        let ended = match open {
            true => engine.status(of)?.low_mark.min(bounds.tail),
            false => Offset::default(),
        };
        lanes.push((of, next.max(ended), bounds.tail));
    }
    let reading = Reading::all(engine.clone(), turns.clone(), lanes, open);
    Ok((stream, reading, Of::All(partitions)))
}

/// Returns the next offset of each partition from the `next` of the page before.
fn positions(stream: &Stream, bounds: &[Bounds], text: &str) -> Result<Vec<Offset>, Problem> {
    let token = Token::parse(text).map_err(|wrong| {
        let is_offset = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        match is_offset {
            true => invalid(
                "from: an offset belongs to one partition; name the partition in place of *".into(),
            ),
            false => invalid(format!("from: {wrong}")),
        }
    })?;
    let is_there = |(next, bounds): (&Offset, &Bounds)| *next <= bounds.tail;
    let is_of_stream = token.incarnation == stream.incarnation
        && token.next.len() <= bounds.len()
        && token.next.iter().zip(bounds).all(is_there);
    match is_of_stream {
        true => Ok(token.next),
        false => Err(invalid(
            "from: this next is of another stream, or of this one before it was made again or restored; begin with earliest or with at".into(),
        )),
    }
}
