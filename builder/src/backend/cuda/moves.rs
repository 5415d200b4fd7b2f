//! Moves of members between groups, on the device: prefix sums, a stable radix sort, gathers. Equal to `backend::moves`.

use super::{Cuda, DeviceIds, place_of, shape};
use crate::backend::{BackendError, Groups, NO_LEADER, Selection, cuda::driver::Arg, moves};
use roxanne_core::id::NodeId;

use super::arena::Buffer;

impl Cuda {
    /// Exclusive prefix sums [n + 1] of u32 values [n].
    pub(super) fn scan(&self, values: &Buffer, n: u64) -> Result<Buffer, BackendError> {
        let tiles = n.div_ceil(shape::SCAN_VALUES);
        let (sums, offsets) = (self.room::<u64>(tiles + 1)?, self.room::<u64>(n + 1)?);
        self.launch("scan", "scan_tiles", tiles, 256, 0, &[place_of(values), Arg::U64(n), place_of(&sums)])?;
        self.launch("scan", "scan_sums", 1, 256, 0, &[place_of(&sums), Arg::U64(tiles)])?;
        // At least one block: it writes the total, which is zero without values.
        let args = [place_of(values), Arg::U64(n), place_of(&sums), place_of(&offsets)];
        self.launch("scan", "scan_apply", tiles.max(1), 256, 0, &args)?;
        Ok(offsets)
    }

    /// Pairs (key, value) sorted by the low `bits` of their keys; equal keys keep their order.
    fn sorted(&self, mut keys: Buffer, mut values: Buffer, n: u64, bits: u32) -> Result<(Buffer, Buffer), BackendError> {
        let tiles = n.div_ceil(shape::SORT_PAIRS);
        let (mut keys_out, mut values_out) = (self.room::<u32>(n)?, self.room::<u32>(n)?);
        for shift in (0..bits).step_by(8) {
            let counts = self.room::<u32>(256 * tiles)?;
            let args = [place_of(&keys), Arg::U64(n), Arg::U32(shift), Arg::U64(tiles), place_of(&counts)];
            self.launch("sort", "sort_count", tiles, 256, 0, &args)?;
            let offsets = self.scan(&counts, 256 * tiles)?;
            let args = [
                place_of(&keys),
                place_of(&values),
                Arg::U64(n),
                Arg::U32(shift),
                Arg::U64(tiles),
                place_of(&offsets),
                place_of(&keys_out),
                place_of(&values_out),
            ];
            self.launch("sort", "sort_scatter", tiles, 256, 0, &args)?;
            std::mem::swap(&mut keys, &mut keys_out);
            std::mem::swap(&mut values, &mut values_out);
        }
        Ok((keys, values))
    }

    /// The values at `places`.
    pub(super) fn pick_from(&self, values: &Buffer, places: &[u64]) -> Result<Buffer, BackendError> {
        let (places_at, picked) = (self.up(places)?, self.room::<u32>(places.len() as u64)?);
        let args = [place_of(values), place_of(&places_at), Arg::U64(places.len() as u64), place_of(&picked)];
        self.launch_each("groups", "pick", places.len() as u64, &args)?;
        Ok(picked)
    }

    pub(super) fn ordered(&self, choice: &DeviceIds, fanout: usize, tour: &[u32]) -> Result<(Vec<NodeId>, DeviceIds), BackendError> {
        let n = choice.count / fanout as u64;
        let (tour_at, keys, values) = (self.up(tour)?, self.room::<u32>(n)?, self.room::<u32>(n)?);
        let fanout_arg = Arg::U32(fanout as u32);
        let args = [place_of(&choice.buffer), fanout_arg, place_of(&tour_at), Arg::U64(n), place_of(&keys), place_of(&values)];
        self.launch_each("groups", "first_cells", n, &args)?;
        let (keys, order) = self.sorted(keys, values, n, bits_of(tour.len() as u64))?;
        drop(keys);
        let renamed = DeviceIds { buffer: self.room::<u32>(choice.count)?, count: choice.count };
        let args = [place_of(&choice.buffer), place_of(&order), place_of(&tour_at), fanout_arg, Arg::U64(n), place_of(&renamed.buffer)];
        self.launch_each("groups", "rename", n, &args)?;
        let order = self.down::<u32>(order.at(), n)?;
        Ok((order.into_iter().map(NodeId).collect(), renamed))
    }

