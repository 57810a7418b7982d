//! `encoding`, which is `"json"` or `{"json": {…}}`.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::{
    json::{
        faults::{Faults, FieldCode, fault, pointer_to},
        object::Object,
        scan::{self, Members},
    },
    push::resource::{
        COLUMNS, DDL, Encoding, Image, MetaField, MetaFields, Model, OperationStrings, Scalar,
        TRUNCATED,
    },
};

use super::{BYTES_OF_FRAME, member};

const MEMBERS: [&str; 19] = [
    "$schema",
    "model",
    "beforeImageName",
    "afterImageName",
    "omitNullColumnValues",
    "treatAllColumnsAsStrings",
    "flatten",
    "flattenDelimiter",
    "delimiter",
    "staticFields",
    "operationStrings",
    "includeJSONSchemaRecord",
    "includeObjectMetadataRecords",
    "includeStreamMetadataRecord",
    "metaFields",
    "maxLobSize",
    "maxDDLTextSize",
    "maxRecordSize",
    "truncateOrChunk",
];
const STATIC_FIELDS_LEN_MAX: usize = 32;
const NAME_LEN_MAX: usize = 64;

/// Reads `encoding`.
pub(super) fn read(object: &Object<'_>, faults: &mut Faults) -> Encoding {
    let Some(value) = object.get("encoding") else {
        return Encoding::default();
    };
    let at = object.pointer("encoding");
    if !value.get().starts_with('{') {
        if scan::string(value).as_deref() != Some("json") {
            let what = "this must be \"json\" or an object such as {\"json\": {\"model\": \"op\"}}";
            fault(faults, &at, FieldCode::WrongType, what);
        }
        return Encoding::default();
    }
    let Some(outer) = Object::parse(value.get(), at, &["json"], faults) else {
        return Encoding::default();
    };
    let Some(value) = outer.required("json", faults) else {
        return Encoding::default();
    };
    match Object::parse(value.get(), outer.pointer("json"), &MEMBERS, faults) {
        Some(json) => encoding(&json, faults),
        None => Encoding::default(),
    }
}

fn encoding(json: &Object<'_>, faults: &mut Faults) -> Encoding {
    let usual = Encoding::default();
    member::constant(json, "$schema", "ogg:outputFormatJson", faults);
    let model = member::word(json, "model", &Model::WORDS, faults).unwrap_or_default();
    let before = member::text(json, "beforeImageName", 1..=32, faults);
    let after = member::text(json, "afterImageName", 1..=32, faults);
    let flatten = json.flag("flatten", faults);
    let between = member::text(json, "flattenDelimiter", 0..=32, faults);
    constants(json, faults);
    let most = u64::from(u32::MAX);
    let lob = member::whole(json, "maxLobSize", 1..=u64::MAX, faults);
    let ddl = member::whole(json, "maxDDLTextSize", 1..=most, faults);
    let record = member::whole(json, "maxRecordSize", BYTES_OF_FRAME, faults);
    let encoding = Encoding {
        model,
        before_image_name: before.unwrap_or(usual.before_image_name),
        after_image_name: after.unwrap_or(usual.after_image_name),
        omit_null_column_values: json.flag("omitNullColumnValues", faults),
        treat_all_columns_as_strings: json.flag("treatAllColumnsAsStrings", faults),
        flatten,
        flatten_delimiter: between.unwrap_or(usual.flatten_delimiter),
        static_fields: static_fields(json, faults),
        operation_strings: operation_strings(json, faults),
        include_json_schema_record: json.flag_or("includeJSONSchemaRecord", true, faults),
        include_object_metadata_records: json.flag_or("includeObjectMetadataRecords", true, faults),
        include_stream_metadata_record: json.flag_or("includeStreamMetadataRecord", true, faults),
        meta_fields: meta_fields(json, faults),
        max_lob_size: lob.unwrap_or(usual.max_lob_size),
        max_ddl_text_size: ddl.map_or(usual.max_ddl_text_size, member::narrow),
        max_record_size: record.map_or(usual.max_record_size, member::narrow),
    };
    clashes(json, &encoding, faults);
    encoding
}

/// Reads the members that have one legal value.
fn constants(json: &Object<'_>, faults: &mut Faults) {
    let delimiter = json.get("delimiter").map(scan::string);
    if delimiter.is_some_and(|text| text.as_deref() != Some("")) {
        let what = "this must be \"\" or absent: the records of a frame are an array";
        json.wrong("delimiter", what, faults);
    }
    let value = json.get("truncateOrChunk").map(scan::string);
    if value.is_some_and(|text| text.as_deref() != Some("truncate")) {
        let what = "this must be \"truncate\" or absent: records are not sent in parts";
        json.wrong("truncateOrChunk", what, faults);
    }
}

fn static_fields(json: &Object<'_>, faults: &mut Faults) -> Vec<(String, Scalar)> {
    let at = json.pointer("staticFields");
    let mut fields: Vec<(String, Scalar)> = Vec::new();
    let members = json
        .get("staticFields")
        .map(|value| Members::parse(value.get()));
    let members = match members {
        None => return fields,
        Some(None) => {
            json.wrong("staticFields", "this must be a JSON object", faults);
            return fields;
        }
        Some(Some(Members(members))) => members,
    };
    if members.len() > STATIC_FIELDS_LEN_MAX {
        let what = format!("this has at most {STATIC_FIELDS_LEN_MAX} members");
        fault(faults, &at, FieldCode::TooLong, &what);
        return fields;
    }
    for (name, value) in members {
        let at = pointer_to(&at, &name);
        let what = match Scalar::of(value) {
            None => "this must be a string, a number, true, false or null".into(),
            Some(_) if !(1..=NAME_LEN_MAX).contains(&name.chars().count()) => {
                format!("the name of a member has 1 to {NAME_LEN_MAX} characters")
            }
            Some(_) if fields.iter().any(|(other, _)| *other == name) => {
                "the member is there more than once".into()
            }
            Some(value) => {
                fields.push((name.into_owned(), value));
                continue;
            }
        };
        fault(faults, &at, FieldCode::WrongType, &what);
    }
    fields
}

