//! One dispatch of one stage: its pipeline, buffers, workgroups, and the way back.
//!
//! A launch is described by its bindings in the order of the shader's; the last, its params, is added here. Launching returns at once, so
//! that the host can gather the next batch while the device computes; [`Running::read`] waits.

use super::device::{Gpu, GpuError};
use ::wgpu::{
    BindGroupDescriptor, BindGroupEntry, Buffer, BufferDescriptor, BufferUsages, CommandEncoderDescriptor, ComputePassDescriptor,
    ComputePipeline, ComputePipelineDescriptor, MapMode, PipelineCompilationOptions, ShaderModuleDescriptor, ShaderSource, SubmissionIndex,
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, PoisonError, mpsc},
};

const METRIC: &str = include_str!("../../../../shaders/metric.wgslh");
const PRODUCT: &str = include_str!("../../../../shaders/product.wgslh");

/// The shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Assign,
    LeafKnn,
    Merge,
    Prune,
    Encode,
}

impl Stage {
    /// The stem, which is also the entry point.
    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::Assign => "assign",
            Stage::LeafKnn => "leaf_knn",
            Stage::Merge => "merge",
            Stage::Prune => "prune",
            Stage::Encode => "encode",
        }
    }

    fn source(self) -> String {
        match self {
            Stage::Assign => [METRIC, PRODUCT, include_str!("../../../../shaders/assign.wgsl")].concat(),
            Stage::LeafKnn => [METRIC, PRODUCT, include_str!("../../../../shaders/leaf_knn.wgsl")].concat(),
            Stage::Merge => include_str!("../../../../shaders/merge.wgsl").into(),
            Stage::Prune => [METRIC, include_str!("../../../../shaders/prune.wgsl")].concat(),
            Stage::Encode => include_str!("../../../../shaders/encode.wgsl").into(),
        }
    }
}

/// Values of a shader's `override` constants: at most two.
pub(super) type Constants = [Option<(&'static str, u32)>; 2];

/// Pipelines that were made so far.
#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<(Stage, Constants), ComputePipeline>>);

/// A storage buffer of a launch.
pub(super) enum Binding<'a> {
    /// In: these bytes.
    Bytes(&'a [u8]),
    /// In: a buffer that is on the device already.
    Resident(&'a Buffer),
    /// In: rows of `stride` bytes, one after the other.
    Gather { rows: &'a [u8], stride: usize, ids: &'a [u32] },
    /// Out: so many bytes.
    Out(u64),
    /// In and out.
    InOut(&'a [u8]),
}

impl Binding<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Binding::Bytes(bytes) | Binding::InOut(bytes) => bytes.len() as u64,
            Binding::Gather { stride, ids, .. } => ids.len() as u64 * *stride as u64,
            Binding::Out(bytes) => *bytes,
            Binding::Resident(_) => 0,
        }
    }

    fn is_out(&self) -> bool {
        matches!(self, Binding::Out(_) | Binding::InOut(_))
    }
}

/// A dispatch.
pub(super) struct Launch<'a> {
    pub(super) stage: Stage,
    pub(super) constants: Constants,
    pub(super) bindings: &'a [Binding<'a>],
    pub(super) params: &'a [u32],
    pub(super) workgroups: u64,
}

/// Buffers are whole vectors of four words, and none is empty.
fn buffer_bytes(bytes: u64) -> u64 {
    bytes.next_multiple_of(16).max(16)
}

/// Workgroups in x and y: at least as many as asked for.
fn grid(workgroups: u64) -> Option<(u32, u32)> {
    const MOST: u64 = 65_535;
    let y = workgroups.div_ceil(MOST).max(1);
    (y <= MOST).then(|| (workgroups.div_ceil(y) as u32, y as u32))
}

/// A launch whose results are not read yet.
pub(super) struct Running {
    /// All outputs, and where each lies.
    results: Buffer,
    outputs: Vec<Range<u64>>,
    submission: SubmissionIndex,
    mapped: mpsc::Receiver<Result<(), ::wgpu::BufferAsyncError>>,
}

impl Running {
    /// Waits, and copies each output to its place: `into` are as many as there are outputs, each of the output's length.
    pub(super) fn read(self, gpu: &Gpu, into: &mut [&mut [u8]]) -> Result<(), GpuError> {
        gpu.wait(self.submission)?;
        match self.mapped.try_recv() {
            Ok(Ok(())) => {}
            _ => {
                gpu.check()?;
                return Err(GpuError::Other(format!("{}: results cannot be read", gpu.facts())));
            }
        }
        let refused = |e: ::wgpu::MapRangeError| GpuError::Other(format!("{}: results cannot be read: {e:?}", gpu.facts()));
        let view = self.results.slice(..).get_mapped_range().map_err(refused)?;
        for (range, into) in self.outputs.iter().zip(into) {
            into.copy_from_slice(&view[range.start as usize..range.end as usize]);
        }
        Ok(())
    }
}

