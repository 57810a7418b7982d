//! Views: the rows and changes that records are shown as.

use serde_json::json;

use super::*;

const OBJECTS: &str = r#""x-syncgate":{"view":"operations","objects":[
    {"object":"SALES.ORDERS","url":"https://*/latest/orders/{orderid}","keys":["orderid"],
     "columns":{"orderid":{"type":"string"},"qty":{"type":"number"},"open":{"type":"boolean"}}},
    {"object":"SALES.ORDERS","url":"https://*/latest/orders","keys":["orderid"]},
    {"object":"SALES.ITEMS","url":"https://*/items/{qty}","columns":{"qty":{"type":"integer"}}}]}"#;

#[test]
fn a_record_is_a_row_of_the_append_table() {
    let value = r#"{ "vaultSecretName": "789", "targetRestApi": "https://api.example/latest/orders",
        "targetRestApiOperation": "POST", "targetRestApiPayload": { "orderid": "18jan", "n": 1.10 },
        "targetRestApiHeaders": [ { "key": "Authorization", "value": "secret" } ] }"#;
    let record = stored(
        "key1",
        value,
        &[(header::SOURCE, "default"), (header::LAYOUT, "1 2 ")],
    );
    let own = MessageId {
        of: PartitionId {
            stream: log().id,
            partition: Partition(0),
        },
        incarnation: log().incarnation,
        offset: Offset(27),
    };
    let expected = [
        r#"{"qual_table":"SYNCGATE.DataSyncStream","op_type":"INSERT","op_ts":"2026-01-02T03:04:05.000006Z","#,
        r#""pos":"p1kZ3v0aQ","xid":"0.27","after":{"PARTITION":"0","OFFSET":27,"KEY":"key1","#,
        r#""TS":"2026-01-02T03:04:05.000006Z","DATA":{"vaultSecretName":"789","#,
        r#""targetRestApi":"https://api.example/latest/orders","targetRestApiOperation":"POST","#,
        r#""targetRestApiPayload":{"orderid":"18jan","n":1.10},"#,
        r#""targetRestApiHeaders":[{"key":"Authorization","value":"***"}]},"HEADERS":{"message-id":""#,
        &own.text(),
        r#"","source":"default"}}}"#,
    ];
    assert_eq!(sent(&encoder(""), &record), Some(expected.concat()));
}

#[test]
fn a_value_that_is_no_json_is_shown_as_bytes() {
    for text in ["alert(1)", "{\"a\":}", "", "\u{7f}\0"] {
        let after = &value(&encoder(""), &stored("", text, &[]))["after"];
        let bytes = data_encoding::BASE64.encode(text.as_bytes());
        assert_eq!(after["DATA_BASE64"], bytes, "{text:?}");
        assert_eq!((after.get("DATA"), &after["KEY"]), (None, &Value::Null));
    }
}

/// A message with a credential in it.
fn with_credential(payload: &str) -> String {
    let text = message("POST", "https://h/a", payload).replace(
        "{ \"target",
        r#"{ "targetRestApiHeaders":[{"key":"X-API-Key","value":"geheim"}], "target"#,
    );
    assert!(text.contains("geheim"));
    text
}

