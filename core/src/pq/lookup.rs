//! Distances from one query to codes: a table filled once, then M reads and adds a vector.
//!
//! Entries are one byte, so the table of 32 subspaces is 8 KiB and stays in the first cache. Each subspace's smallest entry is
//! subtracted (it moves every distance alike) and one scale serves all, so sums rank as the exact ones do up to rounding.

use super::kernel::{Kernels, prefetch};
use super::rotation::ENTRY_BITS;
use super::{CENTER, CENTROIDS, Codebook};
use crate::id::NodeId;

/// Which distance a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// Squared Euclidean distance (cosine too, on vectors that were normalized).
    L2,
    /// Negated inner product.
    InnerProduct,
    /// Sum of absolute differences; needs a codebook without rotation.
    Manhattan,
}

/// A query's distances to every centroid, in u8; made once and refilled for each query.
#[derive(Clone, Debug, Default)]
pub struct LookupTable {
    /// [subspaces][CENTROIDS].
    entries: Vec<[u8; CENTROIDS]>,
    /// See [`LookupTable::offset`].
    offset: f32,
}

/// What filling a table takes, four times the table: one serves all tables of a thread.
#[derive(Clone, Debug, Default)]
pub struct LookupScratch {
    /// The entries before rounding.
    exact: Vec<[f32; CENTROIDS]>,
    /// The smallest of each of those.
    least: Vec<f32>,
    /// The query as the codebook sees it.
    query: Vec<f32>,
}

/// How far ahead of the distance being summed its code is asked for.
const AHEAD: usize = 16;

impl LookupTable {
    /// An empty table, to be filled.
    pub fn new() -> Self {
        LookupTable::default()
    }

    /// Fills the table for `query` `[dim]`, f32 in units of the build codes: the value each coordinate would have as an unrounded u8
    /// code. For [`LookupKind::InnerProduct`] it holds the raw weight of each coordinate, 0 where one does not count.
    ///
    /// # Panics
    /// When `query` is not `dim` long, or `kind` is Manhattan and the codebook is rotated (see [`Codebook::is_rotated`]).
    pub fn fill(&mut self, codebook: &Codebook, kind: LookupKind, query: &[f32], scratch: &mut LookupScratch) {
        self.fill_with(Kernels::detected(), codebook, kind, query, scratch);
    }

    pub(super) fn fill_with(
        &mut self,
        kernels: Kernels,
        codebook: &Codebook,
        kind: LookupKind,
        query: &[f32],
        scratch: &mut LookupScratch,
    ) {
        assert_eq!(query.len(), codebook.dim(), "query and codebook have different dimensions");
        assert!(kind != LookupKind::Manhattan || !codebook.is_rotated(), "Manhattan distances do not survive a rotation");
        scratch.transform(kernels, codebook, kind, query);
        let layout = &codebook.layout;
        scratch.exact.resize(layout.subspaces(), [0.0; CENTROIDS]);
        scratch.least.resize(layout.subspaces(), 0.0);
        self.entries.resize(layout.subspaces(), [0; CENTROIDS]);
        for (s, exact) in scratch.exact.iter_mut().enumerate() {
            let coordinates = layout.coordinates(s);
            let centroids = &codebook.centroids[coordinates.start * CENTROIDS..coordinates.end * CENTROIDS];
            let query = &scratch.query[coordinates];
            match kind {
                LookupKind::L2 => kernels.table_row::<0>(query, centroids, exact),
                LookupKind::InnerProduct => kernels.table_row::<1>(query, centroids, exact),
                LookupKind::Manhattan => kernels.table_row::<2>(query, centroids, exact),
            }
        }
        self.offset = scratch.quantize(kernels, &mut self.entries);
    }

