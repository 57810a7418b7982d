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
            let credentials = credentials(headers.get(), more).into_iter();
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

/// What is looked into of headers in another shape than that of a list of keys and values.
const DEPTH_MAX: usize = 4;

/// Returns the values of the credential headers, in their order.
///
/// A message that lenient mode has stored can have its headers in any shape: as the members of an object, as pairs, as
/// lines of text. Wherever the name of a credential header stands, what stands beside it is its value.
fn credentials<'a>(headers: &'a str, more: &[String]) -> Vec<&'a RawValue> {
    let mut values = Vec::new();
    if let Ok(headers) = serde_json::from_str::<&RawValue>(headers) {
        find(headers, more, DEPTH_MAX, &mut values);
    }
    values
}

fn find<'a>(value: &'a RawValue, more: &[String], depth: usize, values: &mut Vec<&'a RawValue>) {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth == 0 => values.push(value),
        Some(b'{') => in_object(text, more, depth - 1, values),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            match elements.iter().position(|element| is_name(element, more)) {
                // A pair, or a flat list of names and values.
                Some(first) => values.extend(&elements[first + 1..]),
                None => {
                    for element in elements {
                        find(element, more, depth - 1, values);
                    }
                }
            }
        }
        Some(b'"') if string(value).is_none_or(|text| has_credential(&text, more)) => {
            values.push(value);
        }
        _ => {}
    }
}

fn in_object<'a>(text: &'a str, more: &[String], depth: usize, values: &mut Vec<&'a RawValue>) {
    let members = members(text);
    let says_name = |(name, value): &(Cow<'_, str>, &RawValue)| {
        let says = ["key", "name", "header"];
        says.iter().any(|says| name.eq_ignore_ascii_case(says)) && is_credential(value, more)
    };
    let is_one = members.iter().any(says_name);
    for member in members {
        let (name, value) = &member;
        if says_name(&member) || (is_one && name == "key") {
            continue;
        }
        match is_one || is_hidden(name, more) {
            true => values.push(value),
            // A plain value of a header that is none is shown, whatever it says.
            false if !name.eq_ignore_ascii_case("value") && !value.get().starts_with('"') => {
                find(value, more, depth, values);
            }
            false => {}
        }
    }
}

/// Returns whether an element is the bare name of a credential header.
fn is_name(element: &RawValue, more: &[String]) -> bool {
    string(element).is_some_and(|text| !text.contains(|c| !is_of_name(c)) && is_hidden(&text, more))
}

/// Returns whether a text has the name of a credential header in it, and something that may be a value.
fn has_credential(text: &str, more: &[String]) -> bool {
    let mut words = text.split(|c| !is_of_name(c));
    text.contains([':', '=', '"']) && words.any(|word| is_hidden(word, more))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
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
        // What lenient mode stores in another shape.
        check(
            r#"{"Authorization": "Bearer x", "Accept":"y", "X-Api-Key":["a","b"]}"#,
            r#"{"Authorization": "***", "Accept":"y", "X-Api-Key":"***"}"#,
        );
        check(
            r#"[["Authorization","Bearer x"],["Accept","token"]]"#,
            r#"[["Authorization","***"],["Accept","token"]]"#,
        );
        check(
            r#"["Cookie","token=1","Accept","y"]"#,
            r#"["Cookie","***","***","***"]"#,
        );
        check(
            r#""{\"key\":\"Authorization\",\"value\":\"x\"}""#,
            r#""***""#,
        );
        check(
            r#"[{"name":"Cookie","value":"x"},{"Name":"Accept","Value":"y"},{"X-Auth-Key":"z"}]"#,
            r#"[{"name":"Cookie","value":"***"},{"Name":"Accept","Value":"y"},{"X-Auth-Key":"***"}]"#,
        );
        check(
            r#"["Authorization: Bearer x", "Accept: y"]"#,
            r#"["***", "Accept: y"]"#,
        );
        check(r#""[{\"key\":\"a\"},{\"Private-Key\":\"x\"}]""#, r#""***""#);
        check(r#""Accept: y\nCookie: a=b""#, r#""***""#);
        check(r#""Accept: y""#, r#""Accept: y""#);
        check(r#"[[[[[["x"]]]]]]"#, r#"[[[["***"]]]]"#);
        check(
            r#"{"a":{"authorization":{"b":1}}}"#,
            r#"{"a":{"authorization":"***"}}"#,
        );
        check("7", "7");
        for other in ["", "[]", "\"x\"", "{"] {
            assert_eq!(mask(other, &[]), other);
        }
    }
}
