//! The moves of data between stages, in plain Rust: what `cpu` and `wgpu` use as they are, and what `cuda` does on its device must equal.

use super::{Groups, NO_LEADER, Selection};
use rayon::prelude::*;
use roxanne_core::id::NodeId;

/// Groups whose moves are one task.
const TASK_GROUPS: usize = 16;

/// Cuts `out` into pieces of the given lengths.
fn pieces<T>(mut out: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    lengths
        .map(|length| {
            let (piece, rest) = std::mem::take(&mut out).split_at_mut(length);
            out = rest;
            piece
        })
        .collect()
}

/// See [`super::Backend::order_by_cell`].
pub fn order_by_cell(choice: &[u32], fanout: usize, tour: &[u32]) -> (Vec<NodeId>, Vec<u32>) {
    let n = choice.len() / fanout;
    let cell_of = |row: usize| tour[choice[row * fanout] as usize] as usize;
    let mut starts = vec![0usize; tour.len() + 1];
    (0..n).for_each(|row| starts[cell_of(row) + 1] += 1);
    for cell in 0..tour.len() {
        starts[cell + 1] += starts[cell];
    }
    let mut order = vec![NodeId(0); n];
    for row in 0..n {
        let place = &mut starts[cell_of(row)];
        order[*place] = NodeId(row as u32);
        *place += 1;
    }
    let mut renamed = vec![NO_LEADER; choice.len()];
    renamed.par_chunks_exact_mut(fanout).zip(&order).for_each(|(renamed, old)| {
        let chosen = choice[old.index() * fanout..][..fanout].iter();
        renamed.iter_mut().zip(chosen).for_each(|(r, &leader)| *r = if leader == NO_LEADER { NO_LEADER } else { tour[leader as usize] });
    });
    (order, renamed)
}

/// See [`super::Backend::children`].
pub fn children(clusters: &Groups, leader_offsets: &[u64], choice: &[u32], fanout: usize) -> Groups {
    let leader_count = |c: usize| (leader_offsets[c + 1] - leader_offsets[c]) as usize;
    // Every member has chosen as many leaders as there are, up to the fanout.
    let total = |c: usize| clusters.range(c).len() * fanout.min(leader_count(c));
    let all_leaders = leader_offsets[clusters.len()] as usize;
    let mut ends = vec![0u64; all_leaders];
    let mut members = vec![0u32; (0..clusters.len()).map(total).sum()];
    let tasks = pieces(&mut ends, (0..clusters.len()).map(leader_count))
        .into_iter()
        .zip(pieces(&mut members, (0..clusters.len()).map(total)))
        .collect::<Vec<_>>();
    tasks.into_par_iter().enumerate().with_min_len(TASK_GROUPS).for_each(|(c, (ends, out))| {
        let range = clusters.range(c);
        let choice = &choice[range.start * fanout..range.end * fanout];
        // Counting sort by leader, in which members keep their order.
        choice.iter().filter(|&&l| l != NO_LEADER).for_each(|&leader| ends[leader as usize] += 1);
        let mut start = 0;
        for end in ends.iter_mut() {
            start += std::mem::replace(end, start);
        }
        for (&member, leaders) in clusters.group(c).iter().zip(choice.chunks_exact(fanout)) {
            for &leader in leaders.iter().filter(|&&l| l != NO_LEADER) {
                let place = &mut ends[leader as usize];
                out[*place as usize] = member;
                *place += 1;
            }
        }
    });
    let mut offsets = Vec::with_capacity(all_leaders + 1);
    offsets.push(0);
    let mut base = 0;
    for c in 0..clusters.len() {
        offsets.extend(ends[leader_offsets[c] as usize..leader_offsets[c + 1] as usize].iter().map(|end| base + end));
        base += total(c) as u64;
    }
    Groups { offsets, members }
}

/// See [`super::Backend::select`].
pub fn select(from: &Groups, selection: &Selection) -> Groups {
    let run = |r: &super::Run| &from.members[r.start as usize..][..r.length as usize];
    let unions: Vec<Vec<u32>> = (0..selection.len())
        .into_par_iter()
        .with_min_len(TASK_GROUPS)
        .map(|group| match selection.group(group) {
            [_] => Vec::new(),
            runs => {
                let mut union: Vec<u32> = runs.iter().flat_map(run).copied().collect();
                union.sort_unstable();
                union.dedup();
                union
            }
        })
        .collect();
    let source = |group: usize| match selection.group(group) {
        [one] => run(one),
        _ => unions[group].as_slice(),
    };
    let mut offsets = Vec::with_capacity(selection.len() + 1);
    offsets.push(0u64);
    (0..selection.len()).for_each(|group| offsets.push(offsets[group] + source(group).len() as u64));
    let mut members = vec![0; offsets[selection.len()] as usize];
    pieces(&mut members, (0..selection.len()).map(|group| source(group).len()))
        .into_par_iter()
        .enumerate()
        .with_min_len(TASK_GROUPS)
        .for_each(|(group, out)| out.copy_from_slice(source(group)));
    Groups { offsets, members }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Run;

    #[test]
    fn children_are_those_who_chose_a_leader_in_order() {
        let clusters = Groups { offsets: vec![0, 3, 5], members: vec![4, 7, 9, 1, 2] };
        // The first cluster has three leaders, the second one.
        let choice = [2, 0, 2, 1, 0, 2, 0, NO_LEADER, 0, NO_LEADER];
        let made = children(&clusters, &[0, 3, 4], &choice, 2);
        assert_eq!(made, Groups { offsets: vec![0, 2, 3, 6, 8], members: vec![4, 9, 7, 4, 7, 9, 1, 2] });
    }

    #[test]
    fn rows_are_ordered_by_the_place_of_their_nearest_leader() {
        let (order, renamed) = order_by_cell(&[1, 0, 0, 1, 1, NO_LEADER], 2, &[1, 0]);
        assert_eq!(order, [NodeId(0), NodeId(2), NodeId(1)]);
        assert_eq!(renamed, [0, 1, 0, NO_LEADER, 1, 0]);
    }

    #[test]
    fn several_runs_become_their_union_and_one_stays_as_it_is() {
        let from = Groups { offsets: vec![0, 3, 6], members: vec![1, 5, 8, 2, 5, 9] };
        let mut selection = Selection::default();
        selection.push(&[Run { start: 1, length: 2 }]);
        selection.push(&[Run { start: 0, length: 3 }, Run { start: 3, length: 2 }]);
        assert_eq!(select(&from, &selection), Groups { offsets: vec![0, 2, 6], members: vec![5, 8, 1, 2, 5, 8] });
        assert!(select(&from, &Selection::default()).is_empty());
    }
}
