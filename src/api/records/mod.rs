//! Records for operators: a page of one or all partitions, one record, the exact bytes of one record.

mod begin;
mod page;
mod reading;
mod settled;
mod token;

pub(super) use self::reading::Turns;

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
    dispatch::{Cause, Dispatcher, WaitingRecord, WaitsFor},
    log::Streams,
    model::{
        ids::{Offset, Partition, PartitionId, StreamId},
        mask::mask,
        record::{Record, StoredRecord, header as record_header},
    },
    runtime::clock::{Clock, Timestamp},
    storage::Stream,
};

use self::{
    begin::{Begin, of_all, of_one},
    page::{Page, Waiting},
    reading::Reading,
    settled::Settlements,
};
use super::{
    EdgeState,
    named::Named,
    problem::{Code, Problem},
    query::Query,
    streams::{find, source},
    wire,
};

/// All partitions, in a path.
const ALL: &str = "*";

/// Tells what open records of the source stream wait for: the dispatcher, or a test.
pub trait Waits: fmt::Debug + Send + Sync + 'static {
    /// As [`Dispatcher::waiting`].
    fn waiting(
        &self,
        stream: StreamId,
        is_sought: &dyn Fn(Partition, Offset) -> bool,
        len_max: usize,
    ) -> Vec<WaitingRecord>;

    /// As [`Dispatcher::unqueued`].
    fn unqueued(&self, record: &Record) -> (WaitsFor, Option<Timestamp>);
}

impl Waits for Dispatcher {
    fn waiting(
        &self,
        stream: StreamId,
        is_sought: &dyn Fn(Partition, Offset) -> bool,
        len_max: usize,
    ) -> Vec<WaitingRecord> {
        Self::waiting(self, stream, is_sought, len_max)
    }

    fn unqueued(&self, record: &Record) -> (WaitsFor, Option<Timestamp>) {
        Self::unqueued(self, record)
    }
}

pub(super) async fn list(
    State(shared): State<Arc<EdgeState>>,
    Named((stream, partition)): Named<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["from", "limit", "at", "open", "settlements"])?;
    let limit = query.limit()?;
    let open = query.flag("open")?;
    let settlements = query.flag("settlements")?;
    let stream = find(&shared, &stream)?;
    let from = Begin::parse(&query, Clock::system().now())?;
    let (stream, reading, of) = match partition == ALL {
        true => of_all(&shared, &stream, from, open).await?,
        false => {
            let of = find_partition(&stream, &partition)?;
            let (reading, of) = of_one(&shared, of, from, open).await?;
            (stream, reading, of)
        }
    };
    let is_source = source(&shared) == Some(&stream.name);
    let waiting = (open && is_source).then(|| waiting(&shared, &stream, &reading, limit));
    // An open record has no settlement.
    let settlements = match settlements && !open {
        true => Settlements::of_page(&shared, &reading, limit).await,
        false => Settlements::default(),
    };
    let page = Page::new(shared, stream, reading, of, (waiting, settlements), limit);
    page.answer().await
}

/// Looks up what the open records of a page wait for, once for the whole page.
fn waiting(shared: &EdgeState, stream: &Stream, reading: &Reading, limit: usize) -> Waiting {
    let places: HashMap<_, _> = reading.positions().collect();
    let is_sought = |partition: Partition, offset: Offset| {
        let of = PartitionId {
            stream: stream.id,
            partition,
        };
        places.get(&of).is_some_and(|next| *next <= offset)
    };
    let found = shared.waits.waiting(stream.id, &is_sought, limit);
    let by_place = |one: WaitingRecord| ((one.partition, one.offset), one);
    found.into_iter().map(by_place).collect()
}

pub(super) async fn show(
    State(shared): State<Arc<EdgeState>>,
    Named((stream, partition, offset)): Named<(String, String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["raw"])?;
    let raw = query.flag("raw")?;
    let stream = find(&shared, &stream)?;
    let of = find_partition(&stream, &partition)?;
    let not_found = || Problem::new(Code::NotFound, "no record has this offset yet");
    let offset = Offset(offset.parse().map_err(|_| not_found())?);
    let read = shared.streams.engine().read(of, offset, 1);
    let page = shared.page_turns.take(read).await?;
    let found = page.records.into_iter().next();
    let record = match found.filter(|record| record.offset == offset) {
        Some(record) => record,
        // The log skips lost records.
        None if offset < page.bounds.tail => {
            let told = format!(
                "the record of offset {offset} was lost to damage; `syncgate doctor` shows the loss"
            );
            return Err(Problem::new(Code::RecordLost, told));
        }
        None => return Err(not_found()),
    };
    if raw {
        return Ok(download(&stream, of.partition, record));
    }
    let range = offset..offset.next();
    let settled = shared.streams.engine().settled_offsets(of, range)?;
    let settled = settled.contains(offset);
    let waits_here = !settled && source(&shared) == Some(&stream.name);
    let waiting = waits_here.then(|| {
        let is_sought = |at: Partition, other: Offset| at == of.partition && other == offset;
        let found = shared.waits.waiting(stream.id, &is_sought, 1);
        match found.first() {
            Some(found) => waits(found),
            None => unqueued(&shared, &record.record),
        }
    });
    let settlement = match settled {
        true => Settlements::of_one(&shared, of, offset).await,
        false => None,
    };
    let view = wire::RecordView {
        waiting,
        settlement,
        ..view(&shared, &stream, of.partition, &record, settled)
    };
    Ok(Json(view).into_response())
}

fn waits(waiting: &WaitingRecord) -> wire::WaitingView {
    let cause = |cause: Cause| wire::CauseView {
        class: cause.word().to_owned(),
        status: cause.status(),
        reason: None,
        body: None,
    };
    wire::WaitingView {
        r#for: waiting.waits_for.word(),
        cause: waiting.cause.map(cause),
        attempts: waiting.attempts,
        due: waiting.due.map(|due| due.to_string()),
    }
}

/// Returns what an open record waits for that is in no target queue.
fn unqueued(shared: &EdgeState, record: &Record) -> wire::WaitingView {
    let (waits_for, due) = shared.waits.unqueued(record);
    wire::WaitingView {
        r#for: waits_for.word(),
        cause: None,
        attempts: 0,
        due: due.map(|due| due.to_string()),
    }
}

/// Answers with a value as a download. It can be any bytes, also foreign HTML, so no browser may render it.
fn download(stream: &Stream, partition: Partition, record: StoredRecord) -> Response {
    let name = format!(
        "attachment; filename=\"{}-{partition}-{}\"",
        stream.name, record.offset
    );
    // Copy the value: a slice would keep its whole frame in memory.
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

fn view(
    shared: &EdgeState,
    stream: &Stream,
    partition: Partition,
    stored: &StoredRecord,
    settled: bool,
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
        settled,
        waiting: None,
        settlement: None,
        cause,
        value: json,
        value_base64,
    }
}
