//! The newest vectors, in RAM: appended in the order of their batches, searched by scanning until a graph has taken them.
//!
//! One thread appends (under the writer's lock) and one links; any number read, and nobody waits: a slot is set once and never changes, a list
//! of neighbors is made of atomic words, of which a reader may meet some old and some new ones, all of them slots that are there. The graph is
//! Vamana's, grown a node at a time (FreshDiskANN, section 4: insert by search, prune, back edges).

use super::PointKey;
use roxanne_core::{
    distance::DistanceFn,
    id::NodeId,
    metric::Metric,
    neighbor::{Distance, Neighbor},
    prune::{Alpha, PruneParams, robust_prune},
    search::{BeamSearch, Space, go_on_in_ram},
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

/// Neighbors of a slot at most.
const DEGREE: usize = 32;
/// The list of a search for the neighbors of a new one.
const LINK_LIST_SIZE: usize = 64;
/// Slots of the first chunk; each later one has twice as many as the one before.
const FIRST_CHUNK: u32 = 1024;
const CHUNKS: usize = 22;
/// So many are scanned rather than searched.
pub(super) const SCANNED: u32 = 4096;

/// A point in RAM.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: PointKey,
    pub(super) row: Box<[u8]>,
    /// The node of the base that it replaces, or `NO_NODE`.
    pub(super) node: u32,
}

impl Slot {
    /// Bytes that it takes, its list of neighbors among them.
    pub(super) fn bytes(&self) -> u64 {
        let text = if let PointKey::Text(text) = &self.key { 2 * text.len() as u64 } else { 0 };
        // Slot, row and two allocations; list; the writer's map from keys.
        (size_of::<Slot>() + 48 + self.row.len() + 4 * DEGREE + 16 + 64) as u64 + text
    }
}

struct Chunk {
    slots: Box<[OnceLock<Arc<Slot>>]>,
    degrees: Box<[AtomicU32]>,
    neighbors: Box<[AtomicU32]>,
}

/// See the module.
pub(super) struct Delta {
    distance: DistanceFn,
    prune: PruneParams,
    chunks: [OnceLock<Chunk>; CHUNKS],
    linked: AtomicU32,
}

fn place(slot: u32) -> (usize, usize) {
    let number = u64::from(slot) + u64::from(FIRST_CHUNK);
    let chunk = number.ilog2() - FIRST_CHUNK.ilog2();
    (chunk as usize, (number - (u64::from(FIRST_CHUNK) << chunk)) as usize)
}

impl Delta {
    pub(super) fn new(distance: DistanceFn, metric: Metric) -> Delta {
        // A ratio of inner products means nothing: what is nearer covers.
        let alpha = if metric == Metric::InnerProduct { Alpha::ONE } else { Alpha { numerator: 12, denominator: 10 } };
        let prune = PruneParams { max_degree: DEGREE, alpha };
        Delta { distance, prune, chunks: [const { OnceLock::new() }; CHUNKS], linked: AtomicU32::new(0) }
    }

    /// Sets slot `slot`, the one after the last that was set.
    pub(super) fn set(&self, slot: u32, point: Arc<Slot>) {
        let (chunk, at) = place(slot);
        let chunk = self.chunks[chunk].get_or_init(|| {
            let count = (FIRST_CHUNK as usize) << chunk;
            let words = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
            Chunk { slots: (0..count).map(|_| OnceLock::new()).collect(), degrees: words(count), neighbors: words(count * DEGREE) }
        });
        let was_free = chunk.slots[at].set(point).is_ok();
        debug_assert!(was_free, "slot {slot} is set twice");
    }

    /// A slot that was set.
    #[inline]
    pub(super) fn slot(&self, slot: u32) -> &Arc<Slot> {
        let (chunk, at) = place(slot);
        let Some(found) = self.chunks[chunk].get().and_then(|chunk| chunk.slots[at].get()) else {
            unreachable!("slot {slot} was not set before it was published")
        };
        found
    }

