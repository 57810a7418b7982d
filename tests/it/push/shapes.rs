//! Data streams of all shapes, drawn by a seed, and what comes of a record under each: said once more, and plainly.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::crash::{Random, SOURCE};

const APPEND: &str = "SYNCGATE.DataSyncStream";
const ORDERS: &str = "SHOP.ORDERS";

/// A data stream's configuration, and what its clients must know of it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) config: Value,
    /// Each record comes as a message of its own, to who asks for that.
    pub(super) is_one_by_one: bool,
}

/// A record as the records API shows it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) xid: String,
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) headers: Value,
}

/// What a record is shown as.
struct Shown<'a> {
    table: &'static str,
    op: &'static str,
    image: &'static str,
    row: Map<String, Value>,
    headers: &'a Value,
}

impl Shape {
    fn new(name: &str, mut config: Value) -> Self {
        config["source"] = json!({ "trail": SOURCE });
        Self {
            name: name.into(),
            config,
            is_one_by_one: false,
        }
    }

    /// Those that have caught faults, or could.
    pub(super) fn fixed() -> Vec<Self> {
        let orders = |declared: bool| orders(declared);
        let no_positions = json!({ "json": { "metaFields": { "pos": false, "csn": "n" } } });
        let rules = json!([
            { "action": "exclude", "filter": { "relation": "AND", "tags": [ { "name": "traceparent", "value": "00-a*" } ],
                "columnValues": [ { "column": "KEY", "operator": "GT", "value": "k2" } ] } },
            { "action": "include", "filter": { "relation": "OR", "negate": true, "objectTypes": [ "DELETE" ],
                "tags": [ { "name": "target", "value": "*:7" } ], "objectNames": [ "*.NOTHING" ] } },
        ]);
        let flat = json!({ "json": { "flatten": true, "flattenDelimiter": "_", "afterImageName": "new",
            "staticFields": { "site": "north", "level": 3, "none": null } } });
        let row = json!({ "json": { "model": "row", "treatAllColumnsAsStrings": true, "omitNullColumnValues": true } });
        let mut events = Self::new(
            "events",
            json!({ "cloudEventsFormat": true, "encoding": no_positions, "x-syncgate": orders(true) }),
        );
        events.is_one_by_one = true;
        vec![
            Self::new("plain", json!({})),
            Self::new("small", json!({ "bufferSize": 131_072, "encoding": row })),
            Self::new(
                "flat",
                json!({ "encoding": flat, "x-syncgate": orders(false) }),
            ),
            Self::new(
                "ruled",
                json!({ "rules": rules, "x-syncgate": orders(false) }),
            ),
            Self::new(
                "lenient",
                json!({ "qualityOfService": "atMostOnce", "cloudEventsFormat": true }),
            ),
            events,
        ]
    }

