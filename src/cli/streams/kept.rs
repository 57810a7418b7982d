//! Retention of a stream: in arguments, in requests and in words.

use clap::Args;
use serde_json::Value;

use crate::{cli::output::counted, config::Unit};

/// The arguments of `create` and `set`.
#[derive(Debug, Args)]
pub(super) struct Kept {
    /// How long a record is kept, in whole hours: 24h, 7d; 0 for ever, `default` as `[retention]` says.
    #[arg(long, value_name = "TIME", value_parser = hours, conflicts_with = "retention_hours")]
    retention: Option<Bound>,
    /// The same as a number of hours.
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    retention_hours: Option<Bound>,
    /// How much of the newest records is kept: bytes, or 64MiB; 0 all, `default` as `[retention]` says.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    retention_bytes: Option<Bound>,
}

/// The stream's own bound; `None` = the default of `[retention]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound(Option<u64>);

impl Kept {
    /// Adds the given bounds to a request body.
    pub(super) fn add_to(&self, body: &mut Value) {
        if let Some(Bound(hours)) = self.retention.or(self.retention_hours) {
            body["retentionHours"] = hours.into();
        }
        if let Some(Bound(bytes)) = self.retention_bytes {
            body["retentionBytes"] = bytes.into();
        }
    }
}

fn hours(text: &str) -> Result<Bound, String> {
    bound(Unit::Hours, text)
}

fn bytes(text: &str) -> Result<Bound, String> {
    bound(Unit::Bytes, text)
}

fn bound(unit: Unit, text: &str) -> Result<Bound, String> {
    match text {
        "default" => Ok(Bound(None)),
        text => unit.read(text).map(|number| Bound(Some(number))),
    }
}

/// Returns how long a stream keeps its records: `7 days, at most 64MiB`.
pub(super) fn words(stream: &Value) -> String {
    let number = |name: &str| stream.get(name).and_then(Value::as_u64);
    let time = number("retentionHours").map(|hours| match hours {
        0 => "for ever".to_owned(),
        hours if hours.is_multiple_of(24) => counted(hours / 24, "day"),
        hours => counted(hours, "hour"),
    });
    let size = number("retentionBytes").map(|bytes| match bytes {
        0 => "of any size".to_owned(),
        bytes => format!("at most {}", Unit::Bytes.words(bytes)),
    });
    match (time, size) {
        (None, None) => "as [retention] says".into(),
        (Some(time), None) => format!("{time}, size as [retention] says"),
        (None, Some(size)) => format!("time as [retention] says, {size}"),
        (Some(time), Some(size)) => format!("{time}, {size}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn retention_is_shown_in_words() {
        for (hours, bytes, expected) in [
            (json!(null), json!(null), "as [retention] says"),
            (json!(24), json!(null), "1 day, size as [retention] says"),
            (json!(36), json!(0), "36 hours, of any size"),
            (json!(0), json!(64 << 20), "for ever, at most 64MiB"),
            (
                json!(null),
                json!(64_000_000),
                "time as [retention] says, at most 64MB",
            ),
        ] {
            let stream = json!({"retentionHours": hours, "retentionBytes": bytes});
            assert_eq!(words(&stream), expected);
        }
    }

    #[test]
    fn a_bound_is_a_quantity_or_the_default() {
        assert_eq!(hours("7d"), Ok(Bound(Some(168))));
        assert_eq!(hours("default"), Ok(Bound(None)));
        assert_eq!(bytes("64MiB"), Ok(Bound(Some(64 << 20))));
        assert!(hours("90m").is_err() && bytes("7d").is_err());
    }
}
