//! The bill before the work: bytes of memory and disk, from the same structures that the build will allocate.

use crate::{
    BuildError, BuildParams, Device, backend::cpu::BATCH_MEMBERS, codebook::auto_pq_bytes, input::CODEC_SAMPLE, nav_params,
    partition::PartitionParams, reservoir::Reservoirs, shuffle,
};
use roxanne_core::{
    budget::Budget,
    build_codes::BuildCodec,
    dataset::Dataset,
    element::ElementType,
    format::{blob::file_bytes, nav::Nav, record::RecordLayout, superblock::FIRST_PAGE_OFFSET},
    metric::Metric,
    pq::WIDEST_TO_ROTATE,
};

/// What the process takes before any vector is read: code, allocator, threads' stacks and scratch.
const BASE_RAM: u64 = 24 << 20;

/// What the driver of a device and its pinned memory take.
const PINNED_RAM: u64 = 512 << 20;

/// Members of clusters that a device cuts and joins at once, where its memory allows.
pub const DEVICE_BATCH: u64 = 16 << 20;
/// What such a member takes meanwhile: copies and keys of it at two levels, three lists of five neighbors, and their offers to both ends.
pub const DEVICE_MEMBER_BYTES: u64 = 640;

/// What a build on a CUDA device takes, of which reservoirs and clusters are the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDevice {
    /// Device memory below which it cannot be built in one shard.
    pub least_bytes: u64,
    /// Device memory beyond which more is of no use.
    pub best_bytes: u64,
    /// Most memory of the host.
    pub peak_ram_bytes: u64,
}

/// Device memory with the smallest and the usual batch, for `n` rows of `stride` bytes, each in `fanout` top clusters.
fn device_memory(n: u64, stride: u64, reservoir: u64, fanout: u64) -> (u64, u64) {
    let row = stride + 4;
    // Choices, keys and values twice, and children while the top level is cut; then reservoirs, members, and counts and places of a merge.
    let top = row + 4 * fanout * 7 + 12;
    let graph = row + 8 * reservoir + 8 + 4 * fanout + 24;
    let resident = n * top.max(graph) + (64 << 20);
    // Clusters are of uneven size: the smallest batch is one of eight times the mean.
    let members = n * fanout;
    let smallest = members.min((members / 1000 * 8).max(100_000));
    let with = |members: u64| resident + members * DEVICE_MEMBER_BYTES * 3 / 2;
    (with(smallest), with(members.min(DEVICE_BATCH.max(smallest))))
}

/// What a build will take and give.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Vectors.
    pub n: u64,
    /// Coordinates.
    pub dim: usize,
    /// Their type.
    pub element: ElementType,
    /// What near means.
    pub metric: Metric,
    /// Bytes of a PQ code.
    pub code_bytes: usize,
    /// Bytes of a node on disk.
    pub record_bytes: usize,
    /// Nodes in a page.
    pub records_per_page: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Bytes of the finished index, counting a rotation of the codebook, which training may find of no use.
    pub index_bytes: u64,
    /// Most memory during the build.
    pub peak_ram_bytes: u64,
    /// Memory to serve it: codes, codebook, navigation graph, a searcher.
    pub serve_ram_bytes: u64,
    /// Should it be built on a CUDA device.
    pub on_device: OnDevice,
    /// Most disk during the build; the index itself, as nothing is written twice.
    pub disk_bytes: u64,
}

