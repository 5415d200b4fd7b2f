//! Exact nearest neighbors by comparing everything with everything.
//!
//! The base is streamed once, in chunks, while the queries and their k best stay in memory; the next chunk is read while this one is
//! compared. Threads share out tiles of queries. Inside a tile a block of base rows, small enough for the first cache, meets every
//! query before the next block comes, so that a base row is fetched from memory once a tile, not once a query.

use super::{Truth, TruthError};
use crate::dataset::{Dataset, DatasetError, check_finite};
use crate::distance::DistanceFn;
use crate::id::NodeId;
use crate::metric::Metric;
use crate::neighbor::{Distance, Neighbor};
use rayon::prelude::*;
use std::collections::BinaryHeap;

/// Bytes of base rows read at a time.
const CHUNK_BYTES: usize = 8 << 20;
/// Bytes of base rows that meet a tile's queries together: half of a first-level cache.
const BLOCK_BYTES: usize = 16 << 10;
/// Most queries of a tile.
const TILE_QUERIES: usize = 64;

/// The `k` nearest rows of `base` for every row of `queries`, in order of (distance, row); all rows when `base` has fewer than `k`.
///
/// Runs on the caller's rayon pool. Memory: the queries, 8 bytes for each of their neighbors, and two chunks of 8 MiB. `progress`
/// hears how many rows of the base are done, after every chunk.
///
/// # Errors
/// Shapes or types that differ; a metric that the element type has not; k = 0; more rows than 32-bit ids can name; a row that is not
/// finite (named); whatever reading can meet.
pub fn exact_truth(
    base: &Dataset,
    queries: &Dataset,
    metric: Metric,
    k: usize,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Truth, TruthError> {
    if (base.dim(), base.element()) != (queries.dim(), queries.element()) {
        let (base_dim, query_dim) = (base.dim(), queries.dim());
        return Err(TruthError::Mismatch { base_dim, base: base.element(), query_dim, query: queries.element() });
    }
    let mut query_rows = Vec::new();
    queries.read_rows(0, queries.n() as usize, &mut query_rows)?;
    check_finite(queries.element(), &query_rows, queries.dim(), 0)?;
    exact_truth_of(base, &query_rows, metric, k, progress)
}

/// [`exact_truth`] for queries in memory: raw rows of the base's own type `[count * row_bytes]`, finite.
///
/// # Errors
/// As [`exact_truth`].
pub fn exact_truth_of(
    base: &Dataset,
    query_rows: &[u8],
    metric: Metric,
    k: usize,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Truth, TruthError> {
    let distance = DistanceFn::new(metric, base.element(), base.dim())?;
    if k == 0 {
        return Err(TruthError::NoNeighbors);
    }
    if base.n() > u64::from(u32::MAX) {
        return Err(TruthError::TooManyRows { n: base.n() });
    }
    let k = k.min(base.n() as usize);
    let row_bytes = base.row_bytes();

    let tile_queries = (query_rows.len() / row_bytes).div_ceil(2 * rayon::current_num_threads()).clamp(1, TILE_QUERIES);
    let mut tiles: Vec<Tile> = query_rows.chunks(tile_queries * row_bytes).map(|queries| Tile::new(queries, row_bytes)).collect();

    let chunk_rows = (CHUNK_BYTES / row_bytes).max(1);
    let (mut chunk, mut next) = (Vec::new(), Vec::new());
    read_chunk(base, 0, chunk_rows, &mut chunk)?;
    let mut start = 0;
    while !chunk.is_empty() {
        let end = start + (chunk.len() / row_bytes) as u64;
        let compare = || tiles.par_iter_mut().for_each(|tile| tile.compare(&distance, &chunk, row_bytes, start as u32, k));
        let ((), read) = rayon::join(compare, || read_chunk(base, end, chunk_rows, &mut next));
        read?;
        std::mem::swap(&mut chunk, &mut next);
        start = end;
        progress(end);
    }

    let mut truth = Truth { n: (query_rows.len() / row_bytes) as u64, k, ids: Vec::new(), distances: Vec::new() };
    for nearest in tiles.into_iter().flat_map(|tile| tile.nearest) {
        for neighbor in nearest.into_sorted_vec() {
            truth.ids.push(neighbor.id.0);
            truth.distances.push(neighbor.distance.0);
        }
    }
    Ok(truth)
}

/// Fills `out` with the chunk that begins at row `start`; with nothing at the end.
fn read_chunk(base: &Dataset, start: u64, chunk_rows: usize, out: &mut Vec<u8>) -> Result<(), DatasetError> {
    let count = (base.n() - start).min(chunk_rows as u64) as usize;
    base.read_rows(start, count, out)?;
    check_finite(base.element(), out, base.dim(), start)
}

/// Some queries and the nearest rows they have met so far.
struct Tile<'a> {
    queries: &'a [u8],
    /// For each query, the k nearest; the farthest on top.
    nearest: Vec<BinaryHeap<Neighbor<Distance>>>,
}

impl Tile<'_> {
    fn new(queries: &[u8], row_bytes: usize) -> Tile<'_> {
        Tile { queries, nearest: vec![BinaryHeap::new(); queries.len() / row_bytes] }
    }

    /// Meets the base rows of `chunk`, whose first has the number `start`.
    fn compare(&mut self, distance: &DistanceFn, chunk: &[u8], row_bytes: usize, start: u32, k: usize) {
        let block_rows = (BLOCK_BYTES / row_bytes).max(1);
        for (b, block) in chunk.chunks(block_rows * row_bytes).enumerate() {
            let block_start = start + (b * block_rows) as u32;
            for (query, nearest) in self.queries.chunks_exact(row_bytes).zip(&mut self.nearest) {
                for (id, row) in (block_start..).zip(block.chunks_exact(row_bytes)) {
                    offer(nearest, k, Neighbor { distance: Distance(distance.distance(query, row)), id: NodeId(id) });
                }
            }
        }
    }
}

/// Keeps `met` when it is one of the `k` least.
#[inline]
fn offer(nearest: &mut BinaryHeap<Neighbor<Distance>>, k: usize, met: Neighbor<Distance>) {
    if nearest.len() < k {
        nearest.push(met);
    } else if let Some(mut farthest) = nearest.peek_mut()
        && met < *farthest
    {
        *farthest = met;
    }
}
