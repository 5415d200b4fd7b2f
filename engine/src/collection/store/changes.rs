//! What changed lately, for those who follow: keys by batch, and merges by number. Who is farther behind reads all anew.

use super::{
    super::{
        processes,
        redo::{Image, Plan},
    },
    Batch, CHANGES, CollectionError, MERGES, Store,
};
use roxanne_core::format::superblock::FIRST_PAGE_OFFSET;
use std::{
    sync::{PoisonError, RwLockWriteGuard},
    time::Duration,
};

/// Bytes of keys of a part; at least one part is kept, at most three.
const PART_BYTES: u64 = 32 << 20;
/// Batches from before it was opened that are kept.
const BATCHES_KEPT: u64 = 1 << 16;
/// Merges that are kept.
const MERGES_KEPT: u64 = 16;

/// Batches are forgotten a part at a time.
#[derive(Default)]
pub(super) struct Parts {
    bytes: u64,
    /// The first batch of this part, and of the one before.
    first: u64,
    before: u64,
}

/// A merge, and the pages that it wrote.
pub(in super::super) struct MergeDone {
    pub(in super::super) plan: Plan,
    pub(in super::super) pages: Vec<u32>,
}

/// The numbers of the pages of graph.rx among the images of a merge.
pub(in super::super) fn pages_of(images: &[Image]) -> Vec<u32> {
    let pages = images.iter().filter(|image| image.file == 0 && image.offset >= FIRST_PAGE_OFFSET);
    pages.map(|image| ((image.offset - FIRST_PAGE_OFFSET) / image.bytes.len().max(1) as u64) as u32).collect()
}

impl Store {
    /// Forgets what nobody follows any more, where this is opened for writing.
    pub(super) fn forget_old_changes(&self) -> Result<(), CollectionError> {
        let sequence = self.state()?.sequence;
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = Parts { bytes: 0, first: sequence, before: sequence };
        let mut batch = Batch::default();
        let kept = sequence.saturating_sub(BATCHES_KEPT);
        batch.0.delete_range_cf(self.family(CHANGES), 0u64.to_be_bytes(), kept.to_be_bytes());
        self.commit(batch).map_err(|error| self.failed(&error))
    }

    /// Says that a batch changed these keys.
    pub(in super::super) fn put_changes<'a>(&self, batch: &mut Batch, sequence: u64, keys: impl Iterator<Item = &'a [u8]>) {
        let mut value = Vec::new();
        for key in keys {
            value.extend_from_slice(&(key.len() as u32).to_le_bytes());
            value.extend_from_slice(key);
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.bytes += value.len() as u64;
        if parts.bytes > PART_BYTES {
            batch.0.delete_range_cf(self.family(CHANGES), 0u64.to_be_bytes(), parts.before.to_be_bytes());
            *parts = Parts { bytes: 0, first: sequence, before: parts.first };
        }
        batch.0.put_cf(self.family(CHANGES), sequence.to_be_bytes(), value);
    }

    /// The keys that a batch changed; `None` where that is no longer known.
    pub(in super::super) fn changes(&self, sequence: u64) -> Result<Option<Vec<Vec<u8>>>, CollectionError> {
        let value = self.db.get_cf(self.family(CHANGES), sequence.to_be_bytes()).map_err(|error| self.failed(&error))?;
        let Some(value) = value else { return Ok(None) };
        let (mut keys, mut rest) = (Vec::new(), value.as_slice());
        while !rest.is_empty() {
            let split =
                rest.split_first_chunk::<4>().and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
            let Some((key, after)) = split else { return Err(self.damaged(format!("the keys of batch {sequence} are cut off"))) };
            keys.push(key.to_vec());
            rest = after;
        }
        Ok(Some(keys))
    }

    pub(super) fn put_merge(&self, batch: &mut Batch, plan: &Plan, pages: &[u32]) {
        let text = plan.to_bytes();
        let pages: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        let value = [&(text.len() as u64).to_le_bytes()[..], &text, &pages].concat();
        batch.0.put_cf(self.family(MERGES), plan.epoch.to_be_bytes(), value);
        batch.0.delete_cf(self.family(MERGES), plan.epoch.saturating_sub(MERGES_KEPT).to_be_bytes());
    }

    /// What a merge into the base did; `None` where that is no longer known.
    pub(in super::super) fn merge_done(&self, epoch: u64) -> Result<Option<MergeDone>, CollectionError> {
        let value = self.db.get_cf(self.family(MERGES), epoch.to_be_bytes()).map_err(|error| self.failed(&error))?;
        let Some(value) = value else { return Ok(None) };
        let parsed = value.split_first_chunk::<8>().and_then(|(length, rest)| {
            let (text, pages) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            let (pages, rest) = pages.as_chunks::<4>();
            let plan = Plan::from_bytes(epoch, text).filter(|_| rest.is_empty())?;
            Some(MergeDone { plan, pages: pages.iter().map(|page| u32::from_le_bytes(*page)).collect() })
        });
        parsed.map(Some).ok_or_else(|| self.damaged(format!("merge {epoch} is {} bytes", value.len())))
    }

    /// As [`Store::catch_up`], for who holds its guard.
    pub(in super::super) fn catch_up_held(&self) -> Result<(), CollectionError> {
        // No file goes between being named and being opened.
        let _files = processes::look_at_files(&self.path)?;
        self.db.try_catch_up_with_primary().map_err(|error| self.failed(&error))
    }

    /// Removes files that are needed no more, unless somebody is looking at them this moment; RocksDB removes none by itself.
    pub(in super::super) fn remove_old_files(&self) -> Result<(), CollectionError> {
        let Some(_files) = processes::change_files(&self.path, Duration::ZERO)? else { return Ok(()) };
        self.db.enable_file_deletions().and_then(|()| self.db.disable_file_deletions()).map_err(|error| self.failed(&error))
    }

    /// Sees what was written since, where this follows another; nobody reads two things of it while the guard is held.
    pub(in super::super) fn catch_up(&self) -> Result<Option<RwLockWriteGuard<'_, ()>>, CollectionError> {
        let Some(still) = &self.still else { return Ok(None) };
        let guard = still.write().unwrap_or_else(PoisonError::into_inner);
        self.catch_up_held()?;
        Ok(Some(guard))
    }
}
