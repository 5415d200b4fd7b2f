//! The order of ids, which is the order on disk: nodes that a search wants together share a page.
//!
//! Pages are filled greedily. The unplaced node that the page's nodes are most closely tied to comes in next, where an edge in either
//! direction ties, the more the nearer it stands in its row; the first node of a page is the one that the page before wanted most, or the
//! next unplaced one in the order of the graph's nodes, which is spatial. (Starling, SIGMOD 2024, calls the goal "block shuffling".)
//!
//! Many fronts advance through the graph at once, each from the start of a region of its own and then wherever it is led. In each round
//! every front claims what it wants for one page, looking only at what earlier rounds placed; then each keeps its claims up to the first
//! node that a front of a smaller number claimed too. Fronts rarely meet (a third more rounds than with no meeting at all, on sift1m),
//! and the result depends on nothing but the graph, on any number of threads.
//!
//! The road not taken, in reads a query of sift1m at list sizes 32 and 64, where this reads 27.0 and 46.4:
//! - blocks of nodes shuffled each by itself: 28.1 and 48.4 (2^17 nodes), 28.3 and 48.9 (2^15), 28.7 and 49.6 (2^13): many of the closest
//!   ties cross any border;
//! - a single front: 26.9 and 46.2; pages begun in breadth-first order from the entry besides: 27.0 and 46.4;
//! - all edges tie: 26.9 and 46.3 at twice the time and three times the memory; the first 8 alone: 27.2 and 46.9;
//! - 8 pages a round: the same reads, but so much is given up that it takes twice the time.
//!
//! Earlier, on 300k of it: out-edges alone 4% more, equal weights another 6%, pages begun in breadth-first order alone 4%.

