//! Overlapping clusters, small enough that all pairs inside one can be computed: random leaders, each vector to its nearest few, again
//! and again until a cluster is a leaf (PiPNN, arXiv 2602.21247; the overlap is what keeps neighbors together somewhere).
//!
//! The top level is cut once for all vectors; below it, batches of top clusters are cut down to leaves one after the other, so that
//! memory follows the batch. Every random choice is keyed by the path to its cluster, never by order: any batch gives the same leaves.

use crate::backend::{Backend, BackendError, BuildCodes, Groups, Heard, NO_LEADER, Run, Selection};
use rayon::prelude::*;
use roxanne_core::{huge, id::NodeId, random::CounterRng};
use std::ops::Range;

/// The shape of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionParams {
    /// Leaders a vector goes to, by level; the last holds for all deeper ones.
    pub fanout: Vec<usize>,
    /// A cluster of at most this many is a leaf.
    pub leaf_max: usize,
    /// Leaves below this are joined with their siblings.
    pub leaf_min: usize,
    /// The share of a cluster that leads is 1 / this ...
    pub leader_share: usize,
    /// ... but at most this many (and at least twice the fanout).
    pub leaders_max: usize,
}

impl Default for PartitionParams {
    fn default() -> PartitionParams {
        PartitionParams { fanout: vec![10, 3, 1], leaf_max: 256, leaf_min: 64, leader_share: 100, leaders_max: 1000 }
    }
}

impl PartitionParams {
    fn fanout_at(&self, level: usize) -> usize {
        self.fanout[level.min(self.fanout.len() - 1)]
    }
}

/// Clusters that are still to be cut, with the random function of each.
pub struct Clusters<I> {
    groups: Groups<I>,
    rngs: Vec<CounterRng>,
}

impl<I> Clusters<I> {
    /// Members of all clusters, counted once for each.
    pub fn members(&self) -> u64 {
        self.groups.total()
    }

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// True without clusters.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Ranges of clusters with about `members` members each.
    pub fn batches(&self, members: u64) -> Vec<Range<usize>> {
        let (mut batches, mut first) = (Vec::new(), 0);
        for c in 0..self.len() {
            if c + 1 == self.len() || self.groups.offsets[c + 1] - self.groups.offsets[first] >= members {
                batches.push(first..c + 1);
                first = c + 1;
            }
        }
        batches
    }

    /// A range of the clusters by themselves.
    ///
    /// # Errors
    /// What the backend says.
    pub fn part<B: Backend<Ids = I>>(&self, backend: &B, range: Range<usize>) -> Result<Clusters<I>, BackendError> {
        let mut selection = Selection::default();
        range.clone().for_each(|c| selection.push(&[Run { start: self.groups.offsets[c], length: self.groups.size(c) }]));
        Ok(Clusters { groups: backend.select(&self.groups, &selection)?, rngs: self.rngs[range].to_vec() })
    }
}

/// What cutting one level gave.
pub struct Cut<I> {
    /// Clusters small enough.
    pub leaves: Groups<I>,
    /// Clusters to cut again.
    pub open: Clusters<I>,
    /// Rows compared with leaders.
    pub pairs: u64,
}

/// The top level: all vectors cut once, and put in order by cell.
pub struct TopLevel<I> {
    /// The rows in their new order.
    pub codes: BuildCodes,
    /// Which row of the input each new row is.
    pub order: Vec<NodeId>,
    /// Clusters of new rows.
    pub cut: Cut<I>,
}

/// Cuts all of `codes` once and reorders them: a vector's cell is its nearest leader, and cells follow each other along a tour of near
/// leaders. Nearly everything a build touches together then lies together, in this and in every later stage. `heard` is told of rows that
/// have their leaders.
///
/// # Errors
/// What the backend says.
pub fn top_level<B: Backend>(
    backend: &B,
    codes: BuildCodes,
    params: &PartitionParams,
    seed: u64,
    heard: Heard<'_>,
) -> Result<TopLevel<B::Ids>, BackendError> {
    let (n, fanout, rng) = (codes.n(), params.fanout_at(0), CounterRng::new(seed).part(0x9A27));
    let all = Groups { offsets: vec![0, n as u64], members: backend.place((0..n as u32).collect())? };
    if n <= params.leaf_max {
        let order = (0..n as u32).map(NodeId).collect();
        let open = Clusters { groups: Groups { offsets: vec![0], members: backend.place(Vec::new())? }, rngs: Vec::new() };
        return Ok(TopLevel { codes, order, cut: Cut { leaves: all, open, pairs: 0 } });
    }
    let leaders = leaders_of(backend, &all, &[rng], fanout, params)?;
    let rows = backend.load(&codes)?;
    let choice = backend.assign_heard(&rows, &all, &leaders, fanout, heard)?;
    drop(rows);
    let tour = tour_of(&codes, &backend.fetch(&leaders.members)?);
    let (order, renamed) = backend.order_by_cell(&choice, fanout, &tour)?;
    drop(choice);
    let mut bytes: Vec<u8> = huge::zeroed(codes.bytes.len());
    bytes.par_chunks_exact_mut(codes.stride).zip(&order).for_each(|(row, old)| row.copy_from_slice(codes.row(old.0)));
    let cut = divide(backend, &all, &[rng], &leaders, &renamed, fanout, params)?;
    Ok(TopLevel { codes: BuildCodes { bytes, ..codes }, order, cut })
}

