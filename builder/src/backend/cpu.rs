//! The CPU backend: the specification of every stage, and a fast builder. Threads are the caller's rayon pool.

use super::{Backend, BackendError, BuildCodes, Groups, Heard, NO_LEADER, Selection, moves};
use crate::reservoir::Reservoirs;
use rayon::prelude::*;
use roxanne_core::{
    build_codes::BuildCodec,
    graph::Graph,
    id::NodeId,
    pq::Codebook,
    prune::{Alpha, PruneParams},
    simd::SimdLevel,
    tile::{NO_ENTRY, Rows, Tile, TopLists, entry, entry_distance, entry_row, prefetch},
};
use std::ops::Range;

/// Members of clusters that are cut to leaves, compared and merged at once: what they take between these stages stays in the caches' reach.
pub const BATCH_MEMBERS: u64 = 100_000;

/// Rows that one task of `assign` takes: enough to reuse the leaders in L2, few enough to share out. A multiple of the tile's 12 rows.
const ASSIGN_ROWS: usize = 960;
/// Rows that one task of `prune` takes.
const PRUNE_ROWS: usize = 1024;
/// How far ahead `merge` asks for memory.
const ROWS_AHEAD: usize = 8;
/// Rows that one task of `encode` takes.
const ENCODE_ROWS: usize = 4096;

/// See the module.
pub struct Cpu {
    level: SimdLevel,
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu { level: SimdLevel::detected() }
    }
}

impl Cpu {
    /// At a level that this processor has.
    pub fn at_level(level: SimdLevel) -> Cpu {
        Cpu { level }
    }

    fn tile(&self, codes: &BuildCodes) -> Tile {
        Tile::at_level(self.level, codes.metric, codes.stride)
    }

    /// RobustPrune of `n` rows, whose candidates `sorted` puts into a vector: entries `distance << 32 | id`, none twice.
    pub(crate) fn prune_rows(
        &self,
        codes: &BuildCodes,
        n: usize,
        params: &PruneParams,
        sorted: impl Fn(usize, &mut Vec<u64>) + Sync,
        heard: Heard<'_>,
    ) -> Graph {
        let tile = self.tile(codes);
        let mut graph = Graph::new(n, params.max_degree);
        graph.chunks_mut(PRUNE_ROWS).into_par_iter().enumerate().for_each_init(
            || RowPrune::new(tile, *params),
            |prune, (chunk, (degrees, neighbors))| {
                let count = degrees.len();
                sorted(chunk * PRUNE_ROWS, &mut prune.next);
                for (at, degree) in degrees.iter_mut().enumerate() {
                    std::mem::swap(&mut prune.candidates, &mut prune.next);
                    if at + 1 < count {
                        sorted(chunk * PRUNE_ROWS + at + 1, &mut prune.next);
                        prune.next.iter().for_each(|&e| prefetch(codes.row(entry_row(e))));
                    }
                    let kept = prune.run(codes);
                    *degree = kept.len() as u16;
                    neighbors[at * params.max_degree..][..kept.len()].copy_from_slice(kept);
                }
                heard(count as u64);
            },
        );
        graph
    }
}

/// Cuts `out` into the parts [range x width] of each group.
fn parts<'a, T>(groups: &Groups, width: usize, mut out: &'a mut [T]) -> Vec<(usize, &'a mut [T])> {
    (0..groups.len())
        .map(|group| {
            let (part, rest) = std::mem::take(&mut out).split_at_mut(groups.range(group).len() * width);
            out = rest;
            (group, part)
        })
        .collect()
}

impl Backend for Cpu {
    type Rows<'a> = &'a BuildCodes;
    type Ids = Vec<u32>;
    type Lists = Vec<u64>;
    type Reservoirs = Reservoirs;

    fn name(&self) -> String {
        format!("cpu ({}, {} threads)", self.level, rayon::current_num_threads())
    }

    fn batch_members(&self, _: usize) -> u64 {
        BATCH_MEMBERS
    }

    fn load<'a>(&'a self, codes: &'a BuildCodes) -> Result<&'a BuildCodes, BackendError> {
        Ok(codes)
    }

    fn assign(&self, codes: &&BuildCodes, clusters: &Groups, leaders: &Groups, fanout: usize) -> Result<Vec<u32>, BackendError> {
        self.assign_heard(codes, clusters, leaders, fanout, &|_| ())
    }

