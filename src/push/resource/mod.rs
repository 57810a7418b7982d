//! What a data stream is: the configuration behind `/services/v2/stream/{name}`.
//!
//! [`Resource::parse`] reads one and names every fault of it, [`Resource::to_json`] writes it with every default filled in,
//! and [`merge_patch`] changes one as `PATCH` does. Limits and defaults are those of the protocol.

mod append;
mod encoding;
mod glob;
mod name;
mod names;
mod object_name;
mod objects;
mod parse;
mod rules;
mod scalar;
#[cfg(test)]
pub(crate) mod strategy;
mod url_pattern;
mod warnings;
mod write;

pub use append::AppendColumn;
pub use encoding::{
    COLUMNS, DDL, Encoding, MetaField, MetaFields, Model, OperationStrings, TRUNCATED,
};
pub use name::{ResourceName, ResourceNameInvalid};
pub use object_name::{ObjectName, ObjectNameInvalid, ObjectPattern, ObjectPatternInvalid};
pub use objects::{Column, ColumnType, ObjectView, View};
pub use parse::merge_patch;
pub use rules::{Action, ColumnValue, Filter, Image, ObjectType, Operator, Relation, Rule, Tag};
pub use scalar::Scalar;
pub use url_pattern::{Captures, UrlParts, UrlPattern, UrlPatternInvalid};

/// A data stream as it was asked for, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// For people.
    pub description: Option<String>,
    /// A stream's name, or an alias of `[push.trails]`.
    pub trail: String,
    /// What is left out, or let through; the first rule that fits decides.
    pub rules: Vec<Rule>,
    /// The shape of a record.
    pub encoding: Encoding,
    /// A frame goes out before it would have more bytes than this.
    pub buffer_size: u32,
    /// What happens at a position that is no longer there.
    pub quality_of_service: QualityOfService,
    /// Each record is sent as a CloudEvent.
    pub cloud_events_format: bool,
    /// Seconds of silence after which TCP asks whether the client is there.
    pub tcp_keep_alive_seconds: u16,
    /// What a record of the stream is shown as.
    pub view: View,
}

/// What happens at a position that is no longer there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QualityOfService {
    /// It is refused.
    #[default]
    ExactlyOnce,
    /// It is refused.
    AtLeastOnce,
    /// Goes on at the first record there is, and says what is missing.
    AtMostOnce,
}

impl QualityOfService {
    const WORDS: [(Self, &str); 3] = [
        (Self::ExactlyOnce, "exactlyOnce"),
        (Self::AtLeastOnce, "atLeastOnce"),
        (Self::AtMostOnce, "atMostOnce"),
    ];
}