    /// Draws one.
    pub(super) fn drawn(name: &str, random: &mut Random) -> Self {
        let mut json = Map::new();
        let mut meta = Map::new();
        if random.below(3) == 0 {
            json.insert("model".into(), "row".into());
        }
        for switch in [
            "flatten",
            "omitNullColumnValues",
            "treatAllColumnsAsStrings",
        ] {
            json.insert(switch.into(), (random.below(2) == 0).into());
        }
        let delimiter = ["", ".", "__"][draw(random, 3)];
        json.insert("flattenDelimiter".into(), delimiter.into());
        if random.below(2) == 0 {
            json.insert("beforeImageName".into(), "old".into());
            json.insert("afterImageName".into(), "is".into());
        }
        for field in ["qualifiedTable", "opType", "opTs", "pos", "xid"] {
            if random.below(3) == 0 {
                meta.insert(field.into(), format!("my {field}").into());
            }
        }
        for field in [
            "catalog",
            "schema",
            "table",
            "opTsMicroSecs",
            "csn",
            "opSeqno",
            "transInd",
            "primaryKeys",
            "tokens",
        ] {
            let name = json!({ "name": format!("_{field}") });
            let value = [false.into(), true.into(), name][draw(random, 3)].clone();
            meta.insert(field.into(), value);
        }
        if random.below(3) == 0 {
            meta.insert("opTs".into(), false.into());
        }
        json.insert("metaFields".into(), meta.into());
        let scalars = [
            json!("ä\u{2028}\"\\"),
            json!(-1.50),
            json!(true),
            json!(null),
        ];
        let fields = scalars.into_iter().enumerate();
        let fields = fields.filter(|_| random.below(2) == 0);
        let fields: Map<_, _> = fields.map(|(n, value)| (format!("s{n}"), value)).collect();
        json.insert("staticFields".into(), fields.into());
        if random.below(2) == 0 {
            let labels =
                json!({ "insert": "I", "Update": "U", "UPSERT": "INSERT or UPDATE", "ddl": "D" });
            json.insert("operationStrings".into(), labels);
        }
        if random.below(4) == 0 {
            json.insert("maxLobSize".into(), 4.into());
        }
        let rules: Vec<_> = (0..random.below(4)).map(|_| rule(random)).collect();
        let events = random.below(3) == 0;
        let view = match random.below(3) {
            0 => json!({ "view": "append" }),
            declared => orders(declared == 1),
        };
        let quality = ["exactlyOnce", "atLeastOnce", "atMostOnce"][draw(random, 3)];
        let buffer = [131_072, 1 << 20][draw(random, 2)];
        let mut config = json!({ "encoding": { "json": json }, "cloudEventsFormat": events, "qualityOfService": quality,
            "bufferSize": buffer, "x-syncgate": view });
        if !rules.is_empty() {
            config["rules"] = rules.into();
        }
        let mut shape = Self::new(name, config);
        shape.is_one_by_one = events && random.below(2) == 0;
        shape
    }

    fn json(&self, pointer: &str) -> &Value {
        let at = format!("/encoding/json{pointer}");
        self.config.pointer(&at).unwrap_or(&Value::Null)
    }

    fn is_on(&self, switch: &str) -> bool {
        self.json(&format!("/{switch}")) == &json!(true)
    }

    fn is_of_events(&self) -> bool {
        self.config["cloudEventsFormat"] == json!(true)
    }

    /// Under which name a metadata member that is on by default stands.
    fn meta_name(&self, field: &str, usual: &str) -> Option<String> {
        match self.json(&format!("/metaFields/{field}")) {
            Value::Null | Value::Bool(true) => Some(usual.into()),
            Value::String(name) => Some(name.clone()),
            _ => None,
        }
    }

    /// Whether images come as they are.
    fn shows_images(&self) -> bool {
        let turned = ["flatten", "treatAllColumnsAsStrings"];
        let is_plain = turned.iter().all(|switch| !self.is_on(switch));
        is_plain && self.json("/model") != "row" && self.json("/maxLobSize").is_null()
    }

    /// What must come of a record, as [`Connection::take`] tells it; nothing if a rule leaves it out.
    pub(super) fn expected(&self, held: &Held) -> Option<String> {
        let shown = self.shown(held);
        self.lets_through(&shown).then(|| {
            let label = label(self.json("/operationStrings"), shown.op);
            let mut row = match shown.table {
                // The rest of that row is about the record.
                APPEND => Map::from_iter([("DATA".into(), held.value.clone())]),
                _ => shown.row,
            };
            if self.is_on("omitNullColumnValues") {
                row.retain(|_, value| !value.is_null());
            }
            let row = self.shows_images().then(|| Value::from(row).to_string());
            let row = row.unwrap_or_default();
            format!("{} {label} {} {row}", held.xid, shown.table)
        })
    }

    /// Whether a change of the stream itself is told.
    fn tells_of_the_stream(&self) -> bool {
        self.lets_through(&Shown {
            table: APPEND,
            op: "DDL",
            image: "",
            row: Map::new(),
            headers: &Value::Null,
        })
    }

