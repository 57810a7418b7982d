//! Records as CloudEvents.

use serde_json::json;

use super::*;

#[test]
fn an_event_is_around_the_record_as_it_would_be_sent_alone() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let record = stored("key1", "{}", &[(header::TRACEPARENT, parent)]);
    let event = value(&encoder(r#""cloudEventsFormat":true"#), &record);
    let alone = value(&encoder(""), &record);
    assert_eq!(
        event,
        json!({"specversion":"1.0","type":"syncgate.datastream.insert.v1","source":"/services/v2/stream/s1","id":POS,
            "subject":"SYNCGATE.DataSyncStream","time":"2026-01-02T03:04:05.000006Z","datacontenttype":"application/json",
            "partitionkey":"key1","traceparent":parent,"data":alone})
    );
}

#[test]
fn attributes_that_a_record_has_no_value_for_are_absent() {
    let no_pos = r#""cloudEventsFormat":true,"encoding":{"json":{"metaFields":{"pos":false},"operationStrings":{"ddl":"X"}}}"#;
    for key in ["", "a\nb"] {
        let event = value(&encoder(no_pos), &stored(key, "{}", &[]));
        assert_eq!(
            (event.get("partitionkey"), event.get("traceparent")),
            (None, None)
        );
        assert_eq!(
            (&event["id"], event["data"].get("pos")),
            (&json!(POS), None)
        );
    }
    let created = control(
        &encoder(no_pos),
        ControlEventKind::Created { partitions: 1 },
    )
    .unwrap();
    let created: Value = serde_json::from_str(&created).unwrap();
    assert_eq!(created["type"], "syncgate.datastream.ddl.v1");
    assert_eq!(created["data"]["op_type"], "X");
}

#[test]
fn preamble_records_are_events_with_stable_ids() {
    let encoder = encoder(r#""cloudEventsFormat":true"#);
    let read = || -> Vec<Value> {
        let records = encoder.preamble(&log(), None);
        let read = |record: Vec<u8>| serde_json::from_slice(&record).unwrap();
        records.into_iter().map(read).collect()
    };
    let events = read();
    assert_eq!(events, read());
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let of = |kind: &str| format!("syncgate.datastream.{kind}.v1");
    let expected = [
        "schema",
        "stream-metadata",
        "schema",
        "object-metadata",
        "schema",
        "schema",
    ];
    assert_eq!(types, expected.map(of));
    assert_eq!(events[3]["subject"], "SYNCGATE.DataSyncStream");
    for event in &events {
        let id = event["id"].as_str().unwrap();
        assert!(id.len() == 39 && id.starts_with("sha256-"), "{id}");
        assert!(event.get("time").is_none() && event["data"].is_object());
    }
}

#[test]
fn a_cut_counts_the_event_around_the_record() {
    let members = r#""cloudEventsFormat":true,"encoding":{"json":{"maxRecordSize":131072}}"#;
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000));
    let sent = sent(&encoder(members), &stored("", &text, &[])).unwrap();
    assert!((131_000..=131_070).contains(&sent.len()), "{}", sent.len());
}
