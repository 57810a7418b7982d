//! Frees space: removes files without live data, and compacts files that are less than one eighth live.
//!
//! ```text
//! trim, or removal of a stream: durable -> out of the index -> name gone, durable -> ready for the writer
//! ```
//!
//! Only the oldest file is freed, so that a gap in the numbers always means a missing file. The two newest files are never
//! changed, because a damaged snapshot of the newest file is rebuilt from the file before.

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use crate::runtime::clock::Clock;

use super::{rewrite::Rewrite, spare::Spares, usage::SegmentUsage};
use crate::storage::local::{
    books::Books,
    lock,
    read::lookup::{self, SegmentScan},
    shared::EngineState,
};

/// Files that are kept as they are: the open one and the one before.
const NEWEST_LEN: u64 = 2;
/// A file that ends before so much of it is used is cut off behind its last frame.
const SPARE_PART: u64 = 4;
/// A file is written again when no more than one part in so many of it is still needed.
const LIVE_PART: u64 = 8;

/// Returns about how many bytes of a file nobody needs.
fn dead_bytes(used: &SegmentUsage, books: &Books) -> u64 {
    used.bytes().saturating_sub(used.live_bytes(books))
}

/// Frees, cuts and rewrites; the housekeeper's.
#[derive(Debug)]
pub(in crate::storage) struct Reclaimer {
    pub(in crate::storage) shared: Arc<EngineState>,
    pub(in crate::storage) spares: Arc<Spares>,
    pub(in crate::storage) clock: Clock,
    pub(in crate::storage) segment_bytes: u64,
    /// Set after an error of the disk. The state of the files is then unknown, so nothing more is freed until a restart.
    stuck: bool,
    /// When a file could not be written again.
    failed: Option<Instant>,
    /// Dead bytes that were left in files when they were written again.
    stays: BTreeMap<u64, u64>,
}

impl Reclaimer {
    pub(in crate::storage) fn new(
        shared: Arc<EngineState>,
        spares: Arc<Spares>,
        clock: Clock,
        segment_bytes: u64,
    ) -> Self {
        Self {
            shared,
            spares,
            clock,
            segment_bytes,
            stuck: false,
            failed: None,
            stays: BTreeMap::new(),
        }
    }

    /// Does one piece of work; returns whether there may be more. `go_on` is asked between steps.
    pub(in crate::storage) fn work(&mut self, go_on: &mut dyn FnMut() -> bool) -> bool {
        if self.stuck {
            return false;
        }
        if let Some(number) = self.freeable() {
            return match self.free(number) {
                Ok(()) => true,
                Err(error) => {
                    let file = self.shared.files.path(number);
                    tracing::error!(file = %file.display(), %error, "cannot free a journal file; no more are freed until a restart");
                    self.stuck = true;
                    false
                }
            };
        }
        let Some(number) = self.rewritable() else {
            return false;
        };
        match self.rewrite(number, go_on) {
            Ok(written) => written,
            Err(error) => {
                let file = self.shared.files.path(number);
                tracing::warn!(file = %file.display(), %error, "cannot write a journal file again with what is left of it");
                self.failed = Some(Instant::now());
                false
            }
        }
    }

    /// Returns the oldest file if nobody needs it.
    fn freeable(&self) -> Option<u64> {
        let files = &self.shared.files;
        let oldest = files.oldest()?;
        if !self.is_settled(oldest) {
            return None;
        }
        let view = lock::read(&self.shared.view);
        let usage = lock::mutex(&self.shared.usage);
        let now = self.clock.now().0.max(view.books.last_time);
        let is_dead = usage.get(oldest)?.is_dead(&view.books, now);
        is_dead.then_some(oldest)
    }

    /// Whether a file is none of the newest.
    fn is_settled(&self, number: u64) -> bool {
        let newest = self.shared.files.newest();
        newest.is_some_and(|newest| number + NEWEST_LEN <= newest)
    }

