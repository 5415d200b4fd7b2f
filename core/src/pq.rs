//! Product quantization: one byte a subspace stands for a vector in RAM, and chooses what to read from flash.
//!
//! The coordinates are split into M subspaces; each vector keeps, for each of them, the number of the nearest of 256 centroids
//! (Jégou, Douze, Schmid: "Product quantization for nearest neighbor search", 2011), after a rotation where that ranks better on
//! held-out vectors (OPQ: Ge, He, Ke, Sun: "Optimized product quantization", 2013). A query fills a [`LookupTable`] once; then a
//! vector's approximate distance is M table reads.
//!
//! *Everything that makes a code is integer*: rows are u8 build codes, the rotation and the centroids are i16 fixed point, ties go to
//! the smaller centroid number. So the codes are the same bytes on every SIMD level, thread count and device, by construction.
//!
//! Fixed point: a coordinate `x` counts as `(x - 128) * 2^f`. A subspace's part of a vector is no longer than `sqrt(s) * 128 * 2^f`,
//! where `s` is the widest subspace, or all of `dim` once a rotation may turn the whole length into one subspace. `f` is the largest
//! with `s * 4^f <= 2^15`, so that length N is at most 2^14.5. Rounding the rotation's entries to 2^-14 can stretch it by
//! `dim * 2^-15 <= 1/4` at most, and rounding coordinates and centroids adds less than 46 (half of sqrt(8192)): below 2^14.9, which
//! fits i16, and scores (see `Subspace`) stay below `1.5 * 2^29.8 < 2^31`, which fits i32.

mod bytes;
mod kernel;
mod kmeans;
mod linear;
mod lookup;
mod rotation;
mod subspace;
mod train;

pub use bytes::CodebookError;
pub use lookup::{LookupKind, LookupScratch, LookupTable};
pub use train::{Candidate, TrainError, TrainParams, TrainReport, Turn, WIDEST_TO_ROTATE, train_best};

use kernel::{Kernels, LANES, Pair};
use rotation::Rotation;
use std::ops::Range;
use subspace::Subspace;

/// Centroids of a subspace: as many as one byte can name.
pub const CENTROIDS: usize = 256;

/// What a u8 build code of zero deviation reads: subtracted before anything else, so that lengths are as short as they can be.
const CENTER: i16 = 128;

/// How the coordinates are divided: subspace `s` has coordinates `offsets[s]..offsets[s + 1]`, and in a block (see [`Transform`]) the
/// pairs `pair_offsets[s]..pair_offsets[s + 1]`, the last of them filled up with zero where the width is odd.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout {
    offsets: Vec<usize>,
    pair_offsets: Vec<usize>,
}

impl Layout {
    /// As equal as possible: the first `dim % subspaces` subspaces are one wider than the others. `1 <= subspaces <= dim`.
    fn new(dim: usize, subspaces: usize) -> Layout {
        let (mut offsets, mut pair_offsets) = (vec![0], vec![0]);
        let (mut offset, mut pair_offset) = (0, 0);
        for s in 0..subspaces {
            let width = dim / subspaces + usize::from(s < dim % subspaces);
            offset += width;
            pair_offset += width.div_ceil(2);
            offsets.push(offset);
            pair_offsets.push(pair_offset);
        }
        Layout { offsets, pair_offsets }
    }

    fn dim(&self) -> usize {
        self.offsets[self.subspaces()]
    }

    fn subspaces(&self) -> usize {
        self.offsets.len() - 1
    }

    fn coordinates(&self, s: usize) -> Range<usize> {
        self.offsets[s]..self.offsets[s + 1]
    }

    fn pairs(&self, s: usize) -> Range<usize> {
        self.pair_offsets[s]..self.pair_offsets[s + 1]
    }

    fn pair_count(&self) -> usize {
        self.pair_offsets[self.subspaces()]
    }

    /// Where each coordinate lies in a block: (pair, half of the pair).
    fn places(&self) -> Vec<(usize, usize)> {
        (0..self.subspaces()).flat_map(|s| (0..self.coordinates(s).len()).map(move |j| (self.pair_offsets[s] + j / 2, j % 2))).collect()
    }

    /// The `f` of the module's text.
    fn fraction_bits(&self, rotated: bool) -> u32 {
        let span = if rotated { self.dim() } else { self.coordinates(0).len() };
        (0..=7).rev().find(|f| span << (2 * f) <= 1 << 15).unwrap_or(0)
    }
}