use crate::{BuildError, progress::Watch};
use rayon::prelude::*;
use roxanne_core::{graph::Graph, huge, id::NodeId};
use std::{
    ops::Range,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Fronts at most: enough for every thread to have several in each round.
const FRONTS: usize = 512;

/// Nodes of a front's region at least.
const REGION: usize = 1024;

/// Edges of a row that tie: its first ones.
const TYING: usize = 16;

/// Nodes of a block, of which all in-edges together find room in a cache.
const BLOCK: usize = 1 << 16;

/// Strips at least that in-edges are gathered in.
const STRIPS: usize = 4;

/// Bytes of memory that ordering takes a node, beside the graph: an in-edge and, of a strip at a time, what it is made of; a claim, a start
/// and a place in the order.
pub const NODE_BYTES: u64 = (5 + 8 / STRIPS as u64) * TYING as u64 + 24;

/// The new order: `order[new id] = old id`. Memory: [`NODE_BYTES`] a node.
///
/// # Errors
/// A stop.
pub fn page_order(graph: &Graph, per_page: usize, watch: &Watch<'_>) -> Result<Vec<NodeId>, BuildError> {
    let n = graph.n();
    let ties = Ties::of(graph);
    let claims = Claims::new(n);
    let region = n.div_ceil(FRONTS).max(REGION);
    let regions = (0..n).step_by(region).map(|first| first..n.min(first + region));
    let mut fronts: Vec<Front> = regions.zip(1..).map(|(region, number)| Front::new(number, region)).collect();
    let mut left = n;
    while left > 0 {
        fronts.par_iter_mut().for_each(|front| front.claim(&ties, &claims, per_page));
        let placed: usize = fronts.par_iter_mut().map(|front| front.settle(&claims)).sum();
        left -= placed;
        watch.advance(placed as u64)?;
    }
    // Pages that were not filled come last, so that all others begin where a page on disk begins.
    let chains = || fronts.iter().map(|front| front.chain.split_at(front.chain.len() / per_page * per_page));
    Ok(chains().map(|(full, _)| full).chain(chains().map(|(_, begun)| begun)).collect::<Vec<_>>().concat())
}

/// Who has each node, or wants it in this round: the smallest number among the fronts that asked.
struct Claims(Vec<AtomicU32>);

impl Claims {
    const FREE: u32 = u32::MAX;
    const PLACED: u32 = 0;

    fn new(n: usize) -> Claims {
        let mut claims: Vec<AtomicU32> = huge::zeroed(n);
        claims.par_iter_mut().for_each(|claim| *claim.get_mut() = Claims::FREE);
        Claims(claims)
    }

    fn is_placed(&self, node: NodeId) -> bool {
        self.0[node.index()].load(Relaxed) == Claims::PLACED
    }
}

/// A chain of pages, from the start of a region to wherever it leads.
struct Front {
    /// From 1.
    number: u32,
    /// Where pages begin that no page before them wanted: what is left of it.
    region: Range<usize>,
    /// Page after page ...
    chain: Vec<NodeId>,
    /// ... of which so many nodes are placed and the others claimed.
    placed: usize,
    /// Whom the last page wants.
    scores: PageScores,
}

impl Front {
    fn new(number: u32, region: Range<usize>) -> Front {
        Front { number, region, chain: Vec::new(), placed: 0, scores: PageScores::new() }
    }

    /// Fills a page with claims. Others do so at the same time; nothing is placed meanwhile.
    fn claim(&mut self, ties: &Ties<'_>, claims: &Claims, per_page: usize) {
        // Anew after claims were given up.
        if self.scores.is_empty() {
            let last_page = self.placed.saturating_sub(1) / per_page * per_page;
            (last_page..self.placed).for_each(|at| self.score(self.chain[at], ties, claims));
        }
        let page_end = (self.placed / per_page + 1) * per_page;
        while self.chain.len() < page_end {
            let wanted = self.wanted(claims);
            if self.chain.len() + per_page == page_end {
                self.scores.clear();
            }
            let Some(node) = wanted.or_else(|| self.next_of_region(claims)) else { break };
            claims.0[node.index()].fetch_min(self.number, Relaxed);
            self.chain.push(node);
            self.score(node, ties, claims);
        }
    }

    /// Adds the wishes of `node`.
    fn score(&mut self, node: NodeId, ties: &Ties<'_>, claims: &Claims) {
        for (neighbor, rank) in ties.of_node(node) {
            if !claims.is_placed(neighbor) && !self.chain[self.placed..].contains(&neighbor) {
                self.scores.add(neighbor, weight(rank));
            }
        }
    }

    fn wanted(&mut self, claims: &Claims) -> Option<NodeId> {
        std::iter::from_fn(|| self.scores.take_best()).find(|&node| !claims.is_placed(node))
    }

    fn next_of_region(&mut self, claims: &Claims) -> Option<NodeId> {
        let node = |i| NodeId(i as u32);
        while !self.region.is_empty() && claims.is_placed(node(self.region.start)) {
            self.region.start += 1;
        }
        let claimed = &self.chain[self.placed..];
        self.region.clone().map(node).find(|node| !claims.is_placed(*node) && !claimed.contains(node))
    }

    /// Places the claimed nodes up to the first that a front of a smaller number claimed too, and gives up the rest; returns how many were
    /// placed. Others do so at the same time, but a claim is changed by its own front alone.
    fn settle(&mut self, claims: &Claims) -> usize {
        let claim = |node: &NodeId| &claims.0[node.index()];
        let is_own = |node: &&NodeId| claim(node).load(Relaxed) == self.number;
        let claimed = &self.chain[self.placed..];
        let (won, lost) = claimed.split_at(claimed.iter().take_while(is_own).count());
        won.iter().for_each(|node| claim(node).store(Claims::PLACED, Relaxed));
        lost.iter().filter(is_own).for_each(|node| claim(node).store(Claims::FREE, Relaxed));
        if !lost.is_empty() {
            self.scores.clear();
        }
        let won = won.len();
        self.placed += won;
        self.chain.truncate(self.placed);
        won
    }
}

/// The first edges of all rows, from both ends.
struct Ties<'a> {
    graph: &'a Graph,
    /// [n + 1] Where each node's in-edges begin.
    starts: Vec<u64>,
    /// Who points at a node ...
    sources: Vec<u32>,
    /// ... and from which place in its row.
    ranks: Vec<u8>,
}

