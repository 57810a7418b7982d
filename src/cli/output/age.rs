//! Times on a terminal, each with its age.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::runtime::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A time in two forms; tables that are too wide take the short one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Aged {
    /// `2026-12-01T07:00:00Z (12m ago)`
    pub(super) long: String,
    /// `07:00:00Z (12m ago)` less than a day away, `2026-12-01 (3d ago)` otherwise.
    pub(super) short: String,
}

/// Returns both forms of a UTC time as the gateway writes it; `None` if `text` is not one.
pub(super) fn aged(text: &str, now: Timestamp) -> Option<Aged> {
    if !text.ends_with('Z') {
        return None;
    }
    let at = Timestamp::parse(text)?;
    let time = DateTime::<Utc>::from_timestamp_micros(i64::try_from(at.0).ok()?)?;
    let (away, age) = match at > now {
        true => (at.since(now), format!("in {}", rough(at.since(now)))),
        false => (now.since(at), format!("{} ago", rough(now.since(at)))),
    };
    let short = match away < DAY {
        true => time.format("%H:%M:%SZ"),
        false => time.format("%Y-%m-%d"),
    };
    Some(Aged {
        long: format!("{} ({age})", time.format("%Y-%m-%dT%H:%M:%SZ")),
        short: format!("{short} ({age})"),
    })
}

/// Returns a duration in its largest unit: `12m`, `36h`, `3d`.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, long: &str, short: &str) {
        let now = Timestamp::parse("2026-12-01T07:12:00Z").unwrap();
        let aged = aged(text, now).unwrap();
        assert_eq!((&*aged.long, &*aged.short), (long, short));
    }

    #[test]
    fn a_time_has_its_age_beside_it() {
        check(
            "2026-12-01T07:00:00.999999Z",
            "2026-12-01T07:00:00Z (11m ago)",
            "07:00:00Z (11m ago)",
        );
        check(
            "2026-11-30T07:12:01Z",
            "2026-11-30T07:12:01Z (23h ago)",
            "07:12:01Z (23h ago)",
        );
        check(
            "2026-11-30T07:12:00Z",
            "2026-11-30T07:12:00Z (24h ago)",
            "2026-11-30 (24h ago)",
        );
        check(
            "2026-11-28T07:00:00Z",
            "2026-11-28T07:00:00Z (3d ago)",
            "2026-11-28 (3d ago)",
        );
        check(
            "2026-12-01T07:12:22Z",
            "2026-12-01T07:12:22Z (in 22s)",
            "07:12:22Z (in 22s)",
        );
    }

    #[test]
    fn other_texts_are_not_times() {
        let now = Timestamp(0);
        for text in ["", "Z", "2026-12-01", "at 2026-12-01T07:00:00Z", "1Z"] {
            assert_eq!(aged(text, now), None, "{text}");
        }
    }
}
