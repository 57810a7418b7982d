//! Simulation: a whole gateway in a world made from a seed: disk, network, targets, clock, random numbers.
//!
//! ```text
//! history ──► ingest, retries ──► log on a disk that loses what was not synced
//!    │                              │ (its writer is stepped by hand, with random delays)
//!    │ crash, stop, later           ▼
//!    └──────────────────────────► dispatch ──► targets that answer, refuse, hang, lie
//! ```
//!
//! Everything runs on one thread with a paused clock, so hours cost nothing and a seed always gives the same history.
//! The `witness` checks each frame of the log and each call. It fails on a call of a record that is not stored or out
//! of order, on a settlement without a call, on an acknowledged record that is missing, and on counts that differ.
//!
//! `SYNCGATE_TEST_SEED=N` runs that one history and prints its steps.

mod gateway;
mod history;
mod steps;
mod target;
mod witness;
mod world;

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::history::play;

/// Histories of one test run.
const HISTORIES_LEN: u64 = 10_000;

#[test]
fn whatever_happens_nothing_is_lost_doubled_or_out_of_order() {
    if let Ok(seed) = env::var("SYNCGATE_TEST_SEED") {
        let told = play(seed.parse().expect("a number"), true);
        eprintln!("{}", told.join("\n"));
        return;
    }
    let first = crate::runtime::random::u64().unwrap() >> 16;
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= HISTORIES_LEN {
                        return;
                    }
                    // A panic ends the test; its message names the seed.
                    play(first + number, false);
                }
            });
        }
    });
}

#[test]
fn a_seed_plays_the_same_history_again() {
    for seed in 0..20 {
        let (once, again) = (play(seed, true), play(seed, true));
        let differs = once.iter().zip(&again).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("seed {seed} differs at {at}:\n{}\n{}", once[at], again[at]);
        }
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}
