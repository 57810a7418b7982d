//! Hides credentials in messages that are shown to people. The stored bytes do not change.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{json::loose, model::message};

/// The member of a message that may hold credentials.
pub(crate) const HEADERS: &str = "targetRestApiHeaders";
const MASK: &str = "\"***\"";
/// Members of an entry that hold the name of its header, in lower case. Lenient mode stores entries with any of them.
const NAMES: [&str; 3] = ["key", "name", "header"];
/// A longer text is not the name of a header, so it is always hidden.
const NAME_BYTES_MAX: usize = 1024;
/// Levels of nested lists; deeper values are always hidden.
const DEPTH_MAX: usize = 8;

/// Returns the message with `"***"` in place of the values of credential headers in `targetRestApiHeaders`, and of the
/// headers that `more` names.
///
/// A header is `{"key", "value"}`. Lenient mode stores any JSON, so the mask finds headers in other shapes too:
/// `{"name", "value"}`, `{"Cookie": …}`, `["Cookie", …]` and `"Cookie: …"`.
///
/// A text that is not a message has no headers and does not change.
pub(crate) fn mask<'a>(message: &'a str, more: &[String]) -> Cow<'a, str> {
    let mut hidden = Vec::new();
    for (name, headers) in loose::members(message).unwrap_or_default() {
        if name == HEADERS {
            credentials(headers, more, 0, &mut hidden);
        }
    }
    if hidden.is_empty() {
        return Cow::Borrowed(message);
    }
    let mut masked = String::with_capacity(message.len());
    let mut at = 0;
    for value in hidden {
        let (start, end) = span(message, value.get());
        masked.push_str(&message[at..start]);
        masked.push_str(MASK);
        at = end;
    }
    masked.push_str(&message[at..]);
    Cow::Owned(masked)
}

