//! The stage `merge`: offers into reservoirs. Rows that got offers travel to the device and back.

use super::{
    device::{Gpu, GpuError},
    launch::{Binding, Launch, Stage},
};
use std::cell::RefCell;

/// The widest reservoir that the shader merges.
pub(super) const MERGE_WIDTH: usize = 512;
/// Least `half` of shaders/merge.wgsl.
const LEAST_HALF: usize = 32;

impl Gpu {
    /// The nearest `width` (1 to `MERGE_WIDTH`) distinct entries of each row's run and its offers, sorted.
    ///
    /// `reservoirs` [n x width] are sorted runs, `lengths[row]` long. `rows` are the rows with offers, rising; `rows[i]` gets
    /// `offers[offer_offsets[i] .. offer_offsets[i + 1]]`, entries in any order. What lies behind a run is left as it is. On an error some
    /// rows may be merged and others not: merging the same offers again, here or elsewhere, gives what was asked for.
    ///
    /// # Errors
    /// Shapes that do not fit each other; a device that is lost, refuses, or has no room for one row's offers.
    pub fn merge(
        &self,
        width: usize,
        reservoirs: &mut [u64],
        lengths: &mut [u32],
        rows: &[u32],
        offer_offsets: &[u64],
        offers: &[u64],
    ) -> Result<(), GpuError> {
        if !(1..=MERGE_WIDTH).contains(&width) {
            return Err(GpuError::Other(format!("reservoirs of {width}: this device merges 1 to {MERGE_WIDTH}; use the cpu")));
        }
        let rises = offer_offsets.windows(2).all(|w| w[0] <= w[1]) && rows.windows(2).all(|w| w[0] < w[1]);
        let ends = offer_offsets.first() == Some(&0) && offer_offsets.last() == Some(&(offers.len() as u64));
        let shapes = reservoirs.len() == lengths.len() * width && offer_offsets.len() == rows.len() + 1;
        let inside = rows.last().is_none_or(|&row| (row as usize) < lengths.len()) && lengths.iter().all(|&l| l as usize <= width);
        if !(rises && ends && shapes && inside) {
            return Err(GpuError::Other(format!("{} offers to {} rows do not fit {} reservoirs", offers.len(), rows.len(), lengths.len())));
        }
        // A batch is read while the next one, of other rows, has been gathered already.
        let state = RefCell::new((reservoirs, lengths));
        self.in_batches(
            rows.len(),
            |first, bytes| {
                let start = offer_offsets[first];
                let cost = |end: usize| (offer_offsets[end] - start) * 8 + (end - first) as u64 * (width as u64 * 8 + 8);
                first + (first + 1..=rows.len()).take_while(|&end| cost(end) <= bytes).count()
            },
            |batch| {
                let (reservoirs, lengths) = &*state.borrow();
                let start = offer_offsets[batch.start];
                let mut runs = Vec::with_capacity(batch.len() * width);
                for &row in &rows[batch.clone()] {
                    runs.extend_from_slice(&reservoirs[row as usize * width..][..width]);
                }
                let run_lengths: Vec<u32> = rows[batch.clone()].iter().map(|&row| lengths[row as usize]).collect();
                // A batch of more than 2^32 offers is too large to bind anyway.
                let offsets: Vec<u32> = offer_offsets[batch.start..=batch.end].iter().map(|o| (o - start) as u32).collect();
                let offers = &offers[start as usize..offer_offsets[batch.end] as usize];
                let half = width.next_power_of_two().max(LEAST_HALF);
                self.launch(&Launch {
                    stage: Stage::Merge,
                    constants: [Some(("half", half as u32)), None],
                    bindings: &[
                        Binding::Bytes(bytemuck::cast_slice(&offsets)),
                        Binding::Bytes(bytemuck::cast_slice(offers)),
                        Binding::InOut(bytemuck::cast_slice(&runs)),
                        Binding::InOut(bytemuck::cast_slice(&run_lengths)),
                    ],
                    params: &[batch.len() as u32, width as u32],
                    workgroups: batch.len() as u64,
                })
            },
            |batch, running| {
                let (mut runs, mut run_lengths) = (vec![0u64; batch.len() * width], vec![0u32; batch.len()]);
                running.read(self, &mut [bytemuck::cast_slice_mut(&mut runs), bytemuck::cast_slice_mut(&mut run_lengths)])?;
                let (reservoirs, lengths) = &mut *state.borrow_mut();
                for ((&row, run), &length) in rows[batch].iter().zip(runs.chunks_exact(width)).zip(&run_lengths) {
                    let length = length.min(width as u32);
                    lengths[row as usize] = length;
                    reservoirs[row as usize * width..][..length as usize].copy_from_slice(&run[..length as usize]);
                }
                Ok(())
            },
        )
    }
}
