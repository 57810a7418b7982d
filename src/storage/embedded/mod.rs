//! The embedded engine: one process, one directory, one journal.

mod disk;
#[cfg(test)]
mod faulty;

pub use disk::{Disk, DiskFile, RealDisk};
