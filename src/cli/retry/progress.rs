//! The progress of a retry on standard error: one line that changes on a terminal, a line each 30 seconds in a pipe.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::cli::output::{self, counted, cut::cut, escape};

/// Interval between lines in a pipe.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Shorter pauses get no line of their own.
const PAUSE_TOLD_MIN: Duration = Duration::from_secs(1);
/// Interval between redraws on a terminal.
const TICK: Duration = Duration::from_millis(200);
/// The time over which the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Columns before the line: the spinner and a blank.
const SIGN_COLUMNS: usize = 2;

/// How many records a retry has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    /// Records that a dry run counted.
    pub(super) would_be_sent: u64,
}

impl Done {
    /// Returns how many records need no more calls of this retry.
    pub(super) fn settled(self) -> u64 {
        self.delivered + self.failed + self.would_be_sent
    }
}

/// How far a retry has come.
#[derive(Debug)]
pub(super) struct Progress {
    /// Hidden unless standard error is a terminal.
    bar: ProgressBar,
    /// Records that were open when the loop began; `None` if they were not counted.
    total: Option<u64>,
    done: Done,
    rate: Rate,
    /// When the last line was written in a pipe.
    told_at: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            bar: bar(),
            total: None,
            done: Done::default(),
            rate: Rate::new(Instant::now()),
            told_at: Instant::now(),
        }
    }

    /// Sets how many records were open when the loop began.
    pub(super) fn of(&mut self, total: Option<u64>) {
        self.total = total;
        self.rate = Rate::new(Instant::now());
    }

    /// Returns how many records were open when the loop began; `None` if they were not counted.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns `12 delivered, 20 failed again of 39`.
    pub(super) fn text(&self) -> String {
        let Done {
            delivered,
            failed,
            would_be_sent,
        } = self.done;
        let mut text = match (would_be_sent, failed) {
            (1.., _) => format!("{} would be sent", counted(would_be_sent, "record")),
            (0, 0) => format!("{delivered} delivered"),
            (0, _) => format!("{delivered} delivered, {failed} failed again"),
        };
        if let Some(total) = self.total {
            // More records may be done than were counted, because the count came first.
            text = format!("{text} of {}", total.max(self.done.settled()));
        }
        text
    }

    /// Shows how many records are done, with a note on the present step.
    pub(super) fn show(&mut self, done: Done, note: &str) {
        self.done = done;
        self.rate.note(done.settled(), Instant::now());
        let line = self.line(note);
        if self.bar.is_hidden() {
            if self.told_at.elapsed() >= TELL_EVERY {
                self.tell(&line);
            }
        } else {
            let line = escape::line(&line).into_owned();
            let columns = output::stderr_columns().map(|columns| columns - SIGN_COLUMNS);
            let line = columns.map_or_else(|| line.clone(), |columns| cut(&line, columns));
            self.bar.set_message(line);
        }
    }

    /// Shows a note at once, also in a pipe.
    pub(super) fn announce(&mut self, note: &str) {
        match self.bar.is_hidden() {
            true => self.tell(&self.line(note)),
            false => self.show(self.done, note),
        }
    }

    /// Waits, and shows the reason with the seconds left.
    pub(super) async fn pause(&mut self, pause: Duration, why: impl Fn(u64) -> String) {
        let until = Instant::now() + pause;
        if pause >= PAUSE_TOLD_MIN {
            self.announce(&why(seconds(pause)));
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.show(self.done, &why(seconds(left)));
            sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    /// Takes the line off the terminal.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, note: &str) -> String {
        let mut line = self.text();
        if let Some(rate) = self.rate.text(Instant::now()) {
            line = format!("{line}, {rate}");
        }
        match note {
            "" => line,
            note => format!("{line}, {note}"),
        }
    }

    fn tell(&mut self, line: &str) {
        output::say(line);
        self.told_at = Instant::now();
    }
}

/// Records done over the last seconds.
#[derive(Debug)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn new(now: Instant) -> Self {
        Self(VecDeque::from([(now, 0)]))
    }

    fn done(&self) -> u64 {
        self.0.back().map_or(0, |(_, done)| *done)
    }

    fn note(&mut self, done: u64, now: Instant) {
        while let Some((second, _)) = self.0.get(1)
            && now.duration_since(*second) >= RATE_OVER
        {
            self.0.pop_front();
        }
        let is_first = self.0.len() == 1;
        match self.0.back_mut() {
            // One sample in half a second is enough.
            Some((at, last)) if !is_first && now.duration_since(*at) < RATE_OVER / 20 => {
                *last = done;
            }
            _ => self.0.push_back((now, done)),
        }
    }

    /// Returns `412/s`; `None` in the first second.
    fn text(&self, now: Instant) -> Option<String> {
        let (since, before) = self.0.front()?;
        let secs = now.duration_since(*since).as_secs_f64();
        let done = u32::try_from(self.done() - before).ok()?;
        let rate = f64::from(done) / secs;
        let text = match rate < 10.0 {
            true => format!("{rate:.1}/s"),
            false => format!("{rate:.0}/s"),
        };
        (secs >= 1.0).then_some(text)
    }
}

/// Returns the seconds left, rounded up.
fn seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(TICK);
    match ProgressStyle::with_template("{spinner} {wide_msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_covers_the_last_seconds() {
        let begun = Instant::now();
        let at = |secs| begun + Duration::from_secs(secs);
        let mut rate = Rate::new(begun);
        assert_eq!(rate.text(begun), None);
        rate.note(30, at(2));
        assert_eq!(
            (rate.done(), rate.text(at(2)).as_deref()),
            (30, Some("15/s"))
        );
        rate.note(32, at(11));
        assert_eq!(rate.text(at(12)).as_deref(), Some("2.7/s"));
        rate.note(33, at(22));
        assert_eq!(rate.text(at(22)).as_deref(), Some("0.1/s"));
    }

    #[track_caller]
    fn check(total: Option<u64>, delivered: u64, failed: u64, expected: &str) {
        let mut progress = Progress::new();
        progress.of(total);
        let done = Done {
            delivered,
            failed,
            would_be_sent: 0,
        };
        progress.show(done, "");
        assert_eq!(progress.text(), expected);
        assert_eq!(progress.line("paused"), format!("{expected}, paused"));
    }

    #[test]
    fn the_line_counts_delivered_and_failed_records_of_the_total() {
        check(None, 1, 0, "1 delivered");
        check(Some(56), 0, 0, "0 delivered of 56");
        check(Some(56), 12, 0, "12 delivered of 56");
        check(Some(39), 0, 20, "0 delivered, 20 failed again of 39");
        check(Some(5), 4, 2, "4 delivered, 2 failed again of 6");
        let mut dry = Progress::new();
        let done = Done {
            would_be_sent: 1,
            ..Done::default()
        };
        dry.show(done, "");
        assert_eq!(dry.text(), "1 record would be sent");
        assert_eq!(seconds(Duration::from_millis(21_001)), 22);
    }
}
