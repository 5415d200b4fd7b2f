//! A node and how far away it is, in the one order that everything uses: (distance, id).

use crate::id::NodeId;

/// A node seen from somewhere. Ordered by distance, then id: no two different nodes are ever equal, so every top-k is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbor<D> {
    /// Distance from wherever this neighbor was seen.
    pub distance: D,
    /// The node.
    pub id: NodeId,
}

/// An f32 distance with a total order (NaN last), so that it can be sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance(pub f32);

impl Eq for Distance {}
impl PartialOrd for Distance {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Distance {
    #[inline]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
