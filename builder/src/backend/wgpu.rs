//! The wgpu backend: the stages as compute shaders on any Vulkan, Metal or DX12 adapter, within WebGPU's default limits.
//!
//! The host keeps groups, lists and reservoirs, and sends dense batches; rows stay on the device where they fit one binding. What a device
//! cannot do any more, because it is lost or out of memory, the CPU does, with the same result by construction; [`Wgpu::name`] tells so.

pub mod device;
mod encode;
mod groups;
mod launch;
mod merge;
mod offers;
mod prune;
mod rows;
#[cfg(test)]
mod tests;

use super::{Backend, BackendError, BuildCodes, Groups, Heard, Selection, cpu::Cpu, moves};
use device::{Gpu, GpuError};
use offers::{HostReservoirs, Offers};
use rayon::prelude::*;
use rows::{Resident, Rows};
use roxanne_core::{build_codes::BuildCodec, graph::Graph, id::NodeId, pq::Codebook, prune::PruneParams, tile::BuildMetric};
use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Members of clusters that are cut and joined at once.
const BATCH_MEMBERS: u64 = 500_000;
/// Rows that are pruned in one call.
const PRUNE_ROWS: usize = 65_536;

/// See the module.
pub struct Wgpu {
    gpu: Gpu,
    cpu: Cpu,
    /// Why the first stage went to the CPU.
    fallen: Mutex<Option<String>>,
}

/// Rows on the host, and on the device where they fit.
pub struct WgpuRows<'a> {
    codes: &'a BuildCodes,
    resident: Option<Resident>,
}

impl WgpuRows<'_> {
    fn rows(&self) -> Result<Rows<'_>, GpuError> {
        Rows::new(&self.codes.bytes, self.codes.stride, self.resident.as_ref())
    }
}

impl Wgpu {
    /// The adapter that `which` names (see [`Gpu::open`]), and what to fall to.
    ///
    /// # Errors
    /// There is none; the error lists those that are there.
    pub fn open(which: Option<&str>, cpu: Cpu) -> Result<Wgpu, BackendError> {
        let device = which.map_or_else(|| "wgpu".to_string(), |which| format!("wgpu:{which}"));
        let gpu = Gpu::open(which).map_err(|e| BackendError::Unavailable { device, detail: e.to_string() })?;
        Ok(Wgpu { gpu, cpu, fallen: Mutex::new(None) })
    }

    /// The device below.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn fallen(&self) -> MutexGuard<'_, Option<String>> {
        self.fallen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the device gives, or the CPU where the device does not.
    fn either<T>(
        &self,
        on_device: impl FnOnce() -> Result<T, GpuError>,
        on_cpu: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if self.gpu.is_lost() && self.fallen().is_some() {
            return on_cpu();
        }
        on_device().or_else(|error| {
            self.fallen().get_or_insert_with(|| error.to_string());
            on_cpu()
        })
    }
}

impl Backend for Wgpu {
    type Rows<'a> = WgpuRows<'a>;
    type Ids = Vec<u32>;
    type Lists = Vec<u64>;
    type Reservoirs = HostReservoirs;

    fn name(&self) -> String {
        let adapter = format!("wgpu ({})", self.gpu.facts());
        self.fallen().as_ref().map_or(adapter.clone(), |why| format!("{adapter}, and {} after it failed: {why}", self.cpu.name()))
    }

    fn batch_members(&self, _: usize) -> u64 {
        BATCH_MEMBERS
    }

    fn load<'a>(&'a self, codes: &'a BuildCodes) -> Result<WgpuRows<'a>, BackendError> {
        let resident = self.either(|| self.gpu.load(&codes.bytes), || Ok(None))?;
        Ok(WgpuRows { codes, resident })
    }

    fn assign(&self, rows: &WgpuRows<'_>, clusters: &Groups, leaders: &Groups, fanout: usize) -> Result<Vec<u32>, BackendError> {
        let (members, offsets) = (&clusters.members, &clusters.offsets);
        self.either(
            || self.gpu.assign(rows.codes.metric, rows.rows()?, members, offsets, &leaders.members, &leaders.offsets, fanout),
            || self.cpu.assign(&rows.codes, clusters, leaders, fanout),
        )
    }

