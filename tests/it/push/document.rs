//! What clients know of frames: the AsyncAPI document, and nothing else.

use jsonschema::Validator;

use super::*;
use crate::testkit::read_yaml;

/// Follows a reference of a document.
fn followed<'a>(document: &'a Value, at: &'a Value) -> &'a Value {
    let path = at["$ref"].as_str().and_then(|text| text.strip_prefix('#'));
    document.pointer(path.expect("a reference")).unwrap()
}

/// The schema of frames in a document, found as generators of clients find it.
fn payload(document: &Value) -> &Value {
    let operations = document["operations"].as_object().unwrap();
    let (_, operation) = operations.iter().next().unwrap();
    let channel = followed(document, &operation["channel"]);
    let messages = channel["messages"].as_object().unwrap();
    let (_, message) = messages.iter().next().unwrap();
    let of_channel = followed(document, &operation["messages"][0]);
    assert_eq!(of_channel, message);
    &followed(document, message)["payload"]
}

/// The record of an event, or the record itself.
fn bare(record: &mut Value) -> &mut Value {
    match record.get("specversion") {
        Some(_) => &mut record["data"],
        None => record,
    }
}

/// Reads until that many records with positions have come; every frame must be as the document says.
async fn read(socket: &mut Socket, frames: &Validator, count: usize, alone: bool) -> Vec<Value> {
    let mut records = Vec::new();
    while records.len() < count {
        let frame = loop {
            match within("a frame", socket.next()).await {
                Some(Ok(Message::Text(text))) => break serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("{other:?}"),
            }
        };
        let frame: Value = if alone { json!([frame]) } else { frame };
        assert!(frames.is_valid(&frame), "{frame}");
        let sent = frame.as_array().unwrap().iter();
        let with_pos = sent.filter(|record| bare(&mut (*record).clone()).get("pos").is_some());
        records.extend(with_pos.cloned());
    }
    records
}

#[tokio::test]
async fn every_frame_is_what_the_document_says_and_a_wrong_one_is_not() {
    let object = json!({"object": "SHOP.ORDERS", "url": "http://*/orders/{id}", "keys": ["id"],
                        "columns": {"id": {"type": "string"}, "n": {"type": "number"}, "long": {"type": "array"}}});
    let operations = json!({"view": "operations", "objects": [object]});
    let json = |members: Value| json!({ "encoding": { "json": members } });
    let with = |mut config: Value, view: &Value| {
        config["x-syncgate"] = view.clone();
        config
    };
    for members in [
        json!({}),
        json!({"cloudEventsFormat": true}),
        json(json!({"model": "row"})),
        json(json!({"flatten": true, "treatAllColumnsAsStrings": true,
                    "metaFields": {"csn": true, "tokens": "t", "opTs": "at"}, "staticFields": {"from": 7}})),
        json!({"x-syncgate": operations}),
        with(json!({"cloudEventsFormat": true}), &operations),
        with(
            json(json!({"model": "row", "operationStrings": {"insert": "I"}})),
            &operations,
        ),
        with(
            json(json!({"flatten": true, "maxRecordSize": 131_072})),
            &operations,
        ),
        // Nothing in a record tells of what it is.
        with(
            json(json!({"metaFields": {"opType": false, "qualifiedTable": false}})),
            &operations,
        ),
    ] {
        let gateway = Gateway::start();
        made(&gateway, &members).await.ok();
        let served = gateway.get(&format!("{S1}/yaml")).await;
        let document = read_yaml(served.body.as_str().unwrap());
        let all = gateway.get("/asyncapi.yaml").await;
        assert_eq!(all.body, served.body);
        let frames = jsonschema::draft7::new(payload(&document)).unwrap();

        let order = "http://127.0.0.1:9/orders/o1";
        let long = vec!["x".repeat(20); 10_000];
        for (operation, payload) in [
            ("POST", json!({"n": 1.5, "other": null})),
            ("PUT", json!({"id": "o1", "long": long})),
            ("PATCH", json!({"n": 2})),
            ("DELETE", json!({})),
            ("POST", json!([7])),
        ] {
            let mut message = keyed("k", order, payload);
            message["streamMessage"]["targetRestApiOperation"] = operation.into();
            gateway.sync(&message).await;
        }

        // The stream's creation comes first.
        let mut socket = open(&gateway, "?begin=earliest").await.unwrap();
        let records = read(&mut socket, &frames, 6, false).await;
        if members["cloudEventsFormat"] == true {
            let one_by_one = [("sec-websocket-protocol", "cloudevents.json")];
            let socket = open_with(&gateway, "?begin=earliest", &one_by_one).await;
            assert_eq!(read(&mut socket.unwrap(), &frames, 6, true).await, records);
        }

        for record in &records {
            let wrong = |spoil: &dyn Fn(&mut Value)| {
                let mut record = record.clone();
                spoil(bare(&mut record));
                assert!(!frames.is_valid(&json!([record])), "{members}: {record}");
            };
            wrong(&|record| record["pos"] = 7.into());
            wrong(&|record| record["xid"] = Value::Null);
            wrong(&|record| drop(record.as_object_mut().unwrap().remove("pos")));
            wrong(&|record| *record = json!("text"));
            assert!(!frames.is_valid(record), "no array: {record}");
        }
    }
}

#[tokio::test]
async fn the_document_says_that_clients_need_a_user_where_there_are_users() {
    let (user, password) = ("ada", "correct horse battery");
    let place = Place::new()
        .env("SYNCGATE_ADMIN_USER", user)
        .env("SYNCGATE_ADMIN_PASSWORD", password);
    let gateway = place.start();
    let send = async |method, path: &str| {
        let request = gateway.request(method, path);
        let request = request.basic_auth(user, Some(password));
        let config = json!({"source": {"trail": "a1"}});
        gateway.send(request.json(&config)).await
    };
    send(Method::POST, S1).await.ok();
    for path in [&format!("{S1}/yaml"), "/asyncapi.yaml"] {
        let served = send(Method::GET, path).await;
        let document = read_yaml(served.body.as_str().unwrap());
        let security = document["servers"]["main"]["security"].as_array();
        let scheme = followed(&document, &security.unwrap()[0]);
        assert_eq!(
            (&scheme["type"], &scheme["scheme"]),
            (&json!("http"), &json!("basic"))
        );
    }
    // In open mode a client that asked for a password would ask for nothing.
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await.ok();
    let served = gateway.get("/asyncapi.yaml").await;
    let document = read_yaml(served.body.as_str().unwrap());
    assert!(document["servers"]["main"].get("security").is_none());
    assert!(document["components"].get("securitySchemes").is_none());
}