/// Adds the values of the credential headers in `headers`, in their order.
fn credentials<'a>(
    headers: &'a RawValue,
    more: &[String],
    depth: usize,
    hidden: &mut Vec<&'a RawValue>,
) {
    let text = headers.get();
    if depth > DEPTH_MAX {
        hidden.push(headers);
    } else if let Some(list) = loose::elements(text) {
        // A pair, or a flat list of names and values. All elements after the name of a credential are hidden.
        let named = list.iter().position(|entry| is_bare_name(entry, more));
        let (plain, values) = list.split_at(named.map_or(list.len(), |named| named + 1));
        for entry in plain {
            credentials(entry, more, depth + 1, hidden);
        }
        hidden.extend(values);
    } else if let Some(members) = loose::members(text) {
        let names =
            |(name, value): &(Cow<'_, str>, &RawValue)| is_name(name) && is_credential(value, more);
        let is_one = members.iter().any(names);
        for (name, value) in members {
            if is_one && !is_name(&name) || is_hidden(&name, more) {
                hidden.push(value);
            } else if !is_one && matches!(value.get().as_bytes(), [b'{' | b'[', ..]) {
                credentials(value, more, depth + 1, hidden);
            }
        }
    } else if let Some(lines) = loose::string(headers)
        && has_credential(&lines, more)
    {
        hidden.push(headers);
    }
}

fn is_name(name: &str) -> bool {
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn is_credential(name: &RawValue, more: &[String]) -> bool {
    loose::string(name).is_some_and(|name| is_hidden(&name, more))
}

/// Returns whether an element is the bare name of a credential header.
fn is_bare_name(element: &RawValue, more: &[String]) -> bool {
    let text = loose::string(element);
    text.is_some_and(|text| !text.contains(|c| !is_of_name(c)) && is_hidden(&text, more))
}

/// Returns whether a text contains the name of a credential header, and a separator before a value.
fn has_credential(text: &str, more: &[String]) -> bool {
    let mut words = text.split(|c| !is_of_name(c));
    text.contains([':', '=', '"']) && words.any(|word| is_hidden(word, more))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// Returns whether a string in the headers of a message can make [`mask`] hide something. It may be wrong for a string that
/// hides nothing, never for one that does.
pub(crate) fn may_hide(text: &str, more: &[String]) -> bool {
    is_hidden(text, more) || has_credential(text, more)
}

/// Returns whether the value of a header is hidden: the name is one of a credential, or `more` has it.
pub(crate) fn is_hidden(name: &str, more: &[String]) -> bool {
    let mut more = more.iter();
    name.len() > NAME_BYTES_MAX
        || message::is_credential(name)
        || more.any(|other| other.eq_ignore_ascii_case(name))
}

/// Returns start and end of `part`, which is a slice of `whole`.
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

    #[test]
    fn credentials_in_other_shapes_are_hidden_too() {
        check(
            r#"[{"Name":"Cookie","Value":"x","more":1},{"key":"token","val":["x"]}]"#,
            r#"[{"Name":"Cookie","Value":"***","more":"***"},{"key":"token","val":"***"}]"#,
        );
        check(
            r#"{"Accept":"x","Authorization":["x","y"],"more":{"X-Api-Key":"x"}}"#,
            r#"{"Accept":"x","Authorization":"***","more":{"X-Api-Key":"***"}}"#,
        );
        check(
            r#"[["Cookie","x"],["Accept","x"],[["Set-Cookie","y",1]],"Accept: x","cookie : x"]"#,
            r#"[["Cookie","***"],["Accept","x"],[["Set-Cookie","***","***"]],"Accept: x","***"]"#,
        );
        check("\"Accept: x\\r\\nCookie: y\"", "\"***\"");
        check("\"Accept: x\"", "\"Accept: x\"");
        check(r#"["Cookie: x","Accept: y"]"#, r#"["***","Accept: y"]"#);
        check(
            r#"["Accept","y","Cookie","token=1"]"#,
            r#"["Accept","y","Cookie","***"]"#,
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
        check(r#""[{\"key\":\"a\"},{\"Private-Key\":\"x\"}]""#, r#""***""#);
        check(
            r#"{"a":{"authorization":{"b":1}}}"#,
            r#"{"a":{"authorization":"***"}}"#,
        );
        check("7", "7");
        let deep = |inside: &str| "[".repeat(60) + inside + &"]".repeat(60);
        assert!(
            !mask(
                &format!(r#"{{"{HEADERS}":{}}}"#, deep(r#""Cookie: geheim""#)),
                &[]
            )
            .contains("geheim")
        );
        let long = format!(r#"[{{"key":"{}","value":"x"}}]"#, "n".repeat(1025));
        check(&long, &long.replace("\"x\"", "\"***\""));
    }

    #[test]
    fn half_of_a_surrogate_pair_is_no_way_around_it() {
        let shown = r#"{"\ud800":1,"targetRestApiHeaders":[{"\udc00":2,"key":"Cookie\ud800","value":"***"}]}"#;
        let sent = shown.replace("***", "\\ud800geheim");
        let other = shown.replace("Cookie", "Accept").replace("***", "x");
        assert_eq!(mask(&other, &[]), other);
        // Every member beside the name of a credential goes.
        let shown = shown.replace("\"\\udc00\":2", "\"\\udc00\":\"***\"");
        assert_eq!(mask(&sent, &[]), shown);
        let named = ["X-Own".to_owned()];
        let own = r#"{"targetRestApiHeaders":[{"key":"x-own","value":"\ud800"}]}"#;
        assert_eq!(mask(own, &named), own.replace("\\ud800", "***"));
    }

    #[test]
    fn no_string_that_hides_something_is_overlooked() {
        for text in [
            "cookie",
            "X-Own",
            "a: b\nX-Own : x",
            "n".repeat(1025).as_str(),
        ] {
            assert!(may_hide(text, &["x-own".to_owned()]), "{text}");
        }
        assert!(!may_hide("application/json", &["x-own".to_owned()]));
    }
}
