//! `rules`: which records are included or excluded.

use super::{ObjectPattern, Scalar, glob};

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// For people.
    pub name: Option<String>,
    /// What happens to a record that fits.
    pub action: Action,
    /// The records that fit.
    pub filter: Filter,
}

/// What happens to a record that fits a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is sent.
    Include,
    /// It is not sent.
    Exclude,
}

/// Selects records. Entries of one kind are alternatives; a kind without entries is ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// How the kinds are joined.
    pub relation: Relation,
    /// Inverts the whole filter.
    pub negate: bool,
    /// Names of objects.
    pub object_names: Vec<ObjectPattern>,
    /// Kinds of operation.
    pub object_types: Vec<ObjectType>,
    /// Values of columns.
    pub column_values: Vec<ColumnValue>,
    /// Headers of the record.
    pub tags: Vec<Tag>,
}

/// How the kinds of a filter are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relation {
    /// Every kind must fit.
    #[default]
    And,
    /// One kind must fit.
    Or,
}

/// A kind of operation, as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the protocol")]
pub enum ObjectType {
    Dml,
    Ddl,
    Insert,
    Update,
    Upsert,
    Delete,
    Truncate,
}

/// A comparison with the value of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnValue {
    /// Objects that have the column; all objects if absent.
    pub object: Option<ObjectPattern>,
    /// Name of the column.
    pub column: String,
    /// Pointer into the column's JSON value (RFC 6901), unescaped; empty for the whole value.
    pub pointer: Vec<String>,
    /// The image that is compared.
    pub image: Image,
    /// The comparison.
    pub operator: Operator,
    /// The value on the right of the comparison.
    pub value: Scalar,
}

/// An image of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the protocol")]
pub enum Image {
    Before,
    #[default]
    After,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the protocol")]
pub enum Operator {
    Lt,
    Gt,
    Eq,
    Le,
    Ge,
    Ne,
}

/// A header that the record must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Name of the header.
    pub name: String,
    /// Pattern of its value, `*` for any run of characters; any value if absent.
    pub value: Option<String>,
}

impl Action {
    pub(super) const WORDS: [(Self, &str); 2] =
        [(Self::Include, "include"), (Self::Exclude, "exclude")];
}

impl Relation {
    pub(super) const WORDS: [(Self, &str); 2] = [(Self::And, "AND"), (Self::Or, "OR")];
}

impl ObjectType {
    pub(super) const WORDS: [(Self, &str); 7] = [
        (Self::Dml, "DML"),
        (Self::Ddl, "DDL"),
        (Self::Insert, "INSERT"),
        (Self::Update, "UPDATE"),
        (Self::Upsert, "UPSERT"),
        (Self::Delete, "DELETE"),
        (Self::Truncate, "TRUNCATE"),
    ];
}

impl Image {
    pub(super) const WORDS: [(Self, &str); 2] = [(Self::Before, "before"), (Self::After, "after")];
}

impl Operator {
    pub(super) const WORDS: [(Self, &str); 6] = [
        (Self::Lt, "LT"),
        (Self::Gt, "GT"),
        (Self::Eq, "EQ"),
        (Self::Le, "LE"),
        (Self::Ge, "GE"),
        (Self::Ne, "NE"),
    ];
}

impl Tag {
    /// Returns whether a header of that name and value fits. Takes time linear in both.
    #[must_use]
    pub fn fits(&self, name: &str, value: &str) -> bool {
        let wanted = self.value.as_deref();
        self.name == name && wanted.is_none_or(|wanted| glob::fits(wanted, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_header_that_is_there_or_has_a_value() {
        let tag = |value: Option<&str>| Tag {
            name: "source".into(),
            value: value.map(Into::into),
        };
        assert!(tag(None).fits("source", ""));
        assert!(!tag(None).fits("target", ""));
        assert!(tag(Some("shop*")).fits("source", "shop-1"));
        assert!(!tag(Some("shop*")).fits("source", "a shop"));
        assert!(!tag(Some("shop*")).fits("target", "shop"));
    }
}
