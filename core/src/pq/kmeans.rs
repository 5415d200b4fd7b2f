//! k-means of one subspace, in integers: assignments by the encoder's own kernel, centroids by rounded means of exact sums.
//!
//! No step depends on an order of additions, so any number of threads gives the same centroids. Lloyd's algorithm; a centroid that
//! loses all its vectors takes over the farthest member of the largest cluster.

use super::kernel::{Kernels, LANES, Pair};
use super::rotation::Rotation;
use super::subspace::Subspace;
use super::{CENTROIDS, Layout, Transform};
use crate::random::CounterRng;
use rayon::prelude::*;
use std::ops::Range;

/// Fixed-point vectors in blocks ([ceil(n / LANES)][pair_count], see `Transform`).
pub(super) struct Points {
    n: usize,
    pair_count: usize,
    blocks: Vec<[Pair; LANES]>,
}

impl Points {
    /// The points of `rows` [n x dim] u8, rotated where a rotation is given.
    pub(super) fn new(kernels: Kernels, rows: &[u8], layout: &Layout, rotation: Option<&Rotation>) -> Points {
        let blocks = Transform::new(layout, rotation).blocks(kernels, rows, layout.dim());
        Points { n: rows.len() / layout.dim(), pair_count: layout.pair_count(), blocks }
    }

    /// The pairs `pairs` of vector `row`.
    fn part(&self, row: usize, pairs: Range<usize>) -> impl Iterator<Item = Pair> + '_ {
        let block = &self.blocks[row / LANES * self.pair_count..][..self.pair_count];
        block[pairs].iter().map(move |lanes| lanes[row % LANES])
    }
}

/// Distinct vectors as the first centroids; they repeat where there are fewer than 256.
pub(super) fn first_centroids(points: &Points, layout: &Layout, rng: CounterRng) -> Vec<Subspace> {
    (0..layout.subspaces())
        .into_par_iter()
        .map(|s| {
            let rows = rng.part(s as u64).sample(points.n as u64, CENTROIDS as u64);
            let mut subspace = Subspace::zero(layout.coordinates(s).len());
            for k in 0..CENTROIDS {
                subspace.set(k, points.part(rows[k % rows.len()] as usize, layout.pairs(s)));
            }
            subspace
        })
        .collect()
}

/// Improves `subspaces` by at most `rounds` of assignment and update; returns with them the codes [subspace][n] of the last
/// assignment, which the last update followed.
pub(super) fn improve(
    kernels: Kernels,
    points: &Points,
    layout: &Layout,
    subspaces: Vec<Subspace>,
    rounds: usize,
) -> (Vec<Subspace>, Vec<Vec<u8>>) {
    subspaces
        .into_par_iter()
        .enumerate()
        .map(|(s, mut subspace)| {
            let (mut codes, mut before) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                std::mem::swap(&mut codes, &mut before);
                assign(kernels, points, layout.pairs(s), &subspace, &mut codes);
                if codes == before {
                    break;
                }
                update(points, layout.pairs(s), &codes, &mut subspace);
            }
            (subspace, codes)
        })
        .unzip()
}

fn assign(kernels: Kernels, points: &Points, pairs: Range<usize>, subspace: &Subspace, codes: &mut Vec<u8>) {
    codes.clear();
    for block in points.blocks.chunks_exact(points.pair_count) {
        codes.extend(kernels.nearest(&block[pairs.clone()], subspace));
    }
    codes.truncate(points.n);
}

fn update(points: &Points, pairs: Range<usize>, codes: &[u8], subspace: &mut Subspace) {
    let count = pairs.len();
    let mut sums = vec![[0i64; 2]; CENTROIDS * count];
    let mut sizes = [0i64; CENTROIDS];
    for (block, codes) in points.blocks.chunks_exact(points.pair_count).zip(codes.chunks(LANES)) {
        for (lane, &code) in codes.iter().enumerate() {
            let code = usize::from(code);
            sizes[code] += 1;
            for (sum, lanes) in sums[code * count..][..count].iter_mut().zip(&block[pairs.clone()]) {
                sum[0] += i64::from(lanes[lane][0]);
                sum[1] += i64::from(lanes[lane][1]);
            }
        }
    }
    let empty: Vec<usize> = (0..CENTROIDS).filter(|&k| sizes[k] == 0).collect();
    for k in (0..CENTROIDS).filter(|&k| sizes[k] > 0) {
        // A mean lies between its summands, so it fits i16 like them; halves round up.
        let mean = |sum: i64| (2 * sum + sizes[k]).div_euclid(2 * sizes[k]) as i16;
        subspace.set(k, sums[k * count..][..count].iter().map(|sum| sum.map(mean)));
    }
    if !empty.is_empty() {
        reseed(points, pairs, codes, sizes, &empty, subspace);
    }
}

/// Each of the `empty` centroids becomes the farthest member of the cluster that is largest at its turn; clusters without a member
/// off their centroid are passed over, and when none is left the remaining centroids stay what they are.
fn reseed(points: &Points, pairs: Range<usize>, codes: &[u8], mut sizes: [i64; CENTROIDS], empty: &[usize], subspace: &mut Subspace) {
    let mut off: Vec<u64> = codes
        .iter()
        .enumerate()
        .map(|(row, &code)| {
            let centroid = subspace.centroid(usize::from(code));
            points
                .part(row, pairs.clone())
                .zip(centroid)
                .map(|(y, c)| (0..2).map(|h| u64::from(y[h].abs_diff(c[h])).pow(2)).sum::<u64>())
                .sum()
        })
        .collect();
    for &k in empty {
        while let Some(largest) = (0..CENTROIDS).filter(|&c| sizes[c] > 1).max_by_key(|&c| (sizes[c], std::cmp::Reverse(c))) {
            let members = (0..codes.len()).filter(|&row| usize::from(codes[row]) == largest);
            let farthest = members.max_by_key(|&row| (off[row], std::cmp::Reverse(row)));
            if let Some(row) = farthest.filter(|&row| off[row] > 0) {
                subspace.set(k, points.part(row, pairs.clone()));
                off[row] = 0;
                sizes[largest] -= 1;
                break;
            }
            sizes[largest] = 0;
        }
    }
}
