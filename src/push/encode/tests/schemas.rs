//! Any record under any configuration is what is said of it: by the schema that is sent before it, and by the document that
//! clients are made from.

use jsonschema::Validator;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::push::{
    document::{self, Listed, Protocol, Server},
    resource::{Scalar, strategy::resources},
};

/// The schemas of data records that a connection begins with.
fn schemas(encoder: &Encoder) -> Vec<Validator> {
    let records = encoder.preamble(&log(), None);
    let records = records
        .iter()
        .map(|record| serde_json::from_slice::<Value>(record).unwrap());
    let data = records.filter(|record| {
        let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
        id.starts_with("urn:syncgate:schema:dml:") || id.starts_with("urn:syncgate:schema:ddl:")
    });
    data.map(|schema| jsonschema::draft4::new(&schema).unwrap())
        .collect()
}

/// The schema of a frame that the document has.
fn frames(resource: &Resource) -> Validator {
    let name = "s1".parse().unwrap();
    let append = ObjectName::append_table("SYNCGATE", &log().name).unwrap();
    let server = Server {
        protocol: Protocol::Ws,
        host: "h",
        base_path: "",
        event_prefix: "syncgate.datastream",
        needs_login: false,
    };
    let listed = Listed {
        name: &name,
        resource,
        append: &append,
    };
    let payload = document::payload(&server, &listed).text();
    // That of AsyncAPI itself, which is a superset of draft 7.
    jsonschema::draft7::new(&serde_json::from_str(&payload).unwrap()).unwrap()
}

/// Values: JSON of any kind, and texts that are not JSON.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec![
            "null",
            "true",
            "1.10",
            "-0",
            "1e3",
            "7",
            "{}",
            "[]",
            r#""""#,
            r#""\ud83d\ude00""#
        ])
        .prop_map(String::from),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let name = prop_oneof![
            select(vec!["a", "b", "id", "pos", "after"]).prop_map(String::from),
            ".{0,2}"
        ];
        let member = (name, inner.clone())
            .prop_map(|(name, value)| format!("{} : {value}", Value::from(name)));
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
            vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn record() -> impl Strategy<Value = StoredRecord> {
    let text = prop_oneof![
        4 => (select(vec!["POST", "PUT", "PATCH", "DELETE", "GET"]), select(vec!["https://h/a", "https://h/a/7", "https://h/a/true", "https://h/b/c"]), json())
            .prop_map(|(operation, url, payload)| message(operation, url, &payload)),
        1 => json(),
        1 => any::<String>(),
    ];
    (option::of(".{1,3}"), text, ".{0,3}").prop_map(|(key, text, source)| {
        stored(
            &key.unwrap_or_default(),
            &text,
            &[(header::SOURCE, &source)],
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_record_is_as_its_schema_says(mut resource in resources(), records in vec(record(), 1..6)) {
        resource.cloud_events_format = false;
        resource.rules.clear();
        // Legal, and too large for the JSON that the check is made with.
        resource.encoding.static_fields.retain(|(_, value)| *value != Scalar::Number("1e400".into()));
        resource.encoding.include_json_schema_record = true;
        let encoder = of(resource);
        let schemas = schemas(&encoder);
        let sent = records.iter().filter_map(|record| sent(&encoder, record));
        let events = [
            ControlEventKind::Created { partitions: 1 },
            ControlEventKind::Grown { partitions: 2 },
            ControlEventKind::Purged,
        ];
        let events = events.into_iter().filter_map(|kind| control(&encoder, kind));
        for text in sent.chain(events) {
            prop_assert!(!text.contains(['\u{2028}', '\u{2029}']), "{text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(schemas.iter().any(|schema| schema.is_valid(&value)), "{text}");
        }
    }
    #[test]
    fn every_frame_is_as_the_document_says(mut resource in resources(), records in vec(record(), 1..6)) {
        resource.rules.clear();
        resource.encoding.static_fields.retain(|(_, value)| *value != Scalar::Number("1e400".into()));
        let frames = frames(&resource);
        let encoder = of(resource);
        let preamble = encoder.preamble(&log(), Some(&[(Partition(0), 1, 7)])).into_iter();
        let preamble = preamble.map(|record| String::from_utf8(record).unwrap());
        let sent = records.iter().filter_map(|record| sent(&encoder, record));
        let events = [ControlEventKind::Created { partitions: 1 }, ControlEventKind::Purged];
        let events = events.into_iter().filter_map(|kind| control(&encoder, kind));
        for text in preamble.chain(sent).chain(events) {
            let frame = serde_json::from_str(&format!("[{text}]")).unwrap();
            prop_assert!(frames.is_valid(&frame), "{text}");
        }
    }
}
