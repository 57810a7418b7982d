//! Offsets of the members of a message in its record's value, so that dispatch need not parse the JSON again. Pure.
//!
//! Ingest parses the message and writes the layout as a record header; dispatch cuts the members out. A message with an
//! escape in one of these members has no layout, so dispatch parses its JSON. Both ways give the same parts.
//!
//! ```text
//! layout   pairs of numbers, a space after each: start and length of a part, in bytes
//! parts    operation, URL, payload (0 0 if there is none), then name and value of each header
//! ```

use std::borrow::Cow;

use crate::model::{
    message::Message,
    record::{Record, header},
};

/// Headers of a message with a layout, at most. A longer layout is no faster to read than JSON.
const HEADERS_LEN_MAX: usize = 32;

/// Digits of a number, at most. No value is longer than 9,999,999,999 bytes.
const DIGITS_MAX: usize = 10;

/// The parts of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallParts<'a> {
    pub(crate) operation: Cow<'a, str>,
    pub(crate) url: Cow<'a, str>,
    /// A slice of the value.
    pub(crate) payload: Option<&'a [u8]>,
    /// Name and value, in order.
    pub(crate) headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The secret name in the message; `None` if the record has a layout, because then a record header has the name.
    pub(crate) secret_name: Option<Cow<'a, str>>,
}

impl<'a> CallParts<'a> {
    /// Reads the parts of a record.
    ///
    /// # Errors
    /// Those of [`Message::parse`].
    pub(crate) fn of(record: &'a Record) -> Result<Self, serde_json::Error> {
        let noted = record.headers.get(header::LAYOUT);
        match noted.and_then(|layout| Self::cut(&record.value, layout)) {
            Some(parts) => Ok(parts),
            None => Message::parse(&record.value).map(Self::from),
        }
    }

    /// Cuts the parts out; `None` if the layout does not fit the value.
    fn cut(value: &'a [u8], layout: &str) -> Option<Self> {
        let mut rest = layout.as_bytes();
        let mut next = || {
            let (start, after) = number(rest)?;
            let (len, after) = number(after)?;
            let part = value.get(start..start.checked_add(len)?)?;
            rest = after;
            Some(part)
        };
        let operation = text(next()?)?;
        let url = text(next()?)?;
        let payload = Some(next()?).filter(|payload| !payload.is_empty());
        let mut headers = Vec::with_capacity(4);
        while let Some(name) = next() {
            headers.push((text(name)?, text(next()?)?));
        }
        rest.is_empty().then_some(Self {
            operation,
            url,
            payload,
            headers,
            secret_name: None,
        })
    }
}

/// Returns the first number, and the text after its space.
fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0usize;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < DIGITS_MAX => number = number * 10 + usize::from(byte - b'0'),
            b' ' if at > 0 => return Some((number, &text[at + 1..])),
            _ => return None,
        }
    }
    None
}

fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
}

impl<'a> From<Message<'a>> for CallParts<'a> {
    fn from(message: Message<'a>) -> Self {
        let headers = message.target_rest_api_headers.unwrap_or_default();
        Self {
            operation: message.target_rest_api_operation,
            url: message.target_rest_api,
            payload: message
                .target_rest_api_payload
                .map(|raw| raw.get().as_bytes()),
            headers: headers.into_iter().map(|h| (h.key, h.value)).collect(),
            secret_name: message.vault_secret_name.filter(|name| !name.is_empty()),
        }
    }
}

