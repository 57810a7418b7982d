//! State shared by the writer, readers and callers: one view of durable data under a short lock, and change notices.

use std::sync::{Mutex, RwLock};

use tokio::sync::{mpsc, watch};

use crate::{
    model::ids::{Offset, Partition, PartitionId, StreamId},
    storage::{Epoch, Lease, LeaseEvent},
};

use super::{
    PARTITIONS_MAX,
    books::Books,
    format::{block::Slot, codec::Malformed, frame::Frame, ops::Op, segment::Files},
    lock,
    read::{
        blocks::{BlockRef, Blocks},
        cache::Cache,
        index::Index,
        lookup::SegmentScan,
    },
    space::usage::Usage,
    write::condition::Condition,
};

/// The only epoch of this engine, which never passes a lease to another process.
pub(in crate::storage) const EPOCH: Epoch = Epoch(1);

/// The shared state.
#[derive(Debug)]
pub(in crate::storage) struct EngineState {
    pub(in crate::storage) view: RwLock<View>,
    pub(in crate::storage) files: Files,
    pub(in crate::storage) index: Index,
    /// Use of sealed files. Lock order: the view first, then this.
    pub(in crate::storage) usage: Mutex<Usage>,
    pub(in crate::storage) condition: Condition,
    pub(in crate::storage) streams_changed: watch::Sender<u64>,
    pub(in crate::storage) writer_ended: watch::Sender<bool>,
    watchers: Mutex<Vec<(Box<str>, watch::Sender<u64>)>>,
    holders: Mutex<Vec<Holder>>,
}

/// The durable data, as readers see it.
#[derive(Debug)]
pub(in crate::storage) struct View {
    pub(in crate::storage) books: Books,
    pub(in crate::storage) blocks: Blocks,
    pub(in crate::storage) cache: Cache,
}

/// A receiver of the leases on a stream's partitions.
#[derive(Debug)]
struct Holder {
    stream: StreamId,
    granted: u16,
    events: mpsc::Sender<LeaseEvent>,
}

