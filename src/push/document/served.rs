//! The AsyncAPI documents for a reader, and warnings about configurations.

use super::{Layout, Listed, Protocol, Server};
use crate::push::{
    data_stream::DataStream, document, registry::Push, resource::ObjectName, settings::Settings,
};

/// The address under which the reader of a document reaches the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Reached<'a> {
    /// The address, as in `https://sync.example`.
    pub base: &'a str,
    /// Clients need the name and password of a user.
    pub needs_login: bool,
}

impl Push {
    /// Returns the generated document of a data stream.
    #[must_use]
    pub fn document_of(&self, stream: &DataStream, at: &Reached<'_>, layout: Layout) -> String {
        let settings = self.settings();
        let append = self.append_table(stream);
        let listed = Listed {
            name: &stream.name,
            resource: &stream.resource,
            append: &append,
        };
        document::of_one(&server(at, settings), &listed, layout)
    }

    /// Returns the document of all data streams.
    #[must_use]
    pub fn document_of_all(&self, at: &Reached<'_>) -> String {
        let settings = self.settings();
        let all = self.list();
        let tables: Vec<_> = all.iter().map(|stream| self.append_table(stream)).collect();
        let listed = all.iter().zip(&tables).map(|(stream, append)| Listed {
            name: &stream.name,
            resource: &stream.resource,
            append,
        });
        document::of_all(&server(at, settings), &Vec::from_iter(listed))
    }

    /// Returns warnings: settings that are probably not meant, and records that broke the configuration.
    #[must_use]
    pub fn warnings(&self, stream: &DataStream) -> Vec<String> {
        let append = self.append_table(stream);
        let mut warnings = stream.resource.warnings(&append);
        warnings.extend(stream.misfits.text(&append));
        warnings
    }

    /// Returns the append table of the log stream that a data stream shows.
    fn append_table(&self, stream: &DataStream) -> ObjectName {
        let settings = self.settings();
        let trail = &stream.resource.trail;
        let log = self.trail(trail).map(|log| log.name.clone());
        // The stream may have been deleted; its name is still known.
        let log = log.or_else(|| settings.trails.get(trail).cloned());
        let log = log.or_else(|| trail.parse().ok());
        settings.append_table(log.as_ref())
    }
}

/// Returns the server under the reader's address.
fn server<'a>(at: &Reached<'a>, settings: &'a Settings) -> Server<'a> {
    let (protocol, host) = match at.base.split_once("://") {
        Some(("https", host)) => (Protocol::Wss, host),
        Some((_, host)) => (Protocol::Ws, host),
        None => (Protocol::Ws, at.base),
    };
    Server {
        protocol,
        host,
        base_path: "",
        event_prefix: &settings.event_type_prefix,
        needs_login: at.needs_login,
    }
}
