//! Sizes and durations with units, `64MiB` and `30s`, for settings and arguments.
//!
//! A bare number is in the default unit. A text with a unit must be a whole number of that unit.

use std::time::Duration;

use bytesize::ByteSize;

/// The default unit of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, as in `cache_bytes`.
    Bytes,
    /// Milliseconds, as in `grace_ms`.
    Milliseconds,
    /// Seconds, as in `interval_seconds`.
    Seconds,
    /// Hours, as in `retention_hours`.
    Hours,
    /// Days, as in `cursor_unused_days`.
    Days,
}

impl Unit {
    /// Returns the unit in the name of a setting; `None` if the setting is not a quantity.
    pub(super) fn of_setting(key: &str) -> Option<Self> {
        key.split('_').find_map(|word| match word {
            "bytes" => Some(Self::Bytes),
            "ms" => Some(Self::Milliseconds),
            "seconds" => Some(Self::Seconds),
            "hours" => Some(Self::Hours),
            "days" => Some(Self::Days),
            _ => None,
        })
    }

    /// Reads a setting's text, which must have a unit, because a bare number is written without quotes.
    ///
    /// # Errors
    /// A sentence that names the text and what would be right.
    pub(super) fn read_with_unit(self, text: &str) -> Result<u64, String> {
        let is_bare = |c: char| c.is_ascii_digit() || "+-._ ".contains(c);
        if text.chars().any(|c| c.is_ascii_digit()) && text.chars().all(is_bare) {
            let (_, examples) = self.examples();
            return Err(format!("\"{text}\" has no unit: give {examples}"));
        }
        self.read(text)
    }

    /// Reads a quantity: a bare number in this unit, or a number with a unit, such as `64MiB`, `500kB`, `30s`, `1h 30m`.
    ///
    /// # Errors
    /// A sentence that names the text and what would be right.
    pub fn read(self, text: &str) -> Result<u64, String> {
        let text = text.trim();
        if let Ok(number) = text.parse() {
            return Ok(number);
        }
        let wrong = || {
            let (kind, examples) = self.examples();
            format!("\"{text}\" is no {kind}: give {examples}")
        };
        match self.unit_micros() {
            None => {
                let size = text.parse::<ByteSize>().map_err(|_| wrong())?;
                // No disk has 4 EiB. The parser returns its greatest number for a size that overflows.
                let fits = Some(size.as_u64()).filter(|bytes| *bytes < 1 << 62);
                fits.ok_or_else(|| format!("\"{text}\" is too large"))
            }
            Some(unit_micros) => {
                let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
                let micros = duration.as_micros();
                let number = micros / unit_micros;
                if duration.subsec_nanos() % 1_000 != 0 || micros % unit_micros != 0 {
                    let name = self.name();
                    return Err(format!("\"{text}\" is not a whole number of {name}"));
                }
                u64::try_from(number).map_err(|_| format!("\"{text}\" is too large"))
            }
        }
    }

    /// Returns a quantity in its best unit, `64MiB` or `1d 12h`; [`Unit::read`] reads it back.
    #[must_use]
    pub fn words(self, number: u64) -> String {
        match self.unit_micros() {
            None => size(number),
            Some(unit_micros) => duration(u128::from(number) * unit_micros),
        }
    }

    /// `None` for bytes.
    fn unit_micros(self) -> Option<u128> {
        let unit = match self {
            Self::Bytes => return None,
            Self::Milliseconds => Duration::from_millis(1),
            Self::Seconds => Duration::from_secs(1),
            Self::Hours => Duration::from_secs(3_600),
            Self::Days => Duration::from_secs(86_400),
        };
        Some(unit.as_micros())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
            Self::Hours => "hours",
            Self::Days => "days",
        }
    }

    /// Returns the kind of quantity, and examples.
    fn examples(self) -> (&'static str, &'static str) {
        match self {
            Self::Bytes => ("size", "bytes, such as 67108864, or \"64MiB\""),
            Self::Milliseconds => (
                "duration",
                "milliseconds, such as 30000, or \"30s\" or \"500ms\"",
            ),
            Self::Seconds => ("duration", "seconds, such as 60, or \"1m\" or \"2h\""),
            Self::Hours => ("duration", "hours, such as 168, or \"7d\" or \"36h\""),
            Self::Days => ("duration", "days, such as 30, or \"30d\" or \"4weeks\""),
        }
    }
}