impl View {
    /// Applies a frame.
    fn add(&mut self, segment: u64, frame: &Frame) -> Result<(), Malformed> {
        self.books.last_time = self.books.last_time.max(frame.header.at.time);
        for op in &frame.ops {
            self.books.apply(op)?;
            match op {
                Op::Append(block) => {
                    self.blocks.add(block.slot, BlockRef::new(segment, block));
                }
                Op::StreamGone { stream } => {
                    self.blocks.remove_stream(*stream);
                    self.cache.remove_stream(*stream);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies a frame that recovery has read. It does not go into the cache.
    pub(in crate::storage) fn replay(
        &mut self,
        segment: u64,
        frame: &Frame,
    ) -> Result<(), Malformed> {
        self.add(segment, frame)?;
        for op in &frame.ops {
            if let Op::Append(block) = op
                && let Some(partition) = self.books.partition(block.slot)
            {
                partition.tail.send_replace(Offset(partition.next));
            }
        }
        Ok(())
    }
}

impl EngineState {
    pub(in crate::storage) fn new(view: View, files: Files, index: Index) -> Self {
        Self {
            view: RwLock::new(view),
            files,
            index,
            usage: Mutex::default(),
            condition: Condition::new(),
            streams_changed: watch::Sender::new(0),
            writer_ended: watch::Sender::new(false),
            watchers: Mutex::default(),
            holders: Mutex::default(),
        }
    }

    /// Notes the use of a sealed file. A damaged file has no known use, and is never freed or rewritten.
    pub(in crate::storage) fn note_usage(&self, number: u64, scan: &SegmentScan) {
        if !scan.damaged {
            lock::mutex(&self.usage).set(number, scan.usage.clone());
        }
    }

    /// Publishes a durable frame to readers, then wakes the waiting ones.
    pub(in crate::storage) fn publish(&self, segment: u64, frame: &Frame) -> Result<(), Malformed> {
        let mut tails: Vec<(Slot, watch::Sender<Offset>, Offset)> = Vec::new();
        let mut streams: Vec<StreamId> = Vec::new();
        {
            let mut view = lock::write(&self.view);
            for op in &frame.ops {
                if let Op::StreamGone { stream } = op {
                    streams.extend(view.books.id_of(*stream));
                }
            }
            view.add(segment, frame)?;
            let blocks = frame.ops.iter().filter_map(|op| match op {
                Op::Append(block) => Some(block),
                _ => None,
            });
            view.cache.add(frame.bytes.len(), blocks.clone());
            for block in blocks {
                if tails.iter().all(|(slot, ..)| *slot != block.slot)
                    && let Some(partition) = view.books.partition(block.slot)
                {
                    let next = Offset(partition.next);
                    tails.push((block.slot, partition.tail.clone(), next));
                }
            }
        }
        for (_, tail, next) in tails {
            tail.send_replace(next);
        }
        for op in &frame.ops {
            match op {
                Op::StatePut { key, .. } | Op::StateDelete { key, .. } => self.state_changed(key),
                Op::StreamMade(image) | Op::StreamChanged(image) => streams.push(image.stream.id),
                _ => {}
            }
        }
        for stream in streams {
            self.streams_changed.send_modify(|count| *count += 1);
            self.tell_holders(stream);
        }
        Ok(())
    }

    /// Returns a counter of changes under `prefix`.
    pub(in crate::storage) fn watch_state(&self, prefix: &str) -> watch::Receiver<u64> {
        let mut watchers = lock::mutex(&self.watchers);
        watchers.retain(|(_, watcher)| watcher.receiver_count() > 0);
        let known = watchers.iter().find(|(known, _)| **known == *prefix);
        if let Some((_, watcher)) = known {
            return watcher.subscribe();
        }
        let (watcher, receiver) = watch::channel(0);
        watchers.push((prefix.into(), watcher));
        receiver
    }

    fn state_changed(&self, key: &str) {
        for (prefix, watcher) in lock::mutex(&self.watchers).iter() {
            if key.starts_with(&**prefix) {
                watcher.send_modify(|count| *count += 1);
            }
        }
    }

    /// Grants every partition: the present ones now, later ones when they are made.
    pub(in crate::storage) fn hold(&self, stream: StreamId) -> mpsc::Receiver<LeaseEvent> {
        // Each partition is granted once and lost once, so the channel never fills and a slow receiver never blocks the
        // writer.
        let (events, receiver) = mpsc::channel(2 * usize::from(PARTITIONS_MAX));
        lock::mutex(&self.holders).push(Holder {
            stream,
            granted: 0,
            events,
        });
        self.tell_holders(stream);
        receiver
    }

    fn tell_holders(&self, stream: StreamId) {
        let mut holders = lock::mutex(&self.holders);
        // Read the view under the lock of the holders, so that two calls cannot send older news after newer.
        let partitions = {
            let view = lock::read(&self.view);
            view.books
                .with_id(stream)
                .map(|(_, book)| book.stream.partitions)
        };
        holders.retain_mut(|holder| {
            if holder.stream != stream {
                return !holder.events.is_closed();
            }
            let of = |partition| PartitionId {
                stream,
                partition: Partition(partition),
            };
            let events: Vec<_> = match partitions {
                Some(partitions) => (holder.granted..partitions)
                    .map(|partition| {
                        LeaseEvent::Granted(Lease {
                            of: of(partition),
                            epoch: EPOCH,
                        })
                    })
                    .collect(),
                None => (0..holder.granted)
                    .map(|partition| LeaseEvent::Lost(of(partition)))
                    .collect(),
            };
            holder.granted = partitions.unwrap_or_default();
            let told = events
                .into_iter()
                .all(|event| holder.events.try_send(event).is_ok());
            told && partitions.is_some()
        });
    }
}
