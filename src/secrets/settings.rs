//! The settings of the master key: `[secrets]` in the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[secrets]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// File with the master key (32 bytes as base64); made at first start. Absent: `<data.dir>/master.key`.
    pub master_key_file: Option<PathBuf>,
    /// Environment variable with the master key; wins over the file.
    pub master_key_env: Option<String>,
    /// Command that prints the master key (program and arguments); wins over both.
    pub master_key_command: Vec<String>,
}
