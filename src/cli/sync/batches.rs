//! Cuts a file of messages into request bodies.
//!
//! A file is one JSON document (a message, or an array of messages), or one message a line. If its first line that is not
//! blank is a complete JSON object, the file has lines. Lines are read as they are sent; an array is read whole.

use std::io::{BufRead, Read};

use serde_json::value::RawValue;

/// Most messages of one batch, the gateway's default of `sync.batch_len_max`.
const BATCH_LEN_MAX: usize = 1_000;
/// Most bytes of one batch, the gateway's default of `sync.batch_bytes_max`.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Most bytes of a file that is an array, which is held in memory. Lines have no such bound, because they are read one by one.
const ARRAY_BYTES_MAX: usize = 64 << 20;

/// One request body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) body: Vec<u8>,
    pub(super) content_type: &'static str,
    places: Places,
}

/// Names of a batch's messages in the file.
#[derive(Debug, PartialEq, Eq)]
enum Places {
    /// The document is one message.
    Document,
    /// Elements of an array, from this index on.
    Elements { first: u64, len: u64 },
    /// Lines of a file, from 1.
    Lines(Vec<u64>),
}

impl Batch {
    pub(super) fn messages_len(&self) -> u64 {
        match &self.places {
            Places::Document => 1,
            Places::Elements { len, .. } => *len,
            Places::Lines(lines) => lines.len() as u64,
        }
    }

    /// Translates a pointer into the batch to a place in the file: `/17/streamKey` becomes `line 1018: /streamKey`.
    pub(super) fn name_place(&self, pointer: &str) -> String {
        let (index, rest) = match pointer.strip_prefix('/') {
            Some(inner) => inner.split_once('/').unwrap_or((inner, "")),
            None => return pointer.to_owned(),
        };
        let Ok(index) = index.parse::<usize>() else {
            return pointer.to_owned();
        };
        let place = match &self.places {
            Places::Document => return pointer.to_owned(),
            Places::Elements { first, .. } => format!("element {}", first + index as u64),
            Places::Lines(lines) => match lines.get(index) {
                Some(line) => format!("line {line}"),
                None => return pointer.to_owned(),
            },
        };
        match rest {
            "" => place,
            rest => format!("{place}: /{rest}"),
        }
    }

    /// Removes the batch's line number from a sentence, because lines of a batch are not lines of the file, and
    /// [`Self::name_place`] names the latter.
    pub(super) fn without_line(&self, sentence: &str) -> String {
        const LINE: &str = " at line ";
        let rest = match &self.places {
            Places::Lines(_) => sentence.split_once(LINE),
            Places::Document | Places::Elements { .. } => None,
        };
        let column = rest.and_then(|(before, rest)| {
            let (number, column) = rest.split_once(", column ")?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| format!("{before} at column {column}"))
        });
        column.unwrap_or_else(|| sentence.to_owned())
    }

    pub(super) fn not_stored(&self) -> String {
        match self.range() {
            None => "it was not stored".to_owned(),
            Some(range) if self.messages_len() == 1 => {
                format!("{range} was not stored, and nothing after it was sent")
            }
            Some(range) => format!("{range} were not stored, and nothing after them was sent"),
        }
    }

    pub(super) fn maybe_stored(&self) -> String {
        match self.range() {
            None => "whether this one was stored is not known".to_owned(),
            Some(range) if self.messages_len() == 1 => {
                format!("whether {range} was stored is not known; nothing after it was sent")
            }
            Some(range) => {
                format!(
                    "whether {range} were stored, all of them or none, is not known; nothing after them was sent"
                )
            }
        }
    }

    fn range(&self) -> Option<String> {
        match &self.places {
            Places::Document => None,
            Places::Elements { first, len: 1 } => Some(format!("element {first}")),
            Places::Elements { first, len } => {
                Some(format!("elements {first} to {}", first + len - 1))
            }
            Places::Lines(lines) => match lines[..] {
                [only] => Some(format!("line {only}")),
                _ => Some(format!("lines {} to {}", lines.first()?, lines.last()?)),
            },
        }
    }
}

/// A file in the course of being cut.
#[derive(Debug)]
pub(super) struct Batches<R> {
    content: Content,
    reader: R,
    bytes_read: u64,
}

#[derive(Debug)]
enum Content {
    Lines {
        line: u64,
        /// A line that was read but did not fit into the last batch.
        held: Option<(u64, Vec<u8>)>,
    },
    Document(Vec<u8>),
    Array {
        elements: std::vec::IntoIter<Box<RawValue>>,
        sent: u64,
    },
    End,
}

