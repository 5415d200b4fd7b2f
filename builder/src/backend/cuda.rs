//! The CUDA backend: everything from the rows to the pruned graph stays in device memory; the host sees sizes, and the graph at the end.
//!
//! This is the host's side of the contract in kernels/README.md: it chooses entries, grids and shared memory, and owns the order of launches.
//! Below it is a [`Driver`]; memory comes from an arena of a size fixed beforehand. Results are equal to the CPU's (tests/tests/conformance).

mod arena;
pub mod driver;
pub mod images;
mod moves;
pub mod nvidia;
mod roofs;
pub mod shape;
pub mod timed;

pub use arena::Buffer;

use super::{Backend, BackendError, BuildCodes, Groups, Heard, Selection};
use crate::plan::{DEVICE_BATCH, device_member_bytes};
use arena::Arena;
use driver::{Address, Arg, Driver, DriverError, Launch};
use rayon::prelude::*;
use roxanne_core::{
    build_codes::BuildCodec,
    graph::Graph,
    id::NodeId,
    pq::{CENTROIDS, Codebook},
    prune::PruneParams,
    tile::BuildMetric,
};
use shape::{ASSIGN, LEAF_KNN, Selector, merge_shape, prune_shape, tiles_of};
use std::{ops::Range, sync::Arc};

/// See the module.
#[derive(Debug)]
pub struct Cuda {
    driver: Arc<dyn Driver>,
    arena: Arc<Arena>,
    /// Members of a batch, where it is not for the free memory to say.
    batch: Option<u64>,
}

/// Rows on the device.
pub struct DeviceRows<'a> {
    codes: &'a BuildCodes,
    bytes: Buffer,
    norms: Buffer,
}

/// Numbers on the device.
#[derive(Debug)]
pub struct DeviceIds {
    buffer: Buffer,
    count: u64,
}

/// Lists on the device.
#[derive(Debug)]
pub struct DeviceLists {
    buffer: Buffer,
    count: u64,
}

/// Reservoirs on the device.
#[derive(Debug)]
pub struct DeviceReservoirs {
    n: u64,
    width: usize,
    entries: Buffer,
    lengths: Buffer,
    thresholds: Buffer,
}

impl Cuda {
    /// A backend on `driver` that uses at most `bytes` of device memory, all taken now.
    ///
    /// # Errors
    /// The device does not have so much.
    pub fn new(driver: Arc<dyn Driver>, bytes: u64) -> Result<Cuda, BackendError> {
        Cuda::open(driver, bytes, false)
    }

    /// The same with every buffer taken from the driver by itself: slow, and what shows compute-sanitizer, or a guard, a write past the end of
    /// one.
    ///
    /// # Errors
    /// See [`Cuda::new`].
    pub fn with_buffers_apart(driver: Arc<dyn Driver>, bytes: u64) -> Result<Cuda, BackendError> {
        Cuda::open(driver, bytes, true)
    }

    fn open(driver: Arc<dyn Driver>, bytes: u64, apart: bool) -> Result<Cuda, BackendError> {
        let error = |e: DriverError| match e {
            DriverError::OutOfMemory { asked } => BackendError::OutOfMemory {
                device: driver.facts().name.clone(),
                asked,
                free: driver.facts().free_bytes,
                budget: driver.facts().memory_bytes,
            },
            other => BackendError::Device { device: driver.facts().name.clone(), detail: other.to_string() },
        };
        let arena = Arena::new(driver.clone(), bytes, apart).map_err(error)?;
        Ok(Cuda { driver, arena, batch: None })
    }

    /// Batches of this many members; those that do not fit the memory are halved.
    pub fn with_batch(self, members: u64) -> Cuda {
        Cuda { batch: Some(members), ..self }
    }