    fn assign_heard(
        &self,
        codes: &&BuildCodes,
        clusters: &Groups,
        leaders: &Groups,
        fanout: usize,
        heard: Heard<'_>,
    ) -> Result<Vec<u32>, BackendError> {
        let tile = self.tile(codes);
        let mut nearest = vec![NO_LEADER; clusters.members.len() * fanout];
        parts(clusters, fanout, &mut nearest).into_par_iter().for_each_init(Rows::default, |columns, (cluster, out)| {
            tile.load(leaders.group(cluster).iter().map(|&id| codes.row(id)), columns);
            let columns = &*columns;
            let chunks = clusters.group(cluster).par_chunks(ASSIGN_ROWS).zip(out.par_chunks_mut(ASSIGN_ROWS * fanout));
            chunks.for_each_init(
                || (Rows::default(), TopLists::default()),
                |(rows, lists), (members, out)| {
                    tile.load(members.iter().map(|&id| codes.row(id)), rows);
                    tile.nearest_among(rows, columns, fanout, lists);
                    for (row, out) in out.chunks_exact_mut(fanout).enumerate() {
                        // NO_ENTRY's row is NO_LEADER.
                        out.iter_mut().zip(lists.list(row)).for_each(|(o, &e)| *o = entry_row(e));
                    }
                    heard(members.len() as u64);
                },
            );
        });
        Ok(nearest)
    }

    fn leaf_knn(&self, codes: &&BuildCodes, leaves: &Groups, k: usize) -> Result<Vec<u64>, BackendError> {
        let tile = self.tile(codes);
        let mut lists = vec![NO_ENTRY; leaves.members.len() * k];
        parts(leaves, k, &mut lists).into_par_iter().with_min_len(8).for_each_init(
            || (Rows::default(), TopLists::default()),
            |(rows, found), (leaf, out)| {
                tile.load(leaves.group(leaf).iter().map(|&id| codes.row(id)), rows);
                if leaf + 1 < leaves.len() {
                    leaves.group(leaf + 1).iter().for_each(|&id| prefetch(codes.row(id)));
                }
                tile.nearest_within(rows, k, found);
                for (row, out) in out.chunks_exact_mut(k).enumerate() {
                    out.copy_from_slice(found.list(row));
                }
            },
        );
        Ok(lists)
    }

    fn reservoirs(&self, n: usize, width: usize) -> Result<Reservoirs, BackendError> {
        Ok(Reservoirs::new(n, width))
    }

    fn merge(&self, leaves: &Groups, lists: &Vec<u64>, k: usize, reservoirs: &mut Reservoirs) -> Result<(), BackendError> {
        let reservoirs = &*reservoirs;
        (0..leaves.len()).into_par_iter().with_min_len(8).for_each_init(
            || (Vec::new(), Vec::new(), Vec::new()),
            |(nearest, offsets, others), leaf| {
                let (members, range) = (leaves.group(leaf), leaves.range(leaf));
                let lists = &lists[range.start * k..range.end * k];
                // Rows lie anywhere: their states are asked for a leaf ahead, the places to write at a few rows ahead.
                if leaf + 1 < leaves.len() {
                    leaves.group(leaf + 1).iter().for_each(|&row| reservoirs.prefetch_state(row));
                }
                others_of(members, lists, k, offsets, others);
                for (place, list) in lists.chunks_exact(k).enumerate() {
                    if let Some(&row) = members.get(place + ROWS_AHEAD) {
                        reservoirs.prefetch_slack(row);
                    }
                    nearest.clear();
                    nearest.extend(real(list).map(|e| entry(entry_distance(e), members[entry_row(e) as usize])));
                    reservoirs.offer(members[place], nearest, &others[offsets[place]..offsets[place + 1]]);
                }
            },
        );
        Ok(())
    }

    fn candidates(&self, reservoirs: &Reservoirs, nodes: &[u32]) -> Result<Vec<Vec<u64>>, BackendError> {
        let sorted = |&node: &u32| {
            let mut out = Vec::new();
            reservoirs.sorted(node as usize, &mut out);
            out
        };
        Ok(nodes.par_iter().map(sorted).collect())
    }

    fn prune(&self, codes: &&BuildCodes, reservoirs: &Reservoirs, params: &PruneParams, heard: Heard<'_>) -> Result<Graph, BackendError> {
        Ok(self.prune_rows(codes, reservoirs.n(), params, |row, out| reservoirs.sorted(row, out), heard))
    }

    fn encode(&self, codes: &&BuildCodes, codec: &BuildCodec, codebook: &Codebook, range: Range<usize>) -> Result<Vec<u8>, BackendError> {
        let width = codebook.subspaces();
        let mut out = vec![0; range.len() * width];
        out.par_chunks_mut(ENCODE_ROWS * width).enumerate().for_each(|(chunk, out)| {
            let first = range.start + chunk * ENCODE_ROWS;
            let (mut rows, mut scratch) = (Vec::with_capacity(ENCODE_ROWS * codec.pq_dim()), Vec::new());
            for row in first..first + out.len() / width {
                rows.extend_from_slice(codec.pq_row(codes.row(row as u32), &mut scratch));
            }
            codebook.encode_rows(&rows, codec.pq_dim(), out);
        });
        Ok(out)
    }

