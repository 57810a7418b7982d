//! A target of which every tenth call says that it is unavailable, beside one of which every tenth call fails in a way that
//! says nothing of the target: what the breaker and the slots cost.

use std::time::Instant;

use super::{
    BACKLOG, Series, least,
    load::{CONNECTIONS, Load},
    per_second,
    process::Process,
    ratio,
    target::{End, Mode, Target},
};

/// How a tenth ends, with the least part of the floor's rate.
const ENDS: [(End, &str, f64); 6] = [
    (End::Status(503), "every tenth call 503, syncgate", 0.8),
    (End::Status(429), "every tenth call 429, syncgate", 0.8),
    (End::Status(502), "every tenth call 502, syncgate", 0.8),
    (End::Close, "every tenth connection closed, syncgate", 0.8),
    (End::Later(503), "503 with Retry-After: 1, syncgate", 0.5),
    (End::Later(429), "429 with Retry-After: 1, syncgate", 0.5),
];

pub struct Unavailable {
    floor: Series,
    ends: Vec<Series>,
}

impl Default for Unavailable {
    fn default() -> Self {
        Self {
            floor: Series::new("unavailable, floor: every tenth call 500", "calls/s"),
            ends: ENDS.map(|(_, name, _)| Series::new(name, "calls/s")).into(),
        }
    }
}

impl Unavailable {
    pub async fn measure(&mut self, target: &Target, load: &Load) {
        let rate = rate(target, load, End::Status(500)).await;
        self.floor.values.push(rate);
        for ((end, ..), series) in ENDS.iter().zip(&mut self.ends) {
            series.values.push(self::rate(target, load, *end).await);
        }
    }

    pub fn series(&self) -> impl Iterator<Item = &Series> {
        [&self.floor].into_iter().chain(&self.ends)
    }

    pub fn checks(&self) -> Vec<(&'static str, Option<f64>, (f64, &'static str))> {
        let mut checks = Vec::new();
        for ((_, name, part), series) in ENDS.iter().zip(&self.ends) {
            checks.push((*name, ratio(series, &self.floor), least(*part)));
        }
        checks
    }
}

/// Returns the calls in a second for a backlog.
async fn rate(target: &Target, load: &Load, end: End) -> f64 {
    target.set(Mode::Hold);
    let gateway = Process::gateway();
    load.post_backlog(&gateway.url, BACKLOG).await;
    let (before, begun) = (target.calls(), Instant::now());
    target.set(Mode::Tenth(end));
    // Those in flight when the hold ended had arrived before.
    target.wait_for(before + BACKLOG - CONNECTIONS).await;
    per_second(target.calls() - before, begun.elapsed())
}