/// Each leader's place on a tour that goes on to the nearest leader not yet visited.
fn tour_of(codes: &BuildCodes, leaders: &[u32]) -> Vec<u32> {
    let mut place = vec![NO_LEADER; leaders.len()];
    let mut at = 0;
    for step in 0..leaders.len() as u32 {
        place[at] = step;
        let unvisited = (0..leaders.len()).filter(|&l| place[l] == NO_LEADER);
        let distance = |&l: &usize| (codes.distance(NodeId(leaders[at]), NodeId(leaders[l])), l);
        at = unvisited.min_by_key(distance).unwrap_or(at);
    }
    place
}

/// The leaders of every cluster, chosen by its own random function.
fn leaders_of<B: Backend>(
    backend: &B,
    clusters: &Groups<B::Ids>,
    rngs: &[CounterRng],
    fanout: usize,
    params: &PartitionParams,
) -> Result<Groups<B::Ids>, BackendError> {
    let chosen: Vec<Vec<u64>> = (0..clusters.len())
        .into_par_iter()
        .map(|c| {
            // Twice the fanout at least: with fewer, most vectors would go to most leaders and nothing would be divided.
            let count = (clusters.size(c) / params.leader_share as u64).max(2 * fanout as u64).min(params.leaders_max as u64);
            rngs[c].sample(clusters.size(c), count).into_iter().map(|at| clusters.offsets[c] + at).collect()
        })
        .collect();
    let mut offsets = vec![0];
    chosen.iter().for_each(|places| offsets.push(offsets[offsets.len() - 1] + places.len() as u64));
    Ok(Groups { offsets, members: backend.pick(&clusters.members, &chosen.concat())? })
}

/// Cuts every cluster once.
fn cut<B: Backend>(
    backend: &B,
    rows: &B::Rows<'_>,
    clusters: &Clusters<B::Ids>,
    level: usize,
    params: &PartitionParams,
) -> Result<Cut<B::Ids>, BackendError> {
    let fanout = params.fanout_at(level);
    let leaders = leaders_of(backend, &clusters.groups, &clusters.rngs, fanout, params)?;
    let choice = backend.assign(rows, &clusters.groups, &leaders, fanout)?;
    divide(backend, &clusters.groups, &clusters.rngs, &leaders, &choice, fanout, params)
}

/// Sends every member to the leaders of its choice, and sorts the outcome into leaves and clusters to cut again.
fn divide<B: Backend>(
    backend: &B,
    clusters: &Groups<B::Ids>,
    rngs: &[CounterRng],
    leaders: &Groups<B::Ids>,
    choice: &B::Ids,
    fanout: usize,
    params: &PartitionParams,
) -> Result<Cut<B::Ids>, BackendError> {
    let children = backend.children(clusters, &leaders.offsets, choice, fanout)?;
    let plans: Vec<Division> = (0..clusters.len())
        .into_par_iter()
        .map(|c| {
            sort_out(&children.offsets[leaders.offsets[c] as usize..=leaders.offsets[c + 1] as usize], clusters.size(c), rngs[c], params)
        })
        .collect();
    let mut whole = Division::default();
    for plan in plans {
        whole.leaves.extend(&plan.leaves);
        whole.open.extend(&plan.open);
        whole.rngs.extend(plan.rngs);
    }
    Ok(Cut {
        leaves: backend.select(&children, &whole.leaves)?,
        open: Clusters { groups: backend.select(&children, &whole.open)?, rngs: whole.rngs },
        pairs: (0..clusters.len()).map(|c| clusters.size(c) * leaders.size(c)).sum(),
    })
}

/// Clusters all the way down to leaves, which are handed to `each`, level by level; returns the pairs compared.
///
/// # Errors
/// What the backend and `each` say.
pub fn cut_to_leaves<B: Backend>(
    backend: &B,
    rows: &B::Rows<'_>,
    clusters: Clusters<B::Ids>,
    first_level: usize,
    params: &PartitionParams,
    each: &mut dyn FnMut(Groups<B::Ids>) -> Result<(), BackendError>,
) -> Result<u64, BackendError> {
    let (mut open, mut level, mut pairs) = (clusters, first_level, 0);
    while !open.is_empty() {
        let cut = cut(backend, rows, &open, level, params)?;
        pairs += cut.pairs;
        open = cut.open;
        if !cut.leaves.is_empty() {
            each(cut.leaves)?;
        }
        level += 1;
    }
    Ok(pairs)
}