#[test]
fn legal_json_is_shown_unchanged_but_for_credentials() {
    let deep = "[".repeat(126) + &"]".repeat(126);
    for payload in [
        r#"{"a":"\ud800","\udfff":["\udc00\ud800"]}"#,
        r#"{"large":1e400,"small":-0.1E-999}"#,
        deep.as_str(),
    ] {
        let text = with_credential(payload);
        for encoder in [encoder(""), encoder(r#""cloudEventsFormat":true"#)] {
            let sent = sent(&encoder, &stored("", &text, &[])).unwrap();
            let shown = format!(r#""targetRestApiPayload":{payload}"#);
            assert!(sent.contains(&shown), "{sent}");
            assert!(!sent.contains("geheim") && sent.contains("***"), "{sent}");
            assert!(!sent.contains("DATA_BASE64"), "{sent}");
        }
    }
}

#[test]
fn a_credential_in_a_shape_of_lenient_mode_is_not_shown() {
    for headers in [
        r#"{"Cookie":"geheim"}"#,
        r#"[["Cookie","geheim"]]"#,
        r#""Accept: x\nCookie: geheim""#,
        r#"[{"\ud800":1,"key":"Cookie\udc00","value":"geheim"}]"#,
        r#"[[[[[[[[[[[["geheim"]]]]]]]]]]]]"#,
    ] {
        let text = format!(r#"{{"\ud800":1,"targetRestApiHeaders":{headers}}}"#);
        let sent = sent(&encoder(""), &stored("", &text, &[])).unwrap();
        assert!(!sent.contains("geheim") && sent.contains("***"), "{sent}");
        assert!(sent.contains(r#""DATA":{"\ud800":1,"#), "{sent}");
    }
    // A header of the setting, in a text.
    let settings = Settings::from(&Config::default());
    let own = vec!["X-Own".to_owned()];
    let resource = Resource::parse(br#"{"source":{"trail":"a1"}}"#).unwrap();
    let config = Bytes::from(resource.to_json());
    let stream = DataStream::new("s1".parse().unwrap(), 1, resource, config);
    let encoder = Encoder::new(&stream, &log(), &settings);
    let text = r#"{"targetRestApiHeaders":["Accept: x","x-own : geheim"]}"#;
    let shown = |encoder: &Encoder| sent(encoder, &stored("", text, &[])).unwrap();
    assert!(shown(&encoder).contains("x-own : geheim"));
    // The setting may change under way.
    settings.masked_headers.set(own.into());
    let shown = shown(&encoder);
    assert!(shown.contains(r#"["Accept: x","***"]"#), "{shown}");
}

#[test]
fn a_credential_is_not_shown_because_its_message_is_no_json_to_us() {
    let text = with_credential(&("[".repeat(300) + &"]".repeat(300)));
    let row = &value(&encoder(""), &stored("", &text, &[]))["after"];
    let shown = data_encoding::BASE64.decode(row["DATA_BASE64"].as_str().unwrap().as_bytes());
    let shown = String::from_utf8(shown.unwrap()).unwrap();
    assert!(
        !shown.contains("geheim") && shown.contains("***"),
        "{shown}"
    );
}

#[test]
fn a_credential_is_masked_after_messages_without_one() {
    let encoder = encoder("");
    let (mut scratch, mut shown) = (Scratch::default(), Vec::new());
    for key in ["Accept", "Accept", "Cookie", "Accept", "Cookie"] {
        let headers = format!(r#"[{{"key":"{key}","value":"x"}}]"#);
        let text = format!(r#"{{"targetRestApiHeaders":{headers}}}"#);
        let mut out = Vec::new();
        encoder.record(
            &log(),
            Partition(0),
            &stored("", &text, &[]),
            NOW,
            &mut |_| {},
            &mut scratch,
            &mut out,
        );
        let sent: Value = serde_json::from_slice(&out).unwrap();
        shown.push(sent["after"]["DATA"]["targetRestApiHeaders"][0]["value"].clone());
    }
    assert_eq!(shown, ["x", "x", "***", "x", "***"]);
}

#[test]
fn nothing_in_a_record_can_run_as_a_script() {
    let text = format!(r#"{{"a\u2028": "b{}" , "c{}":1}}"#, '\u{2029}', '\u{2028}');
    let record = stored("k\u{2028}", &text, &[(header::SOURCE, "s\u{2029}")]);
    let sent = sent(&encoder(""), &record).unwrap();
    assert!(!sent.contains(['\u{2028}', '\u{2029}']), "{sent}");
    let after: Value = serde_json::from_str::<Value>(&sent).unwrap()["after"].take();
    assert_eq!(after["DATA"], serde_json::from_str::<Value>(&text).unwrap());
    assert_eq!(after["KEY"], "k\u{2028}");
}

#[test]
fn many_declared_columns_and_keys_mean_the_same_as_few() {
    for len in [1, 3, 40] {
        let columns: Vec<_> = (0..len)
            .map(|n| format!(r#""c{n}":{{"type":"integer"}}"#))
            .collect();
        let keys: Vec<_> = (0..len.min(32)).map(|n| format!(r#""c{n}""#)).collect();
        let encoder = encoder(&format!(
            r#""x-syncgate":{{"view":"operations","objects":[{{"object":"A.B","url":"https://h/{{c0}}",
            "keys":[{}],"columns":{{{}}}}}]}}"#,
            keys.join(","),
            columns.join(",")
        ));
        let is_change = |payload: &str| {
            let record = stored("", &message("PUT", "https://h/7", payload), &[]);
            value(&encoder, &record)["qual_table"] == "A.B"
        };
        let last = len - 1;
        assert!(is_change(&format!(r#"{{"c{last}":5,"other":"x"}}"#)));
        assert!(!is_change(&format!(r#"{{"c{last}":"5"}}"#)), "another type");
        let is_key = last < 32;
        assert_eq!(is_change(&format!(r#"{{"c{last}":null}}"#)), !is_key);
        let record = stored(
            "",
            &message("DELETE", "https://h/7", r#"{"c1":1,"x":2}"#),
            &[],
        );
        let before = value(&encoder, &record)["before"].clone();
        let both = serde_json::json!({"c0": 7, "c1": 1});
        let one = serde_json::json!({"c0": 7});
        assert_eq!(before, if len > 1 { both } else { one });
    }
}

#[test]
fn columns_that_are_no_text_make_a_change_a_row_of_the_log() {
    let record = |payload: &str| stored("k", &message("PUT", "https://h/b", payload), &[]);
    let encoder = encoder(
        r#""x-syncgate":{"view":"operations","objects":[{"object":"A.B","url":"https://h/b"}]}"#,
    );
    let sent_as = |payload: &str| sent(&encoder, &record(payload)).unwrap();
    let shown = sent_as(r#"{"a":"\ud800","b":1e400}"#);
    assert!(
        shown.contains(r#""after":{"a":"\ud800","b":1e400}"#),
        "{shown}"
    );
    let shown = sent_as(r#"{"\ud800":1}"#);
    assert!(
        shown.contains(r#""targetRestApiPayload":{"\ud800":1}}"#),
        "{shown}"
    );
    assert!(shown.contains("SYNCGATE.DataSyncStream"), "{shown}");
}

#[track_caller]
fn shown(operation: &str, url: &str, payload: &str, expected: &Value) {
    let record = stored("k", &message(operation, url, payload), &[]);
    let mut sent = value(&encoder(OBJECTS), &record);
    let members = sent.as_object_mut().unwrap();
    for name in ["op_ts", "pos", "xid"] {
        assert!(members.remove(name).is_some());
    }
    if members["qual_table"] == "SYNCGATE.DataSyncStream" {
        let columns = members.remove("after").unwrap();
        assert_eq!(columns["DATA"]["targetRestApi"], url);
    }
    assert_eq!(sent, *expected, "{operation} {url} {payload}");
}

#[test]
fn a_message_is_the_change_that_it_asks_its_target_for() {
    let orders = "https://api.example/latest/orders";
    let order = "https://api.example/latest/orders/18jan?x=/y";
    let all = r#"{ "orderid": "18jan", "PO": 1.10 }"#;
    let row = |op: &str| json!({"qual_table":"SALES.ORDERS","op_type":op,"after":{"orderid":"18jan","PO":1.10}});
    shown("POST", orders, all, &row("INSERT"));
    shown("PUT", order, r#"{"PO":1.10}"#, &row("UPSERT"));
    shown("PATCH", order, r#"{"PO":1.10}"#, &row("UPDATE"));
    shown(
        "PUT",
        order,
        r#"{"PO":9,"orderid":"18jan","PO":1.10}"#,
        &row("UPSERT"),
    );
    let gone = json!({"qual_table":"SALES.ORDERS","op_type":"DELETE","before":{"orderid":"18jan"}});
    shown("DELETE", order, "null", &gone);
    shown("DELETE", orders, all, &gone);
    shown(
        "DELETE",
        orders,
        "{}",
        &json!({"qual_table":"SALES.ORDERS","op_type":"DELETE"}),
    );
    // A member of the payload wins, and declared types are read out of the URL.
    let other = json!({"qual_table":"SALES.ORDERS","op_type":"UPSERT","after":{"orderid":"x"}});
    shown("PUT", order, r#"{"orderid":"x"}"#, &other);
    let items = json!({"qual_table":"SALES.ITEMS","op_type":"UPSERT","after":{"qty":-7,"a":null}});
    shown("PUT", "https://h/items/-7", r#"{"a":null}"#, &items);
}

#[test]
fn a_record_without_an_object_is_shown_in_the_append_table() {
    let plain = json!({"qual_table":"SYNCGATE.DataSyncStream","op_type":"INSERT"});
    let order = "https://api.example/latest/orders/18jan";
    for (operation, url, payload) in [
        ("GET", order, "{}"),
        ("POST", "https://api.example/other", "{}"),
        ("POST", order, "[]"),
        ("POST", order, "null"),
        ("DELETE", order, "7"),
        ("PUT", order, r#"{"qty":"7"}"#),
        ("PUT", order, r#"{"open":0}"#),
        ("PUT", order, r#"{"orderid":null}"#),
        ("PUT", "https://h/items/1.0", "{}"),
        ("PUT", "https://h/items/x", "{}"),
    ] {
        shown(operation, url, payload, &plain);
    }
    let no_payload = r#"{"targetRestApi":"https://h/items/1","targetRestApiOperation":"POST"}"#;
    let sent = value(&encoder(OBJECTS), &stored("", no_payload, &[]));
    assert_eq!(sent["qual_table"], "SYNCGATE.DataSyncStream");
}

#[test]
fn control_events_are_statements_and_a_purge_truncates() {
    let plain = encoder("");
    let created = control(&plain, ControlEventKind::Created { partitions: 1 }).unwrap();
    let expected = concat!(
        r#"{"qual_table":"SYNCGATE.DataSyncStream","op_type":"DDL","op_ts":"2026-01-02T03:04:05.000006Z","#,
        r#""pos":"p1kZ3v0aQ","xid":"ddl.1","ddl":"CREATE STREAM DataSyncStream PARTITIONS 1"}"#
    );
    assert_eq!(created, expected);
    let grown = control(&plain, ControlEventKind::Grown { partitions: 3 }).unwrap();
    assert!(grown.ends_with(r#""ddl":"ALTER STREAM DataSyncStream SET PARTITIONS 3"}"#));
    let purged = control(&plain, ControlEventKind::Purged).unwrap();
    assert!(purged.contains(r#""op_type":"TRUNCATE""#) && purged.ends_with(r#""xid":"ddl.1"}"#));
    let short = encoder(r#""encoding":{"json":{"maxDDLTextSize":6}}"#);
    let cut = control(&short, ControlEventKind::Created { partitions: 1 }).unwrap();
    assert!(cut.ends_with(r#""ddl":"CREATE"}"#), "{cut}");
}

#[test]
fn every_part_of_the_shape_can_be_changed() {
    let record = stored(
        "",
        &message(
            "PUT",
            "https://h/items/7",
            r#"{"a":null,"pos":true,"o":{"x":1}}"#,
        ),
        &[(header::SOURCE, "s")],
    );
    let shaped = |json: &str| {
        let members = format!(r#"{OBJECTS},"encoding":{{"json":{json}}}"#);
        value(&encoder(&members), &record)
    };
    let meta = r#""metaFields":{"qualifiedTable":false,"opTs":false,"xid":false,"opType":"op","pos":{"name":"at"},
        "catalog":true,"schema":true,"table":true,"opTsMicroSecs":true,"currentTs":true,"currentTsMicroSecs":"now",
        "csn":true,"opSeqno":true,"transInd":true,"primaryKeys":true}"#;
    assert_eq!(
        shaped(&format!(
            r#"{{{meta},"staticFields":{{"x":1.10,"y":"é"}},"operationStrings":{{"upsert":"U"}},"afterImageName":"new","omitNullColumnValues":true}}"#
        )),
        json!({"catalog":null,"schema":"SALES","table":"ITEMS","op":"U","op_ts_micros":TIME.0,
            "current_ts":"2026-01-02T03:04:06.000000Z","now":NOW.0,"at":POS,"csn":"00001767323045000006","op_seqno":0,
            "trans_ind":"only","primary_keys":[],"x":1.10,"y":"é","new":{"qty":7,"pos":true,"o":{"x":1}}})
    );
    let off = r#""metaFields":{"qualifiedTable":false,"opTs":false,"xid":false,"opType":false}"#;
    assert_eq!(
        shaped(&format!(
            r#"{{{off},"model":"row","treatAllColumnsAsStrings":true}}"#
        )),
        json!({"pos":POS,"qty":"7","a":null,"pos_":"true","o":"{\"x\":1}"})
    );
    assert_eq!(
        shaped(&format!(
            r#"{{{off},"flatten":true,"flattenDelimiter":"/"}}"#
        )),
        json!({"pos":POS,"after/qty":7,"after/a":null,"after/pos":true,"after/o":{"x":1}})
    );
    let tokens = &shaped(r#"{"metaFields":{"tokens":true}}"#)["tokens"];
    assert_eq!(
        (&tokens["source"], tokens["message-id"].is_string()),
        (&json!("s"), true)
    );
}
