//! The newest frames in memory. Readers near the tail need no disk.

use std::collections::{HashMap, VecDeque};

use crate::storage::local::format::block::{Block, Slot};

/// Cost of a frame beside its bytes, so that the bound also holds for many small frames.
const FRAME_COST: usize = 256;

/// Blocks of the newest frames, bounded by the bytes of these frames.
#[derive(Debug)]
pub(in crate::storage) struct Cache {
    by_slot: HashMap<Slot, VecDeque<Block>>,
    /// Cost of each frame, and slot and first offset of its blocks; oldest first.
    frames: VecDeque<(usize, Vec<(Slot, u64)>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(in crate::storage) fn new(bytes_max: usize) -> Self {
        Self {
            by_slot: HashMap::new(),
            frames: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds the blocks of a frame, which share `bytes` bytes.
    pub(in crate::storage) fn add<'a>(
        &mut self,
        bytes: usize,
        blocks: impl Iterator<Item = &'a Block>,
    ) {
        let mut held = Vec::new();
        for block in blocks {
            held.push((block.slot, block.first));
            self.by_slot
                .entry(block.slot)
                .or_default()
                .push_back(block.clone());
        }
        if held.is_empty() {
            return;
        }
        let cost = bytes + FRAME_COST;
        self.frames.push_back((cost, held));
        self.bytes += cost;
        while self.bytes > self.bytes_max
            && let Some((cost, held)) = self.frames.pop_front()
        {
            self.bytes -= cost;
            for (slot, first) in held {
                self.remove(slot, first);
            }
        }
    }

    /// Returns the blocks from the one that holds `offset` up to the tail, or none.
    pub(in crate::storage) fn from(&self, slot: Slot, offset: u64) -> impl Iterator<Item = &Block> {
        let blocks = self.by_slot.get(&slot);
        let behind = blocks.map_or(0, |b| b.partition_point(|block| block.first <= offset));
        let blocks = blocks.filter(|_| behind > 0).map(|b| b.range(behind - 1..));
        let mut blocks = blocks.into_iter().flatten().peekable();
        let held = blocks.peek().is_some_and(|block| offset < block.end());
        blocks.filter(move |_| held)
    }

    pub(in crate::storage) fn remove_stream(&mut self, stream: u32) {
        self.by_slot.retain(|(of, _), _| *of != stream);
    }

    fn remove(&mut self, slot: Slot, first: u64) {
        if let Some(blocks) = self.by_slot.get_mut(&slot) {
            if blocks.front().is_some_and(|block| block.first == first) {
                blocks.pop_front();
            }
            if blocks.is_empty() {
                self.by_slot.remove(&slot);
            }
        }
    }
}
