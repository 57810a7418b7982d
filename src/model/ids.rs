//! Streams, partitions, offsets, positions, and the message id, which is made of them.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

/// Names of streams that a later release will create for itself.
const RESERVED: [&str; 2] = ["audit", "responses"];

/// Name of a stream: `^[A-Za-z][A-Za-z0-9_-]{1,63}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(Arc<str>);

/// The text is not a stream name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream name has 2 to 64 characters: a letter, then letters, digits, '_' and '-'")]
pub struct StreamNameInvalid;

impl StreamName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether no stream can be created under this name. An existing stream with the name stays usable.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.as_str())
    }
}

impl FromStr for StreamName {
    type Err = StreamNameInvalid;

    fn from_str(text: &str) -> Result<Self, StreamNameInvalid> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let first = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic());
        if first && (2..=64).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.into()))
        } else {
            Err(StreamNameInvalid)
        }
    }
}

impl TryFrom<String> for StreamName {
    type Error = StreamNameInvalid;

    fn try_from(text: String) -> Result<Self, StreamNameInvalid> {
        text.parse()
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0.as_ref().into()
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a stream. It is random, so a stream that is deleted and created again has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Identity of a stream's history: a random number, made with the stream, and anew when a backup is restored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Number of a partition in its stream, from 0; a stream has 1 to 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a record in its partition: 0, 1, 2 … without gaps, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// Returns the offset plus `count`.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Returns the next offset.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The stream.
    pub stream: StreamId,
    /// Its partition.
    pub partition: Partition,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.partition)
    }
}

/// Start of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record still retained.
    Earliest,
    /// The next record that will be stored.
    Tail,
    /// The record at this offset.
    At(Offset),
    /// The record after this offset.
    After(Offset),
}

/// Identity of a message for people and targets: its first partition and offset as text, with a check character.
///
/// `<39 characters>-<partition>-<offset>-<check>`: lower-case base32 of stream id (16 bytes) and incarnation
/// (8 bytes, big-endian), then two decimal numbers. No index is needed, because the id itself holds partition and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The partition that the message was first stored in.
    pub of: PartitionId,
    /// The incarnation of its stream.
    pub incarnation: Incarnation,
    /// Its offset in that partition.
    pub offset: Offset,
}

/// The text is not a message id, or has a typing error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message id: its form or its check character is wrong")]
pub struct MessageIdInvalid;

impl MessageId {
    /// Returns the id as text.
    #[must_use]
    pub fn text(&self) -> String {
        let MessageIds { common, check, .. } = MessageIds::new(self.of, self.incarnation);
        let mut text = common.into_bytes();
        check.end(self.offset, &mut text);
        // The text has only base32, digits and dashes, so it is UTF-8.
        String::from_utf8(text).unwrap_or_default()
    }

    /// Returns the parts of the id in the order of the text, without the check character; numbers are big-endian.
    #[must_use]
    pub fn bytes(&self) -> [u8; 34] {
        let mut bytes = [0; 34];
        bytes[..16].copy_from_slice(&self.of.stream.0);
        bytes[16..24].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes[24..26].copy_from_slice(&self.of.partition.0.to_be_bytes());
        bytes[26..].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes
    }
}

/// Writes message ids of one partition. Their common part is encoded once.
#[derive(Clone, Debug)]
pub(crate) struct MessageIds {
    of: PartitionId,
    incarnation: Incarnation,
    /// The id up to the offset.
    common: String,
    /// The check sum of `common`.
    check: Check,
}

impl MessageIds {
    /// The longest numbers, three dashes and the check character.
    const LEN_MAX: usize = 39 + 29;

