//! `POST /v1/streams/{stream}/purge`: removes all records of a stream at once.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use http::{HeaderMap, Uri};

use crate::{
    runtime::tasks::Part,
    storage::{OpenRecords, PurgeNote, Purged, Stream, StreamError},
};

use super::body;
use crate::api::{
    EdgeState,
    access::{Caller, Peer},
    named::Named,
    problem::{Code, Problem},
    query::Query,
    streams, wire,
};

/// Bytes of a body. The longest reason fits, also if all of it is escaped.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(in crate::api) async fn purge(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Json<wire::PurgeDone>, Problem> {
    Query::parse(&uri, &[])?;
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    let asked = body::Purge::parse(&body.bytes)
        .map_err(|errors| Problem::invalid(Code::InvalidRequest, errors))?;
    let stream = streams::find(&shared, &name)?;
    // Only open records of the source stream are still dispatched without a person, so only these need a confirmation.
    let is_source = streams::source(&shared) == Some(&stream.name);
    let open = match is_source && !asked.discard_pending {
        true => OpenRecords::Refuse,
        false => OpenRecords::Drop,
    };
    let note = PurgeNote {
        reason: asked.reason,
        by: caller.name.as_ref().map(ToString::to_string),
    };
    let by = caller.or_address(peer);
    let tasks = shared.tasks.clone();
    // The purge runs to its end and is logged, also if the caller hangs up.
    let purging = tasks.run_to_end(Part::Change, async move {
        remove(&shared, &stream, open, note, by).await
    });
    let purged = purging.await;
    purged.unwrap_or_else(|| Err(Problem::internal("the purge has panicked")))
}

async fn remove(
    shared: &EdgeState,
    stream: &Stream,
    open: OpenRecords,
    note: PurgeNote,
    by: Arc<str>,
) -> Result<Json<wire::PurgeDone>, Problem> {
    let name = &stream.name;
    // Keep retries away, because a purged record cannot be settled again.
    let _held = shared.retrier.hold(stream, by)?;
    let engine = shared.streams.engine();
    let purged = engine.purge_stream(stream.id, open, note.clone()).await;
    let purged = purged.map_err(|error| match error {
        StreamError::Open { open_len } => {
            let what = format!(
                "{open_len} of its records wait for their dispatch; \"discardPending\": true gives them up"
            );
            Problem::new(Code::StreamInUse, what)
        }
        other => other.into(),
    })?;
    let done = done(&purged);
    let PurgeNote { reason, by } = note;
    let (removed, discarded) = (done.removed, done.discarded);
    tracing::warn!(stream = %name, removed, discarded, reason, by, "stream purged");
    Ok(Json(done))
}

fn done(purged: &Purged) -> wire::PurgeDone {
    let partitions = purged.stream.all_partitions().zip(&purged.partitions);
    let partitions = partitions.map(|(of, purged)| wire::PartitionPurged {
        partition: of.partition.to_string(),
        removed: purged.bounds.tail.0 - purged.bounds.earliest.0,
        discarded: purged.discarded,
        tail: purged.bounds.tail.0,
    });
    let partitions: Vec<_> = partitions.collect();
    let event = purged.stream.purged();
    wire::PurgeDone {
        stream: purged.stream.name.to_string(),
        at: event.map(|event| event.time.to_string()),
        removed: partitions.iter().map(|one| one.removed).sum(),
        discarded: partitions.iter().map(|one| one.discarded).sum(),
        partitions,
    }
}
