//! The stages over groups: `assign` (clusters and their leaders) and `leaf_knn`.
//!
//! A batch is a run of members: whole leaves for `leaf_knn`, which compares all with all, tiles of any cluster for `assign`. Members are
//! laid out group by group, so what a batch computes is one run of the output as well.

use super::{
    device::{Gpu, GpuError},
    launch::{Binding, Constants, Launch, Running, Stage},
    rows::{Rows, metric_number},
};
use roxanne_core::tile::{BuildMetric, MAX_K};
use std::ops::Range;

/// Members that one workgroup takes: TILE_ROWS of shaders/product.wgslh.
const TILE_ROWS: usize = 64;
/// Work of one submission, in bytes compared: about half a second of a slow integrated device, as some systems reset a device after two.
const BATCH_WORK: u64 = 1 << 36;

/// Lists of row ids: group `g` has `members[offsets[g] .. offsets[g + 1]]`.
#[derive(Clone, Copy)]
struct GroupsView<'a> {
    members: &'a [u32],
    offsets: &'a [u64],
}

impl<'a> GroupsView<'a> {
    /// Proves that the offsets are those of the members.
    fn new(members: &'a [u32], offsets: &'a [u64]) -> Result<GroupsView<'a>, GpuError> {
        let rises = offsets.windows(2).all(|w| w[0] <= w[1]);
        if rises && offsets.first() == Some(&0) && offsets.last() == Some(&(members.len() as u64)) {
            return Ok(GroupsView { members, offsets });
        }
        Err(GpuError::Other(format!("{} members do not go with the offsets of their groups", members.len())))
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn range(&self, group: usize) -> Range<usize> {
        self.offsets[group] as usize..self.offsets[group + 1] as usize
    }
}

/// What a batch is cut from: members of one group.
struct Unit {
    group: usize,
    /// Their places in the list of all members.
    places: Range<usize>,
}

/// Group by group, units of at most `most` members.
fn units(groups: GroupsView<'_>, most: usize) -> Vec<Unit> {
    let cut = |group| {
        let range = groups.range(group);
        range.clone().step_by(most).map(move |first| Unit { group, places: first..range.end.min(first.saturating_add(most)) })
    };
    (0..groups.len()).flat_map(cut).collect()
}

/// What a batch costs so far.
#[derive(Default)]
struct Cost {
    bytes: u64,
    work: u64,
}

/// A batch in the shaders' terms: its own groups, numbered from 0.
#[derive(Default)]
struct Batch {
    /// Rows in the order in which the batch names them: members, then leaders.
    rows: Vec<u32>,
    member_count: usize,
    offsets: Vec<u32>,
    leader_offsets: Vec<u32>,
    /// (group, place of the first member).
    tiles: Vec<[u32; 2]>,
}

impl Batch {
    /// Of consecutive units; `leaders` where there are such.
    fn new(units: &[Unit], members: GroupsView<'_>, leaders: Option<GroupsView<'_>>) -> Batch {
        let mut batch = Batch { offsets: vec![0], leader_offsets: vec![0], ..Batch::default() };
        let mut leader_ids = Vec::new();
        for same_group in units.chunk_by(|a, b| a.group == b.group) {
            let group = same_group[0].group;
            let places = same_group[0].places.start..same_group[same_group.len() - 1].places.end;
            let number = batch.offsets.len() as u32 - 1;
            batch.tiles.extend((0..places.len() as u32).step_by(TILE_ROWS).map(|first| [number, first]));
            batch.rows.extend_from_slice(&members.members[places]);
            batch.offsets.push(batch.rows.len() as u32);
            if let Some(leaders) = leaders {
                leader_ids.extend_from_slice(&leaders.members[leaders.range(group)]);
                batch.leader_offsets.push(leader_ids.len() as u32);
            }
        }
        batch.member_count = batch.rows.len();
        batch.rows.extend(leader_ids);
        batch
    }
}

fn check_k(k: usize) -> Result<(), GpuError> {
    if (1..=MAX_K).contains(&k) { Ok(()) } else { Err(GpuError::Other(format!("lists of {k}; 1 to {MAX_K} can be kept"))) }
}

fn constants(metric: BuildMetric, k: usize) -> Constants {
    [Some(("metric", metric_number(metric))), Some(("k", k as u32))]
}

