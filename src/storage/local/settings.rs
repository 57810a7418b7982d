//! The settings of a directory: `[log]` in the configuration.

use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Size of a journal file.
    pub segment_bytes: u64,
    /// Newest frames kept in memory for readers.
    pub cache_bytes: usize,
    /// Records waiting to be written; more are refused with 503.
    pub queue_bytes_max: usize,
    /// Commits waiting to be written; more are refused with 503.
    pub queue_len_max: usize,
    /// Commits remembered by their ids; a large batch counts as several.
    pub dedup_len_max: usize,
    /// How long a commit is remembered.
    pub dedup_age_hours: u32,
    /// What is to stay free on the disk; below it records from outside are refused with 507.
    pub disk_free_bytes_min: u64,
    /// Streams that can be made; more are refused with 507.
    pub streams_max: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cache_bytes: 16 << 20,
            queue_bytes_max: 32 << 20,
            queue_len_max: 16_384,
            dedup_len_max: 100_000,
            dedup_age_hours: 24,
            disk_free_bytes_min: 256 << 20,
            streams_max: 1_024,
        }
    }
}
