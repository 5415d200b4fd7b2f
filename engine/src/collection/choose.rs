//! RobustPrune where distances are floats: which of some candidates become neighbors of a node.

use roxanne_core::{
    id::NodeId,
    neighbor::Neighbor,
    prune::{PruneParams, robust_prune},
};

/// Lists that are used again and again.
#[derive(Default)]
pub(super) struct Chooser {
    candidates: Vec<Neighbor<u32>>,
    kept: Vec<NodeId>,
}

impl Chooser {
    /// Those that are kept of the candidates `0..distances.len()`, nearest first, by place: candidate `i` lies `distances[i]` from the node, and
    /// `between(i, j)` from candidate `j`. Distances are not negative.
    pub(super) fn choose(
        &mut self,
        distances: &[f32],
        params: &PruneParams,
        between: impl Fn(usize, usize) -> f32,
    ) -> impl Iterator<Item = usize> {
        // Integers in the proportions of the distances, which is what a ratio asks for.
        let farthest = distances.iter().copied().fold(f32::MIN_POSITIVE, f32::max).min(f32::MAX);
        let unit = f64::from(1 << 30) / f64::from(farthest);
        let whole = |distance: f32| (f64::from(distance.min(f32::MAX)) * unit) as u32;
        self.candidates.clear();
        self.candidates.extend((0..).zip(distances).map(|(at, &distance)| Neighbor { distance: whole(distance), id: NodeId(at) }));
        // No candidate is the node itself.
        let nobody = NodeId(u32::MAX);
        robust_prune(nobody, &mut self.candidates, params, |a, b| whole(between(a.index(), b.index())), &mut self.kept);
        self.kept.iter().map(|kept| kept.index())
    }
}
