//! Makes the settings of push of the configuration, so that push does not know the sections of a file.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use crate::{config::Config, push::Settings, runtime::live::Live};

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let push = &config.push;
        let trails = push.trails.iter();
        // `config::load` has refused illegal names.
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
}
