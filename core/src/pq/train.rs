//! Trains a codebook without a rotation and with two kinds of it, and keeps the one that ranks held-out vectors best.
//!
//! A rotation gained 45% of the reads on some data and lost 4% on other, and it costs time at every query, so it is measured and must
//! win by a margin. Measured is what a search needs: how many of a query's true 10 nearest are the first 10 by code. (The first 30
//! are too easy: among ten thousand vectors nearly every codebook finds .97 or more there, and the margin hid a rotation that gained .04
//! recall@10 by code on all of them.) Neither the queries nor the ranked vectors were trained on.

use super::kernel::Kernels;
use super::kmeans::{self, Points};
use super::lookup::{LookupKind, LookupScratch, LookupTable};
use super::rotation;
use super::{CENTER, Codebook, Layout};
use crate::id::MAX_BUILD_DIM;
use crate::random::CounterRng;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainParams {
    /// Bytes of a code (M), 1..=dim.
    pub subspaces: usize,
    /// Whether a rotation may be tried; not under Manhattan distance, which a rotation changes.
    pub allow_rotation: bool,
    /// Seed of every random choice.
    pub seed: u64,
}

/// The rotation of a codebook, by how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// No rotation.
    None,
    /// Principal axes, dealt out evenly (parametric OPQ).
    PrincipalAxes,
    /// Turned towards what the codes say (non-parametric OPQ).
    Learned,
}

/// One codebook that was tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its rotation.
    pub turn: Turn,
    /// Recall@10 by code alone on held-out vectors: of the true 10 nearest, the share among the first 10 by code. `None` where the
    /// sample was too small to hold any out.
    pub quality: Option<f64>,
    /// Time its training took.
    pub time: Duration,
}

/// What training did, and how well each candidate ranked.
#[derive(Clone, Debug)]
pub struct TrainReport {
    /// Rows trained on.
    pub rows: usize,
    /// Queries held out to judge; 0 where the sample was too small to judge.
    pub queries: usize,
    /// Vectors ranked for each query.
    pub ranked: usize,
    /// What was tried.
    pub candidates: Vec<Candidate>,
    /// What was kept.
    pub chosen: Turn,
}

/// Why nothing could be trained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// The sample is empty.
    #[error("no rows to train a codebook on; give at least one")]
    NoRows,
    /// The rows are not what stride and dim say.
    #[error("{bytes} bytes are not rows of {stride} bytes with {dim} coordinates (1 to {MAX_BUILD_DIM}) each")]
    Shape {
        /// Bytes given.
        bytes: usize,
        /// Bytes from one row to the next.
        stride: usize,
        /// Coordinates.
        dim: usize,
    },
    /// More subspaces than coordinates, or none.
    #[error("{subspaces} subspaces for {dim} coordinates; ask for 1 to {dim} bytes a code")]
    Subspaces {
        /// Asked for.
        subspaces: usize,
        /// Coordinates.
        dim: usize,
    },
}

/// Queries to judge by, at most and as a share of the sample.
const QUERIES: usize = 800;
const QUERIES_SHARE: usize = 16;
/// Vectors ranked for each query, likewise.
const RANKED: usize = 10_000;
const RANKED_SHARE: usize = 4;
/// Nearest that a query should find among as many by code.
const NEAREST: usize = 10;
/// With fewer rows, a rotation would be judged by chance and fit the sample instead of the data.
const FEWEST_TO_ROTATE: usize = 4_096;
/// 256 centroids gain nothing measurable from more than 100 vectors each.
const MOST_TRAINED: usize = 100 * super::CENTROIDS;
/// A rotation must win by this much: it costs dim^2 multiply-adds a vector and a query.
const MARGIN: f64 = 0.01;
/// Above it the dim^3 algebra of the principal axes would take longer than the rest of a build.
pub const WIDEST_TO_ROTATE: usize = 1_024;
/// k-means rounds of every candidate before it is judged, and of the winner after it.
const ROUNDS: usize = 10;
const LAST_ROUNDS: usize = 15;
/// Rows that a rotation is learned from.
const MOST_LEARNED: usize = 16_384;

/// Rounds of learning a rotation: fewer as the dimension grows, as each costs dim^3; none where two would be left.
fn learning_rounds(dim: usize) -> usize {
    match (2_304 / dim).min(10) {
        0..=2 => 0,
        rounds => rounds,
    }
}

/// Trains on `rows` ([n x stride] u8 build codes, the first `dim` of each row count; 20,000 to 65,000 random rows serve well) and
/// returns the better codebook. Uses the caller's rayon pool; the result depends on the rows and the seed alone.
///
/// # Errors
/// When the rows are none or of another shape, or `subspaces` is not in `1..=dim`.
pub fn train_best(rows: &[u8], stride: usize, dim: usize, params: &TrainParams) -> Result<(Codebook, TrainReport), TrainError> {
    train_best_with(Kernels::detected(), rows, stride, dim, params)
}

