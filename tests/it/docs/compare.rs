//! An answer beside what a page shows of it.
//!
//! In JSON `"…"` stands for any text, `"a…b"` for any middle and `"…#"` for any number. An object has all members of the
//! answer, or says with a member `"…": "…"` that some are left out. A list ends with `"…"` if it has further items.

use serde_json::{Value, json};

/// Compares what was printed with what the page shows: as JSON if both are, otherwise as text.
pub(super) fn compare(expected: &str, printed: &str) -> Result<(), String> {
    if let Ok(shown) = serde_json::from_str::<Value>(expected) {
        let actual = serde_json::from_str(printed.trim());
        let actual = actual.map_err(|error| format!("no JSON ({error}): {printed}"))?;
        return match difference(&shown, &actual, "") {
            None => Ok(()),
            Some(difference) => Err(format!("{difference}\nthe answer is {printed}")),
        };
    }
    let one_blank = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = one_blank(printed);
    let mut rest = &*all;
    for part in one_blank(expected).split('…').map(str::trim) {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return Err(format!("{part:?} is not, or not there, in\n{printed}")),
        }
    }
    Ok(())
}

/// A member of an object that stands for members that are left out.
const REST: &str = "…";

/// Returns where `actual` is not what `expected` says.
pub(super) fn difference(expected: &Value, actual: &Value, at: &str) -> Option<String> {
    match (expected, actual) {
        (Value::String(any), Value::String(_)) if any == "…" => None,
        (Value::String(any), Value::Number(_)) if any == "…#" => None,
        (Value::String(pattern), Value::String(text)) if pattern.contains('…') => {
            let mut rest = text.as_str();
            for part in pattern.split('…') {
                match rest.find(part) {
                    Some(found) => rest = &rest[found + part.len()..],
                    None => return Some(format!("{at}: {text:?} does not fit {pattern:?}")),
                }
            }
            None
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let is_whole = !expected.contains_key(REST);
            let left_out = actual.keys().filter(|name| !expected.contains_key(*name));
            let left_out: Vec<_> = left_out.collect();
            if is_whole != left_out.is_empty() {
                return Some(format!(
                    "{at}: the page leaves out {left_out:?}; \"…\" says so: {}",
                    !is_whole
                ));
            }
            let named = expected.iter().filter(|(name, _)| *name != REST);
            named.into_iter().find_map(|(name, expected)| {
                let at = format!("{at}/{name}");
                match actual.get(name) {
                    Some(actual) => difference(expected, actual, &at),
                    None => Some(format!("{at} is missing")),
                }
            })
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.last() != Some(&Value::String("…".into())) && expected.len() != actual.len()
            {
                return Some(format!(
                    "{at}: {} items, the text has {}",
                    actual.len(),
                    expected.len()
                ));
            }
            expected
                .iter()
                .zip(actual)
                .enumerate()
                .find_map(|(n, (expected, actual))| match expected {
                    Value::String(rest) if rest == "…" => None,
                    expected => difference(expected, actual, &format!("{at}/{n}")),
                })
        }
        (expected, actual) if expected == actual => None,
        (expected, actual) => Some(format!("{at}: {actual}, the text has {expected}")),
    }
}

#[test]
fn an_answer_is_shown_whole_or_says_that_it_is_not() {
    let actual = json!({"a": 1, "b": {"c": 2, "d": 3}});
    for (shown, is_right) in [
        (json!({"a": 1, "b": {"c": 2, "d": 3}}), true),
        (json!({"a": 1, "b": {"c": 2, "…": "…"}}), true),
        (json!({"b": {"d": 3, "…": "…"}, "…": "…"}), true),
        (json!({"a": 1, "b": {"c": 2}}), false),
        (json!({"a": 1}), false),
        // Nothing is left out.
        (json!({"a": 1, "b": {"c": 2, "d": 3}, "…": "…"}), false),
        (json!({"a": 1, "b": {"c": 2, "e": 3, "…": "…"}}), false),
        (json!({"a": 2, "…": "…"}), false),
    ] {
        let found = difference(&shown, &actual, "");
        assert_eq!(found.is_none(), is_right, "{shown}: {found:?}");
    }
}