impl<R: BufRead> Batches<R> {
    /// Reads the beginning of a file to find its form.
    pub(super) fn open(mut reader: R) -> Result<Self, String> {
        let unread = |error| format!("the input cannot be read: {error}");
        let mut start = Vec::new();
        let mut line = 0;
        let mut bytes_read = 0;
        while start.trim_ascii().is_empty() {
            start.clear();
            // A file without line breaks is read no further than a batch may have.
            let mut bounded = reader.by_ref().take(BATCH_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut start).map_err(unread)?;
            if read > BATCH_BYTES_MAX && start.trim_ascii().is_empty() {
                return Err(format!("line {} has more than 8 MiB", line + 1));
            }
            if read == 0 {
                return Ok(Self {
                    content: Content::End,
                    reader,
                    bytes_read,
                });
            }
            line += 1;
            bytes_read += read as u64;
            // The gateway ignores a byte order mark only at the start of a body.
            if line == 1 && start.starts_with("\u{feff}".as_bytes()) {
                start.drain(.."\u{feff}".len());
            }
        }
        let is_message = start.trim_ascii_start().starts_with(b"{")
            && serde_json::from_slice::<&RawValue>(&start).is_ok();
        let content = if is_message {
            Content::Lines {
                line,
                held: Some((line, start)),
            }
        } else {
            let is_array = start.trim_ascii_start().starts_with(b"[");
            let (bytes_max, too_long) = match is_array {
                true => (
                    ARRAY_BYTES_MAX,
                    "the array has more than 64 MiB: write one message a line instead",
                ),
                false => (BATCH_BYTES_MAX, "the first message has more than 8 MiB"),
            };
            let room = (bytes_max + 1).saturating_sub(start.len());
            let mut rest = reader.by_ref().take(room as u64);
            bytes_read += rest.read_to_end(&mut start).map_err(unread)? as u64;
            if start.len() > bytes_max {
                return Err(too_long.to_owned());
            }
            match serde_json::from_slice::<Vec<Box<RawValue>>>(&start) {
                Ok(elements) => Content::Array {
                    elements: elements.into_iter(),
                    sent: 0,
                },
                // Send it anyway, because the gateway reports the fault better.
                Err(_) if start.len() <= BATCH_BYTES_MAX => Content::Document(start),
                Err(error) => {
                    return Err(format!(
                        "the input is neither messages line by line nor an array of them: {error}"
                    ));
                }
            }
        };
        Ok(Self {
            content,
            reader,
            bytes_read,
        })
    }