    /// What it runs on.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    fn error(&self, error: DriverError) -> BackendError {
        let device = self.driver.facts().name.clone();
        match error {
            DriverError::OutOfMemory { asked } => {
                BackendError::OutOfMemory { device, asked, free: self.arena.free_bytes(), budget: self.arena.bytes() }
            }
            DriverError::Unavailable(detail) => BackendError::Unavailable { device, detail },
            other => BackendError::Device { device, detail: other.to_string() },
        }
    }

    /// Room for `count` values of type `T`.
    fn room<T>(&self, count: u64) -> Result<Buffer, BackendError> {
        let bytes = count.checked_mul(size_of::<T>() as u64).ok_or(DriverError::OutOfMemory { asked: u64::MAX });
        bytes.and_then(|bytes| self.arena.part(bytes)).map_err(|e| self.error(e))
    }

    /// `values`, on the device.
    fn up<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Buffer, BackendError> {
        let buffer = self.room::<T>(values.len() as u64)?;
        if !values.is_empty() {
            self.driver.upload(buffer.at(), bytemuck::cast_slice(values)).map_err(|e| self.error(e))?;
        }
        Ok(buffer)
    }

    /// `count` values from `at` on.
    fn down<T: bytemuck::Pod>(&self, at: Address, count: u64) -> Result<Vec<T>, BackendError> {
        let mut values = vec![T::zeroed(); count as usize];
        if count > 0 {
            self.driver.download(at, bytemuck::cast_slice_mut(&mut values)).map_err(|e| self.error(e))?;
        }
        Ok(values)
    }

    fn fill(&self, buffer: &Buffer, bytes: u64, byte: u8) -> Result<(), BackendError> {
        self.driver.fill(buffer.at(), bytes, byte).map_err(|e| self.error(e))
    }

    /// Launches `grid` blocks; none is no launch.
    fn launch(&self, stem: &'static str, entry: &str, grid: u64, block: u32, shared_bytes: u32, args: &[Arg]) -> Result<(), BackendError> {
        if grid == 0 {
            return Ok(());
        }
        let grid = shape::grid(grid).ok_or_else(|| BackendError::Device {
            device: self.driver.facts().name.clone(),
            detail: format!("{entry}: {grid} blocks in one launch; this is a bug in the backend"),
        })?;
        self.driver.launch(&Launch { stem, entry, grid, block, shared_bytes, args }).map_err(|e| self.error(e))
    }

    /// Fails when an id names no row: a gather by it would end in an error that the whole process loses the device by.
    fn check_ids(&self, ids: &DeviceIds, n: usize) -> Result<(), BackendError> {
        let wrong = self.up(&[0u64])?;
        let args = [place_of(&ids.buffer), Arg::U64(ids.count), Arg::U64(n as u64), place_of(&wrong)];
        self.launch_each("checks", "check_ids", ids.count, &args)?;
        match self.down::<u64>(wrong.at(), 1)?[0] {
            0 => Ok(()),
            wrong => Err(BackendError::Device {
                device: self.driver.facts().name.clone(),
                detail: format!("{wrong} of {} members name no row; its memory or a kernel is broken", ids.count),
            }),
        }
    }

    /// Launches one thread for each of `count` values, in blocks of 256.
    fn launch_each(&self, stem: &'static str, entry: &str, count: u64, args: &[Arg]) -> Result<(), BackendError> {
        self.launch(stem, entry, count.div_ceil(256), 256, 0, args)
    }
}

/// A buffer as an argument.
fn place_of(buffer: &Buffer) -> Arg {
    Arg::Address(buffer.at())
}

fn metric_name(metric: BuildMetric) -> &'static str {
    match metric {
        BuildMetric::L2 => "l2",
        BuildMetric::Manhattan => "l1",
        BuildMetric::Hamming => "hamming",
    }
}

impl Backend for Cuda {
    type Rows<'a> = DeviceRows<'a>;
    type Ids = DeviceIds;
    type Lists = DeviceLists;
    type Reservoirs = DeviceReservoirs;

    fn name(&self) -> String {
        let facts = self.driver.facts();
        format!("cuda ({}, driver {})", facts.name, facts.driver)
    }

    fn leaves_the_host_free(&self) -> bool {
        true
    }

    fn batch_members(&self, leaf_k: usize) -> u64 {
        // A third is left for pieces that lie between parts in use.
        self.batch.unwrap_or((self.arena.free_bytes() / 3 * 2 / device_member_bytes(leaf_k)).clamp(1, DEVICE_BATCH))
    }

    fn wait(&self) -> Result<(), BackendError> {
        self.driver.synchronize().map_err(|e| self.error(e))
    }

    fn load<'a>(&'a self, codes: &'a BuildCodes) -> Result<DeviceRows<'a>, BackendError> {
        let n = codes.n() as u64;
        let (bytes, norms) = (self.up(&codes.bytes)?, self.room::<u32>(n)?);
        let args = [place_of(&bytes), Arg::U32(codes.stride as u32), Arg::U64(n), place_of(&norms)];
        self.launch("norms", "norms", n.div_ceil(shape::NORMS_ROWS), 256, 0, &args)?;
        Ok(DeviceRows { codes, bytes, norms })
    }

