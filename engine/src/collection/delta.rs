//! The newest vectors, in RAM: appended in the order of their batches, searched by scanning until a graph has taken them.
//!
//! One thread appends (under the writer's lock) and one links; any number read, and nobody waits: a slot is set once and never changes, a list
//! of neighbors is made of atomic words, of which a reader may meet some old and some new ones, all of them slots that are there. The graph is
//! Vamana's, grown a node at a time (FreshDiskANN, section 4: insert by search, prune, back edges).

use super::{PointKey, choose::Chooser};
use roxanne_core::{
    distance::DistanceFn,
    id::NodeId,
    metric::Metric,
    neighbor::Distance,
    prune::{Alpha, PruneParams},
    search::{BeamSearch, Space, go_on_in_ram},
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

/// Neighbors of a slot at most.
pub(super) const DEGREE: usize = 32;
/// The list of a search for the neighbors of a new one.
const LINK_LIST_SIZE: usize = 64;
/// Slots of the first chunk; each later one has twice as many as the one before.
const FIRST_CHUNK: u32 = 1024;
const CHUNKS: usize = 22;
/// Slots that chunks have room for.
pub(super) const MAX_SLOTS: u64 = FIRST_CHUNK as u64 * ((1 << CHUNKS) - 1);
/// So many are scanned rather than searched.
pub(super) const SCANNED: u32 = 4096;
/// A list of one in so many of the graph costs as much as a scan of all.
const SCAN_SHARE: u64 = 16;

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
    /// Under the inner product one long vector would cover all others: there everything is scanned.
    has_graph: bool,
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
        let prune = PruneParams { max_degree: DEGREE, alpha: Alpha { numerator: 12, denominator: 10 } };
        Delta {
            distance,
            prune,
            has_graph: metric != Metric::InnerProduct,
            chunks: [const { OnceLock::new() }; CHUNKS],
            linked: AtomicU32::new(0),
        }
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

    /// Whether slots are linked at all.
    pub(super) fn has_graph(&self) -> bool {
        self.has_graph
    }

    /// The exact distance of a query's row to a slot.
    #[inline]
    pub(super) fn distance(&self, row: &[u8], slot: u32) -> Distance {
        Distance(self.distance.distance(row, &self.slot(slot).row))
    }

    /// Shows `found` the living slots below `len` that are near `row`: those in the graph by a search whose list grows until `list_size` of the
    /// living are in it, the others, or all where that is cheaper, one by one. Returns how many distances that took.
    pub(super) fn search(
        &self,
        row: &[u8],
        len: u32,
        list_size: usize,
        search: &mut BeamSearch,
        is_dead: &mut dyn FnMut(u32) -> bool,
        mut found: impl FnMut(Distance, u32),
    ) -> u64 {
        let linked = self.linked().min(len);
        let scan_from = if linked <= SCANNED || list_size as u64 * SCAN_SHARE >= u64::from(linked) { 0 } else { linked };
        let mut met: Vec<(Distance, u32)> = Vec::new();
        let mut count = 0;
        let scan_from = if scan_from > 0 {
            search.reset(list_size);
            search.keep_spilled();
            let mut space = DeltaSpace { delta: self, row, len: scan_from, met: &mut met };
            let mut entries = &[NodeId(0)][..];
            loop {
                go_on_in_ram(&mut space, entries, search, |_| {});
                let living = search.found().filter(|node| !is_dead(node.id.0)).count();
                let longer = 2 * search.list_size();
                if living >= list_size {
                    break;
                }
                // So many are dead around here that a scan is no dearer.
                if longer as u64 * SCAN_SHARE >= u64::from(scan_from) {
                    met.clear();
                    break;
                }
                search.grow(longer);
                entries = &[];
            }
            count = search.distance_count;
            if met.is_empty() { 0 } else { scan_from }
        } else {
            0
        };
        met.into_iter().filter(|&(_, slot)| !is_dead(slot)).for_each(|(distance, slot)| found(distance, slot));
        for slot in scan_from..len {
            if !is_dead(slot) {
                count += 1;
                found(self.distance(row, slot), slot);
            }
        }
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
        let LinkScratch { search, chooser, kept, lists } = scratch;
        if slot > 0 {
            search.reset(LINK_LIST_SIZE);
            let mut met = Vec::new();
            let mut space = DeltaSpace { delta: self, row, len: slot, met: &mut met };
            go_on_in_ram(&mut space, &[NodeId(0)], search, |_| {});
            met.sort_unstable();
            met.truncate(2 * LINK_LIST_SIZE);
            self.choose(&met, chooser, kept);
            self.set_neighbors(slot, kept);
        }
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
                self.choose(&met, chooser, lists);
            }
            self.set_neighbors(neighbor.0, lists);
        }
        // Searches that begin now need not scan it: there is a way to it.
        self.linked.store(slot + 1, Ordering::Release);
    }

    /// RobustPrune of those met around a slot, sorted, into `kept`.
    fn choose(&self, met: &[(Distance, u32)], chooser: &mut Chooser, kept: &mut Vec<NodeId>) {
        let distances: Vec<f32> = met.iter().map(|(distance, _)| distance.0).collect();
        let between = |a: usize, b: usize| self.distance(&self.slot(met[a].1).row, met[b].1).0;
        kept.clear();
        kept.extend(chooser.choose(&distances, &self.prune, between).map(|at| NodeId(met[at].1)));
    }
}

/// What linking uses again and again.
#[derive(Default)]
pub(super) struct LinkScratch {
    search: BeamSearch,
    chooser: Chooser,
    kept: Vec<NodeId>,
    lists: Vec<NodeId>,
}

/// The delta's graph below `len`, as a row sees it.
struct DeltaSpace<'a> {
    delta: &'a Delta,
    row: &'a [u8],
    len: u32,
    /// All whose distance was computed.
    met: &'a mut Vec<(Distance, u32)>,
}

impl Space for DeltaSpace<'_> {
    fn distance(&mut self, node: NodeId) -> u32 {
        let distance = self.delta.distance(self.row, node.0);
        self.met.push((distance, node.0));
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
        assert_eq!(place((MAX_SLOTS - 1) as u32), (CHUNKS - 1, (FIRST_CHUNK as usize) * (1 << (CHUNKS - 1)) - 1));
    }

    #[test]
    fn a_linked_delta_finds_what_a_scan_finds() {
        let (n, dim) = (12_000u32, 16);
        let rng = CounterRng::new(5);
        for metric in [Metric::L2, Metric::Manhattan] {
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
                    delta.search(&row, n, list_size, search, &mut |slot| slot % 3 == 1, |distance, slot| found.push((distance, slot)));
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
