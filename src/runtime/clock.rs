//! Wall-clock time: timestamps of records, and the clock that gives them.
//!
//! Waits use tokio's monotonic time. Only times that people or other systems read come from here.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};

/// Microseconds since 1970-01-01T00:00:00Z.
///
/// Shown as RFC 3339 in UTC with six fraction digits: `2026-01-02T03:04:05.000006Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the timestamp `micros` microseconds later, at most the greatest one.
    #[must_use]
    pub fn plus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Returns the time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Reads an RFC 3339 time; `None` if `text` is not one, or lies before 1970.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        u64::try_from(time.timestamp_micros()).ok().map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0)
            .ok()
            .and_then(DateTime::<Utc>::from_timestamp_micros);
        match time {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            // chrono cannot show this year. No clock gives such a time, but a damaged file may.
            None => write!(f, "{}us", self.0),
        }
    }
}

/// Writes timestamps as text. Most have the same second as the one before, so the text of that second is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamps {
    second: u64,
    /// The text up to the dot; empty before the first timestamp.
    text: String,
}

impl Stamps {
    /// Appends a timestamp.
    pub(crate) fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        const MICROS: u64 = 1_000_000;
        let second = time.0 / MICROS;
        if second != self.second || self.text.is_empty() {
            let whole = time.to_string();
            let Some(dot) = whole.find('.') else {
                return out.extend_from_slice(whole.as_bytes());
            };
            self.second = second;
            self.text.clear();
            self.text.push_str(&whole[..=dot]);
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut micros = time.0 % MICROS;
        let mut digits = *b"000000Z";
        for digit in digits[..6].iter_mut().rev() {
            *digit += (micros % 10).to_le_bytes()[0];
            micros /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

/// A source of time: the system's clock, or one that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// Returns the system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// Returns a clock that shows `at` until [`Clock::set`] moves it. Clones share its time.
    #[must_use]
    pub fn manual(at: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicU64::new(at.0))))
    }

    /// Returns the time now. It may be earlier than before, because the system's clock can be set.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(hand) => Timestamp(hand.load(Ordering::Relaxed)),
            None => {
                let since = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Sets a manual clock; does nothing to the system's clock.
    pub fn set(&self, at: Timestamp) {
        if let Some(hand) = &self.0 {
            hand.store(at.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_shown_and_read_as_rfc_3339_with_six_digits() {
        let stamp = Timestamp(1_767_323_045_000_006);
        assert_eq!(stamp.to_string(), "2026-01-02T03:04:05.000006Z");
        assert_eq!(
            Timestamp::parse("2026-01-02T04:04:05.000006+01:00"),
            Some(stamp)
        );
        let small = Timestamp::parse("2026-01-02t03:04:05.000006z");
        assert_eq!(small, Some(stamp));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp(u64::MAX).to_string(), format!("{}us", u64::MAX));
    }

    #[test]
    fn stamps_in_a_row_are_written_as_they_are_shown() {
        let mut stamps = Stamps::default();
        for micros in [
            0,
            999_999,
            1_767_323_045_000_006,
            1_767_323_045_999_999,
            1_767_323_046_000_000,
            u64::MAX,
            u64::MAX - 1,
            1_767_323_046_100_000,
            1_767_323_045_000_006,
        ] {
            let mut out = b"at ".to_vec();
            stamps.write(Timestamp(micros), &mut out);
            let shown = format!("at {}", Timestamp(micros));
            assert_eq!(String::from_utf8(out).unwrap(), shown);
        }
    }
}