    /// Returns about how many bytes of the file are in returned batches.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the next body; `None` at the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<Batch>, String> {
        match &mut self.content {
            Content::End => Ok(None),
            Content::Document(body) => {
                let body = std::mem::take(body);
                self.content = Content::End;
                Ok(Some(Batch {
                    body,
                    content_type: "application/json",
                    places: Places::Document,
                }))
            }
            Content::Array { elements, sent } => {
                let mut body = Vec::new();
                let mut len = 0;
                while let Some(element) = elements.as_slice().first() {
                    let bytes = element.get().len() + 2;
                    if len == BATCH_LEN_MAX as u64
                        || (len > 0 && body.len() + bytes > BATCH_BYTES_MAX)
                    {
                        break;
                    }
                    body.push(if len == 0 { b'[' } else { b',' });
                    body.extend_from_slice(element.get().as_bytes());
                    len += 1;
                    elements.next();
                }
                if len == 0 {
                    self.content = Content::End;
                    return Ok(None);
                }
                body.push(b']');
                let first = *sent;
                *sent += len;
                Ok(Some(Batch {
                    body,
                    content_type: "application/json",
                    places: Places::Elements { first, len },
                }))
            }
            Content::Lines { .. } => self.next_lines(),
        }
    }

    fn next_lines(&mut self) -> Result<Option<Batch>, String> {
        let Content::Lines { line, held } = &mut self.content else {
            return Ok(None);
        };
        let mut body = Vec::new();
        let mut lines = Vec::new();
        while lines.len() < BATCH_LEN_MAX {
            let (number, text) = match held.take() {
                Some(held) => held,
                None => {
                    let mut text = Vec::new();
                    // One byte above the limit shows that a line is too long, without reading all of it.
                    let mut bounded = self.reader.by_ref().take(BATCH_BYTES_MAX as u64 + 1);
                    let read = bounded
                        .read_until(b'\n', &mut text)
                        .map_err(|error| format!("the input cannot be read: {error}"))?;
                    if read == 0 {
                        break;
                    }
                    *line += 1;
                    self.bytes_read += read as u64;
                    (*line, text)
                }
            };
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if text.len() >= BATCH_BYTES_MAX {
                if lines.is_empty() {
                    return Err(format!("line {number} has more than 8 MiB"));
                }
                *held = Some((number, text.to_vec()));
                break;
            }
            if body.len() + text.len() + 1 > BATCH_BYTES_MAX {
                *held = Some((number, text.to_vec()));
                break;
            }
            body.extend_from_slice(text);
            body.push(b'\n');
            lines.push(number);
        }
        if lines.is_empty() {
            self.content = Content::End;
            return Ok(None);
        }
        Ok(Some(Batch {
            body,
            content_type: "application/x-ndjson",
            places: Places::Lines(lines),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Batch> {
        let mut batches = Batches::open(text.as_bytes()).unwrap();
        std::iter::from_fn(|| batches.next_batch().unwrap()).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, u64)]) {
        let found = all(text);
        let found: Vec<_> = found
            .iter()
            .map(|batch| {
                (
                    std::str::from_utf8(&batch.body).unwrap(),
                    batch.messages_len(),
                )
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_file_is_a_message_an_array_or_lines() {
        check("", &[]);
        check(" \n\n", &[]);
        check("{\n \"a\": 1\n}\n", &[("{\n \"a\": 1\n}\n", 1)]);
        check("[{\"a\":1}, {\"a\": 2}]", &[("[{\"a\":1},{\"a\": 2}]", 2)]);
        check("[]", &[]);
        check(
            "\n{\"a\":1}\n\n {\"a\":2} \r\n{\"a\":3}",
            &[("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", 3)],
        );
        // One line is a batch of one; the gateway reports its faults.
        check("{\"a\":1}", &[("{\"a\":1}\n", 1)]);
        check("{\"a\":", &[("{\"a\":", 1)]);
        check("{\"a\":1}\nnonsense\n", &[("{\"a\":1}\nnonsense\n", 2)]);
        // A byte order mark is removed.
        check(
            "\u{feff}{\"a\":1}\n{\"a\":2}",
            &[("{\"a\":1}\n{\"a\":2}\n", 2)],
        );
        check("\u{feff}[{\"a\":1}]", &[("[{\"a\":1}]", 1)]);
        check("\u{feff}\n", &[]);
    }

    #[test]
    fn batches_are_full_and_know_their_lines() {
        let text = format!("\n{}", "{\"n\":1}\n".repeat(2_500));
        let batches = all(&text);
        let lens: Vec<_> = batches.iter().map(Batch::messages_len).collect();
        assert_eq!(lens, [1_000, 1_000, 500]);
        assert_eq!(
            batches[1].name_place("/17/streamKey"),
            "line 1019: /streamKey"
        );
        assert_eq!(batches[1].name_place("/17"), "line 1019");
        let told = |batch: &Batch| {
            batch.without_line("this is not JSON: it breaks at line 18, column 3; and more")
        };
        let expected = "this is not JSON: it breaks at column 3; and more";
        assert_eq!(told(&batches[1]), expected);
        assert_eq!(
            batches[1].without_line("look at line x, column 3"),
            "look at line x, column 3"
        );
        assert_eq!(batches[1].name_place(""), "");
        assert!(
            batches[2]
                .not_stored()
                .starts_with("lines 2002 to 2501 were not stored")
        );
        // A document is sent unchanged, so its line numbers are right.
        assert!(told(&all("{\n")[0]).contains("line 18, column 3"));
        let array = format!("[{}]", vec!["{}"; 1_001].join(","));
        let batches = all(&array);
        assert_eq!(
            batches[1].name_place("/0/streamMessage"),
            "element 1000: /streamMessage"
        );
    }

    #[test]
    fn batches_stay_below_their_bytes() {
        let line = format!("{{\"x\":\"{}\"}}", "x".repeat(3 << 20));
        let text = format!("{line}\n{line}\n{line}\n");
        let lens: Vec<_> = all(&text).iter().map(Batch::messages_len).collect();
        assert_eq!(lens, [2, 1]);
        let long = format!("{{}}\n{{\"x\":\"{}\"}}\n", "x".repeat(9 << 20));
        let mut batches = Batches::open(long.as_bytes()).unwrap();
        assert_eq!(batches.next_batch().unwrap().unwrap().messages_len(), 1);
        assert_eq!(
            batches.next_batch().unwrap_err(),
            "line 2 has more than 8 MiB"
        );
    }

    #[test]
    fn a_file_is_not_read_beyond_its_bound() {
        for (text, bound, expected) in [
            (
                "x",
                BATCH_BYTES_MAX,
                "the first message has more than 8 MiB",
            ),
            ("[1,", ARRAY_BYTES_MAX, "the array has more than 64 MiB: "),
            (" ", BATCH_BYTES_MAX, "line 1 has more than 8 MiB"),
        ] {
            let mut input = std::io::Cursor::new(text).chain(std::io::repeat(b' '));
            let mut bounded =
                std::io::BufReader::new(input.by_ref().take(bound as u64 + (1 << 20)));
            let refused = Batches::open(&mut bounded).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
            // The input still has more, so it was not read to its end.
            assert!(bounded.into_inner().limit() > 0, "{text}");
        }
        let alone = &all("\n{\"n\":1}\n")[0];
        let said = "line 2 was not stored, and nothing after it was sent";
        assert_eq!(alone.not_stored(), said);
    }
}
