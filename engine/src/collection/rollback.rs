//! Back to the base before a promotion, which is kept for that: what was written since stays written.
//!
//! The base before is what it was when it was replaced; the store kept what it said of its nodes, and the vectors and deletions that the new base made
//! unnecessary (`store::before`). Those, and what was written since the promotion, come into memory again: their keys, never their nodes, cross from one base
//! to the other. What the promoted base brought itself is gone with it.

use super::{
    Collection, CollectionError, PointKey,
    commit::Writer,
    delta::{Delta, MAX_SLOTS},
    handover::{Notice, PromoteMode, Way},
    keys::node_of,
    locked,
    publish::{check_base, name_of},
    store::{Batch, Before, NO_NODE},
};
use crate::Index;
use std::{fs, sync::Arc};

impl Collection {
    /// The last batch of which the base was built that [`Collection::rollback`] brings back, where one is kept.
    ///
    /// # Errors
    /// A failing disk; corruption.
    pub fn previous(&self) -> Result<Option<u64>, CollectionError> {
        Ok(self.inner().store.before()?.map(|before| before.sequence))
    }

    /// Puts the base before the last promotion back into its place: what was written since is kept, what the promoted base brought goes with it.
    /// Searches go on meanwhile, writes wait.
    ///
    /// # Errors
    /// `NoPrevious` where none is kept; a base that cannot be opened; `DeltaFull` where what was written since does not fit memory; a failing disk. The base
    /// that is there serves on then.
    pub fn rollback(&self) -> Result<(), CollectionError> {
        self.rollback_with(self.inner().options.mode, None)
    }

    /// The same, in the memory that `mode` says; `notice` hears that searches are about to be refused, where it does so.
    ///
    /// # Errors
    /// As [`Collection::rollback`], and as [`Collection::promote_with`].
    pub fn rollback_with(&self, mode: PromoteMode, notice: Option<&Notice<'_>>) -> Result<(), CollectionError> {
        let inner = self.inner();
        if inner.options.read_only {
            return Err(CollectionError::ReadOnly { path: inner.path.clone() });
        }
        let no_merge = locked(&inner.merging);
        let before = inner.store.before()?.ok_or_else(|| CollectionError::NoPrevious { path: inner.path.clone() })?;
        self.open_in_place(&inner.path.join(&before.name), Way { mode, notice }, &no_merge, |base| {
            check_base(&base, &inner.config, &before.name).map_err(|detail| inner.store.damaged(detail))?;
            self.put_back(&base, &before)
        })
    }

    /// Puts the base that was `before` into the place of the one that is there.
    fn put_back(&self, base: &Index, before: &Before) -> Result<(), CollectionError> {
        let inner = self.inner();
        let store = &inner.store;
        let mut writer = locked(&inner.writer);
        writer.check(&inner.path)?;
        let (mut batch, delta) = (Batch::default(), Arc::new(Delta::new(inner.distance, inner.config.metric)));
        // A batch of its own: who exported before it, or followed before it, speaks of another base.
        let sequence = writer.sequence + 1;
        let mut next = Writer::new(sequence, Some(base.clone()), sequence, delta);
        next.merged = before.merged;
        next.take_slots(store, |each| store.each_run_before(each))?;
        let replaced = writer.base.as_ref().map(name_of).unwrap_or_default();
        store.put_back(&mut batch, before, sequence, &replaced)?;

        let key_of =
            |key: &[u8]| PointKey::from_bytes(inner.config.keys, key).ok_or_else(|| store.damaged(format!("a key of {} bytes", key.len())));
        let node_then = |bytes: &[u8], key: &PointKey| -> Result<u32, CollectionError> {
            Ok(match store.node_before(bytes)? {
                Some(node) => node,
                None => node_of(Some(base), key)?.unwrap_or(NO_NODE),
            })
        };
        // Deleted since, and before.
        store.each_deleted(|bytes, deleted_at, _| {
            let node = node_then(bytes, &key_of(bytes)?)?;
            next.stay_away(node);
            store.put_deleted(&mut batch, bytes, deleted_at, node);
            Ok(())
        })?;
        store.each_deleted_before(|bytes, deleted_at| {
            if store.is_untouched(bytes)? {
                let node = node_then(bytes, &key_of(bytes)?)?;
                next.stay_away(node);
                store.put_deleted(&mut batch, bytes, deleted_at, node);
            }
            Ok(())
        })?;
        // Written since: in memory, or merged or built into the base that goes.
        let mut put = |next: &mut Writer, key: PointKey, bytes: &[u8], row: &[u8]| -> Result<(), CollectionError> {
            let node = node_then(bytes, &key)?;
            store.put_vector(&mut batch, bytes, node, row);
            next.append(key, row.into(), node);
            let (bytes, allowed) = (next.delta_bytes, inner.options.delta_bytes);
            if bytes > allowed || u64::from(next.len) >= MAX_SLOTS { Err(CollectionError::DeltaFull { bytes, allowed }) } else { Ok(()) }
        };
        for slot in (0..writer.len).filter(|&slot| !writer.delta_dead.contains(slot)) {
            let slot = writer.delta.slot(slot);
            put(&mut next, slot.key.clone(), &slot.key.to_bytes(), &slot.row)?;
        }
        if let Some(now) = &writer.base {
            store.each_merged_after(before.promoted, |bytes| {
                let key = key_of(bytes)?;
                let Some(node) = store.node_in(Some(now), &key)? else { return Ok(()) };
                let row = now.row_of(node)?;
                put(&mut next, key, bytes, &row)
            })?;
        }
        // Written before it was replaced, and not since.
        store.each_vector_before(|bytes, row| {
            let key = key_of(bytes)?;
            let is_there = next.slots.contains_key(&key) || store.written_at(bytes)?.is_none();
            if is_there { Ok(()) } else { put(&mut next, key, bytes, row) }
        })?;
        store.commit_synced(batch).map_err(|error| writer.outcome_unknown(&inner.path, &error))?;
        let gone = writer.base.as_ref().map(|base| base.info().path.clone());
        *writer = next;
        inner.publish(&writer);
        drop(writer);
        inner.keeper.wake();
        gone.into_iter().for_each(|gone| drop(fs::remove_dir_all(gone)));
        Ok(())
    }

    /// Keeps the base before the last promotion no more; its directory is removed.
    ///
    /// # Errors
    /// As [`Collection::write`].
    pub fn forget_previous(&self) -> Result<(), CollectionError> {
        let inner = self.inner();
        if inner.options.read_only {
            return Err(CollectionError::ReadOnly { path: inner.path.clone() });
        }
        let _no_merge = locked(&inner.merging);
        let Some(before) = inner.store.before()? else { return Ok(()) };
        let mut writer = locked(&inner.writer);
        writer.check(&inner.path)?;
        let mut batch = Batch::default();
        inner.store.forget_before(&mut batch);
        inner.store.put_replaced(&mut batch, &before.name);
        inner.store.commit_synced(batch).map_err(|error| writer.outcome_unknown(&inner.path, &error))?;
        drop(writer);
        // The next opening does it where this is cut off.
        let _ = fs::remove_dir_all(inner.path.join(&before.name));
        Ok(())
    }
}