impl<'a> Ties<'a> {
    /// Edges are turned round block by block of targets: first written to their block, one after the other, then put in their places
    /// inside of it, which the processor's cache holds. (Counters and places shared by all threads took four times as long: every edge
    /// waits for four places in memory.) A few strips of blocks, one after the other, bound what lies between.
    fn of(graph: &'a Graph) -> Ties<'a> {
        let n = graph.n();
        let (blocks, share) = (n.div_ceil(BLOCK), n.div_ceil(4 * rayon::current_num_threads()).max(BLOCK));
        let shares: Vec<Range<usize>> = (0..n).step_by(share).map(|first| first..n.min(first + share)).collect();
        let edges_of = |share: &Range<usize>| {
            share.clone().flat_map(|node| out_edges(graph, NodeId(node as u32)).map(move |(to, rank)| (node as u32, to, rank)))
        };
        let counts: Vec<Vec<u64>> = shares
            .par_iter()
            .map(|share| {
                let mut counts = vec![0; blocks];
                edges_of(share).for_each(|(_, to, _)| counts[to.index() / BLOCK] += 1);
                counts
            })
            .collect();
        let of_block: Vec<usize> = (0..blocks).map(|block| counts.iter().map(|counts| counts[block] as usize).sum()).collect();
        let edges: usize = of_block.iter().sum();

        let (mut starts, mut sources, mut ranks) = (huge::zeroed(n + 1), huge::zeroed(edges), huge::zeroed(edges));
        let mut rest = (&mut starts[..n], &mut sources[..], &mut ranks[..]);
        let (mut block, mut before) = (0, 0);
        let mut gathered: Vec<AtomicU64> = Vec::new();
        while block < blocks {
            // As many blocks as hold a strip's edges, one at least.
            let (first, mut held) = (block, 0);
            while block < blocks && (block == first || held + of_block[block] <= edges / STRIPS) {
                held += of_block[block];
                block += 1;
            }
            if gathered.len() < held {
                gathered = huge::zeroed(held);
            }
            let mut next = 0;
            let mut places: Vec<Vec<u64>> = shares.iter().map(|_| vec![0; block - first]).collect();
            for of_strip in 0..block - first {
                for (places, counts) in places.iter_mut().zip(&counts) {
                    places[of_strip] = next;
                    next += counts[first + of_strip];
                }
            }
            shares.par_iter().zip(&mut places).for_each(|(share, places)| {
                for (from, to, rank) in edges_of(share) {
                    let of_strip = (to.index() / BLOCK).wrapping_sub(first);
                    if of_strip < block - first {
                        let edge = u64::from(from) << 32 | u64::from(rank) << 24 | (to.index() % BLOCK) as u64;
                        gathered[places[of_strip] as usize].store(edge, Relaxed);
                        places[of_strip] += 1;
                    }
                }
            });
            let mut parts = Vec::new();
            let mut gathered = &gathered[..];
            for &count in &of_block[first..block] {
                let nodes = rest.0.len().min(BLOCK);
                parts.push((
                    before as u64,
                    gathered.split_off(..count).unwrap_or_default(),
                    rest.0.split_off_mut(..nodes).unwrap_or_default(),
                    rest.1.split_off_mut(..count).unwrap_or_default(),
                    rest.2.split_off_mut(..count).unwrap_or_default(),
                ));
                before += count;
            }
            parts.into_par_iter().for_each(|(before, gathered, starts, sources, ranks)| {
                let edges = || gathered.iter().map(|edge| edge.load(Relaxed));
                let target = |edge: u64| (edge & 0xFF_FFFF) as usize;
                edges().for_each(|edge| starts[target(edge)] += 1);
                let mut next = before;
                starts.iter_mut().for_each(|start| next += std::mem::replace(start, next));
                // A start runs to the start after it while the places are given out, and back.
                for edge in edges() {
                    let start = &mut starts[target(edge)];
                    let place = (*start - before) as usize;
                    (sources[place], ranks[place]) = ((edge >> 32) as u32, (edge >> 24) as u8);
                    *start += 1;
                }
                let mut start = before;
                starts.iter_mut().for_each(|end| start = std::mem::replace(end, start));
            });
        }
        starts[n] = edges as u64;
        Ties { graph, starts, sources, ranks }
    }

    /// The other ends of `node`'s edges, each with the place in the row where it stands.
    fn of_node(&self, node: NodeId) -> impl Iterator<Item = (NodeId, u8)> + '_ {
        let places = self.starts[node.index()] as usize..self.starts[node.index() + 1] as usize;
        let in_edges = self.sources[places.clone()].iter().zip(&self.ranks[places]).map(|(&source, &rank)| (NodeId(source), rank));
        out_edges(self.graph, node).chain(in_edges)
    }
}

fn out_edges(graph: &Graph, node: NodeId) -> impl Iterator<Item = (NodeId, u8)> + '_ {
    graph.neighbors(node).iter().copied().take(TYING).zip(0..)
}