    fn shown<'a>(&self, held: &'a Held) -> Shown<'a> {
        if let Some((op, image, row)) = self.order(&held.value) {
            return Shown {
                table: ORDERS,
                op,
                image,
                row,
                headers: &held.headers,
            };
        }
        let key = match held.key.as_str() {
            "" => Value::Null,
            key => key.into(),
        };
        let row = [("KEY", key), ("DATA", held.value.clone())];
        Shown {
            table: APPEND,
            op: "INSERT",
            image: "after",
            row: row
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
            headers: &held.headers,
        }
    }

    fn order(&self, value: &Value) -> Option<(&'static str, &'static str, Map<String, Value>)> {
        let objects = self.config["x-syncgate"]["objects"].as_array()?;
        let declared = !objects[0]["columns"].is_null();
        let url = value["targetRestApi"].as_str()?;
        let path = url.strip_prefix("http://127.0.0.1:")?.split_once('/')?.1;
        let op = match value["targetRestApiOperation"].as_str()? {
            "POST" => "INSERT",
            "PUT" => "UPSERT",
            "PATCH" => "UPDATE",
            "DELETE" => "DELETE",
            _ => return None,
        };
        let mut row = Map::new();
        if let Some(n) = path.strip_prefix("orders/") {
            let n = match declared {
                true => json!(n.parse::<u32>().unwrap()),
                false => json!(n),
            };
            row.insert("n".into(), n);
        } else if path != "orders" {
            return None;
        }
        row.extend(value["targetRestApiPayload"].as_object()?.clone());
        if declared && row.get("n").is_some_and(|n| !n.is_number()) {
            return None;
        }
        if op == "DELETE" {
            row.retain(|name, _| name == "n");
            return Some((op, "before", row));
        }
        Some((op, "after", row))
    }

    fn lets_through(&self, shown: &Shown<'_>) -> bool {
        let Some(rules) = self.config["rules"].as_array() else {
            return true;
        };
        let first = rules.iter().find(|rule| fits(&rule["filter"], shown));
        match first {
            Some(rule) => rule["action"] == "include",
            None => rules.iter().all(|rule| rule["action"] == "exclude"),
        }
    }
}

fn draw(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).unwrap()
}

fn orders(declared: bool) -> Value {
    let mut first =
        json!({ "object": ORDERS, "url": "http://127.0.0.1:*/orders/{n}", "keys": [ "n" ] });
    if declared {
        first["columns"] = json!({ "n": { "type": "number" } });
    }
    json!({ "view": "operations", "objects": [ first, { "object": ORDERS, "url": "http://127.0.0.1:*/orders" } ] })
}

fn label(labels: &Value, op: &str) -> String {
    let mut labels = labels.as_object().into_iter().flatten();
    let label = labels.find(|(word, _)| word.eq_ignore_ascii_case(op));
    label
        .map_or(op, |(_, label)| label.as_str().unwrap())
        .into()
}

fn rule(random: &mut Random) -> Value {
    let mut filter = Map::new();
    while filter.is_empty() {
        if random.below(3) == 0 {
            let names = ["SYNCGATE.*", "SHOP.ORD*", "*.ORDERS", "*", "*.*.*"];
            filter.insert("objectNames".into(), json!([names[draw(random, 5)]]));
        }
        if random.below(3) == 0 {
            let types = ["DML", "DDL", "INSERT", "UPDATE", "UPSERT", "DELETE"];
            let types = [types[draw(random, 6)], types[draw(random, 6)]];
            filter.insert("objectTypes".into(), json!(types));
        }
        if random.below(2) == 0 {
            let operator = ["LT", "GT", "EQ", "LE", "GE", "NE"][draw(random, 6)];
            let mut entry = match random.below(4) {
                0 => json!({ "column": "KEY", "value": format!("k{}", random.below(40)) }),
                1 => {
                    json!({ "column": "DATA", "pointer": "/targetRestApiPayload/n", "value": random.below(1000) })
                }
                2 => json!({ "column": "n", "image": "before", "value": random.below(1000) }),
                _ => json!({ "object": "SHOP.*", "column": "n", "value": random.below(1000) }),
            };
            entry["operator"] = operator.into();
            filter.insert("columnValues".into(), json!([entry]));
        }
        if random.below(3) == 0 {
            let tag = [
                json!({ "name": "traceparent" }),
                json!({ "name": "traceparent", "value": "00-a*" }),
                json!({ "name": "target", "value": "*:9" }),
                json!({ "name": "cause-status" }),
            ];
            filter.insert("tags".into(), json!([tag[draw(random, 4)]]));
        }
    }
    filter.insert("relation".into(), ["AND", "OR"][draw(random, 2)].into());
    filter.insert("negate".into(), (random.below(4) == 0).into());
    let action = ["exclude", "exclude", "include"][draw(random, 3)];
    json!({ "action": action, "filter": filter })
}

