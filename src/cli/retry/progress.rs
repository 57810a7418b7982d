//! How far a retry has come, on standard error: one line that changes on a terminal, and a line now and then in a pipe.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::cli::{escape, output};

/// How often a line comes in a pipe.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// A shorter pause is not worth a line of its own.
const PAUSE_TOLD_MIN: Duration = Duration::from_secs(1);
/// How often the line is drawn on a terminal.
const TICK: Duration = Duration::from_millis(200);
/// What the rate is measured over.
const RATE_OVER: Duration = Duration::from_secs(10);

/// How far a retry has come.
#[derive(Debug)]
pub(super) struct Progress {
    /// Hidden unless standard error is a terminal.
    bar: ProgressBar,
    /// Records that were open when the loop began; `None` if nobody has counted them.
    total: Option<u64>,
    rate: Rate,
    /// When the last line was written in a pipe.
    told_at: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            bar: bar(),
            total: None,
            rate: Rate::new(Instant::now()),
            told_at: Instant::now(),
        }
    }

    /// Takes the number of records that the loop is about.
    pub(super) fn of(&mut self, total: Option<u64>) {
        self.total = total;
        self.rate = Rate::new(Instant::now());
    }

    /// Returns `12/56 records`.
    pub(super) fn text(&self) -> String {
        let done = self.rate.done();
        match self.total {
            // Others may have added records meanwhile.
            Some(total) => format!("{done}/{} records", total.max(done)),
            None if done == 1 => "1 record".to_owned(),
            None => format!("{done} records"),
        }
    }

    /// Shows how many records are done, and what goes on.
    pub(super) fn show(&mut self, done: u64, note: &str) {
        self.rate.note(done, Instant::now());
        let line = self.line(note);
        if self.bar.is_hidden() {
            if self.told_at.elapsed() >= TELL_EVERY {
                self.tell(&line);
            }
        } else {
            self.bar.set_message(escape::line(&line).into_owned());
        }
    }

    /// Shows what goes on from now on, also in a pipe.
    pub(super) fn announce(&mut self, note: &str) {
        match self.bar.is_hidden() {
            true => self.tell(&self.line(note)),
            false => self.show(self.rate.done(), note),
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
            self.show(self.rate.done(), &why(seconds(left)));
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

    #[test]
    fn what_is_done_is_told_with_what_there_was() {
        let mut progress = Progress::new();
        progress.show(1, "");
        assert_eq!(progress.text(), "1 record");
        progress.of(Some(56));
        progress.show(12, "partition 0");
        assert_eq!(progress.text(), "12/56 records");
        progress.show(57, "");
        assert_eq!(progress.text(), "57/57 records");
        assert_eq!(progress.line("paused"), "57/57 records, paused");
        assert_eq!(seconds(Duration::from_millis(21_001)), 22);
    }
}
