mod encoding;
mod objects;
mod rules;

use crate::{
    json::faults::{FieldCode, FieldCode::*},
    push::resource::{
        Action, ColumnType, MetaField, Model, QualityOfService, Relation, Resource, Scalar, View,
        merge_patch,
    },
};

/// Returns a complete configuration with these members besides `source`.
fn with(members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#"{{"source":{{"trail":"a1"}}{comma}{members}}}"#)
}

fn parse(body: &str) -> Resource {
    Resource::parse(body.as_bytes()).unwrap_or_else(|faults| panic!("{body}: {faults:?}"))
}

#[track_caller]
fn check_body(body: &str, expected: &[(&str, FieldCode)]) {
    let faults = Resource::parse(body.as_bytes()).err().unwrap_or_default();
    let found: Vec<_> = faults.iter().map(|f| (&*f.pointer, f.code)).collect();
    assert_eq!(found, expected, "{body}: {faults:?}");
}

#[track_caller]
fn check(members: &str, expected: &[(&str, FieldCode)]) {
    check_body(&with(members), expected);
}

/// Returns the same faults under the pointer `at`.
fn below(at: &str, faults: &[(&str, FieldCode)]) -> Vec<(&'static str, FieldCode)> {
    let faults = faults.iter();
    faults
        .map(|(rest, code)| (&*format!("{at}{rest}").leak(), *code))
        .collect()
}