    fn assign(
        &self,
        rows: &DeviceRows<'_>,
        clusters: &Groups<DeviceIds>,
        leaders: &Groups<DeviceIds>,
        fanout: usize,
    ) -> Result<DeviceIds, BackendError> {
        self.check_ids(&clusters.members, rows.codes.n())?;
        let nearest = DeviceIds { buffer: self.room::<u32>(clusters.total() * fanout as u64)?, count: clusters.total() * fanout as u64 };
        let (offsets, leader_offsets) = (self.up(&clusters.offsets)?, self.up(&leaders.offsets)?);
        let widest = (0..leaders.len()).map(|c| leaders.size(c)).max().unwrap_or(0);
        let selector = Selector::new(&ASSIGN, rows.codes.metric, rows.codes.stride, widest, fanout);
        let tiles = tiles_of(&clusters.offsets);
        let tiles_at = self.up(&tiles)?;
        let args = [
            place_of(&rows.bytes),
            place_of(&rows.norms),
            Arg::U32(rows.codes.stride as u32),
            place_of(&clusters.members.buffer),
            place_of(&offsets),
            place_of(&leaders.members.buffer),
            place_of(&leader_offsets),
            place_of(&tiles_at),
            Arg::U32(fanout as u32),
            Arg::U32(selector.ordinal_bits),
            place_of(&nearest.buffer),
        ];
        self.launch("assign", &selector.entry, tiles.len() as u64, 256, 0, &args)?;
        Ok(nearest)
    }

    fn leaf_knn(&self, rows: &DeviceRows<'_>, leaves: &Groups<DeviceIds>, k: usize) -> Result<DeviceLists, BackendError> {
        self.check_ids(&leaves.members, rows.codes.n())?;
        let lists = DeviceLists { buffer: self.room::<u64>(leaves.total() * k as u64)?, count: leaves.total() * k as u64 };
        let offsets = self.up(&leaves.offsets)?;
        let widest = (0..leaves.len()).map(|leaf| leaves.size(leaf)).max().unwrap_or(0);
        let selector = Selector::new(&LEAF_KNN, rows.codes.metric, rows.codes.stride, widest, k);
        let tiles = tiles_of(&leaves.offsets);
        let tiles_at = self.up(&tiles)?;
        let args = [
            place_of(&rows.bytes),
            place_of(&rows.norms),
            Arg::U32(rows.codes.stride as u32),
            place_of(&leaves.members.buffer),
            place_of(&offsets),
            place_of(&tiles_at),
            Arg::U32(k as u32),
            Arg::U32(selector.ordinal_bits),
            place_of(&lists.buffer),
        ];
        self.launch("leaf_knn", &selector.entry, tiles.len() as u64, 256, 0, &args)?;
        Ok(lists)
    }

    fn reservoirs(&self, n: usize, width: usize) -> Result<DeviceReservoirs, BackendError> {
        let n = n as u64;
        let reservoirs = DeviceReservoirs {
            n,
            width,
            entries: self.room::<u64>(n.saturating_mul(width as u64))?,
            lengths: self.room::<u32>(n)?,
            thresholds: self.room::<u32>(n)?,
        };
        self.fill(&reservoirs.lengths, n * 4, 0)?;
        self.fill(&reservoirs.thresholds, n * 4, 0xFF)?;
        Ok(reservoirs)
    }

