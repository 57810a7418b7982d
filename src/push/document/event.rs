//! Schemas of CloudEvents, for streams that send them.

use crate::push::json::Json;

/// Returns the schema of the event around a record.
///
/// `kinds` are the words of its type. `subject` is the schema of the attribute, if events have it. Data records have
/// a time, and may have both attributes of their record.
pub(super) fn schema(
    prefix: &str,
    kinds: &[&str],
    subject: Option<Json>,
    is_data: bool,
    record: Json,
) -> Json {
    let text = || Json::object([("type", "string".into())]);
    let one_of = |values: Vec<&str>| Json::object([("enum", Json::array(values))]);
    let types: Vec<_> = kinds
        .iter()
        .map(|kind| format!("{prefix}.{kind}.v1"))
        .collect();
    let types = types.iter().map(String::as_str).collect();
    let mut properties = vec![
        ("specversion", one_of(vec!["1.0"])),
        ("type", one_of(types)),
        ("source", text()),
        ("id", text()),
        ("datacontenttype", one_of(vec!["application/json"])),
        ("data", record),
    ];
    if is_data {
        properties.push(("time", text()));
    }
    let required: Vec<_> = properties.iter().map(|(name, _)| *name).collect();
    properties.extend(subject.map(|subject| ("subject", subject)));
    if is_data {
        properties.extend([("partitionkey", text()), ("traceparent", text())]);
    }
    let properties = properties.into_iter();
    let properties = properties.map(|(name, schema)| (name.to_owned(), schema));
    Json::object([
        (
            "title",
            (&*format!("Event with: {}", kinds.join(", "))).into(),
        ),
        ("type", "object".into()),
        ("properties", Json::Object(properties.collect())),
        ("required", Json::array(required)),
        ("additionalProperties", false.into()),
    ])
}