    /// Slots that the graph has taken: all below it.
    pub(super) fn linked(&self) -> u32 {
        self.linked.load(Ordering::Acquire)
    }

    /// The exact distance of a query's row to a slot.
    #[inline]
    pub(super) fn distance(&self, row: &[u8], slot: u32) -> Distance {
        Distance(self.distance.distance(row, &self.slot(slot).row))
    }

    /// Every slot below `len` that `wanted` wants, nearest to `row` as far as they were met: those in the graph by a search with a list of
    /// `list_size`, the others, or all where that is cheaper, one by one.
    pub(super) fn search(
        &self,
        row: &[u8],
        len: u32,
        list_size: usize,
        search: &mut BeamSearch,
        mut found: impl FnMut(Distance, u32),
    ) -> u64 {
        let linked = self.linked().min(len);
        let scan_from = if linked <= SCANNED || list_size as u64 * 16 >= u64::from(linked) { 0 } else { linked };
        let mut count = u64::from(len - scan_from);
        if scan_from > 0 {
            search.reset(list_size);
            let mut space = DeltaSpace { delta: self, row, len, found: &mut |distance, slot| found(distance, slot) };
            go_on_in_ram(&mut space, &[NodeId(0)], search, |_| {});
            count += search.distance_count;
        }
        (scan_from..len).for_each(|slot| found(self.distance(row, slot), slot));
        count
    }

    fn neighbors(&self, slot: u32, out: &mut Vec<NodeId>) {
        let (chunk, at) = place(slot);
        if let Some(chunk) = self.chunks[chunk].get() {
            let degree = (chunk.degrees[at].load(Ordering::Acquire) as usize).min(DEGREE);
            out.extend(chunk.neighbors[at * DEGREE..][..degree].iter().map(|id| NodeId(id.load(Ordering::Relaxed))));
        }
    }

    fn set_neighbors(&self, slot: u32, neighbors: &[NodeId]) {
        let (chunk, at) = place(slot);
        if let Some(chunk) = self.chunks[chunk].get() {
            for (place, id) in chunk.neighbors[at * DEGREE..].iter().zip(neighbors) {
                place.store(id.0, Ordering::Relaxed);
            }
            chunk.degrees[at].store(neighbors.len() as u32, Ordering::Release);
        }
    }

    /// Brings the next slot into the graph, which must have been set. One thread at a time.
    pub(super) fn link_next(&self, scratch: &mut LinkScratch) {
        let slot = self.linked.load(Ordering::Relaxed);
        let row = &self.slot(slot).row;
        let LinkScratch { search, candidates, kept, lists } = scratch;
        candidates.clear();
        if slot > 0 {
            search.reset(LINK_LIST_SIZE);
            let mut met = Vec::new();
            let mut space = DeltaSpace { delta: self, row, len: slot, found: &mut |distance, slot| met.push((distance, slot)) };
            go_on_in_ram(&mut space, &[NodeId(0)], search, |_| {});
            met.sort_unstable();
            met.truncate(2 * LINK_LIST_SIZE);
            self.choose(slot, &met, candidates, kept);
            self.set_neighbors(slot, kept);
        }
        // Searches that begin now may meet it.
        self.linked.store(slot + 1, Ordering::Release);
        for neighbor in std::mem::take(kept) {
            lists.clear();
            self.neighbors(neighbor.0, lists);
            if lists.contains(&NodeId(slot)) {
                continue;
            }
            lists.push(NodeId(slot));
            if lists.len() > DEGREE {
                let row = &self.slot(neighbor.0).row;
                let mut met: Vec<(Distance, u32)> = lists.iter().map(|id| (self.distance(row, id.0), id.0)).collect();
                met.sort_unstable();
                self.choose(neighbor.0, &met, candidates, lists);
            }
            self.set_neighbors(neighbor.0, lists);
        }
    }

