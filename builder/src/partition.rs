//! Overlapping clusters, small enough that all pairs inside one can be computed: random leaders, each vector to its nearest few, again
//! and again until a cluster is a leaf (PiPNN, arXiv 2602.21247; the overlap is what keeps neighbors together somewhere).
//!
//! The top level is cut once for all vectors; below it, batches of top clusters are cut down to leaves one after the other, so that
//! memory follows the batch. Every random choice is keyed by the path to its cluster, never by order: any batch gives the same leaves.

use crate::backend::{Backend, BackendError, BuildCodes, Groups, NO_LEADER};
use rayon::prelude::*;
use roxanne_core::{huge, id::NodeId, random::CounterRng};

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
pub struct Clusters {
    groups: Groups,
    rngs: Vec<CounterRng>,
}

impl Clusters {
    fn new() -> Clusters {
        Clusters { groups: Groups::new(), rngs: Vec::new() }
    }

    /// Members of all clusters, counted once for each.
    pub fn members(&self) -> usize {
        self.groups.members.len()
    }

    /// The clusters in runs of about `members` members each.
    pub fn batches(&self, members: usize) -> Vec<Clusters> {
        let mut batches = Vec::new();
        let mut batch = Clusters::new();
        for c in 0..self.groups.len() {
            batch.groups.push(self.groups.group(c));
            batch.rngs.push(self.rngs[c]);
            if batch.members() >= members {
                batches.push(std::mem::replace(&mut batch, Clusters::new()));
            }
        }
        if batch.members() > 0 {
            batches.push(batch);
        }
        batches
    }
}

/// What cutting one level gave.
pub struct Cut {
    /// Clusters small enough.
    pub leaves: Groups,
    /// Clusters to cut again.
    pub open: Clusters,
    /// Rows compared with leaders.
    pub pairs: u64,
}

/// The top level: all vectors cut once, and put in order by cell.
pub struct TopLevel {
    /// The rows in their new order.
    pub codes: BuildCodes,
    /// Which row of the input each new row is.
    pub order: Vec<NodeId>,
    /// Clusters of new rows.
    pub cut: Cut,
}

