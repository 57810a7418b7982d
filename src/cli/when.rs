//! Times as people give them to a command: `2026-12-01T07:00:00Z`, `2026-12-01`, `10m`, `1h ago`, `now`. The gateway gets
//! them as RFC 3339 in UTC.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

use crate::clock::{Clock, Timestamp};

const EXAMPLES: &str = "2026-12-01T07:00:00Z, 2026-12-01, 10m, \"1h ago\" or now (UTC)";

/// Reads a time for an argument.
///
/// # Errors
/// What would be right.
pub(super) fn time(text: &str) -> Result<String, String> {
    let at = read(text, Clock::system().now());
    at.map(|at| at.to_string())
        .ok_or_else(|| format!("this is no time: give {EXAMPLES}"))
}

/// Reads the place where a reader begins: a time becomes RFC 3339, all else is for the gateway to judge.
///
/// # Errors
/// None: the type is that of a parser of arguments.
pub(super) fn begin(text: &str) -> Result<String, String> {
    // The gateway names the position of `now` itself.
    let at = match text {
        "now" => None,
        text => read(text, Clock::system().now()),
    };
    Ok(at.map_or_else(|| text.to_owned(), |at| at.to_string()))
}

/// Returns the time that a text says; a time before 1970 is none.
fn read(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("now") {
        return Some(now);
    }
    Timestamp::parse(text)
        .or_else(|| without_zone(text))
        .or_else(|| ago(text, now))
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
    // A bare number has no unit, and `0` is no time.
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
    }

    #[test]
    fn what_is_no_time_is_told_with_examples() {
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
        ] {
            let said = time(text).unwrap_err();
            assert!(
                said.contains("2026-12-01T07:00:00Z, 2026-12-01, 10m"),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn a_place_that_is_no_time_is_left_to_the_gateway() {
        for text in ["now", "earliest", "p1abc", "yesterday"] {
            assert_eq!(begin(text), Ok(text.to_owned()));
        }
        assert_eq!(
            begin("2026-12-01"),
            Ok("2026-12-01T00:00:00.000000Z".to_owned())
        );
    }
}
