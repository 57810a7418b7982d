//! Schemas of data records: DML of each object, and DDL.

use crate::push::{
    json::Json,
    resource::{
        AppendColumn, ColumnType, DDL, Encoding, Image, MetaField, Model, ObjectName, Resource,
        TRUNCATED,
    },
};

use super::{Schema, map_of, one_of, reference, typed};

/// An object and its columns.
pub(super) struct Table {
    pub(super) name: ObjectName,
    pub(super) columns: Vec<TableColumn>,
    /// Rows may have more columns than these.
    pub(super) is_open: bool,
}

/// A column, for schema and metadata.
pub(super) struct TableColumn {
    pub(super) name: String,
    /// Type in OBJECT_METADATA.
    pub(super) primitive: &'static str,
    /// JSON Schema types without null; empty for any type, `None` for a key without a declaration.
    pub(super) types: Option<&'static [&'static str]>,
    /// `nullable` in OBJECT_METADATA.
    pub(super) nullable: bool,
    /// Whether null is written, unless nulls are left out.
    pub(super) has_null: bool,
    pub(super) is_key: bool,
}

/// Returns the append table, then the objects in the order of the configuration.
pub(super) fn tables(resource: &Resource, append: &ObjectName) -> Vec<Table> {
    let objects = resource.view.objects().map(|entry| {
        let declared = entry.columns.iter().map(|column| {
            let is_key = entry.keys.contains(&column.name);
            TableColumn {
                name: column.name.clone(),
                primitive: column.kind.primitive(),
                types: Some(types_of(column.kind)),
                nullable: !is_key,
                has_null: !is_key,
                is_key,
            }
        });
        let is_declared = |key: &String| entry.columns.iter().any(|column| column.name == *key);
        let keys = entry.keys.iter().filter(|key| !is_declared(key));
        let keys = keys.map(|key| TableColumn {
            name: key.clone(),
            primitive: ColumnType::String.primitive(),
            types: None,
            nullable: false,
            has_null: false,
            is_key: true,
        });
        Table {
            name: entry.object.clone(),
            columns: declared.chain(keys).collect(),
            is_open: true,
        }
    });
    let append = Table {
        name: append.clone(),
        columns: AppendColumn::ALL.map(append_column).into(),
        is_open: false,
    };
    std::iter::once(append).chain(objects).collect()
}

fn append_column(column: AppendColumn) -> TableColumn {
    let (primitive, types, nullable): (_, &'static [_], _) = match column {
        AppendColumn::Partition | AppendColumn::Ts => ("string", &["string"], false),
        AppendColumn::Offset => ("number", &["integer"], false),
        AppendColumn::Key | AppendColumn::DataBase64 => ("string", &["string"], true),
        AppendColumn::Data => ("object", &[], true),
        AppendColumn::Headers => ("object", &["object"], false),
    };
    TableColumn {
        name: column.name().into(),
        primitive,
        types: Some(types),
        nullable,
        // A row has either this column or DATA. So the column is nullable in the table, but null is never written.
        has_null: nullable && column != AppendColumn::DataBase64,
        is_key: AppendColumn::KEYS.contains(&column),
    }
}

/// A value that is cut becomes a string.
fn types_of(kind: ColumnType) -> &'static [&'static str] {
    match kind {
        ColumnType::String => &["string"],
        ColumnType::Number => &["number"],
        ColumnType::Integer => &["integer"],
        ColumnType::Boolean => &["boolean"],
        ColumnType::Object => &["object", "string"],
        ColumnType::Array => &["array", "string"],
    }
}