    fn leaf_knn(&self, rows: &WgpuRows<'_>, leaves: &Groups, k: usize) -> Result<Vec<u64>, BackendError> {
        self.either(
            || self.gpu.leaf_knn(rows.codes.metric, rows.rows()?, &leaves.members, &leaves.offsets, k),
            || self.cpu.leaf_knn(&rows.codes, leaves, k),
        )
    }

    fn reservoirs(&self, n: usize, width: usize) -> Result<HostReservoirs, BackendError> {
        Ok(HostReservoirs::new(n, width))
    }

    fn merge(&self, leaves: &Groups, lists: &Vec<u64>, k: usize, reservoirs: &mut HostReservoirs) -> Result<(), BackendError> {
        let offers = Offers::of(leaves, lists, k, reservoirs);
        // Where the device stopped half-way, offering all of it again gives what was asked for.
        let done = reservoirs.width() <= merge::MERGE_WIDTH && {
            let (width, entries, lengths) = reservoirs.parts();
            let on_device = || self.gpu.merge(width, entries, lengths, &offers.rows, &offers.offsets, &offers.entries).map(|()| true);
            self.either(on_device, || Ok(false))?
        };
        if !done {
            reservoirs.merge(&offers);
        }
        Ok(())
    }

    fn candidates(&self, reservoirs: &HostReservoirs, nodes: &[u32]) -> Result<Vec<Vec<u64>>, BackendError> {
        Ok(nodes.iter().map(|&node| reservoirs.row(node as usize).to_vec()).collect())
    }

    fn prune(
        &self,
        rows: &WgpuRows<'_>,
        reservoirs: &HostReservoirs,
        params: &PruneParams,
        heard: Heard<'_>,
    ) -> Result<Graph, BackendError> {
        let on_device = || {
            let mut graph = Graph::new(reservoirs.n(), params.max_degree);
            for (chunk, (degrees, neighbors)) in graph.chunks_mut(PRUNE_ROWS).into_iter().enumerate() {
                let (width, entries, lengths) = reservoirs.whole();
                let (metric, first) = (rows.codes.metric, chunk * PRUNE_ROWS);
                self.gpu.prune(metric, rows.rows()?, first, entries, lengths, width, params, degrees, neighbors)?;
                heard(degrees.len() as u64);
            }
            Ok(graph)
        };
        let sorted = |row: usize, out: &mut Vec<u64>| {
            out.clear();
            out.extend_from_slice(reservoirs.row(row));
        };
        self.either(on_device, || Ok(self.cpu.prune_rows(rows.codes, reservoirs.n(), params, sorted, heard)))
    }

    fn encode(&self, rows: &WgpuRows<'_>, codec: &BuildCodec, codebook: &Codebook, range: Range<usize>) -> Result<Vec<u8>, BackendError> {
        let spread = codec.build_metric() == BuildMetric::Hamming;
        self.either(
            || self.gpu.encode(&codebook.tables(), spread, rows.rows()?, range.clone()),
            || self.cpu.encode(&rows.codes, codec, codebook, range.clone()),
        )
    }

    fn place(&self, ids: Vec<u32>) -> Result<Vec<u32>, BackendError> {
        Ok(ids)
    }

    fn fetch(&self, ids: &Vec<u32>) -> Result<Vec<u32>, BackendError> {
        Ok(ids.clone())
    }

    fn fetch_lists(&self, lists: &Vec<u64>) -> Result<Vec<u64>, BackendError> {
        Ok(lists.clone())
    }

    fn pick(&self, ids: &Vec<u32>, places: &[u64]) -> Result<Vec<u32>, BackendError> {
        Ok(places.par_iter().map(|&place| ids[place as usize]).collect())
    }

    fn order_by_cell(&self, choice: &Vec<u32>, fanout: usize, tour: &[u32]) -> Result<(Vec<NodeId>, Vec<u32>), BackendError> {
        Ok(moves::order_by_cell(choice, fanout, tour))
    }

    fn children(&self, clusters: &Groups, leader_offsets: &[u64], choice: &Vec<u32>, fanout: usize) -> Result<Groups, BackendError> {
        Ok(moves::children(clusters, leader_offsets, choice, fanout))
    }

    fn select(&self, from: &Groups, selection: &Selection) -> Result<Groups, BackendError> {
        Ok(moves::select(from, selection))
    }
}
