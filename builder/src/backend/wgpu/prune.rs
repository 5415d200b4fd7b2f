//! The stage `prune`: RobustPrune of reservoirs into rows of a graph.

use super::{
    device::{Gpu, GpuError},
    launch::{Binding, Launch, Stage},
    rows::{Rows, metric_number},
};
use roxanne_core::{
    id::NodeId,
    prune::PruneParams,
    tile::{BuildMetric, entry, entry_distance, entry_row},
};

/// The widest reservoir that the shader prunes.
pub(super) const PRUNE_WIDTH: usize = 1024;
/// Rows of one submission: with `PRUNE_WIDTH`, rows of 8 KiB and a slow device still not long.
const BATCH_ROWS: usize = 1 << 16;

/// What a batch prunes, in the shader's terms.
struct Batch {
    /// All candidates, row by row.
    ids: Vec<u32>,
    lengths: Vec<u32>,
}

impl Gpu {
    /// RobustPrune of the reservoirs `first .. first + degrees.len()`, as `roxanne_core::prune`.
    ///
    /// `reservoirs` [n x width] are sorted runs of entries `distance << 32 | id`, `lengths[row]` long, none twice; width is at most
    /// `PRUNE_WIDTH`. `neighbors` [degrees.len() x max_degree] in (distance, id) order, zeros behind the last.
    ///
    /// # Errors
    /// Shapes that do not fit each other, an alpha below 1 or of numbers beyond 16 bits; a device that is lost, refuses, or has no room
    /// for one row's candidates.
    #[allow(clippy::too_many_arguments)]
    pub fn prune(
        &self,
        metric: BuildMetric,
        rows: Rows<'_>,
        first: usize,
        reservoirs: &[u64],
        lengths: &[u32],
        width: usize,
        params: &PruneParams,
        degrees: &mut [u16],
        neighbors: &mut [NodeId],
    ) -> Result<(), GpuError> {
        let (count, max_degree) = (degrees.len(), params.max_degree);
        let shapes = reservoirs.len() == lengths.len() * width && neighbors.len() == count * max_degree && first + count <= lengths.len();
        let bounds = width <= PRUNE_WIDTH && (1..=usize::from(u16::MAX)).contains(&max_degree);
        if !shapes || !bounds || lengths.iter().any(|&l| l as usize > width) {
            return Err(GpuError::Other(format!("{count} rows to prune do not fit {} reservoirs of {width}", lengths.len())));
        }
        let alpha = params.alpha;
        if alpha.denominator == 0 || alpha.numerator < alpha.denominator || alpha.numerator > u32::from(u16::MAX) {
            return Err(GpuError::Other(format!("alpha {} / {} is no ratio from 1 up", alpha.numerator, alpha.denominator)));
        }
        let run = |row: usize| &reservoirs[(first + row) * width..][..lengths[first + row] as usize];
        let gathered = |rows: std::ops::Range<usize>| Batch {
            ids: rows.clone().flat_map(|row| run(row).iter().map(|&e| entry_row(e))).collect(),
            lengths: lengths[first + rows.start..first + rows.end].to_vec(),
        };
        let mut counts = Vec::new();
        self.in_batches(
            count,
            |first, bytes| {
                let mut used = 0;
                let fits = |&row: &usize| {
                    used += run(row).len() as u64 * rows.gathered_bytes() + width as u64 * 8 + max_degree as u64 * 4 + 8;
                    used <= bytes
                };
                first + (first..count.min(first + BATCH_ROWS)).take_while(fits).count()
            },
            |batch| {
                let Batch { ids, lengths } = gathered(batch.clone());
                rows.check(&ids)?;
                let mut called = Vec::new();
                let bound = rows.bind(&ids, &mut called);
                let mut entries = vec![u64::MAX; batch.len() * width];
                let mut names = called.iter();
                for (entries, row) in entries.chunks_exact_mut(width.max(1)).zip(batch.clone()) {
                    for ((e, &old), &name) in entries.iter_mut().zip(run(row)).zip(&mut names) {
                        *e = entry(entry_distance(old), name);
                    }
                }
                self.launch(&Launch {
                    stage: Stage::Prune,
                    constants: [Some(("metric", metric_number(metric))), None],
                    bindings: &[
                        bound,
                        Binding::Bytes(bytemuck::cast_slice(&entries)),
                        Binding::Bytes(bytemuck::cast_slice(&lengths)),
                        Binding::Out(batch.len() as u64 * 4),
                        Binding::Out((batch.len() * max_degree) as u64 * 4),
                    ],
                    params: &[
                        rows.stride() as u32,
                        batch.len() as u32,
                        width as u32,
                        max_degree as u32,
                        alpha.numerator,
                        alpha.denominator,
                    ],
                    workgroups: batch.len() as u64,
                })
            },
            |batch, running| {
                counts.resize(batch.len(), 0u32);
                let out = &mut neighbors[batch.start * max_degree..batch.end * max_degree];
                running.read(self, &mut [bytemuck::cast_slice_mut(&mut counts), bytemuck::cast_slice_mut(out)])?;
                for (degree, &count) in degrees[batch.clone()].iter_mut().zip(&counts) {
                    *degree = count.min(max_degree as u32) as u16;
                }
                if rows.gathered_bytes() > 0 {
                    // Places in the batch become ids again.
                    let Batch { ids, .. } = gathered(batch);
                    for (row, &count) in out.chunks_exact_mut(max_degree).zip(&counts) {
                        for place in &mut row[..(count as usize).min(max_degree)] {
                            *place = NodeId(ids.get(place.index()).copied().unwrap_or_default());
                        }
                    }
                }
                Ok(())
            },
        )
    }
}