    fn free(&mut self, number: u64) -> io::Result<()> {
        self.stays.remove(&number);
        let EngineState {
            files,
            index,
            usage,
            ..
        } = &*self.shared;
        let Some(used) = lock::mutex(usage).get(number).cloned() else {
            return Ok(());
        };
        index.unmark(number);
        {
            let _nobody_reads = lock::write(&files.in_use);
            index.remove(number, &used);
            files.forget(number);
        }
        lock::mutex(usage).remove(number);
        let kept = self.spares.take_back(files, number, self.segment_bytes)?;
        tracing::info!(file = %files.path(number).display(), kept, "freed a journal file");
        Ok(())
    }

    /// Cuts off what a file that takes no more frames has behind its last one, if that is much.
    pub(in crate::storage) fn shrink(&self, number: u64, end: u64) -> io::Result<()> {
        let files = &self.shared.files;
        if files.newest() == Some(number) {
            return Ok(());
        }
        let (_, file) = files.get(number)?;
        let len = file.len()?;
        if len.saturating_sub(end) > len / SPARE_PART {
            file.truncate(end)?;
        }
        Ok(())
    }

    /// Returns the file that gives back most for what has to be written.
    fn rewritable(&self) -> Option<u64> {
        let waits = self
            .failed
            .is_some_and(|at| at.elapsed() < super::housekeeper::FAILURE_WAIT);
        if waits {
            return None;
        }
        let view = lock::read(&self.shared.view);
        let usage = lock::mutex(&self.shared.usage);
        let worth = usage.iter().filter_map(|(number, used)| {
            let bytes = used.bytes();
            let dead = dead_bytes(used, &view.books);
            // Blocks are kept whole: what of them was dead when the file was written again would be so once more.
            let stays = self.stays.get(&number).copied().unwrap_or_default();
            let gain = dead.saturating_sub(stays);
            let much = gain >= self.segment_bytes / LIVE_PART && dead >= bytes - bytes / LIVE_PART;
            much.then_some((gain, number))
        });
        let (_, number) = worth.filter(|(_, number)| self.is_settled(*number)).max()?;
        drop((usage, view));
        // Without an index, places in files are also known elsewhere.
        self.shared.index.has(number).then_some(number)
    }

    /// Writes a file again with only what is needed of it; returns whether it did.
    fn rewrite(&mut self, number: u64, go_on: &mut dyn FnMut() -> bool) -> io::Result<bool> {
        let EngineState { files, index, .. } = &*self.shared;
        let Some(rewrite) = Rewrite::begin(&self.shared, &self.spares, number, go_on)? else {
            return Ok(false);
        };
        index.unmark(number);
        let (life, scan) = {
            let _nobody_reads = lock::write(&files.in_use);
            let old = lock::mutex(&self.shared.usage).get(number).cloned();
            let (life, before, after) = rewrite.name(files)?;
            if let Some(old) = old {
                index.remove(number, &old);
            }
            let scan = lookup::scan(files, number)?;
            index.add_blocks(number, &scan);
            tracing::info!(file = %files.path(number).display(), before, after, "wrote a journal file again with what is left of it");
            (life, scan)
        };
        self.spares.sync_names(files)?;
        self.shared.note_usage(number, &scan);
        index.mark(number, life, &scan.usage);
        let stays = dead_bytes(&scan.usage, &lock::read(&self.shared.view).books);
        self.stays.insert(number, stays);
        Ok(true)
    }

    /// Notes what a file holds that takes no more frames, and cuts it off.
    pub(in crate::storage) fn sealed(&self, number: u64, scan: &SegmentScan) {
        self.shared.note_usage(number, scan);
        if !scan.damaged
            && let Err(error) = self.shrink(number, scan.end)
        {
            let file = self.shared.files.path(number);
            tracing::warn!(file = %file.display(), %error, "cannot cut off the unused end of a journal file");
        }
    }
}
