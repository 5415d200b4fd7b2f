//! The 256 centroids of one subspace, as the encoder reads them.

use super::CENTROIDS;
use super::kernel::Pair;

/// Centroids c_k of one subspace, two coordinates side by side so that one multiply-add instruction takes both.
///
/// "Nearest" has one meaning everywhere: the largest `y.c_k - floor(|c_k|^2 / 2)`, on a tie the smallest k. That is the order of
/// `|y - c_k|^2` up to one unit of the fixed point's square, and costs one multiply-add a pair and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subspace {
    width: usize,
    /// [CENTROIDS][pairs].
    pairs: Vec<Pair>,
    /// [CENTROIDS] `-floor(|c_k|^2 / 2)`: where a score starts.
    starts: Box<[i32; CENTROIDS]>,
}

impl Subspace {
    /// From [width][CENTROIDS] coordinates.
    pub(super) fn from_coordinates(coordinates: &[i16]) -> Subspace {
        let width = coordinates.len() / CENTROIDS;
        let mut subspace = Subspace { width, pairs: vec![[0; 2]; CENTROIDS * width.div_ceil(2)], starts: Box::new([0; CENTROIDS]) };
        for k in 0..CENTROIDS {
            let centroid: Vec<i16> = (0..width).map(|j| coordinates[j * CENTROIDS + k]).collect();
            subspace.set(k, centroid.chunks(2).map(|c| [c[0], c.get(1).copied().unwrap_or(0)]));
        }
        subspace
    }

    /// All centroids zero, to be `set`.
    pub(super) fn zero(width: usize) -> Subspace {
        Subspace { width, pairs: vec![[0; 2]; CENTROIDS * width.div_ceil(2)], starts: Box::new([0; CENTROIDS]) }
    }

    /// Makes `pairs` centroid `k`.
    pub(super) fn set(&mut self, k: usize, pairs: impl Iterator<Item = Pair>) {
        let count = self.pair_count();
        let mut norm = 0i64;
        for (place, pair) in self.pairs[k * count..][..count].iter_mut().zip(pairs) {
            *place = pair;
            norm += pair.iter().map(|&c| i64::from(c) * i64::from(c)).sum::<i64>();
        }
        // Fits for every trained codebook (module text); a hostile one is cut off here instead of wrapping.
        self.starts[k] = -i32::try_from(norm / 2).unwrap_or(i32::MAX);
    }

    /// Coordinates of a centroid.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Pairs of a centroid; the last half of the last is zero where the width is odd.
    pub(super) fn pair_count(&self) -> usize {
        self.width.div_ceil(2)
    }

    /// [CENTROIDS][pairs].
    pub(super) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The pairs of centroid `k`.
    pub(super) fn centroid(&self, k: usize) -> &[Pair] {
        &self.pairs[k * self.pair_count()..][..self.pair_count()]
    }

    /// Where each centroid's score starts.
    pub(super) fn starts(&self) -> &[i32; CENTROIDS] {
        &self.starts
    }

    /// Coordinate `j` of every centroid.
    pub(super) fn coordinate(&self, j: usize) -> impl Iterator<Item = i16> + '_ {
        (0..CENTROIDS).map(move |k| self.pairs[k * self.pair_count() + j / 2][j % 2])
    }

    pub(super) fn resident_bytes(&self) -> usize {
        self.pairs.len() * 4 + CENTROIDS * 4
    }
}