/// Plans a build.
///
/// # Errors
/// A shape or parameter that no build can have.
pub fn plan(dataset: &Dataset, metric: Metric, params: &BuildParams, key_bytes: u64) -> Result<Plan, BuildError> {
    let (n, dim, element) = (dataset.n(), dataset.dim(), dataset.element());
    let codec = BuildCodec::learn(element, metric, dim, &[])?;
    let code_bytes = params.pq_bytes.unwrap_or_else(|| auto_pq_bytes(metric, dim));
    let widest = if metric == Metric::Hamming { dim / 8 } else { codec.pq_dim() };
    if code_bytes == 0 || code_bytes > widest {
        return Err(BuildError::PqBytes { asked: code_bytes, widest });
    }
    let layout =
        RecordLayout::new(element, dim, params.max_degree, n).ok_or(BuildError::RecordTooLarge { dim, max_degree: params.max_degree })?;
    let pq_dim = codec.pq_dim() as u64;
    let rotation = if metric == Metric::Manhattan || codec.pq_dim() > WIDEST_TO_ROTATE { 0 } else { 2 * pq_dim * pq_dim };
    let (nav_n, nav_degree) = nav_params(n);
    let blobs = [n * code_bytes as u64, 32 + rotation + 512 * pq_dim, 16 + nav_n * (8 + 4 * nav_degree as u64), key_bytes];
    let index_bytes = FIRST_PAGE_OFFSET + layout.page_count(n) * layout.page_bytes as u64 + blobs.into_iter().map(file_bytes).sum::<u64>();

    let codes = n * codec.stride() as u64;
    let reservoirs = n * Reservoirs::row_bytes(params.reservoir);
    let graph = n * (4 * params.max_degree as u64 + 2);
    // Every vector in ten clusters, as ids; a batch of them cut three times more, with a list of neighbors a row.
    let clusters = n * 10 * 4;
    let batch = 3 * BATCH_MEMBERS.min(n * 10) * (8 * params.leaf_k as u64 + 8);
    let sample = CODEC_SAMPLE.min(n) * 8 * codec.build_dim() as u64;
    let order = codes + graph + n * shuffle::NODE_BYTES + n * code_bytes as u64 + 20 * n;
    let peak = |phases: [u64; 5]| BASE_RAM + phases.into_iter().max().unwrap_or(0);
    let top = 2 * codes + 4 * clusters + 4 * n;
    let peak_ram_bytes = peak([sample, top, codes + reservoirs + 2 * clusters + batch, codes + reservoirs + graph + 6 * n, order]);
    let fanout = PartitionParams::default().fanout[0] as u64;
    let (least_bytes, best_bytes) = device_memory(n, codec.stride() as u64, params.reservoir as u64, fanout);
    // Copies to and from a device pass through pinned memory.
    let on_device_ram = PINNED_RAM + peak([sample, 2 * codes + 12 * n, 0, codes + graph + 6 * n, order]);
    let on_device = OnDevice { least_bytes, best_bytes, peak_ram_bytes: on_device_ram };
    let serve_ram_bytes = BASE_RAM / 2 + blobs[0] + blobs[1] + Nav::ram_bytes(nav_n, nav_degree as u64);
    Ok(Plan {
        n,
        dim,
        element,
        metric,
        code_bytes,
        record_bytes: layout.record_bytes,
        records_per_page: layout.per_page,
        page_bytes: layout.page_bytes,
        index_bytes,
        peak_ram_bytes,
        serve_ram_bytes,
        on_device,
        disk_bytes: index_bytes,
    })
}

impl Plan {
    /// Does it fit, built on `device`? `Device::Auto` must fit the CPU, which it may have to fall to.
    ///
    /// # Errors
    /// What does not, with both numbers.
    pub fn check(&self, budget: &Budget, device: &Device) -> Result<(), BuildError> {
        let (ram, vram) = match device {
            Device::Cuda(_) => (self.on_device.peak_ram_bytes, self.on_device.least_bytes),
            _ => (self.peak_ram_bytes, 0),
        };
        for (what, needed, allowed) in
            [("memory", ram, budget.ram), ("device memory", vram, budget.vram), ("disk", self.disk_bytes, budget.disk)]
        {
            if needed > allowed {
                return Err(BuildError::Budget { what, needed, allowed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_memory_is_counted_beyond_32_bits() {
        let (least, best) = device_memory(1 << 32, 128, 96, 10);
        assert!(least > 960 << 32 && best >= least);
        assert!(device_memory(1, 32, 1, 10).0 < 128 << 20);
    }
}
