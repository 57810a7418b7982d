//! The fast way through a submission: typed, borrowed, one look at each member.
//!
//! It answers for what is right. Anything else goes to `check.rs`, which looks slowly and names every fault.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{layout::layout, message::Message, target::Origin};

use super::{Limits, field, json};

/// A message that may be stored.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    /// Empty means none.
    pub(super) key: Cow<'a, str>,
    /// The bytes of `streamMessage`.
    pub(super) value: &'a str,
    /// Where it goes; `None` only in lenient mode, for a message that cannot be called.
    pub(super) target: Option<Origin>,
    /// The secret it names.
    pub(super) secret_name: Option<Cow<'a, str>>,
    /// Its own `Content-Type`, if that is short enough to be a record header.
    pub(super) content_type: Option<Cow<'a, str>>,
    /// Where its parts lie, if it can be called.
    pub(super) layout: Option<String>,
}

/// Longer ones are not kept as a record header; the target gets them all the same.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(default, borrow)]
    stream_key: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_message: &'a RawValue,
}

/// Reads one message; `None` if anything at all is wrong with it.
pub(super) fn read<'a>(text: &'a str, limits: &Limits) -> Option<Checked<'a>> {
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    let key = match envelope.stream_key {
        None => Cow::Borrowed(""),
        Some(key) => json::string(key)?,
    };
    field::key(&key, limits.key_bytes_max).ok()?;
    let value = envelope.stream_message.get();
    let message = Message::read(value).ok()?;
    let target = field::url(&message.target_rest_api).ok()?;
    field::operation(&message.target_rest_api_operation, &limits.operations).ok()?;
    for (name, value) in message.headers() {
        field::header_name(name).ok()?;
        field::header_value(value).ok()?;
    }
    field::headers_len(message.headers(), limits.headers_bytes_max).ok()?;
    field::secret_name(message.secret_name().unwrap_or_default()).ok()?;
    Some(Checked::new(key, value, Some(target), message))
}

impl<'a> Checked<'a> {
    pub(super) fn new(
        key: Cow<'a, str>,
        value: &'a str,
        target: Option<Origin>,
        message: Message<'a>,
    ) -> Self {
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
        }
    }

    /// Size that `record_bytes_max` is about: what the source sent as key and message.
    pub(super) fn bytes_len(&self) -> usize {
        self.key.len() + self.value.len()
    }
}
