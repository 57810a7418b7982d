//! Settlements of records. They are read from the files, because memory keeps only which records are settled.
//!
//! A settlement is in the file of its record or in a later one. Files are read as a whole, at most [`FILES_MAX`] for a call
//! and one call at a time. A file of 64 MiB takes about 40 ms, because a journal is read and checked at 1 GiB in 0.6 s.
//! The index has no settlements, because every record would cost one entry more.

use std::{collections::HashMap, io, ops::Range, sync::Arc};

use super::{lookup::header, reader::RecordReader};
use crate::storage::local::{
    format::{
        block::Slot,
        ops::{Op, SettleRun, SettlementCode},
        scan::Frames,
    },
    lock,
};
use crate::{
    model::ids::{Offset, PartitionId},
    runtime::clock::Timestamp,
    storage::{ReadError, Settled, Settlement},
};

/// Bound of files that one call reads. Later settlements are not found.
const FILES_MAX: usize = 4;

/// Offsets whose settlements are sought, by partition.
type Sought = HashMap<Slot, (PartitionId, Range<u64>)>;

impl RecordReader {
    /// As [`Log::settled`](crate::storage::Log::settled).
    pub(in crate::storage) async fn settled(
        &self,
        sought: &[(PartitionId, Range<Offset>)],
    ) -> Result<Vec<Settled>, ReadError> {
        let (sought, ended_len) = self.ended(sought);
        if ended_len == 0 {
            return Ok(Vec::new());
        }
        // The semaphore is never closed. The read keeps the permit even if its caller goes away.
        let turn = self.settled_turn.clone().acquire_owned().await;
        let failed = |error: io::Error| ReadError::Io(Arc::new(error));
        self.on_disk(move |reader| {
            let _turn = turn;
            reader.find_settled(&sought, ended_len).map_err(failed)
        })
        .await
    }

    /// Returns the retained offsets of the sought ones, and how many of them are settled.
    fn ended(&self, sought: &[(PartitionId, Range<Offset>)]) -> (Sought, usize) {
        let view = lock::read(&self.shared.view);
        let mut ended_len = 0;
        let found = sought.iter().filter_map(|(of, offsets)| {
            let (slot, book) = view.books.partition_of(*of)?;
            let bounds = book.bounds();
            let start = offsets.start.max(bounds.earliest).0;
            let end = offsets.end.min(bounds.tail).0.max(start);
            let ended = (start..end).filter(|offset| book.settled.contains(*offset));
            ended_len += ended.count();
            Some((slot, (*of, start..end)))
        });
        (found.collect(), ended_len)
    }

    /// Reads files from the file of the first record on, until all settlements are found.
    fn find_settled(&self, sought: &Sought, ended_len: usize) -> io::Result<Vec<Settled>> {
        let mut first = u64::MAX;
        for (slot, (_, offsets)) in sought {
            if offsets.is_empty() {
                continue;
            }
            if let Some(block) = self.lookup.find(*slot, offsets.start)? {
                first = first.min(block.segment);
            }
        }
        let files = &self.shared.files;
        let mut settled = Vec::with_capacity(ended_len);
        let files = files
            .all()
            .into_iter()
            .filter(|(number, _)| *number >= first && self.may_have_ends(*number, sought));
        for (number, _) in files.take(FILES_MAX) {
            self.read_ends(number, sought, &mut settled)?;
            if settled.len() >= ended_len {
                break;
            }
        }
        Ok(settled)
    }

    /// Returns whether a file may have sought settlements. The use of the open file is unknown, so it may.
    fn may_have_ends(&self, number: u64, sought: &Sought) -> bool {
        let usage = lock::mutex(&self.shared.usage);
        usage.get(number).is_none_or(|usage| {
            sought.iter().any(|(slot, (_, offsets))| {
                usage
                    .ends
                    .get(slot)
                    .is_some_and(|share| share.first < offsets.end && offsets.start < share.end)
            })
        })
    }

    /// Adds the settlements of one file. The unreadable rest of a file is skipped, because the file may be reused by now.
    fn read_ends(
        &self,
        number: u64,
        sought: &Sought,
        settled: &mut Vec<Settled>,
    ) -> io::Result<()> {
        let files = &self.shared.files;
        let (Ok(this), Ok((life, file))) = (header(files, number), files.get(number)) else {
            return Ok(());
        };
        let mut frames = Frames::new(file, life, this.frames_at(), this.first_frame)?;
        while let Ok(frame) = frames.next()? {
            for op in &frame.ops {
                if let Op::Settle(run) = op
                    && let Some((of, offsets)) = sought.get(&run.slot)
                {
                    self.add_run(*of, run, offsets, settled);
                }
            }
            if frame.header.last {
                break;
            }
        }
        Ok(())
    }

    fn add_run(
        &self,
        of: PartitionId,
        run: &SettleRun,
        sought: &Range<u64>,
        settled: &mut Vec<Settled>,
    ) {
        let start = run.first.max(sought.start);
        let end = run.first.saturating_add(run.count).min(sought.end);
        for offset in start..end {
            let copy = run.copies.and_then(|((stream, _), first)| {
                let stream = lock::read(&self.shared.view).books.id_of(stream)?;
                Some((stream, Offset(first + (offset - run.first))))
            });
            settled.push(Settled {
                of,
                offset: Offset(offset),
                end: match run.end {
                    SettlementCode::Delivered => Settlement::Delivered,
                    SettlementCode::Filtered => Settlement::Filtered,
                    SettlementCode::Discarded => Settlement::Discarded,
                    SettlementCode::Routed | SettlementCode::Moved => Settlement::Moved { copy },
                },
                attempts: run.attempts,
                status: (run.status != 0).then_some(run.status),
                time: Timestamp(run.time),
            });
        }
    }
}
