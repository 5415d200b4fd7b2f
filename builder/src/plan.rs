//! The bill before the work: bytes of memory and disk, from the same structures that the build will allocate.

use crate::{
    BuildError, BuildParams, Device,
    backend::cpu::BATCH_MEMBERS,
    codebook::auto_pq_bytes,
    input::CODEC_SAMPLE,
    nav_params,
    partition::PartitionParams,
    reservoir::Reservoirs,
    sharded::{BUFFER_BYTES, UNIT_BYTES, node_bytes, segmented_bytes},
    shuffle,
};
use roxanne_core::{
    budget::Budget,
    build_codes::BuildCodec,
    dataset::Dataset,
    element::ElementType,
    format::{blob::file_bytes, keys::KeyList, nav::Nav, superblock::FIRST_PAGE_OFFSET},
    metric::Metric,
    pq::WIDEST_TO_ROTATE,
};

/// What the process takes before any vector is read: code, allocator, threads' stacks and scratch.
const BASE_RAM: u64 = 24 << 20;

/// What the driver of a device and its pinned memory take.
const PINNED_RAM: u64 = 512 << 20;

/// Members of clusters that a device cuts and joins at once, where its memory allows.
pub const DEVICE_BATCH: u64 = 16 << 20;
/// What such a member takes meanwhile, and a quarter: its three places one level below, each with a list of `leaf_k` neighbors that are offered
/// to both ends; or keys and values of it twice, while its cluster is cut.
pub fn device_member_bytes(leaf_k: usize) -> u64 {
    (12 + 72 * leaf_k as u64).max(72) * 5 / 4
}

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
fn device_memory(n: u64, stride: u64, reservoir: u64, fanout: u64, leaf_k: usize) -> (u64, u64) {
    let row = stride + 4;
    // Choices, keys and values twice, and children while the top level is cut; then reservoirs, members, and counts and places of a merge.
    let top = row + 4 * fanout * 7 + 12;
    let graph = row + 8 * reservoir + 8 + 4 * fanout + 24;
    let resident = n * top.max(graph) + (64 << 20);
    // Clusters are of uneven size: the smallest batch is one of eight times the mean.
    let members = n * fanout;
    let smallest = members.min((members / 1000 * 8).max(100_000));
    let with = |members: u64| resident + members * device_member_bytes(leaf_k) * 3 / 2;
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
    /// Most disk during the build: the index itself, and what shards leave for each other.
    pub disk_bytes: u64,
    /// What a build in shards must read and write, beside the input, when every vector is a ghost somewhere: no build reads or writes a byte of
    /// its files twice. 0 where all fits memory.
    pub read_bytes: u64,
    /// See `read_bytes`; the index is in it.
    pub written_bytes: u64,
    /// Shards: 1 where all fits memory, else as few as do.
    pub shards: usize,
    /// The most members that a shard may have within the budget.
    pub shard_members: u64,
}

/// The most shards a build can have.
const MAX_SHARDS: usize = 4096;

/// Bytes of the things that a build is made of, each for one vector.
struct Bytes {
    stride: u64,
    /// A vector that is kept beside its code.
    raw: u64,
    code: u64,
    graph: u64,
    reservoir: u64,
    /// A list of a leaf.
    list: u64,
    /// The codec's sample, in all.
    sample: u64,
    /// What is held from the beginning to the end, in all: the process itself, keys, where the rows of an input of parts lie.
    base: u64,
    /// As a shard leaves it, and the edges of it as a ghost.
    node: u64,
    edges: u64,
}

/// Members that the largest shard may have: every vector twice, and an eighth more than the mean, as its sample may have been wrong.
fn members_of(n: u64, shards: u64) -> u64 {
    ((2 * n).div_ceil(shards) * 9 / 8).min(n)
}

impl Bytes {
    /// Memory to build a graph of `n` vectors and order it.
    fn graph(&self, n: u64) -> u64 {
        // Every vector in ten clusters, as ids; a batch of them cut three times more, with a list of neighbors a row.
        let (codes, clusters) = (n * self.stride, n * 10 * 4);
        let batch = 3 * BATCH_MEMBERS.min(n * 10) * (self.list + 8);
        let top = 2 * codes + 4 * clusters + 4 * n;
        let joined = codes + n * self.reservoir + 2 * clusters + batch;
        top.max(joined).max(codes + n * (self.reservoir + self.graph) + 6 * n).max(self.ordered(n))
    }

    /// Memory to order a graph and encode its vectors.
    fn ordered(&self, n: u64) -> u64 {
        n * (self.stride + self.graph + shuffle::NODE_BYTES + self.code + 20)
    }

    /// Memory of the host when a device makes the graph.
    fn on_device(&self, n: u64) -> u64 {
        self.base + self.sample.max(2 * n * self.stride + 12 * n).max(n * (self.stride + self.graph) + 6 * n).max(self.ordered(n))
    }

    /// Memory to build a shard of `members`, of which all may be core.
    fn shard(&self, members: u64) -> u64 {
        // Row and home of each; afterwards the core's own graph, codes in two orders, vectors and the edges of ghosts.
        let written = 2 * self.graph + 3 * self.stride + self.raw + self.code + shuffle::NODE_BYTES + 40 + 128;
        (self.graph(members) + 8 * members).max(members * written)
    }

