//! A record: key, value and headers, and the encoding of its headers.
//!
//! The three parts are slices of a request or of a frame in the journal, so cloning a record copies no payload.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    model::ids::{MessageId, Offset},
    runtime::clock::Timestamp,
};

/// One entry of a partition, before or after it has an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key, which chooses the partition; empty = no key.
    pub key: Bytes,
    /// What the source sent as `streamMessage`, byte for byte.
    pub value: Bytes,
    /// Facts about the record; names and values are UTF-8.
    pub headers: Headers,
}

impl Record {
    /// Returns the bytes of key, value and headers, which limits count.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.key.len() + self.value.len() + self.headers.encoded.len()
    }

    /// Returns the message id: that of the header in an error stream, else `own`, made of partition and offset.
    #[must_use]
    pub fn message_id(&self, own: MessageId) -> String {
        match self.headers.get(header::MESSAGE_ID) {
            Some(id) => id.to_owned(),
            None => own.text(),
        }
    }

    /// Returns a copy of the record in memory of its own.
    ///
    /// A slice keeps its whole frame in memory, so copy records that are kept for long.
    #[must_use]
    pub fn detached(&self) -> Self {
        let mut all = BytesMut::with_capacity(self.bytes_len());
        all.put_slice(&self.key);
        all.put_slice(&self.value);
        all.put_slice(&self.headers.encoded);
        let mut all = all.freeze();
        let key = all.split_to(self.key.len());
        let value = all.split_to(self.value.len());
        Self {
            key,
            value,
            headers: Headers { encoded: all },
        }
    }
}

/// A record with its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its offset.
    pub offset: Offset,
    /// The time of the commit that stored it; it never goes back within a stream.
    pub time: Timestamp,
    /// The record.
    pub record: Record,
}

/// Header names; the values are strings.
pub mod header {
    #![expect(
        missing_docs,
        reason = "the names say it; the list is documented in the README"
    )]
    pub const MESSAGE_ID: &str = "message-id";
    pub const SOURCE: &str = "source";
    pub const TRACEPARENT: &str = "traceparent";
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    pub const IDEMPOTENCY_DIGEST: &str = "idempotency-digest";
    pub const CONTENT_TYPE: &str = "content-type";
    pub const TARGET: &str = "target";
    pub const SECRET_NAME: &str = "secret-name";
    pub const SECRET_VERSION: &str = "secret-version";
    pub const CAUSE_CLASS: &str = "cause-class";
    pub const CAUSE_STATUS: &str = "cause-status";
    pub const CAUSE_REASON: &str = "cause-reason";
    pub const CAUSE_BODY: &str = "cause-body";
    pub const ATTEMPTS: &str = "attempts";
    pub const RETRIES: &str = "retries";
    pub const FIRST_ATTEMPT_AT: &str = "first-attempt-at";
    pub const LAST_ATTEMPT_AT: &str = "last-attempt-at";
    pub const ORIGIN_STREAM: &str = "origin-stream";
    pub const ORIGIN_PARTITION: &str = "origin-partition";
    pub const ORIGIN_OFFSET: &str = "origin-offset";
    /// Internal (`layout.rs`): `get` finds it by name; `iter` skips it, so it is neither shown nor copied.
    pub const LAYOUT: &str = "layout";

    /// Names with a one-byte code in the format: the index in this list plus one. Journals hold these codes, so only append.
    pub(crate) const CODED: [&str; 21] = [
        MESSAGE_ID,
        SOURCE,
        TRACEPARENT,
        IDEMPOTENCY_KEY,
        IDEMPOTENCY_DIGEST,
        CONTENT_TYPE,
        TARGET,
        SECRET_NAME,
        SECRET_VERSION,
        CAUSE_CLASS,
        CAUSE_STATUS,
        CAUSE_REASON,
        CAUSE_BODY,
        ATTEMPTS,
        RETRIES,
        FIRST_ATTEMPT_AT,
        LAST_ATTEMPT_AT,
        ORIGIN_STREAM,
        ORIGIN_PARTITION,
        ORIGIN_OFFSET,
        LAYOUT,
    ];
}

/// Name and value pairs in their stored form.
///
/// ```text
/// entry  code u8, 1.. = a name of the list; 0 = name_len u8, name
///        value_len u32 little-endian, value
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    encoded: Bytes,
}

/// The bytes are not encoded headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record headers are malformed")]
pub struct HeadersMalformed;

