//! Records as JSON: what a record becomes under a resource's view, whether its rules let it through, and how it is
//! written.
//!
//! ```text
//! record ──view──► change of a row ──rules──► write (meta, images, cuts) ──► event, if the resource has CloudEvents
//! ```

mod cut;
mod event;
mod json;
mod number;
mod rules;
#[cfg(test)]
mod tests;
mod view;
mod write;

use crate::{
    clock::Timestamp,
    place::{MessageId, Partition, PartitionId, StreamName},
    record::StoredRecord,
    storage::{ControlEvent, ControlEventKind, Stream},
};

use super::{
    data_stream::DataStream,
    gaps::Missing,
    hub::Encode,
    resource::{ObjectName, Resource},
    schema::{Gap, PreambleRecord, StreamFacts, gap_record, preamble},
    settings::Settings,
};

use self::{
    event::Events,
    rules::Rules,
    view::{Change, Viewer},
    write::{Facts, Writer},
};

/// Encodes the records of one data stream.
#[derive(Debug)]
pub(super) struct Encoder {
    resource: Resource,
    append: ObjectName,
    log: StreamName,
    node: String,
    viewer: Viewer,
    rules: Rules,
    writer: Writer,
    events: Option<Events>,
}

/// Words of `op_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update,
    Upsert,
    Delete,
    Truncate,
    Ddl,
}

impl Encoder {
    pub(super) fn new(stream: &DataStream, log: &Stream, settings: &Settings) -> Self {
        let append = settings.append_table(Some(&log.name));
        let resource = stream.resource.clone();
        let events = resource.cloud_events_format.then(|| {
            let base = settings.public_url.as_deref().unwrap_or_default();
            let source = format!("{base}{}", stream.name.path());
            Events::new(&settings.event_type_prefix, &source)
        });
        Self {
            viewer: Viewer::new(&resource.view, &settings.masked_headers),
            rules: Rules::new(&resource.rules),
            writer: Writer::new(&resource, &append),
            node: settings.node.clone(),
            events,
            log: log.name.clone(),
            append,
            resource,
        }
    }

    /// Writes a change if the rules let it through.
    fn change(
        &self,
        change: &Change<'_>,
        facts: &Facts<'_>,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> bool {
        let table = self.writer.table(change.table);
        if !self.rules.let_through(change, table, facts) {
            return false;
        }
        let mut named = Vec::with_capacity(80);
        pos(&mut named);
        if !self.write(change, facts, &named, out)
            && let Some((partition, record)) = facts.record
        {
            // With more columns than can be cut it is shown as the row that the log has of it.
            let mut text = Vec::new();
            let row = self.viewer.append(partition, record, facts, &mut text);
            self.write(&row, facts, &named, out);
        }
        true
    }

    /// Writes a change; false, and nothing, if it cannot be cut to the size that a record may have.
    fn write(&self, change: &Change<'_>, facts: &Facts<'_>, pos: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(events) = &self.events else {
            return self.writer.write(change, facts, pos, 0, out);
        };
        let start = out.len();
        let table = self.writer.table(change.table);
        events.begin_data(change.op, table.as_str(), facts, pos, out);
        // What is around the record counts for its size.
        let around = out.len() - start + event::END.len();
        let fits = self.writer.write(change, facts, pos, around, out);
        match fits {
            true => out.extend_from_slice(event::END),
            false => out.truncate(start),
        }
        fits
    }

    fn statement(&self, verb: &str, set: &str, partitions: u16) -> String {
        format!("{verb} STREAM {} {set}PARTITIONS {partitions}", self.log)
    }

    fn facts<'a>(&'a self, stream: &'a Stream, missing: Option<&'a [Gap]>) -> StreamFacts<'a> {
        let created = stream.events.first();
        StreamFacts {
            name: &stream.name,
            incarnation: stream.incarnation,
            created: created.map_or(Timestamp(0), |event| event.time),
            append: &self.append,
            node: &self.node,
            gap: missing,
        }
    }

    fn wrapped(&self, record: PreambleRecord) -> Vec<u8> {
        match &self.events {
            Some(events) => events.around(&record),
            None => record.json,
        }
    }
}

impl Encode for Encoder {
    fn record(
        &self,
        stream: &Stream,
        partition: Partition,
        record: &StoredRecord,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> bool {
        let own = MessageId {
            of: PartitionId {
                stream: stream.id,
                partition,
            },
            incarnation: stream.incarnation,
            offset: record.offset,
        };
        let facts = Facts {
            time: record.time,
            now,
            xid: write::Xid::Record(partition, record.offset),
            record: Some((partition, record)),
            message_id: record.record.message_id(own),
        };
        let mut text = Vec::new();
        let change = self.viewer.view(partition, record, &facts, &mut text);
        self.change(&change, &facts, pos, out)
    }

    fn event(
        &self,
        number: u64,
        event: &ControlEvent,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> bool {
        let (op, statement) = match event.kind {
            ControlEventKind::Created { partitions } => {
                (Op::Ddl, self.statement("CREATE", "", partitions))
            }
            ControlEventKind::Grown { partitions } => {
                (Op::Ddl, self.statement("ALTER", "SET ", partitions))
            }
            ControlEventKind::Purged => (Op::Truncate, String::new()),
        };
        let facts = Facts {
            time: event.time,
            now,
            xid: write::Xid::Event(number),
            record: None,
            message_id: String::new(),
        };
        let change = Change {
            table: 0,
            op,
            before: None,
            after: None,
            statement,
        };
        self.change(&change, &facts, pos, out)
    }

    fn preamble(&self, stream: &Stream, missing: Option<&Missing>) -> Vec<Vec<u8>> {
        let gaps = missing.map(gaps);
        let records = preamble(&self.resource, &self.facts(stream, gaps.as_deref()));
        records
            .into_iter()
            .map(|record| self.wrapped(record))
            .collect()
    }

    fn gap(&self, stream: &Stream, missing: &Missing) -> Option<Vec<u8>> {
        let gaps = gaps(missing);
        let record = gap_record(&self.resource, &self.facts(stream, Some(&gaps)))?;
        Some(self.wrapped(record))
    }
}

fn gaps(missing: &Missing) -> Vec<Gap> {
    let gap = |&(partition, from, to): &(Partition, u64, u64)| Gap {
        partition,
        from: crate::place::Offset(from),
        to: crate::place::Offset(to),
    };
    missing.iter().map(gap).collect()
}
