//! A codebook as bytes, little-endian; the caller's file adds the checksum.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `dim` |
//! | 4 | `subspaces` (M) |
//! | 4 | 1 with a rotation, 0 without |
//! | 4 | zero |
//! | 2 * dim * dim, or 0 | rotation, row after row, i16 with 14 fraction bits |
//! | 2 * dim * 256 | centroids, i16, 256 values of coordinate 0, then of coordinate 1, ... |
//!
//! How wide each subspace is and how many fraction bits a centroid has follow from `dim`, `subspaces` and the rotation, so they are not
//! stored and cannot disagree.

use super::rotation::{ENTRY_BITS, Rotation};
use super::{CENTROIDS, Codebook, Layout};
use crate::id::MAX_BUILD_DIM;

const HEADER_BYTES: usize = 16;

/// Bytes that are no codebook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodebookError {
    /// The length does not follow from the header.
    #[error("the codebook is {got} bytes, its header asks for {expected}; the file is damaged, rebuild or restore it")]
    Length {
        /// Bytes there are.
        got: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The header holds values that no codebook has.
    #[error(
        "the codebook's header says dim {dim}, subspaces {subspaces}, rotation {rotated}, reserved {reserved}: no codebook has these; \
         the file is damaged or from a newer version, rebuild or restore it"
    )]
    Header {
        /// Coordinates.
        dim: u32,
        /// Bytes of a code.
        subspaces: u32,
        /// 1 or 0 when valid.
        rotated: u32,
        /// 0 when valid.
        reserved: u32,
    },
    /// A row of the rotation is not of unit length.
    #[error("row {row} of the codebook's rotation is not of unit length; the file is damaged, rebuild or restore it")]
    Rotation {
        /// Which row.
        row: usize,
    },
}

impl Codebook {
    /// The codebook as bytes that `from_bytes` reads back.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(length(self.dim(), self.is_rotated()) as usize);
        for word in [self.dim() as u32, self.subspaces() as u32, u32::from(self.is_rotated()), 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let rotation = self.rotation.iter().flat_map(|r| (0..self.dim()).flat_map(|i| r.entries(i)));
        for value in rotation.chain(&self.centroids) {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// Reads what `to_bytes` wrote. Any bytes are safe to offer: nothing is allocated beyond a small multiple of their length.
    ///
    /// # Errors
    /// When the length, the header or the rotation cannot be a codebook's. Wrong centroid values are not noticed: that is the
    /// checksum's work.
    pub fn from_bytes(bytes: &[u8]) -> Result<Codebook, CodebookError> {
        let got = bytes.len() as u64;
        let Some((header, values)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(CodebookError::Length { got, expected: HEADER_BYTES as u64 });
        };
        let word = |i: usize| u32::from_le_bytes([header[4 * i], header[4 * i + 1], header[4 * i + 2], header[4 * i + 3]]);
        let (dim, subspaces, rotated, reserved) = (word(0), word(1), word(2), word(3));
        if dim == 0 || dim as usize > MAX_BUILD_DIM || subspaces == 0 || subspaces > dim || rotated > 1 || reserved != 0 {
            return Err(CodebookError::Header { dim, subspaces, rotated, reserved });
        }
        let (dim, rotated) = (dim as usize, rotated == 1);
        let expected = length(dim, rotated);
        if got != expected {
            return Err(CodebookError::Length { got, expected });
        }
        let values: Vec<i16> = values.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
        let (entries, centroids) = values.split_at(if rotated { dim * dim } else { 0 });
        for (row, entries) in entries.chunks_exact(dim).enumerate() {
            let length: i64 = entries.iter().map(|&v| i64::from(v) * i64::from(v)).sum();
            let one = 1i64 << (2 * ENTRY_BITS);
            if (length - one).abs() > one / 8 {
                return Err(CodebookError::Rotation { row });
            }
        }
        let rotation = rotated.then(|| Rotation::from_entries(dim, entries));
        Ok(Codebook::new(Layout::new(dim, subspaces as usize), rotation, centroids.to_vec()))
    }
}

/// Bytes of a codebook.
fn length(dim: usize, rotated: bool) -> u64 {
    let dim = dim as u64;
    HEADER_BYTES as u64 + 2 * dim * (if rotated { dim } else { 0 } + CENTROIDS as u64)
}
