//! Writes a configuration as JSON, with all defaults.

use std::collections::HashSet;

use crate::push::json::Json;

use super::{
    ColumnType, Encoding, Filter, MetaField, Model, ObjectType, ObjectView, QualityOfService,
    Relation, Resource, Rule, View, parse::SCHEMA,
};

impl Resource {
    /// Returns the configuration as JSON. [`Resource::parse`] reads it as an equal configuration. The order of
    /// members is fixed.
    ///
    /// Only the first entry of an object has keys and columns, so the text is about as long as the one that was
    /// parsed.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut members = vec![("$schema".to_owned(), SCHEMA.into())];
        let mut add = |name: &str, value: Json| members.push((name.into(), value));
        if let Some(description) = &self.description {
            add("description", (&**description).into());
        }
        add("source", Json::object([("trail", (&*self.trail).into())]));
        if !self.rules.is_empty() {
            add("rules", Json::array(self.rules.iter().map(rule)));
        }
        add(
            "encoding",
            Json::object([("json", encoding(&self.encoding))]),
        );
        add("bufferSize", u64::from(self.buffer_size).into());
        let words = &QualityOfService::WORDS;
        add("qualityOfService", word(&self.quality_of_service, words));
        add("cloudEventsFormat", self.cloud_events_format.into());
        let seconds = u64::from(self.tcp_keep_alive_seconds);
        add("tcpKeepAliveTimeout", seconds.into());
        add("x-syncgate", view(&self.view));
        Json::Object(members).text()
    }
}

fn word<T: PartialEq>(value: &T, words: &[(T, &str)]) -> Json {
    let word = words.iter().find(|(named, _)| named == value);
    word.map_or("", |(_, word)| word).into()
}

fn encoding(encoding: &Encoding) -> Json {
    let fixed = encoding.static_fields.iter();
    let fixed = fixed.map(|(name, value)| (name.clone(), value.clone().into()));
    let strings = encoding.operation_strings.labels();
    let meta = MetaField::ALL.map(|field| {
        let value = match encoding.meta_fields.name(field) {
            None => false.into(),
            Some(name) if name == field.default_name() => true.into(),
            Some(name) => name.into(),
        };
        (field.key(), value)
    });
    Json::object([
        ("model", word(&encoding.model, &Model::WORDS)),
        ("beforeImageName", (&*encoding.before_image_name).into()),
        ("afterImageName", (&*encoding.after_image_name).into()),
        (
            "omitNullColumnValues",
            encoding.omit_null_column_values.into(),
        ),
        (
            "treatAllColumnsAsStrings",
            encoding.treat_all_columns_as_strings.into(),
        ),
        ("flatten", encoding.flatten.into()),
        ("flattenDelimiter", (&*encoding.flatten_delimiter).into()),
        ("staticFields", Json::Object(fixed.collect())),
        (
            "operationStrings",
            Json::object(strings.map(|(name, label)| (name, label.into()))),
        ),
        (
            "includeJSONSchemaRecord",
            encoding.include_json_schema_record.into(),
        ),
        (
            "includeObjectMetadataRecords",
            encoding.include_object_metadata_records.into(),
        ),
        (
            "includeStreamMetadataRecord",
            encoding.include_stream_metadata_record.into(),
        ),
        ("metaFields", Json::object(meta)),
        ("maxLobSize", encoding.max_lob_size.into()),
        (
            "maxDDLTextSize",
            u64::from(encoding.max_ddl_text_size).into(),
        ),
        ("maxRecordSize", u64::from(encoding.max_record_size).into()),
        ("truncateOrChunk", "truncate".into()),
    ])
}

fn rule(rule: &Rule) -> Json {
    let name = rule
        .name
        .iter()
        .map(|name| ("name".to_owned(), (&**name).into()));
    let mut members: Vec<_> = name.collect();
    members.push(("action".into(), word(&rule.action, &super::Action::WORDS)));
    members.push(("filter".into(), filter(&rule.filter)));
    Json::Object(members)
}

fn filter(filter: &Filter) -> Json {
    let mut members = vec![
        (
            "relation".to_owned(),
            word(&filter.relation, &Relation::WORDS),
        ),
        ("negate".into(), filter.negate.into()),
    ];
    // A kind without entries would be refused.
    let mut add = |name: &str, entries: Vec<Json>| {
        if !entries.is_empty() {
            members.push((name.into(), Json::Array(entries)));
        }
    };
    let names = filter.object_names.iter();
    add(
        "objectNames",
        names.map(|name| name.as_str().into()).collect(),
    );
    let types = filter.object_types.iter();
    add(
        "objectTypes",
        types.map(|kind| word(kind, &ObjectType::WORDS)).collect(),
    );
    add(
        "columnValues",
        filter.column_values.iter().map(column_value).collect(),
    );
    let tags = filter.tags.iter().map(|tag| {
        let mut members = vec![("name".to_owned(), (&*tag.name).into())];
        members.extend(
            tag.value
                .iter()
                .map(|value| ("value".into(), (&**value).into())),
        );
        Json::Object(members)
    });
    add("tags", tags.collect());
    Json::Object(members)
}

fn column_value(entry: &super::ColumnValue) -> Json {
    let object = entry.object.iter();
    let mut members: Vec<_> = object
        .map(|name| ("object".to_owned(), name.as_str().into()))
        .collect();
    let steps = entry.pointer.iter();
    let steps = steps.map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")));
    members.extend([
        ("column".into(), (&*entry.column).into()),
        ("pointer".into(), (&*steps.collect::<String>()).into()),
        ("image".into(), word(&entry.image, &super::Image::WORDS)),
        (
            "operator".into(),
            word(&entry.operator, &super::Operator::WORDS),
        ),
        ("value".into(), entry.value.clone().into()),
    ]);
    Json::Object(members)
}

fn view(view: &View) -> Json {
    match view {
        View::Append => Json::object([("view", "append".into())]),
        View::Operations(entries) => {
            let mut seen = HashSet::new();
            let entries = entries
                .iter()
                .map(|entry| object(entry, seen.insert(&entry.object)));
            Json::object([
                ("view", "operations".into()),
                ("objects", Json::array(entries)),
            ])
        }
    }
}

fn object(entry: &ObjectView, is_first: bool) -> Json {
    let mut members = vec![
        ("object".to_owned(), entry.object.as_str().into()),
        ("url".into(), entry.url.as_str().into()),
    ];
    if is_first {
        let columns = entry.columns.iter().map(|column| {
            let kind = Json::object([("type", word(&column.kind, &ColumnType::WORDS))]);
            (column.name.clone(), kind)
        });
        members.push((
            "keys".into(),
            Json::array(entry.keys.iter().map(|key| &**key)),
        ));
        members.push(("columns".into(), Json::Object(columns.collect())));
    }
    Json::Object(members)
}
