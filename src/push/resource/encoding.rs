//! `encoding.json`: which members a record has, under which names.

use super::Scalar;

/// Member of a DML record some of whose columns were cut.
pub const TRUNCATED: &str = "truncated";
/// Member of a DDL record with the statement.
pub const DDL: &str = "ddl";
/// Member of an OBJECT_METADATA record.
pub const COLUMNS: &str = "columns";

/// The shape of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The form of columns: `before` and `after`, or at the top.
    pub model: Model,
    /// Name of the image before the change; model `op` only.
    pub before_image_name: String,
    /// Name of the image after the change; model `op` only.
    pub after_image_name: String,
    /// Columns that are null are left out.
    pub omit_null_column_values: bool,
    /// Every column's value is a string.
    pub treat_all_columns_as_strings: bool,
    /// Columns stand beside the metadata, named by image, delimiter and column; model `op` only.
    pub flatten: bool,
    /// Between image and column.
    pub flatten_delimiter: String,
    /// Members that every data record has.
    pub static_fields: Vec<(String, Scalar)>,
    /// Words of `op_type`.
    pub operation_strings: OperationStrings,
    /// Schema records are sent.
    pub include_json_schema_record: bool,
    /// OBJECT_METADATA records are sent.
    pub include_object_metadata_records: bool,
    /// The STREAM_METADATA record is sent.
    pub include_stream_metadata_record: bool,
    /// Which metadata members are on, under which names.
    pub meta_fields: MetaFields,
    /// Bytes of a string column before it is cut.
    pub max_lob_size: u64,
    /// Bytes of the text of a DDL record before it is cut.
    pub max_ddl_text_size: u32,
    /// Bytes of a frame that holds only one record before a column of it is cut.
    pub max_record_size: u32,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            model: Model::Op,
            before_image_name: "before".into(),
            after_image_name: "after".into(),
            omit_null_column_values: false,
            treat_all_columns_as_strings: false,
            flatten: false,
            flatten_delimiter: ".".into(),
            static_fields: Vec::new(),
            operation_strings: OperationStrings::default(),
            include_json_schema_record: true,
            include_object_metadata_records: true,
            include_stream_metadata_record: true,
            meta_fields: MetaFields::default(),
            max_lob_size: 64_000,
            max_ddl_text_size: 1_000_000,
            max_record_size: 1 << 20,
        }
    }
}

/// The form of columns in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// Columns stand in the objects `before` and `after`.
    #[default]
    Op,
    /// Columns stand at the top of the record.
    Row,
}

/// Words of `op_type` in data records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is the label of the word it is named after"
)]
pub struct OperationStrings {
    pub insert: String,
    pub update: String,
    pub delete: String,
    pub truncate: String,
    pub upsert: String,
    pub ddl: String,
}

impl Model {
    pub(super) const WORDS: [(Self, &str); 2] = [(Self::Op, "op"), (Self::Row, "row")];
}

impl OperationStrings {
    /// Returns the plain words and their labels.
    #[must_use]
    pub fn labels(&self) -> [(&'static str, &str); 6] {
        [
            ("INSERT", &self.insert),
            ("UPDATE", &self.update),
            ("DELETE", &self.delete),
            ("UPSERT", &self.upsert),
            ("TRUNCATE", &self.truncate),
            ("DDL", &self.ddl),
        ]
    }

    /// Returns the label of a word, in any case, to be replaced.
    pub(super) fn label_mut(&mut self, word: &str) -> Option<&mut String> {
        Some(match &*word.to_ascii_uppercase() {
            "INSERT" => &mut self.insert,
            "UPDATE" => &mut self.update,
            "DELETE" => &mut self.delete,
            "UPSERT" => &mut self.upsert,
            "TRUNCATE" => &mut self.truncate,
            "DDL" => &mut self.ddl,
            _ => return None,
        })
    }
}

impl Default for OperationStrings {
    fn default() -> Self {
        Self {
            insert: "INSERT".into(),
            update: "UPDATE".into(),
            delete: "DELETE".into(),
            truncate: "TRUNCATE".into(),
            upsert: "UPSERT".into(),
            ddl: "DDL".into(),
        }
    }
}

/// Names of the metadata members that are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaFields(pub [Option<String>; MetaField::ALL.len()]);

impl MetaFields {
    /// Returns the member's name, if it is on.
    #[must_use]
    pub fn name(&self, field: MetaField) -> Option<&str> {
        self.0[field as usize].as_deref()
    }
}

impl Default for MetaFields {
    fn default() -> Self {
        Self(MetaField::ALL.map(|field| {
            field
                .is_on_by_default()
                .then(|| field.default_name().into())
        }))
    }
}

/// A metadata member of data records, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "`push-decisions.md` §5 lists them; the README says what each is"
)]
pub enum MetaField {
    QualifiedTable,
    Catalog,
    Schema,
    Table,
    OpType,
    OpTs,
    OpTsMicroSecs,
    CurrentTs,
    CurrentTsMicroSecs,
    Pos,
    Xid,
    Csn,
    OpSeqno,
    TransInd,
    PrimaryKeys,
    Tokens,
}

impl MetaField {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::QualifiedTable,
        Self::Catalog,
        Self::Schema,
        Self::Table,
        Self::OpType,
        Self::OpTs,
        Self::OpTsMicroSecs,
        Self::CurrentTs,
        Self::CurrentTsMicroSecs,
        Self::Pos,
        Self::Xid,
        Self::Csn,
        Self::OpSeqno,
        Self::TransInd,
        Self::PrimaryKeys,
        Self::Tokens,
    ];

    /// Returns its key in `metaFields`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::QualifiedTable => "qualifiedTable",
            Self::Catalog => "catalog",
            Self::Schema => "schema",
            Self::Table => "table",
            Self::OpType => "opType",
            Self::OpTs => "opTs",
            Self::OpTsMicroSecs => "opTsMicroSecs",
            Self::CurrentTs => "currentTs",
            Self::CurrentTsMicroSecs => "currentTsMicroSecs",
            Self::Pos => "pos",
            Self::Xid => "xid",
            Self::Csn => "csn",
            Self::OpSeqno => "opSeqno",
            Self::TransInd => "transInd",
            Self::PrimaryKeys => "primaryKeys",
            Self::Tokens => "tokens",
        }
    }

    /// Returns its name in records, unless another one is given.
    #[must_use]
    pub fn default_name(self) -> &'static str {
        match self {
            Self::QualifiedTable => "qual_table",
            Self::OpType => "op_type",
            Self::OpTs => "op_ts",
            Self::OpTsMicroSecs => "op_ts_micros",
            Self::CurrentTs => "current_ts",
            Self::CurrentTsMicroSecs => "current_ts_micros",
            Self::OpSeqno => "op_seqno",
            Self::TransInd => "trans_ind",
            Self::PrimaryKeys => "primary_keys",
            // For the other fields, key and name are the same word.
            Self::Catalog
            | Self::Schema
            | Self::Table
            | Self::Pos
            | Self::Xid
            | Self::Csn
            | Self::Tokens => self.key(),
        }
    }

    /// Returns whether records have it unless it is turned off.
    #[must_use]
    pub fn is_on_by_default(self) -> bool {
        matches!(
            self,
            Self::QualifiedTable | Self::OpType | Self::OpTs | Self::Pos | Self::Xid
        )
    }
}
