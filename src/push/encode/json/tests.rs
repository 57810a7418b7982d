//! Texts that are JSON, and those that are none.

use std::ops::Range;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::json::faults::DEPTH_MAX;

fn compacted(text: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    let compacted = compact(text, &mut out, &mut Vec::new());
    let copied = out.clone();
    let string = |bytes: &[u8]| Some(String::from_utf8(bytes.to_vec()).unwrap());
    match compacted {
        Compacted::Copied => string(&copied),
        _ if !copied.is_empty() => panic!("something was left"),
        Compacted::AsItStands => string(text),
        Compacted::Invalid => None,
    }
}

#[test]
fn json_is_copied_without_blanks_and_other_text_refused() {
    for (text, expected) in [
        (
            " { \"a\" : [ 1 , -0.10E+05 ] , \"a\" : null }\r\n",
            r#"{"a":[1,-0.10E+05],"a":null}"#,
        ),
        (
            "\"a\u{2028} b\u{2029}\u{2030}\"",
            "\"a\\u2028 b\\u2029\u{2030}\"",
        ),
        ("{\"\u{2028}\":\"\u{2028}\"}", "{\"\\u2028\":\"\\u2028\"}"),
        (r#""\ud83d\ude00 \u0041\/""#, r#""\ud83d\ude00 \u0041\/""#),
        ("[]", "[]"),
        ("{ }", "{}"),
        ("[ [ ] , { } ]", "[[],{}]"),
        ("1e999999999", "1e999999999"),
        ("true", "true"),
        (r#""\ud800" "#, r#""\ud800""#),
        (r#" "\udc00""#, r#""\udc00""#),
        (r#"["\ud800\ud800" ]"#, r#"["\ud800\ud800"]"#),
        (r#"{ "\ud800":1}"#, r#"{"\ud800":1}"#),
        (r#" "\ud800\n\udc00x""#, r#""\ud800\n\udc00x""#),
    ] {
        assert_eq!(compacted(text.as_bytes()).as_deref(), Some(expected));
    }
    for text in [
        "",
        " ",
        "{",
        "[",
        "[1,]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{1:1}",
        "[1 2]",
        "[1]]",
        "{]",
        "[}",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "--1",
        "-",
        "nul",
        "nullx",
        "tru",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\u{1}\"",
        "\"a\nb\"",
        "NaN",
        "[1,2]//",
        "\u{feff}1",
        "alert(1)",
        "{\"a\":1}{}",
        "\u{a0}1",
        r#""\ud80""#,
        r#""\ud800\""#,
        r#""\ud800\u""#,
        "\"\\",
        "[\"a\":1]",
        "{\"a\",1}",
    ] {
        assert_eq!(compacted(text.as_bytes()), None, "{text}");
    }
    assert_eq!(compacted(b"\"\xff\""), None);
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(compacted(nested(DEPTH_MAX).as_bytes()).is_some());
    assert!(compacted(nested(DEPTH_MAX + 1).as_bytes()).is_none());
    assert!(compacted("[".repeat(1_000_000).as_bytes()).is_none());
}

#[test]
fn half_of_a_surrogate_pair_is_a_code_point_and_no_character() {
    for (text, bytes, lossy) in [
        (r#""a\ud800""#, &b"a\xed\xa0\x80"[..], "a\u{fffd}"),
        (r#""\udfffb""#, b"\xed\xbf\xbfb", "\u{fffd}b"),
        (
            r#""\ud800\ud83d\ude00""#,
            b"\xed\xa0\x80\xf0\x9f\x98\x80",
            "\u{fffd}\u{1f600}",
        ),
        (
            r#""\udc00\ud800\u00e9""#,
            b"\xed\xb0\x80\xed\xa0\x80\xc3\xa9",
            "\u{fffd}\u{fffd}\u{e9}",
        ),
    ] {
        assert_eq!(decoded(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        assert_eq!(unquoted(text.as_bytes()), None, "{text}");
        assert_eq!(unquoted_lossy(text.as_bytes()).as_deref(), Some(lossy));
    }
    let whole = br#""\ud83d\ude00\/""#;
    assert_eq!(unquoted(whole).as_deref(), Some("\u{1f600}/"));
    assert_eq!(unquoted_lossy(whole).as_deref(), Some("\u{1f600}/"));
    assert_eq!(decoded(b"\"\\x\""), None);
}

#[test]
fn members_of_the_top_are_found_where_they_lie() {
    let spaced = " { \"a\" : { \"n\" : 1 } , \"\u{2028}\" : [ 1 , 2 ] , \"b\" : \"x\" }";
    let dense = r#"{"a":{"n":1},"\u2028":[1,2],"b":"x"}"#;
    for (text, expected) in [(spaced, Compacted::Copied), (dense, Compacted::AsItStands)] {
        let (mut out, mut members) = (Vec::new(), Vec::new());
        assert_eq!(compact(text.as_bytes(), &mut out, &mut members), expected);
        let read = match expected {
            Compacted::Copied => &out,
            _ => text.as_bytes(),
        };
        let text = |range: &Range<usize>| std::str::from_utf8(&read[range.clone()]).unwrap();
        let found = members.iter().map(|m| (text(&m.name), text(&m.value)));
        assert_eq!(
            Vec::from_iter(found),
            [
                ("\"a\"", "{\"n\":1}"),
                ("\"\\u2028\"", "[1,2]"),
                ("\"b\"", "\"x\"")
            ]
        );
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from("\u{2028}\"\\\u{1}")),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_copy_says_the_same_and_is_walked_in_full(value in value(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
        let copy = compacted(text.as_bytes()).unwrap();
        prop_assert!(!copy.contains(['\u{2028}', '\u{2029}']), "a separator");
        prop_assert_eq!(&serde_json::from_str::<Value>(&copy).unwrap(), &value);
        prop_assert_eq!(value_end(copy.as_bytes(), 0), copy.len());
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        match &value {
            Value::Object(object) => {
                let mut found = serde_json::Map::new();
                members(copy.as_bytes(), |name, value| {
                    found.insert(unquoted(name).unwrap().into_owned(), read(value));
                });
                prop_assert_eq!(&found, object);
            }
            Value::Array(array) => {
                let (mut found, mut at) = (Vec::new(), 1);
                while at + 1 < copy.len() {
                    let end = value_end(copy.as_bytes(), at);
                    found.push(read(&copy.as_bytes()[at..end]));
                    at = end + 1;
                }
                prop_assert_eq!(&found, array);
            }
            Value::String(string) => prop_assert_eq!(&unquoted(copy.as_bytes()).unwrap(), string),
            _ => {}
        }
    }

    #[test]
    fn any_text_is_refused_or_means_the_same(text in r#"[\[\]{}",:0-9eE.\-+ \\untrfalsd/\x00-\x20]{0,24}"#) {
        // A number may be too large for serde_json, never for us.
        let copy = compacted(text.as_bytes());
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(serde_json::from_str::<Value>(&copy.unwrap()).unwrap(), value);
        } else if let Some(copy) = copy {
            prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&copy).is_ok());
        }
    }

    #[test]
    fn a_string_reads_back(text: String) {
        let mut out = Vec::new();
        push_string(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
        prop_assert_eq!(unquoted(&out).unwrap(), text);
    }
}
