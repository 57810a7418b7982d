//! A whole gateway in a world that a seed makes up: disk, network, targets, clock, random numbers.
//!
//! ```text
//! history ──► ingest, retries ──► log on a disk that loses what was not synced
//!    │                              │ (its writer is moved by hand, and takes as long as the dice say)
//!    │ crash, stop, later           ▼
//!    └──────────────────────────► dispatch ──► targets that answer, refuse, hang, lie
//! ```
//!
//! Everything runs on one thread with a clock that stands still while there is something to do, so hours cost nothing and
//! a history with the same seed is the same one again. `witness` looks at each frame of the log and at each call, and
//! knows what may not happen: a call of what is not stored, or before its turn; an end without a call; a record that was
//! answered for and is not there; books that differ.
//!
//! `SYNCGATE_TEST_SEED=N` plays that one history, and tells it.

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

/// How many histories a test run plays.
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
                    // A panic ends the test; what it says names the seed.
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
