//! A graph that another system made, in the place of one of our own: each row is pruned from its neighbors there and those that it is a neighbor of, and what the entry
//! does not reach is linked.

use super::Links;
use crate::{
    BuildError, StageWork,
    backend::{BuildCodes, cpu::Cpu},
    fixup::{self, Fixed},
    graph_build::{BuiltGraph, GraphParams},
    progress::Watch,
};
use roxanne_core::{id::NodeId, tile};
use std::time::Instant;

/// Candidates of a row at most: a hub is a neighbor of thousands.
const CANDIDATES: usize = 1024;

/// The graph of `links` over `codes`, whose entry reaches every node.
///
/// # Errors
/// A stop; a degree too small to reach every node.
pub(crate) fn adopt(
    codes: BuildCodes,
    links: &Links,
    params: &GraphParams,
    cpu: &Cpu,
    watch: &Watch<'_>,
) -> Result<BuiltGraph, BuildError> {
    let n = codes.n();
    watch.phase("prune", n as u64, "rows");
    let start = Instant::now();
    let back = links.reversed();
    let candidates = |row: usize, out: &mut Vec<u64>| {
        let of = NodeId(row as u32);
        out.clear();
        let all = links.row(row).iter().chain(back.row(row)).filter(|&&id| id != of);
        out.extend(all.map(|&id| tile::entry(codes.distance(of, id), id.0)));
        out.sort_unstable();
        out.dedup();
        out.truncate(CANDIDATES);
    };
    let mut graph = cpu.prune_rows(&codes, n, &params.prune, candidates, &|rows| watch.heard(rows));
    let work = StageWork { prune_seconds: start.elapsed().as_secs_f64(), ..StageWork::default() };
    watch.advance(0)?;

    watch.phase("reach", n as u64, "rows");
    let entry = fixup::entry_point(&codes, params.seed);
    let of_nodes = |nodes: &[u32]| {
        let some = nodes.iter().map(|&node| {
            let mut out = Vec::new();
            candidates(node as usize, &mut out);
            out
        });
        Ok(some.collect())
    };
    let Fixed { edges, reached } = fixup::link_unreachable(&codes, of_nodes, entry, &mut graph, fixup::has_room)?;
    if reached != n as u64 {
        return Err(BuildError::Unreachable { reached, n: n as u64, max_degree: params.prune.max_degree });
    }
    watch.advance(n as u64)?;
    let order = (0..n as u32).map(NodeId).collect();
    Ok(BuiltGraph { codes, order, graph, entry, work: StageWork { fixed_edges: edges, ..work } })
}
