//! What a record of the stream is shown as: itself, or a change of the object that its URL names.

use std::sync::Arc;

/// What a record of the stream is shown as.
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
    /// Which `targetRestApi` means it.
    pub url: UrlPattern,
    /// Names of the columns that tell one row from another.
    pub keys: Arc<[String]>,
    /// The columns that are declared.
    pub columns: Arc<[Column]>,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: ColumnType,
}

/// What the values of a column are.
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

/// Name of an object: two or three parts of `[A-Za-z][A-Za-z0-9_$]*` joined by dots; case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName(pub(super) Arc<str>);

impl ObjectName {
    /// Returns the whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns catalog, if there is one, schema and table.
    #[must_use]
    pub fn parts(&self) -> (Option<&str>, &str, &str) {
        let (schema, table) = self.0.rsplit_once('.').unwrap_or(("", &self.0));
        match schema.split_once('.') {
            Some((catalog, schema)) => (Some(catalog), schema, table),
            None => (None, schema, table),
        }
    }
}

/// A URL in which `*` is any run of characters without `/` and `{name}` is one segment that becomes a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern {
    /// The text as it was given.
    pub(super) text: String,
}
