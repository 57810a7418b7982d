//! The settings of push.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{model::ids::StreamName, runtime::live::Live};

use super::resource::ObjectName;

/// The settings of push; `gateway` makes them of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Other names under which `source.trail` may name a stream.
    pub trails: BTreeMap<String, StreamName>,
    /// First part of the name of an append table.
    pub namespace: String,
    /// Name of this machine in stream metadata.
    pub node: String,
    /// Prefix of the types of CloudEvents.
    pub event_type_prefix: String,
    /// Names of headers whose values are masked, besides the usual headers of credentials. A reload replaces them,
    /// because targets name secret headers.
    pub masked_headers: Arc<Live<Vec<String>>>,
    /// The address under which clients reach the gateway, without a slash at the end.
    pub public_url: Option<String>,
    /// An empty array is sent after this time without a frame; zero turns that off.
    pub idle_array: Duration,
    /// Clients at one time.
    pub clients_max: usize,
    /// A cursor is removed when it was unused for this time.
    pub cursor_unused: Duration,
    /// Status of the answer when a data stream is made.
    pub create_status: StatusCode,
}

impl Settings {
    /// Returns the append table of a stream.
    pub(super) fn append_table(&self, log: Option<&StreamName>) -> ObjectName {
        let made = log.and_then(|log| ObjectName::append_table(&self.namespace, log).ok());
        // Every stream name makes a legal table name, and `config` has checked the namespace.
        made.unwrap_or_else(ObjectName::unnamed)
    }
}
