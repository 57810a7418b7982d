//! Answers of the records routes. Records stay JSON text, because a payload may hold numbers that a [`Value`] cannot.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// A page of records.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Page<'a> {
    #[serde(borrow)]
    pub(in crate::cli) items: Vec<&'a RawValue>,
    pub(in crate::cli) next: Value,
    /// Position over all partitions, for the next request.
    pub(in crate::cli) position: Option<String>,
    #[serde(default)]
    pub(in crate::cli) trimmed: u64,
    pub(in crate::cli) earliest: Value,
    pub(in crate::cli) tail: Value,
}

/// A record.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Item<'a> {
    pub(in crate::cli) offset: Value,
    pub(in crate::cli) partition: Value,
    pub(in crate::cli) time: Value,
    #[serde(default)]
    pub(in crate::cli) key: Value,
    #[serde(default)]
    pub(in crate::cli) key_base64: Value,
    #[serde(default)]
    pub(in crate::cli) message_id: Value,
    #[serde(default)]
    pub(in crate::cli) headers: Value,
    pub(in crate::cli) settled: Option<bool>,
    #[serde(default)]
    pub(in crate::cli) cause: Value,
    #[serde(default)]
    pub(in crate::cli) waiting: Value,
    /// How the record was settled, if known.
    #[serde(default)]
    pub(in crate::cli) settlement: Value,
    #[serde(borrow)]
    pub(in crate::cli) value: Option<&'a RawValue>,
    #[serde(default)]
    pub(in crate::cli) value_base64: Value,
}