fn operation_strings(json: &Object<'_>, faults: &mut Faults) -> OperationStrings {
    let mut strings = OperationStrings::default();
    let Some(value) = json.get("operationStrings") else {
        return strings;
    };
    let at = json.pointer("operationStrings");
    let Some(Members(members)) = Members::parse(value.get()) else {
        fault(
            faults,
            &at,
            FieldCode::WrongType,
            "this must be a JSON object",
        );
        return strings;
    };
    let words = strings.labels().map(|(word, _)| word);
    let mut seen = Vec::new();
    for (name, value) in members {
        let at = pointer_to(&at, &name);
        let Some(label) = strings.label_mut(&name) else {
            let what = format!("the members are {}, in any case", words.join(", "));
            fault(faults, &at, FieldCode::UnknownMember, &what);
            continue;
        };
        if seen.contains(&name.to_ascii_uppercase()) {
            let what = "the word is there more than once";
            fault(faults, &at, FieldCode::WrongType, what);
        }
        seen.push(name.to_ascii_uppercase());
        if let Some(text) = member::text_at(value, &at, 1..=32, faults) {
            *label = text;
        }
    }
    // Words of metadata records cannot be relabelled.
    let mut taken = vec!["STREAM_METADATA", "OBJECT_METADATA"];
    for (word, label) in strings.labels() {
        if taken.contains(&label) {
            let what = format!("the label of {word} is that of another kind of record too");
            fault(faults, &at, FieldCode::WrongType, &what);
        }
        taken.push(label);
    }
    strings
}

fn meta_fields(json: &Object<'_>, faults: &mut Faults) -> MetaFields {
    let mut fields = MetaFields::default();
    let Some(value) = json.get("metaFields") else {
        return fields;
    };
    let mut known = MetaField::ALL.map(MetaField::key).to_vec();
    known.extend(["env", "sys"]);
    let at = json.pointer("metaFields");
    let Some(meta) = Object::parse(value.get(), at, &known, faults) else {
        return fields;
    };
    for field in MetaField::ALL {
        if let Some(value) = meta.get(field.key()) {
            fields.0[field as usize] = meta_field(&meta, field, value, faults);
        }
    }
    for name in ["env", "sys"] {
        let value = meta.get(name).map(RawValue::get);
        if !matches!(value, None | Some("null" | "false")) {
            let what = "this must be false, null or absent: it would show the host's environment";
            meta.wrong(name, what, faults);
        }
    }
    fields
}

fn meta_field(
    meta: &Object<'_>,
    field: MetaField,
    value: &RawValue,
    faults: &mut Faults,
) -> Option<String> {
    let at = meta.pointer(field.key());
    match value.get().as_bytes() {
        b"true" => Some(field.default_name().into()),
        b"false" | b"null" => None,
        [b'"', ..] => member::text_at(value, &at, 1..=NAME_LEN_MAX, faults),
        [b'{', ..] => {
            let object = Object::parse(value.get(), at, &["name"], faults)?;
            object.required("name", faults);
            member::text(&object, "name", 1..=NAME_LEN_MAX, faults)
        }
        _ => {
            let what = "this must be true, false, null, a name, or {\"name\": …}";
            fault(faults, &at, FieldCode::WrongType, what);
            None
        }
    }
}

/// Notes names that two members of one record would share.
fn clashes(json: &Object<'_>, encoding: &Encoding, faults: &mut Faults) {
    let images = [Image::Before, Image::After].map(|image| encoding.image_name(image));
    let mut taken: HashMap<&str, &str> = HashMap::new();
    for name in ["before", "after", DDL, COLUMNS, TRUNCATED] {
        taken.insert(name, "a member that every stream has");
    }
    for (key, name) in ["beforeImageName", "afterImageName"]
        .into_iter()
        .zip(images)
    {
        if images[0] == images[1] || [DDL, COLUMNS, TRUNCATED].contains(&name) {
            let what = "this must be another name than those of the other image, ddl, columns and truncated";
            json.wrong(key, what, faults);
        }
    }
    for name in images {
        taken.insert(name, "an image");
    }
    let at = json.pointer("staticFields");
    for (name, _) in &encoding.static_fields {
        if let Some(whose) = taken.insert(name, "a static field") {
            let what = format!("this is the name of {whose}");
            fault(faults, &pointer_to(&at, name), FieldCode::WrongType, &what);
        }
    }
    let at = json.pointer("metaFields");
    for field in MetaField::ALL {
        let Some(name) = encoding.meta_fields.name(field) else {
            continue;
        };
        if let Some(whose) = taken.insert(name, "another metadata member") {
            let what = format!("its name is that of {whose}");
            fault(
                faults,
                &pointer_to(&at, field.key()),
                FieldCode::WrongType,
                &what,
            );
        }
    }
    let (kind, object) = encoding.metadata_names();
    if kind == object || ["producer", "database", "machine", "source"].contains(&kind) {
        let what = "its name is that of another member of metadata records";
        fault(
            faults,
            &pointer_to(&at, "opType"),
            FieldCode::WrongType,
            what,
        );
    }
    let [before, after] = images.map(|name| format!("{name}{}", encoding.flatten_delimiter));
    if encoding.flatten && (before.starts_with(&after) || after.starts_with(&before)) {
        let what = "with this, columns of the two images can have the same name";
        json.wrong("flattenDelimiter", what, faults);
    }
}