/// Turns u8 rows into blocks of fixed-point pairs: [pairs][LANES rows], the form in which the kernels take vectors.
struct Transform<'a> {
    rotation: Option<&'a Rotation>,
    places: Vec<(usize, usize)>,
    fraction_bits: u32,
    pair_count: usize,
    /// A block before the rotation.
    unrotated: Vec<[Pair; LANES]>,
}

impl<'a> Transform<'a> {
    fn new(layout: &Layout, rotation: Option<&'a Rotation>) -> Self {
        Transform {
            rotation,
            places: layout.places(),
            fraction_bits: layout.fraction_bits(rotation.is_some()),
            pair_count: layout.pair_count(),
            unrotated: vec![[[0; 2]; LANES]; if rotation.is_some() { layout.dim().div_ceil(2) } else { 0 }],
        }
    }

    /// Writes up to `LANES` rows ([rows x stride] u8) as one block `out` [pair_count]. Lanes without a row are left as they are.
    fn block(&mut self, kernels: Kernels, rows: &[u8], stride: usize, out: &mut [[Pair; LANES]]) {
        let dim = self.places.len();
        for (lane, row) in rows.chunks_exact(stride).enumerate() {
            match self.rotation {
                None => {
                    for (&(pair, half), &x) in self.places.iter().zip(row) {
                        out[pair][lane][half] = (i16::from(x) - CENTER) << self.fraction_bits;
                    }
                }
                Some(_) => {
                    for (j, &x) in row[..dim].iter().enumerate() {
                        self.unrotated[j / 2][lane][j % 2] = i16::from(x) - CENTER;
                    }
                }
            }
        }
        if let Some(rotation) = self.rotation {
            rotation.rotate_block(kernels, &self.unrotated, self.fraction_bits, &self.places, out);
        }
    }

    /// All rows ([n x stride] u8) as blocks, [ceil(n / LANES)][pair_count]; missing lanes of the last are zero.
    fn blocks(&mut self, kernels: Kernels, rows: &[u8], stride: usize) -> Vec<[Pair; LANES]> {
        let count = (rows.len() / stride).div_ceil(LANES);
        let mut blocks = vec![[[0; 2]; LANES]; count * self.pair_count];
        for (rows, block) in rows.chunks(stride * LANES).zip(blocks.chunks_exact_mut(self.pair_count)) {
            self.unrotated.fill([[0; 2]; LANES]);
            self.block(kernels, rows, stride, block);
        }
        blocks
    }
}

/// What makes a code, as plain numbers. Byte `x` of a row counts as `y = (x - 128) << fraction_bits`; with a rotation as
/// `y_i = (sum_j rotation[i][j] * (x_j - 128) + half) >> (14 - fraction_bits)`, half being the weight of the last bit cut, within +-32,767. A
/// subspace's code is the smallest `k` with the largest `starts[k] + sum of y * centroid`, in wrapping i32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables<'a> {
    /// First coordinate of each subspace, and the end: [subspaces + 1].
    pub offsets: Vec<u32>,
    /// Fixed point of `y` and of the centroids.
    pub fraction_bits: u32,
    /// [dim x dim], 1.0 being 2^14.
    pub rotation: Option<Vec<i16>>,
    /// [dim x CENTROIDS].
    pub centroids: &'a [i16],
    /// [subspaces x CENTROIDS].
    pub starts: Vec<i32>,
}

/// The centroids of every subspace, and the rotation that comes before them where one pays.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    layout: Layout,
    rotation: Option<Rotation>,
    /// [dim][CENTROIDS] fixed point: the form on disk and of the lookup table.
    centroids: Vec<i16>,
    /// The same centroids as the encoder reads them.
    subspaces: Vec<Subspace>,
}

impl Codebook {
    /// From [dim][CENTROIDS] fixed-point centroids.
    fn new(layout: Layout, rotation: Option<Rotation>, centroids: Vec<i16>) -> Codebook {
        let subspaces = (0..layout.subspaces())
            .map(|s| {
                let coordinates = layout.coordinates(s);
                Subspace::from_coordinates(&centroids[coordinates.start * CENTROIDS..coordinates.end * CENTROIDS])
            })
            .collect();
        Codebook { layout, rotation, centroids, subspaces }
    }