impl Gpu {
    /// For every member of every cluster the places of its `fanout` (1 to 16) nearest leaders in that cluster's group of `leaders`,
    /// nearest first: [members x fanout], `u32::MAX` where a cluster has fewer.
    ///
    /// # Errors
    /// Shapes that do not fit each other; a device that is lost, refuses, or has no room for one tile and its leaders.
    #[allow(clippy::too_many_arguments)]
    pub fn assign(
        &self,
        metric: BuildMetric,
        rows: Rows<'_>,
        members: &[u32],
        offsets: &[u64],
        leaders: &[u32],
        leader_offsets: &[u64],
        fanout: usize,
    ) -> Result<Vec<u32>, GpuError> {
        check_k(fanout)?;
        let (clusters, leaders) = (GroupsView::new(members, offsets)?, GroupsView::new(leaders, leader_offsets)?);
        if clusters.len() != leaders.len() {
            return Err(GpuError::Other(format!("{} clusters and {} groups of leaders", clusters.len(), leaders.len())));
        }
        rows.check(members)?;
        rows.check(leaders.members)?;
        let units = units(clusters, TILE_ROWS);
        let mut nearest = vec![u32::MAX; members.len() * fanout];
        self.in_batches(
            units.len(),
            |first, bytes| {
                let mut cost = Cost::default();
                let fits = |i: &usize| {
                    let unit = &units[*i];
                    let (count, against) = (unit.places.len() as u64, leaders.range(unit.group).len() as u64);
                    if *i == first || units[*i - 1].group != unit.group {
                        cost.bytes += against * (rows.gathered_bytes() + 4);
                    }
                    cost.bytes += count * (rows.gathered_bytes() + 4 + 4 * fanout as u64);
                    cost.work += count * against * rows.stride() as u64;
                    cost.bytes <= bytes && cost.work <= BATCH_WORK
                };
                first + (first..units.len()).take_while(fits).count()
            },
            |batch| {
                let batch = Batch::new(&units[batch], clusters, Some(leaders));
                let mut called = Vec::new();
                let bound = rows.bind(&batch.rows, &mut called);
                let (members, leaders) = called.split_at(batch.member_count);
                self.launch(&Launch {
                    stage: Stage::Assign,
                    constants: constants(metric, fanout),
                    bindings: &[
                        bound,
                        Binding::Bytes(bytemuck::cast_slice(members)),
                        Binding::Bytes(bytemuck::cast_slice(&batch.offsets)),
                        Binding::Bytes(bytemuck::cast_slice(leaders)),
                        Binding::Bytes(bytemuck::cast_slice(&batch.leader_offsets)),
                        Binding::Bytes(bytemuck::cast_slice(&batch.tiles)),
                        Binding::Out((batch.member_count * fanout * 4) as u64),
                    ],
                    params: &[rows.stride() as u32, batch.tiles.len() as u32],
                    workgroups: batch.tiles.len() as u64,
                })
            },
            |batch, running| self.read_run(&units[batch], running, &mut nearest, fanout),
        )?;
        Ok(nearest)
    }

    /// For every member of every leaf its `k` (1 to 16) nearest others there: entries `distance << 32 | place in the leaf` [members x k],
    /// nearest first, `tile::NO_ENTRY` behind the last.
    ///
    /// # Errors
    /// Shapes that do not fit each other; a device that is lost, refuses, or has no room for one leaf.
    pub fn leaf_knn(&self, metric: BuildMetric, rows: Rows<'_>, members: &[u32], offsets: &[u64], k: usize) -> Result<Vec<u64>, GpuError> {
        check_k(k)?;
        let leaves = GroupsView::new(members, offsets)?;
        rows.check(members)?;
        let units = units(leaves, usize::MAX);
        let mut lists = vec![u64::MAX; members.len() * k];
        self.in_batches(
            units.len(),
            |first, bytes| {
                let mut cost = Cost::default();
                let fits = |unit: &&Unit| {
                    let count = unit.places.len() as u64;
                    cost.bytes += count * (rows.gathered_bytes() + 4 + 8 * k as u64);
                    cost.work += count * count * rows.stride() as u64;
                    cost.bytes <= bytes && cost.work <= BATCH_WORK
                };
                first + units[first..].iter().take_while(fits).count()
            },
            |batch| {
                let batch = Batch::new(&units[batch], leaves, None);
                let mut called = Vec::new();
                let bound = rows.bind(&batch.rows, &mut called);
                self.launch(&Launch {
                    stage: Stage::LeafKnn,
                    constants: constants(metric, k),
                    bindings: &[
                        bound,
                        Binding::Bytes(bytemuck::cast_slice(&called)),
                        Binding::Bytes(bytemuck::cast_slice(&batch.offsets)),
                        Binding::Bytes(bytemuck::cast_slice(&batch.tiles)),
                        Binding::Out((batch.member_count * k * 8) as u64),
                    ],
                    params: &[rows.stride() as u32, batch.tiles.len() as u32],
                    workgroups: batch.tiles.len() as u64,
                })
            },
            |batch, running| self.read_run(&units[batch], running, &mut lists, k),
        )?;
        Ok(lists)
    }

    /// Reads what a batch of `units` computed, `width` values a member, to its run of `out`.
    fn read_run<T: bytemuck::Pod>(&self, units: &[Unit], running: Running, out: &mut [T], width: usize) -> Result<(), GpuError> {
        let (Some(first), Some(last)) = (units.first(), units.last()) else { return Ok(()) };
        let run = &mut out[first.places.start * width..last.places.end * width];
        running.read(self, &mut [bytemuck::cast_slice_mut(run)])
    }
}