    pub(crate) fn new(of: PartitionId, incarnation: Incarnation) -> Self {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&of.stream.0);
        bytes[16..].copy_from_slice(&incarnation.0.to_be_bytes());
        let mut ids = [0; 39];
        BASE32_NOPAD.encode_mut(&bytes, &mut ids);
        ids.make_ascii_lowercase();
        // Capacity for a whole id.
        let mut common = String::with_capacity(Self::LEN_MAX);
        common.push_str(std::str::from_utf8(&ids).expect("base32 is ASCII"));
        common.push('-');
        common.push_str(itoa::Buffer::new().format(of.partition.0));
        common.push('-');
        Self {
            of,
            incarnation,
            check: Check::default().with(common.as_bytes()),
            common,
        }
    }

    /// Returns whether these are the ids of that partition.
    pub(crate) fn are_of(&self, of: PartitionId, incarnation: Incarnation) -> bool {
        self.of == of && self.incarnation == incarnation
    }

    /// Appends the id of the message at an offset.
    pub(crate) fn write(&self, offset: Offset, out: &mut Vec<u8>) {
        out.extend_from_slice(self.common.as_bytes());
        self.check.end(offset, out);
    }
}

/// The sum that gives a check character. Neighbours have different weights modulo a prime, so it finds one wrong character
/// and two swapped ones.
#[derive(Clone, Copy, Debug, Default)]
struct Check(u64);

impl Check {
    const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";

    /// Returns the sum of a longer text.
    fn with(self, text: &[u8]) -> Self {
        // A u64 holds eight steps before it must be reduced.
        Self(text.chunks(8).fold(self.0, |sum, bytes| {
            let step = |sum, byte: &u8| sum * 37 + u64::from(*byte);
            bytes.iter().fold(sum, step) % 31
        }))
    }

    /// Appends the offset, a dash and the check character.
    fn end(self, offset: Offset, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(offset.0).as_bytes();
        let Self(sum) = self.with(digits);
        let character = Self::ALPHABET[usize::try_from(sum).unwrap_or_default()];
        out.extend_from_slice(digits);
        out.extend_from_slice(&[b'-', character]);
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for MessageId {
    type Err = MessageIdInvalid;

    fn from_str(text: &str) -> Result<Self, MessageIdInvalid> {
        let (body, _check) = text.rsplit_once('-').ok_or(MessageIdInvalid)?;
        let mut parts = body.split('-');
        let (Some(ids), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MessageIdInvalid);
        };
        let bytes = BASE32_NOPAD
            .decode(ids.to_ascii_uppercase().as_bytes())
            .map_err(|_| MessageIdInvalid)?;
        let bytes: [u8; 24] = bytes.try_into().map_err(|_| MessageIdInvalid)?;
        let (stream, incarnation) = bytes.split_at(16);
        let id = Self {
            of: PartitionId {
                stream: StreamId(stream.try_into().map_err(|_| MessageIdInvalid)?),
                partition: Partition(partition.parse().map_err(|_| MessageIdInvalid)?),
            },
            incarnation: Incarnation(u64::from_be_bytes(
                incarnation.try_into().map_err(|_| MessageIdInvalid)?,
            )),
            offset: Offset(offset.parse().map_err(|_| MessageIdInvalid)?),
        };
        // Comparing with the canonical text refuses "+1", "01", capitals and a wrong check in one go.
        if id.text() == text {
            Ok(id)
        } else {
            Err(MessageIdInvalid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_are_checked() {
        for good in ["ab", "DataSyncStream", "a-_9", &"x".repeat(64)] {
            assert!(good.parse::<StreamName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "9a",
            "-a",
            "a b",
            "a/b",
            "../x",
            "ä1",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<StreamName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_id_reads_back_and_one_wrong_character_is_seen() {
        let id = MessageId {
            of: PartitionId {
                stream: StreamId([7; 16]),
                partition: Partition(3),
            },
            incarnation: Incarnation(0x0102_0304_0506_0708),
            offset: Offset(u64::MAX),
        };
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for at in 0..text.len() {
            for other in ['a', '2', '-', 'Z', '0'] {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, &other.to_string());
                assert!(
                    wrong == text || wrong.parse::<MessageId>().is_err(),
                    "{wrong}"
                );
            }
        }
    }
}