    fn merge(
        &self,
        leaves: &Groups<DeviceIds>,
        lists: &DeviceLists,
        k: usize,
        reservoirs: &mut DeviceReservoirs,
    ) -> Result<(), BackendError> {
        let (n, width) = (reservoirs.n, reservoirs.width);
        let (offsets, counts) = (self.up(&leaves.offsets)?, self.room::<u32>(n)?);
        self.fill(&counts, n * 4, 0)?;
        let offers_of = |last: &[Arg]| -> Vec<Arg> {
            let first = [&leaves.members.buffer, &offsets, &lists.buffer].map(place_of);
            [&first[..], &[Arg::U32(k as u32), place_of(&reservoirs.thresholds)], last].concat()
        };
        self.launch("merge", "merge_count", leaves.len() as u64, 128, 0, &offers_of(&[place_of(&counts)]))?;
        let starts = self.scan(&counts, n)?;
        drop(counts);
        let total = self.down::<u64>(starts.at() + n * 8, 1)?[0];
        let (cursors, offers) = (self.room::<u64>(n)?, self.room::<u64>(total)?);
        self.driver.copy(cursors.at(), starts.at(), n * 8).map_err(|e| self.error(e))?;
        let args = offers_of(&[place_of(&cursors), place_of(&offers)]);
        self.launch("merge", "merge_scatter", leaves.len() as u64, 128, 0, &args)?;
        drop(cursors);
        let (warps, shared_bytes) = merge_shape(width);
        let args = [
            Arg::U64(n),
            place_of(&starts),
            place_of(&offers),
            Arg::U32(width as u32),
            place_of(&reservoirs.entries),
            place_of(&reservoirs.lengths),
            place_of(&reservoirs.thresholds),
        ];
        self.launch("merge", "merge", n.div_ceil(32 * u64::from(warps)), 32 * warps, shared_bytes, &args)
    }

    fn candidates(&self, reservoirs: &DeviceReservoirs, nodes: &[u32]) -> Result<Vec<Vec<u64>>, BackendError> {
        let width = reservoirs.width as u64;
        // Entries move as pairs of 32-bit numbers.
        let runs: Vec<u64> =
            nodes.iter().zip(0u64..).flat_map(|(&node, at)| [u64::from(node) * width * 2, at * width * 2, width * 2]).collect();
        let (gathered, runs) = (self.room::<u64>(nodes.len() as u64 * width)?, self.up(&runs)?);
        let args = [place_of(&reservoirs.entries), place_of(&runs), place_of(&gathered)];
        self.launch("groups", "copy_runs", nodes.len() as u64, 256, 0, &args)?;
        let places: Vec<u64> = nodes.iter().map(|&node| u64::from(node)).collect();
        let lengths = self.pick_from(&reservoirs.lengths, &places)?;
        let lengths = self.down::<u32>(lengths.at(), places.len() as u64)?;
        let entries = self.down::<u64>(gathered.at(), nodes.len() as u64 * width)?;
        let rows = entries.chunks_exact(width as usize).zip(&lengths);
        Ok(rows.map(|(row, &length)| row[..(length as usize).min(row.len())].to_vec()).collect())
    }

    fn prune(
        &self,
        rows: &DeviceRows<'_>,
        reservoirs: &DeviceReservoirs,
        params: &PruneParams,
        heard: Heard<'_>,
    ) -> Result<Graph, BackendError> {
        let (n, degree) = (reservoirs.n as usize, params.max_degree);
        let mut graph = Graph::new(n, degree);
        let shape = prune_shape(reservoirs.width, rows.codes.stride, self.driver.facts().shared_bytes);
        let entry = format!("prune_{}", metric_name(rows.codes.metric));
        // One download a chunk: degrees, then neighbors.
        let chunk = (self.driver.slot_bytes() / (4 + 4 * degree)).clamp(1, n.max(1));
        let halves = [self.room::<u32>((chunk * (1 + degree)) as u64)?, self.room::<u32>((chunk * (1 + degree)) as u64)?];
        let mut staged = vec![0u32; chunk * (1 + degree)];
        let mut under_way = None;
        for (at, target) in graph.chunks_mut(chunk).into_iter().enumerate() {
            let (half, count) = (&halves[at % 2], target.0.len());
            let args = [
                place_of(&rows.bytes),
                Arg::U32(rows.codes.stride as u32),
                Arg::U64((at * chunk) as u64),
                place_of(&reservoirs.entries),
                place_of(&reservoirs.lengths),
                Arg::U32(reservoirs.width as u32),
                Arg::U32(degree as u32),
                Arg::U32(params.alpha.numerator),
                Arg::U32(params.alpha.denominator),
                Arg::U32(u32::from(shape.staged)),
                place_of(half),
                Arg::Address(half.at() + 4 * count as u64),
            ];
            self.launch("prune", &entry, count as u64, 128, shape.shared_bytes, &args)?;
            let ticket = self.driver.start_download(half.at(), count * (4 + 4 * degree)).map_err(|e| self.error(e))?;
            heard(count as u64);
            if let Some((ticket, target)) = under_way.replace((ticket, target)) {
                self.finish_rows(ticket, target, degree, n, &mut staged)?;
            }
        }
        if let Some((ticket, target)) = under_way {
            self.finish_rows(ticket, target, degree, n, &mut staged)?;
        }
        Ok(graph)
    }

