//! The one beam search: greedy best-first over a graph, without I/O.
//!
//! It says which node it wants expanded next and is told what that brought: the node's neighbors. Whether those came from RAM, from
//! the delta or from a sector that was read for another query is the caller's business, and answers may come in any order. Distances that
//! steer ([`BeamSearch`], integers: build distances or compressed ones) and distances that rank answers ([`TopK`], exact) are apart,
//! because on flash they are two different things. Source: Vamana, algorithm 1 (GreedySearch).

use crate::{
    id::NodeId,
    neighbor::{Distance, Neighbor},
};
use std::mem;

mod visited;

pub use visited::VisitedSet;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    neighbor: Neighbor<u32>,
    taken: bool,
}

/// How far beyond the k-th nearest a search goes on looking.
///
/// A candidate is worth expanding while its distance is at most `1 + share` times that of the k-th in the list. So a query with many vectors
/// about as near as its k-th looks at many, and one that is done early ends early, where a list of fixed length is too long for one and too short for
/// the other. Source: distance adaptive beam search (Al-Jazzazi, Diwan, Gou, Musco, Musco, Suel, 2025).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slack {
    /// Hits wanted, at least 1.
    pub k: usize,
    /// Of the k-th distance.
    pub share: f32,
    /// What the search's numbers are.
    pub scale: Scale,
}

/// So many times the slack what comes for free is still worth expanding. On sift1m 1 read a sixth more for recall .99, 2 a fourteenth less and took a
/// tenth more processor time.
const FREE: f32 = 1.5;

/// How steering distances stand to true ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// In proportion, when this is added.
    Offset(f32),
    /// [`Distance::rank`] of them.
    Ranks,
}

impl Slack {
    /// `times` the slack beyond `kth`.
    fn limit(&self, kth: u32, times: f32) -> u32 {
        // Of products, which may be negative, a share is one of their size.
        let beyond = |kth: f32| kth + times * self.share * kth.abs();
        match self.scale {
            Scale::Offset(offset) => (beyond(kth as f32 + offset) - offset) as u32,
            Scale::Ranks => Distance(beyond(Distance::of_rank(kth).0)).rank(),
        }
    }
}

/// The `list_size` (L) best nodes seen so far and which of them were already taken for expansion.
#[derive(Debug, Default)]
pub struct BeamSearch {
    list: Vec<Candidate>,
    list_size: usize,
    /// No candidate before this place is waiting.
    first_waiting: usize,
    visited: VisitedSet,
    slack: Option<Slack>,
    /// Nothing farther is asked for, by the slack.
    limit: u32,
    /// Nothing farther is kept.
    bound: u32,
    /// Whether nodes that the list has no room for are kept for a longer list.
    spills: bool,
    spilled: Vec<Candidate>,
    scratch: Scratch,
    /// Distances computed since `reset`.
    pub distance_count: u64,
}

/// What an expansion in RAM goes through.
#[derive(Debug, Default)]
struct Scratch {
    neighbors: Vec<NodeId>,
    distances: Vec<u32>,
}

impl BeamSearch {
    /// Starts a search that keeps the best `list_size` (L, at least 1) nodes.
    pub fn reset(&mut self, list_size: usize) {
        self.list.clear();
        self.list.reserve(list_size + 1);
        self.list_size = list_size.max(1);
        self.first_waiting = 0;
        self.visited.reset();
        (self.slack, self.limit, self.bound) = (None, u32::MAX, u32::MAX);
        self.spills = false;
        self.spilled.clear();
        self.distance_count = 0;
    }

    /// From now on the search ends when all within the slack is expanded, and the list holds nothing beyond some multiple of it: what comes for
    /// free with others is worth expanding farther out than what has to be asked for.
    pub fn set_slack(&mut self, slack: Slack) {
        self.slack = Some(slack);
        self.tighten(0);
    }

    /// What stands behind the k-th and too far from it goes, when a node came in at place `at`.
    fn tighten(&mut self, at: usize) {
        let Some(slack) = self.slack.filter(|slack| at < slack.k) else { return };
        let Some(kth) = self.list.get(slack.k - 1) else { return };
        self.limit = slack.limit(kth.neighbor.distance, 1.0);
        self.bound = slack.limit(kth.neighbor.distance, FREE);
        while self.list.last().is_some_and(|last| last.neighbor.distance > self.bound)
            && let Some(worst) = self.list.pop()
        {
            self.spill(worst);
        }
    }

    /// From now on nodes that the list has no room for are kept aside, 12 bytes each, so that [`BeamSearch::grow`] may bring them back.
    pub fn keep_spilled(&mut self) {
        self.spills = true;
    }