    /// Most memory of a build on the CPU.
    fn peak(&self, n: u64, shards: u64, nav_n: u64) -> u64 {
        if shards == 1 {
            return self.base + self.sample.max(self.graph(n));
        }
        // Routing holds a unit of rows several times; later an id a row, nodes and pages, and what came home to a shard.
        let route = 6 * UNIT_BYTES;
        let pages = 4 * n + (32 << 20) + members_of(n, shards) / 2 * self.edges * 2;
        let most = self.sample.max(route).max(self.shard(members_of(n, shards))).max(4 * n + self.graph(nav_n)).max(pages);
        self.base + BUFFER_BYTES + most
    }

    /// Bytes on disk of what routing leaves, of the nodes, and of all else that shards leave.
    fn left(&self, n: u64) -> [u64; 3] {
        let routed =
            segmented_bytes(2 * n, 8 + self.stride as usize) + if self.raw > 0 { segmented_bytes(n, self.raw as usize) } else { 0 };
        let small = segmented_bytes(n, 4) + segmented_bytes(n, self.code as usize) + segmented_bytes(n, self.edges as usize);
        [routed, segmented_bytes(n, self.node as usize), small]
    }

    /// What is written once and read once between passes. Of the edges that may travel home, about half do: 8.7 of 16 on sift1m, as the home
    /// shard knows the others.
    fn moved(&self, n: u64) -> u64 {
        self.left(n).iter().sum::<u64>() - segmented_bytes(n, self.edges as usize) * 7 / 16
    }

    /// Most disk that shards take beside the index. Members go when their shard is built, and nodes when they are on pages.
    fn shards_on_disk(&self, n: u64, shards: u64) -> u64 {
        let [routed, nodes, small] = self.left(n);
        routed.max(nodes + small) + routed / shards
    }
}

/// Plans a build in `shards`, or in as few as the budget allows.
///
/// # Errors
/// A shape or parameter that no build can have.
pub fn plan(
    dataset: &Dataset,
    metric: Metric,
    params: &BuildParams,
    keys: &KeyList,
    shards: Option<usize>,
    budget: &Budget,
) -> Result<Plan, BuildError> {
    let (n, dim, element) = (dataset.n(), dataset.dim(), dataset.element());
    let codec = BuildCodec::learn(element, metric, dim, &[])?;
    let code_bytes = params.pq_bytes.unwrap_or_else(|| auto_pq_bytes(metric, dim));
    let widest = if metric == Metric::Hamming { dim / 8 } else { codec.pq_dim() };
    if code_bytes == 0 || code_bytes > widest {
        return Err(BuildError::PqBytes { asked: code_bytes, widest });
    }
    let layout = params.layout(element, dim, n)?;
    let pq_dim = codec.pq_dim() as u64;
    let rotation = if metric == Metric::Manhattan || codec.pq_dim() > WIDEST_TO_ROTATE { 0 } else { 2 * pq_dim * pq_dim };
    let (nav_n, nav_degree) = nav_params(n);
    let blobs = [n * code_bytes as u64, 32 + rotation + 512 * pq_dim, 16 + nav_n * (8 + 4 * nav_degree as u64), keys.payload_bytes()];
    let index_bytes = FIRST_PAGE_OFFSET + layout.page_count(n) * layout.page_bytes as u64 + blobs.into_iter().map(file_bytes).sum::<u64>();

    let bytes = Bytes {
        stride: codec.stride() as u64,
        raw: if params.records_are_codes(&codec) { 0 } else { layout.row_bytes as u64 },
        code: code_bytes as u64,
        graph: 4 * params.max_degree as u64 + 2,
        reservoir: Reservoirs::row_bytes(params.reservoir),
        list: 8 * params.leaf_k as u64,
        sample: CODEC_SAMPLE.min(n) * 8 * codec.build_dim() as u64,
        base: BASE_RAM + keys.ram_bytes() + dataset.resident_bytes(),
        node: node_bytes(&layout) as u64,
        edges: 12 * params.inbox.max(1) as u64,
    };
    let shards = shards.unwrap_or_else(|| {
        let fits = |&shards: &usize| bytes.peak(n, shards as u64, nav_n) <= budget.ram;
        // As few as fit; where none do, the number that needs least.
        let least = || (1..=MAX_SHARDS).min_by_key(|&shards| bytes.peak(n, shards as u64, nav_n)).unwrap_or(1);
        (1..=MAX_SHARDS).find(fits).unwrap_or_else(least)
    });
    if !(1..=MAX_SHARDS).contains(&shards) {
        return Err(BuildError::Param { name: "shards", value: shards.to_string(), low: 1.0, high: MAX_SHARDS as f64 });
    }
    let peak_ram_bytes = bytes.peak(n, shards as u64, nav_n);
    let shard_members = budget.ram.saturating_sub(bytes.base + BUFFER_BYTES) / bytes.shard(1_000_000).div_ceil(1_000_000);
    let moved = if shards == 1 { 0 } else { bytes.moved(n) };
    let disk_bytes = if shards == 1 { index_bytes } else { index_bytes + bytes.shards_on_disk(n, shards as u64) };
    let fanout = PartitionParams::default().fanout[0] as u64;
    let largest = if shards == 1 { n } else { members_of(n, shards as u64) };
    let (least_bytes, best_bytes) = device_memory(largest, codec.stride() as u64, params.reservoir as u64, fanout, params.leaf_k);
    // Copies to and from a device pass through pinned memory.
    let on_device_ram = PINNED_RAM + bytes.on_device(largest);
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
        disk_bytes,
        read_bytes: moved,
        written_bytes: if shards == 1 { 0 } else { moved + index_bytes },
        shards,
        shard_members,
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
        let (least, best) = device_memory(1 << 32, 128, 96, 10, 5);
        assert!(least > 960 << 32 && best >= least);
        assert!(device_memory(1, 32, 1, 10, 5).0 < 128 << 20);
    }
}
