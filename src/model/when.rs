//! Times in arguments and query parameters: `2026-12-01T07:00:00Z`, `2026-12-01`, `10m`, `1h ago`, `now`. A time without a
//! zone is in UTC. Pure.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

use crate::runtime::clock::Timestamp;

/// Examples for errors.
pub(crate) const EXAMPLES: &str = "2026-12-01T07:00:00Z, 2026-12-01, 10m, \"1h ago\" or now (UTC)";

/// A longer text is not a time.
const TEXT_BYTES_MAX: usize = 64;

/// Reads a time, relative to `now`; `None` for another text, and for a time before 1970.
pub(crate) fn read(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if text.eq_ignore_ascii_case("now") {
        return Some(now);
    }
    Timestamp::parse(text)
        .or_else(|| without_plus(text))
        .or_else(|| without_zone(text))
        .or_else(|| ago(text, now))
}

/// `2026-12-01T08:00:00 01:00`: a `+` in a query that was not percent-encoded arrives as a space.
fn without_plus(text: &str) -> Option<Timestamp> {
    let (time, zone) = text.rsplit_once(' ')?;
    Timestamp::parse(&format!("{time}+{zone}"))
}

/// `2026-12-01`, `2026-12-01T07:00`, `2026-12-01 07:00:00.5`, in UTC.
fn without_zone(text: &str) -> Option<Timestamp> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d");
    let time = match date {
        Ok(date) => date.and_time(NaiveTime::MIN),
        Err(_) => {
            let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
            let text = text.replacen([' ', 't'], "T", 1);
            let text = text.strip_suffix(['Z', 'z']).unwrap_or(&text);
            let mut read = forms.iter().filter_map(|form| {
                let time = NaiveDateTime::parse_from_str(text, form);
                time.ok()
            });
            read.next()?
        }
    };
    let micros = time.and_utc().timestamp_micros();
    u64::try_from(micros).ok().map(Timestamp)
}

/// `10m`, `1h 30m ago`.
fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let duration = text.strip_suffix("ago").unwrap_or(text).trim();
    // A number needs a unit.
    if duration.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let duration = humantime::parse_duration(duration).ok()?;
    let micros = u64::try_from(duration.as_micros()).ok()?;
    now.0.checked_sub(micros).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-12-01T07:12:00Z";

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let at = read(text, Timestamp::parse(NOW).unwrap());
        assert_eq!(at, Timestamp::parse(expected), "{text}");
    }

    #[test]
    fn a_time_has_many_forms() {
        check("now", NOW);
        check("2026-12-01", "2026-12-01T00:00:00Z");
        check("2026-12-01T07:00:00Z", "2026-12-01T07:00:00Z");
        check("2026-12-01t07:00:00z", "2026-12-01T07:00:00Z");
        check("2026-12-01T08:00:00.5+01:00", "2026-12-01T07:00:00.5Z");
        check("2026-12-01T07:00:00", "2026-12-01T07:00:00Z");
        check("2026-12-01 07:00:00.25", "2026-12-01T07:00:00.25Z");
        check("2026-12-01 07:00", "2026-12-01T07:00:00Z");
        check("2026-12-01T07:00Z", "2026-12-01T07:00:00Z");
        check("10m", "2026-12-01T07:02:00Z");
        check("10m ago", "2026-12-01T07:02:00Z");
        check(" 1h 30m ago ", "2026-12-01T05:42:00Z");
        check("2 days ago", "2026-11-29T07:12:00Z");
        check("2026-12-01T08:00:00 01:00", "2026-12-01T07:00:00Z");
    }

    #[test]
    fn another_text_is_not_a_time() {
        let now = Timestamp::parse(NOW).unwrap();
        let long = format!("{}1h ago", " 1s".repeat(64));
        for text in [
            "",
            "ago",
            "0",
            "7",
            "yesterday",
            "2026-13-01",
            "2026-12-01T25:00:00Z",
            "10",
            "1969-01-01",
            "100years",
            "r1abc",
            "earliest",
            "tail",
            &long,
        ] {
            assert_eq!(read(text, now), None, "{text}");
        }
    }
}