    /// Makes room for `list_size` nodes and fills it with the best of those that were kept aside. The search goes on from there.
    pub fn grow(&mut self, list_size: usize) {
        self.list_size = list_size.max(self.list_size);
        let mut spilled = mem::take(&mut self.spilled);
        spilled.sort_unstable_by_key(|candidate| candidate.neighbor);
        spilled.drain(..).for_each(|candidate| self.place(candidate.neighbor, candidate.taken));
        if self.spilled.is_empty() {
            self.spilled = spilled;
        }
    }

    /// The list's length at most (L).
    pub fn list_size(&self) -> usize {
        self.list_size
    }

    /// Notes that `id` is known; false when it was. Its distance is worth computing only the first time.
    #[inline]
    pub fn visit(&mut self, id: NodeId) -> bool {
        self.visited.insert(id)
    }

    /// Notes that all of `ids` are known, and leaves those that were not. Asked for together: whether one is known decides a branch, and a
    /// branch that waits for memory holds up all behind it.
    #[inline]
    pub fn retain_new(&mut self, ids: &mut Vec<NodeId>) {
        ids.iter().for_each(|&id| self.visited.prefetch(id));
        ids.retain(|&id| self.visited.insert(id));
    }

    /// Would a node at this place enter the list? A node that would not can never be useful later: the list only gets better.
    #[inline]
    pub fn admits(&self, neighbor: Neighbor<u32>) -> bool {
        neighbor.distance <= self.bound
            && (self.list.len() < self.list_size || self.list.last().is_some_and(|worst| neighbor < worst.neighbor))
    }

    /// Puts a newly visited node into the list if it is good enough.
    pub fn push(&mut self, neighbor: Neighbor<u32>) {
        self.place(neighbor, false);
    }

    /// The same for a node that is being expanded right now, because it came for free with another.
    pub fn push_taken(&mut self, neighbor: Neighbor<u32>) {
        self.place(neighbor, true);
    }

    fn place(&mut self, neighbor: Neighbor<u32>, taken: bool) {
        if !self.admits(neighbor) {
            // Whoever expands nodes that came for free does so only with those that were admitted.
            self.spill(Candidate { neighbor, taken: false });
            return;
        }
        let at = self.list.partition_point(|c| c.neighbor < neighbor);
        if self.list.len() == self.list_size
            && let Some(worst) = self.list.pop()
        {
            self.spill(worst);
        }
        self.list.insert(at, Candidate { neighbor, taken });
        if !taken {
            self.first_waiting = self.first_waiting.min(at);
        } else if at < self.first_waiting {
            self.first_waiting += 1;
        }
        self.tighten(at);
    }

    #[inline]
    fn spill(&mut self, candidate: Candidate) {
        if self.spills {
            self.spilled.push(candidate);
        }
    }

    /// Takes the best waiting node for which `suits` has something, and gives both.
    pub fn take_where<T>(&mut self, mut suits: impl FnMut(Neighbor<u32>) -> Option<T>) -> Option<(Neighbor<u32>, T)> {
        let from = self.first_waiting.min(self.list.len());
        self.list[from..].iter_mut().filter(|c| !c.taken).find_map(|candidate| {
            let found = suits(candidate.neighbor)?;
            candidate.taken = true;
            Some((candidate.neighbor, found))
        })
    }

    /// The best node that waits for expansion, which is thereby taken.
    pub fn take(&mut self) -> Option<Neighbor<u32>> {
        while let Some(candidate) = self.list.get_mut(self.first_waiting) {
            if !candidate.taken {
                if candidate.neighbor.distance > self.limit {
                    return None;
                }
                candidate.taken = true;
                self.first_waiting += 1;
                return Some(candidate.neighbor);
            }
            self.first_waiting += 1;
        }
        None
    }

    /// Takes a node out of turn; false when it is not waiting in the list.
    pub fn take_this(&mut self, neighbor: Neighbor<u32>) -> bool {
        let at = self.list.partition_point(|c| c.neighbor < neighbor);
        match self.list.get_mut(at) {
            Some(c) if c.neighbor == neighbor && !c.taken => {
                c.taken = true;
                true
            }
            _ => false,
        }
    }

    /// The list as far as it is worth asking for, best first: all of it without a slack.
    pub fn wanted(&self) -> impl Iterator<Item = Neighbor<u32>> + '_ {
        self.found().take_while(|node| node.distance <= self.limit)
    }

    /// The list as it stands, best first.
    pub fn found(&self) -> impl Iterator<Item = Neighbor<u32>> + '_ {
        self.list.iter().map(|c| c.neighbor)
    }
}

/// What a search asks of a graph: how far a node is, and which neighbors an expanded node brings. Both without I/O.
pub trait Space {
    /// Steering distance from the query to `node`.
    fn distance(&mut self, node: NodeId) -> u32;