impl Gpu {
    /// Starts a launch.
    pub(super) fn launch(&self, launch: &Launch<'_>) -> Result<Running, GpuError> {
        let results_bytes: u64 = launch.bindings.iter().filter(|b| b.is_out()).map(Binding::bytes).sum();
        let all_bytes = launch.bindings.iter().map(Binding::bytes).sum::<u64>() + results_bytes;
        let largest = launch.bindings.iter().map(Binding::bytes).max().unwrap_or(0).max(results_bytes);
        // A binding that is too large is mended as too little memory is: by a smaller batch.
        if all_bytes > self.room || buffer_bytes(largest) > self.buffer_limit {
            return Err(GpuError::OutOfMemory);
        }
        let Some((x, y)) = grid(launch.workgroups) else { return Err(GpuError::OutOfMemory) };
        let pipeline = self.pipeline(launch.stage, launch.constants)?;
        let buffers = self.guarded(|| self.buffers(launch))??;
        let results = self.guarded(|| self.buffer(results_bytes, BufferUsages::COPY_DST | BufferUsages::MAP_READ))?;
        let mut outputs = Vec::new();
        let (submission, mapped) = self.guarded(|| {
            let bound = launch.bindings.iter().zip(&buffers).map(|(binding, own)| match binding {
                Binding::Resident(buffer) => buffer,
                _ => own.as_ref().unwrap_or(&results),
            });
            let params = buffers.last().and_then(Option::as_ref).unwrap_or(&results);
            let entries: Vec<BindGroupEntry<'_>> = bound
                .chain([params])
                .enumerate()
                .map(|(i, buffer)| BindGroupEntry { binding: i as u32, resource: buffer.as_entire_binding() })
                .collect();
            let layout = pipeline.get_bind_group_layout(0);
            let group = self.device.create_bind_group(&BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
            let mut commands = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
            {
                let mut pass = commands.begin_compute_pass(&ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(x, y, 1);
            }
            let mut at = 0;
            for (binding, buffer) in launch.bindings.iter().zip(&buffers).filter(|(b, _)| b.is_out()) {
                let bytes = binding.bytes();
                if let Some(buffer) = buffer.as_ref().filter(|_| bytes > 0) {
                    commands.copy_buffer_to_buffer(buffer, 0, &results, at, bytes);
                }
                outputs.push(at..at + bytes);
                at += bytes;
            }
            let submission = self.queue.submit([commands.finish()]);
            let (send, mapped) = mpsc::channel();
            results.slice(..).map_async(MapMode::Read, move |result| {
                // A reader that is gone has failed already.
                let _ = send.send(result);
            });
            (submission, mapped)
        })?;
        Ok(Running { results, outputs, submission, mapped })
    }

    /// A buffer with these bytes, to be bound by many launches.
    pub(super) fn upload(&self, bytes: &[u8]) -> Result<Buffer, GpuError> {
        if buffer_bytes(bytes.len() as u64) > self.buffer_limit {
            return Err(GpuError::OutOfMemory);
        }
        let buffer = self.guarded(|| self.buffer(bytes.len() as u64, BufferUsages::STORAGE | BufferUsages::COPY_DST))?;
        // In parts, because the driver keeps a second copy of what is on its way.
        let part = self.batch_bytes.next_multiple_of(16) as usize;
        for (i, part_bytes) in bytes.chunks(part).enumerate() {
            let submission = self.guarded(|| {
                self.write(&buffer, (i * part) as u64, part_bytes);
                self.queue.submit([])
            })?;
            self.wait(submission)?;
        }
        Ok(buffer)
    }

    /// The buffers of a launch and, last, that of its params; `None` for those that are there already.
    fn buffers(&self, launch: &Launch<'_>) -> Result<Vec<Option<Buffer>>, GpuError> {
        let mut buffers = Vec::with_capacity(launch.bindings.len() + 1);
        for binding in launch.bindings {
            let storage = |usage| self.buffer(binding.bytes(), BufferUsages::STORAGE | usage);
            buffers.push(match binding {
                Binding::Resident(_) => None,
                Binding::Out(_) => Some(storage(BufferUsages::COPY_SRC)),
                Binding::Bytes(bytes) => {
                    let buffer = storage(BufferUsages::COPY_DST);
                    self.write(&buffer, 0, bytes);
                    Some(buffer)
                }
                Binding::InOut(bytes) => {
                    let buffer = storage(BufferUsages::COPY_DST | BufferUsages::COPY_SRC);
                    self.write(&buffer, 0, bytes);
                    Some(buffer)
                }
                Binding::Gather { rows, stride, ids } => {
                    let buffer = storage(BufferUsages::COPY_DST);
                    self.gather(&buffer, rows, *stride, ids)?;
                    Some(buffer)
                }
            });
        }
        let params = self.buffer(launch.params.len() as u64 * 4, BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        self.write(&params, 0, bytemuck::cast_slice(launch.params));
        buffers.push(Some(params));
        Ok(buffers)
    }

    fn buffer(&self, bytes: u64, usage: BufferUsages) -> Buffer {
        self.device.create_buffer(&BufferDescriptor { label: None, size: buffer_bytes(bytes), usage, mapped_at_creation: false })
    }

    /// Queues a copy of `bytes` to `buffer` at `offset`, a multiple of 4. Writes are whole words: a last part is filled up with zeros.
    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) {
        let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
        if !words.is_empty() {
            self.queue.write_buffer(buffer, offset, words);
        }
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            self.queue.write_buffer(buffer, offset + words.len() as u64, &last);
        }
    }

    /// Queues copies of the rows `ids`, straight into the memory that the driver copies from.
    fn gather(&self, buffer: &Buffer, rows: &[u8], stride: usize, ids: &[u32]) -> Result<(), GpuError> {
        let Some(bytes) = ::wgpu::BufferSize::new(ids.len() as u64 * stride as u64) else { return Ok(()) };
        // `None` is an error that the scope around this reports.
        let Some(mut staged) = self.queue.write_buffer_with(buffer, 0, bytes) else { return Ok(()) };
        for (at, &id) in ids.iter().enumerate() {
            let row = id as usize * stride;
            let row = rows.get(row..row + stride).ok_or_else(|| beyond(id, rows.len() / stride))?;
            staged.slice(at * stride..(at + 1) * stride).copy_from_slice(row);
        }
        Ok(())
    }

    fn pipeline(&self, stage: Stage, constants: Constants) -> Result<ComputePipeline, GpuError> {
        let mut made = self.pipelines.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(&(stage, constants)) {
            return Ok(pipeline.clone());
        }
        let values: Vec<(&str, f64)> = constants.iter().flatten().map(|&(name, value)| (name, f64::from(value))).collect();
        let pipeline = self.guarded(|| {
            let source = ShaderSource::Wgsl(stage.source().into());
            let module = self.device.create_shader_module(ShaderModuleDescriptor { label: Some(stage.name()), source });
            self.device.create_compute_pipeline(&ComputePipelineDescriptor {
                label: Some(stage.name()),
                layout: None,
                module: &module,
                entry_point: Some(stage.name()),
                // Every shader writes its workgroup memory before it reads it.
                compilation_options: PipelineCompilationOptions { constants: &values, zero_initialize_workgroup_memory: false },
                cache: None,
            })
        })?;
        made.insert((stage, constants), pipeline.clone());
        Ok(pipeline)
    }

    /// Cuts `0 .. count` into batches and keeps two on the way: while the device computes one, the host gathers the next.
    ///
    /// `end_of(start, bytes)` is where a batch from `start` ends that aims at `bytes` (at least `start + 1`). `start` launches a batch,
    /// `read` reads it, in order. Out of memory, a batch is halved until it is one unit; then it is refused.
    pub(super) fn in_batches(
        &self,
        count: usize,
        end_of: impl Fn(usize, u64) -> usize,
        start: impl Fn(Range<usize>) -> Result<Running, GpuError>,
        mut read: impl FnMut(Range<usize>, Running) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let (mut next, mut bytes) = (0, self.batch_bytes);
        let mut before: Option<(Range<usize>, Running)> = None;
        while next < count {
            let batch = next..end_of(next, bytes).clamp(next + 1, count);
            match start(batch.clone()) {
                Ok(running) => {
                    next = batch.end;
                    if let Some((batch, running)) = before.replace((batch, running)) {
                        read(batch, running)?;
                    }
                }
                Err(GpuError::OutOfMemory) if batch.len() > 1 || before.is_some() => {
                    // The memory of the batch before comes free once that is read.
                    if let Some((batch, running)) = before.take() {
                        read(batch, running)?;
                    }
                    bytes /= 2;
                }
                Err(error) => return Err(error),
            }
        }
        before.map_or(Ok(()), |(batch, running)| read(batch, running))
    }
}

/// The error of a row that does not exist.
pub(super) fn beyond(id: u32, n: usize) -> GpuError {
    GpuError::Other(format!("row {id} was asked for, of {n}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_all_workgroups_within_the_limits() {
        for workgroups in [0, 1, 65_535, 65_536, 1_000_003, 65_535 * 65_535] {
            let (x, y) = grid(workgroups).unwrap();
            assert!(x <= 65_535 && y <= 65_535 && u64::from(x) * u64::from(y) >= workgroups, "{workgroups}");
        }
        assert_eq!(grid(65_535 * 65_535 + 1), None);
    }
}
