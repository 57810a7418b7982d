//! Random configurations, for property tests.

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::json::faults::FieldError;

use super::Resource;

/// Any legal configuration, as JSON.
pub(crate) fn resources() -> impl Strategy<Value = Resource> {
    let members = (
        option::of(r#"[a-z"\\ü]{1,5}"#),
        vec(rule(), 0..3),
        encoding(),
        131_072..=10_485_760_u32,
        select(vec!["exactlyOnce", "atLeastOnce", "atMostOnce"]),
        any::<bool>(),
        1..=10_800_u16,
        view(),
    );
    let parsed = members.prop_map(|(text, rules, json, size, quality, events, seconds, view)| {
        let text = text.map_or(String::new(), |text| format!(r#""description":{},"#, quoted(&text)));
        let rules = match rules.is_empty() {
            true => String::new(),
            false => format!(r#""rules":[{}],"#, rules.join(",")),
        };
        let body = format!(
            r#"{{"source":{{"trail":"a1"}},{text}{rules}"encoding":{{"json":{json}}},"bufferSize":{size},
            "qualityOfService":"{quality}","cloudEventsFormat":{events},"tcpKeepAliveTimeout":{seconds},
            "x-syncgate":{view}}}"#
        );
        Resource::parse(body.as_bytes())
    });
    // Two random names may be equal.
    parsed.prop_filter_map("a name is there twice", Result::<_, Vec<FieldError>>::ok)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "null",
            "true",
            "false",
            "1.10",
            "-0",
            "1e400",
            "12345678901234567890123"
        ])
        .prop_map(str::to_owned),
        ".{0,3}".prop_map(|text| quoted(&text)),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let value = (scalar(), "(/[a-z~]{0,2}){0,3}").prop_map(|(value, pointer)| {
        let pointer = quoted(&pointer.replace('~', "~0"));
        format!(r#""columnValues":[{{"object":"*","column":"c","pointer":{pointer},"operator":"NE","value":{value}}}]"#)
    });
    let kind = prop_oneof![
        Just(r#""objectNames":["A.*"]"#.to_owned()),
        Just(r#""objectTypes":["DML","TRUNCATE"],"tags":[{"name":"source"},{"name":"target","value":"*"}]"#.to_owned()),
        value,
    ];
    (kind, any::<bool>(), select(vec!["AND", "OR"]), option::of("[a-z]{1,3}")).prop_map(|(kind, negate, relation, name)| {
        let name = name.map_or(String::new(), |name| format!(r#""name":"{name}","#));
        format!(r#"{{{name}"action":"exclude","filter":{{"relation":"{relation}","negate":{negate},{kind}}}}}"#)
    })
}

fn encoding() -> impl Strategy<Value = String> {
    let meta = vec(
        (
            select(super::MetaField::ALL.to_vec()),
            select(vec!["true", "false", "rename"]),
        ),
        0..8,
    );
    let flags = proptest::array::uniform7(any::<bool>());
    (meta, flags, vec(scalar(), 0..3), any::<bool>(), 131_072..200_000_u32).prop_map(|(meta, flags, fixed, labels, record)| {
        let meta: std::collections::BTreeMap<_, _> = meta.into_iter().map(|(field, how)| (field.key(), how)).collect();
        let meta = meta.into_iter().map(|(key, how)| match how {
            "rename" => format!(r#""{key}":"m{key}""#),
            how => format!(r#""{key}":{how}"#),
        });
        let meta: Vec<_> = meta.collect();
        let fixed = fixed.iter().enumerate().map(|(n, value)| format!(r#""s{n}":{value}"#));
        let fixed: Vec<_> = fixed.collect();
        let [row, flat, omit, strings, schemas, objects, stream] = flags;
        let model = if row { "row" } else { "op" };
        let labels = if labels { r#""delete":"D","insert":"I""# } else { "" };
        format!(
            r#"{{"model":"{model}","flatten":{flat},"omitNullColumnValues":{omit},"treatAllColumnsAsStrings":{strings},
            "includeJSONSchemaRecord":{schemas},"includeObjectMetadataRecords":{objects},"includeStreamMetadataRecord":{stream},
            "staticFields":{{{}}},"operationStrings":{{{labels}}},"metaFields":{{{}}},"maxRecordSize":{record},
            "beforeImageName":"old"}}"#,
            fixed.join(","),
            meta.join(","),
        )
    })
}

fn view() -> impl Strategy<Value = String> {
    let kind = select(vec![
        "string", "number", "integer", "boolean", "object", "array",
    ]);
    let columns = proptest::collection::btree_map("[a-c_]{1,2}|pos|after", kind, 0..4);
    let object = (columns, "S\\.[A-C]", any::<bool>()).prop_map(|(columns, name, keyed)| {
        let columns = columns.iter().map(|(name, kind)| format!(r#""{name}":{{"type":"{kind}"}}"#));
        let columns: Vec<_> = columns.collect();
        let keys = if keyed { r#""a","k""# } else { "" };
        let url = r#""url":"http://*/{k}""#;
        format!(
            r#"{{"object":"{name}",{url},"keys":[{keys}],"columns":{{{}}}}},{{"object":"{name}",{url}}}"#,
            columns.join(",")
        )
    });
    prop_oneof![
        Just(r#"{"view":"append"}"#.to_owned()),
        vec(object, 1..3).prop_map(|objects| format!(
            r#"{{"view":"operations","objects":[{}]}}"#,
            objects.join(",")
        )),
    ]
}

proptest! {
    #[test]
    fn a_configuration_that_was_written_is_read_as_the_same_one(resource in resources()) {
        let text = resource.to_json();
        prop_assert_eq!(Resource::parse(text.as_bytes()), Ok(resource), "{}", text);
    }
}
