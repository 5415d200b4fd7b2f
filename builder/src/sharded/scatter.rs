//! The first pass: the input streams by once, and every row goes to the files of its shards.

use super::{
    Shared,
    disk::Target,
    journal::{Journal, Record, Routed},
    model,
    route::Router,
    segments::SegmentWriter,
};
use crate::{BuildError, backend::BuildCodes, input};
use std::sync::{Mutex, PoisonError};

/// Input and codes that are in memory at once.
pub(crate) const UNIT_BYTES: u64 = 16 << 20;
/// Units between two records of the journal.
const UNITS_A_RECORD: u64 = 16;

/// Routes all rows that are not yet routed.
pub(super) fn route(shared: &Shared<'_>, journal: &mut Journal, mut routed: Routed) -> Result<Routed, BuildError> {
    let (dataset, watch) = (shared.dataset(), shared.job.watch);
    let n = dataset.n();
    if routed.rows == n {
        return Ok(routed);
    }
    let router = model::router(shared.builder, shared.job, &shared.codec)?;
    watch.phase("route", n, "rows");
    watch.advance(routed.rows)?;
    let unit = (UNIT_BYTES / (dataset.row_bytes() + shared.codec.stride()) as u64).max(1).next_multiple_of(input::CHUNK_ROWS as u64);
    let mut told = routed.hashes.len();
    let mut buffers = Unit::default();
    while routed.rows < n {
        for _ in 0..UNITS_A_RECORD {
            let count = unit.min(n - routed.rows);
            if count == 0 {
                break;
            }
            buffers.route(shared, &router, count as usize, &mut routed)?;
            watch.advance(count)?;
        }
        shared.disk.settle()?;
        for shard in (0..shared.shards).filter(|&shard| shared.is_built_here(shard)) {
            Target::open(&shared.path("members", shard))?.sync()?;
            if shared.keeps_vectors() {
                Target::open(&shared.path("vectors", shard))?.sync()?;
            }
        }
        journal.add(&Record::Routed(Routed { hashes: routed.hashes[told..].to_vec(), ..routed.clone() }))?;
        told = routed.hashes.len();
    }
    Ok(routed)
}

/// A run of rows on its way, and the memory for it.
#[derive(Default)]
struct Unit {
    vectors: Vec<u8>,
    codes: Vec<u8>,
    member: Vec<u8>,
}

impl Unit {
    /// Reads the next `count` rows and appends each to the files of its shards.
    fn route(&mut self, shared: &Shared<'_>, router: &Router, count: usize, routed: &mut Routed) -> Result<(), BuildError> {
        let (dataset, stride, width) = (shared.dataset(), shared.codec.stride(), shared.dataset().row_bytes());
        let first = routed.rows;
        self.codes.resize(count * stride, 0);
        self.vectors.resize(if shared.keeps_vectors() { count * width } else { 0 }, 0);
        // Each chunk of vectors is written by the one task that reads it.
        let vectors: Vec<Mutex<&mut [u8]>> = self.vectors.chunks_mut(input::CHUNK_ROWS * width).map(Mutex::new).collect();
        let keep = |raw: &[u8], chunk: usize| {
            if let Some(place) = vectors.get(chunk) {
                place.lock().unwrap_or_else(PoisonError::into_inner).copy_from_slice(raw);
            }
            Ok(())
        };
        routed.hashes.extend(input::encode_range(dataset, &shared.codec, shared.builder.metric, first, &mut self.codes, &keep)?);
        let codes = BuildCodes { metric: shared.codec.build_metric(), stride, bytes: std::mem::take(&mut self.codes) };
        let shards = router.shards(&codes);

        // The rows of each shard, in their order.
        let mut of_shard: Vec<Vec<u32>> = vec![Vec::new(); shared.shards];
        for (at, &(own, other)) in (0..).zip(&shards) {
            routed.cores[own as usize] += 1;
            for shard in [own, other] {
                routed.members[shard as usize] += 1;
                of_shard[shard as usize].push(at);
            }
        }
        routed.rows += count as u64;
        shared.refuse_outgrown(routed)?;
        for (shard, rows) in of_shard.iter().enumerate().filter(|(shard, rows)| !rows.is_empty() && shared.is_built_here(*shard)) {
            let mut members = shared.append("members", shard, shared.member_bytes(), routed.member_ends[shard])?;
            for &at in rows {
                self.member.clear();
                self.member.extend_from_slice(&((first + u64::from(at)) as u32).to_le_bytes());
                self.member.extend_from_slice(&shards[at as usize].0.to_le_bytes());
                self.member.extend_from_slice(codes.row(at));
                members.push(&self.member)?;
            }
            members.flush()?;
            routed.member_ends[shard] = members.offset();
            if shared.keeps_vectors() {
                let mut vectors = shared.append("vectors", shard, width, routed.vector_ends[shard])?;
                for &at in rows.iter().filter(|&&at| shards[at as usize].0 == shard as u32) {
                    vectors.push(&self.vectors[at as usize * width..][..width])?;
                }
                vectors.flush()?;
                routed.vector_ends[shard] = vectors.offset();
            }
        }
        self.codes = codes.bytes;
        Ok(())
    }
}

impl<'a> Shared<'a> {
    fn append(&self, kind: &'static str, shard: usize, width: usize, end: u64) -> Result<SegmentWriter<'_>, BuildError> {
        Ok(SegmentWriter::new(&self.disk, &Target::open(&self.path(kind, shard))?, self.identity(kind, shard), width, end))
    }

    /// A shard that has, or by the rows so far will have, more members than memory was planned for.
    fn refuse_outgrown(&self, routed: &Routed) -> Result<(), BuildError> {
        let (plan, most) = (self.job.plan, routed.members.iter().copied().max().unwrap_or(0));
        if most <= plan.shard_members {
            return Ok(());
        }
        // As if the rest came like what came so far.
        let members = (u128::from(most) * u128::from(plan.n) / u128::from(routed.rows)) as u64;
        let more = (self.shards as u128 * u128::from(members) * 21 / 20).div_ceil(u128::from(plan.shard_members.max(1))) as u64 + 1;
        Err(BuildError::ShardOutgrown { members, planned: plan.shard_members, shards: self.shards, more })
    }
}
