//! The fast way through a message: typed, borrowed, one pass over each member.
//!
//! It accepts correct messages only. `check.rs` reads every other message again and names its faults.

use std::{borrow::Cow, net::SocketAddr};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    json::scan,
    model::{layout::layout, message::Message, target::Origin},
};

use super::{Warning, field, read::Limits};

/// A message that may be stored.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    /// Empty means none.
    pub(super) key: Cow<'a, str>,
    /// The bytes of `streamMessage`.
    pub(super) value: &'a str,
    /// Origin of its URL; `None` only in lenient mode, for a message that cannot be called.
    pub(super) target: Option<Origin>,
    /// The secret it names.
    pub(super) secret_name: Option<Cow<'a, str>>,
    /// Its own `Content-Type`, if it is short enough for a record header.
    pub(super) content_type: Option<Cow<'a, str>>,
    /// Offsets of its members, if it can be called.
    pub(super) layout: Option<String>,
    /// Doubts that a person should check. Few messages have any.
    pub(super) warnings: Vec<Warning>,
}

/// A longer `Content-Type` is not kept as a record header; the target still gets it.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The raw members of a message's envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    key: Option<Cow<'a, str>>,
    message: &'a str,
}

/// The same, read by serde.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SlowEnvelope<'a> {
    #[serde(default, borrow)]
    stream_key: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_message: &'a RawValue,
}

impl<'a> Envelope<'a> {
    /// Reads an envelope. A scan finds the members of most envelopes; [`read`] parses the message afterwards, so that it is
    /// parsed once.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        Self::quickly(text).or_else(|| Self::slowly(text))
    }

    /// Returns the size that `record_bytes_max` bounds: the bytes of key and message.
    pub(super) fn bytes_len(&self) -> usize {
        self.key.as_deref().map_or(0, str::len) + self.message.len()
    }

    /// Finds the members without a parser; `None` if that needs serde. The result is right if the message is JSON.
    fn quickly(text: &'a str) -> Option<Self> {
        let (mut key, mut message) = (None, None);
        let mut rest = scan::after_blanks(text).strip_prefix('{')?;
        loop {
            let name;
            (name, rest) = scan::plain_string(scan::after_blanks(rest))?;
            rest = scan::after_blanks(rest).strip_prefix(':')?;
            rest = scan::after_blanks(rest);
            match name {
                "streamKey" if key.is_none() => {
                    let text;
                    (text, rest) = scan::plain_string(rest)?;
                    key = Some(Cow::Borrowed(text));
                }
                "streamMessage" if message.is_none() => {
                    let (object, behind) = rest.split_at(scan::object_len(rest)?);
                    (message, rest) = (Some(object), behind);
                }
                _ => return None,
            }
            rest = scan::after_blanks(rest);
            match rest.strip_prefix(',') {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        let ends = scan::after_blanks(rest.strip_prefix('}')?).is_empty();
        ends.then_some(Self {
            key,
            message: message?,
        })
    }

    fn slowly(text: &'a str) -> Option<Self> {
        if !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        let envelope: SlowEnvelope<'_> = serde_json::from_str(text).ok()?;
        let key = match envelope.stream_key {
            None => None,
            Some(key) => Some(scan::string(key)?),
        };
        Some(Self {
            key,
            message: envelope.stream_message.get(),
        })
    }
}

/// Reads the message of an envelope; `None` if it has any fault.
pub(super) fn read<'a>(envelope: Envelope<'a>, limits: &Limits) -> Option<Checked<'a>> {
    let key = envelope.key.unwrap_or_default();
    field::key(&key, limits.key_bytes_max).ok()?;
    let value = envelope.message;
    let message = Message::read(value).ok()?;
    let target = field::url(&message.target_rest_api).ok()?;
    field::operation(&message.target_rest_api_operation, &limits.operations).ok()?;
    for (name, value) in message.headers() {
        field::header_name(name).ok()?;
        field::header_value(value).ok()?;
    }
    field::headers_len(message.headers(), limits.headers_bytes_max).ok()?;
    field::secret_name(message.secret_name().unwrap_or_default()).ok()?;
    Some(Checked::new(key, value, Some(target), message, limits))
}