impl Headers {
    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`HeadersMalformed`] if any entry is cut short, has an unknown code, or is not UTF-8.
    pub fn decode(encoded: Bytes) -> Result<Self, HeadersMalformed> {
        let mut rest = &encoded[..];
        // Codes and lengths below 128 are ASCII too, so one check mostly shows that all names and values are UTF-8.
        let ascii = encoded.is_ascii();
        while !rest.is_empty() {
            let (name, value, after) = split_bytes(rest).ok_or(HeadersMalformed)?;
            let is_text = |bytes| ascii || std::str::from_utf8(bytes).is_ok();
            if !is_text(name) || !is_text(value) {
                return Err(HeadersMalformed);
            }
            rest = after;
        }
        Ok(Self { encoded })
    }

    /// Returns the stored bytes.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Returns the value of the first header of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut rest = &self.encoded[..];
        loop {
            let (there, value, after) = split_bytes(rest)?;
            if there == name.as_bytes() {
                return std::str::from_utf8(value).ok();
            }
            rest = after;
        }
    }

    /// Returns name and value of each header in order, except [`header::LAYOUT`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.encoded[..];
        let all = std::iter::from_fn(move || {
            let (entry, after) = split_entry(rest)?;
            rest = after;
            Some(entry)
        });
        all.filter(|(name, _)| *name != header::LAYOUT)
    }

    /// Returns headers in which each of `changes` replaces the header of its name, or follows all others.
    #[must_use]
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let changes: Vec<_> = changes.into_iter().collect();
        let kept = self
            .iter()
            .filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        let mut builder = HeadersBuilder::default();
        for (name, value) in kept.chain(changes.iter().copied()) {
            builder.push(name, value);
        }
        builder.build()
    }
}

fn split_entry(bytes: &[u8]) -> Option<((&str, &str), &[u8])> {
    let (name, value, rest) = split_bytes(bytes)?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some(((text(name)?, text(value)?), rest))
}

/// Returns name and value of the first entry, and the rest.
fn split_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&code, rest) = bytes.split_first()?;
    let (name, rest) = match code {
        0 => {
            let (&len, rest) = rest.split_first()?;
            rest.split_at_checked(len.into())?
        }
        code => (header::CODED.get(usize::from(code) - 1)?.as_bytes(), rest),
    };
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((name, value, rest))
}

/// Builds [`Headers`].
#[derive(Debug)]
pub struct HeadersBuilder {
    encoded: Vec<u8>,
}

impl Default for HeadersBuilder {
    fn default() -> Self {
        Self {
            // Enough for most records.
            encoded: Vec::with_capacity(128),
        }
    }
}

impl HeadersBuilder {
    /// Adds a header. Names are constants of this module; a name is cut at 255 bytes.
    pub fn push(&mut self, name: &str, value: &str) -> &mut Self {
        match header::CODED
            .iter()
            .position(|coded| *coded == name)
            .and_then(|at| u8::try_from(at + 1).ok())
        {
            Some(code) => self.encoded.put_u8(code),
            None => {
                let name = &name[..name.floor_char_boundary(255)];
                self.encoded.put_u8(0);
                self.encoded
                    .put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
                self.encoded.put_slice(name.as_bytes());
            }
        }
        let value = &value[..value.floor_char_boundary(u32::MAX as usize)];
        self.encoded
            .put_u32_le(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.encoded.put_slice(value.as_bytes());
        self
    }

    /// Returns the headers.
    #[must_use]
    pub fn build(self) -> Headers {
        Headers {
            encoded: self.encoded.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        let mut builder = HeadersBuilder::default();
        builder
            .push(header::SOURCE, "default")
            .push("x-own", "ä")
            .push(header::TARGET, "");
        builder.build()
    }

    #[test]
    fn headers_read_back_in_order() {
        let read = Headers::decode(sample().encoded().clone()).unwrap();
        assert_eq!(
            read.iter().collect::<Vec<_>>(),
            [("source", "default"), ("x-own", "ä"), ("target", "")]
        );
        assert_eq!(read.get("x-own"), Some("ä"));
        assert_eq!(read.get("absent"), None);
    }

    #[test]
    fn with_replaces_and_adds() {
        let changed = sample().with([("source", "other"), ("attempts", "2")]);
        let all = changed.iter().collect::<Vec<_>>();
        assert_eq!(
            all,
            [
                ("x-own", "ä"),
                ("target", ""),
                ("source", "other"),
                ("attempts", "2")
            ]
        );
    }

    #[test]
    fn every_prefix_of_headers_is_refused_or_a_shorter_list() {
        let whole = sample().encoded().clone();
        let entries: Vec<_> = sample()
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        for cut in 0..whole.len() {
            if let Ok(read) = Headers::decode(whole.slice(..cut)) {
                let read: Vec<_> = read
                    .iter()
                    .map(|(n, v)| (n.to_owned(), v.to_owned()))
                    .collect();
                assert!(entries.starts_with(&read), "{read:?}");
            }
        }
    }

    #[test]
    fn a_detached_record_equals_the_original() {
        let record = Record {
            key: "k".into(),
            value: "{}".into(),
            headers: sample(),
        };
        assert_eq!(record.detached(), record);
    }
}