    fn place(&self, ids: Vec<u32>) -> Result<Vec<u32>, BackendError> {
        Ok(ids)
    }

    fn fetch(&self, ids: &Vec<u32>) -> Result<Vec<u32>, BackendError> {
        Ok(ids.clone())
    }

    fn fetch_lists(&self, lists: &Vec<u64>) -> Result<Vec<u64>, BackendError> {
        Ok(lists.clone())
    }

    fn pick(&self, ids: &Vec<u32>, places: &[u64]) -> Result<Vec<u32>, BackendError> {
        Ok(places.iter().map(|&place| ids[place as usize]).collect())
    }

    fn order_by_cell(&self, choice: &Vec<u32>, fanout: usize, tour: &[u32]) -> Result<(Vec<NodeId>, Vec<u32>), BackendError> {
        Ok(moves::order_by_cell(choice, fanout, tour))
    }

    fn children(&self, clusters: &Groups, leader_offsets: &[u64], choice: &Vec<u32>, fanout: usize) -> Result<Groups, BackendError> {
        Ok(moves::children(clusters, leader_offsets, choice, fanout))
    }

    fn select(&self, from: &Groups, selection: &Selection) -> Result<Groups, BackendError> {
        Ok(moves::select(from, selection))
    }
}

/// The entries of a list that are there.
fn real(list: &[u64]) -> impl Iterator<Item = u64> + '_ {
    list.iter().copied().take_while(|&e| e != NO_ENTRY)
}

/// For each member those that have it in their list and are not in its own: `others[offsets[place]..offsets[place + 1]]`.
fn others_of(members: &[u32], lists: &[u64], k: usize, offsets: &mut Vec<usize>, others: &mut Vec<u64>) {
    // A list holds all that are nearer than its last, so what is nearer than that was offered already.
    let is_new = |place: usize, found: u64| entry(entry_distance(found), place as u32) > lists[entry_row(found) as usize * k + k - 1];
    let pairs = || {
        let each = |(place, list)| real(list).filter(move |&e| is_new(place, e)).map(move |e| (place, e));
        lists.chunks_exact(k).enumerate().flat_map(each)
    };
    offsets.clear();
    offsets.resize(members.len() + 2, 0);
    pairs().for_each(|(_, e)| offsets[entry_row(e) as usize + 2] += 1);
    for place in 2..offsets.len() {
        offsets[place] += offsets[place - 1];
    }
    others.clear();
    others.resize(offsets[members.len() + 1], 0);
    // Filling moves each start (kept one place ahead) to its end, which is the next one's start.
    for (place, e) in pairs() {
        let next = &mut offsets[entry_row(e) as usize + 1];
        others[*next] = entry(entry_distance(e), members[place]);
        *next += 1;
    }
}

/// RobustPrune of one row at a time, driven by the kept: each newly kept neighbor is compared with all candidates at once, which is one
/// dense product. Equal to `roxanne_core::prune::robust_prune` (test).
struct RowPrune {
    tile: Tile,
    params: PruneParams,
    /// Sorted entries `distance << 32 | id`, none twice.
    candidates: Vec<u64>,
    /// Those of the row after, whose codes are on their way to the cache.
    next: Vec<u64>,
    rows: Rows,
    distances: Vec<u32>,
    /// Per round: how near a kept neighbor must be to cover each candidate, and whether one was.
    reach: [Vec<u32>; 2],
    /// All ones where one was ([`Tile::cover`]).
    covered: [Vec<u32>; 2],
    is_kept: Vec<bool>,
    kept: Vec<NodeId>,
}

