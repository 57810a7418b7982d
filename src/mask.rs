//! Hides credentials in a message that is shown to people; the stored bytes stay as they are.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    ingest::json::{Members, string},
    message,
};

/// The member of a message that credentials may stand in.
pub(crate) const HEADERS: &str = "targetRestApiHeaders";
const MASK: &str = "\"***\"";

/// Returns the message with `"***"` in place of the value of every credential header in `targetRestApiHeaders`, and of
/// those that `more` names.
///
/// A text that is no message comes back as it is; nothing in it is a header then.
pub(crate) fn mask<'a>(message: &'a str, more: &[String]) -> Cow<'a, str> {
    let mut spans = Vec::new();
    for (name, headers) in members(message) {
        if name == HEADERS {
            let credentials = credentials(headers.get(), more);
            spans.extend(credentials.map(|value| span(message, value.get())));
        }
    }
    if spans.is_empty() {
        return Cow::Borrowed(message);
    }
    let mut masked = String::with_capacity(message.len());
    let mut at = 0;
    for (start, end) in spans {
        masked.push_str(&message[at..start]);
        masked.push_str(MASK);
        at = end;
    }
    masked.push_str(&message[at..]);
    Cow::Owned(masked)
}

/// Returns the values of the credential headers.
fn credentials<'a>(headers: &'a str, more: &[String]) -> impl Iterator<Item = &'a RawValue> {
    let entries: Vec<&RawValue> = serde_json::from_str(headers).unwrap_or_default();
    entries.into_iter().flat_map(move |entry| {
        let mut entry = members(entry.get());
        let is_key =
            |(name, value): &(Cow<'_, str>, &RawValue)| name == "key" && is_credential(value, more);
        let is_one = entry.iter().any(is_key);
        entry.retain(|(name, _)| is_one && name == "value");
        entry.into_iter().map(|(_, value)| value)
    })
}

fn members(text: &str) -> Vec<(Cow<'_, str>, &RawValue)> {
    Members::parse(text).map_or(Vec::new(), |members| members.0)
}

fn is_credential(name: &RawValue, more: &[String]) -> bool {
    string(name).is_some_and(|name| is_hidden(&name, more))
}

/// Returns whether the value of a header of that name is shown to nobody: it is a credential, or `more` has the name.
pub(crate) fn is_hidden(name: &str, more: &[String]) -> bool {
    let mut more = more.iter();
    message::is_credential(name) || more.any(|other| other.eq_ignore_ascii_case(name))
}

/// Where `part`, a slice of `whole`, lies in it.
fn span(whole: &str, part: &str) -> (usize, usize) {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    (start, start + part.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &str, expected: &str) {
        let message = |headers: &str| {
            format!(
                r#"{{"a": 1.10, "targetRestApiHeaders": {headers} , "targetRestApiPayload":{{"Authorization":"x"}}}}"#
            )
        };
        assert_eq!(mask(&message(headers), &[]), message(expected));
    }

    #[test]
    fn credentials_are_hidden_and_nothing_else_changes() {
        check("[]", "[]");
        check("null", "null");
        check(
            r#"[{"key":"Accept","value":"x"}]"#,
            r#"[{"key":"Accept","value":"x"}]"#,
        );
        check(
            r#"[{"key":"authorization","value":"Bearer x"},{"value" : "y\"z", "key":"X-API-Key"}]"#,
            r#"[{"key":"authorization","value":"***"},{"value" : "***", "key":"X-API-Key"}]"#,
        );
        // Escapes, repeats and other types are no way around it.
        check(
            r#"[{"key":"\u0041uthorization","value":{"a":1},"value":"y"}]"#,
            r#"[{"key":"\u0041uthorization","value":"***","value":"***"}]"#,
        );
        check(
            r#"[{"key":"a","key":"Cookie","value":"y"},{"value":"b"}]"#,
            r#"[{"key":"a","key":"Cookie","value":"***"},{"value":"b"}]"#,
        );
        for other in ["", "[]", "\"x\"", "{"] {
            assert_eq!(mask(other, &[]), other);
        }
    }
}