    /// The distance to a vector's `code` `[subspaces]`: the sum of its entries. Codes of another length sum their common part.
    #[inline]
    pub fn distance(&self, code: &[u8]) -> u32 {
        let (entries, code) = if code.len() < self.entries.len() {
            (&self.entries[..code.len()], code)
        } else {
            (&self.entries[..], &code[..self.entries.len()])
        };
        let (entries, entries_rest) = entries.as_chunks::<8>();
        let (code, code_rest) = code.as_chunks::<8>();
        let mut sum = 0;
        for (e, c) in entries.iter().zip(code) {
            // One load for eight bytes of code: the table's entries are what loads are for.
            let c = u64::from_le_bytes(*c);
            let at = |i: usize| u32::from(e[i][usize::from((c >> (8 * i)) as u8)]);
            sum += (at(0) + at(1)) + (at(2) + at(3)) + ((at(4) + at(5)) + (at(6) + at(7)));
        }
        for (e, &c) in entries_rest.iter().zip(code_rest) {
            sum += u32::from(e[usize::from(c)]);
        }
        sum
    }

    /// What every distance lacks of being in proportion to the true one: the sum of what was subtracted from each subspace.
    pub fn offset(&self) -> f32 {
        self.offset
    }

    /// Distances `out[i]` to the vectors `ids[i]`, whose codes lie in `codes` [n x subspaces]; ids beyond n are `u32::MAX` away.
    pub fn distances(&self, codes: &[u8], ids: &[NodeId], out: &mut Vec<u32>) {
        let code_bytes = self.entries.len();
        self.distances_by(|id| codes.get(id.index() * code_bytes..(id.index() + 1) * code_bytes), ids, out);
    }

    /// Distances `out[i]` to the vectors `ids[i]` with codes `code(ids[i])`; those that have none are `u32::MAX` away.
    #[inline]
    pub fn distances_by<'a>(&self, code: impl Fn(NodeId) -> Option<&'a [u8]>, ids: &[NodeId], out: &mut Vec<u32>) {
        out.clear();
        ids.iter().take(AHEAD).filter_map(|&id| code(id)).for_each(prefetch);
        out.extend(ids.iter().enumerate().map(|(i, &id)| {
            if let Some(ahead) = ids.get(i + AHEAD).and_then(|&id| code(id)) {
                prefetch(ahead);
            }
            code(id).map_or(u32::MAX, |code| self.distance(code))
        }));
    }
}

impl LookupScratch {
    /// The query in the codebook's fixed point (not rounded), rotated where the codebook is.
    fn transform(&mut self, kernels: Kernels, codebook: &Codebook, kind: LookupKind, query: &[f32]) {
        let center = if kind == LookupKind::InnerProduct { 0.0 } else { f32::from(CENTER) };
        let unit = (1u32 << codebook.layout.fraction_bits(codebook.is_rotated())) as f32;
        self.query.clear();
        self.query.extend(query.iter().map(|q| (q - center) * unit));
        if let Some(rotation) = &codebook.rotation {
            let one = (1u32 << ENTRY_BITS) as f32;
            let rotated: Vec<f32> = (0..query.len()).map(|i| kernels.weighted_sum(rotation.entries(i), &self.query) / one).collect();
            self.query = rotated;
        }
    }

    fn quantize(&mut self, kernels: Kernels, entries: &mut [[u8; CENTROIDS]]) -> f32 {
        let mut widest = 0f32;
        let mut total = 0f32;
        for (row, kept) in self.exact.iter().zip(&mut self.least) {
            let (least, most) = kernels.range(row);
            *kept = least;
            widest = widest.max(most - least);
            total += most - least;
        }
        // What is beyond the mean range ranks last anyway, so it may all read 255 and the near get finer steps: a little better than
        // the widest range on both data sets tried. Where one subspace outweighs the others, half its range stays apart.
        let top = (total / self.exact.len() as f32).max(widest / 2.0);
        let scale = if top > 0.0 { 255.0 / top } else { 0.0 };
        for ((exact, &least), entries) in self.exact.iter().zip(&self.least).zip(entries) {
            kernels.to_bytes(exact, least, scale, entries);
        }
        self.least.iter().sum::<f32>() * scale
    }
}