#[track_caller]
fn check_json(members: &str, expected: &[(&str, FieldCode)]) {
    let expected = below("/encoding/json", expected);
    check(
        &format!(r#""encoding":{{"json":{{{members}}}}}"#),
        &expected,
    );
}

#[track_caller]
fn check_filter(members: &str, expected: &[(&str, FieldCode)]) {
    let expected = below("/rules/0/filter", expected);
    check(
        &format!(r#""rules":[{{"action":"exclude","filter":{{{members}}}}}]"#),
        &expected,
    );
}

#[track_caller]
fn check_objects(entries: &str, expected: &[(&str, FieldCode)]) {
    let expected = below("/x-syncgate/objects", expected);
    check(
        &format!(r#""x-syncgate":{{"view":"operations","objects":[{entries}]}}"#),
        &expected,
    );
}

/// Checks that a whole number is legal from `least` to `most` only.
#[track_caller]
fn check_range(check: fn(&str, &[(&str, FieldCode)]), name: &str, least: u64, most: u64) {
    let at = format!("/{name}");
    let most = u128::from(most);
    for good in [u128::from(least), most] {
        check(&format!("{name:?}:{good}"), &[]);
    }
    for bad in [u128::from(least) - 1, most + 1] {
        check(&format!("{name:?}:{bad}"), &[(&at, WrongType)]);
    }
    for bad in ["-1", "1.5", "2e5", "\"200000\"", "null", "true"] {
        check(&format!("{name:?}:{bad}"), &[(&at, WrongType)]);
    }
}

/// Checks that a string has at least and at most so many characters.
#[track_caller]
fn check_len(check: fn(&str, &[(&str, FieldCode)]), name: &str, least: usize, most: usize) {
    let at = format!("/{name}");
    let text = |len: usize| format!("{name:?}:\"{}\"", "ü".repeat(len));
    check(&text(least), &[]);
    check(&text(most), &[]);
    check(&text(most + 1), &[(&at, TooLong)]);
    if let Some(shorter) = least.checked_sub(1) {
        check(&text(shorter), &[(&at, WrongType)]);
    }
    check(&format!("{name:?}:1"), &[(&at, WrongType)]);
    check(&format!("{name:?}:null"), &[(&at, WrongType)]);
}

#[test]
fn the_smallest_body_gives_every_default() {
    let resource = parse(r#"{"source":{"trail":"a1"}}"#);
    let expected = r#"{"$schema":"ogg:dataStream","source":{"trail":"a1"},"encoding":{"json":{"model":"op","beforeImageName":"before","afterImageName":"after","omitNullColumnValues":false,"treatAllColumnsAsStrings":false,"flatten":false,"flattenDelimiter":".","staticFields":{},"operationStrings":{"INSERT":"INSERT","UPDATE":"UPDATE","DELETE":"DELETE","UPSERT":"UPSERT","TRUNCATE":"TRUNCATE","DDL":"DDL"},"includeJSONSchemaRecord":true,"includeObjectMetadataRecords":true,"includeStreamMetadataRecord":true,"metaFields":{"qualifiedTable":true,"catalog":false,"schema":false,"table":false,"opType":true,"opTs":true,"opTsMicroSecs":false,"currentTs":false,"currentTsMicroSecs":false,"pos":true,"xid":true,"csn":false,"opSeqno":false,"transInd":false,"primaryKeys":false,"tokens":false},"maxLobSize":64000,"maxDDLTextSize":1000000,"maxRecordSize":1048576,"truncateOrChunk":"truncate"}},"bufferSize":1048576,"qualityOfService":"exactlyOnce","cloudEventsFormat":false,"tcpKeepAliveTimeout":120,"x-syncgate":{"view":"append"}}"#;
    assert_eq!(resource.to_json(), expected);
    assert_eq!(parse(expected), resource);
    assert_eq!(resource.view, View::Append);
    for encoding in [r#""json""#, r#"{"json":{}}"#] {
        assert_eq!(parse(&with(&format!(r#""encoding":{encoding}"#))), resource);
    }
}

#[test]
fn the_example_of_the_decisions_is_read() {
    let body = r#"{ "$schema": "ogg:dataStream", "description": "orders for the warehouse",
      "source": { "trail": "DataSyncStream" },
      "rules": [ { "name": "no tests", "action": "exclude", "filter": { "objectNames": [ "SALES.TEST_*" ] } } ],
      "encoding": { "json": { "model": "op", "metaFields": { "csn": true, "opTs": "committed_at" } } },
      "bufferSize": 1048576, "qualityOfService": "exactlyOnce", "cloudEventsFormat": false, "tcpKeepAliveTimeout": 120,
      "x-syncgate": { "view": "operations", "objects": [
        { "object": "SALES.ORDERS", "url": "https://*/latest/orders/{orderid}", "keys": [ "orderid" ],
          "columns": { "orderid": { "type": "string" }, "qty": { "type": "number" } } },
        { "object": "SALES.ORDERS", "url": "https://*/latest/orders", "keys": [ "orderid" ] } ] } }"#;
    let resource = parse(body);
    assert_eq!(
        resource.description.as_deref(),
        Some("orders for the warehouse")
    );
    assert_eq!(resource.trail, "DataSyncStream");
    assert_eq!(resource.rules[0].name.as_deref(), Some("no tests"));
    assert_eq!(resource.rules[0].action, Action::Exclude);
    let meta = &resource.encoding.meta_fields;
    assert_eq!(meta.name(MetaField::Csn), Some("csn"));
    assert_eq!(meta.name(MetaField::OpTs), Some("committed_at"));
    assert_eq!(meta.name(MetaField::OpSeqno), None);
    let View::Operations(entries) = &resource.view else {
        panic!("{resource:?}");
    };
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].columns, entries[1].columns);
    assert_eq!(entries[1].columns[1].kind, ColumnType::Number);
    assert_eq!(*entries[1].keys, ["orderid".to_owned()]);
    assert_eq!(resource.view.objects().count(), 1);
    assert_eq!(parse(&resource.to_json()), resource);
}

#[test]
fn every_fault_is_named_at_once_with_its_place() {
    check_body("[]", &[("", WrongType)]);
    check_body("{", &[("", WrongType)]);
    check_body("{}", &[("/source", Required)]);
    check_body(r#"{"source":{}}"#, &[("/source/trail", Required)]);
    check_body(r#"{"source":"a1"}"#, &[("/source", WrongType)]);
    check(
        r#""bufferSiz":1,"bufferSize":1,"rules":[],"encoding":{"json":{"x":1,"model":"z"}},"x-syncgate":{"y":1}"#,
        &[
            ("/bufferSiz", UnknownMember),
            ("/bufferSize", WrongType),
            ("/rules", WrongType),
            ("/encoding/json/x", UnknownMember),
            ("/encoding/json/model", WrongType),
            ("/x-syncgate/y", UnknownMember),
        ],
    );
    check(
        r#""bufferSize":131072,"bufferSize":131072"#,
        &[("/bufferSize", WrongType)],
    );
}

#[test]
fn limits_of_the_configuration() {
    check_range(check, "bufferSize", 131_072, 10_485_760);
    check_range(check, "tcpKeepAliveTimeout", 1, 10_800);
    check_len(check, "description", 1, 4095);
    check(r#""$schema":"ogg:dataStream""#, &[]);
    check(r#""$schema":"ogg:datastream""#, &[("/$schema", WrongType)]);
    check(r#""$schema":null"#, &[("/$schema", WrongType)]);
    check(
        r#""cloudEventsFormat":1"#,
        &[("/cloudEventsFormat", WrongType)],
    );
    for (word, expected) in [
        ("exactlyOnce", QualityOfService::ExactlyOnce),
        ("atLeastOnce", QualityOfService::AtLeastOnce),
        ("atMostOnce", QualityOfService::AtMostOnce),
    ] {
        let resource = parse(&with(&format!(r#""qualityOfService":"{word}""#)));
        assert_eq!(resource.quality_of_service, expected);
    }
    check(
        r#""qualityOfService":"once""#,
        &[("/qualityOfService", WrongType)],
    );
    assert!(parse(&with(r#""cloudEventsFormat":true"#)).cloud_events_format);
}

#[test]
fn a_trail_has_2_to_512_characters_of_the_pattern_and_no_path_but_the_root() {
    let trail = |text: &str| format!(r#"{{"source":{{"trail":"{text}"}}}}"#);
    for good in ["a1", "a_#$/-9", &"a".repeat(512)] {
        check_body(&trail(good), &[]);
    }
    for bad in ["", "a", "a.b", "ä1", "a b", &"a".repeat(513)] {
        check_body(&trail(bad), &[("/source/trail", WrongType)]);
    }
    check_body(r#"{"source":{"trail":"a1","path":"/"}}"#, &[]);
    for bad in [r#""""#, r#""/a""#, "null"] {
        let body = format!(r#"{{"source":{{"trail":"a1","path":{bad}}}}}"#);
        check_body(&body, &[("/source/path", WrongType)]);
    }
}

#[test]
fn a_patch_replaces_whole_members_and_null_removes_them() {
    let current =
        with(r#""bufferSize":131072,"description":"d","encoding":{"json":{"model":"row"}}"#);
    let patch = r#"{"bufferSize":null,"encoding":{"json":{"flatten":true}},"qualityOfService":"atMostOnce"}"#;
    let patched = merge_patch(current.as_bytes(), patch.as_bytes()).unwrap();
    let resource = Resource::parse(&patched).unwrap();
    assert_eq!(
        (resource.buffer_size, resource.description.as_deref()),
        (1 << 20, Some("d"))
    );
    assert_eq!(
        (resource.encoding.model, resource.encoding.flatten),
        (Model::Op, true)
    );
    assert_eq!(resource.quality_of_service, QualityOfService::AtMostOnce);
    // The result is no configuration any more: that is for `parse` to say.
    let patched = merge_patch(current.as_bytes(), br#"{"source":null}"#).unwrap();
    assert_eq!(Resource::parse(&patched).unwrap_err()[0].pointer, "/source");
    for (patch, at) in [
        ("[]", ""),
        (r#"{"x":null}"#, "/x"),
        (r#"{"source":1,"source":2}"#, "/source"),
    ] {
        let faults = merge_patch(current.as_bytes(), patch.as_bytes()).unwrap_err();
        assert_eq!(faults[0].pointer, at);
    }
}

#[test]
fn a_stream_without_positions_is_warned_of() {
    let append = "SYNCGATE.S1".parse().unwrap();
    assert!(parse(&with("")).warnings(&append).is_empty());
    let off = parse(&with(r#""encoding":{"json":{"metaFields":{"pos":false}}}"#));
    assert_eq!(off.warnings(&append).len(), 1);
}
