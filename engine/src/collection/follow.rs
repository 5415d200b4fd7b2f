//! Readers that follow: a process that only reads sees what another writes, a moment later.
//!
//! Its store is a secondary of the writer's RocksDB. What a batch or a merge changed stands in it (`store::changes`), so catching up is work in proportion
//! to what was written, and ends in a snapshot as the writer publishes one. The pages of a base that is changed in place were written before; of those
//! that a reader keeps it forgets what is older. Only when it has caught up, and none of its searches sees anything older, does it say so
//! (`processes::Seen`), and only then are slots emptied, or used again, that it might have looked at.

use super::{
    Collection, CollectionError, Inner, MOST_LOOKS, PointKey, Snapshot,
    commit::Writer,
    delta::MAX_SLOTS,
    locked,
    processes::{self, Seen},
    publish::name_of,
    store::{MergeDone, NO_NODE, State, View},
};
use crate::Index;
use roxanne_core::{format::superblock::BUILT, id::NodeId};
use std::{collections::BTreeSet, time::Duration};

/// How long what was written may stay unseen.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

impl Collection {
    /// Sees, from now on, at least what was acknowledged before the call, where this follows a writer; gives the last batch that is seen. It happens by
    /// itself as well, twenty times a second.
    ///
    /// # Errors
    /// A failing disk; corruption. What was seen before is seen on.
    pub fn catch_up(&self) -> Result<u64, CollectionError> {
        self.inner().follow()?;
        Ok(self.stats().sequence)
    }
}

impl Inner {
    /// Brings the snapshot to where the writer is.
    pub(super) fn follow(&self) -> Result<(), CollectionError> {
        let Some(follower) = &self.follower else { return Ok(()) };
        let mut writer = locked(&self.writer);
        let Some(still) = self.store.catch_up()? else { return Ok(()) };
        let state = self.store.state()?;
        let name = |state: &State| state.base.as_ref().map(|(name, _)| name.clone());
        let same_base = writer.base.as_ref().map(name_of) == name(&state);
        if !writer.is_torn && same_base && (writer.sequence, writer.merged) == (state.sequence, state.merged) {
            return Ok(());
        }
        // Of a base that went and came back merges may be fewer.
        let may_take = !writer.is_torn && same_base && state.merged >= writer.merged && state.sequence >= writer.sequence;
        if !(may_take && self.take_changes(&mut writer, &state)?) {
            drop(still);
            // No merge writes while the base is opened, nor before this is known to look at two.
            let _opening = processes::enter(&self.path)?;
            follower.say(Seen::default())?;
            let _still = self.store.catch_up()?;
            *writer = self.load_latest()?;
        }
        self.publish(&writer);
        drop(writer);
        self.keeper.wake();
        Ok(())
    }

    /// What stands in the store, of a base that may be replaced, and removed, while it is opened.
    pub(super) fn load_latest(&self) -> Result<Writer, CollectionError> {
        let mut attempts = 0;
        loop {
            let state = self.store.state()?;
            let base = state.base.clone();
            match self.load(state) {
                Err(error) if attempts < MOST_LOOKS && self.follower.is_some() => {
                    attempts += 1;
                    self.store.catch_up_held()?;
                    if self.store.state()?.base == base {
                        return Err(error);
                    }
                }
                loaded => return loaded,
            }
        }
    }

    /// Tells the writer what no search here sees any more: nothing while some see one base and some another.
    pub(super) fn say_what_is_seen(&self) -> Result<(), CollectionError> {
        let Some(follower) = &self.follower else { return Ok(()) };
        // Nobody takes up another base between the look and what is said of it.
        let _writer = locked(&self.writer);
        let held = self.pins.held();
        let generation = |snapshot: &Snapshot| snapshot.base.as_ref().map_or(0, |base| base.info().generation);
        let seen = match held.first() {
            Some(oldest) if held.iter().all(|one| generation(one) == generation(oldest)) => {
                Seen { generation: generation(oldest), merged: oldest.merged, sequence: oldest.sequence }
            }
            _ => Seen::default(),
        };
        follower.say(seen)
    }

    /// Why what is asked for cannot be told: the store has gone on, and the base that it speaks of could not be followed.
    pub(super) fn is_behind(&self) -> CollectionError {
        let detail = locked(&self.trouble).clone().unwrap_or_else(|| "open it again".to_string());
        CollectionError::Behind { path: self.path.clone(), detail }
    }

