//! A push rule on one line: the form that `create --rule` takes and `show` prints.
//!
//! ```text
//! RULE      = include|exclude CONDITION [and CONDITION]…
//! CONDITION = object=NAME[,NAME]…              objectNames, * for any run within a part
//!           | type=WORD[,WORD]…                objectTypes
//!           | column:COLUMN[POINTER]OP VALUE   columnValues; OP is one of = != < <= > >=
//!           | tag:HEADER[=TEXT]                tags, * for any run
//! ```
//!
//! In a configuration, entries of one kind are alternatives. On a line, two conditions of one kind would read as if both had
//! to hold, so a line has at most one of each kind.

use std::borrow::Cow;

use serde_json::{json, value::RawValue};

use crate::json::loose;

/// Operators, the longer ones first, and their words in a configuration.
const OPERATORS: [(&str, &str); 6] = [
    ("!=", "NE"),
    ("<=", "LE"),
    (">=", "GE"),
    ("=", "EQ"),
    ("<", "LT"),
    (">", "GT"),
];
/// What is written for an operator and is none: the text behind an operator that begins so.
const SLIPS: [(&str, &str); 4] = [("=>", ">="), ("=<", "<="), ("==", "="), ("<>", "!=")];
const OPERATOR_BYTES: [char; 4] = ['!', '<', '>', '='];
/// No value begins with one of these without quotes.
const SLIP_ENDS: [char; 3] = ['<', '>', '='];
const FORM: &str = "a rule is include or exclude, then object=NAME, type=WORD, column:COLUMN=VALUE or tag:HEADER=TEXT; \
                    several are joined by the word and";

/// Reads a line as a rule of a configuration.
///
/// # Errors
/// A sentence on the fault in the line.
pub(super) fn read(line: &str) -> Result<Box<RawValue>, String> {
    let (action, conditions) = line.trim().split_once(' ').ok_or(FORM)?;
    if !matches!(action, "include" | "exclude") {
        return Err(FORM.into());
    }
    let mut kinds: Vec<(&str, String)> = Vec::new();
    for condition in parts(conditions) {
        let (kind, entries) = condition_of(condition.trim())?;
        if kinds.iter().any(|(taken, _)| *taken == kind) {
            return Err(format!(
                "there are two conditions for {kind}, and in one rule they would be alternatives: write a rule for each, \
                 or use --file"
            ));
        }
        kinds.push((kind, entries));
    }
    let kinds: Vec<_> = kinds
        .iter()
        .map(|(kind, entries)| format!("\"{kind}\":{entries}"))
        .collect();
    let rule = format!(
        "{{\"action\":\"{action}\",\"filter\":{{{}}}}}",
        kinds.join(",")
    );
    RawValue::from_string(rule).map_err(|error| error.to_string())
}