/// Returns the shortest whole number with a unit, a binary one if two have the same length: `64MiB`, `64MB`,
/// `1536MiB`.
fn size(bytes: u64) -> String {
    let names = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"];
    let binary = [6, 5, 4, 3, 2, 1].map(|power| 1_u64 << (10 * power));
    let decimal_names = ["EB", "PB", "TB", "GB", "MB", "kB"];
    let decimal = [6, 5, 4, 3, 2, 1].map(|power| 1_000_u64.pow(power));
    let units = binary.into_iter().zip(names);
    let units = units.chain(decimal.into_iter().zip(decimal_names));
    let whole = units.filter(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let least = whole.min_by_key(|(unit, _)| (bytes / unit).to_string().len());
    match least {
        // The greatest unit of a family comes first, and of equally short numbers the first is taken.
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn duration(micros: u128) -> String {
    let units: [(u128, &str); 5] = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ];
    let mut left = micros;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if left >= unit {
            parts.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    match parts.is_empty() {
        true => "0s".into(),
        false => parts.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unit: Unit, text: &str, expected: u64, words: &str) {
        assert_eq!(unit.read(text), Ok(expected), "{text}");
        assert_eq!(unit.words(expected), words);
        assert_eq!(unit.read(words), Ok(expected), "{words}");
    }

    #[test]
    fn a_quantity_is_a_number_or_has_a_unit_and_can_be_read_again() {
        use Unit::{Bytes, Days, Hours, Milliseconds, Seconds};
        check(Bytes, "67108864", 64 << 20, "64MiB");
        check(Bytes, "64MiB", 64 << 20, "64MiB");
        check(Bytes, " 64 mib ", 64 << 20, "64MiB");
        check(Bytes, "1.5GiB", 3 << 29, "1536MiB");
        check(Bytes, "500kB", 500_000, "500kB");
        check(Bytes, "64MB", 64_000_000, "64MB");
        check(Bytes, "1000KiB", 1_024_000, "1000KiB");
        check(Bytes, "1001", 1_001, "1001B");
        check(Bytes, "0", 0, "0B");
        check(Milliseconds, "30s", 30_000, "30s");
        check(Milliseconds, "500ms", 500, "500ms");
        check(Milliseconds, "1h 30m", 5_400_000, "1h 30m");
        check(Milliseconds, "1.5s", 1_500, "1s 500ms");
        check(Milliseconds, "0", 0, "0s");
        check(Seconds, "1m", 60, "1m");
        check(Hours, "7d", 168, "7d");
        check(Hours, "36h", 36, "1d 12h");
        check(Days, "30", 30, "30d");
        check(Days, "4weeks", 28, "28d");
    }

    #[track_caller]
    fn check_wrong(unit: Unit, text: &str, expected: &str) {
        let said = unit.read(text).unwrap_err();
        assert!(said.contains(expected), "{text}: {said}");
    }

    #[test]
    fn an_illegal_quantity_is_named_with_examples() {
        use Unit::{Bytes, Hours, Milliseconds};
        check_wrong(Bytes, "many", "\"many\" is no size: give bytes, such as");
        check_wrong(Bytes, "30s", "\"30s\" is no size");
        check_wrong(Bytes, "-1", "\"-1\" is no size");
        check_wrong(Bytes, "", "\"\" is no size");
        check_wrong(Bytes, "99999999999EiB", "too large");
        check_wrong(Milliseconds, "soon", "\"soon\" is no duration: give mill");
        check_wrong(Milliseconds, "64MiB", "is no duration");
        check_wrong(Milliseconds, "1us", "not a whole number of milliseconds");
        check_wrong(Milliseconds, "1ns", "not a whole number of milliseconds");
        check_wrong(Hours, "90m", "\"90m\" is not a whole number of hours");
        check_wrong(Hours, "", "is no duration");
    }

    #[test]
    fn the_name_of_a_setting_tells_its_unit() {
        for (key, expected) in [
            ("grace_ms", Some(Unit::Milliseconds)),
            ("backoff_ms_max", Some(Unit::Milliseconds)),
            ("disk_free_bytes_min", Some(Unit::Bytes)),
            ("interval_seconds", Some(Unit::Seconds)),
            ("dedup_age_hours", Some(Unit::Hours)),
            ("cursor_unused_days", Some(Unit::Days)),
            ("rate_per_second", None),
            ("records_max", None),
        ] {
            assert_eq!(Unit::of_setting(key), expected, "{key}");
        }
    }
}
