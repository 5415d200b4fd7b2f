//! The stage `encode`: PQ codes.

use super::{
    device::{Gpu, GpuError},
    launch::{Binding, Launch, Stage},
    rows::Rows,
};
use roxanne_core::pq::{CENTROIDS, Tables};
use std::ops::Range;

/// Whether tables are whole, and rows of `stride` bytes (of bits, where they are `spread`) have the coordinates they want.
fn fit(tables: &Tables<'_>, dim: usize, spread: bool, stride: usize) -> bool {
    let row_coordinates = if spread { stride * 8 } else { stride };
    tables.offsets.first() == Some(&0)
        && tables.offsets.windows(2).all(|w| w[0] <= w[1])
        && (1..=row_coordinates).contains(&dim)
        && tables.fraction_bits <= 7
        && tables.rotation.as_ref().is_none_or(|r| r.len() == dim * dim)
        && tables.centroids.len() == dim * CENTROIDS
        && tables.starts.len() == (tables.offsets.len() - 1) * CENTROIDS
}

/// Multiply-adds of one submission; see `groups::BATCH_WORK`.
const BATCH_WORK: u64 = 1 << 36;
/// Codes in a word of the shader's output.
const CODES_IN_WORD: usize = 4;
/// Vectors that one workgroup takes.
const VECTORS: usize = 16;

impl Gpu {
    /// PQ codes [range.len() x subspaces] of the rows `range`. A coordinate is a byte of the row or, `spread`, 255 times a bit of it.
    ///
    /// # Errors
    /// Tables or a range that do not fit the rows; a device that is lost, refuses, or has no room for the tables and one row.
    pub fn encode(&self, tables: &Tables<'_>, spread: bool, rows: Rows<'_>, range: Range<usize>) -> Result<Vec<u8>, GpuError> {
        let dim = tables.offsets.last().map_or(0, |&end| end as usize);
        if !fit(tables, dim, spread, rows.stride()) || range.start > range.end || range.end > rows.n() {
            return Err(GpuError::Other(format!("a codebook of {dim} coordinates or rows {range:?} do not fit the rows")));
        }
        let width = tables.offsets.len() - 1;
        let words = width.div_ceil(CODES_IN_WORD);
        let mut codes = vec![0; range.len() * width];
        if range.is_empty() {
            return Ok(codes);
        }
        let offsets = self.upload(bytemuck::cast_slice(&tables.offsets))?;
        let rotation = self.upload(tables.rotation.as_ref().map_or(&[], |r| bytemuck::cast_slice(r)))?;
        let centroids = self.upload(bytemuck::cast_slice(tables.centroids))?;
        let starts = self.upload(bytemuck::cast_slice(&tables.starts))?;
        let row_bytes = rows.gathered_bytes() + words as u64 * 4;
        let row_work = dim as u64 * (CENTROIDS + if tables.rotation.is_some() { dim } else { 0 }) as u64;
        let mut packed: Vec<u32> = Vec::new();
        self.in_batches(
            range.len(),
            |first, bytes| first + (bytes / row_bytes).min(BATCH_WORK / row_work) as usize,
            |batch| {
                let (bound, first) = rows.bind_run(range.start + batch.start, batch.len());
                self.launch(&Launch {
                    stage: Stage::Encode,
                    constants: [None, None],
                    bindings: &[
                        bound,
                        Binding::Resident(&offsets),
                        Binding::Resident(&rotation),
                        Binding::Resident(&centroids),
                        Binding::Resident(&starts),
                        Binding::Out((batch.len() * words) as u64 * 4),
                    ],
                    params: &[
                        rows.stride() as u32,
                        first as u32,
                        batch.len() as u32,
                        dim as u32,
                        u32::from(spread),
                        width as u32,
                        tables.fraction_bits,
                        u32::from(tables.rotation.is_some()),
                    ],
                    workgroups: (batch.len().div_ceil(VECTORS) * words) as u64,
                })
            },
            |batch, running| {
                packed.resize(batch.len() * words, 0);
                running.read(self, &mut [bytemuck::cast_slice_mut(&mut packed)])?;
                let out = codes[batch.start * width..batch.end * width].chunks_exact_mut(width);
                for (code, words) in out.zip(packed.chunks_exact(words)) {
                    code.iter_mut().enumerate().for_each(|(s, c)| *c = (words[s / CODES_IN_WORD] >> (s % CODES_IN_WORD * 8)) as u8);
                }
                Ok(())
            },
        )?;
        Ok(codes)
    }
}