fn fits(filter: &Value, shown: &Shown<'_>) -> bool {
    let entries = |kind: &str| filter[kind].as_array();
    let mut kinds = Vec::new();
    if let Some(names) = entries("objectNames") {
        kinds.push(names.iter().any(|name| name_fits(name, shown.table)));
    }
    if let Some(types) = entries("objectTypes") {
        kinds.push(types.iter().any(|kind| match kind.as_str().unwrap() {
            "DML" => shown.op != "DDL",
            kind => kind == shown.op,
        }));
    }
    if let Some(values) = entries("columnValues") {
        kinds.push(values.iter().any(|value| value_fits(value, shown)));
    }
    if let Some(tags) = entries("tags") {
        kinds.push(tags.iter().any(|tag| {
            let header = shown.headers.get(tag["name"].as_str().unwrap());
            header.is_some_and(|header| match tag["value"].as_str() {
                Some(pattern) => star_fits(pattern, header.as_str().unwrap()),
                None => true,
            })
        }));
    }
    let fits = match filter["relation"] == "OR" {
        true => kinds.contains(&true),
        false => !kinds.contains(&false),
    };
    fits != (filter["negate"] == json!(true))
}

fn name_fits(pattern: &Value, name: &str) -> bool {
    let pattern = pattern.as_str().unwrap();
    let parts = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (patterns, names) = (parts(pattern), parts(name));
    let mut both = patterns.iter().zip(&names);
    pattern == "*"
        || patterns.len() == names.len() && both.all(|(pattern, name)| star_fits(pattern, name))
}

/// Patterns here have one star at most.
fn star_fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => {
            text.len() >= begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end)
        }
        None => pattern == text,
    }
}

fn value_fits(entry: &Value, shown: &Shown<'_>) -> bool {
    let object = &entry["object"];
    let image = entry["image"].as_str().unwrap_or("after");
    let column = shown.row.get(entry["column"].as_str().unwrap());
    let pointer = entry["pointer"].as_str().unwrap_or_default();
    let value = column.and_then(|column| column.pointer(pointer));
    let ordering = match (value, &entry["value"]) {
        (Some(Value::Number(a)), Value::Number(b)) => Some(a.as_i64().cmp(&b.as_i64())),
        (Some(Value::String(a)), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    let told = ordering.is_some_and(|ordering| match entry["operator"].as_str().unwrap() {
        "LT" => ordering.is_lt(),
        "GT" => ordering.is_gt(),
        "EQ" => ordering.is_eq(),
        "LE" => ordering.is_le(),
        "GE" => ordering.is_ge(),
        _ => ordering.is_ne(),
    });
    told && image == shown.image && (object.is_null() || name_fits(object, shown.table))
}

/// What a client has learnt in all its lives: schemas by id, and the bytes of each record.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    schemas: HashMap<String, (Value, Arc<Validator>)>,
    records: HashMap<String, u64>,
}

/// What came on one connection: each record is held against the schema that was sent before it.
pub(super) struct Connection<'a> {
    shape: &'a Shape,
    learnt: &'a mut Learnt,
    schemas: HashMap<String, Arc<Validator>>,
}

/// A data record.
pub(super) struct Taken {
    pub(super) pos: String,
    /// Of an event of the stream itself its `xid`, of another record what [`Shape::expected`] says.
    pub(super) line: String,
}

