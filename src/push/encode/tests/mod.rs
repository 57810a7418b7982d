//! Records as they are sent, whole: the examples of the protocol, rules, cuts, events, and any record under any
//! configuration against the schema that is sent before it.

mod cuts;
mod events;
mod rules;
mod schemas;
mod views;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::{
    config::Config,
    model::{
        ids::{Incarnation, MessageId, Offset, StreamId},
        record::{HeadersBuilder, Record, header},
    },
    storage::StreamConfig,
};

/// 2026-01-02T03:04:05.000006Z
const TIME: Timestamp = Timestamp(1_767_323_045_000_006);
const NOW: Timestamp = Timestamp(1_767_323_046_000_000);
const POS: &str = "p1kZ3v0aQ";

/// The stream of all tests.
fn log() -> Arc<Stream> {
    Arc::new(Stream {
        id: StreamId([7; 16]),
        incarnation: Incarnation(0x6f1d_2c3b_4a59_6877),
        name: "DataSyncStream".parse().unwrap(),
        partitions: 1,
        config: StreamConfig::default(),
        revision: 1,
        events: Vec::new(),
        last_purge: None,
    })
}

/// An encoder for a configuration with these members beside its source.
#[track_caller]
fn encoder(members: &str) -> Encoder {
    let comma = if members.is_empty() { "" } else { "," };
    let body = format!(r#"{{"source":{{"trail":"a1"}}{comma}{members}}}"#);
    let resource = Resource::parse(body.as_bytes()).unwrap();
    of(resource)
}

fn of(resource: Resource) -> Encoder {
    let config = Bytes::from(resource.to_json());
    let stream = DataStream::new("s1".parse().unwrap(), 1, resource, config);
    Encoder::new(&stream, &log(), &Settings::from(&Config::default()))
}

/// A record at offset 27.
fn stored(key: &str, value: &str, headers: &[(&str, &str)]) -> StoredRecord {
    let mut built = HeadersBuilder::default();
    for (name, value) in headers {
        built.push(name, value);
    }
    StoredRecord {
        offset: Offset(27),
        time: TIME,
        record: Record {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            headers: built.build(),
        },
    }
}

/// A sync message.
fn message(operation: &str, url: &str, payload: &str) -> String {
    format!(
        r#"{{ "targetRestApi": "{url}", "targetRestApiOperation": "{operation}", "targetRestApiPayload": {payload} }}"#
    )
}

/// Returns the encoded record; `None` if a rule leaves it out.
fn sent(encoder: &Encoder, record: &StoredRecord) -> Option<String> {
    let mut out = b"before".to_vec();
    let mut made = 0;
    let mut pos = |out: &mut Vec<u8>| {
        made += 1;
        out.extend_from_slice(POS.as_bytes());
    };
    let log = log();
    // Something else was written with the same memory before.
    let mut scratch = Scratch::default();
    let other = stored("other", r#"{"targetRestApi":"https://h/other"}"#, &[]);
    encoder.record(
        &log,
        Partition(1),
        &other,
        NOW,
        &mut |_| {},
        &mut scratch,
        &mut Vec::new(),
    );
    let mut encoded = Encoded::NotYet;
    while encoded == Encoded::NotYet {
        let len = out.len();
        encoded = encoder.record(
            &log,
            Partition(0),
            record,
            NOW,
            &mut pos,
            &mut scratch,
            &mut out,
        );
        assert!(encoded == Encoded::Taken || out.len() == len);
    }
    let taken = encoded == Encoded::Taken;
    assert_eq!(
        made,
        u32::from(taken),
        "a position is made for what is sent"
    );
    let sent = String::from_utf8(out.split_off(6)).unwrap();
    assert_eq!(out, b"before");
    assert!(taken || sent.is_empty());
    taken.then_some(sent)
}

/// The same as a value.
#[track_caller]
fn value(encoder: &Encoder, record: &StoredRecord) -> Value {
    serde_json::from_str(&sent(encoder, record).unwrap()).unwrap()
}

fn control(encoder: &Encoder, kind: ControlEventKind) -> Option<String> {
    let event = ControlEvent {
        kind,
        time: TIME,
        tails: Vec::new(),
    };
    let mut out = Vec::new();
    let mut pos = |out: &mut Vec<u8>| out.extend_from_slice(POS.as_bytes());
    let mut scratch = Scratch::default();
    let encoded = encoder.event(1, &event, NOW, &mut pos, &mut scratch, &mut out);
    (encoded == Encoded::Taken).then(|| String::from_utf8(out).unwrap())
}
