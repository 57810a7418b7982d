//! A frame: a JSON array of records, with the WebSocket header in front of it.
//!
//! A server does not mask its messages (RFC 6455 §5.1), so the header too is the same for every client.

use bytes::Bytes;

use crate::push::position::StreamPlace;

/// The longest WebSocket header.
const HEAD_LEN_MAX: usize = 10;
/// First header byte: final fragment of a text message.
const TEXT: u8 = 0x81;

/// A frame, ready to be sent.
#[derive(Clone, Debug)]
pub struct Frame {
    wire: Bytes,
    head_len: usize,
    /// Where each record ends in the text; a comma follows each but the last.
    record_ends: Vec<usize>,
    last_pos: Option<String>,
    behind: StreamPlace,
    ends: Ends,
}

/// Why a frame ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::push) enum Ends {
    /// It holds every record that there was.
    WithTheLog,
    /// It was full, or its time was over.
    Before,
}

impl Frame {
    /// Returns the message with its WebSocket header.
    #[must_use]
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// Returns the text, one JSON array.
    #[must_use]
    pub fn text(&self) -> Bytes {
        self.wire.slice(self.head_len..)
    }

    /// Returns each record as a WebSocket message of its own, concatenated.
    #[must_use]
    pub fn one_by_one(&self) -> Bytes {
        let text = self.text();
        let mut out = Vec::with_capacity(text.len() + HEAD_LEN_MAX * self.record_ends.len());
        let mut from = 1;
        for end in &self.record_ends {
            let record = &text[from..*end];
            let (head, head_len) = head(record.len());
            out.extend_from_slice(&head[..head_len]);
            out.extend_from_slice(record);
            from = end + 1;
        }
        out.into()
    }

    /// Returns whether it holds no record, because rules left all of them out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_ends.is_empty()
    }

    /// Returns the number of its records.
    #[must_use]
    pub fn records_len(&self) -> usize {
        self.record_ends.len()
    }

    /// Returns the position of the last record that has one.
    #[must_use]
    pub fn last_pos(&self) -> Option<&str> {
        self.last_pos.as_deref()
    }

    /// Returns the place at which the next frame begins.
    pub(in crate::push) fn behind(&self) -> &StreamPlace {
        &self.behind
    }

    /// Returns why it ends there.
    pub(in crate::push) fn ends(&self) -> Ends {
        self.ends
    }

    /// Returns about how many bytes of memory it takes.
    pub(in crate::push) fn bytes_len(&self) -> usize {
        self.wire.len() + size_of::<usize>() * self.record_ends.len() + 256
    }
}

/// A frame that is being filled.
#[derive(Debug)]
pub(in crate::push) struct FrameBuilder {
    /// Room for the header, then the text.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Length of `bytes` before the last record.
    before: usize,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl FrameBuilder {
    /// Allocates for a frame of about that many bytes.
    pub(in crate::push) fn with_capacity(bytes: usize) -> Self {
        // One record more is written before a frame is full. `build` returns the memory that is left over.
        let mut made = Vec::with_capacity(bytes + bytes / 64 + 1024);
        made.resize(HEAD_LEN_MAX, 0);
        made.push(b'[');
        Self {
            bytes: made,
            ends: Vec::new(),
            before: 0,
        }
    }

    /// Adds what `write` appends, if `write` returns true.
    pub(in crate::push) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let len = self.bytes.len();
        if !self.ends.is_empty() {
            self.bytes.push(b',');
        }
        if !write(&mut self.bytes) {
            self.bytes.truncate(len);
            return false;
        }
        self.before = len;
        self.ends.push(self.bytes.len() - HEAD_LEN_MAX);
        true
    }

    /// Returns whether it holds more than one record and more than `bytes_max` bytes.
    pub(in crate::push) fn is_over(&self, bytes_max: usize) -> bool {
        self.ends.len() > 1 && self.bytes.len() - HEAD_LEN_MAX + 1 > bytes_max
    }