impl RowPrune {
    fn new(tile: Tile, params: PruneParams) -> RowPrune {
        RowPrune {
            tile,
            params,
            candidates: Vec::new(),
            next: Vec::new(),
            rows: Rows::default(),
            distances: Vec::new(),
            reach: Default::default(),
            covered: Default::default(),
            is_kept: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn run(&mut self, codes: &BuildCodes) -> &[NodeId] {
        let count = self.candidates.len();
        self.tile.load(self.candidates.iter().map(|&e| codes.row(entry_row(e))), &mut self.rows);
        for (round, alpha) in [Alpha::ONE, self.params.alpha].into_iter().enumerate() {
            self.reach[round].clear();
            self.reach[round].extend(self.candidates.iter().map(|&e| alpha.reach(entry_distance(e))));
            self.covered[round].clear();
            self.covered[round].resize(count, 0);
        }
        self.is_kept.clear();
        self.is_kept.resize(count, false);
        let mut kept_count = 0;
        for round in 0..2 {
            for at in 0..count {
                if kept_count == self.params.max_degree {
                    break;
                }
                if self.is_kept[at] || self.covered[round][at] != 0 {
                    continue;
                }
                self.is_kept[at] = true;
                kept_count += 1;
                self.tile.distances_after(&self.rows, at, &mut self.distances);
                for later in round..2 {
                    let after = at + 1..;
                    let (reach, covered) = (&self.reach[later][after.clone()], &mut self.covered[later][after.clone()]);
                    self.tile.cover(&self.distances[after], reach, covered);
                }
            }
        }
        self.kept.clear();
        self.kept.extend(self.candidates.iter().zip(&self.is_kept).filter(|(_, k)| **k).map(|(&e, _)| NodeId(entry_row(e))));
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxanne_core::{neighbor::Neighbor, prune::robust_prune, random::CounterRng, tile::BuildMetric};

    fn codes(n: usize, stride: usize, span: u64, metric: BuildMetric) -> BuildCodes {
        let rng = CounterRng::new(3);
        BuildCodes { metric, stride, bytes: (0..n * stride).map(|i| rng.below(i as u64, span) as u8).collect() }
    }

    fn one_group(n: usize) -> Groups {
        let mut groups = Groups::new();
        groups.push(&(0..n as u32).collect::<Vec<_>>());
        groups
    }

    #[test]
    fn pruning_equals_the_textbook_at_every_level() {
        for level in SimdLevel::available() {
            for (n, stride, span, metric, alpha) in [
                (1, 32, 256, BuildMetric::L2, 1.2),
                (2, 32, 256, BuildMetric::L2, 1.2),
                (90, 64, 256, BuildMetric::L2, 1.2),
                (150, 32, 3, BuildMetric::L2, 1.5),
                (70, 32, 1, BuildMetric::L2, 1.2),
                (97, 96, 256, BuildMetric::Manhattan, 1.1),
                (97, 32, 256, BuildMetric::Hamming, 1.1),
            ] {
                let codes = codes(n, stride, span, metric);
                let cpu = Cpu::at_level(level);
                let leaves = one_group(n);
                let k = 16;
                let lists = cpu.leaf_knn(&&codes, &leaves, k).unwrap();
                let mut reservoirs = Reservoirs::new(n, 40);
                cpu.merge(&leaves, &lists, k, &mut reservoirs).unwrap();
                let params = PruneParams { max_degree: 9, alpha: Alpha::from_f64(alpha).unwrap() };
                let graph = cpu.prune(&&codes, &reservoirs, &params, &|_| ()).unwrap();
                let mut sorted = Vec::new();
                for row in 0..n {
                    reservoirs.sorted(row, &mut sorted);
                    let mut candidates: Vec<_> =
                        sorted.iter().map(|&e| Neighbor { distance: entry_distance(e), id: NodeId(entry_row(e)) }).collect();
                    assert!(candidates.iter().all(|c| c.distance == metric.distance(codes.row(row as u32), codes.row(c.id.0))));
                    let mut kept = Vec::new();
                    let distance = |a: NodeId, b: NodeId| metric.distance(codes.row(a.0), codes.row(b.0));
                    robust_prune(NodeId(row as u32), &mut candidates, &params, distance, &mut kept);
                    assert_eq!(graph.neighbors(NodeId(row as u32)), kept, "{level} n {n} {metric:?} row {row}");
                }
            }
        }
    }

    #[test]
    fn assign_gives_the_nearest_leaders_of_each_cluster() {
        let codes = codes(100, 32, 256, BuildMetric::L2);
        let (mut clusters, mut leaders) = (Groups::new(), Groups::new());
        for (members, chosen) in [(0..60u32, vec![3u32, 9, 40]), (50..100, vec![60])] {
            clusters.push(&members.collect::<Vec<_>>());
            leaders.push(&chosen);
        }
        for level in SimdLevel::available() {
            let nearest = Cpu::at_level(level).assign(&&codes, &clusters, &leaders, 2).unwrap();
            for cluster in 0..2 {
                for place in clusters.range(cluster) {
                    let row = codes.row(clusters.members[place]);
                    let mut order: Vec<(u32, u32)> = (0..leaders.group(cluster).len() as u32)
                        .map(|l| (codes.metric.distance(row, codes.row(leaders.group(cluster)[l as usize])), l))
                        .collect();
                    order.sort_unstable();
                    let expected: Vec<u32> = order.iter().map(|o| o.1).chain([NO_LEADER; 2]).take(2).collect();
                    assert_eq!(nearest[place * 2..][..2], expected);
                }
            }
        }
    }
}