impl<'a> Checked<'a> {
    pub(super) fn new(
        key: Cow<'a, str>,
        value: &'a str,
        target: Option<Origin>,
        message: Message<'a>,
        limits: &Limits,
    ) -> Self {
        let slips = message.slips.iter().cloned();
        let mut warnings: Vec<_> = slips.map(Warning::UnknownMember).collect();
        warnings.extend(target.as_ref().and_then(|target| blocked(target, limits)));
        let layout = target.is_some().then(|| layout(&message, value)).flatten();
        let content_type = message.target_rest_api_headers.and_then(|headers| {
            let mut named = headers
                .into_iter()
                .filter(|header| header.key.eq_ignore_ascii_case("content-type"));
            let value = named.next()?.value;
            (value.len() <= CONTENT_TYPE_BYTES_MAX).then_some(value)
        });
        Self {
            key,
            value,
            target,
            secret_name: message.vault_secret_name.filter(|name| !name.is_empty()),
            content_type,
            layout,
            warnings,
        }
    }

    /// As [`Envelope::bytes_len`].
    pub(super) fn bytes_len(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// Returns why dispatch will not call a target whose URL holds an address. A host name is not looked up here, because its
/// address may change before the call.
fn blocked(target: &Origin, limits: &Limits) -> Option<Warning> {
    let to = SocketAddr::new(target.address()?, target.port());
    limits.rule.forbids(to).map(Warning::TargetBlocked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &str = r#"{"a":"}\"{[","b":[1,{"c":"\\"}],"d":{}}"#;

    #[test]
    fn the_scan_finds_the_same_members_as_serde() {
        for text in [
            &format!(r#"{{"streamKey":"k","streamMessage":{MESSAGE}}}"#),
            &format!(" {{ \"streamMessage\" :\t{MESSAGE} ,\n\"streamKey\": \"ä \" }} \r\n"),
            &format!(r#"{{"streamMessage":{MESSAGE}}}"#),
        ] {
            let quick = Envelope::quickly(text).unwrap();
            assert_eq!(Some(&quick), Envelope::slowly(text).as_ref());
            assert_eq!(quick.message, MESSAGE);
        }
    }

    #[test]
    fn an_envelope_that_is_not_plain_is_left_to_serde() {
        for text in [
            r#"{"streamKey":null,"streamMessage":{}}"#,
            r#"{"streamKey":"\u0061","streamMessage":{}}"#,
            r#"{"stream\u004bey":"a","streamMessage":{}}"#,
            r#"{"streamKey":"a","streamKey":"b","streamMessage":{}}"#,
            r#"{"streamMessage":{},"streamMessage":{}}"#,
            r#"{"streamMessage":{},"other":1}"#,
            r#"{"streamMessage":{},}"#,
            r#"{"streamMessage":{}} x"#,
            r#"{"streamMessage":[]}"#,
            r#"{"streamMessage":{}"#,
            r#"{"streamMessage":{"a":"}"#,
            "{\"streamKey\":\"a\nb\",\"streamMessage\":{}}",
            r#"{"streamKey":"k"}"#,
            // A form feed is white space in ASCII and not in JSON.
            "{\u{c}\"streamMessage\":{}}",
            "{\"streamMessage\"\u{c}:{}}",
            "{\"streamMessage\":{}}\u{c}",
            "{}",
            "",
        ] {
            assert_eq!(Envelope::quickly(text), None, "{text}");
        }
    }

    proptest! {
        /// If the message is JSON, both ways find the same members.
        #[test]
        fn the_scan_is_never_wrong(text in r#"\{ ?"streamKey" ?: ?"[a\\"n]{0,3}" ?,"streamMessage" ?: ?\{("a":["\\{\[\]}1,]{0,6})?\} ?\} ?"#) {
            if let Some(quick) = Envelope::quickly(&text)
                && serde_json::from_str::<&RawValue>(quick.message).is_ok()
            {
                prop_assert_eq!(Some(quick), Envelope::slowly(&text));
            }
        }
    }
}
