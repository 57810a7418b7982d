use crate::{
    ingest::{FieldCode, FieldCode::*},
    push::resource::{
        Action, ColumnType, MetaField, Model, QualityOfService, Relation, Resource, Scalar, View,
        merge_patch,
    },
};

/// Returns a whole configuration with these members besides `source`.
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

/// Returns the same faults in what is at `at`.
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

/// Checks that a whole number is taken from `least` to `most` and no further.
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
fn limits_of_the_encoding() {
    check_range(check_json, "maxLobSize", 1, u64::MAX);
    check_range(check_json, "maxDDLTextSize", 1, u64::from(u32::MAX));
    check_range(check_json, "maxRecordSize", 131_072, 10_485_760);
    check_len(check_json, "beforeImageName", 1, 32);
    check_len(check_json, "afterImageName", 1, 32);
    check_len(check_json, "flattenDelimiter", 0, 32);
    for flag in [
        "omitNullColumnValues",
        "treatAllColumnsAsStrings",
        "flatten",
        "includeJSONSchemaRecord",
        "includeObjectMetadataRecords",
        "includeStreamMetadataRecord",
    ] {
        let at = format!("/{flag}");
        check_json(&format!("{flag:?}:1"), &[(&at, WrongType)]);
        for value in ["true", "false"] {
            let body = with(&format!(r#""encoding":{{"json":{{{flag:?}:{value}}}}}"#));
            let written = format!("{flag:?}:{value}");
            assert!(parse(&body).to_json().contains(&written), "{body}");
        }
    }
    check_json(r#""delimiter":"""#, &[]);
    check_json(r#""delimiter":"\n""#, &[("/delimiter", WrongType)]);
    check_json(r#""delimiter":null"#, &[("/delimiter", WrongType)]);
    check_json(r#""truncateOrChunk":"truncate""#, &[]);
    check_json(
        r#""truncateOrChunk":"chunk""#,
        &[("/truncateOrChunk", WrongType)],
    );
    check_json(r#""$schema":"ogg:outputFormatJson""#, &[]);
    check_json(r#""$schema":"ogg:dataStream""#, &[("/$schema", WrongType)]);
    let row = parse(&with(r#""encoding":{"json":{"model":"row"}}"#));
    assert_eq!(row.encoding.model, Model::Row);
    for (encoding, at) in [
        ("{}", "/encoding/json"),
        (r#""xml""#, "/encoding"),
        ("1", "/encoding"),
    ] {
        let code = if at.len() > 9 { Required } else { WrongType };
        check(&format!(r#""encoding":{encoding}"#), &[(at, code)]);
    }
    check(
        r#""encoding":{"xml":{},"json":{}}"#,
        &[("/encoding/xml", UnknownMember)],
    );
}

#[test]
fn a_metadata_member_is_on_off_or_renamed() {
    let name = |value: &str, field: MetaField| {
        let members = format!(
            r#""encoding":{{"json":{{"metaFields":{{"{}":{value}}}}}}}"#,
            field.key()
        );
        let resource = parse(&with(&members));
        resource.encoding.meta_fields.name(field).map(str::to_owned)
    };
    for field in MetaField::ALL {
        assert_eq!(name("true", field).as_deref(), Some(field.default_name()));
        assert_eq!(name("false", field), None);
        assert_eq!(name("null", field), None);
        assert_eq!(name(r#""N""#, field).as_deref(), Some("N"));
        assert_eq!(name(r#"{"name":"N"}"#, field).as_deref(), Some("N"));
    }
    let meta = |members: &str, expected: &[(&str, FieldCode)]| {
        let expected = below("/metaFields", expected);
        check_json(&format!(r#""metaFields":{{{members}}}"#), &expected);
    };
    let of = |len: usize| "ü".repeat(len);
    for name in [
        format!("\"{}\"", of(64)),
        format!(r#"{{"name":"{}"}}"#, of(64)),
    ] {
        meta(&format!(r#""pos":{name}"#), &[]);
    }
    meta(&format!(r#""pos":"{}""#, of(65)), &[("/pos", TooLong)]);
    meta(
        &format!(r#""pos":{{"name":"{}"}}"#, of(65)),
        &[("/pos/name", TooLong)],
    );
    meta(r#""pos":"""#, &[("/pos", WrongType)]);
    meta(r#""pos":{"name":""}"#, &[("/pos/name", WrongType)]);
    meta(r#""pos":{}"#, &[("/pos/name", Required)]);
    meta(r#""pos":{"name":"p","x":1}"#, &[("/pos/x", UnknownMember)]);
    meta(r#""pos":1"#, &[("/pos", WrongType)]);
    meta(r#""pos":[]"#, &[("/pos", WrongType)]);
    meta(r#""posi":true"#, &[("/posi", UnknownMember)]);
    for value in ["null", "false"] {
        meta(&format!(r#""env":{value},"sys":{value}"#), &[]);
    }
    meta(
        r#""env":true,"sys":["HOME"]"#,
        &[("/env", WrongType), ("/sys", WrongType)],
    );
}

#[test]
fn no_two_members_of_a_record_have_one_name() {
    for name in ["before", "after", "ddl", "columns", "truncated", "xid"] {
        let (pos, xid) = (
            ("/metaFields/pos", WrongType),
            ("/metaFields/xid", WrongType),
        );
        let expected = if name == "xid" { xid } else { pos };
        check_json(&format!(r#""metaFields":{{"pos":"{name}"}}"#), &[expected]);
    }
    check_json(r#""metaFields":{"pos":"xid","xid":"pos"}"#, &[]);
    check_json(r#""metaFields":{"pos":"xid","xid":false}"#, &[]);
    check_json(
        r#""metaFields":{"csn":"a"},"staticFields":{"a":1}"#,
        &[("/metaFields/csn", WrongType)],
    );
    check_json(
        r#""staticFields":{"pos":1}"#,
        &[("/metaFields/pos", WrongType)],
    );
    check_json(
        r#""staticFields":{"ddl":1}"#,
        &[("/staticFields/ddl", WrongType)],
    );
    check_json(
        r#""afterImageName":"new","staticFields":{"new":1}"#,
        &[("/staticFields/new", WrongType)],
    );
    check_json(
        r#""afterImageName":"new","metaFields":{"csn":"new"}"#,
        &[("/metaFields/csn", WrongType)],
    );
    check_json(
        r#""afterImageName":"before""#,
        &[
            ("/beforeImageName", WrongType),
            ("/afterImageName", WrongType),
        ],
    );
    check_json(
        r#""afterImageName":"before","beforeImageName":"after""#,
        &[],
    );
    check_json(
        r#""afterImageName":"ddl""#,
        &[("/afterImageName", WrongType)],
    );
    for name in ["producer", "database", "machine", "source"] {
        check_json(
            &format!(r#""metaFields":{{"opType":"{name}"}}"#),
            &[("/metaFields/opType", WrongType)],
        );
    }
    let swapped = r#""metaFields":{"opType":"qual_table","qualifiedTable":false}"#;
    check_json(swapped, &[("/metaFields/opType", WrongType)]);
    let wrong = ("/flattenDelimiter", WrongType);
    check_json(
        r#""flatten":true,"flattenDelimiter":"","afterImageName":"beforeX""#,
        &[wrong],
    );
    check_json(
        r#""flatten":false,"flattenDelimiter":"","afterImageName":"beforeX""#,
        &[],
    );
    check_json(r#""flatten":true"#, &[]);
}

#[test]
fn labels_are_all_different_and_keys_are_in_any_case() {
    let strings =
        r#""encoding":{"json":{"operationStrings":{"insert":"I","Update":"U","DDL":"INSERT"}}}"#;
    let strings = parse(&with(strings)).encoding.operation_strings;
    assert_eq!(
        (&*strings.insert, &*strings.update, &*strings.ddl),
        ("I", "U", "INSERT")
    );
    assert_eq!(strings.delete, "DELETE");
    let check = |members: &str, expected: &[(&str, FieldCode)]| {
        let expected = below("/operationStrings", expected);
        check_json(&format!(r#""operationStrings":{{{members}}}"#), &expected);
    };
    check(&format!(r#""insert":"{}""#, "i".repeat(32)), &[]);
    check(
        &format!(r#""insert":"{}""#, "i".repeat(33)),
        &[("/insert", TooLong)],
    );
    check(r#""insert":"""#, &[("/insert", WrongType)]);
    check(r#""insert":"UPDATE""#, &[("", WrongType)]);
    check(r#""insert":"A","update":"A""#, &[("", WrongType)]);
    check(r#""insert":"STREAM_METADATA""#, &[("", WrongType)]);
    check(r#""insert":"A","INSERT":"B""#, &[("/INSERT", WrongType)]);
    check(r#""merge":"M""#, &[("/merge", UnknownMember)]);
    check_json(
        r#""operationStrings":[]"#,
        &[("/operationStrings", WrongType)],
    );
}

#[test]
fn static_fields_are_up_to_32_scalars() {
    let fields = |len: usize| {
        (0..len)
            .map(|n| format!(r#""s{n}":{n}"#))
            .collect::<Vec<_>>()
            .join(",")
    };
    check_json(&format!(r#""staticFields":{{{}}}"#, fields(32)), &[]);
    check_json(
        &format!(r#""staticFields":{{{}}}"#, fields(33)),
        &[("/staticFields", TooLong)],
    );
    let body = r#""encoding":{"json":{"staticFields":{"a":1.10,"b":"x","c":null,"d":true}}}"#;
    let resource = parse(&with(body));
    let expected = [
        ("a", Scalar::Number("1.10".into())),
        ("b", Scalar::String("x".into())),
        ("c", Scalar::Null),
        ("d", Scalar::Bool(true)),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(resource.encoding.static_fields, expected);
    assert!(
        resource
            .to_json()
            .contains(r#""staticFields":{"a":1.10,"b":"x","c":null,"d":true}"#)
    );
    check_json(
        r#""staticFields":{"a":{}}"#,
        &[("/staticFields/a", WrongType)],
    );
    check_json(
        r#""staticFields":{"a":1,"a":2}"#,
        &[("/staticFields/a", WrongType)],
    );
    check_json(r#""staticFields":{"":1}"#, &[("/staticFields/", WrongType)]);
    check_json(
        &format!(r#""staticFields":{{"{}":1}}"#, "s".repeat(64)),
        &[],
    );
    let long = "s".repeat(65);
    let at = format!("/staticFields/{}", &long[..64]);
    check_json(
        &format!(r#""staticFields":{{"{long}":1}}"#),
        &[(&at, WrongType)],
    );
    check_json(r#""staticFields":[]"#, &[("/staticFields", WrongType)]);
}

#[test]
fn rules_are_1_to_1024_with_1_to_1024_entries_of_a_kind() {
    let rule = r#"{"action":"include","filter":{"objectNames":["*"]}}"#;
    let rules = |len: usize| format!(r#""rules":[{}]"#, vec![rule; len].join(","));
    check(&rules(0), &[("/rules", WrongType)]);
    check(&rules(1), &[]);
    check(&rules(1024), &[]);
    check(&rules(1025), &[("/rules", TooLong)]);
    for (kind, entry) in [
        ("objectNames", r#""A.B""#),
        ("objectTypes", r#""DML""#),
        ("operationTypes", r#""DDL""#),
        (
            "columnValues",
            r#"{"column":"c","operator":"EQ","value":1}"#,
        ),
        ("tags", r#"{"name":"source"}"#),
    ] {
        let at = format!("/{kind}");
        let entries = |len: usize| format!(r#"{kind:?}:[{}]"#, vec![entry; len].join(","));
        check_filter(&entries(0), &[(&at, WrongType)]);
        check_filter(&entries(1024), &[]);
        check_filter(&entries(1025), &[(&at, TooLong)]);
        check_filter(&format!("{kind:?}:{entry}"), &[(&at, WrongType)]);
    }
}

#[test]
fn what_no_rule_can_say_is_refused() {
    check_filter("", &[("", Required)]);
    check_filter(r#""negate":true"#, &[("", Required)]);
    for kind in [
        "chunkIds",
        "procedureFeatureNames",
        "partitionNames",
        "userTokens",
    ] {
        let at = format!("/{kind}");
        check_filter(
            &format!(r#"{kind:?}:[],"objectNames":["*"]"#),
            &[(&at, UnknownMember)],
        );
    }
    let both = r#""objectTypes":["DML"],"operationTypes":["DML"]"#;
    check_filter(both, &[("/operationTypes", WrongType)]);
    check_filter(r#""objectTypes":["dml"]"#, &[("/objectTypes/0", WrongType)]);
    check_filter(
        r#""objectNames":["A.B","A"]"#,
        &[("/objectNames/1", WrongType)],
    );
    check_filter(
        r#""objectNames":["*"],"relation":"XOR""#,
        &[("/relation", WrongType)],
    );
    check_filter(
        r#""tags":[{"name":"sorce"}]"#,
        &[("/tags/0/name", WrongType)],
    );
    check_filter(
        r#""tags":[{"name":"layout"}]"#,
        &[("/tags/0/name", WrongType)],
    );
    check_filter(r#""tags":[{"value":"x"}]"#, &[("/tags/0/name", Required)]);
    check(
        r#""rules":[{"action":"drop"},{"filter":{"objectNames":["*"]},"x":1},{"name":"","action":"include","filter":[]}]"#,
        &[
            ("/rules/0/action", WrongType),
            ("/rules/0/filter", Required),
            ("/rules/1/x", UnknownMember),
            ("/rules/1/action", Required),
            ("/rules/2/name", WrongType),
            ("/rules/2/filter", WrongType),
        ],
    );
    let rule = |len: usize| {
        format!(
            r#""rules":[{{"name":"{}","action":"include","filter":{{"objectNames":["*"]}}}}]"#,
            "n".repeat(len)
        )
    };
    check(&rule(255), &[]);
    check(&rule(256), &[("/rules/0/name", TooLong)]);
}

#[test]
fn values_of_columns_are_compared_with_scalars() {
    let check = |members: &str, expected: &[(&str, FieldCode)]| {
        let expected = below("/columnValues/0", expected);
        check_filter(&format!(r#""columnValues":[{{{members}}}]"#), &expected);
    };
    for operator in ["LT", "GT", "LE", "GE", "EQ", "NE"] {
        for value in ["1.50", r#""a""#] {
            check(
                &format!(r#""column":"c","operator":"{operator}","value":{value}"#),
                &[],
            );
        }
        let expected: &[_] = match operator {
            "EQ" | "NE" => &[],
            _ => &[("/operator", WrongType)],
        };
        for value in ["true", "null"] {
            check(
                &format!(r#""column":"c","operator":"{operator}","value":{value}"#),
                expected,
            );
        }
    }
    check(
        "",
        &[
            ("/column", Required),
            ("/operator", Required),
            ("/value", Required),
        ],
    );
    let rest = r#""column":"c","operator":"EQ","value":1"#;
    check(
        r#""column":"c","operator":"eq","value":[]"#,
        &[("/operator", WrongType), ("/value", WrongType)],
    );
    check(
        &format!(r#"{rest},"image":"old""#),
        &[("/image", WrongType)],
    );
    check(
        &format!(r#"{rest},"object":"ORDERS""#),
        &[("/object", WrongType)],
    );
    for good in [
        "",
        "/",
        "/a~0b/~1",
        "/a//b",
        &format!("/{}", "a".repeat(1023)),
    ] {
        check(&format!(r#"{rest},"pointer":"{good}""#), &[]);
    }
    for bad in ["a", "#/a", "/~", "/~2", &format!("/{}", "a".repeat(1024))] {
        check(
            &format!(r#"{rest},"pointer":"{bad}""#),
            &[("/pointer", WrongType)],
        );
    }
    let body = r#""rules":[{"action":"include","filter":{"relation":"OR","columnValues":[
        {"object":"S.*","column":"c","pointer":"/a~1b/~01","image":"before","operator":"NE","value":1.0}]}}]"#;
    let resource = parse(&with(body));
    let filter = &resource.rules[0].filter;
    assert_eq!(filter.relation, Relation::Or);
    assert_eq!(filter.column_values[0].pointer, ["a/b", "~1"]);
    assert_eq!(filter.column_values[0].value, Scalar::Number("1.0".into()));
    assert_eq!(parse(&resource.to_json()), resource);
}

#[test]
fn entries_of_one_object_share_keys_and_columns() {
    let first = r#"{"object":"A.B","url":"http://h/{k}","keys":["k","l"],"columns":{"k":{"type":"string"},"q":{"type":"integer"}}}"#;
    let entry =
        |members: &str| format!(r#"{first},{{"object":"A.B","url":"http://h/x"{members}}}"#);
    check_objects(&entry(""), &[]);
    check_objects(
        &entry(r#","keys":["l","k"],"columns":{"q":{"type":"integer"},"k":{"type":"string"}}"#),
        &[],
    );
    check_objects(&entry(r#","keys":["k"]"#), &[("/1/keys", WrongType)]);
    check_objects(&entry(r#","keys":[]"#), &[("/1/keys", WrongType)]);
    check_objects(
        &entry(r#","columns":{"q":{"type":"number"},"k":{"type":"string"}}"#),
        &[("/1/columns", WrongType)],
    );
    check_objects(&entry(r#","columns":{}"#), &[("/1/columns", WrongType)]);
    let body = format!(
        r#""x-syncgate":{{"view":"operations","objects":[{{"object":"A.B","url":"http://h/x"}},{first}]}}"#
    );
    let resource = parse(&with(&body));
    let View::Operations(entries) = &resource.view else {
        panic!("{resource:?}");
    };
    assert_eq!((entries[0].keys.len(), entries[0].columns.len()), (2, 2));
    assert_eq!(parse(&resource.to_json()), resource);
}

#[test]
fn what_no_object_can_be_is_refused() {
    check_objects("", &[("", WrongType)]);
    check(
        r#""x-syncgate":{"view":"operations"}"#,
        &[("/x-syncgate/objects", Required)],
    );
    check(
        r#""x-syncgate":{"view":"rows"}"#,
        &[("/x-syncgate/view", WrongType)],
    );
    check(r#""x-syncgate":[]"#, &[("/x-syncgate", WrongType)]);
    check(r#""x-syncgate":{}"#, &[]);
    let one = r#"{"object":"A.B","url":"http://h"}"#;
    for view in ["", r#""view":"append","#] {
        let body = format!(r#""x-syncgate":{{{view}"objects":[{one}]}}"#);
        check(&body, &[("/x-syncgate/objects", WrongType)]);
    }
    check_objects(&[one; 1024].join(","), &[]);
    check_objects(&[one; 1025].join(","), &[("", TooLong)]);
    check_objects("{}", &[("/0/object", Required), ("/0/url", Required)]);
    check_objects(
        r#"{"object":"B","url":"/x","keys":["k","k",""],"columns":{"c":{},"d":{"type":"date"},"e":1,"f":{"type":"array","null":true}},"x":1}"#,
        &[
            ("/0/x", UnknownMember),
            ("/0/object", WrongType),
            ("/0/url", WrongType),
            ("/0/keys/1", WrongType),
            ("/0/keys/2", WrongType),
            ("/0/columns/c/type", Required),
            ("/0/columns/d/type", WrongType),
            ("/0/columns/e", WrongType),
            ("/0/columns/f/null", UnknownMember),
        ],
    );
    let columns = |len: usize| {
        let columns: Vec<_> = (0..len)
            .map(|n| format!(r#""c{n}":{{"type":"object"}}"#))
            .collect();
        format!(
            r#"{{"object":"A.B","url":"http://h","columns":{{{}}}}}"#,
            columns.join(",")
        )
    };
    check_objects(&columns(1024), &[]);
    check_objects(&columns(1025), &[("/0/columns", TooLong)]);
    let keys = |len: usize| {
        let keys: Vec<_> = (0..len).map(|n| format!("\"k{n}\"")).collect();
        format!(
            r#"{{"object":"A.B","url":"http://h","keys":[{}]}}"#,
            keys.join(",")
        )
    };
    check_objects(&keys(32), &[]);
    check_objects(&keys(33), &[("/0/keys", TooLong)]);
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
    assert!(parse(&with("")).warnings().is_empty());
    let off = parse(&with(r#""encoding":{"json":{"metaFields":{"pos":false}}}"#));
    assert_eq!(off.warnings().len(), 1);
}
