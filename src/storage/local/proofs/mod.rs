//! Proofs of what the engine promises, on a disk that lies.
//!
//! `faulty` is that disk, `model` an engine too simple to be wrong, `rig` drives both through the same steps. Then
//! `contract` is the suite of every engine, `crashes` cuts the power between any two calls of the disk, `faults` makes
//! calls fail, `full` takes space away, `stalls` lets calls wait, `damage` changes bytes, `losses` accepts that, `histories` makes steps at
//! random, `traffic` has many callers at once.

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
