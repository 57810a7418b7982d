//! Records as JSON: the row or change that the view makes of a record, the rules that let it through, and its text.
//!
//! ```text
//! record ──view──► change of a row ──rules──► write (meta, images, cuts) ──► event, if the resource has CloudEvents
//! ```
//!
//! Every record of every frame takes this path. So text that is the same for all records is made once, with the
//! encoder, and memory for one record is reused for the next ([`Scratch`]).

mod cut;
mod event;
mod json;
mod meta;
mod number;
mod rules;
#[cfg(test)]
mod tests;
mod view;
mod write;

use crate::{
    model::{
        ids::{MessageIds, Partition, PartitionId, StreamName},
        record::{StoredRecord, header},
    },
    runtime::clock::{Stamps, Timestamp},
    storage::{ControlEvent, ControlEventKind, Stream},
};

use super::{
    data_stream::DataStream,
    feed::{
        gaps::Missing,
        hub::{Encode, Encoded},
    },
    resource::{ObjectName, Resource},
    schema::{MissedOffsets, PreambleRecord, StreamFacts, gap_record, preamble},
    settings::Settings,
};

use self::{
    event::Events,
    rules::{Looked, Rules, Step},
    view::{Change, Columns, Viewed, Viewer},
    write::{Facts, Writer, Xid},
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

/// Memory for encoding one record, reused for the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    told: Told,
    viewed: Viewed,
    looked: Looked,
    pos: Vec<u8>,
}

/// Texts about a record beside its row.
#[derive(Debug, Default)]
struct Told {
    stamps: Stamps,
    /// The message ids of the partition of the record before.
    ids: Option<MessageIds>,
    stamp: Vec<u8>,
    message_id: Vec<u8>,
}

/// The words of `op_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update,
    Upsert,
    Delete,
    Truncate,
    Ddl,
}

impl Op {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 6] = [
        Self::Insert,
        Self::Update,
        Self::Upsert,
        Self::Delete,
        Self::Truncate,
        Self::Ddl,
    ];
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
        let writer = Writer::new(&resource, &append);
        Self {
            viewer: Viewer::new(
                &resource.view,
                settings.masked_headers.clone(),
                stream.misfits.clone(),
            ),
            rules: Rules::new(&resource.rules, writer.tables_len()),
            writer,
            node: settings.node.clone(),
            events,
            log: log.name.clone(),
            append,
            resource,
        }
    }

    /// Writes a change if the rules let it through. `made` is memory for its position.
    fn change(
        &self,
        change: &Change<'_>,
        facts: &Facts<'_>,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        (looked, made): (&mut Looked, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Encoded {
        let table = self.writer.table(change.table);
        match self.rules.step(change, table, facts, looked) {
            Step::LetThrough => {}
            Step::LeftOut => return Encoded::LeftOut,
            Step::NotYet => return Encoded::NotYet,
        }
        made.clear();
        pos(made);
        if !self.write(change, facts, made, out)
            && let Some((partition, record)) = facts.record
        {
            // A record with too many columns to cut is shown as a row of the append table.
            let mut viewed = Viewed::default();
            let row = self.viewer.append(partition, record, facts, &mut viewed);
            self.write(&row, facts, made, out);
        }
        Encoded::Taken
    }

    /// Writes a change; false, with nothing written, if it cannot be cut to the greatest record size.
    fn write(&self, change: &Change<'_>, facts: &Facts<'_>, pos: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(events) = &self.events else {
            return self.writer.write(change, facts, pos, 0, out);
        };
        let start = out.len();
        let table = self.writer.table(change.table);
        events.begin_data(change.op, table.as_str(), facts, pos, out);
        // The event around the record counts for its size.
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

    fn facts<'a>(
        &'a self,
        stream: &'a Stream,
        missing: Option<&'a [MissedOffsets]>,
    ) -> StreamFacts<'a> {
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
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded {
        let Scratch {
            told,
            viewed,
            looked,
            pos: made,
        } = scratch;
        told.tell(stream, partition, record);
        let facts = told.facts(record.time, now, Xid::Record(partition, record.offset));
        let facts = Facts {
            record: Some((partition, record)),
            ..facts
        };
        let change = self.viewer.view(partition, record, &facts, viewed);
        self.change(&change, &facts, pos, (looked, made), out)
    }

    fn event(
        &self,
        number: u64,
        event: &ControlEvent,
        now: Timestamp,
        pos: &mut dyn FnMut(&mut Vec<u8>),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Encoded {
        let (op, statement) = match event.kind {
            ControlEventKind::Created { partitions } => {
                (Op::Ddl, self.statement("CREATE", "", partitions))
            }
            ControlEventKind::Grown { partitions } => {
                (Op::Ddl, self.statement("ALTER", "SET ", partitions))
            }
            ControlEventKind::Purged => (Op::Truncate, String::new()),
        };
        let Scratch {
            told,
            looked,
            pos: made,
            ..
        } = scratch;
        told.tell_time(event.time);
        let facts = told.facts(event.time, now, Xid::Event(number));
        let change = Change {
            table: 0,
            op,
            image: None,
            columns: Columns::Of(Vec::new()),
            statement,
        };
        self.change(&change, &facts, pos, (looked, made), out)
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

impl Told {
    fn tell(&mut self, stream: &Stream, partition: Partition, record: &StoredRecord) {
        self.tell_time(record.time);
        self.message_id.clear();
        if let Some(id) = record.record.headers.get(header::MESSAGE_ID) {
            self.message_id.extend_from_slice(id.as_bytes());
            return;
        }
        let of = PartitionId {
            stream: stream.id,
            partition,
        };
        let known = self.ids.take();
        let known = known.filter(|ids| ids.are_of(of, stream.incarnation));
        let ids = self
            .ids
            .insert(known.unwrap_or_else(|| MessageIds::new(of, stream.incarnation)));
        ids.write(record.offset, &mut self.message_id);
    }

    fn tell_time(&mut self, time: Timestamp) {
        self.stamp.clear();
        self.stamps.write(time, &mut self.stamp);
    }

    /// Returns the facts of a control event; a record has more.
    fn facts(&self, time: Timestamp, now: Timestamp, xid: Xid) -> Facts<'_> {
        // Both were made from text.
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        Facts {
            time,
            stamp: text(&self.stamp),
            now,
            xid,
            record: None,
            message_id: text(&self.message_id),
        }
    }
}

fn gaps(missing: &Missing) -> Vec<MissedOffsets> {
    let gap = |&(partition, from, to): &(Partition, u64, u64)| MissedOffsets {
        partition,
        from: crate::model::ids::Offset(from),
        to: crate::model::ids::Offset(to),
    };
    missing.iter().map(gap).collect()
}