/// Cuts all of `codes` once and reorders them: a vector's cell is its nearest leader, and cells follow each other along a tour of near
/// leaders. Nearly everything a build touches together then lies together, in this and in every later stage.
///
/// # Errors
/// What the backend says.
pub fn top_level(backend: &dyn Backend, codes: BuildCodes, params: &PartitionParams, seed: u64) -> Result<TopLevel, BackendError> {
    let (n, fanout, rng) = (codes.n(), params.fanout_at(0), CounterRng::new(seed).part(0x9A27));
    let mut all = Groups::new();
    all.push(&(0..n as u32).collect::<Vec<_>>());
    if n <= params.leaf_max {
        let order = (0..n as u32).map(NodeId).collect();
        return Ok(TopLevel { codes, order, cut: Cut { leaves: all, open: Clusters::new(), pairs: 0 } });
    }
    let leaders = leaders_of(&all, &[rng], fanout, params);
    let nearest = backend.assign(&codes, &all, &leaders, fanout)?;
    let tour = tour_of(&codes, leaders.group(0));
    // Cells in tour order, rows within a cell in input order.
    let cell_of = |row: usize| tour[nearest[row * fanout] as usize];
    let mut starts = vec![0usize; tour.len() + 1];
    (0..n).for_each(|row| starts[cell_of(row) as usize + 1] += 1);
    for cell in 0..tour.len() {
        starts[cell + 1] += starts[cell];
    }
    let mut order = vec![NodeId(0); n];
    for row in 0..n {
        let place = &mut starts[cell_of(row) as usize];
        order[*place] = NodeId(row as u32);
        *place += 1;
    }
    let mut bytes: Vec<u8> = huge::zeroed(codes.bytes.len());
    let mut chosen = vec![NO_LEADER; nearest.len()];
    bytes.par_chunks_exact_mut(codes.stride).zip(chosen.par_chunks_exact_mut(fanout)).zip(&order).for_each(|((row, chosen), old)| {
        row.copy_from_slice(codes.row(old.0));
        let leaders = nearest[old.index() * fanout..][..fanout].iter();
        chosen.iter_mut().zip(leaders).for_each(|(c, &leader)| *c = if leader == NO_LEADER { NO_LEADER } else { tour[leader as usize] });
    });
    let children = children_of(all.group(0), &chosen, fanout, tour.len());
    let (leaves, open) = sort_out(&children, n, rng, params);
    let cut = Cut { leaves, open, pairs: n as u64 * leaders.members.len() as u64 };
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
fn leaders_of(clusters: &Groups, rngs: &[CounterRng], fanout: usize, params: &PartitionParams) -> Groups {
    let mut leaders = Groups::new();
    for (c, rng) in rngs.iter().enumerate() {
        let members = clusters.group(c);
        // Twice the fanout at least: with fewer, most vectors would go to most leaders and nothing would be divided.
        let count = (members.len() / params.leader_share).max(2 * fanout).min(params.leaders_max);
        let chosen = rng.sample(members.len() as u64, count as u64);
        leaders.push(&chosen.into_iter().map(|at| members[at as usize]).collect::<Vec<_>>());
    }
    leaders
}

/// Cuts every cluster once.
fn cut(
    backend: &dyn Backend,
    codes: &BuildCodes,
    clusters: &Clusters,
    level: usize,
    params: &PartitionParams,
) -> Result<Cut, BackendError> {
    let (groups, fanout) = (&clusters.groups, params.fanout_at(level));
    let leaders = leaders_of(groups, &clusters.rngs, fanout, params);
    let nearest = backend.assign(codes, groups, &leaders, fanout)?;
    let parts: Vec<(Groups, Clusters)> = (0..groups.len())
        .into_par_iter()
        .map(|c| {
            let range = groups.range(c);
            let nearest = &nearest[range.start * fanout..range.end * fanout];
            let children = children_of(groups.group(c), nearest, fanout, leaders.group(c).len());
            sort_out(&children, groups.group(c).len(), clusters.rngs[c], params)
        })
        .collect();
    let pairs = (0..groups.len()).map(|c| groups.range(c).len() as u64 * leaders.range(c).len() as u64).sum();
    let mut cut = Cut { leaves: Groups::new(), open: Clusters::new(), pairs };
    for (leaves, open) in parts {
        (0..leaves.len()).for_each(|l| cut.leaves.push(leaves.group(l)));
        (0..open.groups.len()).for_each(|o| cut.open.groups.push(open.groups.group(o)));
        cut.open.rngs.extend(open.rngs);
    }
    Ok(cut)
}

/// One cluster all the way down to leaves: appends to `leaves`, returns the pairs compared.
///
/// # Errors
/// What the backend says.
pub fn cut_to_leaves(
    backend: &dyn Backend,
    codes: &BuildCodes,
    clusters: Clusters,
    first_level: usize,
    params: &PartitionParams,
    leaves: &mut Groups,
) -> Result<u64, BackendError> {
    let (mut open, mut level, mut pairs) = (clusters, first_level, 0);
    while !open.groups.is_empty() {
        let cut = cut(backend, codes, &open, level, params)?;
        (0..cut.leaves.len()).for_each(|l| leaves.push(cut.leaves.group(l)));
        pairs += cut.pairs;
        open = cut.open;
        level += 1;
    }
    Ok(pairs)
}

/// Counting sort of members by leader; order within a child stays that of the ids.
fn children_of(members: &[u32], nearest: &[u32], fanout: usize, leader_count: usize) -> Groups {
    let mut children = Groups { offsets: vec![0; leader_count + 1], members: Vec::new() };
    let chosen = || nearest.iter().filter(|&&leader| leader != NO_LEADER);
    chosen().for_each(|&leader| children.offsets[leader as usize + 1] += 1);
    for leader in 0..leader_count {
        children.offsets[leader + 1] += children.offsets[leader];
    }
    let mut next = children.offsets.clone();
    children.members = vec![0; children.offsets[leader_count] as usize];
    for (&member, leaders) in members.iter().zip(nearest.chunks_exact(fanout)) {
        for &leader in leaders.iter().filter(|&&l| l != NO_LEADER) {
            children.members[next[leader as usize] as usize] = member;
            next[leader as usize] += 1;
        }
    }
    children
}

/// Divides children into leaves and clusters to cut again.
fn sort_out(children: &Groups, parent_size: usize, rng: CounterRng, params: &PartitionParams) -> (Groups, Clusters) {
    let (mut leaves, mut open) = (Groups::new(), Clusters::new());
    let mut joined: Vec<u32> = Vec::new();
    for c in 0..children.len() {
        let child = children.group(c);
        if child.is_empty() {
        } else if child.len() > params.leaf_max {
            if child.len() * 10 > parent_size * 9 {
                // Leaders do not divide it: its vectors are (nearly) all equal, so any cut is as good as another.
                child.chunks(params.leaf_max).for_each(|run| leaves.push(run));
            } else {
                open.groups.push(child);
                open.rngs.push(rng.part(c as u64 + 1));
            }
        } else if child.len() >= params.leaf_min && joined.is_empty() {
            leaves.push(child);
        } else {
            if joined.len() + child.len() > params.leaf_max {
                leaves.push(&joined);
                joined.clear();
            }
            joined.extend_from_slice(child);
            joined.sort_unstable();
            joined.dedup();
            if joined.len() >= params.leaf_min {
                leaves.push(&joined);
                joined.clear();
            }
        }
    }
    if !joined.is_empty() {
        leaves.push(&joined);
    }
    (leaves, open)
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
        let top = top_level(&cpu, codes.clone(), &params, seed).unwrap();
        assert!(top.order.iter().enumerate().all(|(new, old)| top.codes.row(new as u32) == codes.row(old.0)));
        (0..top.cut.leaves.len()).for_each(|l| leaves.push(top.cut.leaves.group(l)));
        cut_to_leaves(&cpu, &top.codes, top.cut.open, 1, &params, &mut leaves).unwrap();
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
