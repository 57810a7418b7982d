//! What push takes of the configuration.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{config::Config, model::ids::StreamName, runtime::live::Live};

use super::resource::ObjectName;

/// Settings of push.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Other names under which `source.trail` may name a stream.
    pub trails: BTreeMap<String, StreamName>,
    /// First part of the name of an append table.
    pub namespace: String,
    /// Name of this machine in stream metadata.
    pub node: String,
    /// What the types of CloudEvents begin with.
    pub event_type_prefix: String,
    /// Headers of a message whose values are not shown, beside those that commonly hold credentials. A reload replaces
    /// them, because targets name some.
    pub masked_headers: Arc<Live<Vec<String>>>,
    /// The address under which clients reach the gateway, without a slash at the end.
    pub public_url: Option<String>,
    /// An empty array is sent after that much silence; never, if it is zero.
    pub idle_array: Duration,
    /// Clients at one time.
    pub clients_max: usize,
    /// A cursor that was not used for so long is removed.
    pub cursor_unused: Duration,
    /// Status of the answer when a data stream is made.
    pub create_status: StatusCode,
}

impl Settings {
    /// Takes what push needs out of the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let push = &config.push;
        let trails = push.trails.iter();
        // `config::load` has found those that are none.
        let trails = trails.filter_map(|(alias, name)| Some((alias.clone(), name.parse().ok()?)));
        let url = config.server.public_url.as_deref();
        Self {
            trails: trails.collect(),
            namespace: push.namespace.clone(),
            node: push.node.clone(),
            event_type_prefix: push.event_type_prefix.clone(),
            masked_headers: Arc::new(Live::new(config.masked_headers())),
            public_url: url.map(|url| url.trim_end_matches('/').to_owned()),
            idle_array: Duration::from_millis(push.idle_array_ms),
            clients_max: push.clients_max,
            cursor_unused: Duration::from_secs(u64::from(push.cursor_unused_days) * 24 * 3600),
            create_status: StatusCode::from_u16(push.create_status).unwrap_or(StatusCode::CREATED),
        }
    }

    /// Returns the append table of a stream.
    pub(super) fn append_table(&self, log: Option<&StreamName>) -> ObjectName {
        let made = log.and_then(|log| ObjectName::append_table(&self.namespace, log).ok());
        // Every name of a stream makes a table, and the configuration was looked at.
        made.unwrap_or_else(ObjectName::unnamed)
    }
}
