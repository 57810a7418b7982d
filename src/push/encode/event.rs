//! CloudEvents around records: structured mode, JSON (`push-decisions.md` §10).

use data_encoding::HEXLOWER;
use ring::digest;

use crate::{
    model::record::header,
    push::schema::{PreambleKind, PreambleRecord},
};

use super::{Op, json, write::Facts};

/// The end of an event, after the record.
pub(super) const END: &[u8] = b"}";

/// Writes the CloudEvents of one data stream.
#[derive(Debug)]
pub(super) struct Events {
    /// Up to the kind: `{"specversion":"1.0","type":"PREFIX.`
    begin: Vec<u8>,
    /// The text between kind and id.
    source: Vec<u8>,
}

impl Events {
    pub(super) fn new(prefix: &str, source: &str) -> Self {
        let mut begin = br#"{"specversion":"1.0","type":""#.to_vec();
        json::push_escaped(prefix.as_bytes(), &mut begin);
        begin.push(b'.');
        let mut behind = br#".v1","source":"#.to_vec();
        json::push_string(source, &mut behind);
        behind.extend_from_slice(br#","id":""#);
        Self {
            begin,
            source: behind,
        }
    }

    fn head(&self, kind: &str, id: &[u8], subject: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.begin);
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(&self.source);
        out.extend_from_slice(id);
        out.push(b'"');
        if let Some(subject) = subject {
            out.extend_from_slice(br#","subject":"#);
            json::push_string(subject, out);
        }
    }

    /// Writes the text of an event before its data record.
    pub(super) fn begin_data(
        &self,
        op: Op,
        table: &str,
        facts: &Facts<'_>,
        pos: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.head(kind(op), pos, Some(table), out);
        out.extend_from_slice(br#","time":""#);
        out.extend_from_slice(facts.stamp.as_bytes());
        out.extend_from_slice(br#"","datacontenttype":"application/json""#);
        if let Some((_, stored)) = facts.record {
            let key = std::str::from_utf8(&stored.record.key).unwrap_or_default();
            if !key.is_empty() && !key.chars().any(char::is_control) {
                out.extend_from_slice(br#","partitionkey":"#);
                json::push_string(key, out);
            }
            if let Some(parent) = stored.record.headers.get(header::TRACEPARENT) {
                out.extend_from_slice(br#","traceparent":"#);
                json::push_string(parent, out);
            }
        }
        out.extend_from_slice(br#","data":"#);
    }

    /// Returns the event around a schema or metadata record.
    pub(super) fn around(&self, record: &PreambleRecord) -> Vec<u8> {
        let digest = digest::digest(&digest::SHA256, &record.json);
        let id = format!("sha256-{}", HEXLOWER.encode(&digest.as_ref()[..16]));
        let kind = match record.kind {
            PreambleKind::Schema => "schema",
            PreambleKind::StreamMetadata => "stream-metadata",
            PreambleKind::ObjectMetadata => "object-metadata",
        };
        let mut out = Vec::with_capacity(record.json.len() + 512);
        let object = record.object.as_ref().map(|object| object.as_str());
        self.head(kind, id.as_bytes(), object, &mut out);
        out.extend_from_slice(br#","datacontenttype":"application/json","data":"#);
        out.extend_from_slice(&record.json);
        out.extend_from_slice(END);
        out
    }
}

/// Returns the kind of a data record, for the type of its event.
fn kind(op: Op) -> &'static str {
    match op {
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Upsert => "upsert",
        Op::Delete => "delete",
        Op::Truncate => "truncate",
        Op::Ddl => "ddl",
    }
}
