//! What a merge of vectors into the base means for the store, and the state of the base's slots.

use super::{
    super::redo::{Freed, Merged, Plan},
    Batch, CollectionError, DELETED, META, NAMES, NO_NODE, NODES, SLOTS, Store, VECTORS, name_key,
};
use std::collections::{BTreeMap, HashSet, btree_map::Entry};
use xxhash_rust::xxh3::xxh3_64;

/// The state of a slot: the number of its use, ...
pub(in super::super) const SLOT_GENERATION: u8 = (1 << 6) - 1;
/// ... whether its node was replaced by another, ...
pub(in super::super) const SLOT_DEAD: u8 = 1 << 6;
/// ... and whether it has none.
pub(in super::super) const SLOT_FREE: u8 = 1 << 7;
/// The number of the use of a slot after this one. It never comes back to 0, which is a build's.
pub(in super::super) fn next_use(generation: u8) -> u8 {
    // Tags are the low two bits, and 4 has those of 64.
    if generation == SLOT_GENERATION { 4 } else { generation + 1 }
}

/// Numbers of texts that were merged begin here; a build numbers its texts from 0.
pub(in super::super) const MERGED_TEXT: u64 = 1 << 63;
/// Slots of one value of `slots`.
pub(in super::super) const RUN: u64 = 4096;

/// What became of a vector while it was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// Nothing: the base has the point now.
    Merged,
    /// Another took its place, and its node is dead.
    Rewritten,
    /// It was deleted, and its node is dead.
    Deleted,
}

impl Store {
    /// Says of a merge that it is done: its vectors are in the base, its victims in no slot; gives what became of each vector of the plan meanwhile.
    /// To be said once, before anything else of what it names is written. `pages` are those of the graph that it wrote.
    pub(in super::super) fn merge(&self, plan: &Plan, pages: &[u32], generation: u64) -> Result<Vec<Fate>, CollectionError> {
        let mut batch = Batch::default();
        let read = |family: &str, key: &[u8]| self.db.get_cf(self.family(family), key).map_err(|error| self.failed(&error));
        let mut fates = Vec::with_capacity(plan.merged.len());
        for Merged { key, hash, node, record_key, .. } in &plan.merged {
            let fate = match read(VECTORS, key)? {
                Some(value) if xxh3_64(&value) == *hash => {
                    self.forget_vector(&mut batch, key);
                    Fate::Merged
                }
                Some(value) => {
                    self.put_vector(&mut batch, key, *node, value.get(4..).unwrap_or_default());
                    Fate::Rewritten
                }
                None => {
                    let at = read(DELETED, key)?.and_then(|value| Some(u64::from_le_bytes(*value.first_chunk::<8>()?)));
                    self.put_deleted(
                        &mut batch,
                        key,
                        at.ok_or_else(|| self.damaged(format!("key {key:?} is neither put nor deleted")))?,
                        *node,
                    );
                    Fate::Deleted
                }
            };
            batch.0.put_cf(self.family(NODES), key, node.to_le_bytes());
            if record_key.to_be_bytes()[..] != key[..] {
                batch.0.put_cf(self.family(NAMES), name_key(generation, *record_key), key);
            }
            fates.push(fate);
        }
        let merged: HashSet<&[u8]> = plan.merged.iter().map(|merged| merged.key.as_slice()).collect();
        for Freed { key, node, .. } in &plan.freed {
            // The key may have come back meanwhile, in another node or with none yet; what names this one names nothing any more.
            if merged.contains(key.as_slice()) {
                continue;
            }
            if self.node_of(key)?.is_none_or(|known| known == *node) {
                batch.0.put_cf(self.family(NODES), key, NO_NODE.to_le_bytes());
            }
            if let Some(value) = read(VECTORS, key)?.filter(|value| value.first_chunk::<4>() == Some(&node.to_le_bytes())) {
                self.put_vector(&mut batch, key, NO_NODE, &value[4..]);
            }
            if let Some(value) = read(DELETED, key)?.filter(|value| value.get(8..12) == Some(&node.to_le_bytes()))
                && let Some(at) = value.first_chunk::<8>()
            {
                self.put_deleted(&mut batch, key, u64::from_le_bytes(*at), NO_NODE);
            }
        }
        for (run, states) in &self.runs_after(plan)? {
            batch.0.put_cf(self.family(SLOTS), run.to_be_bytes(), states);
        }
        batch.0.put_cf(self.family(META), "merged", plan.epoch.to_le_bytes());
        self.put_merge(&mut batch, plan, pages);
        self.commit_synced(batch).map_err(|error| self.failed(&error))?;
        Ok(fates)
    }

    /// The runs of slots that a merge changes, as they are after it.
    fn runs_after(&self, plan: &Plan) -> Result<BTreeMap<u64, Vec<u8>>, CollectionError> {
        let mut runs: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut change = |node: u32, change: &dyn Fn(u8) -> u8| {
            let run = u64::from(node) / RUN;
            let states = match runs.entry(run) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    let value = self.db.get_cf(self.family(SLOTS), run.to_be_bytes()).map_err(|error| self.failed(&error))?;
                    place.insert(value.filter(|value| value.len() as u64 == RUN).unwrap_or_else(|| vec![0; RUN as usize]))
                }
            };
            let state = &mut states[(u64::from(node) % RUN) as usize];
            *state = change(*state);
            Ok::<_, CollectionError>(())
        };
        for Merged { node, replaces, .. } in &plan.merged {
            change(*node, &|state| state & SLOT_GENERATION)?;
            if *replaces != NO_NODE {
                change(*replaces, &|state| state | SLOT_DEAD)?;
            }
        }
        for Freed { node, generation, .. } in &plan.freed {
            change(*node, &|_| SLOT_FREE | generation)?;
        }
        Ok(runs)
    }

    /// What the store must hold of a vector for it to be this one.
    pub(in super::super) fn hash_of(node: u32, row: &[u8]) -> u64 {
        xxh3_64(&[&node.to_le_bytes(), row].concat())
    }
}
