//! Records for people: a page of a partition, one record, one record's exact bytes.

mod open;

use std::{collections::HashMap, fmt, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use http::{HeaderValue, Uri, header};
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    dispatch::{Dispatcher, WaitingRecord},
    log::Streams,
    mask::mask,
    place::{Offset, Partition, PartitionId},
    record::{StoredRecord, header as record_header},
    storage::Stream,
};

use super::{
    Shared,
    named::Named,
    pages::Page,
    problem::{Code, Problem},
    query::{Query, invalid},
    streams::{find, source},
    wire,
};

/// Knows which records were called in vain and are going to be called again: the dispatcher, or a test.
pub trait Waits: fmt::Debug + Send + Sync + 'static {
    /// As [`Dispatcher::waiting`].
    fn waiting(&self, of: PartitionId) -> Vec<WaitingRecord>;
}

impl Waits for Dispatcher {
    fn waiting(&self, of: PartitionId) -> Vec<WaitingRecord> {
        Self::waiting(self, of)
    }
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Named((stream, partition)): Named<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["from", "limit", "at", "open"])?;
    let limit = query.limit()?;
    let open = query.flag("open")?;
    let stream = find(&shared, &stream)?;
    let of = find_partition(&stream, &partition)?;
    let engine = shared.streams.engine();
    let from = match (query.get("from"), query.get("at")) {
        (Some(_), Some(_)) => return Err(invalid("give from or at, not both".into())),
        (None, Some(time)) => {
            let time = Timestamp::parse(time)
                .ok_or_else(|| invalid("at is a time as in RFC 3339".into()))?;
            engine.offset_at(of, time).await?
        }
        (Some("tail"), None) => engine.status(of)?.bounds.tail,
        (None | Some("earliest"), None) => engine.status(of)?.bounds.earliest,
        (Some(offset), None) => Offset(
            offset
                .parse()
                .map_err(|_| invalid("from is an offset, earliest or tail".into()))?,
        ),
    };
    match open {
        true => list_open(&shared, &stream, of, from, limit).await,
        false => Page::new(shared, stream, of, from, limit)?.answer().await,
    }
}

/// Answers with records that have no end. They are looked up before they are read, so the page is made in one piece.
async fn list_open(
    shared: &Shared,
    stream: &Stream,
    of: PartitionId,
    from: Offset,
    limit: usize,
) -> Result<Response, Problem> {
    let engine = shared.streams.engine();
    let (records, next) = open::read(&**engine, of, from, limit).await?;
    let bounds = engine.status(of)?.bounds;
    let waiting = match source(shared) == Some(&stream.name) {
        true => shared.waits.waiting(of),
        false => Vec::new(),
    };
    let waiting: HashMap<_, _> = waiting.iter().map(|one| (one.offset, one)).collect();
    let items = records.iter().map(|record| wire::RecordView {
        waiting: waiting.get(&record.offset).map(|one| waits(one)),
        // It had no end when it was looked up.
        ..view(shared, stream, of.partition, record, false)
    });
    let list = wire::RecordList {
        items: items.collect(),
        next: (next < bounds.tail).then_some(next.0),
        earliest: bounds.earliest.0,
        tail: bounds.tail.0,
    };
    Ok(Json(list).into_response())
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Named((stream, partition, offset)): Named<(String, String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["raw"])?;
    let raw = query.flag("raw")?;
    let stream = find(&shared, &stream)?;
    let of = find_partition(&stream, &partition)?;
    let not_found = || Problem::new(Code::NotFound, "no record has this offset yet");
    let offset = Offset(offset.parse().map_err(|_| not_found())?);
    let page = shared.streams.engine().read(of, offset, 1).await?;
    let found = page.records.into_iter().next();
    let record = match found.filter(|record| record.offset == offset) {
        Some(record) => record,
        // The log has passed it over.
        None if offset < page.bounds.tail => {
            let told = format!(
                "the record of offset {offset} was lost to damage; `syncgate doctor` knows of it"
            );
            return Err(Problem::new(Code::RecordLost, told));
        }
        None => return Err(not_found()),
    };
    if raw {
        return Ok(download(&stream, of.partition, record));
    }
    let finished = shared
        .streams
        .engine()
        .finished(of, offset..offset.next())?;
    let view = view(
        &shared,
        &stream,
        of.partition,
        &record,
        finished.contains(offset),
    );
    Ok(Json(view).into_response())
}

fn waits(waiting: &WaitingRecord) -> wire::WaitingView {
    wire::WaitingView {
        cause: wire::CauseView {
            class: waiting.cause.word().to_owned(),
            status: waiting.cause.status(),
            reason: None,
            body: None,
        },
        attempts: waiting.attempts,
        due: waiting.due.to_string(),
    }
}

/// The bytes may be anything, HTML of a stranger too, so no browser shall show them.
fn download(stream: &Stream, partition: Partition, record: StoredRecord) -> Response {
    let name = format!(
        "attachment; filename=\"{}-{partition}-{}\"",
        stream.name, record.offset
    );
    // A slice keeps its frame alive, and the value may be small beside that.
    let mut response = record.record.detached().value.into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn find_partition(stream: &Stream, text: &str) -> Result<PartitionId, Problem> {
    let number = text.parse().ok().filter(|n: &u16| n.to_string() == text);
    let partition = number.and_then(|number| stream.partition(Partition(number)));
    partition.ok_or_else(|| {
        let what = format!("the stream has partitions 0 to {}", stream.partitions - 1);
        Problem::new(Code::PartitionUnknown, what)
    })
}

pub(super) fn view(
    shared: &Shared,
    stream: &Stream,
    partition: Partition,
    stored: &StoredRecord,
    finished: bool,
) -> wire::RecordView {
    let record = &stored.record;
    let own = Streams::message_id(stream, partition, stored.offset);
    let (key, key_base64) = match std::str::from_utf8(&record.key) {
        Ok("") => (None, None),
        Ok(key) => (Some(key.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(&record.key))),
    };
    let text = std::str::from_utf8(&record.value).ok();
    let masked = shared.push.settings().masked_headers.get();
    let json = text.and_then(|text| RawValue::from_string(mask(text, &masked).into_owned()).ok());
    let value_base64 = json.is_none().then(|| BASE64.encode(&record.value));
    let header = |name: &str| record.headers.get(name).map(String::from);
    let cause = header(record_header::CAUSE_CLASS).map(|class| wire::CauseView {
        class,
        status: header(record_header::CAUSE_STATUS).and_then(|status| status.parse().ok()),
        reason: header(record_header::CAUSE_REASON),
        body: header(record_header::CAUSE_BODY),
    });
    wire::RecordView {
        offset: stored.offset.0,
        partition: partition.to_string(),
        time: stored.time.to_string(),
        key,
        key_base64,
        message_id: stored.record.message_id(own),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        finished,
        waiting: None,
        cause,
        value: json,
        value_base64,
    }
}