    pub(super) fn by_leader(
        &self,
        clusters: &Groups<DeviceIds>,
        leader_offsets: &[u64],
        choice: &DeviceIds,
        fanout: usize,
    ) -> Result<Groups<DeviceIds>, BackendError> {
        let cells = leader_offsets.last().copied().unwrap_or(0);
        if cells >= u64::from(NO_LEADER) {
            return Err(self.too_many("cells", cells));
        }
        let (offsets, leaders_at) = (self.up(&clusters.offsets)?, self.up(leader_offsets)?);
        let tiles = shape::tiles_of(&clusters.offsets);
        let (tiles_at, keys, values) = (self.up(&tiles)?, self.room::<u32>(choice.count)?, self.room::<u32>(choice.count)?);
        let args = [
            place_of(&clusters.members.buffer),
            place_of(&offsets),
            place_of(&leaders_at),
            place_of(&tiles_at),
            Arg::U32(fanout as u32),
            place_of(&choice.buffer),
            place_of(&keys),
            place_of(&values),
        ];
        self.launch("groups", "cell_keys", tiles.len() as u64, 256, 0, &args)?;
        // NO_LEADER, all ones, stays behind every cell within these bits too.
        let (keys, members) = self.sorted(keys, values, choice.count, bits_of(cells))?;
        let ends = self.room::<u64>(cells + 1)?;
        let args = [place_of(&keys), Arg::U64(choice.count), Arg::U32(cells as u32), place_of(&ends)];
        self.launch_each("groups", "cell_offsets", cells + 1, &args)?;
        let offsets = self.down::<u64>(ends.at(), cells + 1)?;
        let count = offsets[cells as usize];
        Ok(Groups { offsets, members: DeviceIds { buffer: members, count } })
    }

    pub(super) fn selected(&self, from: &Groups<DeviceIds>, selection: &Selection) -> Result<Groups<DeviceIds>, BackendError> {
        let sum = |group: usize| selection.group(group).iter().map(|run| run.length).sum::<u64>();
        let joined: Vec<usize> = (0..selection.len()).filter(|&group| selection.group(group).len() > 1).collect();
        let largest = joined.iter().map(|&group| sum(group)).max().unwrap_or(0);
        if largest > shape::UNIQUE_MAX {
            // No partition asks for this: its leaves fit. Right, if slow.
            let host = Groups { offsets: from.offsets.clone(), members: self.down(from.members.buffer.at(), from.members.count)? };
            let Groups { offsets, members } = moves::select(&host, selection);
            return Ok(Groups { offsets, members: DeviceIds { count: members.len() as u64, buffer: self.up(&members)? } });
        }
        // Unions first, each in room for all its runs; only then are sizes known.
        let (mut starts, mut sizes, mut runs, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for &group in &joined {
            starts.push(end);
            for run in selection.group(group) {
                push_run(&mut runs, run.start, end, run.length);
                end += run.length;
            }
            sizes.push((end - starts[starts.len() - 1]) as u32);
        }
        let (unions, starts_at, sizes_at) = (self.room::<u32>(end)?, self.up(&starts)?, self.up(&sizes)?);
        self.copy_runs(&from.members.buffer, &runs, &unions)?;
        let capacity = largest.max(32).next_power_of_two() as u32;
        let args = [place_of(&unions), place_of(&starts_at), place_of(&sizes_at), Arg::U32(capacity)];
        self.launch("groups", "unique", joined.len() as u64, 256, 4 * capacity, &args)?;
        let sizes = self.down::<u32>(sizes_at.at(), joined.len() as u64)?;

        let (mut offsets, mut copied, mut united, mut next) = (vec![0u64], Vec::new(), Vec::new(), 0);
        for group in 0..selection.len() {
            let target = offsets[group];
            let length = match selection.group(group) {
                [run] => {
                    push_run(&mut copied, run.start, target, run.length);
                    run.length
                }
                _ => {
                    push_run(&mut united, starts[next], target, u64::from(sizes[next]));
                    next += 1;
                    u64::from(sizes[next - 1])
                }
            };
            offsets.push(target + length);
        }
        let count = offsets[selection.len()];
        let members = self.room::<u32>(count)?;
        self.copy_runs(&from.members.buffer, &copied, &members)?;
        self.copy_runs(&unions, &united, &members)?;
        Ok(Groups { offsets, members: DeviceIds { buffer: members, count } })
    }

    /// Copies runs (start, target, length) of 32-bit values.
    fn copy_runs(&self, from: &Buffer, runs: &[u64], to: &Buffer) -> Result<(), BackendError> {
        let runs_at = self.up(runs)?;
        self.launch("groups", "copy_runs", runs.len() as u64 / 3, 256, 0, &[place_of(from), place_of(&runs_at), place_of(to)])
    }

    fn too_many(&self, what: &str, count: u64) -> BackendError {
        let detail = format!("{count} {what} in one step are more than 2^32 - 2");
        BackendError::Device { device: self.driver.facts().name.clone(), detail }
    }
}

/// Bits in which every number up to `count` differs from all ones of as many bits, or equals it only as a number that is not used.
fn bits_of(count: u64) -> u32 {
    (64 - count.leading_zeros()).max(1)
}

/// Values that one block copies.
const RUN: u64 = 1 << 16;

/// Adds a run, in pieces that blocks share.
fn push_run(runs: &mut Vec<u64>, start: u64, target: u64, length: u64) {
    for at in (0..length).step_by(RUN as usize) {
        runs.extend([start + at, target + at, RUN.min(length - at)]);
    }
}
