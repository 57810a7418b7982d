//! Records that are too large.

use super::*;

const SMALL: &str = r#""encoding":{"json":{"maxRecordSize":131072}}"#;

#[test]
fn a_record_is_cut_where_it_has_most_until_it_fits() {
    let filler = "\u{e9}\"\u{1}".repeat(100_000);
    let long = serde_json::Value::from(filler.clone()).to_string();
    let text = format!(r#"{{"a":{long}}}"#);
    let record = stored("k", &text, &[]);
    let plain = sent(
        &encoder(r#""encoding":{"json":{"maxRecordSize":10485760}}"#),
        &record,
    )
    .unwrap();
    let cut = sent(&encoder(SMALL), &record).unwrap();
    // The brackets of its frame count.
    assert!((131_000..=131_070).contains(&cut.len()), "{}", cut.len());
    let cut: Value = serde_json::from_str(&cut).unwrap();
    assert_eq!(cut["truncated"]["columns"], serde_json::json!(["DATA"]));
    assert_eq!(cut["truncated"]["bytes"], plain.len() + 2);
    let kept = cut["after"]["DATA"].as_str().unwrap();
    assert!(text.starts_with(kept) && kept.len() > 1_000);
}

#[test]
fn the_next_column_is_cut_when_one_is_not_enough() {
    let objects =
        r#""x-syncgate":{"view":"operations","objects":[{"object":"A.B","url":"https://h/b"}]}"#;
    let encoder = encoder(&format!(r#"{SMALL},{objects}"#));
    let (long, longer) = ("x".repeat(100_000), "y".repeat(100_002));
    let payload = format!(r#"{{"a":"{long}","n":1,"b":["{longer}"],"c":"{long}"}}"#);
    let cut = value(
        &encoder,
        &stored("", &message("POST", "https://h/b", &payload), &[]),
    );
    assert_eq!(
        (&cut["qual_table"], &cut["after"]["n"]),
        (&"A.B".into(), &1.into())
    );
    let columns = cut["truncated"]["columns"].as_array().unwrap();
    assert!(columns.len() >= 2, "{columns:?}");
    assert!(cut["after"]["b"].is_string());
}

#[test]
fn a_row_of_too_many_columns_is_shown_as_it_was_appended() {
    let objects =
        r#""x-syncgate":{"view":"operations","objects":[{"object":"A.B","url":"https://h/b"}]}"#;
    let encoder = encoder(&format!(r#"{SMALL},{objects}"#));
    let members: Vec<_> = (0..30_000).map(|n| format!(r#""column{n}":{n}"#)).collect();
    let payload = format!("{{{}}}", members.join(","));
    let sent = sent(
        &encoder,
        &stored("", &message("POST", "https://h/b", &payload), &[]),
    )
    .unwrap();
    assert!(sent.len() <= 131_070);
    let cut: Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(cut["qual_table"], "SYNCGATE.DataSyncStream");
    assert_eq!(cut["truncated"]["columns"], serde_json::json!(["DATA"]));
}

#[test]
fn a_long_string_is_cut_on_a_character() {
    let objects =
        r#""x-syncgate":{"view":"operations","objects":[{"object":"A.B","url":"https://h/b"}]}"#;
    let encoder = encoder(&format!(
        r#""encoding":{{"json":{{"maxLobSize":3}}}},{objects}"#
    ));
    let payload = r#"{"a":"\u00e9\u00e9","b":"abc","c":["abcdef"],"d":"\"\"\"\""}"#;
    let cut = value(
        &encoder,
        &stored("", &message("POST", "https://h/b", payload), &[]),
    );
    assert_eq!(
        cut["after"],
        serde_json::json!({"a":"é","b":"abc","c":["abcdef"],"d":"\"\"\""})
    );
    assert_eq!(cut["truncated"]["columns"], serde_json::json!(["a", "d"]));
    let half = message("POST", "https://h/b", r#"{"a":"\ud800xy","b":"\ud800"}"#);
    let sent = sent(&encoder, &stored("", &half, &[])).unwrap();
    assert!(
        sent.contains("{\"a\":\"\u{fffd}\",\"b\":\"\\ud800\"}"),
        "{sent}"
    );
}

#[test]
fn many_long_strings_are_cut_and_each_is_named_once() {
    let objects =
        r#""x-syncgate":{"view":"operations","objects":[{"object":"A.B","url":"https://h/b"}]}"#;
    let encoder = encoder(&format!(
        r#""encoding":{{"json":{{"maxLobSize":1,"maxRecordSize":10485760}}}},{objects}"#
    ));
    let members: Vec<_> = (0..60_000).map(|n| format!(r#""c{n}":"xy""#)).collect();
    let payload = format!("{{{}}}", members.join(","));
    let cut = value(
        &encoder,
        &stored("", &message("POST", "https://h/b", &payload), &[]),
    );
    assert_eq!(cut["after"]["c59999"], "x");
    let columns = cut["truncated"]["columns"].as_array().unwrap();
    assert_eq!((columns.len(), &columns[7]), (60_000, &"c7".into()));
}

#[test]
fn headers_are_sent_whole_or_not_at_all() {
    let members: Vec<_> = (0..40).map(|_| "h".repeat(4_000)).collect();
    let headers: Vec<_> = members
        .iter()
        .map(|value| (header::CAUSE_BODY, &**value))
        .collect();
    let encoder = encoder(SMALL);
    let cut = value(&encoder, &stored("k", r#"{"a":1}"#, &headers));
    assert_eq!(cut["truncated"]["columns"], serde_json::json!(["HEADERS"]));
    assert_eq!(
        (cut["after"].get("HEADERS"), &cut["after"]["KEY"]),
        (None, &"k".into())
    );
}