/// Returns the schema of a column's values, as they are written.
fn column_schema(encoding: &Encoding, column: &TableColumn, types: &[&'static str]) -> Json {
    let is = |named: AppendColumn| column.name == named.name();
    let has_null = column.has_null && !encoding.omit_null_column_values;
    let mut types = match (encoding.treat_all_columns_as_strings, types) {
        (true, _) => vec!["string"],
        (false, []) if has_null => vec![],
        (false, []) => vec!["array", "boolean", "number", "object", "string"],
        (false, types) => types.to_vec(),
    };
    if has_null && !types.is_empty() {
        types.push("null");
    }
    match types[..] {
        ["object"] if is(AppendColumn::Headers) => map_of(typed(&["string"])),
        _ => typed(&types),
    }
}

/// Returns the schema of an object's DML records.
pub(super) fn dml(encoding: &Encoding, table: &Table) -> Schema {
    let labels = encoding.operation_strings.labels();
    let labels = labels.into_iter().filter(|(word, _)| *word != "DDL");
    let labels: Vec<_> = labels.map(|(_, label)| label).collect();
    let (mut properties, required) = members(encoding, &table.name, &labels);
    let is_nested = encoding.model == Model::Op && !encoding.flatten;
    let images: &[_] = match encoding.model {
        Model::Op => &[Image::Before, Image::After],
        Model::Row => &[Image::After],
    };
    let row = is_nested.then(|| {
        Json::object([
            ("type", "object".into()),
            (
                "properties",
                Json::Object(columns(encoding, table, Image::After)),
            ),
            ("additionalProperties", table.is_open.into()),
        ])
    });
    for image in images {
        match is_nested {
            true => properties.push((encoding.image_name(*image).into(), reference())),
            false => properties.extend(columns(encoding, table, *image)),
        }
    }
    let truncated = Json::object([
        ("type", "object".into()),
        (
            "properties",
            Json::object([
                ("columns", array_of_strings()),
                ("bytes", typed(&["integer"])),
            ]),
        ),
        ("required", Json::array(["columns", "bytes"])),
    ]);
    properties.push((TRUNCATED.into(), truncated));
    Schema {
        kind: format!("dml:{}", table.name),
        title: format!("DML record of {}", table.name),
        row,
        properties,
        required,
        is_open: table.is_open && !is_nested,
    }
}

/// Returns the declared columns under their names in records.
fn columns(encoding: &Encoding, table: &Table, image: Image) -> Vec<(String, Json)> {
    let columns = table.columns.iter().filter_map(|column| {
        let name = encoding.column_name(image, &column.name).into_owned();
        Some((name, column_schema(encoding, column, column.types?)))
    });
    columns.collect()
}

/// Returns the schema of DDL records.
pub(super) fn ddl(encoding: &Encoding, append: &ObjectName) -> Schema {
    let label = &*encoding.operation_strings.ddl;
    let (mut properties, mut required) = members(encoding, append, &[label]);
    properties.push((DDL.into(), typed(&["string"])));
    required.push(DDL.into());
    Schema {
        kind: "ddl".into(),
        title: format!("DDL record of {append}"),
        row: None,
        properties,
        required,
        is_open: false,
    }
}

/// Returns the members that every data record of an object has.
fn members(
    encoding: &Encoding,
    object: &ObjectName,
    labels: &[&str],
) -> (Vec<(String, Json)>, Vec<String>) {
    let on = MetaField::ALL.into_iter().filter_map(|field| {
        let name = encoding.meta_fields.name(field)?;
        Some((name.to_owned(), meta(field, object, labels)))
    });
    let fixed = encoding.static_fields.iter();
    let fixed = fixed.map(|(name, value)| (name.clone(), one_of([value])));
    let members: Vec<_> = on.chain(fixed).collect();
    let names = members.iter().map(|(name, _)| name.clone()).collect();
    (members, names)
}

fn meta(field: MetaField, object: &ObjectName, labels: &[&str]) -> Json {
    match field {
        MetaField::QualifiedTable => one_of([object.as_str()]),
        MetaField::Catalog => typed(&["string", "null"]),
        MetaField::OpType => one_of(labels.iter().copied()),
        MetaField::TransInd => one_of(["only"]),
        MetaField::PrimaryKeys => array_of_strings(),
        MetaField::Tokens => map_of(typed(&["string"])),
        MetaField::OpTsMicroSecs | MetaField::CurrentTsMicroSecs | MetaField::OpSeqno => {
            typed(&["integer"])
        }
        MetaField::Schema
        | MetaField::Table
        | MetaField::OpTs
        | MetaField::CurrentTs
        | MetaField::Pos
        | MetaField::Xid
        | MetaField::Csn => typed(&["string"]),
    }
}

fn array_of_strings() -> Json {
    Json::object([("type", "array".into()), ("items", typed(&["string"]))])
}