    fn encode(&self, rows: &DeviceRows<'_>, codec: &BuildCodec, codebook: &Codebook, range: Range<usize>) -> Result<Vec<u8>, BackendError> {
        let (count, subspaces) = (range.len() as u64, codebook.subspaces() as u64);
        let tables = codebook.tables();
        let offsets = self.up(&tables.offsets)?;
        let rotation = tables.rotation.as_ref().map(|entries| self.up(entries)).transpose()?;
        debug_assert_eq!(tables.centroids.len(), codebook.dim() * CENTROIDS);
        let (centroids, starts, codes) = (self.up(tables.centroids)?, self.up(&tables.starts)?, self.room::<u8>(count * subspaces)?);
        let args = [
            place_of(&rows.bytes),
            Arg::U32(rows.codes.stride as u32),
            Arg::U64(range.start as u64),
            Arg::U32(count as u32),
            Arg::U32(codebook.dim() as u32),
            Arg::U32(u32::from(codec.build_metric() == BuildMetric::Hamming)),
            Arg::U32(subspaces as u32),
            place_of(&offsets),
            Arg::U32(tables.fraction_bits),
            rotation.as_ref().map_or(Arg::Address(0), place_of),
            place_of(&centroids),
            place_of(&starts),
            place_of(&codes),
        ];
        self.launch("encode", "encode", count.div_ceil(shape::ENCODE_ROWS), 256, 0, &args)?;
        self.down(codes.at(), count * subspaces)
    }

    fn place(&self, ids: Vec<u32>) -> Result<DeviceIds, BackendError> {
        Ok(DeviceIds { buffer: self.up(&ids)?, count: ids.len() as u64 })
    }

    fn fetch(&self, ids: &DeviceIds) -> Result<Vec<u32>, BackendError> {
        self.down(ids.buffer.at(), ids.count)
    }

    fn fetch_lists(&self, lists: &DeviceLists) -> Result<Vec<u64>, BackendError> {
        self.down(lists.buffer.at(), lists.count)
    }

    fn pick(&self, ids: &DeviceIds, places: &[u64]) -> Result<DeviceIds, BackendError> {
        Ok(DeviceIds { buffer: self.pick_from(&ids.buffer, places)?, count: places.len() as u64 })
    }

    fn order_by_cell(&self, choice: &DeviceIds, fanout: usize, tour: &[u32]) -> Result<(Vec<NodeId>, DeviceIds), BackendError> {
        self.ordered(choice, fanout, tour)
    }

    fn children(
        &self,
        clusters: &Groups<DeviceIds>,
        leader_offsets: &[u64],
        choice: &DeviceIds,
        fanout: usize,
    ) -> Result<Groups<DeviceIds>, BackendError> {
        self.by_leader(clusters, leader_offsets, choice, fanout)
    }

    fn select(&self, from: &Groups<DeviceIds>, selection: &Selection) -> Result<Groups<DeviceIds>, BackendError> {
        self.selected(from, selection)
    }
}

impl Cuda {
    /// Ends a download of pruned rows and writes them into the graph, after a look at each: a device with broken memory must not make an
    /// index that points nowhere.
    fn finish_rows(
        &self,
        ticket: driver::Ticket,
        (degrees, neighbors): (&mut [u16], &mut [NodeId]),
        max_degree: usize,
        n: usize,
        staged: &mut [u32],
    ) -> Result<(), BackendError> {
        let staged = &mut staged[..degrees.len() * (1 + max_degree)];
        self.driver.finish_download(ticket, bytemuck::cast_slice_mut(staged)).map_err(|e| self.error(e))?;
        let (found, ids) = staged.split_at(degrees.len());
        if found.iter().any(|&d| d as usize > max_degree) || ids.par_iter().any(|&id| id as usize >= n) {
            let detail = "pruned rows are out of range; its memory or a kernel is broken".to_string();
            return Err(BackendError::Device { device: self.driver.facts().name.clone(), detail });
        }
        degrees.iter_mut().zip(found).for_each(|(degree, &found)| *degree = found as u16);
        neighbors.par_iter_mut().zip(ids).for_each(|(neighbor, &id)| *neighbor = NodeId(id));
        Ok(())
    }
}