    /// Removes the last record.
    pub(in crate::push) fn take_back(&mut self) {
        self.ends.pop();
        self.bytes.truncate(self.before);
    }

    pub(in crate::push) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the frame; `last_pos` is the position of the last record that has one.
    pub(in crate::push) fn build(
        mut self,
        behind: StreamPlace,
        last_pos: Option<String>,
        ends: Ends,
    ) -> Frame {
        self.bytes.push(b']');
        let (head, head_len) = head(self.bytes.len() - HEAD_LEN_MAX);
        let from = HEAD_LEN_MAX - head_len;
        self.bytes[from..HEAD_LEN_MAX].copy_from_slice(&head[..head_len]);
        Frame {
            wire: Bytes::from(self.bytes).slice(from..),
            head_len,
            record_ends: self.ends,
            last_pos,
            behind,
            ends,
        }
    }
}

/// Returns the header of a text message of `len` bytes, and the header's own length (RFC 6455 §5.2).
fn head(len: usize) -> ([u8; HEAD_LEN_MAX], usize) {
    let mut head = [0; HEAD_LEN_MAX];
    head[0] = TEXT;
    if let (Ok(short), true) = (u8::try_from(len), len < 126) {
        head[1] = short;
        return (head, 2);
    }
    if let Ok(middle) = u16::try_from(len) {
        head[1] = 126;
        head[2..4].copy_from_slice(&middle.to_be_bytes());
        return (head, 4);
    }
    head[1] = 127;
    head[2..10].copy_from_slice(&(len as u64).to_be_bytes());
    (head, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(records: &[&str]) -> Frame {
        let mut builder = FrameBuilder::default();
        for record in records {
            builder.add(|out| {
                out.extend_from_slice(record.as_bytes());
                true
            });
        }
        builder.build(StreamPlace::default(), None, Ends::WithTheLog)
    }

    #[test]
    fn a_frame_is_an_array_after_the_header_of_a_message() {
        let made = frame(&["1", "22"]);
        assert_eq!(&made.wire()[..], b"\x81\x06[1,22]");
        assert_eq!(&made.text()[..], b"[1,22]");
        assert_eq!(made.records_len(), 2);
    }

    #[test]
    fn the_header_has_lengths_of_all_sizes() {
        for (len, head_len) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let made = frame(&[&"x".repeat(len - 2)]);
            assert_eq!(
                (made.text().len(), made.wire().len()),
                (len, len + head_len)
            );
            let told = match head_len {
                2 => usize::from(made.wire()[1]),
                4 => usize::from(u16::from_be_bytes([made.wire()[2], made.wire()[3]])),
                _ => {
                    usize::from_str_radix(&data_encoding::HEXLOWER.encode(&made.wire()[2..10]), 16)
                        .unwrap()
                }
            };
            assert_eq!(told, len);
        }
    }

    #[test]
    fn a_left_out_record_leaves_no_trace() {
        let mut builder = FrameBuilder::default();
        assert!(!builder.add(|out| {
            out.push(b'x');
            false
        }));
        let made = builder.build(StreamPlace::default(), None, Ends::WithTheLog);
        assert_eq!((&made.text()[..], made.is_empty()), (&b"[]"[..], true));
    }

    #[test]
    fn the_record_that_is_too_much_goes_back() {
        let mut builder = FrameBuilder::default();
        for record in ["1", "2", "3"] {
            builder.add(|out| {
                out.extend_from_slice(record.as_bytes());
                true
            });
        }
        assert!(builder.is_over(6) && !builder.is_over(7));
        builder.take_back();
        let made = builder.build(StreamPlace::default(), None, Ends::WithTheLog);
        assert_eq!((&made.text()[..], made.records_len()), (&b"[1,2]"[..], 2));
    }

    #[test]
    fn each_record_can_be_a_message_of_its_own() {
        let made = frame(&["1", "22"]);
        assert_eq!(&made.one_by_one()[..], b"\x81\x011\x81\x0222");
    }
}