/// Returns the layout of a message that was read from `value`; `None` if a part has escapes.
pub(crate) fn layout(message: &Message<'_>, value: &str) -> Option<String> {
    let headers = message.target_rest_api_headers.as_deref();
    let headers = headers.unwrap_or_default();
    if headers.len() > HEADERS_LEN_MAX {
        return None;
    }
    let mut layout = String::with_capacity(32 + 16 * headers.len());
    let mut digits = itoa::Buffer::new();
    let mut note = |part: &str| {
        let start = (part.as_ptr() as usize).checked_sub(value.as_ptr() as usize)?;
        if start + part.len() > value.len() {
            return None;
        }
        for number in [start, part.len()] {
            layout.push_str(digits.format(number));
            layout.push(' ');
        }
        Some(())
    };
    let payload = message.target_rest_api_payload.map(|raw| raw.get());
    note(&message.target_rest_api_operation)?;
    note(&message.target_rest_api)?;
    note(payload.unwrap_or(&value[..0]))?;
    for header in headers {
        note(&header.key)?;
        note(&header.value)?;
    }
    Some(layout)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::record::HeadersBuilder;

    fn record(value: &str, layout: Option<&str>) -> Record {
        let mut headers = HeadersBuilder::default();
        if let Some(layout) = layout {
            headers.push(header::LAYOUT, layout);
        }
        Record {
            key: Bytes::new(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            headers: headers.build(),
        }
    }

    fn noted(value: &str) -> Option<String> {
        layout(&Message::parse(value.as_bytes()).unwrap(), value)
    }

    #[test]
    fn parts_lie_where_the_layout_says() {
        let value = r#"{"targetRestApi":"http://a/ä","targetRestApiOperation":"PUT","targetRestApiPayload": {"n":1} ,"targetRestApiHeaders":[{"key":"a","value":""}]}"#;
        let noted = noted(value).unwrap();
        assert_eq!(noted, "57 3 18 11 86 7 127 1 139 0 ");
        let parts = CallParts::cut(value.as_bytes(), &noted).unwrap();
        assert_eq!(parts.payload, Some(&br#"{"n":1}"#[..]));
        assert_eq!(parts.headers, [("a".into(), "".into())]);
        assert_eq!((&*parts.operation, &*parts.url), ("PUT", "http://a/ä"));
    }

    #[test]
    fn what_is_no_layout_of_the_value_is_not_used() {
        let value = r#"{"targetRestApi":"http://ä","targetRestApiOperation":"GET"}"#;
        let plain = CallParts::of(&record(value, None))
            .unwrap()
            .url
            .into_owned();
        let right = noted(value).unwrap();
        assert_eq!(right, "55 3 18 9 0 0 ");
        for wrong in [
            "",
            "55 3 ",
            "55 3 18 9 0 ",
            "55 3 18 9 0 0",
            "55 3 18 9 0 0 7 ",
            "55 3 18 9 0 0 7 x ",
            "55 3 18 9 0 0 7 1 ",
            "55 3 18 9 0 0 7 1 900 1 ",
            "55 3 18 9 0 0 900 1 ",
            "55 3  18 9 0 0 ",
            "55 3 18 8 0 0 ",
            "55 3 18 999 0 0 ",
            "55 3 18 18446744073709551615 0 0 ",
        ] {
            assert_eq!(CallParts::cut(value.as_bytes(), wrong), None, "{wrong}");
            let record = record(value, Some(wrong));
            assert_eq!(CallParts::of(&record).unwrap().url, plain, "{wrong}");
        }
    }

    #[test]
    fn messages_that_are_not_cut_have_no_layout() {
        let escaped = r#"{"targetRestApi":"http:\/\/a","targetRestApiOperation":"GET"}"#;
        assert_eq!(noted(escaped), None);
        let header = json!({"key": "a", "value": "b"});
        let message = |len| {
            json!({"targetRestApi": "http://a", "targetRestApiOperation": "GET", "targetRestApiHeaders": vec![header.clone(); len]}).to_string()
        };
        assert!(noted(&message(HEADERS_LEN_MAX)).is_some());
        assert_eq!(noted(&message(HEADERS_LEN_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn a_layout_says_the_same_as_the_message(
            url in "\\PC{0,9}",
            payload in prop::option::of("\\PC{0,9}"),
            pairs in prop::collection::vec(("\\PC{0,5}", "\\PC{0,5}"), 0..4),
        ) {
            let headers: Vec<_> = pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
            let mut message = json!({"targetRestApi": url, "targetRestApiOperation": "POST", "targetRestApiHeaders": headers});
            if let Some(payload) = payload {
                message["targetRestApiPayload"] = json!([payload]);
            }
            let value = message.to_string();
            let noted = noted(&value);
            let read = record(&value, None);
            let cut = record(&value, noted.as_deref());
            prop_assert_eq!(CallParts::of(&cut).unwrap(), CallParts::of(&read).unwrap());
            if let Some(noted) = &noted {
                prop_assert!(CallParts::cut(value.as_bytes(), noted).is_some());
            }
        }
    }
}