    /// RobustPrune of those met around `slot`, sorted, into `kept`.
    fn choose(&self, slot: u32, met: &[(Distance, u32)], candidates: &mut Vec<Neighbor<u32>>, kept: &mut Vec<NodeId>) {
        let (Some((Distance(low), _)), Some((Distance(high), _))) = (met.first(), met.last()) else { return kept.clear() };
        // Integers in the proportions of the distances: ratios count, but for products, of which the order alone does.
        let low = if *low < 0.0 { *low } else { 0.0 };
        let unit = f64::from(1 << 30) / f64::from(high - low).max(f64::MIN_POSITIVE);
        let whole = |distance: f32| (f64::from(distance - low) * unit) as u32;
        candidates.clear();
        candidates.extend(met.iter().map(|&(distance, id)| Neighbor { distance: whole(distance.0), id: NodeId(id) }));
        let between = |a: NodeId, b: NodeId| whole(self.distance(&self.slot(a.0).row, b.0).0);
        robust_prune(NodeId(slot), candidates, &self.prune, between, kept);
    }
}

/// What linking uses again and again.
#[derive(Default)]
pub(super) struct LinkScratch {
    search: BeamSearch,
    candidates: Vec<Neighbor<u32>>,
    kept: Vec<NodeId>,
    lists: Vec<NodeId>,
}

/// The delta's graph below `len`, as a row sees it.
struct DeltaSpace<'a, F: FnMut(Distance, u32)> {
    delta: &'a Delta,
    row: &'a [u8],
    len: u32,
    found: &'a mut F,
}

impl<F: FnMut(Distance, u32)> Space for DeltaSpace<'_, F> {
    fn distance(&mut self, node: NodeId) -> u32 {
        let distance = self.delta.distance(self.row, node.0);
        (self.found)(distance, node.0);
        distance.rank()
    }

    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
        let from = neighbors.len();
        self.delta.neighbors(node.0, neighbors);
        // Those that came after this search began are none of its.
        let mut at = from;
        while at < neighbors.len() {
            if neighbors[at].0 < self.len {
                at += 1;
            } else {
                neighbors.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxanne_core::{element::ElementType, random::CounterRng};

    #[test]
    fn slots_lie_in_chunks_one_after_the_other() {
        let places: Vec<_> = [0, 1023, 1024, 3071, 3072].map(place).into();
        assert_eq!(places, [(0, 0), (0, 1023), (1, 0), (1, 2047), (2, 0)]);
        assert!(place(u32::MAX).0 < CHUNKS + 1);
    }

    #[test]
    fn a_linked_delta_finds_what_a_scan_finds() {
        let (n, dim) = (12_000u32, 16);
        let rng = CounterRng::new(5);
        for metric in [Metric::L2, Metric::InnerProduct] {
            let delta = Delta::new(DistanceFn::new(metric, ElementType::U8, dim).unwrap(), metric);
            // Around a few centers, so that near means something.
            let coordinate =
                |i: u32, d: usize| (rng.below(u64::from(i % 97) * 31 + d as u64, 200) + rng.below(u64::from(i) << 8 | d as u64, 50)) as u8;
            for i in 0..n {
                let row = (0..dim).map(|d| coordinate(i, d)).collect();
                delta.set(i, Arc::new(Slot { key: PointKey::Number(u64::from(i)), row, node: u32::MAX }));
            }
            let mut scratch = LinkScratch::default();
            (0..n).for_each(|_| delta.link_next(&mut scratch));
            let (mut search, mut hits) = (BeamSearch::default(), 0);
            for q in 0..100 {
                let row = delta.slot(q * 113).row.clone();
                let nearest = |list_size: usize, search: &mut BeamSearch| {
                    let mut found = Vec::new();
                    delta.search(&row, n, list_size, search, |distance, slot| found.push((distance, slot)));
                    found.sort_unstable();
                    found.truncate(10);
                    found
                };
                let truth = nearest(n as usize, &mut search);
                hits += nearest(64, &mut search).iter().filter(|hit| truth.contains(hit)).count();
            }
            assert!(hits >= 950, "{metric}: {hits} of 1000");
        }
    }
}
