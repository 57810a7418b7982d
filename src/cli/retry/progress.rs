//! How far a retry has come, on standard error: one line that changes on a terminal, and a line now and then in a pipe.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::cli::output::{self, counted, escape};

/// How often a line comes in a pipe.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// A shorter pause is not worth a line of its own.
const PAUSE_TOLD_MIN: Duration = Duration::from_secs(1);
/// How often the line is drawn on a terminal.
const TICK: Duration = Duration::from_millis(200);
/// What the rate is measured over.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Columns that stand before the line: the sign that turns, and a blank.
const SIGN_COLUMNS: usize = 2;
/// A terminal that says less than this is not believed.
const COLUMNS_MIN: u16 = 20;

/// How many records a retry has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    /// In a dry run.
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
    /// Records that were open when the loop began; `None` if nobody has counted them.
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

    /// Takes the number of records that the loop is about.
    pub(super) fn of(&mut self, total: Option<u64>) {
        self.total = total;
        self.rate = Rate::new(Instant::now());
    }

    /// Returns the number of records that the loop is about; `None` if nobody has counted them.
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
            // Records that were lost or purged meanwhile are counted, and not called.
            text = format!("{text} of {}", total.max(self.done.settled()));
        }
        text
    }

    /// Shows how many records are done, and what goes on.
    pub(super) fn show(&mut self, done: Done, note: &str) {
        self.done = done;
        self.rate.note(done.settled(), Instant::now());
        let line = self.line(note);
        if self.bar.is_hidden() {
            if self.told_at.elapsed() >= TELL_EVERY {
                self.tell(&line);
            }
        } else {
            let line = escape::line(&line);
            let columns = columns().saturating_sub(SIGN_COLUMNS);
            self.bar.set_message(cut(&line, columns));
        }
    }

    /// Shows what goes on from now on, also in a pipe.
    pub(super) fn announce(&mut self, note: &str) {
        match self.bar.is_hidden() {
            true => self.tell(&self.line(note)),
            false => self.show(self.done, note),
        }
    }

    /// Waits, and shows why, with the seconds that are left.
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
            // Nobody needs every one of many in a second.
            Some((at, last)) if !is_first && now.duration_since(*at) < RATE_OVER / 20 => {
                *last = done;
            }
            _ => self.0.push_back((now, done)),
        }
    }

    /// Returns `412/s`; `None` before it can be told.
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

/// Returns how many seconds are left, none of them begun.
fn seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// Returns the width of the terminal that standard error is.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let columns = size.map_or(0, |size| size.ws_col);
    match columns < COLUMNS_MIN {
        true => usize::MAX,
        false => columns.into(),
    }
}

/// Returns a text that fits some columns, with `…` for what does not.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let fits = left.checked_sub(c.width().unwrap_or(0));
        left = fits.unwrap_or(0);
        fits.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
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
    fn a_rate_is_that_of_the_last_seconds() {
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
    fn what_is_delivered_and_what_has_failed_are_told_with_what_there_was() {
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

    #[test]
    fn a_line_that_is_too_long_says_so() {
        for (text, columns, expected) in [
            ("12 delivered", 12, "12 delivered"),
            ("12 delivered", 11, "12 deliver…"),
            ("対象は呼ばれない", 8, "対象は…"),
            ("abc", 1, "…"),
            ("abc", usize::MAX, "abc"),
        ] {
            assert_eq!(cut(text, columns), expected);
        }
    }
}