pub(super) fn train_best_with(
    kernels: Kernels,
    rows: &[u8],
    stride: usize,
    dim: usize,
    params: &TrainParams,
) -> Result<(Codebook, TrainReport), TrainError> {
    let subspaces = params.subspaces;
    if dim == 0 || dim > MAX_BUILD_DIM || stride < dim || !rows.len().is_multiple_of(stride) {
        return Err(TrainError::Shape { bytes: rows.len(), stride, dim });
    }
    if subspaces == 0 || subspaces > dim {
        return Err(TrainError::Subspaces { subspaces, dim });
    }
    if rows.is_empty() {
        return Err(TrainError::NoRows);
    }
    let layout = Layout::new(dim, subspaces);
    let rng = CounterRng::new(params.seed);
    let sample = Sample::divide(rows, stride, dim, rng.part(0));
    let truth = sample.true_nearest(kernels);
    let learning_rows = &sample.trained[..sample.trained.len().min(MOST_LEARNED * dim)];

    let may_rotate = params.allow_rotation && !truth.is_empty() && (2..=WIDEST_TO_ROTATE).contains(&dim);
    let turns = match (may_rotate, learning_rounds(dim)) {
        (false, _) => &[Turn::None][..],
        (true, 0) => &[Turn::None, Turn::PrincipalAxes],
        (true, _) => &[Turn::None, Turn::PrincipalAxes, Turn::Learned],
    };
    let mut candidates = Vec::new();
    let mut best: Option<(f64, Turn, Codebook)> = None;
    for (&turn, part) in turns.iter().zip(1..) {
        let started = Instant::now();
        let rotation = match turn {
            Turn::None => None,
            Turn::PrincipalAxes => Some(rotation::principal_axes(kernels, learning_rows, &layout)),
            Turn::Learned => Some(rotation::learned(kernels, learning_rows, &layout, rng.part(part), learning_rounds(dim))),
        };
        let points = Points::new(kernels, &sample.trained, &layout, rotation.as_ref());
        let first = kmeans::first_centroids(&points, &layout, rng.part(part));
        let (subspaces, _) = kmeans::improve(kernels, &points, &layout, first, ROUNDS);
        let codebook = Codebook::from_subspaces(layout.clone(), rotation, subspaces);
        let time = started.elapsed();
        let quality = (!truth.is_empty()).then(|| sample.quality(kernels, &codebook, &truth));
        candidates.push(Candidate { turn, quality, time });
        let worth = quality.unwrap_or(0.0) - if turn == Turn::None { 0.0 } else { MARGIN };
        if best.as_ref().is_none_or(|(most, ..)| worth > *most) {
            best = Some((worth, turn, codebook));
        }
    }
    let Some((_, chosen, mut codebook)) = best else { return Err(TrainError::NoRows) };
    let points = Points::new(kernels, &sample.trained, &layout, codebook.rotation.as_ref());
    let (subspaces, _) = kmeans::improve(kernels, &points, &layout, codebook.subspaces, LAST_ROUNDS);
    codebook = Codebook::from_subspaces(layout, codebook.rotation, subspaces);
    let (rows, queries, ranked) = (sample.trained.len() / dim, sample.queries.len() / dim, sample.ranked.len() / dim);
    Ok((codebook, TrainReport { rows, queries, ranked, candidates, chosen }))
}

/// A sample divided by chance, each part [.. x dim].
struct Sample {
    trained: Vec<u8>,
    queries: Vec<u8>,
    ranked: Vec<u8>,
    dim: usize,
}

impl Sample {
    fn divide(rows: &[u8], stride: usize, dim: usize, rng: CounterRng) -> Sample {
        let n = rows.len() / stride;
        let gather = |order: &[u32]| -> Vec<u8> { order.iter().flat_map(|&i| &rows[i as usize * stride..][..dim]).copied().collect() };
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, rng.below(i as u64, i as u64 + 1) as usize);
        }
        if n < FEWEST_TO_ROTATE {
            return Sample { trained: gather(&order), queries: Vec::new(), ranked: Vec::new(), dim };
        }
        let (queries, rest) = order.split_at((n / QUERIES_SHARE).min(QUERIES));
        let (ranked, trained) = rest.split_at((n / RANKED_SHARE).min(RANKED));
        Sample { trained: gather(&trained[..trained.len().min(MOST_TRAINED)]), queries: gather(queries), ranked: gather(ranked), dim }
    }

    /// The numbers of the `NEAREST` ranked vectors of each query, by (exact distance, number).
    fn true_nearest(&self, kernels: Kernels) -> Vec<Vec<u32>> {
        let centered = |rows: &[u8]| -> Vec<i16> { rows.iter().map(|&x| i16::from(x) - CENTER).collect() };
        let (dim, queries, ranked) = (self.dim, centered(&self.queries), centered(&self.ranked));
        let norms: Vec<i32> = ranked.chunks_exact(dim).map(|r| kernels.dot(r, r)).collect();
        queries
            .par_chunks_exact(dim)
            .map(|query| {
                let distances = ranked.chunks_exact(dim).zip(&norms).map(|(row, norm)| norm - 2 * kernels.dot(query, row));
                first(distances, NEAREST)
            })
            .collect()
    }

    /// Share of the true nearest among as many first by code.
    fn quality(&self, kernels: Kernels, codebook: &Codebook, truth: &[Vec<u32>]) -> f64 {
        let mut codes = vec![0; self.ranked.len() / self.dim * codebook.subspaces()];
        codebook.encode_rows_with(kernels, &self.ranked, self.dim, &mut codes);
        let found: usize = self
            .queries
            .par_chunks_exact(self.dim)
            .zip(truth)
            .map_init(<(LookupTable, LookupScratch)>::default, |(table, scratch), (query, truth)| {
                let query: Vec<f32> = query.iter().map(|&x| f32::from(x)).collect();
                table.fill_with(kernels, codebook, LookupKind::L2, &query, scratch);
                let by_code = first(codes.chunks_exact(codebook.subspaces()).map(|code| table.distance(code)), NEAREST);
                truth.iter().filter(|t| by_code.contains(t)).count()
            })
            .sum();
        found as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64
    }
}

/// The numbers of the `count` smallest distances, ties to the smaller number.
fn first<D: Ord>(distances: impl Iterator<Item = D>, count: usize) -> Vec<u32> {
    let mut all: Vec<(D, u32)> = distances.zip(0..).collect();
    if all.len() > count {
        all.select_nth_unstable(count - 1);
        all.truncate(count);
    }
    all.into_iter().map(|(_, number)| number).collect()
}
