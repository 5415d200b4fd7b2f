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

impl Distance {
    /// A number in the same order, for searches that are steered by integers.
    #[inline]
    pub fn rank(self) -> u32 {
        let bits = self.0.to_bits();
        // Negative floats fall as their bits rise.
        bits ^ (((bits as i32 >> 31) as u32) | 1 << 31)
    }

    /// The distance that [`Distance::rank`] was given.
    #[inline]
    pub fn of_rank(rank: u32) -> Distance {
        Distance(f32::from_bits(rank ^ (((!rank as i32 >> 31) as u32) | 1 << 31)))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_in_the_order_of_distances_and_give_them_back() {
        let rising = [f32::NEG_INFINITY, -3.5, -1e-40, -0.0, 0.0, 1e-40, 1.0, 2.5e9, f32::INFINITY, f32::NAN];
        assert!(rising.map(|d| Distance(d).rank()).is_sorted());
        assert!(rising.iter().all(|d| Distance::of_rank(Distance(*d).rank()).0.to_bits() == d.to_bits()));
    }
}
