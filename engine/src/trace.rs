//! What a search looked at, for those who put a node into the graph or take one out of it.

use crate::base::Base;
use roxanne_core::{format::record::Record, id::NodeId, neighbor::Distance};

/// See the module.
#[derive(Default)]
pub(crate) struct Trace {
    /// The node whose in-neighbors are looked for.
    pub(crate) victim: Option<NodeId>,
    /// Every node that was ranked, with its exact distance; its vector is `rows[place * row_bytes..]`.
    pub(crate) met: Vec<(Distance, NodeId)>,
    pub(crate) rows: Vec<u8>,
    /// Of a victim: those whose lists hold it.
    pub(crate) holders: Vec<NodeId>,
    /// Of a victim: all that stands in lists of others, each with whose list it is.
    pub(crate) listed: Vec<(NodeId, NodeId)>,
    neighbors: Vec<NodeId>,
}

impl Trace {
    /// Notes for an insert.
    pub(crate) fn of_insert() -> Trace {
        Trace::default()
    }

    /// Notes for the removal of `victim`.
    pub(crate) fn of_victim(victim: NodeId) -> Trace {
        Trace { victim: Some(victim), ..Trace::default() }
    }

    /// A node was ranked.
    pub(crate) fn note(&mut self, base: &Base, distance: Distance, id: NodeId, record: Record<'_>) {
        self.met.push((distance, id));
        let Some(victim) = self.victim else { return self.rows.extend_from_slice(record.vector()) };
        if id == victim {
            return;
        }
        self.neighbors.clear();
        // A list that is damaged is met again, and named, by whoever changes it.
        let _ = base.neighbors(record, &mut self.neighbors);
        self.listed.extend(self.neighbors.iter().map(|&neighbor| (neighbor, id)));
        if self.neighbors.contains(&victim) {
            self.holders.push(id);
        }
    }

    /// The places in `met` of the nearest `most` that `suits`, nearest first.
    pub(crate) fn nearest(&self, most: usize, suits: impl Fn(NodeId) -> bool) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.met.len()).filter(|&place| suits(self.met[place].1)).collect();
        places.sort_unstable_by_key(|&place| self.met[place]);
        places.dedup_by_key(|place| self.met[*place]);
        places.truncate(most);
        places
    }
}
