//! Filters: the keys that may be returned.
//!
//! A search under a filter either walks the graph with a longer list, passing through nodes that do not match, or ranks all that match by
//! their codes and reads the best. Which is cheaper follows from how many match. What is returned was compared with the set itself, key by
//! key, so nothing leaks; and a walk that comes home with fewer than match is done again as a scan, so nothing is silently missing.

use crate::{SearchError, base::Base, params::MAX_LIST_SIZE};
use roaring::RoaringTreemap;
use roxanne_core::id::{Key, NodeId};
use std::sync::{Arc, OnceLock};

/// Keys whose nodes are looked up when the set is made. Of larger sets they are only when a walk leaves no other way.
const LOOKED_UP: u64 = 1 << 17;
/// What a code costs to rank, and a candidate of a walk to read, in nanoseconds: only their ratio counts. Estimated from searches without a
/// filter, not measured under one.
const CODE_NANOS: f64 = 20.0;
const CANDIDATE_NANOS: f64 = 9_000.0;

/// Says of nodes whether they may be returned: what is asked only of those that are near enough to be.
pub(crate) trait Judge: Send + Sync {
    /// Whether this node, which holds this key, may be.
    fn admits(&self, key: Key, node: NodeId) -> bool;

    /// All that may be, in their order on disk, where that is known.
    fn nodes(&self) -> Option<&[NodeId]>;

    /// The share that may be of those that were asked about; 1 before anything was.
    fn share(&self) -> f64;
}

/// What may be returned.
#[derive(Clone)]
pub(crate) enum Filter {
    /// The keys of a set.
    Keys(Arc<KeySet>),
    /// What is judged one by one.
    Judged(Arc<dyn Judge>),
}

impl Filter {
    pub(crate) fn admits(&self, key: Key, node: NodeId) -> bool {
        match self {
            Filter::Keys(keys) => keys.contains(key),
            Filter::Judged(judge) => judge.admits(key, node),
        }
    }

    /// What a scan looks at.
    pub(crate) fn nodes(&self) -> &[NodeId] {
        match self {
            Filter::Keys(keys) => keys.nodes(),
            Filter::Judged(judge) => judge.nodes().unwrap_or_default(),
        }
    }

    /// Whether ranking all that match is cheaper than a walk.
    pub(crate) fn scan_is_cheaper(&self, list_size: usize, n: u64) -> bool {
        match self {
            Filter::Keys(keys) => keys.scan_is_cheaper(list_size, n),
            Filter::Judged(judge) => judge.nodes().is_some(),
        }
    }
}

/// A set of keys, for any number of searches of the index that made it (see `Index::key_set`).
#[derive(Debug)]
pub struct KeySet {
    keys: RoaringTreemap,
    nodes: OnceLock<Vec<NodeId>>,
}

impl KeySet {
    /// The set of these numbers; those that the index does not hold match nothing.
    pub(crate) fn of_numbers(base: &Base, keys: RoaringTreemap) -> Result<KeySet, SearchError> {
        let set = KeySet { keys, nodes: OnceLock::new() };
        if set.len() <= LOOKED_UP {
            set.resolve(base)?;
        }
        Ok(set)
    }

    /// The set of these (record key, node).
    pub(crate) fn of_found(mut found: Vec<(Key, NodeId)>) -> KeySet {
        found.sort_unstable_by_key(|&(_, node)| node);
        found.dedup();
        let keys = found.iter().map(|(key, _)| key.0).collect();
        KeySet { keys, nodes: OnceLock::from(found.into_iter().map(|(_, node)| node).collect::<Vec<_>>()) }
    }

    /// Keys in it, whether the index holds them or not.
    pub fn len(&self) -> u64 {
        self.keys.len()
    }

    /// Whether it matches nothing.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: Key) -> bool {
        self.keys.contains(key.0)
    }

    /// The nodes that match, in their order on disk; none before they are looked up.
    pub(crate) fn nodes(&self) -> &[NodeId] {
        self.nodes.get().map_or(&[], Vec::as_slice)
    }

    /// Looks the nodes up.
    pub(crate) fn resolve(&self, base: &Base) -> Result<(), SearchError> {
        if self.nodes.get().is_some() {
            return Ok(());
        }
        let mut nodes = Vec::new();
        for key in &self.keys {
            nodes.extend(base.keys.find_number(key)?);
        }
        nodes.sort_unstable();
        // Another thread may have been faster; it found the same.
        let _ = self.nodes.set(nodes);
        Ok(())
    }

    /// The list that holds as many that match as one of `list_size` does without a filter, in an index of `n`.
    pub(crate) fn list_size(&self, list_size: usize, n: u64) -> usize {
        let share = self.len().clamp(1, n) as f64 / n as f64;
        ((list_size as f64 / share) as usize).min(MAX_LIST_SIZE)
    }

    /// Whether ranking all that match is cheaper than a walk.
    pub(crate) fn scan_is_cheaper(&self, list_size: usize, n: u64) -> bool {
        let Some(nodes) = self.nodes.get() else { return false };
        let scan = nodes.len() as f64 * CODE_NANOS + list_size.min(nodes.len()) as f64 * CANDIDATE_NANOS;
        scan <= self.list_size(list_size, n) as f64 * CANDIDATE_NANOS
    }
}
