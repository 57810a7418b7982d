//! The bounds of every histogram of durations.

use prometheus_client::metrics::histogram::Histogram;

/// Makes a histogram of seconds. Its buckets go from 0.25 ms (a local write) to 60 s (a slow target).
pub(crate) fn histogram() -> Histogram {
    Histogram::new([
        0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0, 60.0,
    ])
}