/// How closely an edge ties that stands at `rank` in its row.
fn weight(rank: u8) -> u32 {
    1000 / (u32::from(rank) + 4)
}

/// How much each unplaced node is wanted by the page being filled.
struct PageScores {
    ids: Vec<NodeId>,
    /// Of each of `ids`; 0 once it was taken.
    scores: Vec<u32>,
    /// Open addressing: place in `ids` + 1, or 0.
    slots: Vec<u32>,
    /// Slots in use.
    used: Vec<u32>,
}

impl PageScores {
    fn new() -> PageScores {
        PageScores { ids: Vec::new(), scores: Vec::new(), slots: vec![0; 1024], used: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn clear(&mut self) {
        self.used.drain(..).for_each(|slot| self.slots[slot as usize] = 0);
        self.ids.clear();
        self.scores.clear();
    }

    /// The slot of `id`: its own, or the free one where it belongs.
    fn slot(&self, id: NodeId) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (u64::from(id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & mask;
        while self.slots[at] != 0 && self.ids[self.slots[at] as usize - 1] != id {
            at = (at + 1) & mask;
        }
        at
    }

    fn add(&mut self, id: NodeId, score: u32) {
        let mut slot = self.slot(id);
        if self.slots[slot] == 0 {
            if self.ids.len() * 2 >= self.slots.len() {
                self.grow();
                slot = self.slot(id);
            }
            self.ids.push(id);
            self.scores.push(0);
            self.slots[slot] = self.ids.len() as u32;
            self.used.push(slot as u32);
        }
        self.scores[self.slots[slot] as usize - 1] += score;
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 2];
        self.used.clear();
        for place in 0..self.ids.len() {
            let slot = self.slot(self.ids[place]);
            self.slots[slot] = place as u32 + 1;
            self.used.push(slot as u32);
        }
    }

    /// Takes the most wanted node; among equals the smallest id.
    fn take_best(&mut self) -> Option<NodeId> {
        let most = self.scores.iter().copied().max().filter(|&most| most > 0)?;
        let equals = (0..self.ids.len()).filter(|&place| self.scores[place] == most);
        let best = equals.min_by_key(|&place| self.ids[place])?;
        self.scores[best] = 0;
        Some(self.ids[best])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use roxanne_core::random::CounterRng;

    fn order_of(graph: &Graph, per_page: usize) -> Vec<NodeId> {
        let stop = false.into();
        page_order(graph, per_page, &Watch::new(&Silent, &stop)).unwrap()
    }

    #[test]
    fn neighbors_share_pages_and_every_node_is_placed_once() {
        // Two cliques of four, joined by one far edge; ids interleaved.
        let mut graph = Graph::new(8, 4);
        for i in 0..8u32 {
            let mut row: Vec<NodeId> = (0..8).filter(|&j| j != i && j % 2 == i % 2).map(NodeId).collect();
            if i == 0 {
                row.push(NodeId(1));
            }
            graph.set(NodeId(i), &row);
        }
        let mut pages: Vec<Vec<u32>> = order_of(&graph, 4).chunks(4).map(|page| page.iter().map(|id| id.0).collect()).collect();
        pages.iter_mut().for_each(|page| page.sort_unstable());
        assert_eq!(pages, [[0, 2, 4, 6], [1, 3, 5, 7]]);
    }

    #[test]
    fn fronts_that_meet_everywhere_give_one_order_on_any_number_of_threads() {
        // Eight fronts whose edges lead to the same few nodes, to each other's regions and nowhere.
        let (n, rng) = (8 * REGION - 5, CounterRng::new(7));
        let mut graph = Graph::new(n, 20);
        for node in 0..n as u32 {
            let (edges, within) = (u64::from(node % 21), if node % 2 == 0 { 40 } else { n as u64 });
            let row: Vec<NodeId> = (0..edges).map(|e| NodeId(rng.part(e).below(u64::from(node), within) as u32)).collect();
            graph.set(NodeId(node), &row);
        }
        for per_page in [1, 4, 15, 700] {
            let orders = [1, 2, 5].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| order_of(&graph, per_page))
            });
            assert!(orders[0] == orders[1] && orders[0] == orders[2], "{per_page} a page");
            let mut sorted: Vec<u32> = orders[0].iter().map(|id| id.0).collect();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..n as u32), "{per_page} a page");
        }
        assert!(order_of(&Graph::new(0, 1), 4).is_empty());
    }
}
