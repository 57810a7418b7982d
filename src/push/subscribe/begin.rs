//! `begin`: where a client wants to start.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

use crate::runtime::clock::Timestamp;

use crate::push::position::{ClientPosition, PositionInvalid, PositionKey};

/// Where a client wants to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::push) enum Begin {
    /// At the first record that is kept.
    Earliest,
    /// After the last record.
    Now,
    /// At the first record with that time or a later one.
    Time(Timestamp),
    /// After the record with that position.
    Position(ClientPosition),
}

/// A text that is no `begin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "begin is earliest, now, a time such as 2026-01-02T03:04:05Z or 2026-01-02 (UTC without a zone), or the pos of a record"
)]
pub struct BeginInvalid;

impl From<PositionInvalid> for BeginInvalid {
    fn from(_: PositionInvalid) -> Self {
        Self
    }
}

impl Begin {
    /// Reads the text, already percent-decoded.
    ///
    /// # Errors
    /// [`BeginInvalid`] if it has none of the forms.
    pub(in crate::push) fn parse(text: &str, key: &PositionKey) -> Result<Self, BeginInvalid> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            _ => match time(text) {
                Some(time) => Ok(Self::Time(time)),
                None if PositionKey::is_meant(text) => Ok(Self::Position(key.read(text)?)),
                None => Err(BeginInvalid),
            },
        }
    }
}

/// Reads `YYYY-MM-DD`, alone or with `T`, `t` or a blank, `HH:MM:SS`, up to nine decimals, and a zone.
fn time(text: &str) -> Option<Timestamp> {
    let ascii = text.is_ascii() && text.len() <= 40;
    let (date, rest) = text.split_at_checked(10).filter(|_| ascii)?;
    let shape = |text: &str, like: &str| {
        text.len() == like.len()
            && text
                .bytes()
                .zip(like.bytes())
                .all(|(byte, like)| match like {
                    b'0' => byte.is_ascii_digit(),
                    like => byte == like,
                })
    };
    if !shape(date, "0000-00-00") {
        return None;
    }
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    if rest.is_empty() {
        return since_epoch(date.and_hms_opt(0, 0, 0)?.and_utc());
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    if !shape(clock, "00:00:00") {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let len = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, zone) = rest.split_at(len);
            if !(1..=9).contains(&len) {
                return None;
            }
            // Rounded up to the microsecond, because the first record at or after that moment is meant.
            let nanos: u64 = format!("{digits:0<9}").parse().ok()?;
            (nanos.div_ceil(1000), zone)
        }
    };
    let clock = chrono::NaiveTime::parse_from_str(clock, "%H:%M:%S").ok()?;
    let moment = NaiveDateTime::new(date, clock);
    let zone = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            // A `+` that was not percent-encoded arrives as a blank.
            let legal = ["+00:00", "-00:00", " 00:00"];
            if !legal.iter().any(|like| shape(zone, like)) {
                return None;
            }
            let hours: i64 = zone[1..3].parse().ok().filter(|hours| *hours < 24)?;
            let minutes: i64 = zone[4..6].parse().ok().filter(|minutes| *minutes < 60)?;
            let seconds = hours * 3600 + minutes * 60;
            if zone.starts_with('-') {
                -seconds
            } else {
                seconds
            }
        }
    };
    let moment = moment.checked_sub_signed(chrono::TimeDelta::seconds(zone))?;
    let at = since_epoch(moment.and_utc())?;
    Some(Timestamp(at.0.checked_add(fraction)?))
}

/// A time before 1970 means the first record.
fn since_epoch(moment: DateTime<Utc>) -> Option<Timestamp> {
    let micros = moment.timestamp_micros();
    Some(Timestamp(u64::try_from(micros.max(0)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(text: &str) -> Result<Begin, BeginInvalid> {
        Begin::parse(text, &PositionKey::new(&[1; 32]))
    }

    fn at(text: &str) -> Option<u64> {
        match begin(text) {
            Ok(Begin::Time(time)) => Some(time.0),
            _ => None,
        }
    }

    /// 2026-01-02T03:04:05Z in microseconds.
    const MOMENT: u64 = 1_767_323_045_000_000;

    #[test]
    fn words_are_places() {
        assert_eq!(begin("earliest"), Ok(Begin::Earliest));
        assert_eq!(begin("now"), Ok(Begin::Now));
    }

    #[test]
    fn every_form_of_a_time_is_read() {
        let day = 1_767_312_000_000_000;
        for (text, micros) in [
            ("2026-01-02", day),
            ("2026-01-02T03:04:05Z", MOMENT),
            ("2026-01-02t03:04:05", MOMENT),
            ("2026-01-02t03:04:05.1z", MOMENT + 100_000),
            ("2026-01-02T03:04:05z", MOMENT),
            ("2026-01-02 03:04:05", MOMENT),
            ("2026-01-02T03:04:05.1", MOMENT + 100_000),
            ("2026-01-02T03:04:05.000001Z", MOMENT + 1),
            ("2026-01-02T03:04:05.000000001Z", MOMENT + 1),
            ("2026-01-02T05:04:05+02:00", MOMENT),
            ("2026-01-02T05:04:05 02:00", MOMENT),
            ("2026-01-01T20:34:05.5-06:30", MOMENT + 500_000),
            ("1950-01-01", 0),
        ] {
            assert_eq!(at(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn an_illegal_begin_is_refused() {
        let position = PositionKey::new(&[2; 32]).text(&ClientPosition {
            contract: crate::push::position::Contract::new("a", "b", "c"),
            incarnation: crate::model::ids::Incarnation(1),
            place: crate::push::position::StreamPlace::default(),
        });
        for text in [
            "",
            "Now",
            "EARLIEST",
            "2026-1-2",
            "2026-02-30",
            "2026-01-02T",
            "2026-01-02T03:04",
            "2026-01-02T24:04:05Z",
            "2026-01-02T03:04:05.",
            "2026-01-02T03:04:05.0000000001Z",
            "2026-01-02T03:04:05+2:00",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05+02:60",
            "2026-01-02T03:04:05Z ",
            "+026-01-02",
            "2026-01-0\u{665}",
            "p1",
            "p2AAAA",
            &position,
        ] {
            assert_eq!(begin(text), Err(BeginInvalid), "{text}");
        }
    }
}
