//! Places of blocks that the index does not have yet: blocks of the open file and of files just sealed.

use std::collections::{HashMap, VecDeque};

use crate::storage::local::format::block::{Block, Slot};

/// Place and contents of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct BlockRef {
    /// Number of its file.
    pub(in crate::storage) segment: u64,
    pub(in crate::storage) place: u64,
    pub(in crate::storage) len: u32,
    pub(in crate::storage) count: u32,
    pub(in crate::storage) first: u64,
    pub(in crate::storage) first_time: u64,
}

impl BlockRef {
    pub(in crate::storage) fn new(segment: u64, block: &Block) -> Self {
        Self {
            segment,
            place: block.place,
            len: crate::storage::local::format::codec::len_u32(block.len()),
            count: block.count,
            first: block.first,
            first_time: block.base_time,
        }
    }

    pub(in crate::storage) fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    pub(in crate::storage) fn holds(&self, offset: u64) -> bool {
        (self.first..self.end()).contains(&offset)
    }
}

/// Blocks by partition, in the order of their offsets.
#[derive(Debug, Default)]
pub(in crate::storage) struct Blocks {
    by_slot: HashMap<Slot, VecDeque<BlockRef>>,
}

impl Blocks {
    pub(in crate::storage) fn add(&mut self, slot: Slot, block: BlockRef) {
        self.by_slot.entry(slot).or_default().push_back(block);
    }

    /// Returns the block that holds an offset.
    pub(in crate::storage) fn find(&self, slot: Slot, offset: u64) -> Option<BlockRef> {
        let blocks = self.by_slot.get(&slot)?;
        let behind = blocks.partition_point(|block| block.first <= offset);
        let block = blocks.get(behind.checked_sub(1)?)?;
        block.holds(offset).then_some(*block)
    }

    /// Removes the blocks of a file and of all files before it, which the index has now.
    pub(in crate::storage) fn remove_up_to(&mut self, segment: u64) {
        self.by_slot.retain(|_, blocks| {
            while blocks.front().is_some_and(|block| block.segment <= segment) {
                blocks.pop_front();
            }
            !blocks.is_empty()
        });
    }

    pub(in crate::storage) fn remove_stream(&mut self, stream: u32) {
        self.by_slot.retain(|(of, _), _| *of != stream);
    }
}
