//! A log line as a JSON object without repeated members.
//!
//! ```text
//! {"timestamp":"2026-01-02T03:04:05.000006Z","level":"INFO","module":"syncgate::dispatch::worker","message":"…","target":"…"}
//! ```
//!
//! The formatter of `tracing-subscriber` writes the code's module as `target`, beside the fields of the event. Our
//! events have a field `target` for the REST endpoint. So a line would have two members of that name, and readers
//! differ in which one they take.

use std::{borrow::Cow, fmt};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Writes events as lines of JSON.
#[derive(Debug)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let mut line = Members::default();
        line.add("timestamp", &timestamp);
        line.add("level", metadata.level().as_str());
        line.add("module", metadata.target());
        event.record(&mut line);
        // Only libraries have spans; each span is one text, the outermost first.
        let spans: Vec<_> = ctx
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| match span.extensions().get::<FormattedFields<N>>() {
                Some(fields) if !fields.is_empty() => format!("{}{{{fields}}}", span.name()),
                _ => span.name().to_owned(),
            })
            .collect();
        if !spans.is_empty() {
            line.add("spans", &spans);
        }
        writeln!(writer, "{}", line.object())
    }
}

/// The members of one object; each is written when it is added.
#[derive(Default)]
struct Members {
    text: String,
    names: Vec<Cow<'static, str>>,
}

impl Members {
    /// Adds a member; `_` is appended to a name that is taken, until it is free.
    fn add(&mut self, name: &'static str, value: impl Serialize) {
        // `tracing` writes the prefix before a field that is named like a keyword of Rust.
        let mut name = Cow::Borrowed(name.strip_prefix("r#").unwrap_or(name));
        while self.names.contains(&name) {
            name.to_mut().push('_');
        }
        // Numbers, texts and lists of texts always encode as JSON.
        let json = |value: serde_json::Result<String>| value.unwrap_or_else(|_| "null".into());
        let separator = if self.names.is_empty() { '{' } else { ',' };
        self.text.push(separator);
        self.text += &json(serde_json::to_string(&name));
        self.text.push(':');
        self.text += &json(serde_json::to_string(&value));
        self.names.push(name);
    }

    fn object(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.add(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::Subscriber as Log;

    use super::*;
    use crate::telemetry::lines::Lines;

    /// Returns the line that an event becomes, without its time.
    #[track_caller]
    fn check(log: impl FnOnce(), expected: &str) {
        let lines = Lines::default();
        let subscriber = Log::builder()
            .with_writer(lines.clone())
            .with_ansi(false)
            .event_format(JsonLine)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let written = lines.taken();
        let text = String::from_utf8(written).unwrap();
        let (time, rest) = text
            .strip_prefix(r#"{"timestamp":""#)
            .and_then(|text| text.split_once('"'))
            .unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        let module = module_path!();
        let rest = rest.replace(&format!(r#""module":"{module}""#), r#""module":"…""#);
        assert_eq!(rest, format!("{expected}\n"));
    }

    #[test]
    fn each_member_is_there_once_and_has_its_type() {
        check(
            || {
                let none: Option<u16> = None;
                tracing::warn!(target = "http://a", n = 7, at = -1, share = 0.5, ok = true, none, what = %"x\"\n", "it {}", "is");
            },
            r#","level":"WARN","module":"…","message":"it is","target":"http://a","n":7,"at":-1,"share":0.5,"ok":true,"what":"x\"\n"}"#,
        );
    }

    #[test]
    fn a_name_that_is_taken_becomes_another_one() {
        check(
            || {
                tracing::info!(
                    level = 1,
                    module = "m",
                    module_ = 2,
                    r#type = "t",
                    timestamp = 3,
                    "x"
                )
            },
            r#","level":"INFO","module":"…","message":"x","level_":1,"module_":"m","module__":2,"type":"t","timestamp_":3}"#,
        );
    }

    #[test]
    fn spans_of_libraries_are_members_of_the_line() {
        check(
            || {
                let outer = tracing::info_span!("outer", name = "n", peer = 7);
                let _outer = outer.entered();
                let _inner = tracing::info_span!("inner").entered();
                tracing::info!(spans = 1, "x");
            },
            r#","level":"INFO","module":"…","message":"x","spans":1,"spans_":["outer{name=\"n\" peer=7}","inner"]}"#,
        );
    }
}
