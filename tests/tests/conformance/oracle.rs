//! What every stage must give, in plain loops.

use roxanne_builder::backend::{BuildCodes, Groups, NO_LEADER};
use roxanne_core::{
    id::NodeId,
    neighbor::Neighbor,
    prune::{PruneParams, robust_prune},
    tile::{BuildMetric, NO_ENTRY, entry, entry_distance, entry_row},
};
use std::collections::BTreeSet;

/// The distance of two rows, in i64.
fn distance(codes: &BuildCodes, a: u32, b: u32) -> u32 {
    let pairs = codes.row(a).iter().zip(codes.row(b)).map(|(&x, &y)| (i64::from(x), i64::from(y)));
    let sum: i64 = match codes.metric {
        BuildMetric::L2 => pairs.map(|(x, y)| (x - y) * (x - y)).sum(),
        BuildMetric::Manhattan => pairs.map(|(x, y)| (x - y).abs()).sum(),
        BuildMetric::Hamming => pairs.map(|(x, y)| i64::from((x ^ y).count_ones())).sum(),
    };
    u32::try_from(sum).unwrap()
}

pub(crate) fn assign(codes: &BuildCodes, clusters: &Groups, leaders: &Groups, fanout: usize) -> Vec<u32> {
    let mut nearest = Vec::new();
    for c in 0..clusters.len() {
        for &member in clusters.group(c) {
            let leaders = leaders.group(c).iter().zip(0..);
            let mut order: Vec<_> = leaders.map(|(&leader, place)| (distance(codes, member, leader), place)).collect();
            order.sort_unstable();
            nearest.extend(order.into_iter().map(|(_, place)| place).chain(std::iter::repeat(NO_LEADER)).take(fanout));
        }
    }
    nearest
}

pub(crate) fn leaf_knn(codes: &BuildCodes, leaves: &Groups, k: usize) -> Vec<u64> {
    let mut lists = Vec::new();
    for leaf in (0..leaves.len()).map(|leaf| leaves.group(leaf)) {
        for &member in leaf {
            let others = leaf.iter().zip(0..).filter(|(other, _)| **other != member);
            let mut order: Vec<_> = others.map(|(&other, place)| entry(distance(codes, member, other), place)).collect();
            order.sort_unstable();
            lists.extend(order.into_iter().chain(std::iter::repeat(NO_ENTRY)).take(k));
        }
    }
    lists
}

/// Every pair of the lists in a set of both ends; a reservoir is the beginning of one.
pub(crate) fn merge(leaves: &Groups, lists: &[u64], k: usize, sets: &mut [BTreeSet<u64>]) {
    for leaf in 0..leaves.len() {
        let members = leaves.group(leaf);
        for (place, at) in leaves.range(leaf).enumerate() {
            for &found in lists[at * k..][..k].iter().filter(|&&found| found != NO_ENTRY) {
                let (one, other) = (members[place], members[entry_row(found) as usize]);
                sets[one as usize].insert(entry(entry_distance(found), other));
                sets[other as usize].insert(entry(entry_distance(found), one));
            }
        }
    }
}

pub(crate) fn prune(codes: &BuildCodes, node: u32, candidates: &[u64], params: &PruneParams) -> Vec<NodeId> {
    let mut candidates: Vec<_> = candidates.iter().map(|&e| Neighbor { distance: entry_distance(e), id: NodeId(entry_row(e)) }).collect();
    let mut kept = Vec::new();
    robust_prune(NodeId(node), &mut candidates, params, |a, b| distance(codes, a.0, b.0), &mut kept);
    kept
}
