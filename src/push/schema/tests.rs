use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    json::scan::Members,
    model::ids::{Incarnation, Offset, Partition, StreamName},
    push::resource::{ObjectName, Resource, strategy},
    runtime::clock::Timestamp,
};

use super::*;

const OPERATIONS: &str = r#""x-syncgate":{"view":"operations","objects":[
    {"object":"S.ORDERS","url":"http://h/{id}","keys":["id","k"],"columns":{"id":{"type":"string"},"qty":{"type":"integer"},
     "lines":{"type":"array"},"pos":{"type":"boolean"}}},
    {"object":"S.ORDERS","url":"http://h"},{"object":"S.A","url":"http://h/a"}]}"#;

fn resource(json: &str, rest: &str) -> Resource {
    let comma = if rest.is_empty() { "" } else { "," };
    let body =
        format!(r#"{{"source":{{"trail":"a1"}},"encoding":{{"json":{{{json}}}}}{comma}{rest}}}"#);
    Resource::parse(body.as_bytes()).unwrap()
}

fn records(resource: &Resource, node: &str, gap: Option<&[MissedOffsets]>) -> Vec<PreambleRecord> {
    let name: StreamName = "Data-Sync".parse().unwrap();
    let append = ObjectName::append_table("SYNCGATE", &name).unwrap();
    let facts = StreamFacts {
        name: &name,
        incarnation: Incarnation(0x6f1d_2c3b_4a59_6877),
        created: Timestamp(1_767_225_600_000_000),
        append: &append,
        node,
        gap,
    };
    preamble(resource, &facts)
}

fn told(
    resource: &Resource,
    node: &str,
    gap: Option<&[MissedOffsets]>,
) -> Vec<(PreambleRecord, Value)> {
    let records = records(resource, node, gap).into_iter();
    let records = records.map(|record| {
        let value = serde_json::from_slice(&record.json).unwrap();
        (record, value)
    });
    records.collect()
}

fn schema(resource: &Resource, title: &str) -> Value {
    let records = told(resource, "", None).into_iter();
    let mut found = records.filter(|(_, value)| value["title"] == title);
    found.next().unwrap().1
}

fn dml(resource: &Resource, table: &str) -> Value {
    schema(resource, &format!("DML record of {table}"))
}

#[test]
fn the_preamble_has_one_order_and_each_switch_leaves_out_its_records() {
    let order = |json: &str, rest: &str| {
        let records = told(&resource(json, rest), "", None).into_iter();
        let names = records.map(|(record, value)| {
            let object = record
                .object
                .map_or(String::new(), |name| format!(" {name}"));
            match record.kind {
                PreambleKind::Schema => value["title"].as_str().unwrap().to_owned(),
                kind => format!("{kind:?}{object}"),
            }
        });
        names.collect::<Vec<_>>()
    };
    let all = [
        "Stream metadata",
        "StreamMetadata",
        "Object metadata",
        "ObjectMetadata SYNCGATE.Data_Sync",
        "DML record of SYNCGATE.Data_Sync",
        "ObjectMetadata S.ORDERS",
        "DML record of S.ORDERS",
        "ObjectMetadata S.A",
        "DML record of S.A",
        "DDL record of SYNCGATE.Data_Sync",
    ];
    assert_eq!(order("", OPERATIONS), all);
    assert_eq!(order("", ""), [&all[..5], &all[9..]].concat());
    let off = order(r#""includeJSONSchemaRecord":false"#, OPERATIONS);
    assert_eq!(off, [all[1], all[3], all[5], all[7]]);
    let off = order(r#""includeStreamMetadataRecord":false"#, "");
    assert_eq!(off, [all[2], all[3], all[4], all[9]]);
    let off = order(r#""includeObjectMetadataRecords":false"#, "");
    assert_eq!(off, [all[0], all[1], all[4], all[9]]);
    let none = r#""includeJSONSchemaRecord":false,"includeStreamMetadataRecord":false,"includeObjectMetadataRecords":false"#;
    assert!(order(none, OPERATIONS).is_empty());
}

#[test]
fn metadata_of_the_stream() {
    let gap = [MissedOffsets {
        partition: Partition(3),
        from: Offset(5),
        to: Offset(120),
    }];
    let told = |gap| told(&resource("", ""), "n1", gap)[1].1.clone();
    let mut expected = json!({ "op_type": "STREAM_METADATA",
        "producer": { "name": "syncgate", "version": env!("CARGO_PKG_VERSION") },
        "database": { "name": "syncgate", "version": "1", "charset": "UTF-8", "timeZone": "+00:00" },
        "machine": { "node": "n1", "system": "", "release": "", "version": "", "hardware": "" },
        "source": { "file": "Data-Sync", "uri": "urn:syncgate:stream:Data-Sync:6f1d2c3b4a596877",
            "creationTime": "2026-01-01T00:00:00.000000Z", "compatibility": "1" } });
    assert_eq!(told(None), expected);
    expected["source"]["gap"] = json!({ "3": { "from": 5, "to": 120 } });
    assert_eq!(told(Some(&gap)), expected);
    expected["source"]["gap"] = json!({});
    assert_eq!(told(Some(&[])), expected);
}

#[test]
fn metadata_of_objects() {
    let told = told(&resource("", OPERATIONS), "", None);
    let column = |kind: &str, nullable: bool, key: bool| json!({ "type": kind, "null": nullable, "key": key });
    let expected = json!({ "op_type": "OBJECT_METADATA", "qual_table": "SYNCGATE.Data_Sync", "columns": {
        "PARTITION": column("string", false, true), "OFFSET": column("number", false, true),
        "KEY": column("string", true, false), "TS": column("string", false, false),
        "DATA": column("object", true, false), "DATA_BASE64": column("string", true, false),
        "HEADERS": column("object", false, false) } });
    assert_eq!(told[3].1, expected);
    let expected = json!({ "op_type": "OBJECT_METADATA", "qual_table": "S.ORDERS", "columns": {
        "id": column("string", false, true), "qty": column("number", true, false), "lines": column("array", true, false),
        "pos": column("boolean", true, false), "k": column("string", false, true) } });
    assert_eq!(told[5].1, expected);
    assert_eq!(told[7].1["columns"], json!({}));
    let strings = resource(r#""treatAllColumnsAsStrings":true"#, OPERATIONS);
    let told = self::told(&strings, "", None);
    assert_eq!(
        told[3].1["columns"]["OFFSET"],
        column("string", false, true)
    );
    assert_eq!(told[5].1["columns"]["qty"], column("string", true, false));
}

// The example of the decisions, member by member and in their order.
#[test]
fn the_schema_of_the_append_table() {
    let text = told(&resource("", ""), "", None)[4].0.json.clone();
    let text = String::from_utf8(text).unwrap();
    let (id, rest) = text.split_once(r#"","title""#).unwrap();
    let expected = r#"{"id":"urn:syncgate:schema:dml:SYNCGATE.Data_Sync:"#;
    assert!(
        id.starts_with(expected) && id.len() == expected.len() + 12,
        "{id}"
    );
    let expected = r##":"DML record of SYNCGATE.Data_Sync","$schema":"http://json-schema.org/draft-04/schema#","type":"object","definitions":{"row":{"type":"object","properties":{"PARTITION":{"type":"string"},"OFFSET":{"type":"integer"},"KEY":{"type":["string","null"]},"TS":{"type":"string"},"DATA":{},"DATA_BASE64":{"type":"string"},"HEADERS":{"type":"object","additionalProperties":{"type":"string"}}},"additionalProperties":false}},"properties":{"qual_table":{"enum":["SYNCGATE.Data_Sync"]},"op_type":{"enum":["INSERT","UPDATE","DELETE","UPSERT","TRUNCATE"]},"op_ts":{"type":"string"},"pos":{"type":"string"},"xid":{"type":"string"},"before":{"$ref":"#/definitions/row"},"after":{"$ref":"#/definitions/row"},"truncated":{"type":"object","properties":{"columns":{"type":"array","items":{"type":"string"}},"bytes":{"type":"integer"}},"required":["columns","bytes"]}},"required":["qual_table","op_type","op_ts","pos","xid"],"additionalProperties":false}"##;
    assert_eq!(rest, expected);
}

#[test]
fn an_id_is_the_hash_of_the_content() {
    let ids = |resource: &Resource| {
        let records = told(resource, "", None).into_iter();
        let ids = records.filter(|(record, _)| record.kind == PreambleKind::Schema);
        ids.map(|(record, value)| {
            let id = value["id"].as_str().unwrap().to_owned();
            let text = String::from_utf8(record.json).unwrap();
            let without = text.replacen(&format!(r#""id":"{id}","#), "", 1);
            let hash = digest::digest(&digest::SHA256, without.as_bytes());
            assert!(
                id.ends_with(&format!(":{}", &HEXLOWER.encode(hash.as_ref())[..12])),
                "{id}"
            );
            id
        })
        .collect::<Vec<_>>()
    };
    let plain = ids(&resource("", ""));
    assert_eq!(plain, ids(&resource("", r#""bufferSize":131072"#)));
    let kinds = [
        "stream-metadata:",
        "object-metadata:",
        "dml:SYNCGATE.Data_Sync:",
        "ddl:",
    ];
    for (id, kind) in plain.iter().zip(kinds) {
        assert!(
            id.starts_with(&format!("urn:syncgate:schema:{kind}")),
            "{id}"
        );
    }
    let renamed = ids(&resource(r#""metaFields":{"opType":"op"}"#, ""));
    assert!(plain.iter().all(|id| !renamed.contains(id)));
}

#[test]
fn schema_has_the_members_that_are_on_under_their_names() {
    let json = r#""metaFields":{"pos":"p","xid":false,"csn":true,"opSeqno":true,"transInd":true,"primaryKeys":true,"catalog":true,
        "schema":true,"table":true,"currentTs":true,"currentTsMicroSecs":true,"opTsMicroSecs":true,"tokens":true},
        "beforeImageName":"old","staticFields":{"site":"x","n":1.10},"operationStrings":{"insert":"I","DDL":"D"}"#;
    let resource = resource(json, "");
    let schema = dml(&resource, "SYNCGATE.Data_Sync");
    let required = [
        "qual_table",
        "catalog",
        "schema",
        "table",
        "op_type",
        "op_ts",
        "op_ts_micros",
        "current_ts",
        "current_ts_micros",
        "p",
        "csn",
        "op_seqno",
        "trans_ind",
        "primary_keys",
        "tokens",
        "site",
        "n",
    ];
    assert_eq!(schema["required"], json!(required));
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), required.len() + 3);
    assert!(
        ["old", "after", "truncated"]
            .iter()
            .all(|name| properties.contains_key(*name))
    );
    assert_eq!(
        properties["op_type"],
        json!({ "enum": ["I", "UPDATE", "DELETE", "UPSERT", "TRUNCATE"] })
    );
    assert_eq!(properties["site"], json!({ "enum": ["x"] }));
    assert_eq!(properties["catalog"], json!({ "type": ["string", "null"] }));
    assert_eq!(properties["op_ts_micros"], json!({ "type": "integer" }));
    assert_eq!(
        properties["tokens"],
        json!({ "type": "object", "additionalProperties": { "type": "string" } })
    );
    assert!(
        told(&resource, "", None)[4]
            .0
            .json
            .windows(4)
            .any(|text| text == b"1.10")
    );
    let ddl = self::schema(&resource, "DDL record of SYNCGATE.Data_Sync");
    assert_eq!(ddl["properties"]["op_type"], json!({ "enum": ["D"] }));
    assert_eq!(ddl["properties"]["ddl"], json!({ "type": "string" }));
    assert_eq!(
        ddl["required"].as_array().unwrap().len(),
        required.len() + 1
    );
    assert_eq!(ddl.get("definitions"), None);
}

#[test]
fn metadata_records_have_the_new_names_and_keep_them_when_data_records_have_none() {
    let renamed = resource(
        r#""metaFields":{"opType":"kind","qualifiedTable":"object"}"#,
        "",
    );
    let records = told(&renamed, "", None);
    assert_eq!(records[1].1["kind"], "STREAM_METADATA");
    assert_eq!(records[3].1["object"], "SYNCGATE.Data_Sync");
    assert_eq!(
        records[2].1["required"],
        json!(["kind", "object", "columns"])
    );
    let off = resource(
        r#""metaFields":{"opType":false,"qualifiedTable":false,"opTs":false,"pos":false,"xid":false}"#,
        "",
    );
    let records = told(&off, "", None);
    assert_eq!(records[3].1["op_type"], "OBJECT_METADATA");
    assert_eq!(records[3].1["qual_table"], "SYNCGATE.Data_Sync");
    assert_eq!(records[4].1.get("required"), None);
}

#[test]
fn objects_have_their_declared_columns_and_any_other() {
    let schema = dml(&resource("", OPERATIONS), "S.ORDERS");
    let row = json!({ "type": "object", "properties": { "id": { "type": "string" }, "qty": { "type": ["integer", "null"] },
        "lines": { "type": ["array", "string", "null"] }, "pos": { "type": ["boolean", "null"] } },
        "additionalProperties": true });
    assert_eq!(schema["definitions"]["row"], row);
    assert_eq!(schema["additionalProperties"], false);
    let bare = dml(&resource("", OPERATIONS), "S.A");
    let row = json!({ "type": "object", "properties": {}, "additionalProperties": true });
    assert_eq!(bare["definitions"]["row"], row);
}

#[test]
fn columns_are_described_as_they_are_written() {
    let of = |json: &str, table: &str| dml(&resource(json, OPERATIONS), table);
    let append = "SYNCGATE.Data_Sync";
    let strings = of(r#""treatAllColumnsAsStrings":true"#, "S.ORDERS");
    let row = &strings["definitions"]["row"]["properties"];
    assert_eq!(
        (&row["id"], &row["qty"]),
        (
            &json!({ "type": "string" }),
            &json!({ "type": ["string", "null"] })
        )
    );
    let strings = of(
        r#""treatAllColumnsAsStrings":true,"omitNullColumnValues":true"#,
        append,
    );
    let row = strings["definitions"]["row"]["properties"]
        .as_object()
        .unwrap();
    assert!(
        row.values()
            .all(|schema| *schema == json!({ "type": "string" }))
    );
    let omitted = of(r#""omitNullColumnValues":true"#, append);
    let row = &omitted["definitions"]["row"]["properties"];
    assert_eq!(row["KEY"], json!({ "type": "string" }));
    assert_eq!(
        row["DATA"],
        json!({ "type": ["array", "boolean", "number", "object", "string"] })
    );

    let flat = of(
        r#""flatten":true,"flattenDelimiter":"_","metaFields":{"csn":"before_qty"}"#,
        "S.ORDERS",
    );
    let properties = flat["properties"].as_object().unwrap();
    for name in [
        "before_id",
        "after_id",
        "before_qty_",
        "after_qty",
        "before_qty",
        "truncated",
    ] {
        assert!(properties.contains_key(name), "{name}");
    }
    assert_eq!(properties["before_qty"], json!({ "type": "string" }));
    assert_eq!(
        (flat.get("definitions"), &flat["additionalProperties"]),
        (None, &json!(true))
    );
    let flat = of(r#""flatten":true"#, append);
    assert_eq!(flat["properties"].as_object().unwrap().len(), 5 + 14 + 1);
    assert_eq!(flat["additionalProperties"], false);

    let row = of(r#""model":"row","flatten":true"#, "S.ORDERS");
    let properties = row["properties"].as_object().unwrap();
    assert_eq!(properties["pos"], json!({ "type": "string" }));
    assert_eq!(properties["pos_"], json!({ "type": ["boolean", "null"] }));
    assert_eq!(
        (properties.len(), &row["additionalProperties"]),
        (5 + 4 + 1, &json!(true))
    );
}

#[test]
fn a_gap_that_opens_later_is_reported_unless_the_record_is_off() {
    let name: StreamName = "ab".parse().unwrap();
    let append = ObjectName::append_table("N", &name).unwrap();
    let facts = StreamFacts {
        name: &name,
        incarnation: Incarnation(1),
        created: Timestamp(0),
        append: &append,
        node: "",
        gap: Some(&[]),
    };
    let record = gap_record(&resource("", ""), &facts).unwrap();
    assert_eq!(record.kind, PreambleKind::StreamMetadata);
    let off = resource(r#""includeStreamMetadataRecord":false"#, "");
    assert_eq!(gap_record(&off, &facts), None);
}

/// Returns whether each object in the text names its members once.
fn names_once(text: &str) -> bool {
    let Some(Members(members)) = Members::parse(text) else {
        return true;
    };
    let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
    names.len() == members.len() && members.iter().all(|(_, value)| names_once(value.get()))
}

proptest::proptest! {
    #[test]
    fn no_record_of_a_preamble_names_a_member_twice(resource in strategy::resources()) {
        for record in records(&resource, "", None) {
            let text = String::from_utf8(record.json).unwrap();
            proptest::prop_assert!(names_once(&text), "{}", text);
        }
    }
}
