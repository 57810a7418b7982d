//! The embedded engine: one process, one directory, one journal.

mod disk;

pub use disk::{Disk, DiskFile, RealDisk};
