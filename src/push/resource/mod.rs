//! The configuration of a data stream, which `/services/v2/stream/{name}` makes and returns.
//!
//! [`Resource::parse`] reads a configuration and names every fault, [`Resource::to_json`] writes it with all
//! defaults, and [`merge_patch`] applies a `PATCH`. Limits and defaults are those of the protocol.

mod append;
mod encoding;
mod glob;
mod name;
mod names;
mod object_name;
mod objects;
mod parse;
mod rules;
#[cfg(test)]
pub(crate) mod strategy;
mod url_pattern;
mod warnings;
mod write;

pub use super::json::Scalar;
pub use append::AppendColumn;
pub use encoding::{
    COLUMNS, DDL, Encoding, MetaField, MetaFields, Model, OperationStrings, TRUNCATED,
};
pub use name::{ResourceName, ResourceNameInvalid};
pub use object_name::{ObjectName, ObjectNameInvalid, ObjectPattern, ObjectPatternInvalid};
pub use objects::{Column, ColumnType, ObjectView, View};
pub use parse::merge_patch;
pub use rules::{Action, ColumnValue, Filter, Image, ObjectType, Operator, Relation, Rule, Tag};
pub use url_pattern::{Captures, UrlParts, UrlPattern, UrlPatternInvalid};

/// The configuration of a data stream, with all defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// For people.
    pub description: Option<String>,
    /// A stream's name, or an alias of `[push.trails]`.
    pub trail: String,
    /// Rules that include or exclude records; the first rule that fits decides.
    pub rules: Vec<Rule>,
    /// The shape of a record.
    pub encoding: Encoding,
    /// Bytes of a frame, at most, unless one record alone has more.
    pub buffer_size: u32,
    /// What happens at a position whose records were removed.
    pub quality_of_service: QualityOfService,
    /// Each record is sent as a CloudEvent.
    pub cloud_events_format: bool,
    /// Seconds of silence after which TCP asks whether the client is there.
    pub tcp_keep_alive_seconds: u16,
    /// How the records of the stream are shown.
    pub view: View,
}

/// What happens at a position whose records were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QualityOfService {
    /// The client is refused.
    #[default]
    ExactlyOnce,
    /// The client is refused.
    AtLeastOnce,
    /// The client continues at the first record that is kept, and gets told which offsets are missing.
    AtMostOnce,
}

impl QualityOfService {
    const WORDS: [(Self, &str); 3] = [
        (Self::ExactlyOnce, "exactlyOnce"),
        (Self::AtLeastOnce, "atLeastOnce"),
        (Self::AtMostOnce, "atMostOnce"),
    ];
}