    /// From trained subspaces.
    fn from_subspaces(layout: Layout, rotation: Option<Rotation>, subspaces: Vec<Subspace>) -> Codebook {
        let centroids = (0..layout.subspaces())
            .flat_map(|s| (0..layout.coordinates(s).len()).map(move |j| (s, j)))
            .flat_map(|(s, j)| subspaces[s].coordinate(j))
            .collect();
        Codebook { layout, rotation, centroids, subspaces }
    }

    /// Coordinates of a vector.
    pub fn dim(&self) -> usize {
        self.layout.dim()
    }

    /// Bytes of a code (M): one a subspace.
    pub fn subspaces(&self) -> usize {
        self.layout.subspaces()
    }

    /// Whether codes are of rotated vectors. A rotated codebook cannot serve [`LookupKind::Manhattan`].
    pub fn is_rotated(&self) -> bool {
        self.rotation.is_some()
    }

    /// Everything that an encoder on another device needs.
    pub fn tables(&self) -> Tables<'_> {
        Tables {
            offsets: self.layout.offsets.iter().map(|&offset| offset as u32).collect(),
            fraction_bits: self.layout.fraction_bits(self.is_rotated()),
            rotation: self.rotation.as_ref().map(|r| (0..self.dim()).flat_map(|i| r.entries(i)).copied().collect()),
            centroids: &self.centroids,
            starts: self.subspaces.iter().flat_map(|s| s.starts()).copied().collect(),
        }
    }

    /// Bytes this codebook keeps in RAM.
    pub fn resident_bytes(&self) -> u64 {
        let rotation = self.rotation.as_ref().map_or(0, Rotation::resident_bytes);
        let subspaces: usize = self.subspaces.iter().map(Subspace::resident_bytes).sum();
        rotation + (self.centroids.len() * 2 + subspaces) as u64
    }

    /// Where a vector lies whose codes are compared: `row` `[dim]`, a build code, in fixed point, rotated where the codebook is. Distances between
    /// places are in the proportions of those between build codes.
    pub fn place(&self, row: &[u8], out: &mut Vec<f32>) {
        let unit = (1u32 << self.layout.fraction_bits(self.is_rotated())) as f32;
        out.clear();
        out.extend(row[..self.dim()].iter().map(|&x| (f32::from(x) - f32::from(CENTER)) * unit));
        if let Some(rotation) = &self.rotation {
            let one = (1u32 << rotation::ENTRY_BITS) as f32;
            let kernels = Kernels::detected();
            let rotated: Vec<f32> = (0..self.dim()).map(|i| kernels.weighted_sum(rotation.entries(i), out) / one).collect();
            *out = rotated;
        }
    }

    /// Appends the place `[dim]` that `code` `[subspaces]` stands for.
    pub fn place_of_code(&self, code: &[u8], out: &mut Vec<f32>) {
        for (s, &c) in code.iter().enumerate() {
            out.extend(self.layout.coordinates(s).map(|j| f32::from(self.centroids[j * CENTROIDS + usize::from(c)])));
        }
    }

    /// Codes `out` [n x subspaces] of `rows` [n x stride] u8 build codes, of which the first `dim` of each row count.
    ///
    /// Runs on the calling thread; chunks of rows can be encoded in parallel, and how they are cut changes no code.
    ///
    /// # Panics
    /// When the shapes disagree: `stride < dim`, `rows` no whole number of strides, `out` not n codes.
    pub fn encode_rows(&self, rows: &[u8], stride: usize, out: &mut [u8]) {
        self.encode_rows_with(Kernels::detected(), rows, stride, out);
    }

    fn encode_rows_with(&self, kernels: Kernels, rows: &[u8], stride: usize, out: &mut [u8]) {
        assert!(stride >= self.dim() && rows.len().is_multiple_of(stride), "rows are not whole strides of at least dim bytes");
        assert_eq!(out.len(), rows.len() / stride * self.subspaces(), "codes and rows disagree");
        let mut transform = Transform::new(&self.layout, self.rotation.as_ref());
        let mut block = vec![[[0; 2]; LANES]; self.layout.pair_count()];
        let code_bytes = self.subspaces();
        for (rows, codes) in rows.chunks(stride * LANES).zip(out.chunks_mut(code_bytes * LANES)) {
            transform.block(kernels, rows, stride, &mut block);
            for (s, subspace) in self.subspaces.iter().enumerate() {
                let nearest = kernels.nearest(&block[self.layout.pairs(s)], subspace);
                for (code, centroid) in codes.chunks_exact_mut(code_bytes).zip(nearest) {
                    code[s] = centroid;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