/// What becomes of the children of a cluster.
#[derive(Default)]
struct Division {
    leaves: Selection,
    open: Selection,
    /// One for each open cluster.
    rngs: Vec<CounterRng>,
}

/// Divides children, of which it sees the sizes alone (`offsets` [children + 1]), into leaves and clusters to cut again.
fn sort_out(offsets: &[u64], parent_size: u64, rng: CounterRng, params: &PartitionParams) -> Division {
    let (leaf_max, leaf_min) = (params.leaf_max as u64, params.leaf_min as u64);
    let mut division = Division::default();
    // Small children are joined. Siblings share members, so what they have in sum is the most that their union can have.
    let (mut joined, mut sum): (Vec<Run>, u64) = (Vec::new(), 0);
    for (c, ends) in offsets.windows(2).enumerate() {
        let child = Run { start: ends[0], length: ends[1] - ends[0] };
        if child.length == 0 {
        } else if child.length > leaf_max {
            if child.length * 10 > parent_size * 9 {
                // Leaders do not divide it: its vectors are (nearly) all equal, so any cut is as good as another.
                for start in (0..child.length).step_by(params.leaf_max) {
                    division.leaves.push(&[Run { start: child.start + start, length: leaf_max.min(child.length - start) }]);
                }
            } else {
                division.open.push(&[child]);
                division.rngs.push(rng.part(c as u64 + 1));
            }
        } else if child.length >= leaf_min && joined.is_empty() {
            division.leaves.push(&[child]);
        } else {
            if sum + child.length > leaf_max {
                division.leaves.push(&joined);
                joined.clear();
                sum = 0;
            }
            joined.push(child);
            sum += child.length;
            if sum >= leaf_min {
                division.leaves.push(&joined);
                joined.clear();
                sum = 0;
            }
        }
    }
    if !joined.is_empty() {
        division.leaves.push(&joined);
    }
    division
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use roxanne_core::tile::BuildMetric;

    fn leaves_of(bytes: Vec<u8>, seed: u64) -> Groups {
        let codes = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes };
        let (cpu, params) = (Cpu::default(), PartitionParams::default());
        let mut leaves = Groups::new();
        let top = top_level(&cpu, codes.clone(), &params, seed, &|_| ()).unwrap();
        assert!(top.order.iter().enumerate().all(|(new, old)| top.codes.row(new as u32) == codes.row(old.0)));
        let mut collect = |some: Groups| -> Result<(), BackendError> {
            (0..some.len()).for_each(|l| leaves.push(some.group(l)));
            Ok(())
        };
        collect(top.cut.leaves).unwrap();
        cut_to_leaves(&cpu, &&top.codes, top.cut.open, 1, &params, &mut collect).unwrap();
        leaves
    }

    fn random_bytes(n: usize, span: u64) -> Vec<u8> {
        let rng = CounterRng::new(8);
        (0..n as u64 * 32).map(|i| rng.below(i, span) as u8).collect()
    }

    #[test]
    fn every_vector_is_in_a_leaf_and_leaves_are_small_sorted_and_distinct() {
        for (n, span) in [(1usize, 256), (2, 256), (65, 256), (257, 256), (3000, 256), (3000, 1), (3000, 2)] {
            let leaves = leaves_of(random_bytes(n, span), 1);
            let mut seen = vec![false; n];
            for l in 0..leaves.len() {
                let leaf = leaves.group(l);
                assert!(!leaf.is_empty() && leaf.len() <= 256 && leaf.windows(2).all(|w| w[0] < w[1]), "n {n} span {span}");
                leaf.iter().for_each(|&m| seen[m as usize] = true);
            }
            assert!(seen.into_iter().all(|s| s), "n {n} span {span}");
        }
    }

    #[test]
    fn leaves_overlap_and_none_comes_twice() {
        for n in [300, 600, 1000, 3000] {
            let leaves = leaves_of(random_bytes(n, 256), 1);
            let all: std::collections::BTreeSet<&[u32]> = (0..leaves.len()).map(|l| leaves.group(l)).collect();
            assert_eq!(all.len(), leaves.len(), "n {n}");
            assert!(leaves.members.len() > 5 * n, "n {n}: {} rows in {} leaves", leaves.members.len(), leaves.len());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_leaves() {
        assert_eq!(leaves_of(random_bytes(2000, 256), 4), leaves_of(random_bytes(2000, 256), 4));
        assert_ne!(leaves_of(random_bytes(2000, 256), 4), leaves_of(random_bytes(2000, 256), 5));
    }
}
