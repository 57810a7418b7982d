//! `rules`.

use serde_json::value::RawValue;

use crate::{
    json::{
        faults::{Faults, FieldCode, fault},
        object::Object,
        scan,
    },
    model::record::header,
    push::resource::{
        Action, ColumnValue, Filter, Image, ObjectType, Operator, Relation, Rule, Scalar, Tag,
    },
};

use super::member::{self, ENTRIES_LEN_MAX};

const POINTER_BYTES_MAX: usize = 1024;

/// Reads `rules`.
pub(super) fn read(object: &Object<'_>, faults: &mut Faults) -> Vec<Rule> {
    let entries = member::entries(object, "rules", 1..=ENTRIES_LEN_MAX, faults);
    let rules = entries.into_iter();
    rules
        .filter_map(|(at, value)| rule(value, at, faults))
        .collect()
}

fn rule(value: &RawValue, at: String, faults: &mut Faults) -> Option<Rule> {
    let rule = Object::parse(value.get(), at, &["name", "action", "filter"], faults)?;
    let name = member::text(&rule, "name", 1..=255, faults);
    rule.required("action", faults);
    let action = member::word(&rule, "action", &Action::WORDS, faults);
    let value = rule.required("filter", faults);
    let filter = value.and_then(|value| filter(value, rule.pointer("filter"), faults));
    Some(Rule {
        name,
        action: action?,
        filter: filter?,
    })
}

fn filter(value: &RawValue, at: String, faults: &mut Faults) -> Option<Filter> {
    let known = [
        "relation",
        "negate",
        "objectNames",
        "objectTypes",
        "operationTypes",
        "columnValues",
        "tags",
    ];
    let filter = Object::parse(value.get(), at.clone(), &known, faults)?;
    let kinds = &known[2..];
    if kinds.iter().all(|kind| filter.get(kind).is_none()) {
        let what = format!("a filter has at least one of {}", kinds.join(", "));
        fault(faults, &at, FieldCode::Required, &what);
    }
    let of_types = match (filter.get("objectTypes"), filter.get("operationTypes")) {
        (Some(_), Some(_)) => {
            let what = "this is another word for objectTypes: only one of them can be there";
            filter.wrong("operationTypes", what, faults);
            "objectTypes"
        }
        (None, Some(_)) => "operationTypes",
        _ => "objectTypes",
    };
    let relation = member::word(&filter, "relation", &Relation::WORDS, faults);
    let negate = filter.flag("negate", faults);
    let entries = |name: &str, faults: &mut Faults| {
        member::entries(&filter, name, 1..=ENTRIES_LEN_MAX, faults).into_iter()
    };
    let names = entries("objectNames", faults);
    let names = names.filter_map(|(at, value)| member::parsed_at(value, &at, faults));
    let object_names = names.collect();
    let types = entries(of_types, faults);
    let words = &ObjectType::WORDS;
    let types = types.filter_map(|(at, value)| member::word_at(value, &at, words, faults));
    let object_types = types.collect();
    let values = entries("columnValues", faults);
    let values = values.filter_map(|(at, value)| column_value(value, at, faults));
    let column_values = values.collect();
    let tags = entries("tags", faults);
    let tags = tags
        .filter_map(|(at, value)| tag(value, at, faults))
        .collect();
    Some(Filter {
        relation: relation.unwrap_or_default(),
        negate,
        object_names,
        object_types,
        column_values,
        tags,
    })
}

fn column_value(value: &RawValue, at: String, faults: &mut Faults) -> Option<ColumnValue> {
    let known = ["object", "column", "pointer", "image", "operator", "value"];
    let entry = Object::parse(value.get(), at, &known, faults)?;
    let object = member::parsed(&entry, "object", faults);
    entry.required("column", faults);
    let column = member::text(&entry, "column", 1..=member::COLUMN_LEN_MAX, faults);
    let pointer = entry.get("pointer").and_then(|value| {
        let steps = scan::string(value).and_then(|text| steps(&text));
        if steps.is_none() {
            let what = format!(
                "this must be a JSON pointer such as /targetRestApiPayload/qty, of at most {POINTER_BYTES_MAX} bytes"
            );
            entry.wrong("pointer", &what, faults);
        }
        steps
    });
    let image = member::word(&entry, "image", &Image::WORDS, faults);
    entry.required("operator", faults);
    let operator = member::word(&entry, "operator", &Operator::WORDS, faults);
    let value = entry.required("value", faults)?;
    let Some(value) = Scalar::of(value) else {
        let what = "this must be a string, a number, true, false or null";
        entry.wrong("value", what, faults);
        return None;
    };
    let has_order = matches!(value, Scalar::String(_) | Scalar::Number(_));
    if !has_order && !matches!(operator, None | Some(Operator::Eq | Operator::Ne)) {
        let what = "true, false and null are only EQ or NE";
        entry.wrong("operator", what, faults);
    }
    Some(ColumnValue {
        object,
        column: column?,
        pointer: pointer.unwrap_or_default(),
        image: image.unwrap_or_default(),
        operator: operator?,
        value,
    })
}

/// Returns the unescaped steps of a JSON pointer (RFC 6901); `None` if the text is no JSON pointer.
fn steps(pointer: &str) -> Option<Vec<String>> {
    let step = |step: &str| {
        let mut escapes = step.split('~').skip(1);
        let legal = escapes.all(|behind| behind.starts_with(['0', '1']));
        legal.then(|| step.replace("~1", "/").replace("~0", "~"))
    };
    match pointer.split_once('/') {
        _ if pointer.len() > POINTER_BYTES_MAX => None,
        None if pointer.is_empty() => Some(Vec::new()),
        Some(("", steps)) => steps.split('/').map(step).collect(),
        _ => None,
    }
}

fn tag(value: &RawValue, at: String, faults: &mut Faults) -> Option<Tag> {
    let tag = Object::parse(value.get(), at, &["name", "value"], faults)?;
    let value = tag.get("value");
    let value = value.and_then(|value| {
        let at = tag.pointer("value");
        member::text_at(value, &at, 0..=member::TAG_LEN_MAX, faults)
    });
    let name = tag.text("name", faults)?;
    // An unknown header is refused, because its rule would never fit, and an exclude would leave nothing out.
    let known = header::CODED.into_iter();
    let known: Vec<_> = known.filter(|name| *name != header::LAYOUT).collect();
    if !known.contains(&&*name) {
        let what = format!("the headers of records are {}", known.join(", "));
        tag.wrong("name", &what, faults);
    }
    Some(Tag {
        name: name.into_owned(),
        value,
    })
}