    /// Steering distances `out[i]` to `nodes[i]`. A space whose nodes lie far apart in memory asks for them ahead.
    fn distances(&mut self, nodes: &[NodeId], out: &mut Vec<u32>) {
        out.clear();
        out.extend(nodes.iter().map(|&node| self.distance(node)));
    }

    /// Appends the neighbors of `node`.
    fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>);
}

/// The whole search over a graph in RAM, from `entries`; results are in `search.found()`. `expanded` sees each node as it is expanded.
pub fn search_in_ram(
    space: &mut impl Space,
    entries: &[NodeId],
    list_size: usize,
    search: &mut BeamSearch,
    expanded: impl FnMut(Neighbor<u32>),
) {
    search.reset(list_size);
    go_on_in_ram(space, entries, search, expanded);
}

/// Goes on with a search over a graph in RAM, with `entries` besides what waits in its list, until nothing waits.
pub fn go_on_in_ram(space: &mut impl Space, entries: &[NodeId], search: &mut BeamSearch, mut expanded: impl FnMut(Neighbor<u32>)) {
    let Scratch { mut neighbors, mut distances } = mem::take(&mut search.scratch);
    neighbors.clear();
    neighbors.extend_from_slice(entries);
    loop {
        search.retain_new(&mut neighbors);
        space.distances(&neighbors, &mut distances);
        search.distance_count += neighbors.len() as u64;
        for (&id, &distance) in neighbors.iter().zip(&distances) {
            search.push(Neighbor { distance, id });
        }
        let Some(node) = search.take() else { break };
        expanded(node);
        neighbors.clear();
        space.expand(node.id, &mut neighbors);
    }
    search.scratch = Scratch { neighbors, distances };
}

/// The best `k` of what was offered, by a total order.
#[derive(Clone, Debug)]
pub struct TopK<T: Ord> {
    k: usize,
    heap: std::collections::BinaryHeap<T>,
}

impl<T: Ord> TopK<T> {
    /// The one that a better one would push out; none while there is room.
    pub fn last(&self) -> Option<&T> {
        if self.heap.len() < self.k { None } else { self.heap.peek() }
    }

    /// Keeps `k` (allocated as they come, so a huge `k` costs nothing).
    pub fn new(k: usize) -> Self {
        TopK { k, heap: std::collections::BinaryHeap::new() }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Empties it for a new `k`.
    pub fn reset(&mut self, k: usize) {
        self.k = k;
        self.heap.clear();
    }

    /// Offers one item.
    #[inline]
    pub fn offer(&mut self, item: T) {
        if self.heap.len() < self.k {
            self.heap.push(item);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && item < *worst
        {
            *worst = item;
        }
    }

    /// Whether `item` would be kept.
    #[inline]
    pub fn admits(&self, item: &T) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| item < worst)
    }

    /// What is kept, in no order.
    pub fn kept(&self) -> impl Iterator<Item = &T> {
        self.heap.iter()
    }

    /// What was kept, best first; leaves it empty.
    pub fn drain_sorted(&mut self) -> Vec<T> {
        std::mem::take(&mut self.heap).into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line(Vec<Vec<u32>>, u32);
    impl Space for Line {
        fn distance(&mut self, node: NodeId) -> u32 {
            node.0.abs_diff(self.1)
        }
        fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
            neighbors.extend(self.0[node.index()].iter().map(|&n| NodeId(n)));
        }
    }

    struct Doubled(Vec<Vec<u32>>, u32);
    impl Space for Doubled {
        fn distance(&mut self, node: NodeId) -> u32 {
            (2 * node.0).abs_diff(self.1)
        }
        fn expand(&mut self, node: NodeId, neighbors: &mut Vec<NodeId>) {
            neighbors.extend(self.0[node.index()].iter().map(|&n| NodeId(n)));
        }
    }

    #[test]
    fn a_search_walks_the_line_and_keeps_the_best() {
        let edges = (0..50u32).map(|i| [i.checked_sub(1), (i < 49).then_some(i + 1)].into_iter().flatten().collect()).collect();
        let mut line = Line(edges, 30);
        let mut search = BeamSearch::default();
        for _ in 0..3 {
            let mut order = Vec::new();
            search_in_ram(&mut line, &[NodeId(0)], 3, &mut search, |n| order.push(n.id.0));
            assert_eq!(search.found().map(|n| n.id.0).collect::<Vec<_>>(), [30, 29, 31]);
            assert_eq!(order[..31], (0..31).collect::<Vec<_>>()[..]);
            assert_eq!(search.distance_count, 33);
        }
    }