/// Cuts a line at each word `and` outside of quotes.
fn parts(text: &str) -> Vec<&str> {
    const AND: &str = " and ";
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        if !quoted && at >= start && text[at..].starts_with(AND) {
            parts.push(&text[start..at]);
            start = at + AND.len();
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Returns the kind of a condition and its entries as JSON.
fn condition_of(text: &str) -> Result<(&'static str, String), String> {
    if let Some(names) = text.strip_prefix("object=") {
        return Ok(("objectNames", list(names)));
    }
    if let Some(words) = text.strip_prefix("type=") {
        return Ok(("objectTypes", list(&words.to_ascii_uppercase())));
    }
    if let Some(tag) = text.strip_prefix("tag:") {
        let tag = match tag.split_once('=') {
            Some((name, value)) => json!({"name": name.trim(), "value": value.trim()}),
            None => json!({"name": tag.trim()}),
        };
        return Ok(("tags", json!([tag]).to_string()));
    }
    match text.strip_prefix("column:") {
        Some(column) => Ok(("columnValues", column_value(column)?)),
        None => Err(format!("\"{text}\" is no condition: {FORM}")),
    }
}

fn list(text: &str) -> String {
    let entries: Vec<_> = text.split(',').map(str::trim).collect();
    json!(entries).to_string()
}

fn column_value(text: &str) -> Result<String, String> {
    let compared = text.find(OPERATOR_BYTES).and_then(|at| {
        let mut operators = OPERATORS.iter();
        let (sign, word) = operators.find(|(sign, _)| text[at..].starts_with(sign))?;
        Some((&text[..at], *sign, *word, &text[at + sign.len()..]))
    });
    let Some((place, sign, operator, value)) = compared else {
        return Err(format!(
            "column:{text} compares nothing: give for example column:qty>=10"
        ));
    };
    if value.starts_with(SLIP_ENDS) {
        return Err(no_operator(place, sign, value));
    }
    let place = place.trim();
    let (column, pointer) = place.split_at(place.find('/').unwrap_or(place.len()));
    let mut members = format!("\"column\":{}", json!(column));
    if !pointer.is_empty() {
        members += &format!(",\"pointer\":{}", json!(pointer));
    }
    let value = scalar(value.trim());
    Ok(format!(
        "[{{{members},\"operator\":\"{operator}\",\"value\":{}}}]",
        value.get()
    ))
}

/// What follows an operator at once would be read as the beginning of a text, and is most likely a part of the operator.
fn no_operator(place: &str, sign: &str, value: &str) -> String {
    let (end, rest) = value.split_at(1);
    let written = format!("{sign}{end}");
    let mut slips = SLIPS.iter();
    let (meant, rest) = match slips.find(|(slip, _)| *slip == written) {
        Some((_, meant)) => (*meant, rest),
        None => (sign, value.trim_start_matches(SLIP_ENDS)),
    };
    format!(
        "{written} is no operator: write column:{place}{meant}{rest}; a text that begins with {end} goes in quotes: \
         column:{place}{sign}\"{value}\""
    )
}

/// Returns a text that is a JSON scalar unchanged, to the digit, and any other text as a JSON string.
pub(super) fn scalar(text: &str) -> Box<RawValue> {
    let is_list = text.starts_with(['{', '[']);
    let json = match serde_json::from_str::<&RawValue>(text) {
        Ok(_) if !is_list => text.to_owned(),
        _ => json!(text).to_string(),
    };
    RawValue::from_string(json).expect("the text was parsed as JSON, or written by serde_json")
}

/// Returns the line of a rule; a filter that no line can express is shown as JSON.
pub(super) fn line(rule: &RawValue) -> String {
    let members = loose::members(rule.get()).unwrap_or_default();
    let text = |name: &str| loose::member(&members, name).and_then(loose::string);
    let action = text("action").unwrap_or_default();
    let filter = loose::member(&members, "filter").map_or("", RawValue::get);
    let filter = conditions(filter).unwrap_or_else(|| filter.to_owned());
    match text("name") {
        Some(name) => format!("{action} {filter} ({name})"),
        None => format!("{action} {filter}"),
    }
}

fn conditions(filter: &str) -> Option<String> {
    let members = loose::members(filter)?;
    let is = |name: &str, usual: &str| {
        let value = loose::member(&members, name).map(RawValue::get);
        value.is_none_or(|value| value == usual)
    };
    if !is("relation", "\"AND\"") || !is("negate", "false") {
        return None;
    }
    let mut shown = Vec::new();
    for (kind, value) in &members {
        let entries = loose::elements(value.get());
        let words = || {
            let entries = entries.iter().flatten();
            let words: Option<Vec<_>> = entries.map(|entry| loose::string(entry)).collect();
            Some(words?.join(","))
        };
        let only = || match entries.as_deref() {
            Some([only]) => loose::members(only.get()),
            _ => None,
        };
        shown.push(match &**kind {
            "relation" | "negate" => continue,
            "objectNames" => format!("object={}", words()?),
            "objectTypes" => format!("type={}", words()?),
            "tags" => tag(&only()?)?,
            "columnValues" => comparison(&only()?)?,
            _ => return None,
        });
    }
    Some(shown.join(" and "))
}

type Members<'a> = [(Cow<'a, str>, &'a RawValue)];

fn tag(members: &Members<'_>) -> Option<String> {
    let text = |name: &str| loose::member(members, name).and_then(loose::string);
    let name = text("name")?;
    Some(match text("value") {
        Some(value) => format!("tag:{name}={value}"),
        None => format!("tag:{name}"),
    })
}

fn comparison(members: &Members<'_>) -> Option<String> {
    let text = |name: &str| loose::member(members, name).and_then(loose::string);
    if text("object").is_some() || text("image").is_some_and(|image| image != "after") {
        return None;
    }
    let (column, pointer) = (text("column")?, text("pointer").unwrap_or_default());
    let operator = text("operator")?;
    let (sign, _) = OPERATORS.iter().find(|(_, word)| *word == operator)?;
    let value = loose::member(members, "value")?;
    // Drop the quotes only if the bare text reads back as the same value.
    let bare = loose::string(value).filter(|text| {
        let is_read_back = scalar(text).get() == value.get();
        is_read_back
            && !text.contains(" and ")
            && text.trim() == text
            && !text.starts_with(SLIP_ENDS)
    });
    let value = bare.unwrap_or(Cow::Borrowed(value.get()));
    let is_ambiguous = column.contains(OPERATOR_BYTES) || column.contains('/');
    (!is_ambiguous && !pointer.contains(OPERATOR_BYTES))
        .then(|| format!("column:{column}{pointer}{sign}{value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks both directions.
    #[track_caller]
    fn check(line: &str, filter: &str) {
        let (action, _) = line.split_once(' ').unwrap();
        let expected = format!(r#"{{"action":"{action}","filter":{filter}}}"#);
        let rule = read(line).unwrap();
        assert_eq!(rule.get(), expected);
        assert_eq!(super::line(&rule), line);
    }

    #[test]
    fn a_line_and_its_rule_convert_both_ways() {
        check(
            "include object=SALES.ORD*,SYNCGATE.* and type=INSERT,UPSERT",
            r#"{"objectNames":["SALES.ORD*","SYNCGATE.*"],"objectTypes":["INSERT","UPSERT"]}"#,
        );
        check(
            "exclude tag:source=test*",
            r#"{"tags":[{"name":"source","value":"test*"}]}"#,
        );
        check(
            "exclude tag:cause-class",
            r#"{"tags":[{"name":"cause-class"}]}"#,
        );
        check(
            "include column:DATA/targetRestApiPayload/qty>=12345678901234567890.10",
            r#"{"columnValues":[{"column":"DATA","pointer":"/targetRestApiPayload/qty","operator":"GE","value":12345678901234567890.10}]}"#,
        );
        check(
            "include column:status!=in transit",
            r#"{"columnValues":[{"column":"status","operator":"NE","value":"in transit"}]}"#,
        );
        // Quotes turn a number into a text, and keep an `and` inside.
        check(
            r#"include column:zip="10" and object=A.B"#,
            r#"{"columnValues":[{"column":"zip","operator":"EQ","value":"10"}],"objectNames":["A.B"]}"#,
        );
        check(
            r#"include column:name="salt and \" pepper""#,
            r#"{"columnValues":[{"column":"name","operator":"EQ","value":"salt and \" pepper"}]}"#,
        );
        check(
            r#"include column:sign=">5""#,
            r#"{"columnValues":[{"column":"sign","operator":"EQ","value":">5"}]}"#,
        );
        check(
            "include column:gone=null",
            r#"{"columnValues":[{"column":"gone","operator":"EQ","value":null}]}"#,
        );
    }

    #[test]
    fn an_invalid_rule_is_refused() {
        for (line, what) in [
            ("include", "a rule is include or exclude"),
            ("keep object=A.B", "a rule is include or exclude"),
            ("include A.B", "\"A.B\" is no condition"),
            ("include column:qty", "compares nothing"),
            ("include column:qty!10", "compares nothing"),
            (
                "include column:DATA/qty=>5",
                "=> is no operator: write column:DATA/qty>=5; a text that begins with > goes in quotes: \
                 column:DATA/qty=\">5\"",
            ),
            ("include column:qty=<5", "write column:qty<=5;"),
            ("include column:qty==5", "write column:qty=5;"),
            ("include column:qty<>5", "write column:qty!=5;"),
            ("include column:qty>>5", "write column:qty>5;"),
            (
                "include column:a=1 and column:b=2",
                "two conditions for columnValues",
            ),
            ("include type=DML and x", "\"x\" is no condition"),
        ] {
            let wrong = read(line).unwrap_err();
            assert!(wrong.contains(what), "{line}: {wrong}");
        }
    }

    #[test]
    fn a_filter_that_no_line_expresses_is_shown_as_json() {
        for filter in [
            r#"{"relation":"OR","objectNames":["A.B"],"objectTypes":["DML"]}"#,
            r#"{"negate":true,"objectNames":["A.B"]}"#,
            r#"{"tags":[{"name":"a"},{"name":"b"}]}"#,
            r#"{"columnValues":[{"column":"c","image":"before","operator":"EQ","value":1e400}]}"#,
            r#"{"columnValues":[{"column":"a=b","operator":"EQ","value":1}]}"#,
        ] {
            let rule = format!(r#"{{"name":"n","action":"include","filter":{filter}}}"#);
            let rule = RawValue::from_string(rule).unwrap();
            assert_eq!(line(&rule), format!("include {filter} (n)"));
        }
        let usual = r#"{"action":"include","filter":{"relation":"AND","negate":false,"objectNames":["A.B"]}}"#;
        let usual = RawValue::from_string(usual.into()).unwrap();
        assert_eq!(line(&usual), "include object=A.B");
    }
}
