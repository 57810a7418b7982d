//! Proofs of the engine's promises, on a faulty disk.
//!
//! `faulty` is the disk, `model` a very simple engine, and `rig` drives the engine and the model through the same steps.
//! `hands` runs an engine without threads. The proofs: `contract` is the conformance suite, `crashes` cuts the power between
//! any two disk calls, `faults` makes calls fail, `full` takes space away, `stalls` holds calls back, `damage` changes bytes,
//! `losses` accepts damage, `histories` makes random steps, `traffic` has concurrent callers.

mod contract;
mod crashes;
mod damage;
mod faults;
mod faulty;
mod full;
#[cfg(test)]
pub(crate) mod hands;
mod histories;
mod losses;
mod model;
mod rig;
mod stalls;
mod traffic;

pub(crate) use faulty::{Crash, Dice, FaultyDisk};
