//! Incremental Vamana in memory: the quality that this builder's graphs are measured against. Not a way to build an index.
//!
//! Nodes are inserted in seeded random order, in batches that double up to 2% of the set (ParlayANN, PPoPP 2024): each batch searches the
//! graph as it stood, prunes what it visited, then back edges are added; rows may overflow R by 30% before they are pruned (DiskANN,
//! NeurIPS 2019), and all are at the end.

use crate::{
    backend::BuildCodes,
    fixup::{RamSpace, entry_point},
};
use rayon::prelude::*;
use roxanne_core::{
    graph::Graph,
    id::NodeId,
    neighbor::Neighbor,
    prune::{PruneParams, robust_prune},
    random::CounterRng,
    search::{BeamSearch, search_in_ram},
};

/// A Vamana graph over `codes` and its entry point; `list_size` (L) is that of the building searches.
pub fn build_vamana(codes: &BuildCodes, params: &PruneParams, list_size: usize, seed: u64) -> (Graph, NodeId) {
    let n = codes.n();
    let entry = entry_point(codes, seed);
    let mut graph = Graph::new(n, params.max_degree * 13 / 10);
    let rng = CounterRng::new(seed).part(0x7A3A);
    let mut order: Vec<NodeId> = (0..n as u32).map(NodeId).filter(|&id| id != entry).collect();
    order.sort_by_key(|id| rng.at(u64::from(id.0)));
    let (mut done, mut batch) = (0, 1);
    while done < order.len() {
        let nodes = &order[done..(done + batch).min(order.len())];
        insert_batch(codes, params, list_size, entry, nodes, &mut graph);
        done += nodes.len();
        batch = (batch * 2).min((n / 50).max(1));
    }
    let mut pruned = Graph::new(n, params.max_degree);
    let rows: Vec<Vec<NodeId>> = (0..n as u32)
        .into_par_iter()
        .map(|node| fit(codes, params, NodeId(node), graph.neighbors(NodeId(node)).to_vec(), params.max_degree))
        .collect();
    rows.iter().zip(0..).for_each(|(row, node)| pruned.set(NodeId(node), row));
    (pruned, entry)
}

/// Prunes a row that is longer than `room`.
fn fit(codes: &BuildCodes, params: &PruneParams, node: NodeId, mut row: Vec<NodeId>, room: usize) -> Vec<NodeId> {
    if row.len() > room {
        let mut candidates = row.iter().map(|&id| Neighbor { distance: codes.distance(node, id), id }).collect();
        robust_prune(node, &mut candidates, params, |a, b| codes.distance(a, b), &mut row);
    }
    row
}

fn insert_batch(codes: &BuildCodes, params: &PruneParams, list_size: usize, entry: NodeId, nodes: &[NodeId], graph: &mut Graph) {
    let old = &*graph;
    let rows: Vec<Vec<NodeId>> = nodes
        .par_iter()
        .map_init(BeamSearch::default, |search, &node| {
            let (mut visited, mut kept) = (Vec::new(), Vec::new());
            search_in_ram(&mut RamSpace { codes, graph: old, query: node }, &[entry], list_size, search, |seen| visited.push(seen));
            robust_prune(node, &mut visited, params, |a, b| codes.distance(a, b), &mut kept);
            kept
        })
        .collect();
    let mut back: Vec<(NodeId, NodeId)> = nodes.iter().zip(&rows).flat_map(|(&node, row)| row.iter().map(move |&to| (to, node))).collect();
    nodes.iter().zip(&rows).for_each(|(&node, row)| graph.set(node, row));
    back.sort_unstable();
    let groups: Vec<&[(NodeId, NodeId)]> = back.chunk_by(|a, b| a.0 == b.0).collect();
    let old = &*graph;
    let rows: Vec<Vec<NodeId>> = groups
        .par_iter()
        .map(|group| {
            let node = group[0].0;
            let mut row: Vec<NodeId> = old.neighbors(node).to_vec();
            row.extend(group.iter().map(|pair| pair.1).filter(|id| !old.neighbors(node).contains(id)));
            fit(codes, params, node, row, old.max_degree())
        })
        .collect();
    groups.iter().zip(rows).for_each(|(group, row)| graph.set(group[0].0, &row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxanne_core::{prune::Alpha, tile::BuildMetric};

    #[test]
    fn nearly_every_node_of_a_grid_finds_itself() {
        let bytes: Vec<u8> = (0..400u32).flat_map(|i| [(i % 20 * 10) as u8, (i / 20 * 10) as u8].into_iter().chain([0; 30])).collect();
        let codes = BuildCodes { metric: BuildMetric::L2, stride: 32, bytes };
        let params = PruneParams { max_degree: 8, alpha: Alpha::from_f64(1.2).unwrap() };
        let (graph, entry) = build_vamana(&codes, &params, 20, 3);
        let mut search = BeamSearch::default();
        let finds_itself = |&node: &NodeId| {
            search_in_ram(&mut RamSpace { codes: &codes, graph: &graph, query: node }, &[entry], 20, &mut search, |_| {});
            search.found().next().unwrap().id == node
        };
        // Vamana promises no reachability; on a grid, where many distances tie, a node or two is lost.
        assert!((0..400).map(NodeId).filter(finds_itself).count() >= 396);
    }
}