    /// Takes what batches and merges did since; false where some of it is no longer known, and nothing was changed then.
    fn take_changes(&self, writer: &mut Writer, state: &State) -> Result<bool, CollectionError> {
        let mut touched: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut merges = Vec::new();
        // A build is number 1.
        for epoch in writer.merged.max(BUILT) + 1..=state.merged {
            let Some(done) = self.store.merge_done(epoch)? else { return Ok(false) };
            merges.push(done);
        }
        for sequence in writer.sequence + 1..=state.sequence {
            let Some(keys) = self.store.changes(sequence)? else { return Ok(false) };
            touched.extend(keys);
        }
        for done in &merges {
            touched.extend(done.plan.merged.iter().map(|merged| merged.key.clone()));
            touched.extend(done.plan.freed.iter().map(|freed| freed.key.clone()));
        }
        if u64::from(writer.len) + touched.len() as u64 > MAX_SLOTS {
            return Ok(false);
        }
        // Whatever breaks it off from here on, all is read anew.
        writer.is_torn = true;
        if let Some(base) = writer.base.clone() {
            merges.iter().try_for_each(|done| self.take_merge(writer, &base, done))?;
        }
        for key in &touched {
            self.take_key(writer, key)?;
        }
        (writer.sequence, writer.merged) = (state.sequence, state.merged);
        writer.is_torn = false;
        Ok(true)
    }

    /// Brings into memory what a merge changed of the base's files.
    fn take_merge(&self, writer: &mut Writer, index: &Index, done: &MergeDone) -> Result<(), CollectionError> {
        let (base, plan) = (&*index.base, &done.plan);
        let Some(live) = &base.live else { return Err(self.store.damaged("a base that is not changed in place was".to_string())) };
        let fits = plan.n <= live.capacity() && plan.merged.iter().all(|merged| u64::from(merged.node) < plan.n);
        if !(fits && plan.freed.iter().all(|freed| u64::from(freed.node) < plan.n)) {
            return Err(self.store.damaged(format!("merge {} is of {} nodes, there is room for {}", plan.epoch, plan.n, live.capacity())));
        }
        self.take_codes(base, plan)?;
        for merged in &plan.merged {
            live.set_generation(NodeId(merged.node), live.generation(NodeId(merged.node)));
        }
        for freed in &plan.freed {
            live.leave(NodeId(freed.node), freed.generation);
        }
        base.codes.grow(plan.n);
        base.pages.grow(base.layout.page_count(plan.n));
        done.pages.iter().for_each(|&page| live.wrote(u64::from(page), plan.epoch));
        writer.base_n = plan.n;
        for merged in &plan.merged {
            writer.occupy(merged.node);
            writer.stay_away(merged.replaces);
        }
        plan.freed.iter().for_each(|freed| writer.vacate(freed.node));
        Ok(())
    }

    /// Brings a key to where the store has it.
    fn take_key(&self, writer: &mut Writer, bytes: &[u8]) -> Result<(), CollectionError> {
        let Some(key) = PointKey::from_bytes(self.config.keys, bytes) else {
            return Err(self.store.damaged(format!("a changed key of {} bytes", bytes.len())));
        };
        let View { row, replaces, deleted, .. } = self.store.view_now(bytes)?;
        let node = self.store.node_in(writer.base.as_ref(), &key)?.filter(|&node| u64::from(node) < writer.base_n);
        match row {
            Some(row) if row.len() != self.config.element.row_bytes(self.config.dim) => {
                return Err(self.store.damaged(format!("the vector of key {key} is {} bytes", row.len())));
            }
            Some(row) => {
                let known = writer.slots.get(&key).map(|&slot| writer.delta.slot(slot));
                if !known.is_some_and(|slot| *slot.row == *row && slot.node == replaces) {
                    writer.append(key, row.into(), replaces);
                }
                writer.stay_away(node.unwrap_or(NO_NODE));
            }
            None => {
                if let Some(slot) = writer.slots.remove(&key) {
                    writer.delta_dead.insert(slot);
                }
                match node {
                    Some(node) if deleted => writer.stay_away(node),
                    Some(node) => writer.come_back(node),
                    None => {}
                }
            }
        }
        Ok(())
    }
}
