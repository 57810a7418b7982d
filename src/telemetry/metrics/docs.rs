//! The page `metrics.md`, written from the list of metrics.

use std::fmt::Write as _;

use prometheus_client::metrics::MetricType;

use super::names::{LIST, Listed};
use crate::docs::{cell, held_equal};

const HEAD: &str = "\
# Metrics
<!-- Written from the code: SYNCGATE_WRITE_DOCS=1 cargo test --lib docs -->

`GET /metrics` answers in the OpenMetrics text form, and in the Prometheus text form if `Accept` ranks `text/plain` higher.
Where the gateway has users it asks for one, unless `metrics.public` is true. Counters by `code`, `outcome` and `part` are
there from the start, at 0. Each histogram has the samples `_bucket`, `_sum` and `_count`.

| metric | type | labels | meaning |
|---|---|---|---|
";

fn row(listed: &Listed) -> String {
    let Listed {
        name, labels, help, ..
    } = listed;
    let (suffix, kind) = match listed.kind {
        MetricType::Counter => ("_total", "counter"),
        MetricType::Gauge => ("", "gauge"),
        MetricType::Histogram => ("", "histogram"),
        MetricType::Info => ("_info", "info"),
        MetricType::Unknown => ("", "unknown"),
    };
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    let (labels, help) = (labels.join(", "), cell(help));
    format!("| `{name}{suffix}` | {kind} | {labels} | {help}. |")
}

#[test]
fn the_metrics_are_those_of_the_code() {
    let mut page = HEAD.to_owned();
    for listed in LIST {
        writeln!(page, "{}", row(listed)).unwrap();
    }
    held_equal("metrics", &page);
}