impl<'a> Connection<'a> {
    pub(super) fn new(shape: &'a Shape, learnt: &'a mut Learnt) -> Self {
        Self {
            shape,
            learnt,
            schemas: HashMap::new(),
        }
    }

    /// Takes a record; nothing if it is none of the data.
    pub(super) fn take(&mut self, sent: &Value) -> Option<Taken> {
        let record = match self.shape.is_of_events() {
            true => &sent["data"],
            false => sent,
        };
        let name = |field, usual: &str| self.shape.meta_name(field, usual);
        let kind = name("opType", "op_type").unwrap_or_else(|| "op_type".into());
        if record.get("$schema").is_some() && record.get(&kind).is_none() {
            self.learn(record);
            return None;
        }
        match record[&kind].as_str() {
            Some("STREAM_METADATA") => self.check("stream-metadata", record),
            Some("OBJECT_METADATA") => self.check("object-metadata", record),
            _ => return Some(self.data(sent, record, &kind)),
        }
        None
    }

    fn data(&mut self, sent: &Value, record: &Value, kind: &str) -> Taken {
        let name = |field, usual| self.shape.meta_name(field, usual);
        let text = |name: Option<String>| {
            let value = name.map(|name| record[&name].as_str());
            value.map(|value| value.unwrap_or_else(|| panic!("{record}")).to_owned())
        };
        let xid = text(name("xid", "xid")).unwrap();
        let table = text(name("qualifiedTable", "qual_table")).unwrap();
        let pos = text(name("pos", "pos"));
        let op = record[kind].as_str().unwrap();
        if self.shape.is_of_events() {
            let source = format!("/services/v2/stream/{}", self.shape.name);
            assert_eq!(
                (&sent["source"], &sent["subject"]),
                (&json!(source), &json!(table))
            );
            assert!(pos.as_ref().is_none_or(|pos| sent["id"] == **pos), "{sent}");
        }
        let pos = pos.unwrap_or_else(|| sent["id"].as_str().unwrap().to_owned());
        let mut hasher = DefaultHasher::new();
        record.to_string().hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.learnt.records.insert(xid.clone(), hash);
        assert!(known.is_none_or(|known| known == hash), "another {record}");
        if xid.starts_with("ddl.") {
            self.check("ddl", record);
            assert!(self.shape.tells_of_the_stream(), "{record}");
            return Taken { pos, line: xid };
        }
        self.check(&format!("dml:{table}"), record);
        let images = [("beforeImageName", "before"), ("afterImageName", "after")];
        let images = images.map(|(member, usual)| {
            let name = self.shape.json(&format!("/{member}"));
            record.get(name.as_str().unwrap_or(usual))
        });
        let row = images.into_iter().flatten().next();
        let row = match (row, table.as_str()) {
            _ if !self.shape.shows_images() => String::new(),
            (None, _) => json!({}).to_string(),
            (Some(row), APPEND) => json!({ "DATA": row["DATA"] }).to_string(),
            (Some(row), _) => row.to_string(),
        };
        let line = format!("{xid} {op} {table} {row}");
        Taken { pos, line }
    }

    fn learn(&mut self, schema: &Value) {
        let id = schema["id"].as_str().unwrap();
        let (kind, _digest) = id.rsplit_once(':').unwrap();
        let kind = kind.strip_prefix("urn:syncgate:schema:").unwrap();
        let known = self.learnt.schemas.entry(id.into()).or_insert_with(|| {
            let validator = jsonschema::draft4::new(schema).unwrap();
            (schema.clone(), Arc::new(validator))
        });
        assert_eq!(known.0, *schema, "one id, one content");
        self.schemas.insert(kind.into(), known.1.clone());
    }

    #[track_caller]
    fn check(&self, kind: &str, record: &Value) {
        let schema = self.schemas.get(kind);
        let schema = schema.unwrap_or_else(|| panic!("no schema {kind} came before {record}"));
        if let Err(error) = schema.validate(record) {
            panic!("{}: {error}: {record}", self.shape.name);
        }
    }
}
