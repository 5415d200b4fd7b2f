//! RobustPrune: few neighbors, chosen so that a greedy walk still gets everywhere.
//!
//! A candidate is left out when a kept, nearer neighbor already *covers* it: walking through that one is at least alpha times shorter.
//! alpha 1.0 gives the sparsest walkable graph, alpha 1.2 adds the longer edges that save hops (Vamana, "DiskANN", NeurIPS 2019,
//! algorithm 2). Both rounds run here in turn, on integers: alpha is a ratio, so that every backend decides alike.

use crate::{id::NodeId, neighbor::Neighbor};

/// How much shorter the way through a kept neighbor must be, as a ratio of distances (squared ones for L2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alpha {
    /// `numerator / denominator` is alpha.
    pub numerator: u32,
    /// See `numerator`.
    pub denominator: u32,
}

impl Alpha {
    /// alpha = 1.
    pub const ONE: Alpha = Alpha { numerator: 1, denominator: 1 };

    /// The nearest ratio in hundredths; `None` below 1 or above 10.
    pub fn from_f64(alpha: f64) -> Option<Alpha> {
        (1.0..=10.0).contains(&alpha).then(|| Alpha { numerator: (alpha * 100.0).round() as u32, denominator: 100 })
    }

    /// A candidate at `distance` from the node is covered by a kept one whose distance to it is at most this:
    /// the largest `d` with `alpha * d <= distance`.
    #[inline]
    pub fn reach(self, distance: u32) -> u32 {
        // Exact: the product is below 2^53, and a quotient that is no whole number is at least 1 / numerator away from one, which is
        // far more than the division's rounding. A vector of these divisions costs what one integer division does.
        (f64::from(distance) * f64::from(self.denominator) / f64::from(self.numerator)) as u32
    }
}

/// What a prune aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneParams {
    /// Neighbors a node may keep (R).
    pub max_degree: usize,
    /// The second round's alpha; the first is 1.
    pub alpha: Alpha,
}

/// Keeps at most `max_degree` (R) of `candidates`: the nearest first, skipping any that a kept, nearer one already covers.
///
/// `candidates` is sorted in place by (distance, id) and rid of duplicates and of `node`. `kept` comes out in the same order.
/// `distance(a, b)` is between two candidates. A duplicate of a kept candidate is always covered.
pub fn robust_prune(
    node: NodeId,
    candidates: &mut Vec<Neighbor<u32>>,
    params: &PruneParams,
    mut distance: impl FnMut(NodeId, NodeId) -> u32,
    kept: &mut Vec<NodeId>,
) {
    candidates.sort_unstable();
    candidates.dedup_by_key(|c| c.id);
    candidates.retain(|c| c.id != node);
    let mut is_kept = vec![false; candidates.len()];
    let mut count = 0;
    for alpha in [Alpha::ONE, params.alpha] {
        for at in 0..candidates.len() {
            if count == params.max_degree {
                break;
            }
            let candidate = candidates[at];
            let reach = alpha.reach(candidate.distance);
            let covered = (0..at).any(|s| is_kept[s] && distance(candidates[s].id, candidate.id) <= reach);
            if !is_kept[at] && !covered {
                is_kept[at] = true;
                count += 1;
            }
        }
    }
    kept.clear();
    kept.extend(candidates.iter().zip(&is_kept).filter(|(_, k)| **k).map(|(c, _)| c.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes on a line; distances squared.
    fn prune_line(node: u32, others: &[u32], max_degree: usize, alpha: f64) -> Vec<u32> {
        let square = |a: u32, b: u32| a.abs_diff(b) * a.abs_diff(b);
        let mut candidates: Vec<_> = others.iter().map(|&o| Neighbor { distance: square(node, o), id: NodeId(o) }).collect();
        let mut kept = Vec::new();
        let params = PruneParams { max_degree, alpha: Alpha::from_f64(alpha).unwrap() };
        robust_prune(NodeId(node), &mut candidates, &params, |a, b| square(a.0, b.0), &mut kept);
        kept.into_iter().map(|k| k.0).collect()
    }

    #[test]
    fn a_nearer_neighbor_in_the_same_direction_covers() {
        assert_eq!(prune_line(10, &[11, 12, 20], 8, 1.0), [11]);
        assert_eq!(prune_line(10, &[11, 9, 12, 8, 10, 11], 8, 1.2), [9, 11]);
    }

    #[test]
    fn the_second_round_adds_what_alpha_no_longer_covers() {
        // 21 is covered by 11 at alpha 1 (100 <= 121) but not at 1.3 (130 > 121).
        assert_eq!(prune_line(10, &[11, 21], 8, 1.0), [11]);
        assert_eq!(prune_line(10, &[11, 21], 8, 1.3), [11, 21]);
        assert_eq!(prune_line(10, &[11, 21], 1, 1.3), [11]);
    }

    #[test]
    fn alpha_must_be_sensible() {
        assert!(Alpha::from_f64(0.9).is_none() && Alpha::from_f64(f64::NAN).is_none());
        for alpha in (100..=1000).step_by(7).map(|hundredths| Alpha::from_f64(f64::from(hundredths) / 100.0).unwrap()) {
            for distance in (0..1000).chain((1..=u32::MAX / 0x10_0001).map(|i| i * 0x10_0001)) {
                let exact = u64::from(distance) * u64::from(alpha.denominator) / u64::from(alpha.numerator);
                assert_eq!(u64::from(alpha.reach(distance)), exact);
            }
        }
    }
}