    #[test]
    fn a_node_pushed_as_taken_is_never_handed_out() {
        let mut search = BeamSearch::default();
        search.reset(4);
        let at = |d, id| Neighbor { distance: d, id: NodeId(id) };
        for (d, id) in [(5, 1), (7, 2), (9, 3)] {
            search.push(at(d, id));
        }
        assert_eq!(search.take(), Some(at(5, 1)));
        search.push_taken(at(4, 9));
        search.push(at(6, 8));
        assert!(search.take_this(at(9, 3)) || search.found().count() == 4);
        assert_eq!((search.take(), search.take(), search.take()), (Some(at(6, 8)), Some(at(7, 2)), None));
    }

    #[test]
    fn a_slack_ends_a_search_where_the_rest_is_too_far() {
        let edges = |i: u32| [i.checked_sub(1), (i < 199).then_some(i + 1)].into_iter().flatten().collect();
        for (scale, at, share, expected) in [
            (Scale::Offset(0.0), 100, 1.0, 95..=104),
            (Scale::Offset(2.0), 100, 1.0, 93..=106),
            (Scale::Offset(0.0), 100, 0.0, 98..=101),
            (Scale::Offset(0.0), 100, 1e9, 0..=199),
        ] {
            // 4 nearest: 0.5, 0.5, 1.5 and 1.5 away; doubled, the distances are whole numbers.
            let mut line = Doubled((0..200).map(edges).collect(), 2 * at - 1);
            let mut search = BeamSearch::default();
            search.reset(1000);
            search.set_slack(Slack { k: 4, share, scale });
            let mut seen = Vec::new();
            go_on_in_ram(&mut line, &[NodeId(at - 20)], &mut search, |n| seen.push(n.id.0));
            let found: Vec<u32> = search.found().map(|n| n.id.0).collect();
            assert!(found.len() < 1000 && found[..4].iter().all(|id| (98..=101).contains(id)), "{found:?}");
            let (least, most) = (found.iter().min().unwrap(), found.iter().max().unwrap());
            let limit = Slack { k: 4, share, scale }.limit(3, FREE);
            assert!(found.iter().all(|&id| (2 * id).abs_diff(2 * at - 1) <= limit), "{found:?}");
            assert!(expected.contains(least) && expected.contains(most), "{least} {most} {expected:?}");
        }
        let ranks = Slack { k: 1, share: 0.5, scale: Scale::Ranks };
        for (kth, limit) in [(2.0, 3.0), (-2.0, -1.0), (0.0, 0.0)] {
            assert_eq!(ranks.limit(Distance(kth).rank(), 1.0), Distance(limit).rank());
        }
    }

    #[test]
    fn a_list_that_grows_goes_on_where_a_longer_one_would_have_been() {
        let edges = |i: u32| [i.checked_sub(1), (i < 49).then_some(i + 1)].into_iter().flatten().collect();
        let mut line = Line((0..50).map(edges).collect(), 30);
        let mut search = BeamSearch::default();
        search.reset(2);
        search.keep_spilled();
        let mut neighbors = vec![NodeId(28)];
        for size in [2, 5, 9] {
            search.grow(size);
            loop {
                for id in neighbors.drain(..).filter(|&id| search.visit(id)).collect::<Vec<_>>() {
                    let distance = line.distance(id);
                    search.push(Neighbor { distance, id });
                }
                let Some(node) = search.take() else { break };
                line.expand(node.id, &mut neighbors);
            }
            let mut found: Vec<u32> = search.found().map(|n| n.id.0).collect();
            found.sort_unstable();
            let around = (30 - size as u32 / 2)..(30 - size as u32 / 2 + size as u32);
            assert!(size == 2 || found == around.collect::<Vec<_>>(), "{size}: {found:?}");
        }
        assert_eq!(search.list_size(), 9);
    }

    #[test]
    fn a_node_is_taken_out_of_turn_where_it_suits() {
        let mut search = BeamSearch::default();
        search.reset(4);
        (1..=4).for_each(|id| search.push(Neighbor { distance: id * 10, id: NodeId(id) }));
        let even = |n: Neighbor<u32>| n.id.0.is_multiple_of(2).then_some(n.id.0 * 100);
        assert_eq!(search.take_where(even).map(|(n, found)| (n.id.0, found)), Some((2, 200)));
        assert_eq!(search.take_where(even).map(|(n, _)| n.id.0), Some(4));
        assert_eq!((search.take_where(even), search.take().map(|n| n.id.0), search.take().map(|n| n.id.0)), (None, Some(1), Some(3)));
        assert_eq!(search.take(), None);
    }

    #[test]
    fn top_k_keeps_the_smallest() {
        let mut top = TopK::new(3);
        [5, 1, 4, 2, 3, 1].into_iter().for_each(|x| top.offer(x));
        assert_eq!(top.drain_sorted(), [1, 1, 2]);
        top.reset(0);
        top.offer(1);
        assert!(top.drain_sorted().is_empty());
    }
}
