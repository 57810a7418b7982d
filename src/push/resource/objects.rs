//! How a record is shown: as a row of the append table, or as a change of the object that its URL names.

use std::{collections::HashSet, sync::Arc};

use super::{ObjectName, UrlPattern};

/// How the records of a stream are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum View {
    /// Every record is an INSERT into the stream's own table.
    #[default]
    Append,
    /// A record whose URL fits one of these is a change of that object; any other is shown as in [`View::Append`].
    Operations(Vec<ObjectView>),
}

/// One entry of `x-syncgate.objects`; the entries of one object share `keys` and `columns`.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectView {
    /// The object that is changed.
    pub object: ObjectName,
    /// The URLs (`targetRestApi`) of the object.
    pub url: UrlPattern,
    /// Names of the columns that identify a row.
    pub keys: Arc<[String]>,
    /// The columns that are declared.
    pub columns: Arc<[Column]>,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Type of its values.
    pub kind: ColumnType,
}

/// The JSON type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of JSON Schema")]
pub enum ColumnType {
    String,
    Number,
    Integer,
    Boolean,
    Object,
    Array,
}

impl View {
    /// Returns the first entry of each object, in order.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectView> {
        let entries = match self {
            Self::Append => &[][..],
            Self::Operations(entries) => entries,
        };
        let mut seen = HashSet::new();
        entries
            .iter()
            .filter(move |entry| seen.insert(&entry.object))
    }
}

impl ColumnType {
    /// Each type and its word in JSON Schema.
    pub const WORDS: [(Self, &str); 6] = [
        (Self::String, "string"),
        (Self::Number, "number"),
        (Self::Integer, "integer"),
        (Self::Boolean, "boolean"),
        (Self::Object, "object"),
        (Self::Array, "array"),
    ];
}
