use super::*;

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
